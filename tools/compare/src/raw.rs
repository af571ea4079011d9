//! What comparison needs of a packet's bytes and decoding does not give: payload hashes, the time stamp option,
//! SACK edges, and what an answer repeats of its question. Total on any bytes; keeps nothing.

use dataplane::decode::{Packet, Tcp, flags};

use crate::record::{ANSWER, Extra, TOKEN};

/// Payload bytes of the short hash: few enough that a snap length of 96 still has them.
const HEAD: usize = 16;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Mixes one more word into a hash (the multiply-and-fold step of the wyhash family).
pub fn mix(hash: u64, value: u64) -> u64 {
    let product = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(value ^ 0xd6e8_feb8_6659_fd93);
    (product >> 64) as u64 ^ product as u64
}

/// Never 0, so that 0 can mean "not known".
fn hash(bytes: &[u8]) -> u32 {
    let mut hash = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash, chunk.try_into().map_or(0, u64::from_le_bytes));
    }
    for byte in chunks.remainder() {
        hash = mix(hash, u64::from(*byte));
    }
    ((hash >> 32) as u32 ^ hash as u32).max(1)
}

/// Hashes of the first bytes and of all of a payload of `len` bytes that begins at `at`; 0 where the capture
/// ends before.
pub fn payload_hashes(bytes: &[u8], at: usize, len: usize) -> (u32, u32) {
    let part = |len: usize| match bytes.get(at..at.saturating_add(len)) {
        Some([]) | None => 0,
        Some(part) => hash(part),
    };
    (part(len.min(HEAD)), part(len))
}

/// Where the TCP header that decoding found begins: it tells only where it ends.
fn tcp_start(bytes: &[u8], end: usize, tcp: &Tcp) -> Option<usize> {
    // With and without time stamps first.
    let lengths = [32, 20, 40, 24, 28, 36, 44, 48, 52, 56, 60];
    lengths.into_iter().filter_map(|len| Some((end.checked_sub(len)?, len))).find_map(|(at, len)| {
        let offset = usize::from(bytes.get(at + 12)? >> 4) * 4;
        let fits = offset == len
            && word(bytes, at + 4)? == tcp.seq
            && word(bytes, at + 8)? == tcp.ack
            && half(bytes, at + 14)? == tcp.window;
        fits.then_some(at)
    })
}

/// The time stamp value, and what is worth keeping of the options.
pub fn tcp_options(bytes: &[u8], packet: &Packet) -> (u32, Option<Extra>) {
    let end = usize::from(packet.headers);
    let options = &packet.tcp.options;
    let syn = packet.tcp.flags & flags::SYN != 0;
    if !syn && !options.timestamps && options.sack_blocks == 0 {
        return (0, None);
    }
    let mut tsval = 0;
    let mut sack = None;
    if let Some(at) = tcp_start(bytes, end, &packet.tcp) {
        let mut list = bytes.get(at + 20..end.min(bytes.len())).unwrap_or_default();
        while let Some(&kind) = list.first() {
            let len = match kind {
                0 => break,
                1 => 1,
                _ => list.get(1).map_or(0, |len| usize::from(*len)),
            };
            if len == 0 || len > list.len() {
                break;
            }
            match (kind, len) {
                (8, 10) => tsval = word(list, 2).unwrap_or(0),
                (5, 10..) => sack = word(list, 2).zip(word(list, 6)).map(|(left, right)| [left, right]),
                _ => {}
            }
            list = list.get(len..).unwrap_or_default();
        }
    }
    let extra = Extra {
        mss: options.mss,
        wscale: options.wscale,
        sack_permitted: options.sack_permitted,
        timestamps: options.timestamps,
        cut: options.cut,
        sack,
    };
    (tsval, (syn || sack.is_some()).then_some(extra))
}

/// Payload of a UDP datagram whose header ends at `end`, bytes.
pub fn udp_payload(bytes: &[u8], end: usize) -> usize {
    let len = end.checked_sub(4).and_then(|at| half(bytes, at)).unwrap_or(0);
    usize::from(len).saturating_sub(8)
}

fn token(value: Option<u16>, answer: bool) -> u32 {
    value.map_or(0, |value| TOKEN | u32::from(value) | if answer { ANSWER } else { 0 })
}

/// A DNS message's id.
pub fn dns_token(bytes: &[u8], end: usize) -> u32 {
    let answer = bytes.get(end + 2).is_some_and(|flags| flags & 0x80 != 0);
    token(half(bytes, end), answer)
}

/// An echo message's sequence number; its identifier is the flow's port.
pub fn echo_token(bytes: &[u8], end: usize, answer: bool) -> u32 {
    token(end.checked_sub(2).and_then(|at| half(bytes, at)), answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_unknown_beyond_the_snap_length() {
        let bytes = [7u8; 40];
        assert_eq!(payload_hashes(&bytes, 0, 0), (0, 0));
        assert_eq!(payload_hashes(&bytes, 30, 16), (0, 0));
        let (head, body) = payload_hashes(&bytes, 8, 32);
        assert!(head != 0 && body != 0 && head != body);
        assert_eq!(payload_hashes(&bytes, 8, 100), (head, 0));
        assert_eq!(payload_hashes(&bytes, usize::MAX, 100), (0, 0));
    }
}
