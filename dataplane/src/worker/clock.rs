//! Packet time: timers that are due, the 100-ms tick, and what is left when the input has ended. Worker's
//! thread; never allocates. What timers raise goes to the rules, what ends goes to the way out.

use rules::event::Event;
use rules::facts::Count;

use super::engine::Engine;
use crate::activity::{INTERVAL, Party};
use crate::analyze::Outcome;
use crate::flow::record::flow_flag;
use crate::judge::message::Message;
use crate::source::Nanos;

/// Ns.
pub(super) const SECOND: Nanos = 1_000_000_000;
/// Seconds after a SYN for which syn_timeout is raised: as long as clients repeat it.
const SYN_CHECKS: u8 = 64;
/// syn_timeout that counts as unanswered for hosts and services.
const UNANSWERED_AFTER: u8 = 3;
const TCP: u8 = 6;
/// A silence is taken in tick by tick for so long: longer than an attempt waits for its fate.
const STEPS: Nanos = 6_400_000_000;

impl Engine {
    #[cold]
    pub(super) fn advance_clock(&mut self, now: Nanos) -> bool {
        if !self.started {
            self.started = true;
            self.table.wheel.start(now);
            self.next_tick = (now / INTERVAL + 1).saturating_mul(INTERVAL);
        }
        // What timers count in a silence is to be counted when it was due, not when the silence ended.
        while self.next_tick <= self.now.saturating_add(STEPS)
            && now.saturating_sub(self.next_tick) >= INTERVAL
        {
            let boundary = self.next_tick;
            if !self.timers(boundary) || !self.tick(boundary) {
                return false;
            }
        }
        if !self.timers(now) || now >= self.next_tick && !self.tick(now) {
            return false;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.advance(now);
        }
        self.now = now;
        true
    }

    /// Everything due before `now`. False if the queues are too full.
    fn timers(&mut self, now: Nanos) -> bool {
        while let Some(slot) = self.table.wheel.pop(&mut self.table.flows, now) {
            self.timer(slot, now);
            if !self.may_go_on() {
                return false;
            }
        }
        !self.apps.due(now) || self.app_timers(now)
    }

    /// Tells the judge what hosts and services did up to the boundary passed, then the time.
    pub(super) fn tick(&mut self, now: Nanos) -> bool {
        let passed = now / INTERVAL * INTERVAL;
        // A second ends at this tick, or has ended before the next one told.
        let second_ends = passed / SECOND > (self.next_tick - INTERVAL) / SECOND;
        self.activity.tell_all(second_ends || self.activity.is_filling() || self.put_off);
        if !self.tell_activity() {
            return false;
        }
        if !self.tell_siblings(now) {
            return false;
        }
        self.outlet.send(Message::Tick(self.next_tick));
        if passed > self.next_tick {
            self.outlet.send(Message::Tick(passed));
        }
        self.next_tick = passed.saturating_add(INTERVAL);
        true
    }

    /// Tells the judge what went well at services in trouble. False if the queues are too full.
    pub(super) fn tell_siblings(&mut self, now: Nanos) -> bool {
        while self.may_go_on() {
            match self.siblings.news(now) {
                Some(message) => self.outlet.siblings(message),
                None => return true,
            }
        }
        false
    }

    /// Tells the judge what was counted since the last time. False if the queues are too full and nothing may be lost;
    /// on a live wire, what finds no room is put off until the next tick.
    pub(super) fn tell_activity(&mut self) -> bool {
        self.put_off = false;
        while !self.activity.is_empty() {
            if !self.may_go_on() {
                return false;
            }
            if !self.outlet.roomy() {
                self.put_off = true;
                break;
            }
            if let Some(message) = self.activity.take() {
                self.outlet.send(message);
            }
        }
        true
    }

    /// What was counted when the last flows ended.
    pub(super) fn tell_rest(&mut self) -> bool {
        self.activity.tell_all(true);
        self.tell_activity()
    }

    /// A flow whose time may have come.
    pub(super) fn timer(&mut self, slot: u32, now: Nanos) {
        let due = self.deadline(slot);
        if due > now {
            self.table.rearm(slot, due);
            return;
        }
        if self.table.is_half_open(slot) && self.gives_up(slot).is_some_and(|at| at <= due) {
            self.give_up(slot);
        }
        if self.forgotten(slot).is_some_and(|at| at <= due) {
            self.leave_state_table(slot, due);
        }
        if self.next_check(slot) == Some(due) {
            let flow = &mut self.table.flows[slot as usize];
            flow.rare.syn_checks += 1;
            if flow.rare.syn_checks == UNANSWERED_AFTER {
                let (orig, key) = (flow.orig(), flow.key);
                self.activity.host(Party::of(&key, orig), Count::SynUnanswered);
                self.activity.service(Party::of(&key, orig ^ 1), Count::SynUnanswered);
            }
            self.trial_waits(slot, self.table.flows[slot as usize].rare.syn_checks == UNANSWERED_AFTER, due);
            let next = self.deadline(slot);
            self.table.rearm(slot, next);
            let mut outcome = Outcome::default();
            outcome.events.insert(Event::SynTimeout);
            self.raise(slot, &outcome, due, None);
            return;
        }
        if self.table.flows[slot as usize].next_stall_check() == Some(due) {
            self.table.flows[slot as usize].rare.stall_checks += 1;
            let next = self.deadline(slot);
            self.table.rearm(slot, next);
            let mut outcome = Outcome::default();
            outcome.events.insert(Event::Stalled);
            self.raise(slot, &outcome, due, None);
            return;
        }
        if self.next_idle_check(slot) == Some(due) {
            self.told_idle(slot, due);
            return;
        }
        let end = self.deadline(slot);
        if end > due {
            self.table.rearm(slot, end);
        } else {
            self.account.flows_ended += 1;
            self.end(slot, false, due);
        }
    }

    /// When syn_timeout is raised next: while a SYN was sent, not taken back, and the other side has said
    /// nothing at all.
    pub(super) fn next_check(&self, slot: u32) -> Option<Nanos> {
        let flow = &self.table.flows[slot as usize];
        let orig = flow.orig();
        let unanswered = flow.senders[orig].syn > 0 && flow.dirs[orig ^ 1].packets == 0;
        let open = self.table.is_half_open(slot) && !flow.has(flow_flag::CLOSED);
        (open && unanswered && flow.rare.syn_checks < SYN_CHECKS)
            .then(|| flow.start_ns.saturating_add(Nanos::from(flow.rare.syn_checks + 1) * SECOND))
    }

    /// When a flow is to be looked at next.
    pub(super) fn deadline(&self, slot: u32) -> Nanos {
        let flow = &self.table.flows[slot as usize];
        let timeouts = &self.timeouts;
        if self.table.is_half_open(slot) {
            if flow.has(flow_flag::CLOSED) {
                return flow.last_ns.saturating_add(timeouts.closed);
            }
            let end = flow.last_ns.saturating_add(timeouts.half_open);
            let before = [self.next_check(slot), self.gives_up(slot)].into_iter().flatten().min();
            return before.map_or(end, |before| end.min(before));
        }
        if let Some(at) = self.forgotten(slot) {
            return at.min(flow.last_ns.saturating_add(timeouts.other));
        }
        let end = flow.last_ns.saturating_add(if flow.key.proto != TCP {
            timeouts.other
        } else if flow.has(flow_flag::CLOSED) {
            timeouts.closed
        } else {
            timeouts.established
        });
        let checks = [flow.next_stall_check(), self.next_idle_check(slot)];
        checks.into_iter().flatten().fold(end, Nanos::min)
    }

    /// Timers due by the last packet's time, and the tick it is in. False if the queues are too full.
    pub(super) fn last_timers(&mut self) -> bool {
        if !self.advance(self.now) || !self.advance_clock(self.now) {
            return false;
        }
        if !self.last_opened && self.started {
            self.table.wheel.open_last(self.now);
            self.last_opened = true;
        }
        while self.may_go_on() {
            match self.table.wheel.take(&mut self.table.flows) {
                Some(slot) => self.timer(slot, self.now),
                None => return self.tick(self.now.max(self.next_tick)),
            }
        }
        false
    }
}
