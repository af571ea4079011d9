//! Inputs: scenarios and mixes as capture files in memory, damaged copies of them, and where the corpus is.
//!
//! Everything comes from a seed; nothing here reads a clock or the system's randomness.

use std::io::Cursor;
use std::path::PathBuf;

use dataplane::source::LinkType;
use dataplane::source::file::{FileSource, OpenError};
use dataplane::source::synthetic::Synthetic;
use wiregen::mix;
use wiregen::rng::Rng;
use wiregen::scenario::{self, Options, Packet};
use wiregen::truth::Truth;
use wiregen::write::{Format, Style, Writer};

/// pcap, µs, little endian.
pub const MICROS: Style = Style { format: Format::Pcap, nanoseconds: false, big_endian: false };
/// pcap, µs, big endian.
pub const MICROS_BIG: Style = Style { format: Format::Pcap, nanoseconds: false, big_endian: true };
/// pcap, ns, little endian.
pub const NANOS: Style = Style { format: Format::Pcap, nanoseconds: true, big_endian: false };
/// pcapng, ns, little endian.
pub const NG: Style = Style { format: Format::Pcapng, nanoseconds: true, big_endian: false };
/// pcapng, ns, big endian.
pub const NG_BIG: Style = Style { format: Format::Pcapng, nanoseconds: true, big_endian: true };

/// A scenario's packets, and what is true of them.
pub fn scenario(name: &str, options: &Options) -> (Vec<Packet>, Truth) {
    scenario::packets(name, options).unwrap_or_else(|| panic!("no scenario is called {name:?}"))
}

/// A mix of this many flows, about 20 packets each, over half a minute.
pub fn mix_of(flows: u64, seed: u64) -> (Vec<Packet>, Truth) {
    let mut packets = Vec::new();
    let options = mix::Options { flows, packets: flows * 20, seed, seconds: 30 };
    let summary = mix::run(&options, |ts, bytes| {
        packets.push(Packet { ts, bytes: bytes.to_vec() });
        true
    });
    (packets, summary.expect("the options are in range").truth)
}

/// Packets as a capture file.
pub fn file(packets: &[Packet], style: Style) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), style).expect("a vector takes all");
    for packet in packets {
        writer.packet(packet.ts, &packet.bytes).expect("a vector takes all");
    }
    writer.finish().expect("a vector takes all")
}

/// A capture file in memory, opened.
///
/// # Errors
/// As [`FileSource::open`].
pub fn open(name: &str, bytes: Vec<u8>) -> Result<FileSource, OpenError> {
    FileSource::from_reader(name, Box::new(Cursor::new(bytes)))
}

/// A capture file of ours, opened.
pub fn opened(bytes: Vec<u8>) -> FileSource {
    open("capture", bytes).expect("what was written can be opened")
}

/// Packets straight from memory.
pub fn synthetic(packets: &[Packet]) -> Synthetic {
    let mut source = Synthetic::new("memory");
    for packet in packets {
        source.push(packet.ts, &packet.bytes, LinkType::Ethernet);
    }
    source
}

/// Damages a file: bit flips, bytes replaced, a cut, a piece repeated, moved or left out.
pub fn mutate(file: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + rng.below(4) {
        let len = bytes.len() as u64;
        if len < 2 {
            break;
        }
        let at = if rng.percent(40) { rng.below(len.min(200)) } else { rng.below(len) } as usize;
        let piece = (1 + rng.below(600) as usize).min(bytes.len() - at);
        match rng.below(7) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u32() as u8,
            2 => bytes.truncate(at),
            3 => {
                let copy = bytes[at..at + piece].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => drop(bytes.drain(at..at + piece)),
            5 => bytes[at..at + piece].fill(if rng.percent(50) { 0xff } else { 0 }),
            _ => {
                let copy = bytes[at..at + piece].to_vec();
                let to = rng.below(bytes.len() as u64) as usize;
                bytes.splice(to..to, copy);
            }
        }
    }
    bytes
}

/// A folder of the corpus, which lies beside the checkout on some machines only.
pub fn corpus(folder: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus").join(folder);
    root.is_dir().then_some(root)
}

/// The files of a corpus folder, in order; says on standard error if there is none.
#[allow(clippy::print_stderr, reason = "a test that skips says why")]
pub fn corpus_files(folder: &str) -> Vec<PathBuf> {
    let Some(root) = corpus(folder) else {
        eprintln!("skipped: no ../shared/corpus/{folder} beside the workspace");
        return Vec::new();
    };
    let entries = std::fs::read_dir(&root).expect("the folder can be listed");
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}
