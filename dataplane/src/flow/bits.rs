//! The bits of a flow's record, by the field they are in. Constants only: the worker sets and reads them, and what
//! they mean leaves it as facts and rows.

#[cfg(doc)]
use super::record::{Direction, Flow, Rare};

/// Payload from which a segment is large enough to be suspected of not fitting through a path, bytes.
pub const LARGE: u32 = 1000;

/// Bits of [`Direction::scale`].
pub mod scale {
    /// How far the side's window is scaled, plus [`SHIFTED`]; or one of the two below.
    pub const MASK: u8 = 0x1f;
    pub const UNKNOWN: u8 = 0;
    /// A SYN was seen that makes scaling impossible.
    pub const NONE: u8 = 1;
    pub const SHIFTED: u8 = 2;
    /// The side's newest acknowledgement is in [`Rare::acked`](super::Rare::acked).
    pub const ASIDE: u8 = 0x20;
    /// [`Rare::base_seq`](super::Rare::base_seq) is known.
    pub const BASE: u8 = 0x40;
    /// No ACK has followed the side's SYN, whose window is never scaled.
    pub const PENDING: u8 = 0x80;
}

/// Bits of [`Direction::flags`].
pub mod dir_flag {
    /// A packet of this direction was seen.
    pub const SEEN: u8 = 1;
    /// `next_seq` is known.
    pub const SEQ: u8 = 2;
    /// A segment with an acknowledgement was seen.
    pub const ACK: u8 = 4;
    /// The SYN or SYN-ACK was seen.
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

/// Bits of [`Direction::signs`].
pub mod sign {
    /// A packet with, and one without Don't Fragment was seen, RSTs apart.
    pub const DF: u8 = 1;
    pub const NO_DF: u8 = 2;
    /// The IP-ID jumped.
    pub const ID_JUMPED: u8 = 4;
    /// A RST in this side's name was seen.
    pub const RST: u8 = 8;
    /// [`Sender::closed_ms`](super::Sender::closed_ms) is known.
    pub const CLOSED: u8 = 16;
    /// Something is missing before `expected`: from [`Sender::continuous`](super::Sender::continuous) on.
    pub const GAP: u8 = 32;
    /// Packets of it were captured as one: nobody knows how large they are on the wire.
    pub const COALESCED: u8 = 64;
    /// One acknowledgement, with more outstanding, has covered [`LARGE`](super::LARGE) or more of its bytes.
    pub const LARGE_PASSED: u8 = 128;
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
    /// A SYN was seen, and no ACK since that would time the round trip ([`Rare::first_rtt_ns`](super::Rare)).
    pub const UNTIMED: u16 = 1 << 6;
    /// Began on a 5-tuple that an earlier flow had used.
    pub const PORT_REUSE: u16 = 1 << 7;
    /// The originator's handshake ACK has been timed.
    pub const ACK_TIMED: u16 = 1 << 8;
    /// `hold` is in use. Here as well, so that a packet need not touch the line `hold` is in.
    pub const HELD: u16 = 1 << 9;
    /// The story has this letter of the low end; of the high end, one bit further.
    pub const TOLD_ACK: u16 = 1 << 10;
    pub const TOLD_DATA: u16 = 1 << 12;
    /// `copied` is not 0. Here as well, for the same reason.
    pub const COPIED: u16 = 1 << 15;
    /// A TLS ClientHello is without answer (see `analyze::app`).
    pub const HELLO_WAITS: u16 = 1 << 14;
}

/// Bits of [`Flow::crowd`].
pub mod crowd_flag {
    /// Counted among the entries of a state table in the path.
    pub const TRACKED: u8 = 1;
    /// What became of the attempt that began it has been told.
    pub const SETTLED: u8 = 2;
    /// A DNS question was asked on it.
    pub const ASKED: u8 = 4;
    /// Above these, how often `idle` was raised in the present silence.
    pub const IDLE_SHIFT: u32 = 3;
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

/// Bits of [`Rare::oddities`]: what happened once.
pub mod oddity {
    /// A SYN was answered by an ACK that belongs to another connection (RFC 5961 §4.2).
    pub const CHALLENGED: u8 = 1;
    /// The SYN-ACK was never acknowledged, though there was time to.
    pub const INCOMPLETE: u8 = 2;
    /// The last SYN did not offer ECN.
    pub const LAST_SYN_PLAIN: u8 = 4;
    /// The client answered the SYN-ACK with a RST, and has sent no SYN since.
    pub const ABORTED: u8 = 8;
    /// Accurate ECN (RFC 9768) was offered or is agreed on: ECE, CWR and AE are a counter.
    pub const ACCURATE_ECN: u8 = 16;
}
