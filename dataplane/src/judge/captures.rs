//! Keep or release: answers every held hit, within budgets. Runs on the judge's thread; never waits for a
//! worker. The commands go to the worker the hit came from.

use std::collections::{BTreeMap, BTreeSet};

use rules::CaptureWish;

use super::message::{CaptureLimits, Command, Hit};
use crate::source::Nanos;

/// Packet time for which a held hit of a kept flow may be one the worker sent before it had read the Keep.
/// Later ones are of a new hold, begun because the recording had reached a limit: they want an answer.
const IN_FLIGHT: Nanos = 1_000_000_000;

#[derive(Debug)]
pub struct Captures {
    default_limits: CaptureLimits,
    /// Flows just kept, and until when further hits need no answer.
    kept: BTreeMap<u64, Nanos>,
    ends: BTreeSet<(Nanos, u64)>,
    /// Flows remembered as just kept.
    limit: usize,
    /// Per rule, for captures asked for without an incident: since when, and how many.
    plain: BTreeMap<u16, (Nanos, u32)>,
    pub keeps: u64,
    pub releases: u64,
    /// Captures asked for and refused because the incident had had its share.
    pub over_budget: u64,
    /// Kept flows forgotten for want of room: a further held hit of such a flow is answered anew.
    pub forgotten: u64,
}

impl Captures {
    pub fn new(default_limits: CaptureLimits, limit: usize) -> Captures {
        Captures {
            default_limits,
            kept: BTreeMap::new(),
            ends: BTreeSet::new(),
            limit: limit.max(1),
            plain: BTreeMap::new(),
            keeps: 0,
            releases: 0,
            over_budget: 0,
            forgotten: 0,
        }
    }

    /// Answers a hit whose rule asked for `wish`; `room` says whether the budget it falls under has a place
    /// left. True if the flow is kept from now on and the budget is to be charged.
    pub fn answer(
        &mut self,
        hit: &Hit,
        wish: Option<&CaptureWish>,
        room: bool,
        commands: &mut Vec<Command>,
    ) -> bool {
        if !hit.held || self.is_kept(hit) {
            return false;
        }
        match wish {
            Some(wish) if room => {
                self.keep(hit, wish, commands);
                true
            }
            refused => {
                self.over_budget += u64::from(refused.is_some());
                self.releases += 1;
                commands.push(Command::Release { flow_id: hit.facts.flow_id });
                false
            }
        }
    }

    /// Answers a hit whose body asked for a capture, or not, but named no incident: at most `budget` a rule
    /// in every `period` of packet time.
    pub fn answer_plain(
        &mut self,
        hit: &Hit,
        wish: Option<&CaptureWish>,
        (budget, period): (u32, Nanos),
        commands: &mut Vec<Command>,
    ) {
        let (since, used) = self.plain.get(&hit.rule).copied().unwrap_or((hit.facts.now_ns, 0));
        let over = hit.facts.now_ns.saturating_sub(since) >= period;
        let (since, used) = if over { (hit.facts.now_ns, 0) } else { (since, used) };
        let charged = u32::from(self.answer(hit, wish, used < budget, commands));
        self.plain.insert(hit.rule, (since, used + charged));
    }

    /// What a body's wish comes to.
    pub fn limits(&self, wish: &CaptureWish) -> CaptureLimits {
        limits(wish, self.default_limits)
    }

    /// Its Keep answers this hit too.
    fn is_kept(&self, hit: &Hit) -> bool {
        self.kept.get(&hit.facts.flow_id).is_some_and(|end| hit.facts.now_ns <= *end)
    }

    fn keep(&mut self, hit: &Hit, wish: &CaptureWish, commands: &mut Vec<Command>) {
        let limits = limits(wish, self.default_limits);
        let flow_id = hit.facts.flow_id;
        let end = hit.facts.now_ns.saturating_add(limits.nanos.min(IN_FLIGHT));
        if let Some(before) = self.kept.insert(flow_id, end) {
            self.ends.remove(&(before, flow_id));
        }
        self.ends.insert((end, flow_id));
        if self.kept.len() > self.limit {
            self.forgotten += u64::from(self.forget_first());
        }
        self.keeps += 1;
        commands.push(Command::Keep { flow_id, limits });
    }

    fn forget_first(&mut self) -> bool {
        match self.ends.pop_first() {
            Some((_, flow_id)) => self.kept.remove(&flow_id).is_some(),
            None => false,
        }
    }

    /// Forgets flows whose Keep must have arrived.
    pub fn tick(&mut self, now: Nanos) {
        while self.ends.first().is_some_and(|(end, _)| *end < now) {
            self.forget_first();
        }
    }
}

/// What the body asked for, the default where it asked for nothing; negative numbers mean none.
fn limits(wish: &CaptureWish, default: CaptureLimits) -> CaptureLimits {
    let whole = |wished: Option<i64>| wished.map(|n| u64::try_from(n).unwrap_or(0));
    CaptureLimits {
        packets: whole(wish.packets).map_or(default.packets, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        bytes: whole(wish.bytes).unwrap_or(default.bytes),
        nanos: whole(wish.seconds).map_or(default.nanos, |s| s.saturating_mul(1_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use rules::event::Event;
    use rules::facts::FlowFacts;

    use super::*;

    const DEFAULT: CaptureLimits = CaptureLimits { packets: 7, bytes: 8, nanos: 1000 };

    fn hit(flow_id: u64, now_ns: Nanos) -> Hit {
        let facts = FlowFacts { flow_id, now_ns, ..FlowFacts::default() };
        Hit { rule: 0, event: Event::Rst, worker: 0, sequence: 0, packet: None, held: true, facts }
    }

    #[test]
    fn a_wish_fills_in_the_default_and_nothing_overflows() {
        let wish = CaptureWish { packets: Some(i64::MAX), bytes: None, seconds: Some(i64::MAX) };
        let got = limits(&wish, DEFAULT);
        assert_eq!(got, CaptureLimits { packets: u32::MAX, bytes: 8, nanos: u64::MAX });
        let wish = CaptureWish { packets: Some(-1), bytes: Some(3), seconds: Some(2) };
        assert_eq!(limits(&wish, DEFAULT), CaptureLimits { packets: 0, bytes: 3, nanos: 2_000_000_000 });
    }

    #[test]
    fn a_flow_just_kept_needs_no_second_answer_but_a_later_hold_does() {
        let mut captures = Captures::new(DEFAULT, 10);
        let (wish, mut commands) = (CaptureWish::default(), Vec::new());
        assert!(captures.answer(&hit(1, 100), Some(&wish), true, &mut commands));
        assert!(!captures.answer(&hit(1, 1100), Some(&wish), true, &mut commands));
        assert_eq!(commands, [Command::Keep { flow_id: 1, limits: DEFAULT }]);
        assert!(!captures.answer(&hit(1, 1101), None, true, &mut commands));
        assert_eq!(commands[1], Command::Release { flow_id: 1 });
        captures.tick(1101);
        assert!(captures.kept.is_empty() && captures.ends.is_empty());
        let long = CaptureWish { seconds: Some(60), ..wish };
        assert!(captures.answer(&hit(2, 0), Some(&long), true, &mut commands));
        assert!(!captures.answer(&hit(2, IN_FLIGHT), Some(&long), true, &mut commands));
        assert!(captures.answer(&hit(2, IN_FLIGHT + 1), Some(&long), true, &mut commands));
        assert_eq!(commands.len(), 4);
    }

    #[test]
    fn without_an_incident_a_rule_has_a_budget_per_period() {
        let mut captures = Captures::new(DEFAULT, 10);
        let (wish, mut commands) = (CaptureWish::default(), Vec::new());
        for flow in 0..5 {
            captures.answer_plain(&hit(flow, flow), Some(&wish), (2, 100), &mut commands);
        }
        assert_eq!((captures.keeps, captures.releases, captures.over_budget), (2, 3, 3));
        captures.answer_plain(&hit(9, 100), Some(&wish), (2, 100), &mut commands);
        assert_eq!((captures.keeps, commands.len()), (3, 6));
    }

    #[test]
    fn the_memory_of_kept_flows_is_bounded_and_counted() {
        let mut captures = Captures::new(DEFAULT, 3);
        let (wish, mut commands) = (CaptureWish::default(), Vec::new());
        (0..10).for_each(|flow| {
            captures.answer(&hit(flow, flow), Some(&wish), true, &mut commands);
        });
        assert_eq!((captures.kept.len(), captures.ends.len(), captures.forgotten), (3, 3, 7));
    }
}
