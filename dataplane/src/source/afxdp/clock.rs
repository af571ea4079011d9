//! The capture clock: CLOCK_MONOTONIC, which the XDP program stamps packets with, as UTC.
//!
//! The distance between the two is sampled on the main thread and read by workers as one number. It only ever
//! changes when somebody sets the host's clock, since both run at the same corrected rate.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::source::Nanos;

/// A change of the distance that is a clock being set, not the noise of sampling. Ns.
const STEP: u64 = 100_000;

/// Turns the kernel's monotonic time into UTC. Shared by main, which keeps it right, and workers, which read it.
#[derive(Debug)]
pub struct CaptureClock {
    /// Added to monotonic time, modulo 2^64.
    offset: AtomicU64,
    steps: AtomicU64,
}

impl CaptureClock {
    /// With the distance as it is now.
    pub fn sampled() -> CaptureClock {
        CaptureClock::with_offset(sample())
    }

    /// With a distance of the caller's making.
    pub fn with_offset(offset: u64) -> CaptureClock {
        CaptureClock { offset: AtomicU64::new(offset), steps: AtomicU64::new(0) }
    }

    /// UTC of a monotonic time.
    #[inline]
    pub fn utc(&self, monotonic: Nanos) -> Nanos {
        monotonic.wrapping_add(self.offset.load(Ordering::Relaxed))
    }

    /// UTC now, by the capture clock.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.utc(nanos(ClockId::Monotonic))
    }

    /// Looks whether somebody has set the host's clock, and follows it.
    pub fn follow(&self) {
        self.set(sample());
    }

    fn set(&self, offset: u64) {
        let before = self.offset.load(Ordering::Relaxed);
        if offset.wrapping_sub(before).cast_signed().unsigned_abs() > STEP {
            self.offset.store(offset, Ordering::Relaxed);
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often the host's clock was set while capturing.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

/// The best of several attempts: the one in which the least time passed between the two readings.
fn sample() -> u64 {
    let attempt = || {
        let before = nanos(ClockId::Monotonic);
        let utc = nanos(ClockId::Realtime);
        let after = nanos(ClockId::Monotonic);
        (after - before, utc.wrapping_sub(before + (after - before) / 2))
    };
    (0..16).map(|_| attempt()).min().map_or(0, |(_, offset)| offset)
}

fn nanos(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_distance_is_added() {
        let clock = CaptureClock::with_offset(37_000_000_000);
        assert_eq!(clock.utc(5), 37_000_000_005);
        let behind = CaptureClock::with_offset(3_u64.wrapping_neg());
        assert_eq!(behind.utc(5), 2);
    }

    #[test]
    fn it_is_followed_when_set_and_not_for_noise() {
        let clock = CaptureClock::with_offset(1_000_000);
        clock.set(1_000_000 + STEP);
        assert_eq!((clock.utc(0), clock.steps()), (1_000_000, 0));
        clock.set(0);
        assert_eq!((clock.utc(0), clock.steps()), (0, 1));
    }

    #[test]
    fn now_is_the_hosts_time() {
        let (before, now) = (nanos(ClockId::Realtime), CaptureClock::sampled().now());
        assert!(now.abs_diff(before) < 1_000_000_000, "{now} {before}");
    }
}
