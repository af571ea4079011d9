//! One flow, five cache lines: identity and links, one line for each direction, one for both senders'
//! fingerprints, and what is touched rarely. A packet touches the first, its direction's and the senders', an
//! acknowledgement the other direction's. Worker's thread.

use rules::facts::Side;

use super::sender::Sender;
use crate::decode::FlowKey;
use crate::source::Nanos;

/// "No such slot" in every index kept in a flow.
pub const NONE: u32 = u32::MAX;

/// Set in [`Direction::shift`] while the side's newest window is that of its SYN, which is never scaled.
pub const SHIFT_PENDING: u8 = 0x80;

/// Bits of [`Direction::flags`].
pub mod dir_flag {
    /// A packet of this direction was seen.
    pub const SEEN: u8 = 1;
    /// `next_seq` is known.
    pub const SEQ: u8 = 2;
    /// `last_ack` is known.
    pub const ACK: u8 = 4;
    /// The SYN or SYN-ACK was seen; `isn` is known.
    pub const SYN: u8 = 8;
    /// A FIN was seen.
    pub const FIN: u8 = 16;
    /// The last packet was a keepalive.
    pub const KEEPALIVE: u8 = 32;
    /// The last packet probed a zero window.
    pub const WINDOW_PROBE: u8 = 64;
    /// `window` is known.
    pub const WINDOW: u8 = 128;
}

/// Bits of [`Flow::flags`].
pub mod flow_flag {
    pub const ESTABLISHED: u16 = 1;
    /// The handshake's three parts were all seen, in order.
    pub const HANDSHAKE: u16 = 1 << 1;
    /// A RST was seen.
    pub const RST: u16 = 1 << 2;
    /// A SYN was answered by RST.
    pub const REFUSED: u16 = 1 << 3;
    /// The originator is the key's low end.
    pub const ORIG_LOW: u16 = 1 << 4;
    /// Both sides closed, or one reset: ends after a short wait for stragglers.
    pub const CLOSED: u16 = 1 << 5;
    /// Began on a 5-tuple that an earlier flow had used.
    pub const PORT_REUSE: u16 = 1 << 7;
    /// The originator's handshake ACK has been timed.
    pub const ACK_TIMED: u16 = 1 << 8;
    /// `hold` is in use. Here as well, so that a packet need not touch the line `hold` is in.
    pub const HELD: u16 = 1 << 9;
}

/// Bits of [`Flow::offered`], one byte a side, of its first SYN or SYN-ACK.
pub mod offer {
    pub const MSS: u8 = 1;
    pub const WSCALE: u8 = 2;
    pub const SACK: u8 = 4;
    pub const TIMESTAMPS: u8 = 8;
    /// The capture cut its options short: what is not set here is unknown.
    pub const CUT: u8 = 16;
}

/// Bits of [`Flow::oddities`]: what happened once and is told when the flow ends.
pub mod oddity {
    /// A SYN was answered by an ACK that belongs to another connection (RFC 5961 §4.2).
    pub const CHALLENGED: u8 = 1;
    /// The SYN-ACK was never acknowledged, though there was time to.
    pub const INCOMPLETE: u8 = 2;
}

/// What is known of one direction; exactly one cache line.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Direction {
    /// When `next_seq` last advanced.
    pub next_seq_ns: Nanos,
    /// When an ACK was last seen from this side.
    pub last_ack_ns: Nanos,
    /// IP bytes.
    pub bytes: u64,
    /// TCP payload bytes, repeats included.
    pub payload: u64,
    /// Highest sequence number seen, plus one.
    pub next_seq: u32,
    /// Last acknowledgement sent by this side.
    pub last_ack: u32,
    pub isn: u32,
    pub packets: u32,
    /// As on the wire, not scaled.
    pub window: u16,
    pub max_payload: u16,
    /// Largest payload known to have arrived.
    pub largest_acked: u16,
    pub rst: u16,
    pub ttl_min: u8,
    pub ttl_max: u8,
    pub flags: u8,
    /// Consecutive duplicate ACKs sent by this side, as far as 255.
    pub dup_acks: u8,
    /// SYNs, SYN-ACKs and FINs seen, as far as 255.
    pub syn: u8,
    pub syn_ack: u8,
    pub fin: u8,
    /// How far this side's window is scaled, once both SYNs offered it; [`SHIFT_PENDING`] until its next segment.
    pub shift: u8,
}

const _: () = assert!(size_of::<Direction>() == 64);

impl Direction {
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// One conversation; exactly five cache lines.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Flow {
    pub key: FlowKey,
    /// Last packet of either side.
    pub last_ns: Nanos,
    /// Newest packet in the history ring: its position plus one, 0 if none.
    pub newest: u64,
    pub flags: u16,
    /// Part of the history ring its newest packet lies in (see `history::tail`).
    pub epoch: u16,
    pub trouble: u32,

    /// By key order: `dirs[0]` is what the low end sent.
    pub dirs: [Direction; 2],
    /// By key order.
    pub senders: [Sender; 2],

    pub start_ns: Nanos,
    /// First SYN-ACK and the ACK that completed the handshake, µs after start; 0 if not seen.
    pub syn_ack_us: u32,
    pub ack_us: u32,
    /// The last silence with nothing outstanding, ms, and how many packets had been seen before it ended.
    pub idle_ms: u32,
    pub idle_packets: u32,
    /// Tick the wheel wakes it at.
    pub timer_at: u32,
    /// Neighbours in the timer wheel's bucket.
    pub timer_next: u32,
    pub timer_prev: u32,
    pub tail: u32,
    pub hold: u32,
    pub vlan: [u16; 2],
    /// By key order, as are `wscale` and `offered`.
    pub mss: [u16; 2],
    pub wscale: [u8; 2],
    pub offered: [u8; 2],
    /// Seconds after the SYN for which syn_timeout was raised.
    pub syn_checks: u8,
    /// How often `stalled` was raised since one side began to wait.
    pub stall_checks: u8,
    /// SYN-ACKs seen after the originator had acknowledged one, as far as 255.
    pub late_syn_acks: u8,
    /// Bits of [`oddity`].
    pub oddities: u8,
}

const _: () = assert!(size_of::<Flow>() == 320);

impl Flow {
    #[inline(always)]
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Ties the flow to a hold, or with `NONE` to none any more.
    pub fn set_hold(&mut self, hold: u32) {
        self.hold = hold;
        if hold == NONE {
            self.flags &= !flow_flag::HELD;
        } else {
            self.flags |= flow_flag::HELD;
        }
    }

    /// Index in `dirs` of what the originator sent.
    #[inline(always)]
    pub fn orig(&self) -> usize {
        usize::from(!self.has(flow_flag::ORIG_LOW))
    }

    #[inline(always)]
    pub fn side_of(&self, dir: usize) -> Side {
        if dir == self.orig() { Side::Orig } else { Side::Resp }
    }

    /// Packets of both sides.
    #[inline(always)]
    pub fn packets(&self) -> u64 {
        u64::from(self.dirs[0].packets) + u64::from(self.dirs[1].packets)
    }

    /// Bytes `dir` sent that the other side has not acknowledged; unknown unless both were seen.
    #[inline(always)]
    pub fn unacked(&self, dir: usize) -> Option<u32> {
        let (own, other) = (&self.dirs[dir], &self.dirs[dir ^ 1]);
        if !own.has(dir_flag::SEQ) || !other.has(dir_flag::ACK) {
            return None;
        }
        let distance = own.next_seq.wrapping_sub(other.last_ack) as i32;
        Some(distance.max(0) as u32)
    }

    /// Stable across runs and workers: a hash of tuple, VLAN and start. 0 is never used.
    pub fn id(&self) -> u64 {
        const SEED: u64 = 0x5265_6665_7265_6531;
        let vlan = u64::from(self.vlan[0]) << 16 | u64::from(self.vlan[1]);
        let mut h = self.key.hash(SEED) ^ self.start_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // splitmix64's finaliser: every input bit reaches every output bit.
        h ^= vlan << 7;
        h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (h ^ h >> 31).max(1)
    }
}

/// `a` is before `b` in sequence space (RFC 9293 §3.4).
#[inline(always)]
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
