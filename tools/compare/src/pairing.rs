//! Which connection of a 5-tuple in one capture is which in the other, and by what the middle shifted its
//! sequence numbers. Looks at handshakes, else at payloads and IP-IDs; never at time between captures.

use std::collections::HashMap;
use std::ops::Range;

use dataplane::decode::flags;

use crate::conn::Conn;
use crate::read::Tap;
use crate::record::Record;

pub const TCP: u8 = 6;
/// Packets of a direction that are looked at to find a shift.
const LOOK: usize = 256;
/// Connections of a 5-tuple whose SYN-ACK may still come.
const LATE: usize = 16;

/// One connection in one capture.
struct Part {
    range: Range<usize>,
    /// The client's initial sequence number, if the handshake was seen.
    isn: Option<u32>,
}

/// Splits a flow's packets at each SYN with another sequence number, pairs the parts, and adds them.
pub fn connections(
    taps: [&Tap; 2],
    order: &[Vec<u32>; 2],
    flow: u32,
    ranges: [Range<usize>; 2],
    conns: &mut Vec<Conn>,
) {
    let parts: [Vec<Part>; 2] = [0, 1].map(|tap| split(taps[tap], &order[tap], ranges[tap].clone()));
    let mut add = |a: Range<usize>, b: Range<usize>| {
        let ranges = [a, b];
        let sides = [0, 1].map(|tap| Side { tap: taps[tap], order: &order[tap][ranges[tap].clone()] });
        let delta =
            if ranges.iter().any(Range::is_empty) { [0; 2] } else { [0, 1].map(|dir| shift(&sides, dir)) };
        conns.push(Conn { flow, ranges, delta, ..Conn::default() });
    };
    pair(&parts, &mut add);
}

fn split(tap: &Tap, order: &[u32], range: Range<usize>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut begin = range.start;
    let mut isn: Option<(bool, u32)> = None;
    let mut known: Vec<(bool, u32)> = Vec::new();
    for at in range.clone() {
        let r = &tap.records[order[at] as usize];
        if !r.has(flags::SYN) {
            continue;
        }
        let answer = r.has(flags::ACK);
        let this = if answer { (!r.from_low, r.ack.wrapping_sub(1)) } else { (r.from_low, r.seq) };
        // A late SYN-ACK of a connection before is no new one; one of an unknown connection shows that its SYN is missing.
        if answer && known.iter().rev().take(LATE).any(|known| *known == this) {
            continue;
        }
        known.push(this);
        if isn != Some(this) && at > begin {
            parts.push(Part { range: begin..at, isn: isn.map(|(_, isn)| isn) });
            begin = at;
        }
        isn = Some(this);
    }
    if begin < range.end {
        parts.push(Part { range: begin..range.end, isn: isn.map(|(_, isn)| isn) });
    }
    parts
}

/// Parts with one initial sequence number are one connection; those in between are paired from the last.
fn pair(parts: &[Vec<Part>; 2], add: &mut impl FnMut(Range<usize>, Range<usize>)) {
    let [a, b] = parts;
    if a.is_empty() || b.is_empty() {
        for part in a {
            add(part.range.clone(), 0..0);
        }
        for part in b {
            add(0..0, part.range.clone());
        }
        return;
    }
    let by_isn: HashMap<u32, usize> = (0..b.len()).filter_map(|j| Some((b[j].isn?, j))).collect();
    let (mut i0, mut j0) = (0, 0);
    for i in 0..=a.len() {
        let anchor = match a.get(i) {
            Some(part) => part.isn.and_then(|isn| by_isn.get(&isn).copied()).filter(|j| *j >= j0),
            None => Some(b.len()),
        };
        let Some(j) = anchor else { continue };
        between(&a[i0..i], &b[j0..j], add);
        if let (Some(here), Some(there)) = (a.get(i), b.get(j)) {
            add(here.range.clone(), there.range.clone());
        }
        (i0, j0) = (i + 1, (j + 1).min(b.len()));
    }
}

fn between(a: &[Part], b: &[Part], add: &mut impl FnMut(Range<usize>, Range<usize>)) {
    let both = a.len().min(b.len());
    let (lone_a, a) = a.split_at(a.len() - both);
    let (lone_b, b) = b.split_at(b.len() - both);
    lone_a.iter().for_each(|part| add(part.range.clone(), 0..0));
    lone_b.iter().for_each(|part| add(0..0, part.range.clone()));
    a.iter().zip(b).for_each(|(a, b)| add(a.range.clone(), b.range.clone()));
}

struct Side<'a> {
    tap: &'a Tap,
    order: &'a [u32],
}

impl<'a> Side<'a> {
    fn direction(&self, dir: usize) -> impl Iterator<Item = &'a Record> {
        let (tap, order) = (self.tap, self.order);
        order.iter().map(move |i| &tap.records[*i as usize]).filter(move |r| r.dir() == dir)
    }
}

/// What B's sequence numbers of one direction are ahead of A's.
fn shift(sides: &[Side<'_>; 2], dir: usize) -> u32 {
    let [a, b] = sides;
    let syn = |side: &Side<'_>| side.direction(dir).find(|r| r.has(flags::SYN)).map(|r| r.seq);
    if let (Some(a), Some(b)) = (syn(a), syn(b)) {
        return b.wrapping_sub(a);
    }
    let same = |r: &Record| (r.seq, r.len, r.identity_flags());
    let there: HashMap<_, ()> = b.direction(dir).take(LOOK).map(|r| (same(r), ())).collect();
    if a.direction(dir).take(LOOK).any(|r| there.contains_key(&same(r))) {
        return 0;
    }
    // Votes of packets that are alike but for their number: by payload, or by IP-ID.
    let mut votes: HashMap<u32, u32> = HashMap::new();
    let like = |r: &Record| match r.len {
        0 if r.ip_id == 0 => None,
        0 => Some((u32::from(r.ip_id), 0, r.identity_flags())),
        _ if r.head == 0 => None,
        len => Some((r.head, len, r.identity_flags())),
    };
    let there: HashMap<_, u32> =
        b.direction(dir).take(16 * LOOK).filter_map(|r| Some((like(r)?, r.seq))).collect();
    for r in a.direction(dir).take(16 * LOOK) {
        if let Some(seq) = like(r).and_then(|like| there.get(&like)) {
            *votes.entry(seq.wrapping_sub(r.seq)).or_default() += 1;
        }
    }
    let best = votes.into_iter().max_by_key(|(delta, votes)| (*votes, std::cmp::Reverse(*delta)));
    best.filter(|(_, votes)| *votes >= 2).map_or(0, |(delta, _)| delta)
}
