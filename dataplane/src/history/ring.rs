//! The history ring: a byte ring of packets, each with the position of its flow's previous one. Worker's
//! thread; never allocates after start. Positions only rise; the byte at position `p` is `ring[p % size]`.
//!
//! A record never wraps: what doesn't fit before the end starts at the beginning, and the rest is skipped. Chains lead
//! back through one flow; whoever wants all packets goes through them forwards, from the beginning of an epoch.

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
/// Stands where a record's previous position would: the ring goes on at its beginning.
const SKIPPED: u64 = u64::MAX;

/// What is at a position, for whoever goes forwards.
#[derive(Clone, Copy, Debug)]
pub enum Ahead<'a> {
    /// A packet, and the position after it.
    Packet(Remembered<'a>, u64),
    /// Nothing yet.
    End,
    /// What was there is overwritten.
    Overtaken,
}

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
    /// Position of it.
    starts: [u64; EPOCHS as usize],
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
            starts: [0; EPOCHS as usize],
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
            self.skip_end();
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

    /// Goes on at the beginning. Positions are multiples of [`ALIGN`], so that the mark has room if anything has.
    #[cold]
    fn skip_end(&mut self) {
        if let Some(word) = self.bytes[self.offset..].first_chunk_mut() {
            *word = SKIPPED.to_le_bytes();
        }
        self.head += (self.bytes.len() - self.offset) as u64;
        self.offset = 0;
    }

    #[cold]
    fn begin_epoch(&mut self, at: u64, ts: Nanos) {
        self.epoch = at / self.epoch_bytes();
        self.next_epoch = (self.epoch + 1) * self.epoch_bytes();
        let place = (self.epoch % EPOCHS) as usize;
        (self.marks[place], self.starts[place]) = (ts, at);
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

    /// Positions from which to go forwards: of the first record of each epoch that is still there whole, oldest first,
    /// with that record's time.
    fn beginnings(&self) -> impl Iterator<Item = (u64, Nanos)> {
        let begun = if self.head == 0 { 0 } else { self.epoch + 1 };
        (begun.saturating_sub(EPOCHS)..begun)
            .map(|epoch| (epoch % EPOCHS) as usize)
            .map(|place| (self.starts[place], self.marks[place]))
            .filter(|(start, _)| self.holds(start + 1))
    }

    /// Where to begin so as to meet every packet not before `since` that is still there: an epoch's beginning, or the end
    /// if there is nothing at all. Packets may be as much as `disorder` out of their order.
    pub fn beginning(&self, since: Nanos, disorder: Nanos) -> u64 {
        let before = since.saturating_sub(disorder);
        let mut beginnings = self.beginnings();
        let oldest = beginnings.next().map_or(self.head, |(start, _)| start);
        beginnings.take_while(|(_, ts)| *ts < before).last().map_or(oldest, |(start, _)| start)
    }

    /// What is at a position that this gave, or [`Ring::beginning`], or [`Ring::written`].
    #[inline]
    pub fn ahead(&self, at: u64) -> Ahead<'_> {
        if at >= self.head {
            return Ahead::End;
        }
        let start = at % self.size;
        if self.holds(at + 1) && self.bytes[start as usize..].starts_with(&SKIPPED.to_le_bytes()) {
            return self.ahead(at + self.size - start);
        }
        match self.get(at + 1) {
            Some((packet, _)) => {
                let after = at + ((HEADER + packet.bytes.len()) as u64).next_multiple_of(ALIGN);
                Ahead::Packet(packet, after)
            }
            None => Ahead::Overtaken,
        }
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

    /// How far back the ring reaches at `now`, ns: the age of its oldest whole sixteenth. `None` before the first packet.
    pub fn horizon(&self, now: Nanos) -> Option<Nanos> {
        let oldest = if self.epoch + 1 < EPOCHS { 0 } else { self.epoch + 1 - (EPOCHS - 1) };
        (self.head > 0).then(|| now.saturating_sub(self.marks[(oldest % EPOCHS) as usize]))
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

    /// Numbers met from `at` on, and whether that ended at the ring's end.
    fn numbers(ring: &Ring, mut at: u64) -> (Vec<u64>, bool) {
        let mut met = Vec::new();
        loop {
            match ring.ahead(at) {
                Ahead::Packet(packet, after) => {
                    assert!(
                        packet.bytes.iter().all(|&byte| byte == packet.number as u8),
                        "{}",
                        packet.number
                    );
                    met.push(packet.number);
                    at = after;
                }
                Ahead::End => return (met, true),
                Ahead::Overtaken => return (met, false),
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]

        /// Packets of any size, up to those that fill an epoch, over several laps.
        #[test]
        fn forwards_it_has_what_it_holds_in_order(
            sizes in proptest::collection::vec(0_usize..4, 50..500),
            seed in 0_u64..1000,
        ) {
            let mut ring = Ring::new(1 << 20);
            let largest = ring.largest();
            let mut links = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let dice = (number as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let len = match size {
                    0 => dice as usize % 60,
                    1 => dice as usize % 1500,
                    2 => dice as usize % largest,
                    _ => largest - dice as usize % 16,
                };
                // Chains lead back as ever, whatever was skipped.
                let previous = links.last().copied().unwrap_or(0);
                links.push(ring.append(previous, &stamp(number as u64), &vec![number as u8; len]));
            }
            let all: Vec<u64> = (0..sizes.len() as u64).collect();
            // From any packet that is held, all after it; from others, word that they are gone.
            for (number, link) in links.iter().enumerate().step_by(5) {
                let (met, whole) = numbers(&ring, link - 1);
                if ring.holds(*link) {
                    proptest::prop_assert!(whole);
                    proptest::prop_assert_eq!(&met[..], &all[number..]);
                } else {
                    proptest::prop_assert!(!whole && met.is_empty());
                }
            }
            // From a beginning, all since then that are held whole epochs long.
            for (number, link) in links.iter().enumerate().step_by(5) {
                let since = stamp(number as u64).ts;
                let (met, whole) = numbers(&ring, ring.beginning(since, 0));
                proptest::prop_assert!(whole);
                let held = met.first().is_some_and(|first| *first <= number as u64);
                proptest::prop_assert!(held || !ring.holds(link.saturating_sub(2 * ring.epoch_bytes()).max(1)));
                proptest::prop_assert_eq!(&met[..], &all[all.len() - met.len()..]);
            }
        }
    }

    #[test]
    fn before_the_first_packet_history_reaches_nowhere() {
        let mut ring = Ring::new(1 << 20);
        assert_eq!(ring.horizon(1_700_000_000_000_000_000), None);
        ring.append(0, &stamp(7), &[0; 60]);
        assert_eq!(ring.horizon(9000), Some(2000));
    }

    #[test]
    fn a_beginning_leaves_room_for_disorder_and_is_the_end_if_there_is_nothing() {
        let mut ring = Ring::new(1 << 20);
        assert_eq!((ring.beginning(7, 0), numbers(&ring, 0)), (0, (vec![], true)));
        for number in 0..1000 {
            ring.append(0, &stamp(number), &[number as u8; 600]);
        }
        let first = |since, disorder| numbers(&ring, ring.beginning(since, disorder)).0[0];
        assert_eq!(first(0, 0), 0);
        let later = first(900_000, 0);
        assert!((700..=900).contains(&later), "{later}");
        assert_eq!(first(1_000_000, 100_000), later);
        assert!(first(u64::MAX, 0) > later);
    }
}
