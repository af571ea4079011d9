//! Every account a packet can end in, and the law that they balance.
//!
//! `received = analysed + filtered + Σ dropped` and `kept = written + Σ unwritten`. Each thread counts in
//! its own block with plain adds; readers sum after the threads have stopped or from published copies. A
//! packet is let go of only by naming a reason here.

/// Why a received packet was not analysed. Nothing loses one between a file and the analysis, so there is no
/// reason yet; each live source brings its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {}

impl DropReason {
    pub const ALL: [DropReason; 0] = [];

    pub const fn name(self) -> &'static str {
        match self {}
    }
}

/// Why a packet that was to be kept did not reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UnwrittenReason {
    /// No chunk was free: the writer is slower than the capture.
    NoChunk,
    /// The hold pool had no page left.
    HoldPoolFull,
    /// The history ring overwrote it before it was copied out.
    Overwritten,
    /// The disk has no room.
    DiskFull,
    /// The disk refused the write for another reason.
    WriteFailed,
}

impl UnwrittenReason {
    pub const ALL: [UnwrittenReason; 5] = [
        UnwrittenReason::NoChunk,
        UnwrittenReason::HoldPoolFull,
        UnwrittenReason::Overwritten,
        UnwrittenReason::DiskFull,
        UnwrittenReason::WriteFailed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            UnwrittenReason::NoChunk => "no_chunk",
            UnwrittenReason::HoldPoolFull => "hold_pool_full",
            UnwrittenReason::Overwritten => "overwritten",
            UnwrittenReason::DiskFull => "disk_full",
            UnwrittenReason::WriteFailed => "write_failed",
        }
    }
}

/// What was to be kept for captures, as the worker counts it; the writer's own account completes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptAccount {
    /// Packets selected for a capture.
    pub kept: u64,
    /// Of these, lost before a writer had them, by [`UnwrittenReason`].
    pub unwritten: [u64; UnwrittenReason::ALL.len()],
}

/// One worker's accounts. Plain adds on the worker's thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerAccount {
    pub received: u64,
    pub bytes: u64,
    pub analysed: u64,
    pub filtered: u64,
    pub dropped: [u64; DropReason::ALL.len()],
    /// Of the analysed, by `decode::Class`.
    pub classes: [u64; 6],
    pub flows_created: u64,
    pub flows_ended: u64,
    /// Pushed out while still alive, because the table was full.
    pub flows_evicted: u64,
    /// Pushed out half-open.
    pub half_open_evicted: u64,
    /// Flows whose trouble record found no room: their counts are incomplete.
    pub trouble_refused: u64,
    /// ICMP errors whose quoted flow is not known.
    pub icmp_unmatched: u64,
    pub events: EventAccount,
    pub kept: KeptAccount,
    pub history_cut: u64,
    pub tails_rescued: u64,
    pub tails_forgotten: u64,
    pub tails_refused: u64,
    pub holds_taken: u64,
    pub holds_refused: u64,
    /// Held flows let go because no verdict came in time.
    pub holds_unanswered: u64,
}

/// Messages to the judge, and rows of ended flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventAccount {
    pub raised: u64,
    pub delivered: u64,
    /// The queue was full.
    pub dropped: u64,
    /// Host and service counts that found no room in their interval's table.
    pub activity_lost: u64,
    pub rows: u64,
    pub rows_dropped: u64,
}

impl WorkerAccount {
    /// What was received is in exactly one account; so is each flow, given how many live; so is each event.
    pub fn balanced(&self, live: u64) -> bool {
        self.received == self.analysed + self.filtered + self.dropped.iter().sum::<u64>()
            && self.analysed == self.classes.iter().sum::<u64>()
            && self.flows_created == self.flows_ended + self.flows_evicted + self.half_open_evicted + live
            && self.events.raised == self.events.delivered + self.events.dropped
    }
}
