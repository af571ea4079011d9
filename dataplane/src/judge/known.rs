//! Which flows a rule has already been asked about, so that a body runs once per rule and flow. Runs on the
//! judge's thread; bounded, first in first out, and what is forgotten is counted.

use std::collections::{BTreeMap, VecDeque};

/// Where a (flow, rule) went: the serial number of a group or storm, or [`NOWHERE`].
pub type Home = u64;

/// The body saw the flow and named no incident.
pub const NOWHERE: Home = 0;

#[derive(Debug)]
pub struct Known {
    homes: BTreeMap<(u64, u16), Home>,
    order: VecDeque<(u64, u16)>,
    limit: usize,
    /// Entries forgotten for want of room: a further hit of such a flow counts as a new flow.
    pub forgotten: u64,
}

impl Known {
    /// `limit`: entries, at least one.
    pub fn new(limit: usize) -> Known {
        Known { homes: BTreeMap::new(), order: VecDeque::new(), limit: limit.max(1), forgotten: 0 }
    }

    pub fn get(&self, flow_id: u64, rule: u16) -> Option<Home> {
        self.homes.get(&(flow_id, rule)).copied()
    }

    pub fn set(&mut self, flow_id: u64, rule: u16, home: Home) {
        if self.homes.insert((flow_id, rule), home).is_some() {
            return;
        }
        self.order.push_back((flow_id, rule));
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.homes.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// Where other rules put this flow.
    pub fn elsewhere(&self, flow_id: u64, rule: u16) -> impl Iterator<Item = (u16, Home)> {
        self.homes
            .range((flow_id, 0)..=(flow_id, u16::MAX))
            .filter(move |((_, r), home)| *r != rule && **home != NOWHERE)
            .map(|((_, r), home)| (*r, *home))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_counted() {
        let mut known = Known::new(2);
        known.set(1, 0, 5);
        known.set(1, 0, 6);
        known.set(2, 0, 7);
        assert_eq!((known.get(1, 0), known.forgotten), (Some(6), 0));
        known.set(3, 0, 8);
        assert_eq!((known.get(1, 0), known.get(2, 0), known.forgotten), (None, Some(7), 1));
    }

    #[test]
    fn elsewhere_lists_the_other_rules_of_the_same_flow() {
        let mut known = Known::new(10);
        known.set(1, 0, 5);
        known.set(1, 1, 6);
        known.set(1, 2, NOWHERE);
        known.set(2, 3, 7);
        assert_eq!(known.elsewhere(1, 0).collect::<Vec<_>>(), [(1, 6)]);
    }
}
