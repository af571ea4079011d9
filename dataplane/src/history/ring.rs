//! The history ring: a byte ring of packets, each with the position of its flow's previous one. Worker's
//! thread; never allocates after start. Positions only rise; the byte at position `p` is `ring[p % size]`.
//!
//! A record never wraps: what doesn't fit before the end starts at the beginning, and the rest is skipped.

use dataplane_sys::Table;

use super::Remembered;
use crate::flow::keeper::Stamp;
use crate::source::Nanos;

/// Bytes of a record before the packet: previous position, time, number, original length, captured length,
/// interface; little endian.
const HEADER: usize = 40;
const ALIGN: u64 = 8;
/// Bytes of the next record that start to be loaded when one was appended: the ring is larger than any cache. What is
/// longer follows by itself.
const AHEAD: usize = 512;
/// Parts of the ring that flow tails are rescued by.
pub const EPOCHS: u64 = 16;

/// The ring.
#[derive(Debug)]
pub struct Ring {
    bytes: Table<u8>,
    size: u64,
    /// Where the next record goes, and that modulo `size`.
    head: u64,
    offset: usize,
    /// Where the next epoch begins.
    next_epoch: u64,
    /// Time of the first record of each epoch, newest at `epoch % EPOCHS`.
    marks: [Nanos; EPOCHS as usize],
    epoch: u64,
}

impl Ring {
    /// A ring of `size` bytes, at least 1 MiB.
    pub fn new(size: usize) -> Ring {
        let size = size.max(1 << 20).next_multiple_of(4096);
        let bytes = Table::zeroed(size);
        Ring {
            bytes,
            size: size as u64,
            head: 0,
            offset: 0,
            next_epoch: 0,
            marks: [0; EPOCHS as usize],
            epoch: 0,
        }
    }

    /// Has the kernel give its memory now: all of it is soon written to, and finding pages meanwhile costs as much as
    /// analysing the packets. False if it won't.
    pub fn populate(&mut self) -> bool {
        self.bytes.populate()
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Largest packet it takes, bytes; longer ones are cut.
    pub fn largest(&self) -> usize {
        (self.size / EPOCHS) as usize - HEADER - ALIGN as usize
    }

    /// Appends a packet; `previous` is its flow's newest position plus one, or 0. Returns the same for it.
    #[inline]
    pub fn append(&mut self, previous: u64, stamp: &Stamp, packet: &[u8]) -> u64 {
        let len = packet.len().min(self.largest());
        let need = HEADER + len;
        if self.offset + need > self.bytes.len() {
            self.head += (self.bytes.len() - self.offset) as u64;
            self.offset = 0;
        }
        let at = self.head;
        let record = &mut self.bytes[self.offset..self.offset + need];
        let (header, body) = record.split_at_mut(HEADER);
        header[0..8].copy_from_slice(&previous.to_le_bytes());
        header[8..16].copy_from_slice(&stamp.ts.to_le_bytes());
        header[16..24].copy_from_slice(&stamp.number.to_le_bytes());
        header[24..28].copy_from_slice(&stamp.orig_len.to_le_bytes());
        header[28..32].copy_from_slice(&(len as u32).to_le_bytes());
        header[32..34].copy_from_slice(&stamp.interface.to_le_bytes());
        body.copy_from_slice(&packet[..len]);
        let step = need.next_multiple_of(ALIGN as usize);
        self.head += step as u64;
        self.offset += step;
        if let Some(next) = self.bytes.get(self.offset..self.offset + AHEAD) {
            dataplane_sys::prefetch_all(next);
        }
        if at >= self.next_epoch {
            self.begin_epoch(at, stamp.ts);
        }
        at + 1
    }

    #[cold]
    fn begin_epoch(&mut self, at: u64, ts: Nanos) {
        self.epoch = at / self.epoch_bytes();
        self.next_epoch = (self.epoch + 1) * self.epoch_bytes();
        self.marks[(self.epoch % EPOCHS) as usize] = ts;
    }

    fn epoch_bytes(&self) -> u64 {
        self.size / EPOCHS
    }

    /// True while the record at `link` (position plus one) has not been overwritten.
    #[inline(always)]
    pub fn holds(&self, link: u64) -> bool {
        link != 0 && link - 1 + self.size >= self.head
    }

    /// The record at `link`, and the link of its flow's previous packet.
    pub fn get(&self, link: u64) -> Option<(Remembered<'_>, u64)> {
        if !self.holds(link) {
            return None;
        }
        let start = ((link - 1) % self.size) as usize;
        let header = self.bytes.get(start..start + HEADER)?;
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let half = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let len = half(28) as usize;
        let body = self.bytes.get(start + HEADER..start + HEADER + len)?;
        let interface = u16::from_le_bytes([header[32], header[33]]);
        let packet = Remembered { ts: word(8), number: word(16), orig_len: half(24), interface, bytes: body };
        Some((packet, word(0)))
    }

    /// The epoch being written; it rises by one every sixteenth of the ring.
    #[inline(always)]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// True for a link that lies in the epoch being written.
    #[inline(always)]
    pub fn is_of_this_epoch(&self, link: u64) -> bool {
        link > self.next_epoch - self.epoch_bytes()
    }

    /// The epoch a link lies in.
    #[inline(always)]
    pub fn epoch_of(&self, link: u64) -> u64 {
        (link - 1) / self.epoch_bytes()
    }

    /// Bytes appended since the start, skipped ends included.
    pub fn written(&self) -> u64 {
        self.head
    }

    /// How far back the ring reaches at `now`, ns: the age of its oldest whole sixteenth.
    pub fn horizon(&self, now: Nanos) -> Nanos {
        let oldest = if self.epoch + 1 < EPOCHS { 0 } else { self.epoch + 1 - (EPOCHS - 1) };
        now.saturating_sub(self.marks[(oldest % EPOCHS) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp { ts: number * 1000, number, orig_len: 2000, interface: 3 }
    }

    #[test]
    fn chains_lead_back_until_overwritten() {
        let mut ring = Ring::new(1 << 20);
        let mut link = 0;
        for number in 0..5000_u64 {
            let packet = vec![number as u8; 100 + (number as usize * 7) % 1400];
            link = ring.append(link, &stamp(number), &packet);
        }
        let mut expected = 4999;
        let mut at = link;
        let mut seen = 0;
        while let Some((packet, previous)) = ring.get(at) {
            assert_eq!(packet.number, expected);
            assert_eq!(packet.ts, expected * 1000);
            assert_eq!(packet.orig_len, 2000);
            assert_eq!(packet.interface, 3);
            assert!(packet.bytes.iter().all(|&b| b == expected as u8));
            assert_eq!(packet.bytes.len(), 100 + (expected as usize * 7) % 1400);
            (at, expected, seen) = (previous, expected.wrapping_sub(1), seen + 1);
        }
        let bytes: u64 = (0..seen).map(|i| 140 + ((4999 - i) * 7) % 1400).sum();
        assert!(bytes > ring.size() * 9 / 10, "it forgets no earlier than it must: {bytes}");
    }

    #[test]
    fn nothing_is_remembered_at_link_zero() {
        assert!(Ring::new(1 << 20).get(0).is_none());
    }

    #[test]
    fn larger_than_a_part_of_the_ring_is_cut() {
        let mut ring = Ring::new(1 << 20);
        let link = ring.append(0, &stamp(1), &vec![7; 200_000]);
        let (packet, _) = ring.get(link).expect("just written");
        assert_eq!(packet.bytes.len(), ring.largest());
    }
}
