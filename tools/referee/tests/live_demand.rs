//! `referee capture` against a run on wires: the packets are those that tcpdump's expression selects, past and present
//! together; what can't be is said; and the books balance.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::running::{Running, SOCKET, bench, capture_settings, tshark, until};
use common::wire::{Wire, sides};
use common::{Bench, Ran, lines};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};
use wiregen::packet::ACK;

/// Rules that find nothing: all that is kept is asked for.
const NONE: &str = "rule \"nothing\" on rst when flow.dport == 1 then { }\n";

fn has_tools(test: &str) -> bool {
    let missing =
        ["tcpdump", "tshark"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    if let Some(tool) = missing {
        println!("skipped: {test}: no {tool} on this host");
    }
    missing.is_none()
}

/// A packet of its own: by its number it is known again.
fn numbered(number: u32) -> Vec<u8> {
    let service = if number.is_multiple_of(3) { 8080 } else { 80 };
    let [client, server] = sides(4000 + (number % 7) as u16, service);
    let side = if number.is_multiple_of(2) { client } else { server };
    side.segment(ACK, number * 10, 1, b"0123456789")
}

/// Of each packet of a file its number, and its time in ns.
fn packets(bench: &Bench, file: &str) -> BTreeMap<u64, u64> {
    let shown = tshark(bench, file, &["tcp.seq_raw", "frame.time_epoch"]);
    let all: BTreeMap<u64, u64> = shown
        .iter()
        .map(|line| {
            let (sequence, time) = line.split_once('\t').unwrap();
            let (seconds, nanos) = time.split_once('.').unwrap();
            let nanos = format!("{seconds}{:0<9}", nanos).parse().unwrap();
            ((sequence.parse::<u64>().unwrap() - 1000) / 10, nanos)
        })
        .collect();
    assert_eq!(all.len(), shown.len(), "{file}: each packet once");
    all
}

/// `referee capture` against the run.
fn capture(bench: &Bench, args: &[&str]) -> Ran {
    bench.run(&[&["capture", "--socket", SOCKET], args].concat())
}

/// What `--json` says of it.
fn state(ran: Ran) -> Value {
    ran.exits(0).json().remove(0)
}

fn number(state: &Value, field: &str) -> u64 {
    state[field].as_u64().unwrap_or_else(|| panic!("{field}: {state}"))
}

/// Those of all packets that tcpdump selects.
fn selected(bench: &Bench, expression: &str) -> BTreeMap<u64, u64> {
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-n", "-Z", "root", "--nano", "-r", "all.pcapng", "-w", "selected.pcap", expression]);
    let done = tcpdump.current_dir(bench.dir.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    packets(bench, "selected.pcap")
}

/// Sends along these wires, one after the other, until told to stop.
fn keep_sending(wires: &mut [Wire], over: &AtomicBool) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        for wire in wires.iter_mut() {
            wire.send(&numbered(number));
            number += 1;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn past_and_present_are_what_tcpdump_selects() {
    if !need_root("captures on demand") || !has_tools("captures on demand") {
        return;
    }
    for (interfaces, settings) in [(1, ""), (2, "workers = 2\n")] {
        let namespace = Namespace::new();
        let mut wires: Vec<Wire> = (0..interfaces).map(|_| Wire::new(&namespace, Shape::default())).collect();
        let bench = bench();
        capture_settings(&bench, settings);
        bench.file("none.rhai", NONE);
        let mut args = vec!["--store", "s", "--rules", "none.rhai", "-i", "tap0"];
        if interfaces == 2 {
            args.extend(["-i", "tap1"]);
        }
        let running = Running::start(&namespace, &bench, &args);
        let over = AtomicBool::new(false);
        let done = thread::scope(|scope| {
            let sending = scope.spawn(|| keep_sending(&mut wires, &over));
            thread::sleep(Duration::from_secs(1));
            let args = ["port 8080", "--last", "5s", "--for", "2s", "-w", "some.pcapng", "--json"];
            let done = state(capture(&bench, &args));
            over.store(true, Ordering::Relaxed);
            sending.join().unwrap();
            done
        });
        wires.iter().for_each(|wire| wire.all_arrived(&namespace));
        let sent: u64 = wires.iter().map(Wire::sent).sum();
        // All there was, by the run's own times; asked again until the last has been analysed.
        let all = until("all packets to be seen", || {
            let all = state(capture(&bench, &["", "--last", "1h", "-w", "all.pcapng", "--json"]));
            (number(&all, "looked") == sent).then_some(all)
        });
        assert_eq!((number(&all, "packets"), packets(&bench, "all.pcapng").len() as u64), (sent, sent));
        let span = number(&done, "since_ns")..=number(&done, "until_ns");
        assert_eq!(number(&done, "until_ns") - number(&done, "since_ns"), 7_000_000_000);
        let wanted = selected(&bench, "port 8080");
        let wanted: BTreeMap<u64, u64> = wanted.into_iter().filter(|(_, time)| span.contains(time)).collect();
        assert!(wanted.len() > 20, "{}", wanted.len());
        assert_eq!(packets(&bench, "some.pcapng"), wanted);
        assert_eq!((number(&done, "packets"), number(&done, "refused")), (wanted.len() as u64, 0));
        // Again by the line it gives, as far as Wireshark's name.
        let line = done["proof"].as_str().unwrap();
        let get = line.strip_suffix(" | wireshark -k -i -").unwrap().strip_prefix("referee ").unwrap();
        let again = bench.command(&get.split(' ').collect::<Vec<_>>()).output().unwrap();
        assert_eq!(again.stdout, fs::read(bench.path("some.pcapng")).unwrap(), "{line}");
        let ended = running.stop();
        let books = ended.books();
        let kept: u64 = [&done, &all].iter().map(|state| number(state, "packets")).sum();
        assert!(books["kept"].as_u64().unwrap() >= kept && books["kept"] == books["written"], "{books}");
        ended.ran.exits(0);
    }
}

#[test]
fn it_can_be_ended_early_and_ends_with_the_run() {
    if !need_root("captures on demand that are ended") || !has_tools("captures on demand that are ended") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    bench.file("none.rhai", NONE);
    let running = Running::start(&namespace, &bench, &["--store", "s", "--rules", "none.rhai", "-i", "tap0"]);
    let begin = |args: &[&str]| {
        let mut command =
            bench.command(&[&["capture", "--socket", SOCKET, "tcp", "--for", "1h"], args].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let records = || lines(&fs::read_to_string(bench.path("s/incidents.jsonl")).unwrap_or_default());
    let first = begin(&["-w", "-"]);
    until("its record", || (records().len() == 1).then_some(()));
    (0..30).for_each(|number| wire.send(&numbered(number)));
    wire.all_arrived(&namespace);
    // What it has is shown while it goes on.
    let second = begin(&["--json"]);
    until("its record", || (records().len() == 2).then_some(()));
    until("the packets to be kept", || {
        let all = state(capture(&bench, &["tcp", "--last", "1h", "--json"]));
        (number(&all, "packets") == 30).then_some(())
    });
    kill_process(Pid::from_child(&first), Signal::INT).unwrap();
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    fs::write(bench.path("first.pcapng"), first.stdout).unwrap();
    assert_eq!(packets(&bench, "first.pcapng").len(), 30);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(said.contains("30 packets") && said.contains("proof: referee captures get --store "), "{said}");
    // The other has nothing yet, and is there until the run ends.
    let ended = running.stop();
    ended.books();
    ended.ran.exits(0);
    let second: Ran = second.wait_with_output().unwrap().into();
    second
        .exits(1)
        .says(&["the run ended before the capture did", "what it had kept by then: referee captures get"]);
    let last = records().pop().unwrap();
    assert_eq!((&last["kind"], &last["evidence"]["ended"]), (&"on_demand".into(), &true.into()), "{last}");
}

#[test]
fn what_can_not_be_is_said() {
    if !need_root("captures on demand that are refused") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let running = Running::start(&namespace, &bench, &["-i", "tap0"]);
    let refused = capture(&bench, &["tcp"]).exits(1);
    refused.says(&["this run records nothing", "help: start it with --store DIR"]);
    running.stop().ran.exits(0);
    let running = Running::start(&namespace, &bench, &["--store", "s", "-i", "tap0"]);
    let wrong = capture(&bench, &["host example.com"]).exits(2);
    wrong.says(&["`example.com` is no word of pcap-filter's", "help: give addresses"]);
    capture(&bench, &["tcp", "--last", "2h"]).exits(2).says(&["--last 2h is too long", "help: give 1h"]);
    capture(&bench, &["tcp", "--last", "yesterday"]).exits(2).says(&["give a duration"]);
    if !matches!(dataplane::filter::Selection::new("", &[1]), Err(error) if error.is_library()) {
        let wrong = capture(&bench, &["hots 10.0.0.1"]).exits(2);
        wrong.says(&["`hots` is no word of pcap-filter's"]);
        capture(&bench, &["port port"]).exits(2).says(&["syntax error", "pcap-filter(7)"]);
        let none = capture(&bench, &["tcp", "--last", "1s", "-w", "none.pcapng"]).exits(1);
        none.says(&["none of 0 packets is wanted", "there is nothing to write"]);
        assert!(!bench.path("none.pcapng").exists());
    }
    running.stop().ran.exits(0);
    capture(&bench, &["tcp"]).exits(1).says(&["nobody answers at"]);
}

#[test]
fn what_the_disk_refuses_was_not_captured() {
    if !need_root("captures on demand that the disk refuses") || !has_tools("captures on demand") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    bench.file("none.rhai", NONE);
    let running = Running::start(&namespace, &bench, &["--store", "s", "--rules", "none.rhai", "-i", "tap0"]);
    (0..30).for_each(|number| wire.send(&numbered(number)));
    wire.all_arrived(&namespace);
    // The run has no privilege left that would let it write there.
    let writable =
        |mode: u32| fs::set_permissions(bench.path("s/segments"), Permissions::from_mode(mode)).unwrap();
    writable(0o500);
    let refused = until("all packets to be looked at", || {
        let ran = capture(&bench, &["tcp", "--last", "1h", "--json"]);
        (number(&lines(&ran.stdout)[0], "looked") >= 30).then_some(ran)
    });
    let state = refused.exits(1).says(&["the capture is not whole, for want of 30 packets"]).json().remove(0);
    assert_eq!((number(&state, "packets"), &state["unwritten"]["write_failed"]), (0, &30.into()), "{state}");
    let told = until("status to know", || {
        // Health is looked at once a second, and the box answers so many questions a second only.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let told = bench.run(&["status", "--socket", SOCKET]).exits(0).stdout;
        told.contains("store: failing: the store can't be written to").then_some(told)
    });
    for words in ["up: ", "interface tap0: ", " packets, 0 lost; ", "incidents: 0 open"] {
        assert!(told.contains(words), "{told}");
    }
    writable(0o700);
    let whole = capture(&bench, &["tcp", "--last", "1h", "--json"]).exits(0).json().remove(0);
    assert_eq!((number(&whole, "packets"), &whole["unwritten"]), (30, &serde_json::json!({})));
    let listed = bench.run(&["captures", "list", "--store", "s"]).exits(0).stdout;
    assert!(listed.contains("on demand: tcp (") && listed.contains(" flows)"), "{listed}");
    let ended = running.stop();
    let books = ended.books();
    assert!(books["written"] == 30 && books["unwritten"]["write_failed"].as_u64() >= Some(30), "{books}");
    ended.ran.exits(1).says(&["could not be written"]);
}
