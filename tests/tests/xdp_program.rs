//! What the capture program does with a frame, run by hand (BPF_PROG_TEST_RUN), and how it is attached.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use dataplane_sys::bpf::{Arrival, Run, XdpMode, attach_xdp, run_once};
use dataplane_sys::xsk::{Settings, Socket};
use tests::live::{Namespace, Shape, VethPair, need_root};
use wiregen::packet::{self, Ethernet, Ip};
use xdp_prog::abi::{Outcome, STAMP_BYTES, Tally};
use xdp_prog::{Capture, Tallies};

const ABORTED: u32 = 0;
const PASS: u32 = 2;
const REDIRECT: u32 = 4;

/// Counters of the program.
const OUTCOMES: usize = Outcome::ALL.len();

const EINVAL: Option<i32> = Some(22);

/// A UDP datagram; `vlan` as [`Ethernet`] has it.
fn udp(v6: bool, vlan: [u16; 2], payload: usize) -> Vec<u8> {
    let address = |n: u8| match v6 {
        false => IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)),
        true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into())),
    };
    let ip = Ip { src: address(1), dst: address(2), ttl: 64, id: 7, dont_fragment: false };
    let content: Vec<u8> = (0..payload).map(|i| (i % 251) as u8).collect();
    let mut frame = Vec::new();
    packet::udp(&mut frame, &Ethernet { src: [2; 6], dst: [4; 6], vlan }, &ip, 53, 54, &content);
    frame
}

fn tcp() -> Vec<u8> {
    let address = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
    let ip = Ip { src: address(1), dst: address(2), ttl: 64, id: 7, dont_fragment: true };
    let header =
        packet::TcpHeader { sport: 1, dport: 2, seq: 3, ack: 4, flags: packet::ACK, window: 5, options: &[] };
    let mut frame = Vec::new();
    packet::tcp(&mut frame, &Ethernet { src: [2; 6], dst: [4; 6], vlan: [0; 2] }, &ip, &header, b"data");
    frame
}

/// The third fragment of a datagram, which has no ports.
fn fragment() -> Vec<u8> {
    let mut frame = udp(false, [0; 2], 1400);
    frame[20..22].copy_from_slice(&[0x20, 0xb9]);
    frame
}

/// Frames that fit one buffer, by what is odd about them. The program looks at none of it.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("TCP", tcp()),
        ("VLAN", udp(false, [5, 0], 100)),
        ("QinQ", udp(false, [5, 6], 100)),
        ("a header and nothing else", tcp()[..14].to_vec()),
        ("a fragment", fragment()),
        ("IPv6", udp(true, [0; 2], 1000)),
        ("the longest of an MTU of 1500", udp(false, [5, 6], 1472)),
    ]
}

/// CLOCK_MONOTONIC, as the program reads it.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn socket(interface: &str, queue: u32, jumbo: bool) -> Socket {
    let settings =
        Settings { interface, queue, ring: 64, frame_bytes: 4096, zero_copy: false, busy_poll: false, jumbo };
    Socket::open(&settings).unwrap()
}

/// What one run added to the counters, and what it gave.
fn run(capture: &Capture, frame: &[u8], from: Arrival) -> (Run, [Tally; OUTCOMES]) {
    let before = capture.tallies().unwrap();
    let run = run_once(capture.as_fd(), frame, from).unwrap();
    let after = capture.tallies().unwrap();
    let added = |outcome| Tally {
        packets: after.of(outcome).packets - before.of(outcome).packets,
        bytes: after.of(outcome).bytes - before.of(outcome).bytes,
    };
    (run, Outcome::ALL.map(added))
}

/// Runs one frame and checks that it is handed over whole, stamped with a time between before and after.
fn assert_redirected(capture: &Capture, what: &str, frame: &[u8]) {
    let before = monotonic_ns();
    let (run, [redirected, no_socket, others @ ..]) = run(capture, frame, Arrival::default());
    assert_eq!(run.action, REDIRECT, "{what}");
    assert_eq!(run.meta, STAMP_BYTES, "{what}");
    let (stamp, data) = run.data.split_first_chunk::<STAMP_BYTES>().unwrap();
    assert!((before..=monotonic_ns()).contains(&u64::from_ne_bytes(*stamp)), "{what}");
    assert!(data == frame, "{what}: {} bytes became {}", frame.len(), data.len());
    assert_eq!(redirected, Tally { packets: 1, bytes: frame.len() as u64 }, "{what}");
    assert_eq!((no_socket, others), Default::default(), "{what}");
}

/// Runs one frame for which there is no socket, and checks that it is left to the kernel and counted.
fn assert_passed(capture: &Capture, what: &str, frame: &[u8], from: Arrival) {
    let (run, [redirected, no_socket, others @ ..]) = run(capture, frame, from);
    assert_eq!(run.action, PASS, "{what}");
    assert!(run.data[run.meta..] == *frame, "{what}: data is left as it was");
    assert_eq!(no_socket, Tally { packets: 1, bytes: frame.len() as u64 }, "{what}");
    assert_eq!((redirected, others), Default::default(), "{what}");
}

#[test]
fn every_frame_goes_to_its_socket_stamped_and_unchanged() {
    if !need_root("a socket for each frame") {
        return;
    }
    let namespace = Namespace::new();
    for jumbo in [false, true] {
        let pair = VethPair::new(&namespace, Shape::default());
        namespace.run(|| {
            let capture = Capture::load(1, jumbo).unwrap();
            let socket = socket(&pair.tap.name, 0, jumbo);
            capture.give(0, socket.as_fd()).unwrap();
            for (what, frame) in frames() {
                assert_redirected(&capture, what, &frame);
            }
            let sum: u64 = frames().iter().map(|(_, frame)| frame.len() as u64).sum();
            let tallies = capture.tallies().unwrap();
            let all = Tally { packets: frames().len() as u64, bytes: sum };
            assert_eq!((tallies.of(Outcome::Redirected), tallies.seen()), (all, all.packets));
            // Taken away again, what comes is the kernel's.
            capture.take(0).unwrap();
            assert_passed(&capture, "no more socket", &tcp(), Arrival::default());
            capture.take(0).expect("to take what isn't there is no error of the kernel's");
            assert!(capture.take(1).is_err(), "the map has one entry");
        });
    }
}

#[test]
fn a_jumbo_frame_is_counted_whole() {
    if !need_root("a frame of several buffers") {
        return;
    }
    let namespace = Namespace::new();
    let pair = VethPair::new(&namespace, Shape { mtu: 9000, ..Shape::default() });
    namespace.run(|| {
        let frame = udp(false, [0; 2], 9000 - 28);
        let capture = Capture::load(1, true).unwrap();
        assert_several_buffers(&capture, &frame, Outcome::NoSocket, PASS);
        let socket = socket(&pair.tap.name, 0, true);
        capture.give(0, socket.as_fd()).unwrap();
        assert_several_buffers(&capture, &frame, Outcome::Redirected, REDIRECT);
    });
}

/// What is done with a frame of more than a page, and that all its bytes are counted.
fn assert_several_buffers(capture: &Capture, frame: &[u8], outcome: Outcome, action: u32) {
    let (run, added) = run(capture, frame, Arrival::default());
    assert_eq!((run.action, run.meta), (action, STAMP_BYTES));
    assert!(run.data[STAMP_BYTES..] == *frame);
    let mut wanted = [Tally::default(); OUTCOMES];
    wanted[outcome as usize] = Tally { packets: 1, bytes: frame.len() as u64 };
    assert_eq!(added, wanted);
}

#[test]
fn without_a_socket_frames_are_left_to_the_kernel_and_counted() {
    if !need_root("frames without a socket") {
        return;
    }
    for jumbo in [false, true] {
        let capture = Capture::load(4, jumbo).unwrap();
        for (what, frame) in frames() {
            assert_passed(&capture, what, &frame, Arrival::default());
        }
        assert_eq!(capture.tallies().unwrap().seen(), frames().len() as u64);
    }
}

#[test]
fn less_than_an_ethernet_header_never_reaches_the_program() {
    if !need_root("frames that are too short") {
        return;
    }
    let capture = Capture::load(1, false).unwrap();
    for len in [0, 1, 13] {
        let error = run_once(capture.as_fd(), &tcp()[..len], Arrival::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), EINVAL, "{len} bytes");
    }
    // Nor does a queue of an interface that isn't named.
    let nowhere = Arrival { ifindex: 0, queue: 1 };
    assert_eq!(run_once(capture.as_fd(), &tcp(), nowhere).unwrap_err().raw_os_error(), EINVAL);
    assert_eq!(capture.tallies().unwrap(), Tallies::default());
}

#[test]
fn a_queue_beyond_the_map_can_have_no_socket() {
    if !need_root("a queue beyond the map") {
        return;
    }
    let namespace = Namespace::new();
    let pair = VethPair::new(&namespace, Shape { queues: 2, ..Shape::default() });
    namespace.run(|| {
        let capture = Capture::load(1, false).unwrap();
        let sockets = [0, 1].map(|queue| socket(&pair.tap.name, queue, false));
        capture.give(0, sockets[0].as_fd()).unwrap();
        assert!(capture.give(1, sockets[1].as_fd()).is_err(), "the map has one entry");
        assert!(capture.give(0, fs::File::open("/dev/null").unwrap().as_fd()).is_err(), "no socket");
        let on = |queue| Arrival { ifindex: pair.tap.index, queue };
        assert_passed(&capture, "beyond the map", &tcp(), on(1));
        let (run, [redirected, ..]) = run(&capture, &tcp(), on(0));
        assert_eq!((run.action, redirected.packets), (REDIRECT, 1));
        assert_eq!(run_once(capture.as_fd(), &tcp(), on(2)).unwrap_err().raw_os_error(), EINVAL);
    });
}

#[test]
fn each_loaded_program_counts_for_itself() {
    if !need_root("two programs at once") {
        return;
    }
    let first = Capture::load(1, false).unwrap();
    assert_passed(&first, "first", &tcp(), Arrival::default());
    let before = first.tallies().unwrap();
    let second = Capture::load(1, false).unwrap();
    assert_eq!(second.tallies().unwrap(), Tallies::default());
    assert_passed(&second, "second", &udp(true, [0; 2], 500), Arrival::default());
    drop(second);
    assert_eq!(first.tallies().unwrap(), before);
}

/// The mode and the id of the program on an interface, as `ip` shows it; 1 is native, 2 generic.
fn attached(namespace: &Namespace, interface: &str) -> Option<(u64, u64)> {
    let shown: serde_json::Value =
        serde_json::from_str(&namespace.ip(&["-j", "link", "show", interface])).unwrap();
    let xdp = shown[0].get("xdp")?;
    Some((xdp["mode"].as_u64()?, xdp["prog"]["id"].as_u64()?))
}

#[test]
fn a_program_is_attached_in_the_mode_asked_for_until_its_link_is_dropped() {
    if !need_root("attaching a program") {
        return;
    }
    let namespace = Namespace::new();
    let pair = VethPair::new(&namespace, Shape::default());
    let tap = &pair.tap;
    for (mode, shown) in [(XdpMode::Native, 1), (XdpMode::Generic, 2)] {
        let capture = Capture::load(1, false).unwrap();
        assert_eq!(attached(&namespace, &tap.name), None, "{mode:?}");
        let attach = |capture: &Capture| namespace.run(|| attach_xdp(capture.as_fd(), tap.index, mode));
        let link = attach(&capture).unwrap();
        assert_eq!(attached(&namespace, &tap.name).unwrap().0, shown, "{mode:?}");
        let other = Capture::load(1, false).unwrap();
        for again in [&other, &capture] {
            assert_eq!(attach(again).unwrap_err().kind(), io::ErrorKind::ResourceBusy, "{mode:?}");
        }
        // What stands in the interface's way is the link, not the program's own file.
        drop(capture);
        assert!(attached(&namespace, &tap.name).is_some(), "{mode:?}");
        drop(link);
        assert_eq!(attached(&namespace, &tap.name), None, "{mode:?}");
    }
}

#[test]
fn one_buffer_is_too_little_for_a_large_mtu() {
    if !need_root("a program of the wrong kind") {
        return;
    }
    let namespace = Namespace::new();
    let pair = VethPair::new(&namespace, Shape { mtu: 9000, ..Shape::default() });
    let attach = |jumbo| {
        let capture = Capture::load(1, jumbo).unwrap();
        namespace.run(|| attach_xdp(capture.as_fd(), pair.tap.index, XdpMode::Native))
    };
    assert!(attach(false).is_err());
    assert!(attach(true).is_ok());
}

#[test]
fn a_flood_is_refused_where_there_is_no_packet_to_send() {
    if !need_root("the flood program") {
        return;
    }
    let flood = xdp_prog::Flood::load(1, 100).unwrap();
    let short = run_once(flood.as_fd(), &tcp()[..40], Arrival::default()).unwrap();
    assert_eq!(short.action, ABORTED);
}
