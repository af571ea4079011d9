//! What the bodies of rules bring about in the whole pipeline: captures of more than their flow, rules that fail, rules
//! that only look on.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::judge::JudgeConfig;
use dataplane::record::{RecordConfig, SegmentReader};
use dataplane::source::LinkType;
use dataplane::source::synthetic::Synthetic;
use rules::SourceFile;
use tests::captures;
use tests::disk::MemDisk;
use tests::{Outcome, Pipeline, Setup, run, shipped_rules};
use wiregen::check;
use wiregen::packet::{self, ACK, Ethernet, Ip, RST, SYN, TcpHeader};
use wiregen::scenario::{Options, Packet, START};

const MS: u64 = 1_000_000;
const SERVER: u8 = 100;

/// A TCP packet between client `client` and the server, port 443.
fn tcp(ts: u64, client: u8, sport: u16, to_server: bool, flags: u8) -> Packet {
    let (host, server) = (Ipv4Addr::new(10, 0, 0, client).into(), Ipv4Addr::new(10, 0, 0, SERVER).into());
    let (src, dst) = if to_server { (host, server) } else { (server, host) };
    let ip = Ip { src, dst, ttl: 64, id: 1, dont_fragment: true };
    let (from, to) = if to_server { (sport, 443) } else { (443, sport) };
    let ack = u32::from(flags & ACK != 0);
    let tcp = TcpHeader { sport: from, dport: to, seq: 1, ack, flags, window: 1000, options: &[] };
    let mut bytes = Vec::new();
    packet::tcp(&mut bytes, &Ethernet::default(), &ip, &tcp, &[]);
    Packet { ts: START + ts, bytes }
}

fn rules(text: &str) -> SourceFile {
    SourceFile { name: "t.rhai".to_owned(), text: text.to_owned() }
}

fn run_with(packets: &[Packet], text: &str, judge: JudgeConfig) -> (Outcome, MemDisk) {
    let disk = MemDisk::new();
    let config = RecordConfig { chunk_bytes: 64 << 10, chunks: 8, ..RecordConfig::default() };
    let setup = Setup::with(WorkerConfig::small(), run::load(&[rules(text)], &[]));
    let setup = Setup { judge, ..setup }.recording(config, disk.clone());
    // A silence ends a batch: the judge is heard before packets go on.
    let (mut source, mut last) = (Synthetic::new("bodies"), START);
    for packet in packets {
        if packet.ts > last + 50 * MS {
            source.idle(packet.ts - 1);
        }
        last = packet.ts;
        source.push(packet.ts, &packet.bytes, LinkType::Ethernet);
    }
    (Pipeline::new(source, setup).run(), disk)
}

/// Client ports of the flows on a disk, with the number of their packets.
fn on_disk(disk: &MemDisk) -> BTreeMap<u16, usize> {
    let mut flows = BTreeMap::new();
    for bytes in disk.files().into_values() {
        let mut reader = SegmentReader::new(Cursor::new(bytes)).unwrap();
        while let Some(packet) = reader.next_packet() {
            let seen = check::read(packet.bytes).unwrap();
            let port = if seen.dport == 443 { seen.sport } else { seen.dport };
            *flows.entry(port).or_insert(0) += 1;
        }
    }
    flows
}

/// Flow 1 of client 1 is there all the time; client 9 connects ten times within a second; then everybody goes on.
fn busy_client() -> Vec<Packet> {
    let mut packets = Vec::new();
    let open = |packets: &mut Vec<Packet>, ts: u64, client: u8, port: u16| {
        packets.push(tcp(ts, client, port, true, SYN));
        packets.push(tcp(ts + 1, client, port, false, SYN | ACK));
        packets.push(tcp(ts + 2, client, port, true, ACK));
    };
    open(&mut packets, 0, 1, 1);
    for n in 0..10 {
        open(&mut packets, (10 + u64::from(n)) * MS, 9, 1000 + n);
    }
    // From here on it is watched: a flow of another client, a flow it has, and flows it begins.
    packets.push(tcp(500 * MS, 1, 1, true, ACK));
    packets.push(tcp(501 * MS, 9, 1004, true, ACK));
    packets.push(tcp(502 * MS, 9, 1004, false, ACK));
    for n in 0..4 {
        open(&mut packets, (600 + u64::from(n)) * MS, 9, 2000 + n);
    }
    packets.push(tcp(900 * MS, 9, 1004, false, ACK));
    packets
}

#[test]
fn a_host_s_next_flows_are_recorded_and_no_more() {
    let text =
        "rule \"busy\" on tick when host.syns(1) >= 5 then { incident(\"info\", \"x\"); capture(host); }";
    let judge = JudgeConfig { captures_per_incident: 3, ..JudgeConfig::default() };
    let (outcome, disk) = run_with(&busy_client(), text, judge);
    // The flow it had, with its handshake; of those it began, as many as there was room for.
    assert_eq!(on_disk(&disk), BTreeMap::from([(1004, 6), (2000, 3), (2001, 3)]));
    let [incident] = &outcome.incidents[..] else { panic!("{:?}", outcome.incidents) };
    let kept: BTreeSet<_> = incident.flow_ids.iter().collect();
    assert_eq!((kept.len(), incident.flows), (3, 0), "they are named, and are not what it counts");
}

#[test]
fn a_service_s_next_flows_are_recorded() {
    let text = "rule \"busy\" on tick when service.syns(1) >= 5 then {
        incident(\"info\", \"x\"); capture(service, #{packets: 1}); }";
    let judge = JudgeConfig { captures_per_incident: 4, ..JudgeConfig::default() };
    let (_, disk) = run_with(&busy_client(), text, judge);
    let flows = on_disk(&disk);
    assert_eq!(flows.keys().copied().collect::<Vec<_>>(), [1, 1004, 2000, 2001]);
}

#[test]
fn a_flow_rule_can_have_its_ends_recorded() {
    let text = "rule \"first\" on established when flow.sport == 1009 then {
        incident(\"info\", \"x\"); capture(host, #{seconds: 1}); }";
    let (outcome, disk) = run_with(&busy_client(), text, JudgeConfig::default());
    let flows = on_disk(&disk);
    assert_eq!(flows.keys().copied().collect::<Vec<_>>(), [1004, 2000, 2001, 2002, 2003]);
    let [incident] = &outcome.incidents[..] else { panic!("{:?}", outcome.incidents) };
    assert_eq!((incident.flows, incident.flow_ids.len()), (1, 6), "its own, and those recorded");
}

#[test]
fn a_rule_that_counts_resets_leaves_room_for_flows_that_are_reset() {
    let mut packets = Vec::new();
    for n in 0..8 {
        packets.push(tcp(u64::from(n) * MS, 9, 1000 + n, true, SYN | ACK));
        packets.push(tcp(u64::from(n) * MS + 1, 9, 1000 + n, false, RST | ACK));
    }
    for n in 0..4 {
        packets.push(tcp((500 + u64::from(n)) * MS, 9, 2000 + n, true, ACK));
    }
    for n in 0..4 {
        packets.push(tcp((600 + u64::from(n)) * MS, 9, 3000 + n, false, RST | ACK));
    }
    let text =
        "rule \"storm\" on tick when host.rsts(1) >= 5 then { incident(\"info\", \"x\"); capture(host); }";
    let judge = JudgeConfig { captures_per_incident: 4, ..JudgeConfig::default() };
    let (_, disk) = run_with(&packets, text, judge);
    assert_eq!(on_disk(&disk).into_keys().collect::<Vec<_>>(), [2000, 2001, 3000, 3001]);
}

#[test]
fn a_rule_that_counts_attempts_that_fail_has_such_attempts_recorded() {
    let refused = |packets: &mut Vec<Packet>, ts, port| {
        packets.push(tcp(ts, 9, port, true, SYN));
        packets.push(tcp(ts + 1, 9, port, false, RST | ACK));
    };
    let mut packets = Vec::new();
    (0..8).for_each(|n| refused(&mut packets, u64::from(n) * MS, 1000 + n));
    // Watched from here on: one that is accepted, one that is refused, one that asks twice.
    for (after, client, flags) in [(0, true, SYN), (1, false, SYN | ACK), (2, true, ACK)] {
        packets.push(tcp(500 * MS + after, 9, 2000, client, flags));
    }
    refused(&mut packets, 600 * MS, 3000);
    for at in [700, 900] {
        packets.push(tcp(at * MS, 9, 4000, true, SYN));
    }
    let text = "rule \"refused\" on tick when service.refused(1) >= 5 then {
        incident(\"info\", \"x\"); capture(service); }";
    let (outcome, disk) = run_with(&packets, text, JudgeConfig::default());
    assert_eq!(on_disk(&disk), BTreeMap::from([(3000, 2), (4000, 2)]));
    assert_eq!((outcome.incidents[0].flow_ids.len(), outcome.incidents[0].flows), (2, 0));
}

/// Everything that is told, but for the hash of the rules and for what is counted of rules.
fn told(outcome: &Outcome) -> Vec<String> {
    let json = |value: serde_json::Result<String>| value.unwrap();
    let rows = outcome.rows.iter().map(|row| json(serde_json::to_string(row)));
    let incidents = outcome.opened.iter().chain(&outcome.incidents).chain(&outcome.folded).map(|incident| {
        let mut incident = incident.clone();
        incident.rules_hash.clear();
        json(serde_json::to_string(&incident))
    });
    rows.chain(incidents).collect()
}

#[test]
fn a_rule_in_shadow_changes_nothing_that_is_told() {
    let looking = "rule \"look\" on rst, syn, syn_timeout, stalled, disproved, close severity \"critical\" shadow then {
            incident(\"x\"); capture(flow); capture(host); withdraw(\"y\"); }
        rule \"wide\" on tick shadow when host.syns(10) > 0 then { incident(\"critical\", \"x\"); capture(host); }
        rule \"failing\" on rst, close shadow then { throw 1; }";
    for name in ["demo", "rst_storm", "host_scan", "syn_flood", "rst_after_idle", "pmtu_blackhole"] {
        let (packets, _) = captures::scenario(name, &Options::default());
        let outcome = |more: &[SourceFile]| {
            let disk = MemDisk::new();
            let rules = run::load(&[rules::library(), more.to_vec()].concat(), &[]);
            let config = RecordConfig { chunk_bytes: 64 << 10, chunks: 8, ..RecordConfig::default() };
            let setup = Setup::with(WorkerConfig::small(), rules).recording(config, disk.clone());
            (Pipeline::new(captures::synthetic(&packets), setup).run(), disk.files())
        };
        let (without, kept_without) = outcome(&[]);
        let (with, kept_with) = outcome(&[rules(looking)]);
        assert_eq!(told(&without), told(&with), "{name}");
        assert_eq!(kept_without, kept_with, "{name}: what is recorded");
        assert!(with.judged.bodies_run > without.judged.bodies_run, "{name}: they looked on");
    }
    assert!(shipped_rules().rules().iter().all(|rule| !rule.shadow));
}

#[test]
fn a_sample_takes_the_same_flows_each_time() {
    let (packets, _) = captures::mix_of(400, 7);
    let flows = |header: &str| {
        let text = format!("rule \"some\" on close {header} then {{ incident(\"info\", \"x\"); }}");
        let setup = Setup::with(WorkerConfig::small(), run::load(&[rules(&text)], &[]));
        let outcome = Pipeline::new(captures::synthetic(&packets), setup).run();
        let found = outcome.rows.iter().filter(|row| row.findings.contains_key("some"));
        (found.map(|row| row.flow_id.clone()).collect::<BTreeSet<_>>(), outcome.account.events)
    };
    let ((all, _), (tenth, counted)) = (flows(""), flows("sample 10"));
    assert_eq!(tenth, flows("sample 10").0);
    assert!(tenth.is_subset(&all) && (10..100).contains(&tenth.len()), "{} of {}", tenth.len(), all.len());
    assert_eq!((counted.matched, counted.sampled_out), (all.len() as u64, (all.len() - tenth.len()) as u64));
}

/// A rule set of which nearly everything fails, each rule in another way, and one that does not.
fn failing_rules(number: usize) -> Vec<SourceFile> {
    let body = |n: usize| match n % 4 {
        0 => "throw \"no\";",
        1 => "loop { }",
        2 => "let s = \"x\"; loop { s += s; }",
        _ => "let zero = flow.dport - flow.dport; let x = 1 / zero;",
    };
    let rule = |n: usize| format!("rule \"bad{n:05}\" on syn when flow.proto == 6 then {{ {} }}\n", body(n));
    let file = |first: usize| SourceFile {
        name: format!("bad{first:05}.rhai"),
        text: (first..(first + 1000).min(number)).map(rule).collect(),
    };
    let good = "rule \"good\" on syn then { incident(\"info\", `a SYN from ${flow.sport}`); }";
    let mut files: Vec<SourceFile> = (0..number).step_by(1000).map(file).collect();
    // Last of all, so that every other rule has its turn before.
    files.push(SourceFile { name: "zz_good.rhai".to_owned(), text: good.to_owned() });
    files
}

#[test]
fn rules_that_fail_are_switched_off_and_the_others_go_on() {
    let rules = run::load(&failing_rules(300), &[]);
    let mut source = Synthetic::new("syns");
    for n in 0..200_u16 {
        let packet = tcp(u64::from(n) * 20 * MS, 9, 1000 + n, true, SYN);
        source.push(packet.ts, &packet.bytes, LinkType::Ethernet);
        source.idle(packet.ts + MS);
    }
    let judge = JudgeConfig { max_open: 250, ..JudgeConfig::default() };
    let run = |source| {
        let setup = Setup { judge: judge.clone(), ..Setup::with(WorkerConfig::small(), Arc::clone(&rules)) };
        Pipeline::new(source, setup).run()
    };
    let outcome = run(source);
    let of = |kind: &str| outcome.incidents.iter().filter(|i| i.kind == kind).count();
    assert_eq!((of("good"), of("rule_switched_off")), (1, 250));
    assert_eq!(outcome.judged.switched_off_untold, 50, "beyond the room for incidents they are counted");
    // Those that overrun had 3 runs, the others 20.
    assert_eq!(outcome.judged.body_errors, 150 * 3 + 150 * 20);
    let found: u64 = outcome.rows.iter().map(|row| row.findings.len() as u64).sum();
    assert!(found < 300 * 20 + 200, "{found}: what is off is not found any more");
    let good = outcome.incidents.iter().find(|i| i.kind == "good").unwrap();
    assert_eq!((good.flows, good.first_ns), (200, START), "it is heard from the first SYN on");
}
