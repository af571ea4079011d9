//! A ring of records between two threads: one puts them in, the other takes them out; neither waits for the other.
//!
//! Memory is taken when it is made. A record is two numbers of the caller's and some bytes, which lie together and are
//! read where they lie. What was put in is seen by the other end from [`Sender::publish`] on.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Table;

/// Words before a record's bytes: how many bytes, and the caller's two.
const HEAD: u64 = 3;
/// In the place of a length: the rest of the ring is left out, the next record is at its start.
const SKIP: u64 = u64::MAX;

/// On cache lines of its own; processors fetch two at a time.
#[repr(align(128))]
struct Apart<T>(T);

/// What the sender writes and the receiver reads.
struct Told {
    /// Words put in since the start.
    written: AtomicU64,
    /// A number of the caller's that is true of all that was put in before.
    watermark: AtomicU64,
    closed: AtomicBool,
}

struct Shared {
    /// Only so that the memory stays; nobody looks through it.
    _memory: Table<u64>,
    first: NonNull<u64>,
    /// Words there are, a power of two.
    words: u64,
    told: Apart<Told>,
    /// Words taken out since the start.
    freed: Apart<AtomicU64>,
}

// SAFETY: there is one Sender and one Receiver. The words between `freed` and `written` are the receiver's, who only
// reads them; all others are the sender's. Each moves its own border by a release store after its last access to what
// it gives away, and learns of the other's by an acquire load.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The word at a position; positions never wrap, the ring does.
    fn word(&self, position: u64) -> *mut u64 {
        self.first.as_ptr().wrapping_add((position & (self.words - 1)) as usize)
    }
}

/// The end that puts in. Dropped, it says that no more will come.
pub struct Sender {
    shared: Arc<Shared>,
    written: u64,
    published: u64,
    /// As last seen.
    freed: u64,
}

/// The end that takes out.
pub struct Receiver {
    shared: Arc<Shared>,
    read: u64,
    freed: u64,
    /// As last seen.
    written: u64,
}

/// A record taken out: where its bytes are, and the caller's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub position: u64,
    pub len: u32,
    pub head: [u64; 2],
}

/// Both ends of a ring of at least so many bytes.
pub fn ring(bytes: usize) -> (Sender, Receiver) {
    let words = (bytes / 8).next_power_of_two().max(64);
    let mut memory = Table::<u64>::zeroed(words);
    // If the kernel won't give it now, it gives it piece by piece.
    memory.populate();
    let first = NonNull::new(memory.as_mut_ptr()).unwrap_or(NonNull::dangling());
    let told =
        Told { written: AtomicU64::new(0), watermark: AtomicU64::new(0), closed: AtomicBool::new(false) };
    let shared = Arc::new(Shared {
        _memory: memory,
        first,
        words: words as u64,
        told: Apart(told),
        freed: Apart(AtomicU64::new(0)),
    });
    let sender = Sender { shared: Arc::clone(&shared), written: 0, published: 0, freed: 0 };
    (sender, Receiver { shared, read: 0, freed: 0, written: 0 })
}

/// Words a record of so many bytes takes.
const fn words_of(len: u64) -> u64 {
    HEAD + len.div_ceil(8)
}

impl Sender {
    /// Puts a record in; false if there is no room for it.
    #[inline]
    pub fn push(&mut self, head: [u64; 2], bytes: &[u8]) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        let need = words_of(u64::from(len));
        let to_end = self.shared.words - (self.written & (self.shared.words - 1));
        let skip = if need > to_end { to_end } else { 0 };
        if skip + need > self.shared.words - (self.written - self.freed) {
            self.freed = self.shared.freed.0.load(Ordering::Acquire);
            if skip + need > self.shared.words - (self.written - self.freed) {
                return false;
            }
        }
        if skip > 0 {
            // SAFETY: a word of the ring that is the sender's: from `written` on there is room, as was just seen.
            unsafe { self.shared.word(self.written).write(SKIP) };
            self.written += skip;
        }
        let at = self.shared.word(self.written);
        // SAFETY: from `at` on there are `need` words before the ring's end, and all of them are the sender's, as was
        // just seen; `bytes` is the caller's memory and no part of a ring that is being written to.
        unsafe {
            at.write(u64::from(len));
            at.add(1).write(head[0]);
            at.add(2).write(head[1]);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.add(HEAD as usize).cast::<u8>(), bytes.len());
        }
        self.written += need;
        true
    }

    /// Shows the receiver what was put in, and a number that is true of all of it. True if there was anything new.
    #[inline]
    pub fn publish(&mut self, watermark: u64) -> bool {
        let told = &self.shared.told.0;
        let news = self.written != self.published;
        if news {
            told.written.store(self.written, Ordering::Release);
            self.published = self.written;
        }
        told.watermark.store(watermark, Ordering::Release);
        news
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.told.0.written.store(self.written, Ordering::Release);
        self.shared.told.0.closed.store(true, Ordering::Release);
    }
}

impl Receiver {
    /// The number told last. What was put in before it was told is found by a [`Receiver::take`] after this.
    pub fn watermark(&self) -> u64 {
        self.shared.told.0.watermark.load(Ordering::Acquire)
    }

    /// The sender is gone; likewise.
    pub fn is_closed(&self) -> bool {
        self.shared.told.0.closed.load(Ordering::Acquire)
    }

    /// The next record that was published.
    #[inline]
    pub fn take(&mut self) -> Option<Record> {
        loop {
            if self.read == self.written {
                self.written = self.shared.told.0.written.load(Ordering::Acquire);
                if self.read == self.written {
                    return None;
                }
            }
            let at = self.shared.word(self.read);
            // SAFETY: below `written` every word is the receiver's until it frees it, and here a record begins.
            let len = unsafe { at.read() };
            if len == SKIP {
                self.read += self.shared.words - (self.read & (self.shared.words - 1));
                continue;
            }
            // SAFETY: a record has its head within the ring and below `written`.
            let head = unsafe { [at.add(1).read(), at.add(2).read()] };
            let record = Record { position: self.read + HEAD, len: len as u32, head };
            self.read += words_of(len);
            return Some(record);
        }
    }

    /// The bytes of a record that was not freed; of any other, none.
    #[inline]
    pub fn bytes(&self, position: u64, len: u32) -> &[u8] {
        let end = position.saturating_add(u64::from(len).div_ceil(8));
        let within = (position & (self.shared.words - 1)) + (end - position) <= self.shared.words;
        if position < self.freed || end > self.read || !within {
            return &[];
        }
        // SAFETY: all of it lies between `freed` and `read`, which the sender doesn't touch before `free` tells it so,
        // for which `&mut self` is needed; it doesn't cross the ring's end; and every word of the ring is initialized.
        unsafe { std::slice::from_raw_parts(self.shared.word(position).cast::<u8>(), len as usize) }
    }

    /// Starts loading the first bytes of a record.
    #[inline(always)]
    pub fn prefetch(&self, record: &Record) {
        crate::prefetch_line(self.shared.word(record.position).cast());
        crate::prefetch_line(self.shared.word(record.position).cast::<u8>().wrapping_add(63));
    }

    /// Gives the place of all records taken out back to the sender.
    #[inline]
    pub fn free(&mut self) {
        if self.freed != self.read {
            self.freed = self.read;
            self.shared.freed.0.store(self.read, Ordering::Release);
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({} words put in)", self.written)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({} words taken out)", self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in_however_the_ring_turns() {
        let (mut sender, mut receiver) = ring(512);
        let mut next = 0_u64;
        for round in 0..5000_u64 {
            let bytes: Vec<u8> = (0..(round * 7) % 150).map(|i| (i ^ round) as u8).collect();
            while !sender.push([round, !round], &bytes) {
                sender.publish(round);
                next = drain(&mut receiver, next);
            }
        }
        drop(sender);
        assert!(receiver.is_closed());
        assert_eq!(drain(&mut receiver, next), 5000);
    }

    /// Takes everything out and frees it; the number of the next record.
    fn drain(receiver: &mut Receiver, mut next: u64) -> u64 {
        while let Some(record) = receiver.take() {
            assert_eq!(record.head, [next, !next]);
            let bytes = receiver.bytes(record.position, record.len);
            let wanted: Vec<u8> = (0..(next * 7) % 150).map(|i| (i ^ next) as u8).collect();
            assert_eq!(bytes, wanted);
            next += 1;
        }
        receiver.free();
        next
    }

    #[test]
    fn nothing_is_seen_before_it_is_published_nor_overwritten_before_it_is_freed() {
        let (mut sender, mut receiver) = ring(512);
        assert!(sender.push([1, 2], b"first"));
        assert_eq!(receiver.take(), None);
        assert!(sender.publish(9));
        assert!(!sender.publish(10), "nothing new");
        assert_eq!(receiver.watermark(), 10);
        let record = receiver.take().unwrap();
        while sender.push([0, 0], &[7; 40]) {}
        assert_eq!(receiver.bytes(record.position, record.len), b"first");
        assert_eq!(receiver.bytes(record.position, 600), b"", "beyond what was taken out");
        receiver.free();
        assert_eq!(receiver.bytes(record.position, record.len), b"", "freed");
        assert!(!sender.push([0, 0], &[0; 600]), "larger than the ring");
    }

    #[test]
    fn two_threads_lose_nothing() {
        let (mut sender, mut receiver) = ring(4096);
        let sent = std::thread::spawn(move || {
            let mut number = 0_u64;
            while number < 200_000 {
                let bytes = number.to_le_bytes();
                if sender.push([number, 0], &bytes[..(number % 9) as usize]) {
                    number += 1;
                } else {
                    std::thread::yield_now();
                }
                if number.is_multiple_of(5) {
                    sender.publish(number);
                }
            }
        });
        let mut next = 0_u64;
        loop {
            let (closed, watermark) = (receiver.is_closed(), receiver.watermark());
            while let Some(record) = receiver.take() {
                assert_eq!(record.head[0], next);
                let wanted = &next.to_le_bytes()[..(next % 9) as usize];
                assert_eq!(receiver.bytes(record.position, record.len), wanted);
                next += 1;
            }
            assert!(next >= watermark, "what was told is true");
            receiver.free();
            if closed {
                break;
            }
        }
        assert_eq!(next, 200_000);
        sent.join().unwrap();
    }
}
