//! With the index and without it, answers are the same: on stores of our own making, whole, cut, and pruned.
//!
//! One thread; the index is filled by hand, look by look.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use dataplane::record::{
    ExportError, Finder, IncidentLog, Query, ReadAll, RealDisk, RecordConfig, Recorder, Sought, Spool, Store,
    StoredPacket, Writer, list_by, prepare, recorder,
};
use dataplane::source::{Interface, LinkType};
use serde_json::json;

use super::fill::Filler;
use super::find::Index;
use super::held::Held;
use super::{finder, known, schema};

const T0: u64 = 1_700_000_000_000_000_000;

/// xorshift64.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A UDP datagram from 10.0.0.`src` to 10.0.0.`dst`, or the same by ICMP.
fn frame(src: u8, dst: u8, icmp: bool, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0];
    bytes.extend([
        0x45,
        0,
        0,
        60,
        0,
        1,
        0,
        0,
        64,
        if icmp { 1 } else { 17 },
        0,
        0,
        10,
        0,
        0,
        src,
        10,
        0,
        0,
        dst,
    ]);
    bytes.extend(if icmp { [8, 0, 0, 0, 0, src, 0, dst] } else { [4, src, 0, 53, 0, 40, 0, 0] });
    bytes.extend((0..32).map(|_| dice.roll(256) as u8));
    bytes
}

struct Recording {
    recorders: Vec<Recorder>,
    writer: Writer,
    number: u64,
}

impl Recording {
    fn new(store: &Store, workers: u16) -> Recording {
        let config =
            RecordConfig { chunk_bytes: 4096, chunks: 4, segment_bytes: 3000, ..RecordConfig::default() };
        let (mut recorders, ports): (Vec<_>, Vec<_>) = (0..workers).map(|w| recorder(&config, w)).unzip();
        for recorder in &mut recorders {
            recorder.announce(&Interface {
                name: "eth0".into(),
                description: String::new(),
                link: LinkType::Ethernet,
                link_number: 1,
                snap_len: 0,
            });
        }
        let disk = Box::new(RealDisk::new(&store.segments()));
        Recording { recorders, writer: Writer::new(disk, config, ports).unwrap(), number: 0 }
    }

    fn record(&mut self, dice: &mut Dice, packets: u64) {
        for _ in 0..packets {
            self.number += 1;
            let flow = dice.roll(40);
            let (src, dst) = ((flow % 7) as u8, (flow % 5 + 10) as u8);
            // Now and then another tuple than the flow's own, as an ICMP error has.
            let bytes = frame(src, dst, dice.roll(9) == 0, dice);
            let worker = flow as usize % self.recorders.len();
            let recorder = &mut self.recorders[worker];
            let old = if dice.roll(20) == 0 { dice.roll(500) } else { 0 };
            let packet = StoredPacket {
                ts: T0 + (self.number * 10).saturating_sub(old),
                number: self.number,
                flow_id: flow,
                interface: 0,
                orig_len: bytes.len() as u32,
                bytes: &bytes,
                comment: None,
            };
            recorder.write(&packet).unwrap();
            self.writer.pump();
        }
    }

    fn close(mut self) {
        drop(self.recorders);
        self.writer.close();
    }
}

fn store(folder: &Path) -> Store {
    Store::create(&folder.join("store")).unwrap()
}

pub fn fill(store: &Store, all: bool) {
    Filler::new(store).look(&AtomicBool::new(false), all).unwrap();
}

fn some_query(dice: &mut Dice) -> Query {
    let mut query = Query::default();
    match dice.roll(5) {
        0 => query.flow = Some(dice.roll(45)),
        1 => query.host = Some(IpAddr::from([10, 0, 0, dice.roll(18) as u8])),
        2 => query.incident = Some(format!("i{}", dice.roll(4))),
        3 => {
            let frame = frame(dice.roll(7) as u8, dice.roll(5) as u8 + 10, dice.roll(4) == 0, dice);
            query.community_id = dataplane::record::tuple::community_id(LinkType::Ethernet, &frame);
        }
        _ => {}
    }
    if dice.roll(2) == 0 {
        let from = dice.roll(3000);
        query.since = Some(T0 + from);
        query.until = Some(T0 + from + dice.roll(1500));
    }
    query
}

/// The packets of an answer, or why there is none.
fn answer(store: &Store, query: &Query, finder: &dyn Finder) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let spool = Spool::new(vec![store.root().to_path_buf()]);
    match prepare(store, query, finder, &spool).and_then(|prepared| prepared.write(&mut out)) {
        Ok(_) => Ok(out),
        Err(error @ (ExportError::Query(_) | ExportError::NothingKept(_))) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn same(store: &Store, query: &Query) {
    let index = finder(store);
    assert!(answer(store, query, &*index) == answer(store, query, &ReadAll), "{query}");
    let [with, without] = [list_by(store, query, &*index), list_by(store, query, &ReadAll)]
        .map(|listed| listed.map_err(|error| error.to_string()));
    assert_eq!(with, without, "{query}");
}

#[test]
fn answers_are_the_same_with_and_without() {
    let mut dice = Dice(7_777_777);
    let mut saved = 0;
    for _ in 0..12 {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut recording = Recording::new(&store, 1 + dice.roll(3) as u16);
        let mut log = IncidentLog::open(&store).unwrap();
        for step in 0..6 {
            recording.record(&mut dice, 60);
            let flows: Vec<String> = (0..3).map(|_| format!("{:016x}", dice.roll(45))).collect();
            let id = format!("i{}", dice.roll(3));
            log.append(&json!({"id": id, "flow_ids": flows, "explain": "x", "last_ns": T0})).unwrap();
            if step % 2 == 0 {
                fill(&store, false);
            }
            if step == 4 {
                // Retention, or a person.
                let segments = store.segment_files().unwrap();
                fs::remove_file(&segments[dice.roll(segments.len() as u64) as usize].path).unwrap();
            }
            for _ in 0..4 {
                let query = some_query(&mut dice);
                same(&store, &query);
                let index = Index::open(&store).unwrap();
                let flows = query.flow.map(|flow| std::collections::HashSet::from([flow]));
                let sought = Sought { flows: flows.as_ref(), host: query.host, ..Sought::default() };
                saved += index.without(&sought).len();
            }
        }
        recording.close();
        fill(&store, true);
        let all = store.segment_files().unwrap().len() as u64;
        assert_eq!(known(&store).unwrap().counts.segments, all);
        (0..8).for_each(|_| same(&store, &some_query(&mut dice)));
    }
    assert!(saved > 20, "the index saves reading: {saved} segments");
}

#[test]
fn an_index_that_cannot_be_used_is_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut dice = Dice(99);
    let mut recording = Recording::new(&store, 2);
    recording.record(&mut dice, 200);
    recording.close();
    fill(&store, true);
    let query = Query { flow: Some(3), ..Query::default() };
    let flows = std::collections::HashSet::from([1000]);
    let nothing = Sought { flows: Some(&flows), ..Sought::default() };
    let whole = fs::read(schema::path(&store)).unwrap();
    let all = store.segment_files().unwrap().len();
    assert_eq!(finder(&store).without(&nothing).len(), all);
    for keep in [0, 50, 4096, whole.len() / 2, whole.len() - 4096] {
        fs::write(schema::path(&store), &whole[..keep]).unwrap();
        same(&store, &query);
        // Whoever fills it makes it anew where that is needed.
        let mut filler = Filler::new(&store);
        if filler.look(&AtomicBool::new(false), true).is_err() {
            filler.look(&AtomicBool::new(false), true).unwrap();
        }
    }
    let newer = rusqlite::Connection::open(schema::path(&store)).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(Index::open(&store).is_none());
    same(&store, &query);
    fill(&store, true);
    assert_eq!(finder(&store).without(&nothing).len(), all);
    // Another process that writes to it keeps nobody from an answer.
    let locked = rusqlite::Connection::open(schema::path(&store)).unwrap();
    locked.execute_batch("BEGIN EXCLUSIVE").unwrap();
    same(&store, &query);
}

#[test]
fn what_was_kept_may_have_been_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut recording = Recording::new(&store, 2);
    recording.record(&mut Dice(7), 200);
    recording.close();
    fill(&store, true);
    let some = list_by(&store, &Query::default(), &ReadAll).unwrap()[0].flow_id;
    let still = |flow: u64, at_ns: u64, now| Held::now(&store).unwrap().still(&[flow], at_ns, at_ns, now);
    let now = SystemTime::now();
    let ns = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert_eq!([some, 1000].map(|flow| still(flow, T0, now)), [Some(true), Some(false)]);
    assert_eq!(still(1000, ns(now), now), Some(true), "it may be on its way");
    // One that the index doesn't know yet has what was held before it was begun in no case, and may have all else.
    let other = store.segments().join("w0-01700000000000000000-000999.pcapng.zst");
    fs::write(&other, "x").unwrap();
    let now = SystemTime::now();
    if other.metadata().unwrap().created().is_ok() {
        assert_eq!([some, 1000].map(|flow| still(flow, T0, now)), [Some(true), None]);
    }
    assert_eq!(still(1000, ns(now) - 30_000_000_000, now), Some(true));
    for segment in store.segment_files().unwrap() {
        fs::remove_file(segment.path).unwrap();
    }
    assert_eq!(still(some, T0, now), Some(false));
}

#[test]
fn what_is_not_ended_is_known_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut dice = Dice(3);
    let mut recording = Recording::new(&store, 1);
    recording.record(&mut dice, 100);
    let count = || known(&store).unwrap().counts.segments;
    let all = store.segment_files().unwrap().len() as u64;
    let stop = AtomicBool::new(false);
    let mut filler = Filler::new(&store);
    filler.look(&stop, false).unwrap();
    assert_eq!(count(), all - 1, "it is being written to");
    (0..40).for_each(|_| filler.look(&stop, false).unwrap());
    assert_eq!(count(), all, "and has not been for a while");
    recording.record(&mut dice, 30);
    filler.look(&stop, false).unwrap();
    assert!(count() < store.segment_files().unwrap().len() as u64, "it has grown");
    (0..6).for_each(|_| same(&store, &some_query(&mut dice)));
    // The next run knows that nobody writes to what it finds.
    Filler::before_writing(&store).look(&stop, false).unwrap();
    assert_eq!(count(), store.segment_files().unwrap().len() as u64);
    (0..6).for_each(|_| same(&store, &some_query(&mut dice)));
}

#[test]
fn a_segment_that_changed_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let mut dice = Dice(5);
    let mut recording = Recording::new(&store, 1);
    recording.record(&mut dice, 200);
    recording.close();
    fill(&store, true);
    let segment = store.segment_files().unwrap().remove(0);
    let bytes = fs::read(&segment.path).unwrap();
    fs::write(&segment.path, &bytes[..bytes.len() - 20]).unwrap();
    let flows = std::collections::HashSet::from([1000]);
    let empty = Sought { flows: Some(&flows), ..Sought::default() };
    let skipped = |store: &Store| -> Vec<u64> {
        let without = finder(store).without(&empty);
        without.into_iter().filter(|(name, _)| *name == segment.name).map(|(_, size)| size).collect()
    };
    assert_eq!(skipped(&store), [bytes.len() as u64], "of another size: not the file that is there");
    fill(&store, false);
    assert_eq!(skipped(&store), [bytes.len() as u64 - 20], "cut, and closed since another follows");
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle..middle + 32].iter_mut().for_each(|byte| *byte ^= 0x55);
    damaged.push(0);
    fs::write(&segment.path, damaged).unwrap();
    fill(&store, false);
    assert!(skipped(&store).is_empty(), "a damaged one is always read, so that it is told");
}
