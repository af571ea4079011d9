//! Handshake and close as a bystander sees them (RFC 9293 §3.5, §3.6). Worker's thread; plain values.
//! Changes the flow and its trouble record only; the outcome goes to the guards.

use rules::event::Event;

use super::Outcome;
use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{dir_flag, flow_flag, oddity, offer};
use crate::flow::trouble::TroubleSlab;
use crate::source::Nanos;

/// A SYN-ACK's acknowledgement that has not come within this time is missing, ns: a repeat of the SYN-ACK had
/// gone unanswered too.
const ANSWER_WITHIN: Nanos = 3_000_000_000;

/// A server waits at least so long before it repeats a SYN-ACK (Linux: 1 s), ns.
const SYN_ACK_TIMER: Nanos = 500_000_000;

/// Takes the segment's flags into the flow's state.
#[inline]
pub(super) fn follow(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    packet: &Packet,
    now: Nanos,
    out: &mut Outcome,
) {
    let tcp = &packet.tcp;
    if tcp.flags & flags::FIN != 0 && tcp.flags & (flags::SYN | flags::RST) != 0 {
        // Counted, not believed: no stack closes with a SYN (scanners do), and a RST closes by itself.
        let own = &mut flow.senders[out.dir];
        own.fin = own.fin.saturating_add(1);
    }
    if tcp.flags & flags::RST != 0 {
        reset(flow, slab, out);
    } else if tcp.flags & flags::SYN != 0 {
        synchronise(flow, tcp, now, out);
    } else {
        if !flow.has(flow_flag::ESTABLISHED) {
            establish(flow, tcp, now, out);
        }
        if tcp.flags & flags::FIN != 0 {
            finish(flow, out.dir);
        }
    }
}

/// A SYN or SYN-ACK.
fn synchronise(flow: &mut Flow, tcp: &Tcp, now: Nanos, out: &mut Outcome) {
    let dir = out.dir;
    let answer = tcp.flags & flags::ACK != 0;
    if flow.dirs[dir].has(dir_flag::SYN) {
        // A repeat; its options were read the first time.
    } else {
        flow.dirs[dir].flags |= dir_flag::SYN;
        let options = &tcp.options;
        flow.mss[dir] = options.mss.unwrap_or(0);
        flow.wscale[dir] = options.wscale.unwrap_or(0);
        flow.offered[dir] = if options.mss.is_some() { offer::MSS } else { 0 }
            | if options.wscale.is_some() { offer::WSCALE } else { 0 }
            | if options.sack_permitted { offer::SACK } else { 0 }
            | if options.timestamps { offer::TIMESTAMPS } else { 0 }
            | if options.cut { offer::CUT } else { 0 };
    }
    let first_packet = flow.packets() == 1;
    if !answer && flow.senders[0].syn == 0 && flow.senders[1].syn == 0 {
        // Its answer may have been seen first.
        flow.story.flipped = flow.orig() != dir;
        flow.set_originator(dir == 0);
    }
    let own = &mut flow.senders[dir];
    if answer {
        own.syn_ack = own.syn_ack.saturating_add(1);
        if own.syn_ack > 1 && flow.flags & flow_flag::HANDSHAKE != 0 {
            late_syn_ack(flow, dir, now);
        }
        out.events.insert(Event::SynAck);
        if flow.senders[dir].syn_ack == 1 && flow.dirs[dir ^ 1].has(dir_flag::SYN) {
            flow.syn_ack_us = micros_since(flow, now);
        }
    } else {
        out.first_syn = first_packet;
        flow.rare.oddities &= !oddity::ABORTED;
        own.syn = own.syn.saturating_add(1);
        out.events.insert(Event::Syn);
    }
}

/// A SYN-ACK after the client's ACK: by the server's timer, not an answer to a SYN that was sent twice, and as
/// if nothing had followed the first one.
#[cold]
fn late_syn_ack(flow: &mut Flow, dir: usize, now: Nanos) {
    let fresh =
        flow.dirs[dir].next_seq == flow.rare.base_seq[dir].wrapping_add(1) && !flow.has(flow_flag::RST);
    let acked = flow.start_ns.saturating_add(u64::from(flow.ack_us) * 1000);
    if fresh && flow.ack_us > 0 && now.saturating_sub(acked) >= SYN_ACK_TIMER {
        flow.rare.late_syn_acks = flow.rare.late_syn_acks.saturating_add(1);
    }
}

/// A segment with neither SYN nor RST on a flow not yet established.
fn establish(flow: &mut Flow, tcp: &Tcp, now: Nanos, out: &mut Outcome) {
    let (own, other) = (&flow.dirs[out.dir], &flow.dirs[out.dir ^ 1]);
    if tcp.flags & flags::ACK == 0 {
        return;
    }
    let (own_syns, other_syns) = (&flow.senders[out.dir], &flow.senders[out.dir ^ 1]);
    let began = own_syns.syn > 0;
    let whole = began && other_syns.syn_ack > 0;
    // Without the SYN-ACK (one direction captured, or it was missed) an ACK from the SYN's sender still tells
    // that it came, and so does data from the other side (a bare ACK may be a challenge, RFC 5961 §4.2); a
    // flow picked up mid-stream is under way once both sides have spoken.
    let answered = !own.has(dir_flag::SYN) && other_syns.syn > 0 && tcp.payload > 0;
    let picked_up = !own.has(dir_flag::SYN) && other_syns.syn == 0 && other.has(dir_flag::ACK);
    // A client that has reset the handshake may have sent an ACK before that came later; if the server goes on, the RST
    // was not the client's, or did not arrive.
    let aborted = flow.rare.oddities & oddity::ABORTED != 0;
    let lives_on = aborted && own_syns.syn_ack > 0;
    if aborted && !lives_on {
        return;
    }
    if !began && !answered && !picked_up && !lives_on {
        let other_base = flow.rare.base_seq[out.dir ^ 1];
        if other_syns.syn > 0 && own_syns.syn_ack == 0 && tcp.ack != other_base.wrapping_add(1) {
            flow.rare.oddities |= oddity::CHALLENGED;
            out.events.insert(Event::ChallengeAck);
        }
        return;
    }
    flow.flags |= flow_flag::ESTABLISHED;
    // A RST before this did not end it: it answered a challenge ACK, or an attempt that was repeated.
    flow.flags &= !(flow_flag::RST | flow_flag::CLOSED);
    if whole {
        flow.flags |= flow_flag::HANDSHAKE;
        if flow.has(flow_flag::ACK_TIMED) || flow.syn_ack_us == 0 {
            // Not timed: the SYN-ACK came first, or the ACK was counted already.
        } else {
            flow.ack_us = micros_since(flow, now);
            flow.flags |= flow_flag::ACK_TIMED;
        }
        out.events.insert(Event::Established);
    }
    out.established = true;
}

fn finish(flow: &mut Flow, dir: usize) {
    flow.dirs[dir].flags |= dir_flag::FIN;
    flow.senders[dir].fin = flow.senders[dir].fin.saturating_add(1);
    if flow.dirs[dir ^ 1].has(dir_flag::FIN) {
        flow.flags |= flow_flag::CLOSED;
    }
}

fn reset(flow: &mut Flow, slab: &mut TroubleSlab, out: &mut Outcome) {
    let dir = out.dir;
    flow.senders[dir].rst = flow.senders[dir].rst.saturating_add(1);
    if flow.has(flow_flag::ESTABLISHED) {
        if !out.fin_before
            && let Some(trouble) = slab.get_or_take(&mut flow.trouble)
        {
            trouble.midflow_rsts = trouble.midflow_rsts.saturating_add(1);
        }
    } else if flow.senders[dir ^ 1].syn > 0 && flow.senders[dir].syn_ack == 0 && !flow.has(flow_flag::REFUSED)
    {
        flow.flags |= flow_flag::REFUSED;
        out.refused = true;
    } else if flow.senders[dir].syn > 0 && flow.senders[dir ^ 1].syn_ack > 0 {
        flow.rare.oddities |= oddity::ABORTED;
    }
    flow.flags |= flow_flag::RST | flow_flag::CLOSED;
    out.events.insert(Event::Rst);
}

/// A flow ends at `now`: a SYN-ACK that nobody acknowledged by then stays so, if there was time to.
pub fn at_end(flow: &mut Flow, now: Nanos) {
    let (orig, resp) = (flow.orig(), flow.orig() ^ 1);
    let asked = flow.senders[orig].syn > 0 && flow.senders[resp].syn_ack > 0;
    let waited = now.saturating_sub(flow.start_ns) >= ANSWER_WITHIN + u64::from(flow.syn_ack_us) * 1000;
    if asked && !flow.has(flow_flag::ESTABLISHED) && (waited || flow.has(flow_flag::RST)) {
        flow.rare.oddities |= oddity::INCOMPLETE;
    }
}

/// At least 1, so that 0 can stand for "not seen".
fn micros_since(flow: &Flow, now: Nanos) -> u32 {
    (now.saturating_sub(flow.start_ns) / 1000).clamp(1, u64::from(u32::MAX)) as u32
}
