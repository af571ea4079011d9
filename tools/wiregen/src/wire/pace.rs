//! Waiting for a point in time: asleep for most of it, awake for the last of it, and never deaf to a stop.
//!
//! Runs on the sending thread and reads the clock; `send` and `flood` decide what is due when.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A sleeper is woken late by about this, once it asks for exact timers.
const AWAKE: Duration = Duration::from_micros(50);
/// Between two looks at the stop.
const NAP: Duration = Duration::from_millis(20);

/// Asks the kernel to wake this thread when it says, not up to 50 µs later to save power.
pub(super) fn exact_timers() {
    // A kernel that refuses makes the waiting less exact, not wrong.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Returns when `due` has come, or `false` as soon as `stop` is set.
pub(super) fn wait_until(due: Instant, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        match left.checked_sub(AWAKE) {
            Some(sleep) if !sleep.is_zero() => thread::sleep(sleep.min(NAP)),
            _ => std::hint::spin_loop(),
        }
    }
}

/// When the `count`th of things at this rate is due.
#[allow(clippy::cast_precision_loss, reason = "exact to far less than a ns for as long as anybody sends")]
pub(super) fn at_rate(start: Instant, count: u64, per_second: f64) -> Instant {
    after(start, count as f64 / per_second)
}

/// `seconds` later; a time that no clock reaches is a century.
pub(super) fn after(start: Instant, seconds: f64) -> Instant {
    const CENTURY: f64 = 100.0 * 365.0 * 86_400.0;
    start + Duration::from_secs_f64(seconds.clamp(0.0, CENTURY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_no_less_than_it_should_and_stops_when_told() {
        exact_timers();
        let stop = AtomicBool::new(false);
        let start = Instant::now();
        for micros in [0, 10, 60, 500, 30_000] {
            let due = start + Duration::from_micros(micros);
            assert!(wait_until(due, &stop));
            assert!(Instant::now() >= due);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(!wait_until(after(start, f64::MAX), &stop));
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_rate_spreads_things_evenly() {
        let start = Instant::now();
        assert_eq!(at_rate(start, 0, 3.0), start);
        assert_eq!(at_rate(start, 5, 1000.0), start + Duration::from_millis(5));
        assert!(at_rate(start, u64::MAX, 1e-9) > start);
    }
}
