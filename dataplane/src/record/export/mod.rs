//! Writes what a query matches as one pcapng: time-ordered, each packet once, the verdict's words added.
//!
//! Runs wherever captures are read, never on a worker. The segments are read through once, one at a time; packets are
//! sorted in memory or, when they are too many, by merging runs on the disk, so that memory stays below 64 MiB whatever
//! the export's size ([`Spool`] says how much of what). The bytes go to the caller's output.

mod merge;
mod runs;
mod spool;
mod verdicts;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use crate::source::{Interface, Nanos};

use super::list::{DEMANDED_LIMIT, demands};
use super::pcapng::{self, PacketBlock};
use super::query::{Finder, Query, QueryError, ReadAll, Walk};
use super::read::Recorded;
use super::store::{Store, StoreError};
use super::tuple::{Endpoints, endpoints};

use runs::Runs;
pub use spool::Spool;
use spool::{Appender, SpoolFile};
use verdicts::{Flows, Verdicts};

/// Why nothing, or not everything, was exported.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("nothing kept for {0}; `referee captures list` shows what there is")]
    NothingKept(String),
    #[error(
        "cannot sort packets in a file of {folder}: {source}; make room there, or name another folder with TMPDIR",
        folder = .folder.display()
    )]
    Spool { folder: PathBuf, source: io::Error },
    #[error("what was put on the disk to be sorted came back damaged")]
    Sorted,
    /// By [`Spool::stopped_by`].
    #[error("given up, as was asked")]
    Stopped,
    /// The output failed. A `BrokenPipe` inside means that the reader went away.
    #[error("cannot write the capture: {0}")]
    Output(#[source] io::Error),
}

impl From<StoreError> for ExportError {
    fn from(e: StoreError) -> Self {
        ExportError::Query(e.into())
    }
}

/// What is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportSummary {
    pub packets: u64,
    /// Packet bytes, without what pcapng adds.
    pub bytes: u64,
    /// At most a million are told apart.
    pub flows: u64,
    pub first_ns: Nanos,
    pub last_ns: Nanos,
    /// Copies of packets that were left out.
    pub duplicates: u64,
    /// Verdicts added as comments.
    pub verdicts: u64,
    /// Segments deleted by retention before they could be read.
    pub vanished: u64,
    /// Segments read, and of these cut (still written, or left so by a crash or a full disk).
    pub segments: u32,
    pub segments_cut: u32,
    /// Damaged segments, in words; all before the damage is in.
    pub damaged: Vec<String>,
}

/// An export whose packets are found and sorted: what it holds is known, nothing is written yet.
pub struct Prepared {
    runs: Runs,
    spool: Spool,
    verdicts: Verdicts,
    header: Vec<u8>,
    /// Bytes of the whole file.
    len: u64,
    summary: ExportSummary,
}

/// Writes what `query` matches to `out` as one pcapng (little endian, nanoseconds), ordered by time, worker
/// and the worker's packet number.
pub fn export(store: &Store, query: &Query, out: &mut dyn Write) -> Result<ExportSummary, ExportError> {
    prepare(store, query, &ReadAll, &Spool::beside(store))?.write(out)
}

/// Finds and sorts what `query` matches. `finder` saves reading segments that hold nothing of it; what does not fit
/// into memory goes into files of `spool`.
pub fn prepare(
    store: &Store,
    query: &Query,
    finder: &dyn Finder,
    spool: &Spool,
) -> Result<Prepared, ExportError> {
    let mut collected = Collected::new(spool, demands(store)?.into_keys().collect());
    let walked = Walk::new(store, query, finder)?.visit(|segment, packet| collected.take(segment, packet))?;
    let Collected { mut runs, interfaces, flows, met, demanded, failed, .. } = collected;
    failed.map_or(Ok(()), Err)?;
    runs.finish()?;
    let mut summary = ExportSummary {
        flows: (flows.count() + demanded.len() as u64).saturating_sub(met.len() as u64),
        vanished: u64::from(walked.vanished),
        segments: walked.segments,
        segments_cut: walked.cut,
        damaged: walked.damaged,
        ..ExportSummary::default()
    };
    let mut verdicts = Verdicts::find(store, &flows)?;
    drop(flows);
    let header = header(&interfaces, query);
    let mut len = header.len() as u64;
    let mut merge = runs.merge()?;
    while let Some(block) = merge.next_block()? {
        spool.check()?;
        verdicts.see(&block);
        if summary.packets == 0 {
            summary.first_ns = block.ts;
        }
        summary.last_ns = block.ts;
        summary.packets += 1;
        summary.bytes += u64::from(block.captured);
        len += block.bytes.len() as u64;
    }
    summary.duplicates = runs.duplicates + merge.duplicates;
    drop(merge);
    if summary.packets == 0 {
        return Err(ExportError::NothingKept(query.to_string()));
    }
    verdicts.settle();
    summary.verdicts = verdicts.count();
    len += verdicts.lengths().sum::<u64>();
    Ok(Prepared { runs, spool: spool.clone(), verdicts, header, len, summary })
}

impl Prepared {
    pub fn summary(&self) -> &ExportSummary {
        &self.summary
    }

    /// Bytes of the whole capture.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: an export without packets is an error.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the capture.
    pub fn write(self, out: &mut dyn Write) -> Result<ExportSummary, ExportError> {
        self.each_piece(|piece| out.write_all(piece).map_err(ExportError::Output))?;
        out.flush().map_err(ExportError::Output)?;
        Ok(self.summary)
    }

    /// The capture as a file without a name, to be read from its beginning, and its length: for who needs parts of it,
    /// or may not hold it up while writing.
    pub fn into_file(self) -> Result<(File, u64), ExportError> {
        let mut file = self.spool.file()?;
        let mut out = Appender::new(&mut file);
        self.each_piece(|piece| out.put(piece))?;
        out.finish()?;
        let SpoolFile { mut file, len, .. } = file;
        file.seek(SeekFrom::Start(0)).map_err(ExportError::Output)?;
        Ok((file, len))
    }

    /// Shows the capture's bytes, from the first to the last.
    fn each_piece(&self, mut put: impl FnMut(&[u8]) -> Result<(), ExportError>) -> Result<(), ExportError> {
        put(&self.header)?;
        let (mut merge, mut next, mut larger) = (self.runs.merge()?, 0, Vec::new());
        while let Some(block) = merge.next_block()? {
            self.spool.check()?;
            let packet = (block.ts, block.packet_id);
            let words = self.verdicts.words(packet, &mut next).map_err(|source| {
                ExportError::Query(StoreError::Read { path: "incidents.jsonl".into(), source }.into())
            })?;
            if words.is_empty() {
                put(block.bytes)?;
                continue;
            }
            larger.clear();
            block.put_with(&mut larger, &words);
            put(&larger)?;
        }
        Ok(())
    }
}

/// What is known of the packets found so far.
struct Collected<'a> {
    spool: &'a Spool,
    runs: Runs,
    interfaces: Vec<Interface>,
    /// Number in the export, by segment and number there.
    numbers: HashMap<(u32, usize), u32>,
    flows: Flows,
    /// Ids of captures on demand, which are no flows; those of them that were met, and the flows in them.
    demands: HashSet<u64>,
    met: HashSet<u64>,
    demanded: HashSet<Endpoints>,
    failed: Option<ExportError>,
}

impl<'a> Collected<'a> {
    fn new(spool: &'a Spool, demands: HashSet<u64>) -> Collected<'a> {
        let (runs, flows, interfaces, numbers) = (Runs::new(spool), Flows::new(), Vec::new(), HashMap::new());
        let (met, demanded) = (HashSet::new(), HashSet::new());
        Collected { spool, runs, interfaces, numbers, flows, demands, met, demanded, failed: None }
    }

    /// Says whether the next packet is wanted.
    fn take(&mut self, segment: u32, packet: &Recorded<'_>) -> bool {
        self.flows.see(packet.flow_id);
        if self.demands.contains(&packet.flow_id) {
            self.met.insert(packet.flow_id);
            if self.demanded.len() < DEMANDED_LIMIT {
                let ends = endpoints(packet.interface.link, packet.bytes);
                self.demanded.extend(ends.map(Endpoints::either_way));
            }
        }
        let block = PacketBlock { interface: self.interface(segment, packet), ..packet.block() };
        self.failed = self.spool.check().and_then(|()| self.runs.push(&block)).err();
        self.failed.is_none()
    }

    fn interface(&mut self, segment: u32, packet: &Recorded<'_>) -> u32 {
        let Collected { interfaces, numbers, .. } = self;
        *numbers.entry((segment, packet.index)).or_insert_with(|| {
            let known = interfaces.iter().position(|interface| interface == packet.interface);
            let number = known.unwrap_or_else(|| {
                interfaces.push(packet.interface.clone());
                interfaces.len() - 1
            });
            u32::try_from(number).unwrap_or(u32::MAX)
        })
    }
}

fn header(interfaces: &[Interface], query: &Query) -> Vec<u8> {
    let mut bytes = Vec::new();
    pcapng::put_section(&mut bytes, &format!("kept by Referee: {query}"));
    for interface in interfaces {
        pcapng::put_interface(&mut bytes, interface);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::IpAddr;
    use std::process::Command;

    use serde_json::json;

    use super::super::read::SegmentReader;
    use super::super::testing::*;
    use super::super::{
        IncidentLog, LossCounters, RealDisk, RecordConfig, StoredPacket, Writer, list, recorder,
    };
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
    fn the_size_of_runs_leaves_no_trace_in_the_output() {
        let (folder, store) = store();
        let query = Query::default();
        let write = |run_bytes: usize, merge_bytes: usize| {
            let spool = Spool::small(folder.path(), run_bytes, merge_bytes);
            let prepared = prepare(&store, &query, &ReadAll, &spool).unwrap();
            let (told, len) = (prepared.summary().clone(), prepared.len());
            let mut out = Vec::new();
            let summary = prepared.write(&mut out).unwrap();
            assert_eq!((told, len), (summary.clone(), out.len() as u64));
            let (mut file, len) = prepare(&store, &query, &ReadAll, &spool).unwrap().into_file().unwrap();
            let mut again = Vec::new();
            file.read_to_end(&mut again).unwrap();
            assert_eq!((len, &again), (out.len() as u64, &out));
            (out, summary)
        };
        let whole = write(8 << 20, 16 << 20);
        assert_eq!(whole.1.packets, 10);
        for (run_bytes, merge_bytes) in [(1, 16 << 20), (1, 0), (1500, 200 << 10), (700, 0)] {
            assert!(write(run_bytes, merge_bytes) == whole, "{run_bytes}, {merge_bytes}");
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing but the store stays behind"
        );
    }

    /// Time, packet id, flow, bytes and comments.
    type Plain = (u64, u64, u64, Vec<u8>, Vec<String>);

    /// What an export of everything must hold, found the plain way: all packets in memory.
    fn plainly(store: &Store) -> Vec<Plain> {
        let mut packets = Vec::new();
        for path in store.segment_paths().unwrap() {
            let mut reader = SegmentReader::new(File::open(path).unwrap()).unwrap();
            while let Some(p) = reader.next_packet() {
                let comments: Vec<String> = p.comments.iter().map(|c| (*c).to_owned()).collect();
                packets.push((p.ts, p.packet_id, p.flow_id, p.bytes.to_vec(), comments));
            }
        }
        packets.sort_by_key(|p| (p.0, p.1, p.4.is_empty()));
        packets.dedup_by_key(|p| (p.0, p.1));
        let mut words: Vec<Vec<String>> = vec![Vec::new(); packets.len()];
        for incident in incidents(store) {
            let said = format!(
                "referee verdict: {} (incident {})\n{}",
                incident.rule, incident.id, incident.explain
            );
            for flow in incident.flows() {
                let of_flow = || packets.iter().enumerate().filter(|(_, p)| p.2 == flow);
                let in_time = || of_flow().filter(|(_, p)| p.0 <= incident.last_ns);
                let raises = |p: &(usize, &Plain)| {
                    p.1.4.iter().any(|words| words.contains(&format!(" {} ", incident.rule)))
                };
                let best = in_time().rfind(raises).or(in_time().next_back()).or(of_flow().next());
                if let Some((at, _)) = best {
                    words[at].push(said.clone());
                }
            }
        }
        for (packet, mut said) in packets.iter_mut().zip(words) {
            packet.4.append(&mut said);
        }
        packets
    }

    fn random_store(dice: &mut Dice, folder: &std::path::Path) -> Store {
        let store = Store::create(folder).unwrap();
        let config = RecordConfig { segment_bytes: 4000, ..small() };
        let workers = 1 + dice.roll(3) as u16;
        let (mut recorders, ports): (Vec<_>, Vec<_>) = (0..workers).map(|w| recorder(&config, w)).unzip();
        for recorder in &mut recorders {
            for name in ["a", "b", "c"] {
                recorder.announce(&interface(name));
            }
        }
        let disk = MemDisk::default();
        let mut writer = Writer::new(Box::new(disk.clone()), config, ports).unwrap();
        for _ in 0..dice.roll(300) {
            let number = dice.roll(120);
            let bytes = unlike(number, dice.roll(900) as usize);
            let comment = (dice.roll(6) == 0).then(|| format!("referee: r{} (rst)", dice.roll(3)));
            let recorder = &mut recorders[dice.roll(u64::from(workers)) as usize];
            let p = StoredPacket { interface: dice.roll(3) as u16, ..packet(number, dice.roll(5), &bytes) };
            // Several packets at one time, as several workers have them.
            let ts = T0 + number / 3;
            recorder.write(&StoredPacket { ts, comment: comment.as_deref(), ..p }).unwrap();
            writer.pump();
        }
        drop(recorders);
        writer.close();
        for (name, bytes) in disk.files() {
            std::fs::write(store.segments().join(name), bytes).unwrap();
        }
        let mut log = IncidentLog::open(&store).unwrap();
        for _ in 0..dice.roll(12) {
            let flows: Vec<String> = (0..dice.roll(3)).map(|_| format!("{:016x}", dice.roll(7))).collect();
            let mut flows = flows;
            flows.sort();
            flows.dedup();
            let (id, rule) = (format!("i{}", dice.roll(6)), format!("r{}", dice.roll(3)));
            let last_ns = T0 + dice.roll(50);
            log.append(
                &json!({"id": id, "rule": rule, "last_ns": last_ns, "flow_ids": flows, "explain": "why"}),
            )
            .unwrap();
        }
        store
    }

    #[test]
    fn any_store_is_exported_as_it_would_be_in_memory() {
        let mut dice = Dice(20_261_126);
        for round in 0..200 {
            let folder = tempfile::tempdir().unwrap();
            let store = random_store(&mut dice, &folder.path().join("store"));
            let mut expected = plainly(&store);
            let spool = Spool::small(folder.path(), dice.roll(20_000) as usize, dice.roll(400_000) as usize);
            let mut out = Vec::new();
            let exported =
                prepare(&store, &Query::default(), &ReadAll, &spool).and_then(|p| p.write(&mut out));
            if expected.is_empty() {
                assert!(matches!(exported, Err(ExportError::NothingKept(_))));
                continue;
            }
            let summary = exported.unwrap();
            let mut reader = SegmentReader::new(io::Cursor::new(out)).unwrap();
            let mut got = Vec::new();
            while let Some(p) = reader.next_packet() {
                let comments = p.comments.iter().map(|c| (*c).to_owned()).collect();
                got.push((p.ts, p.packet_id, p.flow_id, p.bytes.to_vec(), comments));
            }
            assert_eq!(reader.ending(), Some(&super::super::Ending::Complete));
            // Incidents that come to one packet may come in either order if an id was told twice.
            for packet in expected.iter_mut().chain(&mut got) {
                packet.4.sort();
            }
            assert_eq!(summary.packets, expected.len() as u64);
            assert!(got == expected, "store {round}");
        }
    }

    #[test]
    fn captures_are_read_while_they_are_written_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let config = RecordConfig { segment_bytes: 6000, store_bytes: 60_000, ..small() };
        let (mut recorder, port) = recorder(&config, 0);
        recorder.announce(&interface("eth0"));
        let disk = Box::new(RealDisk::new(&store.segments()));
        let mut writer = Writer::new(disk, config, vec![port]).unwrap();
        let spool = Spool::small(folder.path(), 5000, 200_000);
        let reads = std::sync::atomic::AtomicU32::new(0);
        let look = |store: &Store| {
            let mut out = Vec::new();
            match prepare(store, &Query::default(), &ReadAll, &spool).and_then(|p| p.write(&mut out)) {
                Ok(summary) => assert!(summary.damaged.is_empty(), "{summary:?}"),
                Err(ExportError::NothingKept(_)) => return Vec::new(),
                Err(error) => panic!("{error}"),
            }
            numbers_of(&out)
        };
        let last = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 1000 {
                    let numbers = look(&store);
                    assert!(numbers.is_sorted_by(|a, b| a < b), "each once, in order: {numbers:?}");
                }
            });
            let mut number = 0;
            // Until the reader has been round a few times, and retention as well.
            while number < 400 || reads.load(std::sync::atomic::Ordering::Relaxed) < 10 {
                recorder.write(&packet(number, 7, &unlike(number, 600))).unwrap();
                while writer.pump() {}
                number += 1;
            }
            recorder.flush();
            writer.close();
            reads.store(1000, std::sync::atomic::Ordering::Relaxed);
            reader.join().unwrap();
            number - 1
        });
        let numbers = look(&store);
        assert_eq!(numbers.last(), Some(&last));
        assert!(numbers.len() as u64 == last + 1 - numbers[0] && numbers[0] > 0, "the newest, without a gap");
    }

    fn numbers_of(export: &[u8]) -> Vec<u64> {
        let mut reader = SegmentReader::new(io::Cursor::new(export.to_vec())).unwrap();
        let mut numbers = Vec::new();
        while let Some(packet) = reader.next_packet() {
            numbers.push(packet.packet_id << 8 >> 8);
        }
        numbers
    }

    #[test]
    fn an_export_can_be_stopped() {
        let (_folder, store) = store();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let spool = Spool::beside(&store).stopped_by(stop);
        let stopped = prepare(&store, &Query::default(), &ReadAll, &spool).err();
        assert!(matches!(stopped, Some(ExportError::Stopped)));
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
        assert_eq!((&a["incidents"], &a["packets"], &a["segments"]), (&json!(["i1"]), &json!(5), &json!(1)));
        assert_eq!(a["first_ns"], T0 + 2_000_000);
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
