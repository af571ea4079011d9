//! Bytes on their way in: [`Raw`] counts what is read of the file, [`Window`] holds the piece being parsed.
//!
//! Runs on the worker's thread. Both buffers have a fixed size taken when the input is opened; a read never
//! allocates. The window is what packet handles point into, so its bytes move only at the start of a poll or
//! while a batch is still being put together, never while a batch is lent out. `pcap` and `pcapng` parse it.

use std::io::{self, Read};

use super::WINDOW;
use super::decompress::Stream;

/// Read size for what feeds a decompressor.
const RAW_BUFFER: usize = 128 << 10;

/// A read smaller than this is put off by moving the unparsed rest to the front of the window first.
const MIN_READ: usize = 64 << 10;

/// Most bytes of one read into the window: what was read is parsed and copied on while it is still in the cache.
const MAX_READ: usize = 64 << 10;

/// A rest of at most so many bytes is always moved to the front: the same few pages are read into again and again.
const SMALL_REST: usize = 8 << 10;

/// The file as it lies on disk: buffered, countable, retried when a signal interrupts.
pub(super) struct Raw {
    inner: Box<dyn Read + Send>,
    buf: Box<[u8]>,
    pos: usize,
    end: usize,
    /// Bytes taken from `inner`.
    pub(super) total: u64,
    /// A read found the end of the input.
    pub(super) at_end: bool,
}

impl Raw {
    pub(super) fn new(inner: Box<dyn Read + Send>) -> Raw {
        let buf = vec![0; RAW_BUFFER].into_boxed_slice();
        Raw { inner, buf, pos: 0, end: 0, total: 0, at_end: false }
    }

    fn read_inner(inner: &mut dyn Read, dst: &mut [u8]) -> io::Result<usize> {
        loop {
            match inner.read(dst) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A reader that claims more than it was given room for must not push an index out of range.
                result => return result.map(|n| n.min(dst.len())),
            }
        }
    }

    /// At least `need` buffered bytes (at most the buffer's size), fewer only at the end of the input.
    pub(super) fn peek(&mut self, need: usize) -> io::Result<&[u8]> {
        if self.end - self.pos < need && self.pos > 0 {
            self.buf.copy_within(self.pos..self.end, 0);
            self.end -= self.pos;
            self.pos = 0;
        }
        while self.end - self.pos < need && self.end < self.buf.len() {
            let n = Self::read_inner(&mut *self.inner, &mut self.buf[self.end..])?;
            if n == 0 {
                self.at_end = true;
                break;
            }
            self.total += n as u64;
            self.end += n;
        }
        Ok(&self.buf[self.pos..self.end])
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.pos = (self.pos + n).min(self.end);
    }
}

impl Read for Raw {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        if self.pos == self.end && dst.len() >= MIN_READ {
            let n = Self::read_inner(&mut *self.inner, dst)?;
            self.total += n as u64;
            self.at_end |= n == 0;
            return Ok(n);
        }
        let have = self.peek(1)?;
        let n = have.len().min(dst.len());
        dst[..n].copy_from_slice(&have[..n]);
        self.consume(n);
        Ok(n)
    }
}

/// How a [`Window::fill`] came out.
pub(super) enum Fill {
    Ready,
    /// The input ended first.
    End,
    /// The input can't be read further.
    Failed(io::Error),
}

/// The piece of the uncompressed stream in memory: `pos..end` is not parsed yet.
pub(super) struct Window {
    buf: Box<[u8]>,
    pos: usize,
    end: usize,
    /// Stream offset of `buf[0]`.
    base: u64,
    /// Bytes after `end` to be thrown away unseen.
    skip: u64,
}

impl Window {
    pub(super) fn new() -> Window {
        Window { buf: vec![0; WINDOW].into_boxed_slice(), pos: 0, end: 0, base: 0, skip: 0 }
    }

    /// Bytes not parsed yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buf[self.pos..self.end]
    }

    /// Stream offset of the first byte not parsed yet.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.pos as u64
    }

    /// The bytes at a stream offset, which must be in the window.
    #[inline]
    pub(super) fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let start = (offset - self.base) as usize;
        &self.buf[start..start + len]
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.pos += n;
        debug_assert!(self.pos <= self.end, "parsed past the end of the window");
    }

    /// Passes over the next `n` bytes, read or not.
    pub(super) fn skip(&mut self, n: u64) {
        let here = n.min((self.end - self.pos) as u64);
        self.pos += here as usize;
        self.skip += n - here;
    }

    /// Reads until `need` bytes (at most [`WINDOW`] from `keep`) are unparsed, or the skipped ones are past.
    ///
    /// Bytes from stream offset `keep` on stay in the window; older ones may go.
    pub(super) fn fill(&mut self, stream: &mut Stream, keep: u64, need: usize) -> Fill {
        while self.skip > 0 {
            self.base += self.end as u64;
            self.pos = 0;
            self.end = 0;
            match stream.read(&mut self.buf) {
                Ok(0) => return Fill::End,
                Ok(n) => {
                    self.end = n;
                    let pending = std::mem::take(&mut self.skip);
                    self.skip(pending);
                }
                Err(error) => return Fill::Failed(error),
            }
        }
        while self.end - self.pos < need {
            self.make_room(keep, need);
            if self.end == self.buf.len() {
                debug_assert!(false, "asked for more than the window holds");
                return Fill::End;
            }
            let upto = self.buf.len().min(self.end + MAX_READ);
            match stream.read(&mut self.buf[self.end..upto]) {
                Ok(0) => return Fill::End,
                Ok(n) => self.end += n,
                Err(error) => return Fill::Failed(error),
            }
        }
        Fill::Ready
    }

    fn make_room(&mut self, keep: u64, need: usize) {
        let kept = (keep.saturating_sub(self.base) as usize).min(self.pos);
        let missing = need - (self.end - self.pos);
        let roomy = self.buf.len() - self.end >= missing.max(MIN_READ);
        if kept == 0 || roomy && self.end - kept > SMALL_REST {
            return;
        }
        self.buf.copy_within(kept..self.end, 0);
        self.base += kept as u64;
        self.pos -= kept;
        self.end -= kept;
    }

    /// Gives the memory back; nothing can be read after it.
    pub(super) fn free(&mut self) {
        self.base = self.offset();
        self.buf = Box::default();
        self.pos = 0;
        self.end = 0;
    }
}
