//! `wiregen` on a wire: files arrive in order, byte for byte and not before their time; floods are counted exactly.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dataplane_sys::bpf::{Arrival, XdpMode, attach_xdp, run_once, xdp_state};
use dataplane_sys::xsk::Statistics;
use tests::live::{Namespace, Shape, VethPair, need_root};
use tests::tap::{Sizes, Tap};
use wiregen::check;
use wiregen::wire::flood::{self, Flood};
use wiregen::wire::send::{self, Pace, Replay};
use wiregen::wire::{Error, Summary};
use wiregen::write::{Format, Style, Writer};
use xdp_prog::Capture;

const MS: u64 = 1_000_000;
const START: u64 = 1_760_000_000_000 * MS;
const NG: Style = Style { format: Format::Pcapng, nanoseconds: true, big_endian: false };

/// A frame that tells which it is.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend(number.to_be_bytes());
    frame.resize(len, number as u8);
    frame
}

/// Packets as a capture file in this folder.
fn file(folder: &Path, name: &str, packets: &[(u64, Vec<u8>)]) -> PathBuf {
    let path = folder.join(name);
    let mut writer = Writer::new(Vec::new(), NG).unwrap();
    for (ts, bytes) in packets {
        writer.packet(START + ts, bytes).unwrap();
    }
    fs::write(&path, writer.finish().unwrap()).unwrap();
    path
}

/// Numbered packets of several lengths at these times (ms).
fn numbered(times: &[u64]) -> Vec<(u64, Vec<u8>)> {
    let lengths = [60, 64, 333, 1514, 18];
    let packet = |(i, ms): (usize, &u64)| (ms * MS, frame(i as u32, lengths[i % lengths.len()]));
    times.iter().enumerate().map(packet).collect()
}

/// Sends files into a tap; what was sent must be what the interface took.
fn send(tap: &mut Tap, files: &[PathBuf], pace: Pace, loops: u64) -> Summary {
    let options = send::Options { interface: tap.pair.wire.name.clone(), files: files.to_vec(), pace, loops };
    let summary = tap.namespace.run(|| {
        let mut replay = Replay::open(options).unwrap();
        replay.run(&AtomicBool::new(false), &mut |_, _, _| {}).unwrap();
        replay.summary()
    });
    tap.expect(summary.sent);
    summary
}

/// The bytes of all packets received, and their stamps.
fn received(tap: &mut Tap) -> Vec<(u64, Vec<u8>)> {
    tap.receive();
    let all = tap.hand.iter().map(|one| (tap.socket.stamp(one), tap.socket.bytes(one).to_vec())).collect();
    tap.give_back();
    all
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[test]
fn a_file_arrives_in_order_and_no_packet_before_its_time() {
    if !need_root("a file on a wire") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let times = [0, 0, 1, 5, 6, 40, 41, 90, 150];
    let packets = numbered(&times);
    // Two files, merged by time.
    let (even, odd): (Vec<_>, Vec<_>) = packets.iter().cloned().enumerate().partition(|(i, _)| i % 2 == 0);
    let strip = |some: Vec<(usize, (u64, Vec<u8>))>| some.into_iter().map(|(_, one)| one).collect::<Vec<_>>();
    let files = [file(folder.path(), "even", &strip(even)), file(folder.path(), "odd", &strip(odd))];
    let mut tap = Tap::new(Sizes::default());
    for speed in [1.0, 5.0] {
        let before = monotonic_ns();
        let summary = send(&mut tap, &files, Pace::File { speed }, 1);
        let got = received(&mut tap);
        assert!(got.iter().map(|(_, bytes)| bytes).eq(packets.iter().map(|(_, bytes)| bytes)));
        for ((stamp, _), (ts, _)) in got.iter().zip(&packets) {
            assert!(*stamp >= before + (*ts as f64 / speed) as u64, "sent too early at speed {speed}");
        }
        let bytes: usize = packets.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!((summary.sent, summary.errors, summary.bytes), (9, 0, bytes as u64));
        assert!(summary.seconds >= 0.150 / speed && summary.seconds < 20.0, "{summary:?}");
    }
}

#[test]
fn a_rate_and_loops_take_the_time_they_should() {
    if !need_root("a file at a rate") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // An hour in the file.
    let files = [file(folder.path(), "slow", &numbered(&[0, 1_800_000, 3_600_000]))];
    let mut tap = Tap::new(Sizes::default());
    let summary = send(&mut tap, &files, Pace::Rate { pps: 200.0 }, 7);
    assert_eq!(received(&mut tap).len(), 21);
    assert!(summary.seconds >= 20.0 / 200.0, "{summary:?}");
    let summary = send(&mut tap, &files, Pace::Full, 20);
    let numbers: Vec<u8> = received(&mut tap).iter().map(|(_, bytes)| bytes[17]).collect();
    assert_eq!(numbers, [0, 1, 2].repeat(20));
    assert!(summary.seconds < 20.0, "{summary:?}");
    // A loop begins when the one before has ended.
    let files = [file(folder.path(), "short", &numbered(&[0, 20]))];
    let summary = send(&mut tap, &files, Pace::File { speed: 1.0 }, 3);
    assert!(summary.sent == 6 && summary.seconds >= 0.060, "{summary:?}");
    assert_eq!(received(&mut tap).len(), 6);
    assert_eq!(tap.statistics(), Statistics::default());
}

#[test]
fn what_cannot_be_sent_is_counted_and_said() {
    if !need_root("frames nobody can send") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut packets = numbered(&[0, 1, 2, 3]);
    packets[1].1 = frame(1, 1600);
    packets[2].1.truncate(10);
    let path = file(folder.path(), "odd.pcapng", &packets);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let mut tap = Tap::new(Sizes::default());
    let summary = send(&mut tap, &[path], Pace::Full, 1);
    assert_eq!((summary.sent, summary.errors, summary.too_long), (1, 2, Some(1)), "{summary:?}");
    let notes = summary.notes.join("\n");
    for wanted in ["1600 bytes", "mtu 1586", "refused by wire0", "odd.pcapng", "damaged"] {
        assert!(notes.contains(wanted), "{notes}");
    }
    assert_eq!(received(&mut tap).len(), 1);
}

#[test]
fn what_has_no_ethernet_header_is_refused() {
    if !need_root("a capture of another link type") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "raw.pcapng", &numbered(&[0]));
    let mut bytes = fs::read(&path).unwrap();
    // The interface's link type, behind the section header and the block's own.
    assert_eq!(bytes[36], 1);
    bytes[36] = 101;
    fs::write(&path, bytes).unwrap();
    let tap = Tap::new(Sizes::default());
    let options = |file: &Path| send::Options {
        interface: tap.pair.wire.name.clone(),
        files: vec![file.to_owned()],
        pace: Pace::Full,
        loops: 2,
    };
    tap.namespace.run(|| {
        let mut replay = Replay::open(options(&path)).unwrap();
        let error = replay.run(&AtomicBool::new(false), &mut |_, _, _| {}).unwrap_err();
        assert!(matches!(error, Error::Failed(_)) && error.to_string().contains("Ethernet"), "{error}");
        assert_eq!(replay.summary().sent, 0);
        let usage = |options| matches!(Replay::open(options), Err(Error::Usage(_)));
        assert!(usage(options(Path::new("-"))), "standard input can't be read twice");
        assert!(usage(send::Options { pace: Pace::File { speed: 0.0 }, ..options(&path) }));
        let nowhere = send::Options { interface: "wire9".to_owned(), ..options(&path) };
        assert!(matches!(Replay::open(nowhere), Err(Error::Unavailable(_))));
        let missing = Replay::open(options(&folder.path().join("missing"))).err().unwrap();
        assert!(missing.to_string().contains("missing: no such file"), "{missing}");
    });
}

/// Sets the stop while `work` runs; says how long that took to end afterwards.
fn stopped(work: impl FnOnce(&AtomicBool) + Send) -> Duration {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let work = scope.spawn(|| work(&stop));
        thread::sleep(Duration::from_millis(50));
        let set = Instant::now();
        stop.store(true, Ordering::Relaxed);
        work.join().unwrap();
        set.elapsed()
    })
}

#[test]
fn a_stop_ends_it_soon_and_what_was_sent_is_known() {
    if !need_root("stopping") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "long", &numbered(&[0, 3_600_000]));
    let mut tap = Tap::new(Sizes::default());
    let wire = tap.pair.wire.name.clone();
    let (mut file, mut flooded) = (Summary::default(), Summary::default());
    let options = send::Options {
        interface: wire.clone(),
        files: vec![path],
        pace: Pace::File { speed: 1.0 },
        loops: 1,
    };
    let late = stopped(|stop| {
        file = tap.namespace.run(|| {
            let mut replay = Replay::open(options).unwrap();
            replay.run(stop, &mut |_, _, _| {}).unwrap();
            replay.summary()
        });
    });
    assert!(late < Duration::from_secs(5), "{late:?}");
    let late = stopped(|stop| {
        flooded = tap.namespace.run(|| {
            let mut flood = Flood::open(flood::Options { interface: wire, ..Default::default() }).unwrap();
            flood.run(stop).unwrap();
            flood.summary()
        });
    });
    assert!(late < Duration::from_secs(5), "{late:?}");
    assert!(file.sent == 1 && flooded.sent > 0, "{file:?} {flooded:?}");
    tap.expect(1 + flooded.sent);
    tap.statistics();
    assert_eq!(tap.tallies().seen(), 1 + flooded.sent);
}

#[test]
fn a_flood_out_of_an_interface_is_what_its_peer_counts() {
    if !need_root("a flood through a veth") {
        return;
    }
    let mut tap = Tap::new(Sizes { ring: 1024, ..Sizes::default() });
    for (size, tcp, packets) in [(60, false, 100_003), (1514, true, 20_000), (60, true, 1)] {
        let before = tap.redirected();
        let options = flood::Options {
            interface: tap.pair.wire.name.clone(),
            size,
            tcp,
            flows: 500,
            packets: Some(packets),
            ..flood::Options::default()
        };
        let summary = tap.namespace.run(|| run_flood(options));
        assert_eq!(summary.sent + summary.errors, packets);
        assert_eq!(summary.bytes, summary.sent * size as u64);
        tap.expect(summary.sent);
        let after = tap.redirected();
        assert_eq!(
            (after.packets - before.packets, after.bytes - before.bytes),
            (summary.sent, summary.bytes)
        );
        assert_flows(&received(&mut tap), size, tcp);
    }
}

fn run_flood(options: flood::Options) -> Summary {
    let mut flood = Flood::open(options).unwrap();
    flood.run(&AtomicBool::new(false)).unwrap();
    flood.summary()
}

/// All are of the size, valid, and each of the flow after the last one's.
fn assert_flows(packets: &[(u64, Vec<u8>)], size: usize, tcp: bool) {
    for (i, (_, bytes)) in packets.iter().enumerate() {
        let seen = check::read(bytes).unwrap();
        assert_eq!((bytes.len(), seen.protocol), (size, if tcp { 6 } else { 17 }));
        assert_eq!(usize::from(seen.sport), 1024 + i % 500);
    }
}

#[test]
fn a_direct_flood_is_what_the_attached_program_counts() {
    if !need_root("a direct flood") {
        return;
    }
    for (mtu, mode) in [(1500, XdpMode::Native), (9000, XdpMode::Native), (1500, XdpMode::Generic)] {
        let mut tap = Tap::new(Sizes { mtu, mode, ring: 1024, ..Sizes::default() });
        let interface = tap.pair.tap.name.clone();
        for (flows, packets) in [(500, 100_003), (1, 20_000), (500, 1)] {
            let before = tap.tallies().seen();
            let options = flood::Options {
                interface: interface.clone(),
                direct: true,
                flows,
                packets: Some(packets),
                ..flood::Options::default()
            };
            let summary = tap.namespace.run(|| run_flood(options));
            assert_eq!((summary.sent, summary.errors), (packets, 0));
            assert_eq!(tap.tallies().seen() - before, packets, "{mode:?}, MTU {mtu}");
            tap.expect(packets);
            let got = received(&mut tap);
            assert!(got.len() as u64 == packets.min(1024), "{} of {packets}", got.len());
            assert!(got.iter().all(|(stamp, bytes)| *stamp > 0 && check::read(bytes).is_ok()));
            if flows > 1 {
                assert_flows(&got, 60, false);
            }
        }
    }
}

#[test]
fn a_flood_that_nobody_would_take_is_refused() {
    if !need_root("a flood into nothing") {
        return;
    }
    let namespace = Namespace::new();
    let pair = VethPair::new(&namespace, Shape::default());
    let open = |interface: &str, direct: bool, queue: u32| {
        let packets = Some(10);
        let interface = interface.to_owned();
        let options = flood::Options { interface, direct, queue, packets, ..flood::Options::default() };
        namespace.run(|| {
            let mut flood = Flood::open(options)?;
            flood.run(&AtomicBool::new(false)).map(|()| flood.summary())
        })
    };
    let (wire, tap) = (pair.wire.name.as_str(), pair.tap.name.as_str());
    for (interface, direct, said) in
        [("wire9", false, "no interface wire9"), (wire, false, "XDP"), (tap, true, "no XDP program")]
    {
        let error = open(interface, direct, 0).unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let capture = Capture::load(1, false).unwrap();
    let state = namespace.run(|| {
        let link = attach_xdp(capture.as_fd(), pair.tap.index, XdpMode::Native).unwrap();
        let state = xdp_state(pair.tap.index).unwrap();
        assert!(state.native.is_some() && state.generic.is_none(), "{state:?}");
        (link, xdp_state(pair.wire.index).unwrap())
    });
    assert_eq!((state.1.native, state.1.sends_redirected), (None, Some(true)));
    assert_eq!(open(wire, false, 0).unwrap().sent, 10);
    assert_eq!(open(tap, true, 0).unwrap().sent, 10);
    let error = open(tap, true, 1).unwrap_err();
    assert!(matches!(error, Error::Failed(_)) && error.to_string().contains("no queue 1"), "{error}");
}

#[test]
fn every_flow_of_a_flood_is_another_and_valid() {
    if !need_root("the flood's flows") {
        return;
    }
    const FLOWS: u32 = 40_000;
    for tcp in [false, true] {
        let flood = xdp_prog::Flood::load(1, FLOWS).unwrap();
        let template = flood::template(60, tcp);
        let mut seen = BTreeSet::new();
        for _ in 0..2 * FLOWS {
            let run = run_once(flood.as_fd(), &template, Arrival::default()).unwrap();
            let packet = check::read(&run.data).unwrap();
            seen.insert((packet.src, packet.sport));
        }
        assert_eq!(seen.len(), FLOWS as usize);
    }
}

#[test]
fn a_timed_and_paced_flood_keeps_to_both() {
    if !need_root("a paced flood") {
        return;
    }
    let mut tap = Tap::new(Sizes::default());
    let options = flood::Options {
        interface: tap.pair.tap.name.clone(),
        direct: true,
        seconds: Some(0.2),
        pps: Some(5000.0),
        ..flood::Options::default()
    };
    let summary = tap.namespace.run(|| run_flood(options));
    // A busy machine sends fewer; no machine sends more.
    assert!((1..=1001).contains(&summary.sent) && summary.seconds >= 0.2, "{summary:?}");
    tap.expect(summary.sent);
    assert_eq!(tap.redirected().packets, summary.sent);
}
