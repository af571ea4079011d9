//! Reads a segment of ours back, streaming, and never fails harder than the file did: whatever precedes a
//! cut or a damaged place is delivered, then the reader says how the file ended.
//!
//! Runs on any thread but a worker's; memory is one block. Packets go to `export` and `list`.

use std::io::{self, BufReader, Read};

use crate::source::{Interface, LinkType, Nanos};

use super::pcapng::{self, FLOW_TAG, PacketBlock};

/// Largest block believed; ours are bounded by the chunk size.
pub(super) const BLOCK_LIMIT: u32 = 16 << 20;

/// zstd windows above 2^27 bytes are not ours and would be a way to make the reader take memory.
pub(super) const WINDOW_LOG_LIMIT: u32 = 27;

/// The first bytes of a zstd frame (RFC 8878, section 3.1.1), little endian.
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();

/// How a segment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With the end of its frame (plain files: after a whole block).
    Complete,
    /// In the middle, as after a crash, or because it is still being written. Offset in uncompressed bytes.
    Cut { offset: u64 },
    /// With something that is not ours. Offset in uncompressed bytes.
    Damaged { offset: u64, what: String },
}

/// One packet of a segment, borrowed from the reader until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    pub ts: Nanos,
    /// Worker and the worker's number, `worker << 56 | number`.
    pub packet_id: u64,
    pub flow_id: u64,
    pub interface: &'a Interface,
    /// Number of the interface in this segment.
    pub index: usize,
    pub orig_len: u32,
    pub bytes: &'a [u8],
    /// All comments, one after the other.
    pub comments: Vec<&'a str>,
}

impl Recorded<'_> {
    /// As a block, on the same interface number.
    pub(super) fn block(&self) -> PacketBlock<'_> {
        PacketBlock {
            ts: self.ts,
            interface: u32::try_from(self.index).unwrap_or(u32::MAX),
            orig_len: self.orig_len,
            bytes: self.bytes,
            packet_id: self.packet_id,
            flow_id: self.flow_id,
            comments: &self.comments,
        }
    }
}

/// A segment being read.
pub struct SegmentReader {
    input: Box<dyn Read>,
    block: Vec<u8>,
    /// Of the block being read, in uncompressed bytes.
    offset: u64,
    /// Length of the block being read.
    total: u64,
    interfaces: Vec<Interface>,
    in_section: bool,
    ending: Option<Ending>,
}

/// Fields of one block, read front to back; `None` where the block is too short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn option(&mut self) -> Option<(u16, &'a [u8])> {
        let code = self.u16()?;
        let len = usize::from(self.u16()?);
        let value = self.take(len)?;
        self.take(len.next_multiple_of(4) - len)?;
        (code != pcapng::OPT_END).then_some((code, value))
    }
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().map(u64::from_le_bytes).ok()
}

impl SegmentReader {
    /// Takes a compressed or plain segment. Fails only if not even a decoder can be made.
    pub fn new(input: impl Read + 'static) -> io::Result<SegmentReader> {
        let mut input = BufReader::with_capacity(128 << 10, input);
        let mut magic = Vec::with_capacity(4);
        input.by_ref().take(4).read_to_end(&mut magic)?;
        let compressed = magic == ZSTD_MAGIC;
        let whole = io::Cursor::new(magic).chain(input);
        let input: Box<dyn Read> = if compressed {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(WINDOW_LOG_LIMIT)?;
            Box::new(decoder)
        } else {
            Box::new(whole)
        };
        Ok(SegmentReader {
            input,
            block: Vec::new(),
            offset: 0,
            total: 0,
            interfaces: Vec::new(),
            in_section: false,
            ending: None,
        })
    }

    /// How the file ended; `None` while [`next_packet`](Self::next_packet) has not returned `None`.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// The next packet, in the order they were written (a lead-up's are older than their neighbours).
    pub fn next_packet(&mut self) -> Option<Recorded<'_>> {
        while self.ending.is_none() {
            match self.step() {
                Ok(true) => return self.packet(),
                Ok(false) => {}
                Err(ending) => self.ending = Some(ending),
            }
        }
        None
    }

    /// Takes in one block. Says whether it is a packet, and then one that can be parsed.
    fn step(&mut self) -> Result<bool, Ending> {
        let kind = self.next_block()?;
        self.understand(kind).map_err(|what| self.damage(what.to_owned()))?;
        self.offset += self.total;
        Ok(kind == pcapng::PACKET)
    }

    fn packet(&self) -> Option<Recorded<'_>> {
        let (index, body) = Fields(&self.block).u32().zip(self.block.get(4..))?;
        let interface = self.interfaces.get(index as usize)?;
        parse_packet(body, index as usize, interface)
    }

    /// Deals with a block's meaning for the reader itself, and checks that a packet can be read.
    fn understand(&mut self, kind: u32) -> Result<(), &'static str> {
        if kind == pcapng::SECTION {
            self.interfaces.clear();
            self.in_section = true;
            let order = Fields(&self.block).u32();
            return (order == Some(pcapng::BYTE_ORDER))
                .then_some(())
                .ok_or("a section that is not little endian");
        }
        if !self.in_section {
            return Err("no pcapng section header at the beginning");
        }
        match kind {
            pcapng::INTERFACE => {
                let interface =
                    parse_interface(&self.block).ok_or("an interface description that is not of ours")?;
                self.interfaces.push(interface);
            }
            pcapng::PACKET => {
                self.packet().ok_or("a packet block that is not of ours, or of an unknown interface")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads one block into `self.block`, without its type and its two lengths.
    fn next_block(&mut self) -> Result<u32, Ending> {
        if !self.fill(8)? {
            return Err(if self.in_section { Ending::Complete } else { self.cut() });
        }
        let mut header = Fields(&self.block);
        let (Some(kind), Some(total)) = (header.u32(), header.u32()) else { return Err(self.cut()) };
        if !(12..=BLOCK_LIMIT).contains(&total) || total % 4 != 0 {
            return Err(self.damage(format!("a block length of {total}")));
        }
        self.total = u64::from(total);
        let rest = total as usize - 8;
        if !self.fill(rest)? {
            return Err(self.cut());
        }
        if self.block[rest - 4..] != total.to_le_bytes() {
            return Err(self.damage("a block whose two lengths differ".to_owned()));
        }
        self.block.truncate(rest - 4);
        Ok(kind)
    }

    fn cut(&self) -> Ending {
        Ending::Cut { offset: self.offset }
    }

    fn damage(&self, what: String) -> Ending {
        Ending::Damaged { offset: self.offset, what }
    }

    /// Reads exactly `len` bytes into `self.block`; false if the input ended before the first of them.
    fn fill(&mut self, len: usize) -> Result<bool, Ending> {
        self.block.clear();
        // `take` + `read_to_end` allocates as bytes come, not as a length field claims.
        match self.input.by_ref().take(len as u64).read_to_end(&mut self.block) {
            Ok(n) if n == len => Ok(true),
            Ok(0) => Ok(false),
            Ok(_) => Err(self.cut()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.cut()),
            Err(e) => Err(self.damage(e.to_string())),
        }
    }
}

pub(super) fn parse_interface(block: &[u8]) -> Option<Interface> {
    let mut fields = Fields(block);
    let link_number = fields.u16()?;
    fields.u16()?;
    let snap_len = fields.u32()?;
    let (mut name, mut description, mut nanoseconds) = (String::new(), String::new(), false);
    while let Some((code, value)) = fields.option() {
        match code {
            pcapng::IF_NAME => name = String::from_utf8_lossy(value).into_owned(),
            pcapng::IF_DESCRIPTION => description = String::from_utf8_lossy(value).into_owned(),
            pcapng::IF_TSRESOL => nanoseconds = value == [9],
            _ => {}
        }
    }
    let link = LinkType::from_number(link_number);
    nanoseconds.then_some(Interface { name, description, link, link_number, snap_len })
}

/// A packet block without its interface number.
pub(super) fn parse_packet<'a>(
    body: &'a [u8],
    index: usize,
    interface: &'a Interface,
) -> Option<Recorded<'a>> {
    let mut fields = Fields(body);
    let ts = u64::from(fields.u32()?) << 32 | u64::from(fields.u32()?);
    let captured = fields.u32()? as usize;
    let orig_len = fields.u32()?;
    let bytes = fields.take(captured)?;
    fields.take(captured.checked_next_multiple_of(4)? - captured)?;
    let (mut packet_id, mut flow_id, mut comments) = (None, None, Vec::new());
    while let Some((code, value)) = fields.option() {
        match code {
            pcapng::OPT_COMMENT => comments.extend(std::str::from_utf8(value).ok()),
            pcapng::EPB_PACKETID => packet_id = u64_of(value),
            pcapng::OPT_CUSTOM => flow_id = value.strip_prefix(&FLOW_TAG).and_then(u64_of).or(flow_id),
            _ => {}
        }
    }
    let (packet_id, flow_id) = (packet_id?, flow_id?);
    Some(Recorded { ts, packet_id, flow_id, interface, index, orig_len, bytes, comments })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{StoredPacket, Writer};
    use super::*;

    /// A segment with several flushes, and (length of the file, packets in it) after each flush.
    fn segment() -> (Vec<u8>, Vec<(usize, usize)>) {
        let disk = MemDisk::default();
        let (mut recorder, mut writer) = pair(&small(), disk.clone());
        let mut flushes = Vec::new();
        let note = |writer: &Writer, flushes: &mut Vec<(usize, usize)>| {
            let len = disk.files().values().next().map_or(0, Vec::len);
            flushes.push((len, writer.account().written_packets as usize));
        };
        for number in 0..24 {
            let bytes = frame(number as u8, 2, 60 * number as usize);
            let comment = (number == 5).then_some("referee: rst_after_idle");
            recorder.write(&StoredPacket { comment, ..packet(number, number % 3, &bytes) }).unwrap();
            if writer.pump() {
                note(&writer, &mut flushes);
            }
        }
        recorder.flush();
        writer.pump();
        note(&writer, &mut flushes);
        writer.close();
        let bytes = disk.files().into_values().next().unwrap();
        assert!(flushes.len() > 3);
        (bytes, flushes)
    }

    #[test]
    fn what_was_written_is_read() {
        let (segment, _) = segment();
        let mut reader = SegmentReader::new(io::Cursor::new(segment)).unwrap();
        for number in 0..24u64 {
            let bytes = frame(number as u8, 2, 60 * number as usize);
            let p = reader.next_packet().unwrap();
            assert_eq!(p.ts, T0 + number * 1_000_000);
            assert_eq!((p.packet_id, p.flow_id), (3 << 56 | number, number % 3));
            assert_eq!((p.bytes, p.orig_len as usize), (bytes.as_slice(), bytes.len()));
            assert_eq!(p.comments, if number == 5 { vec!["referee: rst_after_idle"] } else { vec![] });
            assert_eq!(p.interface, &interface("eth0"));
        }
        assert_eq!(reader.next_packet(), None);
        assert_eq!(reader.ending(), Some(&Ending::Complete));
    }

    #[test]
    fn a_cut_at_any_byte_loses_nothing_before_the_last_flush() {
        let (segment, flushes) = segment();
        for len in 0..segment.len() {
            let flushed = flushes.iter().rev().find(|f| f.0 <= len).map_or(0, |f| f.1);
            let mut reader = SegmentReader::new(io::Cursor::new(segment[..len].to_vec())).unwrap();
            let mut read = 0;
            while let Some(p) = reader.next_packet() {
                assert_eq!(p.packet_id, 3 << 56 | read as u64);
                read += 1;
            }
            assert!(read >= flushed, "cut at {len}: {read} of {flushed}");
            assert!(matches!(reader.ending(), Some(Ending::Cut { .. })), "{len}: {:?}", reader.ending());
        }
    }

    #[test]
    fn a_plain_segment_reads_the_same_and_may_be_cut_too() {
        let (segment, _) = segment();
        let plain = zstd::decode_all(segment.as_slice()).unwrap();
        assert_eq!(numbers(&plain), numbers(&segment));
        for len in (0..plain.len()).step_by(3) {
            let read = numbers(&plain[..len]);
            assert!(read.iter().copied().eq(0..read.len() as u64));
        }
    }

    #[test]
    fn damage_is_named_and_never_panics() {
        let (segment, _) = segment();
        let plain = zstd::decode_all(segment.as_slice()).unwrap();
        let mut dice = Dice(4711);
        for _ in 0..3000 {
            for original in [&segment, &plain] {
                let mut bytes = original.clone();
                for _ in 0..=dice.roll(3) {
                    let at = dice.roll(bytes.len() as u64) as usize;
                    bytes[at] = dice.roll(256) as u8;
                }
                let mut reader = SegmentReader::new(io::Cursor::new(bytes)).unwrap();
                while reader.next_packet().is_some() {}
                assert!(reader.ending().is_some());
            }
        }
        let mut reader = SegmentReader::new(io::Cursor::new(b"\xd4\xc3\xb2\xa1 not ours".to_vec())).unwrap();
        assert_eq!(reader.next_packet(), None);
        assert!(matches!(reader.ending(), Some(Ending::Damaged { offset: 0, .. })));
    }

    #[test]
    fn a_length_field_does_not_take_memory() {
        let mut bytes = Vec::new();
        pcapng::put_section(&mut bytes, "");
        bytes.extend([6, 0, 0, 0, 0xF0, 0xFF, 0xFF, 0]);
        let mut reader = SegmentReader::new(io::Cursor::new(bytes)).unwrap();
        assert_eq!(reader.next_packet(), None);
        assert!(reader.block.capacity() < 64 << 10);
    }
}
