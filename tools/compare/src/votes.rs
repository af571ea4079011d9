//! Which tap is nearer to the low end of a connection, as its packets seen at both taps say. Plain arithmetic.
//!
//! Three witnesses, in the order they are believed. Time, where it is plain: what goes from A to B is stamped later at B
//! by more than what comes back right after it, whatever the clocks. TTL: routers lower it. Time, where it is short.

use dataplane::source::Nanos;

use crate::record::Record;

/// A difference of ways beyond this is not made by how stamps are taken, ns.
const PLAIN: i64 = 100_000;
/// Clocks may gain this on each other, in ns of a ns.
const GAIN: f64 = 1e-3;

/// One packet at both taps.
#[derive(Clone, Copy)]
pub struct Moment {
    a: Nanos,
    b: Nanos,
    from_low: bool,
    /// 1 if its TTL is lower at B, -1 if it is lower at A.
    step: i8,
}

impl Moment {
    pub fn of(a: &Record, b: &Record) -> Moment {
        let step = i8::from(a.ttl > b.ttl) - i8::from(a.ttl < b.ttl);
        Moment { a: a.ts, b: b.ts, from_low: a.from_low, step }
    }

    /// B's stamp less A's.
    pub fn ahead(&self) -> i64 {
        self.b.wrapping_sub(self.a) as i64
    }
}

/// Votes of each witness for A, and for B, being nearer to the low end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    plain: [u32; 2],
    ttl: [u32; 2],
    short: [u32; 2],
}

/// What at least nine in ten say.
fn clear([a, b]: [u32; 2]) -> Option<usize> {
    let (most, all) = (u64::from(a.max(b)), u64::from(a) + u64::from(b));
    (all > 0 && most * 10 >= all * 9).then_some(usize::from(b > a))
}

impl Votes {
    /// Of one connection's packets, by A's time.
    pub fn of(moments: &[Moment]) -> Votes {
        let mut votes = Votes::default();
        let mut steps = [0i64; 2];
        for moment in moments {
            steps[usize::from(moment.from_low)] += i64::from(moment.step);
        }
        // Lower at one tap in both directions is not a router's doing.
        let [high, low] = steps;
        if low.signum() * high.signum() <= 0 && low != high {
            votes.ttl[usize::from(low < high)] = low.abs_diff(high).min(1 << 20) as u32;
        }
        for pair in moments.windows(2) {
            let [one, next] = pair else { continue };
            if one.from_low == next.from_low {
                continue;
            }
            let (low, high) = if one.from_low { (one, next) } else { (next, one) };
            let longer = low.ahead().saturating_sub(high.ahead());
            let gap = one.a.abs_diff(next.a).max(one.b.abs_diff(next.b));
            if longer.unsigned_abs() as f64 <= gap as f64 * GAIN {
                continue;
            }
            let list = if longer.abs() >= PLAIN { &mut votes.plain } else { &mut votes.short };
            list[usize::from(longer < 0)] += 1;
        }
        votes
    }

    pub fn add(&mut self, other: &Votes) {
        let lists =
            [(&mut self.plain, other.plain), (&mut self.ttl, other.ttl), (&mut self.short, other.short)];
        for (own, more) in lists {
            own.iter_mut().zip(more).for_each(|(own, more)| *own = own.saturating_add(more));
        }
    }

    /// The same of the high end.
    pub fn turned(&self) -> Votes {
        let turn = |[a, b]: [u32; 2]| [b, a];
        Votes { plain: turn(self.plain), ttl: turn(self.ttl), short: turn(self.short) }
    }

    pub fn any(&self) -> bool {
        *self != Votes::default()
    }

    fn sure(&self) -> Option<usize> {
        clear(self.plain).or_else(|| clear(self.ttl))
    }

    pub fn side(&self) -> Option<usize> {
        self.sure().or_else(|| clear(self.short))
    }

    /// What a connection and its hosts say together; nothing where they contradict each other.
    pub fn decide(&self, hosts: Option<usize>) -> Option<usize> {
        match (self.sure(), hosts) {
            (Some(own), Some(hosts)) => (own == hosts).then_some(own),
            (own, hosts) => own.or(hosts).or_else(|| clear(self.short)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(a: u64, ahead: i64, from_low: bool, step: i8) -> Moment {
        Moment { a, b: a.wrapping_add_signed(ahead), from_low, step }
    }

    /// Questions from the low end on A's side, and answers, with `way` between the taps and clocks that gain `ppm`.
    fn talk(way: i64, ppm: i64, step: i8) -> Vec<Moment> {
        let turn = |i: u64| {
            let from_low = i.is_multiple_of(2);
            let a = 1_000_000_000 + i * 50_000;
            let gained = (i * 50_000) as i64 * ppm / 1_000_000;
            moment(
                a,
                if from_low { way } else { -way } + gained,
                from_low,
                if from_low { step } else { -step },
            )
        };
        (0..100).map(turn).collect()
    }

    #[test]
    fn time_tells_whatever_the_drift() {
        for (way, ppm) in [(2_000_000, 0), (2_000_000, -500), (3_000, 20), (3_000, -20)] {
            assert_eq!(Votes::of(&talk(way, ppm, 0)).side(), Some(0), "{way} {ppm}");
            assert_eq!(Votes::of(&talk(-way, ppm, 0)).side(), Some(1), "{way} {ppm}");
        }
        assert_eq!(Votes::of(&talk(0, 200, 0)).side(), None);
    }

    #[test]
    fn ttl_tells_where_time_is_short_and_time_where_it_is_plain() {
        assert_eq!(Votes::of(&talk(500, 0, 1)).side(), Some(0));
        assert_eq!(Votes::of(&talk(500, 0, -1)).side(), Some(1));
        // A box that sets all TTLs to 255.
        assert_eq!(Votes::of(&talk(2_000_000, 0, -1)).side(), Some(0));
    }

    #[test]
    fn a_connection_that_contradicts_its_hosts_is_undecided() {
        let (sure, weak) = (Votes::of(&talk(500, 0, 1)), Votes::of(&talk(3_000, 0, 0)));
        assert_eq!([sure.decide(Some(1)), sure.decide(Some(0)), sure.decide(None)], [None, Some(0), Some(0)]);
        assert_eq!([weak.decide(Some(1)), weak.decide(None)], [Some(1), Some(0)]);
    }
}
