//! The pcap file format: a 24-byte header, then records (draft-ietf-opsawg-pcap).
//!
//! Runs on the worker's thread. Parses in place what the window holds and pushes descriptors; allocates
//! nothing, reads nothing. Versions other than 2.4 are read all the same, a snap length of 0 means none.

use super::{Fault, MAX_PACKET, Stop};
use crate::source::{Descriptor, Interface, LinkType, Marks};

/// Bytes of the file header.
pub(super) const HEADER: usize = 24;

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Kuznetzov's "modified" format: interface index, protocol and packet type follow each record header.
const MODIFIED: u32 = 0xa1b2_cd34;

/// What the file header says about all records.
pub(super) struct Pcap {
    big_endian: bool,
    /// Nanoseconds per unit of a record's fraction.
    unit: u64,
    record_header: usize,
    link: LinkType,
}

/// Whether these are the first four bytes of a pcap file.
pub(super) fn is_magic(start: [u8; 4]) -> bool {
    kind(start).is_some()
}

/// Byte order (true: big-endian) and magic number.
fn kind(start: [u8; 4]) -> Option<(bool, u32)> {
    let known = |magic: u32| matches!(magic, MICROSECONDS | NANOSECONDS | MODIFIED);
    let (little, big) = (u32::from_le_bytes(start), u32::from_be_bytes(start));
    if known(little) { Some((false, little)) } else { known(big).then_some((true, big)) }
}

impl Pcap {
    /// `None` where the magic number is not one of pcap's.
    pub(super) fn new(header: &[u8; HEADER], name: &str) -> Option<(Pcap, Interface)> {
        let [m0, m1, m2, m3, ..] = *header;
        let (big_endian, magic) = kind([m0, m1, m2, m3])?;
        let word = |at: usize| word(header, at, big_endian);
        // The upper half of the last field holds the FCS length and flags.
        let link_number = word(20) as u16;
        let link = LinkType::from_number(link_number);
        let description = match magic {
            NANOSECONDS => "file, pcap, ns",
            MODIFIED => "file, modified pcap, µs",
            _ => "file, pcap, µs",
        };
        let interface = Interface {
            name: name.to_owned(),
            description: description.to_owned(),
            link,
            link_number,
            snap_len: word(16),
        };
        let pcap = Pcap {
            big_endian,
            unit: if magic == NANOSECONDS { 1 } else { 1_000 },
            record_header: if magic == MODIFIED { 24 } else { 16 },
            link,
        };
        Some((pcap, interface))
    }

    /// Pushes at most `room` records of `buf`, which lies at stream offset `at`; returns the bytes used.
    pub(super) fn parse(&self, buf: &[u8], at: u64, room: usize, out: &mut Vec<Descriptor>) -> (usize, Stop) {
        let mut pos = 0;
        for _ in 0..room {
            let rest = &buf[pos..];
            let head = rest.first_chunk::<16>().filter(|_| rest.len() >= self.record_header);
            let Some(head) = head else { return (pos, Stop::Need(self.record_header)) };
            let word = |at: usize| word(head, at, self.big_endian);
            let cap_len = word(8);
            if cap_len > MAX_PACKET {
                return (pos, Stop::Damage(Fault::PacketLength(cap_len)));
            }
            let size = self.record_header + cap_len as usize;
            if rest.len() < size {
                return (pos, Stop::Need(size));
            }
            out.push(Descriptor {
                ts: u64::from(word(0)) * 1_000_000_000 + u64::from(word(4)) * self.unit,
                handle: at + (pos + self.record_header) as u64,
                cap_len,
                // Some writers leave the original length out or wrong; it can't be less than what is here.
                orig_len: word(12).max(cap_len),
                interface: 0,
                link: self.link,
                marks: Marks::NONE,
            });
            pos += size;
        }
        (pos, Stop::Full)
    }
}

#[inline(always)]
fn word<const N: usize>(header: &[u8; N], at: usize, big_endian: bool) -> u32 {
    let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}
