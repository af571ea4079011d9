//! How much of a packet may be kept: what history, holds and captures on demand get of it, whatever of it was analysed.
//! Worker's thread; plain slices. Without a limit on payload this costs a branch a packet.

use super::engine::Engine;
use crate::decode::{Class, Packet, Part};

/// Bytes kept of what is not decoded: a link layer's header and little more.
const UNDECODED: usize = 20;
/// ARP behind Ethernet's header and two tags.
const ARP: [(usize, usize); 3] = [(12, 42), (16, 46), (20, 50)];
/// Ethernet's header, a tag and an IPv4 header.
const IP: usize = 38;

impl Engine {
    /// Of a packet's bytes, those that may be kept.
    #[inline(always)]
    pub(super) fn kept<'a>(&self, packet: &Packet, bytes: &'a [u8]) -> &'a [u8] {
        let bytes = &bytes[..bytes.len().min(self.snap)];
        match self.payload {
            None => bytes,
            Some(most) => cut(packet, bytes, most as usize),
        }
    }
}

#[cold]
fn cut<'a>(packet: &Packet, bytes: &'a [u8], payload: usize) -> &'a [u8] {
    let most = payload_at(packet, bytes).saturating_add(payload);
    bytes.get(..most).unwrap_or(bytes)
}

/// Where what the packet carries begins: behind the last header that is decoded. An error's quote of a header is none of
/// its payload.
fn payload_at(packet: &Packet, bytes: &[u8]) -> usize {
    let fragment = &packet.fragment;
    let headers = usize::from(packet.headers);
    if fragment.part == Part::Later && fragment.depth == packet.depth {
        return (usize::from(fragment.at) + packet.ip_len as usize).saturating_sub(usize::from(fragment.len));
    }
    match packet.class {
        Class::NonIp if packet.depth == 0 => {
            let arp = ARP.iter().find(|(at, _)| bytes.get(*at..at + 2) == Some(&[8, 6]));
            headers.min(arp.map_or(UNDECODED, |(_, end)| *end))
        }
        Class::Malformed if packet.depth == 0 => headers.min(IP),
        Class::Icmp if packet.icmp.quote.is_some() => {
            let first = bytes.get(headers).copied().unwrap_or(0);
            // Of the quoted packet its IP header and eight bytes more: ports and sequence number.
            headers + 8 + if first >> 4 == 6 { 40 } else { usize::from(first & 15) * 4 }
        }
        _ => headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;
    use crate::decode::flags::ACK;
    use crate::decode::frames::Seg;
    use crate::source::LinkType;

    fn kept(bytes: &[u8], payload: usize) -> usize {
        let link = if bytes[0] >> 4 == 4 || bytes[0] >> 4 == 6 { LinkType::Raw } else { LinkType::Ethernet };
        let packet = decode(link, bytes, bytes.len() as u32);
        cut(&packet, bytes, payload).len()
    }

    #[test]
    fn headers_stay_and_so_much_of_the_payload() {
        let tcp = [Seg::new(true, ACK, 1, 1).ip(), vec![0xEE; 0]].concat();
        let mut full = [&tcp[..], &[0xEE; 100]].concat();
        let len = full.len() as u16;
        full[2..4].copy_from_slice(&len.to_be_bytes());
        assert_eq!(kept(&full, 0), tcp.len());
        assert_eq!(kept(&full, 7), tcp.len() + 7);
        assert_eq!(kept(&full, usize::MAX), full.len());
        // Its later fragment has payload from the end of the IP header on.
        let mut later = full.clone();
        later[6..8].copy_from_slice(&0x0003_u16.to_be_bytes());
        assert_eq!(kept(&later, 0), usize::from(later[0] & 15) * 4);
        // An ICMP error keeps the header it quotes; an echo none of its data.
        let header = [0x45, 0, 0, 128, 0, 1, 0, 0, 64, 1, 0, 0, 10, 9, 9, 9, 10, 0, 0, 1];
        let icmp = |kind: u8| [&header[..], &[kind, 1, 0, 0, 0, 0, 0, 0], &full[..100]].concat();
        assert_eq!((kept(&icmp(3), 0), kept(&icmp(8), 0)), (56, 28));
    }

    #[test]
    fn what_is_not_decoded_shows_its_beginning_only() {
        let frame = |ethertype: [u8; 2]| [&[2; 12][..], &ethertype, &[0xEE; 200]].concat();
        assert_eq!((kept(&frame([8, 6]), 0), kept(&frame([0x88, 0xcc]), 0)), (42, UNDECODED));
        assert_eq!(kept(&frame([8, 0]), 0), IP, "no IP header");
    }
}
