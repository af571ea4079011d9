//! A capture file with a stopwatch: passes a [`FileSource`] on unchanged and notes when the packets that
//! count began and ended. On the benchmark's one thread; every stage reads its packets through this, so all of
//! them are timed between the same two polls.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use dataplane::source::file::FileSource;
use dataplane::source::{Batch, Descriptor, Interface, Poll, Source};

use crate::host;

/// A moment between two batches.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    packets: u64,
    faults: u64,
}

/// What the stopwatch says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    pub seconds: f64,
    /// Packets in that time.
    pub packets: u64,
    /// Pages the kernel had to find in that time.
    pub faults: u64,
}

impl Timing {
    pub fn ns_per_packet(&self) -> f64 {
        self.seconds * 1e9 / self.packets.max(1) as f64
    }
}

/// The source.
pub struct Clocked {
    inner: FileSource,
    /// Packets before the clock starts.
    warm: u64,
    packets: u64,
    start: Option<Mark>,
    end: Option<Mark>,
}

impl Clocked {
    pub fn open(path: &Path, warm: u64) -> Result<Clocked> {
        let inner = FileSource::open(path).with_context(|| format!("cannot read back {}", path.display()))?;
        Ok(Clocked { inner, warm, packets: 0, start: None, end: None })
    }

    /// True between the two marks.
    #[inline(always)]
    pub fn running(&self) -> bool {
        self.start.is_some() && self.end.is_none()
    }

    /// Packets handed out.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The time between the marks; nothing while the input has not ended.
    pub fn timing(&self) -> Timing {
        let (Some(start), Some(end)) = (self.start, self.end) else { return Timing::default() };
        Timing {
            seconds: end.at.duration_since(start.at).as_secs_f64(),
            packets: end.packets - start.packets,
            faults: end.faults - start.faults,
        }
    }

    #[cold]
    fn mark(&self) -> Option<Mark> {
        let faults = host::page_faults();
        Some(Mark { at: Instant::now(), packets: self.packets, faults })
    }
}

impl Source for Clocked {
    #[inline]
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        if self.start.is_none() && self.packets >= self.warm {
            self.start = self.mark();
        }
        let poll = self.inner.poll(batch);
        self.packets += batch.packets.len() as u64;
        if poll == Poll::End && self.end.is_none() {
            self.end = self.mark();
        }
        poll
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        self.inner.bytes(packet)
    }

    #[inline]
    fn release(&mut self, batch: &mut Batch) {
        self.inner.release(batch);
    }

    fn interfaces(&self) -> &[Interface] {
        self.inner.interfaces()
    }
}
