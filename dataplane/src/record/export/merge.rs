//! One order out of several runs: the next packet is the first of all runs' next ones, and copies fall out as
//! neighbours.
//!
//! Runs wherever captures are read; memory is a piece, or the largest block, of each run. Blocks go to the output, or
//! into a longer run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::super::pcapng::Finished;
use super::ExportError;
use super::runs::{Order, READ_BYTES, order};
use super::spool::SpoolFile;

/// One run being read, block by block.
pub(super) enum Reader<'a> {
    Memory(Box<dyn Iterator<Item = &'a [u8]> + 'a>),
    Disk(Disk<'a>),
}

pub(super) struct Disk<'a> {
    file: &'a SpoolFile,
    /// What is not yet in the buffer.
    left: Range<u64>,
    buffer: Vec<u8>,
    /// Where the current block is in the buffer.
    block: Range<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn disk(file: &'a SpoolFile, run: Range<u64>) -> Reader<'a> {
        Reader::Disk(Disk { file, left: run, buffer: Vec::new(), block: 0..0 })
    }
}

impl Disk<'_> {
    /// Moves on to the next block; false at the end of the run.
    fn advance(&mut self) -> io::Result<bool> {
        let begin = self.block.end;
        if begin == self.buffer.len() && self.left.is_empty() {
            return Ok(false);
        }
        let begin = self.hold(begin, 8)?;
        let total = self.buffer.get(begin + 4..begin + 8).and_then(|bytes| bytes.try_into().ok());
        let total = total.map(u32::from_le_bytes).ok_or(io::ErrorKind::InvalidData)? as usize;
        let begin = self.hold(begin, total.max(8))?;
        self.block = begin..begin + total.max(8);
        Ok(true)
    }

    /// Has `len` bytes from `begin` on in the buffer; returns where they begin now.
    fn hold(&mut self, begin: usize, len: usize) -> io::Result<usize> {
        if self.buffer.len() - begin >= len {
            return Ok(begin);
        }
        self.buffer.drain(..begin);
        let held = self.buffer.len();
        let wanted = (READ_BYTES.max(len) - held) as u64;
        let more = wanted.min(self.left.end - self.left.start);
        self.buffer.reserve_exact(more as usize);
        self.buffer.resize(held + more as usize, 0);
        let room = self.buffer.get_mut(held..).ok_or(io::ErrorKind::InvalidData)?;
        self.file.file.read_exact_at(room, self.left.start)?;
        self.left.start += more;
        if self.buffer.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(0) }
    }
}

/// A run and its current block.
struct Cursor<'a> {
    reader: Reader<'a>,
    current: &'a [u8],
}

impl Cursor<'_> {
    fn advance(&mut self) -> Result<bool, ExportError> {
        match &mut self.reader {
            Reader::Disk(disk) => disk.advance().map_err(|e| disk.file.failed(e)),
            Reader::Memory(blocks) => {
                let next = blocks.next();
                self.current = next.unwrap_or_default();
                Ok(next.is_some())
            }
        }
    }

    fn block(&self) -> Option<Finished<'_>> {
        Finished::new(match &self.reader {
            Reader::Memory(_) => self.current,
            Reader::Disk(disk) => disk.buffer.get(disk.block.clone())?,
        })
    }
}

/// Runs being merged.
pub(super) struct Merge<'a> {
    cursors: Vec<Cursor<'a>>,
    /// Order of each run's current block, and the run; of equal ones, the earlier run's first.
    heap: BinaryHeap<Reverse<(Order, usize)>>,
    /// The run whose block was shown last.
    shown: Option<usize>,
    last: Option<(u64, u64)>,
    /// Copies left out.
    pub(super) duplicates: u64,
}

impl<'a> Merge<'a> {
    pub(super) fn new(runs: Vec<Reader<'a>>) -> Result<Merge<'a>, ExportError> {
        let cursors = runs.into_iter().map(|reader| Cursor { reader, current: &[] }).collect::<Vec<_>>();
        let heap = BinaryHeap::with_capacity(cursors.len());
        let mut merge = Merge { cursors, heap, shown: None, last: None, duplicates: 0 };
        for run in 0..merge.cursors.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> Result<(), ExportError> {
        let Some(cursor) = self.cursors.get_mut(run) else { return Ok(()) };
        if cursor.advance()? {
            let block = cursor.block().ok_or(ExportError::Sorted)?;
            self.heap.push(Reverse((order(&block), run)));
        }
        Ok(())
    }

    /// The next packet's block.
    pub(super) fn next_block(&mut self) -> Result<Option<Finished<'_>>, ExportError> {
        loop {
            if let Some(run) = self.shown.take() {
                self.advance(run)?;
            }
            let Some(Reverse(((ts, id, _), run))) = self.heap.pop() else { return Ok(None) };
            self.shown = Some(run);
            if self.last == Some((ts, id)) {
                self.duplicates += 1;
                continue;
            }
            self.last = Some((ts, id));
            break;
        }
        Ok(self.shown.and_then(|run| self.cursors.get(run)).and_then(Cursor::block))
    }
}
