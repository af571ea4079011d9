//! A hash table that is emptied again and again: its entries lie side by side in the order in which they were
//! made, and its index is no larger than they need, so that the few of a second stay in the cache. Worker's thread;
//! bounded, never allocates after start.

use super::PROBES;

/// Places in the index at least: as many as a page of memory holds.
const FEWEST_PLACES: usize = 1024;

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    hash: u32,
    value: V,
}

#[derive(Debug)]
pub(super) struct Dense<K, V> {
    /// By hash: the entry's number and one, 0 where there is none. Of this the first `places` are in use.
    index: Box<[u32]>,
    /// A power of two, and twice the entries at least: it grows with them, and as they are taken out it becomes what
    /// they needed.
    places: usize,
    entries: Vec<Entry<K, V>>,
    /// Entries at most since the table was empty.
    most: usize,
    /// The entry last asked for: what one packet does is nearly always counted for the same ones.
    recent: usize,
}

impl<K: Copy + PartialEq, V: Default> Dense<K, V> {
    pub fn new(capacity: u32) -> Dense<K, V> {
        let capacity = capacity.max(64) as usize;
        let index = bytemuck::zeroed_slice_box(places_for(capacity));
        Dense {
            index,
            places: FEWEST_PLACES.min(places_for(capacity)),
            entries: Vec::with_capacity(capacity),
            most: 0,
            recent: 0,
        }
    }

    /// The entry of `key`, made if there is none and it `may` be; `None` if it may not, or there is no room.
    #[inline]
    pub fn entry(
        &mut self,
        key: &K,
        hash: impl FnOnce() -> u32,
        may: impl FnOnce() -> bool,
    ) -> Option<&mut V> {
        let at = match self.entries.get(self.recent) {
            Some(recent) if recent.key == *key => self.recent,
            _ => {
                let hash = hash();
                match self.look(key, hash)? {
                    Ok(at) => at,
                    Err(place) => may().then(|| self.make(*key, hash, place))??,
                }
            }
        };
        self.recent = at;
        self.entries.get_mut(at).map(|entry| &mut entry.value)
    }

    /// Starts loading the likeliest entry.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        let number = self.index[hash as usize & (self.places - 1)];
        if let Some(entry) = self.entries.get((number as usize).wrapping_sub(1)) {
            dataplane_sys::prefetch_all(entry);
        }
    }

    /// Where the entry is, or else the place in the index for it.
    fn look(&self, key: &K, hash: u32) -> Option<Result<usize, usize>> {
        for place in self.places_of(hash) {
            let at = self.index[place] as usize;
            match self.entries.get(at.wrapping_sub(1)) {
                None => return Some(Err(place)),
                Some(entry) if entry.key == *key => return Some(Ok(at - 1)),
                Some(_) => {}
            }
        }
        None
    }

    /// Where in the index an entry may be found.
    #[inline]
    fn places_of(&self, hash: u32) -> impl Iterator<Item = usize> + use<K, V> {
        let mask = self.places - 1;
        (0..PROBES).map(move |probe| hash.wrapping_add(probe) as usize & mask)
    }

    fn make(&mut self, key: K, hash: u32, place: usize) -> Option<usize> {
        let at = self.entries.len();
        if at == self.entries.capacity() {
            return None;
        }
        self.entries.push(Entry { key, hash, value: V::default() });
        self.most = self.most.max(at + 1);
        // A second is long enough for the next one's place to have left the cache.
        if let Some(next) = self.entries.spare_capacity_mut().first() {
            dataplane_sys::prefetch_all(next);
        }
        self.index[place] = at as u32 + 1;
        if 2 * self.entries.len() > self.places && self.places < self.index.len() {
            self.grow();
        }
        Some(at)
    }

    /// Twice the places. Every entry finds one: what was in its way in a smaller index is the most that can be in a larger.
    #[cold]
    fn grow(&mut self) {
        self.places *= 2;
        self.index[..self.places].fill(0);
        for at in 0..self.entries.len() {
            if let Some(place) = self.places_of(self.entries[at].hash).find(|&place| self.index[place] == 0) {
                self.index[place] = at as u32 + 1;
            }
        }
    }

    /// Takes out the entry made last: what it was made behind is still there, so every other one is found as before.
    pub fn take(&mut self) -> Option<(K, V)> {
        let entry = self.entries.pop()?;
        let number = self.entries.len() as u32 + 1;
        if let Some(place) = self.places_of(entry.hash).find(|&place| self.index[place] == number) {
            self.index[place] = 0;
        }
        if self.entries.is_empty() {
            self.places = places_for(self.most).max(FEWEST_PLACES).min(self.index.len());
            self.most = 0;
        }
        Some((entry.key, entry.value))
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// More than half of its room is taken.
    pub fn is_filling(&self) -> bool {
        self.entries.len() > self.entries.capacity() / 2
    }

    /// The number of the entry last asked for; it keeps it until it is taken out.
    pub fn recent(&self) -> usize {
        self.recent
    }

    pub fn at(&mut self, number: usize) -> Option<(K, &mut V)> {
        self.entries.get_mut(number).map(|entry| (entry.key, &mut entry.value))
    }
}

/// Places in the index for so many entries.
fn places_for(entries: usize) -> usize {
    (entries * 2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_whatever_was_taken_and_made_between() {
        let mut table: Dense<u32, u64> = Dense::new(64);
        let hash = |key: u32| move || key % 8 * 16;
        let mut known = Vec::new();
        let mut seed = 1_u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (seed >> 40) as u32 % 100;
            if seed >> 62 == 0 {
                assert_eq!(table.take(), known.pop());
            } else if let Some(value) = table.entry(&key, hash(key), || true) {
                *value += 1;
                match known.iter_mut().find(|(theirs, _)| *theirs == key) {
                    Some((_, count)) => *count += 1,
                    None => known.push((key, 1)),
                }
            }
            for (key, count) in &known {
                assert_eq!(table.entry(key, hash(*key), || false), Some(&mut count.clone()));
            }
        }
        assert!(known.len() > 10);
    }

    #[test]
    fn the_index_is_as_large_as_a_second_needs() {
        let mut table: Dense<u32, u64> = Dense::new(8192);
        let hash = |key: u32| move || key.wrapping_mul(0x9e37_79b9) >> 7;
        let mut places = Vec::new();
        for entries in [10_u32, 6_000, 20, 3] {
            for round in 0..2_u64 {
                for key in 0..entries {
                    let value = table.entry(&key, hash(key), || true).unwrap();
                    assert_eq!(*value, round);
                    *value += 1;
                }
            }
            places.push(table.places);
            let taken: Vec<u32> = std::iter::from_fn(|| table.take()).map(|(key, _)| key).collect();
            assert!(taken.iter().rev().copied().eq(0..entries));
            assert!(table.index.iter().all(|number| *number == 0));
        }
        assert_eq!(places, [1024, 16_384, 16_384, 1024]);
    }

    #[test]
    fn whoever_was_found_is_found_in_a_larger_index() {
        let mut table: Dense<u32, u64> = Dense::new(8192);
        // Sixteen at a time want one place, and some of these places are next to each other.
        let hash = |key: u32| move || (key / 16).wrapping_mul(0x9e37_79b9) >> 20;
        let made: Vec<u32> =
            (0..4_000).filter(|key| table.entry(key, hash(*key), || true).is_some()).collect();
        assert!(table.places > 1024 && made.len() < 4_000, "it grew, and not all found room: {}", made.len());
        for key in &made {
            assert!(table.entry(key, hash(*key), || false).is_some(), "{key}");
        }
        let mut taken: Vec<u32> = std::iter::from_fn(|| table.take()).map(|(key, _)| key).collect();
        taken.reverse();
        assert_eq!(taken, made);
        assert!(table.index.iter().all(|number| *number == 0));
    }
}
