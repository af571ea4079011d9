//! Frames from headers: Ethernet [+ VLAN, QinQ], IPv4 / IPv6, TCP with options, UDP, ICMP / ICMPv6, ARP.
//!
//! Runs wherever packets are made; keeps no state and allocates only when the caller's buffer must grow. All
//! checksums are valid and short frames are padded to 60 B, as they are on a wire. Frames go to write.rs or
//! straight to a caller in the same process.

use std::net::IpAddr;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Shortest frame without FCS (IEEE 802.3).
const MIN_FRAME: usize = 60;

/// The Ethernet header. `vlan`: outer then inner VLAN id, 0 where there is none; two make it QinQ (802.1ad).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ethernet {
    pub src: [u8; 6],
    pub dst: [u8; 6],
    pub vlan: [u16; 2],
}

impl Ethernet {
    /// The same link in the other direction.
    pub fn reversed(self) -> Ethernet {
        Ethernet { src: self.dst, dst: self.src, vlan: self.vlan }
    }

    fn write(&self, out: &mut Vec<u8>, ether_type: u16) {
        out.extend_from_slice(&self.dst);
        out.extend_from_slice(&self.src);
        let tag = |out: &mut Vec<u8>, tpid: u16, id: u16| {
            out.extend_from_slice(&tpid.to_be_bytes());
            out.extend_from_slice(&(id & 0x0fff).to_be_bytes());
        };
        match self.vlan {
            [0, 0] => {}
            [id, 0] | [0, id] => tag(out, 0x8100, id),
            [outer, inner] => {
                tag(out, 0x88a8, outer);
                tag(out, 0x8100, inner);
            }
        }
        out.extend_from_slice(&ether_type.to_be_bytes());
    }
}

/// What the IP header needs. With one IPv6 address the packet is IPv6 (the other one is mapped).
/// `id` is IPv4's identification; IPv6 has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub id: u16,
    pub dont_fragment: bool,
}

/// What the TCP header needs; `options` is a multiple of 4 bytes, 40 at most.
#[derive(Clone, Copy, Debug)]
pub struct TcpHeader<'a> {
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: &'a [u8],
}

/// TCP options under construction (RFC 9293 §3.2), padded with NOP to a multiple of 4 bytes.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    bytes: [u8; 40],
    len: usize,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions { bytes: [1; 40], len: 0 }
    }
}

impl TcpOptions {
    fn push(mut self, option: &[u8]) -> TcpOptions {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + option.len()) {
            room.copy_from_slice(option);
            self.len += option.len();
        }
        self
    }

    pub fn nop(self) -> TcpOptions {
        self.push(&[1])
    }

    pub fn mss(self, mss: u16) -> TcpOptions {
        let [high, low] = mss.to_be_bytes();
        self.push(&[2, 4, high, low])
    }

    /// RFC 7323 §2.
    pub fn window_scale(self, shift: u8) -> TcpOptions {
        self.push(&[3, 3, shift])
    }

    /// RFC 2018 §2.
    pub fn sack_permitted(self) -> TcpOptions {
        self.push(&[4, 2])
    }

    /// One SACK block (RFC 2018 §3).
    pub fn sack(self, left: u32, right: u32) -> TcpOptions {
        let mut option = [5, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[2..6].copy_from_slice(&left.to_be_bytes());
        option[6..10].copy_from_slice(&right.to_be_bytes());
        self.push(&option)
    }

    /// RFC 7323 §3.
    pub fn timestamps(self, value: u32, echo: u32) -> TcpOptions {
        let mut option = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[2..6].copy_from_slice(&value.to_be_bytes());
        option[6..10].copy_from_slice(&echo.to_be_bytes());
        self.push(&option)
    }

    /// The options, padded.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.next_multiple_of(4)]
    }
}

/// Sums 16-bit big-endian words (RFC 1071), not yet folded.
pub fn sum(mut total: u64, data: &[u8]) -> u64 {
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_be_bytes(chunk.try_into().expect("chunks of eight bytes"));
        total += (word >> 32) + (word & 0xffff_ffff);
    }
    for pair in chunks.remainder().chunks(2) {
        total += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    }
    total
}

/// The Internet checksum of what [`sum`] added up.
pub fn fold(mut total: u64) -> u16 {
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// Writes Ethernet and IP headers for a payload of `len` bytes; gives the sum of the pseudo header.
fn network(out: &mut Vec<u8>, eth: &Ethernet, ip: &Ip, protocol: u8, len: usize) -> u64 {
    out.clear();
    let pseudo = u64::from(protocol) + len as u64;
    if let (IpAddr::V4(src), IpAddr::V4(dst)) = (ip.src, ip.dst) {
        eth.write(out, 0x0800);
        let at = out.len();
        let mut header = [0u8; 20];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&((20 + len) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&ip.id.to_be_bytes());
        header[6] = u8::from(ip.dont_fragment) << 6;
        header[8] = ip.ttl;
        header[9] = protocol;
        header[12..16].copy_from_slice(&src.octets());
        header[16..20].copy_from_slice(&dst.octets());
        let check = fold(sum(0, &header));
        header[10..12].copy_from_slice(&check.to_be_bytes());
        out.extend_from_slice(&header);
        return sum(pseudo, &out[at + 12..]);
    }
    eth.write(out, 0x86dd);
    let at = out.len();
    out.extend_from_slice(&[0x60, 0, 0, 0]);
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(&[protocol, ip.ttl]);
    for address in [ip.src, ip.dst] {
        match address {
            IpAddr::V4(v4) => out.extend_from_slice(&v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
        }
    }
    sum(pseudo, &out[at + 8..])
}

/// Puts the checksum of everything from `from` at `from + at`, and pads the frame.
fn finish(out: &mut Vec<u8>, from: usize, at: usize, pseudo: u64) {
    let check = fold(sum(pseudo, &out[from..]));
    out[from + at..from + at + 2].copy_from_slice(&check.to_be_bytes());
    if out.len() < MIN_FRAME {
        out.resize(MIN_FRAME, 0);
    }
}

/// Replaces `out` by a TCP segment.
pub fn tcp(out: &mut Vec<u8>, eth: &Ethernet, ip: &Ip, tcp: &TcpHeader<'_>, payload: &[u8]) {
    let header_len = 20 + tcp.options.len();
    let pseudo = network(out, eth, ip, TCP, header_len + payload.len());
    let from = out.len();
    let mut header = [0u8; 20];
    header[0..2].copy_from_slice(&tcp.sport.to_be_bytes());
    header[2..4].copy_from_slice(&tcp.dport.to_be_bytes());
    header[4..8].copy_from_slice(&tcp.seq.to_be_bytes());
    header[8..12].copy_from_slice(&tcp.ack.to_be_bytes());
    header[12] = ((header_len / 4) as u8) << 4;
    header[13] = tcp.flags;
    header[14..16].copy_from_slice(&tcp.window.to_be_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(tcp.options);
    out.extend_from_slice(payload);
    finish(out, from, 16, pseudo);
}

/// Replaces `out` by a UDP datagram. A checksum of 0 is sent as 0xffff (RFC 768).
pub fn udp(out: &mut Vec<u8>, eth: &Ethernet, ip: &Ip, sport: u16, dport: u16, payload: &[u8]) {
    let len = 8 + payload.len();
    let pseudo = network(out, eth, ip, UDP, len);
    let from = out.len();
    out.extend_from_slice(&sport.to_be_bytes());
    out.extend_from_slice(&dport.to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    finish(out, from, 6, pseudo);
    if out[from + 6..from + 8] == [0, 0] {
        out[from + 6..from + 8].fill(0xff);
    }
}

/// Replaces `out` by an ICMP message (RFC 792), or ICMPv6 (RFC 4443) between IPv6 addresses.
/// `rest` is the second word of the header.
pub fn icmp(out: &mut Vec<u8>, eth: &Ethernet, ip: &Ip, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) {
    let v4 = ip.src.is_ipv4() && ip.dst.is_ipv4();
    let pseudo = network(out, eth, ip, if v4 { ICMP } else { ICMPV6 }, 8 + body.len());
    let from = out.len();
    out.extend_from_slice(&[kind, code, 0, 0]);
    out.extend_from_slice(&rest);
    out.extend_from_slice(body);
    finish(out, from, 2, if v4 { 0 } else { pseudo });
}

/// Replaces `out` by an ARP packet (RFC 826): the request, or the reply to it.
pub fn arp(out: &mut Vec<u8>, eth: &Ethernet, reply: bool, sender: [u8; 4], target: [u8; 4]) {
    out.clear();
    eth.write(out, 0x0806);
    out.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, if reply { 2 } else { 1 }]);
    out.extend_from_slice(&eth.src);
    out.extend_from_slice(&sender);
    out.extend_from_slice(if reply { &eth.dst } else { &[0; 6] });
    out.extend_from_slice(&target);
    if out.len() < MIN_FRAME {
        out.resize(MIN_FRAME, 0);
    }
}

/// Length of an IP header without options.
pub fn ip_header_len(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn ips() -> [Ip; 2] {
        let v4 = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let v6 = |n| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
        [(v4(1), v4(2)), (v6(1), v6(2))].map(|(src, dst)| Ip {
            src,
            dst,
            ttl: 64,
            id: 7,
            dont_fragment: true,
        })
    }

    #[test]
    fn rfc_1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(0, &data)), !0xddf2);
        assert_eq!(sum(0, &[1, 2, 3]), 0x0102 + 0x0300);
    }

    #[test]
    fn every_kind_of_frame_has_valid_checksums() {
        let mut out = Vec::new();
        for vlan in [[0, 0], [5, 0], [5, 6]] {
            let eth = Ethernet { src: [2; 6], dst: [4; 6], vlan };
            for ip in ips() {
                for len in [0usize, 1, 7, 1448] {
                    let payload = vec![0xa5; len];
                    let options = TcpOptions::default().mss(1460).sack_permitted().timestamps(1, 2);
                    let header = TcpHeader {
                        sport: 1,
                        dport: 2,
                        seq: 3,
                        ack: 4,
                        flags: SYN,
                        window: 9,
                        options: options.as_bytes(),
                    };
                    tcp(&mut out, &eth, &ip, &header, &payload);
                    let seen = check::read(&out).unwrap();
                    assert_eq!(
                        (seen.vlan, seen.payload, seen.seq, seen.mss),
                        (vlan, len as u32, 3, Some(1460))
                    );
                    udp(&mut out, &eth, &ip, 53, 54, &payload);
                    check::read(&out).unwrap();
                    icmp(&mut out, &eth, &ip, 128, 0, [0, 1, 0, 2], &payload);
                    check::read(&out).unwrap();
                    assert!(out.len() >= MIN_FRAME);
                }
            }
        }
    }

    #[test]
    fn options_are_padded_and_never_overflow() {
        assert_eq!(TcpOptions::default().window_scale(7).as_bytes(), [3, 3, 7, 1]);
        let mut many = TcpOptions::default();
        for _ in 0..9 {
            many = many.sack(1, 2);
        }
        assert_eq!(many.as_bytes().len(), 40);
    }
}
