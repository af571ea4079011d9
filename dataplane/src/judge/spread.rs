//! How widely a client spreads its attempts: distinct ports of one host, or hosts on one port, of the last 60 s, and
//! what became of them. Runs on the judge's thread; bounded. Goes into `crowd`.
//!
//! Exact up to [`EXACT`] distinct ones. Beyond, a bitmap counts them since the spread began: ports exactly, hosts by
//! linear counting (of 65,536 bits: within 1 % up to some 60,000).

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use ahash::AHashMap as HashMap;
use rules::facts::Spread;

use super::window::{BUCKET_NS, SPANS};

const WINDOW: u64 = SPANS[2];
const EXACT: usize = 512;
const BITS: u32 = 1 << 16;

/// What is the same in all attempts of a spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    PortsOf(IpAddr),
    HostsOn(u16),
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    Port(u16),
    Host(IpAddr),
}

/// What became of attempts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    pub completed: u32,
    pub refused: u32,
    pub unfinished: u32,
}

impl Fates {
    pub const fn failed(&self) -> u32 {
        self.refused.saturating_add(self.unfinished)
    }

    pub const fn all(&self) -> u32 {
        self.failed().saturating_add(self.completed)
    }
}

#[derive(Debug, Default)]
pub struct Track {
    /// Items of the window, with the bucket each was last tried in.
    items: HashMap<Item, u64>,
    order: VecDeque<(u64, Item)>,
    many: Option<Bitmap>,
    fates: VecDeque<(u64, Fates)>,
    sums: Fates,
    first: u64,
    total: u64,
}

impl Track {
    /// Attempts on one item whose outcome became known before the tick that ends `bucket`.
    pub fn add(&mut self, bucket: u64, item: Item, fates: Fates) {
        if self.total == 0 {
            self.first = bucket;
        }
        self.total += u64::from(fates.all());
        self.slide(bucket);
        self.sums.completed = self.sums.completed.saturating_add(fates.completed);
        self.sums.refused = self.sums.refused.saturating_add(fates.refused);
        self.sums.unfinished = self.sums.unfinished.saturating_add(fates.unfinished);
        self.fates.push_back((bucket, fates));
        if let Some(many) = &mut self.many {
            many.set(item);
        } else if self.items.insert(item, bucket) != Some(bucket) {
            self.order.push_back((bucket, item));
            if self.items.len() > EXACT {
                let mut many = Bitmap::default();
                self.items.drain().for_each(|(item, _)| many.set(item));
                self.order.clear();
                self.many = Some(many);
            }
        }
    }

    /// Lets go of what has left the window. A bitmap forgets nothing before its spread ends.
    fn slide(&mut self, now: u64) {
        while let Some((bucket, item)) = self.order.pop_front_if(|(bucket, _)| *bucket + WINDOW <= now) {
            if self.items.get(&item) == Some(&bucket) {
                self.items.remove(&item);
            }
        }
        while let Some((_, old)) = self.fates.pop_front_if(|(bucket, _)| *bucket + WINDOW <= now) {
            self.sums.completed = self.sums.completed.saturating_sub(old.completed);
            self.sums.refused = self.sums.refused.saturating_sub(old.refused);
            self.sums.unfinished = self.sums.unfinished.saturating_sub(old.unfinished);
        }
    }

    pub fn facts(&self, axis: Axis) -> Spread {
        let (of_host, of_port) = match axis {
            Axis::PortsOf(host) => (Some(host), None),
            Axis::HostsOn(port) => (None, Some(port)),
        };
        Spread {
            of_host,
            of_port,
            tried: self.many.as_ref().map_or(self.items.len() as u32, Bitmap::distinct),
            attempts: self.sums.all(),
            completed: self.sums.completed,
            refused: self.sums.refused,
            first_ns: self.first.saturating_sub(1).saturating_mul(BUCKET_NS),
            total: self.total,
        }
    }
}

/// Which of 65,536 places are taken.
#[derive(Debug)]
struct Bitmap {
    words: Box<[u64]>,
    taken: u32,
    linear: bool,
}

impl Default for Bitmap {
    fn default() -> Bitmap {
        Bitmap { words: vec![0; BITS as usize / 64].into_boxed_slice(), taken: 0, linear: false }
    }
}

impl Bitmap {
    fn set(&mut self, item: Item) {
        let bit = match item {
            Item::Port(port) => u32::from(port),
            Item::Host(host) => {
                self.linear = true;
                place(host)
            }
        };
        if let Some(word) = self.words.get_mut(bit as usize / 64) {
            let mask = 1 << (bit % 64);
            self.taken += u32::from(*word & mask == 0);
            *word |= mask;
        }
    }

    /// Linear counting (Whang et al. 1990): n = -m ln(free / m).
    fn distinct(&self) -> u32 {
        if !self.linear {
            return self.taken;
        }
        let bits = f64::from(BITS);
        let free = (bits - f64::from(self.taken)).max(1.0);
        (-bits * (free / bits).ln()).round() as u32
    }
}

/// The same on every run: replay is repeatable. Who aims collisions makes a scan look smaller, from above [`EXACT`].
fn place(host: IpAddr) -> u32 {
    let mut hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().build_hasher();
    match host {
        IpAddr::V4(v4) => hasher.write_u32(v4.to_bits()),
        IpAddr::V6(v6) => hasher.write_u128(v6.to_bits()),
    }
    hasher.finish() as u32 % BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const FAILED: Fates = Fates { completed: 0, refused: 0, unfinished: 1 };

    #[test]
    fn distinct_items_of_the_last_minute_are_counted_exactly() {
        let mut track = Track::default();
        for n in 0..200_u16 {
            track.add(1000 + u64::from(n) * 10, Item::Port(n % 100), FAILED);
        }
        let facts = track.facts(Axis::HostsOn(1));
        assert_eq!((facts.tried, facts.attempts, facts.total), (60, 60, 200));
        assert_eq!(facts.first_ns, 999 * BUCKET_NS);
    }

    #[test]
    fn many_are_counted_by_a_bitmap() {
        let (mut ports, mut hosts) = (Track::default(), Track::default());
        for n in 0..40_000_u32 {
            ports.add(1000, Item::Port(n as u16), FAILED);
            hosts.add(1000, Item::Host(Ipv4Addr::from_bits(0x0a00_0000 + n).into()), FAILED);
        }
        assert_eq!(ports.facts(Axis::HostsOn(1)).tried, 40_000);
        let hosts = hosts.facts(Axis::HostsOn(1)).tried;
        assert!((39_200..40_800).contains(&hosts), "{hosts}");
    }
}
