//! The segment that never arrives: a large one with DF, sent again and again while smaller ones pass. If it arrives
//! after all, in the size that was stuck, nothing was too large. Worker's thread; plain values.

use rules::event::Event;

use super::Outcome;
use super::repeats::Repeat;
use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{LARGE, NONE, before, dir_flag, offer, sign};
use crate::flow::trouble::{DirectionTrouble, TroubleSlab};
use crate::source::{Marks, Nanos};

/// Two sends that lie closer together are one attempt, ms: a burst that repairs a loss repeats a segment
/// several times within a round trip. A sender that hears nothing waits for its timer, 200 ms on Linux, 1 s by
/// RFC 6298.
const APART_MS: u32 = 100;
/// Room that timestamps take in every segment, bytes.
const TIMESTAMPS: u32 = 12;

/// Follows the stuck segment of either direction through one more segment.
#[inline(always)]
pub(super) fn follow(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    packet: &Packet,
    repeat: Repeat,
    now: Nanos,
    out: &mut Outcome,
) {
    if flow.trouble == NONE {
        return;
    }
    follow_troubled(flow, slab, dir, packet, repeat, now, out);
}

#[cold]
fn follow_troubled(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    packet: &Packet,
    repeat: Repeat,
    now: Nanos,
    out: &mut Outcome,
) {
    let now_ms = (now / 1_000_000) as u32;
    let tcp = &packet.tcp;
    let Some(trouble) = slab.get_mut(flow.trouble) else { return };
    if tcp.flags & flags::RST == 0 {
        let peer = &mut trouble.dirs[dir ^ 1];
        if peer.stuck_sends > 0 {
            peer.peer_alive = true;
            let all = before(peer.stuck_seq, tcp.ack);
            let as_large = as_large_pass(peer.stuck_seq, peer.stuck_payload, tcp);
            if tcp.flags & flags::ACK != 0 && (all || as_large) {
                if all {
                    arrives(flow, peer, dir ^ 1, tcp.ack, out);
                } else {
                    passes(peer, out);
                }
                (peer.stuck_sends, peer.peer_alive) = (0, false);
            }
        }
    }
    let own = &mut trouble.dirs[dir];
    let resent = repeat.is_retransmission();
    if resent && own.stuck_sends > 0 && own.stuck_seq == tcp.seq {
        let stuck = flow.on_the_wire(dir, u32::from(own.stuck_payload));
        own.stuck_shrunk |= flow.on_the_wire(dir, tcp.payload) < stuck;
    }
    let sized = !packet.marks.has(Marks::COALESCED);
    if !resent || tcp.payload < LARGE || !packet.df || !sized || flow.dirs[dir ^ 1].is_closed() {
        return;
    }
    if own.stuck_sends > 0 && own.stuck_seq == tcp.seq {
        if now_ms.wrapping_sub(own.stuck_ms) >= APART_MS {
            own.stuck_sends = own.stuck_sends.saturating_add(1);
            own.stuck_ms = now_ms;
        }
    } else if own.stuck_sends == 0 || before(tcp.seq, own.stuck_seq) {
        // The original and this one.
        own.stuck_sends = 2;
        own.stuck_ms = now_ms;
        own.stuck_seq = tcp.seq;
        own.stuck_payload = tcp.payload.min(u32::from(u16::MAX)) as u16;
        own.stuck_ip_len = packet.ip_len.min(u32::from(u16::MAX)) as u16;
        (own.peer_alive, own.stuck_shrunk) = (false, false);
    }
}

/// Something of the stuck segment is acknowledged: was it a packet of its size?
fn arrives(flow: &Flow, stuck: &DirectionTrouble, dir: usize, ack: u32, out: &mut Outcome) {
    let size = flow.on_the_wire(dir, u32::from(stuck.stuck_payload));
    if !stuck.stuck_shrunk && !before(ack, stuck.stuck_seq.wrapping_add(size)) {
        passes(stuck, out);
    }
}

fn passes(stuck: &DirectionTrouble, out: &mut Outcome) {
    out.arrived_sends = stuck.stuck_sends;
    out.events.insert(Event::Disproved);
}

/// Nothing as large as the stuck segment of `dir` has arrived since its SYN, which was seen, and nothing smaller is
/// without answer: it was not cut up, and all that is outstanding is of its size.
pub(super) fn only_large_is_stuck(flow: &Flow, stuck: &DirectionTrouble, dir: usize) -> bool {
    let own = &flow.dirs[dir];
    let size = flow.on_the_wire(dir, u32::from(stuck.stuck_payload));
    let passed = flow.on_the_wire(dir, u32::from(own.largest_acked)) >= size || own.shows(sign::LARGE_PASSED);
    let alike = flow.unacked(dir).is_some_and(|all| all > 0 && all.is_multiple_of(size.max(1)));
    let seen_whole = own.has(dir_flag::SYN) && !own.shows(sign::COALESCED);
    stuck.stuck_sends > 0 && seen_whole && !passed && !stuck.stuck_shrunk && alike
}

impl Flow {
    /// How much of a payload of `dir` one packet carries on the wire, bytes. A capture on one of the hosts shows
    /// segments before the network card has cut them up, or after it has put them together (TSO, GRO): what goes
    /// beyond the MSS was never one packet.
    pub fn on_the_wire(&self, dir: usize, payload: u32) -> u32 {
        let offered = |dir: usize, what: u8| self.offered[dir] & what != 0;
        let timestamps = (0..2).all(|dir| offered(dir, offer::TIMESTAMPS));
        let room = if timestamps { TIMESTAMPS } else { 0 };
        match self.mss_between(dir) {
            Some(mss) => payload.min(mss.saturating_sub(room).max(1)),
            None => payload,
        }
    }

    /// The largest segment `dir` may send, bytes: what the other side takes, and what its own interface has room
    /// for, by its own MSS. Unknown if the other side's SYN was not seen, or had none.
    pub fn mss_between(&self, dir: usize) -> Option<u32> {
        let of = |dir: usize| u32::from(self.mss[dir]);
        let most = of(dir ^ 1);
        (most > 0).then(|| if of(dir) > 0 { most.min(of(dir)) } else { most })
    }
}

/// The peer has selectively acknowledged what two such segments carry, sent after the stuck one: the path takes its
/// size, and loss has hit it again and again. (What one carries may be many small ones.)
fn as_large_pass(stuck_seq: u32, stuck_payload: u16, tcp: &Tcp) -> bool {
    let [left, right] = tcp.options.sack_edges;
    tcp.options.sack_blocks > 0
        && before(stuck_seq, left)
        && before(left, right)
        && right.wrapping_sub(left) >= 2 * u32::from(stuck_payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_large_ones_that_arrive_behind_it_say_that_the_path_takes_them() {
        let says = |left: u32, right: u32| {
            let mut tcp = Tcp::default();
            (tcp.options.sack_blocks, tcp.options.sack_edges) = (1, [left, right]);
            as_large_pass(u32::MAX - 99, 1400, &tcp)
        };
        assert!(says(1300, 4100) && says(10_000, 20_000));
        assert!(!says(1300, 4099), "one and a small one");
        assert!(!says(u32::MAX - 5000, u32::MAX - 100), "before it");
        assert!(!says(4100, 1300) && !as_large_pass(0, 1400, &Tcp::default()), "no block at all");
    }
}
