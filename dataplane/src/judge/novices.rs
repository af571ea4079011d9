//! Those met once. Most clients begin one connection with a service and none for a minute after: no record is made of
//! them before they come again. Runs on the judge's thread; bounded: two that fall on one place push each other out, and
//! who goes before its time is counted.

use std::hash::Hash;

use ahash::RandomState;
use bytemuck::Zeroable;

/// The same in every run, so that the same packets give the same incidents.
const SEEDS: [u64; 4] = [0x6e6f_7669, 0x6365_735f, 0x6d65_745f, 0x6f6e_6365];

#[derive(Clone, Copy, Debug, Zeroable)]
struct Place<N> {
    /// Of the hash of the key, what does not say the place; 0 if nobody is here.
    tag: u32,
    /// The low half of when it was met: nobody stays for long.
    at: u32,
    what: N,
}

impl<N> Place<N> {
    /// How long ago it was met, if somebody is here.
    fn since(&self, now: u64) -> Option<u64> {
        (self.tag != 0).then(|| u64::from((now as u32).wrapping_sub(self.at)))
    }
}

#[derive(Debug)]
pub struct Novices<N> {
    places: Box<[Place<N>]>,
    hasher: RandomState,
    /// How long a meeting counts.
    span: u64,
    /// Pushed out before that.
    pub evicted: u64,
}

impl<N: Copy + Zeroable> Novices<N> {
    /// `limit`: places, rounded up to a power of two. They take no memory before they are used.
    pub fn new(limit: usize, span: u64) -> Novices<N> {
        let [a, b, c, d] = SEEDS;
        Novices {
            places: bytemuck::zeroed_slice_box(limit.max(1).next_power_of_two()),
            hasher: RandomState::with_seeds(a, b, c, d),
            span,
            evicted: 0,
        }
    }

    /// Who was met under this key, and when; it is a novice no more. Else the newcomer becomes one, if there is any.
    pub fn again(&mut self, key: &impl Hash, now: u64, newcomer: Option<N>) -> Option<(u64, N)> {
        let span = self.span;
        let (tag, place) = self.place(key);
        let since = place.since(now).filter(|since| *since < span);
        if let Some(since) = since
            && place.tag == tag
        {
            place.tag = 0;
            return Some((now - since, place.what));
        }
        if let Some(what) = newcomer {
            *place = Place { tag, at: now as u32, what };
            self.evicted += u64::from(since.is_some());
        }
        None
    }

    /// The novice of this key.
    pub fn get_mut(&mut self, key: &impl Hash, now: u64) -> Option<&mut N> {
        let span = self.span;
        let (tag, place) = self.place(key);
        (place.tag == tag && place.since(now)? < span).then_some(&mut place.what)
    }

    /// Starts loading where this key's novice would be.
    pub fn prefetch(&self, key: &impl Hash) {
        let (_, at) = self.find(key);
        dataplane_sys::prefetch(&self.places[at]);
    }

    fn place(&mut self, key: &impl Hash) -> (u32, &mut Place<N>) {
        let (tag, at) = self.find(key);
        (tag, &mut self.places[at])
    }

    fn find(&self, key: &impl Hash) -> (u32, usize) {
        let hash = self.hasher.hash_one(key);
        (((hash >> 32) as u32).max(1), hash as usize & (self.places.len() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_again_in_time_is_known() {
        let mut novices: Novices<u16> = Novices::new(1000, 600);
        assert_eq!(novices.again(&7, 1000, Some(40)), None);
        *novices.get_mut(&7, 1001).expect("just met") += 1;
        assert_eq!(novices.again(&7, 1599, Some(50)), Some((1000, 41)));
        assert_eq!(novices.again(&7, 1599, None), None, "no novice any more");
        assert_eq!(novices.again(&7, 1600, Some(60)), None);
        assert_eq!(novices.again(&7, 2200, Some(70)), None, "too late");
        assert!(novices.get_mut(&8, 2200).is_none());
        assert_eq!(novices.evicted, 0);
    }

    #[test]
    fn who_is_pushed_out_is_counted() {
        let mut novices: Novices<()> = Novices::new(64, 600);
        (0..1000).for_each(|key| assert_eq!(novices.again(&key, 5, Some(())), None));
        assert_eq!(novices.evicted, 1000 - 64);
    }
}
