//! Figures of the last hour by second and of the last day by minute, for plots.
//!
//! Main pushes one sample a second, readers copy; memory is fixed: 3,600 + 1,440 samples of half a KiB.

use std::collections::VecDeque;

use dataplane::source::Nanos;
use serde::Serialize;

use super::spread::Spreads;

const SECONDS: usize = 3600;
const MINUTES: usize = 1440;
const SECOND: u64 = 1_000_000_000;

/// What happened in one step. Counters are what was added in it; gauges what stood at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// End of the step, ns since the epoch.
    pub at_ns: Nanos,
    /// Steps of a second that are in it.
    pub seconds: u32,
    /// Packets and bytes that interfaces saw.
    pub packets: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub filtered: u64,
    /// Packets kept, and those of them that were not written.
    pub kept: u64,
    pub unwritten: u64,
    pub flows_created: u64,
    /// Segments sent again, as events of flows counted by workers, and flows that ended in a reset.
    pub events: u64,
    pub hits: u64,
    pub incidents: u64,
    /// Gauges: flows now, incidents open now, how far back the shortest history reaches (s).
    pub flows: u64,
    pub open: u64,
    pub history_s: f32,
    /// How long things took that ended in it.
    pub latency: Spreads,
}

impl Sample {
    /// Two neighbouring steps as one.
    fn join(self, later: Sample) -> Sample {
        Sample {
            seconds: self.seconds + later.seconds,
            packets: self.packets + later.packets,
            bytes: self.bytes + later.bytes,
            dropped: self.dropped + later.dropped,
            filtered: self.filtered + later.filtered,
            kept: self.kept + later.kept,
            unwritten: self.unwritten + later.unwritten,
            flows_created: self.flows_created + later.flows_created,
            events: self.events + later.events,
            hits: self.hits + later.hits,
            incidents: self.incidents + later.incidents,
            latency: self.latency.join(later.latency),
            ..later
        }
    }
}

/// The samples of a run.
#[derive(Debug, Default)]
pub struct Series {
    seconds: VecDeque<Sample>,
    minutes: VecDeque<Sample>,
    /// The minute that is not over.
    minute: Option<Sample>,
}

impl Series {
    pub fn push(&mut self, sample: Sample) {
        push(&mut self.seconds, sample, SECONDS);
        let minute = match self.minute.take() {
            Some(minute) => minute.join(sample),
            None => sample,
        };
        match minute.seconds < 60 {
            true => self.minute = Some(minute),
            false => push(&mut self.minutes, minute, MINUTES),
        }
    }

    /// Samples that end after `since`, in steps of 1, 10 or 60 s; oldest first. Steps begin anew every `step` seconds of
    /// the epoch, the last may not be over.
    pub fn read(&self, since: Nanos, step: u32) -> Vec<Sample> {
        let newer = |sample: &&Sample| sample.at_ns > since;
        if step >= 60 {
            return self.minutes.iter().chain(&self.minute).filter(newer).copied().collect();
        }
        let width = u64::from(step.max(1)) * SECOND;
        let mut steps: Vec<Sample> = Vec::new();
        for sample in self.seconds.iter().filter(newer) {
            match steps.last_mut() {
                Some(last) if step > 1 && last.at_ns / width == sample.at_ns / width => {
                    *last = last.join(*sample);
                }
                _ => steps.push(*sample),
            }
        }
        steps
    }
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample, most: usize) {
    if samples.len() == most {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use dataplane::latency::Latency;

    use super::*;

    fn second(number: u64) -> Sample {
        Sample { at_ns: number * SECOND, seconds: 1, packets: 10, flows: number, ..Sample::default() }
    }

    #[test]
    fn steps_add_up_and_gauges_are_the_last() {
        let mut series = Series::default();
        (600..720).for_each(|number| series.push(second(number)));
        assert_eq!(series.read(0, 1).len(), 120);
        assert_eq!(series.read(709 * SECOND, 1).len(), 10);
        let tens = series.read(0, 10);
        assert_eq!(tens.len(), 12);
        assert_eq!((tens[0].seconds, tens[0].packets, tens[0].flows), (10, 100, 609));
        let minutes = series.read(0, 60);
        assert_eq!(minutes.iter().map(|minute| minute.packets).collect::<Vec<_>>(), [600, 600]);
    }

    #[test]
    fn latencies_of_a_step_are_of_all_that_was_counted_in_it() {
        let (mut now, mut series) = (Latency::default(), Series::default());
        for number in 10..30 {
            let before = now;
            // Twice as many that took long in every tenth second as there are short ones in all others.
            let (ms, times) = if number % 10 == 0 { (1000, 18) } else { (1, 1) };
            (0..times).for_each(|_| now.connect.count(ms * 1_000_000));
            series.push(Sample { latency: Spreads::between(&before, &now), ..second(number) });
        }
        let p50 =
            |sample: &Sample| serde_json::to_value(sample).unwrap()["latency"]["connect"]["p50_us"].clone();
        let (seconds, tens) = (series.read(0, 1), series.read(0, 10));
        assert_eq!((p50(&seconds[0]), p50(&seconds[9])), (786_432.into(), 768.into()));
        assert_eq!((tens.len(), p50(&tens[1])), (2, 655_360.into()));
    }

    #[test]
    fn what_is_older_goes() {
        let mut series = Series::default();
        (0..100_000).for_each(|number| series.push(second(number)));
        assert_eq!(series.read(0, 1).len(), SECONDS);
        assert_eq!(series.read(0, 60).len(), MINUTES + 1);
    }
}
