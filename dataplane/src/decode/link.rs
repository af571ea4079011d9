//! Link layers and VLAN tags, down to an EtherType. Worker's thread; no allocation, no panic. Goes on to `net`.
//! Reads every field behind a length check; a link layer not known here leaves the packet `NonIp`.

use super::bytes::{after, u8_at, u16_at, u32_at};
use super::net;
use super::packet::{Class, Packet};
use crate::source::LinkType;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Tags looked through before giving up: stacks deeper than this are not made by working equipment.
const MAX_VLAN_TAGS: u8 = 8;

pub(super) fn decode(link: LinkType, bytes: &[u8], packet: &mut Packet) {
    let (ethertype, at) = match link {
        LinkType::Ethernet => (u16_at(bytes, 12), 14),
        // <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html>
        LinkType::LinuxSll => (u16_at(bytes, 14), 16),
        // <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>
        LinkType::LinuxSll2 => (u16_at(bytes, 0), 20),
        LinkType::Raw => (ip_version(bytes, 0), 0),
        LinkType::Null | LinkType::Loop => (null_family(bytes), 4),
        LinkType::Other(_) => return,
    };
    let Some(ethertype) = ethertype else {
        packet.class = Class::Malformed;
        return;
    };
    let (ethertype, at) = skip_vlan(bytes, ethertype, at, packet);
    match ethertype {
        Some(ETHERTYPE_IPV4) => net::ipv4(bytes, at, packet),
        Some(ETHERTYPE_IPV6) => net::ipv6(bytes, at, packet),
        Some(_) => packet.class = Class::NonIp,
        None => packet.class = Class::Malformed,
    }
}

/// 802.1Q, 802.1ad, and the two pre-standard QinQ values still seen.
#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100 | 0x9200)
}

#[inline]
fn skip_vlan(bytes: &[u8], first: u16, mut at: usize, packet: &mut Packet) -> (Option<u16>, usize) {
    let mut ethertype = first;
    while is_vlan(ethertype) && packet.vlan_depth < MAX_VLAN_TAGS {
        let (Some(tag), Some(next)) = (u16_at(bytes, at), u16_at(bytes, at + 2)) else {
            return (None, at);
        };
        if let Some(slot) = packet.vlan.get_mut(usize::from(packet.vlan_depth)) {
            *slot = tag & 0x0fff;
        }
        packet.vlan_depth += 1;
        ethertype = next;
        at += 4;
    }
    (Some(ethertype), at)
}

fn ip_version(bytes: &[u8], at: usize) -> Option<u16> {
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
