//! One side waits for the other: for any answer at all, or for room in its window. Worker's thread; plain values,
//! changes only when the flow's sides wait, and its count of checks. When it lasts, the clock raises `stalled`.
//!
//! An answer is any segment but a RST. A wait counts from the second send on: a single one may have been
//! answered past this capture point, but then nobody would repeat it.

use rules::event::Event;

use super::Outcome;
use super::repeats::Repeat;
use super::sequence::{ACK_LOST_SEGMENT, KEEPALIVE, Marks};
use crate::decode::{Packet, flags};
use crate::flow::Flow;
use crate::flow::record::{dir_flag, flow_flag, sign};
use crate::flow::trouble::TroubleSlab;
use crate::source::Nanos;

/// `stalled` is raised after 5, 10, 20, 40 s whatever comes; and every 40 s from then on, which keeps an incident open, as
/// long as there are attempts.
const FIRST_CHECK_MS: u32 = 5000;
const DOUBLED: u8 = 3;
/// The last is made after 2,560 s.
const CHECKS: u8 = 67;
/// A timer that doubles waits about as long again as it has waited, 120 s at most on Linux, 64 s on BSD; and some room,
/// ms. Who has been silent for longer has stopped trying.
const PATIENCE_MS: u64 = 130_000;
/// No sender waits longer than this before its first repeat (RFC 6298: 1 s, or a multiple of the round trip),
/// ms; what is repeated later was answered in between, unseen.
const FIRST_REPEAT_MS: u32 = 10_000;

/// New data after two repeats, the first of which may be a probe (RFC 8985 §7.3): the timer had run out, and nobody sends
/// more then before an acknowledgement came (RFC 5681 §3.1), seen here or not.
const ANSWERED_UNSEEN: u8 = 3;

/// Packet time in ms, modulo 2^32 and never 0.
#[inline(always)]
pub(super) fn ms(now: Nanos) -> u32 {
    ((now / 1_000_000) as u32).max(1)
}

/// Follows both waits through one more segment.
#[inline(always)]
pub(super) fn follow(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    packet: &Packet,
    (marks, repeat): (Marks, Repeat),
    now: Nanos,
    out: &mut Outcome,
) {
    let tcp = &packet.tcp;
    if tcp.flags & flags::RST != 0 {
        return;
    }
    let other = &mut flow.dirs[dir ^ 1];
    if other.waiting_ms != 0 {
        if other.unanswered_sends > 1 && ms(now).wrapping_sub(other.waiting_ms) >= FIRST_CHECK_MS {
            answered(flow, dir ^ 1, now, out);
        }
        let other = &mut flow.dirs[dir ^ 1];
        (other.waiting_ms, other.unanswered_sends) = (0, 0);
    }
    if flow.dirs[dir ^ 1].shows(sign::CLOSED) && tcp.payload > 1 {
        sends_into_closed(flow, dir, packet, now, out);
    }
    let own = &mut flow.dirs[dir];
    if marks & ACK_LOST_SEGMENT != 0 {
        // It acknowledges what was never seen here: the other side speaks past this capture point.
        if own.unanswered_sends > 1 {
            out.answered_unseen = true;
            out.events.insert(Event::Disproved);
        }
        (own.waiting_ms, own.unanswered_sends) = (0, 0);
    } else if own.waiting_ms == 0 && (tcp.payload > 0 || marks & KEEPALIVE != 0) {
        (own.waiting_ms, own.unanswered_sends) = (ms(now), 1);
    } else if repeat.is_retransmission() || marks & KEEPALIVE != 0 {
        again(flow, dir, marks, now, out);
    } else if own.unanswered_sends >= ANSWERED_UNSEEN && tcp.payload > 0 && repeat == Repeat::No {
        (own.waiting_ms, own.unanswered_sends) = (ms(now), 1);
    }
    if marks & KEEPALIVE != 0 {
        keepalive(flow, slab, dir, now);
    }
    let closed = tcp.window == 0 && tcp.flags & (flags::SYN | flags::FIN) == 0;
    if closed != flow.dirs[dir].shows(sign::CLOSED) {
        window_changed(flow, dir, closed, now, out);
    } else if closed {
        go_on(flow, now, out);
    }
}

/// The same for a segment that sends nothing again and finds nobody waiting for long.
#[inline(always)]
pub(super) fn ordinary(flow: &mut Flow, dir: usize, data: bool, now: Nanos) {
    let other = &mut flow.dirs[dir ^ 1];
    (other.waiting_ms, other.unanswered_sends) = (0, 0);
    let own = &mut flow.dirs[dir];
    if data && own.waiting_ms == 0 {
        (own.waiting_ms, own.unanswered_sends) = (ms(now), 1);
    }
}

/// Something sent before is sent again, and nothing came back yet.
#[cold]
fn again(flow: &mut Flow, dir: usize, marks: Marks, now: Nanos, out: &mut Outcome) {
    let own = &mut flow.dirs[dir];
    if own.waiting_ms == 0 {
        return;
    }
    let first = own.unanswered_sends == 1;
    if first && marks & KEEPALIVE == 0 && ms(now).wrapping_sub(own.waiting_ms) > FIRST_REPEAT_MS {
        own.waiting_ms = ms(now);
        return;
    }
    own.unanswered_sends = own.unanswered_sends.saturating_add(1);
    if own.unanswered_sends == 2 {
        begin(flow, now, out);
    } else {
        go_on(flow, now, out);
    }
}

/// The time between keepalives.
#[cold]
fn keepalive(flow: &mut Flow, slab: &mut TroubleSlab, dir: usize, now: Nanos) {
    let into_closed = flow.dirs[dir ^ 1].is_closed();
    let Some(trouble) = slab.get_mut(flow.trouble) else { return };
    let notes = &mut trouble.notes[dir];
    if into_closed {
        return;
    }
    if notes.keepalive_ms != 0 {
        notes.keepalive_every_ms = ms(now).wrapping_sub(notes.keepalive_ms);
    }
    notes.keepalive_ms = ms(now);
}

#[cold]
fn answered(flow: &Flow, dir: usize, now: Nanos, out: &mut Outcome) {
    out.waited_ms = ms(now).wrapping_sub(flow.dirs[dir].waiting_ms);
    out.events.insert(Event::Stalled);
}

#[cold]
fn window_changed(flow: &mut Flow, dir: usize, closed: bool, now: Nanos, out: &mut Outcome) {
    flow.dirs[dir].signs ^= sign::CLOSED;
    let own = &mut flow.senders[dir];
    if closed {
        own.closed_ms = ms(now);
        begin(flow, now, out);
    } else {
        let lasted = ms(now).wrapping_sub(own.closed_ms);
        own.closed_ms = 0;
        if lasted >= FIRST_CHECK_MS {
            out.reopened_ms = lasted;
            out.events.insert(Event::Stalled);
        }
    }
}

/// New data, more than a probe, though the other side's window was last seen closed, and longer ago than anything
/// could be on its way: the sender knows that it is open.
#[cold]
fn sends_into_closed(flow: &mut Flow, dir: usize, packet: &Packet, now: Nanos, out: &mut Outcome) {
    let fresh = flow.dirs[dir].has(dir_flag::SEQ) && packet.tcp.seq == flow.dirs[dir].next_seq;
    let peer = &mut flow.senders[dir ^ 1];
    if fresh && ms(now).wrapping_sub(peer.closed_ms) >= FIRST_CHECK_MS {
        peer.closed_ms = 0;
        flow.dirs[dir ^ 1].signs &= !sign::CLOSED;
        out.opened_unseen = true;
        out.events.insert(Event::Disproved);
    }
}

/// A wait begins, or is found to have begun: the clock is to look at it.
fn begin(flow: &mut Flow, now: Nanos, out: &mut Outcome) {
    flow.rare.stall_checks = 0;
    go_on(flow, now, out);
    out.rearm |= since(flow).is_some();
}

/// Another attempt: checks that had ceased are taken up again.
#[cold]
fn go_on(flow: &mut Flow, now: Nanos, out: &mut Outcome) {
    let Some(since) = since(flow) else { return };
    let lasted = now.saturating_sub(since) / 1_000_000;
    while flow.rare.stall_checks < CHECKS && check_ms(flow.rare.stall_checks) < lasted {
        flow.rare.stall_checks += 1;
    }
    out.rearm |= flow.rare.stall_checks > DOUBLED;
}

/// When a wait is looked at, ms after it began.
fn check_ms(check: u8) -> u64 {
    let doubled = u64::from(FIRST_CHECK_MS) << check.min(DOUBLED);
    doubled * u64::from(check.saturating_sub(DOUBLED - 1).max(1))
}

/// When the longest wait of a living connection began, packet time.
fn since(flow: &Flow) -> Option<Nanos> {
    if !flow.has(flow_flag::ESTABLISHED) || flow.has(flow_flag::CLOSED) {
        return None;
    }
    let last = flow.last_ns / 1_000_000;
    let begun = |since_ms: u32| last.saturating_sub(u64::from((last as u32).wrapping_sub(since_ms)));
    let waits = |dir: usize| {
        let (own, peer) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
        let unanswered = own.unanswered_sends > 1 && peer.has(dir_flag::ACK);
        let unanswered = unanswered.then(|| begun(own.waiting_ms));
        let closed = own.shows(sign::CLOSED).then(|| begun(flow.senders[dir].closed_ms));
        unanswered.into_iter().chain(closed).min()
    };
    waits(0).into_iter().chain(waits(1)).min().map(|ms| ms * 1_000_000)
}

impl Flow {
    /// When `stalled` is to be raised next; never, if the last time found that nobody tries any more.
    pub fn next_stall_check(&self) -> Option<Nanos> {
        let (since, check) = (since(self)?, self.rare.stall_checks);
        let tried = self.last_ns.saturating_sub(since) / 1_000_000;
        let gave_up = tried + (tried + tried / 2).min(PATIENCE_MS);
        let looks = check <= DOUBLED || check < CHECKS && check_ms(check - 1) <= gave_up;
        looks.then(|| since.saturating_add(check_ms(check) * 1_000_000))
    }

    /// How long `dir` has sent without any answer, ms; 0 if it isn't waiting, or if nothing can be said because
    /// the other side was never seen.
    pub fn unanswered_ms(&self, dir: usize, now: Nanos) -> u32 {
        let own = &self.dirs[dir];
        let known = own.waiting_ms != 0 && self.dirs[dir ^ 1].has(dir_flag::ACK);
        if known { ms(now).wrapping_sub(own.waiting_ms) } else { 0 }
    }

    /// How long `dir` has advertised a closed window, ms; 0 if it is open.
    pub fn window_closed_ms(&self, dir: usize, now: Nanos) -> u32 {
        let since = self.senders[dir].closed_ms;
        if since == 0 { 0 } else { ms(now).wrapping_sub(since) }
    }
}
