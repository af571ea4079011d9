//! One segment being read while it grows: packed bytes as far as there are some, whole blocks out of them.
//!
//! Runs on a reader's own thread. Whatever is not ours ends it quietly; blocks go to `follow`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::record::export::ExportError;
use crate::record::pcapng;
use crate::record::read::{BLOCK_LIMIT, Recorded, WINDOW_LOG_LIMIT, parse_interface, parse_packet};
use crate::record::store::{SegmentFile, StoreError};
use crate::source::Interface;

/// Bytes read, and bytes unpacked, at a time.
const PIECE: usize = 128 << 10;

pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_path_buf();
    |source| StoreError::Read { path, source }.into()
}

/// One segment being read while it grows.
pub(super) struct Tail {
    pub(super) sequence: u64,
    file: File,
    /// Bytes at its beginning whose packets are passed over.
    skip: u64,
    decoder: Decoder<'static>,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    /// Blocks not yet whole.
    pending: Vec<u8>,
    interfaces: Vec<Interface>,
    /// With its frame's end, or with something that is not ours: nothing more is taken from it.
    over: bool,
}

impl Tail {
    /// `None` if retention was faster.
    pub(super) fn open(segment: &SegmentFile) -> Result<Option<Tail>, ExportError> {
        let file = match File::open(&segment.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(reading(&segment.path))?,
        };
        let mut decoder = Decoder::new().map_err(reading(&segment.path))?;
        let limit = DParameter::WindowLogMax(WINDOW_LOG_LIMIT);
        decoder.set_parameter(limit).map_err(reading(&segment.path))?;
        Ok(Some(Tail {
            sequence: segment.sequence,
            file,
            skip: 0,
            decoder,
            packed: vec![0; PIECE],
            unpacked: vec![0; PIECE],
            pending: Vec::new(),
            interfaces: Vec::new(),
            over: false,
        }))
    }

    /// Has the packets that it has by now passed over.
    pub(super) fn pass_over(&mut self) -> io::Result<()> {
        self.skip = self.file.metadata()?.len();
        Ok(())
    }

    /// Reads on by one piece and shows each whole packet block's body. Says whether there was anything to read.
    pub(super) fn advance(&mut self, take: &mut dyn FnMut(&Tail, &[u8])) -> io::Result<bool> {
        if self.over {
            return Ok(false);
        }
        let most = usize::try_from(self.skip).unwrap_or(PIECE).clamp(0, PIECE);
        let passed_over = most > 0;
        let room = if passed_over { self.packed.get_mut(..most) } else { Some(&mut self.packed[..]) };
        let len = self.file.read(room.unwrap_or_default())?;
        self.skip = self.skip.saturating_sub(len as u64);
        let packed = std::mem::take(&mut self.packed);
        let mut input = InBuffer::around(packed.get(..len).unwrap_or_default());
        while len > 0 && !self.over {
            let mut output = OutBuffer::around(&mut self.unpacked[..]);
            let hint = self.decoder.run(&mut input, &mut output);
            let written = output.pos();
            self.over |= !matches!(hint, Ok(1..));
            self.pending.extend_from_slice(self.unpacked.get(..written).unwrap_or_default());
            match passed_over {
                true => self.blocks(&mut |_, _| {}),
                false => self.blocks(take),
            }
            if input.pos() == len && written < PIECE {
                break;
            }
        }
        self.packed = packed;
        Ok(len > 0)
    }

    /// Takes the whole blocks out of `pending`.
    fn blocks(&mut self, take: &mut dyn FnMut(&Tail, &[u8])) {
        let pending = std::mem::take(&mut self.pending);
        let mut at = 0;
        while let Some(total) = u32_at(&pending, at + 4) {
            if !(12..=BLOCK_LIMIT).contains(&total) || total % 4 != 0 {
                self.over = true;
                break;
            }
            let end = at + total as usize;
            let (Some(kind), Some(body)) = (u32_at(&pending, at), pending.get(at + 8..end - 4)) else {
                break;
            };
            if end > pending.len() {
                break;
            }
            match kind {
                pcapng::SECTION => self.interfaces.clear(),
                pcapng::INTERFACE => match parse_interface(body) {
                    Some(interface) => self.interfaces.push(interface),
                    None => self.over = true,
                },
                pcapng::PACKET => take(self, body),
                _ => {}
            }
            at = end;
        }
        self.pending = pending.get(at..).unwrap_or_default().to_vec();
    }

    pub(super) fn packet<'a>(&'a self, body: &'a [u8]) -> Option<Recorded<'a>> {
        let index = u32_at(body, 0)? as usize;
        parse_packet(body.get(4..)?, index, self.interfaces.get(index)?)
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok()
}
