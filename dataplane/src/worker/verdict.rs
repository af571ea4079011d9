//! What follows when a rule matches: the judge is told, the flow is held, and what is held is recorded. Worker's
//! thread; never allocates. Hits go to the judge, kept packets to the recorder.

use rules::event::Event;
use rules::facts::FlowFacts;

use super::engine::Engine;
use super::watch::Watch;
use crate::decode::Packet;
use crate::flow::keeper::Stamp;
use crate::flow::record::{NONE, flow_flag};
use crate::hold::Sink;
use crate::judge::message::{Command, Hit};
use crate::source::Nanos;

impl Engine {
    pub(super) fn matched(
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
    pub(super) fn record_live(&mut self, slot: u32, stamp: &Stamp, packet: &Packet, bytes: &[u8]) {
        if self.table.flows[slot as usize].has(flow_flag::HELD) {
            self.record_held(slot, stamp, self.kept(packet, bytes));
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
        self.end_demands();
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
