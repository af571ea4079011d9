//! A bounded table: when it is full, the entry touched longest ago goes, and is counted. Runs on the judge's
//! thread. The map is never walked in its own order where that could reach anybody.

use std::collections::VecDeque;
use std::hash::Hash;

use ahash::AHashMap as HashMap;

#[derive(Debug)]
pub struct Aged<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// Keys with the time they were noted for; touched since, or gone, some of them.
    order: VecDeque<(u64, K)>,
    limit: usize,
    /// Entries that had to go for want of room.
    pub evicted: u64,
}

impl<K: Ord + Copy + Hash, V: Default> Aged<K, V> {
    /// `limit`: entries, at least one.
    pub fn new(limit: usize) -> Aged<K, V> {
        Aged { entries: HashMap::default(), order: VecDeque::new(), limit: limit.max(1), evicted: 0 }
    }

    /// The entry, marked as touched at `now`, which never goes back.
    pub fn get_mut(&mut self, key: &K, now: u64) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(last, value)| {
            *last = now;
            value
        })
    }

    /// The entry, not marked as touched.
    pub fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The entry, made if there is none.
    pub fn touch(&mut self, key: K, now: u64) -> &mut V {
        if !self.entries.contains_key(&key) {
            if self.entries.len() >= self.limit
                && let Some(stalest) = self.take_stalest(u64::MAX)
            {
                self.entries.remove(&stalest);
                self.evicted += 1;
            }
            self.tidy();
            self.order.push_back((now, key));
        }
        let (last, value) = self.entries.entry(key).or_default();
        *last = now;
        value
    }

    pub fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Lets entries go that were touched at `before` or earlier.
    pub fn expire(&mut self, before: u64) {
        while let Some(key) = self.take_stalest(before) {
            self.entries.remove(&key);
        }
    }

    /// In no order; whoever asks may not let it show.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, (_, value))| (key, value))
    }

    fn take_stalest(&mut self, before: u64) -> Option<K> {
        while let Some((noted, key)) = self.order.pop_front() {
            let Some((last, _)) = self.entries.get(&key) else { continue };
            if *last > noted {
                let at = self.order.partition_point(|(noted, _)| noted <= last);
                self.order.insert(at, (*last, key));
            } else if noted <= before {
                return Some(key);
            } else {
                self.order.push_front((noted, key));
                return None;
            }
        }
        None
    }

    /// Keys removed and made again are in the order more than once; that may not go on for ever.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.limit + 64 {
            let mut order: Vec<_> = self.entries.iter().map(|(key, (last, _))| (*last, *key)).collect();
            order.sort_unstable();
            self.order = order.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stalest_goes_first_and_is_counted() {
        let mut table: Aged<u8, u32> = Aged::new(2);
        *table.touch(1, 10) = 5;
        *table.touch(2, 11) = 6;
        *table.touch(1, 12) += 1;
        *table.touch(3, 13) = 7;
        assert_eq!(
            (table.get(&1), table.get(&2), table.get(&3), table.evicted),
            (Some(&6), None, Some(&7), 1)
        );
        table.expire(12);
        assert_eq!((table.get(&1), table.get(&3), table.evicted), (None, Some(&7), 1));
    }

    #[test]
    fn making_and_removing_for_ever_takes_no_more_room() {
        let mut table: Aged<u8, u32> = Aged::new(4);
        for now in 0..10_000 {
            table.touch((now % 3) as u8, now);
            table.remove(&((now % 3) as u8));
        }
        assert!(table.order.len() <= 2 * 4 + 65 && table.evicted == 0);
    }
}
