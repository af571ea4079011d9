//! Segments to frames: the one place that turns a conversation's numbers into bytes.
//!
//! Runs wherever packets are made; a pure function of profile and segment, into the caller's buffer. It decides
//! nothing. Frames go to write.rs or to a caller in the same process.

use crate::content;
use crate::packet::{self, ACK, Ip, RST, SYN, TcpHeader, TcpOptions, fold, sum};
use crate::profile::{Profile, Side, host_ttl, router};
use crate::tcp::{Kind, Segment};

/// Replaces `out` by the frame of one segment.
pub fn render(profile: &Profile, s: &Segment, out: &mut Vec<u8>) {
    let v4 = profile.end(s.side).ip.is_ipv4();
    match s.kind {
        // RFC 1191, RFC 4443 §3.2.
        Kind::TooBig { mtu } => return icmp_error(profile, s, if v4 { (3, 4) } else { (2, 0) }, mtu, out),
        // RFC 792, RFC 4443 §3.1: the host, the address.
        Kind::Unreachable => return icmp_error(profile, s, if v4 { (3, 1) } else { (1, 3) }, 0, out),
        Kind::Plain | Kind::Bare { .. } | Kind::Rerouted { .. } => {}
    }
    let (me, other) = (profile.end(s.side), profile.end(s.side.other()));
    let ttl = match s.kind {
        Kind::Bare { ttl } | Kind::Rerouted { ttl } if ttl != 0 => ttl,
        _ => me.ttl,
    };
    let ip = Ip { src: me.ip, dst: other.ip, ttl, id: s.ip_id, dont_fragment: true };
    let options = options(profile, s);
    let header = TcpHeader {
        sport: me.port,
        dport: other.port,
        seq: s.seq,
        ack: s.ack,
        flags: s.flags,
        window: s.window,
        options: options.as_bytes(),
    };
    let offset = s.seq.wrapping_sub(me.isn).wrapping_sub(1);
    let payload = content::stream(profile.content, s.side, offset, usize::from(s.len));
    packet::tcp(out, &profile.ethernet(s.side), &ip, &header, payload);
}

/// Time stamp clocks tick in ms.
fn ticks(clock: u32, at: u64) -> u32 {
    clock.wrapping_add((at / 1_000_000) as u32)
}

fn options(profile: &Profile, s: &Segment) -> TcpOptions {
    let (me, other) = (profile.end(s.side), profile.end(s.side.other()));
    let mut options = TcpOptions::default();
    if matches!(s.kind, Kind::Bare { .. }) {
        return options;
    }
    let value = ticks(me.clock, s.at);
    let echo = if s.flags & ACK != 0 && s.echo != 0 { ticks(other.clock, s.echo) } else { 0 };
    if s.flags & SYN != 0 {
        options = options.mss(me.mss);
        options = if me.sack { options.sack_permitted() } else { options.nop().nop() };
        if profile.timestamps {
            options = options.timestamps(value, echo);
        }
        return match me.wscale {
            Some(shift) => options.nop().window_scale(shift),
            None => options,
        };
    }
    if profile.timestamps && s.flags & RST == 0 {
        options = options.nop().nop().timestamps(value, echo);
    }
    if s.sack[0] != s.sack[1] && profile.ends.iter().all(|e| e.sack) {
        options = options.nop().nop().sack(s.sack[0], s.sack[1]);
    }
    options
}

/// An ICMP error to the sender of the segment it quotes; `mtu` is in the second word's lower half, where there is one.
fn icmp_error(profile: &Profile, s: &Segment, (kind, code): (u8, u8), mtu: u16, out: &mut Vec<u8>) {
    let (me, other) = (profile.end(s.side), profile.end(s.side.other()));
    let tcp_len = 20 + options(profile, s).as_bytes().len() + usize::from(s.len);
    let [high, low] = mtu.to_be_bytes();
    let mut quote = Vec::with_capacity(60);
    let ip = Ip { src: me.ip, dst: other.ip, ttl: me.ttl - 1, id: s.ip_id, dont_fragment: true };
    if me.ip.is_ipv4() {
        quote.extend_from_slice(&[0x45, 0]);
        quote.extend_from_slice(&((20 + tcp_len) as u16).to_be_bytes());
        quote.extend_from_slice(&ip.id.to_be_bytes());
        quote.extend_from_slice(&[0x40, 0, ip.ttl, 6, 0, 0]);
    } else {
        quote.extend_from_slice(&[0x60, 0, 0, 0]);
        quote.extend_from_slice(&(tcp_len as u16).to_be_bytes());
        quote.extend_from_slice(&[6, ip.ttl]);
    }
    for address in [me.ip, other.ip] {
        match address {
            std::net::IpAddr::V4(v4) => quote.extend_from_slice(&v4.octets()),
            std::net::IpAddr::V6(v6) => quote.extend_from_slice(&v6.octets()),
        }
    }
    if me.ip.is_ipv4() {
        let check = fold(sum(0, &quote));
        quote[10..12].copy_from_slice(&check.to_be_bytes());
    }
    quote.extend_from_slice(&me.port.to_be_bytes());
    quote.extend_from_slice(&other.port.to_be_bytes());
    quote.extend_from_slice(&s.seq.to_be_bytes());
    let from = router(me.ip);
    let outer = Ip { src: from, dst: me.ip, ttl: host_ttl(from), id: s.ip_id, dont_fragment: false };
    // The router is on the path to the other end, so its message comes from that side of the tap.
    let eth = profile.ethernet(if s.side == Side::Client { Side::Server } else { Side::Client });
    packet::icmp(out, &eth, &outer, kind, code, [0, 0, high, low], &quote);
}
