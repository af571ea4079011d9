//! What a segment means. Runs on the worker's thread on one flow at a time; never allocates, knows no clock
//! but the packet's.
//!
//! `sequence` reads sequence space as Wireshark's `tcp.analysis.*` does, `pmtu` follows the segment that is
//! stuck, `state` the handshake and the close; `sender` asks whether a RST fits the side it names, `wait` how
//! long one side waits for the other; `icmp` reads what routers say of a flow. [`segment`] calls them in
//! order. `facts` turns the flow into what rules see; guards come next.

pub mod facts;
mod icmp;
mod pmtu;
mod sender;
mod sequence;
mod state;
mod wait;

pub use icmp::{too_big, unreachable};
pub use state::at_end;

use rules::event::EventSet;

use crate::decode::Packet;
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
    /// The flow's timer has to be set anew: something begins that lasts.
    pub rearm: bool,
    /// How long the other side had waited for any answer when this packet gave one, ms, if that was long.
    pub waited_ms: u32,
    /// How long the sender's window had been closed when this packet opened it, ms, if that was long.
    pub reopened_ms: u32,
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
    let mut marks = sequence::read(flow, dir, packet, now);
    if marks != sequence::NOTHING {
        marks = sequence::count(flow, slab, dir, marks, packet, &mut out.events);
    }
    pmtu::follow(flow, slab, dir, packet, marks, now);
    icmp::follow(flow, slab, dir, packet, marks, now);
    sender::follow(flow, dir, packet, now, out);
    state::follow(flow, slab, packet, now, out);
    wait::follow(flow, slab, dir, packet, marks, now, out);
    sequence::remember(flow, dir, packet, marks, now);
}

/// Takes a packet of any other protocol into its flow.
#[inline]
pub fn datagram(flow: &mut Flow, packet: &Packet, now: Nanos) {
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

/// Remembers a silence that this packet ends, if nothing was outstanding during it and no window was closed: a
/// sender that waits for an acknowledgement, or for room, isn't idle.
#[inline(always)]
fn silence(flow: &mut Flow, now: Nanos) {
    let gap = now.saturating_sub(flow.last_ns);
    if gap < SILENCE || !flow.has(flow_flag::ESTABLISHED) {
        return;
    }
    let outstanding = |dir| flow.unacked(dir).unwrap_or(0);
    let (first, second) = (outstanding(0), outstanding(1));
    let recent = flow.packets().wrapping_sub(u64::from(flow.idle_packets)) < SILENCE_PACKETS;
    let gap_ms = (gap / 1_000_000).min(u64::from(u32::MAX)) as u32;
    let closed = |dir: usize| flow.dirs[dir].has(dir_flag::WINDOW) && flow.dirs[dir].window == 0;
    let waits = first > 0 || second > 0 || closed(0) || closed(1);
    if !waits && (!recent || gap_ms >= flow.idle_ms) {
        flow.idle_ms = gap_ms;
        flow.idle_packets = flow.packets().min(u64::from(u32::MAX)) as u32;
    }
}

#[cfg(test)]
mod tests;
