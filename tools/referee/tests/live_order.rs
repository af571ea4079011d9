//! What is captured live comes back from the store as it was: packets in the order they came, with the pauses between
//! them that the live analysis saw, to the nanosecond.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::lines;
use common::running::{self, Running, bench};
use common::wire::{CUT_OFF, Wire, cut_off};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

const CONNECTIONS: u16 = 40;

/// Rows by their client's port, without what differs from run to run by intent.
fn rows(text: &str) -> BTreeMap<u64, Value> {
    let by_port = |mut row: Value| {
        row.as_object_mut().unwrap().remove("flow_id");
        (row["flow"]["sport"].as_u64().unwrap(), row)
    };
    lines(text).into_iter().map(by_port).collect()
}

/// Of each packet of a capture: its time in ns since the epoch, and what tells it from others.
fn packets(bench: &common::Bench, file: &str) -> Vec<(u64, [u64; 3])> {
    let mut tshark = Command::new("tshark");
    tshark.args([
        "-r",
        file,
        "-T",
        "fields",
        "-e",
        "frame.time_epoch",
        "-e",
        "tcp.srcport",
        "-e",
        "tcp.dstport",
    ]);
    tshark.args(["-e", "tcp.seq_raw"]).current_dir(bench.dir.path());
    let read = tshark.output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let text = String::from_utf8(read.stdout).unwrap();
    let packet = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let (seconds, nanos) = fields[0].split_once('.').unwrap();
        let ts = seconds.parse::<u64>().unwrap() * 1_000_000_000 + nanos.parse::<u64>().unwrap();
        (ts, [1, 2, 3].map(|field: usize| fields[field].parse().unwrap()))
    };
    text.lines().map(packet).collect()
}

/// The same of a frame as it is sent: Ethernet, IPv4 without options, TCP.
fn sent(frame: &[u8]) -> [u64; 3] {
    let number =
        |from: usize, to: usize| frame[from..to].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    [number(34, 36), number(36, 38), number(38, 42)]
}

#[test]
fn order_and_pauses_are_those_the_live_analysis_saw() {
    if !need_root("the order of what is kept") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    running::rules(&bench, running::KEEP_ALL);
    let args = ["-i", "tap0", "--rules", "rules", "--store", "s", "--flows", "live.flows"];
    let running = Running::start(&namespace, &bench, &args);
    // All connections at once, a packet of each in turn.
    let connections: Vec<_> = (0..CONNECTIONS).map(|n| cut_off(4000 + n, 80)).collect();
    let mut order = Vec::new();
    for step in 0..CUT_OFF as usize {
        for frames in &connections {
            wire.send(&frames[step]);
            order.push(sent(&frames[step]));
        }
        thread::sleep(Duration::from_millis(15));
    }
    wire.all_arrived(&namespace);
    running.stop().ran.exits(0);
    bench.run(&["captures", "get", "--store", "s", "-w", "kept.pcapng"]).exits(0);

    let kept = packets(&bench, "kept.pcapng");
    assert_eq!(kept.iter().map(|(_, what)| *what).collect::<Vec<_>>(), order);
    assert!(kept.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let live = rows(&bench.read("live.flows"));
    assert_eq!(live.len(), usize::from(CONNECTIONS));
    let mut spans: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (ts, [sport, dport, _]) in kept {
        let span = spans.entry(if dport == 80 { sport } else { dport }).or_insert((ts, ts));
        span.1 = ts;
    }
    let seen: Vec<_> = live.values().map(|row| (row["start_ns"].as_u64(), row["end_ns"].as_u64())).collect();
    let kept: Vec<_> = spans.values().map(|(start, end)| (Some(*start), Some(*end))).collect();
    assert_eq!(seen, kept, "first and last packet of each connection, to the nanosecond");

    // Round trips, silences and all other times: whole rows.
    let replay =
        ["replay", "--config", "live.toml", "--rules", "rules", "--flows", "replay.flows", "kept.pcapng"];
    bench.run(&replay).exits(0);
    assert_eq!(rows(&bench.read("replay.flows")), live);
}
