//! What `referee run` tells people and programs while it captures, what it proves afterwards, and with how few
//! rights it does so.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::os::fd::OwnedFd;

use common::running::{Running, bench, command, field, settings, tshark, until};
use common::wire::{CUT_OFF, Wire, assert_given_back, cut_off};
use common::{Bench, lines};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

/// What an incident has, by the contract with other programs.
const FIELDS: [&str; 15] = [
    "id",
    "kind",
    "rule",
    "severity",
    "scope",
    "subject",
    "first_ns",
    "last_ns",
    "count",
    "flows",
    "flow_ids",
    "evidence",
    "explain",
    "advise",
    "rules_hash",
];

#[test]
fn json_has_each_incident_when_it_opens_and_closes_and_the_books_last() {
    if !need_root("--json") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    // The first closes while it runs, the second because it ends.
    settings(&bench, "quiet_s = 2\n");
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0", "--json"]);
    wire.send_all(&cut_off(4000, 80));
    let opened = running.incident("open", "rst_midflow");
    let closed = running.incident("closed", "rst_midflow");
    assert_eq!((&closed["id"], &closed["count"]), (&opened["id"], &Value::from(1)));
    wire.send_all(&cut_off(4001, 81));
    running.incident("open", "rst_midflow");
    let ended = running.stop();
    ended.books();
    let ran = ended.ran.exits(0);
    let mut all = ran.json();
    let last = all.pop().unwrap();
    assert_eq!(Some(&last["ledger"]), ended.ledger.as_ref());
    assert_eq!(last.as_object().unwrap().len(), 1);
    let states: Vec<&str> = all.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["open", "closed", "open", "closed"]);
    for incident in &all {
        let fields = incident.as_object().unwrap();
        assert!(FIELDS.iter().all(|name| fields.contains_key(*name)), "{incident}");
        assert_eq!(incident["subject"]["dst"], "10.2.0.1", "{incident}");
    }
}

/// A run whose `--json` the test reads, or no longer.
fn with_reader(namespace: &Namespace, bench: &Bench, args: &[&str]) -> (Running, OwnedFd) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let all = [&["-i", "tap0", "--json"], args].concat();
    (Running::spawn(command(namespace, bench, &all).stdout(writer)), reader)
}

#[test]
fn a_reader_that_goes_away_ends_a_run_that_records_nothing() {
    if !need_root("a reader that goes away") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let (running, reader) = with_reader(&namespace, &bench, &[]);
    drop(reader);
    wire.send_all(&cut_off(4000, 80));
    running.end().ran.exits(0);
    assert_given_back(&namespace, "tap0");
}

#[test]
fn a_reader_that_goes_away_does_not_end_a_run_that_records() {
    if !need_root("a reader that goes away") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let (running, reader) = with_reader(&namespace, &bench, &["--store", "s"]);
    drop(reader);
    for n in 0..2 {
        wire.send_all(&cut_off(4000, 80 + n));
        until("the incident to be kept", || {
            let kept = fs::read_to_string(bench.path("s/incidents.jsonl")).unwrap_or_default();
            kept.contains(&format!("\"dport\":{}", 80 + n)).then_some(())
        });
    }
    running.stop().ran.exits(0);
    let verified = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(verified.contains("1 complete, 0 cut, 0 damaged"), "{verified}");
}

#[test]
fn people_are_told_at_once_and_given_the_proof() {
    if !need_root("what people are told") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0", "--store", "s"]);
    wire.send_all(&cut_off(4000, 80));
    running.line(&["WARNING  rst_midflow", "10.1.0.1:4000 → 10.2.0.1:80"]);
    let ended = running.stop();
    ended.books();
    let ran = ended.ran.exits(0);
    assert!(ran.stdout.contains("1 incident: 1 warning.") && !ran.stdout.contains('\x1b'), "{}", ran.stdout);
    assert!(ran.stdout.contains("books balance: 5 received = 5 analysed"), "{}", ran.stdout);
    // Beneath the incident as it opened, and again where all of it is told.
    let proofs: Vec<&str> =
        ran.stdout.lines().filter_map(|line| line.trim().strip_prefix("proof: referee ")).collect();
    assert!(proofs.len() == 2 && proofs[0] == proofs[1], "{}", ran.stdout);
    let get = proofs[0].strip_suffix(" | wireshark -k -i -").unwrap();
    let got = bench.command(&get.split(' ').collect::<Vec<_>>()).output().unwrap();
    assert!(got.status.success() && get.starts_with("captures get --store s --incident "), "{get}");
    bench.file("proof.pcapng", got.stdout);
    let packets = tshark(&bench, "proof.pcapng", &["tcp.flags.str", "frame.comment"]);
    assert_eq!(packets.len() as u64, CUT_OFF);
    // From the first packet, long before anything was wrong, to the reset, which has the verdict beside it.
    assert!(packets[0].contains('S') && packets[4].contains('R'), "{packets:?}");
    assert!(packets[4].contains("rst_midflow"), "{packets:?}");
}

#[test]
fn it_runs_without_any_privilege_and_its_worker_on_one_core() {
    if !need_root("least privilege") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let running = Running::start(&namespace, &bench, &["-i", "tap0", "--store", "s"]);
    // A thread gives itself its name soon after it began.
    let threads = until("all threads", || {
        let threads = running.threads();
        let named = |wanted| threads.iter().any(|(name, _)| name == wanted);
        // And the writer.
        (["referee", "judge", "worker-0"].into_iter().all(named) && threads.len() >= 4).then_some(threads)
    });
    for (name, status) in &threads {
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(field(status, set), "0000000000000000", "{name}: {set}");
        }
        assert_eq!(field(status, "NoNewPrivs"), "1", "{name}");
    }
    // It moves there by itself, soon after its start.
    until("the worker to be on its core", || {
        let threads = running.threads();
        let (_, worker) = threads.iter().find(|(name, _)| name == "worker-0")?;
        field(worker, "Cpus_allowed_list").parse::<u32>().ok()
    });
    // And it can do its work so.
    wire.send_all(&cut_off(4000, 80));
    wire.all_arrived(&namespace);
    let ended = running.stop();
    let books = ended.books();
    assert_eq!((&books["written"], &books["received"]), (&Value::from(CUT_OFF), &Value::from(CUT_OFF)));
    let kept = lines(&bench.read("s/incidents.jsonl"));
    assert!(kept.iter().any(|record| record.to_string().contains("rst_midflow")), "{kept:?}");
    ended.ran.exits(0);
}

#[test]
fn metrics_are_written_while_it_runs_and_at_its_end() {
    if !need_root("live metrics") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let running = Running::start(&namespace, &bench, &["-i", "tap0", "--metrics", "referee.prom"]);
    wire.send_all(&cut_off(4000, 80));
    let page = until("the first metrics", || fs::read_to_string(bench.path("referee.prom")).ok());
    for line in ["referee_running 1", "# TYPE referee_flows gauge", "referee_state_table_entries "] {
        assert!(page.contains(line), "{line:?} is not in {page}");
    }
    let ended = running.stop();
    ended.books();
    ended.ran.exits(0);
    let page = bench.read("referee.prom");
    let received = format!("referee_received_packets_total {}", ended.ledger.unwrap()["received"]);
    let seen = "referee_interface_packets_total{interface=\"tap0\"} ";
    for line in ["referee_running 0", &received, seen, "referee_incidents_closed_total 1"] {
        assert!(page.contains(line), "{line:?} is not in {page}");
    }
}
