//! gzip, zstd and lz4 streams, told apart by their first bytes, one level deep.
//!
//! Runs on the worker's thread. Each decoder hands out every byte that can be had before an error: a capture
//! that was cut by a crash gives all its packets up to the last flushed block. Contexts are allocated when a
//! frame starts, so a poll allocates only where a file holds several frames or members.

use std::io::{self, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder as ZstdDecoder, Operation};

use super::input::Raw;

/// The uncompressed stream of an input.
pub(super) enum Stream {
    Plain(Raw),
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
    Lz4(Box<Lz4>),
}

impl Stream {
    /// Looks at the first bytes. Bytes that are no known compression are passed on as they are.
    pub(super) fn detect(mut raw: Raw) -> io::Result<Stream> {
        Ok(match compression(raw.peek(4)?) {
            Some("gzip") => Stream::Gzip(Box::new(Gzip::new(raw))),
            Some("zstd") => Stream::Zstd(Box::new(Zstd::new(raw)?)),
            Some("lz4") => Stream::Lz4(Box::new(Lz4::new(raw))),
            _ => Stream::Plain(raw),
        })
    }

    pub(super) fn raw(&self) -> &Raw {
        match self {
            Stream::Plain(raw) => raw,
            Stream::Gzip(gzip) => &gzip.raw,
            Stream::Zstd(zstd) => &zstd.raw,
            Stream::Lz4(lz4) => lz4.frames.get_ref(),
        }
    }

    pub(super) fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(raw) => raw.read(dst),
            Stream::Gzip(gzip) => gzip.read(dst),
            Stream::Zstd(zstd) => zstd.read(dst),
            Stream::Lz4(lz4) => lz4.read(dst),
        }
    }
}

/// The compression a stream starts with: gzip (RFC 1952), zstd (RFC 8878, skippable frames included), lz4.
pub(super) fn compression(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some("zstd"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        _ => None,
    }
}

fn cut(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the {what} data ends in the middle"))
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the {what} data is corrupt"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    Body,
    Trailer,
}

/// RFC 1952 members, one after the other.
pub(super) struct Gzip {
    raw: Raw,
    inflate: Decompress,
    crc: Crc,
    next: Part,
}

impl Gzip {
    fn new(raw: Raw) -> Gzip {
        Gzip { raw, inflate: Decompress::new(false), crc: Crc::new(), next: Part::Header }
    }

    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.next {
                Part::Header => {
                    if self.raw.peek(1)?.is_empty() {
                        return Ok(0);
                    }
                    self.header()?;
                    self.inflate.reset(false);
                    self.crc.reset();
                    self.next = Part::Body;
                }
                Part::Body => {
                    let given = self.body(dst)?;
                    if given > 0 {
                        return Ok(given);
                    }
                }
                Part::Trailer => {
                    self.trailer()?;
                    self.next = Part::Header;
                }
            }
        }
    }

    /// Inflates some; 0 when the member's data is over. What came before an error is given first.
    fn body(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.raw.peek(1)?;
            let dry = input.is_empty();
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, dst, FlushDecompress::None);
            let taken = (self.inflate.total_in() - before.0) as usize;
            let given = (self.inflate.total_out() - before.1) as usize;
            self.raw.consume(taken);
            self.crc.update(&dst[..given]);
            match status {
                Ok(Status::StreamEnd) => {
                    self.next = Part::Trailer;
                    return Ok(given);
                }
                _ if given > 0 => return Ok(given),
                Err(_) => return Err(corrupt("gzip")),
                Ok(_) if dry => return Err(cut("gzip")),
                Ok(_) if taken == 0 => return Err(corrupt("gzip")),
                Ok(_) => {}
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let byte = self.raw.peek(1)?.first().copied().ok_or_else(|| cut("gzip"))?;
        self.raw.consume(1);
        Ok(byte)
    }

    /// The member header (RFC 1952 section 2.3); its optional fields are passed over.
    fn header(&mut self) -> io::Result<()> {
        const EXTRA: u8 = 0x04;
        const NAME: u8 = 0x08;
        const COMMENT: u8 = 0x10;
        const HEADER_CRC: u8 = 0x02;
        const DEFLATE: u8 = 8;

        let mut fixed = [0; 10];
        for byte in &mut fixed {
            *byte = self.byte()?;
        }
        if fixed[..3] != [0x1f, 0x8b, DEFLATE] {
            let what = "what follows the gzip data is no gzip data";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let flags = fixed[3];
        if flags & EXTRA != 0 {
            let len = u16::from_le_bytes([self.byte()?, self.byte()?]);
            for _ in 0..len {
                self.byte()?;
            }
        }
        for text in [NAME, COMMENT] {
            while flags & text != 0 && self.byte()? != 0 {}
        }
        if flags & HEADER_CRC != 0 {
            self.byte()?;
            self.byte()?;
        }
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        let mut fixed = [0; 8];
        for byte in &mut fixed {
            *byte = self.byte()?;
        }
        let sum = u64::from(self.crc.amount()) << 32 | u64::from(self.crc.sum());
        if u64::from_le_bytes(fixed) != sum {
            let what = "the gzip checksum does not match; bytes before this are wrong";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

/// RFC 8878 frames, one after the other.
///
/// The library drops what a call had already decoded when that call fails, so it is fed no more than it asks
/// for, which is one block: all blocks before a broken one come out.
pub(super) struct Zstd {
    raw: Raw,
    decoder: ZstdDecoder<'static>,
    /// Input bytes wanted next; 0 between frames.
    wanted: usize,
}

impl Zstd {
    /// Enough of a frame for the library to ask for the rest of its header.
    const START: usize = 5;

    fn new(raw: Raw) -> io::Result<Zstd> {
        Ok(Zstd { raw, decoder: ZstdDecoder::new()?, wanted: 0 })
    }

    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.raw.peek(1)?;
            let dry = input.is_empty();
            if self.wanted == 0 {
                if dry {
                    return Ok(0);
                }
                self.decoder.reinit()?;
                self.wanted = Self::START;
            }
            let input = &input[..input.len().min(self.wanted)];
            let step = self.decoder.run_on_buffers(input, dst);
            let step =
                step.map_err(|e| io::Error::new(e.kind(), format!("the zstd data is corrupt: {e}")))?;
            self.raw.consume(step.bytes_read);
            self.wanted = step.remaining;
            if step.bytes_written > 0 {
                return Ok(step.bytes_written);
            }
            if dry && self.wanted > 0 {
                return Err(cut("zstd"));
            }
        }
    }
}

/// lz4 frames, one after the other; skippable frames between them are passed over.
pub(super) struct Lz4 {
    frames: lz4_flex::frame::FrameDecoder<Raw>,
}

impl Lz4 {
    fn new(raw: Raw) -> Lz4 {
        Lz4 { frames: lz4_flex::frame::FrameDecoder::new(raw) }
    }

    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        loop {
            // The library says 0 for the end of a frame as well as for an input that ends between two blocks;
            // only in the second case did it try to read past the end.
            self.frames.get_mut().at_end = false;
            let n = self.frames.read(dst).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => cut("lz4"),
                kind => io::Error::new(kind, format!("the lz4 data is corrupt: {error}")),
            })?;
            if n > 0 {
                return Ok(n);
            }
            if self.frames.get_ref().at_end {
                return Err(cut("lz4"));
            }
            if !self.next_frame()? {
                return Ok(0);
            }
        }
    }

    /// Moves to the next frame, false at the end of the input.
    fn next_frame(&mut self) -> io::Result<bool> {
        let raw = self.frames.get_mut();
        loop {
            match *raw.peek(8)? {
                [] => return Ok(false),
                [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, ..] => {
                    raw.consume(8);
                    let mut left = u32::from_le_bytes([a, b, c, d]) as usize;
                    while left > 0 {
                        let here = raw.peek(1)?.len().min(left);
                        if here == 0 {
                            return Err(cut("lz4"));
                        }
                        raw.consume(here);
                        left -= here;
                    }
                }
                _ => return Ok(true),
            }
        }
    }
}
