//! What another worker hands over, as a source like any other. Worker's thread; never allocates or waits.
//!
//! The packets come in order of time. Where none are, how far the other has come says that none older will come; a
//! worker that is held up is waited for only so long, so that it can't hold up this one.

use std::sync::Arc;

use dataplane_sys::ring::Receiver;

use super::Bell;
use crate::source::afxdp::CaptureClock;
use crate::source::{BATCH, Batch, Descriptor, Interface, Marks, Nanos, Poll, Source};

/// How far a worker may be behind the clock before others go on without it: as long as a ring of the usual size lasts
/// one that gets a million packets a second. Ns.
const STALL: Nanos = 20_000_000;

/// What one other worker hands over.
#[derive(Debug)]
pub struct Inbox {
    ring: Receiver,
    /// Of who puts in.
    sender: Arc<Bell>,
    /// Without one, a sender is waited for as long as it takes.
    clock: Option<Arc<CaptureClock>>,
    interfaces: Arc<[Interface]>,
    /// Time of the latest packet or silence handed out.
    latest: Nanos,
}

/// A packet's descriptor as a record's two numbers; its bytes follow.
pub(super) fn packed(packet: &Descriptor) -> [u64; 2] {
    let rest =
        u64::from(packet.orig_len) | u64::from(packet.interface) << 32 | u64::from(packet.marks.0) << 48;
    [packet.ts, rest]
}

impl Inbox {
    pub(super) fn new(
        ring: Receiver,
        sender: Arc<Bell>,
        clock: Option<Arc<CaptureClock>>,
        interfaces: Arc<[Interface]>,
    ) -> Inbox {
        Inbox { ring, sender, clock, interfaces, latest: 0 }
    }

    /// Nothing older than this will come, as far as the clock tells.
    fn patience(&self) -> Nanos {
        self.clock.as_ref().map_or(0, |clock| clock.now().saturating_sub(STALL))
    }

    /// Wakes the sender, if it sleeps, to look into its queues and say how far it has come.
    pub fn hurry(&self) {
        self.sender.ring();
    }
}

impl Source for Inbox {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        debug_assert!(batch.packets.is_empty(), "poll needs a released batch");
        // Before the records: what they are true of is there by now.
        let (told, closed) = (self.ring.watermark(), self.ring.is_closed());
        let patience = self.patience();
        while batch.packets.len() < BATCH
            && let Some(record) = self.ring.take()
        {
            self.ring.prefetch(&record);
            let [ts, rest] = record.head;
            let interface = (rest >> 32) as u16;
            let Some(described) = self.interfaces.get(usize::from(interface)) else { continue };
            self.latest = self.latest.max(ts);
            batch.packets.push(Descriptor {
                ts,
                handle: record.position,
                cap_len: record.len,
                orig_len: rest as u32,
                interface,
                link: described.link,
                marks: Marks((rest >> 48) as u8),
            });
        }
        if batch.packets.is_empty() {
            if closed {
                return Poll::End;
            }
            self.latest = self.latest.max(told).max(patience);
            return Poll::Idle(self.latest);
        }
        batch.watermark = self.latest;
        Poll::Packets
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        self.ring.bytes(packet.handle, packet.cap_len)
    }

    fn release(&mut self, batch: &mut Batch) {
        batch.packets.clear();
        self.ring.free();
    }

    fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}
