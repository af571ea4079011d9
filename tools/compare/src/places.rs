//! Geometry: which hosts live on which side of the two taps, how many routers lie between, and what TTL each
//! host's packets usually have. Read off pairs of packets that are surely the same; no clock needed.

use std::collections::HashMap;

use dataplane::decode::Address;

use crate::conn::{Conn, World};
use crate::matching::Pairing;

/// What is known of hosts and path.
#[derive(Debug, Default)]
pub struct Places {
    /// Above 0: on A's side; below: on B's.
    votes: HashMap<Address, i64>,
    /// Routers that packets from A's side, and from B's, pass between the taps.
    pub hops: [Option<i16>; 2],
    /// The TTL most packets of a host have at each tap.
    usual_ttl: [HashMap<Address, Majority>; 2],
    /// No packet showed which tap is first; the clocks as they are decided.
    pub guessed: bool,
}

/// The value most were, after one pass (Boyer and Moore's vote).
#[derive(Clone, Copy, Debug, Default)]
struct Majority {
    value: u8,
    weight: u32,
}

impl Majority {
    fn add(&mut self, value: u8) {
        if self.weight == 0 {
            *self = Majority { value, weight: 1 };
        } else if self.value == value {
            self.weight += 1;
        } else {
            self.weight -= 1;
        }
    }
}

/// What the pairs of one connection's direction say.
#[derive(Clone, Copy, Default)]
struct Seen {
    pairs: i64,
    /// Pairs whose TTL is lower at B, less those whose TTL is lower at A.
    ttl: i64,
    /// Sum of B's time less A's.
    ahead: i128,
}

impl Seen {
    fn mean(&self) -> i128 {
        self.ahead / i128::from(self.pairs.max(1))
    }
}

impl Places {
    /// The tap on a host's side.
    pub fn side(&self, host: Address) -> Option<usize> {
        self.votes.get(&host).filter(|votes| **votes != 0).map(|votes| usize::from(*votes < 0))
    }

    /// The tap a packet between these passes first.
    pub fn first_tap(&self, (src, dst): (Address, Address)) -> Option<usize> {
        match (self.side(src), self.side(dst)) {
            (Some(src), None) => Some(src),
            (None, Some(dst)) => Some(1 - dst),
            (Some(src), Some(dst)) if src != dst => Some(src),
            _ => None,
        }
    }

    pub fn usual_ttl(&self, tap: usize, host: Address) -> Option<u8> {
        self.usual_ttl[tap].get(&host).filter(|ttl| ttl.weight > 0).map(|ttl| ttl.value)
    }
}

/// Finds all of it, and each connection's way.
pub fn locate(world: &mut World<'_>, pairs: &[Pairing]) {
    let mut seen: Vec<[Seen; 2]> = vec![[Seen::default(); 2]; world.conns.len()];
    let mut ahead_in_all = 0i128;
    for pair in pairs {
        let (a, b) = (world.record(0, pair.a), world.record(1, pair.b));
        let of = &mut seen[pair.conn as usize][a.dir()];
        of.pairs += 1;
        of.ttl += i64::from(a.ttl > b.ttl) - i64::from(a.ttl < b.ttl);
        let ahead = i128::from(b.ts.wrapping_sub(a.ts) as i64);
        of.ahead += ahead;
        ahead_in_all += ahead;
    }
    let mut places = Places::default();
    for (conn, seen) in world.conns.iter_mut().zip(&seen) {
        let Some(low_first) = own_way(seen) else { continue };
        conn.first_tap = [Some(1 - low_first), Some(low_first)];
        let (low, high) = world.flows.ends(conn.flow, true);
        let weight = (seen[0].pairs + seen[1].pairs) * if low_first == 0 { 1 } else { -1 };
        *places.votes.entry(low).or_default() += weight;
        *places.votes.entry(high).or_default() -= weight;
    }
    let lost = world.conns.iter().all(|conn| conn.first_tap[0].is_none());
    places.guessed = lost && !pairs.is_empty();
    let guess = places.guessed.then(|| usize::from(ahead_in_all < 0));
    for (conn, seen) in world.conns.iter_mut().zip(&seen) {
        if conn.first_tap[0].is_some() {
            continue;
        }
        let low = places.first_tap(world.flows.ends(conn.flow, true));
        // All went one way: whoever has the earlier stamps is taken to be first.
        let sender = guess.map(|tap| if seen[1].pairs >= seen[0].pairs { tap } else { 1 - tap });
        if let Some(low) = low.or(sender) {
            conn.first_tap = [Some(1 - low), Some(low)];
        }
    }
    for tap in [0, 1] {
        places.usual_ttl[tap] = usual_ttls(world, tap);
    }
    world.places = places;
}

/// The tap that packets of the low end pass first. What goes from A to B is stamped later at B by more than
/// what comes back, whatever the clocks; where only one way was seen, or both at once, the TTL must tell.
fn own_way(seen: &[Seen; 2]) -> Option<usize> {
    let [high, low] = seen;
    if high.pairs > 0 && low.pairs > 0 && low.mean() != high.mean() {
        return Some(usize::from(low.mean() < high.mean()));
    }
    let lower_at_b = low.ttl - high.ttl;
    (lower_at_b != 0).then_some(usize::from(lower_at_b < 0))
}

fn usual_ttls(world: &World<'_>, tap: usize) -> HashMap<Address, Majority> {
    let mut all: HashMap<Address, Majority> = HashMap::new();
    for conn in &world.conns {
        let mut own = [Majority::default(); 2];
        for (_, r) in world.packets(conn, tap).filter(|(_, r)| !r.is_rst() && !r.is_error) {
            own[r.dir()].add(r.ttl);
        }
        for dir in [0, 1] {
            if own[dir].weight > 0 {
                let sender = world.flows.ends(conn.flow, dir == 1).0;
                all.entry(sender).or_default().add(own[dir].value);
            }
        }
    }
    all
}

/// The number of routers most matched packets passed, for each way.
pub fn hops(world: &World<'_>) -> [Option<i16>; 2] {
    let mut counts = [[0u32; 511]; 2];
    for conn in &world.conns {
        count_hops(world, conn, &mut counts);
    }
    counts.map(|counts| {
        let most = (0i16..).zip(counts).max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 0);
        most.map(|(lost, _)| lost - 255)
    })
}

fn count_hops(world: &World<'_>, conn: &Conn, counts: &mut [[u32; 511]; 2]) {
    for (i, a) in world.packets(conn, 0).filter(|(i, _)| world.is_matched(0, *i)) {
        let b = world.record(1, world.partner[0][i as usize]);
        let Some(first) = conn.first_tap[a.dir()] else { continue };
        let lost = i16::from(a.ttl) - i16::from(b.ttl);
        let lost = if first == 0 { lost } else { -lost };
        counts[first][(lost + 255) as usize] += 1;
    }
}
