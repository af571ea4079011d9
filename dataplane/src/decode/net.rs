//! IPv4, and IPv6 with its extension headers, to the transport header. Worker's thread; no allocation, no
//! panic. Goes on to `transport`.

use super::bytes::{after, u8_at, u16_at, u32_at};
use super::packet::{Address, Class, FlowKey, Fragment, Packet, Part};
use super::transport;

/// IPv4-mapped IPv6 prefix (RFC 4291 §2.5.5.2).
const V4_MAPPED: u64 = 0xffff_0000_0000;
/// Extension headers looked through: RFC 8200 §4.1 allows each once, destination options twice.
const MAX_EXTENSIONS: usize = 10;

/// The network layer's part of a conversation's key.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub src: Address,
    pub dst: Address,
    pub v6: bool,
}

#[inline(always)]
pub(super) fn v4_address(bits: u32) -> Address {
    [0, V4_MAPPED | u64::from(bits)]
}

#[inline(always)]
pub(super) fn v6_address(bytes: &[u8]) -> Option<Address> {
    let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some([word(0)?, word(8)?])
}

/// A length that a header gives, given what of it was on the wire. 0: segmentation offload left it to the card, or
/// a jumbogram (RFC 2675). More than there was: the frame was cut before it was captured. Only the first fragment
/// of an outer packet may hold less than what is in it.
#[inline(always)]
fn believable(said: usize, on_wire: usize, packet: &Packet) -> usize {
    if said == 0 || (said > on_wire && packet.fragment.part == Part::Whole) { on_wire } else { said }
}

/// Decodes from the IPv4 header at `at` (RFC 791); `end` is where what carries it ends on the wire.
#[inline]
pub(super) fn ipv4(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    packet.class = Class::Malformed;
    let Some(header) = after(bytes, at).first_chunk::<20>() else { return };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < 20 {
        return;
    }
    let on_wire = end.saturating_sub(at);
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let total = believable(total, on_wire, packet);
    if total < header_len {
        return;
    }
    packet.ip_len = total as u32;
    packet.ip_id = Some(u16::from_be_bytes([header[4], header[5]]));
    packet.ecn = header[1] & 3;
    packet.dscp = header[1] >> 2;
    packet.ttl = header[8];
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    packet.df = fragment & 0x4000 != 0;
    let word = |i: usize| u32::from_be_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let ends = Ends { src: v4_address(word(12)), dst: v4_address(word(16)), v6: false };
    if fragment & 0x3fff != 0 {
        let part = Fragment {
            id: u32::from(u16::from_be_bytes([header[4], header[5]])),
            at: at.min(usize::from(u16::MAX)) as u16,
            offset: (fragment & 0x1fff).saturating_mul(8),
            len: (total - header_len) as u16,
            proto: header[9],
            part: if fragment & 0x1fff == 0 { Part::First } else { Part::Later },
            depth: packet.depth,
        };
        if note_fragment(part, ends, packet) {
            return;
        }
    }
    let end = bytes.len().min(at + total);
    transport::decode(&bytes[..end], at + header_len, total - header_len, header[9], ends, packet);
}

/// Decodes from the IPv6 header at `at` (RFC 8200); `end` as for [`ipv4`].
#[inline]
pub(super) fn ipv6(bytes: &[u8], at: usize, end: usize, packet: &mut Packet) {
    packet.class = Class::Malformed;
    let Some(header) = after(bytes, at).first_chunk::<40>() else { return };
    if header[0] >> 4 != 6 {
        return;
    }
    let on_wire = end.saturating_sub(at + 40);
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = believable(payload, on_wire, packet);
    packet.ip_len = (payload + 40) as u32;
    packet.ip_id = None;
    packet.ecn = (header[1] >> 4) & 3;
    packet.dscp = header[0] << 2 & 0x3c | header[1] >> 6;
    packet.ttl = header[7];
    // IPv6 routers never fragment: every packet behaves as if DF were set.
    packet.df = true;
    let wide = |i: usize| v6_address(&header[i..]).unwrap_or([0; 2]);
    let ends = Ends { src: wide(8), dst: wide(24), v6: true };
    let end = bytes.len().min(at + 40 + payload);
    if is_extension(header[6]) {
        extensions(&bytes[..end], at, payload, header[6], ends, packet);
    } else {
        transport::decode(&bytes[..end], at + 40, payload, header[6], ends, packet);
    }
}

fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

/// Walks the extension headers of the IPv6 packet at `start` until a transport, a later fragment, or the end.
fn extensions(bytes: &[u8], start: usize, mut left: usize, mut next: u8, ends: Ends, packet: &mut Packet) {
    let mut at = start + 40;
    for _ in 0..MAX_EXTENSIONS {
        let len = match next {
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
            0 | 43 | 60 | 135 | 139 | 140 => match u8_at(bytes, at + 1) {
                Some(units) => usize::from(units) * 8 + 8,
                None => return,
            },
            // Authentication header counts in 4-byte units (RFC 4302 §2.2).
            51 => match u8_at(bytes, at + 1) {
                Some(units) => usize::from(units) * 4 + 8,
                None => return,
            },
            44 => {
                let (Some(offset), Some(proto)) = (u16_at(bytes, at + 2), u8_at(bytes, at)) else { return };
                let id = u32_at(bytes, at + 4);
                packet.ip_id = id.map(|id| id as u16);
                packet.df = false;
                // An offset of 0 and nothing to follow: an atomic fragment is a whole packet (RFC 6946).
                if offset & 0xfff9 != 0 {
                    let part = Fragment {
                        id: id.unwrap_or(0),
                        at: start.min(usize::from(u16::MAX)) as u16,
                        offset: offset & 0xfff8,
                        len: left.saturating_sub(8).min(usize::from(u16::MAX)) as u16,
                        proto,
                        part: if offset & 0xfff8 == 0 { Part::First } else { Part::Later },
                        depth: packet.depth,
                    };
                    if note_fragment(part, ends, packet) {
                        return;
                    }
                }
                8
            }
            _ => {
                transport::decode(bytes, at, left, next, ends, packet);
                return;
            }
        };
        if len > left {
            return;
        }
        let Some(following) = u8_at(bytes, at) else { return };
        next = following;
        at += len;
        left -= len;
        if after(bytes, at).is_empty() && left > 0 {
            return;
        }
    }
}

/// Notes the outermost fragment. True for a later one: it has no ports, and is counted and followed, not decoded.
#[cold]
fn note_fragment(fragment: Fragment, ends: Ends, packet: &mut Packet) -> bool {
    if packet.fragment.part == Part::Whole {
        packet.fragment = fragment;
    }
    if fragment.part != Part::Later {
        return false;
    }
    packet.class = Class::OtherIp;
    let (key, from_low) = FlowKey::new((ends.src, 0), (ends.dst, 0), fragment.proto, ends.v6);
    packet.key = key;
    packet.from_low = from_low;
    true
}
