//! `--mode afpacket`: copies of what passes an interface, which the host's own traffic doesn't notice; each packet as it
//! was on the wire, or with what can't be known of it left unknown.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

use common::lines;
use common::running::{KEEP_ALL, Running, bench, rules, run, segments, tshark, until};
use common::wire::{CUT_OFF, Wire, assert_given_back, cut_off, described, handshake, received, sides};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::live::{Namespace, Shape, VethPair, need_root};
use wiregen::packet::{ACK, PSH};

const LISTEN: [&str; 4] = ["-i", "tap0", "--mode", "afpacket"];
const RECORD: [&str; 4] = ["--rules", "rules", "--store", "s"];

fn number(object: &Value, name: &str) -> u64 {
    object[name].as_u64().unwrap_or_else(|| panic!("no {name} in {object}"))
}

/// Two hosts, 10.9.0.1 at `wire0` and 10.9.0.2 at `tap0`, with the kernel's own TCP.
struct Hosts {
    here: Namespace,
    there: Namespace,
    _pair: VethPair,
}

impl Hosts {
    fn new() -> Hosts {
        let (here, there) = (Namespace::new(), Namespace::new());
        let pair = VethPair::between(&here, &there, Shape::default());
        here.ip(&["address", "add", "10.9.0.1/24", "dev", "wire0"]);
        there.ip(&["address", "add", "10.9.0.2/24", "dev", "tap0"]);
        for (host, end, address) in [(&here, "wire0", "10.9.0.1"), (&there, "tap0", "10.9.0.2")] {
            patient(host, end, address);
        }
        Hosts { here, there, _pair: pair }
    }

    /// A request of one byte and an answer of so many, as long as it takes.
    fn exchange(&self, bytes: usize) {
        let server = self.there.run(|| TcpListener::bind("10.9.0.2:8080")).unwrap();
        let server = self.there.spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(&vec![b'x'; bytes]).unwrap();
        });
        let got = self.here.run(|| {
            let mut stream = TcpStream::connect("10.9.0.2:8080").unwrap();
            stream.write_all(b"?").unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got.len()
        });
        server.join().unwrap();
        assert_eq!(got, bytes);
    }
}

/// Nothing is sent again because this machine was busy for a moment: what is on the wire is what was written, once.
fn patient(host: &Namespace, end: &str, address: &str) {
    host.ip(&["route", "replace", "10.9.0.0/24", "dev", end, "src", address, "rto_min", "60s"]);
    // Tail loss probes have a timer of their own.
    host.run(|| fs::write("/proc/sys/net/ipv4/tcp_early_retrans", "0")).unwrap();
}

/// The books, in which nothing is lost.
#[track_caller]
fn assert_whole(books: &Value) {
    assert_eq!(books["received"], books["analysed"], "{books}");
    let interface = &books["interfaces"][0];
    assert_eq!((&interface["seen"], &interface["taken"]), (&books["received"], &books["received"]));
    let capture = interface["capture"].as_str().unwrap();
    assert!(capture.starts_with("AF_PACKET, TPACKET_V3, driver "), "{capture}");
}

#[test]
fn a_host_is_listened_to_and_does_not_notice() {
    if !need_root("listening to a host") {
        return;
    }
    let hosts = Hosts::new();
    let bench = bench();
    rules(&bench, KEEP_ALL);
    // By XDP it is refused, and this offered.
    let says = ["tap0 is in use", "the address 10.9.0.2", "--mode afpacket"];
    run(&hosts.there, &bench, &["-i", "tap0"]).exits(2).says(&says);
    let args = [&LISTEN[..], &["--flows", "f"], &RECORD].concat();
    let running = Running::start(&hosts.there, &bench, &args);
    let listened = described(&hosts.there, "tap0");
    assert_eq!((listened.get("xdp"), &listened["promiscuity"]), (None, &json!(1)), "{listened}");
    hosts.exchange(3000);
    let ended = running.stop();
    assert_given_back(&hosts.there, "tap0");
    let books = ended.books();
    assert_whole(books);
    assert_eq!((&books["span_duplicates"], &books["kept"]), (&json!(0), &books["written"]), "{books}");
    ended.ran.exits(0);
    let rows = lines(&bench.read("f"));
    let row = rows.iter().find(|row| row["flow"]["dport"] == 8080).unwrap();
    // What goes out is seen as well as what comes in, and each once.
    assert_eq!(
        (&row["handshake"], &row["findings"]),
        (&json!("complete"), &json!({ "keep_all": 1 })),
        "{row}"
    );
    assert_eq!((&row["orig"]["payload"], &row["resp"]["payload"]), (&json!(1), &json!(3000)), "{row}");
    assert_eq!(row["resp"]["facts"]["retransmission"].as_u64().unwrap_or(0), 0, "{row}");
    let [segment] = &segments(&bench)[..] else { panic!("{:?}", segments(&bench)) };
    let kept = tshark(&bench, segment, &["frame.interface_name", "frame.interface_description"]);
    assert!(kept[0].starts_with("tap0\tAF_PACKET, TPACKET_V3"), "{}", kept[0]);
}

#[test]
fn of_frames_that_no_wire_carries_the_sizes_are_unknown() {
    const BYTES: usize = 4 << 20;
    if !need_root("frames put together") {
        return;
    }
    let hosts = Hosts::new();
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let args = [&LISTEN[..], &["--flows", "f"], &RECORD].concat();
    let running = Running::start(&hosts.there, &bench, &args);
    hosts.exchange(BYTES);
    let ended = running.stop();
    let books = ended.books();
    assert_whole(books);
    let queue = &books["interfaces"][0]["queues"][0];
    assert!(number(queue, "coalesced") > 0, "{queue}");
    ended.ran.exits(0);
    let rows = lines(&bench.read("f"));
    let row = rows.iter().find(|row| row["flow"]["dport"] == 8080).unwrap();
    // More than a segment is in many of them, and all bytes are there: but how they were cut up nobody knows.
    assert_eq!(
        (&row["resp"]["payload"], &row["resp"]["max_payload"]),
        (&json!(BYTES), &Value::Null),
        "{row}"
    );
    assert_eq!((&row["orig"]["payload"], &row["orig"]["max_payload"]), (&json!(1), &json!(1)), "{row}");
    assert_eq!(row["resp"]["facts"]["retransmission"], 0, "{row}");
    assert!(row["findings"]["pmtu_blackhole"].is_null(), "{row}");
    // Kept as they came.
    let fields = ["frame.len", "frame.cap_len"];
    let kept: Vec<String> = segments(&bench).iter().flat_map(|s| tshark(&bench, s, &fields)).collect();
    let lengths = |line: &str| line.split('\t').map(|n| n.parse().unwrap()).collect::<Vec<u32>>();
    let whole = kept.iter().map(|line| lengths(line)).filter(|both| both[0] == both[1]);
    assert!(whole.map(|both| both[0]).max().unwrap() > 1514, "{kept:?}");
}

#[test]
fn a_tag_is_where_it_was() {
    if !need_root("VLAN tags") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let args = [&LISTEN[..], &["--flows", "f"], &RECORD].concat();
    let running = Running::start(&namespace, &bench, &args);
    let mut sent = Vec::new();
    let tags: [&[u8]; 4] = [
        &[0x81, 0x00, 0x60, 0x64],
        &[0x88, 0xa8, 0x00, 0xc8],
        &[0x88, 0xa8, 0x00, 0xc8, 0x81, 0x00, 0x00, 0x64],
        &[0x81, 0x00, 0x00, 0x07, 0x81, 0x00, 0x00, 0x08],
    ];
    for (port, tag) in (4000..).zip(tags) {
        for frame in cut_off(port, 80) {
            let tagged = [&frame[..12], tag, &frame[12..]].concat();
            wire.send(&tagged);
            sent.push(tagged);
        }
    }
    wire.all_arrived(&namespace);
    let ended = running.stop();
    assert_whole(ended.books());
    assert_eq!(number(ended.books(), "received"), wire.sent());
    ended.ran.exits(0);
    let vlans: Vec<Value> = lines(&bench.read("f")).iter().map(|row| row["flow"]["vlan"].clone()).collect();
    for wanted in [json!([100]), json!([200]), json!([200, 100]), json!([7, 8])] {
        assert!(vlans.contains(&wanted), "{wanted}: {vlans:?}");
    }
    // Byte for byte, in the order sent.
    let [segment] = &segments(&bench)[..] else { panic!("{:?}", segments(&bench)) };
    let kept =
        tshark(&bench, segment, &["frame.len", "frame.cap_len", "eth.type", "tcp.srcport", "tcp.dstport"]);
    assert_eq!(kept.len(), sent.len());
    for (packet, frame) in kept.iter().zip(&sent) {
        let fields: Vec<&str> = packet.split('\t').collect();
        let len = frame.len().to_string();
        let kind = format!("0x{:02x}{:02x}", frame[12], frame[13]);
        assert_eq!(fields[..3], [&len, &len, &kind], "{packet}");
    }
}

#[test]
fn the_shortest_and_the_longest_frames_are_counted_and_kept_whole() {
    const PAYLOAD: usize = 9000 - 40;
    if !need_root("odd frames") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape { mtu: 9000, ..Shape::default() });
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let args = [&LISTEN[..], &["--flows", "f"], &RECORD].concat();
    let running = Running::start(&namespace, &bench, &args);
    // Cut anywhere before the end of the headers.
    let whole = &cut_off(4000, 80)[0];
    let runts: Vec<Vec<u8>> = (15..54).map(|len| whole[..len].to_vec()).collect();
    wire.send_all(&runts);
    let [client, server] = sides(4001, 80);
    wire.send_all(&handshake([client, server]));
    wire.send(&client.segment(ACK | PSH, 1, 1, &vec![b'j'; PAYLOAD]));
    wire.all_arrived(&namespace);
    let ended = running.stop();
    let books = ended.books();
    assert_whole(books);
    assert_eq!(number(books, "received"), wire.sent());
    assert_eq!(number(&books["classes"], "malformed"), runts.len() as u64, "{books}");
    assert_eq!(books["interfaces"][0]["queues"][0]["coalesced"], 0, "{books}");
    ended.ran.exits(0);
    let rows = lines(&bench.read("f"));
    assert_eq!(rows[0]["orig"]["max_payload"], PAYLOAD, "{rows:?}");
    let [segment] = &segments(&bench)[..] else { panic!("{:?}", segments(&bench)) };
    let kept = tshark(&bench, segment, &["frame.len", "frame.cap_len"]);
    assert!(kept.contains(&format!("{0}\t{0}", PAYLOAD + 54)), "{kept:?}");
}

#[test]
fn more_than_the_ring_holds_is_accounted_for() {
    const FRAMES: u64 = 6000;
    if !need_root("a full ring") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let small = bench.read("live.toml").replace("[capture]\n", "[capture]\npacket_ring_mib = 1\n");
    bench.file("live.toml", small);
    let mut running =
        Running::start(&namespace, &bench, &[&LISTEN[..], &["--json", "--flows", "f"]].concat());
    running.signal(Signal::STOP);
    until("it to stop", || running.threads().iter().all(|(_, s)| s.contains("State:\tT")).then_some(()));
    let [client, server] = sides(4000, 80);
    wire.send_all(&handshake([client, server]));
    for n in 0..FRAMES {
        wire.send(&client.segment(ACK | PSH, 1 + n as u32 * 1000, 1, &[b'x'; 1000]));
    }
    wire.all_arrived(&namespace);
    running.signal(Signal::CONT);
    // It goes on as ever.
    let mut ports = 5000..;
    until("an incident", || {
        wire.send_all(&cut_off(ports.next()?, 80));
        running.has_said("\"kind\":\"rst_").then_some(())
    });
    wire.all_arrived(&namespace);
    let came = received(&namespace, "tap0");
    let ended = running.stop();
    let books = ended.books();
    let lost = number(&books["dropped"], "packet_ring_full");
    assert_eq!((number(books, "received"), number(books, "analysed") + lost), (came, came), "{books}");
    assert_eq!(came, wire.sent());
    // A ring of 1 MiB has no room for more than a thousand of them.
    assert!(lost >= FRAMES - 1100, "{books}");
    let interface = &books["interfaces"][0];
    assert_eq!((number(interface, "seen"), number(interface, "taken")), (came, came - lost));
    assert_eq!(number(&interface["dropped"], "packet_ring_full"), lost);
    ended.ran.exits(0);
}

#[test]
fn killed_it_leaves_nothing() {
    if !need_root("a listener that is killed") {
        return;
    }
    let hosts = Hosts::new();
    let bench = bench();
    let sockets = || hosts.there.run(|| fs::read_to_string("/proc/thread-self/net/packet").unwrap());
    let before = sockets();
    let running = Running::start(&hosts.there, &bench, &LISTEN);
    assert_ne!(sockets(), before);
    running.signal(Signal::KILL);
    running.end();
    // The kernel closes a killed process's files in its own time.
    until("its sockets to go", || (sockets() == before).then_some(()));
    until("the interface as it was", || (described(&hosts.there, "tap0")["promiscuity"] == 0).then_some(()));
    hosts.exchange(100);
    let running = Running::start(&hosts.there, &bench, &LISTEN);
    hosts.exchange(100);
    let ended = running.stop();
    assert_whole(ended.books());
    ended.ran.exits(0);
}

#[test]
fn what_a_host_sends_itself_is_seen_once() {
    const DATAGRAMS: u64 = 50;
    if !need_root("the loopback interface") {
        return;
    }
    let namespace = Namespace::new();
    let bench = bench();
    let running = Running::start(&namespace, &bench, &["-i", "lo", "--mode", "afpacket", "--flows", "f"]);
    namespace.run(|| {
        let server = UdpSocket::bind("127.0.0.1:5353").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..DATAGRAMS {
            client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
            server.recv(&mut [0; 16]).unwrap();
        }
    });
    let ended = running.stop();
    let books = ended.books();
    assert_whole(books);
    assert_eq!((number(books, "received"), number(books, "span_duplicates")), (DATAGRAMS, 0), "{books}");
    ended.ran.exits(0);
    assert_eq!(lines(&bench.read("f"))[0]["orig"]["packets"], DATAGRAMS);
}

#[test]
fn what_it_can_not_do_is_said() {
    if !need_root("what AF_PACKET can't do") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let both = [&LISTEN[..], &["--zero-copy", "require"]].concat();
    run(&namespace, &bench, &both).exits(2).says(&["--zero-copy require", "help: "]);
    let steal = [&LISTEN[..], &["--steal", "--duration", "0.1"]].concat();
    run(&namespace, &bench, &steal).exits(0).says(&["--steal takes nothing with --mode afpacket"]);
    run(&namespace, &bench, &["-i", ""]).exits(2).says(&["give the name of an interface", "ip -brief link"]);
    run(&namespace, &bench, &["-i", "lo"]).exits(4).says(&["lo is no Ethernet interface", "--mode afpacket"]);
    namespace.ip(&["link", "set", "tap0", "down"]);
    run(&namespace, &bench, &LISTEN).exits(4).says(&["tap0 is down", "ip link set tap0 up"]);
}

#[test]
fn a_wire_is_heard_as_xdp_would_hear_it() {
    if !need_root("both modes") {
        return;
    }
    let mut heard = Vec::new();
    for mode in ["afpacket", "xdp"] {
        let namespace = Namespace::new();
        let mut wire = Wire::new(&namespace, Shape::default());
        let bench = bench();
        let args = ["-i", "tap0", "--mode", mode, "--flows", "f"];
        let running = Running::start(&namespace, &bench, &args);
        (4000..4010).for_each(|port| wire.send_all(&cut_off(port, 80)));
        wire.all_arrived(&namespace);
        let ended = running.stop();
        assert_eq!(number(ended.books(), "received"), 10 * CUT_OFF, "{mode}");
        ended.ran.exits(0);
        let mut rows = lines(&bench.read("f"));
        for row in &mut rows {
            let row = row.as_object_mut().unwrap();
            row.retain(|name, _| {
                !name.contains("ns") && !name.contains("_us") && name != "id" && name != "flow_id"
            });
        }
        let shape = |row: &Value| {
            (
                row["flow"].to_string(),
                row["orig"].to_string(),
                row["resp"].to_string(),
                row["findings"].to_string(),
            )
        };
        let mut shapes: Vec<_> = rows.iter().map(shape).collect();
        shapes.sort();
        heard.push(shapes);
        thread::yield_now();
    }
    assert_eq!(heard[0].len(), 10);
    assert_eq!(heard[0], heard[1]);
}
