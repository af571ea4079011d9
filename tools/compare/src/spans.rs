//! Parts of a direction's sequence space, merged, and numbers that go on counting where 32 bits wrap.
//! Plain values.

/// Turns sequence numbers into positions, each taken as near as can be to the one before.
#[derive(Clone, Copy, Debug)]
pub struct Unwrap {
    last: u32,
    at: i64,
}

impl Unwrap {
    /// `base` is position 0.
    pub fn new(base: u32) -> Unwrap {
        Unwrap { last: base, at: 0 }
    }

    pub fn position(&mut self, seq: u32) -> i64 {
        self.at += i64::from(seq.wrapping_sub(self.last) as i32);
        self.last = seq;
        self.at
    }
}

/// Disjoint half-open ranges, ascending.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<(i64, i64)>);

impl Spans {
    pub fn new(mut parts: Vec<(i64, i64)>) -> Spans {
        parts.retain(|(from, to)| from < to);
        parts.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for (from, to) in parts {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Spans(merged)
    }

    fn at(&self, position: i64) -> Option<&(i64, i64)> {
        self.0.get(self.0.partition_point(|(_, to)| *to <= position))
    }

    /// All of `from..to` is in it.
    pub fn covers(&self, from: i64, to: i64) -> bool {
        from < to && self.at(from).is_some_and(|span| span.0 <= from && to <= span.1)
    }

    /// How much of `from..to` is in it.
    pub fn within(&self, from: i64, to: i64) -> i64 {
        let at = self.0.partition_point(|(_, end)| *end <= from);
        let parts = self.0.iter().skip(at).take_while(|(begin, _)| *begin < to);
        parts.map(|(begin, end)| to.min(*end) - from.max(*begin)).sum()
    }

    pub fn start(&self) -> Option<i64> {
        self.0.first().map(|(from, _)| *from)
    }

    pub fn end(&self) -> Option<i64> {
        self.0.last().map(|(_, to)| *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_merge_and_cover() {
        let spans = Spans::new(vec![(10, 20), (0, 5), (5, 7), (15, 30), (40, 40)]);
        assert!(spans.covers(0, 7) && spans.covers(12, 30) && spans.covers(3, 4));
        assert!(
            !spans.covers(6, 11) && !spans.covers(29, 31) && !spans.covers(40, 41) && !spans.covers(1, 1)
        );
        assert_eq!([spans.within(2, 12), spans.within(7, 10), spans.within(29, 90)], [7, 0, 1]);
        assert_eq!((spans.end(), Spans::default().end()), (Some(30), None));
    }

    #[test]
    fn positions_count_on() {
        let mut unwrap = Unwrap::new(u32::MAX - 1);
        let all = [u32::MAX - 1, 1, 0x8000_0000, 0x7fff_0000].map(|seq| unwrap.position(seq));
        assert_eq!(all, [0, 3, 0x8000_0002, 0x7fff_0002]);
    }
}
