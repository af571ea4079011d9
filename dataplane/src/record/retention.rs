//! What is on the shelf: the segments of a store and their sizes, worker by worker, and which must go.
//!
//! Runs on the writer's thread; only counts, the writer deletes. A segment's place is that of the newest name up to
//! it: a lead-up may bring a handshake that is hours old into a new segment, and its name then says so.

use std::collections::BTreeMap;

use crate::source::Nanos;

use super::segment::SegmentName;

/// All segments of a store, those being written included.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    workers: BTreeMap<u16, Row>,
    total: u64,
}

/// One worker's segments in the order they were written.
#[derive(Debug, Default)]
struct Row {
    /// By sequence number; the time tells copies of one number apart.
    kept: BTreeMap<(u64, Nanos), Kept>,
    /// The newest name so far, of deleted segments too.
    newest: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    /// When it was begun: never before the segments that precede it.
    begun: Nanos,
    bytes: u64,
}

/// A segment that must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) segment: SegmentName,
    pub(super) bytes: u64,
}

impl Shelf {
    /// Takes stock of a folder; files that are not segments are left alone.
    pub(super) fn new(files: &[(String, u64)]) -> Shelf {
        let mut segments: Vec<(SegmentName, u64)> =
            files.iter().filter_map(|(name, size)| Some((SegmentName::parse(name)?, *size))).collect();
        segments.sort_unstable_by_key(|(name, _)| (name.worker, name.sequence, name.first_ns));
        let mut shelf = Shelf::default();
        for (name, size) in segments {
            shelf.set(name, size);
        }
        shelf
    }

    /// A segment now has this many bytes. New ones come in the order they are written.
    pub(super) fn set(&mut self, name: SegmentName, bytes: u64) {
        let row = self.workers.entry(name.worker).or_default();
        row.newest = row.newest.max(name.first_ns);
        let new = Kept { begun: row.newest, bytes: 0 };
        let kept = row.kept.entry((name.sequence, name.first_ns)).or_insert(new);
        self.total = self.total.saturating_sub(kept.bytes).saturating_add(bytes);
        kept.bytes = bytes;
    }

    pub(super) fn forget(&mut self, name: SegmentName) {
        if let Some(row) = self.workers.get_mut(&name.worker)
            && let Some(kept) = row.kept.remove(&(name.sequence, name.first_ns))
        {
            self.total = self.total.saturating_sub(kept.bytes);
        }
    }

    /// The oldest segment that is not `open`, if all together exceed `limit` bytes.
    pub(super) fn surplus(&self, limit: u64, open: impl Fn(SegmentName) -> bool) -> Option<Doomed> {
        if self.total <= limit {
            return None;
        }
        let first_closed = |(worker, row): (&u16, &Row)| {
            row.kept
                .iter()
                .map(|(key, kept)| named(*worker, *key, *kept))
                .find(|(_, doomed)| !open(doomed.segment))
        };
        let oldest = self.workers.iter().filter_map(first_closed);
        oldest.min_by_key(|(begun, doomed)| (*begun, doomed.segment.sequence)).map(|(_, doomed)| doomed)
    }

    /// A segment that is not `open` and ended before `horizon`. It ended when the next was begun, or `longest` after it
    /// was begun itself.
    pub(super) fn outdated(
        &self,
        horizon: Nanos,
        longest: Nanos,
        open: impl Fn(SegmentName) -> bool,
    ) -> Option<Doomed> {
        self.workers.iter().find_map(|(worker, row)| {
            let mut segments = row.kept.iter();
            let (key, kept) = segments.next()?;
            let next = segments.next().map_or(Nanos::MAX, |(_, next)| next.begun);
            let ended = kept.begun.saturating_add(longest).min(next);
            let (_, doomed) = named(*worker, *key, *kept);
            (ended < horizon && !open(doomed.segment)).then_some(doomed)
        })
    }
}

fn named(worker: u16, (sequence, first_ns): (u64, Nanos), kept: Kept) -> (Nanos, Doomed) {
    (kept.begun, Doomed { segment: SegmentName { worker, first_ns, sequence }, bytes: kept.bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(worker: u16, first_ns: Nanos, sequence: u64) -> SegmentName {
        SegmentName { worker, first_ns, sequence }
    }

    fn shelf(segments: &[SegmentName]) -> Shelf {
        let files: Vec<_> = segments.iter().rev().map(|name| (name.to_string(), 10)).collect();
        Shelf::new(&files)
    }

    fn order(mut shelf: Shelf) -> Vec<SegmentName> {
        let mut gone = Vec::new();
        while let Some(doomed) = shelf.surplus(0, |_| false) {
            shelf.forget(doomed.segment);
            gone.push(doomed.segment);
        }
        assert_eq!(shelf.total, 0);
        gone
    }

    #[test]
    fn an_old_handshake_makes_no_segment_old() {
        let segments = [name(0, 1000, 0), name(0, 2000, 1), name(0, 3, 2), name(0, 2500, 3)];
        assert_eq!(order(shelf(&segments)), segments);
        // The same when they come one by one.
        let mut grown = Shelf::default();
        segments.iter().for_each(|segment| grown.set(*segment, 10));
        assert_eq!(order(grown), segments);
    }

    #[test]
    fn workers_take_turns_by_time() {
        let segments = [name(0, 100, 7), name(1, 150, 0), name(0, 200, 8), name(1, 40, 1), name(0, 300, 9)];
        assert_eq!(
            order(shelf(&segments)),
            [segments[0], segments[3 - 2], segments[3], segments[2], segments[4]]
        );
    }

    #[test]
    fn the_open_one_stays_and_a_growing_one_counts_once() {
        let mut shelf = shelf(&[name(0, 1, 0), name(0, 2, 1)]);
        shelf.set(name(0, 1, 0), 25);
        assert_eq!(shelf.total, 35);
        assert_eq!(shelf.surplus(35, |_| false), None);
        let doomed = shelf.surplus(34, |segment| segment.sequence == 0).unwrap();
        assert_eq!(doomed, Doomed { segment: name(0, 2, 1), bytes: 10 });
        assert_eq!(shelf.surplus(34, |_| true), None);
    }

    #[test]
    fn age_counts_from_a_segments_end() {
        let shelf = shelf(&[name(0, 100, 0), name(0, 200, 1), name(1, 500, 0)]);
        let outdated = |horizon| shelf.outdated(horizon, 60, |_| false).map(|doomed| doomed.segment);
        assert_eq!(outdated(160), None);
        assert_eq!(outdated(161), Some(name(0, 100, 0)), "its own end is before the next begins");
        assert_eq!(shelf.outdated(1000, 60, |s| s.worker == 0).map(|d| d.segment), Some(name(1, 500, 0)));
        let busy = Shelf::new(&[(name(0, 100, 0).to_string(), 1), (name(0, 110, 1).to_string(), 1)]);
        let gone = busy.outdated(111, 60, |_| false).map(|d| d.segment);
        assert_eq!(gone, Some(name(0, 100, 0)), "it ended when the next began");
        assert_eq!(busy.outdated(110, 60, |_| false), None);
    }
}
