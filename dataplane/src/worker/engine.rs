//! One packet through the stages: flow, analysis, history, guards, capture. Worker's thread; calls only.
//! Never allocates, locks, logs or waits. Messages and rows leave through `outlet`, packets through `hold`.

use std::sync::Arc;

use rules::event::{Event, EventSet};
use rules::facts::FlowFacts;
use rules::{Hits, MAX_RULES, RuleSet};

use super::Hashes;
use super::apps::{self, Apps};
use super::demand::Demands;
use super::idle;
use super::outlet::{Outlet, Queues};
use super::splits::SplitTable;
use super::trials::Trials;
use super::watch::Watches;
use crate::activity::Activity;
use crate::analyze::{self, Outcome};
use crate::config::{Timeouts, WorkerConfig};
use crate::decode::{Class, Packet, Part, flags};
use crate::flow::FlowTable;
use crate::flow::copies::{self, Copies, Delivery};
use crate::flow::fragments::Fragments;
use crate::flow::keeper::{Keeper, Stamp};
use crate::flow::record::{crowd_flag, flow_flag};
use crate::flow::trouble::TroubleSlab;
use crate::history::{Ring, Tails};
use crate::hold::Holds;
use crate::ledger::WorkerAccount;
use crate::record::Recorder;
use crate::siblings::SiblingTable;
use crate::sightings::Sightings;
use crate::source::Nanos;

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) table: FlowTable,
    pub(super) slab: TroubleSlab,
    pub(super) fragments: Fragments,
    pub(super) copies: Copies,
    pub(super) apps: Apps,
    pub(super) keeper: Keeper,
    pub(super) ring: Ring,
    pub(super) tails: Tails,
    pub(super) holds: Holds,
    pub(super) recorder: Option<Recorder>,
    pub(super) rules: Arc<RuleSet>,
    /// Of `rules`.
    pub(super) generation: u32,
    pub(super) subscribed: EventSet,
    /// A SYN-ACK as it should be is of no use to any rule.
    pub(super) skips_ordinary: bool,
    pub(super) hits: Hits,
    /// What the guards of the present event are asked on.
    pub(super) snapshot: Box<FlowFacts>,
    /// Snapshots begun.
    pub(super) raised: u32,
    /// Some guards are timed.
    pub(super) timed: bool,
    pub(super) outlet: Outlet,
    pub(super) activity: Activity,
    pub(super) siblings: SiblingTable,
    pub(super) sightings: Sightings,
    pub(super) watches: Watches,
    pub(super) demands: Demands,
    pub(super) trials: Trials,
    /// Of several workers.
    pub(super) splits: Option<Arc<SplitTable>>,
    pub(super) number: u16,
    pub(super) account: WorkerAccount,
    pub(super) timeouts: Timeouts,
    /// Packets go into history.
    pub(super) remembers: bool,
    pub(super) cutoff: u64,
    /// Bytes kept of a packet, and of its payload, at most.
    pub(super) snap: usize,
    pub(super) payload: Option<u32>,
    pub(super) lossless: bool,
    /// Counts that found no room in the queue wait for the next tick.
    pub(super) put_off: bool,
    pub(super) now: Nanos,
    pub(super) started: bool,
    pub(super) next_tick: Nanos,
    /// Slots before this have been ended, once the input has.
    pub(super) ended_to: u32,
    pub(super) last_opened: bool,
    /// The input has ended: what ends now ends for no other reason.
    pub(super) ending: bool,
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
        let outlet = Outlet::new(queues, number, rules.most_on_an_event());
        outlet.handover().goes_by(rules.generation());
        Engine {
            slab: TroubleSlab::new(config.troubled),
            fragments: Fragments::new(config.fragmented, config.hash_secret),
            copies: Copies::new(config.copies),
            apps: Apps::new(config),
            keeper: Keeper::new(slots),
            tails: Tails::new(config.tails, ring.size(), slots),
            holds: Holds::new(&config.hold, ring.largest()),
            subscribed: rules.flow_events(),
            skips_ordinary: !rules.asks_ordinary_syn_acks(),
            activity: Activity::new(config.activity, &rules, config.hash_secret),
            generation: rules.generation(),
            hits: Hits::with_room(MAX_RULES),
            snapshot: Box::default(),
            raised: 0,
            timed: config.time_guards,
            outlet,
            rules,
            siblings: SiblingTable::new(config.siblings),
            sightings: Sightings::default(),
            watches: Watches::default(),
            demands: Demands::new(recorder.as_ref()),
            trials: Trials::default(),
            splits: None,
            number,
            account: WorkerAccount::default(),
            timeouts: config.timeouts,
            remembers: config.remembers || recorder.is_some(),
            cutoff: config.cutoff_bytes,
            snap: if config.snap_bytes == 0 { usize::MAX } else { config.snap_bytes as usize },
            payload: config.payload_bytes,
            recorder,
            lossless: config.lossless,
            put_off: false,
            table,
            ring,
            now: 0,
            started: false,
            next_tick: 0,
            ended_to: 0,
            last_opened: false,
            ending: false,
        }
    }

    pub fn live(&self) -> u32 {
        self.table.live()
    }

    pub fn peak(&self) -> u32 {
        self.table.peak()
    }

    pub fn horizon(&self) -> Option<Nanos> {
        self.ring.horizon(self.now)
    }

    pub fn next_number(&self) -> u64 {
        self.account.received
    }

    pub fn account(&self) -> WorkerAccount {
        let mut account = self.account;
        account.events = self.outlet.account;
        account.events.activity_lost = self.activity.lost;
        account.events.pairs_lost = self.activity.pairs_lost;
        account.trouble_refused = self.slab.refused;
        account.siblings_evicted = self.siblings.evicted;
        account.events.siblings_unwatched = self.siblings.unwatched;
        account.connections_whole = self.sightings.connections.whole;
        account.connections_one_sided = self.sightings.connections.one_sided;
        account.fragments_evicted = self.fragments.evicted;
        account.apps_refused = self.apps.slab.refused;
        account.questions_forgotten = self.apps.questions.forgotten;
        account.tails_rescued = self.tails.rescued;
        account.tails_forgotten = self.tails.forgotten;
        account.tails_refused = self.tails.refused;
        account.holds_taken = self.holds.taken_total;
        account.holds_unanswered = self.holds.unanswered;
        account.holds_refused = self.holds.refused_budget + self.holds.refused_full;
        account
    }

    /// True if there is room for whatever comes next, or nobody waits for room.
    #[inline(always)]
    pub(super) fn may_go_on(&mut self) -> bool {
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
        if self.table.wheel.behind(now) || now >= self.next_tick || self.apps.due(now) {
            return self.advance_clock(now);
        }
        self.now = now;
        true
    }

    /// Takes one packet through all stages.
    #[inline]
    pub fn packet(&mut self, stamp: &Stamp, packet: &Packet, hashes: Hashes, bytes: &[u8]) {
        self.account.received += 1;
        self.account.analysed += 1;
        self.account.bytes += u64::from(stamp.orig_len);
        self.account.classes[packet.class as usize] += 1;
        if !self.demands.is_empty() {
            self.demanded(stamp, packet, bytes);
        }
        if !packet.has_flow {
            self.flowless(stamp, packet, bytes);
            return;
        }
        if packet.fragment.part == Part::First {
            self.begin_fragments(packet, bytes, stamp.ts);
        }
        let delivery = self.copies.look(packet, hashes.identity, stamp.ts);
        let hash = hashes.flow;
        if delivery != Delivery::First && self.delivered_again(delivery, stamp, packet, hash, bytes) {
            return;
        }
        let (mut slot, made) = self.flow_of(packet, hash, stamp.ts);
        let flow = &mut self.table.flows[slot as usize];
        if packet.class != Class::Tcp {
            self.datagram(slot, stamp, packet, bytes, made);
            return;
        }
        if flow.has(flow_flag::COPIED) && copies::is_telling(packet) {
            copies::came_once(flow);
        }
        let closed = flow.has(flow_flag::CLOSED);
        let mut outcome = Outcome::default();
        if analyze::falls_silent(flow, stamp.ts) {
            self.siblings.silent_again(flow);
            outcome.rearm = idle::speaks_again(flow, self.subscribed);
        }
        analyze::segment(flow, &mut self.slab, packet, stamp.ts, &mut outcome);
        let closes = !closed && flow.has(flow_flag::CLOSED);
        if packet.tcp.flags & flags::SYN != 0 && self.remembers {
            let which = usize::from(packet.tcp.flags & flags::ACK != 0);
            self.keeper.keep(slot, which, stamp, self.kept(packet, bytes));
        }
        let mut moved = false;
        if outcome.established && self.table.is_half_open(slot) {
            (slot, moved) = (self.promote(slot), true);
        } else if outcome.established && self.subscribed.contains(Event::Idle) {
            outcome.rearm = true;
        }
        if outcome.turn || self.table.flows[slot as usize].has(flow_flag::HELLO_WAITS) {
            self.follow_app(slot, stamp, packet, bytes, &mut outcome);
        }
        if closes || outcome.rearm {
            self.table.wheel.remove(&mut self.table.flows, slot);
            let due = self.deadline(slot);
            self.table.rearm(slot, due);
        }
        if made {
            self.enter_state_table(slot);
        }
        if packet.is_control() || outcome.established {
            self.count_activity(slot, &outcome, packet, closes);
        }
        self.remember_flow(slot, stamp, packet, bytes, made || moved);
        if !outcome.events.and(self.subscribed).is_empty() {
            self.raise(slot, &outcome, stamp.ts, Some(stamp.number));
        }
        if !self.watches.is_empty() {
            self.watched(slot, outcome.dir, packet.tcp.flags & flags::RST != 0, stamp);
        }
        self.record_live(slot, stamp, packet, bytes);
    }

    /// A packet of a flow that is not TCP.
    fn datagram(&mut self, slot: u32, stamp: &Stamp, packet: &Packet, bytes: &[u8], made: bool) {
        let flow = &mut self.table.flows[slot as usize];
        analyze::datagram(flow, packet, stamp.ts);
        if flow.crowd & crowd_flag::TRACKED == 0 && self.activity.counts_states() {
            self.enter_state_table(slot);
        }
        match packet.icmp.too_big {
            Some(mtu) => self.too_big(slot, mtu, stamp, packet, bytes, made),
            None if packet.icmp.quote.is_some() => self.unreachable(slot, stamp, packet, bytes, made),
            None => {
                self.remember_flow(slot, stamp, packet, bytes, made);
                if apps::is_dns(packet) {
                    self.dns(slot, stamp, packet, bytes);
                }
                if !self.watches.is_empty() {
                    self.watched(slot, usize::from(!packet.from_low), false, stamp);
                }
                self.record_live(slot, stamp, packet, bytes);
            }
        }
    }

    #[inline(always)]
    pub(super) fn remember_flow(
        &mut self,
        slot: u32,
        stamp: &Stamp,
        packet: &Packet,
        bytes: &[u8],
        first: bool,
    ) {
        if !self.remembers {
            return;
        }
        let flow = &self.table.flows[slot as usize];
        let passed = flow.dirs[0].bytes + flow.dirs[1].bytes > self.cutoff;
        let keep = if passed { usize::from(packet.headers) } else { usize::MAX };
        let previous = flow.newest;
        let link = self.append(stamp, packet, bytes, keep, previous);
        self.table.flows[slot as usize].newest = link;
        self.tails.note(if first { 0 } else { previous }, slot, &self.ring);
        self.tails.look(&mut self.table.flows, &self.ring);
    }

    /// Puts a packet into history, at most `keep` bytes of it.
    #[inline(always)]
    pub(super) fn append(
        &mut self,
        stamp: &Stamp,
        packet: &Packet,
        bytes: &[u8],
        keep: usize,
        previous: u64,
    ) -> u64 {
        let kept = self.kept(packet, bytes);
        let kept = &kept[..kept.len().min(keep)];
        self.account.history_cut += u64::from(kept.len() < bytes.len());
        self.ring.append(previous, stamp, kept)
    }

    /// The flow an ICMP error quotes, and whether the quoted packet came from its low end.
    fn quoted(&self, packet: &Packet) -> Option<(u32, bool)> {
        let quote = packet.icmp.quote?;
        let slot = self.table.find(&quote.key, self.table.hash(&quote.key))?;
        Some((slot, quote.from_low))
    }

    /// An ICMP "too big" belongs to the flow it quotes: in its chain, its facts and its capture.
    #[cold]
    fn too_big(&mut self, own: u32, mtu: u32, stamp: &Stamp, packet: &Packet, bytes: &[u8], made: bool) {
        let Some((slot, from_low)) = self.quoted(packet) else {
            self.account.icmp_unmatched += 1;
            self.remember_flow(own, stamp, packet, bytes, made);
            return;
        };
        let flow = &mut self.table.flows[slot as usize];
        let outcome = analyze::too_big(flow, &mut self.slab, mtu, from_low, stamp.ts);
        self.told(slot, &outcome, stamp, packet, bytes);
    }

    /// Likewise "unreachable" and "time exceeded"; other messages that quote a packet stay in their own flow.
    #[cold]
    fn unreachable(&mut self, own: u32, stamp: &Stamp, packet: &Packet, bytes: &[u8], made: bool) {
        let outcome = self.quoted(packet).and_then(|(slot, from_low)| {
            let flow = &mut self.table.flows[slot as usize];
            Some((slot, analyze::unreachable(flow, &mut self.slab, &packet.icmp, from_low)?))
        });
        match outcome {
            Some((slot, outcome)) => self.told(slot, &outcome, stamp, packet, bytes),
            None => self.remember_flow(own, stamp, packet, bytes, made),
        }
    }

    /// A router's message about a flow has been taken into it.
    fn told(&mut self, slot: u32, outcome: &Outcome, stamp: &Stamp, packet: &Packet, bytes: &[u8]) {
        self.remember_flow(slot, stamp, packet, bytes, false);
        if !outcome.events.and(self.subscribed).is_empty() {
            self.raise(slot, outcome, stamp.ts, Some(stamp.number));
        }
        self.record_live(slot, stamp, packet, bytes);
    }
}
