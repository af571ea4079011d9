//! Changes to a finished frame, as boxes on a path make them: TTL, ECN, DSCP, TCP numbers and options; and what a
//! tap may put around it, a VLAN tag or a tunnel.
//!
//! Works on the bytes of frames that packet.rs makes (IPv4 without options). Of a fragment, or of IPv6 with extension
//! headers, only what the IP header has is changed. Checksums are made right again.

use crate::encap::{self, Encap};
use crate::packet::{ACK, SYN, fold, sum};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// In place of a protocol, where no transport header is at hand.
const PART: u8 = 255;

/// Where the headers of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    ip: usize,
    l4: usize,
    end: usize,
    pub v6: bool,
    /// 255 for a fragment: its checksum is about bytes that are elsewhere.
    pub proto: u8,
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

impl Layout {
    /// `None` if the frame is not IP.
    pub fn of(frame: &[u8]) -> Option<Layout> {
        let mut ip = 14;
        while matches!(be16(frame, ip - 2)?, 0x8100 | 0x88a8) {
            ip += 4;
        }
        let (v6, header, proto_at) = match be16(frame, ip - 2)? {
            0x0800 => (false, 20, 9),
            0x86dd => (true, 40, 6),
            _ => return None,
        };
        let len = if v6 { 40 + usize::from(be16(frame, ip + 4)?) } else { usize::from(be16(frame, ip + 2)?) };
        let proto = *frame.get(ip + proto_at)?;
        frame.get(ip + header..ip + len)?;
        let fragment = !v6 && be16(frame, ip + 6)? & 0x3fff != 0;
        let least = match proto {
            TCP => 20,
            UDP | ICMP | ICMPV6 => 8,
            _ => usize::MAX,
        };
        let tcp_header = || frame.get(ip + header + 12).map_or(0, |byte| usize::from(byte >> 4) * 4);
        let whole = !fragment
            && len - header >= least
            && (proto != TCP || (20..=len - header).contains(&tcp_header()));
        let proto = if whole { proto } else { PART };
        Some(Layout { ip, l4: ip + header, end: ip + len, v6, proto })
    }

    pub fn is_tcp(&self) -> bool {
        self.proto == TCP
    }

    /// Source and destination port, 0 where there are none.
    pub fn ports(&self, frame: &[u8]) -> (u16, u16) {
        let has = matches!(self.proto, TCP | UDP);
        let port = |at| if has { be16(frame, at).unwrap_or(0) } else { 0 };
        (port(self.l4), port(self.l4 + 2))
    }

    /// Source and destination address, as bytes.
    pub fn addresses<'f>(&self, frame: &'f [u8]) -> (&'f [u8], &'f [u8]) {
        let (at, len) = if self.v6 { (self.ip + 8, 16) } else { (self.ip + 12, 4) };
        (&frame[at..at + len], &frame[at + len..at + 2 * len])
    }

    /// TCP flags; 0 for other protocols.
    pub fn flags(&self, frame: &[u8]) -> u8 {
        if self.is_tcp() { frame.get(self.l4 + 13).copied().unwrap_or(0) } else { 0 }
    }

    pub fn ttl(&self, frame: &[u8]) -> u8 {
        frame[self.ip + if self.v6 { 7 } else { 8 }]
    }

    pub fn set_ttl(&self, frame: &mut [u8], ttl: u8) {
        frame[self.ip + if self.v6 { 7 } else { 8 }] = ttl;
    }

    pub fn set_ip_id(&self, frame: &mut [u8], id: u16) {
        if !self.v6 {
            frame[self.ip + 4..self.ip + 6].copy_from_slice(&id.to_be_bytes());
        }
    }

    pub fn ip_id(&self, frame: &[u8]) -> u16 {
        if self.v6 { 0 } else { be16(frame, self.ip + 4).unwrap_or(0) }
    }

    /// The two bits of RFC 3168.
    pub fn set_ecn(&self, frame: &mut [u8], ecn: u8) {
        let (at, shift) = if self.v6 { (self.ip + 1, 4) } else { (self.ip + 1, 0) };
        frame[at] = frame[at] & !(3 << shift) | (ecn & 3) << shift;
    }

    /// Differentiated services code point (RFC 2474).
    pub fn set_dscp(&self, frame: &mut [u8], dscp: u8) {
        if self.v6 {
            frame[self.ip] = 0x60 | dscp >> 2 & 0x0f;
            frame[self.ip + 1] = frame[self.ip + 1] & 0x3f | dscp << 6;
        } else {
            frame[self.ip + 1] = frame[self.ip + 1] & 3 | dscp << 2;
        }
    }

    /// Bytes above TCP, UDP or ICMP.
    pub fn payload<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        if self.proto == PART {
            return &[];
        }
        let header = if self.is_tcp() { usize::from(frame[self.l4 + 12] >> 4) * 4 } else { 8 };
        frame.get(self.l4 + header..self.end).unwrap_or_default()
    }

    /// Changes the last byte of a payload of 100 bytes and more; false if there is none.
    pub fn alter(&self, frame: &mut [u8]) -> bool {
        let long = self.payload(frame).len() >= 100;
        match self.end.checked_sub(1).and_then(|last| frame.get_mut(last)).filter(|_| long) {
            Some(last) => {
                *last ^= 0x20;
                true
            }
            None => false,
        }
    }

    /// Adds to the sequence number (`at` 4) or to the acknowledgment number (`at` 8).
    pub fn shift_number(&self, frame: &mut [u8], at: usize, by: u32) {
        if at == 8 && self.flags(frame) & ACK == 0 {
            return;
        }
        shift(&mut frame[self.l4 + at..self.l4 + at + 4], by);
    }

    /// Calls `each` with every TCP option.
    pub fn options(&self, frame: &mut [u8], mut each: impl FnMut(&mut [u8])) {
        let end = self.l4 + usize::from(frame[self.l4 + 12] >> 4) * 4;
        let mut at = self.l4 + 20;
        while at < end {
            let len =
                if frame[at] < 2 { 1 } else { usize::from(frame.get(at + 1).copied().unwrap_or(1)).max(1) };
            let to = (at + len).min(end);
            each(&mut frame[at..to]);
            at = to;
        }
    }

    /// Makes all checksums right.
    pub fn finish(&self, frame: &mut [u8]) {
        if !self.v6 {
            frame[self.ip + 10..self.ip + 12].fill(0);
            let check = fold(sum(0, &frame[self.ip..self.ip + 20]));
            frame[self.ip + 10..self.ip + 12].copy_from_slice(&check.to_be_bytes());
        }
        if self.proto == PART {
            return;
        }
        let at = self.l4
            + match self.proto {
                TCP => 16,
                UDP => 6,
                _ => 2,
            };
        let (src, dst) = self.addresses(frame);
        let pseudo = sum(sum(u64::from(self.proto) + (self.end - self.l4) as u64, src), dst);
        let pseudo = if self.proto == 1 { 0 } else { pseudo };
        frame[at..at + 2].fill(0);
        let check = fold(sum(pseudo, &frame[self.l4..self.end]));
        let check = if check == 0 && self.proto == UDP { 0xffff } else { check };
        frame[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }

    pub fn is_syn(&self, frame: &[u8]) -> bool {
        self.flags(frame) & SYN != 0
    }
}

/// Adds to a big-endian number of four bytes.
pub fn shift(field: &mut [u8], by: u32) {
    if let Ok(bytes) = <[u8; 4]>::try_from(&*field) {
        field.copy_from_slice(&u32::from_be_bytes(bytes).wrapping_add(by).to_be_bytes());
    }
}

/// What one tap's frames have around them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Around {
    #[default]
    Nothing,
    /// One more tag, the outermost.
    Vlan(u16),
    Tunnel(Encap),
}

impl Around {
    pub fn wrap(self, frame: Vec<u8>) -> Vec<u8> {
        match self {
            Around::Nothing => frame,
            Around::Vlan(id) => {
                let [high, low] = (id & 0x0fff).to_be_bytes();
                let mut out = Vec::with_capacity(frame.len() + 4);
                out.extend_from_slice(&frame[..12]);
                out.extend_from_slice(&[0x81, 0, high, low]);
                out.extend_from_slice(&frame[12..]);
                out
            }
            Around::Tunnel(encap) => encap::wrap(encap, &frame),
        }
    }
}
