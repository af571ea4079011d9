//! A worker that is always too slow for what comes over a real wire: what was sent is what was received, and what was
//! received is what was analysed and what was lost, each by its name.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use common::lines;
use common::running::{KEEP_ALL, Running, bench, rules, until};
use common::wire::{Wire, described, sides};
use rustix::process::Signal;
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};
use wiregen::packet::{ACK, PSH, SYN};

const RING: u64 = 64;
const ROUNDS: u16 = 150;
/// Packets of a round that come while the worker is held up, and while it runs.
const HELD_UP: u64 = 150;
const RUNNING: u64 = 50;

#[test]
fn what_a_slow_worker_loses_is_sent_less_received_by_name() {
    if !need_root("a slow worker") {
        return;
    }
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let config = bench.read("live.toml").replace("ring_packets = 4096", &format!("ring_packets = {RING}"));
    bench.file("live.toml", config);
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let args = ["-i", "tap0", "--flows", "flows", "--rules", "rules", "--store", "s", "--metrics", "m.prom"];
    let running = Running::start(&namespace, &bench, &args);
    let before = not_crossed(&namespace);
    for round in 0..ROUNDS {
        let [client, _] = sides(4000 + round, 80);
        running.signal(Signal::STOP);
        until("it to stop", || running.threads().iter().all(|(_, s)| s.contains("State:\tT")).then_some(()));
        wire.send(&client.segment(SYN, 0, 0, &[]));
        (1..HELD_UP).for_each(|n| wire.send(&client.segment(ACK | PSH, n as u32 * 100, 1, &[b'x'; 100])));
        running.signal(Signal::CONT);
        (0..RUNNING).for_each(|_| wire.send(&client.segment(ACK, 20_000, 1, &[])));
    }
    let crossed = || not_crossed(&namespace) - before;
    until("the packets to arrive", || {
        (common::wire::received(&namespace, "tap0") + crossed() >= wire.sent()).then_some(())
    });
    let lost_on_the_way = crossed();
    let ended = running.stop();
    let books = ended.books();
    let number = |object: &Value, name: &str| object[name].as_u64().unwrap();
    let dropped: u64 = books["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(number(books, "received") + lost_on_the_way, wire.sent(), "{books}");
    assert_eq!(number(books, "received"), number(books, "analysed") + dropped, "{books}");
    // While it is held up, the ring takes what it can hold and not a packet more.
    assert!(dropped >= u64::from(ROUNDS) * (HELD_UP - RING) - lost_on_the_way, "{books}");
    let queue = &books["interfaces"][0]["queues"][0];
    let named = number(queue, "rx_ring_full") + number(queue, "rx_dropped");
    assert_eq!((number(queue, "taken"), named), (number(books, "analysed"), dropped), "{books}");
    // A veth's own names for it, which its driver counts too.
    let driver = books["interfaces"][0]["nic"]["driver"].as_object().unwrap();
    assert!(driver.values().any(|count| count.as_u64().unwrap() >= dropped), "{driver:?}");
    // The flows have what was analysed, and the store what was kept of it.
    let rows = lines(&bench.read("flows"));
    let packets: u64 =
        rows.iter().map(|row| number(&row["orig"], "packets") + number(&row["resp"], "packets")).sum();
    assert_eq!(packets, number(books, "analysed"));
    let unwritten: u64 = books["unwritten"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(number(books, "kept"), number(books, "written") + unwritten, "{books}");
    // The metrics say the same, queue by queue.
    let full = format!("counter=\"rx_ring_full\"}} {}\n", queue["rx_ring_full"]);
    assert!(bench.read("m.prom").contains(&full), "{full}");
    ended.ran.exits(0);
}

/// Packets that the sending end had to throw away, because the far end's own queue was full.
fn not_crossed(namespace: &Namespace) -> u64 {
    described(namespace, "wire0")["stats64"]["tx"]["dropped"].as_u64().unwrap()
}
