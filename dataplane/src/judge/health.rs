//! How rules fare whose bodies fail: how often, how, and when that is enough to switch one off. Runs on the judge's
//! thread; only rules that failed once are remembered.

use std::time::Duration;

/// Runs looked back on.
const LOOKED_BACK: u32 = u64::BITS;
/// Runs in a row that used all of their operations or time.
const OVERRUNS: u32 = 3;

/// Why a rule was switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It failed so often in a row.
    InARow(u32),
    /// It used up its operations, memory or time, so often in a row.
    Overruns,
    /// More than half of its last runs failed.
    Half,
    /// Failing bodies together took too much time, and this one most of it.
    Time,
}

impl Cause {
    /// What comes after "it was switched off because".
    pub fn words(self) -> String {
        match self {
            Cause::InARow(failures) => format!("its body failed {failures} times in a row"),
            Cause::Overruns => format!("its body was stopped by its limits {OVERRUNS} times in a row"),
            Cause::Half => format!("more than half of its last {LOOKED_BACK} runs failed"),
            Cause::Time => "failing bodies held up all others, and its own took most of that time".to_owned(),
        }
    }
}

/// One rule's, since it first failed.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pub failures: u64,
    pub overruns: u64,
    /// Taken by runs that failed; live only.
    pub spent: Duration,
    in_a_row: u32,
    overruns_in_a_row: u32,
    /// Of the last runs, those that failed: one bit each, the latest lowest.
    last: u64,
}

impl Health {
    /// Its text has changed: what the old one did is counted still, and not held against it.
    pub fn starts_over(&mut self) {
        let Health { failures, overruns, .. } = *self;
        *self = Health { failures, overruns, ..Health::default() };
    }

    pub fn went_well(&mut self) {
        (self.in_a_row, self.overruns_in_a_row) = (0, 0);
        self.last <<= 1;
    }

    /// Counts a failure; the reason to switch the rule off, if it is one too many. `most`: in a row.
    pub fn failed(&mut self, overrun: bool, spent: Duration, most: u32) -> Option<Cause> {
        self.failures += 1;
        self.overruns += u64::from(overrun);
        self.spent = self.spent.saturating_add(spent);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.overruns_in_a_row = if overrun { self.overruns_in_a_row.saturating_add(1) } else { 0 };
        self.last = self.last << 1 | 1;
        if self.overruns_in_a_row >= OVERRUNS {
            Some(Cause::Overruns)
        } else if self.in_a_row >= most {
            Some(Cause::InARow(most))
        } else {
            (self.last.count_ones() > LOOKED_BACK / 2).then_some(Cause::Half)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    #[test]
    fn in_a_row() {
        let mut health = Health::default();
        (0..4).for_each(|_| assert_eq!(health.failed(false, NO_TIME, 5), None));
        health.went_well();
        (0..4).for_each(|_| assert_eq!(health.failed(false, NO_TIME, 5), None));
        assert_eq!(health.failed(false, NO_TIME, 5), Some(Cause::InARow(5)));
    }

    #[test]
    fn overruns() {
        let mut health = Health::default();
        assert_eq!(health.failed(true, NO_TIME, 20), None);
        assert_eq!(health.failed(true, NO_TIME, 20), None);
        assert_eq!(health.failed(false, NO_TIME, 20), None);
        assert_eq!(health.failed(true, NO_TIME, 20), None);
        health.went_well();
        assert_eq!(health.failed(true, NO_TIME, 20), None);
        assert_eq!(health.failed(true, NO_TIME, 20), None);
        assert_eq!(health.failed(true, NO_TIME, 20), Some(Cause::Overruns));
        assert_eq!((health.failures, health.overruns), (7, 6));
    }

    #[test]
    fn more_often_than_not() {
        let mut health = Health::default();
        let mut off = None;
        let runs = (0..1000).find(|run| {
            // Two of three.
            match run % 3 {
                0 => health.went_well(),
                _ => off = health.failed(false, NO_TIME, 20),
            }
            off.is_some()
        });
        assert_eq!((off, runs), (Some(Cause::Half), Some(49)));
        let mut health = Health::default();
        for run in 0..10_000 {
            match run % 2 {
                0 => health.went_well(),
                _ => {
                    assert_eq!(health.failed(false, NO_TIME, 20), None, "half of them is not more than half")
                }
            }
        }
    }
}
