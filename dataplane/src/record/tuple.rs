//! Whose packet it is: addresses, and ports where there are some, as the decoder sees them.
//!
//! Runs wherever captures are read back. Total: any bytes give an answer or `None`; nothing is allocated.
//! The answer goes into listings and decides what `--host` selects.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::community;
use crate::decode::{Class, FlowKey, decode};
use crate::source::LinkType;

/// The 5-tuple of one packet, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
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

impl Endpoints {
    /// The same for packets of both directions.
    pub(super) fn either_way(self) -> Endpoints {
        let Endpoints { proto, src, sport, dst, dport } = self;
        match (src, sport) <= (dst, dport) {
            true => self,
            false => Endpoints { proto, src: dst, sport: dport, dst: src, dport: sport },
        }
    }
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

/// The 5-tuple of a packet, if it is IP and its headers are there.
pub fn endpoints(link: LinkType, bytes: &[u8]) -> Option<Endpoints> {
    let packet = decode(link, bytes, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let key = packet.key;
    if key == FlowKey::NONE {
        return None;
    }
    // ICMP's key holds an echo's identifier where others have ports.
    let port = |port| if packet.class == Class::Icmp { 0 } else { port };
    let low = (key.low_addr(), port(key.low_port));
    let high = (key.high_addr(), port(key.high_port));
    let ((src, sport), (dst, dport)) = if packet.from_low { (low, high) } else { (high, low) };
    Some(Endpoints { proto: key.proto, src, sport, dst, dport })
}

/// The Community ID of a packet's own addresses and ports, if it is IP.
pub fn community_id(link: LinkType, bytes: &[u8]) -> Option<String> {
    let ends = endpoints(link, bytes)?;
    let packet = decode(link, bytes, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let icmp = [packet.icmp.kind, packet.icmp.code];
    Some(community::of(ends.proto, (ends.src, ends.sport), (ends.dst, ends.dport), icmp))
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
        bytes.extend([17, 0, 0, 1, 0, 0, 0, 9, 0, 53, 1, 0, 0, 8, 0, 0]);
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
