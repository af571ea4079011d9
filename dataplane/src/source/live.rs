//! Live sources, whatever takes the packets: a [`Port`] is an interface as main holds it, a [`Queue`] is what one worker
//! polls. Each kind is a module of its own; this only says what they have in common.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use dataplane_sys::xsk;

use super::afxdp::{AfXdp, Tap, TapError};
use super::nic::{Nic, NicCounters};
use super::{Batch, Descriptor, Interface, Nanos, Poll, Source};
use crate::ledger::DropReason;

/// A source whose packets come when they come.
pub trait LiveSource: Source {
    /// The capture clock's time.
    fn now(&self) -> Nanos;
    /// What to sleep on until packets come; asked for once, before the worker's thread starts.
    fn files(&self, each: &mut dyn FnMut(BorrowedFd<'_>));
}

/// What one queue's socket counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// Packets its worker took.
    pub taken: u64,
    pub unstamped: u64,
    /// Packets that the card was to stamp, and that have the kernel's time.
    pub unstamped_by_nic: u64,
    pub socket: xsk::Statistics,
    pub zero_copy: bool,
    /// Frames of its UMEM: all, with the kernel, in the worker's hands.
    pub frames: u64,
    pub frames_with_kernel: u64,
    pub frames_in_hand: u64,
}

/// What became of an interface's packets since it was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortReport {
    /// Packets and bytes that came in sight of the capture.
    pub seen: u64,
    pub seen_bytes: u64,
    /// Of these, by [`DropReason`], those that reached no worker.
    pub dropped: [u64; DropReason::ALL.len()],
    pub queues: Vec<QueueReport>,
    /// What the interface itself counted; `rx_missed` was lost before anybody saw it.
    pub nic: NicCounters,
    /// How often the card's clock or the host's was set; `None` if time is by the kernel's.
    pub nic_clock_steps: Option<u64>,
}

impl PortReport {
    pub fn taken(&self) -> u64 {
        self.queues.iter().map(|queue| queue.taken).sum()
    }

    /// Every packet seen was taken or dropped for a reason.
    pub fn settled(&self) -> bool {
        self.seen == self.taken() + self.dropped.iter().sum::<u64>()
    }
}

/// An interface that is captured from. Main thread; dropped, it gives the interface back.
#[derive(Debug)]
pub enum Port {
    Xdp(Tap),
}

impl Port {
    fn tap(&self) -> &Tap {
        match self {
            Port::Xdp(tap) => tap,
        }
    }

    pub fn nic(&self) -> &Nic {
        self.tap().nic()
    }

    /// What was asked for and not to be had, in words.
    pub fn compromises(&self) -> &[String] {
        self.tap().compromises()
    }

    /// Lets packets come to the queues.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn begin(&mut self) -> Result<(), TapError> {
        match self {
            Port::Xdp(tap) => tap.begin(),
        }
    }

    /// Keeps time right; to be done about once a second.
    pub fn follow(&mut self) {
        match self {
            Port::Xdp(tap) => tap.follow(),
        }
    }

    /// Takes no more packets. What waits in the queues stays there for the workers.
    pub fn detach(&mut self) {
        match self {
            Port::Xdp(tap) => tap.detach(),
        }
    }

    /// Tells the queues that nothing more will come.
    pub fn stop(&self) {
        self.tap().stop();
    }

    /// Whether the interface is up and has a link.
    ///
    /// # Errors
    /// It has gone: no more packets can come.
    pub fn has_link(&self) -> io::Result<bool> {
        self.tap().has_link()
    }

    /// What has become of its packets so far.
    ///
    /// # Errors
    /// A counter can't be read.
    pub fn report(&self) -> Result<PortReport, TapError> {
        self.tap().report()
    }
}

/// How it captures, in words; also goes into every capture file.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tap().fmt(f)
    }
}

/// One receive queue, as its worker polls it.
#[derive(Debug)]
pub enum Queue {
    Xdp(AfXdp),
}

impl Source for Queue {
    #[inline]
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        match self {
            Queue::Xdp(queue) => queue.poll(batch),
        }
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        match self {
            Queue::Xdp(queue) => queue.bytes(packet),
        }
    }

    #[inline]
    fn release(&mut self, batch: &mut Batch) {
        match self {
            Queue::Xdp(queue) => queue.release(batch),
        }
    }

    fn interfaces(&self) -> &[Interface] {
        match self {
            Queue::Xdp(queue) => queue.interfaces(),
        }
    }
}

impl LiveSource for Queue {
    fn now(&self) -> Nanos {
        match self {
            Queue::Xdp(queue) => queue.now(),
        }
    }

    fn files(&self, each: &mut dyn FnMut(BorrowedFd<'_>)) {
        match self {
            Queue::Xdp(queue) => each(queue.as_fd()),
        }
    }
}
