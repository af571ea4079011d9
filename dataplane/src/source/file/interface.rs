//! pcapng Interface Description Blocks: what packets refer to by number, and how their clock ticks.
//!
//! Runs on the worker's thread when such a block turns up, usually at the start of a section. The only part
//! of the parsers that may allocate. `pcapng` looks interfaces up by the section's own numbering.

use super::Fault;
use crate::source::{Interface, LinkType, Nanos};

/// Different interfaces one file may describe: many times what a machine has, little enough memory.
const MAX_INTERFACES: usize = 4096;

/// Longest name or description kept, bytes.
const MAX_TEXT: usize = 255;

const BILLION: u64 = 1_000_000_000;

/// How to make nanoseconds of an interface's ticks (if_tsresol, if_tsoffset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    scale: Scale,
    /// Seconds to be added.
    offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Times(u64),
    Over(u64),
    /// Ticks of 2^-n s.
    Binary(u32),
    /// Ticks so short that no count of them fills a nanosecond.
    Zero,
}

impl Clock {
    /// `resolution` as in if_tsresol: a power of 10, or with the top bit set of 2, negated.
    pub(super) fn new(resolution: u8, offset: i64) -> Clock {
        let power = u32::from(resolution & 0x7f);
        let scale = if resolution & 0x80 != 0 {
            Scale::Binary(power)
        } else if power <= 9 {
            Scale::Times(10u64.pow(9 - power))
        } else {
            10u64.checked_pow(power - 9).map_or(Scale::Zero, Scale::Over)
        };
        Clock { scale, offset }
    }

    /// Exact (rounded down to a whole nanosecond); what does not fit 1970 to 2554 becomes the nearer end.
    #[inline]
    pub(super) fn nanos(self, ticks: u64) -> Nanos {
        match self {
            Clock { scale: Scale::Times(factor), offset: 0 } => ticks.saturating_mul(factor),
            _ => self.nanos_wide(ticks),
        }
    }

    fn nanos_wide(self, ticks: u64) -> Nanos {
        let ticks = u128::from(ticks);
        let nanos = match self.scale {
            Scale::Times(factor) => ticks * u128::from(factor),
            Scale::Over(divisor) => ticks / u128::from(divisor),
            Scale::Binary(power) => (ticks * u128::from(BILLION)) >> power,
            Scale::Zero => 0,
        };
        // Both below 2^95: neither the conversion nor the sum can overflow.
        let shifted = nanos as i128 + i128::from(self.offset) * i128::from(BILLION);
        shifted.clamp(0, i128::from(u64::MAX)) as u64
    }
}

/// One interface of the current section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    /// Index into the source's interfaces.
    pub(super) index: u16,
    pub(super) link: LinkType,
    pub(super) snap_len: u32,
    pub(super) clock: Clock,
}

/// The interfaces of the current section, by their number there.
///
/// A section that describes an interface just as an earlier one did means the same one, so that files made by
/// appending captures to each other don't multiply their interfaces.
#[derive(Default)]
pub(super) struct Table {
    locals: Vec<Local>,
    section: u64,
    /// Per interface of the source: the last section that described it.
    described_in: Vec<u64>,
}

impl Table {
    pub(super) fn start_section(&mut self) {
        self.locals.clear();
        self.section += 1;
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Result<Local, Fault> {
        self.locals.get(id as usize).copied().ok_or(Fault::NoInterface(id, self.locals.len() as u32))
    }

    /// Takes in the body of a description block, of which the first 8 bytes are there.
    pub(super) fn describe(
        &mut self,
        body: &[u8],
        big_endian: bool,
        file: &str,
        known: &mut Vec<Interface>,
    ) -> Result<(), Fault> {
        let (interface, clock) = parse(body, big_endian, file);
        let (link, snap_len) = (interface.link, interface.snap_len);
        let same = |&i: &usize| self.described_in[i] != self.section && known[i] == interface;
        // Sections mostly describe the same interfaces in the same order.
        let likely = self.locals.len().min(known.len());
        let index = match (likely..known.len()).chain(0..likely).find(same) {
            Some(index) => index,
            None if known.len() == MAX_INTERFACES => return Err(Fault::Interfaces(MAX_INTERFACES as u32)),
            None => {
                known.push(interface);
                self.described_in.push(0);
                known.len() - 1
            }
        };
        self.described_in[index] = self.section;
        self.locals.push(Local { index: index as u16, link, snap_len, clock });
        Ok(())
    }
}

fn parse(body: &[u8], big_endian: bool, file: &str) -> (Interface, Clock) {
    const NAME: u16 = 2;
    const DESCRIPTION: u16 = 3;
    const RESOLUTION: u16 = 9;
    const OFFSET: u16 = 14;
    const MICROSECONDS: u8 = 6;

    let half = |b: [u8; 2]| if big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) };
    let link_number = half([body[0], body[1]]);
    let snap_len = [body[4], body[5], body[6], body[7]];
    let (mut name, mut description) = (None, None);
    let (mut resolution, mut offset) = (MICROSECONDS, 0);
    let mut rest = &body[8..];
    let mut damaged = false;
    while let Some((&[c0, c1, l0, l1], after)) = rest.split_first_chunk() {
        let (code, len) = (half([c0, c1]), usize::from(half([l0, l1])));
        if code == 0 {
            break;
        }
        let Some(value) = after.get(..len) else {
            damaged = true;
            break;
        };
        match (code, value) {
            (NAME, value) => name = text(value),
            (DESCRIPTION, value) => description = text(value),
            (RESOLUTION, &[value]) => resolution = value,
            (OFFSET, &[a, b, c, d, e, f, g, h]) => {
                let bytes = [a, b, c, d, e, f, g, h];
                offset = if big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
            }
            _ => {}
        }
        rest = after.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    let mut description = description.unwrap_or_else(|| "file, pcapng".to_owned());
    if damaged {
        // Said where a reader of the capture sees it: a lost resolution would put the times out.
        description.push_str(" (its options are damaged; what follows the damage is unknown)");
    }
    let interface = Interface {
        name: name.unwrap_or_else(|| file.to_owned()),
        description,
        link: LinkType::from_number(link_number),
        link_number,
        snap_len: if big_endian { u32::from_be_bytes(snap_len) } else { u32::from_le_bytes(snap_len) },
    };
    (interface, Clock::new(resolution, offset))
}

/// A text option; none where it is empty.
fn text(value: &[u8]) -> Option<String> {
    let value = &value[..value.len().min(MAX_TEXT)];
    let text = String::from_utf8_lossy(value);
    let text = text.trim_end_matches('\0').trim();
    (!text.is_empty()).then(|| text.to_owned())
}
