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
