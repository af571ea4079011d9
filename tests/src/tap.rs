//! A veth pair whose far end is captured by an AF_XDP socket: what is sent into the near end is received here.
//!
//! The test's thread sends and receives. Needs privilege (see `live`). Whenever frames move, that none was lost is
//! checked.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use dataplane_sys::bpf::{XdpLink, XdpMode, attach_xdp};
use dataplane_sys::packet;
use dataplane_sys::xsk::{Frame, Settings, Socket, Statistics};
use xdp_prog::abi::{Outcome, Tally};
use xdp_prog::{Capture, Tallies};

use crate::live::{Namespace, Shape, VethPair};

/// The longest frame of this MTU fits one buffer; above it, socket and program are those for jumbo frames.
const ONE_BUFFER: u32 = 3000;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub mtu: u32,
    pub ring: u32,
    pub frame_bytes: u32,
    pub mode: XdpMode,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { mtu: 1500, ring: 64, frame_bytes: 2048, mode: XdpMode::Native }
    }
}

/// The pair, its socket, and the frames received.
#[derive(Debug)]
pub struct Tap {
    pub socket: Socket,
    wire: File,
    /// Frames sent so far that arrive in the program.
    sent: u64,
    pub capture: Capture,
    _link: XdpLink,
    /// Frames in hand.
    pub hand: Vec<Frame>,
    pub pair: VethPair,
    pub namespace: Namespace,
}

impl Tap {
    pub fn new(sizes: Sizes) -> Tap {
        let Sizes { mtu, ring, frame_bytes, mode } = sizes;
        let namespace = Namespace::new();
        let pair = VethPair::new(&namespace, Shape { mtu, ..Shape::default() });
        let jumbo = mtu > ONE_BUFFER;
        let (socket, wire, capture, link) = namespace.run(|| {
            let interface = pair.tap.name.as_str();
            let settings = Settings {
                interface,
                queue: 0,
                ring,
                frame_bytes,
                zero_copy: false,
                busy_poll: false,
                jumbo,
            };
            let socket = Socket::open(&settings).expect("a veth takes a socket in copy mode");
            let capture = Capture::load(1, jumbo).expect("the program can be loaded");
            capture.give(0, socket.as_fd()).expect("there is a place for queue 0");
            let link = attach_xdp(capture.as_fd(), pair.tap.index, mode).expect("a veth takes a program");
            let wire = packet::sender(pair.wire.index).expect("the near end is up");
            (socket, File::from(wire), capture, link)
        });
        let hand = Vec::with_capacity(socket.frames() as usize);
        Tap { socket, wire, sent: 0, capture, _link: link, hand, pair, namespace }
    }

    /// Sends a frame out of the near end.
    pub fn send(&mut self, frame: &[u8]) {
        self.wire.write_all(frame).expect("the near end is up and its queue empty");
        self.sent += 1;
    }

    /// Others have sent so many.
    pub fn expect(&mut self, frames: u64) {
        self.sent += frames;
    }

    /// What was sent arrives within the sending call, unless the kernel is busy and leaves it to a thread of its
    /// own. Returns when the program has seen it all.
    fn settle(&self) {
        for _ in 0..2000 {
            if self.tallies().seen() >= self.sent {
                return;
            }
            // Seen is not yet handed over: that is done at the end of a batch.
            thread::sleep(Duration::from_millis(1));
        }
        panic!("{} frames were sent, and the program has seen {:?}", self.sent, self.tallies());
    }

    pub fn tallies(&self) -> Tallies {
        self.capture.tallies().expect("the counters can be read")
    }

    /// Takes what has arrived into the hand; returns how many frames that was.
    pub fn receive(&mut self) -> usize {
        self.settle();
        let before = self.hand.len();
        while self.socket.receive(&mut self.hand) > 0 {}
        self.assert_conserved();
        self.hand.len() - before
    }

    /// Gives back what is in the hand.
    pub fn give_back(&mut self) {
        self.socket.give(&mut self.hand);
        self.socket.wake();
        assert!(self.hand.is_empty());
        self.assert_conserved();
    }

    fn assert_conserved(&self) {
        assert_eq!(self.socket.frames(), self.socket.with_kernel() + self.hand.len() as u64);
    }

    pub fn statistics(&self) -> Statistics {
        self.settle();
        let observer = self.socket.observer().expect("a file can be duplicated");
        observer.statistics().expect("the socket can be asked")
    }

    /// What the program handed to the socket.
    pub fn redirected(&self) -> Tally {
        self.settle();
        self.tallies().of(Outcome::Redirected)
    }
}
