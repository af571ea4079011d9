//! For tests only: a disk in memory that fails when told to, or at random from a seed; packets to record.
//!
//! Runs on the test's thread. Nothing here reaches a program.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use crate::source::{Interface, LinkType, Nanos};

use super::read::SegmentReader;
use super::{Disk, IncidentRecord, RecordConfig, Recorder, Store, StoredPacket, Writer, recorder};

pub(super) const SECOND: Nanos = 1_000_000_000;
/// A time to count from: 14 November 2023.
pub(super) const T0: Nanos = 1_700_000_000 * SECOND;

/// xorshift64: the same seed, the same faults.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the disk is like, settable while the writer has it.
#[derive(Debug, Default)]
pub(super) struct Condition {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) full: bool,
    /// Bytes still taken before the disk is full.
    pub(super) room: Option<usize>,
    pub(super) broken: bool,
    /// Fails, and writes short, at random.
    pub(super) faults: Option<Dice>,
    pub(super) removed: Vec<String>,
    pub(super) syncs: u64,
}

impl Condition {
    fn strikes(&mut self, one_in: u64) -> bool {
        self.faults.as_mut().is_some_and(|d| d.roll(one_in) == 0)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct MemDisk(pub(super) Arc<Mutex<Condition>>);

impl MemDisk {
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Condition) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.with(|c| c.files.clone())
    }
}

fn failure() -> io::Error {
    io::Error::other("the disk is tired")
}

impl Disk for MemDisk {
    fn create(&mut self, name: &str) -> io::Result<()> {
        self.with(|c| {
            if c.files.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if c.broken || c.strikes(9) {
                return Err(failure());
            }
            c.files.insert(name.to_owned(), Vec::new());
            Ok(())
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<usize> {
        self.with(|c| {
            let mut len = bytes.len();
            if c.strikes(8) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if c.full || c.room == Some(0) || c.strikes(11) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if c.broken || c.strikes(13) {
                return Err(failure());
            }
            if c.strikes(3) {
                len = len.div_ceil(3);
            }
            if let Some(room) = &mut c.room {
                len = len.min(*room);
                *room -= len;
            }
            c.files.get_mut(name).ok_or_else(failure)?.extend_from_slice(&bytes[..len]);
            Ok(len)
        })
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        self.with(|c| {
            c.syncs += 1;
            if c.strikes(5) { Err(failure()) } else { Ok(()) }
        })
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.with(|c| {
            c.files.get_mut(name).ok_or_else(failure)?.truncate(len as usize);
            Ok(())
        })
    }

    fn close(&mut self, _: &str) {}

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.with(|c| {
            if c.strikes(4) {
                return Err(failure());
            }
            c.removed.push(name.to_owned());
            c.files.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
        })
    }

    fn is_there(&mut self, name: &str) -> bool {
        self.with(|c| c.files.contains_key(name))
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.with(|c| Ok(c.files.iter().map(|(n, b)| (n.clone(), b.len() as u64)).collect()))
    }
}

pub(super) fn interface(name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        description: "file, pcapng".to_owned(),
        link: LinkType::Ethernet,
        link_number: 1,
        snap_len: 0,
    }
}

/// An Ethernet frame with a TCP segment from 10.0.0.`src` to 10.0.0.`dst`, port 443.
pub(super) fn frame(src: u8, dst: u8, payload: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0];
    let len = (40 + payload) as u16;
    bytes.extend([
        0x45,
        0,
        (len >> 8) as u8,
        len as u8,
        0,
        1,
        0x40,
        0,
        64,
        6,
        0,
        0,
        10,
        0,
        0,
        src,
        10,
        0,
        0,
        dst,
    ]);
    bytes.extend([0x9C, src, 1, 0xBB, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    // Payload that doesn't compress to nothing, so that sizes mean something.
    let mut dice = Dice(0x9E37_79B9 + u64::from(src));
    bytes.extend((0..payload).map(|_| dice.roll(256) as u8));
    bytes
}

/// A frame unlike that of any other number, so that a segment of many doesn't compress to one.
pub(super) fn unlike(number: u64, payload: usize) -> Vec<u8> {
    let mut bytes = frame(1, 2, payload);
    let mut dice = Dice(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    bytes[54..].fill_with(|| dice.roll(256) as u8);
    bytes
}

/// One packet of flow `flow`, number `number`, `number` milliseconds after T0.
pub(super) fn packet(number: u64, flow: u64, bytes: &[u8]) -> StoredPacket<'_> {
    StoredPacket {
        ts: T0 + number * 1_000_000,
        number,
        flow_id: flow,
        interface: 0,
        orig_len: bytes.len() as u32,
        bytes,
        comment: None,
    }
}

/// Chunks of 4 KiB, so that a few packets make many flushes.
pub(super) fn small() -> RecordConfig {
    RecordConfig { chunk_bytes: 4096, chunks: 4, ..RecordConfig::default() }
}

/// A recorder with one interface announced, and its writer.
pub(super) fn pair(config: &RecordConfig, disk: impl Disk + 'static) -> (Recorder, Writer) {
    let (mut recorder, port) = recorder(config, 3);
    recorder.announce(&interface("eth0"));
    (recorder, Writer::new(Box::new(disk), config.clone(), vec![port]).unwrap())
}

/// Numbers (without the worker) of all packets that can be read.
pub(super) fn numbers(segment: &[u8]) -> Vec<u64> {
    let mut reader = SegmentReader::new(io::Cursor::new(segment.to_vec())).unwrap();
    let mut numbers = Vec::new();
    while let Some(packet) = reader.next_packet() {
        assert_eq!(packet.packet_id >> 56, 3);
        numbers.push(packet.packet_id << 8 >> 8);
    }
    numbers
}

/// All incidents as last written, in the order of their first line.
pub(super) fn incidents(store: &Store) -> Vec<IncidentRecord> {
    let mut records: Vec<IncidentRecord> = Vec::new();
    store
        .each_incident(|_, record: IncidentRecord| match records.iter_mut().find(|one| one.id == record.id) {
            Some(known) => *known = record,
            None => records.push(record),
        })
        .unwrap();
    records
}
