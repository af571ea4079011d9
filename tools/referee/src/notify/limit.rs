//! How often somebody is told: so many a minute, all at once if need be, and once a minute what was left out.
//!
//! Whoever tells asks, with its own clock; nothing here reads one.

use std::collections::BTreeMap;

const MINUTE_MS: u64 = 60_000;
/// Kinds told apart in what was left out.
const KINDS: usize = 50;

/// What was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub kinds: BTreeMap<String, u64>,
    /// Of kinds beyond those.
    pub others: u64,
}

impl LeftOut {
    fn count(&mut self, kind: &str) {
        if let Some(count) = self.kinds.get_mut(kind) {
            *count += 1;
        } else if self.kinds.len() < KINDS {
            self.kinds.insert(kind.to_owned(), 1);
        } else {
            self.others += 1;
        }
    }

    pub fn all(&self) -> u64 {
        self.kinds.values().sum::<u64>() + self.others
    }

    /// "17 more incidents were not told one by one (12 rst_after_idle, 5 dns_timeout)".
    pub fn words(&self) -> String {
        let mut kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| (*count, kind.as_str())).collect();
        kinds.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        let others = Some((self.others, "of other kinds")).filter(|(count, _)| *count > 0);
        let each: Vec<String> =
            kinds.into_iter().chain(others).map(|(count, kind)| format!("{count} {kind}")).collect();
        let (all, was) = (self.all(), if self.all() == 1 { "was" } else { "were" });
        let more = if all == 1 { "notice" } else { "notices" };
        format!("{all} more {more} {was} not told one by one ({})", each.join(", "))
    }
}

/// A bucket of tokens, one a notice, and what found it empty.
#[derive(Clone, Debug)]
pub struct Limit {
    /// 0 for none.
    per_minute: u64,
    /// In 60,000ths of a token.
    credit: u64,
    then_ms: u64,
    left: LeftOut,
    /// When the first of them was left out.
    since_ms: u64,
}

impl Limit {
    pub fn new(per_minute: u32) -> Limit {
        let per_minute = u64::from(per_minute);
        let credit = per_minute * MINUTE_MS;
        Limit { per_minute, credit, then_ms: 0, left: LeftOut::default(), since_ms: 0 }
    }

    /// Whether one of this kind may be told; if not, it is left out and counted.
    pub fn pass(&mut self, kind: &str, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.then_ms).saturating_mul(self.per_minute);
        self.credit = self.credit.saturating_add(earned).min(self.per_minute * MINUTE_MS);
        self.then_ms = self.then_ms.max(now_ms);
        if self.per_minute == 0 {
            return true;
        }
        if self.credit >= MINUTE_MS {
            self.credit -= MINUTE_MS;
            return true;
        }
        if self.left.all() == 0 {
            self.since_ms = now_ms;
        }
        self.left.count(kind);
        false
    }

    /// What was left out, once that is a minute ago, or at the end.
    pub fn left_out(&mut self, now_ms: u64, last: bool) -> Option<LeftOut> {
        let due = last || self.wait_ms(now_ms) == Some(0);
        (self.left.all() > 0 && due).then(|| std::mem::take(&mut self.left))
    }

    /// How long until there is something to say of what was left out.
    pub fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        (self.left.all() > 0).then(|| (self.since_ms + MINUTE_MS).saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_now_and_then() {
        let mut limit = Limit::new(3);
        let passed = |limit: &mut Limit, now| (0..5).filter(|_| limit.pass("a", now)).count();
        assert_eq!(passed(&mut limit, 1000), 3);
        assert_eq!(passed(&mut limit, 20_999), 0, "20 s earn one");
        assert_eq!(passed(&mut limit, 21_000), 1);
        assert_eq!(passed(&mut limit, 10_000_000), 3, "not more than a minute's are saved");
        assert_eq!(passed(&mut limit, 0), 0, "a clock that goes back earns nothing");
    }

    #[test]
    fn what_is_left_out_is_said_once_a_minute_and_at_the_end() {
        let mut limit = Limit::new(1);
        assert!(limit.pass("a", 0) && !limit.pass("b", 1) && !limit.pass("a", 2) && !limit.pass("b", 3));
        assert_eq!((limit.wait_ms(3), limit.left_out(59_999, false)), (Some(59_998), None));
        let left = limit.left_out(60_001, false).unwrap();
        assert_eq!(left.words(), "3 more notices were not told one by one (2 b, 1 a)");
        assert_eq!((limit.wait_ms(60_001), limit.left_out(60_001, true)), (None, None));
        assert!(limit.pass("a", 60_001) && !limit.pass("c", 60_002));
        let left = limit.left_out(60_003, true).unwrap();
        assert_eq!(left.words(), "1 more notice was not told one by one (1 c)");
    }

    #[test]
    fn no_limit_leaves_nothing_out_and_kinds_are_bounded() {
        let mut limit = Limit::new(0);
        assert!((0..10_000).all(|now| limit.pass("a", now)));
        let mut limit = Limit::new(1);
        let passed = (0..=200).filter(|n| limit.pass(&format!("{n:03}"), 0)).count();
        let left = limit.left_out(0, true).unwrap();
        assert_eq!((passed, left.kinds.len(), left.others, left.all()), (1, KINDS, 150, 200));
        assert!(left.words().ends_with(", 150 of other kinds)"), "{}", left.words());
    }
}
