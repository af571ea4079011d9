//! Which packet here is which packet there. First without time, where there is no choice; once that has told how
//! the clocks stand, all of them: by what the middle leaves alone, then by order and time.
//!
//! Main thread; a few vectors the size of one connection at a time.

use dataplane::decode::flags;

use crate::clock::{Clock, Pair};
use crate::conn::{Conn, Kept, NONE, World};
use crate::pairing::TCP;
use crate::places;
use crate::raw::mix;
use crate::record::Record;
use crate::steps::{self, Stamp, Step};

const UDP: u8 = 17;
/// A packet that is longer under way than this is another one, ns.
const LONGEST_TRANSIT: i64 = 10_000_000_000;
/// A packet may seem to arrive this long before it was sent: stamps are not exact, ns.
const EARLY: i64 = 1_000_000;
/// Copies of one packet at one tap (a switch that mirrors both ports) come within this, ns.
const MIRRORED: u64 = 5_000_000;
/// Cells of the table that finds the best assignment among packets that look alike.
const MOST_CELLS: usize = 1 << 18;
/// Pairs below which also less sure ones must serve.
const FEW: usize = 4;

/// A packet seen at both taps: its connection and its index in each capture.
#[derive(Clone, Copy, Debug)]
pub struct Pairing {
    pub conn: u32,
    pub a: u32,
    pub b: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    key: u64,
    tap: u8,
    /// Its place in its capture's order.
    place: u32,
    index: u32,
}

/// What makes packets look alike.
#[derive(Clone, Copy)]
enum Likeness {
    /// Everything the middle is known to keep.
    Strict(Kept),
    /// What it must keep.
    Loose,
    /// The IP-ID alone.
    IpId,
}

impl Likeness {
    fn key(self, world: &World<'_>, conn: &Conn, tap: usize, r: &Record) -> Option<u64> {
        let (seq, ack) = world.numbers(conn, tap, r);
        let base = u64::from(r.from_low) << 8 | u64::from(r.identity_flags());
        let tcp = world.flows.key(conn.flow).proto == TCP;
        let loose = || {
            let numbers = u64::from(seq) << 32 | u64::from(if tcp && !r.has(flags::ACK) { 0 } else { ack });
            let head = if tcp { 0 } else { u64::from(r.head) };
            mix(mix(base, numbers), u64::from(r.len) << 32 | head)
        };
        match self {
            Likeness::Loose => Some(loose()),
            Likeness::IpId => (r.ip_id != 0).then(|| mix(base, u64::from(r.ip_id))),
            Likeness::Strict(kept) => {
                let id = if kept.ip_id { u64::from(r.ip_id) } else { 0 };
                let ts = if kept.tsval { u64::from(r.tsval) } else { 0 };
                let body = if kept.body && !tcp { u64::from(r.body) } else { 0 };
                Some(mix(mix(loose(), ts << 32 | id), body))
            }
        }
    }
}

/// Calls `each` with the places of alike packets here and there; packets with a counterpart are left out.
fn groups(
    world: &World<'_>,
    conn: &Conn,
    likeness: Likeness,
    entries: &mut Vec<Entry>,
    mut each: impl FnMut(&[Entry], &[Entry]),
) {
    entries.clear();
    for tap in [0usize, 1] {
        for (place, (index, r)) in (0u32..).zip(world.packets(conn, tap)) {
            if world.is_matched(tap, index) {
                continue;
            }
            if let Some(key) = likeness.key(world, conn, tap, r) {
                entries.push(Entry { key, tap: tap as u8, place, index });
            }
        }
    }
    entries.sort_unstable_by_key(|entry| (entry.key, entry.tap, entry.place));
    for group in entries.chunk_by(|x, y| x.key == y.key) {
        let (a, b) = group.split_at(group.partition_point(|entry| entry.tap == 0));
        if !a.is_empty() && !b.is_empty() {
            each(a, b);
        }
    }
}

/// Pairs packets that leave no choice, and reads off them what the middle keeps, who lives where, and how the
/// clocks stand. Gives the steps of a clock that was set meanwhile.
pub fn first_pass(world: &mut World<'_>) -> Vec<Step> {
    let mut pairs = Vec::new();
    let mut doubtful = Vec::new();
    let mut entries = Vec::new();
    let likeness = Likeness::Strict(Kept { body: world.kept.body, ..Kept::default() });
    for (n, conn) in (0u32..).zip(&world.conns) {
        groups(world, conn, likeness, &mut entries, |a, b| {
            let single = |tap: usize, group: &[Entry]| {
                let (first, last) = (group[0].index, group[group.len() - 1].index);
                let apart = world.record(tap, last).ts.wrapping_sub(world.record(tap, first).ts);
                group.len() == 1 || apart <= MIRRORED
            };
            let (first, other) = (a[0].index, b[0].index);
            if (a.len() == 1 || b.len() == 1) && single(0, a) && single(1, b) {
                pairs.push(Pairing { conn: n, a: first, b: other });
            } else if a.len() == b.len() {
                doubtful.extend(a.iter().zip(b).map(|(a, b)| Pairing { conn: n, a: a.index, b: b.index }));
            }
        });
    }
    if pairs.len() < FEW {
        pairs.append(&mut doubtful);
    }
    world.kept = kept(world, &pairs);
    places::locate(world, &mut pairs);
    let stamps: Vec<Pair> = pairs
        .iter()
        .map(|pair| {
            let (a, b) = (world.record(0, pair.a), world.record(1, pair.b));
            let first = world.conns[pair.conn as usize].first_tap[a.dir()];
            Pair { a: a.ts, b: b.ts, from_a: first.map(|tap| tap == 0) }
        })
        .collect();
    world.clock = Clock::fit(&stamps);
    let stamp = |(pair, stamps): (&Pairing, &Pair)| {
        Some(Stamp { place: pair.b, a: stamps.a, b: stamps.b, from_a: stamps.from_a? })
    };
    let mut both: Vec<Stamp> = pairs.iter().zip(&stamps).filter_map(stamp).collect();
    let mut found = steps::find(&mut both);
    let records = &world.taps[1].records;
    found.iter_mut().for_each(|step| steps::refine(step, |at| Some(records.get(at)?.ts)));
    found
}

/// What nine in ten of the packets that have it keep.
fn kept(world: &World<'_>, pairs: &[Pairing]) -> Kept {
    let mut counts = [(0u64, 0u64); 2];
    for pair in pairs {
        let (a, b) = (world.record(0, pair.a), world.record(1, pair.b));
        let values = [(u32::from(a.ip_id), u32::from(b.ip_id)), (a.tsval, b.tsval)];
        for ((have, same), (a, b)) in counts.iter_mut().zip(values) {
            if a != 0 && b != 0 {
                *have += 1;
                *same += u64::from(a == b);
            }
        }
    }
    let [ip_id, tsval] = counts.map(|(have, same)| have > 0 && same * 10 >= have * 9);
    Kept { ip_id, tsval, body: world.kept.body }
}

/// Finds every packet's counterpart.
pub fn second_pass(world: &mut World<'_>) {
    let mut entries = Vec::new();
    let mut found = Vec::new();
    for n in 0..world.conns.len() {
        let Some(conn) = world.conns.get(n).cloned() else { continue };
        if conn.ranges.iter().any(|range| range.is_empty()) {
            continue;
        }
        let udp = world.flows.key(conn.flow).proto == UDP;
        let by_id = udp && world.kept.ip_id;
        let stages =
            [Some(Likeness::Strict(world.kept)), Some(Likeness::Loose), by_id.then_some(Likeness::IpId)];
        let most = conn.ranges[0].len().min(conn.ranges[1].len());
        let mut matched = 0;
        for likeness in stages.into_iter().flatten() {
            if matched == most {
                break;
            }
            found.clear();
            groups(world, &conn, likeness, &mut entries, |a, b| assign(world, &conn, a, b, &mut found));
            matched += found.len();
            for (a, b) in &found {
                world.partner[0][*a as usize] = *b;
                world.partner[1][*b as usize] = *a;
            }
        }
        world.conns[n].matched = matched as u32;
    }
    (world.places.hops, world.places.other_hops) = places::hops(world);
}

/// How well two packets that look alike go together; `None` if they can't be one.
fn fit(world: &World<'_>, conn: &Conn, a: &Record, b: &Record) -> Option<i64> {
    let differ = |a: u32, b: u32| a != 0 && b != 0 && a != b;
    let same = |a: u32, b: u32| i64::from(a != 0 && a == b);
    let (id_a, id_b) = (u32::from(a.ip_id), u32::from(b.ip_id));
    let rewritten = conn.delta != [0; 2];
    if !rewritten && world.kept.ip_id && differ(id_a, id_b) || world.kept.tsval && differ(a.tsval, b.tsval) {
        return None;
    }
    let alike = same(id_a, id_b) << 2 | same(a.tsval, b.tsval) << 1 | same(a.body, b.body);
    let late = match &world.clock {
        None => 0,
        Some(clock) => {
            let transit = clock.transit(a.ts, b.ts);
            match conn.first_tap[a.dir()] {
                Some(0) => transit,
                Some(_) => transit.saturating_neg(),
                None => transit.saturating_abs(),
            }
        }
    };
    // What an IP-ID or time stamp names can't be another packet, even if a clock was set meanwhile.
    let named = world.kept.ip_id && id_a != 0 && id_a == id_b || world.kept.tsval && a.tsval != 0;
    if !named && !(-EARLY..=LONGEST_TRANSIT).contains(&late) {
        return None;
    }
    let cost = late.saturating_abs().min(1 << 40);
    Some((1 << 50) + (alike << 42) - cost)
}

/// Pairs packets that look alike, in order, so that as many as can be are paired, then as well as can be.
fn assign(world: &World<'_>, conn: &Conn, a: &[Entry], b: &[Entry], found: &mut Vec<(u32, u32)>) {
    let fits =
        |i: usize, j: usize| fit(world, conn, world.record(0, a[i].index), world.record(1, b[j].index));
    if a.len() == 1 && b.len() == 1 {
        if fits(0, 0).is_some() {
            found.push((a[0].index, b[0].index));
        }
        return;
    }
    if a.len() * b.len() > MOST_CELLS {
        return in_turn(world, a, b, fits, found);
    }
    // best[i][j]: the best that a[i..] and b[j..] can do.
    let width = b.len() + 1;
    let mut best = vec![0i64; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            let skip = best[(i + 1) * width + j].max(best[i * width + j + 1]);
            let take = fits(i, j).map_or(0, |fit| fit + best[(i + 1) * width + j + 1]);
            best[i * width + j] = skip.max(take);
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let here = best[i * width + j];
        let taken = fits(i, j).is_some_and(|fit| fit + best[(i + 1) * width + j + 1] == here);
        if taken {
            found.push((a[i].index, b[j].index));
            (i, j) = (i + 1, j + 1);
        } else if best[(i + 1) * width + j] == here {
            i += 1;
        } else {
            j += 1;
        }
    }
}

/// The same for very many: each with the first that fits, skipping whichever is earlier.
fn in_turn(
    world: &World<'_>,
    a: &[Entry],
    b: &[Entry],
    fits: impl Fn(usize, usize) -> Option<i64>,
    found: &mut Vec<(u32, u32)>,
) {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if fits(i, j).is_some() {
            found.push((a[i].index, b[j].index));
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let (here, there) = (world.record(0, a[i].index), world.record(1, b[j].index));
        let a_is_earlier = world.clock.is_none_or(|clock| clock.transit(here.ts, there.ts) >= 0);
        if a_is_earlier {
            i += 1;
        } else {
            j += 1;
        }
    }
}

/// The record's counterpart, if it has one.
pub fn partner<'t>(world: &World<'t>, tap: usize, index: u32) -> Option<&'t Record> {
    let partner = world.partner[tap][index as usize];
    (partner != NONE).then(|| world.record(1 - tap, partner))
}

/// What makes packets look alike at one tap.
pub fn loose_key(world: &World<'_>, conn: &Conn, tap: usize, r: &Record) -> u64 {
    Likeness::Loose.key(world, conn, tap, r).unwrap_or(0)
}
