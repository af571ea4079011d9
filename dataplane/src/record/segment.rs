//! One segment being written: a single zstd frame, flushed after every chunk, so that whatever was appended
//! to the file can be read whatever happens next. Also the segments' names.
//!
//! Runs on the writer's thread. Only makes bytes; `writer` puts them on the disk.

use std::io::{self, Write};

use zstd::stream::write::Encoder;

use crate::source::{Interface, Nanos};

use super::LossCounters;
use super::chunk::Chunk;
use super::pcapng;

/// What every segment's name ends with.
const SUFFIX: &str = ".pcapng.zst";

/// What a segment's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentName {
    pub(super) worker: u16,
    /// Oldest packet of its first chunk.
    pub(super) first_ns: Nanos,
    /// Rises with every segment of this worker in this store.
    pub(super) sequence: u64,
}

impl SegmentName {
    pub(super) fn parse(name: &str) -> Option<SegmentName> {
        let mut parts = name.strip_prefix('w')?.strip_suffix(SUFFIX)?.split('-');
        let parsed = SegmentName {
            worker: parts.next()?.parse().ok()?,
            first_ns: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
        };
        // Only what we would have written ourselves: "+1" and "01" also parse as numbers.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "w{}-{:020}-{:06}{SUFFIX}", self.worker, self.first_ns, self.sequence)
    }
}

/// A segment that is open for writing.
pub(super) struct Segment {
    pub(super) name: SegmentName,
    /// The name as the disk knows it.
    pub(super) file: String,
    /// Packet time at which its first chunk was begun.
    pub(super) opened: Nanos,
    /// Bytes known to be in the file, up to and including the last flush.
    pub(super) flushed: u64,
    /// Packets in it, up to there.
    pub(super) packets: u64,
    last_ts: Nanos,
    described: usize,
    encoder: Encoder<'static, Vec<u8>>,
}

impl Segment {
    /// Starts a frame with the section header in it; nothing is in the file yet.
    pub(super) fn begin(name: SegmentName, opened: Nanos, level: i32) -> io::Result<Segment> {
        let mut encoder = Encoder::new(Vec::new(), level.clamp(1, 19))?;
        encoder.include_checksum(true)?;
        let mut header = Vec::new();
        pcapng::put_section(&mut header, "");
        encoder.write_all(&header)?;
        let file = name.to_string();
        Ok(Segment { name, file, opened, flushed: 0, packets: 0, last_ts: 0, described: 0, encoder })
    }

    /// Compresses a chunk, after the descriptions of interfaces new since the last one, and flushes.
    /// Returns what is to be appended to the file.
    pub(super) fn encode(&mut self, interfaces: &[Interface], chunk: &Chunk) -> io::Result<Vec<u8>> {
        let mut descriptions = Vec::new();
        for interface in &interfaces[self.described..] {
            pcapng::put_interface(&mut descriptions, interface);
        }
        self.described = interfaces.len();
        self.last_ts = self.last_ts.max(chunk.last_ts);
        self.encoder.write_all(&descriptions)?;
        self.encoder.write_all(&chunk.blocks)?;
        self.encoder.flush()?;
        Ok(std::mem::take(self.encoder.get_mut()))
    }

    /// Statistics of every interface described, then the end of the frame. Returns what is to be appended.
    pub(super) fn finish(mut self, losses: &[LossCounters], delivered: &[u64]) -> io::Result<Vec<u8>> {
        let mut statistics = Vec::new();
        for index in 0..self.described {
            let losses = losses.get(index).copied().unwrap_or_default();
            let delivered = delivered.get(index).copied().unwrap_or(0);
            let interface = u32::try_from(index).expect("interfaces are numbered with 16 bits");
            pcapng::put_statistics(&mut statistics, interface, self.last_ts, losses, delivered);
        }
        self.encoder.write_all(&statistics)?;
        self.encoder.finish()
    }
}
