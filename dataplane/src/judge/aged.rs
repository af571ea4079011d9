//! A bounded table: when it is full, the entry touched longest ago goes, and is counted. Runs on the judge's
//! thread. Entries are chained in the order in which they were touched, so nothing is ever sorted or searched.

use std::hash::Hash;

use ahash::RandomState;
use hashbrown::HashTable;

/// No entry.
const NONE: u32 = u32::MAX;

/// What is looked at whenever an entry is sought or touched; apart from the values, so that it stays in the cache.
#[derive(Debug)]
struct Head<K> {
    key: K,
    last: u64,
    /// Its neighbours in the order of touching.
    older: u32,
    newer: u32,
}

#[derive(Debug)]
pub struct Aged<K, V> {
    /// Places in `heads` and `values` by their keys' hashes. It grows, so that few entries are few cache lines.
    index: HashTable<u32>,
    hasher: RandomState,
    heads: Vec<Head<K>>,
    values: Vec<V>,
    /// Places whose keys have gone; their values are the default.
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    limit: usize,
    /// Entries that had to go for want of room.
    pub evicted: u64,
}

impl<K: Copy + Eq + Hash, V: Default> Aged<K, V> {
    /// `limit`: entries, at least one. Room for all is set aside, since growing would copy them again and again; it
    /// takes no memory before it is used.
    pub fn new(limit: usize) -> Aged<K, V> {
        let limit = limit.max(1);
        Aged {
            index: HashTable::new(),
            hasher: RandomState::new(),
            heads: Vec::with_capacity(limit + 1),
            values: Vec::with_capacity(limit + 1),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            limit,
            evicted: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The next entry made lets another go.
    pub fn is_full(&self) -> bool {
        self.index.len() >= self.limit
    }

    /// The entry, marked as touched at `now`, which never goes back.
    pub fn get_mut(&mut self, key: &K, now: u64) -> Option<&mut V> {
        let at = self.find(key, now)?;
        Some(&mut self.values[at as usize])
    }

    /// Where the entry is, if there is one; it is marked as touched.
    pub fn find(&mut self, key: &K, now: u64) -> Option<u32> {
        let at = self.place_of(key)?;
        self.renew(at, now);
        Some(at)
    }

    fn place_of(&self, key: &K) -> Option<u32> {
        self.index.find(self.hasher.hash_one(key), |at| self.heads[*at as usize].key == *key).copied()
    }

    /// The entry, not marked as touched.
    pub fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place_of(key).map(|at| &mut self.values[at as usize])
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.place_of(key).map(|at| &self.values[at as usize])
    }

    /// The entry, made if there is none, and marked as touched.
    pub fn touch(&mut self, key: K, now: u64) -> &mut V {
        let at = self.place(key, now);
        &mut self.values[at as usize]
    }

    /// Where the entry is, made if there is none, and marked as touched. It stays there until it goes.
    pub fn place(&mut self, key: K, now: u64) -> u32 {
        let hash = self.hasher.hash_one(key);
        if let Some(&at) = self.index.find(hash, |at| self.heads[*at as usize].key == key) {
            self.renew(at, now);
            return at;
        }
        let made = Head { key, last: now, older: NONE, newer: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.heads[at as usize] = made;
                at
            }
            None => {
                self.heads.push(made);
                self.values.push(V::default());
                (self.heads.len() - 1) as u32
            }
        };
        let Aged { index, hasher, heads, .. } = self;
        index.insert_unique(hash, at, |at| hasher.hash_one(heads[*at as usize].key));
        self.link(at);
        if self.index.len() > self.limit {
            self.remove_at(self.oldest);
            self.evicted += 1;
        }
        at
    }

    /// What is at a place that [`Aged::place`] gave: its key, when it was touched, its value. Of an entry that has
    /// gone since, the default; or the entry made there after it.
    pub fn at(&mut self, at: u32) -> (K, &mut u64, &mut V) {
        let head = &mut self.heads[at as usize];
        (head.key, &mut head.last, &mut self.values[at as usize])
    }

    pub fn peek_at(&self, at: u32) -> Option<&V> {
        self.values.get(at as usize)
    }

    /// Lets entries go that were touched at `before` or earlier.
    pub fn expire(&mut self, before: u64) {
        self.expire_unless(before, before, |_| false);
    }

    /// Likewise, but for those to be kept: they count as touched at `now`.
    pub fn expire_unless(&mut self, before: u64, now: u64, mut keep: impl FnMut(&mut V) -> bool) {
        while let Some(head) = self.heads.get(self.oldest as usize)
            && head.last <= before
        {
            if now > before && keep(&mut self.values[self.oldest as usize]) {
                self.renew(self.oldest, now);
            } else {
                self.remove_at(self.oldest);
            }
        }
    }

    /// In no order that may show. Places that are free give the default.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.heads.iter().map(|head| &head.key).zip(&mut self.values)
    }

    fn renew(&mut self, at: u32, now: u64) {
        self.heads[at as usize].last = now;
        if at != self.newest {
            self.unlink(at);
            self.link(at);
        }
    }

    fn remove_at(&mut self, at: u32) {
        self.unlink(at);
        self.values[at as usize] = V::default();
        let hash = self.hasher.hash_one(self.heads[at as usize].key);
        if let Ok(there) = self.index.find_entry(hash, |other| *other == at) {
            there.remove();
        }
        self.free.push(at);
    }

    fn link(&mut self, at: u32) {
        let older = std::mem::replace(&mut self.newest, at);
        let head = &mut self.heads[at as usize];
        (head.older, head.newer) = (older, NONE);
        match self.heads.get_mut(older as usize) {
            Some(head) => head.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let (older, newer) = (self.heads[at as usize].older, self.heads[at as usize].newer);
        match self.heads.get_mut(older as usize) {
            Some(head) => head.newer = newer,
            None => self.oldest = newer,
        }
        match self.heads.get_mut(newer as usize) {
            Some(head) => head.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove<K: Copy + Eq + Hash, V: Default>(table: &mut Aged<K, V>, key: K) {
        if let Some(at) = table.place_of(&key) {
            table.remove_at(at);
        }
    }

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
            remove(&mut table, (now % 3) as u8);
        }
        assert!(table.heads.len() <= 5 && table.evicted == 0 && table.is_empty());
    }

    #[test]
    fn the_order_is_that_of_touching_whatever_is_removed() {
        let mut table: Aged<u64, u64> = Aged::new(50);
        let mut order: Vec<u64> = Vec::new();
        let mut seed = 1_u64;
        for now in 0..5000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (seed >> 40) % 60;
            order.retain(|known| *known != key);
            if seed >> 61 == 0 {
                remove(&mut table, key);
            } else {
                *table.touch(key, now) = key;
                order.push(key);
                order.drain(..order.len().saturating_sub(50));
            }
        }
        assert!(order.iter().all(|key| table.get(key) == Some(key)));
        for gone in 0..order.len() {
            table.remove_at(table.oldest);
            assert_eq!(table.get(&order[gone]), None);
            assert!(order[gone + 1..].iter().all(|key| table.get(key) == Some(key)));
        }
        assert!(table.is_empty() && table.newest == NONE && table.oldest == NONE);
    }
}
