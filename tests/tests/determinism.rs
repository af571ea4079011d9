//! Same packets, same rules, same output, byte for byte: rows, incidents, accounts and the files of a store.
//! And however the packets are cut into files.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dataplane::record::{RealDisk, RecordConfig, Store};
use dataplane::source::merge::Merge;
use dataplane::source::open::open_all;
use tests::captures::{self, MICROS, NG, NG_BIG};
use tests::{Outcome, Pipeline, Setup};
use wiregen::rng::Rng;
use wiregen::scenario::{Options, Packet};

/// Chunks and segments so small that a run makes several.
fn record_config() -> RecordConfig {
    RecordConfig { chunk_bytes: 64 << 10, chunks: 8, segment_bytes: 256 << 10, ..RecordConfig::default() }
}

/// Runs a file with a real store; gives the reports and the bytes of every file in the store.
fn recorded(bytes: &[u8], folder: &Path) -> (Outcome, BTreeMap<String, Vec<u8>>) {
    let store = Store::create(folder).unwrap();
    let setup = Setup::small().recording(record_config(), RealDisk::new(&store.segments()));
    let outcome = Pipeline::new(captures::opened(bytes.to_vec()), setup).run();
    let files = fs::read_dir(store.segments()).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
    });
    (outcome, files.collect())
}

fn twice(name: &str, packets: &[Packet]) {
    let folder = tempfile::tempdir().unwrap();
    let file = captures::file(packets, NG);
    let (first, first_files) = recorded(&file, &folder.path().join("a"));
    let (second, second_files) = recorded(&file, &folder.path().join("b"));
    assert!(!first.incidents.is_empty() && !first.rows.is_empty(), "{name}: there is something to compare");
    assert!(first.account.kept.kept > 100, "{name}: something was kept");
    assert!(first.reports() == second.reports(), "{name}: two runs report differently");
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&first_files), names(&second_files), "{name}: the same segments");
    assert!(first_files == second_files, "{name}: the segments' bytes differ");
    let written = first.written.as_ref().unwrap();
    let size: u64 = first_files.values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(size, written.bytes_written, "{name}: the account of bytes is the size of the files");
}

#[test]
fn two_runs_of_a_mix_are_alike() {
    twice("mix", &captures::mix_of(2000, 11).0);
}

#[test]
fn two_runs_of_the_demo_are_alike() {
    twice("demo", &captures::scenario("demo", &Options::default()).0);
}

/// What does not depend on batches: all but how often queues were looked at.
fn essence(outcome: &Outcome) -> (Vec<String>, Vec<String>) {
    let mut rows: Vec<String> = outcome.rows.iter().map(|r| serde_json::to_string(r).unwrap()).collect();
    rows.sort();
    let incidents = outcome.incidents.iter().map(|i| serde_json::to_string(i).unwrap());
    (rows, incidents.collect())
}

#[test]
fn what_nobody_records_need_not_be_remembered() {
    let demo = captures::scenario("demo", &Options::default()).0;
    for packets in [captures::mix_of(2000, 11).0, demo] {
        let file = captures::file(&packets, NG);
        let run = |remembers| {
            let mut setup = Setup::small();
            setup.config.remembers = remembers;
            Pipeline::new(captures::opened(file.clone()), setup).run()
        };
        let (with, without) = (run(true), run(false));
        assert!(!with.incidents.is_empty());
        assert_eq!(essence(&with), essence(&without));
        assert_eq!((without.account.tails_rescued, without.account.history_cut), (0, 0));
    }
}

#[test]
fn three_files_merged_are_one() {
    let (packets, _) = captures::scenario("demo", &Options { seed: 4, ..Options::default() });
    let whole = Pipeline::new(captures::opened(captures::file(&packets, NG)), Setup::small()).run();
    let mut rng = Rng::new(77);
    let mut parts: [Vec<Packet>; 3] = Default::default();
    for packet in &packets {
        parts[rng.below(3) as usize].push(packet.clone());
    }
    let styles = [NG, NG_BIG, captures::NANOS];
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = parts
        .iter()
        .zip(styles)
        .enumerate()
        .map(|(i, (part, style))| {
            let path = folder.path().join(format!("part{i}"));
            fs::write(&path, captures::file(part, style)).unwrap();
            path
        })
        .collect();
    let source: Merge<_> = open_all(&paths).unwrap();
    let merged = Pipeline::new(source, Setup::small()).run();
    assert_eq!(merged.account.received, packets.len() as u64);
    let ((rows, incidents), (other_rows, other_incidents)) = (essence(&whole), essence(&merged));
    for (one, other) in rows.iter().zip(&other_rows) {
        assert_eq!(one, other);
    }
    assert_eq!(rows.len(), other_rows.len());
    assert_eq!(incidents, other_incidents);
}

#[test]
fn formats_agree() {
    let (packets, _) = captures::scenario("demo", &Options { seed: 5, ..Options::default() });
    // Cut to whole microseconds, so that every format can say the time.
    let cut = |p: &Packet| Packet { ts: p.ts / 1000 * 1000, bytes: p.bytes.clone() };
    let packets: Vec<Packet> = packets.iter().map(cut).collect();
    let run = |style| {
        let file = captures::opened(captures::file(&packets, style));
        essence(&Pipeline::new(file, Setup::small()).run())
    };
    let wanted = essence(&Pipeline::new(captures::synthetic(&packets), Setup::small()).run());
    for style in [MICROS, captures::MICROS_BIG, captures::NANOS, NG, NG_BIG] {
        assert!(run(style) == wanted, "{style:?} gives another outcome than the packets in memory");
    }
}
