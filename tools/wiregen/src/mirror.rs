//! What a network and a mirror port do to frames that were rendered whole: split them, deliver them twice.
//!
//! Runs wherever packets are made; keeps no state. Takes a finished frame and gives others, checksums valid.
//! Frames go back to the world that renders them.

use crate::encap::{ip, ip_len};
use crate::packet::{fold, sum};

/// The frame as it passes the mirror a second time, a hop further on: other MAC addresses, TTL one less, and no VLAN
/// tag where there was one.
pub fn next_hop(frame: &[u8]) -> Vec<u8> {
    let Some((at, six)) = ip(frame) else { return frame.to_vec() };
    let mut out = vec![2, 0, 0x5e, 0x60, 0, 2, 2, 0, 0x5e, 0x60, 0, 1];
    out.extend_from_slice(&frame[at - 2..]);
    let packet = &mut out[14..];
    if six {
        packet[7] = packet[7].saturating_sub(1);
    } else {
        packet[8] = packet[8].saturating_sub(1);
        checksum(packet);
    }
    out
}

fn checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let check = fold(sum(0, &packet[..20]));
    packet[10..12].copy_from_slice(&check.to_be_bytes());
}

/// The frame's packet in fragments of at most `most` bytes of data, a multiple of 8; the frame itself if it fits.
/// `id` is that of an IPv6 packet, which has none before it is split (RFC 8200 §4.5).
pub fn fragments(frame: &[u8], most: usize, id: u32) -> Vec<Vec<u8>> {
    let Some((at, six)) = ip(frame) else { return vec![frame.to_vec()] };
    let header = if six { 40 } else { 20 };
    let data = &frame[at + header..at + ip_len(&frame[at..], six)];
    if data.len() <= most {
        return vec![frame.to_vec()];
    }
    let pieces = data.chunks(most).enumerate();
    pieces
        .map(|(i, piece)| {
            let (offset, more) = (i * most, (i + 1) * most < data.len());
            let mut out = frame[..at + header].to_vec();
            let packet = &mut out[at..];
            if six {
                packet[4..6].copy_from_slice(&((piece.len() + 8) as u16).to_be_bytes());
                let next = std::mem::replace(&mut packet[6], 44);
                let [high, low] = (offset as u16 | u16::from(more)).to_be_bytes();
                out.extend_from_slice(&[next, 0, high, low]);
                out.extend_from_slice(&id.to_be_bytes());
            } else {
                packet[2..4].copy_from_slice(&((piece.len() + 20) as u16).to_be_bytes());
                let field = (offset / 8) as u16 | u16::from(more) << 13;
                packet[6..8].copy_from_slice(&field.to_be_bytes());
                checksum(packet);
            }
            out.extend_from_slice(piece);
            out
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, Ethernet, Ip};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn frame(six: bool, vlan: [u16; 2]) -> Vec<u8> {
        let address = |n: u16| match six {
            true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)),
            false => IpAddr::V4(Ipv4Addr::new(10, 0, 0, n as u8)),
        };
        let ip = Ip { src: address(1), dst: address(2), ttl: 64, id: 7, dont_fragment: false };
        let mut out = Vec::new();
        packet::udp(&mut out, &Ethernet { src: [2; 6], dst: [4; 6], vlan }, &ip, 5, 6, &[7; 1000]);
        out
    }

    #[test]
    fn fragments_hold_all_data_once() {
        for six in [false, true] {
            let whole = frame(six, [3, 4]);
            let (at, header) = (22, if six { 48 } else { 20 });
            let parts = fragments(&whole, 400, 9);
            let data: Vec<u8> = parts.iter().flat_map(|part| part[at + header..].to_vec()).collect();
            assert_eq!((parts.len(), &data[..]), (3, &whole[at + if six { 40 } else { 20 }..]));
            for part in &parts {
                assert_eq!(ip_len(&part[at..], six), part.len() - at);
                assert!(six || fold(sum(0, &part[at..at + 20])) == 0);
            }
            assert_eq!(fragments(&whole, 2000, 9), [whole]);
        }
    }

    #[test]
    fn the_next_hop_changes_the_way_and_not_the_packet() {
        let next = next_hop(&frame(false, [3, 4]));
        let seen = crate::check::read(&next).unwrap();
        assert_eq!((seen.vlan, seen.ttl, seen.sport), ([0, 0], 63, 5));
        let six = next_hop(&frame(true, [0, 0]));
        assert_eq!(crate::check::read(&six).unwrap().ttl, 63);
    }
}
