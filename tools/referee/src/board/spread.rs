//! How long things took within a step of the figures: what was counted in it by buckets, and the quantiles of that.
//!
//! Main makes them of two looks at what workers count, readers copy and join them. Plain numbers.

use dataplane::latency::{BOUNDS, Latency, RoundTrips};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// How often, by how long it took: the buckets of [`RoundTrips`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread([u32; BOUNDS + 1]);

impl Spread {
    /// What was counted between two looks.
    fn between(before: &RoundTrips, now: &RoundTrips) -> Spread {
        let mut spread = Spread::default();
        for (count, (now, before)) in spread.0.iter_mut().zip(now.counts.iter().zip(before.counts)) {
            *count = u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        }
        spread
    }

    fn join(mut self, other: Spread) -> Spread {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        self
    }

    fn count(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// What so much of it (0 to 1) took at most, µs: evenly spread within a bucket, as Prometheus' `histogram_quantile`
    /// has it. Beyond the last bound, that bound. `None` if nothing was counted.
    fn quantile(&self, part: f64) -> Option<f64> {
        let all = self.count();
        let mut rank = all as f64 * part;
        let mut lower = 0.0;
        for (upper, count) in RoundTrips::bounds().zip(self.0) {
            let (upper, count) = (upper as f64, f64::from(count));
            if count > 0.0 && count >= rank {
                return Some(lower + (upper - lower) * (rank / count));
            }
            (rank, lower) = (rank - count, upper);
        }
        (all > 0).then_some(lower)
    }
}

/// Null where nothing was counted.
impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let of = |part| self.quantile(part).map(|us| us.round() as u64);
        let (Some(p50), Some(p95), Some(p99)) = (of(0.5), of(0.95), of(0.99)) else {
            return to.serialize_none();
        };
        let mut object = to.serialize_struct("Spread", 4)?;
        object.serialize_field("count", &self.count())?;
        object.serialize_field("p50_us", &p50)?;
        object.serialize_field("p95_us", &p95)?;
        object.serialize_field("p99_us", &p99)?;
        object.end()
    }
}

/// What workers time, of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spreads {
    /// From where is captured to the server and back, and to the client and back.
    pub rtt_server: Spread,
    pub rtt_client: Spread,
    pub connect: Spread,
    pub first_byte: Spread,
    pub dns_answer: Spread,
}

impl Spreads {
    pub fn between(before: &Latency, now: &Latency) -> Spreads {
        Spreads {
            rtt_server: Spread::between(&before.server_rtt, &now.server_rtt),
            rtt_client: Spread::between(&before.client_rtt, &now.client_rtt),
            connect: Spread::between(&before.connect, &now.connect),
            first_byte: Spread::between(&before.first_byte, &now.first_byte),
            dns_answer: Spread::between(&before.dns_answer, &now.dns_answer),
        }
    }

    pub fn join(self, later: Spreads) -> Spreads {
        Spreads {
            rtt_server: self.rtt_server.join(later.rtt_server),
            rtt_client: self.rtt_client.join(later.rtt_client),
            connect: self.connect.join(later.connect),
            first_byte: self.first_byte.join(later.first_byte),
            dns_answer: self.dns_answer.join(later.dns_answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn counted(us: &[u64]) -> RoundTrips {
        let mut durations = RoundTrips::default();
        us.iter().for_each(|us| durations.count(us * 1000));
        durations
    }

    fn of(us: &[u64]) -> Spread {
        Spread::between(&RoundTrips::default(), &counted(us))
    }

    /// The numbers are `histogram_quantile`'s for the same buckets.
    #[test]
    fn quantiles_are_those_of_prometheus() {
        // One up to 64 µs, two up to 256 µs, one up to 1,024 µs.
        let four = of(&[10, 200, 250, 1000]);
        assert_eq!(four.quantile(0.25), Some(64.0));
        assert_eq!(four.quantile(0.5), Some(192.0));
        assert_eq!(four.quantile(0.75), Some(256.0));
        assert_eq!(four.quantile(0.875), Some(768.0));
        // All in the first bucket, whose lower bound is 0.
        assert_eq!(of(&[1; 10]).quantile(0.5), Some(32.0));
        // Beyond the last bound nothing is known but that.
        assert_eq!(of(&[60_000_000, 60_000_000, 1]).quantile(0.5), Some(8_388_608.0));
        assert_eq!(of(&[]).quantile(0.5), None);
    }

    #[test]
    fn a_step_has_what_was_counted_in_it_and_two_have_what_was_in_both() {
        let (before, now) = (counted(&[10, 10, 10]), counted(&[10, 10, 10, 200, 1000]));
        let step = Spread::between(&before, &now);
        assert_eq!(step, of(&[200, 1000]));
        assert_eq!(step.join(of(&[10, 250])).quantile(0.5), of(&[10, 200, 250, 1000]).quantile(0.5));
        // A worker that counts anew takes nothing away.
        assert_eq!(Spread::between(&now, &before).count(), 0);
    }

    #[test]
    fn nothing_counted_is_null() {
        let now = Latency { connect: counted(&[200; 100]), ..Latency::default() };
        let told = serde_json::to_value(Spreads::between(&Latency::default(), &now)).unwrap();
        assert_eq!(told["rtt_server"], Value::Null);
        assert_eq!(told["connect"], json!({"count": 100, "p50_us": 192, "p95_us": 250, "p99_us": 255}));
    }
}
