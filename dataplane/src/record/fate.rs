//! What became, at the writer, of packets that somebody waits for: those that have an id of his in place of a flow's, as the
//! packets of a capture on demand do.
//!
//! The worker lays a [`Fate`] in its recorder; the writer's thread counts in it, and only while somebody waits. Whoever made
//! it reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::ledger::UnwrittenReason;

use super::pcapng;

const REASONS: usize = UnwrittenReason::ALL.len();

/// Packets of one id that the writer was given and that are not on the disk.
#[derive(Debug, Default)]
pub struct Fate {
    id: u64,
    unwritten: [AtomicU64; REASONS],
    bytes: AtomicU64,
    settled: AtomicBool,
}

impl Fate {
    pub fn new(id: u64) -> Fate {
        Fate { id, ..Fate::default() }
    }

    /// By [`UnwrittenReason`] as index.
    pub fn unwritten(&self) -> [u64; REASONS] {
        std::array::from_fn(|reason| self.unwritten[reason].load(Ordering::Relaxed))
    }

    /// Bytes of these packets.
    pub fn unwritten_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// No more packets come, and the writer is done with all that came.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    fn lose(&self, reason: UnwrittenReason, share: Share) {
        self.unwritten[reason as usize].fetch_add(share.packets, Ordering::Relaxed);
        self.bytes.fetch_add(share.bytes, Ordering::Relaxed);
    }
}

/// Packets of one id.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    packets: u64,
    bytes: u64,
}

impl Share {
    fn of(id: u64, blocks: &[u8]) -> Share {
        let mine = pcapng::packet_blocks(blocks).filter(|packet| packet.flow_id == id);
        mine.fold(Share::default(), |sum, packet| Share {
            packets: sum.packets + 1,
            bytes: sum.bytes + u64::from(packet.captured),
        })
    }
}

/// All that one lane of the writer follows.
#[derive(Debug, Default)]
pub(super) struct Fates(Vec<Followed>);

#[derive(Debug)]
struct Followed {
    fate: Arc<Fate>,
    /// In the segment that is open.
    open: Share,
}

impl Fates {
    pub(super) fn follow(&mut self, fate: Arc<Fate>) {
        self.0.retain(|one| !one.fate.settled.load(Ordering::Relaxed));
        self.0.push(Followed { fate, open: Share::default() });
    }

    /// A chunk with these blocks is in the open segment.
    pub(super) fn written(&mut self, blocks: &[u8]) {
        self.0.retain(|one| !one.fate.settled.load(Ordering::Relaxed));
        for one in &mut self.0 {
            let share = Share::of(one.fate.id, blocks);
            one.open.packets += share.packets;
            one.open.bytes += share.bytes;
        }
    }

    /// A chunk with these blocks was not written.
    pub(super) fn lost(&self, blocks: &[u8], reason: UnwrittenReason) {
        self.0.iter().for_each(|one| one.fate.lose(reason, Share::of(one.fate.id, blocks)));
    }

    /// The open segment is closed, and what is in it safe.
    pub(super) fn closed(&mut self) {
        self.0.iter_mut().for_each(|one| one.open = Share::default());
    }

    /// The open segment is gone, and what was in it.
    pub(super) fn deleted(&mut self) {
        let gone = UnwrittenReason::SegmentDeleted;
        self.0.iter_mut().for_each(|one| one.fate.lose(gone, std::mem::take(&mut one.open)));
    }
}
