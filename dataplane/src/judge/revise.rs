//! Verdicts that are given again: a RST's alleged sender speaks on, a stall lasts or ends. Judge's thread. A rule
//! that waits for such events has its body run each time, and its newer words replace the older; an incident
//! that was shown as open takes them until it closes. None is taken back: a guard that no longer matches says
//! nothing, and the flow's row, made at its end, has the last word.

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
        if self.storms.of_hit(&GroupKey::of(hit), Cause::of(hit)).is_some() {
            return self.repeat(hit, home);
        }
        let verdict = self.scripts.run(hit.rule, &Snapshot::Flow(&hit.facts, hit.event)).unwrap_or_default();
        self.groups.revise(&GroupKey::of(hit), home, hit, &verdict)
    }
}
