//! What a worker of several polls: its queues, one or many, of one interface or several, and what other workers hand
//! over, merged by packet time into one view. A worker with one queue and nothing to hand over needs none of this.
//!
//! Made on the main thread, then moved into the worker; like any source it never allocates, locks or logs afterwards.
//! A packet waits until nothing older can come from any other input; the worker polls on.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::afxdp::CaptureClock;
use super::dispatch::{Bell, Dispatch, Ends, Inbox};
use super::live::LiveSource;
use super::merge::Merge;
use super::{Batch, Descriptor, Interface, Nanos, Poll, Source};
use crate::ledger::WorkerAccount;

/// A queue whose packets carry the number that its interface has among all that are captured from.
#[derive(Debug)]
pub struct Numbered<S> {
    pub source: S,
    pub interface: u16,
    pub all: Arc<[Interface]>,
}

impl<S: Source> Source for Numbered<S> {
    #[inline]
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        let poll = self.source.poll(batch);
        batch.packets.iter_mut().for_each(|packet| packet.interface = self.interface);
        poll
    }

    packets_of!(source);

    fn interfaces(&self) -> &[Interface] {
        &self.all
    }
}

impl<S: LiveSource> LiveSource for Numbered<S> {
    fn now(&self) -> Nanos {
        self.source.now()
    }

    fn files(&self, each: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.source.files(each);
    }

    fn late(&self) -> u64 {
        self.source.late()
    }
}

/// One of those that are merged.
#[derive(Debug)]
enum Input<S: Source> {
    Queue(S),
    /// All the worker's queues, less what others get of them.
    Own(Dispatch<Merge<S>>),
    Inbox(Inbox),
}

impl<S: Source> Source for Input<S> {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        match self {
            Input::Queue(queue) => queue.poll(batch),
            Input::Own(own) => own.poll(batch),
            Input::Inbox(inbox) => inbox.poll(batch),
        }
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        match self {
            Input::Queue(queue) => queue.bytes(packet),
            Input::Own(own) => own.bytes(packet),
            Input::Inbox(inbox) => inbox.bytes(packet),
        }
    }

    fn release(&mut self, batch: &mut Batch) {
        match self {
            Input::Queue(queue) => queue.release(batch),
            Input::Own(own) => own.release(batch),
            Input::Inbox(inbox) => inbox.release(batch),
        }
    }

    fn interfaces(&self) -> &[Interface] {
        match self {
            Input::Queue(queue) => queue.interfaces(),
            Input::Own(own) => own.interfaces(),
            Input::Inbox(inbox) => inbox.interfaces(),
        }
    }
}

/// One worker's merged view.
#[derive(Debug)]
pub struct Lane<S: Source> {
    merge: Merge<Input<S>>,
    bell: Option<Arc<Bell>>,
    clock: Option<Arc<CaptureClock>>,
}

impl<S: Source> Lane<S> {
    /// Over these queues, all of which number their packets' interfaces alike; with `ends`, packets change hands between
    /// workers. Without a clock a silent worker is waited for without end.
    pub fn new(
        queues: Vec<S>,
        ends: Option<Ends>,
        clock: Option<Arc<CaptureClock>>,
        interfaces: &Arc<[Interface]>,
    ) -> Lane<S> {
        let bell = ends.as_ref().map(|ends| Arc::clone(ends.bell()));
        let inputs = match ends {
            None => queues.into_iter().map(Input::Queue).collect(),
            Some(ends) => {
                let own = Merge::numbered(queues, interfaces);
                let (own, inboxes) = ends.join(own, clock.as_ref(), interfaces);
                // Its own first: of the same time, they wait for nobody, and so no two workers for each other.
                std::iter::once(Input::Own(own)).chain(inboxes.into_iter().map(Input::Inbox)).collect()
            }
        };
        Lane { merge: Merge::numbered(inputs, interfaces), bell, clock }
    }

    /// The queues that are polled here.
    fn queues(&self) -> impl Iterator<Item = &S> {
        self.merge.sources().flat_map(|input| {
            let (one, several) = match input {
                Input::Queue(queue) => (Some(queue), None),
                Input::Own(own) => (None, Some(own.source().sources())),
                Input::Inbox(_) => (None, None),
            };
            one.into_iter().chain(several.into_iter().flatten())
        })
    }

    /// Packets that came behind later ones.
    pub fn late(&self) -> u64 {
        self.merge.late()
    }

    /// Adds what was taken from the queues and went elsewhere.
    pub fn add_to(&self, account: &mut WorkerAccount) {
        for input in self.merge.sources() {
            if let Input::Own(own) = input {
                own.add_to(account);
            }
        }
    }
}

impl<S: Source> Source for Lane<S> {
    #[inline]
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        self.merge.poll(batch)
    }

    packets_of!(merge);

    fn interfaces(&self) -> &[Interface] {
        self.merge.interfaces()
    }
}

impl<S: LiveSource> LiveSource for Lane<S> {
    fn now(&self) -> Nanos {
        match &self.clock {
            Some(clock) => clock.now(),
            None => self.queues().next().map_or(0, LiveSource::now),
        }
    }

    fn files(&self, each: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.queues().for_each(|queue| queue.files(each));
        if let Some(bell) = &self.bell {
            each(bell.as_fd());
        }
    }

    fn hurry(&self) -> bool {
        if self.merge.holds_back() {
            for input in self.merge.sources() {
                if let Input::Inbox(inbox) = input {
                    inbox.hurry();
                }
            }
            return true;
        }
        self.merge.sources().any(|input| matches!(input, Input::Own(own) if own.source().holds_back()))
    }

    fn sleeps(&self, yes: bool) {
        if let Some(bell) = &self.bell {
            bell.sleeps(yes);
        }
    }

    fn late(&self) -> u64 {
        Lane::late(self)
    }

    fn add_to(&self, account: &mut WorkerAccount) {
        Lane::add_to(self, account);
    }
}
