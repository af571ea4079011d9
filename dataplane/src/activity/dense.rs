//! A hash table that is emptied again and again: its entries lie side by side in the order in which they were
//! made, so that the few of a second stay in the cache. Worker's thread; bounded, never allocates after start.

use super::PROBES;

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    /// Its place in the index.
    place: u32,
    value: V,
}

#[derive(Debug)]
pub(super) struct Dense<K, V> {
    /// By hash: the entry's number and one, 0 where there is none.
    index: Box<[u32]>,
    entries: Vec<Entry<K, V>>,
    /// The entry last asked for: what one packet does is nearly always counted for the same ones.
    recent: usize,
}

impl<K: Copy + PartialEq, V: Default> Dense<K, V> {
    pub fn new(capacity: u32) -> Dense<K, V> {
        let places = (capacity.max(64) * 2).next_power_of_two();
        Dense {
            index: bytemuck::zeroed_slice_box(places as usize),
            entries: Vec::with_capacity(capacity.max(64) as usize),
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
            _ => match self.look(key, hash())? {
                Ok(at) => at,
                Err(place) => may().then(|| self.make(*key, place))??,
            },
        };
        self.recent = at;
        self.entries.get_mut(at).map(|entry| &mut entry.value)
    }

    /// Where the entry is, or else the place in the index for it.
    fn look(&self, key: &K, hash: u32) -> Option<Result<usize, u32>> {
        let mask = self.index.len() as u32 - 1;
        for probe in 0..PROBES {
            let place = hash.wrapping_add(probe) & mask;
            let at = self.index[place as usize] as usize;
            match self.entries.get(at.wrapping_sub(1)) {
                None => return Some(Err(place)),
                Some(entry) if entry.key == *key => return Some(Ok(at - 1)),
                Some(_) => {}
            }
        }
        None
    }

    fn make(&mut self, key: K, place: u32) -> Option<usize> {
        let at = self.entries.len();
        if at == self.entries.capacity() {
            return None;
        }
        self.entries.push(Entry { key, place, value: V::default() });
        // A second is long enough for the next one's place to have left the cache.
        if let Some(next) = self.entries.spare_capacity_mut().first() {
            dataplane_sys::prefetch_all(next);
        }
        self.index[place as usize] = at as u32 + 1;
        Some(at)
    }

    /// Takes out the entry made last: what it was made behind is still there, so every other one is found as before.
    pub fn take(&mut self) -> Option<(K, V)> {
        let entry = self.entries.pop()?;
        self.index[entry.place as usize] = 0;
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
}
