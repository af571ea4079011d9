//! Which flows a rule has already been asked about, so that a body runs once per rule and flow. Runs on the
//! judge's thread; bounded, first in first out, and what is forgotten is counted. A rule whose text has changed since is
//! asked again about flows that it had nothing to say of.

use std::collections::{BTreeMap, VecDeque};

use crate::source::Nanos;

/// Where a (flow, rule) went: the serial number of a group or storm, or [`NOWHERE`].
pub type Home = u64;

/// The body saw the flow and named no incident.
pub const NOWHERE: Home = 0;

#[derive(Debug)]
pub struct Known {
    /// With the generation of the set that was asked, and when it was asked last.
    homes: BTreeMap<(u64, u16), (Home, u32, Nanos)>,
    order: VecDeque<(u64, u16)>,
    limit: usize,
    /// Of the set that is asked now.
    pub generation: u32,
    /// Packet time of the hit at hand.
    pub now: Nanos,
    /// Since which generation a rule has its text, if it had another before.
    changed: BTreeMap<u16, u32>,
    /// Entries forgotten for want of room: a further hit of such a flow counts as a new flow.
    pub forgotten: u64,
}

impl Known {
    /// `limit`: entries, at least one. `generation`: of the set that is asked first.
    pub fn new(limit: usize, generation: u32) -> Known {
        Known {
            homes: BTreeMap::new(),
            order: VecDeque::new(),
            limit: limit.max(1),
            generation,
            now: 0,
            changed: BTreeMap::new(),
            forgotten: 0,
        }
    }

    pub fn get(&self, flow_id: u64, rule: u16) -> Option<Home> {
        let (home, asked, _) = self.homes.get(&(flow_id, rule)).copied()?;
        let since = || self.changed.get(&rule).copied().unwrap_or(0);
        let anew =
            home == NOWHERE && asked < self.generation && (asked + 1..=self.generation).contains(&since());
        (!anew).then_some(home)
    }

    /// The rule is asked about this flow again.
    pub fn touch(&mut self, flow_id: u64, rule: u16) {
        if let Some((_, _, asked)) = self.homes.get_mut(&(flow_id, rule)) {
            *asked = self.now;
        }
    }

    /// When the rule was asked about this flow last.
    pub fn last_asked(&self, flow_id: u64, rule: u16) -> Option<Nanos> {
        self.homes.get(&(flow_id, rule)).map(|(_, _, asked)| *asked)
    }

    /// From this generation on the rule has another text.
    pub fn changes(&mut self, rule: u16, generation: u32) {
        self.changed.insert(rule, generation);
    }

    pub fn set(&mut self, flow_id: u64, rule: u16, home: Home) {
        if self.homes.insert((flow_id, rule), (home, self.generation, self.now)).is_some() {
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
            .filter(move |((_, r), (home, ..))| *r != rule && *home != NOWHERE)
            .map(|((_, r), (home, ..))| (*r, *home))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_counted() {
        let mut known = Known::new(2, 1);
        known.set(1, 0, 5);
        known.set(1, 0, 6);
        known.set(2, 0, 7);
        assert_eq!((known.get(1, 0), known.forgotten), (Some(6), 0));
        known.set(3, 0, 8);
        assert_eq!((known.get(1, 0), known.get(2, 0), known.forgotten), (None, Some(7), 1));
    }

    #[test]
    fn another_text_is_asked_again_about_flows_that_went_nowhere() {
        let mut known = Known::new(10, 1);
        [(1, NOWHERE), (2, 7)].into_iter().for_each(|(flow, home)| known.set(flow, 0, home));
        known.changes(0, 3);
        for (generation, expected) in [(2, Some(NOWHERE)), (3, None), (4, None)] {
            known.generation = generation;
            assert_eq!((known.get(1, 0), known.get(2, 0)), (expected, Some(7)));
        }
        known.set(1, 0, NOWHERE);
        assert_eq!((known.get(1, 0), known.order.len()), (Some(NOWHERE), 2));
    }

    #[test]
    fn elsewhere_lists_the_other_rules_of_the_same_flow() {
        let mut known = Known::new(10, 1);
        known.set(1, 0, 5);
        known.set(1, 1, 6);
        known.set(1, 2, NOWHERE);
        known.set(2, 3, 7);
        assert_eq!(known.elsewhere(1, 0).collect::<Vec<_>>(), [(1, 6)]);
    }
}
