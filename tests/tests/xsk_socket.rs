//! AF_XDP sockets on a veth: every frame has one owner, every packet is in one account, bytes and stamps arrive.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::time::Duration;

use dataplane_sys::bpf::XdpMode;
use dataplane_sys::xsk::{Frame, Settings, Socket, Statistics};
use tests::live::{Namespace, Shape, VethPair, need_root};
use tests::tap::{Sizes, Tap};
use xdp_prog::abi::Tally;

const RING: u32 = 64;
const EINVAL: Option<i32> = Some(22);
const ENODEV: Option<i32> = Some(19);
const EBUSY: Option<i32> = Some(16);
const EOPNOTSUPP: Option<i32> = Some(95);

fn settings(interface: &str) -> Settings<'_> {
    Settings {
        interface,
        queue: 0,
        ring: RING,
        frame_bytes: 4096,
        zero_copy: false,
        busy_poll: false,
        jumbo: false,
    }
}

fn tap(mtu: u32, frame_bytes: u32, mode: XdpMode) -> Tap {
    Tap::new(Sizes { mtu, frame_bytes, mode, ring: RING })
}

/// A frame of an experimental type that tells which it is.
fn content(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..len).map(|i| (i as u32 * 31 + number) as u8));
    frame.truncate(len);
    frame
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[test]
fn packets_arrive_with_their_bytes_and_the_time_they_were_seen() {
    if !need_root("packets through a socket") {
        return;
    }
    for mode in [XdpMode::Native, XdpMode::Generic] {
        assert_delivered(&mut tap(1500, 2048, mode));
    }
}

/// Sends packets of several lengths, many times around the rings; each arrives as it was sent.
fn assert_delivered(tap: &mut Tap) {
    assert!(!tap.socket.observer().unwrap().zero_copy().unwrap());
    assert_eq!(tap.socket.frames(), u64::from(2 * RING));
    let lengths = [14, 15, 60, 64, 65, 333, 1500, 1514];
    let mut last = monotonic_ns();
    for round in 0..200 {
        let number = |i: usize| round * lengths.len() as u32 + i as u32;
        for (i, len) in lengths.into_iter().enumerate() {
            tap.send(&content(number(i), len));
        }
        assert_eq!(tap.receive(), lengths.len());
        for (i, (len, frame)) in lengths.into_iter().zip(&tap.hand).enumerate() {
            assert_eq!((frame.len(), frame.is_empty(), frame.continues()), (len, false, false));
            assert!(tap.socket.bytes(frame) == content(number(i), len), "round {round}, {len} bytes");
            let stamp = tap.socket.stamp(frame);
            assert!((last..=monotonic_ns()).contains(&stamp), "{last} {stamp}");
            last = stamp;
        }
        tap.give_back();
    }
    assert_eq!(tap.statistics(), Statistics::default());
    let bytes: usize = lengths.iter().sum();
    assert_eq!(tap.redirected(), Tally { packets: 1600, bytes: 200 * bytes as u64 });
}

#[test]
fn what_finds_no_room_is_counted_once() {
    if !need_root("a full ring") {
        return;
    }
    let mut tap = tap(1500, 2048, XdpMode::Native);
    // Nobody reads: the ring takes what it has room for.
    let sent = 3 * RING + 7;
    (0..sent).for_each(|number| tap.send(&content(number, 100)));
    let full = Statistics { rx_ring_full: u64::from(sent - RING), ..Statistics::default() };
    assert_eq!(tap.statistics(), full);
    assert_eq!(tap.receive(), RING as usize);
    // The reader keeps all it read: the kernel runs out of frames, which are as many again.
    (0..sent).for_each(|number| tap.send(&content(number, 100)));
    assert_eq!(tap.receive(), RING as usize);
    assert_eq!(tap.socket.with_kernel(), 0);
    (0..10).for_each(|number| tap.send(&content(number, 100)));
    let lost = tap.statistics();
    assert_eq!(tap.receive(), 0);
    assert_eq!(lost.rx_ring_full + lost.rx_dropped, u64::from(2 * sent + 10 - 2 * RING), "{lost:?}");
    assert!(lost.rx_dropped >= 10 && lost.rx_dropped == lost.rx_fill_ring_empty_descs, "{lost:?}");
    assert_eq!(lost.rx_invalid_descs, 0);
    assert_eq!(tap.redirected().packets, u64::from(2 * sent + 10), "the program saw them all");
    // Given back, the frames are good for as many packets again.
    tap.give_back();
    (0..RING).for_each(|number| tap.send(&content(number, 100)));
    assert_eq!(tap.receive(), RING as usize);
    assert!(tap.socket.bytes(&tap.hand[9]) == content(9, 100));
    assert_eq!(tap.statistics(), lost);
}

#[test]
fn a_jumbo_packet_comes_in_several_frames_or_not_at_all() {
    if !need_root("jumbo packets") {
        return;
    }
    for frame_bytes in [2048, 4096] {
        let mut tap = tap(9000, frame_bytes, XdpMode::Native);
        let room = frame_bytes as usize - 256;
        // Around the edges of one, two and all the frames a packet takes.
        let lengths = [60, room, room + 1, 2 * room, 2 * room + 1, 4090, 9000, 9014];
        for (number, len) in lengths.into_iter().enumerate() {
            let before = monotonic_ns();
            tap.send(&content(number as u32, len));
            let frames = tap.receive();
            let bytes: Vec<u8> = tap.hand.iter().flat_map(|frame| tap.socket.bytes(frame)).copied().collect();
            assert!(bytes == content(number as u32, len), "{len} bytes in frames of {frame_bytes}");
            let (last, others) = tap.hand.split_last().unwrap();
            assert!(!last.continues() && others.iter().all(Frame::continues), "{len} bytes");
            assert!((before..=monotonic_ns()).contains(&tap.socket.stamp(&tap.hand[0])), "{len} bytes");
            assert!(frames >= len.div_ceil(room), "{len} bytes in {frames} frames");
            tap.give_back();
        }
        assert_eq!(tap.statistics(), Statistics::default());
        let bytes: usize = lengths.iter().sum();
        assert_eq!(tap.redirected(), Tally { packets: lengths.len() as u64, bytes: bytes as u64 });
        assert_whole_or_lost(&mut tap);
    }
}

/// Fills the ring with jumbo packets: each is received whole or counted once.
fn assert_whole_or_lost(tap: &mut Tap) {
    let sent = 100;
    (0..sent).for_each(|number| tap.send(&content(number, 9014)));
    tap.receive();
    let mut whole = 0;
    let mut bytes = Vec::new();
    for frame in &tap.hand {
        bytes.extend_from_slice(tap.socket.bytes(frame));
        if !frame.continues() {
            assert!(bytes == content(whole, 9014), "packet {whole}");
            bytes.clear();
            whole += 1;
        }
    }
    assert!(bytes.is_empty(), "the last packet is whole");
    let lost = tap.statistics();
    assert_eq!(u64::from(whole) + lost.rx_ring_full + lost.rx_dropped, u64::from(sent), "{lost:?}");
    assert!(whole > 0 && whole < sent);
    tap.give_back();
}

#[test]
fn a_frame_without_a_stamp_says_so_even_where_one_was() {
    if !need_root("frames without a stamp") {
        return;
    }
    let mut tap = tap(9000, 2048, XdpMode::Native);
    for number in 0..2 * RING {
        tap.send(&content(number, 60));
        tap.receive();
        assert!(tap.socket.stamp(&tap.hand[0]) > 0);
        tap.give_back();
    }
    // Every frame has held a stamp by now. A packet has one, before its first byte.
    tap.send(&content(0, 9014));
    assert!(tap.receive() > 1);
    let stamps: Vec<bool> = tap.hand.iter().map(|frame| tap.socket.stamp(frame) > 0).collect();
    assert!(stamps[0] && !stamps[1..].contains(&true), "{stamps:?}");
}

#[test]
fn what_cannot_be_opened_is_an_error_of_the_kernel() {
    if !need_root("sockets that can't be opened") {
        return;
    }
    let namespace = Namespace::new();
    let pair = VethPair::new(&namespace, Shape::default());
    let name = pair.tap.name.as_str();
    namespace.run(|| {
        let refused = |settings: Settings<'_>| Socket::open(&settings).unwrap_err();
        let zero_copy = refused(Settings { zero_copy: true, ..settings(name) });
        assert_eq!(zero_copy.errno(), EOPNOTSUPP, "{zero_copy}");
        let queue = refused(Settings { queue: 1, ..settings(name) });
        assert_eq!(queue.errno(), EINVAL, "{queue}");
        assert!(queue.to_string().contains("queue 1 of tap0"), "{queue}");
        let nobody = refused(settings("no-such-if"));
        assert_eq!(nobody.errno(), ENODEV, "{nobody}");
        for (ring, frame_bytes) in [(100, 2048), (64, 1000), (0, 2048), (1 << 31, 2048)] {
            let sizes = refused(Settings { ring, frame_bytes, ..settings(name) });
            assert_eq!(sizes.errno(), None, "{sizes}");
        }
        // It copies, as it was asked to, and a queue has one socket.
        let first = Socket::open(&settings(name)).unwrap();
        assert!(!first.observer().unwrap().zero_copy().unwrap());
        let second = refused(settings(name));
        assert_eq!(second.errno(), EBUSY, "{second}");
        drop(first);
        // The kernel lets go of the queue in its own time, soon after the file was closed.
        let freed = (0..1000).find_map(|_| match Socket::open(&settings(name)) {
            Err(error) if error.errno() == EBUSY => {
                std::thread::sleep(Duration::from_millis(1));
                None
            }
            other => Some(other),
        });
        freed.expect("the queue is free again within a second").unwrap();
    });
}
