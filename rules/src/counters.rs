//! What a rule has done so far, counted under its name: the numbers go on when a reload brings other text for it.
//!
//! Written by workers and the judge, read by whoever reports; every set that has a rule of this name shares them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts of one rule since the program began, and whether it is switched off.
#[derive(Debug, Default)]
pub struct RuleCounters {
    matched: AtomicU64,
    faults: AtomicU64,
    /// Its body kept failing: it matches nothing any more.
    off: AtomicBool,
}

impl RuleCounters {
    /// Its condition held for something that happened.
    #[inline]
    pub fn count_match(&self) {
        self.matched.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn switch(&self, off: bool) {
        self.off.store(off, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn count_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// How often its condition held: for a host, service or link rule, once a tick for each of them.
    pub fn matched(&self) -> u64 {
        self.matched.load(Ordering::Relaxed)
    }

    /// How often its condition overflowed or divided by zero, and so did not match.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}
