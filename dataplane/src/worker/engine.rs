//! One packet through the stages: flow, analysis, history, guards, capture. Worker's thread; calls only.
//! Never allocates, locks, logs or waits. Messages and rows leave through `outlet`, packets through `hold`.

use std::sync::Arc;

use rules::event::{Event, EventSet};
use rules::{Hits, RuleSet};

use super::outlet::{Outlet, Queues};
use super::watch::{Watch, Watches};
use crate::activity::{Activity, INTERVAL, Party, What};
use crate::analyze::{self, Outcome};
use crate::config::{Timeouts, WorkerConfig};
use crate::decode::{Class, Packet, flags};
use crate::flow::FlowTable;
use crate::flow::keeper::{Keeper, Stamp};
use crate::flow::record::{NONE, dir_flag, flow_flag};
use crate::flow::table::Class as Region;
use crate::flow::trouble::TroubleSlab;
use crate::history::{Ring, Tails};
use crate::hold::{Holds, Sink};
use crate::judge::message::{Command, Message};
use crate::ledger::WorkerAccount;
use crate::record::Recorder;
use crate::source::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// Seconds after a SYN for which syn_timeout is raised: as long as clients repeat it.
const SYN_CHECKS: u8 = 64;
/// syn_timeout that counts as unanswered for hosts and services.
const UNANSWERED_AFTER: u8 = 3;
const TCP: u8 = 6;

#[derive(Debug)]
pub(super) struct Engine {
    pub table: FlowTable,
    pub(super) slab: TroubleSlab,
    pub(super) keeper: Keeper,
    pub(super) ring: Ring,
    pub(super) tails: Tails,
    pub(super) holds: Holds,
    pub recorder: Option<Recorder>,
    pub(super) rules: Arc<RuleSet>,
    pub(super) subscribed: EventSet,
    pub(super) hits: Hits,
    pub(super) outlet: Outlet,
    pub(super) activity: Activity,
    pub(super) watches: Watches,
    pub(super) account: WorkerAccount,
    timeouts: Timeouts,
    cutoff: u64,
    snap: usize,
    lossless: bool,
    pub now: Nanos,
    started: bool,
    next_tick: Nanos,
    /// Slots before this have been ended, once the input has.
    ended_to: u32,
    last_opened: bool,
}

impl Engine {
    pub fn new(
        config: &WorkerConfig,
        rules: Arc<RuleSet>,
        queues: Queues,
        recorder: Option<Recorder>,
        number: u16,
    ) -> Engine {
        let table = FlowTable::new(config.flows, config.half_open, config.hash_secret);
        let slots = config.flows + config.half_open;
        let ring = Ring::new(config.history_bytes);
        Engine {
            slab: TroubleSlab::new(config.troubled),
            keeper: Keeper::new(slots),
            tails: Tails::new(config.tails, ring.size(), slots),
            holds: Holds::new(&config.hold, rules.rules().len(), ring.largest()),
            recorder,
            subscribed: rules.flow_events(),
            rules,
            hits: Hits::new(),
            outlet: Outlet::new(queues, number),
            activity: Activity::new(config.activity),
            watches: Watches::default(),
            account: WorkerAccount::default(),
            timeouts: config.timeouts,
            cutoff: config.cutoff_bytes,
            snap: if config.snap_bytes == 0 { usize::MAX } else { config.snap_bytes as usize },
            lossless: config.lossless,
            table,
            ring,
            now: 0,
            started: false,
            next_tick: 0,
            ended_to: 0,
            last_opened: false,
        }
    }

    pub fn live(&self) -> u32 {
        self.table.live()
    }

    pub fn peak(&self) -> u32 {
        self.table.peak()
    }

    pub fn horizon(&self) -> Nanos {
        self.ring.horizon(self.now)
    }

    pub fn next_number(&self) -> u64 {
        self.account.received
    }

    pub fn account(&self) -> WorkerAccount {
        let mut account = self.account;
        account.events = self.outlet.account;
        account.events.activity_lost = self.activity.lost;
        account.trouble_refused = self.slab.refused;
        account.tails_rescued = self.tails.rescued;
        account.tails_forgotten = self.tails.forgotten;
        account.holds_taken = self.holds.taken_total;
        account.holds_unanswered = self.holds.unanswered;
        account.holds_refused = self.holds.refused_budget + self.holds.refused_full;
        account
    }

    /// True if there is room for whatever comes next, or nobody waits for room.
    #[inline(always)]
    fn may_go_on(&mut self) -> bool {
        !self.lossless || self.outlet.roomy()
    }

    /// Packet time has come to `now`: timers and ticks due before it. False if the queues are too full to go
    /// on; call again when they aren't.
    #[inline(always)]
    pub fn advance(&mut self, now: Nanos) -> bool {
        if !self.may_go_on() {
            return false;
        }
        if now <= self.now && self.started {
            return true;
        }
        if self.table.wheel.behind(now) || now >= self.next_tick {
            return self.advance_clock(now);
        }
        self.now = now;
        true
    }

    #[cold]
    fn advance_clock(&mut self, now: Nanos) -> bool {
        if !self.started {
            self.started = true;
            self.table.wheel.start(now);
            self.next_tick = (now / INTERVAL + 1).saturating_mul(INTERVAL);
        }
        while let Some(slot) = self.table.wheel.pop(&mut self.table.flows, now) {
            self.timer(slot, now);
            if !self.may_go_on() {
                return false;
            }
        }
        if now >= self.next_tick && !self.tick(now) {
            return false;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.advance(now);
        }
        self.now = now;
        true
    }

    /// Tells the judge what hosts and services did up to the boundary passed, then the time.
    fn tick(&mut self, now: Nanos) -> bool {
        while !self.activity.is_empty() {
            if !self.may_go_on() {
                return false;
            }
            if let Some(message) = self.activity.take() {
                self.outlet.send(message);
            }
        }
        self.outlet.send(Message::Tick(self.next_tick));
        let passed = now / INTERVAL * INTERVAL;
        if passed > self.next_tick {
            self.outlet.send(Message::Tick(passed));
        }
        self.next_tick = passed.saturating_add(INTERVAL);
        true
    }

    /// A flow whose time may have come.
    fn timer(&mut self, slot: u32, now: Nanos) {
        let due = self.deadline(slot);
        if due > now {
            self.table.rearm(slot, due);
            return;
        }
        if self.next_check(slot) == Some(due) {
            let flow = &mut self.table.flows[slot as usize];
            flow.syn_checks += 1;
            if flow.syn_checks == UNANSWERED_AFTER {
                let (orig, key) = (flow.orig(), flow.key);
                self.activity.host(Party::of(&key, orig), What::Unanswered);
                self.activity.service(Party::of(&key, orig ^ 1), What::Unanswered);
            }
            let next = self.deadline(slot);
            self.table.rearm(slot, next);
            let mut outcome = Outcome::default();
            outcome.events.insert(Event::SynTimeout);
            self.raise(slot, &outcome, due, None);
        } else {
            self.account.flows_ended += 1;
            self.end(slot, false, due);
        }
    }

    /// When syn_timeout is raised next: while a SYN was sent, not taken back, and the other side has said
    /// nothing at all.
    fn next_check(&self, slot: u32) -> Option<Nanos> {
        let flow = &self.table.flows[slot as usize];
        let orig = flow.orig();
        let unanswered = flow.dirs[orig].syn > 0 && flow.dirs[orig ^ 1].packets == 0;
        let open = self.table.is_half_open(slot) && !flow.has(flow_flag::CLOSED);
        (open && unanswered && flow.syn_checks < SYN_CHECKS)
            .then(|| flow.start_ns.saturating_add(Nanos::from(flow.syn_checks + 1) * SECOND))
    }

    /// When a flow is to be looked at next.
    fn deadline(&self, slot: u32) -> Nanos {
        let flow = &self.table.flows[slot as usize];
        let timeouts = &self.timeouts;
        if self.table.is_half_open(slot) {
            if flow.has(flow_flag::CLOSED) {
                return flow.last_ns.saturating_add(timeouts.closed);
            }
            let end = flow.last_ns.saturating_add(timeouts.half_open);
            return self.next_check(slot).map_or(end, |check| end.min(check));
        }
        flow.last_ns.saturating_add(if flow.key.proto != TCP {
            timeouts.other
        } else if flow.has(flow_flag::CLOSED) {
            timeouts.closed
        } else {
            timeouts.established
        })
    }

    /// Takes one packet through all stages.
    #[inline]
    pub fn packet(&mut self, stamp: &Stamp, packet: &Packet, hash: u64, bytes: &[u8]) {
        self.account.received += 1;
        self.account.analysed += 1;
        self.account.bytes += u64::from(stamp.orig_len);
        self.account.classes[packet.class as usize] += 1;
        if !packet.has_flow {
            self.append(stamp, bytes, usize::MAX, 0);
            self.tails.look(&mut self.table.flows, &self.ring);
            return;
        }
        let (mut slot, made) = self.flow_of(packet, hash, stamp.ts);
        let flow = &mut self.table.flows[slot as usize];
        if packet.class != Class::Tcp {
            analyze::datagram(flow, packet, stamp.ts);
            match packet.icmp.too_big {
                Some(mtu) => self.too_big(slot, mtu, stamp, packet, bytes, made),
                None => self.remember_flow(slot, stamp, packet, bytes, made),
            }
            return;
        }
        let closed = flow.has(flow_flag::CLOSED);
        let mut outcome = Outcome::default();
        analyze::segment(flow, &mut self.slab, packet, stamp.ts, &mut outcome);
        let closes = !closed && flow.has(flow_flag::CLOSED);
        if packet.tcp.flags & flags::SYN != 0 {
            let which = usize::from(packet.tcp.flags & flags::ACK != 0);
            self.keeper.keep(slot, which, stamp, bytes);
        }
        let mut moved = false;
        if outcome.established && self.table.is_half_open(slot) {
            (slot, moved) = (self.promote(slot), true);
        }
        if closes {
            self.table.wheel.remove(&mut self.table.flows, slot);
            let due = self.deadline(slot);
            self.table.rearm(slot, due);
        }
        if outcome.first_syn || outcome.established || packet.tcp.flags & flags::RST != 0 {
            self.count_activity(slot, &outcome, packet);
        }
        self.remember_flow(slot, stamp, packet, bytes, made || moved);
        if !outcome.events.and(self.subscribed).is_empty() {
            self.raise(slot, &outcome, stamp.ts, Some(stamp.number));
        }
        if packet.tcp.flags & flags::RST != 0 && !self.watches.is_empty() {
            self.watched_reset(slot, outcome.dir, stamp);
        }
        self.record_live(slot, stamp, bytes);
    }

    /// Finds the packet's flow or makes it; true if it was made.
    #[inline]
    fn flow_of(&mut self, packet: &Packet, hash: u64, now: Nanos) -> (u32, bool) {
        let Some(slot) = self.table.find(&packet.key, hash) else {
            return (self.make(packet, hash, now, 0), true);
        };
        let syn_only = packet.tcp.flags & (flags::SYN | flags::ACK | flags::RST) == flags::SYN;
        if packet.class == Class::Tcp && syn_only && self.is_another(slot, packet) {
            self.account.flows_ended += 1;
            self.end(slot, true, now);
            return (self.make(packet, hash, now, flow_flag::PORT_REUSE), true);
        }
        (slot, false)
    }

    /// A SYN with another initial sequence number, or on a flow of which other packets than the answer to it
    /// were seen before.
    fn is_another(&self, slot: u32, packet: &Packet) -> bool {
        let flow = &self.table.flows[slot as usize];
        let (own, other) = (flow.dir(packet.from_low), flow.dir(!packet.from_low));
        if own.has(dir_flag::SYN) {
            return own.isn != packet.tcp.seq;
        }
        flow.has(flow_flag::ESTABLISHED | flow_flag::RST) || own.has(dir_flag::SEEN) || !other.has(dir_flag::SYN)
    }

    fn make(&mut self, packet: &Packet, hash: u64, now: Nanos, flow_flags: u16) -> u32 {
        let syn = packet.class == Class::Tcp && packet.tcp.flags & flags::SYN != 0;
        let region = if syn { Region::HalfOpen } else { Region::Full };
        self.make_room(region, now);
        let wait = if syn { SECOND } else { self.timeouts.other.min(self.timeouts.established) };
        let slot = self.table.insert(packet.key, hash, region, now, now.saturating_add(wait));
        self.account.flows_created += 1;
        let flow = &mut self.table.flows[slot as usize];
        flow.vlan = packet.vlan;
        flow.flags = flow_flags;
        flow.set_originator(packet.from_low);
        slot
    }

    fn make_room(&mut self, region: Region, now: Nanos) {
        let Some(victim) = self.table.must_evict(region) else { return };
        if self.table.flows[victim as usize].has(flow_flag::CLOSED) {
            self.account.flows_ended += 1;
        } else if region == Region::HalfOpen {
            self.account.half_open_evicted += 1;
        } else {
            self.account.flows_evicted += 1;
        }
        self.end(victim, true, now);
    }

    fn promote(&mut self, slot: u32) -> u32 {
        self.make_room(Region::Full, self.now);
        let due = self.table.flows[slot as usize].last_ns.saturating_add(self.timeouts.established);
        let to = self.table.promote(slot, due);
        self.keeper.moved(slot, to);
        self.tails.moved(&self.table.flows[to as usize], slot, to);
        to
    }

    fn count_activity(&mut self, slot: u32, outcome: &Outcome, packet: &Packet) {
        let flow = &self.table.flows[slot as usize];
        let (client, server) = (Party::of(&flow.key, flow.orig()), Party::of(&flow.key, flow.orig() ^ 1));
        let sender = Party::of(&flow.key, outcome.dir);
        let mut both = |what| {
            self.activity.host(client, what);
            self.activity.service(server, what);
        };
        if outcome.first_syn {
            both(What::Syn);
        }
        if outcome.established && flow.has(flow_flag::HANDSHAKE) {
            both(What::Established);
        }
        if outcome.refused {
            both(What::Refused);
        }
        if packet.tcp.flags & flags::RST != 0 {
            self.activity.host(sender, What::Rst);
            if outcome.dir != flow.orig() {
                self.activity.service(server, What::Rst);
            }
        }
    }

    #[inline(always)]
    fn remember_flow(&mut self, slot: u32, stamp: &Stamp, packet: &Packet, bytes: &[u8], first: bool) {
        let flow = &mut self.table.flows[slot as usize];
        let passed = flow.dirs[0].bytes + flow.dirs[1].bytes > self.cutoff;
        let keep = if passed { usize::from(packet.headers) } else { usize::MAX };
        let previous = flow.newest;
        let link = self.append(stamp, bytes, keep, previous);
        let flow = &mut self.table.flows[slot as usize];
        flow.newest = link;
        self.tails.note(flow, slot, &self.ring, first);
        self.tails.look(&mut self.table.flows, &self.ring);
    }

    /// Puts a packet into history, at most `keep` bytes of it.
    #[inline(always)]
    fn append(&mut self, stamp: &Stamp, bytes: &[u8], keep: usize, previous: u64) -> u64 {
        let kept = &bytes[..bytes.len().min(keep).min(self.snap)];
        self.account.history_cut += u64::from(kept.len() < bytes.len());
        self.ring.append(previous, stamp, kept)
    }

    /// An ICMP "too big" belongs to the flow it quotes: in its chain, its facts and its capture.
    #[cold]
    fn too_big(&mut self, own: u32, mtu: u32, stamp: &Stamp, packet: &Packet, bytes: &[u8], made: bool) {
        let quoted = packet.icmp.quote.and_then(|quote| {
            let slot = self.table.find(&quote.key, self.table.hash(&quote.key))?;
            Some((slot, quote.from_low))
        });
        let Some((slot, from_low)) = quoted else {
            self.account.icmp_unmatched += 1;
            self.remember_flow(own, stamp, packet, bytes, made);
            return;
        };
        let flow = &mut self.table.flows[slot as usize];
        let outcome = analyze::too_big(flow, &mut self.slab, mtu, from_low);
        self.remember_flow(slot, stamp, packet, bytes, false);
        if !outcome.events.and(self.subscribed).is_empty() {
            self.raise(slot, &outcome, stamp.ts, Some(stamp.number));
        }
        self.record_live(slot, stamp, bytes);
    }

    /// A flow's end: its Close event, its row, and everything it had goes back.
    pub(super) fn end(&mut self, slot: u32, in_wheel: bool, now: Nanos) {
        if self.subscribed.contains(Event::Close) {
            let flow = &self.table.flows[slot as usize];
            let mut outcome = Outcome {
                fin_before: (flow.dirs[0].flags | flow.dirs[1].flags) & dir_flag::FIN != 0,
                rst_before: flow.has(flow_flag::RST),
                ..Outcome::default()
            };
            outcome.events.insert(Event::Close);
            self.raise(slot, &outcome, now, None);
        }
        let flow = &self.table.flows[slot as usize];
        self.outlet.row(flow, self.slab.get(flow.trouble));
        if flow.hold != NONE && !self.holds.is_over(flow.hold, flow.id()) {
            self.holds.ended(flow.hold);
        }
        self.tails.release(flow, slot);
        self.slab.give_back(flow.trouble);
        self.keeper.clear(slot);
        self.table.remove(slot, in_wheel);
    }

    /// Timers due by the last packet's time, and the tick it is in. False if the queues are too full.
    pub fn last_timers(&mut self) -> bool {
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

    /// Ends every flow still alive. False if the queues are too full.
    pub fn end_flows(&mut self) -> bool {
        while let Some(slot) = self.table.next_live(self.ended_to) {
            if !self.may_go_on() {
                return false;
            }
            self.account.flows_ended += 1;
            self.end(slot, true, self.now);
            self.ended_to = slot + 1;
        }
        true
    }

    /// Takes the judge's commands.
    #[inline]
    pub fn commands(&mut self) {
        while let Some(command) = self.outlet.command() {
            match command {
                Command::Keep { flow_id, limits } => self.holds.keep(flow_id, limits, self.now),
                Command::Release { flow_id } => self.holds.release(flow_id),
                Command::Watch { addr, rule, flows, until, limits } => {
                    self.watches.add(addr, Watch { rule, left: flows, until, limits });
                }
            }
        }
    }

    /// Lets holds copy and drain, a bounded amount.
    #[inline]
    pub fn pump(&mut self) {
        if self.holds.in_use() == 0 {
            return;
        }
        if let Some(recorder) = &mut self.recorder {
            let mut sink = Sink { recorder, account: &mut self.account.kept, comments: &self.rules };
            self.holds.pump(&self.ring, self.now, &mut sink);
        }
    }

    /// A bounded part of the last of what is to be recorded; true once all is handed over.
    pub fn finish(&mut self) -> bool {
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
