//! The worker's end of the recorder: packets become pcapng blocks in a chunk; full or old chunks go to the
//! writer and come back empty.
//!
//! Runs on the worker's thread. After start `write`, `advance`, `losses` and `flush` don't allocate, lock,
//! log or wait: the chunks come from a fixed pool, and when the pool is empty the packet is refused with a
//! reason. Chunks go to `writer` next.

use std::sync::Arc;

use crossbeam_queue::{ArrayQueue, SegQueue};

use crate::ledger::UnwrittenReason;
use crate::source::{Interface, Nanos};

use super::fate::Fate;
use super::pcapng::{self, PacketBlock, cut_text};
use super::{CHUNK_BYTES_MIN, COMMENT_LIMIT, LossCounters, RecordConfig, StoredPacket};

/// Interfaces whose loss counters travel with the chunks; later ones have none in their statistics.
pub const LOSS_INTERFACES: usize = 64;

/// Fates laid ready that the writer has not looked at yet; it does so many times a second.
const FATES: usize = 64;

/// Longest packet Wireshark reads (its WTAP_MAX_PACKET_SIZE_STANDARD), bytes.
const CAPTURE_LIMIT: usize = 262_144;

/// Ready-made packet blocks and what the writer must know about them.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Never grows past the capacity it was made with.
    pub(super) blocks: Vec<u8>,
    pub(super) packets: u64,
    /// Oldest and newest packet; a lead-up brings packets older than their neighbours.
    pub(super) first_ts: Nanos,
    pub(super) last_ts: Nanos,
    /// Packet time at which the chunk was begun.
    pub(super) opened: Nanos,
    /// Interfaces announced before it was handed over.
    pub(super) interfaces: usize,
    /// By interface, up to [`LOSS_INTERFACES`].
    pub(super) losses: Vec<LossCounters>,
}

impl Chunk {
    fn new(bytes: usize) -> Chunk {
        // Touching every page now keeps page faults out of the packet path.
        let mut blocks = vec![0xA5; bytes];
        blocks.clear();
        Chunk {
            blocks,
            packets: 0,
            first_ts: Nanos::MAX,
            last_ts: 0,
            opened: 0,
            interfaces: 0,
            losses: Vec::with_capacity(LOSS_INTERFACES),
        }
    }

    fn clear(&mut self) {
        self.blocks.clear();
        self.losses.clear();
        self.packets = 0;
        self.first_ts = Nanos::MAX;
        self.last_ts = 0;
    }
}

/// What the two ends share: chunks there, chunks back, and the interfaces' descriptions.
#[derive(Debug)]
struct Exchange {
    full: ArrayQueue<Chunk>,
    free: ArrayQueue<Chunk>,
    interfaces: SegQueue<Interface>,
    fates: ArrayQueue<Arc<Fate>>,
}

/// The worker's end. Dropping it hands over what there is.
#[derive(Debug)]
pub struct Recorder {
    exchange: Arc<Exchange>,
    current: Option<Chunk>,
    worker: u64,
    /// Chunks there are.
    chunks: usize,
    handed_over: u64,
    chunk_bytes: usize,
    chunk_age: Nanos,
    now: Nanos,
    announced: usize,
    losses: Vec<LossCounters>,
    losses_changed: bool,
}

/// The writer's end of one recorder; give it to [`Writer::new`](super::Writer::new).
#[derive(Debug)]
pub struct WriterPort {
    exchange: Arc<Exchange>,
    pub(super) worker: u16,
}

/// Makes both ends and takes all their memory, `chunks × chunk_bytes`. `worker` is below 256, the room a
/// packet id has for it.
pub fn recorder(config: &RecordConfig, worker: u16) -> (Recorder, WriterPort) {
    assert!(worker < 256, "worker {worker}: a packet id has 8 bits for the worker");
    let chunks = config.chunks.max(2);
    let chunk_bytes = config.chunk_bytes.max(CHUNK_BYTES_MIN);
    let free = ArrayQueue::new(chunks);
    for _ in 0..chunks {
        free.push(Chunk::new(chunk_bytes)).expect("the queue was made for this many chunks");
    }
    let (full, fates) = (ArrayQueue::new(chunks), ArrayQueue::new(FATES));
    let exchange = Arc::new(Exchange { full, free, interfaces: SegQueue::new(), fates });
    let recorder = Recorder {
        exchange: Arc::clone(&exchange),
        current: None,
        worker: u64::from(worker),
        chunks,
        handed_over: 0,
        chunk_bytes,
        chunk_age: config.chunk_age,
        now: 0,
        announced: 0,
        losses: Vec::with_capacity(LOSS_INTERFACES),
        losses_changed: false,
    };
    (recorder, WriterPort { exchange, worker })
}

impl Recorder {
    /// Copies a packet into the current chunk. `Ok` means the writer's books will show it as written or
    /// unwritten; on `Err` it was not taken and the caller counts it under that reason: `NoChunk` if the
    /// writer has all chunks, `WriteFailed` if its interface was never announced (a fault of the caller's).
    pub fn write(&mut self, p: &StoredPacket<'_>) -> Result<(), UnwrittenReason> {
        debug_assert!(usize::from(p.interface) < self.announced, "packet on an unannounced interface");
        if usize::from(p.interface) >= self.announced {
            return Err(UnwrittenReason::WriteFailed);
        }
        let comment = p.comment.map(|c| [cut_text(c, COMMENT_LIMIT)]);
        let comments: &[&str] = comment.as_ref().map_or(&[], |c| c.as_slice());
        let overhead = pcapng::packet_overhead(comments);
        let room = (self.chunk_bytes - overhead) & !3;
        let bytes = &p.bytes[..p.bytes.len().min(room).min(CAPTURE_LIMIT)];
        let size = overhead + bytes.len().next_multiple_of(4);
        if self.current.as_ref().is_some_and(|c| c.blocks.len() + size > self.chunk_bytes) {
            self.hand_over();
        }
        let chunk = match &mut self.current {
            Some(chunk) => chunk,
            none => {
                let mut chunk = self.exchange.free.pop().ok_or(UnwrittenReason::NoChunk)?;
                // A lead-up's packets are old when they arrive; their chunk is not.
                chunk.opened = self.now.max(p.ts);
                none.insert(chunk)
            }
        };
        let block = PacketBlock {
            ts: p.ts,
            interface: u32::from(p.interface),
            orig_len: p.orig_len.max(u32::try_from(p.bytes.len()).unwrap_or(u32::MAX)),
            bytes,
            packet_id: self.worker << 56 | p.number & (u64::MAX >> 8),
            flow_id: p.flow_id,
            comments,
        };
        pcapng::put_packet(&mut chunk.blocks, &block);
        debug_assert!(chunk.blocks.len() <= self.chunk_bytes, "a chunk never grows");
        chunk.packets += 1;
        chunk.first_ts = chunk.first_ts.min(p.ts);
        chunk.last_ts = chunk.last_ts.max(p.ts);
        Ok(())
    }

    /// Packet time has come this far: hands over a chunk begun `chunk_age` ago or longer.
    pub fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        let old = |c: &Chunk| self.now.saturating_sub(c.opened) >= self.chunk_age;
        if self.current.as_ref().is_some_and(old) {
            self.hand_over();
        }
    }

    /// Hands over what there is: packets, and loss counters that changed since the last chunk.
    pub fn flush(&mut self) {
        if self.current.is_none() && self.losses_changed {
            self.current = self.exchange.free.pop();
        }
        self.hand_over();
    }

    /// Chunks nobody uses. Replay waits on this between batches instead of dropping; while a chunk is being
    /// filled it is one less than the configured number even if the writer has nothing to do.
    pub fn free_chunks(&self) -> usize {
        self.exchange.free.len()
    }

    /// Chunks handed over since the start.
    pub fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// Of these, chunks the writer is done with: in the order in which it got them.
    pub fn given_back(&self) -> u64 {
        let ours = self.free_chunks() + usize::from(self.current.is_some());
        self.handed_over.saturating_sub(self.chunks.saturating_sub(ours) as u64)
    }

    /// Makes the next interface known, in the order of the packets' indices and before any packet uses it.
    /// Allocates: for start-up, and for the moment a file brings a new interface.
    pub fn announce(&mut self, interface: &Interface) {
        self.exchange.interfaces.push(interface.clone());
        self.announced += 1;
    }

    /// Has the writer count what becomes of packets that are given from now on with the fate's id. One too many is not
    /// followed: then all of its packets pass for written.
    pub fn follow(&self, fate: &Arc<Fate>) {
        let _ = self.exchange.fates.push(Arc::clone(fate));
    }

    /// Sets an interface's counters since the start of the run. They reach the disk in the statistics block
    /// of the segment that the next chunk goes to. Interfaces from [`LOSS_INTERFACES`] on are ignored.
    pub fn losses(&mut self, interface: u16, counters: LossCounters) {
        let index = usize::from(interface);
        if index < LOSS_INTERFACES {
            if self.losses.len() <= index {
                self.losses.resize(index + 1, LossCounters::default());
            }
            self.losses_changed |= self.losses[index] != counters;
            self.losses[index] = counters;
        }
    }

    fn hand_over(&mut self) {
        let Some(mut chunk) = self.current.take() else { return };
        chunk.interfaces = self.announced;
        chunk.losses.extend_from_slice(&self.losses);
        self.losses_changed = false;
        self.handed_over += 1;
        self.exchange.full.push(chunk).expect("the queue has room for every chunk there is");
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

impl WriterPort {
    pub(super) fn take(&self) -> Option<Chunk> {
        self.exchange.full.pop()
    }

    pub(super) fn give_back(&self, mut chunk: Chunk) {
        chunk.clear();
        self.exchange.free.push(chunk).expect("the queue has room for every chunk there is");
    }

    /// Chunks nobody uses.
    pub(super) fn free_chunks(&self) -> usize {
        self.exchange.free.len()
    }

    pub(super) fn next_fate(&self) -> Option<Arc<Fate>> {
        self.exchange.fates.pop()
    }

    pub(super) fn next_interface(&self) -> Option<Interface> {
        self.exchange.interfaces.pop()
    }
}
