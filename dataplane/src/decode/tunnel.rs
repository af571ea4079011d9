//! Packets in packets: GRE, ERSPAN, VXLAN, GENEVE, GTP-U, Teredo, IP in IP, to the packet inside. Worker's
//! thread; no allocation, no panic. Off the common path: called for a protocol or port that a tunnel has.
//!
//! A header that is no such thing, or leads to nothing that belongs to a flow, leaves the outer packet as it
//! was: a datagram, or IP of another protocol.

use super::bytes::{after, u8_at, u16_at, u32_at};
use super::link::{by_ethertype, ethernet, ip_version};
use super::packet::{Class, Packet, Part};
use super::tunnel_kind::{Tunnel, TunnelKind};
use super::{net, shim};

/// Tunnels in tunnels looked into.
const MAX_DEPTH: u8 = 6;
/// Extension headers of GTP-U, and source routes of GRE, looked through.
const MAX_PARTS: usize = 8;

const VXLAN: u16 = 4789;
/// Linux's and some switches' VXLAN from before the port was assigned.
const VXLAN_OLD: u16 = 8472;
const VXLAN_GPE: u16 = 4790;
const GENEVE: u16 = 6081;
const GTP_U: u16 = 2152;
const TEREDO: u16 = 3544;
const MPLS_IN_UDP: u16 = 6635;

/// Decodes what a tunnel carries; if that leads to no flow, the packet is again what it was before.
pub(super) fn enter(packet: &mut Packet, note: Tunnel, inner: impl FnOnce(&mut Packet)) {
    if packet.depth >= MAX_DEPTH {
        return;
    }
    let outer = *packet;
    packet.depth += 1;
    packet.tunnel = outer.tunnel.around(note);
    (packet.class, packet.has_flow) = (Class::NonIp, false);
    inner(packet);
    let later = packet.fragment.part == Part::Later && packet.fragment.depth == packet.depth;
    if packet.has_flow || later {
        return;
    }
    let (found, tunnel) = (packet.class, packet.tunnel);
    *packet = outer;
    match (found, outer.class) {
        // There is no outer packet that it could be instead.
        (Class::Malformed, Class::NonIp) => packet.class = Class::Malformed,
        (Class::Malformed, _) => {}
        _ => packet.tunnel = tunnel,
    }
}

/// A port some tunnel has; most packets are asked no more than this.
#[inline(always)]
pub(super) fn is_port(source: u16, destination: u16) -> bool {
    matches!(destination, VXLAN | VXLAN_OLD | VXLAN_GPE | GENEVE | GTP_U | TEREDO | MPLS_IN_UDP)
        || matches!(source, GTP_U | TEREDO)
}

/// A datagram on such a port; `packet` is already that datagram.
#[cold]
#[inline(never)]
pub(super) fn datagram(
    bytes: &[u8],
    at: usize,
    end: usize,
    (source, destination): (u16, u16),
    packet: &mut Packet,
) {
    match destination {
        VXLAN | VXLAN_OLD => vxlan(bytes, at, end, false, packet),
        VXLAN_GPE => vxlan(bytes, at, end, true, packet),
        GENEVE => geneve(bytes, at, end, packet),
        MPLS_IN_UDP => shim::mpls(bytes, at, end, packet),
        TEREDO => teredo(bytes, at, end, packet),
        _ if source == TEREDO => teredo(bytes, at, end, packet),
        _ => gtp(bytes, at, end, packet),
    }
}

/// The IP protocols of tunnels. `packet` is already the outer packet.
#[cold]
#[inline(never)]
pub(super) fn protocol(bytes: &[u8], at: usize, end: usize, proto: u8, packet: &mut Packet) {
    let ip_in_ip = Tunnel { kind: TunnelKind::IpInIp, id: 0 };
    match proto {
        4 => enter(packet, ip_in_ip, |packet| net::ipv4(bytes, at, end, packet)),
        41 => enter(packet, ip_in_ip, |packet| net::ipv6(bytes, at, end, packet)),
        47 => gre(bytes, at, end, packet),
        // RFC 3378: version 3 and twelve bits of nothing.
        97 if u16_at(bytes, at) == Some(0x3000) => {
            let note = Tunnel { kind: TunnelKind::EtherIp, id: 0 };
            enter(packet, note, |packet| ethernet(bytes, at + 2, end, packet));
        }
        // RFC 4023.
        137 => shim::mpls(bytes, at, end, packet),
        _ => {}
    }
}

/// RFC 2784 with RFC 2890's key and sequence number and RFC 1701's routes; version 1 as PPTP has it (RFC 2637).
fn gre(bytes: &[u8], start: usize, end: usize, packet: &mut Packet) {
    let (Some(flags), Some(proto)) = (u16_at(bytes, start), u16_at(bytes, start + 2)) else { return };
    let has = |bit: u16| flags & bit != 0;
    let (checksum, routing, key, sequence) = (has(0x8000), has(0x4000), has(0x2000), has(0x1000));
    let mut at = start + 4;
    if flags & 7 == 1 {
        if !key || proto != shim::ETHERTYPE_PPP {
            return;
        }
        let Some(call) = u16_at(bytes, at + 2) else { return };
        at += 4 + if sequence { 4 } else { 0 } + if has(0x0080) { 4 } else { 0 };
        let note = Tunnel { kind: TunnelKind::Pptp, id: u32::from(call) };
        return enter(packet, note, |packet| shim::ppp(bytes, at, end, packet));
    }
    if flags & 7 != 0 {
        return;
    }
    at += if checksum || routing { 4 } else { 0 };
    let mut note = Tunnel { kind: TunnelKind::Gre, id: 0 };
    if key {
        let Some(id) = u32_at(bytes, at) else { return };
        note = Tunnel { kind: TunnelKind::GreKey, id };
        at += 4;
    }
    at += if sequence { 4 } else { 0 };
    if routing {
        let Some(behind) = skip_routes(bytes, at) else { return };
        at = behind;
    }
    match proto {
        0x88be => erspan(bytes, at, end, sequence, packet),
        0x22eb => erspan_3(bytes, at, end, packet),
        // A controller's access points, one number per radio and queue.
        0x8200..=0x83ff | 0x9000..=0x91ff if proto & 0x0f == 0 && proto != 0x9100 => {
            enter(packet, note, |packet| shim::wlan(bytes, at, end, packet));
        }
        0x6558 => enter(packet, note, |packet| ethernet(bytes, at, end, packet)),
        // WCCP (draft-wilson-wrec-wccp-v2) may put four bytes of its own before the IP header.
        0x883e => {
            let at = if ip_version(bytes, at) == Some(0x0800) { at } else { at + 4 };
            enter(packet, note, |packet| net::ipv4(bytes, at, end, packet));
        }
        _ => enter(packet, note, |packet| by_ethertype(bytes, proto, at, end, packet)),
    }
}

/// RFC 1701's source route entries, up to the empty one.
fn skip_routes(bytes: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..MAX_PARTS {
        let (family, len) = (u16_at(bytes, at)?, u8_at(bytes, at + 3)?);
        at += 4 + usize::from(len);
        if family == 0 && len == 0 {
            return Some(at);
        }
    }
    None
}

/// Type I has no header of its own; type II (version 1) comes with a sequence number in GRE
/// (draft-foschiano-erspan-03 §4).
fn erspan(bytes: &[u8], at: usize, end: usize, sequence: bool, packet: &mut Packet) {
    if !sequence {
        let note = Tunnel { kind: TunnelKind::ErspanPlain, id: 0 };
        return enter(packet, note, |packet| ethernet(bytes, at, end, packet));
    }
    let (Some(first), Some(session)) = (u8_at(bytes, at), u16_at(bytes, at + 2)) else { return };
    if first >> 4 == 2 {
        return erspan_3(bytes, at, end, packet);
    }
    let note = Tunnel { kind: TunnelKind::Erspan, id: u32::from(session & 0x03ff) };
    enter(packet, note, |packet| ethernet(bytes, at + 8, end, packet));
}

/// Type III (version 2): twelve bytes, eight more if the last bit says so; Ethernet or IP.
fn erspan_3(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    let Some(header) = after(bytes, at).first_chunk::<12>() else { return };
    if header[0] >> 4 != 2 {
        return;
    }
    let session = u16::from_be_bytes([header[2], header[3]]) & 0x03ff;
    let note = Tunnel { kind: TunnelKind::Erspan, id: u32::from(session) };
    let behind = at + 12 + if header[11] & 1 != 0 { 8 } else { 0 };
    let frame_type = header[10] >> 2 & 0x1f;
    enter(packet, note, |packet| match (frame_type, ip_version(bytes, behind)) {
        (0, _) => ethernet(bytes, behind, end, packet),
        (2, Some(version)) => by_ethertype(bytes, version, behind, end, packet),
        _ => {}
    });
}

/// RFC 7348; with `generic`, its extension that names what follows (draft-ietf-nvo3-vxlan-gpe).
fn vxlan(bytes: &[u8], at: usize, end: usize, generic: bool, packet: &mut Packet) {
    let Some(header) = after(bytes, at).first_chunk::<8>() else { return };
    if header[0] & 0x08 == 0 {
        return;
    }
    let note =
        Tunnel { kind: TunnelKind::Vxlan, id: u32::from_be_bytes([0, header[4], header[5], header[6]]) };
    let next = if generic && header[0] & 0x04 != 0 { header[3] } else { 3 };
    let at = at + 8;
    enter(packet, note, |packet| match next {
        1 => net::ipv4(bytes, at, end, packet),
        2 => net::ipv6(bytes, at, end, packet),
        3 => ethernet(bytes, at, end, packet),
        5 => shim::mpls(bytes, at, end, packet),
        _ => {}
    });
}

/// RFC 8926 §3.4.
fn geneve(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    let Some(header) = after(bytes, at).first_chunk::<8>() else { return };
    if header[0] >> 6 != 0 {
        return;
    }
    let options = usize::from(header[0] & 0x3f) * 4;
    let proto = u16::from_be_bytes([header[2], header[3]]);
    let note =
        Tunnel { kind: TunnelKind::Geneve, id: u32::from_be_bytes([0, header[4], header[5], header[6]]) };
    let at = at + 8 + options;
    enter(packet, note, |packet| match proto {
        0x6558 => ethernet(bytes, at, end, packet),
        _ => by_ethertype(bytes, proto, at, end, packet),
    });
}

/// 3GPP TS 29.281 §5: a user's packet, behind extension headers if there are any.
fn gtp(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    let Some(header) = after(bytes, at).first_chunk::<8>() else { return };
    // Version 1, not GTP', message 255.
    if header[0] & 0xf0 != 0x30 || header[1] != 255 {
        return;
    }
    let teid = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let end = end.min(at + 8 + usize::from(u16::from_be_bytes([header[2], header[3]])));
    let mut at = at + 8;
    if header[0] & 0x07 != 0 {
        let Some(mut next) = u8_at(bytes, at + 3).map(|next| if header[0] & 4 == 0 { 0 } else { next })
        else {
            return;
        };
        at += 4;
        for _ in 0..MAX_PARTS {
            if next == 0 {
                break;
            }
            let Some(len) = u8_at(bytes, at).map(|units| usize::from(units) * 4).filter(|&len| len > 0)
            else {
                return;
            };
            let Some(following) = u8_at(bytes, at + len - 1) else { return };
            (next, at) = (following, at + len);
        }
    }
    let Some(version) = ip_version(bytes, at) else { return };
    let note = Tunnel { kind: TunnelKind::Gtp, id: teid };
    enter(packet, note, |packet| by_ethertype(bytes, version, at, end, packet));
}

/// RFC 4380 §5.1.1: IPv6, behind an authentication header and an origin indication, either or none.
fn teredo(bytes: &[u8], mut at: usize, end: usize, packet: &mut Packet) {
    if u16_at(bytes, at) == Some(1) {
        let (Some(id), Some(value)) = (u8_at(bytes, at + 2), u8_at(bytes, at + 3)) else { return };
        at += 4 + usize::from(id) + usize::from(value) + 9;
    }
    if u16_at(bytes, at) == Some(0) {
        at += 8;
    }
    let note = Tunnel { kind: TunnelKind::Teredo, id: 0 };
    enter(packet, note, |packet| net::ipv6(bytes, at, end, packet));
}
