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
