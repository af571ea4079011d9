//! What wires can be like: several at once, jumbo frames, several queues, silence.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::collections::BTreeMap;

use common::lines;
use common::running::{
    KEEP_ALL, Running, TELL_RESETS, bench, capture_settings, rules, run, segments, settings, tshark, until,
};
use common::wire::{CUT_OFF, Wire, cut_off, handshake, sides};
use serde_json::{Value, json};
use tests::live::{Namespace, Shape, need_root};
use wiregen::packet::{ACK, PSH, SYN};

const RECORD: [&str; 4] = ["--rules", "rules", "--store", "s"];

/// It has so many workers; a thread gives itself its name soon after it began.
#[track_caller]
fn assert_workers(running: &Running, count: usize) {
    let is_worker = |name: &str| name.starts_with("worker-");
    until("workers", || {
        let threads = running.threads();
        (threads.iter().filter(|(name, _)| is_worker(name)).count() == count).then_some(())
    });
}

#[test]
fn two_interfaces_with_two_workers_are_one_store() {
    if !need_root("two interfaces") {
        return;
    }
    let namespace = Namespace::new();
    let mut wires = [10, 7].map(|flows| (flows, Wire::new(&namespace, Shape::default())));
    let bench = bench();
    capture_settings(&bench, "workers = 2\n");
    rules(&bench, KEEP_ALL);
    // Named twice, it is still one.
    let args = [&["-i", "tap0", "-i", "tap1", "-i", "tap0", "--flows", "f"], &RECORD[..]].concat();
    let running = Running::start(&namespace, &bench, &args);
    assert_workers(&running, 2);
    for (flows, wire) in &mut wires {
        (0..*flows).for_each(|n| wire.send_all(&cut_off(4000 + 100 * *flows + n, 80)));
        wire.all_arrived(&namespace);
    }
    let ended = running.stop();
    let books = ended.books();
    let sent = 17 * CUT_OFF;
    for account in ["received", "analysed", "kept", "written"] {
        assert_eq!(books[account], sent, "{account}: {books}");
    }
    let interfaces = books["interfaces"].as_array().unwrap();
    let seen = interfaces.iter().map(|one| (one["name"].as_str().unwrap(), one["seen"].as_u64().unwrap()));
    assert_eq!(seen.collect::<Vec<_>>(), [("tap0", 10 * CUT_OFF), ("tap1", 7 * CUT_OFF)]);
    let ran = ended.ran.exits(0);
    assert_eq!(lines(&bench.read("f")).len(), 17);
    assert!(ran.stdout.contains("books balance: 85 received = 85 analysed"), "{}", ran.stdout);

    let fields = ["frame.interface_name", "frame.interface_description"];
    let mut kept: BTreeMap<String, u64> = BTreeMap::new();
    for segment in segments(&bench) {
        for packet in tshark(&bench, &segment, &fields) {
            let (name, description) = packet.split_once('\t').unwrap();
            assert!(description.starts_with("AF_XDP copy mode, native XDP, driver veth"), "{description}");
            *kept.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(kept, [("tap0".to_owned(), 10 * CUT_OFF), ("tap1".to_owned(), 7 * CUT_OFF)].into());
}

#[test]
fn jumbo_frames_are_analysed_and_recorded_whole() {
    if !need_root("jumbo frames") {
        return;
    }
    /// What fits an MTU of 9000.
    const PAYLOAD: usize = 9000 - 40;
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape { mtu: 9000, ..Shape::default() });
    let bench = bench();
    rules(&bench, KEEP_ALL);
    let args = [&["-i", "tap0", "--flows", "f"], &RECORD[..]].concat();
    let running = Running::start(&namespace, &bench, &args);
    let [client, server] = sides(4000, 80);
    wire.send_all(&handshake([client, server]));
    let content: Vec<u8> = (0..PAYLOAD).map(|i| (i % 251) as u8).collect();
    let mut lengths = vec![54 + 12, 54 + 12, 54];
    // From what fits one frame of the socket to the largest.
    for (round, len) in [1460, 3700, 4042, 4043, 8000, PAYLOAD, PAYLOAD].into_iter().enumerate() {
        let seq = lengths[3..].iter().step_by(2).map(|frame| frame - 54).sum::<usize>() as u32 + 1;
        wire.send(&client.segment(ACK | PSH, seq, 1, &content[..len]));
        wire.send(&server.segment(ACK, 1, seq + len as u32, &[]));
        lengths.extend([54 + len, 54]);
        assert_eq!(lengths.len(), 3 + 2 * (round + 1));
    }
    wire.all_arrived(&namespace);
    let ended = running.stop();
    assert_eq!(ended.books()["written"], lengths.len(), "{:?}", ended.ledger);
    ended.ran.exits(0);
    let flow = &lines(&bench.read("f"))[0];
    let payload: usize = lengths[3..].iter().step_by(2).map(|frame| frame - 54).sum();
    assert_eq!((&flow["orig"]["payload"], &flow["orig"]["max_payload"]), (&json!(payload), &json!(PAYLOAD)));
    // Nothing was taken for lost or repeated.
    let found = (&flow["findings"], &flow["handshake"]);
    assert_eq!(found, (&json!({ "keep_all": 1 }), &json!("complete")), "{flow}");

    let fields = ["frame.len", "frame.cap_len", "tcp.payload"];
    let [segment] = &segments(&bench)[..] else { panic!("{:?}", segments(&bench)) };
    let kept = tshark(&bench, segment, &fields);
    assert_eq!(kept.len(), lengths.len());
    for (packet, len) in kept.iter().zip(lengths) {
        let fields: Vec<&str> = packet.split('\t').collect();
        // The sender pads nothing here: a veth takes short frames as they are.
        let len = len.max(60).to_string();
        assert_eq!(fields[..2], [&len, &len]);
        let hex: String = content[..fields[2].len() / 2].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(fields[2], hex);
    }
}

#[test]
fn frames_too_short_for_their_headers_are_counted() {
    if !need_root("runts") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let running = Running::start(&namespace, &bench, &["-i", "tap0"]);
    let whole = &cut_off(4000, 80)[0];
    (15..54).for_each(|len| wire.send(&whole[..len]));
    wire.all_arrived(&namespace);
    let ended = running.stop();
    let books = ended.books();
    let sent = json!(wire.sent());
    assert_eq!((&books["received"], &books["classes"]["malformed"]), (&sent, &sent), "{books}");
    ended.ran.exits(0);
}

#[test]
fn a_refusal_names_the_mtu_that_would_do() {
    if !need_root("jumbo frames without a copy") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape { mtu: 9000, ..Shape::default() });
    let args = ["-i", "tap0", "--zero-copy", "require"];
    let says = ["can't do zero-copy", "with its MTU of 9000 packets come in several parts", "3498 in one"];
    run(&namespace, &bench(), &args).exits(4).says(&says);
}

#[test]
fn each_queue_has_a_worker() {
    if !need_root("several queues") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape { queues: 2, ..Shape::default() });
    let bench = bench();
    capture_settings(&bench, "workers = 2\nredispatch = \"off\"\n");
    let running = Running::start(&namespace, &bench, &["-i", "tap0", "--flows", "f"]);
    assert_workers(&running, 2);
    // A veth chooses the queue by a hash of addresses and ports: of so many flows, both get some.
    (4000..4064).for_each(|port| wire.send_all(&cut_off(port, 80)));
    wire.all_arrived(&namespace);
    let ended = running.stop();
    let books = ended.books();
    assert_eq!(
        (&books["received"], &books["analysed"]),
        (&json!(wire.sent()), &json!(wire.sent())),
        "{books}"
    );
    let queues = books["interfaces"][0]["queues"].as_array().unwrap();
    let taken: Vec<u64> = queues.iter().map(|queue| queue["taken"].as_u64().unwrap()).collect();
    assert!(taken.len() == 2 && taken[0] > 0 && taken[1] > 0, "{taken:?}");
    assert_eq!(taken.iter().sum::<u64>(), wire.sent());
    ended.ran.exits(0).says(&["tap0: 2 queues and 2 workers, which hand each other nothing"]);
    let rows = lines(&bench.read("f"));
    let packets =
        |row: &Value| row["orig"]["packets"].as_u64().unwrap() + row["resp"]["packets"].as_u64().unwrap();
    assert_eq!(rows.iter().map(packets).sum::<u64>(), wire.sent());
}

#[test]
fn a_link_that_comes_back_is_captured_from_again() {
    if !need_root("a link that goes down") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, TELL_RESETS);
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0", "--json", "--rules", "rules"]);
    let mut ports = 4000..;
    for (service, end) in [(80, "tap0"), (81, "wire0"), (82, "")] {
        // What is sent while a link is on its way up may be lost on the way.
        let dport = format!("\"dport\":{service}");
        until("an incident", || {
            wire.send_all(&cut_off(ports.next()?, service));
            running.has_said(&dport).then_some(())
        });
        if !end.is_empty() {
            namespace.ip(&["link", "set", end, "down"]);
            running.warning("tap0 has no link");
            namespace.ip(&["link", "set", end, "up"]);
            running.warning("tap0 has a link again");
        }
    }
    let ended = running.stop();
    assert_eq!(ended.books()["received"], ended.books()["analysed"]);
    ended.ran.exits(0);
}

#[test]
fn time_passes_on_a_silent_wire() {
    if !need_root("a silent wire") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    settings(&bench, "quiet_s = 3\n[rules.syn_no_synack]\ntimeout_ms = 7_000\n");
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0", "--json"]);
    let [client, _] = sides(4000, 80);
    wire.send(&client.segment(SYN, 0, 0, &[]));
    // Not another packet: only the clock can tell that nobody answered, and later that it is over.
    let incident = running.incident("open", "syn_no_synack");
    let age = incident["evidence"]["syn_age_ms"].as_u64().unwrap();
    // How much later the program was let look is the machine's business.
    assert!(age >= 7000, "{incident}");
    let closed = running.incident("closed", "syn_no_synack");
    assert_eq!(closed["id"], incident["id"]);
    let ended = running.stop();
    assert_eq!((&ended.books()["received"], &ended.books()["analysed"]), (&json!(1), &json!(1)));
    ended.ran.exits(0);
}
