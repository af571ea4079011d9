//! Geometry: which hosts live on which side of the two taps, how many routers lie between, and what TTL each
//! host's packets usually have. Read off pairs of packets that are surely the same; needs no common clock.

use std::collections::HashMap;

use dataplane::decode::Address;

use crate::conn::{Conn, World};
use crate::fate::is_local;
use crate::matching::Pairing;
use crate::votes::{Moment, Votes};

/// What is known of hosts and path.
#[derive(Debug, Default)]
pub struct Places {
    hosts: HashMap<Address, Votes>,
    /// Hosts of each network that live on A's side, and on B's.
    networks: HashMap<Address, [u32; 2]>,
    /// Routers that packets from A's side, and from B's, pass between the taps.
    pub hops: [Option<i16>; 2],
    /// Matched packets whose TTL says another number.
    pub other_hops: [u64; 2],
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

/// The network an address is taken to be in: /24 of IPv4, /64 of IPv6.
pub fn network(host: Address) -> Address {
    let v4 = host[0] == 0 && host[1] >> 32 <= 0xffff;
    if v4 { [0, host[1] & !0xff] } else { [host[0], 0] }
}

impl Places {
    /// The tap on a host's side, by its own packets.
    fn host_side(&self, host: Address) -> Option<usize> {
        self.hosts.get(&host).and_then(Votes::side)
    }

    /// The tap on a host's side: by its own packets, else where all its network's known hosts are.
    pub fn side(&self, host: Address) -> Option<usize> {
        self.host_side(host).or_else(|| match self.networks.get(&network(host)) {
            Some([_, 0]) => Some(0),
            Some([0, _]) => Some(1),
            _ => None,
        })
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

    fn vote(&mut self, host: Address, votes: &Votes) {
        self.hosts.entry(host).or_default().add(votes);
    }

    fn know_networks(&mut self) {
        for (host, votes) in &self.hosts {
            if let Some(side) = votes.side() {
                self.networks.entry(network(*host)).or_default()[side] += 1;
            }
        }
    }
}

/// Finds all of it, and each connection's way.
pub fn locate(world: &mut World<'_>, pairs: &mut [Pairing]) {
    pairs.sort_unstable_by_key(|pair| (pair.conn, world.record(0, pair.a).ts, pair.a));
    let mut own = vec![Votes::default(); world.conns.len()];
    let mut ahead_in_all = 0i128;
    let mut moments = Vec::new();
    for pairs in pairs.chunk_by(|x, y| x.conn == y.conn) {
        moments.clear();
        moments.extend(pairs.iter().map(|pair| Moment::of(world.record(0, pair.a), world.record(1, pair.b))));
        ahead_in_all += moments.iter().map(|moment| i128::from(moment.ahead())).sum::<i128>();
        own[pairs[0].conn as usize] = Votes::of(&moments);
    }
    let mut places = Places::default();
    for (conn, votes) in world.conns.iter().zip(&own).filter(|(_, votes)| votes.any()) {
        let (low, high) = world.flows.ends(conn.flow, true);
        if !is_local(low) && !is_local(high) {
            places.vote(low, votes);
            places.vote(high, &votes.turned());
        }
    }
    places.know_networks();
    for (conn, votes) in world.conns.iter_mut().zip(&own) {
        let hosts = places.first_tap(world.flows.ends(conn.flow, true));
        let low = votes.decide(hosts);
        conn.first_tap = [low.map(|low| 1 - low), low];
    }
    if !pairs.is_empty() && places.hosts.values().all(|votes| votes.side().is_none()) {
        guess(world, &own, ahead_in_all < 0);
        places.guessed = !own.iter().any(Votes::any);
    }
    for tap in [0, 1] {
        places.usual_ttl[tap] = usual_ttls(world, tap);
    }
    world.places = places;
}

/// All went one way, and no router lies between: whoever has the earlier stamps is taken to be first.
fn guess(world: &mut World<'_>, own: &[Votes], b_is_earlier: bool) {
    if own.iter().any(Votes::any) {
        return;
    }
    for conn in &mut world.conns {
        let both = |dir: usize| conn.sent[0][dir].min(conn.sent[1][dir]);
        let first = usize::from(b_is_earlier);
        let low = if both(1) >= both(0) { first } else { 1 - first };
        conn.first_tap = [Some(1 - low), Some(low)];
    }
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

/// The number of routers most matched packets passed, for each way; and how many passed another number.
pub fn hops(world: &World<'_>) -> ([Option<i16>; 2], [u64; 2]) {
    let mut counts = [[0u32; 511]; 2];
    for conn in &world.conns {
        count_hops(world, conn, &mut counts);
    }
    let most = counts
        .map(|counts| (0i16..).zip(counts).max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 0));
    let all = counts.map(|counts| counts.iter().map(|count| u64::from(*count)).sum::<u64>());
    let others = [0, 1].map(|way: usize| all[way] - most[way].map_or(0, |(_, count)| u64::from(count)));
    (most.map(|most| most.map(|(lost, _)| lost - 255)), others)
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
