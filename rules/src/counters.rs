//! What a rule has done so far, counted under its name: the numbers go on when a reload brings other text for it.
//!
//! Written by workers and the judge, read by whoever reports; every set that has a rule of this name shares them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What a rule has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCost {
    /// Times its condition was timed, and the ticks all of these took.
    pub samples: u64,
    pub ticks: u64,
    /// Runs of its body, and what all that were timed took, ns, and the longest.
    pub runs: u64,
    pub run_ns: u64,
    pub run_ns_most: u64,
    /// Runs that failed by a mistake in the body, and those that used up their operations, memory or time.
    pub errors: u64,
    pub overruns: u64,
}

/// Counts of one rule since the program began, and whether it is switched off.
#[derive(Debug, Default)]
pub struct RuleCounters {
    matched: AtomicU64,
    faults: AtomicU64,
    /// Its body kept failing: it matches nothing any more.
    off: AtomicBool,
    samples: AtomicU64,
    ticks: AtomicU64,
    runs: AtomicU64,
    run_ns: AtomicU64,
    run_ns_most: AtomicU64,
    errors: AtomicU64,
    overruns: AtomicU64,
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

    /// Its condition was timed.
    pub(crate) fn sample(&self, ticks: u64) {
        self.samples.fetch_add(1, Ordering::Relaxed);
        self.ticks.fetch_add(ticks, Ordering::Relaxed);
    }

    /// Its body ran; how long, if that was looked at.
    pub fn count_run(&self, took: Option<Duration>) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.run_ns.fetch_add(ns, Ordering::Relaxed);
            self.run_ns_most.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// That run failed; `overran` if by its deadline.
    pub fn count_failure(&self, overran: bool) {
        let which = if overran { &self.overruns } else { &self.errors };
        which.fetch_add(1, Ordering::Relaxed);
    }

    /// What the sampled questions took, and what runs did.
    pub fn cost(&self) -> RuleCost {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RuleCost {
            samples: of(&self.samples),
            ticks: of(&self.ticks),
            runs: of(&self.runs),
            run_ns: of(&self.run_ns),
            run_ns_most: of(&self.run_ns_most),
            errors: of(&self.errors),
            overruns: of(&self.overruns),
        }
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
