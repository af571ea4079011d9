//! How long things took, counted in buckets that double: what Prometheus calls a histogram, as plain words of 64 bits.
//!
//! Whoever counts, counts on its own thread with plain adds and hands copies out; nothing here reads a clock. The
//! program's metrics are made of it.

/// Buckets with an upper bound; one more takes what is longer than all of them.
pub const BOUNDS: usize = 18;

/// Durations by the bucket they fall into. The first bound is 2^`FIRST` µs, each further one twice the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations<const FIRST: u32> {
    /// Each in its own bucket only.
    pub counts: [u64; BOUNDS + 1],
    pub sum_ns: u64,
}

/// On a network: 64 µs to 8.4 s.
pub type RoundTrips = Durations<6>;
/// In a program: 1 µs to 131 ms.
pub type Runs = Durations<0>;

impl<const FIRST: u32> Default for Durations<FIRST> {
    fn default() -> Self {
        Durations { counts: [0; BOUNDS + 1], sum_ns: 0 }
    }
}

impl<const FIRST: u32> Durations<FIRST> {
    pub fn count(&mut self, ns: u64) {
        let below = ns.div_ceil(1000).saturating_sub(1) >> FIRST;
        let bucket = (u64::BITS - below.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bucket.min(BOUNDS)) {
            *count += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, more)| *sum += more);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Upper bounds, µs.
    pub fn bounds() -> impl Iterator<Item = u64> {
        (0..BOUNDS as u32).map(|bucket| 1 << (FIRST + bucket))
    }
}

/// What a worker times, all of it in packet time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// SYN to SYN-ACK, where there was one SYN: between the capture point and the server.
    pub server_rtt: RoundTrips,
    /// SYN-ACK to ACK: between the capture point and the client.
    pub client_rtt: RoundTrips,
    /// First SYN to the ACK that completes the handshake.
    pub connect: RoundTrips,
    /// A connection's first request to the first byte of its answer.
    pub first_byte: RoundTrips,
    /// A DNS question, as first asked, to its answer.
    pub dns_answer: RoundTrips,
}

impl Latency {
    pub fn add(&mut self, other: &Latency) {
        let Latency { server_rtt, client_rtt, connect, first_byte, dns_answer } = other;
        self.server_rtt.add(server_rtt);
        self.client_rtt.add(client_rtt);
        self.connect.add(connect);
        self.first_byte.add(first_byte);
        self.dns_answer.add(dns_answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_the_last_of_its_bucket() {
        let bounds: Vec<u64> = RoundTrips::bounds().collect();
        assert_eq!((bounds.len(), bounds[0], bounds[1], bounds[BOUNDS - 1]), (BOUNDS, 64, 128, 8_388_608));
        let bucket = |ns: u64| {
            let mut durations = RoundTrips::default();
            durations.count(ns);
            assert_eq!(durations.sum_ns, ns);
            durations.counts.iter().position(|&count| count == 1)
        };
        for (number, bound) in bounds.iter().enumerate() {
            assert_eq!(bucket(bound * 1000), Some(number));
            assert_eq!(bucket(bound * 1000 + 1), Some(number + 1));
        }
        assert_eq!((bucket(0), bucket(1), bucket(u64::MAX)), (Some(0), Some(0), Some(BOUNDS)));
    }

    #[test]
    fn adding_adds_every_bucket() {
        let mut one = Runs::default();
        (0..40).for_each(|power| one.count(1 << power));
        let mut two = one;
        two.add(&one);
        assert!(two.counts.iter().zip(&one.counts).all(|(two, one)| *two == 2 * one));
        assert_eq!(two.sum_ns, 2 * one.sum_ns);
        let mut most = Runs { sum_ns: u64::MAX, ..one };
        most.add(&one);
        assert_eq!(most.sum_ns, u64::MAX);
    }
}
