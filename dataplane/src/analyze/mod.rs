//! What a segment means. Runs on the worker's thread on one flow at a time; never allocates, knows no clock
//! but the packet's.
//!
//! `sequence` reads sequence space as Wireshark's `tcp.analysis.*` does, on what `base` knows of where it begins;
//! `repeats` tells repeats from reordering by what was seen before, `pmtu` follows the segment that is stuck,
//! `state` the handshake and the close, `story` Zeek's account of both, `sack` looks for impossible blocks;
//! `sender` asks whether a RST fits the side it names, `wait` how long one side waits for the other; `icmp` reads
//! what routers say of a flow. [`segment`] calls them in order, unless `plain` sees that none has anything to say.
//! `app` reads payload where a turn begins. `facts` turns the flow into what rules see; guards come next.

pub mod app;
mod base;
mod copy;
pub mod facts;
mod fragment;
mod icmp;
mod plain;
mod pmtu;
mod repeats;
mod sack;
mod sender;
mod sequence;
mod state;
mod story;
mod wait;

pub use copy::second_delivery;
pub use fragment::later_fragment;
pub use icmp::{too_big, unreachable};
pub use state::at_end;

use repeats::Repeat;
use rules::event::EventSet;

use crate::decode::{Class, Packet};
use crate::flow::Flow;
use crate::flow::record::{dir_flag, flow_flag, sign};
use crate::flow::trouble::TroubleSlab;
use crate::source::{Marks, Nanos};

/// A silence shorter than this is not remembered as one.
const SILENCE: Nanos = 1_000_000_000;
/// A silence stands as "just broken" for this many packets, unless a longer one follows.
const SILENCE_PACKETS: u64 = 8;

/// What came of one packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub events: EventSet,
    /// Index of the sender's direction.
    pub dir: usize,
    /// TTL of the packet, if it was one.
    pub ttl: Option<u8>,
    pub fin_before: bool,
    pub rst_before: bool,
    /// The first SYN of the flow.
    pub first_syn: bool,
    /// The handshake was completed by this segment (or the flow proved to be under way).
    pub established: bool,
    /// The RST answered a SYN.
    pub refused: bool,
    /// The segment begins its side's turn: new payload, and the last new thing said was the other side's.
    pub turn: bool,
    /// All the other side had sent was acknowledged before this segment.
    pub acked: bool,
    /// The flow's timer has to be set anew: something begins that lasts.
    pub rearm: bool,
    /// How long the other side had waited for any answer when this packet gave one, ms, if that was long.
    pub waited_ms: u32,
    /// How long the sender's window had been closed when this packet opened it, ms, if that was long.
    pub reopened_ms: u32,
    /// How long the originator waited for this first byte of an answer, µs; 0 if it is none.
    pub first_byte_us: u32,
    /// How often the other side had sent the segment that was stuck and that this packet acknowledges after all; 0 if
    /// none was.
    pub arrived_sends: u16,
    /// The sender had waited for an answer, and acknowledges what was not seen here: it had been answered.
    pub answered_unseen: bool,
    /// The sender goes on into a window that was last seen closed, long ago: it was opened past this capture point.
    pub opened_unseen: bool,
}

/// Takes a TCP segment into its flow. `out` comes in as its default; it is filled in place, since a copy of
/// bytes just written one by one stalls on them.
#[inline]
pub fn segment(flow: &mut Flow, slab: &mut TroubleSlab, packet: &Packet, now: Nanos, out: &mut Outcome) {
    begin(flow, packet, out);
    let dir = out.dir;
    if plain::is_plain(flow, dir, packet, now) {
        count(flow, dir, packet, now);
        turn(flow, packet, out);
        plain::take(flow, dir, packet, now);
    } else {
        through_all(flow, slab, packet, now, out);
    }
}

#[inline(always)]
fn begin(flow: &Flow, packet: &Packet, out: &mut Outcome) {
    out.dir = usize::from(!packet.from_low);
    out.ttl = Some(packet.ttl);
    out.fin_before = (flow.dirs[0].flags | flow.dirs[1].flags) & dir_flag::FIN != 0;
    out.rst_before = flow.has(flow_flag::RST);
}

/// The long way, of anything but a plain segment.
#[inline(never)]
fn through_all(flow: &mut Flow, slab: &mut TroubleSlab, packet: &Packet, now: Nanos, out: &mut Outcome) {
    let dir = out.dir;
    if out.rst_before {
        // What follows does not take the RST away from the silence before it.
        flow.idle_packets = flow.idle_packets.saturating_add(1);
    }
    silence(flow, now);
    count(flow, dir, packet, now);
    turn(flow, packet, out);
    let tcp = &packet.tcp;
    base::before_reading(flow, dir, tcp);
    let marks = sequence::read(flow, dir, tcp, now);
    let mut repeat = Repeat::No;
    if marks != sequence::NOTHING || tcp.seq != flow.dirs[dir].next_seq {
        repeat = sequence::count(flow, slab, dir, marks, packet, now, &mut out.events);
    }
    pmtu::follow(flow, slab, dir, packet, repeat, now, out);
    icmp::follow(flow, slab, dir, packet, repeat, now);
    sender::follow(flow, dir, packet, now, out);
    state::follow(flow, slab, packet, now, out);
    sack::check(flow, slab, tcp, out);
    wait::follow(flow, slab, dir, packet, (marks, repeat), now, out);
    story::follow(flow, dir, packet, marks, &mut out.events);
    sequence::remember(flow, dir, tcp, marks, now);
    base::after_reading(flow, dir, tcp, now);
}

/// Takes a packet of any other protocol into its flow.
#[inline]
pub fn datagram(flow: &mut Flow, packet: &Packet, now: Nanos) {
    if flow.packets() == 0 && packet.class == Class::Icmp {
        flow.story.icmp = [packet.icmp.kind, packet.icmp.code];
    }
    count(flow, usize::from(!packet.from_low), packet, now);
}

#[inline(always)]
fn count(flow: &mut Flow, dir: usize, packet: &Packet, now: Nanos) {
    flow.last_ns = flow.last_ns.max(now);
    let own = &mut flow.dirs[dir];
    own.packets = own.packets.saturating_add(1);
    own.bytes += u64::from(packet.ip_len);
    own.payload += u64::from(packet.tcp.payload);
    if packet.marks.has(Marks::COALESCED) {
        own.signs |= sign::COALESCED;
    } else {
        own.max_payload = own.max_payload.max(packet.tcp.payload.min(u32::from(u16::MAX)) as u16);
    }
    if own.has(dir_flag::SEEN) {
        own.ttl_min = own.ttl_min.min(packet.ttl);
        own.ttl_max = own.ttl_max.max(packet.ttl);
    } else {
        own.flags |= dir_flag::SEEN;
        (own.ttl_min, own.ttl_max) = (packet.ttl, packet.ttl);
    }
}

/// This packet comes after a silence of an established flow.
#[inline(always)]
pub fn falls_silent(flow: &Flow, now: Nanos) -> bool {
    now.saturating_sub(flow.last_ns) >= SILENCE && flow.has(flow_flag::ESTABLISHED)
}

/// Looks who speaks: payload that continues its side's stream after the other side has sent something.
#[inline(always)]
fn turn(flow: &Flow, packet: &Packet, out: &mut Outcome) {
    let (own, other) = (&flow.dirs[out.dir], &flow.dirs[out.dir ^ 1]);
    if packet.tcp.payload > 0 && own.advanced_ns() <= other.advanced_ns() && own.next_seq == packet.tcp.seq {
        out.turn = true;
        out.acked = own.last_ack == other.next_seq;
    }
}

/// Remembers a silence that this packet ends, if nothing was outstanding during it and no window was closed: a
/// sender that waits for an acknowledgement, or for room, isn't idle. Nor is one whose RST the other end has had: what
/// it still sends goes by its timers.
#[inline(always)]
fn silence(flow: &mut Flow, now: Nanos) {
    if !falls_silent(flow, now) || flow.has(flow_flag::RST) {
        return;
    }
    let gap = now.saturating_sub(flow.last_ns);
    let outstanding = |dir| flow.unacked(dir).unwrap_or(0);
    let (first, second) = (outstanding(0), outstanding(1));
    let recent = flow.packets().wrapping_sub(u64::from(flow.idle_packets)) < SILENCE_PACKETS;
    let gap_ms = (gap / 1_000_000).min(u64::from(u32::MAX)) as u32;
    let waits = first > 0 || second > 0 || flow.dirs[0].is_closed() || flow.dirs[1].is_closed();
    if !waits && (!recent || gap_ms >= flow.idle_ms) {
        flow.idle_ms = gap_ms;
        flow.idle_packets = flow.packets().min(u64::from(u32::MAX)) as u32;
    }
}

#[cfg(test)]
mod tests;
