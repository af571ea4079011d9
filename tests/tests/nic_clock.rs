//! The program that asks a NIC for the time: loaded for one interface, in front of the capture program. A veth has no
//! clock, so what is tried here is what becomes of packets whose card says nothing.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code: a panic is a failed test"
)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use dataplane_sys::bpf::{XdpMode, attach_xdp};
use dataplane_sys::packet;
use dataplane_sys::xsk::{Settings, Socket};
use tests::live::{Namespace, Shape, VethPair, need_root};
use xdp_prog::abi::{Outcome, STAMP_BY_NIC};
use xdp_prog::{Capture, NicClock};

/// CLOCK_MONOTONIC, as the program reads it.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[test]
fn a_packet_whose_card_says_nothing_has_the_kernels_time() {
    if !need_root("a program bound to an interface") {
        return;
    }
    for mtu in [1500, 9000] {
        let namespace = Namespace::new();
        let pair = VethPair::new(&namespace, Shape { mtu, ..Shape::default() });
        let jumbo = mtu > 1500;
        namespace.run(|| {
            let interface = pair.tap.name.as_str();
            let settings = Settings {
                interface,
                queue: 0,
                ring: 64,
                frame_bytes: 4096,
                zero_copy: false,
                busy_poll: false,
                jumbo,
            };
            let mut socket = Socket::open(&settings).unwrap();
            let capture = Capture::load(1, jumbo).unwrap();
            capture.give(0, socket.as_fd()).unwrap();
            let clock = match NicClock::load(capture.as_fd(), jumbo, pair.tap.index) {
                Ok(clock) => clock,
                Err(error) => {
                    eprintln!("skipped: a program bound to an interface: {error}");
                    return;
                }
            };
            let link = attach_xdp(clock.as_fd(), pair.tap.index, XdpMode::Native).unwrap();
            let mut wire = File::from(packet::sender(pair.wire.index).unwrap());
            let before = monotonic_ns();
            for length in [60, 1514] {
                wire.write_all(&vec![2; length]).unwrap();
            }
            let mut hand = Vec::with_capacity(64);
            while hand.len() < 2 {
                socket.receive(&mut hand);
            }
            for frame in &hand {
                let stamp = socket.stamp(frame);
                assert_eq!(stamp & STAMP_BY_NIC, 0, "a veth gives the time 0, which is none");
                assert!((before..=monotonic_ns()).contains(&stamp), "{before} {stamp}");
            }
            let tallies = capture.tallies().unwrap();
            assert_eq!(
                (tallies.of(Outcome::Redirected).packets, tallies.of(Outcome::Unstamped).packets),
                (2, 0)
            );
            socket.give(&mut hand);
            drop(link);
        });
    }
}
