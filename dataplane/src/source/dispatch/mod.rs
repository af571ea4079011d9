//! Packets find the worker that has their flow: each worker gives the others, of what its queues bring, the packets
//! between hosts that are theirs.
//!
//! For interfaces whose own choice of a queue doesn't keep both directions of a flow together, and for several taps.
//! Worker's thread; never allocates, locks or waits: a packet that finds the other's ring full is dropped and counted.
//! `lane` merges what a worker keeps with its [`Inbox`]es, in order of time.

mod bell;
mod hash;
mod inbox;

use std::io;
use std::sync::Arc;

use dataplane_sys::ring::{self, Receiver, Sender};

use super::{Batch, Descriptor, Interface, Nanos, Poll, Source};
use crate::ledger::{DropReason, WorkerAccount};
use crate::source::afxdp::CaptureClock;
pub use bell::Bell;
pub use inbox::Inbox;

/// Bytes of a ring: at most, at least, and of all that lead to one worker.
const RING: (usize, usize) = (4 << 20, 256 << 10);
const INBOXES: usize = 16 << 20;

/// The way to one other worker.
#[derive(Debug)]
struct Out {
    ring: Sender,
    bell: Arc<Bell>,
}

/// One worker's ends of the rings between all.
#[derive(Debug)]
pub struct Ends {
    me: usize,
    /// By worker; none to itself.
    outs: Vec<Option<Out>>,
    /// From each other worker.
    ins: Vec<(Receiver, Arc<Bell>)>,
    bell: Arc<Bell>,
}

/// Rings from each of so many workers to each other. `near` does what it is given near a worker's memory.
///
/// # Errors
/// No more files can be opened.
pub fn ends(workers: usize, mut near: impl FnMut(usize, &mut dyn FnMut())) -> io::Result<Vec<Ends>> {
    let size = (INBOXES / workers.max(2).saturating_sub(1)).clamp(RING.1, RING.0);
    let size = 1 << size.ilog2();
    let bells = (0..workers).map(|_| Bell::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let own = bells.iter().enumerate();
    let mut all: Vec<Ends> = own
        .map(|(me, bell)| Ends { me, outs: Vec::new(), ins: Vec::new(), bell: Arc::clone(bell) })
        .collect();
    for (to, to_bell) in bells.iter().enumerate() {
        for (from, from_bell) in bells.iter().enumerate() {
            let mut out = None;
            if from != to {
                let mut made = None;
                near(to, &mut || made = Some(ring::ring(size)));
                if let (Some((sender, receiver)), Some(ends)) = (made, all.get_mut(to)) {
                    ends.ins.push((receiver, Arc::clone(from_bell)));
                    out = Some(Out { ring: sender, bell: Arc::clone(to_bell) });
                }
            }
            if let Some(ends) = all.get_mut(from) {
                ends.outs.push(out);
            }
        }
    }
    Ok(all)
}

impl Ends {
    /// This worker's bell.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// A source that keeps what is this worker's of `source`, and those that bring what the others hand over. All have
    /// the same interfaces.
    pub(super) fn join<S: Source>(
        self,
        source: S,
        clock: Option<&Arc<CaptureClock>>,
        interfaces: &Arc<[Interface]>,
    ) -> (Dispatch<S>, Vec<Inbox>) {
        let inbox = |(ring, sender)| Inbox::new(ring, sender, clock.cloned(), Arc::clone(interfaces));
        let inboxes = self.ins.into_iter().map(inbox).collect();
        let dispatch = Dispatch { source, me: self.me, outs: self.outs, handed_over: 0, full: 0 };
        (dispatch, inboxes)
    }
}

/// A source that hands out only what is this worker's.
#[derive(Debug)]
pub struct Dispatch<S> {
    source: S,
    me: usize,
    outs: Vec<Option<Out>>,
    handed_over: u64,
    full: u64,
}

impl<S: Source> Dispatch<S> {
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Adds what was taken here and isn't analysed here: lost packets are the account of the worker that took them.
    pub fn add_to(&self, account: &mut WorkerAccount) {
        account.handed_over += self.handed_over;
        account.received += self.full;
        account.dropped[DropReason::HandoverFull as usize] += self.full;
    }

    /// Gives the others theirs, and closes the gaps in the batch. Handles stay good: what is given away is copied, and
    /// the source has its memory back with the batch.
    fn deal(&mut self, batch: &mut Batch) {
        let workers = self.outs.len();
        let mut kept = 0;
        for index in 0..batch.packets.len() {
            let packet = batch.packets[index];
            let bytes = self.source.bytes(&packet);
            let home =
                hash::by_hosts(packet.link, bytes).map_or(self.me, |hash| hash::worker_of(hash, workers));
            match self.outs.get_mut(home) {
                Some(Some(out)) => match out.ring.push(inbox::packed(&packet), bytes) {
                    true => self.handed_over += 1,
                    false => self.full += 1,
                },
                _ => {
                    batch.packets[kept] = packet;
                    kept += 1;
                }
            }
        }
        batch.packets.truncate(kept);
    }

    /// Shows the others what they were given, and that nothing older will follow.
    fn tell(&mut self, watermark: Nanos) {
        for out in self.outs.iter_mut().flatten() {
            if out.ring.publish(watermark) {
                out.bell.ring();
            }
        }
    }
}

impl<S: Source> Source for Dispatch<S> {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        match self.source.poll(batch) {
            Poll::Packets => {
                self.deal(batch);
                self.tell(batch.watermark);
                if batch.packets.is_empty() { Poll::Idle(batch.watermark) } else { Poll::Packets }
            }
            Poll::Idle(now) => {
                self.tell(now);
                Poll::Idle(now)
            }
            Poll::End => {
                // Their inboxes end when they are empty.
                self.outs.iter_mut().for_each(|out| {
                    if let Some(Out { ring, bell }) = out.take() {
                        drop(ring);
                        bell.ring();
                    }
                });
                Poll::End
            }
        }
    }

    packets_of!(source);

    fn interfaces(&self) -> &[Interface] {
        self.source.interfaces()
    }
}

#[cfg(test)]
mod tests;
