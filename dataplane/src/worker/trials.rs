//! Services at which SYNs that offer ECN stay unanswered, and what became of other connections to them meanwhile: one
//! that vanishes with all its repeats while plain ones get through tells of a device that drops the offer. Worker's
//! thread; a few fixed places, the oldest gives way. Empty on nearly every network, and then it costs a comparison.

use rules::event::Event;
use rules::facts::Rivals;

use super::engine::Engine;
use crate::activity::Party;
use crate::analyze::Outcome;
use crate::decode::FlowKey;
use crate::flow::Flow;
use crate::flow::record::oddity;
use crate::source::Nanos;

/// Services looked at at once.
const SERVICES: usize = 16;
/// A service is looked at for so long after the last offer it left unanswered, ns.
const LOOK_FOR: Nanos = 130_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Trial {
    service: Party,
    /// When the first offer was made that is without answer.
    since: Nanos,
    until: Nanos,
    /// The last flow that made one.
    key: FlowKey,
    rivals: Rivals,
}

/// The services looked at.
#[derive(Debug, Default)]
pub(super) struct Trials {
    places: [Option<Trial>; SERVICES],
    active: usize,
    next: usize,
}

impl Trials {
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.active == 0
    }

    fn of(&mut self, service: &Party) -> Option<&mut Trial> {
        self.places.iter_mut().flatten().find(|trial| trial.service == *service)
    }

    /// What became of others at the flow's service since its offers stay unanswered.
    pub fn rivals(&self, flow: &Flow) -> Rivals {
        let service = server(flow);
        let trial = self.places.iter().flatten().find(|trial| trial.service == service);
        trial.map(|trial| trial.rivals).unwrap_or_default()
    }

    /// A flow whose SYNs all offer ECN is without answer.
    fn offer_lost(&mut self, flow: &Flow, now: Nanos) {
        let (service, until, key) = (server(flow), now.saturating_add(LOOK_FOR), flow.key);
        if let Some(trial) = self.of(&service) {
            (trial.until, trial.key) = (until, key);
            return;
        }
        let rivals = Rivals::default();
        let trial = Trial { service, since: flow.start_ns, until, key, rivals };
        self.places[self.next] = Some(trial);
        self.next = (self.next + 1) % SERVICES;
        self.active = self.places.iter().flatten().count();
    }

    fn forget(&mut self, now: Nanos) {
        for place in &mut self.places {
            place.take_if(|trial| trial.until <= now);
        }
        self.active = self.places.iter().flatten().count();
    }
}

fn server(flow: &Flow) -> Party {
    Party::of(&flow.key, flow.orig() ^ 1)
}

fn offers(flow: &Flow) -> bool {
    flow.rare.ecn_syns > 0 && flow.rare.ecn_syns == flow.senders[flow.orig()].syn
}

impl Engine {
    /// A SYN is without answer for another second; `checks` of them by now.
    pub(super) fn trial_waits(&mut self, slot: u32, last_check: bool, now: Nanos) {
        let flow = &self.table.flows[slot as usize];
        if offers(flow) {
            self.trials.offer_lost(flow, now);
        } else if last_check && let Some(trial) = self.trials.of(&server(flow)) {
            trial.rivals.plain_lost += 1;
        }
    }

    /// A connection came about at a service that may be looked at.
    #[cold]
    pub(super) fn trial_answered(&mut self, slot: u32, now: Nanos) {
        self.trials.forget(now);
        let flow = &self.table.flows[slot as usize];
        let Some(trial) = self.trials.of(&server(flow)).filter(|trial| flow.start_ns >= trial.since) else {
            return;
        };
        if flow.rare.ecn_syns > 0 && flow.rare.oddities & oddity::LAST_SYN_PLAIN == 0 {
            trial.rivals.ecn_answered += 1;
            return;
        }
        trial.rivals.plain_answered += 1;
        // The flow that vanished may not live to its next second.
        let key = trial.key;
        let lost = self.table.find(&key, self.table.hash(&key));
        if let Some(lost) = lost.filter(|lost| self.next_check(*lost).is_some()) {
            let mut outcome = Outcome::default();
            outcome.events.insert(Event::SynTimeout);
            self.raise(lost, &outcome, now, None);
        }
    }
}
