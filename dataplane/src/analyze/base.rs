//! Where a direction's sequence numbers begin, how its windows are scaled, and the initial round trip: as
//! Wireshark 4.0.17 takes them from what is there of the handshake (`dissect_tcp`). Worker's thread; plain values,
//! touched by the first segments of a direction and by SYNs.

use crate::decode::{Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{dir_flag, flow_flag, scale, sign};
use crate::source::Nanos;

const SYN_ACK: u8 = flags::SYN | flags::ACK;

/// Before the segment is compared with anything.
#[inline(always)]
pub(super) fn before_reading(flow: &mut Flow, dir: usize, tcp: &Tcp) {
    if tcp.flags & flags::SYN != 0 {
        restart(flow, dir, tcp);
    }
    let bases = flow.dirs[dir].scale & flow.dirs[dir ^ 1].scale & scale::BASE;
    if bases == 0 {
        find(flow, dir, tcp);
    }
}

/// A SYN that repeats the flow's first goes on from where nothing was missing; a SYN-ACK with another number
/// begins anew. A SYN with another number has a flow of its own.
#[cold]
fn restart(flow: &mut Flow, dir: usize, tcp: &Tcp) {
    if flow.dirs[dir].scale & scale::BASE == 0 {
        return;
    }
    if tcp.flags & flags::ACK == 0 {
        flow.dirs[dir].expected = flow.continuous(dir);
        flow.dirs[dir].signs &= !sign::GAP;
    } else if flow.rare.base_seq[dir] != tcp.seq {
        flow.rare.base_seq[dir] = tcp.seq;
        let reused = &mut flow.rare.reused_ports[dir];
        *reused = reused.saturating_add(1);
        if !flow.has(flow_flag::ESTABLISHED) {
            // What its side sent before was of an older connection (a challenge ACK, RFC 9293 §3.5.1).
            flow.dirs[dir].flags &= !dir_flag::SEQ;
        }
    }
}

/// A direction's numbers begin at its SYN or just before its first segment, or else before what the other side
/// acknowledged first.
fn find(flow: &mut Flow, dir: usize, tcp: &Tcp) {
    let (own, other) = (flow.dirs[dir].scale, flow.dirs[dir ^ 1].scale);
    if own & scale::BASE == 0 {
        let syn = tcp.flags & flags::SYN != 0;
        flow.rare.base_seq[dir] = if syn { tcp.seq } else { tcp.seq.wrapping_sub(1) };
        flow.dirs[dir].scale |= scale::BASE;
    }
    if other & scale::BASE == 0 && tcp.flags & flags::ACK != 0 {
        flow.rare.base_seq[dir ^ 1] = tcp.ack.wrapping_sub(1);
        flow.dirs[dir ^ 1].scale |= scale::BASE;
    }
}

/// After the segment has been compared: what it says of scales and of the round trip.
#[inline(always)]
pub(super) fn after_reading(flow: &mut Flow, dir: usize, tcp: &Tcp, now: Nanos) {
    if tcp.flags & flags::SYN != 0 {
        synchronise(flow, dir, tcp, now);
    } else if tcp.flags & flags::ACK != 0 {
        flow.dirs[dir].scale &= !scale::PENDING;
        if flow.has(flow_flag::UNTIMED) {
            time(flow, now);
        }
    }
}

/// A SYN's option scales its side's windows. Nobody scales if a SYN is without it, or if the answer to such a SYN
/// has it; a SYN whose options were cut off tells nothing more.
fn synchronise(flow: &mut Flow, dir: usize, tcp: &Tcp, now: Nanos) {
    let answer = tcp.flags & SYN_ACK == SYN_ACK;
    let set = |own: &mut u8, to: u8| *own = *own & !scale::MASK | to;
    let other = flow.dirs[dir ^ 1].scale & scale::MASK;
    let own = &mut flow.dirs[dir].scale;
    *own |= scale::PENDING;
    if let Some(shift) = tcp.options.wscale {
        set(own, scale::SHIFTED + shift.min(14));
    }
    if tcp.options.cut {
        // What is missing may have been there.
    } else if *own & scale::MASK == scale::UNKNOWN {
        set(own, scale::NONE);
        set(&mut flow.dirs[dir ^ 1].scale, scale::NONE);
    } else if answer && other == scale::NONE {
        set(own, scale::NONE);
    }
    if !answer {
        flow.rare.syn_ns = now;
        if flow.rare.first_rtt_ns == 0 {
            flow.flags |= flow_flag::UNTIMED;
        }
    }
}

#[cold]
fn time(flow: &mut Flow, now: Nanos) {
    if flow.rare.syn_ns != 0 {
        flow.rare.first_rtt_ns = now.wrapping_sub(flow.rare.syn_ns);
    }
    if flow.rare.first_rtt_ns != 0 {
        flow.flags &= !flow_flag::UNTIMED;
    }
}

impl Flow {
    /// A SYN from `dir` with this number begins another connection.
    pub fn is_other_syn(&self, dir: usize, seq: u32) -> bool {
        self.dirs[dir].scale & scale::BASE != 0 && self.rare.base_seq[dir] != seq
    }
}
