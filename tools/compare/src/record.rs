//! A packet as comparison remembers it: small, because a capture has millions.
//!
//! Plain values, made by `read`, looked at by everything else; never changed.

use dataplane::decode::flags;
use dataplane::source::Nanos;

/// TCP flags that make a segment what it is; ECN's may be changed on the way, PSH by offload.
const IDENTITY: u8 = flags::FIN | flags::SYN | flags::RST | flags::ACK;

/// One packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// By the capture's own clock.
    pub ts: Nanos,
    /// TCP sequence number; ICMP type and code.
    pub seq: u32,
    /// TCP acknowledgment number; what a UDP or ICMP answer repeats of its question ([`TOKEN`] set), else 0.
    pub ack: u32,
    /// TCP payload, bytes; other protocols: IP packet length.
    pub len: u32,
    /// Hash of the first payload bytes; 0 if they were not captured or there are none.
    pub head: u32,
    /// Hash of the whole payload; 0 if it was not captured or there is none. Of an ICMP error, 1 + the number of the
    /// flow it speaks of.
    pub body: u32,
    /// Index into [`crate::Flows`].
    pub flow: u32,
    /// Number in its file, from 1.
    pub number: u32,
    /// TCP time stamp value (RFC 7323); 0 if there is none.
    pub tsval: u32,
    /// 1 + index into the capture's [`Extra`]s; 0 if it has none.
    pub extra: u32,
    /// 0 if there is none.
    pub ip_id: u16,
    /// TCP flags; 0 for other protocols.
    pub flags: u8,
    pub ttl: u8,
    /// IP ECN field, and the code point beside it.
    pub ecn: u8,
    pub dscp: u8,
    /// Sent by the low end of its flow's key.
    pub from_low: bool,
    /// An ICMP error: whoever sent it speaks of another flow.
    pub is_error: bool,
}

/// Marks `ack` of UDP and ICMP as a token.
pub const TOKEN: u32 = 1 << 16;
/// Marks it as one of an answer.
pub const ANSWER: u32 = 1 << 17;

/// TCP options of a SYN, or SACK blocks of any segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    pub mss: Option<u16>,
    pub wscale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: bool,
    /// The capture cut the options short.
    pub cut: bool,
    /// First SACK block, if there is one.
    pub sack: Option<[u32; 2]>,
}

impl Record {
    pub fn dir(&self) -> usize {
        usize::from(self.from_low)
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn identity_flags(&self) -> u8 {
        self.flags & IDENTITY
    }

    /// Sequence numbers it takes up.
    pub fn span(&self) -> u32 {
        self.len + u32::from(self.has(flags::SYN)) + u32::from(self.has(flags::FIN))
    }

    /// What it asks for, if it is a question whose answer repeats that.
    pub fn asks(&self) -> Option<u32> {
        (self.flags == 0 && self.ack & (TOKEN | ANSWER) == TOKEN).then_some(self.ack)
    }

    /// It answers this question.
    pub fn answers(&self, question: u32) -> bool {
        self.flags == 0 && self.ack == question | ANSWER
    }

    /// The flow an ICMP error speaks of.
    pub fn quoted(&self) -> Option<u32> {
        self.body.checked_sub(1).filter(|_| self.is_error)
    }

    pub fn is_rst(&self) -> bool {
        self.has(flags::RST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Record>() <= 64, "{}", size_of::<Record>());
    }
}
