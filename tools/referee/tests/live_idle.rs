//! A silent wire costs next to nothing, and what comes after silence is taken at once, in either mode.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::running::{KEEP_ALL, Running, bench, rules};
use common::wire::{Wire, handshake, sides};
use tests::live::{Namespace, Shape, need_root};
use wiregen::packet::{ACK, PSH};

const MODES: [&str; 2] = ["xdp", "afpacket"];

/// Time that all its threads have run on a CPU.
fn on_cpu(running: &Running) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", running.id())).unwrap();
    let ran = |path: std::path::PathBuf| {
        let schedstat = fs::read_to_string(path.join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(|task| ran(task.unwrap().path())).sum())
}

#[test]
fn on_a_silent_wire_all_threads_together_take_less_than_2_percent_of_a_core() {
    /// The calmest of so many counts: on a busy machine each waking finds its caches cold.
    const TRIES: u32 = 4;
    if !need_root("a silent wire's cost") {
        return;
    }
    for mode in MODES {
        let namespace = Namespace::new();
        let _wire = Wire::new(&namespace, Shape::default());
        let bench = bench();
        let args = ["-i", "tap0", "--mode", mode, "--flows", "f", "--store", "s"];
        let running = Running::start(&namespace, &bench, &args);
        // What is done once at the start is not meant.
        thread::sleep(Duration::from_secs(1));
        let mut least = f64::MAX;
        for _ in 0..TRIES {
            let (before, began) = (on_cpu(&running), Instant::now());
            thread::sleep(Duration::from_secs(3));
            least = least.min((on_cpu(&running) - before).as_secs_f64() / began.elapsed().as_secs_f64());
            if least < 0.02 {
                break;
            }
        }
        assert!(least < 0.02, "{mode}: {:.1} % of a core", least * 100.0);
        running.stop().ran.exits(0);
    }
}

#[test]
fn a_lone_packet_is_taken_and_recorded_at_once() {
    const PACKETS: u32 = 60;
    if !need_root("lone packets") {
        return;
    }
    for mode in MODES {
        let namespace = Namespace::new();
        let mut wire = Wire::new(&namespace, Shape::default());
        let bench = bench();
        rules(&bench, KEEP_ALL);
        let args = ["-i", "tap0", "--mode", mode, "--rules", "rules", "--store", "s"];
        let running = Running::start(&namespace, &bench, &args);
        let [client, server] = sides(4000, 80);
        wire.send_all(&handshake([client, server]));
        for n in 0..PACKETS {
            // Longer than a nap, and no multiple of one.
            thread::sleep(Duration::from_millis(37));
            wire.send(&client.segment(ACK | PSH, 1 + n, 1, b"x"));
        }
        wire.all_arrived(&namespace);
        let ended = running.stop();
        let books = ended.books();
        // In the step in which it is taken a packet of a kept flow is put into a chunk.
        assert_eq!(
            (&books["kept"], &books["written"]),
            (&wire.sent().into(), &wire.sent().into()),
            "{books}"
        );
        let queue = &books["interfaces"][0]["queues"][0];
        let (times, late) = (queue["after_silence"].as_u64().unwrap(), queue["woken_late"].as_u64().unwrap());
        // On a busy machine the program may not be let run for longer than that: now and then, not as a rule.
        assert!(times >= u64::from(PACKETS) / 2 && 2 * late < times, "{mode}: {late} of {times} were late");
        ended.ran.exits(0);
    }
}
