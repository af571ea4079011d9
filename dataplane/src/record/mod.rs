//! Keeps packets: from a worker's ready-made pcapng blocks to compressed segments on disk, and back out.
//!
//! [`Recorder`] is the worker's end (no allocation, no lock, no I/O after start); [`Writer`] runs on the
//! writer's thread and owns everything below `segments/`; [`export`](export::export) and
//! [`list`](list::list) read the store from any other thread or process. The format is described in
//! `docs/capture-format.md`. Data goes on to whoever opens the file.

pub mod chunk;
pub mod disk;
pub mod export;
pub mod fate;
pub mod follow;
mod incident_log;
pub mod incidents;
pub mod list;
mod pcapng;
pub mod query;
pub mod read;
mod retention;
mod segment;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tuple;
pub mod writer;
mod writer_thread;

pub use chunk::{Recorder, WriterPort, recorder};
pub use disk::{Disk, RealDisk};
pub use export::{ExportError, ExportSummary, Prepared, Spool, export, prepare};
pub use incident_log::IncidentLog;
pub use incidents::{FileIdentity, IncidentFiles, IncidentRecord, LinePlace, Told};
pub use list::{FlowSummary, list, list_by};
pub use query::{Finder, Query, ReadAll, Sought};
pub use read::{Ending, Recorded, SegmentReader};
pub use store::{SegmentFile, Store, StoreError};
pub use writer::{Writer, WriterAccount};
pub use writer_thread::{WriterHandle, spawn};

use crate::source::Nanos;

/// One packet to keep. Borrowed: the recorder copies it.
#[derive(Clone, Copy, Debug)]
pub struct StoredPacket<'a> {
    /// Capture time.
    pub ts: Nanos,
    /// The worker's own number of this packet, below 2^56; with the worker it identifies the packet.
    pub number: u64,
    pub flow_id: u64,
    /// Index among the interfaces announced to this recorder.
    pub interface: u16,
    /// Bytes on the wire.
    pub orig_len: u32,
    /// Bytes kept.
    pub bytes: &'a [u8],
    /// What this packet raised, in words ("referee: rst_after_idle"); cut after [`COMMENT_LIMIT`] bytes.
    pub comment: Option<&'a str>,
}

/// Bytes of a packet's own comment at most.
pub const COMMENT_LIMIT: usize = 1024;

/// The smallest chunk that makes sense: a full comment and a full-size Ethernet frame fit in it.
pub const CHUNK_BYTES_MIN: usize = 4096;

/// How packets are gathered, cut into segments and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// Bytes of pcapng blocks in one chunk, at least [`CHUNK_BYTES_MIN`]. A packet that fits no chunk is
    /// cut, as by a snap length.
    pub chunk_bytes: usize,
    /// Chunks per worker, at least 2: what the writer may be behind before packets are dropped.
    pub chunks: usize,
    /// A chunk goes to the writer when it was begun this long ago, in packet time.
    pub chunk_age: Nanos,
    /// A segment is closed when it has this many compressed bytes; one chunk more at most.
    pub segment_bytes: u64,
    /// A segment is closed when it was begun this long ago, in packet time.
    pub segment_age: Nanos,
    /// Compressed bytes of all segments together; beyond it the oldest are deleted.
    pub store_bytes: u64,
    /// A closed segment is deleted when it ended so long ago; 0: none is for its age.
    pub store_age: Nanos,
    /// Bytes of the incidents' two files together; beyond it the older half is deleted.
    pub incidents_bytes: u64,
    /// zstd level, 1 to 19; others are brought into that range.
    pub compression_level: i32,
}

impl Default for RecordConfig {
    fn default() -> Self {
        RecordConfig {
            chunk_bytes: 256 << 10,
            chunks: 64,
            chunk_age: 1_000_000_000,
            segment_bytes: 64 << 20,
            segment_age: 300 * 1_000_000_000,
            store_bytes: 10 << 30,
            store_age: 0,
            incidents_bytes: 256 << 20,
            compression_level: 3,
        }
    }
}

/// What an interface received and lost since the start of the run; `None` where nobody can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounters {
    /// Packets the interface received (isb_ifrecv).
    pub received: Option<u64>,
    /// Packets dropped between the interface and the recorder, for whatever reason (isb_ifdrop).
    pub dropped: Option<u64>,
}
