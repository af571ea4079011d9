//! A clock that was set while it stamped: from one packet to the next, what goes from A to B and what comes back are
//! off by the same. Plain arithmetic on pairs of time stamps; whoever asked takes the steps out and begins again.

use dataplane::source::Nanos;

/// Clocks may gain this on each other, in ns of a ns.
const GAIN: f64 = 2e-3;
/// Smaller steps are not told from queues that fill, ns.
const LEAST: i64 = 5_000_000;
/// The same where all packets go one way.
const LEAST_ONE_WAY: i64 = 1_000_000_000;
/// Packets of a direction looked at before and after; and how many must be there.
const LOOK: usize = 9;
const NEEDED: usize = 3;
/// The same for measuring a step that is known.
const MEASURED: usize = 400;
/// Packets before the first that shows a step, among which it may have been.
const UNSEEN: usize = 256;
/// Steps beyond this are not taken out.
const MOST: usize = 64;

/// A packet's two stamps.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Its place in B's file.
    pub place: u32,
    pub a: Nanos,
    pub b: Nanos,
    pub from_a: bool,
}

/// B's clock less A's grows by this from a place in B's file on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub place: u32,
    pub by: i64,
    /// What that can be wrong by.
    pub doubt: i64,
}

impl Stamp {
    fn ahead(&self) -> i64 {
        self.b.wrapping_sub(self.a) as i64
    }
}

/// Finds the steps, in B's order.
pub fn find(stamps: &mut [Stamp]) -> Vec<Step> {
    stamps.sort_unstable_by_key(|stamp| stamp.place);
    let ways = [false, true].map(|from_a| -> Vec<Stamp> {
        stamps.iter().filter(|stamp| stamp.from_a == from_a).copied().collect()
    });
    let mut steps: Vec<Step> = Vec::new();
    for stamp in stamps.iter() {
        let own = &ways[usize::from(stamp.from_a)];
        let here = own.partition_point(|other| other.place < stamp.place);
        let Some(before) = here.checked_sub(1).and_then(|i| own.get(i)) else { continue };
        let apart = stamp.a.abs_diff(before.a).min(stamp.b.abs_diff(before.b));
        let grown = stamp.ahead().saturating_sub(before.ahead());
        if grown.unsigned_abs() as f64 <= LEAST as f64 + apart as f64 * GAIN {
            continue;
        }
        let Some(by) = step_at(&ways, stamp) else { continue };
        let (by, doubt) = measured(&ways, stamp.place).unwrap_or((by, by.abs() / 5));
        // The same one is seen again from the other direction's next packet.
        if steps.last().is_some_and(|last| !far_apart(&ways, last.place, stamp.place)) {
            continue;
        }
        steps.push(Step { place: stamp.place, by, doubt });
        if steps.len() == MOST {
            break;
        }
    }
    steps
}

/// The step, from the shortest ways before and after it.
fn measured(ways: &[Vec<Stamp>; 2], place: u32) -> Option<(i64, i64)> {
    let [to_a, to_b] = ways;
    let around = |way: &[Stamp]| -> Option<[Vec<i64>; 2]> {
        let at = way.partition_point(|stamp| stamp.place < place);
        let parts = [way.get(at.saturating_sub(MEASURED)..at)?, way.get(at..way.len().min(at + MEASURED))?];
        Some(parts.map(|part| part.iter().map(Stamp::ahead).collect()))
    };
    let (lows, highs) = (around(to_b)?, around(to_a)?);
    let bounds = [0, 1].map(|i: usize| Some((*lows[i].iter().min()?, *highs[i].iter().max()?)));
    let [Some((low, high)), Some((low_after, high_after))] = bounds else { return None };
    let middle = |low: i64, high: i64| i128::from(low) + i128::from(high);
    let by = (middle(low_after, high_after) - middle(low, high)) / 2;
    let doubt = low.saturating_sub(high).saturating_abs() / 2
        + low_after.saturating_sub(high_after).saturating_abs() / 2;
    Some((i64::try_from(by).ok()?, doubt))
}

/// Moves a step to where B's own stamps show it, if it is B's clock that was set.
pub fn refine(step: &mut Step, stamps: impl Fn(usize) -> Option<Nanos>) {
    let place = step.place as usize;
    let grown = |at: usize| Some(stamps(at)?.wrapping_sub(stamps(at.checked_sub(1)?)?) as i64);
    let here = (place.saturating_sub(UNSEEN)..=place)
        .filter_map(|at| Some((grown(at)?.abs_diff(step.by), at)))
        .min()
        .filter(|(off, _)| *off <= step.by.unsigned_abs() / 2);
    step.place = here.map_or(step.place, |(_, at)| at as u32);
}

/// At least as many packets lie between two places as are needed to tell steps apart.
fn far_apart(ways: &[Vec<Stamp>; 2], from: u32, to: u32) -> bool {
    ways.iter().any(|way| {
        let at = |place: u32| way.partition_point(|stamp| stamp.place < place);
        at(to) - at(from) > LOOK
    })
}

/// By how much all directions are off from here on.
fn step_at(ways: &[Vec<Stamp>; 2], stamp: &Stamp) -> Option<i64> {
    let jumps: Vec<i64> = ways.iter().filter_map(|way| jump(way, stamp.place)).collect();
    match jumps[..] {
        [one] if one.abs() >= LEAST_ONE_WAY => Some(one),
        [one, other] => {
            let least = one.abs().min(other.abs());
            let alike = one.signum() == other.signum() && one.abs_diff(other) <= (least / 5) as u64;
            (alike && least >= LEAST).then(|| one.saturating_add(other.saturating_sub(one) / 2))
        }
        _ => None,
    }
}

/// By how much the medians of one direction before and after a place differ.
fn jump(way: &[Stamp], place: u32) -> Option<i64> {
    let at = way.partition_point(|stamp| stamp.place < place);
    let before = way.get(at.saturating_sub(LOOK)..at)?;
    let after = way.get(at..way.len().min(at + LOOK))?;
    let (last, next) = (before.last()?, after.first()?);
    let gained = last.a.abs_diff(next.a).min(last.b.abs_diff(next.b)) as f64 * GAIN;
    let jump = median(after)?.saturating_sub(median(before)?);
    (before.len() >= NEEDED && after.len() >= NEEDED && jump.unsigned_abs() as f64 > gained).then_some(jump)
}

fn median(stamps: &[Stamp]) -> Option<i64> {
    let mut ahead: Vec<i64> = stamps.iter().map(Stamp::ahead).collect();
    ahead.sort_unstable();
    ahead.get(ahead.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets each way every 10 ms; `step` in the middle; what comes back is slower by `queue` then.
    fn stamps(step: i64, queue: u64, one_way: bool) -> Vec<Stamp> {
        let stamp = |i: u32| {
            let t = 1_000_000_000_000 + u64::from(i) * 10_000_000;
            let way = 2_000_000 + u64::from(i * 7919 % 13) * 50_000;
            let from_a = one_way || i.is_multiple_of(2);
            let way = if i >= 500 && !from_a { way + queue } else { way };
            let (a, b) = if from_a { (t, t + way) } else { (t + way, t) };
            let by = if i >= 500 { step } else { 0 };
            Stamp { place: i, a, b: b.wrapping_add_signed(by), from_a }
        };
        (0..1000).map(stamp).collect()
    }

    #[test]
    fn one_step_is_found_where_it_is() {
        for step in [10_000_000, -700_000_000, 3_600_000_000_000] {
            let found = find(&mut stamps(step, 0, false));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                (498..503).contains(&found[0].place) && (found[0].by - step).abs() < 1_000_000,
                "{found:?}"
            );
        }
        assert_eq!(find(&mut stamps(5_000_000_000, 0, true)).len(), 1);
    }

    #[test]
    fn a_queue_is_no_step() {
        for queue in [0, 50_000_000, 900_000_000] {
            assert_eq!(find(&mut stamps(0, queue, false)), []);
        }
        assert_eq!(find(&mut stamps(0, 300_000_000, true)), []);
    }
}
