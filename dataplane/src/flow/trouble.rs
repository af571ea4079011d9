//! What only a troubled flow needs: Wireshark's counts, the stuck segment, what rules found. A bounded slab;
//! a flow that finds it full goes on without, counted. Worker's thread; never allocates after start.

use super::notes::Notes;
use super::slab::{Record, Slab};
use crate::decode::{Packet, flags};

/// Rules whose guards matched on one flow, at most.
pub const RULES_PER_FLOW: usize = 12;

/// Counts of Wireshark's that are kept.
pub const COUNTS: usize = 13;

/// Ranges of sequence space remembered as skipped, in each direction.
pub const HOLES: usize = 4;

/// Wireshark's `tcp.analysis.*` of one direction, Referee's own reading of it, and the segment that is stuck.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct DirectionTrouble {
    /// Includes fast, spurious and SYN retransmissions.
    pub retransmission: u32,
    pub fast_retransmission: u32,
    pub spurious_retransmission: u32,
    pub out_of_order: u32,
    pub duplicate_ack: u32,
    pub lost_segment: u32,
    pub ack_lost_segment: u32,
    pub zero_window: u32,
    pub window_full: u32,
    /// One new byte into a closed window.
    pub zero_window_probe: u32,
    pub zero_window_probe_ack: u32,
    /// As Wireshark counts: 0-byte probes of a closed window included.
    pub keepalive: u32,
    pub keepalive_ack: u32,
    /// Of the keepalives, probes of a closed window.
    pub keepalive_into_zero_window: u32,
    pub own: Repeats,
    pub holes: [Hole; HOLES],
    /// The one to be overwritten next.
    pub next_hole: u32,
    /// Segment of ≥ 1000 B with DF that is being resent: first byte, payload, IP length, times sent.
    pub stuck_seq: u32,
    /// Packet time of the last send that was counted, ms modulo 2^32.
    pub stuck_ms: u32,
    pub stuck_payload: u16,
    pub stuck_ip_len: u16,
    /// 0 when nothing is stuck.
    pub stuck_sends: u16,
    /// The peer has sent something since the first resend.
    pub peer_alive: bool,
    /// Its first byte was sent in a smaller packet since: the sender tries another size.
    pub stuck_shrunk: bool,
}

/// What the mirror delivered a second time of one direction; in no other count.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct CopyCounts {
    /// IP bytes.
    pub bytes: u64,
    /// TCP payload bytes.
    pub payload: u64,
    pub packets: u32,
    pub rst: u16,
    pub syn: u8,
    pub syn_ack: u8,
    pub fin: u8,
    spare: [u8; 3],
    /// What Wireshark finds in them, as [`DirectionTrouble::counts`].
    pub found: [u32; COUNTS],
}

impl CopyCounts {
    pub fn add(&mut self, packet: &Packet) {
        self.packets = self.packets.saturating_add(1);
        self.bytes += u64::from(packet.ip_len);
        self.payload += u64::from(packet.tcp.payload);
        let is = |wanted: u8, of: u8| packet.tcp.flags & of == wanted;
        self.syn = self.syn.saturating_add(u8::from(is(flags::SYN, flags::SYN | flags::ACK)));
        self.syn_ack =
            self.syn_ack.saturating_add(u8::from(is(flags::SYN | flags::ACK, flags::SYN | flags::ACK)));
        self.fin = self.fin.saturating_add(u8::from(is(flags::FIN, flags::FIN)));
        self.rst = self.rst.saturating_add(u16::from(is(flags::RST, flags::RST)));
    }
}

impl DirectionTrouble {
    /// Wireshark's counts, in the order they are declared in.
    pub fn counts(&self) -> [u32; COUNTS] {
        [
            self.retransmission,
            self.fast_retransmission,
            self.spurious_retransmission,
            self.out_of_order,
            self.duplicate_ack,
            self.lost_segment,
            self.ack_lost_segment,
            self.zero_window,
            self.window_full,
            self.zero_window_probe,
            self.zero_window_probe_ack,
            self.keepalive,
            self.keepalive_ack,
        ]
    }
}

/// What was sent twice and what was skipped, told apart by what was seen before (see `analyze::repeats`).
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Repeats {
    /// Includes fast, spurious and SYN retransmissions.
    pub retransmission: u32,
    pub fast_retransmission: u32,
    pub spurious_retransmission: u32,
    pub out_of_order: u32,
    pub lost_segment: u32,
    /// Of the retransmissions, those that filled what was skipped here.
    pub filled: u32,
    /// Segments that the receiver says came twice (D-SACK, RFC 2883).
    pub came_twice: u32,
}

impl Repeats {
    /// Of the retransmissions, those that no loss was behind: the bytes had been acknowledged or came twice. Where
    /// the first copy filled a gap here, the one that came second is the overtaken original, and neither was lost.
    pub fn needless(&self) -> u32 {
        let twice = self.spurious_retransmission.max(self.came_twice);
        twice.saturating_add(self.filled.min(twice)).min(self.retransmission)
    }
}

/// Sequence space skipped at this capture point and not seen since: [start, end); none if they are equal.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Hole {
    pub start: u32,
    pub end: u32,
    /// Packet time at which it was skipped, µs modulo 2^32.
    pub since_us: u32,
}

/// A rule that matched on the flow, and how often.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct RuleHits {
    pub rule: u16,
    pub count: u16,
}

/// The extra record of a troubled flow.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Trouble {
    /// By key order, as in the flow.
    pub dirs: [DirectionTrouble; 2],
    pub notes: [Notes; 2],
    pub hits: [RuleHits; RULES_PER_FLOW],
    pub rules: u32,
    /// RSTs on the established flow with no FIN before them.
    pub midflow_rsts: u32,
    pub icmp_too_big: u32,
    pub icmp_mtu: u32,
    next_free: u32,
    /// By key order.
    pub copies: [CopyCounts; 2],
}

impl Trouble {
    /// `rule` has matched on the flow before.
    pub fn knows(&self, rule: u16) -> bool {
        self.rule_hits().iter().any(|h| h.rule == rule)
    }

    /// Counts a match of `rule`; false if there is no place for it.
    pub fn hit(&mut self, rule: u16) -> bool {
        let used = self.rules as usize;
        if let Some(known) = self.hits[..used].iter_mut().find(|h| h.rule == rule) {
            known.count = known.count.saturating_add(1);
        } else if let Some(free) = self.hits.get_mut(used) {
            *free = RuleHits { rule, count: 1 };
            self.rules += 1;
        } else {
            return false;
        }
        true
    }

    /// Rules that matched, with their counts.
    pub fn rule_hits(&self) -> &[RuleHits] {
        &self.hits[..self.rules as usize]
    }
}

impl Record for Trouble {
    fn next_free(&mut self) -> &mut u32 {
        &mut self.next_free
    }
}

/// The slab.
pub type TroubleSlab = Slab<Trouble>;
