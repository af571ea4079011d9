//! What is captured live is judged as the same packets are when replayed: scenarios are sent along a wire in
//! their own time, recorded by dumpcap where they leave and captured by `referee run` where they arrive; then
//! the recording is replayed with the same settings.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::running::{Running, bench, capture_settings};
use common::wire::Wire;
use common::{Bench, lines};
use serde_json::{Value, json};
use tests::live::{Namespace, Shape, need_root};
use wiregen::scenario::{self, Options, Packet};

const SECOND: u64 = 1_000_000_000;
/// Between the last packet of a scenario and one that follows it, so that what is judged by a silence of up to
/// 3 s has been judged when the recording ends.
const REST: u64 = 3_600_000_000;

/// A scenario and how it is run.
struct Case {
    scenario: &'static str,
    options: fn() -> Options,
    /// Only so much of it.
    seconds: u64,
    set: &'static [&'static str],
    /// Incidents it is known to make.
    kinds: &'static [&'static str],
    /// What some of its flows are known to have.
    finding: Option<&'static str>,
}

const CASES: [Case; 6] = [
    Case {
        scenario: "rst_after_idle",
        options: || Options { idle_s: Some(3.0), vlan: [20, 30], ..Options::default() },
        seconds: 12,
        set: &["rst_after_idle.idle_ms=2500", "rst_midflow.idle_ms=2500"],
        kinds: &["rst_after_idle"],
        finding: Some("rst_after_idle"),
    },
    Case {
        scenario: "syn_no_synack",
        options: Options::default,
        seconds: 9,
        set: &[],
        kinds: &["syn_no_synack"],
        finding: Some("syn_no_synack"),
    },
    Case {
        scenario: "pmtu_blackhole",
        options: || Options { v6: true, ..Options::default() },
        seconds: 12,
        set: &[],
        kinds: &["pmtu_blackhole"],
        finding: Some("pmtu_blackhole"),
    },
    Case {
        scenario: "rst_storm",
        options: || Options { vlan: [7, 0], ..Options::default() },
        seconds: 8,
        set: &[],
        kinds: &["rst_storm"],
        finding: Some("rst_midflow"),
    },
    Case {
        scenario: "retransmission",
        options: Options::default,
        seconds: 9,
        set: &[],
        kinds: &[],
        finding: Some("retransmission"),
    },
    Case {
        scenario: "healthy",
        options: || Options { v6: true, vlan: [110, 0], ..Options::default() },
        seconds: 9,
        set: &[],
        kinds: &[],
        finding: None,
    },
];

#[test]
fn live_and_replay_agree() {
    if !need_root("live compared with replay") {
        return;
    }
    let results = thread::scope(|scope| {
        let threads = CASES.each_ref().map(|case| (case.scenario, scope.spawn(|| case.check(1))));
        threads.map(|(name, thread)| (name, thread.join().is_ok()))
    });
    assert!(results.iter().all(|(_, agree)| *agree), "{results:?}");
}

/// The same by two wires and two workers: what each host sends goes by one of them, so that most connections' two
/// directions come by different ways. Of flows alone: which of them is the first of a storm depends on whose worker the
/// judge hears first.
#[test]
fn live_by_two_taps_and_replay_agree() {
    if !need_root("two taps compared with replay") {
        return;
    }
    let cases = CASES.iter().filter(|case| ["pmtu_blackhole", "retransmission"].contains(&case.scenario));
    let results = thread::scope(|scope| {
        let threads: Vec<_> = cases.map(|case| (case.scenario, scope.spawn(|| case.check(2)))).collect();
        threads.into_iter().map(|(name, thread)| (name, thread.join().is_ok())).collect::<Vec<_>>()
    });
    assert!(results.iter().all(|(_, agree)| *agree), "{results:?}");
}

/// The way of a packet, of so many: by the part of its Ethernet source address that says the side it comes from.
fn way(packet: &Packet, ways: usize) -> usize {
    packet.bytes.get(9).map_or(0, |side| usize::from(side >> 4) % ways)
}

impl Case {
    fn packets(&self) -> Vec<Packet> {
        let (mut packets, _) = scenario::packets(self.scenario, &(self.options)()).unwrap();
        let until = packets[0].ts + self.seconds * SECOND;
        packets.retain(|packet| packet.ts < until);
        let bytes = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5][..], &[0; 46]].concat();
        packets.push(Packet { ts: packets.last().unwrap().ts + REST, bytes });
        packets
    }

    fn check(&self, ways: usize) {
        let bench = bench();
        capture_settings(&bench, &format!("workers = {ways}\n"));
        let namespace = Namespace::new();
        // Room for two VLAN tags.
        let shape = Shape { mtu: 1508, ..Shape::default() };
        let mut wires: Vec<Wire> = (0..ways).map(|_| Wire::new(&namespace, shape)).collect();
        let packets = self.packets();
        let mut dumpcaps = Vec::new();
        for (number, wire) in wires.iter().enumerate() {
            let count = packets.iter().filter(|packet| way(packet, ways) == number).count();
            assert!(count > 20, "{}: {count} packets by wire {number}", self.scenario);
            dumpcaps.push(Dumpcap::start(&namespace, &bench, &wire.pair.wire.name, count));
        }
        let set: Vec<&str> = self.set.iter().flat_map(|set| ["--set", set]).collect();
        let live = ["-i", "tap0", "--flows", "live.flows", "--incidents", "live.incidents"];
        let second: &[&str] = if ways > 1 { &["-i", "tap1"] } else { &[] };
        let running = Running::start(&namespace, &bench, &[&live[..], second, &set].concat());
        play(&mut wires, &packets);
        dumpcaps.iter_mut().for_each(Dumpcap::finish);
        wires.iter().for_each(|wire| wire.all_arrived(&namespace));
        let ended = running.stop();
        let books = ended.books();
        let sent = Value::from(wires.iter().map(Wire::sent).sum::<u64>());
        let in_order = books["late"] == 0;
        assert_eq!((&books["received"], &books["analysed"]), (&sent, &sent), "{}: {books}", self.scenario);
        let dropped = books["dropped"].as_object().unwrap();
        assert!(!dropped.is_empty() && dropped.values().all(|packets| *packets == 0), "{books}");
        ended.ran.exits(0);

        let replay =
            ["--flows", "replay.flows", "--incidents", "replay.incidents", "--ledger", "l", "wire0.pcapng"];
        let second: &[&str] = if ways > 1 { &["wire1.pcapng"] } else { &[] };
        let all = [&["replay", "--config", "live.toml"][..], &replay, second, &set].concat();
        bench.run(&all).exits(0);
        let books = &lines(&bench.read("l"))[0];
        assert_eq!((&books["received"], &books["balanced"]), (&sent, &json!(true)), "{}", self.scenario);
        // A machine that lets a worker stand still for long gets packets out of turn, and says so.
        if in_order || ways == 1 {
            self.compare(&bench);
        }
    }

    fn compare(&self, bench: &Bench) {
        let flows = ["live.flows", "replay.flows"].map(|name| flows(&bench.read(name)));
        assert!(flows[0].len() > 20, "{}: {} flows", self.scenario, flows[0].len());
        assert_eq!(
            flows[0].keys().collect::<Vec<_>>(),
            flows[1].keys().collect::<Vec<_>>(),
            "{}",
            self.scenario
        );
        for (tuple, live) in &flows[0] {
            assert_eq!(live, &flows[1][tuple], "{}: live is left", self.scenario);
        }
        let found = |row: &Value| self.finding.is_some_and(|finding| row["findings"].get(finding).is_some());
        assert_eq!(flows[0].values().flatten().any(found), self.finding.is_some(), "{}", self.scenario);
        let incidents = ["live.incidents", "replay.incidents"].map(|name| incidents(&bench.read(name)));
        assert_eq!(incidents[0], incidents[1], "{}: live is left", self.scenario);
        let kinds: Vec<&str> =
            incidents[0].iter().map(|incident| incident["kind"].as_str().unwrap()).collect();
        assert!(self.kinds.iter().all(|kind| kinds.contains(kind)), "{}: {kinds:?}", self.scenario);
        assert_eq!(self.kinds.is_empty(), kinds.is_empty(), "{}: {kinds:?}", self.scenario);
    }
}

/// Sends packets with the pauses between them that their times say, each its way.
fn play(wires: &mut [Wire], packets: &[Packet]) {
    let began = Instant::now();
    let Some(first) = packets.first().map(|packet| packet.ts) else { return };
    let ways = wires.len();
    for packet in packets {
        let due = Duration::from_nanos(packet.ts - first);
        thread::sleep(due.saturating_sub(began.elapsed()));
        wires[way(packet, ways)].send(&packet.bytes);
    }
}

/// Each tuple's flows in the order they began, without what depends on when exactly a packet was seen.
fn flows(text: &str) -> BTreeMap<String, Vec<Value>> {
    let mut flows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut rows = lines(text);
    rows.sort_by_key(|row| row["start_ns"].as_u64());
    for mut row in rows {
        let fields = row.as_object_mut().unwrap();
        for name in ["flow_id", "start_ns", "end_ns", "rtt_us", "times_us"] {
            fields.remove(name);
        }
        // An attempt that nobody answers is found once a second, and live time goes on until the run is stopped.
        if let Some(count) = fields["findings"].get_mut("syn_no_synack") {
            *count = (count.as_u64() > Some(0)).into();
        }
        flows.entry(row["flow"].to_string()).or_default().push(row);
    }
    flows
}

/// What incidents are about.
fn incidents(text: &str) -> Vec<Value> {
    let fields = ["kind", "severity", "scope", "subject", "count", "flows"];
    let about = |incident: Value| fields.iter().map(|field| (*field, incident[field].clone())).collect();
    let mut all: Vec<Value> = lines(text).into_iter().map(about).collect();
    all.sort_by_key(Value::to_string);
    all
}

/// A recording of so many packets.
struct Dumpcap {
    child: Child,
}

impl Dumpcap {
    /// Returns when it records.
    fn start(namespace: &Namespace, bench: &Bench, interface: &str, packets: usize) -> Dumpcap {
        let mut command = namespace.command("dumpcap");
        let file = format!("{interface}.pcapng");
        command.args(["-q", "-i", interface, "-w", &file, "-B", "16", "-c", &packets.to_string()]);
        command.current_dir(bench.dir.path()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut dumpcap = Dumpcap { child };
        let mut lines = said.lines().map_while(Result::ok);
        let mut before = Vec::new();
        let found =
            lines.by_ref().inspect(|line| before.push(line.clone())).any(|line| line.starts_with("File: "));
        assert!(found, "{before:?}; it is in Debian's package tshark");
        // It says more at the end, and must not find the pipe closed.
        thread::spawn(move || lines.for_each(drop));
        assert!(dumpcap.child.try_wait().unwrap().is_none());
        dumpcap
    }

    /// It ends by itself when it has all packets.
    fn finish(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Dumpcap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
