//! What decoding makes of a packet: plain values, sized for a batch of them to stay in L1. Made and read on
//! the worker's thread; holds no reference to the bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::tunnel_kind::{Tunnel, TunnelKind};
use crate::source::Marks;

/// TCP header flags (RFC 9293 §3.1).
pub mod flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// What kind of packet it turned out to be. Each is analysed and counted; none is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Tcp,
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
    /// IP with another protocol, or a fragment whose first part is not at hand.
    OtherIp,
    /// Not IP (ARP, LLDP, …), or a link layer not decoded.
    NonIp,
    /// IP whose headers are cut off or contradict themselves.
    Malformed,
}

impl Class {
    pub const ALL: [Class; 6] =
        [Class::Tcp, Class::Udp, Class::Icmp, Class::OtherIp, Class::NonIp, Class::Malformed];

    pub const fn name(self) -> &'static str {
        match self {
            Class::Tcp => "tcp",
            Class::Udp => "udp",
            Class::Icmp => "icmp",
            Class::OtherIp => "other_ip",
            Class::NonIp => "non_ip",
            Class::Malformed => "malformed",
        }
    }
}

/// An address as two words, high then low, so that a key needs no 16-byte alignment. IPv4 is IPv4-mapped.
pub type Address = [u64; 2];

/// The two ends of a conversation, the same whichever of them sent the packet: `low` is the smaller
/// (address, port). IPv4 addresses are IPv4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
pub struct FlowKey {
    pub low: Address,
    pub high: Address,
    pub low_port: u16,
    pub high_port: u16,
    pub proto: u8,
    pub v6: bool,
}

impl FlowKey {
    pub const NONE: FlowKey =
        FlowKey { low: [0; 2], high: [0; 2], low_port: 0, high_port: 0, proto: 0, v6: false };

    /// The key of a packet from `src` to `dst`, and whether it came from the low end.
    #[inline]
    pub fn new(src: (Address, u16), dst: (Address, u16), proto: u8, v6: bool) -> (FlowKey, bool) {
        let from_low = src <= dst;
        let (low, high) = if from_low { (src, dst) } else { (dst, src) };
        (FlowKey { low: low.0, high: high.0, low_port: low.1, high_port: high.1, proto, v6 }, from_low)
    }

    /// Symmetric by construction; keyed, so that nobody can aim collisions.
    #[inline]
    pub fn hash(&self, secret: u64) -> u64 {
        let ports = u64::from(self.low_port) << 24 | u64::from(self.high_port) << 8 | u64::from(self.proto);
        let mut h = fold(self.low[1] ^ secret, self.high[1] ^ ports.rotate_left(24) ^ 0x9e37_79b9_7f4a_7c15);
        if self.v6 {
            h = fold(h ^ self.low[0], self.high[0] ^ secret.rotate_left(32));
        }
        fold(h ^ ports, secret | 1)
    }

    pub fn low_addr(&self) -> IpAddr {
        self.addr(self.low)
    }

    pub fn high_addr(&self) -> IpAddr {
        self.addr(self.high)
    }

    fn addr(&self, words: Address) -> IpAddr {
        if self.v6 {
            IpAddr::V6(Ipv6Addr::from(u128::from(words[0]) << 64 | u128::from(words[1])))
        } else {
            IpAddr::V4(Ipv4Addr::from(words[1] as u32))
        }
    }
}

/// 64 × 64 → 128-bit multiply, folded: the mixing step of the wyhash family.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// TCP options a flow is judged by; each bit set only if the option was there and well-formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    pub mss: Option<u16>,
    /// Shift count, at most 14 as RFC 7323 §2.3 reads larger ones.
    pub wscale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: bool,
    pub sack_blocks: u8,
    /// Edges of the first of them (RFC 2018 §3).
    pub sack_edges: [u32; 2],
    /// The capture cut the list short: what was not found may have been there.
    pub cut: bool,
}

impl TcpOptions {
    const NONE: TcpOptions = TcpOptions {
        mss: None,
        wscale: None,
        sack_permitted: false,
        timestamps: false,
        sack_blocks: 0,
        sack_edges: [0; 2],
        cut: false,
    };
}

/// A TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub flags: u8,
    /// The ninth flag, AE (RFC 9768; once NS).
    pub accurate_ecn: bool,
    /// Payload bytes on the wire, from the IP length, whatever the capture kept of them.
    pub payload: u32,
    pub options: TcpOptions,
}

/// The packet an ICMP error speaks of, as far as it was quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub key: FlowKey,
    /// The quoted packet came from the low end.
    pub from_low: bool,
    /// Sequence number of a quoted TCP header.
    pub seq: Option<u32>,
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    /// "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443): the next hop's MTU, 0 if not said.
    pub too_big: Option<u32>,
    pub quote: Option<Quote>,
}

/// Which part of an IP packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its beginning, with the transport header.
    First,
    Later,
}

/// The outermost IP header that says "fragment".
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Identification: 16 bits of IPv4, 32 of IPv6.
    pub id: u32,
    /// Where that IP header begins.
    pub at: u16,
    /// Where its data belongs in the whole packet's, bytes.
    pub offset: u16,
    /// Its data, bytes on the wire.
    pub len: u16,
    pub proto: u8,
    pub part: Part,
    /// Tunnels around it.
    pub depth: u8,
}

impl Fragment {
    const NONE: Fragment =
        Fragment { id: 0, at: 0, offset: 0, len: 0, proto: 0, part: Part::Whole, depth: 0 };

    /// Source and destination of the fragmented packet, out of the packet's bytes.
    pub fn ends(&self, bytes: &[u8]) -> Option<(Address, Address)> {
        let header = bytes.get(usize::from(self.at)..)?;
        if header.first()? >> 4 == 4 {
            let word = |at: usize| Some(u64::from(super::bytes::u32_at(header, at)?));
            Some(([0, word(12)?], [0, word(16)?]))
        } else {
            Some((super::net::v6_address(header.get(8..)?)?, super::net::v6_address(header.get(24..)?)?))
        }
    }
}

/// A decoded packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub class: Class,
    /// `key` names a conversation (TCP, UDP, ICMP with both addresses).
    pub has_flow: bool,
    pub from_low: bool,
    pub df: bool,
    pub ttl: u8,
    /// IP ECN field (RFC 3168).
    pub ecn: u8,
    /// Differentiated services code point (RFC 2474).
    pub dscp: u8,
    /// Bytes from the start of the packet to the transport payload, or all that was decoded.
    pub headers: u16,
    /// Outer VLAN ids of the innermost frame that has any, 0 where there is none; more than two are counted in
    /// `vlan_depth` only.
    pub vlan: [u16; 2],
    pub vlan_depth: u8,
    /// Tunnels around the packet that all else here is about.
    pub depth: u8,
    pub ip_id: Option<u16>,
    /// Of TCP, UDP or ICMP, as sent; 0 where there is none, or it is unknown.
    pub checksum: u16,
    /// What its source knows of it.
    pub marks: Marks,
    /// IP packet length on the wire, bytes.
    pub ip_len: u32,
    pub tunnel: Tunnel,
    pub fragment: Fragment,
    pub key: FlowKey,
    pub tcp: Tcp,
    pub icmp: Icmp,
}

impl Packet {
    /// A segment that begins or ends a connection.
    #[inline(always)]
    pub fn is_control(&self) -> bool {
        self.tcp.flags & (flags::SYN | flags::FIN | flags::RST) != 0
    }

    const BLANK: Packet = Packet {
        class: Class::NonIp,
        has_flow: false,
        from_low: false,
        df: false,
        ttl: 0,
        ecn: 0,
        dscp: 0,
        headers: 0,
        vlan: [0; 2],
        vlan_depth: 0,
        depth: 0,
        ip_id: None,
        checksum: 0,
        marks: Marks::NONE,
        ip_len: 0,
        tunnel: Tunnel { kind: TunnelKind::None, id: 0 },
        fragment: Fragment::NONE,
        key: FlowKey::NONE,
        tcp: Tcp {
            seq: 0,
            ack: 0,
            window: 0,
            flags: 0,
            accurate_ecn: false,
            payload: 0,
            options: TcpOptions::NONE,
        },
        icmp: Icmp { kind: 0, code: 0, too_big: None, quote: None },
    };

    pub(super) fn new(cap_len: usize, orig_len: u32) -> Packet {
        Packet { headers: cap_len.min(128) as u16, ip_len: orig_len, ..Packet::BLANK }
    }

    /// Takes what the source knows of it.
    #[cold]
    pub fn mark(&mut self, marks: Marks) {
        self.marks = marks;
        if marks.has(Marks::UNCHECKED) {
            self.checksum = 0;
        }
    }

    /// Makes it a packet of which nothing is decoded. Field by field, since a whole one would be written on the stack
    /// and copied before its bytes are there to be copied at once.
    #[inline(always)]
    pub(super) fn clear(&mut self, cap_len: usize, orig_len: u32) {
        let Packet {
            class,
            has_flow,
            from_low,
            df,
            ttl,
            ecn,
            dscp,
            headers,
            vlan,
            vlan_depth,
            depth,
            ip_id,
            checksum,
            marks,
            ip_len,
            tunnel,
            fragment,
            key,
            tcp,
            icmp,
        } = self;
        (*class, *has_flow, *from_low, *df) = (Class::NonIp, false, false, false);
        (*ttl, *ecn, *dscp) = (0, 0, 0);
        (*headers, *vlan, *vlan_depth, *depth) = (cap_len.min(128) as u16, [0; 2], 0, 0);
        (*ip_id, *checksum, *marks, *ip_len) = (None, 0, Marks::NONE, orig_len);
        (*tunnel, *fragment, *key) = (Tunnel::default(), Fragment::NONE, FlowKey::NONE);
        let Tcp { seq, ack, window, flags, accurate_ecn, payload, options } = tcp;
        (*seq, *ack, *window, *flags, *accurate_ecn, *payload) = (0, 0, 0, 0, false, 0);
        *options = TcpOptions::NONE;
        let Icmp { kind, code, too_big, quote } = icmp;
        (*kind, *code, *too_big) = (0, 0, None);
        *quote = None;
    }
}
