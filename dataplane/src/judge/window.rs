//! Sliding windows of packet time over what hosts and services did: 1, 10 and 60 s, exact to 100 ms. Runs
//! on the judge's thread; the table is bounded, and what it lets go of while it still counted is counted.
//! The sums go to host and service guards.

use std::collections::VecDeque;
use std::hash::Hash;

use rules::facts::Counts;

use super::aged::Aged;
use super::sums::{accumulate, add, subtract};
use crate::source::Nanos;

/// Packet time in one bucket. Bucket `i` holds what happened from `i-1` up to, not including, `i` times
/// this; the tick at `i` times this ends it.
pub const BUCKET_NS: Nanos = 100_000_000;
/// The windows, in buckets: 1, 10 and 60 s.
pub const SPANS: [u64; 3] = [10, 100, 600];
pub const LONGEST: u64 = SPANS[2];
/// So far ahead of its turn an entry starts to be loaded: many are told of at the end of a second, none lately used.
pub const AHEAD: usize = 4;
/// Reports that wait to be taken in: few enough to stay in the cache.
const REPORTS: usize = 1024;
/// Room for so many buckets is made at once: most that act at all act again.
const FIRST_BUCKETS: usize = 8;

/// One of [`Counts`]'s fields, in the order in which they are taken for what a rule is about: the rarest,
/// most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Rsts,
    SynUnanswered,
    Refused,
    Unfinished,
    UnfinishedRepeated,
    Recovered,
    Syns,
    Established,
    Closed,
    Cuts,
    Refusals,
    ClientCuts,
    /// Read by no rule; goes with `Rsts`.
    FlowsReset,
}

impl Field {
    pub const ALL: [Field; 13] = [
        Field::Rsts,
        Field::SynUnanswered,
        Field::Refused,
        Field::Unfinished,
        Field::UnfinishedRepeated,
        Field::Recovered,
        Field::Syns,
        Field::Established,
        Field::Closed,
        Field::Cuts,
        Field::Refusals,
        Field::ClientCuts,
        Field::FlowsReset,
    ];

    pub const fn get(self, counts: &Counts) -> u32 {
        match self {
            Field::Rsts => counts.rsts,
            Field::SynUnanswered => counts.syn_unanswered,
            Field::Refused => counts.refused,
            Field::Syns => counts.syns,
            Field::Established => counts.established,
            Field::FlowsReset => counts.flows_reset,
            Field::Unfinished => counts.unfinished,
            Field::UnfinishedRepeated => counts.unfinished_repeated,
            Field::Recovered => counts.recovered,
            Field::Closed => counts.closed,
            Field::Cuts => counts.cuts,
            Field::Refusals => counts.refusals,
            Field::ClientCuts => counts.client_cuts,
        }
    }

    pub const fn get_mut(self, counts: &mut Counts) -> &mut u32 {
        match self {
            Field::Rsts => &mut counts.rsts,
            Field::SynUnanswered => &mut counts.syn_unanswered,
            Field::Refused => &mut counts.refused,
            Field::Syns => &mut counts.syns,
            Field::Established => &mut counts.established,
            Field::FlowsReset => &mut counts.flows_reset,
            Field::Unfinished => &mut counts.unfinished,
            Field::UnfinishedRepeated => &mut counts.unfinished_repeated,
            Field::Recovered => &mut counts.recovered,
            Field::Closed => &mut counts.closed,
            Field::Cuts => &mut counts.cuts,
            Field::Refusals => &mut counts.refusals,
            Field::ClientCuts => &mut counts.client_cuts,
        }
    }
}

/// One host's or service's buckets of the last 60 s; empty ones are not stored.
#[derive(Clone, Debug, Default)]
struct Track {
    buckets: VecDeque<(u64, Counts)>,
    sums: [Counts; 3],
    /// Where the 1-s and the 10-s window begin in `buckets`.
    starts: [usize; 2],
    /// Reported, but its tick has not come.
    pending: Counts,
    /// `pending` holds something.
    reported: bool,
    /// Unfinished handshakes within 1 s, by the bucket that second ended in: those that no later second of the last
    /// 60 has reached.
    peaks: VecDeque<(u64, u32)>,
}

impl Track {
    fn place(&mut self, bucket: u64, counts: Counts, now: u64) {
        let behind = self.buckets.back().is_some_and(|(index, _)| *index >= bucket);
        let at = match behind {
            true => self.buckets.partition_point(|(index, _)| *index < bucket),
            false => self.buckets.len(),
        };
        if self.buckets.capacity() == 0 {
            self.buckets.reserve(FIRST_BUCKETS);
        }
        let in_order = at + 1 >= self.buckets.len() && bucket == now;
        let before = match self.buckets.get_mut(at) {
            Some((index, there)) if *index == bucket => {
                let before = *there;
                accumulate(there, &counts);
                Some((before, *there))
            }
            None => {
                self.buckets.push_back((bucket, counts));
                None
            }
            Some(_) => {
                self.buckets.insert(at, (bucket, counts));
                None
            }
        };
        match before {
            _ if !in_order => self.rebuild(),
            Some((before, after)) => self.sums.iter_mut().for_each(|sums| {
                subtract(sums, &before);
                add(sums, &after);
            }),
            None => self.sums.iter_mut().for_each(|sums| add(sums, &counts)),
        }
        self.slide(now);
        self.peak(now);
    }

    /// Takes the second that ends now among the fullest ones.
    fn peak(&mut self, now: u64) {
        let unfinished = self.sums[0].unfinished;
        while self.peaks.pop_back_if(|(_, lower)| *lower <= unfinished).is_some() {}
        if unfinished > 0 {
            self.peaks.push_back((now, unfinished));
        }
        while self.peaks.pop_front_if(|(bucket, _)| *bucket + LONGEST < now + SPANS[0]).is_some() {}
    }

    /// Sums from nothing, for a report that belongs to a bucket already passed (a worker behind another).
    fn rebuild(&mut self) {
        let mut all = Counts::default();
        self.buckets.iter().for_each(|(_, counts)| add(&mut all, counts));
        self.sums = [all; 3];
        self.starts = [0; 2];
    }

    /// The sums as a rule sees them. A second that begins and ends within buckets lies in eleven of them: the oldest
    /// counts if its first RST and the newest bucket's last are no more than a second apart.
    fn told(&self, now: u64) -> [Counts; 3] {
        let mut told = self.sums;
        let of =
            |bucket: u64| self.buckets.iter().rev().take(SPANS[0] as usize + 1).find(|(at, _)| *at == bucket);
        let oldest = now.checked_sub(SPANS[0]).and_then(of);
        if let (Some((_, oldest)), Some((_, newest))) = (oldest, of(now))
            && oldest.rst_at[0] > 0
            && (1..=oldest.rst_at[0]).contains(&newest.rst_at[1])
        {
            for field in [Field::Rsts, Field::Cuts, Field::Refusals, Field::ClientCuts] {
                let sum = field.get_mut(&mut told[0]);
                *sum = sum.saturating_add(field.get(oldest));
            }
        }
        told
    }

    /// Starts loading the buckets that are looked at next.
    fn prefetch_buckets(&self) {
        let [second, ten] = self.starts;
        [0, ten, second, self.buckets.len().wrapping_sub(1)]
            .into_iter()
            .filter_map(|at| self.buckets.get(at))
            .for_each(dataplane_sys::prefetch);
    }

    fn slide(&mut self, now: u64) {
        for (window, span) in SPANS.into_iter().enumerate().take(2) {
            while let Some((index, counts)) = self.buckets.get(self.starts[window])
                && index + span <= now
            {
                subtract(&mut self.sums[window], counts);
                self.starts[window] += 1;
            }
        }
        while let Some((_, counts)) = self.buckets.pop_front_if(|(index, _)| *index + LONGEST <= now) {
            subtract(&mut self.sums[2], &counts);
            // What left the longest window had left the shorter ones in the loop above.
            self.starts.iter_mut().for_each(|start| *start -= 1);
        }
    }
}

/// What is kept of somebody beside the windows, in one place with them.
pub trait Beside: Default {
    /// What a report tells of it.
    type News: Copy;

    fn hear(&mut self, news: &Self::News, now: u64);

    /// It needs no entry any more.
    fn is_over(&mut self, _now: u64) -> bool {
        true
    }
}

impl Beside for () {
    type News = ();

    fn hear(&mut self, (): &(), _now: u64) {}
}

#[derive(Debug, Default)]
struct Kept<E> {
    track: Track,
    beside: E,
}

/// What was reported of whoever is at this place.
#[derive(Clone, Copy, Debug)]
struct Report<N> {
    at: u32,
    counts: Option<Counts>,
    news: N,
}

/// A bounded table of windows. When it is full, the entry reported longest ago goes.
#[derive(Debug)]
pub struct Windows<K, E: Beside = ()> {
    entries: Aged<K, Kept<E>>,
    /// Reports are taken in many at a time, so that each entry can be loaded before its turn.
    reports: Vec<Report<E::News>>,
    /// Where those are that were reported since the last tick.
    changed: Vec<u32>,
}

/// What is known of somebody at a tick.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Over [`SPANS`].
    pub sums: [Counts; 3],
    /// Most unfinished handshakes within one second of the last 60.
    pub unfinished_most: u32,
}

impl<K: Copy + Eq + Hash, E: Beside> Windows<K, E> {
    /// `limit`: entries, at least one.
    pub fn new(limit: usize) -> Windows<K, E> {
        Windows { entries: Aged::new(limit), reports: Vec::new(), changed: Vec::new() }
    }

    /// Entries let go of while they still counted.
    pub fn evicted(&self) -> u64 {
        self.entries.evicted
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a report whose tick is still to come; `now` is the last tick's bucket. Without counts the tick passes it
    /// over. It shows once [`Windows::take_in`] was called.
    pub fn report(&mut self, key: K, counts: Option<&Counts>, news: E::News, now: u64) {
        // In a full table, whoever comes may get the place of somebody reported.
        if self.reports.len() >= REPORTS || self.entries.is_full() {
            self.take_in(now);
        }
        let at = self.entries.place(key, now + 1);
        self.reports.push(Report { at, counts: counts.copied(), news });
    }

    /// Takes in what was reported; `now` as it was then.
    pub fn take_in(&mut self, now: u64) {
        for (n, Report { at, counts, news }) in self.reports.iter().enumerate() {
            if let Some(soon) = self.reports.get(n + AHEAD).and_then(|soon| self.entries.peek_at(soon.at)) {
                dataplane_sys::prefetch_all(soon);
            }
            let (_, _, Kept { track, beside }) = self.entries.at(*at);
            beside.hear(news, now);
            if let Some(counts) = counts {
                accumulate(&mut track.pending, counts);
                if !std::mem::replace(&mut track.reported, true) {
                    self.changed.push(*at);
                }
            }
        }
        self.reports.clear();
    }

    /// Something was reported that the next tick judges.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty() || self.reports.iter().any(|report| report.counts.is_some())
    }

    /// Ends bucket `bucket` for everything taken in since the last call; gives the keys to `each`, as they came.
    pub fn tick(&mut self, bucket: u64, now: u64, mut each: impl FnMut(K, Told, &mut E)) {
        for (n, &at) in self.changed.iter().enumerate() {
            if let Some(soon) = self.changed.get(n + AHEAD).and_then(|at| self.entries.peek_at(*at)) {
                soon.track.prefetch_buckets();
            }
            let (key, last, Kept { track, beside }) = self.entries.at(at);
            // An entry evicted and made again since is in the list twice; its report is taken once.
            if std::mem::take(&mut track.reported) {
                let counts = std::mem::take(&mut track.pending);
                track.place(bucket, counts, now);
                *last = bucket;
                let unfinished_most = track.peaks.front().map_or(0, |(_, most)| *most);
                each(key, Told { sums: track.told(now), unfinished_most }, beside);
            }
        }
        self.changed.clear();
        if let Some(before) = now.checked_sub(LONGEST) {
            self.entries.expire_unless(before, now, |kept| {
                kept.track.slide(now);
                !kept.beside.is_over(now)
            });
        }
    }

    /// The sums over [`SPANS`] as of the last report that came in.
    pub fn sums(&self, key: &K) -> Option<[Counts; 3]> {
        self.entries.get(key).map(|kept| kept.track.sums)
    }

    /// What is kept beside the windows of all there are, in no order that may show. Places that are free give the
    /// default.
    pub fn beside_all(&mut self) -> impl Iterator<Item = (&K, &mut E)> {
        self.entries.values_mut().map(|(key, kept)| (key, &mut kept.beside))
    }

    pub fn beside(&mut self, key: &K) -> Option<&mut E> {
        self.entries.peek_mut(key).map(|kept| &mut kept.beside)
    }

    /// Events of one kind in the buckets after `after`, and the first bucket that holds one.
    pub fn since(&self, key: &K, field: Field, after: u64) -> (u64, Option<u64>) {
        let Some(Kept { track, .. }) = self.entries.get(key) else { return (0, None) };
        let mut first = None;
        let mut count = 0;
        for (index, counts) in track.buckets.iter().filter(|(index, _)| *index > after) {
            let events = u64::from(field.get(counts));
            if events > 0 {
                first = first.or(Some(*index));
                count += events;
            }
        }
        (count, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsts(n: u32) -> Counts {
        Counts { rsts: n, ..Counts::default() }
    }

    fn told<E: Beside>(windows: &mut Windows<u8, E>, bucket: u64, now: u64) -> Vec<(u8, Told)> {
        let mut all = Vec::new();
        windows.tick(bucket, now, |key, told, _| all.push((key, told)));
        all
    }

    fn report<E: Beside<News: Default>>(windows: &mut Windows<u8, E>, key: u8, n: u32, now: u64) {
        windows.report(key, Some(&rsts(n)), E::News::default(), now);
        windows.take_in(now);
    }

    fn step(windows: &mut Windows<u8>, key: u8, n: u32, bucket: u64) -> [u32; 3] {
        report(windows, key, n, bucket.saturating_sub(1));
        let sums = told(windows, bucket, bucket);
        sums.iter().find(|(k, _)| *k == key).map(|(_, told)| told.sums.map(|c| c.rsts)).expect("it changed")
    }

    #[test]
    fn windows_are_exact_at_their_edges() {
        let mut windows: Windows<u8> = Windows::new(4);
        assert_eq!(step(&mut windows, 1, 5, 1000), [5, 5, 5]);
        assert_eq!(step(&mut windows, 1, 1, 1009), [6, 6, 6], "ten buckets: the first still counts");
        assert_eq!(step(&mut windows, 1, 1, 1010), [2, 7, 7], "the eleventh: it does not");
        assert_eq!(step(&mut windows, 1, 1, 1099), [1, 8, 8]);
        assert_eq!(step(&mut windows, 1, 1, 1100), [2, 4, 9]);
        assert_eq!(step(&mut windows, 1, 1, 1599), [1, 1, 10]);
        assert_eq!(step(&mut windows, 1, 1, 1600), [2, 2, 6]);
    }

    #[test]
    fn the_running_sums_equal_a_count_from_scratch() {
        let mut windows: Windows<u8> = Windows::new(4);
        let mut all: Vec<(u64, u32)> = Vec::new();
        let mut bucket = 7_u64;
        let mut seed = 1_u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bucket += 1 + (seed >> 60);
            let n = (seed >> 40) as u32 % 100;
            all.push((bucket, n));
            let got = step(&mut windows, 1, n, bucket);
            let expected =
                SPANS.map(|span| all.iter().filter(|(b, _)| b + span > bucket).map(|(_, n)| n).sum::<u32>());
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_fullest_second_is_remembered_for_a_minute() {
        let mut windows: Windows<u8> = Windows::new(4);
        let mut all: Vec<(u64, u32)> = Vec::new();
        let mut seed = 1_u64;
        let mut bucket = 1000;
        for _ in 0..1500 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bucket += 1 + (seed >> 61) * (seed >> 62);
            let unfinished = if seed >> 58 & 3 == 0 { (seed >> 40) as u32 % 60 } else { 1 };
            all.push((bucket, unfinished));
            windows.report(1, Some(&Counts { unfinished, ..Counts::default() }), (), bucket - 1);
            windows.take_in(bucket - 1);
            let most = told(&mut windows, bucket, bucket)[0].1.unfinished_most;
            let second =
                |end: u64| all.iter().filter(|(b, _)| *b <= end && b + 10 > end).map(|(_, n)| n).sum::<u32>();
            let expected = all.iter().filter(|(b, _)| b + 590 >= bucket).map(|(b, _)| second(*b)).max();
            assert_eq!(Some(most), expected);
        }
    }

    #[test]
    fn a_late_report_goes_where_it_belongs() {
        let mut windows: Windows<u8> = Windows::new(4);
        step(&mut windows, 1, 5, 100);
        step(&mut windows, 1, 2, 109);
        report(&mut windows, 1, 3, 109);
        assert_eq!(told(&mut windows, 101, 109)[0].1.sums.map(|c| c.rsts), [10, 10, 10]);
        assert_eq!(step(&mut windows, 1, 1, 110), [6, 11, 11]);
        assert_eq!(step(&mut windows, 1, 1, 111), [4, 12, 12]);
        report(&mut windows, 1, 3, 900);
        assert_eq!(told(&mut windows, 100, 900)[0].1.sums.map(|c| c.rsts), [0, 0, 0], "too old to count");
    }

    #[test]
    fn a_full_table_lets_the_stalest_go_and_counts_it() {
        let mut windows: Windows<u8> = Windows::new(2);
        step(&mut windows, 1, 1, 10);
        step(&mut windows, 2, 1, 11);
        step(&mut windows, 1, 1, 12);
        step(&mut windows, 3, 1, 13);
        assert_eq!(windows.evicted(), 1);
        assert_eq!(windows.since(&2, Field::Rsts, 0), (0, None));
        assert_eq!(windows.since(&1, Field::Rsts, 10), (1, Some(12)));
        assert!(told(&mut windows, 800, 800).is_empty());
        assert_eq!((windows.is_empty(), windows.evicted()), (true, 1), "what has gone quiet is no loss");
        for key in 0..100 {
            windows.report(key, Some(&rsts(1)), (), 800);
        }
        windows.take_in(800);
        assert_eq!(told(&mut windows, 801, 801).len(), 2, "what was evicted before its tick is not judged");
        assert_eq!(windows.evicted(), 99);
    }

    #[derive(Debug, Default)]
    struct Stays(bool);

    impl Beside for Stays {
        type News = bool;

        fn hear(&mut self, news: &bool, _now: u64) {
            self.0 = *news;
        }

        fn is_over(&mut self, _now: u64) -> bool {
            !self.0
        }
    }

    #[test]
    fn what_is_kept_beside_keeps_its_entry_and_no_other() {
        let mut windows: Windows<u8, Stays> = Windows::new(4);
        for key in 0..4 {
            windows.report(key, Some(&rsts(1)), key == 2, 10);
        }
        windows.take_in(10);
        told(&mut windows, 11, 11);
        told(&mut windows, 700, 700);
        assert_eq!([0, 1, 2, 3].map(|key| windows.beside(&key).is_some()), [false, false, true, false]);
        assert_eq!(windows.sums(&2).map(|sums| sums[2].rsts), Some(0), "its counts have gone all the same");
        windows.report(2, None, false, 700);
        windows.take_in(700);
        told(&mut windows, 1500, 1500);
        assert!(windows.is_empty() && windows.evicted() == 0);
    }
}
