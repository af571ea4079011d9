//! The pcapng file format: sections of blocks (draft-ietf-opsawg-pcapng).
//!
//! Runs on the worker's thread. Parses in place what the window holds and pushes descriptors; allocates only
//! for a new interface. Sections may differ in byte order and start their interface numbers anew. Blocks that
//! carry no packets and describe no interface are passed over; both length fields of each block must agree.

use super::interface::Table;
use super::{Fault, MAX_PACKET, Stop, WINDOW};
use crate::source::{Descriptor, Interface, Marks, Nanos};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// Obsolete, still met in old files.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Type and two lengths.
const MIN_BLOCK: u32 = 12;
/// Longest block passed over; a longer one is taken for damage.
const MAX_BLOCK: u32 = 16 << 20;
/// Bytes of the smallest section header block.
pub(super) const MIN_SECTION: usize = 28;

/// Whether these are the first four bytes of a pcapng file.
pub(super) fn is_magic(start: [u8; 4]) -> bool {
    u32::from_le_bytes(start) == SECTION
}

pub(super) struct Pcapng {
    /// For interfaces without a name.
    file: String,
    big_endian: bool,
    interfaces: Table,
    /// Time of the last packet that had one; simple packets have none.
    last: Nanos,
}

impl Pcapng {
    pub(super) fn new(file: &str) -> Pcapng {
        Pcapng { file: file.to_owned(), big_endian: false, interfaces: Table::default(), last: 0 }
    }

    /// Checks the section header that a file (of which [`MIN_SECTION`] bytes are there) starts with.
    pub(super) fn first_section(&mut self, start: &[u8]) -> Result<(), Stop> {
        let size = self.block(SECTION, start)?;
        self.other(SECTION, &start[8..size - 4], &mut Vec::new()).map_err(Stop::Damage)
    }

    #[inline(always)]
    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// Pushes at most `room` packets of `buf`, which lies at stream offset `at`; returns the bytes used.
    pub(super) fn parse(
        &mut self,
        buf: &[u8],
        at: u64,
        room: usize,
        out: &mut Vec<Descriptor>,
        known: &mut Vec<Interface>,
    ) -> (usize, Stop) {
        let mut pos = 0;
        let mut left = room;
        loop {
            let rest = &buf[pos..];
            let Some(head) = rest.first_chunk::<{ MIN_BLOCK as usize }>() else {
                return (pos, Stop::Need(MIN_BLOCK as usize));
            };
            let kind = self.word(head, 0);
            let packet = matches!(kind, ENHANCED_PACKET | SIMPLE_PACKET | PACKET);
            if packet && left == 0 {
                return (pos, Stop::Full);
            }
            let size = match self.block(kind, rest) {
                Ok(size) => size,
                Err(stop) => return (pos, stop),
            };
            let body = &rest[8..size - 4];
            let done = if packet {
                left -= 1;
                self.packet(kind, body, at + pos as u64 + 8).map(|descriptor| out.push(descriptor))
            } else {
                self.other(kind, body, known)
            };
            if let Err(fault) = done {
                return (pos, Stop::Damage(fault));
            }
            pos += size;
        }
    }

    /// The size of the block that `rest` (12 bytes or more) starts with, once all of it is there.
    #[inline]
    fn block(&mut self, kind: u32, rest: &[u8]) -> Result<usize, Stop> {
        if kind == SECTION {
            // Its lengths can't be read before its byte order is known.
            self.big_endian = match [rest[8], rest[9], rest[10], rest[11]] {
                bytes if u32::from_le_bytes(bytes) == BYTE_ORDER => false,
                bytes if u32::from_be_bytes(bytes) == BYTE_ORDER => true,
                bytes => return Err(Stop::Damage(Fault::ByteOrder(u32::from_be_bytes(bytes)))),
            };
        }
        let claimed = self.word(rest, 4);
        if !(MIN_BLOCK..=MAX_BLOCK).contains(&claimed) {
            return Err(Stop::Damage(Fault::BlockLength(claimed)));
        }
        // Lengths are to be multiples of 4; writers that leave the padding out of the number still write it.
        let size = claimed.next_multiple_of(4) as usize;
        if rest.len() < size {
            return Err(match kind {
                _ if size <= WINDOW => Stop::Need(size),
                SECTION | INTERFACE | ENHANCED_PACKET | SIMPLE_PACKET | PACKET => {
                    Stop::Damage(Fault::BlockLength(claimed))
                }
                _ => Stop::Skip(size as u64),
            });
        }
        let trailer = self.word(rest, size - 4);
        if trailer != claimed {
            return Err(Stop::Damage(Fault::Trailer(claimed, trailer)));
        }
        Ok(size)
    }

    /// A packet block's body, which lies at stream offset `at`.
    #[inline]
    fn packet(&mut self, kind: u32, body: &[u8], at: u64) -> Result<Descriptor, Fault> {
        if kind == SIMPLE_PACKET {
            return self.simple_packet(body, at);
        }
        let Some(head) = body.first_chunk::<20>() else {
            return Err(Fault::ShortBlock(body.len() as u32 + MIN_BLOCK));
        };
        let id = match kind {
            ENHANCED_PACKET => self.word(head, 0),
            // Interface and drop count share the first word.
            _ if self.big_endian => self.word(head, 0) >> 16,
            _ => self.word(head, 0) & 0xffff,
        };
        let interface = self.interfaces.get(id)?;
        let ticks = u64::from(self.word(head, 4)) << 32 | u64::from(self.word(head, 8));
        let cap_len = self.word(head, 12);
        fits(cap_len, body.len() - head.len())?;
        self.last = interface.clock.nanos(ticks);
        Ok(Descriptor {
            ts: self.last,
            handle: at + head.len() as u64,
            cap_len,
            // Some writers leave the original length out or wrong; it can't be less than what is here.
            orig_len: self.word(head, 16).max(cap_len),
            interface: interface.index,
            link: interface.link,
            marks: Marks::NONE,
        })
    }

    fn simple_packet(&self, body: &[u8], at: u64) -> Result<Descriptor, Fault> {
        let Some(head) = body.first_chunk::<4>() else {
            return Err(Fault::ShortBlock(body.len() as u32 + MIN_BLOCK));
        };
        let interface = self.interfaces.get(0)?;
        let orig_len = self.word(head, 0);
        let cap_len = if interface.snap_len == 0 { orig_len } else { orig_len.min(interface.snap_len) };
        fits(cap_len, body.len() - head.len())?;
        Ok(Descriptor {
            ts: self.last,
            handle: at + head.len() as u64,
            cap_len,
            orig_len,
            interface: interface.index,
            link: interface.link,
            marks: Marks::NONE,
        })
    }

    fn other(&mut self, kind: u32, body: &[u8], known: &mut Vec<Interface>) -> Result<(), Fault> {
        let short = Fault::ShortBlock(body.len() as u32 + MIN_BLOCK);
        match kind {
            SECTION => {
                if body.len() < MIN_SECTION - MIN_BLOCK as usize {
                    return Err(short);
                }
                let word = self.word(body, 4);
                let major = if self.big_endian { word >> 16 } else { word & 0xffff };
                if major != 1 {
                    return Err(Fault::Version(major));
                }
                self.interfaces.start_section();
                Ok(())
            }
            INTERFACE if body.len() < 8 => Err(short),
            INTERFACE => self.interfaces.describe(body, self.big_endian, &self.file, known),
            _ => Ok(()),
        }
    }
}

fn fits(cap_len: u32, room: usize) -> Result<(), Fault> {
    if cap_len > MAX_PACKET {
        return Err(Fault::PacketLength(cap_len));
    }
    if cap_len as usize > room {
        return Err(Fault::Overrun(cap_len, room as u32));
    }
    Ok(())
}
