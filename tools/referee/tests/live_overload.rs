//! More packets than a worker can take: each is in one account, the loss has a name, nothing grows, and what
//! comes afterwards is analysed as ever.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::running::{KEEP_ALL, Running, TELL_RESETS, bench, rules, until};
use common::wire::{Wire, cut_off, program, received, sides};
use common::{Bench, lines};
use dataplane_sys::bpf::{Arrival, block_signals, program_by_id, run_live};
use rustix::process::Signal;
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};
use wiregen::packet::{self, ACK, Ethernet, Ip, PSH, SYN, TcpHeader};
use wiregen::scenario::{self, Options, Packet};

/// Frames of one flood.
const FLOOD: u32 = 250_000;

/// The interface's own program, run on frames as if they came in by the interface's queue 0.
struct Flood<'a> {
    namespace: &'a Namespace,
    program: OwnedFd,
    from: Arrival,
    frame: Vec<u8>,
}

impl Flood<'_> {
    fn new<'a>(namespace: &'a Namespace, wire: &Wire) -> Flood<'a> {
        let id = program(namespace, wire.tap()).expect("a program is attached");
        let program = program_by_id(u32::try_from(id).unwrap()).unwrap();
        let [client, _] = sides(4000, 80);
        let frame = client.segment(ACK | PSH, 1, 1, &[b'x'; 100]);
        Flood { namespace, program, from: Arrival { ifindex: wire.pair.tap.index, queue: 0 }, frame }
    }

    /// Returns when the program has seen all of them.
    fn run(&self, times: u32) {
        self.run_by(self.program.as_fd(), &self.frame, times);
    }

    /// The same with so many connections, each asked for by SYNs in turn.
    fn connect(&self, connections: u32, times: u32) {
        let flood = xdp_prog::Flood::load_into(self.program.as_fd(), connections).unwrap();
        let (source, sport) = xdp_prog::Flood::SOURCE;
        let ip = Ip {
            src: IpAddr::V4(source.into()),
            dst: IpAddr::V4([10, 3, 0, 1].into()),
            ttl: 64,
            id: xdp_prog::Flood::ID,
            dont_fragment: true,
        };
        let ack = u32::from(xdp_prog::Flood::BALANCE) << 16;
        let syn = TcpHeader { sport, dport: 80, seq: 1, ack, flags: SYN, window: 1024, options: &[] };
        let mut frame = Vec::new();
        packet::tcp(&mut frame, &Ethernet { src: [2; 6], dst: [4; 6], vlan: [0; 2] }, &ip, &syn, &[]);
        self.run_by(flood.as_fd(), &frame, times);
    }

    fn run_by(&self, program: BorrowedFd<'_>, frame: &[u8], times: u32) {
        self.namespace.run(|| {
            // One would end it early.
            block_signals().unwrap();
            run_live(program, frame, self.from, times).unwrap();
        });
    }
}

/// Sums of the ledger's named losses.
fn dropped(object: &Value) -> u64 {
    let reasons = object["dropped"].as_object().unwrap();
    reasons.values().map(|packets| packets.as_u64().unwrap()).sum()
}

#[test]
fn a_flood_into_the_smallest_ring_is_accounted_for() {
    assert_honest(64);
}

#[test]
fn a_flood_into_the_usual_ring_is_accounted_for() {
    assert_honest(16_384);
}

fn assert_honest(ring: u32) {
    if !need_root("a flood") {
        return;
    }
    let bench = bench();
    let config = bench.read("live.toml").replace("= 4096\n[worker]", &format!("= {ring}\n[worker]"));
    assert!(config.contains(&format!("ring_packets = {ring}\n")));
    bench.file("live.toml", config);
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let args = ["-i", "tap0", "--json", "--flows", "flows"];
    let mut running = Running::start(&namespace, &bench, &args);
    let flood = Flood::new(&namespace, &wire);

    // While the program can't run, all that the ring has no room for is lost, for certain.
    running.signal(Signal::STOP);
    until("it to stop", || running.threads().iter().all(|(_, s)| s.contains("State:\tT")).then_some(()));
    flood.run(FLOOD);
    running.signal(Signal::CONT);
    flood.run(FLOOD);
    let twice = running.resident_kib();
    flood.run(FLOOD);
    flood.run(FLOOD);
    let four_times = running.resident_kib();
    // The history of 8 MiB may have filled up meanwhile, and is touched a huge page at a time.
    assert!(four_times < twice + 12 * 1024, "{twice} KiB became {four_times} KiB");

    // The ring is empty again when what is sent next is told of; a busy machine may lose part of a storm once more.
    let storm = storm();
    until("a storm to be told of", || {
        wire.play(&storm);
        running.has_said("\"kind\":\"rst_storm\"").then_some(())
    });
    wire.all_arrived(&namespace);
    let ended = running.stop();
    assert_books(&bench, ended.books(), ring, 4 * u64::from(FLOOD) + wire.sent());
    ended.ran.exits(0);
}

/// Each packet sent is in one account of the ledger, and the interface's own counters say the same.
fn assert_books(bench: &Bench, books: &Value, ring: u32, sent: u64) {
    let number = |object: &Value, name: &str| object[name].as_u64().unwrap();
    let (received, analysed, lost) = (number(books, "received"), number(books, "analysed"), dropped(books));
    assert_eq!((received, analysed + lost), (sent, sent), "{books}");
    assert!(analysed >= u64::from(ring), "{books}");
    // At least what the stopped program's ring had no room for.
    assert!(number(&books["dropped"], "rx_ring_full") >= u64::from(FLOOD - ring), "{books}");
    assert_eq!(books["dropped"]["no_socket"], 0, "{books}");

    let [interface] = &books["interfaces"].as_array().unwrap()[..] else { panic!("{books}") };
    let queue = &interface["queues"][0];
    assert_eq!((number(interface, "seen"), number(interface, "taken")), (sent, analysed));
    assert_eq!((dropped(interface), number(queue, "taken")), (lost, analysed));
    assert_eq!(queue["rx_ring_full"], books["dropped"]["rx_ring_full"]);
    assert_eq!(queue["rx_dropped"], books["dropped"]["no_frame"]);
    assert_eq!(number(queue, "frames"), 2 * u64::from(ring));
    let frames = number(queue, "frames_with_kernel") + number(queue, "frames_in_hand");
    assert_eq!(number(queue, "frames"), frames, "{queue}");

    // The flood's flow has exactly the packets that were taken and that belong to no other.
    let flows = lines(&bench.read("flows"));
    let packets = |row: &Value| number(&row["orig"], "packets") + number(&row["resp"], "packets");
    assert_eq!(flows.iter().map(packets).sum::<u64>(), analysed);
    let flood = flows.iter().find(|row| row["flow"]["dst"] == "10.2.0.1").unwrap();
    assert!(packets(flood) >= u64::from(ring), "{flood}");
}

#[test]
fn a_flood_of_connections_that_are_all_to_be_kept_is_accounted_for() {
    if !need_root("a flood of connections") {
        return;
    }
    let bench = bench();
    rules(&bench, &format!("{KEEP_ALL}{TELL_RESETS}"));
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let args = ["-i", "tap0", "--json", "--flows", "flows", "--rules", "rules", "--store", "s"];
    let mut running = Running::start(&namespace, &bench, &args);
    let flood = Flood::new(&namespace, &wire);
    let resident: [u64; 5] = std::array::from_fn(|_| {
        flood.connect(100_000, FLOOD);
        running.resident_kib()
    });
    // The interface's latest flows, 10,000 of them, and the judge's tables fill up meanwhile; 200,000 more connections.
    assert!(resident[4] < resident[2] + 32 * 1024, "{resident:?} KiB");
    // A hit may still find the judge's queue full.
    let mut ports = 4000..;
    until("a connection to be judged", || {
        wire.send_all(&cut_off(ports.next()?, 80));
        running.has_said("\"kind\":\"reset\"").then_some(())
    });
    wire.all_arrived(&namespace);
    let ended = running.stop();
    let books = ended.books();
    let number = |object: &Value, name: &str| object[name].as_u64().unwrap();
    let sent = resident.len() as u64 * u64::from(FLOOD) + wire.sent();
    assert_eq!(
        (number(books, "received"), number(books, "analysed") + dropped(books)),
        (sent, sent),
        "{books}"
    );
    let unwritten: u64 = books["unwritten"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(number(books, "kept"), number(books, "written") + unwritten, "{books}");
    assert!(number(books, "written") > 0, "{books}");
    // Sixteen times as many connections as there is room for: those who asked only gave way. On a machine that gave the
    // worker no time, too few came through for that.
    let flows = &books["flows"];
    let full = number(flows, "created") > 16_384 && number(flows, "half_open_evicted") > 0;
    assert!(full || number(books, "analysed") < 40_000, "{books}");
    assert_eq!(number(flows, "evicted"), 0, "{flows}");
    ended.ran.exits(0);
    let verified = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(verified.contains(" 0 cut, 0 damaged"), "{verified}");
}

/// Ends the traffic, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_wire_that_is_never_silent_is_captured_from_the_beginning_to_the_end() {
    if !need_root("a busy wire") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let (bench, going_on) = (bench(), AtomicBool::new(true));
    // The worker is soon done with it, so that frames are back while the kernel is still busy with the others.
    let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5][..], &[0; 46]].concat();
    let ended = thread::scope(|scope| {
        let stop = Stop(&going_on);
        scope.spawn(|| {
            while going_on.load(Ordering::Relaxed) {
                wire.send(&frame);
            }
        });
        let running = Running::start(&namespace, &bench, &["-i", "tap0"]);
        // Often enough around the rings, whose every frame goes back and forth all the time.
        let begun = received(&namespace, "tap0");
        until("a million packets", || (received(&namespace, "tap0") > begun + 1_000_000).then_some(()));
        let ended = running.stop();
        drop(stop);
        ended
    });
    let books = ended.books();
    let number = |name: &str| books[name].as_u64().unwrap();
    assert_eq!(number("received"), number("analysed") + dropped(books), "{books}");
    assert!(number("received") > 1_000_000 && number("analysed") > 0, "{books}");
    // What passed before it was ready is not lost: it was the kernel's.
    assert_eq!(books["dropped"]["no_socket"], 0, "{books}");
    // Frames that never came back would be missed by now.
    assert_eq!(books["dropped"]["no_frame"], 0, "{books}");
    ended.ran.exits(0);
}

/// A host that resets eighty connections at once; only their packets, and what they wait for shortened.
fn storm() -> Vec<Packet> {
    let (mut packets, truth) =
        scenario::packets("rst_storm", &Options { flows: Some(80), ..Options::default() }).unwrap();
    let last = truth.of_kind("rst_storm").next().unwrap().marks.last().copied().unwrap();
    packets.truncate(usize::try_from(last).unwrap());
    let mut before = packets[0].ts;
    let mut now = before;
    for packet in &mut packets {
        now += (packet.ts - before).min(5_000_000);
        before = packet.ts;
        packet.ts = now;
    }
    packets
}
