//! Any bytes give a value: damaged capture files, damaged packets, random bytes under every link type. No
//! panic (overflow checks are on in this profile), and the books of every run balance.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use dataplane::config::WorkerConfig;
use dataplane::decode::{Class, decode};
use dataplane::source::LinkType;
use dataplane::source::file::FileSource;
use dataplane::source::synthetic::Synthetic;
use tests::captures::{self, MICROS, MICROS_BIG, NANOS, NG, NG_BIG};
use tests::disk::MemDisk;
use tests::{Outcome, Pipeline, Setup, talk};
use wiregen::rng::Rng;
use wiregen::scenario::{NAMES, Options, Packet, START};

const LINKS: [LinkType; 8] = [
    LinkType::Ethernet,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Raw,
    LinkType::Null,
    LinkType::Loop,
    LinkType::Other(147),
    LinkType::Other(u16::MAX),
];

fn tiny() -> WorkerConfig {
    WorkerConfig {
        flows: 64,
        half_open: 16,
        troubled: 16,
        history_bytes: 1 << 20,
        tails: 4,
        ..WorkerConfig::small()
    }
}

fn setup() -> Setup {
    let record = dataplane::record::RecordConfig { chunk_bytes: 8 << 10, chunks: 3, ..Default::default() };
    Setup::with(tiny(), tests::shipped_rules()).recording(record, MemDisk::new())
}

fn run(source: FileSource) -> Outcome {
    Pipeline::new(source, setup()).run()
}

/// Some packets of every scenario, IPv4 and IPv6, tagged and not.
fn specimens() -> Vec<Packet> {
    let mut all = Vec::new();
    for (n, name) in NAMES.iter().filter(|name| **name != "demo").enumerate() {
        let v6 = n % 2 == 1;
        let vlan = [[0, 0], [5, 0], [7, 8]][n % 3];
        let options = Options { seed: n as u64, v6, vlan, flows: Some(20), ..Options::default() };
        let (packets, _) = captures::scenario(name, &options);
        all.extend(packets.into_iter().take(60));
    }
    all
}

#[test]
fn damaged_files_end_early_and_balance() {
    let packets = specimens();
    let files = [MICROS, MICROS_BIG, NANOS, NG, NG_BIG].map(|style| {
        let some: Vec<Packet> = packets.iter().step_by(8).cloned().collect();
        captures::file(&some, style)
    });
    let mut rng = Rng::new(1);
    let (mut opened, mut damaged) = (0, 0);
    for round in 0..2000 {
        let bytes = captures::mutate(&files[round % files.len()], &mut rng);
        let Ok(source) = captures::open("damaged", bytes) else { continue };
        opened += 1;
        let outcome = run(source);
        damaged += u32::from(outcome.account.received < packets.len() as u64 / 8);
    }
    assert!(opened > 1000 && damaged > 300, "{opened} opened, {damaged} cut short");
}

#[test]
fn the_corpus_of_malformed_files() {
    for path in captures::corpus_files("malformed") {
        match FileSource::open(&path) {
            Ok(source) => drop(run(source)),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(&path.display().to_string()), "an error names its file: {text}");
            }
        }
    }
}

/// Flips bits and cuts packets, and sends them through the whole pipeline under every link type.
#[test]
fn damaged_packets_go_through_the_pipeline() {
    let packets = specimens();
    let mut rng = Rng::new(2);
    for (n, link) in LINKS.into_iter().enumerate() {
        let mut source = Synthetic::new("damaged");
        let mut ts = START;
        for round in 0..6000 {
            let packet = &packets[rng.below(packets.len() as u64) as usize];
            // Other link types get the packet from its IP header on, behind zeros as long as their own.
            let from = if n == 0 { 0 } else { 14 };
            let mut bytes = packet.bytes[from..].to_vec();
            if n > 0 {
                let header: &[u8] = match link {
                    LinkType::LinuxSll => &[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0],
                    LinkType::LinuxSll2 => &[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0],
                    LinkType::Null => &[2, 0, 0, 0],
                    LinkType::Loop => &[0, 0, 0, 2],
                    _ => &[],
                };
                bytes.splice(0..0, header.iter().copied());
            }
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len().min(100) as u64) as usize;
                bytes[at] =
                    if rng.percent(50) { bytes[at] ^ 1 << rng.below(8) } else { rng.next_u32() as u8 };
            }
            if rng.percent(10) {
                bytes.truncate(rng.below(bytes.len() as u64) as usize);
            }
            let orig_len = if rng.percent(5) { rng.next_u32() } else { bytes.len() as u32 };
            source.push_cut(ts, &bytes, orig_len, link);
            ts += rng.below(2_000_000);
            if round % 1000 == 0 {
                ts += rng.next_u64() >> rng.below(64) >> 8;
            }
        }
        let outcome = Pipeline::new(source, setup()).run();
        assert_eq!(outcome.account.received, 6000, "{link:?}");
    }
}

/// Steps drawn at random, as a fuzzer draws them: connections that begin in the middle, stop, repeat and contradict
/// themselves, with waits as long as timeouts and a clock that goes back.
#[test]
fn conversations_of_random_steps() {
    let mut rng = Rng::new(5);
    for round in 0..150 {
        let bytes: Vec<u8> = (0..rng.below(400)).map(|_| rng.next_u32() as u8).collect();
        let talk = talk::talk(&bytes);
        let mut source = Synthetic::new("talk");
        for (packet, kept) in talk.packets.iter().zip(&talk.kept) {
            let bytes = &packet.bytes[..packet.bytes.len().min(*kept)];
            source.push_cut(packet.ts, bytes, packet.bytes.len() as u32, LinkType::Ethernet);
        }
        let outcome = Pipeline::new(source, setup()).run();
        assert_eq!(outcome.account.received, talk.packets.len() as u64, "round {round}");
    }
}

/// What every decoded packet keeps to, whatever the bytes were.
fn check(link: LinkType, bytes: &[u8], orig_len: u32) -> Class {
    let packet = decode(link, bytes, orig_len);
    let flow_class = matches!(packet.class, Class::Tcp | Class::Udp | Class::Icmp);
    assert_eq!(packet.has_flow, flow_class, "{link:?}: {:?} has a flow: {bytes:02x?}", packet.class);
    if packet.class == Class::Tcp {
        assert!(packet.tcp.payload < packet.ip_len, "{packet:?}");
        assert!(packet.tcp.options.wscale.unwrap_or(0) <= 14);
    }
    let key = packet.key;
    assert!((key.low, key.low_port) <= (key.high, key.high_port), "{key:?}");
    packet.class
}

#[test]
fn random_bytes_under_every_link_type() {
    let mut rng = Rng::new(3);
    let mut bytes = [0_u8; 256];
    for round in 0..200_000_u64 {
        let len = rng.below(if round % 2 == 0 { 64 } else { 256 }) as usize;
        bytes[..len].iter_mut().for_each(|byte| *byte = rng.next_u32() as u8);
        let link = LINKS[rng.below(LINKS.len() as u64) as usize];
        // Often enough the first bytes lead on to a next header.
        match (rng.below(3), link) {
            (0, LinkType::Ethernet) if len > 34 => bytes[12..15].copy_from_slice(&[8, 0, 0x45]),
            (1, LinkType::Ethernet) if len > 34 => bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]),
            (0, LinkType::Raw) if len > 0 => bytes[0] = 0x45,
            (1, LinkType::Raw) if len > 0 => bytes[0] = 0x60,
            _ => {}
        }
        let orig_len = if rng.percent(20) { rng.next_u32() } else { len as u32 };
        check(link, &bytes[..len], orig_len);
    }
}

#[test]
fn chains_of_ipv6_extension_headers() {
    let mut rng = Rng::new(4);
    let mut reached = 0;
    for _ in 0..50_000 {
        let mut chain = Vec::new();
        let kinds: Vec<u8> = (0..rng.below(13))
            .map(|_| [0, 43, 44, 51, 60, 135, 139, 140, 59, 50][rng.below(10) as usize])
            .collect();
        let last = [6, 17, 58, 59, 253][rng.below(5) as usize];
        for (i, kind) in kinds.iter().enumerate() {
            let next = kinds.get(i + 1).copied().unwrap_or(last);
            let units = if rng.percent(90) { rng.below(3) as u8 } else { rng.next_u32() as u8 };
            let len = match kind {
                44 => 8,
                51 => usize::from(units) * 4 + 8,
                _ => usize::from(units) * 8 + 8,
            };
            let start = chain.len();
            chain.resize(start + len, 0);
            (chain[start], chain[start + 1]) = (next, if *kind == 44 { 0 } else { units });
            if *kind == 44 && rng.percent(20) {
                chain[start + 2] = rng.next_u32() as u8;
            }
        }
        chain.extend((0..rng.below(60)).map(|_| rng.next_u32() as u8));
        let mut bytes = vec![0x60, 0, 0, 0];
        let claimed = if rng.percent(80) { chain.len() as u16 } else { rng.next_u32() as u16 };
        bytes.extend(claimed.to_be_bytes());
        bytes.extend([kinds.first().copied().unwrap_or(last), 64]);
        bytes.extend([0x20; 32]);
        bytes.extend(&chain);
        bytes.truncate(bytes.len() - rng.below(bytes.len() as u64 / 4) as usize);
        let class = check(LinkType::Raw, &bytes, bytes.len() as u32);
        reached += u32::from(matches!(class, Class::Tcp | Class::Udp | Class::Icmp));
    }
    assert!(reached > 1000, "{reached} chains led to a transport header");
}
