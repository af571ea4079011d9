//! Holding a flow: its lead-up is copied out of history the moment a guard matches, and waits here for the
//! judge's word; kept, it goes to the recorder, and the flow's live packets after it. Worker's thread; all
//! memory taken at start, nothing here allocates after it.
//!
//! A hold is first *gathering* (the ring's chain still covers what it needs), then *held* (copied into
//! pages), then *kept* (pages drain into the recorder) and, once drained, *direct*. Work is done a bounded
//! number of packets a batch, in [`Holds::pump`]. A packet that was to be kept and is lost has a name.

mod pages;
mod sink;
mod slot;
mod stamped;

use rules::event::Event;

use crate::flow::keeper::{Kept, Stamp};
use crate::flow::record::NONE;
use crate::history::{Remembered, Ring};
use crate::judge::message::CaptureLimits;
use crate::ledger::UnwrittenReason;
use crate::source::Nanos;
pub use pages::PAGE;
use pages::Pages;
pub use sink::Sink;
use slot::{Raise, Slot, State};
use stamped::{RECORD, decode_header, encode_header};

/// Packets of the ring in a lead-up, at most.
pub const LEAD_UP: usize = 256;
/// Bytes copied in one pump, about: some hundred full-size packets.
const BYTES_A_PUMP: usize = 1 << 20;
/// Bytes of one hold waiting for the judge, at most: a lead-up of full-size packets and as much again.
const MOST_PENDING: u64 = 1 << 20;
/// How long a verdict is waited for, of packet time: a hit that found the judge's queue full gets none.
const VERDICT_WITHIN: Nanos = 30_000_000_000;
/// Packet time between two looks for holds whose time is over.
const LOOK_EVERY: Nanos = 100_000_000;

/// Rules there can be in one run: rules that come later have no smaller numbers.
const RULES: usize = 1 << 16;

/// What may be held at once.
#[derive(Clone, Copy, Debug)]
pub struct HoldConfig {
    pub holds: u32,
    pub pool_bytes: usize,
    /// Holds one rule may take in a second of packet time.
    pub per_rule_per_second: u16,
}

/// The holds of one worker.
#[derive(Debug)]
pub struct Holds {
    slots: Box<[Slot]>,
    free: u32,
    /// Holds with work to do, by index; a fixed list, no order promised but that of taking.
    active: Vec<u32>,
    pages: Pages,
    scratch: Box<[u8]>,
    /// Of this second: its number, and holds taken by each rule.
    second: u64,
    taken: Box<[u16]>,
    per_rule_per_second: u16,
    /// Hits that found the budget spent, or no slot free.
    pub refused_budget: u64,
    pub refused_full: u64,
    pub taken_total: u64,
    /// Holds let go because no verdict came.
    pub unanswered: u64,
    /// Some hold has something to copy or to end; else a look now and then finds those whose time is over.
    work: bool,
    next_look: Nanos,
}

impl Holds {
    /// `largest` is the longest packet history hands out, bytes.
    pub fn new(config: &HoldConfig, largest: usize) -> Holds {
        let count = config.holds.max(1);
        let slots = (1..count).chain([NONE]).map(Slot::free).collect();
        Holds {
            slots,
            free: 0,
            active: Vec::with_capacity(count as usize),
            pages: Pages::new(config.pool_bytes),
            scratch: vec![0; largest].into_boxed_slice(),
            second: 0,
            taken: vec![0; RULES].into_boxed_slice(),
            per_rule_per_second: config.per_rule_per_second,
            refused_budget: 0,
            refused_full: 0,
            taken_total: 0,
            unanswered: 0,
            work: false,
            next_look: 0,
        }
    }

    /// Begins to hold a flow; `None` if the rule's budget is spent or no slot is free (both counted).
    pub fn take(&mut self, rule: u16, flow_id: u64, now: Nanos) -> Option<u32> {
        let second = now / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.taken.fill(0);
        }
        let taken = self.taken.get_mut(usize::from(rule))?;
        if *taken >= self.per_rule_per_second {
            self.refused_budget += 1;
            return None;
        }
        if self.free == NONE {
            self.refused_full += 1;
            return None;
        }
        *taken += 1;
        let index = self.free;
        self.free = self.slots[index as usize].next_free;
        self.slots[index as usize] = Slot::gathering(flow_id, now.saturating_add(VERDICT_WITHIN));
        self.active.push(index);
        self.work = true;
        self.taken_total += 1;
        Some(index)
    }

    /// What a lead-up begins with, oldest first: the handshake and the rescued tail. Before anything else.
    pub fn begin<'a>(
        &mut self,
        hold: u32,
        handshake: &[Kept; 2],
        tail: impl Iterator<Item = Remembered<'a>>,
    ) {
        let [syn, syn_ack] = handshake;
        // The answer may have been seen first.
        let in_order = if syn_ack.number() < syn.number() { [syn_ack, syn] } else { [syn, syn_ack] };
        for kept in in_order {
            if let Some(number) = kept.number() {
                let stamp = Stamp { ts: kept.ts, number, orig_len: kept.orig_len, interface: kept.interface };
                self.store(hold, &stamp, kept.bytes());
            }
        }
        for packet in tail {
            self.store(hold, &Stamp::from(&packet), packet.bytes);
        }
        self.slots[hold as usize].candidates_end = self.slots[hold as usize].stored;
    }

    /// The flow's newest packet in the ring, while the hold still gathers; else takes the packet itself.
    pub fn live(&mut self, hold: u32, newest: u64, stamp: &Stamp, bytes: &[u8], sink: &mut Sink<'_>) {
        // What is queued here drains at the next pump; what only passes through needs none.
        self.work |= self.slots[hold as usize].state != State::Direct || self.slots[hold as usize].spent();
        let slot = &mut self.slots[hold as usize];
        match slot.state {
            State::Gathering => slot.newest = newest,
            State::Held => self.store(hold, stamp, bytes),
            State::Kept => {
                if slot.spend(stamp.ts, bytes.len()) {
                    sink.account.kept += 1;
                    if !self.store_or_fail(hold, stamp, bytes) {
                        sink.lost(UnwrittenReason::HoldPoolFull);
                    }
                }
            }
            State::Direct => {
                if slot.spend(stamp.ts, bytes.len()) {
                    let comment = slot.raised(stamp.number);
                    let flow_id = slot.flow_id;
                    sink.account.kept += 1;
                    sink.write(flow_id, stamp, bytes, comment);
                }
            }
            State::Free => debug_assert!(false, "a flow's hold is in use"),
        }
    }

    /// Remembers which packet made a rule match; its comment is written with it.
    pub fn raised(&mut self, hold: u32, rule: u16, event: Event, number: Option<u64>) {
        self.slots[hold as usize].raise(Raise { number, rule, event });
    }

    /// Where the ring's chain of the flow begins, while the hold still gathers.
    pub fn set_newest(&mut self, hold: u32, newest: u64) {
        self.slots[hold as usize].newest = newest;
    }

    /// Asks for the judge's word, unless it has decided to keep this hold; true if an answer will come.
    pub fn ask(&mut self, hold: u32) -> bool {
        let slot = &mut self.slots[hold as usize];
        slot.asked = slot.asked.saturating_add(u32::from(!slot.decided));
        !slot.decided
    }

    /// The judge's word: record it, within limits.
    pub fn keep(&mut self, flow_id: u64, limits: CaptureLimits, now: Nanos) {
        self.work = true;
        for &index in &self.active {
            let slot = &mut self.slots[index as usize];
            if slot.flow_id == flow_id && !slot.decided {
                // A second rule may want what the first let go of.
                (slot.decided, slot.released) = (true, false);
                slot.limits = limits;
                slot.until = now.saturating_add(limits.nanos);
            }
        }
    }

    /// The judge's word on one hit: let it go. Another hit's answer may still be to keep it.
    pub fn release(&mut self, flow_id: u64) {
        self.work = true;
        for &index in &self.active {
            let slot = &mut self.slots[index as usize];
            if slot.flow_id == flow_id && !slot.decided {
                slot.asked = slot.asked.saturating_sub(1);
                slot.released = slot.asked == 0;
            }
        }
    }

    /// Nobody will decide any more.
    pub fn release_undecided(&mut self) {
        self.work = true;
        for &index in &self.active {
            let slot = &mut self.slots[index as usize];
            slot.released |= !slot.decided;
            slot.ended = true;
        }
    }

    /// The flow ended; nothing live will follow.
    pub fn ended(&mut self, hold: u32) {
        self.work = true;
        self.slots[hold as usize].ended = true;
    }

    /// The judge's word was to record it.
    pub fn is_kept(&self, hold: u32, flow_id: u64) -> bool {
        !self.is_over(hold, flow_id) && self.slots[hold as usize].decided
    }

    /// A hold's flow may forget it: it was released, or reached its limit and is drained.
    pub fn is_over(&self, hold: u32, flow_id: u64) -> bool {
        let slot = &self.slots[hold as usize];
        slot.state == State::Free || slot.flow_id != flow_id
    }

    /// Holds not yet free.
    pub fn in_use(&self) -> usize {
        self.active.len()
    }

    /// Copies lead-ups out of the ring and kept packets into the recorder, a bounded number of bytes; lets go of
    /// what has waited or recorded long enough at `now`.
    pub fn pump(&mut self, ring: &Ring, now: Nanos, sink: &mut Sink<'_>) {
        if !self.work && now < self.next_look {
            return;
        }
        self.next_look = now.saturating_add(LOOK_EVERY);
        let mut budget = BYTES_A_PUMP;
        let mut i = 0;
        while i < self.active.len() && budget > 0 {
            let index = self.active[i];
            self.let_go_late(index, now);
            self.advance(index, ring, sink, &mut budget);
            if self.slots[index as usize].state == State::Free {
                self.active.remove(i);
            } else {
                i += 1;
            }
        }
        self.work = budget == 0;
    }

    /// Ends a hold whose time is over, though no packet comes to show it.
    fn let_go_late(&mut self, index: u32, now: Nanos) {
        let slot = &mut self.slots[index as usize];
        if now <= slot.until {
            return;
        }
        if slot.decided {
            slot.ended = true;
        } else if !slot.released {
            slot.released = true;
            self.unanswered += 1;
        }
    }

    fn advance(&mut self, index: u32, ring: &Ring, sink: &mut Sink<'_>, budget: &mut usize) {
        if self.slots[index as usize].released {
            self.free_slot(index);
            return;
        }
        if self.slots[index as usize].state == State::Gathering {
            self.gather(index, ring, budget);
        }
        let slot = &mut self.slots[index as usize];
        if slot.decided && slot.state == State::Held {
            slot.state = State::Kept;
            // What was lost while it waited counts now that it was to be kept.
            sink.account.kept += slot.lost + slot.overwritten;
            sink.lost_many(UnwrittenReason::HoldPoolFull, slot.lost);
            sink.lost_many(UnwrittenReason::Overwritten, slot.overwritten);
        }
        if slot.state == State::Kept {
            self.drain(index, sink, budget);
        }
        let slot = &self.slots[index as usize];
        let drained = slot.queue.len == 0;
        if slot.state == State::Kept && drained {
            self.slots[index as usize].state = State::Direct;
        }
        let slot = &self.slots[index as usize];
        if slot.state == State::Direct && (slot.ended || slot.spent()) {
            self.free_slot(index);
        }
    }

    /// Follows the chain back, then copies forward, so that the pages are in time order.
    fn gather(&mut self, index: u32, ring: &Ring, budget: &mut usize) {
        let mut links = [0_u64; LEAD_UP];
        let mut found = 0;
        let mut link = self.slots[index as usize].newest;
        while found < LEAD_UP
            && let Some((_, previous)) = ring.get(link)
        {
            links[found] = link;
            (found, link) = (found + 1, previous);
        }
        // The raising packet was there when the hold began: gathering came too late for it at least.
        self.slots[index as usize].overwritten += u64::from(found == 0 && link != 0);
        for (i, link) in links[..found].iter().rev().enumerate() {
            let Some((packet, _)) = ring.get(*link) else { continue };
            if i == 0 {
                self.slots[index as usize].first_of_ring = packet.number;
            }
            *budget = budget.saturating_sub(packet.bytes.len());
            self.store(index, &Stamp::from(&packet), packet.bytes);
        }
        self.slots[index as usize].state = State::Held;
    }

    fn drain(&mut self, index: u32, sink: &mut Sink<'_>, budget: &mut usize) {
        while *budget > 0 && self.slots[index as usize].queue.len > 0 {
            let slot = &mut self.slots[index as usize];
            let mut header = [0; RECORD];
            self.pages.read(&mut slot.queue, &mut header);
            let (stamp, len) = decode_header(&header);
            let bytes = &mut self.scratch[..len];
            self.pages.read(&mut slot.queue, bytes);
            slot.drained += 1;
            // A handshake or tail packet that the ring still had comes from the ring, whole.
            let candidate = slot.drained <= slot.candidates_end;
            let repeated = slot.last_written.is_some_and(|last| stamp.number <= last);
            if repeated || candidate && stamp.number >= slot.first_of_ring {
                continue;
            }
            slot.last_written = Some(stamp.number);
            // Live packets that waited here were counted as kept when they came.
            if slot.drained <= slot.kept_from {
                sink.account.kept += 1;
            }
            let comment = slot.raised(stamp.number);
            let flow_id = slot.flow_id;
            sink.write(flow_id, &stamp, bytes, comment);
            *budget = budget.saturating_sub(len);
        }
    }

    /// Stores a packet in the pages; one that finds no room is counted with the hold.
    fn store(&mut self, hold: u32, stamp: &Stamp, bytes: &[u8]) {
        if self.slots[hold as usize].queue.len > MOST_PENDING || !self.store_or_fail(hold, stamp, bytes) {
            self.slots[hold as usize].lost += 1;
        }
        let slot = &mut self.slots[hold as usize];
        if slot.state != State::Kept {
            slot.kept_from = slot.stored;
        }
    }

    fn store_or_fail(&mut self, hold: u32, stamp: &Stamp, bytes: &[u8]) -> bool {
        let bytes = &bytes[..bytes.len().min(self.scratch.len())];
        let slot = &mut self.slots[hold as usize];
        if !self.pages.fits(&slot.queue, RECORD + bytes.len()) {
            return false;
        }
        self.pages.append(&mut slot.queue, &encode_header(stamp, bytes.len()));
        self.pages.append(&mut slot.queue, bytes);
        slot.stored += 1;
        true
    }

    fn free_slot(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        self.pages.clear(&mut slot.queue);
        *slot = Slot::free(self.free);
        self.free = index;
    }
}

#[cfg(test)]
mod tests;
