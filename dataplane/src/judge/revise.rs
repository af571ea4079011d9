//! Verdicts that are given again: a RST's alleged sender speaks on, a stall lasts or ends. Judge's thread. A rule
//! that waits for such events has its body run each time, and its newer words replace the older; an incident
//! that was shown as open takes them until it closes.
//!
//! A body can also take back what it said of a flow. What was not shown yet then never is; an incident that was, and
//! of which no flow is left, closes at once as withdrawn. A guard that no longer matches says nothing.

use rules::Event;

use super::groups::{Cause, GroupKey};
use super::known::{Home, NOWHERE};
use super::message::Hit;
use super::{Judge, Snapshot};

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
            return self.repeat(hit, home);
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
            None => self.groups.revise(&GroupKey::of(hit), home, hit, &verdict),
        }
    }
}
