//! One flow, seven cache lines: identity and links, one line for each direction, and four of what is touched
//! rarely. A packet of a healthy flow touches the first three. Worker's thread.

use rules::facts::Side;

pub use super::bits::{LARGE, crowd_flag, dir_flag, flow_flag, oddity, offer, scale, sign};
use super::sender::Sender;
use super::story::{Story, Unwritten};
use crate::decode::{FlowKey, Tunnel, TunnelKind};
use crate::source::Nanos;

/// "No such slot" in every index kept in a flow.
pub const NONE: u32 = u32::MAX;

/// [`Direction::dup_acks`] after an acknowledgement of what was not seen, with nothing else missing: reads as
/// "many" and counts on from 0.
pub const DUP_ACKS_UNSEEN: u8 = u8::MAX;

/// What is known of one direction; exactly one cache line.
///
/// `expected`, `last_ack` and `window` are those of Wireshark's dissector (`nextseq`, `lastack`, `window`): taken
/// from every segment, RSTs too, and 0 is "none yet".
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Direction {
    /// Time of the newest packet.
    pub last_ns: Nanos,
    /// IP bytes.
    pub bytes: u64,
    /// TCP payload bytes, repeats included.
    pub payload: u64,
    /// How long before `last_ns` `expected` last advanced, ns; `i32::MAX` stands for that long and longer. Negative
    /// if time went backwards since.
    pub advanced_ago: i32,
    pub expected: u32,
    /// Acknowledgement number of the newest segment, with or without an ACK; see [`Flow::acked`].
    pub last_ack: u32,
    /// Highest sequence number seen, plus one. RSTs and bytes that only probe a window don't count.
    pub next_seq: u32,
    pub packets: u32,
    /// When it first sent what the other side has answered with nothing at all: packet time, ms modulo 2^32, 0 is
    /// "no".
    pub waiting_ms: u32,
    /// As on the wire, not scaled.
    pub window: u16,
    pub max_payload: u16,
    /// Largest payload known to have arrived.
    pub largest_acked: u16,
    /// Of the newest packet that is no RST.
    pub ip_id: u16,
    pub ttl_min: u8,
    pub ttl_max: u8,
    pub flags: u8,
    /// Consecutive duplicate ACKs sent by this side, as far as 254, or [`DUP_ACKS_UNSEEN`].
    pub dup_acks: u8,
    pub scale: u8,
    /// Bits of [`sign`].
    pub signs: u8,
    /// How often the IP-ID moved on by a little, as far as 255.
    pub id_steps: u8,
    /// Sends since `waiting_ms` that nothing came back to, as far as 255.
    pub unanswered_sends: u8,
}

const _: () = assert!(size_of::<Direction>() == 64);

impl Direction {
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline(always)]
    pub fn shows(&self, sign: u8) -> bool {
        self.signs & sign != 0
    }

    /// Takes the time of a packet of this direction.
    #[inline(always)]
    pub fn pass_to(&mut self, now: Nanos) {
        let since = now.wrapping_sub(self.last_ns).cast_signed();
        if self.advanced_ago != i32::MAX {
            let ago = since.saturating_add(i64::from(self.advanced_ago));
            self.advanced_ago = ago.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        }
        self.last_ns = now;
    }

    /// When `expected` last advanced, as far back as is known.
    #[inline(always)]
    pub fn advanced_ns(&self) -> Nanos {
        self.last_ns.wrapping_sub(i64::from(self.advanced_ago).cast_unsigned())
    }

    /// The newest window is zero; a RST's is not believed.
    #[inline(always)]
    pub fn is_closed(&self) -> bool {
        self.window == 0 && self.has(dir_flag::WINDOW) && self.scale & scale::ASIDE == 0
    }
}

/// What the analysis needs of a flow only now and then; exactly one cache line.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Rare {
    /// The newest SYN without ACK, 0 if none.
    pub syn_ns: Nanos,
    /// From there to the first ACK of either side, 0 while unknown: Wireshark's initial round trip.
    pub first_rtt_ns: u64,
    /// By key order, as are all below: the sequence number of the SYN or SYN-ACK, or what it must have been.
    pub base_seq: [u32; 2],
    /// The last acknowledgement before a RST, or before a segment without one.
    pub acked: [u32; 2],
    /// Wireshark's `tcp.analysis.window_update` and `reused_ports`.
    pub window_updates: [u32; 2],
    /// The tunnel its first packet came through.
    pub tunnel_id: u32,
    /// Segments with ECE and with CWR (RFC 3168), as far as 65,535.
    pub ece: [u16; 2],
    pub cwr: [u16; 2],
    pub tunnel_kind: TunnelKind,
    pub reused_ports: [u8; 2],
    /// How often `stalled` was raised since one side began to wait.
    pub stall_checks: u8,
    /// SYN-ACKs seen after the originator had acknowledged one, as far as 255.
    pub late_syn_acks: u8,
    /// Bits of [`oddity`].
    pub oddities: u8,
    /// SYNs that offered ECN, and SYN-ACKs that took the offer.
    pub ecn_syns: u8,
    pub ecn_answers: u8,
    /// Segments whose SACK blocks lie outside the sequence space, as far as 255.
    pub sack_garbled: [u8; 2],
    /// Seconds after the SYN for which syn_timeout was raised.
    pub syn_checks: u8,
    /// How surely the mirror delivers this flow's packets twice (see `copies`).
    pub copied: u8,
}

const _: () = assert!(size_of::<Rare>() == 64);

/// One conversation; exactly seven cache lines.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Flow {
    pub key: FlowKey,
    /// Last packet of either side.
    pub last_ns: Nanos,
    /// Newest packet in the history ring: its position plus one, 0 if none.
    pub newest: u64,
    pub flags: u16,
    pub unwritten: Unwritten,
    pub trouble: u32,

    /// By key order: `dirs[0]` is what the low end sent.
    pub dirs: [Direction; 2],
    /// By key order.
    pub senders: [Sender; 2],

    pub start_ns: Nanos,
    /// First SYN-ACK and the ACK that completed the handshake, µs after start; 0 if not seen.
    pub syn_ack_us: u32,
    pub ack_us: u32,
    /// First request to the first byte of its answer, µs; 0 while unknown.
    pub first_byte_us: u32,
    /// The last silence with nothing outstanding, ms, and how many packets had been seen before it ended.
    pub idle_ms: u32,
    pub idle_packets: u32,
    /// Neighbours in the timer wheel's bucket.
    pub timer_next: u32,
    pub timer_prev: u32,
    pub tail: u32,
    pub hold: u32,
    /// Record of its application, `NONE` if it has none.
    pub app: u32,
    pub vlan: [u16; 2],
    /// By key order, as are `wscale` and `offered`.
    pub mss: [u16; 2],
    pub wscale: [u8; 2],
    pub offered: [u8; 2],
    /// The wheel's bucket it is in.
    pub timer_at: u16,
    /// How it stands, as last counted: an [`crate::activity::Standing`].
    pub standing: u8,
    pub crowd: u8,

    pub rare: Rare,
    pub story: Story,
}

const _: () = assert!(size_of::<Flow>() == 448);

impl Flow {
    /// Whether `dir` offered something (one of [`offer`]) in its first SYN or SYN-ACK; unknown if there was none, or
    /// if the capture cut its options short.
    pub fn offers(&self, dir: usize, what: u8) -> Option<bool> {
        let offered = self.offered[dir] & what != 0;
        let known = self.dirs[dir].has(dir_flag::SYN) && (offered || self.offered[dir] & offer::CUT == 0);
        known.then_some(offered)
    }

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
        let own = &self.dirs[dir];
        if !own.has(dir_flag::SEQ) {
            return None;
        }
        let distance = own.next_seq.wrapping_sub(self.acked(dir ^ 1)?) as i32;
        Some(distance.max(0) as u32)
    }

    /// Segments of `dir` after its SYN that echo congestion, and that say they heard.
    pub fn congestion(&self, dir: usize) -> (u16, u16) {
        if self.rare.oddities & oddity::ACCURATE_ECN != 0 {
            return (0, 0);
        }
        let (ece, cwr) = (self.rare.ece[dir], self.rare.cwr[dir]);
        let syns = u16::from(self.rare.ecn_syns);
        if dir == self.orig() {
            (ece.saturating_sub(syns), cwr.saturating_sub(syns))
        } else {
            (ece.saturating_sub(self.rare.ecn_answers.into()), cwr)
        }
    }

    /// The tunnel its first packet came through.
    pub fn tunnel(&self) -> Tunnel {
        Tunnel { kind: self.rare.tunnel_kind, id: self.rare.tunnel_id }
    }

    /// The last acknowledgement `dir` sent. A RST's is not believed.
    #[inline(always)]
    pub fn acked(&self, dir: usize) -> Option<u32> {
        let own = &self.dirs[dir];
        if !own.has(dir_flag::ACK) {
            return None;
        }
        Some(if own.scale & scale::ASIDE == 0 { own.last_ack } else { self.rare.acked[dir] })
    }

    /// Up to here nothing of `dir` is missing, or the other side has acknowledged it all the same: Wireshark's
    /// `maxseqtobeacked`.
    #[inline(always)]
    pub fn continuous(&self, dir: usize) -> u32 {
        let own = &self.dirs[dir];
        if own.shows(sign::GAP) { self.senders[dir].continuous } else { own.expected }
    }

    /// Stable across runs and workers: a hash of tuple, VLAN, tunnel and start. 0 is never used.
    pub fn id(&self) -> u64 {
        const SEED: u64 = 0x5265_6665_7265_6531;
        let vlan = u64::from(self.vlan[0]) << 16 | u64::from(self.vlan[1]);
        let mut h = self.key.hash(SEED) ^ self.start_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // splitmix64's finaliser: every input bit reaches every output bit.
        h ^= vlan << 7;
        h ^= (u64::from(self.rare.tunnel_kind as u8) << 32 | u64::from(self.rare.tunnel_id))
            .wrapping_mul(0xd6e8_feb8_6659_fd93);
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
