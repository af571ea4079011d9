//! Packets from an AF_XDP socket: one receive queue of one interface.
//!
//! Opened by [`Tap`] on the main thread, then moved into the worker that polls it. After that it allocates
//! nothing, takes no lock and makes no system call, but for a wake-up where a driver asks for one. Frames are
//! lent to the worker for one batch and go back to the kernel at `release`.

mod clock;
mod nic_time;
mod open;
mod parts;
mod phc;
mod tap;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dataplane_sys::xsk::{BURST, Frame, Socket};

use super::live::Wakings;
use super::{BATCH, Batch, Descriptor, Interface, LinkType, Marks, Nanos, Poll, Source};
pub use clock::CaptureClock;
pub use nic_time::ClockChoice;
pub use open::{BusyPoll, LARGEST_MTU, TapError, TapSettings, ZeroCopy, foreign};
use parts::Parts;
use phc::{BY_NIC, NicClock};
pub use tap::Tap;

/// How far behind the clock a silent queue is taken to be: what was stamped may still be on its way to the ring
/// for so long, which is what the driver does between two interrupts. Ns.
const LATENESS: Nanos = 2_000_000;

/// Bursts in which a busy queue may come up empty before it is taken to be silent, if the worker can ask the driver
/// itself.
const ASKS: u32 = 4;
/// Packets in a burst from which on a queue is busy.
const BUSY: usize = BURST / 2;

/// Marks a handle as one of a packet joined from several frames.
const JOINED: u64 = 1 << 63;

/// Bytes of the largest packet the kernel makes of several frames: 17 fragments of a page and a first part. A larger
/// one is cut.
const LARGEST: usize = 18 * 4096;

const _: () = assert!(BURST == BATCH, "what a burst brings fits one batch");

/// What main and a queue's worker know of each other.
#[derive(Debug, Default)]
pub struct QueueShared {
    /// Packets taken out of the receive ring and handed to the worker.
    pub taken: AtomicU64,
    /// Packets that had no stamp and were given the time they were taken at.
    pub unstamped: AtomicU64,
    /// Times the worker ran the driver's receive loop.
    pub busy_polls: AtomicU64,
    pub wakings: Wakings,
    /// Packets that the card was to stamp, and that have the kernel's time.
    pub unstamped_by_nic: AtomicU64,
    /// Frames with the kernel and in the worker's hands; their sum is all there are.
    pub frames_with_kernel: AtomicU64,
    pub frames_in_hand: AtomicU64,
    /// Nothing more will come: end when the ring is empty.
    pub stop: AtomicBool,
}

/// One queue as a source.
#[derive(Debug)]
pub struct AfXdp {
    socket: Socket,
    /// The batch's frames.
    held: Vec<Frame>,
    /// Packets of several frames, put together.
    joined: Parts,
    clock: Arc<CaptureClock>,
    /// The card's, if packets have its time.
    nic: Option<Arc<NicClock>>,
    shared: Arc<QueueShared>,
    interfaces: [Interface; 1],
    /// Time of the latest packet or silence handed out.
    latest: Nanos,
    /// How often the driver is yet to be asked before the queue is silent.
    asks: u32,
    silent: bool,
    /// Packets of an earlier time than that.
    late: u64,
}

impl AfXdp {
    fn new(
        socket: Socket,
        jumbo: bool,
        clock: Arc<CaptureClock>,
        nic: Option<Arc<NicClock>>,
        shared: Arc<QueueShared>,
        interface: Interface,
    ) -> AfXdp {
        let room = if jumbo { LARGEST + BURST * 4096 } else { 0 };
        let source = AfXdp {
            socket,
            held: Vec::with_capacity(BURST),
            joined: Parts::with_room(room),
            clock,
            nic,
            shared,
            interfaces: [interface],
            latest: 0,
            asks: 0,
            silent: false,
            late: 0,
        };
        source.publish_frames();
        source
    }

    /// The socket, to wait on for packets.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The capture clock's time.
    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Packets whose time lay before that of one handed out before.
    pub fn late(&self) -> u64 {
        self.late
    }

    pub fn shared(&self) -> &Arc<QueueShared> {
        &self.shared
    }

    fn publish_frames(&self) {
        self.shared.frames_with_kernel.store(self.socket.with_kernel(), Ordering::Relaxed);
        self.shared.frames_in_hand.store(self.held.len() as u64, Ordering::Relaxed);
    }

    /// The packet's time; a clock is read only if it has no stamp.
    #[inline]
    fn time_of(&self, index: usize) -> Nanos {
        match self.socket.stamp(&self.held[index]) {
            0 => self.unstamped(),
            stamp if stamp & BY_NIC != 0 => match &self.nic {
                Some(nic) => nic.utc(stamp & !BY_NIC),
                None => self.unstamped(),
            },
            monotonic => {
                if self.nic.is_some() {
                    self.shared.unstamped_by_nic.fetch_add(1, Ordering::Relaxed);
                }
                self.clock.utc(monotonic)
            }
        }
    }

    #[cold]
    fn unstamped(&self) -> Nanos {
        self.shared.unstamped.fetch_add(1, Ordering::Relaxed);
        self.clock.now()
    }

    #[inline]
    fn push(&mut self, batch: &mut Batch, ts: Nanos, handle: u64, (len, wire): (usize, usize)) {
        self.late += u64::from(ts < self.latest);
        self.latest = self.latest.max(ts);
        batch.packets.push(Descriptor {
            ts,
            handle,
            cap_len: len as u32,
            orig_len: wire as u32,
            interface: 0,
            link: LinkType::Ethernet,
            marks: Marks::NONE,
        });
    }

    /// Adds a frame to the packet it belongs to; the packet is handed out with its last.
    #[cold]
    fn join(&mut self, batch: &mut Batch, index: usize) {
        let frame = &self.held[index];
        // Read before: what is borrowed for it is the socket, too.
        let ts = if self.joined.is_open() { 0 } else { self.time_of(index) };
        let whole = self.joined.add(self.socket.bytes(frame), || ts, frame.continues());
        if let Some(whole) = whole {
            self.push(batch, whole.ts, JOINED | whole.start as u64, (whole.len, whole.came));
        }
    }

    /// Nothing is in the ring.
    fn silent(&mut self) -> Poll {
        if self.shared.stop.load(Ordering::Acquire) {
            return Poll::End;
        }
        self.silent = true;
        if self.asks > 0 && self.socket.polls_busily() {
            self.asks -= 1;
            self.socket.busy_poll();
            self.shared.busy_polls.fetch_add(1, Ordering::Relaxed);
        } else {
            self.socket.wake();
        }
        self.latest = self.latest.max(self.clock.now().saturating_sub(LATENESS));
        Poll::Idle(self.latest)
    }
}

impl Source for AfXdp {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        debug_assert!(batch.packets.is_empty() && self.held.is_empty(), "poll needs a released batch");
        if self.socket.receive(&mut self.held) == 0 {
            return self.silent();
        }
        if self.held.len() >= BUSY {
            self.asks = ASKS;
        }
        self.held.iter().for_each(|frame| self.socket.prefetch(frame));
        for index in 0..self.held.len() {
            let frame = &self.held[index];
            if self.joined.is_open() || frame.continues() {
                self.join(batch, index);
            } else {
                let len = frame.len();
                self.push(batch, self.time_of(index), index as u64, (len, len));
            }
        }
        let taken = &self.shared.taken;
        taken.store(taken.load(Ordering::Relaxed) + batch.packets.len() as u64, Ordering::Release);
        batch.watermark = self.latest;
        if std::mem::take(&mut self.silent) {
            self.shared.wakings.note(batch, self.clock.now());
        }
        if batch.packets.is_empty() { Poll::Idle(self.latest) } else { Poll::Packets }
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        if packet.handle & JOINED == 0 {
            return self.socket.bytes(&self.held[packet.handle as usize]);
        }
        let start = (packet.handle & !JOINED) as usize;
        self.joined.bytes(start, packet.cap_len as usize)
    }

    fn release(&mut self, batch: &mut Batch) {
        batch.packets.clear();
        if self.held.is_empty() {
            return;
        }
        self.socket.give(&mut self.held);
        self.socket.wake();
        self.publish_frames();
        debug_assert_eq!(self.socket.with_kernel(), self.socket.frames(), "every frame went back");
        self.joined.release();
    }

    fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}
