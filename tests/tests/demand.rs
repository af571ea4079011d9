//! Captures on demand: out of history and from now on, each packet once, within limits, and all of it in the books.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::demand::{Counts, DEMANDS, Demand, Over};
use dataplane::filter::Selection;
use dataplane::ledger::UnwrittenReason;
use dataplane::record::{RecordConfig, SegmentReader};
use dataplane::source::LinkType;
use dataplane::source::synthetic::Synthetic;
use dataplane::worker::Step;
use tests::captures;
use tests::disk::MemDisk;
use tests::{Outcome, Pipeline, Setup};
use wiregen::packet::{self, ACK, Ethernet, Ip, PSH, SYN, TcpHeader};
use wiregen::scenario::{Options, Packet, START};

const SECOND: u64 = 1_000_000_000;
const ALL: u64 = u64::MAX;

/// `None` where there is no libpcap, which is said.
fn selection(expression: &str) -> Option<Selection> {
    match Selection::new(expression, &[1]) {
        Err(error) if error.is_library() => {
            println!("skipped: no libpcap on this host");
            None
        }
        selection => Some(selection.unwrap()),
    }
}

fn demand(id: u64, expression: &str, time: (u64, u64), most: (u64, u64)) -> Option<Arc<Demand>> {
    Some(Arc::new(Demand::new(id, selection(expression)?, time, most, 1)))
}

/// A run in which nobody finds anything, with all of every packet in history.
fn setup(history_bytes: usize, chunks: usize) -> (Setup, MemDisk) {
    let disk = MemDisk::new();
    let config = WorkerConfig { history_bytes, cutoff_bytes: ALL, ..WorkerConfig::small() };
    let rules = tests::run::load(&[], &[]);
    let record = RecordConfig { chunk_bytes: 64 << 10, chunks, ..RecordConfig::default() };
    (Setup::with(config, rules).recording(record, disk.clone()), disk)
}

/// Input numbers of the packets on a disk, by demand, in the order in which they were written.
fn on_disk(disk: &MemDisk) -> BTreeMap<u64, Vec<u64>> {
    let mut all: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for bytes in disk.files().into_values() {
        let mut reader = SegmentReader::new(Cursor::new(bytes)).unwrap();
        while let Some(packet) = reader.next_packet() {
            all.entry(packet.flow_id).or_default().push(packet.packet_id << 8 >> 8);
        }
    }
    all
}

/// Runs it; `each` is called before each step with the packets received so far.
fn run(packets: &[Packet], setup: Setup, mut each: impl FnMut(&mut Pipeline<Synthetic>, u64)) -> Outcome {
    let mut pipeline = Pipeline::new(captures::synthetic(packets), setup);
    loop {
        let received = pipeline.worker.account().received;
        each(&mut pipeline, received);
        let step = pipeline.worker.step();
        pipeline.hear(usize::MAX);
        if step == Step::Done {
            return pipeline.finish();
        }
    }
}

#[test]
fn past_and_present_make_a_whole() {
    let (packets, _) = captures::mix_of(1500, 41);
    let end = packets.last().unwrap().ts;
    let span = end - START;
    for (nth, expression) in ["", "tcp port 443", "udp", "tcp[tcpflags] & tcp-syn != 0"].iter().enumerate() {
        // In the middle of a batch of packets of one time, and over all or parts of the time.
        for (since, until) in [(0, ALL), (START + span / 4, START + span * 3 / 4), (START + span / 2, START)]
        {
            let Some(demand) = demand(7, expression, (since, until), (ALL, ALL)) else { return };
            let (setup, disk) = setup(32 << 20, 64);
            let at = (packets.len() / 2 + nth * 100) as u64;
            let mut offered = false;
            let outcome = run(&packets, setup, |pipeline, received| {
                if received >= at && !offered {
                    offered = pipeline.demand(&demand);
                }
                pipeline.write();
            });
            let wanted = packets.iter().enumerate().filter(|(_, packet)| {
                let length = packet.bytes.len() as u32;
                let wants = demand.selection.wants(LinkType::Ethernet, 1, &packet.bytes, length);
                wants && (since..=until).contains(&packet.ts)
            });
            let wanted: Vec<u64> = wanted.map(|(number, _)| number as u64).collect();
            let mut kept = on_disk(&disk).remove(&7).unwrap_or_default();
            kept.sort_unstable();
            assert_eq!(kept, wanted, "{expression}, {since} to {until}");
            let counts = demand.counts();
            assert_eq!((counts.kept, counts.refused, counts.lapped), (wanted.len() as u64, 0, 0));
            assert!(counts.done && counts.scanned && counts.reached_ns == since, "{counts:?}");
            assert_eq!(outcome.account.kept.kept, counts.kept);
            assert_eq!(demand.over().is_some(), until == ALL, "what had no end was ended by that of the run");
        }
    }
}

#[test]
fn it_is_done_when_all_is_on_the_disk() {
    let (packets, _) = captures::mix_of(300, 42);
    let middle = packets[packets.len() / 2].ts;
    let Some(demand) = demand(7, "", (0, middle), (ALL, ALL)) else { return };
    let (setup, disk) = setup(32 << 20, 400);
    let mut pipeline = Pipeline::new(captures::synthetic(&packets), setup);
    assert!(pipeline.demand(&demand));
    while pipeline.worker.now() < packets.last().unwrap().ts {
        pipeline.worker.step();
        pipeline.hear(usize::MAX);
        assert!(!demand.counts().done, "nobody has written anything");
    }
    pipeline.write();
    let written = on_disk(&disk)[&7].len() as u64;
    pipeline.worker.step();
    let counts = demand.counts();
    assert!(counts.done && counts.kept == written, "{counts:?} {written}");
    assert!(written > packets.len() as u64 / 2);
    assert_eq!((demand.over(), Arc::strong_count(&demand)), (None, 1));
    pipeline.run();
}

/// `count` segments of a connection's data, 1 ms apart, with `payload` in them.
fn segments(count: u64, payload: &[u8]) -> Vec<Packet> {
    let address = |last| std::net::IpAddr::from([10, 0, 0, last]);
    let segment = |number: u64| {
        let ip = Ip { src: address(1), dst: address(2), ttl: 64, id: number as u16, dont_fragment: true };
        let tcp = TcpHeader {
            sport: 40_000,
            dport: 8080,
            seq: (number as u32).wrapping_mul(payload.len() as u32),
            ack: 1,
            flags: if number == 0 { SYN } else { ACK | PSH },
            window: 1000,
            options: &[],
        };
        let mut bytes = Vec::new();
        packet::tcp(&mut bytes, &Ethernet::default(), &ip, &tcp, payload);
        Packet { ts: START + number * 1_000_000, bytes }
    };
    (0..count).map(segment).collect()
}

#[test]
fn history_that_is_overtaken_is_missed_and_counted() {
    let packets = segments(4000, &[7; 1000]);
    let Some(demand) = demand(7, "port 8080", (0, START + 2_500_000_000), (ALL, ALL)) else { return };
    let (setup, disk) = setup(1 << 20, 16);
    let mut offered = false;
    run(&packets, setup, |pipeline, received| {
        // The writer sleeps while the ring, which has room for 1,000 packets, is written over more than once.
        if received >= 500 && !offered {
            offered = pipeline.demand(&demand);
        }
        if !(400..3000).contains(&received) {
            pipeline.write();
        }
    });
    let counts = demand.counts();
    let mut kept = on_disk(&disk).remove(&7).unwrap();
    let all = kept.len();
    kept.sort_unstable();
    kept.dedup();
    assert_eq!(kept.len(), all, "each once");
    assert!(counts.refused > 0 && counts.scanned, "{counts:?}");
    assert_eq!(counts.kept, all as u64);
    // From the beginning of what was asked: some of it was there, but the store had no room until it was gone.
    let (setup, _) = setup_without_room();
    let late = Arc::new(Demand::new(8, selection("port 8080").unwrap(), (0, ALL), (ALL, ALL), 1));
    let mut offered = false;
    run(&packets, setup, |pipeline, received| {
        if received >= 500 && !offered {
            offered = pipeline.demand(&late);
        }
    });
    let counts = late.counts();
    assert!(counts.lapped > 100_000 && counts.reached_ns > START, "{counts:?}");
}

/// Of two chunks, one is filled and nobody empties it.
fn setup_without_room() -> (Setup, MemDisk) {
    setup(1 << 20, 2)
}

#[test]
fn limits_hold_and_incidents_have_the_rest_of_the_room() {
    let packets = segments(3000, &[7; 1000]);
    for (most, packets_kept) in [((50, ALL), 50), ((ALL, 10_540), 10), ((0, 0), 0)] {
        let Some(demand) = demand(7, "", (0, ALL), most) else { return };
        let (setup, disk) = setup(8 << 20, 64);
        let mut offered = false;
        run(&packets, setup, |pipeline, received| {
            if received >= 100 && !offered {
                offered = pipeline.demand(&demand);
            }
            pipeline.write();
        });
        let counts = demand.counts();
        assert_eq!((counts.kept, demand.over()), (packets_kept, Some(Over::Full)), "{counts:?}");
        assert_eq!(on_disk(&disk).remove(&7).unwrap_or_default().len() as u64, packets_kept);
        assert!(counts.bytes <= most.1);
    }
    // Eight chunks of 64 KiB and nobody writes: two of them are not the demand's.
    let Some(demand) = demand(7, "", (ALL, ALL), (ALL, ALL)) else { return };
    let demand = Arc::new(Demand::new(demand.id, demand.selection.clone(), (START, ALL), (ALL, ALL), 1));
    let (setup, _) = setup(1 << 20, 8);
    let mut offered = false;
    let mut free = usize::MAX;
    let outcome = run(&packets, setup, |pipeline, _| {
        offered = offered || pipeline.demand(&demand);
        free = free.min(pipeline.worker.recorder().unwrap().free_chunks());
    });
    let counts = demand.counts();
    assert_eq!((free, counts.kept + counts.refused), (2, packets.len() as u64), "{counts:?}");
    assert_eq!(outcome.account.kept.unwritten[UnwrittenReason::NoChunk as usize], counts.refused);
}

#[test]
fn several_at_once_and_each_can_be_ended() {
    let packets = segments(2000, &[7; 100]);
    let mut demands = Vec::new();
    for id in 1..=2 * DEMANDS as u64 {
        let Some(demand) = demand(id, "tcp", (0, ALL), (ALL, ALL)) else { return };
        demands.push(demand);
    }
    let (setup, disk) = setup(8 << 20, 64);
    let mut waiting = demands.iter();
    let mut counts_at_end = BTreeMap::new();
    run(&packets, setup, |pipeline, received| {
        pipeline.write();
        if received >= 100 * (2 * DEMANDS - waiting.len()) as u64
            && let Some(next) = waiting.as_slice().first()
            && pipeline.demand(next)
        {
            waiting.next();
        }
        // One after the other makes room for the next.
        for demand in &demands[..DEMANDS] {
            let counts = demand.counts();
            if counts.kept > 300 * demand.id {
                demand.end(Over::Ended);
                counts_at_end.entry(demand.id).or_insert(counts.kept);
            }
        }
    });
    let kept = on_disk(&disk);
    for demand in &demands {
        let Counts { kept: count, done, .. } = demand.counts();
        assert!(done && Arc::strong_count(demand) == 1);
        assert_eq!(kept.get(&demand.id).map_or(0, |packets| packets.len() as u64), count);
        if let Some(before) = counts_at_end.get(&demand.id) {
            assert_eq!(count, *before, "what is ended keeps nothing more");
        } else {
            assert_eq!(count, packets.len() as u64, "history and the rest");
        }
    }
}

#[test]
fn no_byte_of_payload_reaches_the_store() {
    const MARK: [u8; 8] = *b"*SECRET*";
    let mut packets = segments(200, &MARK);
    let names = ["rst_midflow", "icmp_frag_needed", "rst_after_idle", "tls_timeout"];
    let found = names.iter().filter(|name| wiregen::scenario::NAMES.contains(name));
    for name in found {
        packets.extend(captures::scenario(name, &Options::default()).0);
    }
    // Whatever they carry, in a frame that is none of IP's, and in a later fragment.
    let mut stray = [&[2; 12][..], &[0x88, 0xb5], &[0; 6]].concat();
    stray.extend(MARK.repeat(20));
    let mut later = [&[2; 12][..], &[8, 0, 0x45, 0, 0, 60, 0, 9, 0, 3, 64, 17, 0, 0], &[10; 8]].concat();
    later.extend(MARK.repeat(5));
    packets.extend([stray, later].map(|bytes| Packet { ts: START + SECOND, bytes }));
    packets.sort_by_key(|packet| packet.ts);
    let whole = |payload_bytes| {
        let (mut setup, disk) = setup(8 << 20, 64);
        setup.config.payload_bytes = payload_bytes;
        // What is found is kept too.
        setup.rules = tests::shipped_rules();
        let demand = demand(7, "", (0, ALL), (ALL, ALL));
        let mut offered = false;
        let outcome = run(&packets, setup, |pipeline, received| {
            pipeline.write();
            if let Some(demand) = &demand
                && !offered
                && received > 100
            {
                offered = pipeline.demand(demand);
            }
        });
        let mut marks = 0;
        let mut bytes = 0;
        for file in disk.files().into_values() {
            let mut reader = SegmentReader::new(Cursor::new(file)).unwrap();
            while let Some(packet) = reader.next_packet() {
                marks += packet.bytes.windows(MARK.len()).filter(|bytes| *bytes == MARK).count();
                bytes += packet.bytes.len();
                let original = &packets[(packet.packet_id << 8 >> 8) as usize].bytes;
                assert_eq!(packet.orig_len as usize, original.len());
            }
        }
        let rows: Vec<String> = outcome.rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        (marks, bytes, rows, outcome.incidents.len())
    };
    let (marks, bytes, rows, incidents) = whole(None);
    assert!(marks > 100 && incidents > 0, "{marks} {incidents}");
    let (none, fewer, same, same_incidents) = whole(Some(0));
    assert_eq!(none, 0);
    assert!(fewer < bytes);
    assert!(rows == same && incidents == same_incidents, "what is found does not depend on what is kept");
    let (again, ..) = whole(Some(MARK.len() as u32));
    assert!(again > 0);
}
