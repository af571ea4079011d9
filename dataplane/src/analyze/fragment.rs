//! A later fragment, taken into the flow of its first one. Worker's thread, rarely; plain values. It has no
//! transport header, so nothing is judged by it: bytes are counted and the sequence goes on behind it.

use crate::decode::Packet;
use crate::flow::Flow;
use crate::flow::fragments::Begun;
use crate::flow::record::dir_flag;
use crate::source::Nanos;

const TCP: u8 = 6;

/// One packet was sent, and it was counted with its first fragment: this adds what that one lacked.
#[cold]
pub fn later_fragment(flow: &mut Flow, begun: &Begun, packet: &Packet, now: Nanos) {
    flow.last_ns = flow.last_ns.max(now);
    if begun.outer {
        return;
    }
    let dir = usize::from(!begun.from_low);
    let own = &mut flow.dirs[dir];
    own.bytes += u64::from(packet.ip_len);
    if flow.key.proto != TCP {
        return;
    }
    let len = u32::from(packet.fragment.len);
    own.payload += u64::from(len);
    let start = begun.base_seq.wrapping_add(u32::from(packet.fragment.offset));
    let end = start.wrapping_add(len);
    if own.has(dir_flag::SEQ) && own.next_seq == start {
        own.next_seq = end;
    }
    if own.expected == start {
        own.pass_to(now);
        (own.expected, own.advanced_ago) = (end, 0);
    }
    let gap = &mut flow.senders[dir];
    if gap.continuous == start {
        gap.continuous = end;
    }
}
