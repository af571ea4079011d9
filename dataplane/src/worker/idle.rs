//! Connections that fall silent: `idle` is raised 10, 20, 40 … s after their last packet. Worker's thread, from the
//! timer wheel; only where a rule waits for it. Goes to the rules.

use rules::event::{Event, EventSet};

use super::clock::SECOND;
use super::engine::Engine;
use crate::analyze::Outcome;
use crate::flow::Flow;
use crate::flow::record::{crowd_flag, flow_flag};
use crate::source::Nanos;

const FIRST: Nanos = 10 * SECOND;
/// The last is raised after 23 hours.
const CHECKS: u8 = 14;

/// A silence is over: the next one counts anew. True if the flow's timer has to be set to its beginning.
#[cold]
pub(super) fn speaks_again(flow: &mut Flow, subscribed: EventSet) -> bool {
    flow.crowd &= (1 << crowd_flag::IDLE_SHIFT) - 1;
    subscribed.contains(Event::Idle)
}

impl Engine {
    pub(super) fn next_idle_check(&self, slot: u32) -> Option<Nanos> {
        if !self.subscribed.contains(Event::Idle) {
            return None;
        }
        let flow = &self.table.flows[slot as usize];
        let checks = flow.crowd >> crowd_flag::IDLE_SHIFT;
        let open = flow.flags & (flow_flag::ESTABLISHED | flow_flag::CLOSED) == flow_flag::ESTABLISHED;
        (open && checks < CHECKS).then(|| flow.last_ns.saturating_add(FIRST << checks))
    }

    /// How long a connection's timer can wait that would wait so long.
    pub(super) fn idle_or(&self, wait: Nanos) -> Nanos {
        if self.subscribed.contains(Event::Idle) { wait.min(FIRST) } else { wait }
    }

    pub(super) fn told_idle(&mut self, slot: u32, due: Nanos) {
        self.table.flows[slot as usize].crowd += 1 << crowd_flag::IDLE_SHIFT;
        let next = self.deadline(slot);
        self.table.rearm(slot, next);
        let mut outcome = Outcome::default();
        outcome.events.insert(Event::Idle);
        self.raise(slot, &outcome, due, None);
    }
}
