//! How a packet lies in a hold's pages: a header with its stamp and length, then its bytes. Worker's thread;
//! plain values, nothing here allocates. Read back when the hold drains into the recorder.

use crate::flow::keeper::Stamp;

/// Bytes of the header.
pub(super) const RECORD: usize = 32;

/// The header of a packet of `len` bytes.
pub(super) fn encode_header(stamp: &Stamp, len: usize) -> [u8; RECORD] {
    let mut header = [0; RECORD];
    header[0..8].copy_from_slice(&stamp.ts.to_le_bytes());
    header[8..16].copy_from_slice(&stamp.number.to_le_bytes());
    header[16..20].copy_from_slice(&stamp.orig_len.to_le_bytes());
    header[20..24].copy_from_slice(&(len as u32).to_le_bytes());
    header[24..26].copy_from_slice(&stamp.interface.to_le_bytes());
    header
}

/// The stamp and length a header holds.
pub(super) fn decode_header(header: &[u8; RECORD]) -> (Stamp, usize) {
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let interface = u16::from_le_bytes([header[24], header[25]]);
    (Stamp { ts: word(0), number: word(8), orig_len: half(16), interface }, half(20) as usize)
}
