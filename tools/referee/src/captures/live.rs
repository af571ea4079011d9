//! `referee captures live`: the packets that a run keeps, as it keeps them, into a file or a pipe.
//!
//! Main thread copies; a second one waits for the signal that ends it. Only whole blocks are written, so that what is there
//! is a capture file whenever it ends.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};

use crate::client::{Client, ReachArgs, encoded};
use crate::error::Failure;
use crate::live::signals;
use crate::term::{self, plural};

const PIECE: usize = 64 << 10;
/// pcapng: the number of a packet's block, and the largest that is believed.
const PACKET: u32 = 6;
const BLOCK_LIMIT: u32 = 16 << 20;
/// How long an end waits for whoever takes what is written.
const LAST_WRITE: (u32, Duration) = (100, Duration::from_millis(10));

#[derive(Args)]
pub struct LiveArgs {
    /// Which of them, as tcpdump takes it (pcap-filter syntax); without it, all
    #[arg(value_name = "EXPR", default_value = "", hide_default_value = true)]
    pub expression: String,
    /// The capture file to write (- for standard output: … -w - | wireshark -k -i -)
    #[arg(short = 'w', value_name = "FILE")]
    pub write: PathBuf,
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Follows until the run ends, or until it is told to end.
///
/// # Errors
/// Usage: the expression, or a terminal to write to. Failed: nobody answers, nothing is kept there, or the file can't be
/// written.
pub fn run(args: &LiveArgs) -> Result<(), Failure> {
    let to_stdout = args.write == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        let what = "standard output is a terminal, and a capture is not text";
        return Err(Failure::usage(what).help("name a file with -w, or pipe it: … -w - | wireshark -k -i -"));
    }
    let mut from = Client::reach(&args.reach)?.get(&path(&args.expression))?.body;
    let out: Box<dyn Write + Send> = match to_stdout {
        true => Box::new(io::stdout()),
        false => Box::new(File::create(&args.write).map_err(|error| unwritten(&args.write, &error))?),
    };
    let kept = Arc::new(Mutex::new(Kept { out, packets: 0 }));
    let (at_end, to) = (Arc::clone(&kept), args.write.clone());
    signals::end_when_told(move || {
        for _ in 0..LAST_WRITE.0 {
            if let Ok(kept) = at_end.try_lock() {
                told(&kept, &to);
                // Nothing follows what was told.
                std::process::exit(0);
            }
            thread::sleep(LAST_WRITE.1);
        }
    })?;
    if to_stdout {
        thread::Builder::new().name("reader".to_owned()).spawn(end_when_unread).map_err(Failure::failed)?;
    }
    copy(&mut from, &kept, &args.write)
}

/// Whoever reads a pipe may leave while nothing is written.
fn end_when_unread() {
    let stdout = io::stdout();
    loop {
        let mut looked = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut looked, None) {
            Ok(_) if looked.iter().any(|one| one.revents().contains(PollFlags::ERR)) => std::process::exit(0),
            Err(rustix::io::Errno::INTR) => {}
            // Nothing that can be left.
            _ => return,
        }
    }
}

/// Where what is kept is followed.
pub fn path(expression: &str) -> String {
    match expression.trim() {
        "" => "/api/v1/captures/live".to_owned(),
        chosen => format!("/api/v1/captures/live?expression={}", encoded(chosen)),
    }
}

struct Kept {
    out: Box<dyn Write + Send>,
    packets: u64,
}

fn copy(from: &mut dyn Read, kept: &Mutex<Kept>, to: &Path) -> Result<(), Failure> {
    let (mut piece, mut pending) = (vec![0; PIECE], Vec::new());
    loop {
        let read = match from.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::failed(format!("the capture broke off: {error}"))),
        };
        pending.extend_from_slice(piece.get(..read).unwrap_or_default());
        let (len, packets) = whole(&pending).ok_or_else(|| Failure::failed("what came is no pcapng"))?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let written = kept.out.write_all(pending.get(..len).unwrap_or_default());
        match written.and_then(|()| kept.out.flush()) {
            Ok(()) => kept.packets += packets,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(unwritten(to, &error)),
        }
        pending.drain(..len);
        if read == 0 {
            term::note("the run has ended");
            told(&kept, to);
            return Ok(());
        }
    }
}

/// How many bytes of these are whole blocks, and how many of those are packets; `None` if they are no blocks.
fn whole(bytes: &[u8]) -> Option<(usize, u64)> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok();
    let (mut at, mut packets) = (0, 0);
    while let (Some(kind), Some(len)) = (word(at), word(at + 4)) {
        if !(12..=BLOCK_LIMIT).contains(&len) || len % 4 != 0 {
            return None;
        }
        if bytes.len() - at < len as usize {
            break;
        }
        packets += u64::from(kind == PACKET);
        at += len as usize;
    }
    Some((at, packets))
}

fn told(kept: &Kept, to: &Path) {
    let to = if to == Path::new("-") { "standard output".to_owned() } else { to.display().to_string() };
    term::note(&format!("{} written to {to}", plural(kept.packets, "packet")));
}

fn unwritten(to: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{} can't be written: {error}", to.display()))
        .help("name a path with room on its disk, in a folder this user may write to")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, words: usize) -> Vec<u8> {
        let len = 12 + 4 * words as u32;
        let mut bytes = [kind.to_le_bytes(), len.to_le_bytes()].concat();
        bytes.resize(8 + 4 * words, 7);
        bytes.extend(len.to_le_bytes());
        bytes
    }

    #[test]
    fn only_whole_blocks_are_written() {
        let bytes = [block(0x0A0D_0D0A, 4), block(1, 2), block(PACKET, 9), block(PACKET, 1)].concat();
        let ends = [28, 48, 96, 112];
        for cut in 0..=bytes.len() {
            let (len, packets) = whole(&bytes[..cut]).unwrap();
            let before = ends.iter().filter(|end| **end <= cut);
            assert_eq!(len, before.clone().next_back().copied().unwrap_or(0), "{cut}");
            assert_eq!(packets, before.filter(|end| **end > 48).count() as u64);
        }
        assert_eq!(whole(&[7; 30]), None);
        assert_eq!(whole(&[0; 8]), None);
    }

    #[test]
    fn a_stream_in_pieces_becomes_a_file() {
        struct Pieces(Vec<Vec<u8>>);
        impl Read for Pieces {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let Some(piece) = self.0.pop() else { return Ok(0) };
                into[..piece.len()].copy_from_slice(&piece);
                Ok(piece.len())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("f");
        let bytes = [block(0x0A0D_0D0A, 4), block(PACKET, 9), block(PACKET, 1)].concat();
        // The last block is cut.
        let mut pieces: Vec<Vec<u8>> = bytes[..bytes.len() - 1].chunks(5).map(<[u8]>::to_vec).collect();
        pieces.reverse();
        let kept = Mutex::new(Kept { out: Box::new(File::create(&to).unwrap()), packets: 0 });
        copy(&mut Pieces(pieces), &kept, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), bytes[..bytes.len() - 16]);
        assert_eq!(kept.lock().unwrap().packets, 1);
    }

    #[test]
    fn an_expression_goes_into_an_address() {
        assert_eq!(path(" "), "/api/v1/captures/live");
        let expected = "/api/v1/captures/live?expression=tcp%5B13%5D%20%26%204%20%21%3D%200";
        assert_eq!(path("tcp[13] & 4 != 0"), expected);
    }
}
