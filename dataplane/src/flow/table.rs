//! Finds a packet's flow, or makes one. Worker's thread; fixed memory, never allocates after start.
//!
//! Buckets are one cache line of eight (tag, slot) pairs; a bucket that overflowed says so, and the search
//! goes on to the next. Slots are two ranges of one slab: half-open handshakes live in the first, so that a
//! SYN flood can push out nothing but half-open handshakes. When a range is full the longest idle of a few
//! flows under a moving hand makes room; the caller tells of it and counts it.

use dataplane_sys::Table;

use super::record::{Direction, Flow, NONE, flow_flag};
use super::timer::Wheel;
use crate::decode::{FlowKey, Packet};
use crate::source::Nanos;

const WAYS: usize = 8;
/// Flows compared when one has to go.
const EVICTION_SAMPLE: u32 = 8;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    slots: [u32; WAYS],
    tags: [u16; WAYS],
    /// Flows that belong here or before and lie further on.
    passed: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

const EMPTY: Bucket = Bucket { slots: [NONE; WAYS], tags: [0; WAYS], passed: 0 };

/// A contiguous range of slots with its own free list.
#[derive(Debug)]
struct Region {
    first: u32,
    end: u32,
    free: u32,
    never_used: u32,
    hand: u32,
    live: u32,
}

impl Region {
    fn new(first: u32, end: u32) -> Region {
        Region { first, end, free: NONE, never_used: first, hand: first, live: 0 }
    }

    fn take(&mut self, flows: &[Flow]) -> Option<u32> {
        let slot = if self.free != NONE {
            let slot = self.free;
            self.free = flows[slot as usize].timer_next;
            slot
        } else if self.never_used < self.end {
            self.never_used += 1;
            self.never_used - 1
        } else {
            return None;
        };
        self.live += 1;
        Some(slot)
    }

    fn give_back(&mut self, flows: &mut [Flow], slot: u32) {
        flows[slot as usize].timer_next = self.free;
        self.free = slot;
        self.live -= 1;
    }

    /// The longest idle of a few; every slot is in use when this is asked.
    fn victim(&mut self, flows: &[Flow]) -> u32 {
        let mut oldest = self.hand;
        for _ in 0..EVICTION_SAMPLE.min(self.end - self.first) {
            self.hand = if self.hand + 1 < self.end { self.hand + 1 } else { self.first };
            if flows[self.hand as usize].last_ns < flows[oldest as usize].last_ns {
                oldest = self.hand;
            }
        }
        oldest
    }
}

/// Which range a flow lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    HalfOpen,
    Full,
}

/// The table.
#[derive(Debug)]
pub struct FlowTable {
    buckets: Box<[Bucket]>,
    mask: u64,
    pub flows: Table<Flow>,
    pub wheel: Wheel,
    half_open: Region,
    full: Region,
    secret: u64,
    peak: u32,
}

impl FlowTable {
    /// Room for `flows` flows, and besides for `half_open` handshakes not yet completed.
    pub fn new(flows: u32, half_open: u32, secret: u64) -> FlowTable {
        assert!(flows > 0 && half_open > 0, "each range has room for a flow");
        let slots = flows + half_open;
        // Two thirds full at most: few buckets ever overflow.
        let buckets = (slots as usize * 3 / 2).div_ceil(WAYS).next_power_of_two();
        let buckets = dataplane_sys::huge_table(buckets, EMPTY);
        FlowTable {
            mask: buckets.len() as u64 - 1,
            buckets,
            flows: Table::zeroed(slots as usize),
            wheel: Wheel::new(),
            half_open: Region::new(0, half_open),
            full: Region::new(half_open, slots),
            secret,
            peak: 0,
        }
    }

    /// Bytes taken at start.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.flows) + size_of_val(&*self.buckets)
    }

    #[inline(always)]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(self.secret)
    }

    /// Starts loading the bucket; to be called for a whole batch before the first [`FlowTable::find`].
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u64) {
        dataplane_sys::prefetch(&self.buckets[(hash & self.mask) as usize]);
    }

    /// Starts loading the lines of the likeliest flow; its bucket should be here by now. True if the packet begins or
    /// ends that flow, as far as can be seen from here.
    #[inline(always)]
    pub fn prefetch_flow(&self, hash: u64, packet: &Packet) -> bool {
        let bucket = &self.buckets[(hash & self.mask) as usize];
        let tag = tag_of(hash);
        for way in 0..WAYS {
            if bucket.tags[way] == tag && bucket.slots[way] != NONE {
                let slot = bucket.slots[way];
                let flow = &self.flows[slot as usize];
                dataplane_sys::prefetch(&flow.key);
                dataplane_sys::prefetch(&flow.dirs[0]);
                dataplane_sys::prefetch(&flow.dirs[1]);
                let turns = packet.is_control() || self.is_half_open(slot);
                if turns {
                    // That is more than its packets' numbers.
                    dataplane_sys::prefetch(&flow.senders);
                    dataplane_sys::prefetch(&flow.start_ns);
                    dataplane_sys::prefetch(&flow.rare);
                    dataplane_sys::prefetch(&flow.story);
                }
                return turns;
            }
        }
        false
    }

    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        let tag = tag_of(hash);
        let mut at = hash & self.mask;
        // As many as there are: a small table may have every bucket passed by some flow.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at as usize];
            for way in 0..WAYS {
                let slot = bucket.slots[way];
                if bucket.tags[way] == tag && slot != NONE && self.flows[slot as usize].key == *key {
                    return Some(slot);
                }
            }
            if bucket.passed == 0 {
                return None;
            }
            at = (at + 1) & self.mask;
        }
        None
    }

    /// The flow that has to end before another of this class can be made; `None` while there is room.
    pub fn must_evict(&mut self, class: Class) -> Option<u32> {
        let region = if class == Class::HalfOpen { &mut self.half_open } else { &mut self.full };
        let full = region.free == NONE && region.never_used == region.end;
        full.then(|| region.victim(&self.flows))
    }

    /// Makes a flow; room was made before by [`FlowTable::must_evict`].
    pub fn insert(&mut self, key: FlowKey, hash: u64, class: Class, now: Nanos, deadline: Nanos) -> u32 {
        let region = if class == Class::HalfOpen { &mut self.half_open } else { &mut self.full };
        let slot = region.take(&self.flows).expect("must_evict() made room");
        self.peak = self.peak.max(self.half_open.live + self.full.live);
        let flow = &mut self.flows[slot as usize];
        *flow = bytemuck::Zeroable::zeroed();
        flow.key = key;
        flow.start_ns = now;
        flow.last_ns = now;
        (flow.trouble, flow.tail, flow.hold, flow.app) = (NONE, NONE, NONE, NONE);
        self.link(hash, slot);
        self.wheel.insert(&mut self.flows, slot, deadline);
        slot
    }

    /// Moves a half-open flow among the full ones; room was made before. Returns its new slot.
    pub fn promote(&mut self, slot: u32, deadline: Nanos) -> u32 {
        let to = self.full.take(&self.flows).expect("must_evict() made room");
        self.wheel.remove(&mut self.flows, slot);
        self.flows[to as usize] = self.flows[slot as usize];
        self.flows[slot as usize].newest = 0;
        let hash = self.hash(&self.flows[slot as usize].key);
        let (at, way) = self.position(hash, slot);
        self.buckets[at].slots[way] = to;
        self.half_open.give_back(&mut self.flows, slot);
        self.wheel.insert(&mut self.flows, to, deadline);
        to
    }

    /// True for a slot among the half-open.
    #[inline(always)]
    pub fn is_half_open(&self, slot: u32) -> bool {
        slot < self.half_open.end
    }

    /// Ends a flow. Its record stays readable until the next `insert`, but for its chain in history: a note
    /// of the slot must not find it.
    pub fn remove(&mut self, slot: u32, in_wheel: bool) {
        self.flows[slot as usize].newest = 0;
        if in_wheel {
            self.wheel.remove(&mut self.flows, slot);
        }
        self.unlink(slot);
        let region = if self.is_half_open(slot) { &mut self.half_open } else { &mut self.full };
        region.give_back(&mut self.flows, slot);
    }

    /// Puts a flow the wheel has given back into it.
    #[inline]
    pub fn rearm(&mut self, slot: u32, deadline: Nanos) {
        self.wheel.insert(&mut self.flows, slot, deadline);
    }

    pub fn live(&self) -> u32 {
        self.half_open.live + self.full.live
    }

    /// Most flows alive at once.
    pub fn peak(&self) -> u32 {
        self.peak
    }

    /// A live slot at or after `from`; used to end all flows when the input has ended.
    pub fn next_live(&self, from: u32) -> Option<u32> {
        (from..self.flows.len() as u32).find(|&slot| self.is_live(slot))
    }

    /// A slot is live if the index leads to it.
    fn is_live(&self, slot: u32) -> bool {
        let used = if self.is_half_open(slot) { self.half_open.never_used } else { self.full.never_used };
        if slot >= used {
            return false;
        }
        let key = self.flows[slot as usize].key;
        self.find(&key, self.hash(&key)) == Some(slot)
    }

    fn link(&mut self, hash: u64, slot: u32) {
        let mut at = hash & self.mask;
        loop {
            let bucket = &mut self.buckets[at as usize];
            if let Some(way) = bucket.slots.iter().position(|&s| s == NONE) {
                bucket.slots[way] = slot;
                bucket.tags[way] = tag_of(hash);
                return;
            }
            bucket.passed += 1;
            at = (at + 1) & self.mask;
        }
    }

    fn unlink(&mut self, slot: u32) {
        let hash = self.hash(&self.flows[slot as usize].key);
        let (found, way) = self.position(hash, slot);
        self.buckets[found].slots[way] = NONE;
        let mut at = (hash & self.mask) as usize;
        while at != found {
            self.buckets[at].passed -= 1;
            at = (at + 1) & self.mask as usize;
        }
    }

    /// Where in the index a live slot is.
    fn position(&self, hash: u64, slot: u32) -> (usize, usize) {
        let mut at = (hash & self.mask) as usize;
        loop {
            if let Some(way) = self.buckets[at].slots.iter().position(|&s| s == slot) {
                return (at, way);
            }
            assert!(self.buckets[at].passed > 0, "a live flow is in the index");
            at = (at + 1) & self.mask as usize;
        }
    }
}

#[inline(always)]
fn tag_of(hash: u64) -> u16 {
    (hash >> 48) as u16
}

impl Flow {
    /// The direction a packet belongs to.
    #[inline(always)]
    pub fn dir(&self, from_low: bool) -> &Direction {
        &self.dirs[usize::from(!from_low)]
    }

    /// Marks who began.
    pub fn set_originator(&mut self, from_low: bool) {
        if from_low {
            self.flags |= flow_flag::ORIG_LOW;
        } else {
            self.flags &= !flow_flag::ORIG_LOW;
        }
    }
}
