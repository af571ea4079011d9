//! Capture files as a [`Source`]: pcap and pcapng, either byte order, plain or gzip, zstd, lz4.
//!
//! Runs on the worker's thread, which reads, decompresses and parses in `poll`. A packet's bytes are lent out
//! of a fixed window, never copied. `poll` allocates only for a new interface or compressed frame in the
//! middle of a file and for the damage report at its end. Batch boundaries depend on the capture's contents
//! alone, not on how reads or compression cut it up, so that replay repeats. `merge` orders several files.

mod decompress;
mod input;
mod interface;
mod pcap;
mod pcapng;
mod report;
#[cfg(test)]
pub(in crate::source) mod testfiles;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use self::decompress::Stream;
use self::input::{Fill, Raw, Window};
use self::pcap::Pcap;
use self::pcapng::Pcapng;
pub use self::report::{Damage, InputReport, OpenError};
use super::{BATCH, Batch, Descriptor, Interface, Nanos, Poll, Source};

/// Most bytes one packet may have: what Wireshark and tcpdump allow. A longer one is taken for damage.
pub const MAX_PACKET: u32 = 256 << 10;

/// Uncompressed bytes in memory. A batch ends where its packets would not fit.
const WINDOW: usize = 512 << 10;

/// Why a parser stopped.
enum Stop {
    /// No room for more packets.
    Full,
    /// The next record needs this many bytes.
    Need(usize),
    /// The next so many bytes are of no interest and too many for the window.
    Skip(u64),
    Damage(Fault),
}

/// What can be wrong with a record or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("claims {0} bytes; a packet has at most {MAX_PACKET}")]
    PacketLength(u32),
    #[error("claims {0} captured bytes; there is room for {1} in the block")]
    Overrun(u32, u32),
    #[error("claims a block length of {0}, which no block of its type has")]
    BlockLength(u32),
    #[error("has {0} bytes, too few for its type")]
    ShortBlock(u32),
    #[error("starts with block length {0} but ends with {1}")]
    Trailer(u32, u32),
    #[error("names interface {0}, but the section has described {1}")]
    NoInterface(u32, u32),
    #[error("describes an interface too many; {0} are allowed")]
    Interfaces(u32),
    #[error("starts a section of unknown byte order ({0:#010x})")]
    ByteOrder(u32),
    #[error("starts a section of version {0}; only version 1 is known")]
    Version(u32),
}

enum Format {
    Pcap(Pcap),
    Pcapng(Box<Pcapng>),
}

/// One capture file.
pub struct FileSource {
    name: String,
    stream: Stream,
    window: Window,
    format: Format,
    interfaces: Vec<Interface>,
    /// Packets handed over.
    packets: u64,
    /// Latest packet time so far.
    latest: Nanos,
    /// Size of the file as it lies on disk, where it has one.
    size: Option<u64>,
    /// How reading came to an end, while packets read before that are still to be handed out.
    over: Option<Fill>,
    ended: bool,
    damage: Option<Damage>,
}

impl FileSource {
    /// Opens a capture file; `-` is standard input.
    ///
    /// # Errors
    /// Anything that can't be read as a capture at all. A file whose header is whole opens, and what is wrong
    /// later on ends it early and is found in [`FileSource::report`].
    pub fn open(path: &Path) -> Result<FileSource, OpenError> {
        let (file, name) = if path == Path::new("-") {
            let name = "standard input".to_owned();
            (io::stdin().as_fd().try_clone_to_owned().map(File::from), name)
        } else {
            (File::open(path), path.display().to_string())
        };
        let meta = file.and_then(|file| file.metadata().map(|meta| (file, meta)));
        let (file, meta) = match meta {
            Ok(found) => found,
            Err(source) => {
                return Err(match source.kind() {
                    io::ErrorKind::NotFound => OpenError::NotFound { name },
                    io::ErrorKind::PermissionDenied => OpenError::Permission { name },
                    _ => OpenError::Io { name, source },
                });
            }
        };
        if meta.is_dir() {
            return Err(OpenError::Directory { name });
        }
        FileSource::build(name, Box::new(file), meta.is_file().then_some(meta.len()))
    }

    /// Reads a capture from anything that can be read. `name` is what messages call it.
    ///
    /// # Errors
    /// As [`FileSource::open`].
    pub fn from_reader(name: &str, reader: Box<dyn Read + Send>) -> Result<FileSource, OpenError> {
        FileSource::build(name.to_owned(), reader, None)
    }

    fn build(name: String, reader: Box<dyn Read + Send>, size: Option<u64>) -> Result<FileSource, OpenError> {
        let mut window = Window::new();
        let stream = Stream::detect(Raw::new(reader));
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(source) => return Err(OpenError::Read { name, source }),
        };
        let mut interfaces = Vec::new();
        let format = open_format(&name, &mut stream, &mut window, &mut interfaces)?;
        let mut source = FileSource {
            name,
            stream,
            window,
            format,
            interfaces,
            packets: 0,
            latest: 0,
            size,
            over: None,
            ended: false,
            damage: None,
        };
        // Takes in the interfaces at the start, so that they are known, and allocated, before the first poll.
        source.parse(0, &mut Vec::new());
        Ok(source)
    }

    /// What became of the input so far; final after [`Poll::End`].
    pub fn report(&self) -> InputReport {
        InputReport {
            name: self.name.clone(),
            packets: self.packets,
            bytes: self.stream.raw().total,
            complete: self.ended && self.damage.is_none(),
            damage: self.damage.clone(),
        }
    }

    /// Bytes read of the file as it lies on disk, and its size where that is known.
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.stream.raw().total, self.size)
    }

    fn parse(&mut self, room: usize, out: &mut Vec<Descriptor>) -> Stop {
        let (rest, at) = (self.window.rest(), self.window.offset());
        let (used, stop) = match &mut self.format {
            Format::Pcap(pcap) => pcap.parse(rest, at, room, out),
            Format::Pcapng(pcapng) => pcapng.parse(rest, at, room, out, &mut self.interfaces),
        };
        self.window.advance(used);
        stop
    }

    /// Reads on until the batch is full or can't grow; false at the end of the input.
    fn gather(&mut self, out: &mut Vec<Descriptor>) -> bool {
        loop {
            let stop = self.parse(BATCH - out.len(), out);
            let at = self.window.offset();
            let keep = out.first().map_or(at, |first| first.handle);
            let need = match stop {
                Stop::Full => return true,
                // Whatever it is, it is met again by the next poll, whose batch is empty.
                Stop::Skip(_) | Stop::Damage(_) if !out.is_empty() => return true,
                Stop::Damage(fault) => return self.damaged(at, format_args!("{fault}")),
                Stop::Need(need) if !out.is_empty() && (at - keep) as usize + need > WINDOW => return true,
                Stop::Need(need) => need,
                Stop::Skip(size) => {
                    self.window.skip(size);
                    0
                }
            };
            let fill = self.over.take().unwrap_or_else(|| self.window.fill(&mut self.stream, keep, need));
            match fill {
                Fill::Ready => {}
                over if !out.is_empty() => {
                    self.over = Some(over);
                    return true;
                }
                Fill::End => return self.end_of_input(at, need),
                Fill::Failed(error) => return self.damaged(at, format_args!("can't be read: {error}")),
            }
        }
    }

    fn end_of_input(&mut self, at: u64, need: usize) -> bool {
        let have = self.window.rest().len();
        if need == 0 {
            return self.damaged(at, format_args!("is cut: the input ends inside it"));
        }
        if have > 0 {
            return self.damaged(at, format_args!("is cut: {have} of at least {need} bytes are there"));
        }
        self.ended = true;
        self.window.free();
        false
    }

    fn damaged(&mut self, offset: u64, what: std::fmt::Arguments<'_>) -> bool {
        let packet = self.packets;
        let what = match self.format {
            Format::Pcap(_) => format!("record {} at byte {offset} {what}", packet + 1),
            Format::Pcapng(_) => format!("block at byte {offset}, after {packet} packets, {what}"),
        };
        self.damage = Some(Damage { offset, packet, what });
        self.ended = true;
        self.window.free();
        false
    }
}

impl Source for FileSource {
    /// The watermark is the latest time seen: a file whose times go backwards can't promise more, and its
    /// late packets are for the merge step to count.
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        debug_assert!(batch.packets.is_empty(), "poll needs a released batch");
        if self.ended || !self.gather(&mut batch.packets) {
            batch.watermark = self.latest;
            return Poll::End;
        }
        self.packets += batch.packets.len() as u64;
        self.latest = batch.packets.iter().fold(self.latest, |latest, packet| latest.max(packet.ts));
        batch.watermark = self.latest;
        Poll::Packets
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        self.window.bytes(packet.handle, packet.cap_len as usize)
    }

    fn release(&mut self, batch: &mut Batch) {
        batch.packets.clear();
    }

    fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}

/// Reads the file header.
fn open_format(
    name: &str,
    stream: &mut Stream,
    window: &mut Window,
    interfaces: &mut Vec<Interface>,
) -> Result<Format, OpenError> {
    let mut fill = |window: &mut Window, need| match window.fill(stream, 0, need) {
        Fill::Failed(source) => Err(OpenError::Read { name: name.to_owned(), source }),
        Fill::Ready | Fill::End => Ok(()),
    };
    let label = Path::new(name).file_name().map_or(name.into(), |file| file.to_string_lossy());
    fill(window, 4)?;
    let Some(&magic) = window.rest().first_chunk::<4>() else {
        return Err(match window.rest() {
            [] => OpenError::Empty { name: name.to_owned() },
            start => OpenError::Unknown { name: name.to_owned(), what: unknown(start) },
        });
    };
    let cut = |format, have, need| OpenError::HeaderCut { name: name.to_owned(), format, have, need };
    if pcapng::is_magic(magic) {
        fill(window, pcapng::MIN_SECTION)?;
        let have = window.rest().len();
        if have < pcapng::MIN_SECTION {
            return Err(cut("pcapng", have, pcapng::MIN_SECTION));
        }
        let mut pcapng = Pcapng::new(&label);
        let mut section = pcapng.first_section(window.rest());
        if let Err(Stop::Need(need)) = section {
            fill(window, need)?;
            section = pcapng.first_section(window.rest());
        }
        return match section {
            Err(Stop::Need(need)) => Err(cut("pcapng", window.rest().len(), need)),
            Err(Stop::Damage(fault)) => {
                let (name, what) = (name.to_owned(), fault.to_string());
                Err(OpenError::Header { name, format: "pcapng", what })
            }
            _ => Ok(Format::Pcapng(Box::new(pcapng))),
        };
    }
    if !pcap::is_magic(magic) {
        return Err(OpenError::Unknown { name: name.to_owned(), what: unknown(window.rest()) });
    }
    fill(window, pcap::HEADER)?;
    let pcap = window.rest().first_chunk().and_then(|header| Pcap::new(header, &label));
    let Some((pcap, interface)) = pcap else {
        return Err(cut("pcap", window.rest().len(), pcap::HEADER));
    };
    window.advance(pcap::HEADER);
    interfaces.push(interface);
    Ok(Format::Pcap(pcap))
}

/// What to say of bytes that start no capture.
fn unknown(start: &[u8]) -> String {
    let other = match start {
        [b'B', b'Z', b'h', ..] => Some("bzip2 data; decompress it first"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz data; decompress it first"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive; unpack it first"),
        [b's', b'n', b'o', b'o', b'p', ..] => Some("a snoop capture; convert it with editcap -F pcapng"),
        [b'G', b'M', b'B', b'U', ..] | [b'R', b'T', b'S', b'S', ..] => {
            Some("a Network Monitor capture; convert it with editcap -F pcapng")
        }
        _ if decompress::compression(start).is_some() => {
            Some("data compressed twice; decompress it once first")
        }
        _ => None,
    };
    if let Some(other) = other {
        return format!("is {other}");
    }
    let hex: Vec<String> = start.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!(
        "starts with bytes {}, which no pcap or pcapng file does; check what it is with file(1)",
        hex.join(" ")
    )
}
