//! The segment that never arrives: a large one with DF, sent again and again while smaller ones pass.
//! Worker's thread; plain values.

use super::sequence::{Marks, RETRANSMISSION};
use crate::decode::{Packet, flags};
use crate::flow::Flow;
use crate::flow::record::{NONE, before};
use crate::flow::trouble::TroubleSlab;

/// Payload from which a segment is large enough to be suspected, bytes.
const LARGE: u32 = 1000;

/// Follows the stuck segment of either direction through one more segment.
#[inline(always)]
pub(super) fn follow(flow: &mut Flow, slab: &mut TroubleSlab, dir: usize, packet: &Packet, marks: Marks) {
    if flow.trouble == NONE {
        return;
    }
    follow_troubled(flow, slab, dir, packet, marks);
}

#[cold]
fn follow_troubled(flow: &mut Flow, slab: &mut TroubleSlab, dir: usize, packet: &Packet, marks: Marks) {
    let tcp = &packet.tcp;
    let Some(trouble) = slab.get_mut(flow.trouble) else { return };
    if tcp.flags & flags::RST == 0 {
        let peer = &mut trouble.dirs[dir ^ 1];
        if peer.stuck_sends > 0 {
            peer.peer_alive = true;
            if tcp.flags & flags::ACK != 0 && before(peer.stuck_seq, tcp.ack) {
                (peer.stuck_sends, peer.peer_alive) = (0, false);
            }
        }
    }
    let own = &mut trouble.dirs[dir];
    let resent = marks & RETRANSMISSION != 0;
    if !resent || tcp.payload < LARGE || !packet.df || flow.dirs[dir ^ 1].window == 0 {
        return;
    }
    if own.stuck_sends > 0 && own.stuck_seq == tcp.seq {
        own.stuck_sends = own.stuck_sends.saturating_add(1);
    } else if own.stuck_sends == 0 || before(tcp.seq, own.stuck_seq) {
        // The original and this one.
        own.stuck_sends = 2;
        own.stuck_seq = tcp.seq;
        own.stuck_payload = tcp.payload.min(u32::from(u16::MAX)) as u16;
        own.stuck_ip_len = packet.ip_len.min(u32::from(u16::MAX)) as u16;
        own.peer_alive = false;
    }
}
