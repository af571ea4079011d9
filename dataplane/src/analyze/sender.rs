//! Who really sent this RST? Compares it with the other packets of the side it names. Worker's thread; plain
//! values, changes only the flow's `senders` and what its `dirs` know of IP headers.
//!
//! A path changes a packet's TTL by the same number each time, so a RST whose TTL is two or more off comes from
//! elsewhere, most of all if its alleged sender goes on as if nothing had happened. The verdict is made from what
//! is known when it is asked for: packets after the RST can turn it, both ways.

use rules::event::Event;

use super::Outcome;
use super::facts::{client_rtt_us, server_rtt_us};
use super::sequence::{round_trip, span};
use super::wait::ms;
use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{Direction, before, dir_flag, flow_flag, sign};
use crate::flow::sender::sender_flag;
use crate::source::Nanos;

/// Routes of different length to one host (ECMP) make a difference of one.
const TTL_APART: u8 = 2;
/// A sender that counts its packets in the IP-ID moves on by no more than this from one to the next.
const ID_STEP: u16 = 64;
/// The same up to a RST, which other connections of the host may have gone before.
const ID_LEAP: u16 = 4096;
/// A packet this long after a RST was not overtaken by it, ms, if it has something new; if it repeats what was seen before
/// the RST, as a sender's timer does after 200 ms and a round trip (Linux; RFC 6298 §2.4 says later); if it has nothing.
const OVERTAKEN_MS: u32 = 20;
const REPEAT_OVERTAKEN_MS: u32 = 200;
const OVERTAKEN_AT_MOST_MS: u32 = 2000;
/// What lies farther back belongs to another connection, bytes.
const REPEATED_WITHIN: u32 = 1 << 24;
/// A device nearby answers within less, µs.
const TELLING_RTT_US: u64 = 5000;
/// So many packets after a RST prove that the socket lives, whatever the RST looked like.
const PROOF: u8 = 2;

/// Takes a segment into its sender's fingerprint, or compares a RST with it.
#[inline(always)]
pub(super) fn follow(flow: &mut Flow, dir: usize, packet: &Packet, now: Nanos, out: &mut Outcome) {
    if packet.tcp.flags & flags::RST != 0 {
        reset(flow, dir, packet, now);
        return;
    }
    let own = &mut flow.dirs[dir];
    step(own, packet);
    if own.shows(sign::RST) {
        after_rst(flow, dir, packet, now, out);
    } else if own.ttl_min != own.ttl_max {
        vote(flow, dir, packet.ttl);
    }
}

/// A packet of a side in whose name a RST was seen. What was said of the RST is wrong if this one turns the verdict.
#[cold]
fn after_rst(flow: &mut Flow, dir: usize, packet: &Packet, now: Nanos, out: &mut Outcome) {
    let forged = |flow: &Flow| flow.rst_injected(dir) == Some(true);
    // The packet is counted already: without it there may be nothing to compare with.
    let known = flow.packets_but_rst(dir) > 1 && forged(flow);
    vote(flow, dir, packet.ttl);
    lives_on(flow, dir, &packet.tcp, now, out);
    if !known && forged(flow) {
        out.events.insert(Event::AfterRst);
        out.events.insert(Event::Disproved);
    }
}

/// What its IP header adds to the side's.
#[inline(always)]
pub(super) fn step(own: &mut Direction, packet: &Packet) {
    if let Some(id) = packet.ip_id {
        let step = id.wrapping_sub(own.ip_id);
        own.ip_id = id;
        if step == 1 {
            own.id_steps = own.id_steps.saturating_add(1);
        } else if own.shows(sign::DF | sign::NO_DF) {
            stride(own, step);
        }
    }
    own.signs |= if packet.df { sign::DF } else { sign::NO_DF };
}

/// The IP-ID moved on by other than one.
fn stride(own: &mut Direction, step: u16) {
    if step > ID_STEP {
        own.signs |= sign::ID_JUMPED;
    } else if step > 0 {
        own.id_steps = own.id_steps.saturating_add(1);
    }
}

/// Writes down what the TTL of all packets up to now was, before this first one with another, or a first RST.
fn settle(flow: &mut Flow, dir: usize, packets: u32, ttl: u8) {
    let (own, sender) = (&flow.dirs[dir], &mut flow.senders[dir]);
    if sender.ttl_run == 0 && packets > 0 {
        let before = if own.ttl_min == ttl { own.ttl_max } else { own.ttl_min };
        let packets = packets.min(u32::from(u8::MAX)) as u8;
        (sender.ttl_usual, sender.ttl_votes) = (before, packets);
        (sender.ttl_last, sender.ttl_run) = (before, packets);
    }
}

/// A packet of a side whose packets had more than one TTL (majority vote; at a tie the newer candidate wins, since a
/// device that answers SYNs for a host speaks before it).
#[cold]
fn vote(flow: &mut Flow, dir: usize, ttl: u8) {
    settle(flow, dir, flow.packets_but_rst(dir).saturating_sub(1), ttl);
    let own = &mut flow.senders[dir];
    if own.ttl_last == ttl && own.ttl_run > 0 {
        own.ttl_run = own.ttl_run.saturating_add(1);
    } else {
        let rerouted = own.ttl_run > 0 && ttl.abs_diff(own.ttl_last) >= TTL_APART;
        own.ttl_changes = own.ttl_changes.saturating_add(u8::from(rerouted));
        (own.ttl_last, own.ttl_run) = (ttl, 1);
    }
    if own.ttl_usual == ttl {
        own.ttl_votes = own.ttl_votes.saturating_add(1);
    } else if own.ttl_votes <= 1 {
        (own.ttl_usual, own.ttl_votes) = (ttl, 1);
    } else {
        own.ttl_votes -= 1;
    }
}

/// Keeps the RST's fingerprint: of the first one, unless a later one is the stranger.
#[cold]
fn reset(flow: &mut Flow, dir: usize, packet: &Packet, now: Nanos) {
    // It is counted among the packets already, and not yet among the RSTs.
    let others = flow.packets_but_rst(dir).saturating_sub(1);
    settle(flow, dir, others, packet.ttl);
    flow.dirs[dir].signs |= sign::RST;
    let own = flow.senders[dir];
    let known = own.has(sender_flag::RST);
    let stranger = |ttl: u8| others > 0 && ttl.abs_diff(own.ttl_usual) >= TTL_APART;
    if known && (stranger(own.rst_ttl) || !stranger(packet.ttl)) {
        return;
    }
    let (seq, victim) = (packet.tcp.seq, &flow.dirs[dir ^ 1]);
    let mut bits = sender_flag::RST;
    bits |= if packet.df { sender_flag::RST_DF } else { 0 };
    bits |= if flow.has(flow_flag::ESTABLISHED) { 0 } else { sender_flag::RST_EARLY };
    if let Some(expected) = flow.acked(dir ^ 1) {
        let exact = seq == expected || flow.dirs[dir].has(dir_flag::SEQ) && seq == flow.dirs[dir].next_seq;
        let inside = seq.wrapping_sub(expected) < flow.scaled_window(dir ^ 1).max(1);
        bits |= sender_flag::RST_PLACED;
        bits |= if exact { sender_flag::RST_EXACT } else { 0 };
        bits |= if inside { sender_flag::RST_IN_WINDOW } else { 0 };
    }
    // Linux gives a RST that belongs to no socket the IP-ID 0, with DF: that says nothing.
    let before = &flow.dirs[dir];
    let counts = before.id_steps >= 2 && !before.shows(sign::ID_JUMPED);
    if let Some(id) = packet.ip_id.filter(|id| counts && (*id != 0 || !packet.df)) {
        let fits = id.wrapping_sub(before.ip_id).wrapping_sub(1) < ID_LEAP;
        bits |= sender_flag::RST_ID_JUDGED | if fits { sender_flag::RST_ID_FITS } else { 0 };
    }
    bits |= if victim.has(dir_flag::ACK) { sender_flag::RST_TIMED } else { 0 };
    let delay_us = now.saturating_sub(victim.last_ns) / 1000;
    let own = &mut flow.senders[dir];
    own.bits = bits;
    own.rst_ttl = packet.ttl;
    own.rst_window = packet.tcp.window;
    own.rst_delay_us = delay_us.min(Nanos::from(u32::MAX)) as u32;
    own.rst_ms = ms(now);
    own.after_rst = 0;
}

/// Whether it shows that its socket lives.
fn lives_on(flow: &mut Flow, dir: usize, tcp: &Tcp, now: Nanos, out: &mut Outcome) {
    let (own, other) = (&flow.dirs[dir], &flow.dirs[dir ^ 1]);
    let rst_ms = flow.senders[dir].rst_ms;
    let since = |time: Nanos| ms(time).wrapping_sub(rst_ms).cast_signed();
    // Sent before a RST that ends the stream, it could say neither.
    let end = tcp.seq.wrapping_add(span(tcp));
    let new_data = before(own.expected, end);
    let new_ack = tcp.ack == other.next_seq && since(other.advanced_ns()) > 0;
    // A RST moves what is expected on, what was seen it does not.
    let seen = |before: u32| before.wrapping_sub(end) < REPEATED_WITHIN;
    let repeat = span(tcp) > 0 && own.has(dir_flag::SEQ) && seen(own.next_seq) && seen(flow.continuous(dir));
    let overtaken = if new_data || new_ack {
        OVERTAKEN_MS
    } else if repeat {
        let round_trip_ms = (round_trip(flow) / 1_000_000).min(Nanos::from(OVERTAKEN_AT_MOST_MS)) as u32;
        (REPEAT_OVERTAKEN_MS + round_trip_ms).min(OVERTAKEN_AT_MOST_MS)
    } else {
        OVERTAKEN_AT_MOST_MS
    };
    let own = &mut flow.senders[dir];
    own.after_rst = own.after_rst.saturating_add(1);
    if since(now) > overtaken.cast_signed() {
        own.bits |= sender_flag::LIVED_ON;
    }
    // Often enough to hear of a turn in the verdict, and no more often.
    if own.after_rst.is_power_of_two() {
        out.events.insert(Event::AfterRst);
    }
}

/// What a RST's fingerprint says of its sender.
impl Flow {
    /// The RST in `dir`'s name came from somebody else; unknown if there was none, or if that side sent nothing
    /// else to compare it with.
    pub fn rst_injected(&self, dir: usize) -> Option<bool> {
        let own = &self.senders[dir];
        if !own.has(sender_flag::RST) || self.packets_but_rst(dir) == 0 {
            return None;
        }
        let lived = own.has(sender_flag::LIVED_ON) && !own.has(sender_flag::RST_EARLY);
        let apart = own.rst_ttl.abs_diff(own.ttl_usual) >= TTL_APART;
        if !apart {
            return Some(lived && own.after_rst >= PROOF);
        }
        // The route changed before the RST, and it came the new way.
        let rerouted = own.rst_ttl.abs_diff(own.ttl_last) < TTL_APART && own.ttl_run > 1;
        // Some hosts start the TTL of RSTs at 255 and of everything else at 64 or 128: then it is as far away,
        // and took its time.
        let as_far = hops(own.rst_ttl) == hops(own.ttl_usual) && self.took_its_time(dir);
        Some(lived || !rerouted && !as_far)
    }

    /// The RST came about a round trip after what it answers, and that is long enough to tell.
    fn took_its_time(&self, dir: usize) -> bool {
        let own = &self.senders[dir];
        let rtt = self.rtt_of(dir).unwrap_or(0);
        let delay = u64::from(own.rst_delay_us);
        own.has(sender_flag::RST_TIMED) && rtt >= TELLING_RTT_US && delay >= rtt - rtt / 10
    }

    /// The round trip between the tap and `dir`'s host, µs.
    fn rtt_of(&self, dir: usize) -> Option<u64> {
        if dir == self.orig() { client_rtt_us(self) } else { server_rtt_us(self) }
    }

    /// It came sooner after the other side's packet than an answer of its alleged sender could: within half the
    /// round trip between the tap and that side.
    pub fn rst_too_fast(&self, dir: usize) -> Option<bool> {
        let own = &self.senders[dir];
        let rtt = self.rtt_of(dir)?;
        own.has(sender_flag::RST_TIMED).then(|| u64::from(own.rst_delay_us) < rtt / 2)
    }
}

/// How many routers a packet has passed, if it set out with 64, 128 or 255.
fn hops(ttl: u8) -> u8 {
    match ttl {
        0..=64 => 64 - ttl,
        65..=128 => 128 - ttl,
        _ => 255 - ttl,
    }
}
