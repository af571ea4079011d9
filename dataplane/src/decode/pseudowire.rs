//! What lies behind the last MPLS label: IP, or an Ethernet frame with a control word or without one. Worker's thread; no
//! allocation, no panic. Off the common path. Goes on to `link` or `net`; what leads to no IP leaves the packet `NonIp`.
//!
//! Nothing in a label says which it is. The first nibble of IP is its version, and a control word's is 0 (RFC 4385), but a
//! frame without one begins with a MAC address, which may be anything. It is known by the header in it, whose own sums
//! must be right; where that is cut off nothing is said, so that more bytes never say otherwise.

use super::bytes::{after, u8_at, u16_at};
use super::link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ethernet, is_tag};
use super::net;
use super::packet::{Class, Packet};
use super::shim::ETHERTYPE_PPPOE_SESSION;

/// Tags looked through.
const MAX_TAGS: usize = 2;
/// What the shortest frame carries, filled up if need be (IEEE 802.3).
const SHORTEST: usize = 46;

#[cold]
#[inline(never)]
pub(super) fn decode(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    let announces_ip = |at: usize| u16_at(bytes, at + 12).is_some_and(carries_ip);
    match (is_frame(bytes, at, end), u8_at(bytes, at).map(|first| first >> 4)) {
        (None, _) => packet.class = Class::Malformed,
        (Some(true), _) => ethernet(bytes, at, end, packet),
        (_, Some(4)) => net::ipv4(bytes, at, end, packet),
        (_, Some(6)) => net::ipv6(bytes, at, end, packet),
        (_, Some(0)) if announces_ip(at + 4) => ethernet(bytes, at + 4, end, packet),
        _ if announces_ip(at) => ethernet(bytes, at, end, packet),
        _ => {}
    }
}

/// An EtherType under which IP may be.
fn carries_ip(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6 | ETHERTYPE_PPPOE_SESSION) || is_tag(ethertype)
}

/// Whether the header behind the EtherType is what that says; `None`: it was cut off.
fn is_frame(bytes: &[u8], at: usize, end: usize) -> Option<bool> {
    let mut at = at + 12;
    for _ in 0..=MAX_TAGS {
        if at + 2 >= end {
            return Some(false);
        }
        let ethertype = u16_at(bytes, at)?;
        let (inner, left) = (after(bytes, at + 2), end - (at + 2));
        let len = match ethertype {
            ETHERTYPE_IPV4 => usize::from(inner.first()? & 0x0f).max(5) * 4,
            ETHERTYPE_IPV6 => 40,
            // With the number of what it carries.
            ETHERTYPE_PPPOE_SESSION => 8,
            tag if is_tag(tag) => {
                at += 4;
                continue;
            }
            _ => return Some(false),
        };
        if len > left {
            return Some(false);
        }
        let header = inner.get(..len)?;
        return Some(match ethertype {
            ETHERTYPE_IPV4 => header[0] >> 4 == 4 && length(header, 2) <= left && sum(header) == 0xffff,
            ETHERTYPE_IPV6 => header[0] >> 4 == 6 && fills(40 + length(header, 4), left),
            _ => {
                let carries_ip = matches!(header[6..], [0, 0x21 | 0x57]);
                header.starts_with(&[0x11, 0]) && carries_ip && fills(6 + length(header, 4), left)
            }
        });
    }
    Some(false)
}

fn length(header: &[u8], at: usize) -> usize {
    u16_at(header, at).map_or(0, usize::from)
}

/// It is all there is, but for padding.
fn fills(len: usize, left: usize) -> bool {
    len == left || len < left && left <= SHORTEST
}

/// The Internet checksum's sum (RFC 1071): all ones over a header that is right.
fn sum(header: &[u8]) -> u32 {
    let words = header.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}

#[cfg(test)]
mod tests {
    use super::super::frames::Seg;
    use super::super::{Packet, decode, flags};
    use super::*;
    use crate::source::LinkType;

    const BEHIND_A_LABEL: [u8; 18] = [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0x88, 0x47, 0, 1, 0x01, 64];

    fn of(behind: &[u8]) -> Packet {
        let bytes = [&BEHIND_A_LABEL, behind].concat();
        let whole = decode(LinkType::Ethernet, &bytes, bytes.len() as u32);
        for cut in 0..bytes.len() {
            let part = decode(LinkType::Ethernet, &bytes[..cut], bytes.len() as u32);
            assert!(!part.has_flow || part.key == whole.key, "cut at {cut}: {part:?}\n{whole:?}");
        }
        whole
    }

    /// With the checksum right, from an address.
    fn ipv4(from: [u8; 4]) -> Vec<u8> {
        let mut ip = Seg::new(true, flags::SYN, 5, 9).data(10).ip();
        ip[12..16].copy_from_slice(&from);
        let [high, low] = (!(sum(&ip[..20]) as u16)).to_be_bytes();
        ip[10..12].copy_from_slice(&[high, low]);
        ip
    }

    fn ipv6() -> Vec<u8> {
        let tcp = &ipv4([10, 0, 0, 1])[20..];
        [&[0x60, 0, 0, 0, 0, tcp.len() as u8, 6, 64][..], &[0x20; 16], &[0x21; 16], tcp].concat()
    }

    #[test]
    fn a_frame_is_one_whatever_its_address_begins_with() {
        let (four, six) = (ipv4([10, 0, 0, 1]), ipv6());
        let session = |ip: &[u8]| [&[0x11, 0, 0, 9, 0, ip.len() as u8 + 2, 0, 0x21], ip].concat();
        let inside: [(&[u8], Vec<u8>); 5] = [
            (&[8, 0], four.clone()),
            (&[0x86, 0xdd], six),
            (&[0x81, 0, 0, 7, 8, 0], four.clone()),
            (&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 7, 8, 0], four.clone()),
            (&[0x88, 0x64], session(&four)),
        ];
        // Locally administered, of some makers, and those that look like IP's versions and a control word.
        for first in [0x00, 0x02, 0x45, 0x4e, 0x62, 0x66, 0x9c, 0xfe] {
            for (kind, ip) in &inside {
                let frame = [&[first, 0, 0, 1, 2, 3], &[0, 0, 0, 9, 9, 9][..], kind, ip].concat();
                assert_eq!(of(&frame).class, Class::Tcp, "{first:#x}, {kind:x?}");
                let word = [&[0, 0, 0, 5], &frame[..]].concat();
                assert_eq!(of(&word).class, Class::Tcp, "control word, {first:#x}, {kind:x?}");
            }
        }
    }

    #[test]
    fn ip_is_ip_though_its_source_looks_like_an_ethertype() {
        for from in [[8, 0, 69, 1], [129, 0, 8, 0], [134, 221, 0x60, 1], [136, 100, 0x11, 0]] {
            let ip = ipv4(from);
            let bare = decode(LinkType::Raw, &ip, ip.len() as u32);
            assert_eq!((of(&ip).class, of(&ip).key), (Class::Tcp, bare.key));
        }
    }

    /// IPv6 by its first nibble whose extension headers go on for long; in the middle of what was cut off there, IPv4 in a
    /// frame seemed to be.
    #[test]
    fn what_is_cut_off_in_extension_headers_is_no_frame() {
        let mut six = [&[0x61][..], &[0x61; 5], &[0, 0x61], &[0x61; 4]].concat();
        six.extend([8, 0, 0x45, 0, 0, 0x68, 0, 0, 0x40, 0, 0x3f, 17]);
        six.extend([0x95; 16]);
        six.extend([17, 28]);
        six.resize(40 + 232, 0x11);
        six.extend([0, 53, 0, 54, 0, 20, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(of(&six).class, Class::Udp);
    }
}
