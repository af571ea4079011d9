//! Packets that change hands between threads, compared with what one merge of all sources gives.

use std::thread;

use proptest::prelude::*;

use super::super::lane::{Lane, Numbered};
use super::super::synthetic::Synthetic;
use super::super::{BATCH, LinkType, Marks};
use super::*;

/// A frame between the hosts of pair `n`, in either direction, with a number of its own.
fn frame(n: u8, back: bool, number: u32) -> Vec<u8> {
    let hosts = [[10, 1, 0, n], [10, 2, n, 7]];
    let [src, dst] = if back { [hosts[1], hosts[0]] } else { hosts };
    let mut bytes = [&[2; 12][..], &[8, 0, 0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0]].concat();
    bytes.extend(src.into_iter().chain(dst));
    bytes.extend(number.to_be_bytes());
    // Of all lengths, so that records end anywhere.
    bytes.extend(vec![n; number as usize % 23]);
    bytes
}

fn interfaces(count: usize) -> Arc<[Interface]> {
    let interface = |n| Interface {
        name: format!("tap{n}"),
        description: "synthetic".to_owned(),
        link: LinkType::Ethernet,
        link_number: 1,
        snap_len: 0,
    };
    (0..count).map(interface).collect()
}

type Seen = Vec<(Nanos, u16, Vec<u8>)>;

fn drain<S: Source>(lane: &mut S) -> Seen {
    let mut batch = Batch::new();
    let mut seen = Vec::new();
    loop {
        match lane.poll(&mut batch) {
            Poll::Packets => {
                assert!(batch.packets.len() <= BATCH);
                seen.extend(batch.packets.iter().map(|p| (p.ts, p.interface, lane.bytes(p).to_vec())));
            }
            Poll::Idle(_) => thread::yield_now(),
            Poll::End => return seen,
        }
        lane.release(&mut batch);
    }
}

/// What each worker sees, and how many of its packets changed hands, were lost, and came late.
fn dispatched(sources: Vec<Vec<Synthetic>>) -> Vec<(Seen, WorkerAccount, u64)> {
    let queues = sources.iter().map(Vec::len).sum();
    let all = interfaces(queues);
    let ends = ends(sources.len(), |_, work| work()).unwrap();
    let mut interface = 0;
    let mut lanes = Vec::new();
    for (sources, ends) in sources.into_iter().zip(ends) {
        let mut number = |source| {
            interface += 1;
            Numbered { source, interface: interface - 1, all: Arc::clone(&all) }
        };
        let queues = sources.into_iter().map(&mut number).collect();
        lanes.push(Lane::new(queues, Some(ends), None, &all));
    }
    thread::scope(|scope| {
        let run = |mut lane: Lane<Numbered<Synthetic>>| {
            let seen = drain(&mut lane);
            let mut account = WorkerAccount::default();
            lane.add_to(&mut account);
            (seen, account, lane.late())
        };
        let threads: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(move || run(lane))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The hosts of a frame, whatever its direction.
fn pair(bytes: &[u8]) -> [u8; 4] {
    let (a, b) = (&bytes[26..30], &bytes[30..34]);
    if a < b { a.try_into().unwrap() } else { b.try_into().unwrap() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// All packets come out, each at one worker, all of a pair of hosts at the same, in order of time.
    #[test]
    fn workers_see_together_what_one_would_see(
        workers in 1usize..4,
        queues in 1usize..3,
        steps in prop::collection::vec((1u64..50, 0usize..6, 0u8..12, any::<bool>(), 0u8..10), 0..900),
    ) {
        let mut sources: Vec<Vec<Synthetic>> = (0..workers)
            .map(|_| (0..queues).map(|_| Synthetic::new("s")).collect())
            .collect();
        let mut wanted: Seen = Vec::new();
        let mut now = 0;
        for (number, (step, queue, n, back, idle)) in steps.into_iter().enumerate() {
            // No two of the same time: only then is there one order alone.
            now += step;
            let queue = queue % (workers * queues);
            let bytes = frame(n, back, number as u32);
            let source = &mut sources[queue / queues][queue % queues];
            source.push(now, &bytes, LinkType::Ethernet);
            if idle == 0 {
                source.idle(now);
            }
            wanted.push((now, queue as u16, bytes));
        }
        let seen = dispatched(sources);
        let mut homes = std::collections::BTreeMap::new();
        for (worker, (packets, account, late)) in seen.iter().enumerate() {
            prop_assert_eq!((*late, account.received), (0, 0));
            prop_assert!(packets.is_sorted_by_key(|packet| packet.0));
            for (_, _, bytes) in packets {
                prop_assert_eq!(*homes.entry(pair(bytes)).or_insert(worker), worker);
            }
        }
        let mut all: Seen = seen.into_iter().flat_map(|(packets, _, _)| packets).collect();
        all.sort_by_key(|packet| packet.0);
        prop_assert_eq!(all, wanted);
    }
}

#[test]
fn what_finds_a_full_ring_is_lost_by_name_and_the_books_balance() {
    let mut source = Synthetic::new("s");
    // More than a ring holds, for a worker that does not look.
    let sent = 4 * RING.0 as u64 / 1000;
    for n in 0..sent {
        let bytes = [frame((n % 200) as u8, false, n as u32), vec![0; 1000]].concat();
        source.push(n, &bytes, LinkType::Ethernet);
    }
    let all = interfaces(1);
    let mut ends = ends(2, |_, work| work()).unwrap().into_iter();
    let queue = Numbered { source, interface: 0, all: Arc::clone(&all) };
    let (mut busy, mut inboxes) = ends.next().unwrap().join(queue, None, &all);
    let (_, mut others) = ends.next().unwrap().join(Synthetic::new("none"), None, &all);
    let own = drain(&mut busy).len() as u64;
    let mut account = WorkerAccount::default();
    busy.add_to(&mut account);
    let lost = account.dropped[DropReason::HandoverFull as usize];
    assert!(lost > 0 && account.handed_over > 0 && own > 0, "{account:?}");
    assert_eq!(account.received, lost, "they are the account of who took them");
    assert_eq!(own + account.handed_over + lost, sent);
    let handed = drain(&mut others[0]);
    assert_eq!(handed.len() as u64, account.handed_over);
    assert!(handed.is_sorted_by_key(|packet| packet.0), "those there was room for, in order");
    assert!(drain(&mut inboxes[0]).is_empty(), "the other is dropped and gives nothing");
}

#[test]
fn a_packet_keeps_what_is_known_of_it() {
    let all = interfaces(3);
    let clock = Arc::new(CaptureClock::with_offset(0));
    let mut ends = ends(2, |_, work| work()).unwrap().into_iter();
    let (mut from, _) = ends.next().unwrap().join(Synthetic::new("s"), Some(&clock), &all);
    let (_, mut inboxes) = ends.next().unwrap().join(Synthetic::new("t"), Some(&clock), &all);
    let packet = Descriptor {
        ts: u64::MAX - 5,
        handle: 0,
        cap_len: 4,
        orig_len: u32::MAX,
        interface: 2,
        link: LinkType::Ethernet,
        marks: Marks::COALESCED.with(Marks::UNCHECKED),
    };
    let out = from.outs[1].as_mut().unwrap();
    assert!(out.ring.push(inbox::packed(&packet), b"abcd"));
    let mut batch = Batch::new();
    assert!(matches!(inboxes[0].poll(&mut batch), Poll::Idle(_)), "not told yet");
    from.tell(7);
    assert_eq!(inboxes[0].poll(&mut batch), Poll::Packets);
    let got = batch.packets[0];
    assert_eq!(inboxes[0].bytes(&got), b"abcd");
    let same = Descriptor { handle: got.handle, ..packet };
    assert_eq!(format!("{got:?}"), format!("{same:?}"));
    inboxes[0].release(&mut batch);
    // A sender that stands still is waited for only so long: the clock is far beyond what it told.
    let Poll::Idle(first) = inboxes[0].poll(&mut batch) else { panic!("nothing came") };
    assert!(first > 7);
}

#[test]
fn only_a_sleeper_is_woken() {
    let bell = Bell::new().unwrap();
    let rung = || {
        let mut count = [0; 8];
        rustix::io::read(bell.as_fd(), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    };
    bell.ring();
    assert_eq!(rung(), 0);
    bell.sleeps(true);
    bell.ring();
    bell.ring();
    assert_eq!(rung(), 1, "once a sleep");
    bell.sleeps(true);
    bell.sleeps(false);
    bell.ring();
    assert_eq!(rung(), 0);
}
