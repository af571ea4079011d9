//! A small seeded generator of pseudo-random numbers: xoshiro256** seeded through SplitMix64.
//!
//! Runs wherever packets are made. No clock and no operating system randomness: one seed, one sequence, on
//! every machine. Not for secrets. The numbers go to profiles, scripts and payload sizes.

/// Mixes a number into 64 well spread bits (SplitMix64's output function; Steele, Lea, Flood 2014).
pub fn mix64(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// xoshiro256** (Blackman, Vigna 2018).
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng([mix64(seed), mix64(seed ^ 1 << 63), mix64(!seed), mix64(seed.rotate_left(32) ^ 0x5bd1_e995)])
    }

    /// An independent sequence for one of many things that share a seed (a flow, a host).
    pub fn stream(seed: u64, id: u64) -> Rng {
        Rng::new(mix64(seed) ^ mix64(id.wrapping_mul(0xd6e8_feb8_6659_fd93)))
    }

    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `low..high`; `low` when the range is empty.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True `percent` times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Log-uniform in `low..high`: each decade is as likely as the next.
    pub fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_sequence_other_seed_another() {
        let take = |seed| {
            let mut r = Rng::new(seed);
            (0..32).map(|_| r.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        assert_ne!(Rng::stream(1, 2).next_u64(), Rng::stream(1, 3).next_u64());
    }

    #[test]
    fn ranges_hold_and_are_filled() {
        let mut r = Rng::new(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[r.below(10) as usize] = true;
            let x = r.range(5, 9);
            assert!((5..9).contains(&x));
            let y = r.log_uniform(0.2, 80.0);
            assert!((0.2..80.0).contains(&y));
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!((r.below(0), r.range(4, 4)), (0, 4));
    }
}
