//! Directions that a tap never shows: a mirror of one direction of a link, or answers that come back by another path.
//!
//! What a tap does not record there is not lost. A direction counts as not recorded if the tap has no packet of it and
//! has proof that some passed: acknowledgments of them, or questions that were not asked again.

use std::collections::{HashMap, HashSet};

use dataplane::decode::Address;

use crate::conn::World;
use crate::loss::View;

/// A direction with fewer than one in so many of the packets the other tap has of it is not recorded.
const ABSENT: u64 = 50;
/// Silent conversations that prove something together, where none does alone.
const SOME: u32 = 3;

/// Conversations of which a tap shows one direction, and the other tap both or the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OneSided {
    all: u32,
    /// What is missing was acknowledged.
    proven: u32,
    /// Who should have received it asked again.
    repeated: u32,
}

impl OneSided {
    fn add(&mut self, proven: bool, repeated: bool) {
        self.all += 1;
        self.proven += u32::from(proven);
        self.repeated += u32::from(repeated);
    }

    /// What is missing did pass.
    fn passed(self) -> bool {
        self.proven > 0 && self.proven >= self.repeated || self.all >= SOME && self.repeated * 4 < self.all
    }
}

/// Whether a tap does not record a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    Yes,
    /// It never shows the sender, and nothing tells whether these packets passed.
    Perhaps,
    No,
}

/// What each tap records.
#[derive(Default)]
pub struct Recorded {
    /// Hosts whose packets each tap has.
    senders: [HashSet<Address>; 2],
    /// By tap that lacks them, then sender.
    hosts: [HashMap<Address, OneSided>; 2],
    /// By tap that lacks them, then the tap they pass first.
    ways: [[OneSided; 2]; 2],
    /// Packets by tap, then the tap they pass first.
    packets: [[u64; 2]; 2],
}

impl Recorded {
    pub fn new(world: &World<'_>) -> Recorded {
        let mut recorded = Recorded::default();
        for conn in &world.conns {
            for tap in [0, 1] {
                for dir in [0, 1] {
                    let packets = conn.sent[tap][dir];
                    if packets == 0 {
                        continue;
                    }
                    recorded.senders[tap].insert(world.flows.ends(conn.flow, dir == 1).0);
                    if let Some(first) = conn.first_tap[dir] {
                        recorded.packets[tap][first] += u64::from(packets);
                    }
                }
            }
        }
        recorded
    }

    /// Looks at a conversation with packets that only one tap has.
    pub fn look(&mut self, view: &View<'_, '_>) {
        for (tap, dir) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            if !view.is_one_sided(tap, dir) {
                continue;
            }
            let (proven, repeated) = (view.proves_passed(tap, dir), view.asks_again(tap, 1 - dir));
            let sender = view.world.flows.ends(view.conn.flow, dir == 1).0;
            self.hosts[tap].entry(sender).or_default().add(proven, repeated);
            if let Some(first) = view.conn.first_tap[dir] {
                self.ways[tap][first].add(proven, repeated);
            }
        }
    }

    /// The tap shows as good as nothing of what passes `first` first.
    pub fn is_way_missing(&self, tap: usize, first: usize) -> bool {
        let (here, there) = (self.packets[tap][first], self.packets[1 - tap][first]);
        here * ABSENT < there && self.packets[tap][1 - first] > 0 && self.ways[tap][first].passed()
    }

    /// The tap does not record this direction of the conversation.
    pub fn lacks(&self, view: &View<'_, '_>, tap: usize, dir: usize) -> Lacks {
        let one_sided = view.is_one_sided(tap, dir);
        if view.conn.sent[tap][dir] > 0 {
            return Lacks::No;
        }
        if one_sided && view.proves_passed(tap, dir) {
            return Lacks::Yes;
        }
        if view.conn.first_tap[dir].is_some_and(|first| self.is_way_missing(tap, first)) {
            return Lacks::Yes;
        }
        let sender = view.world.flows.ends(view.conn.flow, dir == 1).0;
        if self.senders[tap].contains(&sender) {
            return Lacks::No;
        }
        match self.hosts[tap].get(&sender) {
            Some(host) if host.passed() => Lacks::Yes,
            _ if one_sided && !view.asks_again(tap, 1 - dir) => Lacks::Perhaps,
            _ => Lacks::No,
        }
    }
}
