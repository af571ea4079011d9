//! The segment that never arrives: a large one with DF, sent again and again while smaller ones pass.
//! Worker's thread; plain values.

use super::repeats::Repeat;
use crate::decode::{Packet, Tcp, flags};
use crate::flow::Flow;
use crate::flow::record::{NONE, before};
use crate::flow::trouble::TroubleSlab;
use crate::source::Nanos;

/// Payload from which a segment is large enough to be suspected, bytes.
const LARGE: u32 = 1000;

/// Two sends that lie closer together are one attempt, ms: a burst that repairs a loss repeats a segment
/// several times within a round trip. A sender that hears nothing waits for its timer, 200 ms on Linux, 1 s by
/// RFC 6298.
const APART_MS: u32 = 100;

/// Follows the stuck segment of either direction through one more segment.
#[inline(always)]
pub(super) fn follow(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    packet: &Packet,
    repeat: Repeat,
    now: Nanos,
) {
    if flow.trouble == NONE {
        return;
    }
    follow_troubled(flow, slab, dir, packet, repeat, now);
}

#[cold]
fn follow_troubled(
    flow: &mut Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    packet: &Packet,
    repeat: Repeat,
    now: Nanos,
) {
    let now_ms = (now / 1_000_000) as u32;
    let tcp = &packet.tcp;
    let Some(trouble) = slab.get_mut(flow.trouble) else { return };
    if tcp.flags & flags::RST == 0 {
        let peer = &mut trouble.dirs[dir ^ 1];
        if peer.stuck_sends > 0 {
            peer.peer_alive = true;
            let acked =
                before(peer.stuck_seq, tcp.ack) || as_large_pass(peer.stuck_seq, peer.stuck_payload, tcp);
            if tcp.flags & flags::ACK != 0 && acked {
                (peer.stuck_sends, peer.peer_alive) = (0, false);
            }
        }
    }
    let own = &mut trouble.dirs[dir];
    let resent = repeat.is_retransmission();
    if !resent || tcp.payload < LARGE || !packet.df || flow.dirs[dir ^ 1].is_closed() {
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
        own.peer_alive = false;
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
