//! An interface that changes while it is captured from: said and survived, or an end in order, with what was captured
//! safe and an exit code by which a supervisor starts it again.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code: a panic is a failed test"
)]

mod common;

use common::Bench;
use common::running::{self, Ended, KEEP_ALL, Running, bench, rules};
use common::wire::{CUT_OFF, Wire, assert_given_back, cut_off, program};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

const RECORD: [&str; 6] = ["-i", "tap0", "--rules", "rules", "--store", "s"];

/// A wire with so many queues at both ends, of four that they could have; `None` without ethtool.
fn wire_with(namespace: &Namespace, queues: &str) -> Option<Wire> {
    let wire = Wire::new(namespace, Shape { queues: 4, ..Shape::default() });
    ["wire0", "tap0"].iter().all(|end| set_queues(namespace, end, queues)).then_some(wire)
}

fn set_queues(namespace: &Namespace, end: &str, queues: &str) -> bool {
    let set = namespace.command("ethtool").args(["-L", end, "rx", queues, "tx", queues]).output();
    let set = set.is_ok_and(|output| output.status.success());
    if !set {
        eprintln!("skipped: changing queues: no ethtool, or it can't");
    }
    set
}

/// A run that recorded, and that the change given ends with exit code 5.
#[track_caller]
fn ends_by(namespace: &Namespace, wire: &mut Wire, change: impl FnOnce(), says: &[&str]) {
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let running = Running::start(namespace, &bench, &RECORD);
    (4000..4010).for_each(|port| wire.send_all(&cut_off(port, 80)));
    wire.all_arrived(namespace);
    change();
    let ended = running.end();
    assert_safe(&bench, &ended, 10 * CUT_OFF);
    ended.ran.exits(5).says(says).says(&["everything captured before is safe", "start again"]);
    assert_given_back(namespace, "tap0");
}

/// All that was sent was taken, kept and written, and tshark reads as many packets.
#[track_caller]
fn assert_safe(bench: &Bench, ended: &Ended, sent: u64) {
    let books = ended.books();
    assert_eq!((&books["received"], &books["written"]), (&Value::from(sent), &Value::from(sent)), "{books}");
    let whole = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(whole.contains(" 0 cut, 0 damaged"), "{whole}");
    let segments = running::segments(bench);
    let read = running::tshark(bench, segments.last().unwrap(), &["frame.number"]);
    assert_eq!(read.len() as u64, sent);
}

#[test]
fn more_queues_end_it_in_order() {
    if !need_root("queues that change") {
        return;
    }
    let namespace = Namespace::new();
    let Some(mut wire) = wire_with(&namespace, "1") else { return };
    let change = || assert!(set_queues(&namespace, "tap0", "3"));
    ends_by(&namespace, &mut wire, change, &["tap0 changed: it has 3 receive queues now, and 1"]);
}

#[test]
fn an_mtu_it_was_not_taken_for_ends_it_and_another_does_not() {
    if !need_root("an MTU that changes") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let change = || {
        namespace.ip(&["link", "set", "tap0", "mtu", "1600"]);
        namespace.ip(&["link", "set", "tap0", "mtu", "9000"]);
    };
    ends_by(&namespace, &mut wire, change, &["tap0 changed: its MTU is 9000 now", "1770"]);
    // Taken for the larger one, it minds neither the smaller nor one larger still.
    let bench = bench();
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0"]);
    namespace.ip(&["link", "set", "tap0", "mtu", "1500"]);
    namespace.ip(&["link", "set", "tap0", "down"]);
    // Said after it has looked at the MTU, too.
    running.warning("tap0 has no link");
    running.stop().ran.exits(0);
}

#[test]
fn an_interface_by_another_name_is_captured_from_as_before() {
    if !need_root("an interface that is renamed") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let mut running = Running::start(&namespace, &bench, &RECORD);
    wire.send_all(&cut_off(4000, 80));
    wire.all_arrived(&namespace);
    for step in [&["down"][..], &["name", "mon0"]] {
        namespace.ip(&[&["link", "set", "tap0"], step].concat());
    }
    running.warning("tap0 is called mon0 now");
    namespace.ip(&["link", "set", "mon0", "up"]);
    running.warning("mon0 has a link again");
    wire.send_all(&cut_off(4001, 80));
    wire.pair.tap.name = "mon0".to_owned();
    wire.all_arrived(&namespace);
    let ended = running.stop();
    assert_safe(&bench, &ended, 2 * CUT_OFF);
    assert_eq!(ended.books()["interfaces"][0]["name"], "tap0");
    ended.ran.exits(0);
    assert_given_back(&namespace, "mon0");
}

/// Id of the link by which a program is attached; `None` without bpftool.
fn link_of(program: u64) -> Option<u64> {
    let shown = std::process::Command::new("bpftool").args(["-j", "link", "list"]).output().ok()?;
    let links: Value = serde_json::from_slice(&shown.stdout).ok()?;
    links.as_array()?.iter().find(|link| link["prog_id"] == program)?["id"].as_u64()
}

#[test]
fn a_program_that_somebody_takes_off_ends_it_in_order() {
    if !need_root("a program that is taken off") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    if std::process::Command::new("bpftool").arg("version").output().is_err() {
        eprintln!("skipped: a program that is taken off: no bpftool");
        return;
    }
    let change = || {
        let link = link_of(program(&namespace, "tap0").unwrap()).expect("it is attached by a link");
        let link = link.to_string();
        let off = std::process::Command::new("bpftool").args(["link", "detach", "id", &link]).status();
        assert!(off.unwrap().success());
    };
    ends_by(&namespace, &mut wire, change, &["tap0 changed: somebody took Referee's XDP program off it"]);
}

/// As a supervisor does it: started again for as long as it ends with a code that asks for it. Between two lives the
/// interface is the kernel's.
#[test]
fn a_supervisor_starts_it_again_and_nothing_is_missing() {
    if !need_root("a run that is started again") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let mtu = |mtu| namespace.ip(&["link", "set", "tap0", "mtu", mtu]);
    let (mut lives, mut written) = (0, 0);
    loop {
        let running = Running::start(&namespace, &bench, &RECORD);
        lives += 1;
        wire.send_all(&cut_off(4000 + lives, 80));
        wire.all_arrived(&namespace);
        let ended = match lives {
            1 => {
                mtu("2000");
                running.end()
            }
            2 => {
                let ended = {
                    drop(wire);
                    running.end()
                };
                wire = Wire::new(&namespace, Shape::default());
                // The next pair has the next number; it is to be the one that the call names.
                namespace.ip(&["link", "set", "tap1", "down"]);
                namespace.ip(&["link", "set", "tap1", "name", "tap0"]);
                namespace.ip(&["link", "set", "tap0", "up"]);
                wire.pair.tap.name = "tap0".to_owned();
                ended
            }
            _ => running.stop(),
        };
        assert_safe(&bench, &ended, CUT_OFF);
        written += CUT_OFF;
        match ended.ran.code {
            Some(4 | 5) => {}
            code => break assert_eq!(code, Some(0)),
        }
    }
    assert_eq!((lives, running::segments(&bench).len()), (3, 3));
    let whole = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(whole.contains("3 complete, 0 cut, 0 damaged"), "{whole}");
    assert_eq!(written, 3 * CUT_OFF);
}

#[test]
fn the_unit_file_names_the_codes_that_ask_for_a_restart() {
    let unit = include_str!("../../../packaging/referee.service");
    assert!(unit.contains("\nRestartForceExitStatus=4 5\n"), "{unit}");
    assert!(unit.contains("\nRestartPreventExitStatus=2\n"), "{unit}");
}
