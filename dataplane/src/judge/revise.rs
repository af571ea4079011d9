//! Verdicts that are given again: a RST's alleged sender speaks on, a stall lasts or ends. Judge's thread. A rule
//! that waits for such events has its body run each time, and its newer words replace the older; an incident
//! that was shown as open takes them until it closes; what is more of the same after that makes no other one.
//!
//! A body can also take back what it said of a flow. What was not shown yet then never is; an incident that was, and
//! of which no flow is left, closes at once as withdrawn. A guard that no longer matches says nothing.

use rules::Event;

use super::groups::{Cause, GroupKey};
use super::known::{Home, NOWHERE};
use super::message::Hit;
use super::{Judge, Snapshot};
use crate::source::Nanos;

const MS: Nanos = 1_000_000;
/// No sender's timer waits longer before it repeats a segment: 120 s on Linux, 64 s on BSD; and some room.
const LONGEST_TIMER: Nanos = 130_000 * MS;

impl Judge {
    /// A further hit of a rule on a flow; false if it has to be judged as the first one.
    pub(super) fn again(&mut self, hit: &Hit, home: Home) -> bool {
        let rule = self.rules.rules().get(usize::from(hit.rule));
        if !rule.is_some_and(|rule| rule.events.iter().any(Event::goes_on)) {
            return self.repeat(hit, home);
        }
        if home == NOWHERE {
            return false;
        }
        if hit.event.recurs() {
            return self.repeat(hit, home) || self.was_told(hit);
        }
        if self.storms.of_hit(&GroupKey::of(hit), Cause::of(hit)).is_some() {
            return self.repeat(hit, home);
        }
        let verdict = self.scripts.run(hit.rule, &Snapshot::Flow(&hit.facts, hit.event)).unwrap_or_default();
        match verdict.withdraw.as_deref().filter(|_| verdict.incident.is_none()) {
            Some(reason) => {
                self.groups.withdraw(&GroupKey::of(hit), home, hit, reason);
                self.known.set(hit.facts.flow_id, hit.rule, NOWHERE);
                true
            }
            None => self.groups.revise(&GroupKey::of(hit), home, hit, &verdict) || self.was_told(hit),
        }
    }

    /// The incident this flow was part of has closed, and the hit is of the same silence, closed window, stuck segment or
    /// RST: nothing that anybody has to be told once more.
    fn was_told(&mut self, hit: &Hit) -> bool {
        let facts = &hit.facts;
        let Some(last) = self.known.last_asked(facts.flow_id, hit.rule) else { return false };
        if self.storms.of_hit(&GroupKey::of(hit), Cause::of(hit)).is_some() {
            return false;
        }
        let sides = [&facts.orig, &facts.resp];
        match hit.event {
            Event::AfterRst => true,
            Event::Retransmission => {
                let stuck = sides.iter().any(|side| side.stuck_sends > 0);
                stuck && facts.now_ns.saturating_sub(last) <= LONGEST_TIMER
            }
            _ => {
                let waits = sides.map(|side| u64::from(side.unanswered_ms.max(side.window_closed_ms)));
                let lasts = waits[0].max(waits[1]).max(facts.silent_ms).saturating_mul(MS);
                lasts > 0 && facts.now_ns.saturating_sub(lasts) <= last
            }
        }
    }
}
