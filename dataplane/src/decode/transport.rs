//! TCP with its options, UDP, ICMP and ICMPv6; the packet they quote is read in `quote`, the one they carry in
//! `tunnel`. Worker's thread; no allocation, no panic. The finished packet goes to `flow`.

use super::bytes::{after, u8_at, u16_at, u32_at};
use super::net::Ends;
use super::packet::{Class, FlowKey, Icmp, Packet, Tcp, TcpOptions, flags};
use super::quote::quote;
use super::tunnel;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
/// RFC 7323 §2.3: a larger shift is to be used as 14.
const MAX_WSCALE: u8 = 14;

/// Decodes the transport header at `at`; `left` is what IP says follows there on the wire.
#[inline]
pub(super) fn decode(bytes: &[u8], at: usize, left: usize, proto: u8, ends: Ends, packet: &mut Packet) {
    packet.headers = at.min(usize::from(u16::MAX)) as u16;
    match proto {
        TCP => tcp(bytes, at, left, ends, packet),
        UDP => udp(bytes, at, left, ends, packet),
        ICMP | ICMPV6 => icmp(bytes, at, left, proto, ends, packet),
        _ => other(bytes, at, left, proto, ends, packet),
    }
}

/// IP of another protocol; the packet inside, if it is a tunnel's.
#[cold]
fn other(bytes: &[u8], at: usize, left: usize, proto: u8, ends: Ends, packet: &mut Packet) {
    packet.class = Class::OtherIp;
    set_key(packet, ends, (0, 0), proto);
    // Authenticated (RFC 4302), and not once more.
    if let (51, Some(next), Some(units)) = (proto, u8_at(bytes, at), u8_at(bytes, at + 1))
        && next != 51
    {
        let len = usize::from(units) * 4 + 8;
        if len <= left {
            decode(bytes, at + len, left - len, next, ends, packet);
        }
        return;
    }
    tunnel::protocol(bytes, at, at + left, proto, packet);
}

#[inline(always)]
pub(super) fn set_key(packet: &mut Packet, ends: Ends, ports: (u16, u16), proto: u8) {
    let (key, from_low) = FlowKey::new((ends.src, ports.0), (ends.dst, ports.1), proto, ends.v6);
    packet.key = key;
    packet.from_low = from_low;
}

/// RFC 9293 §3.1.
#[inline]
fn tcp(bytes: &[u8], at: usize, left: usize, ends: Ends, packet: &mut Packet) {
    let Some(header) = after(bytes, at).first_chunk::<20>() else { return };
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 || header_len > left {
        return;
    }
    packet.class = Class::Tcp;
    packet.has_flow = true;
    let ports = (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]));
    set_key(packet, ends, ports, TCP);
    packet.headers = (at + header_len).min(usize::from(u16::MAX)) as u16;
    packet.checksum = u16::from_be_bytes([header[16], header[17]]);
    packet.tcp = Tcp {
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        window: u16::from_be_bytes([header[14], header[15]]),
        flags: header[13],
        accurate_ecn: header[12] & 1 != 0,
        payload: (left - header_len) as u32,
        options: TcpOptions::default(),
    };
    if header_len > 20 {
        let end = bytes.len().min(at + header_len);
        packet.tcp.options = options(&bytes[at + 20..end], header[13] & flags::SYN != 0);
        packet.tcp.options.cut = end < at + header_len;
    }
}

/// Reads the option list; stops at the first option that lies about its length.
#[inline]
fn options(mut list: &[u8], syn: bool) -> TcpOptions {
    // NOP NOP Timestamp, which nearly every segment between hosts of today carries (RFC 7323 appendix A).
    if let [1, 1, 8, 10, ..] = list
        && list.len() == 12
    {
        return TcpOptions { timestamps: true, ..TcpOptions::default() };
    }
    let mut found = TcpOptions::default();
    while let Some(&kind) = list.first() {
        match kind {
            0 => break,
            1 => {
                list = &list[1..];
                continue;
            }
            _ => {}
        }
        let Some(len) = u8_at(list, 1).map(usize::from) else { break };
        if len < 2 || len > list.len() {
            break;
        }
        match (kind, len) {
            (2, 4) if syn => found.mss = u16_at(list, 2),
            (3, 3) if syn => found.wscale = u8_at(list, 2).map(|shift| shift.min(MAX_WSCALE)),
            (4, 2) if syn => found.sack_permitted = true,
            (5, 10..) => {
                found.sack_blocks = ((len - 2) / 8) as u8;
                found.sack_edges = [2, 6].map(|at| u32_at(list, at).unwrap_or(0));
            }
            (8, 10) => found.timestamps = true,
            _ => {}
        }
        list = &list[len..];
    }
    found
}

/// RFC 768.
#[inline]
fn udp(bytes: &[u8], at: usize, left: usize, ends: Ends, packet: &mut Packet) {
    let (Some(sport), Some(dport)) = (u16_at(bytes, at), u16_at(bytes, at + 2)) else { return };
    if left < 8 {
        return;
    }
    packet.class = Class::Udp;
    packet.has_flow = true;
    packet.checksum = u16_at(bytes, at + 6).unwrap_or(0);
    set_key(packet, ends, (sport, dport), UDP);
    packet.headers = (at + 8).min(usize::from(u16::MAX)) as u16;
    if tunnel::is_port(sport, dport) {
        tunnel::datagram(bytes, at + 8, at + left, (sport, dport), packet);
    }
}

/// RFC 792, RFC 4443. Echo requests and replies share a flow by their identifier; errors belong to the flow
/// they quote, and are a conversation of their own between the two addresses besides.
fn icmp(bytes: &[u8], at: usize, left: usize, proto: u8, ends: Ends, packet: &mut Packet) {
    let (Some(kind), Some(code)) = (u8_at(bytes, at), u8_at(bytes, at + 1)) else { return };
    if left < 4 {
        return;
    }
    packet.class = Class::Icmp;
    packet.has_flow = true;
    packet.headers = (at + 8).min(usize::from(u16::MAX)) as u16;
    packet.checksum = u16_at(bytes, at + 2).unwrap_or(0);
    let v6 = proto == ICMPV6;
    let echo = if v6 { kind == 128 || kind == 129 } else { kind == 0 || kind == 8 };
    let identifier = if echo { u16_at(bytes, at + 4).unwrap_or(0) } else { 0 };
    set_key(packet, ends, (identifier, identifier), proto);
    packet.icmp = Icmp { kind, code, too_big: None, quote: None };
    let is_error = if v6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    if !is_error {
        return;
    }
    packet.icmp.too_big = match (v6, kind, code) {
        (false, 3, 4) => u16_at(bytes, at + 6).map(u32::from),
        (true, 2, _) => u32_at(bytes, at + 4),
        _ => None,
    };
    packet.icmp.quote = quote(after(bytes, at + 8), v6);
}
