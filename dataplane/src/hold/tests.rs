//! Holds over a real ring and recorder, with a disk in memory: what is written, in which order, with which
//! comment; and that all that was to be kept is accounted for.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::{Arc, Mutex};

use rules::{RuleSet, SourceFile};

use super::*;
use crate::flow::keeper::Keeper;
use crate::ledger::KeptAccount;
use crate::record::{Disk, RecordConfig, Recorder, SegmentReader, Writer, recorder};
use crate::source::{Interface, LinkType};

const S: Nanos = 1_000_000_000;
const LIMITS: CaptureLimits = CaptureLimits { packets: 1000, bytes: 1 << 30, nanos: 100 * S };

#[derive(Clone, Debug, Default)]
struct MemDisk(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Disk for MemDisk {
    fn create(&mut self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().insert(name.to_owned(), Vec::new());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _: &str) {}

    fn remove(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn is_there(&mut self, _: &str) -> bool {
        true
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(Vec::new())
    }
}

/// Holds and all they work with; flows are numbers, their chains are kept here.
struct Bench {
    holds: Holds,
    ring: Ring,
    keeper: Keeper,
    recorder: Recorder,
    writer: Writer,
    disk: MemDisk,
    rules: RuleSet,
    account: KeptAccount,
    newest: BTreeMap<u64, u64>,
    number: u64,
}

/// A packet as it was written: number, flow, length, comment.
type Written = (u64, u64, usize, String);

impl Bench {
    fn new(config: HoldConfig) -> Bench {
        let rule =
            |name| format!("rule \"{name}\" on rst then {{ incident(\"info\", `x`); capture(flow); }}\n");
        let text = [rule("first"), rule("second")].concat();
        let rules = RuleSet::load(&[SourceFile { name: "t.rhai".to_owned(), text }], &[]).unwrap();
        let disk = MemDisk::default();
        let (mut recorder, port) = recorder(&RecordConfig::default(), 0);
        recorder.announce(&Interface {
            name: "t".to_owned(),
            description: String::new(),
            link: LinkType::Ethernet,
            link_number: 1,
            snap_len: 0,
        });
        let ring = Ring::new(1 << 20);
        Bench {
            holds: Holds::new(&config, ring.largest()),
            writer: Writer::new(Box::new(disk.clone()), RecordConfig::default(), vec![port]).unwrap(),
            keeper: Keeper::new(4),
            account: KeptAccount::default(),
            newest: BTreeMap::new(),
            number: 0,
            ring,
            recorder,
            disk,
            rules,
        }
    }

    fn small() -> Bench {
        Bench::new(HoldConfig { holds: 3, pool_bytes: 1 << 20, per_rule_per_second: 9 })
    }

    /// One packet of a flow: into history, and to its hold.
    fn packet(&mut self, flow: u64, hold: Option<u32>, len: usize) -> u64 {
        let stamp = Stamp { ts: self.number, number: self.number, orig_len: len as u32, interface: 0 };
        let bytes = vec![self.number as u8; len];
        let newest = self.newest.entry(flow).or_insert(0);
        *newest = self.ring.append(*newest, &stamp, &bytes);
        if let Some(hold) = hold {
            let mut sink =
                Sink { recorder: &mut self.recorder, account: &mut self.account, comments: &self.rules };
            self.holds.live(hold, *newest, &stamp, &bytes, &mut sink);
        }
        self.number += 1;
        self.number - 1
    }

    /// A hit: begins or joins the hold of a flow that handshook in keeper slot 1.
    fn hit(&mut self, flow: u64, rule: u16, number: u64, tail: &[Remembered<'_>]) -> u32 {
        let hold = self.holds.take(rule, flow, 0).unwrap();
        self.holds.begin(hold, self.keeper.of(1), tail.iter().copied());
        self.holds.set_newest(hold, self.newest[&flow]);
        self.holds.raised(hold, rule, Event::Rst, Some(number));
        assert!(self.holds.ask(hold));
        hold
    }

    fn pump(&mut self, now: Nanos) {
        let mut sink =
            Sink { recorder: &mut self.recorder, account: &mut self.account, comments: &self.rules };
        self.holds.pump(&self.ring, now, &mut sink);
    }

    /// Closes everything; the law of the account, and what is on the disk.
    fn written(mut self) -> Vec<Written> {
        self.recorder.flush();
        self.writer.close();
        let mut packets = Vec::new();
        for file in self.disk.0.lock().unwrap().values() {
            let mut reader = SegmentReader::new(Cursor::new(file.clone())).unwrap();
            while let Some(p) = reader.next_packet() {
                assert!(p.bytes.iter().all(|&b| b == p.packet_id as u8), "its own bytes");
                packets.push((p.packet_id, p.flow_id, p.bytes.len(), p.comments.concat()));
            }
        }
        let lost: u64 = self.account.unwritten.iter().sum();
        assert_eq!(self.account.kept, packets.len() as u64 + lost);
        packets
    }
}

fn numbers(written: &[Written]) -> Vec<u64> {
    written.iter().map(|w| w.0).collect()
}

#[test]
fn handshake_tail_ring_and_live_packets_once_each_and_in_order() {
    let mut b = Bench::small();
    let stamp = |number| Stamp { ts: number, number, orig_len: 60, interface: 0 };
    // 0 and 1 are the handshake, answer first; 2 to 4 in the tail; the ring has 4 and later.
    b.keeper.keep(1, 0, &stamp(1), &[1; 60]);
    b.keeper.keep(1, 1, &stamp(0), &[0; 60]);
    b.number = 4;
    let raising = (0..3).map(|_| b.packet(7, None, 500)).last().unwrap();
    b.packet(8, None, 100);
    let cut = |number| Remembered {
        ts: number,
        number,
        orig_len: 500,
        interface: 0,
        bytes: &[[1; 50], [2; 50], [3; 50], [4; 50]][number as usize - 1],
    };
    let tail: Vec<_> = [1, 2, 3, 4].map(cut).into();
    let hold = b.hit(7, 1, raising, &tail);
    b.packet(7, Some(hold), 500);
    b.pump(0);
    b.packet(7, Some(hold), 500);
    b.holds.keep(7, LIMITS, 0);
    b.pump(0);
    b.packet(7, Some(hold), 500);
    let written = b.written();
    assert_eq!(numbers(&written), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]);
    let lengths: Vec<usize> = written.iter().map(|w| w.2).collect();
    assert_eq!(lengths, [60, 60, 50, 50, 500, 500, 500, 500, 500, 500], "what the ring has comes whole");
    let comments: Vec<&str> = written.iter().map(|w| &*w.3).collect();
    assert_eq!((comments[6], comments.concat().len()), ("referee: second (rst)", comments[6].len()));
}

#[test]
fn the_lead_up_is_bounded_and_the_limits_end_it() {
    let mut b = Bench::small();
    (0..300).for_each(|_| {
        b.packet(7, None, 60);
    });
    let hold = b.hit(7, 0, 299, &[]);
    b.holds.keep(7, CaptureLimits { packets: 3, ..LIMITS }, 0);
    b.pump(0);
    (0..10).for_each(|_| {
        b.packet(7, Some(hold), 60);
    });
    b.pump(0);
    assert!(b.holds.is_over(hold, 7));
    assert_eq!(numbers(&b.written()), (44..303).collect::<Vec<u64>>());
    for limits in [CaptureLimits { bytes: 200, ..LIMITS }, CaptureLimits { nanos: 3, ..LIMITS }] {
        let mut b = Bench::small();
        b.packet(7, None, 60);
        let hold = b.hit(7, 0, 0, &[]);
        b.holds.keep(7, limits, 0);
        b.pump(0);
        (0..10).for_each(|_| {
            b.packet(7, Some(hold), 60);
        });
        b.pump(11);
        assert_eq!((b.holds.in_use(), numbers(&b.written())), (0, vec![0, 1, 2, 3]));
    }
}

#[test]
fn a_hold_goes_when_every_hit_was_answered_with_release() {
    let two_hits = || {
        let mut b = Bench::small();
        b.packet(7, None, 60);
        let hold = b.hit(7, 0, 0, &[]);
        assert!(b.holds.ask(hold), "a second rule's hit");
        b
    };
    let mut b = two_hits();
    b.holds.release(7);
    b.pump(0);
    assert_eq!(b.holds.in_use(), 1);
    b.holds.release(7);
    b.pump(0);
    assert_eq!((b.holds.in_use(), b.written()), (0, vec![]));
    // The first lets go, the second keeps, in one round or in two.
    for pumps in [0, 1] {
        let mut b = two_hits();
        b.holds.release(7);
        (0..pumps).for_each(|_| b.pump(0));
        b.holds.keep(7, LIMITS, 0);
        b.holds.release(7);
        b.pump(0);
        b.holds.release(7);
        b.pump(0);
        assert_eq!((b.holds.in_use(), numbers(&b.written())), (1, vec![0]));
    }
    let mut b = Bench::small();
    b.packet(7, None, 60);
    let hold = b.hit(7, 0, 0, &[]);
    b.holds.keep(7, LIMITS, 0);
    assert!(!b.holds.ask(hold), "decided: nobody needs to answer");
    b.holds.keep(99, LIMITS, 0);
    b.holds.release(99);
}

#[test]
fn a_verdict_that_never_comes_and_a_flow_that_ended() {
    let mut b = Bench::small();
    b.packet(7, None, 60);
    b.packet(8, None, 60);
    b.hit(7, 0, 0, &[]);
    let ended = b.hit(8, 0, 1, &[]);
    b.holds.ended(ended);
    b.pump(1);
    assert_eq!(b.holds.in_use(), 2, "an ended flow still waits for the judge");
    b.holds.keep(8, LIMITS, 1);
    b.pump(VERDICT_WITHIN);
    assert_eq!((b.holds.in_use(), b.holds.unanswered), (1, 0));
    b.pump(VERDICT_WITHIN + LOOK_EVERY);
    assert_eq!((b.holds.in_use(), b.holds.unanswered), (0, 1));
    assert_eq!(numbers(&b.written()), [1]);
}

#[test]
fn budgets_slots_and_what_is_left_at_the_end() {
    let mut b = Bench::new(HoldConfig { holds: 3, pool_bytes: 1 << 20, per_rule_per_second: 2 });
    b.packet(1, None, 60);
    assert!(b.holds.take(0, 1, 5).is_some() && b.holds.take(0, 2, 6).is_some());
    assert_eq!((b.holds.take(0, 3, 7), b.holds.refused_budget), (None, 1));
    assert!(b.holds.take(0, 3, S).is_some(), "a second later");
    assert_eq!((b.holds.take(1, 4, S), b.holds.refused_full), (None, 1));
    assert_eq!((b.holds.take(99, 4, S), b.holds.taken_total), (None, 3));
    b.holds.keep(2, LIMITS, S);
    b.holds.release_undecided();
    b.pump(S);
    assert_eq!(b.holds.in_use(), 0);
    assert!((5..8).all(|flow| b.holds.take(0, flow, flow * S).is_some()), "all slots are free again");
}

#[test]
fn a_full_pool_is_accounted() {
    for verdict_first in [false, true] {
        let mut b = Bench::new(HoldConfig { holds: 2, pool_bytes: 3 * PAGE, per_rule_per_second: 9 });
        b.packet(7, None, 1000);
        let hold = b.hit(7, 0, 0, &[]);
        b.pump(0);
        if verdict_first {
            b.holds.keep(7, LIMITS, 0);
            b.pump(0);
        }
        (0..30).for_each(|_| {
            b.packet(7, Some(hold), 1000);
        });
        b.holds.keep(7, LIMITS, 0);
        b.pump(0);
        b.holds.ended(hold);
        b.pump(0);
        let lost = b.account.unwritten[UnwrittenReason::HoldPoolFull as usize];
        assert_eq!((b.account.kept, b.holds.in_use()), (31, 0));
        assert_eq!(lost > 0, !verdict_first, "{lost}");
        b.written();
    }
}
