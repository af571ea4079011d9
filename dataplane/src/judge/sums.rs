//! Counts added up and taken away again, side by side so that the compiler does several at a time.
//! Runs on the judge's thread; pure functions. The sums are `window`'s.

use rules::facts::Counts;

use super::window::LONGEST;

/// Most of a kind that a bucket tells of, 71 million a second: no window overflows, and none subtracts what it had not
/// added.
const FULL: u32 = u32::MAX / (LONGEST as u32 + 1);

/// Each sum with the count that goes into it. In the order in which they lie in memory: so they are added several at
/// a time.
#[inline(always)]
fn each(sums: &mut Counts, counts: &Counts, into: impl Fn(u32, u32) -> u32) {
    sums.syns = into(sums.syns, counts.syns);
    sums.established = into(sums.established, counts.established);
    sums.syn_unanswered = into(sums.syn_unanswered, counts.syn_unanswered);
    sums.refused = into(sums.refused, counts.refused);
    sums.rsts = into(sums.rsts, counts.rsts);
    sums.flows_reset = into(sums.flows_reset, counts.flows_reset);
    sums.unfinished = into(sums.unfinished, counts.unfinished);
    sums.unfinished_repeated = into(sums.unfinished_repeated, counts.unfinished_repeated);
    sums.recovered = into(sums.recovered, counts.recovered);
    sums.closed = into(sums.closed, counts.closed);
    sums.cuts = into(sums.cuts, counts.cuts);
    sums.refusals = into(sums.refusals, counts.refusals);
    sums.client_cuts = into(sums.client_cuts, counts.client_cuts);
}

#[inline]
pub fn add(sums: &mut Counts, counts: &Counts) {
    each(sums, counts, u32::wrapping_add);
}

#[inline]
pub fn subtract(sums: &mut Counts, counts: &Counts) {
    each(sums, counts, u32::wrapping_sub);
}

#[inline]
pub fn accumulate(into: &mut Counts, counts: &Counts) {
    each(into, counts, |sum, count| sum.saturating_add(count).min(FULL));
    let ([first, last], [from, to]) = (into.rst_at, counts.rst_at);
    into.rst_at = [if first == 0 || from == 0 { first.max(from) } else { first.min(from) }, last.max(to)];
}
