//! A network card's clock as UTC: where it stands and how fast it runs, found on the main thread by reading it beside the
//! host's clock, and used by workers for each packet the card stamped.
//!
//! A card's clock counts for itself: from when it was powered up, or TAI, or UTC, a little too fast or too slow. All that
//! is needed of it is that it counts evenly.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use dataplane_sys::ptp::{Beside, Clock};

use crate::source::Nanos;

/// Marks a stamp as one of the card's clock.
pub const BY_NIC: u64 = xdp_prog::abi::STAMP_BY_NIC;

/// A difference from what was expected that is a clock being set, not the noise of reading it. Ns.
const STEP: u64 = 100_000;
/// Readings of which the best is taken.
const READINGS: usize = 5;
/// Samples kept to measure the rate by.
const SAMPLES: usize = 16;
/// The shortest time to measure a rate over. Ns.
const BASELINE: u64 = 900_000_000;
/// Crystals are better than this: 1,000 ppm, in 2^-32.
const WORST_RATE: i64 = (1 << 32) / 1000;
/// Anchors, of which workers read the latest while main writes the next.
const ANCHORS: usize = 8;

/// The card's clock and UTC in one moment. Ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sample {
    card: u64,
    utc: Nanos,
}

/// A moment, and the rate from there on: ns of UTC more than of the card, a ns of the card, in 2^-32.
#[derive(Debug, Default)]
struct Anchor {
    card: AtomicU64,
    utc: AtomicU64,
    rate: AtomicI64,
}

/// Turns the card's time into UTC. Shared by main, which keeps it right, and workers, which read it.
#[derive(Debug, Default)]
pub struct NicClock {
    anchors: [Anchor; ANCHORS],
    /// How many anchors were set; the last is the one that holds.
    set: AtomicU64,
    steps: AtomicU64,
}

impl NicClock {
    /// UTC of a time of the card's. Waits for nobody; reads again in the case that main set all other anchors meanwhile.
    #[inline]
    pub fn utc(&self, card: u64) -> Nanos {
        loop {
            let before = self.set.load(Ordering::Acquire);
            let anchor = &self.anchors[before as usize % ANCHORS];
            let base =
                Sample { card: anchor.card.load(Ordering::Relaxed), utc: anchor.utc.load(Ordering::Relaxed) };
            let rate = anchor.rate.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if self.set.load(Ordering::Relaxed).wrapping_sub(before) < ANCHORS as u64 - 1 {
                return convert(base, rate, card);
            }
        }
    }

    fn anchor(&self, at: Sample, rate: i64) {
        let next = self.set.load(Ordering::Relaxed).wrapping_add(1);
        let anchor = &self.anchors[next as usize % ANCHORS];
        anchor.card.store(at.card, Ordering::Relaxed);
        anchor.utc.store(at.utc, Ordering::Relaxed);
        anchor.rate.store(rate, Ordering::Relaxed);
        self.set.store(next, Ordering::Release);
    }

    /// How often the card's clock or the host's was set while capturing.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

fn convert(base: Sample, rate: i64, card: u64) -> Nanos {
    let passed = card.wrapping_sub(base.card).cast_signed();
    let gained = ((i128::from(passed) * i128::from(rate)) >> 32) as i64;
    base.utc.wrapping_add_signed(passed).wrapping_add_signed(gained)
}

/// The reading in which the least time passed on the host; UTC is the middle of it.
fn best(readings: &[Beside]) -> Option<Sample> {
    let best = readings.iter().min_by_key(|reading| reading.after.wrapping_sub(reading.before))?;
    let utc = best.before.wrapping_add(best.after.wrapping_sub(best.before) / 2);
    Some(Sample { card: best.card, utc })
}

/// Follows a card's clock. Main thread.
#[derive(Debug)]
pub struct Follower {
    clock: Clock,
    samples: VecDeque<Sample>,
    shared: Arc<NicClock>,
}

impl Follower {
    /// Opens `/dev/ptpN` and reads it for the first time.
    ///
    /// # Errors
    /// Those of opening and reading it.
    pub fn open(number: u32) -> io::Result<Follower> {
        let shared = Arc::new(NicClock::default());
        let mut follower = Follower { clock: Clock::open(number)?, samples: VecDeque::new(), shared };
        follower.read()?;
        Ok(follower)
    }

    pub fn shared(&self) -> &Arc<NicClock> {
        &self.shared
    }

    /// Reads both clocks and goes on from there.
    ///
    /// # Errors
    /// Those of reading it. What was known holds on.
    pub fn read(&mut self) -> io::Result<()> {
        if let Some(sample) = best(&self.clock.beside_utc(READINGS)?) {
            learn(&mut self.samples, &self.shared, sample);
        }
        Ok(())
    }
}

fn learn(samples: &mut VecDeque<Sample>, shared: &NicClock, now: Sample) {
    // The rate is not known before the second sample: until then the clocks part as they like.
    if samples.len() > 1 && shared.utc(now.card).abs_diff(now.utc) > STEP {
        samples.clear();
        shared.steps.fetch_add(1, Ordering::Relaxed);
    }
    if samples.len() == SAMPLES {
        samples.pop_front();
    }
    samples.push_back(now);
    let rate = samples.front().map_or(0, |first| rate(*first, now));
    shared.anchor(now, rate);
}

/// What UTC gains on the card, in 2^-32; 0 if too little time has passed to tell.
fn rate(from: Sample, to: Sample) -> i64 {
    let card = to.card.wrapping_sub(from.card);
    if !(BASELINE..1 << 40).contains(&card) {
        return 0;
    }
    let gained = to.utc.wrapping_sub(from.utc).wrapping_sub(card).cast_signed();
    let rate = (i128::from(gained) << 32) / i128::from(card);
    rate.clamp(-i128::from(WORST_RATE), i128::from(WORST_RATE)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_790_000_000 * SECOND;

    /// A card that shows `utc` as so much more, and runs so many ppb too fast.
    fn sample(utc: Nanos, ahead: i64, ppb: u64) -> Sample {
        let fast = (utc - NOW) / SECOND * ppb;
        Sample { card: utc.wrapping_add_signed(ahead) + fast, utc }
    }

    fn follow(samples: impl IntoIterator<Item = Sample>) -> NicClock {
        let (mut kept, shared) = (VecDeque::new(), NicClock::default());
        samples.into_iter().for_each(|sample| learn(&mut kept, &shared, sample));
        shared
    }

    #[test]
    fn tai_becomes_utc_whoever_knows_of_its_seconds() {
        let tai = 37 * SECOND as i64;
        let clock = follow([sample(NOW, tai, 0)]);
        assert_eq!(clock.utc(NOW + 37 * SECOND + 5), NOW + 5);
        assert_eq!(clock.utc(NOW + 37 * SECOND - 5), NOW - 5, "a packet from before the sample");
    }

    #[test]
    fn a_clock_that_counts_from_its_power_up_becomes_utc() {
        let clock = follow([Sample { card: 12 * SECOND, utc: NOW }]);
        assert_eq!(clock.utc(13 * SECOND), NOW + SECOND);
        assert_eq!(clock.utc(0), NOW - 12 * SECOND);
    }

    #[test]
    fn a_clock_that_runs_too_fast_is_followed() {
        let seconds = |n: u64| sample(NOW + n * SECOND, 0, 40_000);
        let clock = follow((0..20).map(seconds));
        assert_eq!(clock.steps(), 0);
        // Half a second after the last sample, by a card that is 40 ppm fast.
        let card = seconds(19).card + SECOND / 2 + 20_000;
        let utc = clock.utc(card);
        assert!(utc.abs_diff(NOW + 19 * SECOND + SECOND / 2) <= 2, "{utc}");
    }

    #[test]
    fn the_first_second_is_no_step_and_a_clock_that_is_set_is_one() {
        let seconds = |n: u64| sample(NOW + n * SECOND, 0, 300_000);
        let mut kept = VecDeque::new();
        let shared = NicClock::default();
        (0..5).for_each(|n| learn(&mut kept, &shared, seconds(n)));
        assert_eq!(shared.steps(), 0);
        let set = Sample { card: seconds(5).card + 3 * SECOND, ..seconds(5) };
        learn(&mut kept, &shared, set);
        assert_eq!((shared.steps(), shared.utc(set.card), kept.len()), (1, set.utc, 1));
    }

    #[test]
    fn of_several_readings_the_shortest_is_believed() {
        let readings = [
            Beside { before: 1000, card: 77, after: 9000 },
            Beside { before: 10_000, card: 100, after: 10_040 },
            Beside { before: 20_000, card: 200, after: 20_400 },
        ];
        assert_eq!(best(&readings), Some(Sample { card: 100, utc: 10_020 }));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn nonsense_gives_a_time_and_no_panic() {
        let clock = follow([Sample { card: u64::MAX, utc: 0 }, Sample { card: 0, utc: u64::MAX }]);
        for card in [0, 1, u64::MAX / 2, u64::MAX] {
            clock.utc(card);
        }
        assert_eq!(rate(Sample { card: 0, utc: 0 }, Sample { card: SECOND, utc: u64::MAX / 2 }), WORST_RATE);
    }
}
