//! How far one capture's clock is ahead of the other's, and how fast it drifts, from packets seen at both.
//!
//! A packet takes time from tap to tap, never less than none: what A's packets need to B at least, and B's to A,
//! bounds the offset from both sides; the middle of the bounds is the estimate, half their distance the
//! uncertainty. Drift is the slope of both bounds. Pure arithmetic on pairs of time stamps.

use dataplane::source::Nanos;

/// Parts of the common time whose bounds are looked at for drift.
const WINDOWS: usize = 48;
/// Two bounds nearer to each other than this say nothing of drift, ns.
const LEAST_SPAN: f64 = 2e9;
/// Slopes beyond this are no clock's: 2000 ppm.
const MOST_SLOPE: f64 = 2e-3;
/// Pairs one direction needs before its extreme ones may be doubted.
const ENOUGH: usize = 16;

/// A packet's two time stamps, and whether it passes A first, if that is known.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub a: Nanos,
    pub b: Nanos,
    pub from_a: Option<bool>,
}

/// The relation of two clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// A's time the offset is given for: its first packet that both taps saw.
    pub start: Nanos,
    /// A's time of the last such packet.
    pub end: Nanos,
    /// B's clock less A's at `start`, ns.
    ahead: i64,
    /// By which that grows in each ns of A.
    slope: f64,
    /// Half the shortest round trip between the taps; `None` if packets went one way only.
    pub half_rtt: Option<i64>,
    /// What the offset can be wrong by, unless packets went one way only: that, and what drift leaves open.
    pub doubt: Option<i64>,
    /// 99 in 100 packets seem to be under way at most this long, ns.
    pub usual_transit: i64,
    /// Parts per million, and how sure that is; `None` if the common time is too short to tell.
    pub drift: Option<(f64, f64)>,
}

fn since(later: Nanos, earlier: Nanos) -> i64 {
    later.wrapping_sub(earlier) as i64
}

/// Position in the common time, difference of the two stamps from their median.
type Point = (f64, f64);

impl Clock {
    /// `None` without pairs.
    pub fn fit(pairs: &[Pair]) -> Option<Clock> {
        let start = pairs.iter().map(|pair| pair.a).min()?;
        let end = pairs.iter().map(|pair| pair.a).max()?;
        let middle = median(pairs.iter().map(|pair| since(pair.b, pair.a)).collect())?;
        let point = |pair: &Pair| -> Point {
            (since(pair.a, start) as f64, since(pair.b, pair.a).saturating_sub(middle) as f64)
        };
        let of = |from_a: bool| -> Vec<Point> {
            pairs.iter().filter(|pair| pair.from_a == Some(from_a)).map(point).collect()
        };
        let (to_b, to_a) = (of(true), of(false));
        let span = since(end, start) as f64;
        let bounds = [lowest(&to_b, span, 1.0), lowest(&to_a, span, -1.0)];
        let drift = slope(&bounds, span);
        let slope = drift.map_or(0.0, |(slope, doubt)| if slope.abs() > doubt { slope } else { 0.0 });
        let low = bound(&to_b, slope, 1.0);
        let high = bound(&to_a, slope, -1.0);
        let (ahead, half) = match (low, high) {
            (Some(low), Some(high)) => ((low + high) / 2.0, Some((low - high) / 2.0)),
            (Some(bound), None) | (None, Some(bound)) => (bound, None),
            (None, None) => (0.0, None),
        };
        // Bounds the wrong way round: the way is shorter than what stamps are wrong by.
        let half_rtt = half.map(|half| half.max(0.0) as i64);
        let drifted = drift.map_or(0.0, |(_, doubt)| doubt * span);
        let doubt = half.map(|half| (half.abs() + drifted) as i64);
        let drift = drift.map(|(s, doubt)| (if s.abs() > doubt { -s * 1e6 } else { 0.0 }, doubt * 1e6));
        let transit = |(x, y): &Point, sign: f64| (y - slope * x - ahead) * sign;
        let mut transits: Vec<f64> = to_b.iter().map(|point| transit(point, 1.0)).collect();
        transits.extend(to_a.iter().map(|point| transit(point, -1.0)));
        transits.sort_by(f64::total_cmp);
        let usual_transit = transits.get(transits.len() * 99 / 100).map_or(0, |transit| *transit as i64);
        let ahead = middle.saturating_add(ahead as i64);
        Some(Clock { start, end, ahead, slope, half_rtt, doubt, usual_transit, drift })
    }

    /// A's clock less B's at [`Clock::start`], ns.
    pub fn offset(&self) -> i64 {
        self.ahead.saturating_neg()
    }

    /// A's clock less B's at a time of A.
    pub fn offset_at(&self, a: Nanos) -> i64 {
        self.ahead_at(a).saturating_neg()
    }

    fn ahead_at(&self, a: Nanos) -> i64 {
        self.ahead.saturating_add((self.slope * since(a, self.start) as f64) as i64)
    }

    /// B's time at a time of A.
    pub fn to_b(self, a: Nanos) -> Nanos {
        a.wrapping_add_signed(self.ahead_at(a))
    }

    /// A's time at a time of B.
    pub fn to_a(self, b: Nanos) -> Nanos {
        let back = |near: Nanos| b.wrapping_add_signed(self.ahead_at(near).saturating_neg());
        // Drift over the drift of the first guess is below any clock's resolution.
        back(back(b.wrapping_add_signed(self.ahead.saturating_neg())))
    }

    /// A time of one tap by the other's clock.
    pub fn to_other(self, tap: usize, ts: Nanos) -> Nanos {
        if tap == 0 { self.to_b(ts) } else { self.to_a(ts) }
    }

    /// How long a packet took from A to B, ns; for one that went the other way, the negative of it.
    pub fn transit(&self, a: Nanos, b: Nanos) -> i64 {
        since(b, self.to_b(a))
    }

    /// Shortest way from tap to tap and back, ns.
    pub fn rtt(&self) -> i64 {
        self.half_rtt.map_or(0, |half| half.saturating_mul(2))
    }
}

fn median(mut values: Vec<i64>) -> Option<i64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable(middle).1)
}

/// The extreme point of each window: the lowest if `sign` is 1, the highest if it is -1.
fn lowest(points: &[Point], span: f64, sign: f64) -> Vec<Point> {
    let mut best: Vec<Option<Point>> = vec![None; WINDOWS];
    for &(x, y) in points {
        let window = (x / span.max(1.0) * WINDOWS as f64) as usize;
        let place = &mut best[window.min(WINDOWS - 1)];
        if place.is_none_or(|(_, other)| y * sign < other * sign) {
            *place = Some((x, y));
        }
    }
    best.into_iter().flatten().collect()
}

/// The median slope between far windows of one bound, and how far it can be wrong.
fn slope(bounds: &[Vec<Point>; 2], span: f64) -> Option<(f64, f64)> {
    if span < LEAST_SPAN {
        return None;
    }
    let mut slopes = Vec::new();
    for points in bounds {
        for (i, (x0, y0)) in points.iter().enumerate() {
            let far = points[i + 1..].iter().filter(|(x, _)| x - x0 >= span / 8.0);
            slopes.extend(far.map(|(x, y)| (y - y0) / (x - x0)).filter(|slope| slope.abs() < MOST_SLOPE));
        }
    }
    if slopes.len() < 3 {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let middle = slopes[slopes.len() / 2];
    let spread = slopes[slopes.len() * 3 / 4] - slopes[slopes.len() / 4];
    let windows = bounds.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    // Extremes gather at the bound, so that what the median is wrong by falls with their number, not its root. And no
    // clock is read better than to a microsecond.
    Some((middle, 3.0 * spread / windows + 1e3 / span))
}

/// The bound of one direction's points after the slope is taken off; a few that lie far below all others are
/// mistaken pairs.
fn bound(points: &[Point], slope: f64, sign: f64) -> Option<f64> {
    let mut values: Vec<f64> = points.iter().map(|(x, y)| (y - slope * x) * sign).collect();
    values.sort_by(f64::total_cmp);
    let least = *values.first()?;
    if values.len() < ENOUGH {
        return Some(least * sign);
    }
    let (low, middle) = (values[values.len() / 8], values[values.len() / 2]);
    let floor = low - 20.0 * (middle - low) - 2e6;
    values.into_iter().find(|value| *value >= floor).map(|value| value * sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: u64 = 1_760_000_000_000_000_000;

    /// `n` packets each way, `gap` ns apart; B is ahead by `ahead` and by `ppm`; each way takes 5 ms and jitter.
    fn pairs(n: u64, gap: u64, ahead: i64, ppm: f64) -> Vec<Pair> {
        let pair = |i: u64| {
            let jitter = (i * 7919 % 13) * 100_000;
            let (t, way) = (T0 + i * gap, 5_000_000 + jitter);
            let b = |t: u64| t.wrapping_add_signed(ahead + ((t - T0) as f64 * ppm / 1e6) as i64);
            if i.is_multiple_of(2) {
                Pair { a: t, b: b(t + way), from_a: Some(true) }
            } else {
                Pair { a: t + way, b: b(t), from_a: Some(false) }
            }
        };
        (0..n).map(pair).collect()
    }

    #[test]
    fn offset_from_microseconds_to_days() {
        for ahead in [0, -37_000_000, 8_000, 5_000_000_000, -4 * 86_400_000_000_000] {
            for n in [2, 10, 1000] {
                let clock = Clock::fit(&pairs(n, 20_000_000, ahead, 0.0)).unwrap();
                let half = clock.half_rtt.unwrap();
                assert!((clock.offset() + ahead).abs() <= 1_200_000, "{ahead} {n}: {clock:?}");
                assert!((5_000_000..6_300_000).contains(&half), "{half}");
            }
        }
    }

    #[test]
    fn drift_of_tens_of_ppm() {
        for ppm in [-80.0, -12.5, 30.0, 100.0] {
            let clock = Clock::fit(&pairs(4000, 50_000_000, 3_000_000_000, ppm)).unwrap();
            let (found, doubt) = clock.drift.unwrap();
            assert!((found + ppm).abs() < 2.0 && doubt < 5.0, "{ppm}: {clock:?}");
            assert!((clock.offset() + 3_000_000_000).abs() < 1_000_000, "{clock:?}");
            let late = T0 + 199_000_000_000;
            let b = clock.to_b(late);
            assert!(since(clock.to_a(b), late).abs() < 1000);
        }
        let (found, doubt) = Clock::fit(&pairs(4000, 50_000_000, 0, 0.0)).unwrap().drift.unwrap();
        assert!(found.abs() <= doubt && doubt < 3.0, "{found} {doubt}");
    }

    #[test]
    fn one_way_is_not_sure_and_nothing_is_nothing() {
        let one: Vec<Pair> = pairs(100, 1_000_000, 7, 0.0).into_iter().step_by(2).collect();
        let clock = Clock::fit(&one).unwrap();
        assert_eq!((clock.half_rtt, clock.drift), (None, None));
        assert!(Clock::fit(&[]).is_none());
        let wild = [Pair { a: 0, b: u64::MAX, from_a: Some(true) }, Pair { a: u64::MAX, b: 0, from_a: None }];
        assert!(Clock::fit(&wild).is_some());
    }

    #[test]
    fn one_mistaken_pair_does_not_move_it() {
        let mut all = pairs(200, 10_000_000, 0, 0.0);
        let wrong = all[50].a - 900_000_000;
        all.push(Pair { a: all[50].a, b: wrong, from_a: Some(true) });
        let clock = Clock::fit(&all).unwrap();
        assert!(clock.offset().abs() < 1_000_000, "{clock:?}");
    }
}
