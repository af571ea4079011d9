//! For tests: captures from memory, and reports about them.

use std::io::Cursor;

use dataplane::source::file::FileSource;
use wiregen::scenario::{self, Options, Packet};
use wiregen::twotap::{Path, Taps, split};
use wiregen::write::{Style, Writer};

use crate::{Flows, Reading, Report, Tap, compare};

pub fn read(packets: &[Packet], flows: &mut Flows) -> Tap {
    let mut writer = Writer::new(Vec::new(), Style { nanoseconds: true, ..Style::default() }).unwrap();
    for packet in packets {
        writer.packet(packet.ts, &packet.bytes).unwrap();
    }
    read_file(writer.finish().unwrap(), flows)
}

pub fn read_file(bytes: Vec<u8>, flows: &mut Flows) -> Tap {
    let mut source = FileSource::from_reader("test", Box::new(Cursor::new(bytes))).unwrap();
    let mut reading = Reading::new(flows);
    while reading.step(&mut source) {}
    reading.finish()
}

/// A pcap file whose packets are cut after `snap` bytes.
pub fn cut(packets: &[Packet], snap: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let word = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&(value as u32).to_le_bytes());
    for value in [0xa1b2_3c4d, 0x0004_0002, 0, 0, snap as u64, 1] {
        word(&mut out, value);
    }
    for Packet { ts, bytes } in packets {
        let kept = bytes.len().min(snap);
        for value in [ts / 1_000_000_000, ts % 1_000_000_000, kept as u64, bytes.len() as u64] {
            word(&mut out, value);
        }
        out.extend_from_slice(&bytes[..kept]);
    }
    out
}

/// Compares, and checks what must hold of every report: balanced books, and that A and B are alike.
#[track_caller]
pub fn judge(a: &[Packet], b: &[Packet]) -> Report {
    let one = judge_once(a, b);
    let other = judge_once(b, a);
    let kinds = |report: &Report| report.summary.findings.clone();
    assert_eq!(
        kinds(&one),
        kinds(&other),
        "the order of the files matters: {:?} {:?}",
        one.summary,
        other.summary
    );
    one
}

#[track_caller]
fn judge_once(a: &[Packet], b: &[Packet]) -> Report {
    let mut flows = Flows::new();
    let (a, b) = (read(a, &mut flows), read(b, &mut flows));
    let report = compare(&a, &b, &flows);
    assert!(report.summary.balanced, "{:?}", report.summary);
    report
}

/// A scenario at two taps.
pub fn taps(name: &str, v6: bool, path: &Path) -> Taps {
    let options = Options { v6, idle_s: Some(30.0), ..Options::default() };
    let (packets, _) = scenario::packets(name, &options).unwrap();
    split(&packets, path)
}

/// Flows and packets of one kind, as the middle did it.
pub fn done(taps: &Taps, kind: &str) -> (u64, u64) {
    let of = taps.done.iter().filter(|((done, _), _)| *done == kind);
    of.fold((0, 0), |(flows, packets), (_, count)| (flows + 1, packets + count))
}

/// The same, as found.
pub fn found(report: &Report, kind: &str) -> (u64, u64) {
    let of = report.findings.iter().filter(|finding| finding.kind == kind);
    of.fold((0, 0), |(flows, packets), finding| (flows + 1, packets + finding.count))
}
