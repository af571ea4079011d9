//! `fuzz_seeds FOLDER`: writes small inputs to begin with, a folder for each target: scenarios of wiregen as capture files,
//! conversations in steps, the shipped rules. Main thread; the fuzzer takes them from there.

#![allow(clippy::print_stderr, reason = "it tells whoever called it what went wrong")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tests::captures::{self, MICROS, NANOS, NG, NG_BIG};
use wiregen::encap::{Encap, wrap};
use wiregen::scenario::{NAMES, Options, Packet};

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: fuzz_seeds FOLDER");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz_seeds: {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(root: &Path) -> io::Result<()> {
    for target in ["file_reader", "decode", "pipeline", "rules", "compare"] {
        fs::create_dir_all(root.join(target))?;
    }
    for (n, name) in NAMES.iter().filter(|name| **name != "demo").enumerate() {
        let options = Options {
            v6: n % 3 == 1,
            vlan: [if n % 4 == 2 { 7 } else { 0 }, 0],
            flows: Some(2),
            ..Options::default()
        };
        let (packets, _) = captures::scenario(name, &options);
        scenario(root, name, n, &packets)?;
    }
    for (name, steps) in talks() {
        let bytes: Vec<u8> = [&[0][..], &steps.concat()].concat();
        fs::write(root.join("pipeline").join(format!("talk-{name}")), &bytes)?;
        let pair =
            [&(bytes.len() as u16).to_be_bytes()[..], &bytes, &[0x0e, 0, 0, 1, 0, 2, 0, 0x1b, 0, 5]].concat();
        fs::write(root.join("compare").join(format!("talk-{name}")), pair)?;
    }
    for file in rules::library() {
        let name = Path::new(&file.name).file_name().unwrap_or_default().to_owned();
        fs::write(root.join("rules").join(name), file.text)?;
    }
    Ok(())
}

/// One scenario as files of every kind, and its first packets one by one.
fn scenario(root: &Path, name: &str, n: usize, packets: &[Packet]) -> io::Result<()> {
    let some = &packets[..packets.len().min(24)];
    let style = [MICROS, NANOS, NG, NG_BIG][n % 4];
    let file = captures::file(some, style);
    fs::write(root.join("pipeline").join(format!("{name}.cap")), &file)?;
    fs::write(
        root.join("file_reader").join(format!("{name}.cap")),
        captures::file(&some[..some.len().min(4)], style),
    )?;
    let other = captures::file(&some[some.len().min(1)..], NANOS);
    let pair = [&(file.len() as u16).to_be_bytes()[..], &file, &other].concat();
    fs::write(root.join("compare").join(format!("{name}.pair")), pair)?;
    for (i, packet) in some.iter().step_by(7).enumerate() {
        let bytes = [&[0, 1, 0][..], &packet.bytes[..packet.bytes.len().min(200)]].concat();
        fs::write(root.join("decode").join(format!("{name}-{i}")), bytes)?;
    }
    let encap = Encap::ALL[n % Encap::ALL.len()];
    let tunnelled = wrap(encap, &some[some.len() / 2].bytes);
    let bytes = [&[0, 1, 0][..], &tunnelled[..tunnelled.len().min(200)]].concat();
    fs::write(root.join("decode").join(format!("{name}-{}", encap.name())), bytes)
}

/// Steps as `tests::talk` reads them: connection, side and pause; what; how, twice.
type Steps = Vec<[u8; 4]>;

/// Conversations that each reach another part of analysis and judgement.
fn talks() -> Vec<(&'static str, Steps)> {
    let open = |n: u8| vec![[0x30 | n, 0, 0, 0], [0x30 | n, 1, 0, 0], [n, 2, 0, 0]];
    let with = |n: u8, more: &[[u8; 4]]| [open(n), more.to_vec()].concat();
    vec![
        (
            "tls",
            with(
                0,
                &[[0x30, 3, 60, 0], [0x38, 3, 90, 0], [0x30, 3, 20, 0], [0x30, 4, 0, 0], [0x38, 4, 0, 0]],
            ),
        ),
        ("hello-unanswered", with(0, &[[0x30, 3, 60, 0], [0x90, 6, 0, 0], [0x90, 5, 0, 0]])),
        ("hello-changed", with(3, &[[0x33, 10, 43, 9], [0x3b, 10, 9, 200], [0x3b, 5, 0, 0]])),
        ("http", with(1, &[[0x31, 3, 60, 0], [0x79, 3, 90, 0], [0x31, 4, 0, 0], [0x39, 4, 0, 0]])),
        ("http-fails", with(4, &[[0x34, 3, 60, 0], [0x8c, 3, 90, 0], [0x3c, 4, 0, 0]])),
        ("idle-reset", with(7, &[[0x37, 3, 20, 0], [0x3f, 3, 20, 0], [0xc7, 3, 20, 0], [0x3f, 5, 0, 0]])),
        (
            "probes",
            with(7, &[[0xa7, 6, 0, 0], [0x3f, 2, 0, 0], [0xb7, 6, 1, 0], [0x37, 7, 0, 0], [0x3f, 8, 16, 1]]),
        ),
        (
            "loss",
            with(
                5,
                &[
                    [0x35, 3, 100, 0],
                    [0x35, 8, 24, 240],
                    [0x3d, 19, 9, 0],
                    [0x65, 19, 9, 2],
                    [0x3d, 19, 20, 1],
                ],
            ),
        ),
        (
            "too-big",
            with(
                6,
                &[[0x36, 19, 3, 1], [0x36, 13, 0, 60], [0x66, 19, 3, 2], [0x76, 14, 1, 0], [0x76, 14, 2, 1]],
            ),
        ),
        (
            "names",
            vec![
                [0x02, 11, 1, 16],
                [0x3a, 11, 1, 16],
                [0x02, 11, 2, 32],
                [0x82, 11, 2, 32],
                [0x9a, 11, 2, 34],
            ],
        ),
        (
            "names-late",
            vec![
                [0x02, 11, 1, 16],
                [0x8a, 11, 1, 16],
                [0x02, 11, 17, 48],
                [0xa0, 11, 3, 3],
                [0xb2, 11, 35, 9],
            ],
        ),
        (
            "fragments",
            with(1, &[[0x31, 19, 1, 1], [0, 18, 3, 0], [0x31, 19, 1, 1], [0, 18, 4, 1], [0, 15, 30, 9]]),
        ),
        ("refused", vec![[0x30, 16, 63, 1], [0x38, 16, 63, 1], [0x60, 16, 63, 1], [0x68, 16, 40, 0]]),
        ("unanswered", vec![[0x31, 16, 63, 0], [0x81, 16, 63, 2], [0x81, 16, 63, 4], [0x91, 16, 30, 3]]),
        ("storm", vec![[0x30, 16, 50, 3], [0x50, 16, 50, 3], [0x50, 16, 50, 3], [0xb0, 16, 50, 4]]),
    ]
}
