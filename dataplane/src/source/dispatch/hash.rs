//! Which worker a packet belongs to: by the addresses of its outermost IP header, the same for both directions, for all
//! fragments, and for a router's message about the packet.
//!
//! Worker's thread, for each packet while packets change hands; total on any bytes, never allocates. Not the decoder: it
//! looks no further than it must. One pair of hosts (of a tunnel: of its ends) is always one worker's.

use crate::source::LinkType;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// VLAN tags and MPLS labels looked through.
const MAX_SHIMS: usize = 16;
/// IPv6 extension headers looked through for an ICMP message.
const MAX_EXTENSIONS: usize = 4;

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// In the host's byte order: only that equal ones are equal matters.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number that is evenly spread and the same for all packets between two hosts; `None` if it is no IP packet, or cut
/// off before its addresses.
#[inline]
pub fn by_hosts(link: LinkType, bytes: &[u8]) -> Option<u32> {
    let (ethertype, at) = match link {
        LinkType::Ethernet => (u16_at(bytes, 12)?, 14),
        LinkType::Raw => (version(bytes, 0)?, 0),
        _ => return None,
    };
    match ethertype {
        IPV4 => v4(bytes, at),
        IPV6 => v6(bytes, at),
        other => behind_shims(bytes, other, at),
    }
}

/// The EtherType that stands for the version of the IP header at `at`.
fn version(bytes: &[u8], at: usize) -> Option<u16> {
    match u8_at(bytes, at)? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

/// Behind VLAN tags, MPLS labels, PPPoE, and a frame in labels.
#[cold]
fn behind_shims(bytes: &[u8], mut ethertype: u16, mut at: usize) -> Option<u32> {
    for _ in 0..MAX_SHIMS {
        match ethertype {
            IPV4 => return v4(bytes, at),
            IPV6 => return v6(bytes, at),
            0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
                ethertype = u16_at(bytes, at + 2)?;
                at += 4;
            }
            0x8847 | 0x8848 => {
                let last = u8_at(bytes, at + 2)? & 1 != 0;
                at += 4;
                if last {
                    (ethertype, at) = labelled(bytes, at)?;
                }
            }
            0x8864 => {
                // Version, code, session, length, and PPP's protocol.
                ethertype = match u16_at(bytes, at + 6)? {
                    0x0021 => IPV4,
                    0x0057 => IPV6,
                    _ => return None,
                };
                at += 8;
            }
            _ => return None,
        }
    }
    None
}

/// What follows the last label: IP, or a frame behind a control word or without one.
fn labelled(bytes: &[u8], at: usize) -> Option<(u16, usize)> {
    if let Some(ethertype) = version(bytes, at) {
        return Some((ethertype, at));
    }
    let at = if u8_at(bytes, at)? == 0 { at + 4 } else { at };
    Some((u16_at(bytes, at + 12)?, at + 14))
}

#[inline]
fn v4(bytes: &[u8], at: usize) -> Option<u32> {
    let (src, dst) = (u32_at(bytes, at + 12)?, u32_at(bytes, at + 16)?);
    if bytes.get(at + 9) == Some(&1)
        && let Some(quoted) = quoted_v4(bytes, at)
    {
        return Some(quoted);
    }
    Some(mix(u64::from(src ^ dst), u64::from(src).wrapping_add(u64::from(dst))))
}

/// An ICMP error belongs where the packet it quotes belongs.
#[cold]
fn quoted_v4(bytes: &[u8], at: usize) -> Option<u32> {
    let later_fragment = u16_at(bytes, at + 6)? & 0x1fff != 0;
    let icmp = at + usize::from(u8_at(bytes, at)? & 0xf) * 4;
    if later_fragment || !matches!(u8_at(bytes, icmp)?, 3 | 4 | 5 | 11 | 12) {
        return None;
    }
    let quote = icmp + 8;
    (version(bytes, quote)? == IPV4).then_some(())?;
    let (src, dst) = (u32_at(bytes, quote + 12)?, u32_at(bytes, quote + 16)?);
    Some(mix(u64::from(src ^ dst), u64::from(src).wrapping_add(u64::from(dst))))
}

#[inline]
fn v6(bytes: &[u8], at: usize) -> Option<u32> {
    let own = pair_v6(bytes, at)?;
    if matches!(bytes.get(at + 6), Some(&(0 | 43 | 58 | 60)))
        && let Some(quoted) = quoted_v6(bytes, at)
    {
        return Some(quoted);
    }
    Some(own)
}

fn pair_v6(bytes: &[u8], at: usize) -> Option<u32> {
    let folded = |at: usize| Some(u64_at(bytes, at)? ^ u64_at(bytes, at + 8)?.rotate_left(23));
    let (src, dst) = (folded(at + 8)?, folded(at + 24)?);
    Some(mix(src ^ dst, src.wrapping_add(dst)))
}

#[cold]
fn quoted_v6(bytes: &[u8], at: usize) -> Option<u32> {
    let (mut next, mut icmp) = (u8_at(bytes, at + 6)?, at + 40);
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, 0 | 43 | 60) {
            break;
        }
        let len = (usize::from(u8_at(bytes, icmp + 1)?) + 1) * 8;
        (next, icmp) = (u8_at(bytes, icmp)?, icmp + len);
    }
    if next != 58 || !matches!(u8_at(bytes, icmp)?, 1..=4) {
        return None;
    }
    (version(bytes, icmp + 8)? == IPV6).then_some(())?;
    pair_v6(bytes, icmp + 8)
}

/// Of what is the same for both directions.
#[inline]
fn mix(xor: u64, sum: u64) -> u32 {
    let mixed = (xor ^ sum.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

/// The worker of so many that a number falls to.
#[inline]
pub fn worker_of(hash: u32, workers: usize) -> usize {
    ((u64::from(hash) * workers as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4_header(src: [u8; 4], dst: [u8; 4], proto: u8) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, proto, 0, 0];
        bytes.extend(src.into_iter().chain(dst));
        bytes
    }

    fn v6_header(src: u8, dst: u8, next: u8) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 8, next, 64];
        for last in [src, dst] {
            bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        bytes
    }

    fn frame(shims: &[u8], ethertype: u16, packet: &[u8]) -> Vec<u8> {
        [&[2; 12], shims, &ethertype.to_be_bytes(), packet].concat()
    }

    fn of(frame: &[u8]) -> Option<u32> {
        by_hosts(LinkType::Ethernet, frame)
    }

    const A: [u8; 4] = [10, 1, 0, 1];
    const B: [u8; 4] = [10, 2, 0, 1];

    #[test]
    fn both_directions_all_fragments_and_any_shims_are_one_workers() {
        let there = of(&frame(&[], IPV4, &v4_header(A, B, 6))).unwrap();
        let back = v4_header(B, A, 6);
        assert_eq!(of(&frame(&[], IPV4, &back)), Some(there));
        assert_eq!(by_hosts(LinkType::Raw, &back), Some(there));
        assert_eq!(of(&frame(&[0x81, 0, 0, 7], IPV4, &back)), Some(there));
        assert_eq!(of(&frame(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7], IPV4, &back)), Some(there));
        let labels = [&[0, 0, 0x10, 0, 0, 0, 0x21, 64][..], &back].concat();
        let mut last = labels.clone();
        last[6] = 0x21;
        assert_eq!(of(&frame(&[], 0x8847, &last)), Some(there));
        let inner = [&[0, 0, 0x21, 64, 0, 0, 0, 0][..], &frame(&[], IPV4, &back)].concat();
        assert_eq!(of(&frame(&[], 0x8847, &inner)), Some(there), "a frame behind a control word");
        let session = [&[0x11, 0, 0, 1, 0, 62, 0, 0x21][..], &back].concat();
        assert_eq!(of(&frame(&[], 0x8864, &session)), Some(there));
        let mut fragment = v4_header(A, B, 6);
        (fragment[6], fragment[7]) = (0x00, 0xb9);
        assert_eq!(of(&frame(&[], IPV4, &fragment)), Some(there));
        let six = of(&frame(&[], IPV6, &v6_header(1, 2, 6))).unwrap();
        assert_eq!(of(&frame(&[], IPV6, &v6_header(2, 1, 44))), Some(six));
        assert_ne!(six, there);
    }

    #[test]
    fn an_icmp_error_goes_where_the_packet_it_quotes_goes() {
        const ROUTER: [u8; 4] = [192, 0, 2, 1];
        let flow = of(&frame(&[], IPV4, &v4_header(A, B, 6)));
        let error = |kind: u8| [v4_header(ROUTER, A, 1), vec![kind, 4, 0, 0, 0, 0, 0, 0], v4_header(A, B, 6)];
        assert_eq!(of(&frame(&[], IPV4, &error(3).concat())), flow);
        assert_ne!(of(&frame(&[], IPV4, &error(8).concat())), flow, "an echo quotes nothing");
        let own = of(&frame(&[], IPV4, &v4_header(ROUTER, A, 1)));
        assert_eq!(of(&frame(&[], IPV4, &error(3)[..2].concat())), own, "cut off before what it quotes");
        let six = of(&frame(&[], IPV6, &v6_header(1, 2, 6)));
        let quote = [vec![2, 0, 0, 0, 0, 0, 5, 0], v6_header(2, 1, 6)].concat();
        let direct = [v6_header(9, 1, 58), quote.clone()].concat();
        assert_eq!(of(&frame(&[], IPV6, &direct)), six);
        let hopped = [v6_header(9, 1, 0), vec![58, 0, 1, 4, 0, 0, 0, 0], quote].concat();
        assert_eq!(of(&frame(&[], IPV6, &hopped)), six);
    }

    #[test]
    fn what_is_no_ip_or_cut_short_is_nobodys() {
        let whole = frame(&[0x81, 0, 0, 7], IPV4, &v4_header(A, B, 6));
        for len in 0..whole.len() {
            assert_eq!(of(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(of(&frame(&[], 0x0806, &[0; 46])), None);
        assert_eq!(of(&frame(&[], 0x8100, &[0x81, 0].repeat(40))), None, "tags without end");
        assert_eq!(by_hosts(LinkType::Null, &whole), None);
    }

    #[test]
    fn hosts_are_spread_evenly() {
        for workers in [2, 3, 7] {
            let mut each = vec![0_u32; workers];
            for n in 0..20_000_u32 {
                let [_, b, c, d] = n.to_be_bytes();
                let hash = of(&frame(&[], IPV4, &v4_header([10, b, c, d], [10, 50, 0, 10], 6))).unwrap();
                each[worker_of(hash, workers)] += 1;
            }
            let fair = 20_000 / workers as u32;
            assert!(each.iter().all(|n| n.abs_diff(fair) < fair / 10), "{each:?}");
        }
    }
}
