//! Writes what a query matches as one pcapng: time-ordered, each packet once, the verdict's words added.
//!
//! Runs wherever captures are read, never on a worker. Memory: an index of at most [`PACKETS_LIMIT`] packets
//! and [`ROUND_BYTES`] of packet bytes; a larger export re-reads the segments it needs, round by round. The
//! bytes go to the caller's output.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use serde::Serialize;
use thiserror::Error;

use crate::source::{Interface, Nanos};

use super::pcapng::{self, PacketBlock};
use super::query::{Query, QueryError, Walk, WalkSummary};
use super::store::{IncidentRecord, Store, StoreError};

/// Most packets in one export: their index takes about 1 GiB.
pub const PACKETS_LIMIT: usize = 16 << 20;

/// Packet bytes held in memory at a time.
pub const ROUND_BYTES: usize = 256 << 20;

/// What is added to a packet's bytes for the block around it and its comments, on average at most.
const BLOCK_SHARE: usize = 512;

/// What the comment on a packet that raised an event begins with; the rule's name follows.
const RAISED: &str = "referee: ";

/// Why nothing, or not everything, was exported.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("nothing kept for {0}; `referee captures list` shows what there is")]
    NothingKept(String),
    #[error("more than {PACKETS_LIMIT} packets match {0}; narrow it by flow, host or time")]
    TooMany(String),
    /// The output failed. A `BrokenPipe` inside means that the reader went away.
    #[error("cannot write the capture: {0}")]
    Output(#[source] io::Error),
}

impl From<StoreError> for ExportError {
    fn from(e: StoreError) -> Self {
        ExportError::Query(e.into())
    }
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportSummary {
    pub packets: u64,
    /// Packet bytes, without what pcapng adds.
    pub bytes: u64,
    pub flows: u64,
    pub first_ns: Nanos,
    pub last_ns: Nanos,
    /// Copies of packets that were left out.
    pub duplicates: u64,
    /// Verdicts added as comments.
    pub verdicts: u64,
    /// Packets deleted by retention while exporting.
    pub vanished: u64,
    /// Segments read, and of these cut (still written, or left so by a crash or a full disk).
    pub segments: u32,
    pub segments_cut: u32,
    /// Damaged segments, in words; all before the damage is in.
    pub damaged: Vec<String>,
}

/// One packet of the export and where to read it.
#[derive(Clone, Copy)]
struct Place {
    ts: Nanos,
    packet_id: u64,
    flow_id: u64,
    segment: u32,
    number: u32,
    interface: u32,
    len: u32,
    commented: bool,
}

/// Every packet of the export, in order, and what belongs to it.
#[derive(Default)]
struct Index {
    places: Vec<Place>,
    interfaces: Vec<Interface>,
    duplicates: u64,
    /// Comments of packets that raised an event, by (time, packet id).
    raised: HashMap<(Nanos, u64), String>,
}

/// Writes what `query` matches to `out` as one pcapng (little endian, nanoseconds), ordered by time, worker
/// and the worker's packet number.
pub fn export(store: &Store, query: &Query, out: &mut dyn Write) -> Result<ExportSummary, ExportError> {
    let walk = Walk::new(store, query)?;
    let (index, walked) = make_index(&walk, query)?;
    let (Some(first), Some(last)) = (index.places.first(), index.places.last()) else {
        return Err(ExportError::NothingKept(query.to_string()));
    };
    let verdicts = verdicts(&index, &walk.incidents);
    let flows: std::collections::HashSet<u64> = index.places.iter().map(|p| p.flow_id).collect();
    let mut summary = ExportSummary {
        flows: flows.len() as u64,
        first_ns: first.ts,
        last_ns: last.ts,
        duplicates: index.duplicates,
        verdicts: verdicts.values().map(|words| words.len() as u64).sum(),
        segments: walked.segments,
        segments_cut: walked.cut,
        damaged: walked.damaged,
        ..ExportSummary::default()
    };
    write_header(&index, query, out).map_err(ExportError::Output)?;
    let mut from = 0;
    while from < index.places.len() {
        let to = round_end(&index.places, from);
        write_round(&walk, &index.places, from..to, &verdicts, out, &mut summary)?;
        from = to;
    }
    out.flush().map_err(ExportError::Output)?;
    Ok(summary)
}

fn make_index(walk: &Walk, query: &Query) -> Result<(Index, WalkSummary), ExportError> {
    let mut index = Index::default();
    let mut known: HashMap<(u32, usize), u32> = HashMap::new();
    let mut numbers: HashMap<(String, String, u16, u32), u32> = HashMap::new();
    let mut too_many = false;
    let walked = walk.visit(|segment, number, packet| {
        if index.places.len() == PACKETS_LIMIT {
            too_many = true;
            return false;
        }
        let interface = *known.entry((segment, packet.index)).or_insert_with(|| {
            let i = packet.interface;
            let key = (i.name.clone(), i.description.clone(), i.link_number, i.snap_len);
            *numbers.entry(key).or_insert_with(|| {
                index.interfaces.push(i.clone());
                u32::try_from(index.interfaces.len() - 1).unwrap_or(u32::MAX)
            })
        });
        if let Some(words) = packet.comments.iter().find(|c| c.starts_with(RAISED)) {
            index.raised.insert((packet.ts, packet.packet_id), (*words).to_owned());
        }
        index.places.push(Place {
            ts: packet.ts,
            packet_id: packet.packet_id,
            flow_id: packet.flow_id,
            segment,
            number,
            interface,
            len: u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX),
            commented: !packet.comments.is_empty(),
        });
        true
    })?;
    if too_many {
        return Err(ExportError::TooMany(query.to_string()));
    }
    let Index { places, duplicates, .. } = &mut index;
    // Of copies, the one that says something stays.
    places.sort_unstable_by_key(|p| (p.ts, p.packet_id, !p.commented, p.segment, p.number));
    let before = places.len();
    places.dedup_by_key(|p| (p.ts, p.packet_id));
    *duplicates = (before - places.len()) as u64;
    Ok((index, walked))
}

/// The verdicts' words, by position in the index: on the packet that raised the incident's rule, else on the
/// flow's last packet up to the incident's end.
fn verdicts(index: &Index, incidents: &[IncidentRecord]) -> BTreeMap<usize, Vec<String>> {
    let mut by_flow: HashMap<u64, Vec<&IncidentRecord>> = HashMap::new();
    for incident in incidents.iter().filter(|i| !i.explain.is_empty() || !i.advise.is_empty()) {
        for flow in incident.flows() {
            by_flow.entry(flow).or_default().push(incident);
        }
    }
    // Per flow and incident: position of the best packet so far, and whether it raised the rule.
    let mut best: BTreeMap<(u64, usize), (usize, bool)> = BTreeMap::new();
    for (position, place) in index.places.iter().enumerate() {
        let Some(of_flow) = by_flow.get(&place.flow_id) else { continue };
        let raised = index.raised.get(&(place.ts, place.packet_id));
        for (nth, incident) in of_flow.iter().enumerate() {
            let raises = raised.is_some_and(|words| names_rule(words, &incident.rule));
            let in_time = place.ts <= incident.last_ns;
            let candidate = (position, raises && in_time);
            let entry = best.entry((place.flow_id, nth)).or_insert(candidate);
            if in_time && (raises || !entry.1) {
                *entry = candidate;
            }
        }
    }
    let mut words: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for ((flow, nth), (position, _)) in best {
        words.entry(position).or_default().push(verdict(by_flow[&flow][nth]));
    }
    words
}

/// The comment lists rules, each with its event in brackets ("referee: half_open (keepalive), …"). An event may
/// have the name of another rule, so only the first word of each part counts.
fn names_rule(comment: &str, rule: &str) -> bool {
    let parts = comment.strip_prefix(RAISED).unwrap_or("").split([',', ';']);
    let mut names = parts.filter_map(|part| part.split_whitespace().next());
    names.any(|name| name == rule)
}

fn verdict(incident: &IncidentRecord) -> String {
    let mut words = format!("referee verdict: {} (incident {})", incident.rule, incident.id);
    for part in [&incident.explain, &incident.advise] {
        if !part.is_empty() {
            words.push('\n');
            words.push_str(part);
        }
    }
    words
}

fn write_header(index: &Index, query: &Query, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::new();
    pcapng::put_section(&mut bytes, &format!("kept by Referee: {query}"));
    for interface in &index.interfaces {
        pcapng::put_interface(&mut bytes, interface);
    }
    out.write_all(&bytes)
}

/// How far a round that starts here may go: [`ROUND_BYTES`], and at least one packet.
fn round_end(places: &[Place], from: usize) -> usize {
    let mut bytes = 0;
    let fitting = places[from..].iter().take_while(|p| {
        bytes += p.len as usize + BLOCK_SHARE;
        bytes <= ROUND_BYTES
    });
    from + fitting.count().max(1)
}

/// Reads the packets of one round from their segments and writes them in order.
fn write_round(
    walk: &Walk,
    places: &[Place],
    round: std::ops::Range<usize>,
    verdicts: &BTreeMap<usize, Vec<String>>,
    out: &mut dyn Write,
    summary: &mut ExportSummary,
) -> Result<(), ExportError> {
    let mut wanted: Vec<usize> = round.clone().collect();
    wanted.sort_unstable_by_key(|&i| (places[i].segment, places[i].number));
    let mut blocks: Vec<Vec<u8>> = vec![Vec::new(); round.len()];
    for of_segment in wanted.chunk_by(|&a, &b| places[a].segment == places[b].segment) {
        let mut left = of_segment.iter().copied().peekable();
        walk.read_segment(places[of_segment[0]].segment as usize, |number, packet| {
            if let Some(i) = left.next_if(|&i| places[i].number == number) {
                let mut comments = packet.comments.clone();
                comments.extend(verdicts.get(&i).into_iter().flatten().map(String::as_str));
                let block = PacketBlock {
                    ts: packet.ts,
                    interface: places[i].interface,
                    orig_len: packet.orig_len,
                    bytes: packet.bytes,
                    packet_id: packet.packet_id,
                    flow_id: packet.flow_id,
                    comments: &comments,
                };
                pcapng::put_packet(&mut blocks[i - round.start], &block);
                summary.packets += 1;
                summary.bytes += packet.bytes.len() as u64;
            }
            left.peek().is_some()
        })?;
        summary.vanished += left.count() as u64;
    }
    for block in &blocks {
        out.write_all(block).map_err(ExportError::Output)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::process::Command;

    use serde_json::json;

    use super::super::read::SegmentReader;
    use super::super::testing::*;
    use super::super::{IncidentLog, LossCounters, RealDisk, StoredPacket, Writer, list, recorder};
    use super::*;

    const FLOW_A: u64 = 0x00AB_0000_0000_0001;
    const FLOW_B: u64 = 0xFFFF_0000_0000_0002;

    /// Two workers' packets of two flows, a lead-up written late, one copy, one incident on flow A.
    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let (mut one, port_one) = recorder(&small(), 3);
        let (mut two, port_two) = recorder(&small(), 4);
        for recorder in [&mut one, &mut two] {
            recorder.announce(&interface("unused"));
            recorder.announce(&interface("eth0"));
        }
        let disk = Box::new(RealDisk::new(&store.segments()));
        let mut writer = Writer::new(disk, small(), vec![port_one, port_two]).unwrap();
        let (a, b) = (frame(1, 2, 500), frame(3, 2, 100));
        let on_a = |n| StoredPacket { interface: 1, ..packet(n, FLOW_A, &a) };
        for number in [10, 11, 12, 2, 3, 11] {
            let raises = (number == 12).then_some("referee: rst_after_idle (rst)");
            one.write(&StoredPacket { comment: raises, ..on_a(number) }).unwrap();
            two.write(&StoredPacket { interface: 1, ..packet(number + 5, FLOW_B, &b) }).unwrap();
        }
        one.losses(1, LossCounters { received: Some(9), dropped: Some(1) });
        one.flush();
        two.flush();
        writer.close();
        let mut log = IncidentLog::open(&store).unwrap();
        let incident = |explain: &str| {
            json!({"id": "i1", "kind": "rst_after_idle", "rule": "rst_after_idle", "severity": "warning",
                "first_ns": T0, "last_ns": T0 + 60 * SECOND, "count": 1,
                "flow_ids": [format!("{FLOW_A:016x}")], "explain": explain, "advise": "raise the idle timeout"})
        };
        log.append(&incident("too early to say")).unwrap();
        log.append(&incident("RST after 300 s of silence")).unwrap();
        (folder, store)
    }

    struct Exported {
        packets: Vec<(u64, u64, u64, Vec<String>)>,
        interfaces: Vec<String>,
        summary: ExportSummary,
        bytes: Vec<u8>,
    }

    fn exported(store: &Store, query: &Query) -> Exported {
        let mut bytes = Vec::new();
        let summary = export(store, query, &mut bytes).unwrap();
        let mut reader = SegmentReader::new(io::Cursor::new(bytes.clone())).unwrap();
        let (mut packets, mut interfaces) = (Vec::new(), Vec::new());
        while let Some(p) = reader.next_packet() {
            let comments = p.comments.iter().map(|c| (*c).to_owned()).collect();
            packets.push(((p.ts - T0) / 1_000_000, p.packet_id >> 56, p.flow_id, comments));
            interfaces.push(format!("{}:{}", p.index, p.interface.name));
        }
        interfaces.dedup();
        Exported { packets, interfaces, summary, bytes }
    }

    #[test]
    fn everything_in_order_each_packet_once_interfaces_renumbered() {
        let (_folder, store) = store();
        let all = exported(&store, &Query::default());
        let order: Vec<_> = all.packets.iter().map(|p| (p.0, p.1)).collect();
        assert_eq!(
            order,
            [(2, 3), (3, 3), (7, 4), (8, 4), (10, 3), (11, 3), (12, 3), (15, 4), (16, 4), (17, 4)]
        );
        assert_eq!(all.interfaces, ["0:eth0"]);
        let s = &all.summary;
        assert_eq!((s.packets, s.duplicates, s.flows, s.segments, s.segments_cut), (10, 2, 2, 2, 0));
        assert_eq!((s.first_ns, s.last_ns), (T0 + 2_000_000, T0 + 17_000_000));
        assert_eq!(s.bytes, 5 * 554 + 5 * 154);
    }

    #[test]
    fn the_verdict_is_on_the_packet_that_raised_it_in_its_last_words() {
        let (_folder, store) = store();
        let query = Query { incident: Some("i1".to_owned()), ..Query::default() };
        let got = exported(&store, &query);
        assert!(got.packets.iter().all(|p| p.2 == FLOW_A));
        let said: Vec<_> = got.packets.iter().filter(|p| !p.3.is_empty()).collect();
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].0, 12);
        assert_eq!(said[0].3, [
            "referee: rst_after_idle (rst)".to_owned(),
            "referee verdict: rst_after_idle (incident i1)\nRST after 300 s of silence\nraise the idle timeout"
                .to_owned()
        ]);
        assert_eq!(got.summary.verdicts, 1);
        // Without the raising packet in range: the last one before the incident's end.
        let early = exported(&store, &Query { until: Some(T0 + 11_000_000), ..query });
        let said: Vec<_> = early.packets.iter().filter(|p| !p.3.is_empty()).map(|p| p.0).collect();
        assert_eq!(said, [11]);
    }

    #[test]
    fn queries_select() {
        let (_folder, store) = store();
        let count = |query: Query| exported(&store, &query).packets.len();
        assert_eq!(count(Query { flow: Some(FLOW_B), ..Query::default() }), 5);
        let host = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(count(Query { host: host("10.0.0.1"), ..Query::default() }), 5);
        assert_eq!(count(Query { host: host("10.0.0.2"), ..Query::default() }), 10);
        let (since, until) = (Some(T0 + 8_000_000), Some(T0 + 11_000_000));
        assert_eq!(count(Query { since, until, ..Query::default() }), 3);
        let mut out = Vec::new();
        let nobody = Query { host: host("192.0.2.1"), ..Query::default() };
        let error = export(&store, &nobody, &mut out).unwrap_err();
        assert!(error.to_string().starts_with("nothing kept for host 192.0.2.1; "), "{error}");
        let unknown = Query { incident: Some("i9".to_owned()), ..Query::default() };
        let error = export(&store, &unknown, &mut out).unwrap_err();
        assert!(matches!(error, ExportError::Query(QueryError::NoIncident(_))));
        assert!(out.is_empty());
    }

    #[test]
    fn rounds_leave_no_trace_in_the_output() {
        let (_folder, store) = store();
        let query = Query::default();
        let walk = Walk::new(&store, &query).unwrap();
        let (index, _) = make_index(&walk, &query).unwrap();
        let write = |step: usize| {
            let mut out = Vec::new();
            let mut summary = ExportSummary::default();
            for from in (0..index.places.len()).step_by(step) {
                let round = from..(from + step).min(index.places.len());
                write_round(&walk, &index.places, round, &BTreeMap::new(), &mut out, &mut summary).unwrap();
            }
            (out, summary)
        };
        assert_eq!(write(1), write(100));
        assert_eq!(write(3).1.packets, 10);
    }

    #[test]
    fn a_broken_pipe_is_told_as_such() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_folder, store) = store();
        match export(&store, &Query::default(), &mut Gone) {
            Err(ExportError::Output(e)) => assert_eq!(e.kind(), io::ErrorKind::BrokenPipe),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flows_are_listed() {
        let (_folder, store) = store();
        let flows = list(&store, &Query::default()).unwrap();
        assert_eq!(flows.len(), 2);
        let a = serde_json::to_value(&flows[0]).unwrap();
        assert_eq!(a["flow_id"], "00ab000000000001");
        assert_eq!(
            a["flow"],
            json!({"proto": "tcp", "src": "10.0.0.1", "sport": 0x9C01, "dst": "10.0.0.2", "dport": 443})
        );
        assert_eq!((&a["incidents"], &a["packets"], &a["segments"]), (&json!(["i1"]), &json!(6), &json!(1)));
        assert_eq!(a["first_ns"], T0 + 2_000_000);
    }

    #[test]
    fn a_rule_is_named_by_a_whole_word() {
        assert!(names_rule("referee: rst", "rst"));
        assert!(names_rule("referee: a, rst (again)", "rst"));
        assert!(!names_rule("referee: rst_after_idle (rst)", "rst"));
        assert!(!names_rule("rst", "rst"));
        assert!(!names_rule("referee: ", ""));
    }

    /// Frame numbers, interface names and comments as stock tshark reads them; `None` if it isn't installed.
    fn tshark(file: &std::path::Path) -> Option<(String, String, bool)> {
        let fields =
            ["-T", "fields", "-e", "frame.number", "-e", "frame.interface_name", "-e", "frame.comment"];
        let output = Command::new("tshark").arg("-r").arg(file).args(fields).output().ok()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        // What it says when root runs it is about the user, not the file.
        let errors: Vec<_> = errors.lines().filter(|l| !l.starts_with("Running as user")).collect();
        Some((
            String::from_utf8_lossy(&output.stdout).into_owned(),
            errors.join("\n"),
            output.status.success(),
        ))
    }

    #[test]
    fn stock_tshark_opens_segments_and_exports() {
        let (folder, store) = store();
        let segments = store.segment_paths().unwrap();
        let Some((text, errors, good)) = tshark(&segments[0]) else {
            println!("skipped: tshark is not installed");
            return;
        };
        assert!(good && errors.is_empty(), "{errors}");
        assert_eq!(text.lines().count(), 6);
        assert!(text.contains("3\teth0\treferee: rst_after_idle (rst)\n"), "{text}");
        let file = folder.path().join("export.pcapng");
        std::fs::write(&file, exported(&store, &Query::default()).bytes).unwrap();
        let (text, errors, good) = tshark(&file).unwrap();
        assert!(good && errors.is_empty(), "{errors}");
        assert_eq!(text.lines().filter(|l| l.contains("eth0")).count(), 10);
        assert!(text.contains("raise the idle timeout"), "{text}");
        // Cut as by a crash: it says so, and shows what was flushed.
        let whole = std::fs::read(&segments[0]).unwrap();
        let cut = folder.path().join("cut.pcapng.zst");
        std::fs::write(&cut, &whole[..whole.len() - 10]).unwrap();
        let (text, _, _) = tshark(&cut).unwrap();
        assert_eq!(text.lines().count(), 6, "{text}");
    }
}
