//! Packets from a packet socket (AF_PACKET, TPACKET_V3): copies of what passes an interface, in and out, which the
//! host's own traffic doesn't notice.
//!
//! Opened by [`PacketTap`] on the main thread, then moved into the worker that polls it. After that it allocates
//! nothing, takes no lock and makes no system call. Packets are lent to the worker for one batch; the kernel has a block
//! of them back once its last batch is released.

mod tap;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dataplane_sys::packet_ring::{BURST, Packet, Ring};
use rustix::time::{ClockId, clock_gettime};

use super::live::Wakings;
use super::{BATCH, Batch, Descriptor, Interface, Marks, Nanos, Poll, Source};
use crate::filter::Refused;
pub use tap::{PacketSettings, PacketTap, link_type};

/// How far behind the clock a silent ring is taken to be: the kernel keeps a block that is not full for some
/// milliseconds, which it counts in ticks of up to 10. Ns.
const LATENESS: Nanos = 20_000_000;
/// How long a ring that is to end may stay silent though packets are missing. Ns.
const PATIENCE: Nanos = 1_000_000_000;

const _: () = assert!(BURST == BATCH, "what a burst brings fits one batch");

/// What main and the worker know of each other.
#[derive(Debug, Default)]
pub struct PacketShared {
    /// Packets handed to the worker, and their bytes on the wire.
    pub taken: AtomicU64,
    pub bytes: AtomicU64,
    /// Of these, such as no wire carries: joined from several, or not yet cut up.
    pub coalesced: AtomicU64,
    /// Of these, those that the filter did not want after all; of those, the ones with a VLAN tag; and packets that passed
    /// it because they belong to what it wants.
    pub refused: AtomicU64,
    pub refused_tagged: AtomicU64,
    pub related: AtomicU64,
    pub wakings: Wakings,
    /// Packets that will have been handed out when all that was captured is.
    pub wanted: AtomicU64,
    /// Nothing more will come: end when `wanted` have been taken.
    pub stop: AtomicBool,
}

/// One interface as a source.
#[derive(Debug)]
pub struct AfPacket {
    ring: Ring,
    /// The batch's packets.
    held: Vec<Packet>,
    shared: Arc<PacketShared>,
    interfaces: [Interface; 1],
    /// Bytes of the largest packet the interface's MTU allows; what is longer was put together.
    longest: u32,
    /// Time of the latest packet or silence handed out.
    latest: Nanos,
    /// Packets of an earlier time than that.
    late: u64,
    /// Since when it has been silent though it is to end.
    ending: Option<Nanos>,
    silent: bool,
}

impl AfPacket {
    fn new(ring: Ring, shared: Arc<PacketShared>, interface: Interface, longest: u32) -> AfPacket {
        AfPacket {
            ring,
            held: Vec::with_capacity(BURST),
            shared,
            interfaces: [interface],
            longest,
            latest: 0,
            late: 0,
            ending: None,
            silent: false,
        }
    }

    /// The socket, to wait on for packets.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// The capture clock's time, which is the host's: packets are stamped by it.
    pub fn now(&self) -> Nanos {
        let time = clock_gettime(ClockId::Realtime);
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    }

    /// Packets whose time lay before that of one handed out before.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// What became of its packets behind a filter.
    pub fn sifted(&self, refused: &Refused) {
        let shared = &self.shared;
        shared.related.store(refused.related, Ordering::Relaxed);
        shared.refused_tagged.store(refused.tagged, Ordering::Relaxed);
        shared.refused.store(refused.packets, Ordering::Release);
    }

    /// Nothing is in the ring.
    fn silent(&mut self) -> Poll {
        self.silent = true;
        let now = self.now();
        if self.shared.stop.load(Ordering::Acquire) {
            let since = *self.ending.get_or_insert(now);
            let all = self.shared.taken.load(Ordering::Relaxed) >= self.shared.wanted.load(Ordering::Relaxed);
            // A clock that is set back meanwhile must not keep it.
            if all || now.abs_diff(since) >= PATIENCE {
                return Poll::End;
            }
        }
        self.latest = self.latest.max(now.saturating_sub(LATENESS));
        Poll::Idle(self.latest)
    }

    #[inline]
    fn marks(&self, packet: &Packet) -> Marks {
        let joined = packet.joined || packet.wire_len > self.longest;
        let marks = if joined { Marks::COALESCED } else { Marks::NONE };
        if packet.unchecked { marks.with(Marks::UNCHECKED) } else { marks }
    }

    /// Counts what was handed out; only this thread does.
    fn count(&self, batch: &Batch) {
        let add = |to: &AtomicU64, more: u64| to.store(to.load(Ordering::Relaxed) + more, Ordering::Release);
        let joined = batch.packets.iter().filter(|packet| packet.marks.has(Marks::COALESCED)).count();
        if joined > 0 {
            add(&self.shared.coalesced, joined as u64);
        }
        add(&self.shared.bytes, batch.packets.iter().map(|packet| u64::from(packet.orig_len)).sum());
        add(&self.shared.taken, batch.packets.len() as u64);
    }
}

impl Source for AfPacket {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        debug_assert!(batch.packets.is_empty() && self.held.is_empty(), "poll needs a released batch");
        if self.ring.receive(&mut self.held) == 0 {
            return self.silent();
        }
        self.held.iter().for_each(|packet| dataplane_sys::prefetch(self.ring.bytes(packet)));
        let link = self.interfaces[0].link;
        for (index, packet) in self.held.iter().enumerate() {
            self.late += u64::from(packet.ts < self.latest);
            self.latest = self.latest.max(packet.ts);
            batch.packets.push(Descriptor {
                ts: packet.ts,
                handle: index as u64,
                cap_len: packet.len,
                orig_len: packet.wire_len,
                interface: 0,
                link,
                marks: self.marks(packet),
            });
        }
        self.ending = None;
        if std::mem::take(&mut self.silent) {
            self.shared.wakings.note(batch, self.now());
        }
        self.count(batch);
        batch.watermark = self.latest;
        Poll::Packets
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        self.held.get(packet.handle as usize).map_or(&[], |packet| self.ring.bytes(packet))
    }

    fn release(&mut self, batch: &mut Batch) {
        batch.packets.clear();
        self.ring.give(&mut self.held);
    }

    fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}
