//! Sequence space, with the meaning of Wireshark 4.0's `tcp.analysis.*` (its dissector's order of tests).
//! Worker's thread; plain values.
//!
//! One difference, for bounded memory: Wireshark asks its list of segments in flight whether a segment that
//! doesn't advance was seen before; here a remembered hole answers that (out of order fills a hole).

use rules::event::{Event, EventSet};

use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{SHIFT_PENDING, before, dir_flag};
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
pub(super) const KEEPALIVE: Marks = 1 << 10;

const SYN_FIN_RST: u8 = flags::SYN | flags::FIN | flags::RST;
/// A resend this soon after the second duplicate ACK answers it.
const FAST_RETRANSMISSION_WITHIN: Nanos = 20_000_000;
/// Reordering is taken to be shorter than the round trip; this stands in while that is not known.
const REORDERING_WITHIN: Nanos = 3_000_000;

/// Sequence space a segment takes.
#[inline(always)]
pub(super) fn span(tcp: &Tcp) -> u32 {
    tcp.payload + u32::from(tcp.flags & (flags::SYN | flags::FIN) != 0)
}

/// Compares a segment with what its flow has seen. Changes nothing.
#[inline]
pub(super) fn read(flow: &Flow, dir: usize, packet: &Packet, now: Nanos) -> Marks {
    let tcp = &packet.tcp;
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    let plain = tcp.flags & SYN_FIN_RST == 0;
    let mut marks = NOTHING;
    if tcp.window == 0 && plain {
        marks |= ZERO_WINDOW;
    }
    if tcp.flags & flags::ACK != 0 && other.has(dir_flag::SEQ) && before(other.next_seq, tcp.ack) && plain {
        marks |= ACK_LOST_SEGMENT;
    }
    if !own.has(dir_flag::SEQ) {
        return marks;
    }
    let ahead = tcp.seq.wrapping_sub(own.next_seq) as i32;
    if ahead == 0 {
        // The common case first: exactly what was expected next.
        return marks | in_sequence(flow, dir, tcp);
    }
    if ahead > 0 {
        return if tcp.flags & flags::RST == 0 {
            marks | LOST_SEGMENT | window_full(flow, dir, tcp)
        } else {
            marks
        };
    }
    if ahead == -1 && tcp.payload <= 1 && plain {
        return marks | KEEPALIVE | window_full(flow, dir, tcp);
    }
    if tcp.payload > 0 || tcp.flags & (flags::SYN | flags::FIN) != 0 {
        marks |= repeated(flow, dir, tcp, now);
    }
    if other.has(dir_flag::WINDOW) {
        marks |= window_full(flow, dir, tcp);
    }
    marks
}

/// The segment starts where the last one ended.
#[inline(always)]
fn in_sequence(flow: &Flow, dir: usize, tcp: &Tcp) -> Marks {
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    if tcp.payload == 1 && other.has(dir_flag::WINDOW) && other.window == 0 {
        return ZERO_WINDOW_PROBE;
    }
    if tcp.payload > 0 {
        return window_full(flow, dir, tcp);
    }
    let same = own.has(dir_flag::ACK) && tcp.ack == own.last_ack && tcp.window == own.window;
    if same && tcp.window != 0 && tcp.flags & SYN_FIN_RST == 0 && tcp.flags & flags::ACK != 0 {
        // An answer to a keepalive or a window probe repeats an ACK and means nothing by it.
        if !other.has(dir_flag::KEEPALIVE) && !other.has(dir_flag::WINDOW_PROBE) {
            return DUPLICATE_ACK;
        }
    }
    NOTHING
}

/// The segment fills the other side's window to its edge.
#[inline(always)]
fn window_full(flow: &Flow, dir: usize, tcp: &Tcp) -> Marks {
    let other = &flow.dirs[dir ^ 1];
    let known = other.has(dir_flag::SYN) && other.has(dir_flag::WINDOW);
    if tcp.payload == 0 || tcp.flags & SYN_FIN_RST != 0 || !known {
        return NOTHING;
    }
    let edge = other.last_ack.wrapping_add(flow.scaled_window(dir ^ 1));
    if tcp.seq.wrapping_add(tcp.payload) == edge { WINDOW_FULL } else { NOTHING }
}

/// The segment starts in space already sent: which kind of repeat is it?
fn repeated(flow: &Flow, dir: usize, tcp: &Tcp, now: Nanos) -> Marks {
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    let end = tcp.seq.wrapping_add(tcp.payload);
    if tcp.payload > 0 && other.has(dir_flag::ACK) && !before(other.last_ack, end) {
        return RETRANSMISSION | SPURIOUS_RETRANSMISSION;
    }
    // One byte of a window probe may be sent again at the head of a full segment.
    if tcp.payload > 1 && tcp.seq.wrapping_add(1) == own.next_seq {
        return NOTHING;
    }
    let since_ack = now.saturating_sub(other.last_ack_ns);
    if other.dup_acks >= 2 && other.last_ack == tcp.seq && since_ack < FAST_RETRANSMISSION_WITHIN {
        return RETRANSMISSION | FAST_RETRANSMISSION;
    }
    let reordering = if flow.ack_us > 0 { Nanos::from(flow.ack_us) * 1000 } else { REORDERING_WITHIN };
    let soon = now.saturating_sub(own.next_seq_ns) < reordering;
    if soon && own.next_seq != tcp.seq.wrapping_add(span(tcp)) { OUT_OF_ORDER } else { RETRANSMISSION }
}

/// Counts what was found and says which events it raises. Decides, knowing the holes, what "out of
/// order" is, and returns the marks that stand.
#[cold]
pub(super) fn count(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    marks: Marks,
    packet: &Packet,
    events: &mut EventSet,
) -> Marks {
    let closed_window = flow.dirs[dir ^ 1].has(dir_flag::WINDOW) && flow.dirs[dir ^ 1].window == 0;
    let mut index = flow.trouble;
    let (next_seq, tcp) = (flow.dirs[dir].next_seq, &packet.tcp);
    let mut marks = marks;
    if let Some(trouble) = slab.get_or_take(&mut index) {
        let t = &mut trouble.dirs[dir];
        if marks & OUT_OF_ORDER != 0 {
            let in_hole = !before(tcp.seq, t.hole_start) && before(tcp.seq, t.hole_end);
            // What reaches beyond all that was seen can't be a repeat of it.
            let fills = in_hole || before(next_seq, tcp.seq.wrapping_add(span(tcp)));
            marks = marks & !OUT_OF_ORDER | if fills { OUT_OF_ORDER } else { RETRANSMISSION };
        }
        if marks & LOST_SEGMENT != 0 {
            (t.hole_start, t.hole_end) = (next_seq, tcp.seq);
        }
        add(&mut t.retransmission, marks & RETRANSMISSION != 0);
        add(&mut t.fast_retransmission, marks & FAST_RETRANSMISSION != 0);
        add(&mut t.spurious_retransmission, marks & SPURIOUS_RETRANSMISSION != 0);
        add(&mut t.out_of_order, marks & OUT_OF_ORDER != 0);
        add(&mut t.duplicate_ack, marks & DUPLICATE_ACK != 0);
        add(&mut t.lost_segment, marks & LOST_SEGMENT != 0);
        add(&mut t.ack_lost_segment, marks & ACK_LOST_SEGMENT != 0);
        add(&mut t.zero_window, marks & ZERO_WINDOW != 0);
        add(&mut t.window_full, marks & WINDOW_FULL != 0);
        add(&mut t.zero_window_probe, marks & ZERO_WINDOW_PROBE != 0);
        add(&mut t.keepalive, marks & KEEPALIVE != 0);
        add(&mut t.keepalive_into_zero_window, marks & KEEPALIVE != 0 && closed_window);
    }
    raise(marks, closed_window, events);
    flow.trouble = index;
    marks
}

fn add(count: &mut u32, found: bool) {
    *count = count.saturating_add(u32::from(found));
}

fn raise(marks: Marks, closed_window: bool, events: &mut EventSet) {
    if marks & RETRANSMISSION != 0 {
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

/// Takes the segment's sequence number, acknowledgement and window as the newest. A RST's are not believed.
#[inline]
pub(super) fn remember(flow: &mut Flow, dir: usize, packet: &Packet, marks: Marks, now: Nanos) {
    let tcp = &packet.tcp;
    if tcp.flags & flags::RST != 0 {
        return;
    }
    let own = &mut flow.dirs[dir];
    let end = tcp.seq.wrapping_add(span(tcp));
    if !own.has(dir_flag::SEQ) {
        own.flags |= dir_flag::SEQ;
        (own.next_seq, own.next_seq_ns) = (end, now);
    } else if before(own.next_seq, end) && marks & ZERO_WINDOW_PROBE == 0 {
        (own.next_seq, own.next_seq_ns) = (end, now);
    }
    let last = if marks & KEEPALIVE != 0 { dir_flag::KEEPALIVE } else { 0 }
        | if marks & ZERO_WINDOW_PROBE != 0 { dir_flag::WINDOW_PROBE } else { 0 };
    own.flags = own.flags & !(dir_flag::KEEPALIVE | dir_flag::WINDOW_PROBE) | last | dir_flag::WINDOW;
    own.window = tcp.window;
    if tcp.flags & flags::SYN == 0 {
        own.shift &= !SHIFT_PENDING;
    }
    if tcp.flags & flags::ACK != 0 {
        if !own.has(dir_flag::ACK) || tcp.ack != own.last_ack {
            own.dup_acks = 0;
        } else if marks & DUPLICATE_ACK != 0 {
            own.dup_acks = own.dup_acks.saturating_add(1);
        }
        own.flags |= dir_flag::ACK;
        (own.last_ack, own.last_ack_ns) = (tcp.ack, now);
        let other = &mut flow.dirs[dir ^ 1];
        if other.next_seq == tcp.ack {
            // All it sent has arrived, so its largest segment has.
            other.largest_acked = other.max_payload;
        }
    }
}

impl Flow {
    /// The window `dir` advertised last, bytes.
    #[inline(always)]
    pub fn scaled_window(&self, dir: usize) -> u32 {
        let own = &self.dirs[dir];
        let shift = if own.shift & SHIFT_PENDING == 0 { own.shift } else { 0 };
        u32::from(own.window) << shift
    }
}
