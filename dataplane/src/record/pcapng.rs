//! Writes pcapng blocks, little endian, into a byte buffer. Used by the worker (into a chunk with room
//! enough, so nothing is allocated), by the writer and by export.
//!
//! Block and option numbers are those of the IETF draft "PCAP Next Generation (pcapng) Capture File Format"
//! (draft-ietf-opsawg-pcapng). Plain functions; the bytes go wherever the buffer goes.

use crate::source::{Interface, Nanos};

use super::LossCounters;

pub(super) const SECTION: u32 = 0x0A0D_0D0A;
pub(super) const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
pub(super) const PACKET: u32 = 6;
pub(super) const BYTE_ORDER: u32 = 0x1A2B_3C4D;

pub(super) const OPT_END: u16 = 0;
pub(super) const OPT_COMMENT: u16 = 1;
const SHB_HARDWARE: u16 = 2;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
pub(super) const IF_NAME: u16 = 2;
pub(super) const IF_DESCRIPTION: u16 = 3;
pub(super) const IF_TSRESOL: u16 = 9;
pub(super) const EPB_PACKETID: u16 = 5;
/// Custom binary option that may be copied to other files.
pub(super) const OPT_CUSTOM: u16 = 2989;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;
const ISB_USRDELIV: u16 = 8;

/// What our custom option begins with: the enterprise number for documentation (RFC 5612), then a tag.
pub(super) const FLOW_TAG: [u8; 8] = {
    let pen = 32473u32.to_le_bytes();
    [pen[0], pen[1], pen[2], pen[3], b'R', b'F', b'L', b'W']
};

/// Most bytes of one option we write: the length field has 16 bits.
const OPTION_LIMIT: usize = 60_000;

/// Fixed part of an enhanced packet block: header, interface, time, lengths, trailer.
const EPB_FIXED: usize = 8 + 20 + 4;
/// Options every packet of ours carries: packet id, flow id, end of options.
const EPB_OPTIONS: usize = (4 + 8) + (4 + 16) + 4;

/// One enhanced packet block.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacketBlock<'a> {
    pub(super) ts: Nanos,
    pub(super) interface: u32,
    pub(super) orig_len: u32,
    pub(super) bytes: &'a [u8],
    pub(super) packet_id: u64,
    pub(super) flow_id: u64,
    /// In the order they are shown.
    pub(super) comments: &'a [&'a str],
}

const fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Cuts at a character boundary, so that what remains is still UTF-8.
pub(super) fn cut_text(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Bytes a packet block takes beyond the packet's own (padded) bytes.
pub(super) fn packet_overhead(comments: &[&str]) -> usize {
    let words: usize = comments.iter().map(|c| 4 + padded(cut_text(c, OPTION_LIMIT).len())).sum();
    EPB_FIXED + EPB_OPTIONS + words
}

fn u32_of(len: usize) -> u32 {
    u32::try_from(len).expect("blocks are bounded far below 4 GiB by the chunk and option limits")
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_padding(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&[0u8; 3][..padded(len) - len]);
}

fn put_option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(OPTION_LIMIT)];
    let len = u16::try_from(value.len()).expect("cut to OPTION_LIMIT above");
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(value);
    put_padding(out, value.len());
}

fn put_text(out: &mut Vec<u8>, code: u16, text: &str) {
    if !text.is_empty() {
        put_option(out, code, cut_text(text, OPTION_LIMIT).as_bytes());
    }
}

fn put_end(out: &mut Vec<u8>) {
    put_option(out, OPT_END, &[]);
}

/// Time as pcapng has it: the high, then the low 32 bits.
fn put_time(out: &mut Vec<u8>, ts: Nanos) {
    put_u32(out, (ts >> 32) as u32);
    put_u32(out, ts as u32);
}

/// A block whose length is known once its body has been written.
fn put_block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_u32(out, kind);
    put_u32(out, 0);
    body(out);
    let total = u32_of(out.len() - start + 4);
    out[start + 4..start + 8].copy_from_slice(&total.to_le_bytes());
    put_u32(out, total);
}

/// Section header. Says only what is the same in every run, so that two replays write the same bytes.
pub(super) fn put_section(out: &mut Vec<u8>, comment: &str) {
    let program = concat!("Referee ", env!("CARGO_PKG_VERSION"));
    put_block(out, SECTION, |out| {
        put_u32(out, BYTE_ORDER);
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&(-1i64).to_le_bytes());
        put_text(out, OPT_COMMENT, comment);
        put_text(out, SHB_HARDWARE, program);
        put_text(out, SHB_OS, program);
        put_text(out, SHB_USERAPPL, program);
        put_end(out);
    });
}

/// Interface description, times in nanoseconds.
pub(super) fn put_interface(out: &mut Vec<u8>, interface: &Interface) {
    put_block(out, INTERFACE, |out| {
        out.extend_from_slice(&interface.link_number.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        put_u32(out, interface.snap_len);
        put_text(out, IF_NAME, &interface.name);
        put_text(out, IF_DESCRIPTION, &interface.description);
        put_option(out, IF_TSRESOL, &[9]);
        put_end(out);
    });
}

/// Interface statistics; what is unknown is left out.
pub(super) fn put_statistics(
    out: &mut Vec<u8>,
    interface: u32,
    ts: Nanos,
    losses: LossCounters,
    delivered: u64,
) {
    put_block(out, STATISTICS, |out| {
        put_u32(out, interface);
        put_time(out, ts);
        if let Some(received) = losses.received {
            put_option(out, ISB_IFRECV, &received.to_le_bytes());
        }
        if let Some(dropped) = losses.dropped {
            put_option(out, ISB_IFDROP, &dropped.to_le_bytes());
        }
        put_option(out, ISB_USRDELIV, &delivered.to_le_bytes());
        put_end(out);
    });
}

/// Enhanced packet block: `packet_overhead(comments) + padded(bytes)` bytes, no more.
pub(super) fn put_packet(out: &mut Vec<u8>, p: &PacketBlock<'_>) {
    put_block(out, PACKET, |out| {
        let captured = u32_of(p.bytes.len());
        put_u32(out, p.interface);
        put_time(out, p.ts);
        put_u32(out, captured);
        put_u32(out, p.orig_len.max(captured));
        out.extend_from_slice(p.bytes);
        put_padding(out, p.bytes.len());
        for comment in p.comments {
            put_option(out, OPT_COMMENT, cut_text(comment, OPTION_LIMIT).as_bytes());
        }
        put_option(out, EPB_PACKETID, &p.packet_id.to_le_bytes());
        let mut flow = [0u8; 16];
        flow[..8].copy_from_slice(&FLOW_TAG);
        flow[8..].copy_from_slice(&p.flow_id.to_le_bytes());
        put_option(out, OPT_CUSTOM, &flow);
        put_end(out);
    });
}

/// Bytes of a comment as an option of a packet.
pub(super) fn comment_bytes(words: &str) -> usize {
    4 + padded(cut_text(words, OPTION_LIMIT).len())
}

/// Where a packet's bytes begin in its block.
const EPB_DATA: usize = 28;

/// What follows the comments in a packet block of ours.
const EPB_TAIL: usize = EPB_OPTIONS + 4;

/// A packet block as [`put_packet`] wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished<'a> {
    pub(super) ts: Nanos,
    pub(super) packet_id: u64,
    pub(super) flow_id: u64,
    /// Bytes of the packet.
    pub(super) captured: u32,
    /// Bytes of its comments.
    pub(super) comments_len: usize,
    pub(super) bytes: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().map(u64::from_le_bytes).ok()
}

impl<'a> Finished<'a> {
    /// `None` if it is no packet block of ours.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Finished<'a>> {
        let ts = u64::from(u32_at(bytes, 12)?) << 32 | u64::from(u32_at(bytes, 16)?);
        let captured = u32_at(bytes, 20)?;
        let tail = bytes.len().checked_sub(EPB_TAIL)?;
        let comments_len = tail.checked_sub(EPB_DATA)?.checked_sub(padded(captured as usize))?;
        let (packet_id, flow_id) = (u64_at(bytes, tail + 4)?, u64_at(bytes, tail + 24)?);
        (u32_at(bytes, 0)? == PACKET).then_some(Finished {
            ts,
            packet_id,
            flow_id,
            captured,
            comments_len,
            bytes,
        })
    }

    pub(super) fn comments(&self) -> impl Iterator<Item = &'a str> {
        let begin = EPB_DATA + padded(self.captured as usize);
        let mut left = self.bytes.get(begin..begin + self.comments_len).unwrap_or_default();
        std::iter::from_fn(move || {
            let len = usize::from(u16::from_le_bytes(left.get(2..4)?.try_into().ok()?));
            let words = std::str::from_utf8(left.get(4..4 + len)?).unwrap_or_default();
            left = left.get(4 + padded(len)..)?;
            Some(words)
        })
    }

    /// The block with more comments after its own.
    pub(super) fn put_with(&self, out: &mut Vec<u8>, more: &[String]) {
        let (head, tail) = self.bytes.split_at(self.bytes.len() - EPB_TAIL);
        let start = out.len();
        out.extend_from_slice(head);
        for words in more {
            put_option(out, OPT_COMMENT, cut_text(words, OPTION_LIMIT).as_bytes());
        }
        out.extend_from_slice(&tail[..EPB_OPTIONS]);
        let total = u32_of(out.len() - start + 4);
        out[start + 4..start + 8].copy_from_slice(&total.to_le_bytes());
        put_u32(out, total);
    }
}

/// Each packet in a run of packet blocks of ours.
pub(super) fn packet_blocks(mut blocks: &[u8]) -> impl Iterator<Item = Finished<'_>> {
    std::iter::from_fn(move || {
        let (block, rest) = blocks.split_at_checked(u32_at(blocks, 4)? as usize)?;
        blocks = rest;
        Finished::new(block)
    })
}

/// The interface of each packet in a run of packet blocks of ours.
pub(super) fn packet_interfaces(mut blocks: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let total = blocks.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))? as usize;
        let interface = blocks.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))?;
        blocks = blocks.get(total.max(12)..)?;
        Some(interface)
    })
}
