//! Sequence space, with the meaning of `tcp.analysis.*` in Wireshark 4.0.17: the tests of its dissector's
//! `tcp_analyze_sequence_number`, in their order, on the state that it keeps for them (its list of segments in
//! flight decides none of them). Worker's thread; plain values.
//!
//! What differs, and why, is in docs/tshark-differences.md. Findings and rules ask `repeats` besides.

use rules::event::{Event, EventSet};

use super::repeats::{self, Repeat};
use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{DUP_ACKS_UNSEEN, LARGE, before, dir_flag, scale, sign};
use crate::flow::trouble::TroubleSlab;
use crate::source::Nanos;

/// What a segment was found to be; a set of bits.
pub(super) type Marks = u16;

pub(super) const NOTHING: Marks = 0;
pub(super) const RETRANSMISSION: Marks = 1;
pub(super) const FAST_RETRANSMISSION: Marks = 1 << 1;
pub(super) const SPURIOUS_RETRANSMISSION: Marks = 1 << 2;
pub(super) const OUT_OF_ORDER: Marks = 1 << 3;
pub(super) const DUPLICATE_ACK: Marks = 1 << 4;
pub(super) const LOST_SEGMENT: Marks = 1 << 5;
pub(super) const ACK_LOST_SEGMENT: Marks = 1 << 6;
pub(super) const ZERO_WINDOW: Marks = 1 << 7;
pub(super) const WINDOW_FULL: Marks = 1 << 8;
pub(super) const ZERO_WINDOW_PROBE: Marks = 1 << 9;
pub(super) const ZERO_WINDOW_PROBE_ACK: Marks = 1 << 10;
pub(super) const KEEPALIVE: Marks = 1 << 11;
pub(super) const KEEPALIVE_ACK: Marks = 1 << 12;
pub(super) const WINDOW_UPDATE: Marks = 1 << 13;
/// It acknowledges more than was seen to be sent; counted only if it is an [`ACK_LOST_SEGMENT`] too.
const ACK_BEYOND: Marks = 1 << 14;

const SYN_FIN_RST: u8 = flags::SYN | flags::FIN | flags::RST;
/// A resend this soon after the second duplicate ACK answers it.
pub(super) const FAST_RETRANSMISSION_WITHIN: Nanos = 20_000_000;
/// Reordering is taken to be shorter than the round trip; this stands in while that is not known.
const REORDERING_WITHIN: Nanos = 3_000_000;

/// Sequence space a segment takes.
#[inline(always)]
pub(super) fn span(tcp: &Tcp) -> u32 {
    tcp.payload.wrapping_add(u32::from(tcp.flags & (flags::SYN | flags::FIN) != 0))
}

/// The initial round trip, or what stands in for it, ns.
pub(super) fn round_trip(flow: &Flow) -> Nanos {
    if flow.rare.first_rtt_ns == 0 { REORDERING_WITHIN } else { flow.rare.first_rtt_ns }
}

/// Compares a segment with what its flow has seen. Changes nothing.
#[inline]
pub(super) fn read(flow: &Flow, dir: usize, tcp: &Tcp, now: Nanos) -> Marks {
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    let plain = tcp.flags & SYN_FIN_RST == 0;
    let ahead = tcp.seq.wrapping_sub(own.expected) as i32;
    let mut marks = NOTHING;
    if tcp.payload == 1 && ahead == 0 && other.window == 0 && other.has(dir_flag::WINDOW) {
        marks |= ZERO_WINDOW_PROBE;
    } else {
        if tcp.window == 0 && plain {
            marks |= ZERO_WINDOW;
        }
        if ahead > 0 && own.expected != 0 && tcp.flags & flags::RST == 0 {
            marks |= LOST_SEGMENT;
        }
        if ahead == -1 && tcp.payload <= 1 && plain {
            marks |= KEEPALIVE;
        }
        if plain && tcp.payload > 0 {
            marks |= if fills_window(flow, dir, tcp) { WINDOW_FULL } else { NOTHING };
        } else if plain && ahead == 0 && tcp.ack == own.last_ack {
            marks |= same_ack(flow, dir, tcp);
        }
    }
    let continuous = flow.continuous(dir ^ 1);
    if tcp.flags & flags::ACK != 0 && continuous != 0 && before(continuous, tcp.ack) {
        marks |= ack_beyond(flow, dir);
    }
    let end = tcp.seq.wrapping_add(tcp.payload);
    if tcp.payload > 0 && marks & KEEPALIVE == 0 && other.last_ack != 0 && !before(other.last_ack, end) {
        marks |= RETRANSMISSION | SPURIOUS_RETRANSMISSION;
    } else if ahead < 0 && span(tcp) > 0 && marks & KEEPALIVE == 0 {
        marks |= repeated(flow, dir, tcp, marks, now);
    }
    marks
}

/// The segment fills the other side's window to its edge. The window counts if its scale is known.
#[inline(always)]
pub(super) fn fills_window(flow: &Flow, dir: usize, tcp: &Tcp) -> bool {
    let other = &flow.dirs[dir ^ 1];
    let known = other.scale & scale::MASK != scale::UNKNOWN && other.has(dir_flag::WINDOW);
    let edge = other.last_ack.wrapping_add(flow.scaled_window(dir ^ 1));
    known && tcp.seq.wrapping_add(tcp.payload) == edge
}

/// A segment with no data and no news but, perhaps, of the window.
#[inline(always)]
fn same_ack(flow: &Flow, dir: usize, tcp: &Tcp) -> Marks {
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    let same = tcp.window == own.window && own.has(dir_flag::WINDOW);
    match (tcp.window, same) {
        (0, true) if other.has(dir_flag::WINDOW_PROBE) => ZERO_WINDOW_PROBE_ACK,
        (0, _) => NOTHING,
        (_, false) => WINDOW_UPDATE,
        (_, true) if other.has(dir_flag::KEEPALIVE) => KEEPALIVE_ACK,
        (_, true) => DUPLICATE_ACK,
    }
}

/// More is acknowledged than was seen without a gap. That is told once: while the other side has sent more since,
/// or unless it has sent nothing but duplicate ACKs.
#[cold]
fn ack_beyond(flow: &Flow, dir: usize) -> Marks {
    let other = &flow.dirs[dir ^ 1];
    let first = before(flow.continuous(dir ^ 1), other.expected) || other.dup_acks == 0;
    if first { ACK_BEYOND | ACK_LOST_SEGMENT } else { ACK_BEYOND }
}

/// The segment starts in space already sent: which kind of repeat is it?
#[cold]
fn repeated(flow: &Flow, dir: usize, tcp: &Tcp, marks: Marks, now: Nanos) -> Marks {
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    // One byte of a window probe may be sent again at the head of a full segment.
    if own.expected == 0 || tcp.payload > 1 && tcp.seq.wrapping_add(1) == own.expected {
        return NOTHING;
    }
    // What acknowledges the unseen unsettles the count of duplicates.
    let unseen = marks & ACK_BEYOND != 0 && !before(flow.continuous(dir ^ 1), other.expected);
    let since_ack = now.wrapping_sub(other.last_ns);
    if (unseen || other.dup_acks >= 2) && other.last_ack == tcp.seq && since_ack < FAST_RETRANSMISSION_WITHIN
    {
        return RETRANSMISSION | FAST_RETRANSMISSION;
    }
    let soon = now.wrapping_sub(own.advanced_ns()) < round_trip(flow);
    if soon && own.expected != tcp.seq.wrapping_add(span(tcp)) { OUT_OF_ORDER } else { RETRANSMISSION }
}

/// Counts what was found and says which events it raises; tells what the segment is in Referee's own reading.
#[cold]
pub(super) fn count(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    marks: Marks,
    packet: &Packet,
    now: Nanos,
    events: &mut EventSet,
) -> Repeat {
    let closed_window = flow.dirs[dir ^ 1].is_closed();
    let mut repeat = repeats::first_look(flow, dir, &packet.tcp, marks);
    // Options cut off by the capture: Wireshark gives up on them before it shows what it found.
    let shown = if packet.tcp.options.cut { NOTHING } else { marks };
    if shown & WINDOW_UPDATE != 0 {
        let updates = &mut flow.rare.window_updates[dir];
        *updates = updates.saturating_add(1);
    }
    if shown & !(WINDOW_UPDATE | ACK_BEYOND) != 0 || repeat != Repeat::No {
        let mut index = flow.trouble;
        if let Some(trouble) = slab.get_or_take(&mut index) {
            let t = &mut trouble.dirs[dir];
            repeat = repeats::judge(flow, t, dir, packet, repeat, now);
            let add = |count: &mut u32, mark: Marks| {
                *count = count.saturating_add(u32::from(shown & mark != 0));
            };
            add(&mut t.retransmission, RETRANSMISSION);
            add(&mut t.fast_retransmission, FAST_RETRANSMISSION);
            add(&mut t.spurious_retransmission, SPURIOUS_RETRANSMISSION);
            add(&mut t.out_of_order, OUT_OF_ORDER);
            add(&mut t.duplicate_ack, DUPLICATE_ACK);
            add(&mut t.lost_segment, LOST_SEGMENT);
            add(&mut t.ack_lost_segment, ACK_LOST_SEGMENT);
            add(&mut t.zero_window, ZERO_WINDOW);
            add(&mut t.window_full, WINDOW_FULL);
            add(&mut t.zero_window_probe, ZERO_WINDOW_PROBE);
            add(&mut t.zero_window_probe_ack, ZERO_WINDOW_PROBE_ACK);
            add(&mut t.keepalive, KEEPALIVE);
            add(&mut t.keepalive_ack, KEEPALIVE_ACK);
            add(&mut t.keepalive_into_zero_window, if closed_window { KEEPALIVE } else { NOTHING });
        }
        flow.trouble = index;
    }
    raise(marks, repeat, closed_window, events);
    repeat
}

fn raise(marks: Marks, repeat: Repeat, closed_window: bool, events: &mut EventSet) {
    if repeat.is_retransmission() {
        events.insert(Event::Retransmission);
    }
    if marks & ZERO_WINDOW != 0 {
        events.insert(Event::ZeroWindow);
    }
    if marks & WINDOW_FULL != 0 {
        events.insert(Event::WindowFull);
    }
    if marks & KEEPALIVE != 0 && !closed_window {
        events.insert(Event::Keepalive);
    }
}

/// Takes the segment's sequence number, acknowledgement and window as the newest.
#[inline]
pub(super) fn remember(flow: &mut Flow, dir: usize, tcp: &Tcp, marks: Marks, now: Nanos) {
    if marks & ACK_BEYOND != 0 {
        unsettle(flow, dir);
    }
    if tcp.flags & (flags::RST | flags::ACK) != flags::ACK {
        set_aside(flow, dir);
    } else {
        acknowledge(flow, dir, tcp);
    }
    let own = &mut flow.dirs[dir];
    let end = tcp.seq.wrapping_add(span(tcp));
    own.pass_to(now);
    if marks & ZERO_WINDOW_PROBE == 0 {
        let was = own.expected;
        if before(was, end) || was == 0 {
            (own.expected, own.advanced_ago) = (end, 0);
        }
        let elsewhere = tcp.seq != was && own.expected != was && was != 0;
        if elsewhere || own.shows(sign::GAP) {
            gap(flow, dir, tcp.seq, was);
        }
        let own = &mut flow.dirs[dir];
        if tcp.flags & flags::RST == 0 && (before(own.next_seq, end) || !own.has(dir_flag::SEQ)) {
            own.next_seq = end;
            own.flags |= dir_flag::SEQ;
        }
    }
    let own = &mut flow.dirs[dir];
    if tcp.ack != own.last_ack {
        own.dup_acks = 0;
    } else if marks & DUPLICATE_ACK != 0 {
        own.dup_acks = if own.dup_acks == DUP_ACKS_UNSEEN { 1 } else { (own.dup_acks + 1).min(254) };
    }
    let last = if marks & KEEPALIVE != 0 { dir_flag::KEEPALIVE } else { 0 }
        | if marks & ZERO_WINDOW_PROBE != 0 { dir_flag::WINDOW_PROBE } else { 0 };
    own.flags = own.flags & !(dir_flag::KEEPALIVE | dir_flag::WINDOW_PROBE) | last | dir_flag::WINDOW;
    (own.window, own.last_ack) = (tcp.window, tcp.ack);
}

/// A segment from `seq` on leaves a gap, or there was one already, which it may close. `was` was expected.
#[cold]
fn gap(flow: &mut Flow, dir: usize, seq: u32, was: u32) {
    let (own, continuous) = (&mut flow.dirs[dir], &mut flow.senders[dir].continuous);
    if !own.shows(sign::GAP) {
        own.signs |= sign::GAP;
        *continuous = was;
    } else if seq == *continuous || *continuous == 0 {
        own.signs &= !sign::GAP;
    }
}

/// After an acknowledgement of what was not seen the gap is closed; with no gap to close, it is noted.
#[cold]
fn unsettle(flow: &mut Flow, dir: usize) {
    let continuous = flow.continuous(dir ^ 1);
    let other = &mut flow.dirs[dir ^ 1];
    if before(continuous, other.expected) {
        other.signs &= !sign::GAP;
    } else {
        other.dup_acks = DUP_ACKS_UNSEEN;
    }
}

/// A RST, or a segment without ACK: keeps the acknowledgement that is believed where it is not overwritten.
#[cold]
fn set_aside(flow: &mut Flow, dir: usize) {
    let own = &mut flow.dirs[dir];
    if own.has(dir_flag::ACK) && own.scale & scale::ASIDE == 0 {
        flow.rare.acked[dir] = own.last_ack;
    }
    own.scale |= scale::ASIDE;
}

/// A segment with an ACK, no RST.
#[inline(always)]
pub(super) fn acknowledge(flow: &mut Flow, dir: usize, tcp: &Tcp) {
    let own = &mut flow.dirs[dir];
    own.flags |= dir_flag::ACK;
    own.scale &= !scale::ASIDE;
    let newly = tcp.ack.wrapping_sub(own.last_ack) as i32;
    let other = &mut flow.dirs[dir ^ 1];
    if other.has(dir_flag::WINDOW_PROBE) && tcp.ack == other.next_seq.wrapping_add(1) {
        // The byte that probed was taken.
        other.next_seq = tcp.ack;
    }
    if other.next_seq == tcp.ack {
        // All it sent has arrived, so its largest segment has.
        other.largest_acked = other.max_payload;
    } else if newly >= LARGE as i32 {
        other.signs |= sign::LARGE_PASSED;
    }
}

impl Flow {
    /// The window `dir` advertised last, bytes; as on the wire if its scale is not known.
    #[inline(always)]
    pub fn scaled_window(&self, dir: usize) -> u32 {
        let own = &self.dirs[dir];
        let shift = (own.scale & scale::MASK).saturating_sub(scale::SHIFTED);
        u32::from(own.window) << if own.scale & scale::PENDING == 0 { shift } else { 0 }
    }
}
