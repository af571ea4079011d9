//! However `referee run` ends, the interface is as it was, what was flushed can be read, and the next run works.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use common::Bench;
use common::running::{self, KEEP_ALL, Running, bench, command, rules, until};
use common::wire::{CUT_OFF, Wire, assert_given_back, cut_off, described, program};
use dataplane::source::afxdp::{BusyPoll, CaptureClock, ClockChoice, Tap, TapSettings, ZeroCopy};
use dataplane::source::nic::Nic;
use dataplane::source::rss;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::Signal;
use tests::live::{Namespace, Shape, need_root};

const RECORD: [&str; 6] = ["-i", "tap0", "--rules", "rules", "--store", "s"];

/// Names and sizes of the segments.
fn sizes(bench: &Bench) -> Vec<(String, u64)> {
    let size = |name: String| fs::metadata(&name).map(|meta| (name, meta.len())).unwrap();
    running::segments(bench).into_iter().map(size).collect()
}

#[test]
fn killed_while_it_records_it_leaves_readable_segments_and_a_free_interface() {
    if !need_root("a run that is killed") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let running = Running::start(&namespace, &bench, &RECORD);
    let taken = described(&namespace, "tap0");
    assert!(taken["xdp"].is_object() && taken["promiscuity"] == 1, "{taken}");
    // Traffic goes on until more than the head of a segment is on disk.
    let mut port = 1024;
    until("packets on disk", || {
        wire.send_all(&cut_off(port, 80));
        port += 1;
        sizes(&bench).iter().any(|(_, bytes)| *bytes > 4096).then_some(())
    });
    running.signal(Signal::KILL);
    let ended = running.end();
    assert_eq!((ended.ran.code, ended.ledger), (None, None));
    assert_given_back(&namespace, "tap0");

    let left = sizes(&bench);
    let verified = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(verified.contains("0 complete, 1 cut, 0 damaged"), "{verified}");
    assert!(!running::tshark(&bench, &left[0].0, &["frame.number"]).is_empty(), "{left:?}");
    assert_runs_again(&namespace, &bench, &mut wire, left);
}

/// The same run once more, beside what the killed one left.
fn assert_runs_again(namespace: &Namespace, bench: &Bench, wire: &mut Wire, left: Vec<(String, u64)>) {
    let running = Running::start(namespace, bench, &RECORD);
    wire.send_all(&cut_off(1000, 80));
    wire.all_arrived(namespace);
    let ended = running.stop();
    // What the sender had sent before belongs to nobody: the interface was the kernel's then.
    let books = ended.books();
    assert_eq!((books["received"].as_u64(), books["written"].as_u64()), (Some(CUT_OFF), Some(CUT_OFF)));
    ended.ran.exits(0);
    let now = sizes(bench);
    assert!(left.iter().all(|segment| now.contains(segment)), "{left:?} {now:?}");
    assert_eq!(now.len(), left.len() + 1);
    let verified = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(verified.contains("1 complete, 1 cut, 0 damaged"), "{verified}");
}

#[test]
fn a_fault_of_any_kind_gives_the_interface_back() {
    if !need_root("runs that die by a fault") {
        return;
    }
    let namespace = Namespace::new();
    let wire = Wire::new(&namespace, Shape::default());
    for fault in [Signal::ABORT, Signal::ILL] {
        let running = Running::start(&namespace, &bench(), &["-i", "tap0"]);
        assert!(program(&namespace, "tap0").is_some());
        running.signal(fault);
        assert_eq!(running.end().ran.code, None, "killed by the signal");
        assert_given_back(&namespace, "tap0");
    }
    // A panic unwinds through whoever holds the interface.
    let panicked = std::panic::catch_unwind(|| {
        namespace.run(|| {
            let nic = Nic::find(&wire.pair.tap.name).unwrap();
            let settings = TapSettings {
                zero_copy: ZeroCopy::Prefer,
                ring: 64,
                busy_poll: BusyPoll::Auto,
                steal: false,
                filter: None,
                rss: rss::Choice::Verify,
                clock: ClockChoice::Kernel,
            };
            let (mut tap, queues) = Tap::open(nic, &settings, &Arc::new(CaptureClock::sampled())).unwrap();
            tap.begin().unwrap();
            assert_eq!(queues.len(), 1);
            std::panic::panic_any(tap.needs().program.unwrap());
        })
    });
    assert!(panicked.unwrap_err().is::<u32>(), "it was attached before it panicked");
    assert_given_back(&namespace, "tap0");
}

#[test]
fn a_signal_or_the_time_given_ends_it_in_order() {
    if !need_root("runs that are ended") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    for end in [Some(Signal::TERM), Some(Signal::INT), None] {
        let duration = ["-i", "tap0", "--duration", "0.5"];
        let args = if end.is_some() { &duration[..2] } else { &duration };
        let bench = bench();
        let running = Running::start(&namespace, &bench, args);
        if let Some(signal) = end {
            wire.send_all(&cut_off(4000, 80));
            wire.all_arrived(&namespace);
            running.signal(signal);
        }
        let ended = running.end();
        let received = if end.is_some() { CUT_OFF } else { 0 };
        assert_eq!(ended.books()["received"], received, "{end:?}");
        let ran = ended.ran.exits(0);
        let books =
            format!("books balance: {received} received = {received} analysed + 0 filtered + 0 dropped");
        assert!(ran.stdout.contains(&books), "{}", ran.stdout);
        assert_given_back(&namespace, "tap0");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    if !need_root("a run that is told twice") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    // Nobody reads what it prints at the end and the pipe is full, so that it would wait for ever.
    let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut full = fs::File::from(writer);
    while full.write(&[b'\n'; 1]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let bench = bench();
    let mut running = Running::spawn(command(&namespace, &bench, &["-i", "tap0"]).stdout(Stdio::from(full)));
    running.signal(Signal::INT);
    until("the interface to be given back", || program(&namespace, "tap0").is_none().then_some(()));
    assert!(!running.is_over());
    running.signal(Signal::INT);
    assert_eq!(running.end().ran.code, None, "killed by the signal");
    assert_given_back(&namespace, "tap0");
    drop(reader);
}
