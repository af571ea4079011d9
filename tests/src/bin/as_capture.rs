//! `as_capture INPUT OUT.pcap`: writes the packets that an input of `pipeline` stands for, to look at, to replay, or to
//! keep as a case. Main thread; an input that is a capture file already is copied.

#![allow(clippy::print_stderr, reason = "it tells whoever called it what went wrong")]

use std::fs;
use std::io;
use std::process::ExitCode;

use tests::captures::{self, NANOS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, out] = &arguments[..] else {
        eprintln!("usage: as_capture INPUT OUT.pcap");
        return ExitCode::from(2);
    };
    match write(input, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("as_capture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(input: &str, out: &str) -> io::Result<()> {
    let data = fs::read(input)?;
    if tests::talk::is_capture(&data) {
        return fs::write(out, data);
    }
    // A file can't say that more was on the wire than the capture kept, as wiregen writes it: all of each is written.
    fs::write(out, captures::file(&tests::talk::talk(&data).packets, NANOS))
}
