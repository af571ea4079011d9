//! Properties that hold for any traffic, and other programs' reading of the same packets: etherparse for
//! headers, tshark (where there is one) for what a TCP segment means.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;

use dataplane::config::WorkerConfig;
use dataplane::decode::{Class, Packet as Decoded, decode};
use dataplane::flow::row::{FlowRow, TcpSide};
use dataplane::source::LinkType;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use tests::captures::{self, NG};
use tests::{Outcome, Pipeline, Setup};
use wiregen::rng::Rng;
use wiregen::scenario::{NAMES, Options, Packet};

/// Source and destination as the decoder sees them.
fn ends(p: &Decoded) -> [(IpAddr, u16); 2] {
    let (low, high) = ((p.key.low_addr(), p.key.low_port), (p.key.high_addr(), p.key.high_port));
    if p.from_low { [low, high] } else { [high, low] }
}

/// What etherparse makes of a frame: addresses, protocol, fragment; `None` if it refuses it.
fn other(bytes: &[u8]) -> Option<(SlicedPacket<'_>, IpAddr, IpAddr, bool)> {
    let sliced = SlicedPacket::from_ethernet(bytes).ok()?;
    let (src, dst, fragment) = match sliced.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let (src, dst) = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
            (src, dst, header.fragments_offset().value() > 0)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let (src, dst) = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
            (src, dst, ip.is_payload_fragmented())
        }
        NetSlice::Arp(_) => return None,
    };
    Some((sliced, src, dst, fragment))
}

/// Host Identity Protocol, as an IPv6 extension header.
const HIP: u8 = 139;

fn follows_hip(packet: &SlicedPacket) -> bool {
    matches!(&packet.net, Some(NetSlice::Ipv6(ip)) if ip.payload().ip_number.0 == HIP)
}

/// Compares our reading of a frame with etherparse's, where that accepts it. True if there was a transport
/// header to compare.
fn agree(bytes: &[u8]) -> bool {
    let ours = decode(LinkType::Ethernet, bytes, bytes.len() as u32);
    let Some((theirs, src, dst, fragment)) = other(bytes) else { return false };
    let context = || format!("{ours:?}\n{theirs:?}\n{bytes:02x?}");
    match theirs.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) if !fragment => {
            assert_eq!(ours.class, Class::Tcp, "{}", context());
            let wanted = [(src, tcp.source_port()), (dst, tcp.destination_port())];
            assert_eq!(ends(&ours), wanted, "{}", context());
            let bits = |on: bool, bit: u8| if on { bit } else { 0 };
            let flags = bits(tcp.fin(), 1)
                | bits(tcp.syn(), 2)
                | bits(tcp.rst(), 4)
                | bits(tcp.psh(), 8)
                | bits(tcp.ack(), 16)
                | bits(tcp.urg(), 32)
                | bits(tcp.ece(), 64)
                | bits(tcp.cwr(), 128);
            let got = (ours.tcp.seq, ours.tcp.ack, ours.tcp.window, ours.tcp.flags);
            let wanted = (tcp.sequence_number(), tcp.acknowledgment_number(), tcp.window_size(), flags);
            assert_eq!(got, wanted, "{}", context());
            assert_eq!(ours.tcp.payload as usize, tcp.payload().len(), "{}", context());
            options(&ours, tcp.options(), &context);
            true
        }
        Some(TransportSlice::Udp(udp)) if !fragment => {
            assert_eq!(ours.class, Class::Udp, "{}", context());
            assert_eq!(
                ends(&ours),
                [(src, udp.source_port()), (dst, udp.destination_port())],
                "{}",
                context()
            );
            true
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) if !fragment => {
            assert!(matches!(ours.class, Class::Icmp | Class::OtherIp), "{}", context());
            let [(a, _), (b, _)] = ends(&ours);
            assert_eq!((a, b), (src, dst), "{}", context());
            true
        }
        // It leaves the ports of a first fragment unread, and what follows a HIP header (RFC 7045 §4); we don't.
        _ if theirs.is_ip_payload_fragmented() || follows_hip(&theirs) => false,
        _ => {
            assert!(!matches!(ours.class, Class::Tcp | Class::Udp), "{}", context());
            false
        }
    }
}

fn options(ours: &Decoded, options: &[u8], context: &dyn Fn() -> String) {
    use etherparse::TcpOptionElement::{
        MaximumSegmentSize, SelectiveAcknowledgementPermitted, Timestamp, WindowScale,
    };
    let list: Vec<_> = etherparse::TcpOptionsIterator::from_slice(options).collect();
    // Where it finds fault it stops, and so may we elsewhere.
    let Ok(list) = list.into_iter().collect::<Result<Vec<_>, _>>() else { return };
    let syn = ours.tcp.flags & 2 != 0;
    let last = |pick: &dyn Fn(&etherparse::TcpOptionElement) -> Option<u16>| {
        list.iter().filter_map(pick).next_back()
    };
    let mss = last(&|o| if let MaximumSegmentSize(mss) = o { Some(*mss) } else { None });
    let scale = last(&|o| if let WindowScale(shift) = o { Some(u16::from(*shift).min(14)) } else { None });
    let got = &ours.tcp.options;
    assert_eq!(got.timestamps, list.iter().any(|o| matches!(o, Timestamp(..))), "{}", context());
    if syn {
        assert_eq!((got.mss, got.wscale.map(u16::from)), (mss, scale), "{}", context());
        let permitted = list.iter().any(|o| matches!(o, SelectiveAcknowledgementPermitted));
        assert_eq!(got.sack_permitted, permitted, "{}", context());
    }
}

fn specimens() -> Vec<Packet> {
    let mut all = Vec::new();
    for (n, name) in NAMES.iter().filter(|name| **name != "demo").enumerate() {
        for (v6, vlan) in [(false, [0, 0]), (true, [0, 0]), (n % 2 == 0, [3, 0]), (n % 2 == 1, [3, 4])] {
            let options = Options { seed: n as u64, v6, vlan, flows: Some(10), ..Options::default() };
            all.extend(captures::scenario(name, &options).0.into_iter().take(400));
        }
    }
    all
}

#[test]
fn headers_agree_with_etherparse() {
    let packets = specimens();
    let compared = packets.iter().filter(|packet| agree(&packet.bytes)).count();
    assert!(compared > packets.len() * 9 / 10, "{compared} of {}", packets.len());
    let mut rng = Rng::new(1);
    let mut compared = 0;
    for _ in 0..100_000 {
        let mut bytes = packets[rng.below(packets.len() as u64) as usize].bytes.clone();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len().min(110) as u64) as usize;
            bytes[at] = if rng.percent(50) { bytes[at] ^ 1 << rng.below(8) } else { rng.next_u32() as u8 };
        }
        compared += u32::from(agree(&bytes));
    }
    assert!(compared > 30_000, "{compared} mutated packets had a header to compare");
}

fn run(packets: &[Packet]) -> Outcome {
    let config = WorkerConfig { troubled: 16_384, ..WorkerConfig::small() };
    Pipeline::new(captures::synthetic(packets), Setup::with(config, tests::shipped_rules())).run()
}

/// Turns every IPv4 address into its complement, so that the order of any two is reversed; quoted ones too.
fn mirrored(packet: &Packet) -> Packet {
    let mut bytes = packet.bytes.clone();
    let turn =
        |bytes: &mut [u8], at: usize| bytes[at + 12..at + 20].iter_mut().for_each(|byte| *byte = !*byte);
    if bytes[12..14] == [8, 0] {
        turn(&mut bytes, 14);
        if bytes[23] == 1 && bytes[34] == 3 {
            turn(&mut bytes, 42);
        }
    }
    Packet { ts: packet.ts, bytes }
}

/// A row without its ids, by tuple.
fn by_tuple(rows: &[FlowRow], mirror: bool) -> BTreeMap<String, Vec<String>> {
    let turn = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(v4) if mirror => std::net::Ipv4Addr::from_bits(!v4.to_bits()).to_string(),
        address => address.to_string(),
    };
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let mut row = row.clone();
        (row.flow.src, row.flow.dst) = (turn(&row.flow.src), turn(&row.flow.dst));
        row.flow_id.clear();
        row.community_id.clear();
        let tuple = serde_json::to_string(&row.flow).unwrap();
        all.entry(tuple).or_default().push(serde_json::to_string(&row).unwrap());
    }
    all.values_mut().for_each(|rows| rows.sort());
    all
}

#[test]
fn which_address_is_the_lower_makes_no_difference() {
    for name in NAMES {
        let (packets, _) = captures::scenario(name, &Options { seed: 12, ..Options::default() });
        let turned: Vec<Packet> = packets.iter().map(mirrored).collect();
        let (straight, mirror) = (run(&packets), run(&turned));
        let (a, b) = (by_tuple(&straight.rows, false), by_tuple(&mirror.rows, true));
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{name}");
        for (tuple, rows) in &a {
            assert_eq!(rows, &b[tuple], "{name}");
        }
        let essence = |outcome: &Outcome| {
            let all =
                outcome.incidents.iter().map(|i| (i.kind.clone(), i.first_ns, i.last_ns, i.count, i.flows));
            all.collect::<BTreeSet<_>>()
        };
        assert_eq!(essence(&straight), essence(&mirror), "{name}");
    }
}

#[test]
fn flow_ids_are_unique_and_stable() {
    let (packets, _) = captures::mix_of(3000, 13);
    let ids: BTreeSet<String> = run(&packets).rows.into_iter().map(|row| row.flow_id).collect();
    assert!(ids.len() >= 3000, "{} ids", ids.len());
    let again = run(&packets);
    assert_eq!(again.rows.len(), ids.len(), "no two flows have one id");
    assert!(again.rows.iter().all(|row| ids.contains(&row.flow_id)));
    // Other tables, another secret: the id depends on neither.
    let config = WorkerConfig { flows: 5000, half_open: 900, hash_secret: 77, ..WorkerConfig::small() };
    let setup = Setup::with(config, tests::shipped_rules());
    let other = Pipeline::new(captures::synthetic(&packets), setup).run();
    assert!(other.rows.iter().all(|row| ids.contains(&row.flow_id)));
}

/// What is compared with tshark: its field, and ours.
type Count = fn(&TcpSide) -> u32;
const COUNTS: [(&str, Count); 10] = [
    ("retransmission", |s| s.facts.retransmission),
    ("fast_retransmission", |s| s.facts.fast_retransmission),
    ("spurious_retransmission", |s| s.facts.spurious_retransmission),
    ("out_of_order", |s| s.facts.out_of_order),
    ("duplicate_ack", |s| s.facts.duplicate_ack),
    ("lost_segment", |s| s.facts.lost_segment),
    ("zero_window", |s| s.facts.zero_window),
    ("window_full", |s| s.facts.window_full),
    ("zero_window_probe", |s| s.facts.zero_window_probe),
    ("keep_alive", |s| s.facts.keepalive),
];

/// tshark's counts by direction ("src sport dst dport"); directions without any are left out.
fn tshark(file: &std::path::Path) -> Option<BTreeMap<String, [u32; COUNTS.len()]>> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file).args([
        "-Y",
        "tcp.analysis.flags",
        "-T",
        "fields",
        "-E",
        "occurrence=f",
    ]);
    for field in ["ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport"] {
        command.args(["-e", field]);
    }
    for (name, _) in COUNTS {
        command.args(["-e", &format!("tcp.analysis.{name}")]);
    }
    let output = command.output().ok()?;
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let mut all: BTreeMap<String, [u32; COUNTS.len()]> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (src, dst) = (format!("{}{}", fields[0], fields[1]), format!("{}{}", fields[3], fields[4]));
        let counts = all.entry(format!("{src} {} {dst} {}", fields[2], fields[5])).or_default();
        for (count, field) in counts.iter_mut().zip(&fields[6..]) {
            *count += u32::from(!field.is_empty());
        }
    }
    all.retain(|_, counts| counts.iter().any(|count| *count > 0));
    Some(all)
}

fn ours(rows: &[FlowRow]) -> BTreeMap<String, [u32; COUNTS.len()]> {
    let mut all: BTreeMap<String, [u32; COUNTS.len()]> = BTreeMap::new();
    for row in rows {
        let f = &row.flow;
        let there = format!("{} {} {} {}", f.src, f.sport, f.dst, f.dport);
        let back = format!("{} {} {} {}", f.dst, f.dport, f.src, f.sport);
        for (direction, side) in [(there, &row.orig), (back, &row.resp)] {
            let Some(side) = &side.tcp else { continue };
            let counts = all.entry(direction).or_default();
            COUNTS.iter().zip(counts).for_each(|((_, get), count)| *count += get(side));
        }
    }
    all.retain(|_, counts| counts.iter().any(|count| *count > 0));
    all
}

#[test]
fn segments_mean_what_tshark_says() {
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("skipped: tshark is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture.pcapng");
    let scenarios = ["retransmission", "zero_window", "keepalive", "pmtu_blackhole", "icmp_frag_needed"];
    let scenarios = scenarios.into_iter().chain(["syn_retransmission", "syn_no_synack"]);
    let mut inputs: Vec<(String, Vec<Packet>)> = scenarios
        .enumerate()
        .map(|(n, name)| {
            let options = Options { seed: 40 + n as u64, v6: n % 2 == 1, ..Options::default() };
            (name.to_owned(), captures::scenario(name, &options).0)
        })
        .collect();
    inputs.push(("mix".to_owned(), captures::mix_of(2000, 41).0));
    for (name, packets) in inputs {
        std::fs::write(&path, captures::file(&packets, NG)).unwrap();
        let (ours, theirs) = (ours(&run(&packets).rows), tshark(&path).unwrap());
        let mut differences = Vec::new();
        for direction in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let of = |all: &BTreeMap<String, _>| all.get(direction).copied().unwrap_or([0; COUNTS.len()]);
            let (we, they) = (of(&ours), of(&theirs));
            let differ = COUNTS.iter().zip(we.iter().zip(they)).filter(|(_, (we, they))| **we != *they);
            differences.extend(
                differ.map(|((kind, _), (we, they))| format!("{direction}: {kind} {we}, tshark {they}")),
            );
        }
        assert!(differences.is_empty(), "{name}: {} differences: {differences:#?}", differences.len());
        assert!(!theirs.is_empty(), "{name}: there was something to compare");
    }
}

/// A TCP number of an IPv4 frame.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The frame with its sequence number, and acknowledgement where there is one, moved on by `by` (IPv4, TCP).
fn shifted(packet: &Packet, by: u32) -> Packet {
    let mut bytes = packet.bytes.clone();
    let numbers: &[usize] = if bytes[47] & 0x10 != 0 { &[38, 42] } else { &[38] };
    for &at in numbers {
        let moved = number(&bytes, at).wrapping_add(by).to_be_bytes();
        bytes[at..at + 4].copy_from_slice(&moved);
    }
    Packet { ts: packet.ts, bytes }
}

/// The smaller of a frame's ports.
fn port(packet: &Packet) -> u16 {
    let port = |at: usize| u16::from_be_bytes([packet.bytes[at], packet.bytes[at + 1]]);
    port(34).min(port(36))
}

/// Ports of conversations with a segment that begins or ends at 0, or acknowledges it: to Wireshark, "none yet".
fn touching_zero(packets: &[Packet]) -> BTreeSet<u16> {
    let touches = |packet: &&Packet| {
        let decoded = decode(LinkType::Ethernet, &packet.bytes, packet.bytes.len() as u32).tcp;
        let end = decoded.seq.wrapping_add(decoded.payload);
        [decoded.seq, end, end.wrapping_add(1)].contains(&0) || decoded.flags & 16 != 0 && decoded.ack == 0
    };
    packets.iter().filter(touches).map(port).collect()
}

/// What rows say, but for what names a flow, by the smaller port.
fn essence(rows: &[FlowRow]) -> BTreeMap<u16, String> {
    let text = |row: &FlowRow| {
        let row = FlowRow { flow_id: String::new(), ..row.clone() };
        (row.flow.sport.min(row.flow.dport), serde_json::to_string(&row).unwrap())
    };
    rows.iter().map(text).collect()
}

#[test]
fn where_sequence_numbers_begin_makes_no_difference() {
    for seed in 1..=3 {
        let packets = tests::soup::orderly(seed, 300);
        let (plain, never) = (essence(&run(&packets).rows), touching_zero(&packets));
        for by in [0x1357_9bdf, 0x8000_0001, 0xffff_fc17] {
            let moved: Vec<Packet> = packets.iter().map(|p| shifted(p, by)).collect();
            let (there, now) = (essence(&run(&moved).rows), touching_zero(&moved));
            let ports: Vec<_> = plain.keys().filter(|p| !never.contains(p) && !now.contains(p)).collect();
            assert!(ports.len() > 250 && plain.len() == there.len(), "{} compared", ports.len());
            for port in ports {
                assert_eq!(plain[port], there[port], "seed {seed}, moved by {by:#x}");
            }
        }
    }
}

#[test]
fn no_fact_is_counted_oftener_than_there_are_packets() {
    for seed in 1..=4 {
        for row in run(&tests::soup::flows(seed, 300)).rows {
            for side in [&row.orig, &row.resp] {
                let Some(tcp) = &side.tcp else { continue };
                for (name, count) in COUNTS {
                    assert!(count(tcp) <= side.packets, "{name}: {row:?}");
                }
                let f = &tcp.facts;
                assert!(f.fast_retransmission + f.spurious_retransmission <= f.retransmission, "{row:?}");
                assert!(f.retransmission + f.out_of_order <= side.packets, "{row:?}");
                assert!(f.keepalive_ack + f.duplicate_ack + f.window_update <= side.packets, "{row:?}");
            }
            let packets = u64::from(row.orig.packets) + u64::from(row.resp.packets);
            assert!(row.findings.iter().all(|(_, count)| *count <= packets), "{row:?}");
        }
    }
}

#[test]
fn a_healthy_flow_picked_up_in_its_middle_is_healthy() {
    let (packets, _) = captures::mix_of(600, 17);
    let quiet = |side: &TcpSide| COUNTS.iter().all(|(_, count)| count(side) == 0);
    let sides =
        |row: &FlowRow| [row.orig.tcp.clone(), row.resp.tcp.clone()].into_iter().flatten().all(|s| quiet(&s));
    let ends = |row: &FlowRow| {
        let f = &row.flow;
        [(f.src.clone(), f.sport), (f.dst.clone(), f.dport)].into_iter().collect::<BTreeSet<_>>()
    };
    let whole = run(&packets).rows;
    let healthy: BTreeSet<_> = whole.iter().filter(|row| sides(row)).map(ends).collect();
    let troubled: BTreeSet<_> = whole.iter().filter(|row| !sides(row)).map(ends).collect();
    for from in [1, 3, 5] {
        let late = &packets[packets.len() * from / 6..];
        let mut compared = 0;
        for row in run(late).rows.iter().filter(|row| row.orig.tcp.is_some()) {
            let pair = ends(row);
            if healthy.contains(&pair) && !troubled.contains(&pair) {
                compared += 1;
                assert!(sides(row), "from {from} sixths on: {row:?}");
            }
        }
        assert!(compared > 50, "{compared} flows");
    }
}
