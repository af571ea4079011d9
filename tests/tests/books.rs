//! The books of every kind of run, and what they are about: each packet kept is on the disk, once and whole.
//!
//! `Pipeline::finish` checks the sums of every run in every test here; these runs go where accounts are used
//! that ordinary captures never touch, and compare the disk with the input.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use dataplane::config::WorkerConfig;
use dataplane::hold::HoldConfig;
use dataplane::ledger::UnwrittenReason;
use dataplane::record::{Ending, RecordConfig, SegmentReader};
use dataplane::source::LinkType;
use dataplane::source::synthetic::Synthetic;
use dataplane::worker::Step;
use rules::SourceFile;
use tests::captures;
use tests::disk::MemDisk;
use tests::{Outcome, Pipeline, Setup, run};
use wiregen::check;
use wiregen::packet::{self, Ethernet, Ip, RST, TcpHeader};
use wiregen::scenario::{Options, Packet, START};

fn record_config() -> RecordConfig {
    RecordConfig { chunk_bytes: 64 << 10, chunks: 8, ..RecordConfig::default() }
}

/// Runs packets with a recorder on a disk that never fails.
fn recorded(packets: &[Packet], config: WorkerConfig) -> (Outcome, MemDisk) {
    let disk = MemDisk::new();
    let setup = Setup::with(config, tests::shipped_rules()).recording(record_config(), disk.clone());
    (Pipeline::new(captures::synthetic(packets), setup).run(), disk)
}

/// Input numbers of the packets on a disk, by flow, each compared with its original. `whole`: none is cut, as
/// those are that history had forgotten and handshake keeper and tail had not.
fn on_disk(disk: &MemDisk, packets: &[Packet], whole: bool) -> BTreeMap<u64, Vec<u64>> {
    let mut flows: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (name, bytes) in disk.files() {
        let mut reader = SegmentReader::new(Cursor::new(bytes)).unwrap();
        while let Some(packet) = reader.next_packet() {
            let number = packet.packet_id << 8 >> 8;
            let original = &packets[number as usize];
            assert_eq!(
                (packet.ts, packet.orig_len as usize),
                (original.ts, original.bytes.len()),
                "packet {number}"
            );
            assert!(original.bytes.starts_with(packet.bytes), "packet {number}");
            assert!(!whole || packet.bytes.len() == original.bytes.len(), "packet {number} is cut");
            flows.entry(packet.flow_id).or_default().push(number);
        }
        assert_eq!(reader.ending(), Some(&Ending::Complete), "{name}");
    }
    flows
}

/// The two ends of a frame, the same for both directions.
fn ends(packet: &Packet) -> Option<BTreeSet<(std::net::IpAddr, u16)>> {
    let seen = check::read(&packet.bytes).ok().filter(|seen| seen.protocol == 6)?;
    Some([(seen.src, seen.sport), (seen.dst, seen.dport)].into())
}

#[test]
fn a_kept_flow_is_on_the_disk_whole_and_once() {
    for (name, seed) in
        [("rst_midflow", 1), ("rst_after_idle", 2), ("syn_no_synack", 3), ("pmtu_blackhole", 4)]
    {
        let (packets, _) = captures::scenario(name, &Options { seed, ..Options::default() });
        let (outcome, disk) = recorded(&packets, WorkerConfig::small());
        let kept = on_disk(&disk, &packets, true);
        assert!(kept.len() >= 3, "{name}: {} flows kept", kept.len());
        assert_eq!(outcome.account.kept.kept, kept.values().map(|numbers| numbers.len() as u64).sum::<u64>());
        for (flow, mut numbers) in kept {
            let of_flow = ends(&packets[numbers[0] as usize]);
            let wanted: Vec<u64> =
                (0_u64..).zip(&packets).filter(|(_, p)| ends(p) == of_flow).map(|(n, _)| n).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, wanted, "{name}: flow {flow:016x}");
            let named = outcome.incidents.iter().any(|i| i.flow_ids.contains(&format!("{flow:016x}")));
            assert!(named, "{name}: {flow:016x} is kept for an incident that names it");
        }
    }
}

#[test]
fn the_packet_that_raised_it_says_so() {
    let (packets, truth) = captures::scenario("rst_midflow", &Options::default());
    let (_, disk) = recorded(&packets, WorkerConfig::small());
    let mut said = BTreeSet::new();
    for bytes in disk.files().into_values() {
        let mut reader = SegmentReader::new(Cursor::new(bytes)).unwrap();
        while let Some(packet) = reader.next_packet() {
            if !packet.comments.is_empty() {
                assert!(packet.comments[0].contains("rst_midflow"), "{:?}", packet.comments);
                // Frames are numbered from 1.
                said.insert((packet.packet_id << 8 >> 8) + 1);
            }
        }
    }
    let wanted: BTreeSet<u64> = truth.of_kind("rst_midflow").flat_map(|line| line.marks.clone()).collect();
    assert_eq!(said, wanted);
}

#[test]
fn evictions_balance() {
    let (packets, _) = captures::mix_of(2000, 31);
    for (flows, half_open, troubled) in [(16, 8, 1), (100, 8, 4), (300, 64, 300)] {
        let config = WorkerConfig { flows, half_open, troubled, ..WorkerConfig::small() };
        let (outcome, _) = recorded(&packets, config);
        assert!(outcome.account.flows_evicted > 0, "{flows} flows: {:#?}", outcome.account);
        assert!(outcome.peak_flows <= flows + half_open);
    }
}

#[test]
fn a_hold_pool_too_small_is_counted() {
    let (packets, _) = captures::scenario("demo", &Options::default());
    let hold = HoldConfig { holds: 20, pool_bytes: 8 << 10, per_rule_per_second: 3 };
    let (outcome, disk) = recorded(&packets, WorkerConfig { hold, ..WorkerConfig::small() });
    let lost = outcome.account.kept.unwritten[UnwrittenReason::HoldPoolFull as usize];
    assert!(lost > 0 && outcome.account.holds_refused > 0, "{:#?}", outcome.account);
    let kept: usize = on_disk(&disk, &packets, false).values().map(Vec::len).sum();
    assert_eq!(kept as u64 + lost, outcome.account.kept.kept);
}

#[test]
fn a_kept_flow_that_falls_silent_gives_its_hold_back() {
    // Black holes leave flows that never close; the second comes long after the first has had its minute.
    let (mut packets, _) = captures::scenario("pmtu_blackhole", &Options::default());
    let (later, _) = captures::scenario("pmtu_blackhole", &Options { seed: 2, ..Options::default() });
    let first = packets.len() as u64;
    packets.extend(later.into_iter().map(|p| Packet { ts: p.ts + 200_000_000_000, ..p }));
    let hold = HoldConfig { holds: 1, ..WorkerConfig::small().hold };
    let (_, disk) = recorded(&packets, WorkerConfig { hold, ..WorkerConfig::small() });
    let kept = on_disk(&disk, &packets, true);
    assert_eq!(kept.values().filter(|numbers| numbers[0] >= first).count(), 1, "{kept:?}");
}

#[test]
fn a_hold_whose_hit_was_dropped_is_let_go() {
    let (mut packets, _) = captures::mix_of(500, 35);
    let later = captures::mix_of(500, 36).0.into_iter();
    packets.extend(later.map(|p| Packet { ts: p.ts + 200_000_000_000, ..p }));
    let rule = "rule \"noisy\" on syn, syn_ack when flow.proto == 6 then { incident(\"info\", `x`); capture(flow); }";
    let noisy = SourceFile { name: "noisy.rhai".to_owned(), text: rule.to_owned() };
    let hold = HoldConfig { holds: 4, ..WorkerConfig::small().hold };
    let config = WorkerConfig { hold, messages: 512, ..WorkerConfig::small() };
    let mut setup = Setup::with(config, run::load(&[noisy], &[])).recording(record_config(), MemDisk::new());
    setup.config.lossless = false;
    // Nobody listens to the worker.
    let mut pipeline = Pipeline::new(captures::synthetic(&packets), setup);
    while pipeline.worker.step() != Step::Done {}
    let outcome = pipeline.finish();
    assert!(outcome.account.events.dropped > 0, "{:#?}", outcome.account);
    assert!(outcome.account.holds_unanswered > 0, "{:#?}", outcome.account);
    assert!(outcome.account.holds_taken > 4, "{:#?}", outcome.account);
}

#[test]
fn without_a_recorder_nothing_is_kept_and_nothing_else_changes() {
    let (packets, _) = captures::scenario("demo", &Options { seed: 8, ..Options::default() });
    let plain = Pipeline::new(captures::synthetic(&packets), Setup::small()).run();
    let (kept, _) = recorded(&packets, WorkerConfig::small());
    assert_eq!(plain.account.kept.kept, 0);
    let rows = |outcome: &Outcome| -> Vec<String> {
        outcome.rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect()
    };
    assert_eq!(rows(&plain), rows(&kept));
}

#[test]
fn silence_jumps_and_time_that_goes_backwards() {
    let (packets, _) = captures::mix_of(300, 33);
    let mut source = Synthetic::new("jumps");
    let mut shift = 0_i64;
    for (n, packet) in packets.iter().enumerate() {
        if n % 500 == 499 {
            // A day on, an hour back, and once to the beginning of time.
            shift += [86_400_000_000_000, -3_600_000_000_000, -(START as i64)][n / 500 % 3];
        }
        let ts = packet.ts.saturating_add_signed(shift);
        source.push(ts, &packet.bytes, LinkType::Ethernet);
        if n % 700 == 0 {
            source.idle(ts + 5_000_000_000);
        }
    }
    source.push(u64::MAX, &packets[0].bytes, LinkType::Ethernet);
    source.push(0, &packets[1].bytes, LinkType::Ethernet);
    let setup = Setup::small().recording(record_config(), MemDisk::new());
    let outcome = Pipeline::new(source, setup).run();
    assert_eq!(outcome.account.received, packets.len() as u64 + 2);
}

#[test]
fn nothing_at_all() {
    for idle in [false, true] {
        let mut source = Synthetic::new("nothing");
        if idle {
            source.idle(START);
            source.idle(START + 10_000_000_000);
        }
        let setup = Setup::small().recording(record_config(), MemDisk::new());
        let outcome = Pipeline::new(source, setup).run();
        assert_eq!((outcome.account.received, outcome.rows.len(), outcome.incidents.len()), (0, 0, 0));
    }
}

#[test]
fn one_packet_to_oneself() {
    // Source and destination are the same address and port, as in a LAND attack.
    let host = std::net::Ipv4Addr::new(10, 0, 0, 1).into();
    let ip = Ip { src: host, dst: host, ttl: 64, id: 1, dont_fragment: true };
    let tcp = TcpHeader { sport: 7, dport: 7, seq: 1, ack: 1, flags: RST, window: 0, options: &[] };
    let mut bytes = Vec::new();
    packet::tcp(&mut bytes, &Ethernet::default(), &ip, &tcp, &[]);
    let packets: Vec<Packet> = (0..100).map(|n| Packet { ts: START + n, bytes: bytes.clone() }).collect();
    let (outcome, _) = recorded(&packets, WorkerConfig::small());
    assert_eq!((outcome.rows.len(), outcome.rows[0].orig.packets), (1, 100));
}

/// Rules of which all wait for the same, `number` of them.
fn rules_on(events: &str, number: usize, body: &str) -> SourceFile {
    let rule = |n| format!("rule \"r{n:03}\" on {events} then {{ {body} }}\n");
    SourceFile { name: "many.rhai".to_owned(), text: (0..number).map(rule).collect() }
}

#[test]
fn every_match_of_many_rules_on_one_event_is_judged_or_counted() {
    let (packets, _) = captures::scenario("rst_midflow", &Options::default());
    let mut numbers: Vec<usize> =
        (0..12_u64).map(|n| (n.wrapping_mul(0x9e37_79b9) % 500 + 1) as usize).collect();
    numbers.extend([1, 12, 13, 64, 65, 100, 500]);
    let mut lost = false;
    for number in numbers {
        for (events, body) in
            [("close", "incident(\"info\", \"x\");"), ("rst, syn_timeout, close", "throw 1;")]
        {
            let rules = run::load(&[rules_on(events, number, body)], &[]);
            let outcome =
                Pipeline::new(captures::synthetic(&packets), Setup::with(WorkerConfig::small(), rules)).run();
            let (e, flows) = (&outcome.account.events, outcome.rows.len() as u64);
            assert_eq!((e.hits_dropped, e.hits_overflowed), (0, 0), "{number} on {events}");
            assert_eq!(e.rules_per_flow_lost > 0, number > 12, "{number} on {events}");
            if events == "close" {
                assert_eq!((e.matched, outcome.judged.hits), (number as u64 * flows, e.matched), "{number}");
            }
            // A judge that is too slow: what is lost is counted, as the books that every run is checked by say.
            let rules = run::load(&[rules_on(events, number, body)], &[]);
            let config = WorkerConfig { messages: 512, ..WorkerConfig::small() };
            let mut setup = Setup::with(config, rules);
            setup.config.lossless = false;
            let mut pipeline = Pipeline::new(captures::synthetic(&packets), setup);
            while pipeline.worker.step() != Step::Done {
                pipeline.hear(3);
            }
            let slow = pipeline.finish().account.events;
            assert_eq!(slow.hits_overflowed, 0, "{number} on {events}: {slow:#?}");
            lost |= slow.hits_dropped > 0;
        }
    }
    assert!(lost, "the slow judge's queue was full at times");
}
