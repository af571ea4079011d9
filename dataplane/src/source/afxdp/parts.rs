//! Packets that come in several frames, put together in memory taken at the start; it never grows, and what finds no
//! room in it is cut, which the packet's lengths say. Worker's thread; the queue hands them out with the others.

use crate::source::Nanos;

/// A packet whose last frame has not come yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    start: usize,
    ts: Nanos,
    /// Bytes that have come, also those there was no room for.
    came: usize,
}

/// A packet that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub start: usize,
    pub ts: Nanos,
    /// Bytes there are; fewer than came, if there was no room for all.
    pub len: usize,
    pub came: usize,
}

/// The packets of a batch that came in several frames; the last may be waiting for its end.
#[derive(Debug)]
pub(super) struct Parts {
    bytes: Vec<u8>,
    open: Option<Open>,
}

impl Parts {
    pub(super) fn with_room(bytes: usize) -> Parts {
        Parts { bytes: Vec::with_capacity(bytes), open: None }
    }

    /// The next frame belongs to a packet begun before.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Adds a frame; `ts` is asked for by a packet's first. The packet comes back with its last.
    #[cold]
    pub(super) fn add(&mut self, part: &[u8], ts: impl FnOnce() -> Nanos, continues: bool) -> Option<Whole> {
        let start = self.bytes.len();
        let mut open = self.open.unwrap_or_else(|| Open { start, ts: ts(), came: 0 });
        // Behind a part that found no room nothing may follow, though there be room again.
        if open.came == start - open.start {
            let room = self.bytes.capacity() - start;
            self.bytes.extend_from_slice(&part[..part.len().min(room)]);
        }
        open.came += part.len();
        self.open = continues.then_some(open);
        let Open { start, ts, came } = open;
        (!continues).then(|| Whole { start, ts, len: self.bytes.len() - start, came })
    }

    #[inline]
    pub(super) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.bytes.get(start..start + len).unwrap_or_default()
    }

    /// Forgets what is whole.
    #[inline]
    pub(super) fn release(&mut self) {
        if !self.bytes.is_empty() {
            let start = self.open.map_or(self.bytes.len(), |open| open.start);
            self.bytes.drain(..start);
            self.open = self.open.map(|open| Open { start: 0, ..open });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_become_a_packet_also_over_two_batches() {
        let mut parts = Parts::with_room(16);
        assert_eq!(parts.add(b"one", || 7, true), None);
        let whole = parts.add(b"two", || unreachable!(), false).unwrap();
        assert_eq!(whole, Whole { start: 0, ts: 7, len: 6, came: 6 });
        assert_eq!(parts.add(b"thr", || 8, true), None);
        assert_eq!(parts.bytes(whole.start, whole.len), b"onetwo");
        parts.release();
        assert!(parts.is_open());
        let whole = parts.add(b"ee", || unreachable!(), false).unwrap();
        assert_eq!((whole, parts.bytes(0, 5)), (Whole { start: 0, ts: 8, len: 5, came: 5 }, &b"three"[..]));
    }

    #[test]
    fn what_finds_no_room_is_cut_and_says_so() {
        let mut parts = Parts::with_room(8);
        let room = parts.bytes.capacity();
        let first = vec![1; room - 2];
        assert_eq!(parts.add(&first, || 1, false).map(|whole| whole.len), Some(room - 2));
        assert_eq!(parts.add(&[2; 5], || 2, true), None);
        // Its beginning is moved to the front: a part was left out, and what follows it must not close the gap.
        parts.release();
        let whole = parts.add(&[3; 4], || unreachable!(), false).unwrap();
        assert_eq!((whole.len, whole.came, parts.bytes(0, 2)), (2, 9, &[2, 2][..]));
        assert_eq!(parts.bytes.capacity(), room);
        parts.release();
        assert_eq!(parts.add(&[4; 4], || 3, false).map(|whole| (whole.len, whole.came)), Some((4, 4)));
    }
}
