//! Live sources, whatever takes the packets: a [`Port`] is an interface as main holds it, a [`Queue`] is what one worker
//! polls. Each kind is a module of its own; this only says what they have in common.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane_sys::xsk;

use super::afpacket::{AfPacket, PacketTap};
use super::afxdp::{AfXdp, Tap, TapError};
use super::nic::{Nic, NicCounters};
use super::rss::Rss;
use super::{Batch, Descriptor, Interface, Nanos, Poll, Source};
use crate::filter::{Filter, Filtered};
use crate::ledger::{DropReason, WorkerAccount};

/// A packet that comes after silence is with its worker within this time, if the worker is let run. Ns.
pub const PROMPT: Nanos = 10_000_000;

/// A source whose packets come when they come.
pub trait LiveSource: Source {
    /// The capture clock's time.
    fn now(&self) -> Nanos;
    /// What to sleep on until packets come; asked for once, before the worker's thread starts.
    fn files(&self, each: &mut dyn FnMut(BorrowedFd<'_>));
    /// True if a packet is there and waits until none older can come: not to be slept on for long. Those who are waited
    /// for are woken, if they sleep.
    fn hurry(&self) -> bool {
        false
    }
    /// The thread is about to sleep (polled once more, there was nothing), or has woken.
    fn sleeps(&self, _yes: bool) {}
    /// Packets whose time lay before that of one handed out before.
    fn late(&self) -> u64;
    /// Adds what was taken here and not handed out.
    fn add_to(&self, _account: &mut WorkerAccount) {}
}

/// What became of the first packets after silence: the worker counts, main reads.
#[derive(Debug, Default)]
pub struct Wakings {
    times: AtomicU64,
    late: AtomicU64,
}

impl Wakings {
    /// A batch came after silence; it is handed out now.
    #[cold]
    pub fn note(&self, batch: &Batch, now: Nanos) {
        let Some(first) = batch.packets.first() else { return };
        let late = now.saturating_sub(first.ts) > PROMPT;
        self.times.fetch_add(1, Ordering::Relaxed);
        self.late.fetch_add(u64::from(late), Ordering::Relaxed);
    }

    /// How often there was one, and how often its first packet had waited for more than [`PROMPT`].
    pub fn counted(&self) -> (u64, u64) {
        (self.times.load(Ordering::Relaxed), self.late.load(Ordering::Relaxed))
    }
}

/// What one queue's socket counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// Packets its worker took.
    pub taken: u64,
    pub unstamped: u64,
    pub busy_polls: u64,
    /// Of these, such as no wire carries: joined by the host, or not yet cut up.
    pub coalesced: u64,
    /// How often packets came after silence, and how often the first of them had waited for more than [`PROMPT`].
    pub after_silence: u64,
    pub woken_late: u64,
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
    /// Packets that came in sight of the capture, and their bytes (AF_PACKET: of those taken).
    pub seen: u64,
    pub seen_bytes: u64,
    /// Of these, those the filter did not want; and of those, the ones with a VLAN tag.
    pub filtered: u64,
    pub filtered_tagged: u64,
    /// Of those seen, those that passed the filter because they belong to what it wants.
    pub related: u64,
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

    /// Every packet seen was taken, or not wanted, or dropped for a reason.
    pub fn settled(&self) -> bool {
        self.seen == self.taken() + self.filtered + self.dropped.iter().sum::<u64>()
    }
}

/// What of an interface has to stay as it was when it was taken; `None` where it doesn't matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Id of the XDP program on it.
    pub program: Option<u32>,
    /// Receive queues.
    pub queues: Option<u32>,
    /// The largest MTU there is room for.
    pub mtu: Option<u32>,
}

/// An interface that is captured from. Main thread; dropped, it gives the interface back.
#[derive(Debug)]
pub enum Port {
    Xdp(Box<Tap>),
    Packet(Box<PacketTap>),
}

impl Port {
    pub fn nic(&self) -> &Nic {
        match self {
            Port::Xdp(tap) => tap.nic(),
            Port::Packet(tap) => tap.nic(),
        }
    }

    /// What of its packets is wanted.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        match self {
            Port::Xdp(tap) => tap.filter(),
            Port::Packet(tap) => tap.filter(),
        }
    }

    /// What was asked for and not to be had, in words.
    pub fn compromises(&self) -> &[String] {
        match self {
            Port::Xdp(tap) => tap.compromises(),
            Port::Packet(tap) => tap.compromises(),
        }
    }

    /// Whether it is sure that it brings both directions of a flow to the same queue; `None` if nobody knows.
    pub fn symmetric(&self) -> Option<bool> {
        match self {
            Port::Xdp(tap) => tap.rss().symmetric(),
            Port::Packet(_) => Some(true),
        }
    }

    /// How it spreads packets over its queues, where it has several.
    pub fn rss(&self) -> Option<&Rss> {
        match self {
            Port::Xdp(tap) => Some(tap.rss()),
            Port::Packet(_) => None,
        }
    }

    /// Lets packets come to the queues.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn begin(&mut self) -> Result<(), TapError> {
        match self {
            Port::Xdp(tap) => tap.begin(),
            Port::Packet(tap) => tap.begin(),
        }
    }

    /// Keeps time right; to be done about once a second.
    pub fn follow(&mut self) {
        match self {
            Port::Xdp(tap) => tap.follow(),
            // Its packets have the host's time.
            Port::Packet(_) => {}
        }
    }

    /// Takes no more packets. What waits in the queues stays there for the workers.
    pub fn detach(&mut self) {
        match self {
            Port::Xdp(tap) => tap.detach(),
            Port::Packet(tap) => tap.detach(),
        }
    }

    /// Tells the queues that nothing more will come.
    pub fn stop(&self) {
        match self {
            Port::Xdp(tap) => tap.stop(),
            Port::Packet(tap) => tap.stop(),
        }
    }

    /// What of the interface has to stay as it is.
    pub fn needs(&self) -> Needs {
        match self {
            Port::Xdp(tap) => tap.needs(),
            Port::Packet(_) => Needs::default(),
        }
    }

    /// What has become of its packets so far.
    ///
    /// # Errors
    /// A counter can't be read.
    pub fn report(&self) -> Result<PortReport, TapError> {
        match self {
            Port::Xdp(tap) => tap.report(),
            Port::Packet(tap) => tap.report(),
        }
    }
}

/// How it captures, in words; also goes into every capture file.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Xdp(tap) => tap.fmt(f),
            Port::Packet(tap) => tap.fmt(f),
        }
    }
}

/// One receive queue, or all of an interface, as its worker polls it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are a few, each made once and moved into its worker")]
pub enum Queue {
    Xdp(Box<AfXdp>),
    Packet(Box<Filtered<AfPacket>>),
}

impl Source for Queue {
    #[inline]
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        match self {
            Queue::Xdp(queue) => queue.poll(batch),
            Queue::Packet(queue) => {
                let poll = queue.poll(batch);
                if let Some((_, refused)) = queue.refused() {
                    queue.inner().sifted(&refused);
                }
                poll
            }
        }
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        match self {
            Queue::Xdp(queue) => queue.bytes(packet),
            Queue::Packet(queue) => queue.bytes(packet),
        }
    }

    #[inline]
    fn release(&mut self, batch: &mut Batch) {
        match self {
            Queue::Xdp(queue) => queue.release(batch),
            Queue::Packet(queue) => queue.release(batch),
        }
    }

    fn interfaces(&self) -> &[Interface] {
        match self {
            Queue::Xdp(queue) => queue.interfaces(),
            Queue::Packet(queue) => queue.interfaces(),
        }
    }
}

impl LiveSource for Queue {
    fn now(&self) -> Nanos {
        match self {
            Queue::Xdp(queue) => queue.now(),
            Queue::Packet(queue) => queue.inner().now(),
        }
    }

    fn files(&self, each: &mut dyn FnMut(BorrowedFd<'_>)) {
        match self {
            Queue::Xdp(queue) => each(queue.as_fd()),
            Queue::Packet(queue) => each(queue.inner().as_fd()),
        }
    }

    fn late(&self) -> u64 {
        match self {
            Queue::Xdp(queue) => queue.late(),
            Queue::Packet(queue) => queue.inner().late(),
        }
    }
}
