//! Link layers and VLAN tags, down to an EtherType. Worker's thread; no allocation, no panic. Goes on to `net`,
//! or through `shim` (labels, PPP, LLC, 802.11) to it.
//! Reads every field behind a length check; a link layer not known here leaves the packet `NonIp`.

use super::bytes::{after, u8_at, u16_at, u32_at};
use super::packet::{Class, Packet};
use super::{net, shim};
use crate::source::LinkType;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Tags looked through before giving up: stacks deeper than this are not made by working equipment.
const MAX_TAGS: usize = 8;

/// Decodes a captured packet; `end` is its length on the wire.
#[inline]
pub(super) fn decode(link: LinkType, bytes: &[u8], end: usize, packet: &mut Packet) {
    let (ethertype, at) = match link {
        LinkType::Ethernet => (u16_at(bytes, 12), 14),
        // <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html>; below 0x0600 it is no EtherType.
        LinkType::LinuxSll => (u16_at(bytes, 14), 16),
        // <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>
        LinkType::LinuxSll2 => (u16_at(bytes, 0), 20),
        LinkType::Raw => (ip_version(bytes, 0), 0),
        LinkType::Null | LinkType::Loop => (null_family(bytes), 4),
        other => return shim::link(other, bytes, end, packet),
    };
    match ethertype {
        Some(ethertype) => by_ethertype(bytes, ethertype, at, end, packet),
        None => packet.class = Class::Malformed,
    }
}

/// Decodes from an Ethernet header at `at`: that of a frame carried in a tunnel.
pub(super) fn ethernet(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    match u16_at(bytes, at + 12) {
        Some(ethertype) => by_ethertype(bytes, ethertype, at + 14, end, packet),
        None => packet.class = Class::Malformed,
    }
}

/// Decodes what an EtherType announces at `at`, behind any VLAN tags; `end` is where it ends on the wire.
#[inline]
pub(super) fn by_ethertype(bytes: &[u8], ethertype: u16, at: usize, end: usize, packet: &mut Packet) {
    let (ethertype, at) = if is_tag(ethertype) {
        let Some(behind) = skip_tags(bytes, ethertype, at, packet) else {
            packet.class = Class::Malformed;
            return;
        };
        behind
    } else {
        (ethertype, at)
    };
    match ethertype {
        ETHERTYPE_IPV4 => net::ipv4(bytes, at, end, packet),
        ETHERTYPE_IPV6 => net::ipv6(bytes, at, end, packet),
        other => shim::decode(bytes, other, at, end, packet),
    }
}

/// 802.1Q, 802.1ad, and the two pre-standard QinQ values still seen.
#[inline(always)]
pub(super) fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100 | 0x9200)
}

/// Reads the tags of one frame; those of a frame around it are forgotten.
#[inline]
fn skip_tags(bytes: &[u8], first: u16, mut at: usize, packet: &mut Packet) -> Option<(u16, usize)> {
    let mut ethertype = first;
    let mut depth = 0;
    packet.vlan = [0; 2];
    while is_tag(ethertype) && depth < MAX_TAGS {
        let tag = u16_at(bytes, at)?;
        ethertype = u16_at(bytes, at + 2)?;
        if let Some(slot) = packet.vlan.get_mut(depth) {
            *slot = tag & 0x0fff;
        }
        depth += 1;
        at += 4;
    }
    packet.vlan_depth = depth as u8;
    Some((ethertype, at))
}

/// The EtherType that stands for the version of the IP header at `at`.
pub(super) fn ip_version(bytes: &[u8], at: usize) -> Option<u16> {
    match u8_at(bytes, at)? >> 4 {
        4 => Some(ETHERTYPE_IPV4),
        6 => Some(ETHERTYPE_IPV6),
        _ => None,
    }
}

/// The address family is in the capturing host's byte order, which the file does not tell: the value is
/// small, so whichever order makes it small is right. AF_INET6 differs between systems (10, 24, 28, 30).
fn null_family(bytes: &[u8]) -> Option<u16> {
    let family = u32_at(bytes, 0)?;
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    match family {
        2 => Some(ETHERTYPE_IPV4),
        10 | 24 | 28 | 30 => Some(ETHERTYPE_IPV6),
        _ if after(bytes, 4).is_empty() => None,
        _ => Some(0),
    }
}
