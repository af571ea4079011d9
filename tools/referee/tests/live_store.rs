//! Captures of a box that records: fetched while it does, found by its index afterwards.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

mod common;

use common::running::{KEEP_ALL, Running, bench, rules, until};
use common::wire::{CUT_OFF, Wire, cut_off};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

#[test]
fn captures_are_fetched_while_it_records_and_the_index_knows_them_after() {
    if !need_root("captures of a box that records") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let running = Running::start(&namespace, &bench, &["-i", "tap0", "--rules", "rules", "--store", "s"]);
    let packets = |args: &[&str]| -> Option<u64> {
        let got =
            bench.run(&[&["captures", "get", "--store", "s", "-w", "live.pcapng", "--json"], args].concat());
        let summary: Value = serde_json::from_str(&got.stdout).ok()?;
        summary["packets"].as_u64()
    };
    for round in 1..=5u64 {
        wire.send_all(&cut_off(4000 + round as u16, 80));
        wire.all_arrived(&namespace);
        // A chunk goes to the disk when packets show that it is a second old.
        until("the packets", || {
            wire.send_all(&[vec![0xFF; 60]]);
            packets(&[]).filter(|packets| *packets >= round * CUT_OFF)
        });
    }
    let ended = running.stop();
    let written = ended.books()["written"].as_u64();
    ended.ran.exits(0);
    assert_eq!(packets(&[]), written);
    let verified = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(verified.contains("\nindex: 1 segment, 5 flows, "), "{verified}");
    let flows = bench.run(&["captures", "list", "--store", "s", "--json"]).exits(0).json();
    let id = flows[0]["flow_id"].as_str().unwrap();
    assert_eq!(packets(&["--flow", id]), flows[0]["packets"].as_u64());
    let rebuilt = bench.run(&["store", "rebuild-index", "--store", "s", "--json"]).exits(0).json();
    assert_eq!((&rebuilt[0]["segments"], &rebuilt[0]["flows"]), (&Value::from(1), &Value::from(5)));
}

#[test]
fn what_is_deleted_by_hand_while_it_records_is_told_and_nothing_after_it_is_lost() {
    if !need_root("segments deleted while they are written") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0", "--rules", "rules", "--store", "s"]);
    let listed = |bench: &common::Bench| -> u64 {
        let listed = bench.run(&["captures", "list", "--store", "s", "--json"]);
        common::lines(&listed.stdout).iter().filter_map(|flow| flow["packets"].as_u64()).sum()
    };
    let mut record = |port: u16| {
        wire.send_all(&cut_off(port, 80));
        until("the packets", || {
            // A chunk goes to the disk when packets show that it is a second old.
            wire.send_all(&[vec![0xFF; 60]]);
            Some(listed(&bench)).filter(|packets| *packets >= CUT_OFF)
        })
    };
    let first = record(4001);
    for segment in std::fs::read_dir(bench.path("s/segments")).unwrap() {
        std::fs::remove_file(segment.unwrap().path()).unwrap();
    }
    let told = running.warning("a segment was deleted while it was written");
    assert!(told.contains(&format!("{first} packets with it")), "{told}");
    let second = record(4002);
    std::fs::remove_dir_all(bench.path("s/segments")).unwrap();
    running.warning("a segment was deleted while it was written");
    assert!(bench.path("s/segments").is_dir(), "made anew before anything comes");
    record(4003);
    let ended = running.stop();
    let books = ended.books().clone();
    ended.ran.exits(0);
    assert_eq!(books["unwritten"]["segment_deleted"], first + second);
    assert_eq!(books["written"], listed(&bench));
    assert_eq!(books["kept"].as_u64().unwrap(), listed(&bench) + first + second);
    bench.run(&["store", "verify", "--store", "s"]).exits(0);
}
