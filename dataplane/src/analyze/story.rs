//! What happened to a connection, letter by letter, as Zeek writes it: follows both ends' states, and counts
//! congestion marks. Worker's thread; plain values. A segment that tells nothing new touches nothing.
//!
//! Differs from Zeek where the flow table does: a SYN with another initial sequence number begins another
//! flow, and nobody is made the responder for using a well-known port. Checksums are not verified (a mirror's
//! packets often have none yet), so `c` is never written.

use rules::event::{Event, EventSet};

use super::sequence::{ACK_LOST_SEGMENT, Marks, NOTHING, RETRANSMISSION, WINDOW_FULL};
use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{Rare, dir_flag, flow_flag, oddity};
use crate::flow::story::{End, Story};

const CONTROL: u8 = flags::SYN | flags::FIN | flags::RST;
const SYN_ACK: u8 = flags::SYN | flags::ACK;
const CONGESTION: u8 = flags::ECE | flags::CWR;
/// IP's "congestion experienced" (RFC 3168 §5).
const CE: u8 = 3;

/// Takes a segment into the story.
#[inline(always)]
pub(super) fn follow(flow: &mut Flow, dir: usize, packet: &Packet, marks: Marks, events: &mut EventSet) {
    let tcp = &packet.tcp;
    let data = tcp.payload > 0;
    let plain = tcp.flags & (CONTROL | CONGESTION | flags::ACK) == flags::ACK && packet.ecn != CE;
    if plain && tcp.window != 0 && marks == NOTHING && is_easy(flow, dir, data) {
        ordinary(flow, dir, data);
        return;
    }
    tell(flow, dir, packet, marks);
    if packet.tcp.flags & (flags::ECE | flags::SYN) == flags::ECE {
        events.insert(Event::CongestionEcho);
    }
}

/// An ordinary segment of this side changes nothing but perhaps a letter: it said its like before, or its SYN was
/// seen, so that its end has a state.
#[inline(always)]
pub(super) fn is_easy(flow: &Flow, dir: usize, data: bool) -> bool {
    flow.has(told(dir, data)) | flow.dirs[dir].has(dir_flag::SYN)
}

/// Notes the letter of an ordinary segment, if it is the first.
#[inline(always)]
pub(super) fn ordinary(flow: &mut Flow, dir: usize, data: bool) {
    if !flow.has(told(dir, data)) {
        flow.unwritten.note(dir, data);
        flow.flags |= told(dir, data);
    }
}

#[inline(always)]
fn told(dir: usize, data: bool) -> u16 {
    if data { flow_flag::TOLD_DATA << dir } else { flow_flag::TOLD_ACK << dir }
}

#[cold]
fn tell(flow: &mut Flow, dir: usize, packet: &Packet, marks: Marks) {
    let tcp = &packet.tcp;
    let originates = flow.orig() == dir;
    let window = flow.scaled_window(dir ^ 1);
    congestion(flow, dir, packet);
    let story = &mut flow.story;
    story.write(std::mem::take(&mut flow.unwritten));
    letters(story, dir, tcp);
    let boring =
        tcp.flags & flags::RST != 0 || story.end(dir ^ 1) == End::Closed || story.end(dir) == End::Reset;
    if tcp.window == 0 && !boring {
        scaled(story, dir, b'w', |s| &mut s.zero_windows);
    }
    if marks & RETRANSMISSION != 0 && tcp.payload > 0 {
        scaled(story, dir, b't', |s| &mut s.retransmissions);
    }
    if marks & WINDOW_FULL != 0 {
        story.filled_window[dir] = story.filled_window[dir].max(window);
    }
    advance(story, dir, originates, tcp);
    if marks & ACK_LOST_SEGMENT != 0 {
        // The gap is in what the other side sent.
        scaled(story, dir ^ 1, b'g', |s| &mut s.gaps);
    }
    if tcp.flags & CONTROL == 0 && story.end(dir) != End::Inactive {
        flow.flags |= told(dir, tcp.payload > 0);
    }
}

fn congestion(flow: &mut Flow, dir: usize, packet: &Packet) {
    let seen = packet.tcp.flags;
    let rare = &mut flow.rare;
    accurate(rare, packet);
    let add = |count: &mut [u16; 2], yes: bool| count[dir] = count[dir].saturating_add(u16::from(yes));
    add(&mut rare.ece, seen & flags::ECE != 0);
    add(&mut rare.cwr, seen & flags::CWR != 0);
    flow.story.ce[dir] = flow.story.ce[dir].saturating_add(u32::from(packet.ecn == CE));
    if seen & flags::SYN == 0 {
        return;
    }
    if seen & flags::ACK == 0 {
        if seen & CONGESTION == CONGESTION {
            rare.oddities &= !oddity::LAST_SYN_PLAIN;
            rare.ecn_syns = rare.ecn_syns.saturating_add(1);
        } else {
            rare.oddities |= oddity::LAST_SYN_PLAIN;
        }
    } else {
        rare.ecn_answers = rare.ecn_answers.saturating_add(u8::from(seen & flags::ECE != 0));
    }
}

/// Follows whether accurate ECN (RFC 9768) is agreed on, where the three flags together are a counter: a client offers it by
/// setting all of them, and a server that answers with any but ECE alone (classic ECN) or all three (a mirror) takes it.
fn accurate(rare: &mut Rare, packet: &Packet) {
    let three = (packet.tcp.flags & CONGESTION, packet.tcp.accurate_ecn);
    let agreed = match packet.tcp.flags & (flags::SYN | flags::ACK) {
        flags::SYN => three == (CONGESTION, true),
        SYN_ACK => {
            rare.oddities & oddity::ACCURATE_ECN != 0
                && three != (CONGESTION, true)
                && (three.1 || three.0 & flags::CWR != 0)
        }
        // AE in a later segment is part of a counter: so a connection tells that was under way.
        _ if three.1 => true,
        _ => return,
    };
    if agreed {
        rare.oddities |= oddity::ACCURATE_ECN;
    } else {
        rare.oddities &= !oddity::ACCURATE_ECN;
    }
}

/// The letters of the segment's flags. A flag's letter is written again if it comes at another place.
fn letters(story: &mut Story, dir: usize, tcp: &Tcp) {
    let control = tcp.flags & CONTROL;
    if control.count_ones() > 1 {
        let finishes_and_resets = control & (flags::FIN | flags::RST) == flags::FIN | flags::RST;
        story.once(dir, if finishes_and_resets { b'i' } else { b'q' });
        return;
    }
    let (letter, place) = match control {
        flags::SYN => (if tcp.flags & flags::ACK != 0 { b'h' } else { b's' }, None),
        flags::FIN => (b'f', Some((&mut story.last_fin[dir], tcp.seq.wrapping_add(tcp.payload)))),
        flags::RST => (b'r', Some((&mut story.last_rst[dir], tcp.seq))),
        _ if tcp.payload > 0 => (b'd', None),
        _ if tcp.flags & flags::ACK != 0 => (b'a', None),
        _ => return,
    };
    let elsewhere = place.is_some_and(|(last, now)| std::mem::replace(last, now) != now);
    if !story.once(dir, letter) && elsewhere {
        story.again(dir, letter);
    }
}

/// Writes the letter at the 1st, 10th and 100th time.
fn scaled(story: &mut Story, dir: usize, letter: u8, count: fn(&mut Story) -> &mut [u8; 2]) {
    let count = &mut count(story)[dir];
    if *count == u8::MAX {
        return;
    }
    *count += 1;
    if matches!(*count, 1 | 10 | 100) {
        story.again(dir, letter);
    }
}

/// Zeek's state machine for the end that sent the segment.
fn advance(story: &mut Story, dir: usize, originates: bool, tcp: &Tcp) {
    match story.end(dir) {
        End::Inactive => first_word(story, dir, originates, tcp),
        End::SynSent | End::SynAckSent => close(story, dir, tcp),
        End::Partial | End::Established => {
            let (own, peer) = (story.end(dir), story.end(dir ^ 1));
            let plain_syn = tcp.flags & (flags::SYN | flags::ACK) == flags::SYN;
            if plain_syn && own == End::Partial && peer == End::Inactive {
                story.set_end(dir, End::SynSent);
            }
            close(story, dir, tcp);
        }
        End::Closed => {
            if tcp.flags & flags::RST != 0 && story.end(dir ^ 1) != End::Closed {
                story.set_end(dir, End::Reset);
            }
        }
        End::Reset => {}
    }
}

fn first_word(story: &mut Story, dir: usize, originates: bool, tcp: &Tcp) {
    let peer = story.end(dir ^ 1);
    let acks = tcp.flags & flags::ACK != 0;
    if tcp.flags & flags::SYN != 0 {
        if originates {
            story.set_end(dir, if acks { End::SynAckSent } else { End::SynSent });
        } else {
            if matches!(peer, End::SynSent | End::SynAckSent) {
                story.set_end(dir ^ 1, End::Established);
            }
            story.set_end(dir, End::Established);
        }
    }
    close(story, dir, tcp);
    if story.end(dir) == End::Inactive {
        // Some stacks acknowledge a SYN before they answer it.
        let early_ack = !originates && tcp.payload == 0 && peer == End::SynSent;
        if acks && peer == End::Established {
            story.set_end(dir, End::Established);
        } else if !early_ack {
            story.set_end(dir, End::Partial);
        }
    }
}

fn close(story: &mut Story, dir: usize, tcp: &Tcp) {
    if tcp.flags & flags::FIN != 0 && tcp.flags & flags::RST == 0 {
        story.set_end(dir, End::Closed);
        // A FIN followed by a RST is an ordinary end after all once the other side closes too.
        if story.end(dir ^ 1) == End::Reset && story.end_before(dir ^ 1) == End::Closed {
            story.set_end(dir ^ 1, End::Closed);
        }
    }
    if tcp.flags & flags::RST != 0 {
        story.set_end(dir, End::Reset);
    }
}
