//! What was sent twice and what was skipped, told apart by what was seen before: Referee's own reading, which
//! findings, rules and the stuck segment go by. Wireshark's, in `sequence`, goes by time alone: a repeat soon after
//! newer data is "out of order" there, and a probe's byte that was accepted a lost segment. Worker's thread; plain
//! values, called only for a segment that is not the next in line.
//!
//! What is skipped is remembered as a hole, [`HOLES`] a direction; a further one takes the oldest's place. What
//! starts in a hole is late or was lost before the capture point, what starts elsewhere is a repeat.

use super::sequence::{FAST_RETRANSMISSION_WITHIN, KEEPALIVE, Marks, ZERO_WINDOW_PROBE, round_trip, span};
use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{before, dir_flag};
use crate::flow::trouble::{DirectionTrouble, HOLES, Hole};
use crate::source::Nanos;

/// What the segment is in Referee's own reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Repeat {
    #[default]
    No,
    /// Sequence space before it was skipped.
    Gap,
    /// It was overtaken.
    OutOfOrder,
    Retransmission,
    /// Sent again because of duplicate ACKs.
    Fast,
    /// Sent again though it was acknowledged.
    Spurious,
}

impl Repeat {
    pub(super) fn is_retransmission(self) -> bool {
        matches!(self, Repeat::Retransmission | Repeat::Fast | Repeat::Spurious)
    }
}

/// What the segment is, as far as it can be told without the holes: `Gap`, `Retransmission` or `No`.
pub(super) fn first_look(flow: &Flow, dir: usize, tcp: &Tcp, marks: Marks) -> Repeat {
    let own = &flow.dirs[dir];
    if !own.has(dir_flag::SEQ) || tcp.flags & flags::RST != 0 {
        return Repeat::No;
    }
    let ahead = tcp.seq.wrapping_sub(own.next_seq) as i32;
    if ahead > 0 {
        return Repeat::Gap;
    }
    // The byte of a keepalive, or of a probe that now goes at the head of a full segment.
    let again = marks & (KEEPALIVE | ZERO_WINDOW_PROBE) != 0 || ahead == -1 && tcp.payload > 1;
    if ahead == 0 || span(tcp) == 0 || again { Repeat::No } else { Repeat::Retransmission }
}

/// The same, knowing the holes, which it keeps; counts it.
pub(super) fn judge(
    flow: &Flow,
    trouble: &mut DirectionTrouble,
    dir: usize,
    packet: &Packet,
    first_look: Repeat,
    now: Nanos,
) -> Repeat {
    let (own, tcp) = (&flow.dirs[dir], &packet.tcp);
    let mut filled = false;
    let repeat = match first_look {
        Repeat::Gap => {
            skip(trouble, Hole { start: own.next_seq, end: tcp.seq, since_us: us(now) });
            Repeat::Gap
        }
        Repeat::Retransmission => {
            let skipped = fill(trouble, tcp.seq, tcp.seq.wrapping_add(span(tcp)));
            filled = skipped.is_some();
            let late = skipped.map(|since| Nanos::from(us(now).wrapping_sub(since)) * 1000);
            kind(flow, dir, tcp, late, now)
        }
        other => other,
    };
    let count = &mut trouble.own;
    let add = |count: &mut u32, found: bool| *count = count.saturating_add(u32::from(found));
    add(&mut count.lost_segment, repeat == Repeat::Gap);
    add(&mut count.out_of_order, repeat == Repeat::OutOfOrder);
    add(&mut count.retransmission, repeat.is_retransmission());
    add(&mut count.fast_retransmission, repeat == Repeat::Fast);
    add(&mut count.spurious_retransmission, repeat == Repeat::Spurious);
    add(&mut count.filled, filled && repeat.is_retransmission());
    repeat
}

/// `late`: it was skipped before, so long ago, ns.
fn kind(flow: &Flow, dir: usize, tcp: &Tcp, late: Option<Nanos>, now: Nanos) -> Repeat {
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    let acked = flow.acked(dir ^ 1);
    let end = tcp.seq.wrapping_add(tcp.payload);
    if late.is_none() && tcp.payload > 0 && acked.is_some_and(|acked| !before(acked, end)) {
        return Repeat::Spurious;
    }
    // Duplicate ACKs need a round trip to bring anything about, wherever the capture point is: what fills a gap
    // sooner was on its way already. A quarter of it is left to jitter.
    let round_trip = round_trip(flow);
    if late.is_some_and(|ago| ago < round_trip - round_trip / 4) {
        return Repeat::OutOfOrder;
    }
    // It comes at once where the capture is the sender's, a round trip later where it is the receiver's.
    let answers = other.dup_acks >= 2 && acked == Some(tcp.seq);
    let within = FAST_RETRANSMISSION_WITHIN.saturating_add(round_trip);
    if answers && now.wrapping_sub(other.last_ns) < within {
        return Repeat::Fast;
    }
    let soon = now.wrapping_sub(own.advanced_ns()) < round_trip;
    if late.is_some() && soon { Repeat::OutOfOrder } else { Repeat::Retransmission }
}

fn skip(trouble: &mut DirectionTrouble, hole: Hole) {
    let at = trouble.next_hole as usize % HOLES;
    trouble.next_hole = (at as u32 + 1) % HOLES as u32;
    if let Some(oldest) = trouble.holes.get_mut(at) {
        *oldest = hole;
    }
}

/// Packet time in µs, modulo 2^32.
fn us(now: Nanos) -> u32 {
    (now / 1000) as u32
}

/// Takes [start, end) out of the holes; if its first byte was in one, when that was skipped.
fn fill(trouble: &mut DirectionTrouble, start: u32, end: u32) -> Option<u32> {
    let (mut late, mut rest) = (None, None);
    for hole in &mut trouble.holes {
        if !before(start, hole.end) || !before(hole.start, end) {
            continue;
        }
        if !before(start, hole.start) {
            late = Some(hole.since_us);
        }
        match (before(hole.start, start), before(end, hole.end)) {
            (true, true) => {
                rest = Some(Hole { start: end, ..*hole });
                hole.end = start;
            }
            (true, false) => hole.end = start,
            (false, true) => hole.start = end,
            (false, false) => *hole = Hole::default(),
        }
    }
    if let Some(rest) = rest {
        skip(trouble, rest);
    }
    late
}
