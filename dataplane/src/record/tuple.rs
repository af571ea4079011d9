//! Whose packet it is: addresses, and ports where there are some, of the outermost IP header.
//!
//! Runs wherever captures are read back. Total: any bytes give an answer or `None`; nothing is allocated.
//! The answer goes into listings and decides what `--host` selects.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::source::LinkType;

/// The 5-tuple of one packet, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// IP protocol number; serialised by name where it has one here.
    #[serde(serialize_with = "proto_name")]
    pub proto: u8,
    pub src: IpAddr,
    /// 0 where the protocol has no ports or the packet doesn't show them.
    pub sport: u16,
    pub dst: IpAddr,
    pub dport: u16,
}

fn proto_name<S: Serializer>(proto: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    match proto {
        1 => serializer.serialize_str("icmp"),
        6 => serializer.serialize_str("tcp"),
        17 => serializer.serialize_str("udp"),
        58 => serializer.serialize_str("icmpv6"),
        132 => serializer.serialize_str("sctp"),
        other => serializer.collect_str(other),
    }
}

/// Source and destination of a packet, if it is IP.
pub fn addresses(link: LinkType, bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    endpoints(link, bytes).map(|e| (e.src, e.dst))
}

/// The 5-tuple of a packet, if it is IP.
pub fn endpoints(link: LinkType, bytes: &[u8]) -> Option<Endpoints> {
    match link {
        LinkType::Ethernet => after_ethertype(bytes.get(12..)?),
        LinkType::LinuxSll => after_ethertype(bytes.get(14..)?),
        LinkType::LinuxSll2 => ip(bytes.get(20..)?),
        LinkType::Null | LinkType::Loop => ip(bytes.get(4..)?),
        LinkType::Raw => ip(bytes),
        LinkType::Other(_) => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

/// From an EtherType on, past any VLAN tags (IEEE 802.1Q, 802.1ad).
fn after_ethertype(mut bytes: &[u8]) -> Option<Endpoints> {
    loop {
        match u16_at(bytes, 0)? {
            0x8100 | 0x88A8 | 0x9100 => bytes = bytes.get(4..)?,
            0x0800 | 0x86DD => return ip(bytes.get(2..)?),
            _ => return None,
        }
    }
}

fn ip(bytes: &[u8]) -> Option<Endpoints> {
    match bytes.first()? >> 4 {
        4 => {
            let header = bytes.get(..20)?;
            let src: [u8; 4] = header[12..16].try_into().ok()?;
            let dst: [u8; 4] = header[16..20].try_into().ok()?;
            let first = u16_at(header, 6)? & 0x1FFF == 0;
            let length = usize::from(header[0] & 0x0F) * 4;
            let ports = if first { bytes.get(length.max(20)..) } else { None };
            Some(with_ports(header[9], src.into(), dst.into(), ports))
        }
        6 => {
            let header = bytes.get(..40)?;
            let src: [u8; 16] = header[8..24].try_into().ok()?;
            let dst: [u8; 16] = header[24..40].try_into().ok()?;
            let (proto, rest) = past_extensions(header[6], &bytes[40..]);
            Some(with_ports(proto, src.into(), dst.into(), rest))
        }
        _ => None,
    }
}

/// Skips IPv6 extension headers (RFC 8200, section 4). The rest is `None` where no transport header follows.
fn past_extensions(mut proto: u8, mut bytes: &[u8]) -> (u8, Option<&[u8]>) {
    loop {
        let (Some(&next), Some(&len)) = (bytes.first(), bytes.get(1)) else { return (proto, None) };
        let skip = match proto {
            0 | 43 | 60 => usize::from(len) * 8 + 8,
            44 if u16_at(bytes, 2).is_none_or(|fragment| fragment & 0xFFF8 != 0) => return (next, None),
            44 => 8,
            _ => return (proto, Some(bytes)),
        };
        let Some(rest) = bytes.get(skip..) else { return (next, None) };
        (proto, bytes) = (next, rest);
    }
}

fn with_ports(proto: u8, src: IpAddr, dst: IpAddr, rest: Option<&[u8]>) -> Endpoints {
    let has_ports = matches!(proto, 6 | 17 | 132);
    let port = |at| rest.filter(|_| has_ports).and_then(|r| u16_at(r, at)).unwrap_or(0);
    Endpoints { proto, src, sport: port(0), dst, dport: port(2) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Dice, frame};
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_same_packet_in_every_frame() {
        let ethernet = frame(1, 2, 5);
        let ip = &ethernet[14..];
        let expected = Endpoints { proto: 6, src: v4(1), sport: 0x9C01, dst: v4(2), dport: 443 };
        let with = |head: &[u8]| [head, ip].concat();
        let sll2 = [&[8, 0][..], &[0; 18]].concat();
        for (link, bytes) in [
            (LinkType::Ethernet, ethernet.clone()),
            (LinkType::Ethernet, with(&[&[0u8; 12][..], &[0x88, 0xA8, 0, 7, 0x81, 0, 0, 9, 8, 0]].concat())),
            (LinkType::LinuxSll, with(&[&[0u8; 14][..], &[8, 0]].concat())),
            (LinkType::LinuxSll2, with(&sll2)),
            (LinkType::Raw, with(&[])),
            (LinkType::Null, with(&[2, 0, 0, 0])),
        ] {
            assert_eq!(endpoints(link, &bytes), Some(expected), "{link:?}");
        }
        assert_eq!(endpoints(LinkType::Other(147), &ethernet), None);
    }

    #[test]
    fn ipv6_past_extension_headers_and_fragments_without_ports() {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
        let (src, dst) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        for address in [src, dst] {
            let IpAddr::V6(v6) = address else { unreachable!() };
            bytes.extend(v6.octets());
        }
        bytes.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        let fragment = bytes.len();
        bytes.extend([17, 0, 0, 1, 0, 0, 0, 9, 0, 53, 1, 0]);
        let first = Endpoints { proto: 17, src, sport: 53, dst, dport: 256 };
        assert_eq!(endpoints(LinkType::Raw, &bytes), Some(first));
        bytes[fragment + 3] = 8;
        assert_eq!(endpoints(LinkType::Raw, &bytes), Some(Endpoints { sport: 0, dport: 0, ..first }));
    }

    #[test]
    fn any_bytes_give_an_answer() {
        let mut dice = Dice(99);
        let links =
            [LinkType::Ethernet, LinkType::LinuxSll, LinkType::LinuxSll2, LinkType::Raw, LinkType::Null];
        for _ in 0..20_000 {
            let mut bytes = frame(1, 2, 20);
            for _ in 0..4 {
                let at = dice.roll(bytes.len() as u64) as usize;
                bytes[at] = dice.roll(256) as u8;
            }
            bytes.truncate(dice.roll(bytes.len() as u64) as usize);
            for link in links {
                let _ = addresses(link, &bytes);
            }
        }
    }
}
