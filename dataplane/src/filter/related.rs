//! What belongs to a wanted packet though the expression doesn't name it: later fragments, which have no ports, and
//! ICMP errors, which come from others and quote it. Without them a filter would fake black holes.
//!
//! Worker's thread; allocates nothing after start. The XDP program decides the same (xdp-prog's related.h), so what is
//! changed here is to be changed there; tests compare the two.

use super::vm::Shift;
use crate::source::{LinkType, Nanos};

/// Packets that are remembered in fragments, as many as the kernel's map holds: sets of a few.
const SETS: usize = 2048;
const WAYS: usize = 4;

/// Later fragments come within this of the first. RFC 8200 gives a receiver as long.
const FRAGMENTS: Nanos = 60_000_000_000;

/// Extension headers before what an IPv6 packet is about, at most.
const EXTENSIONS: usize = 4;

/// The packet that fragments were cut from; of IPv4 addresses only the first words are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Whole {
    src: [u32; 4],
    dst: [u32; 4],
    id: u32,
    /// 0x100 more for IPv6.
    proto: u32,
}

impl Whole {
    fn set(&self) -> usize {
        let words = self.src.iter().chain(&self.dst).chain([&self.id, &self.proto]);
        let hash = words.fold(0_u64, |hash, word| {
            (hash ^ u64::from(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        (hash >> 20) as usize % SETS
    }
}

/// What of a packet matters here.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Where its IP header is, and what it carries.
    l3: usize,
    l4: usize,
    proto: u8,
    v6: bool,
    /// It is a fragment: the first, or a later one.
    first: bool,
    later: bool,
    whole: Whole,
}

/// What else can make a packet wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Second {
    Nothing,
    /// It belongs to one that was wanted.
    Related,
    /// The packet it quotes may be one that is wanted.
    Quotes(Shift),
}

/// Packets of which the first fragment was wanted, and when it came.
type Set = [Option<(Whole, Nanos)>; WAYS];

/// All of them.
#[derive(Debug)]
pub(super) struct Relations {
    sets: Box<[Set]>,
}

impl Relations {
    pub(super) fn new() -> Relations {
        Relations { sets: vec![[None; WAYS]; SETS].into_boxed_slice() }
    }

    /// This packet is wanted, and so are its later fragments.
    pub(super) fn wanted(&mut self, link: LinkType, bytes: &[u8], ts: Nanos) {
        let Some(found) = find(link, bytes).filter(|found| found.first) else { return };
        let Some(set) = self.sets.get_mut(found.whole.set()) else { return };
        // Its own place, else the one that was filled longest ago.
        let place = set.iter_mut().min_by_key(|way| match way {
            Some((whole, _)) if *whole == found.whole => 0,
            Some((_, since)) => since.saturating_add(2),
            None => 1,
        });
        if let Some(place) = place {
            *place = Some((found.whole, ts));
        }
    }

    /// Looks at a packet that isn't wanted for itself.
    pub(super) fn second(&self, link: LinkType, bytes: &[u8], ts: Nanos) -> Second {
        let Some(found) = find(link, bytes) else { return Second::Nothing };
        if found.later {
            let set = self.sets.get(found.whole.set()).into_iter().flatten().flatten();
            let mut same = set.filter(|(whole, _)| *whole == found.whole);
            let recent = same.any(|(_, since)| ts.saturating_sub(*since) <= FRAGMENTS);
            return if recent { Second::Related } else { Second::Nothing };
        }
        match quoted(bytes, &found) {
            Some(at) => Second::Quotes(Shift { by: (at - found.l3) as u32, from: found.l3 as u32 }),
            None => Second::Nothing,
        }
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

/// The frame has a VLAN tag.
pub(super) fn is_tagged(link: LinkType, bytes: &[u8]) -> bool {
    link == LinkType::Ethernet && half(bytes, 12).is_some_and(is_tag)
}

/// Where the IP header is, behind two tags at most, and whether it should be of IPv6.
fn ip_offset(link: LinkType, bytes: &[u8]) -> Option<(usize, bool)> {
    let (mut ethertype_at, raw) = match link {
        // Any IP packet is longer; the kernel's side asks the same.
        LinkType::Ethernet if bytes.len() < 22 => return None,
        LinkType::Ethernet => (12, None),
        LinkType::LinuxSll => (14, None),
        LinkType::Raw => (0, Some(0)),
        LinkType::Null | LinkType::Loop => (0, Some(4)),
        LinkType::LinuxSll2 => {
            let ethertype = half(bytes, 0)?;
            return ip_version(ethertype).map(|v6| (20, v6));
        }
        _ => return None,
    };
    if let Some(at) = raw {
        return match bytes.get(at)? >> 4 {
            4 => Some((at, false)),
            6 => Some((at, true)),
            _ => None,
        };
    }
    for _ in 0..2 {
        if is_tag(half(bytes, ethertype_at)?) {
            ethertype_at += 4;
        }
    }
    ip_version(half(bytes, ethertype_at)?).map(|v6| (ethertype_at + 2, v6))
}

fn ip_version(ethertype: u16) -> Option<bool> {
    match ethertype {
        0x0800 => Some(false),
        0x86dd => Some(true),
        _ => None,
    }
}

fn find(link: LinkType, bytes: &[u8]) -> Option<Found> {
    match ip_offset(link, bytes)? {
        (l3, false) => find_ipv4(bytes, l3),
        (l3, true) => find_ipv6(bytes, l3),
    }
}

fn find_ipv4(bytes: &[u8], l3: usize) -> Option<Found> {
    let ip = bytes.get(l3..)?.first_chunk::<20>()?;
    let length = usize::from(ip[0] & 15) * 4;
    if ip[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    let later = fragment & 0x1fff != 0;
    let mut whole = Whole::default();
    whole.src[0] = word(ip, 12)?;
    whole.dst[0] = word(ip, 16)?;
    whole.id = half(ip, 4)?.into();
    whole.proto = ip[9].into();
    let first = fragment & 0x2000 != 0 && !later;
    Some(Found { l3, l4: l3 + length, proto: ip[9], v6: false, first, later, whole })
}

fn find_ipv6(bytes: &[u8], l3: usize) -> Option<Found> {
    let ip = bytes.get(l3..)?.first_chunk::<40>()?;
    if ip[0] >> 4 != 6 {
        return None;
    }
    let mut found = Found { l3, l4: l3 + 40, proto: ip[6], v6: true, ..Found::default() };
    for _ in 0..EXTENSIONS {
        match found.proto {
            // Hop-by-hop, routing, destination options.
            0 | 43 | 60 => {
                let header = bytes.get(found.l4..)?.first_chunk::<2>()?;
                found.proto = header[0];
                found.l4 += (usize::from(header[1]) + 1) * 8;
            }
            44 => {
                let header = bytes.get(found.l4..)?.first_chunk::<8>()?;
                let fragment = u16::from_be_bytes([header[2], header[3]]);
                found.proto = header[0];
                found.l4 += 8;
                found.later = fragment & !7 != 0;
                found.first = fragment & 1 != 0 && !found.later;
                if found.first || found.later {
                    for n in 0..4 {
                        found.whole.src[n] = word(ip, 8 + 4 * n)?;
                        found.whole.dst[n] = word(ip, 24 + 4 * n)?;
                    }
                    found.whole.id = word(header, 4)?;
                    found.whole.proto = 0x100 | u32::from(header[0]);
                    return Some(found);
                }
            }
            _ => return Some(found),
        }
    }
    Some(found)
}

/// What a packet quotes that is an ICMP error.
pub(super) fn quoted_by(link: LinkType, bytes: &[u8]) -> Option<Shift> {
    let found = find(link, bytes).filter(|found| !found.later)?;
    let at = quoted(bytes, &found)?;
    Some(Shift { by: (at - found.l3) as u32, from: found.l3 as u32 })
}

/// Where the packet is that an ICMP error quotes.
fn quoted(bytes: &[u8], found: &Found) -> Option<usize> {
    let icmp = if found.v6 { 58 } else { 1 };
    if found.proto != icmp {
        return None;
    }
    let error = match *bytes.get(found.l4)? {
        1..=4 if found.v6 => true,
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => !found.v6,
        _ => false,
    };
    error.then_some(found.l4 + 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkType = LinkType::Ethernet;
    const SECOND: Nanos = 1_000_000_000;

    fn ethernet(ethertype: u16, ip: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &ethertype.to_be_bytes(), ip].concat()
    }

    /// Of 10.0.0.1 to 10.0.0.2.
    fn ipv4(id: u8, fragment: u16, proto: u8, body: &[u8]) -> Vec<u8> {
        let [high, low] = fragment.to_be_bytes();
        let header = [0x45, 0, 0, 40, 0, id, high, low, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [&header[..], body].concat()
    }

    fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
        [&[0x60, 0, 0, 0, 0, 0, next, 64][..], &[1; 16], &[2; 16], body].concat()
    }

    #[test]
    fn later_fragments_of_a_wanted_packet_are_related_for_a_minute() {
        let mut relations = Relations::new();
        let first = ethernet(0x0800, &ipv4(7, 0x2000, 17, &[0; 24]));
        let later = ethernet(0x0800, &ipv4(7, 0x2003, 17, &[0; 24]));
        assert_eq!(relations.second(LINK, &later, SECOND), Second::Nothing);
        relations.wanted(LINK, &first, SECOND);
        assert_eq!(relations.second(LINK, &later, 61 * SECOND), Second::Related);
        assert_eq!(relations.second(LINK, &later, 61 * SECOND + 1), Second::Nothing);
        let (tagged, raw) = ([&later[..12], &[0x81, 0, 0, 5], &later[12..]].concat(), &later[14..]);
        assert_eq!(relations.second(LINK, &tagged, SECOND), Second::Related, "tagged another way");
        assert_eq!(relations.second(LinkType::Raw, raw, SECOND), Second::Related);
        for other in [ipv4(8, 0x2003, 17, &[0; 24]), ipv4(7, 0x2003, 6, &[0; 24])] {
            assert_eq!(relations.second(LINK, &ethernet(0x0800, &other), SECOND), Second::Nothing);
        }
        // The last fragment, and of IPv6.
        let [first, later] = [[17, 0, 0, 1, 0, 0, 0, 9], [17, 0, 0, 0x80, 0, 0, 0, 9]]
            .map(|header| ethernet(0x86dd, &ipv6(44, &[&header[..], &[0; 16]].concat())));
        assert_eq!(relations.second(LINK, &later, SECOND), Second::Nothing);
        relations.wanted(LINK, &first, SECOND);
        assert_eq!(relations.second(LINK, &later, 2 * SECOND), Second::Related);
    }

    #[test]
    fn many_fragmented_packets_make_room_for_the_latest() {
        let mut relations = Relations::new();
        let packet = |n: u32, fragment| {
            let mut ip = ipv4(1, fragment, 17, &[0; 24]);
            ip[12..16].copy_from_slice(&n.to_be_bytes());
            ethernet(0x0800, &ip)
        };
        (0..100_000).for_each(|n| relations.wanted(LINK, &packet(n, 0x2000), n.into()));
        let known =
            (0..100_000).filter(|n| relations.second(LINK, &packet(*n, 3), SECOND) == Second::Related);
        let known: Vec<u32> = known.collect();
        assert!((SETS * WAYS * 9 / 10..=SETS * WAYS).contains(&known.len()), "{}", known.len());
        assert!(known.iter().filter(|n| **n >= 90_000).count() > known.len() * 8 / 10);
    }

    #[test]
    fn errors_say_where_the_packet_is_that_they_quote() {
        let relations = Relations::new();
        let second = |frame: &[u8]| relations.second(LINK, frame, SECOND);
        let quote = ipv4(7, 0, 6, &[0; 8]);
        for (kind, is_error) in
            [(3, true), (4, true), (5, true), (11, true), (12, true), (0, false), (8, false)]
        {
            let frame =
                ethernet(0x0800, &ipv4(1, 0, 1, &[&[kind, 4, 0, 0, 0, 0, 0, 0], &quote[..]].concat()));
            let wanted = Second::Quotes(Shift { by: 28, from: 14 });
            assert_eq!(second(&frame), if is_error { wanted } else { Second::Nothing }, "{kind}");
        }
        // Behind a tag and a hop-by-hop header of 16 bytes.
        let header = [58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let too_big = [&header[..], &[2, 0, 0, 0, 0, 0, 5, 0], &ipv6(6, &[0; 20])].concat();
        let frame = ethernet(0x8100, &[&[0, 5, 0x86, 0xdd][..], &ipv6(0, &too_big)].concat());
        assert_eq!(second(&frame), Second::Quotes(Shift { by: 40 + 16 + 8, from: 18 }));
        for cut in 0..frame.len() {
            let _ = second(&frame[..cut]);
        }
    }
}
