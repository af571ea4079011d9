//! Every packet, in RAM, for as long as the memory lasts: what makes a capture begin before the trouble.
//! Worker's thread; all memory taken at start, nothing here allocates after it.
//!
//! `ring` holds the packets, each chained to its flow's previous one; `tail` rescues the last packets of
//! flows that fell silent before the ring forgets them. `hold` copies lead-ups out of both.

pub mod ring;
pub mod tail;

pub use ring::Ring;
pub use tail::Tails;

use crate::source::Nanos;

/// A packet as history hands it back.
#[derive(Clone, Copy, Debug)]
pub struct Remembered<'a> {
    pub ts: Nanos,
    /// The worker's packet number: unique, and the order of arrival.
    pub number: u64,
    pub orig_len: u32,
    pub interface: u16,
    pub bytes: &'a [u8],
}
