//! Flows that two workers have: found out by a table in which each notes the flows it makes.
//!
//! Shared by all workers' threads; asked only when a flow is made; never locks. What is forgotten, because another flow
//! took its place meanwhile, isn't found out: the count is the least there were.

use std::sync::atomic::{AtomicU64, Ordering};

/// Flows remembered. A flow's two directions begin within a round trip.
const PLACES: usize = 1 << 16;
/// Of a place, the bits that hold the worker; the others hold bits of the flow's hash.
const WORKER: u64 = 0xff;

/// The flows made last, and by whom.
#[derive(Debug)]
pub struct SplitTable {
    places: Box<[AtomicU64]>,
}

impl SplitTable {
    pub fn new() -> SplitTable {
        SplitTable { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes a flow that this worker makes; true if another has made it before.
    pub(super) fn is_split(&self, hash: u64, worker: u16) -> bool {
        let Some(place) = self.places.get((hash >> 8) as usize % PLACES) else { return false };
        let now = hash & !WORKER | u64::from(worker) & WORKER;
        // In one: of two workers that make it at the same moment, one finds the other's note.
        let before = place.swap(now, Ordering::Relaxed);
        before != 0 && before != now && before & !WORKER == now & !WORKER
    }
}

impl Default for SplitTable {
    fn default() -> Self {
        SplitTable::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flow_of_two_workers_is_split() {
        let table = SplitTable::new();
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 1..1000 {
            assert!(!table.is_split(hash(n), (n % 3) as u16), "{n} is new");
        }
        for n in 1..1000 {
            assert!(!table.is_split(hash(n), (n % 3) as u16), "{n} is its own worker's again");
        }
        let split = (1..1000).filter(|&n| table.is_split(hash(n), (n % 3) as u16 + 1)).count();
        assert!(split > 990, "{split}: a few share a place");
    }

    #[test]
    fn two_workers_that_make_it_at_once_find_out() {
        const FLOWS: u64 = 20_000;
        let (table, start) = (SplitTable::new(), std::sync::Barrier::new(2));
        let make = |worker: u16| {
            let mut split = 0;
            for n in 1..=FLOWS {
                start.wait();
                split += u64::from(table.is_split(n << 8, worker));
            }
            split
        };
        let split = std::thread::scope(|scope| {
            let other = scope.spawn(|| make(1));
            make(0) + other.join().expect("it ends")
        });
        assert_eq!(split, FLOWS);
    }
}
