//! What a segment means. Runs on the worker's thread on one flow at a time; never allocates, knows no clock
//! but the packet's.
//!
//! `sequence` reads sequence space as Wireshark's `tcp.analysis.*` does, on what `base` knows of where it begins;
//! `repeats` tells repeats from reordering by what was seen before, `pmtu` follows the segment that is stuck,
//! `state` the handshake and the close, `story` Zeek's account of both, `sack` looks for impossible blocks; `icmp`
//! reads what routers say of a flow. [`segment`] calls them in order. `facts` turns the flow into what rules see;
//! guards come next.

mod base;
mod copy;
pub mod facts;
mod fragment;
mod icmp;
mod pmtu;
mod repeats;
mod sack;
mod sequence;
mod state;
mod story;

pub use copy::second_delivery;
pub use fragment::later_fragment;
pub use icmp::too_big;

use repeats::Repeat;
use rules::event::EventSet;

use crate::decode::{Class, Packet};
use crate::flow::Flow;
use crate::flow::record::{dir_flag, flow_flag};
use crate::flow::trouble::TroubleSlab;
use crate::source::Nanos;

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
}

/// Takes a TCP segment into its flow. `out` comes in as its default; it is filled in place, since a copy of
/// bytes just written one by one stalls on them.
#[inline]
pub fn segment(flow: &mut Flow, slab: &mut TroubleSlab, packet: &Packet, now: Nanos, out: &mut Outcome) {
    let dir = usize::from(!packet.from_low);
    out.dir = dir;
    out.ttl = Some(packet.ttl);
    out.fin_before = (flow.dirs[0].flags | flow.dirs[1].flags) & dir_flag::FIN != 0;
    out.rst_before = flow.has(flow_flag::RST);
    silence(flow, now);
    count(flow, dir, packet, now);
    let tcp = &packet.tcp;
    base::before_reading(flow, dir, tcp);
    let marks = sequence::read(flow, dir, tcp, now);
    let mut repeat = Repeat::No;
    if marks != sequence::NOTHING || tcp.seq != flow.dirs[dir].next_seq {
        repeat = sequence::count(flow, slab, dir, marks, packet, now, &mut out.events);
    }
    pmtu::follow(flow, slab, dir, packet, repeat, now);
    state::follow(flow, slab, packet, now, out);
    sack::check(flow, tcp, out);
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
    own.max_payload = own.max_payload.max(packet.tcp.payload.min(u32::from(u16::MAX)) as u16);
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

/// Remembers a silence that this packet ends, if nothing was outstanding during it and no window was closed: a
/// sender that waits for an acknowledgement, or for room, isn't idle.
#[inline(always)]
fn silence(flow: &mut Flow, now: Nanos) {
    if !falls_silent(flow, now) {
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
