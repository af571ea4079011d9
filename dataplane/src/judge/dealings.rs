//! What one client does with one service: connections begun, completed and closed within the last minute, and the
//! ports they came from. Runs on the judge's thread; bounded. Goes into `crowd`.

use std::collections::VecDeque;
use std::net::IpAddr;

use rules::facts;

use super::message::Dealing;
use super::window::{BUCKET_NS, SPANS};

const WINDOW: u64 = SPANS[2];
const TEN_SECONDS: u64 = SPANS[1];
/// Connections within a minute from which on anybody asks about ports.
const WORTH_A_LOOK: u32 = 20;

/// Sums of one bucket, or of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    begun: u32,
    completed: u32,
    short: u32,
    reuses: u32,
    on_known: u32,
    /// Ports told.
    ports: u32,
}

impl Sums {
    fn parts(&mut self) -> [&mut u32; 6] {
        let Sums { begun, completed, short, reuses, on_known, ports } = self;
        [begun, completed, short, reuses, on_known, ports]
    }

    fn add(&mut self, mut other: Sums) {
        self.parts().into_iter().zip(other.parts()).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
    }

    fn subtract(&mut self, mut other: Sums) {
        self.parts().into_iter().zip(other.parts()).for_each(|(sum, less)| *sum = sum.saturating_sub(*less));
    }
}

#[derive(Debug, Default)]
pub struct Track {
    buckets: VecDeque<(u64, Sums)>,
    sums: Sums,
    /// Client ports in the order of their use, as many for each bucket as it says.
    ports: VecDeque<u16>,
    /// Shortest time between two uses of a port, in buckets.
    shortest: Option<u64>,
    first: u64,
    total: u64,
}

impl Track {
    /// What the two did before the tick that ends `bucket`.
    pub fn add(&mut self, bucket: u64, dealing: &Dealing) {
        self.slide(bucket);
        if self.total == 0 {
            self.first = bucket;
        }
        self.total += u64::from(dealing.begun);
        let mut sums = Sums {
            begun: dealing.begun,
            completed: dealing.completed,
            short: dealing.short,
            on_known: dealing.on_known,
            ..Sums::default()
        };
        for &port in dealing.ports.iter().take(dealing.begun as usize).filter(|port| **port != 0) {
            if self.ports.contains(&port) {
                sums.reuses += 1;
                let apart = bucket.saturating_sub(self.last_use(port).unwrap_or(bucket));
                self.shortest = Some(self.shortest.map_or(apart, |shortest| shortest.min(apart)));
            }
            self.ports.push_back(port);
            sums.ports += 1;
        }
        // Ports beyond those told are not known, but the worker knew some tuples again.
        sums.reuses = sums.reuses.max(sums.on_known);
        self.sums.add(sums);
        self.buckets.push_back((bucket, sums));
    }

    /// The bucket in which a port was last used; `None`: in the one that is being added.
    fn last_use(&self, port: u16) -> Option<u64> {
        let at = self.ports.iter().rposition(|used| *used == port)?;
        let mut before = 0;
        let covers = |(bucket, sums): &(u64, Sums)| {
            before += sums.ports as usize;
            (at < before).then_some(*bucket)
        };
        self.buckets.iter().find_map(covers)
    }

    fn slide(&mut self, now: u64) {
        while let Some((_, old)) = self.buckets.pop_front_if(|(bucket, _)| *bucket + WINDOW <= now) {
            self.sums.subtract(old);
            self.ports.drain(..(old.ports as usize).min(self.ports.len()));
        }
    }

    /// (Reuses, short-lived connections) so far: what makes a pair stand out among its client's.
    pub fn weight(&self) -> (u32, u32) {
        (self.sums.reuses, self.sums.short)
    }

    /// `None` while there is too little to say anything.
    pub fn facts(&self, addr: IpAddr, port: u16, now: u64) -> Option<facts::Dealings> {
        if self.sums.begun.max(self.sums.short) < WORTH_A_LOOK {
            return None;
        }
        let mut ten = Sums::default();
        let recent = self.buckets.iter().rev().take_while(|(bucket, _)| *bucket + TEN_SECONDS > now);
        recent.for_each(|(_, sums)| ten.add(*sums));
        let reused = self.sums.reuses > 0;
        // Ports of which none came again are as many as their uses.
        let mut ports: Vec<u16> = if reused { self.ports.iter().copied().collect() } else { Vec::new() };
        ports.sort_unstable();
        ports.dedup();
        Some(facts::Dealings {
            addr: Some(addr),
            port,
            begun_10s: ten.begun,
            begun_60s: self.sums.begun,
            completed_60s: self.sums.completed,
            short_10s: ten.short,
            reuses: self.sums.reuses,
            reuses_known: self.sums.on_known,
            ports: if reused { ports.len() as u32 } else { self.sums.ports },
            port_low: ports.first().copied().unwrap_or(0),
            port_high: ports.last().copied().unwrap_or(0),
            shortest_ms: self.shortest.map(|buckets| (buckets * BUCKET_NS / 1_000_000) as u32),
            first_ns: self.first.saturating_sub(1).saturating_mul(BUCKET_NS),
            total: self.total,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::message::PORTS_TOLD;
    use std::net::Ipv4Addr;

    fn begun(ports: &[u16]) -> Dealing {
        let mut dealing = Dealing::default();
        ports.iter().for_each(|port| dealing.begun_from(*port));
        dealing
    }

    #[test]
    fn ports_that_come_again_within_a_minute_are_reuses() {
        let mut track = Track::default();
        for n in 0..40_u16 {
            track.add(1000 + u64::from(n) * 10, &begun(&[40_000 + n % 16]));
        }
        let facts = track.facts(Ipv4Addr::LOCALHOST.into(), 80, 1390).unwrap();
        assert_eq!((facts.begun_60s, facts.reuses, facts.ports), (40, 24, 16));
        assert_eq!((facts.port_low, facts.port_high, facts.shortest_ms), (40_000, 40_015, Some(16_000)));
        assert_eq!((facts.begun_10s, facts.total), (10, 40));
        track.add(1000 + 399 + 600, &begun(&[40_000]));
        assert_eq!(track.weight(), (0, 0), "a minute later nothing of it counts");
    }

    #[test]
    fn more_connections_than_ports_told_are_counted_all_the_same() {
        let mut track = Track::default();
        track.add(1000, &begun(&[7; 100]));
        assert_eq!(track.facts(Ipv4Addr::LOCALHOST.into(), 80, 1000).unwrap().begun_60s, 100);
        assert_eq!(track.weight().0, PORTS_TOLD as u32 - 1);
    }
}
