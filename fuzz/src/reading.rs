//! Bytes as a capture file and as a packet, and what must hold whatever they are. libFuzzer's thread; a broken promise
//! panics. Goes through `dataplane`'s reader and decoder only.

use std::io::{self, Cursor, Read};

use dataplane::decode::{Class, Packet, decode as decoded, decode_into};
use dataplane::source::file::{FileSource, MAX_PACKET};
use dataplane::source::{BATCH, Batch, LinkType, Poll, Source};

/// Uncompressed bytes of packets after which reading stops: a few bytes of zstd stand for gigabytes of one packet.
const ENOUGH: u64 = 32 << 20;

/// Hands out one to seven bytes at a time.
struct Crumbs(Cursor<Vec<u8>>);

impl Read for Crumbs {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = 1 + self.0.position() as usize % 7;
        let end = buffer.len().min(some);
        self.0.read(&mut buffer[..end])
    }
}

/// What a file held: each packet's time, lengths and a sum of its bytes; the batches' sizes; how it ended.
type Contents = (Vec<(u64, u32, u32, u64)>, Vec<usize>, String);

pub fn file_reader(data: &[u8]) {
    let at_once = contents(Box::new(Cursor::new(data.to_vec())));
    // Byte by byte takes its time.
    if data.len() <= 4096 {
        let in_crumbs = contents(Box::new(Crumbs(Cursor::new(data.to_vec()))));
        assert_eq!(at_once, in_crumbs, "what a file holds depends on how it is read");
    }
}

fn contents(reader: Box<dyn Read + Send>) -> Contents {
    let mut source = match FileSource::from_reader("input", reader) {
        Ok(source) => source,
        Err(error) => return (Vec::new(), Vec::new(), error.to_string()),
    };
    let (mut packets, mut batches, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut batch = Batch::new();
    let mut watermark = 0;
    while bytes < ENOUGH && source.poll(&mut batch) == Poll::Packets {
        assert!((1..=BATCH).contains(&batch.packets.len()));
        assert!(batch.watermark >= watermark, "a watermark goes back");
        watermark = batch.watermark;
        for packet in &batch.packets {
            let held = source.bytes(packet);
            assert_eq!(held.len(), packet.cap_len as usize);
            assert!(packet.cap_len <= MAX_PACKET && packet.orig_len >= packet.cap_len, "{packet:?}");
            assert!(usize::from(packet.interface) < source.interfaces().len(), "{packet:?}");
            let sum = held.iter().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
            bytes += 64 + u64::from(packet.cap_len);
            packets.push((packet.ts, packet.cap_len, packet.orig_len, sum));
        }
        batches.push(batch.packets.len());
        source.release(&mut batch);
    }
    let report = source.report();
    assert!(report.packets == packets.len() as u64, "{report}");
    (packets, batches, report.to_string())
}

/// A LINKTYPE_ number (2 bytes), bytes cut off (1 byte), and the packet.
pub fn decode(data: &[u8]) {
    let Some((&[high, low, cut], bytes)) = data.split_first_chunk::<3>() else { return };
    let link = LinkType::from_number(u16::from_be_bytes([high, low]));
    let orig_len = (bytes.len() as u32).saturating_add(u32::from(cut));
    let whole = decoded(link, bytes, orig_len);
    check(&whole);
    let mut again = decoded(LinkType::Raw, &[0x45; 60], 60);
    decode_into(link, bytes, orig_len, &mut again);
    assert_eq!(format!("{whole:?}"), format!("{again:?}"), "decoded in place it is another packet");
    for len in 0..bytes.len().min(400) {
        let part = decoded(link, &bytes[..len], orig_len);
        check(&part);
        agree(&part, &whole);
    }
}

/// What every decoded packet keeps to.
fn check(packet: &Packet) {
    let flow_class = matches!(packet.class, Class::Tcp | Class::Udp | Class::Icmp);
    assert_eq!(packet.has_flow, flow_class, "{packet:?}");
    if packet.class == Class::Tcp {
        assert!(packet.tcp.payload < packet.ip_len, "{packet:?}");
        assert!(packet.tcp.options.wscale.unwrap_or(0) <= 14, "{packet:?}");
    }
    let key = packet.key;
    assert!((key.low, key.low_port) <= (key.high, key.high_port), "{packet:?}");
}

/// What the beginning of a packet tells is so in all of it, unless more bytes show a packet inside.
fn agree(part: &Packet, whole: &Packet) {
    if !part.has_flow || part.depth != whole.depth || part.tunnel.kind != whole.tunnel.kind {
        return;
    }
    assert_eq!(part.class, whole.class, "{part:?}\n{whole:?}");
    // An echo's identifier is part of its key, and 0 where it was cut off.
    if part.class == Class::Icmp && part.key.low_port == 0 {
        return;
    }
    let of =
        |packet: &Packet| (packet.key, packet.from_low, packet.ttl, packet.ecn, packet.ip_len, packet.ip_id);
    assert_eq!(of(part), of(whole));
    let numbers = |packet: &Packet| {
        let tcp = packet.tcp;
        (tcp.seq, tcp.ack, tcp.window, tcp.flags, tcp.payload)
    };
    assert_eq!(numbers(part), numbers(whole));
    // Of an option that is there twice the last one counts.
    let (few, all) = (part.tcp.options, whole.tcp.options);
    assert!(all.mss.is_some() || few.mss.is_none(), "{few:?} {all:?}");
    assert!(all.wscale.is_some() || few.wscale.is_none(), "{few:?} {all:?}");
    assert!(all.sack_permitted || !few.sack_permitted, "{few:?} {all:?}");
    assert!(all.timestamps || !few.timestamps, "{few:?} {all:?}");
    assert!(all.sack_blocks > 0 || few.sack_blocks == 0, "{few:?} {all:?}");
    let quoted = |packet: &Packet| packet.icmp.quote.map(|quote| (quote.key, quote.from_low));
    assert!(quoted(part).is_none() || quoted(part) == quoted(whole), "{part:?}\n{whole:?}");
}
