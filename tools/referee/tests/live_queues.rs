//! Several queues and several workers: flows whose two directions come by different ways are whole, packets that change
//! hands are in the books, and what nobody brings together is counted.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::running::{Ended, Running, bench, capture_settings, rules, until};
use common::wire::{Wire, received};
use common::{Bench, lines};
use serde_json::{Value, json};
use tests::live::{Namespace, Shape, need_root};
use wiregen::mirror;
use wiregen::packet::{self, ACK, Ethernet, FIN, Ip, PSH, SYN, TcpHeader, TcpOptions};

/// A frame between client and server `n`, each pair of hosts another; `seq` and `ack` count from the start of the data.
fn segment(n: u8, client: bool, flags: u8, [seq, ack]: [u32; 2], payload: &[u8]) -> Vec<u8> {
    let hosts = [Ipv4Addr::new(10, 1, n, 1), Ipv4Addr::new(10, 2, 0, n)].map(IpAddr::V4);
    let ([src, dst], [sport, dport]) =
        if client { (hosts, [4000, 80]) } else { ([hosts[1], hosts[0]], [80, 4000]) };
    let ip = Ip { src, dst, ttl: 64, id: u16::from(n), dont_fragment: false };
    let options = TcpOptions::default().mss(1460).sack_permitted().window_scale(7);
    let options = if flags & SYN == 0 { &[] } else { options.as_bytes() };
    let ack = if flags & ACK == 0 { 0 } else { 1000 + ack };
    let header = TcpHeader { sport, dport, seq: 1000 + seq, ack, flags, window: 0xffff, options };
    let mut frame = Vec::new();
    packet::tcp(&mut frame, &Ethernet { src: [2; 6], dst: [4; 6], vlan: [0; 2] }, &ip, &header, payload);
    frame
}

/// Of one pair of hosts, a connection from its handshake to both FINs: who sends, and what.
fn connection(n: u8) -> Vec<(bool, Vec<u8>)> {
    let told = [
        (true, SYN, [0, 0], 0),
        (false, SYN | ACK, [0, 1], 0),
        (true, ACK, [1, 1], 0),
        (true, ACK | PSH, [1, 1], 300),
        (false, ACK | PSH, [1, 301], 700),
        (true, ACK | FIN, [301, 701], 0),
        (false, ACK | FIN, [701, 302], 0),
        (true, ACK, [302, 702], 0),
    ];
    let frame = |(client, flags, at, len)| (client, segment(n, client, flags, at, &vec![b'x'; len]));
    told.into_iter().map(frame).collect()
}

const PACKETS: u64 = 8;
const HOSTS: u8 = 100;

/// Connections of many hosts, what clients send along the first wire and what servers send along the second.
fn send(wires: &mut [Wire; 2], namespace: &Namespace) {
    for n in 0..HOSTS {
        for (client, frame) in connection(n) {
            wires[usize::from(!client)].send(&frame);
        }
    }
    wires.iter().for_each(|wire| wire.all_arrived(namespace));
}

fn two_wires(namespace: &Namespace, queues: u32) -> [Wire; 2] {
    [(); 2].map(|()| Wire::new(namespace, Shape { queues, ..Shape::default() }))
}

/// What came of [`send`] with these settings of `[capture]`.
fn ran(settings: &str, queues: u32) -> (Bench, Ended) {
    let namespace = Namespace::new();
    let mut wires = two_wires(&namespace, queues);
    let bench = bench();
    capture_settings(&bench, settings);
    let args = ["-i", "tap0", "-i", "tap1", "--flows", "flows"];
    let running = Running::start(&namespace, &bench, &args);
    send(&mut wires, &namespace);
    let ended = running.stop();
    let sent = u64::from(HOSTS) * PACKETS;
    let books = ended.books();
    assert_eq!((&books["received"], &books["analysed"]), (&json!(sent), &json!(sent)), "{books}");
    (bench, ended)
}

/// Each connection is one flow from beginning to end, as long as no packet came out of turn on a busy machine.
#[track_caller]
fn assert_whole(bench: &Bench, books: &Value) {
    let rows = lines(&bench.read("flows"));
    assert_eq!((rows.len(), &books["flows"]["split"]), (usize::from(HOSTS), &json!(0)), "{books}");
    if books["late"] == 0 {
        assert_eq!(books["flows"]["connections_one_sided"], 0, "{books}");
    }
    for row in &rows {
        let packets = (&row["orig"]["packets"], &row["resp"]["packets"]);
        assert_eq!(packets, (&json!(5), &json!(3)), "{row}");
        if books["late"] == 0 {
            assert_eq!((&row["handshake"], &row["findings"]), (&json!("complete"), &json!({})), "{row}");
        }
    }
}

#[test]
fn two_taps_of_one_direction_each_are_one_view() {
    if !need_root("two taps and one worker") {
        return;
    }
    let (bench, ended) = ran("workers = 1\n", 2);
    let books = ended.books();
    assert_whole(&bench, books);
    assert_eq!(
        (&books["handed_over"], &books["dropped"]["handover_full"]),
        (&json!(0), &json!(0)),
        "{books}"
    );
    ended.ran.exits(0).says(&["tap0 tap1: 4 queues and 1 worker: all flows are in one view"]);
}

#[test]
fn packets_find_the_worker_that_has_their_flow() {
    if !need_root("two taps and two workers") {
        return;
    }
    for (settings, queues) in [("workers = 2\n", 1), ("workers = 3\nredispatch = \"on\"\n", 2)] {
        let (bench, ended) = ran(settings, queues);
        let books = ended.books();
        assert_whole(&bench, books);
        let handed_over = books["handed_over"].as_u64().unwrap();
        assert!(handed_over > 0 && books["dropped"]["handover_full"] == 0, "{books}");
        ended.ran.exits(0).says(&["the workers hand each other the packets that are theirs"]);
    }
}

#[test]
fn flows_that_nobody_brings_together_are_counted() {
    if !need_root("two taps and two workers") {
        return;
    }
    let (bench, ended) = ran("workers = 2\nredispatch = \"off\"\n", 1);
    let books = ended.books();
    assert_eq!(lines(&bench.read("flows")).len(), 2 * usize::from(HOSTS));
    // Nearly all: now and then two of them share a place in the table that tells, and each takes it from the other.
    let split = books["flows"]["split"].as_u64().unwrap();
    let most = u64::from(HOSTS);
    assert!((most - 8..=most).contains(&split) && books["handed_over"] == 0, "{books}");
    let said = format!("{split} flows reached two workers each");
    ended.ran.exits(0).says(&["which hand each other nothing", &said]);
}

#[test]
fn fragments_and_what_routers_say_find_their_flow() {
    if !need_root("fragments by two ways") {
        return;
    }
    let namespace = Namespace::new();
    let mut wires = two_wires(&namespace, 2);
    let bench = bench();
    capture_settings(&bench, "workers = 2\n");
    let running = Running::start(&namespace, &bench, &["-i", "tap0", "-i", "tap1", "--flows", "flows"]);
    for n in 0..HOSTS {
        for (client, frame) in &connection(n)[..3] {
            wires[usize::from(!client)].send(frame);
        }
        // The second half by another way than the first; then a router's word on a packet that was too big.
        let large = segment(n, true, ACK | PSH, [1, 1], &[b'x'; 1000]);
        for (number, part) in mirror::fragments(&large, 600, u32::from(n)).iter().enumerate() {
            wires[number % 2].send(part);
        }
        let router = IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
        let ip = Ip {
            src: router,
            dst: IpAddr::V4(Ipv4Addr::new(10, 1, n, 1)),
            ttl: 60,
            id: 7,
            dont_fragment: false,
        };
        let mut told = Vec::new();
        packet::icmp(&mut told, &Ethernet::default(), &ip, 3, 4, [0, 0, 5, 0x78], &large[14..14 + 28]);
        wires[1].send(&told);
    }
    wires.iter().for_each(|wire| wire.all_arrived(&namespace));
    let ended = running.stop();
    let books = ended.books();
    assert_eq!(
        (&books["flows"]["split"], &books["dropped"]["handover_full"]),
        (&json!(0), &json!(0)),
        "{books}"
    );
    if books["late"] == 0 {
        let fragments = &books["fragments"];
        assert_eq!((&fragments["followed"], &fragments["unmatched"]), (&json!(HOSTS), &json!(0)), "{books}");
        assert_eq!(books["icmp_unmatched"], 0, "{books}");
    }
    let handed_over = books["handed_over"].as_u64().unwrap();
    assert!(handed_over > 0, "{books}");
    ended.ran.exits(0);
}

#[test]
fn a_run_that_is_stopped_under_load_balances_and_loses_nothing_unnamed() {
    if !need_root("a run stopped under load") {
        return;
    }
    let namespace = Namespace::new();
    let wires = two_wires(&namespace, 2);
    let bench = bench();
    capture_settings(&bench, "workers = 2\n");
    rules(&bench, "rule \"keep_all\" on syn\nthen { capture(flow); }\n");
    let args = ["-i", "tap0", "-i", "tap1", "--flows", "flows", "--rules", "rules", "--store", "s"];
    let (going_on, sent) = (AtomicBool::new(true), AtomicU64::new(0));
    let ended = thread::scope(|scope| {
        let running = Running::start(&namespace, &bench, &args);
        for (way, mut wire) in wires.into_iter().enumerate() {
            let (going_on, sent) = (&going_on, &sent);
            scope.spawn(move || {
                let frames: Vec<Vec<u8>> =
                    (0..=255_u8).map(|n| segment(n, way == 0, ACK | PSH, [1, 1], &[b'x'; 200])).collect();
                for frame in frames.iter().cycle() {
                    wire.send(frame);
                    sent.fetch_add(1, Ordering::Relaxed);
                    if !going_on.load(Ordering::Relaxed) {
                        return wire;
                    }
                }
                wire
            });
        }
        let busy = || received(&namespace, "tap0") + received(&namespace, "tap1") > 200_000;
        until("packets", || busy().then_some(()));
        let ended = running.stop();
        going_on.store(false, Ordering::Relaxed);
        ended
    });
    // That they balance is asserted by `books`.
    let books = ended.books();
    let number = |value: &Value| value.as_u64().unwrap();
    let dropped: u64 = books["dropped"].as_object().unwrap().values().map(number).sum();
    assert_eq!(number(&books["received"]), number(&books["analysed"]) + dropped, "{books}");
    assert!(number(&books["handed_over"]) > 0 && number(&books["received"]) > 100_000, "{books}");
    assert!(number(&books["received"]) <= sent.load(Ordering::Relaxed), "{books}");
    let interfaces = books["interfaces"].as_array().unwrap();
    let taken: u64 = interfaces.iter().map(|one| number(&one["taken"])).sum();
    assert_eq!(taken, number(&books["analysed"]) + number(&books["dropped"]["handover_full"]), "{books}");
    // Both directions of each of the 256 pairs of hosts are one worker's.
    assert_eq!(books["flows"]["split"], 0, "{books}");
    let rows = lines(&bench.read("flows"));
    let packets = |row: &Value| number(&row["orig"]["packets"]) + number(&row["resp"]["packets"]);
    assert_eq!(rows.iter().map(packets).sum::<u64>(), number(&books["analysed"]));
    ended.ran.exits(0);
}
