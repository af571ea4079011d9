//! Real captures, where the corpus lies beside the workspace: every TCP conversation counted as tshark counted
//! it, in each direction.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use dataplane::flow::row::SideRow;
use dataplane::source::file::FileSource;
use serde_json::Value;
use tests::{captures, replay};

/// What a direction is compared by; the first [`EXACT`] are read off the headers.
const COUNTS: [&str; 21] = [
    "packets",
    "payload",
    "syn",
    "synack",
    "fin",
    "rst",
    "zero_window",
    "retransmission",
    "keep_alive",
    "zero_window_probe",
    "window_full",
    "lost_segment",
    "duplicate_ack",
    "fast_retransmission",
    "spurious_retransmission",
    "out_of_order",
    "ack_lost_segment",
    "window_update",
    "zero_window_probe_ack",
    "keep_alive_ack",
    "reused_ports",
];

/// Counts no heuristic has a part in.
const EXACT: usize = 7;

/// Files in which a count differs from tshark's, and by how much over all directions at most: what was measured,
/// so that it cannot grow unseen. docs/tshark-differences.md says why.
const KNOWN: [(&str, &[(&str, u64)]); 1] = [("arkime__pcap__gtp-iphone.pcap", &[("reused_ports", 1)])];

type Counts = [u64; COUNTS.len()];

/// Adds up what several conversations of one 5-tuple say.
fn add(all: &mut BTreeMap<String, Counts>, direction: String, counts: Counts) {
    let sums = all.entry(direction).or_default();
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

fn ours(side: &SideRow) -> Counts {
    let tcp = side.tcp.as_ref().unwrap();
    let f = &tcp.facts;
    let wide = u64::from;
    [
        wide(side.packets),
        tcp.payload,
        wide(tcp.syn.into()),
        wide(tcp.syn_ack.into()),
        wide(tcp.fin.into()),
        wide(tcp.rst.into()),
        wide(f.zero_window),
        wide(f.retransmission),
        wide(f.keepalive),
        wide(f.zero_window_probe),
        wide(f.window_full),
        wide(f.lost_segment),
        wide(f.duplicate_ack),
        wide(f.fast_retransmission),
        wide(f.spurious_retransmission),
        wide(f.out_of_order),
        wide(f.ack_lost_segment),
        wide(f.window_update),
        wide(f.zero_window_probe_ack),
        wide(f.keepalive_ack),
        wide(f.reused_ports),
    ]
}

fn theirs(side: &Value) -> Counts {
    COUNTS.map(|name| {
        let plain = &side[name];
        let analysis = &side["analysis"];
        let value = if plain.is_u64() { plain } else { &analysis[name] };
        value.as_u64().unwrap_or(0)
    })
}

#[test]
fn conversations_are_counted_as_tshark_counts_them() {
    let mut differences: Vec<String> = Vec::new();
    let (mut compared, mut exact) = (0_u64, 0_u64);
    for path in captures::corpus_files("pcaps") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let oracle = captures::corpus("oracle").unwrap().join(format!("{name}.json"));
        let Ok(text) = std::fs::read_to_string(&oracle) else { continue };
        let Ok(source) = FileSource::open(&path) else { continue };
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let known = KNOWN.iter().find(|(file, _)| *file == name).map_or(&[][..], |(_, counts)| counts);
        let mut excused: BTreeMap<&str, u64> = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for row in rows.iter().filter(|row| row["row"] == "tcp") {
            let (a, b) = (row["a"].as_str().unwrap(), row["b"].as_str().unwrap());
            add(&mut wanted, format!("{a} {b}"), theirs(&row["ab"]));
            add(&mut wanted, format!("{b} {a}"), theirs(&row["ba"]));
        }
        let mut got = BTreeMap::new();
        for row in replay(source).rows.iter().filter(|row| row.flow.proto == "tcp") {
            let end = |addr: &str, port: u16| {
                if addr.contains(':') { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") }
            };
            let (a, b) = (end(&row.flow.src, row.flow.sport), end(&row.flow.dst, row.flow.dport));
            add(&mut got, format!("{a} {b}"), ours(&row.orig));
            add(&mut got, format!("{b} {a}"), ours(&row.resp));
        }
        for direction in wanted.keys().chain(got.keys()).collect::<BTreeSet<_>>() {
            let of = |all: &BTreeMap<String, Counts>| all.get(direction).copied().unwrap_or_default();
            let (we, they) = (of(&got), of(&wanted));
            compared += 1;
            for (count, (we, they)) in COUNTS.iter().zip(we.iter().zip(they)) {
                if known.iter().any(|(excused, _)| excused == count) {
                    *excused.entry(count).or_default() += we.abs_diff(they);
                } else if *we != they {
                    differences.push(format!("{name}: {direction}: {count} {we}, tshark {they}"));
                }
            }
            exact += u64::from(we[..EXACT] == they[..EXACT]);
        }
        for (count, most) in known {
            let by = excused.get(count).copied().unwrap_or_default();
            if by > *most {
                differences.push(format!("{name}: {count} differs by {by}, {most} at most is known"));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences: {differences:#?}", differences.len());
    // Some of it is left out above, by name; most must not be.
    assert!(exact * 100 >= compared * 99, "{exact} of {compared} directions agree in what headers say");
}
