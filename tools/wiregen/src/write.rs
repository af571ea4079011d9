//! Capture files: classic pcap with µs or ns time stamps, or pcapng with ns, in either byte order.
//!
//! Runs on the caller's thread and writes to any `Write`; the caller buffers. It does not look into packets.
//! One Ethernet interface per file. Formats: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>
//! and <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html>.

use std::io::{self, Write};

/// The container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Pcap,
    /// Time stamps are always in ns.
    Pcapng,
}

/// How a file is written. `nanoseconds` concerns pcap only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub format: Format,
    pub nanoseconds: bool,
    pub big_endian: bool,
}

const ETHERNET: u32 = 1;
const SNAP_LEN: u32 = 262_144;

/// Writes one capture file.
pub struct Writer<W: Write> {
    out: W,
    style: Style,
    block: Vec<u8>,
    /// Bytes written so far.
    pub written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// Those of the output.
    pub fn new(out: W, style: Style) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, style, block: Vec::with_capacity(2048), written: 0 };
        match style.format {
            Format::Pcap => {
                writer.u32(if style.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
                writer.u16(2);
                writer.u16(4);
                for word in [0, 0, SNAP_LEN, ETHERNET] {
                    writer.u32(word);
                }
                writer.flush_block()?;
            }
            Format::Pcapng => writer.pcapng_head()?,
        }
        Ok(writer)
    }

    /// Writes one packet; `ts` in ns since the Unix epoch.
    ///
    /// # Errors
    /// Those of the output.
    pub fn packet(&mut self, ts: u64, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u32;
        match self.style.format {
            Format::Pcap => {
                let fraction = ts % 1_000_000_000;
                self.u32((ts / 1_000_000_000) as u32);
                self.u32(if self.style.nanoseconds { fraction as u32 } else { (fraction / 1000) as u32 });
                self.u32(len);
                self.u32(len);
                self.block.extend_from_slice(bytes);
            }
            Format::Pcapng => {
                let padded = bytes.len().next_multiple_of(4);
                let total = (32 + padded) as u32;
                for word in [6, total, 0, (ts >> 32) as u32, ts as u32, len, len] {
                    self.u32(word);
                }
                self.block.extend_from_slice(bytes);
                self.block.extend_from_slice(&[0; 3][..padded - bytes.len()]);
                self.u32(total);
            }
        }
        self.flush_block()
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// Section header and interface description, if_tsresol 9.
    fn pcapng_head(&mut self) -> io::Result<()> {
        for word in [0x0a0d_0d0a, 28, 0x1a2b_3c4d] {
            self.u32(word);
        }
        self.u16(1);
        self.u16(0);
        // Section length unknown.
        for word in [u32::MAX, u32::MAX, 28] {
            self.u32(word);
        }
        for word in [1, 32] {
            self.u32(word);
        }
        self.u16(ETHERNET as u16);
        self.u16(0);
        self.u32(SNAP_LEN);
        self.u16(9);
        self.u16(1);
        self.block.extend_from_slice(&[9, 0, 0, 0]);
        self.u16(0);
        self.u16(0);
        self.u32(32);
        self.flush_block()
    }

    fn u16(&mut self, value: u16) {
        let bytes = if self.style.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        self.block.extend_from_slice(&bytes);
    }

    fn u32(&mut self, value: u32) {
        let bytes = if self.style.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        self.block.extend_from_slice(&bytes);
    }

    fn flush_block(&mut self) -> io::Result<()> {
        self.out.write_all(&self.block)?;
        self.written += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(format: Format, nanoseconds: bool, big_endian: bool) -> Vec<u8> {
        let mut w = Writer::new(Vec::new(), Style { format, nanoseconds, big_endian }).unwrap();
        w.packet(5_000_000_777, &[1, 2, 3, 4, 5]).unwrap();
        let size = w.written;
        let out = w.finish().unwrap();
        assert_eq!(out.len() as u64, size);
        out
    }

    #[test]
    fn pcap_in_both_orders_and_resolutions() {
        let us = file(Format::Pcap, false, false);
        assert_eq!(us[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(us[24..32], [5, 0, 0, 0, 0, 0, 0, 0]);
        let ns = file(Format::Pcap, true, true);
        assert_eq!(ns[..4], [0xa1, 0xb2, 0x3c, 0x4d]);
        assert_eq!(ns[24..32], [0, 0, 0, 5, 0, 0, 3, 9]);
        assert_eq!(ns[40..], [1, 2, 3, 4, 5]);
    }

    #[test]
    fn pcapng_blocks_have_matching_lengths() {
        for big_endian in [false, true] {
            let f = file(Format::Pcapng, true, big_endian);
            let word = |at: usize| {
                let b: [u8; 4] = f[at..at + 4].try_into().unwrap();
                if big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
            };
            let mut at = 0;
            let mut kinds = Vec::new();
            while at < f.len() {
                let len = word(at + 4) as usize;
                assert_eq!(word(at + len - 4) as usize, len);
                kinds.push(word(at));
                at += len;
            }
            assert_eq!(kinds, [0x0a0d_0d0a, 1, 6]);
            assert_eq!(at, f.len());
        }
    }
}
