//! Packets on their way into order: gathered as finished blocks in memory, sorted, and put on the disk when they are
//! too many; each such run is in order by itself.
//!
//! Runs wherever captures are read. `merge` makes one order of the runs.

use std::ops::Range;

use crate::source::Nanos;

use super::super::pcapng::{self, Finished, PacketBlock};
use super::ExportError;
use super::merge::{Merge, Reader};
use super::spool::{Appender, Spool, SpoolFile};

/// What a reader of a run holds besides its largest block, bytes.
pub(super) const READ_BYTES: usize = 64 << 10;

/// What a packet is ordered by: time, packet id, and of copies the one that says something first.
pub(super) type Order = (Nanos, u64, bool);

/// A block in memory: what it is ordered by, and where it is.
#[derive(Clone, Copy, Debug)]
struct Key {
    order: Order,
    at: u32,
    len: u32,
}

/// Blocks in memory.
#[derive(Debug, Default)]
struct Gathered {
    blocks: Vec<u8>,
    keys: Vec<Key>,
}

impl Gathered {
    fn bytes(&self) -> usize {
        self.blocks.len() + self.keys.len() * size_of::<Key>()
    }

    fn block(&self, key: Key) -> &[u8] {
        self.blocks.get(key.at as usize..key.at as usize + key.len as usize).unwrap_or_default()
    }

    /// Puts the blocks in order and leaves copies out; returns how many.
    fn sort(&mut self) -> u64 {
        self.keys.sort_unstable_by_key(|key| (key.order, key.at));
        let before = self.keys.len();
        self.keys.dedup_by_key(|key| (key.order.0, key.order.1));
        (before - self.keys.len()) as u64
    }
}

/// All packets of an export, in runs.
pub(super) struct Runs {
    spool: Spool,
    gathered: Gathered,
    file: Option<SpoolFile>,
    spans: Vec<Range<u64>>,
    /// Largest block on the disk.
    largest: usize,
    /// Copies left out so far.
    pub(super) duplicates: u64,
}

impl Runs {
    pub(super) fn new(spool: &Spool) -> Runs {
        let gathered = Gathered::default();
        Runs { spool: spool.clone(), gathered, file: None, spans: Vec::new(), largest: 0, duplicates: 0 }
    }

    pub(super) fn push(&mut self, packet: &PacketBlock<'_>) -> Result<(), ExportError> {
        let at = self.gathered.blocks.len();
        pcapng::put_packet(&mut self.gathered.blocks, packet);
        // Runs are far below 4 GiB.
        let (start, end) = (u32::try_from(at), u32::try_from(self.gathered.blocks.len() - at));
        let (Ok(at), Ok(len)) = (start, end) else { return self.spill() };
        let order = (packet.ts, packet.packet_id, packet.comments.is_empty());
        self.gathered.keys.push(Key { order, at, len });
        if self.gathered.bytes() >= self.spool.run_bytes { self.spill() } else { Ok(()) }
    }

    /// Puts what is in memory on the disk, as one run.
    fn spill(&mut self) -> Result<(), ExportError> {
        self.duplicates += self.gathered.sort();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.spool.file()?),
        };
        let begin = file.len;
        let mut out = Appender::new(file);
        for key in &self.gathered.keys {
            self.largest = self.largest.max(key.len as usize);
            out.put(self.gathered.block(*key))?;
        }
        out.finish()?;
        self.spans.push(begin..file.len);
        self.gathered.blocks.clear();
        self.gathered.keys.clear();
        Ok(())
    }

    /// After the last packet: as many runs as can be merged at a time.
    pub(super) fn finish(&mut self) -> Result<(), ExportError> {
        if self.file.is_none() {
            self.duplicates += self.gathered.sort();
            return Ok(());
        }
        self.spill()?;
        self.gathered = Gathered::default();
        let most = (self.spool.merge_bytes / (READ_BYTES.max(self.largest))).max(2);
        while self.spans.len() > most {
            self.merge_once(most)?;
        }
        Ok(())
    }

    /// Makes one run of each `most` runs that follow each other, in a new file.
    fn merge_once(&mut self, most: usize) -> Result<(), ExportError> {
        let Some(old) = &self.file else { return Ok(()) };
        let mut new = self.spool.file()?;
        let mut spans = Vec::new();
        for group in self.spans.chunks(most) {
            let begin = new.len;
            let mut merge = Merge::new(group.iter().map(|span| Reader::disk(old, span.clone())).collect())?;
            let mut out = Appender::new(&mut new);
            while let Some(block) = merge.next_block()? {
                self.spool.check()?;
                out.put(block.bytes)?;
            }
            out.finish()?;
            self.duplicates += merge.duplicates;
            spans.push(begin..new.len);
        }
        (self.file, self.spans) = (Some(new), spans);
        Ok(())
    }

    /// All packets in order, each once; as often as wanted.
    pub(super) fn merge(&self) -> Result<Merge<'_>, ExportError> {
        match &self.file {
            Some(file) => {
                Merge::new(self.spans.iter().map(|span| Reader::disk(file, span.clone())).collect())
            }
            None => {
                let blocks = self.gathered.keys.iter().map(|key| self.gathered.block(*key));
                Merge::new(vec![Reader::Memory(Box::new(blocks))])
            }
        }
    }
}

/// What a finished block is ordered by.
pub(super) fn order(block: &Finished<'_>) -> Order {
    (block.ts, block.packet_id, block.comments_len == 0)
}
