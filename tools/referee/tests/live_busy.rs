//! Busy polling: a worker whose full queue comes up empty runs the driver's receive loop itself, and misses nothing by it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use common::running::{Running, bench, until};
use common::wire::{Wire, cut_off};
use rustix::process::Signal;
use tests::live::{Namespace, Shape, need_root};

/// More than half a burst waits for the worker when it wakes up, so that its queue is a busy one.
#[test]
fn a_busy_queue_asks_the_driver_and_loses_nothing() {
    if !need_root("busy polling") {
        return;
    }
    for (busy_poll, asks) in [("on", true), ("off", false), ("auto", false)] {
        let bench = bench();
        let config = bench.read("live.toml");
        bench
            .file("live.toml", config.replace("[worker]", &format!("busy_poll = \"{busy_poll}\"\n[worker]")));
        let namespace = Namespace::new();
        let mut wire = Wire::new(&namespace, Shape::default());
        let running = Running::start(&namespace, &bench, &["-i", "tap0"]);
        running.signal(Signal::STOP);
        let stopped =
            || running.threads().iter().all(|(_, status)| status.contains("State:\tT")).then_some(());
        until("it to stop", stopped);
        (0..40).for_each(|n| wire.send_all(&cut_off(4000 + n, 80)));
        running.signal(Signal::CONT);
        wire.all_arrived(&namespace);
        let ended = running.stop();
        let books = ended.books();
        assert_eq!(books["received"], wire.sent(), "{books}");
        assert_eq!(books["analysed"], wire.sent(), "{books}");
        let polls = books["interfaces"][0]["queues"][0]["busy_polls"].as_u64().unwrap();
        assert_eq!(polls > 0, asks, "{busy_poll}: {books}");
        ended.ran.exits(0);
    }
}
