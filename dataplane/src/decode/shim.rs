//! What lies between a link and IP: MPLS labels, PPPoE and PPP, LLC / SNAP, 802.11. Worker's thread; no
//! allocation, no panic. Off the common path: called only for an EtherType or link that is not IP's. Goes on
//! to `link` or `net`; what leads to no IP leaves the packet `NonIp`.

use super::bytes::{after, u8_at, u16_at};
use super::link::{by_ethertype, ethernet, ip_version};
use super::net;
use super::packet::{Class, Packet};
use super::pseudowire;
use super::tunnel::enter;
use super::tunnel_kind::{Tunnel, TunnelKind};
use crate::source::LinkType;

pub(super) const ETHERTYPE_PPP: u16 = 0x880b;
const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_MULTICAST: u16 = 0x8848;
pub(super) const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
/// A frame in a frame (RFC 1701's "transparent Ethernet bridging").
const ETHERTYPE_BRIDGED: u16 = 0x6558;
/// In Linux "cooked" captures: an LLC header follows.
const SLL_LLC: u16 = 4;
/// A smaller number in the place of an EtherType is a length (IEEE 802.3).
const SMALLEST_ETHERTYPE: u16 = 0x0600;
/// Labels looked through: deeper stacks are not made by working equipment.
const MAX_LABELS: usize = 16;

/// A link layer that is neither Ethernet's nor next to IP.
#[cold]
#[inline(never)]
pub(super) fn link(link: LinkType, bytes: &[u8], end: usize, packet: &mut Packet) {
    match link {
        LinkType::Ppp => ppp(bytes, 0, end, packet),
        LinkType::PppEther => pppoe(bytes, 0, end, packet),
        // Address, control, then an EtherType (RFC 1547's predecessor, as Cisco has it).
        LinkType::CiscoHdlc => match u16_at(bytes, 2) {
            Some(ethertype) => by_ethertype(bytes, ethertype, 4, end, packet),
            None => packet.class = Class::Malformed,
        },
        LinkType::Ieee80211 => wlan(bytes, 0, end, packet),
        // <https://www.radiotap.org>: version, pad, length in little endian.
        LinkType::Radiotap => match (u8_at(bytes, 2), u8_at(bytes, 3)) {
            (Some(low), Some(high)) => {
                wlan(bytes, usize::from(u16::from_le_bytes([low, high])), end, packet);
            }
            _ => packet.class = Class::Malformed,
        },
        _ => {}
    }
}

/// What an EtherType other than IP's announces.
#[cold]
#[inline(never)]
pub(super) fn decode(bytes: &[u8], ethertype: u16, at: usize, end: usize, packet: &mut Packet) {
    packet.class = Class::NonIp;
    match ethertype {
        ETHERTYPE_MPLS | ETHERTYPE_MPLS_MULTICAST => mpls(bytes, at, end, packet),
        ETHERTYPE_PPPOE_SESSION => pppoe(bytes, at, end, packet),
        ETHERTYPE_PPP => ppp(bytes, at, end, packet),
        ETHERTYPE_BRIDGED => enter(packet, Tunnel::default(), |packet| ethernet(bytes, at, end, packet)),
        SLL_LLC => llc(bytes, at, end, packet),
        length if length < SMALLEST_ETHERTYPE => llc(bytes, at, end.min(at + usize::from(length)), packet),
        _ => {}
    }
}

/// A label stack (RFC 3032).
pub(super) fn mpls(bytes: &[u8], mut at: usize, end: usize, packet: &mut Packet) {
    let mut named = 0;
    let mut entropy_follows = false;
    for _ in 0..MAX_LABELS {
        let (Some(high), Some(low)) = (u16_at(bytes, at), u16_at(bytes, at + 2)) else { return };
        let label = u32::from(high) << 4 | u32::from(low >> 12);
        at += 4;
        // The lowest label is the service's; one that only spreads load (RFC 6790) differs by flow.
        if !entropy_follows && (label >= 16 || named == 0) {
            named = label;
        }
        entropy_follows = label == 7;
        if low & 0x0100 != 0 {
            let note = Tunnel { kind: TunnelKind::Mpls, id: named };
            enter(packet, note, |packet| pseudowire::decode(bytes, at, end, packet));
            return;
        }
    }
}

/// RFC 2516: version and type, code 0 for a session's data, session id, length.
fn pppoe(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    let Some(&[0x11, 0, id_high, id_low, high, low]) = after(bytes, at).first_chunk::<6>() else { return };
    let note = Tunnel { kind: TunnelKind::Pppoe, id: u32::from(u16::from_be_bytes([id_high, id_low])) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let end = if length == 0 { end } else { end.min(at + 6 + length) };
    enter(packet, note, |packet| ppp(bytes, at + 6, end, packet));
}

/// RFC 1661: the protocol field, perhaps compressed to a byte (§6.5) and behind HDLC's two (RFC 1662 §3.1).
pub(super) fn ppp(bytes: &[u8], mut at: usize, end: usize, packet: &mut Packet) {
    if u16_at(bytes, at) == Some(0xff03) {
        at += 2;
    }
    let Some(first) = u8_at(bytes, at) else { return };
    // A protocol number's last bit is set, and no other byte's (RFC 1661 §2).
    let (protocol, at) = if first & 1 != 0 {
        (u16::from(first), at + 1)
    } else {
        let Some(protocol) = u16_at(bytes, at) else { return };
        (protocol, at + 2)
    };
    match protocol {
        0x0021 => net::ipv4(bytes, at, end, packet),
        0x0057 => net::ipv6(bytes, at, end, packet),
        0x0281 | 0x0283 => mpls(bytes, at, end, packet),
        _ => {}
    }
}

/// IEEE 802.2: SNAP with an EtherType of its own (RFC 1042), or IP's own SAP.
fn llc(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    match *after(bytes, at) {
        // The organisation is 0, or 0xf8 for bridging across 802.11 (IEEE 802.1H).
        [0xaa, 0xaa, 3, 0, 0, 0 | 0xf8, high, low, ..] => {
            let ethertype = u16::from_be_bytes([high, low]);
            // As if it were a tunnel: LLC in LLC must have an end, too.
            enter(packet, Tunnel::default(), |packet| by_ethertype(bytes, ethertype, at + 8, end, packet));
        }
        [6, 6, 3, ..] => {
            if let Some(ethertype) = ip_version(bytes, at + 3) {
                by_ethertype(bytes, ethertype, at + 3, end, packet);
            }
        }
        _ => {}
    }
}

/// An 802.11 data frame (IEEE 802.11 §9.3.2) that is not encrypted.
pub(super) fn wlan(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    let (Some(control), Some(flags)) = (u8_at(bytes, at), u8_at(bytes, at + 1)) else { return };
    let (data, protected, subtype) = (control & 0x0c == 0x08, flags & 0x40 != 0, control >> 4);
    // A subtype with bit 2 set carries no data; the version in the low two bits is 0.
    if !data || protected || subtype & 4 != 0 || control & 3 != 0 {
        return;
    }
    let mut header = 24;
    if flags & 3 == 3 {
        // Between two access points: a fourth address.
        header += 6;
    }
    if subtype & 8 != 0 {
        header += if flags & 0x80 != 0 { 6 } else { 2 };
    }
    llc(bytes, at + header, end, packet);
}
