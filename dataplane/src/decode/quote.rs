//! The packet that an ICMP error quotes, as far as it does. Worker's thread; no allocation, no panic. The quote
//! names the flow the error belongs to: that of the packet as it was sent, a tunnel's outer one included.

use super::bytes::{after, u8_at, u16_at, u32_at};
use super::net::{Ends, v4_address, v6_address};
use super::packet::{FlowKey, Quote};
use super::transport::{ICMP, ICMPV6, TCP, UDP};

/// The quoted IP header and the first bytes of its transport; routers may quote as little as 8 of them.
#[cold]
pub(super) fn quote(bytes: &[u8], v6: bool) -> Option<Quote> {
    let (proto, at, ends) = if v6 { quoted_v6(bytes)? } else { quoted_v4(bytes)? };
    let ports = match (proto, u8_at(bytes, at)?) {
        (TCP | UDP, _) => (u16_at(bytes, at)?, u16_at(bytes, at + 2)?),
        // Echoes have a flow, too.
        (ICMP, 0 | 8) | (ICMPV6, 128 | 129) => (u16_at(bytes, at + 4)?, u16_at(bytes, at + 4)?),
        _ => return None,
    };
    let (key, from_low) = FlowKey::new((ends.src, ports.0), (ends.dst, ports.1), proto, ends.v6);
    let seq = if proto == TCP { u32_at(bytes, at + 4) } else { None };
    Some(Quote { key, from_low, seq })
}

fn quoted_v4(bytes: &[u8]) -> Option<(u8, usize, Ends)> {
    let first = u8_at(bytes, 0)?;
    let header_len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_len < 20 || u16_at(bytes, 6)? & 0x1fff != 0 {
        return None;
    }
    let mapped = |at| Some(v4_address(u32_at(bytes, at)?));
    Some((u8_at(bytes, 9)?, header_len, Ends { src: mapped(12)?, dst: mapped(16)?, v6: false }))
}

fn quoted_v6(bytes: &[u8]) -> Option<(u8, usize, Ends)> {
    if u8_at(bytes, 0)? >> 4 != 6 {
        return None;
    }
    let wide = |at: usize| v6_address(after(bytes, at));
    let ends = Ends { src: wide(8)?, dst: wide(24)?, v6: true };
    let (mut next, mut at) = (u8_at(bytes, 6)?, 40);
    // The extension headers a host may have put before TCP: fragment, hop-by-hop, routing, destination.
    for _ in 0..4 {
        match next {
            44 if u16_at(bytes, at + 2)? & 0xfff8 == 0 => {
                next = u8_at(bytes, at)?;
                at += 8;
            }
            0 | 43 | 60 => {
                let len = usize::from(u8_at(bytes, at + 1)?) * 8 + 8;
                next = u8_at(bytes, at)?;
                at += len;
            }
            _ => break,
        }
    }
    Some((next, at, ends))
}
