//! A capture on demand: which packets somebody wants of those remembered and of those that come, and how far it is.
//!
//! Made by whoever is asked for one (the control thread), laid ready for every worker in its [`DemandBox`]. Workers count
//! in a line of their own and neither wait nor allocate; who made it keeps it for as long as anybody else has it, so that no
//! worker frees one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::filter::Selection;
use crate::ledger::UnwrittenReason;
use crate::record::fate::Fate;
use crate::source::Nanos;

/// Demands under way at once.
pub const DEMANDS: usize = 4;

/// Why a demand takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Over {
    /// Somebody ended it.
    Ended = 1,
    /// It has all it may have.
    Full = 2,
}

/// What is wanted.
#[derive(Debug)]
pub struct Demand {
    /// Stands in its packets where others have that of their flow.
    pub id: u64,
    pub selection: Selection,
    /// Of packet time, both included.
    pub since: Nanos,
    pub until: Nanos,
    /// What all workers together may still keep.
    packets: AtomicU64,
    bytes: AtomicU64,
    over: AtomicU8,
    workers: Box<[Progress]>,
}

/// How far one worker is with it, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Progress {
    looked: AtomicU64,
    kept: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    lapped: AtomicU64,
    /// Not before this, if history was looked at.
    reached: AtomicU64,
    scanned: AtomicBool,
    done: AtomicBool,
    /// Of what was given to the store.
    fate: Arc<Fate>,
}

/// How far all workers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets asked whether they are wanted.
    pub looked: u64,
    /// Packets given to the store, and their bytes.
    pub kept: u64,
    pub bytes: u64,
    /// Of these, packets that are not on the disk, by [`UnwrittenReason`] as index, and their bytes.
    pub unwritten: [u64; UnwrittenReason::ALL.len()],
    pub unwritten_bytes: u64,
    /// Wanted, and left out because the store was short of room.
    pub refused: u64,
    /// Bytes of history overwritten before they were looked at.
    pub lapped: u64,
    /// What is missing of history is older than this.
    pub reached_ns: Nanos,
    /// All of history that was wanted has been gone through.
    pub scanned: bool,
    /// Nothing follows, and all that was kept is on its disk.
    pub done: bool,
}

impl Demand {
    /// For so many workers; at most so many packets and bytes.
    pub fn new(
        id: u64,
        selection: Selection,
        (since, until): (Nanos, Nanos),
        (packets, bytes): (u64, u64),
        workers: usize,
    ) -> Demand {
        Demand {
            id,
            selection,
            since,
            until,
            packets: AtomicU64::new(packets),
            bytes: AtomicU64::new(bytes),
            over: AtomicU8::new(0),
            workers: (0..workers)
                .map(|_| Progress { fate: Arc::new(Fate::new(id)), ..Progress::default() })
                .collect(),
        }
    }

    /// Has it take nothing more; what it has stays.
    pub fn end(&self, why: Over) {
        // Who was first says why.
        let _ = self.over.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub fn over(&self) -> Option<Over> {
        match self.over.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Over::Ended),
            _ => Some(Over::Full),
        }
    }

    pub fn counts(&self) -> Counts {
        let first = Counts { scanned: true, done: true, ..Counts::default() };
        self.workers.iter().fold(first, |sum, one| {
            let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
            // First, so that what it vouches for is seen.
            let done = one.done.load(Ordering::Acquire) && sum.done;
            let mut unwritten = sum.unwritten;
            unwritten.iter_mut().zip(one.fate.unwritten()).for_each(|(all, more)| *all += more);
            Counts {
                done,
                unwritten,
                unwritten_bytes: sum.unwritten_bytes + one.fate.unwritten_bytes(),
                looked: sum.looked + of(&one.looked),
                kept: sum.kept + of(&one.kept),
                bytes: sum.bytes + of(&one.bytes),
                refused: sum.refused + of(&one.refused),
                lapped: sum.lapped + of(&one.lapped),
                reached_ns: sum.reached_ns.max(of(&one.reached)),
                scanned: one.scanned.load(Ordering::Relaxed) && sum.scanned,
            }
        })
    }

    /// What a worker counts in.
    pub fn progress(&self, worker: u16) -> Option<&Progress> {
        self.workers.get(usize::from(worker))
    }

    /// Takes room for a packet; false if there is none left, and then it is over.
    pub fn spend(&self, bytes: u64) -> bool {
        let take = |left: &AtomicU64, wanted: u64| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(wanted)).is_ok()
        };
        let room = take(&self.packets, 1) && take(&self.bytes, bytes);
        if !room {
            self.end(Over::Full);
        }
        room
    }

    /// Whether a packet of this time can be wanted.
    pub fn covers(&self, ts: Nanos) -> bool {
        (self.since..=self.until).contains(&ts)
    }
}

/// One thread adds: a load and a store are enough.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).saturating_add(more), Ordering::Relaxed);
}

impl Progress {
    pub fn look(&self) {
        add(&self.looked, 1);
    }

    pub fn keep(&self, bytes: u64) {
        add(&self.kept, 1);
        add(&self.bytes, bytes);
    }

    pub fn refuse(&self) {
        add(&self.refused, 1);
    }

    pub fn lap(&self, bytes: u64) {
        add(&self.lapped, bytes);
    }

    /// History reaches back to here.
    pub fn reach(&self, since: Nanos) {
        self.reached.store(since, Ordering::Relaxed);
    }

    pub fn scanned(&self) {
        self.scanned.store(true, Ordering::Relaxed);
    }

    /// What becomes of what is given to the store.
    pub fn fate(&self) -> &Arc<Fate> {
        &self.fate
    }

    pub fn done(&self) {
        self.done.store(true, Ordering::Release);
    }
}

/// Where one worker finds its next demands.
#[derive(Debug)]
pub struct DemandBox {
    slot: ArrayQueue<Arc<Demand>>,
}

impl Default for DemandBox {
    fn default() -> Self {
        DemandBox { slot: ArrayQueue::new(DEMANDS) }
    }
}

impl DemandBox {
    /// Lays one ready. False if there are too many already, which whoever asks counts for himself.
    pub fn offer(&self, demand: &Arc<Demand>) -> bool {
        self.slot.push(Arc::clone(demand)).is_ok()
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.slot.is_empty()
    }

    pub fn take(&self) -> Option<Arc<Demand>> {
        self.slot.pop()
    }
}
