//! Asking the rules about a flow, holding it when one matches, and recording what is held. Worker's thread.
//! Never allocates or runs Rhai: guards are native. Hits go to the judge, kept packets to the recorder.

use rules::event::{Event, EventSet};
use rules::facts::FlowFacts;

use super::engine::Engine;
use super::watch::Watch;
use crate::activity::Party;
use crate::analyze::{Outcome, facts};
use crate::flow::keeper::Stamp;
use crate::flow::record::{NONE, flow_flag};
use crate::hold::Sink;
use crate::judge::message::{Command, Hit};
use crate::source::Nanos;

/// Events whose evidence is that something did not come.
const SILENCES: EventSet =
    EventSet::EMPTY.with(Event::SynTimeout).with(Event::Stalled).with(Event::TlsTimeout);

impl Engine {
    /// Evaluates the guards of every rule that waits for one of the outcome's events, and tells the judge of
    /// those that matched. `packet` is the raising packet's number; `None` for a timer.
    #[cold]
    pub(super) fn raise(&mut self, slot: u32, outcome: &Outcome, now: Nanos, packet: Option<u64>) {
        let events = outcome.events.and(self.subscribed);
        if events.is_empty() {
            return;
        }
        let flow = &self.table.flows[slot as usize];
        let trouble = self.slab.get(flow.trouble);
        let told = trouble.is_some_and(|trouble| trouble.rules > 0);
        let disproved = told && events.contains(Event::Disproved);
        let events = events.without(Event::Disproved);
        if !disproved && events.and(self.at_hand) == events {
            // Nearly always nothing matches, and less is read than there is.
            let snapshot = facts::at_hand(flow, trouble, outcome);
            self.hits.clear();
            events.iter().for_each(|event| self.rules.match_flow(event, &snapshot, &mut self.hits));
            if self.hits.is_empty() {
                return;
            }
        }
        let app = self.apps.slab.get(flow.app);
        let mut snapshot = facts::of_flow(flow, trouble, app, outcome, now, packet.is_none());
        if !events.and(SILENCES).is_empty() {
            self.look_around(slot, &mut snapshot);
            snapshot.rivals = self.trials.rivals(&self.table.flows[slot as usize]);
        }
        self.ask(slot, events, now, packet, &snapshot);
        if disproved {
            let snapshot = FlowFacts { disproved: true, ..snapshot };
            self.ask(slot, EventSet::EMPTY.with(Event::Disproved), now, packet, &snapshot);
        }
    }

    /// What a silence proves depends on whether the silent side's packets pass here at all.
    pub(super) fn look_around(&self, slot: u32, snapshot: &mut FlowFacts) {
        let flow = &self.table.flows[slot as usize];
        let both_ways = self.sightings.both_ways();
        snapshot.both_ways = both_ways == Some(true);
        for (dir, side) in [(flow.orig(), &mut snapshot.orig), (flow.orig() ^ 1, &mut snapshot.resp)] {
            let host = self.sightings.passes(Party::of(&flow.key, dir).addr);
            let passes = host.or(both_ways.filter(|both| !both));
            side.out_of_sight = passes == Some(false);
            side.in_sight = !side.out_of_sight && (passes == Some(true) || flow.dirs[dir].packets > 0);
        }
    }

    /// The guards of every rule that waits for one of `events`, on a snapshot that is made.
    pub(super) fn ask(
        &mut self,
        slot: u32,
        events: EventSet,
        now: Nanos,
        packet: Option<u64>,
        snapshot: &FlowFacts,
    ) {
        for event in events.iter() {
            self.hits.clear();
            self.rules.match_flow(event, snapshot, &mut self.hits);
            self.outlet.account.matched += self.hits.len() as u64 + self.hits.overflowed;
            self.outlet.account.hits_overflowed += self.hits.overflowed;
            for i in 0..self.hits.len() {
                let rule = self.hits.as_slice()[i];
                if let Some(counters) = self.rules.counters(rule) {
                    counters.count_match();
                }
                self.matched(slot, rule, event, packet, now, snapshot);
            }
        }
    }

    fn matched(
        &mut self,
        slot: u32,
        rule: u16,
        event: Event,
        packet: Option<u64>,
        now: Nanos,
        snapshot: &FlowFacts,
    ) {
        let (shadow, takes) = {
            let meta = &self.rules.rules()[usize::from(rule)];
            (meta.shadow, meta.takes(snapshot.flow_id))
        };
        if !takes {
            self.outlet.account.sampled_out += 1;
            return;
        }
        if shadow {
            // Nothing is found, held or watched: what others see of the flow is as it would be without.
            self.outlet.hit(Hit {
                rule,
                event,
                worker: 0,
                sequence: 0,
                packet,
                held: false,
                facts: *snapshot,
            });
            return;
        }
        let mut index = self.table.flows[slot as usize].trouble;
        if let Some(trouble) = self.slab.get_or_take(&mut index) {
            let known = trouble.knows(rule);
            // The same silence, a second later: nothing new to tell.
            if event == Event::SynTimeout && known || event == Event::Disproved && !known {
                self.outlet.account.matched_again += 1;
                return;
            }
            // What goes on, or is looked at again, is not another of its kind.
            let goes_on = || self.rules.rules()[usize::from(rule)].events.iter().any(Event::goes_on);
            if !known || event.recurs() || !goes_on() {
                self.outlet.account.rules_per_flow_lost += u64::from(!trouble.hit(rule));
            }
        }
        self.table.flows[slot as usize].trouble = index;
        self.siblings.watch(&self.table.flows[slot as usize], now);
        let held = self.rules.rules()[usize::from(rule)].holds && self.hold(slot, rule, event, packet, now);
        self.outlet.hit(Hit { rule, event, worker: 0, sequence: 0, packet, held, facts: *snapshot });
    }

    /// Makes sure the flow is held; true if the judge has to decide on it.
    pub(super) fn hold(
        &mut self,
        slot: u32,
        rule: u16,
        event: Event,
        packet: Option<u64>,
        now: Nanos,
    ) -> bool {
        let Some(hold) = self.take_hold(slot, rule, now) else { return false };
        // A timer speaks of the last packet there was.
        let newest = self.table.flows[slot as usize].newest;
        let raising = packet.or_else(|| self.ring.get(newest).map(|(p, _)| p.number));
        self.holds.raised(hold, rule, event, raising);
        self.holds.ask(hold)
    }

    /// The flow's hold, begun now if it has none; `None` if there is no room, or no recorder.
    pub(super) fn take_hold(&mut self, slot: u32, rule: u16, now: Nanos) -> Option<u32> {
        self.recorder.as_ref()?;
        let flow = &mut self.table.flows[slot as usize];
        let flow_id = flow.id();
        if flow.hold != NONE && self.holds.is_over(flow.hold, flow_id) {
            flow.set_hold(NONE);
        }
        if flow.hold == NONE {
            let hold = self.holds.take(rule, flow_id, now)?;
            flow.set_hold(hold);
            self.holds.begin(hold, self.keeper.of(slot), self.tails.of(flow, slot));
        }
        self.holds.set_newest(flow.hold, flow.newest);
        Some(flow.hold)
    }

    /// Gives a live packet to the flow's hold.
    #[inline(always)]
    pub(super) fn record_live(&mut self, slot: u32, stamp: &Stamp, bytes: &[u8]) {
        if self.table.flows[slot as usize].has(flow_flag::HELD) {
            self.record_held(slot, stamp, bytes);
        }
    }

    #[cold]
    fn record_held(&mut self, slot: u32, stamp: &Stamp, bytes: &[u8]) {
        let flow = &mut self.table.flows[slot as usize];
        let hold = flow.hold;
        if self.holds.is_over(hold, flow.id()) {
            flow.set_hold(NONE);
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            let mut sink = Sink { recorder, account: &mut self.account.kept, comments: &self.rules };
            self.holds.live(hold, flow.newest, stamp, bytes, &mut sink);
        }
    }

    /// Takes the judge's commands.
    #[inline]
    pub(super) fn commands(&mut self) {
        while let Some(command) = self.outlet.command() {
            match command {
                Command::Keep { flow_id, limits } => self.holds.keep(flow_id, limits, self.now),
                Command::Release { flow_id } => self.holds.release(flow_id),
                Command::Watch { whose, rule, flows, until, limits } => {
                    self.watches.add(Watch::new(whose, rule, flows, until, limits));
                }
            }
        }
    }

    /// Lets holds copy and drain, a bounded amount.
    #[inline]
    pub(super) fn pump(&mut self) {
        if self.holds.in_use() == 0 {
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            let mut sink = Sink { recorder, account: &mut self.account.kept, comments: &self.rules };
            self.holds.pump(&self.ring, self.now, &mut sink);
        }
    }

    /// A bounded part of the last of what is to be recorded; true once all is handed over.
    pub(super) fn finish(&mut self) -> bool {
        self.commands();
        self.holds.release_undecided();
        self.pump();
        if self.holds.in_use() > 0 && self.recorder.is_some() {
            return false;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
        true
    }
}
