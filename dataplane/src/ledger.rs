//! Every account a packet can end in, and the law that they balance.
//!
//! `received = analysed + filtered + Σ dropped` and `kept = written + Σ unwritten`. Each thread counts in
//! its own block with plain adds; readers sum after the threads have stopped or from published copies. A
//! packet is let go of only by naming a reason here.

/// Why a received packet was not analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// The source handed over more than the largest packet a worker takes (256 KiB).
    Oversize,
}

impl DropReason {
    pub const ALL: [DropReason; 1] = [DropReason::Oversize];

    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Oversize => "oversize",
        }
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
