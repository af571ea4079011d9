//! Several sources as one, ordered by packet time.
//!
//! Runs on the worker's thread. Buffers nothing beyond each input's own batch and allocates only for a new
//! interface. A packet goes out once no other open input can still bring an older one; of packets of the same
//! time the one of the earlier-named input goes first, however the inputs cut their batches. What comes out
//! behind the watermark is passed on and counted. The worker polls it like any other source.

use super::{BATCH, Batch, Descriptor, Interface, LinkType, Nanos, Poll, Source};

/// Interfaces that can be told apart; the last number stands for all that come after.
const MAX_INTERFACES: usize = u16::MAX as usize;

struct Input<S> {
    source: S,
    batch: Batch,
    /// First packet of the batch not handed on.
    next: usize,
    /// Bytes of the batch are lent out.
    lent: bool,
    ended: bool,
    /// Nothing older will come in a later batch.
    watermark: Nanos,
    /// Per interface of the source: its index among the merged ones.
    map: Vec<u16>,
}

impl<S: Source> Input<S> {
    fn head(&self) -> Option<&Descriptor> {
        self.batch.packets.get(self.next)
    }

    /// The time of the next packet or, not knowing it, the earliest it can have; `None` when there is none.
    fn bound(&self) -> Option<Nanos> {
        match self.head() {
            Some(packet) => Some(packet.ts),
            None => (!self.ended).then_some(self.watermark),
        }
    }

    fn poll(&mut self) {
        self.next = 0;
        match self.source.poll(&mut self.batch) {
            Poll::Packets => {
                self.lent = true;
                self.watermark = self.watermark.max(self.batch.watermark);
            }
            Poll::Idle(now) => {
                self.watermark = self.watermark.max(now);
                self.source.release(&mut self.batch);
            }
            Poll::End => self.ended = true,
        }
    }

    /// Appends to `all` the interfaces that are new.
    fn map_interfaces(&mut self, all: &mut Vec<Interface>) {
        for interface in &self.source.interfaces()[self.map.len()..] {
            if all.len() < MAX_INTERFACES {
                all.push(interface.clone());
            } else if all.len() == MAX_INTERFACES {
                let link = LinkType::Other(u16::MAX);
                all.push(Interface {
                    name: "others".to_owned(),
                    description: "interfaces too many to be told apart".to_owned(),
                    link,
                    link_number: link.number(),
                    snap_len: 0,
                });
            }
            self.map.push((all.len() - 1) as u16);
        }
    }
}

/// A k-way merge of sources of one kind.
pub struct Merge<S: Source> {
    inputs: Vec<Input<S>>,
    interfaces: Vec<Interface>,
    watermark: Nanos,
    late: u64,
}

impl<S: Source> Merge<S> {
    /// The order of `sources` decides between packets of the same time.
    pub fn new(sources: Vec<S>) -> Merge<S> {
        let input = |source| Input {
            source,
            batch: Batch::new(),
            next: 0,
            lent: false,
            ended: false,
            watermark: 0,
            map: Vec::new(),
        };
        let mut inputs: Vec<Input<S>> = sources.into_iter().map(input).collect();
        let mut interfaces = Vec::new();
        for input in &mut inputs {
            input.map_interfaces(&mut interfaces);
        }
        Merge { inputs, interfaces, watermark: 0, late: 0 }
    }

    /// Packets that came out behind the watermark: an input's times went backwards.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The sources, in the order they were given.
    pub fn sources(&self) -> impl Iterator<Item = &S> {
        self.inputs.iter().map(|input| &input.source)
    }

    /// The input that is first in (time, order) and the bound of the second, which it may go up to.
    fn front(&self) -> Option<(usize, (Nanos, usize))> {
        let mut first = None;
        let mut second = (Nanos::MAX, usize::MAX);
        for (index, input) in self.inputs.iter().enumerate() {
            let Some(bound) = input.bound() else { continue };
            let mut bound = (bound, index);
            if let Some(best) = &mut first {
                if bound < *best {
                    std::mem::swap(&mut bound, best);
                }
                second = second.min(bound);
            } else {
                first = Some(bound);
            }
        }
        first.map(|(_, index)| (index, second))
    }

    /// Counts what lies behind the watermark and moves it on.
    #[inline]
    fn note(late: &mut u64, watermark: &mut Nanos, ts: Nanos) {
        *late += u64::from(ts < *watermark);
        *watermark = (*watermark).max(ts);
    }

    /// One input: its batches are handed through as they are.
    fn poll_single(&mut self, batch: &mut Batch) -> Poll {
        let poll = self.inputs[0].source.poll(batch);
        for packet in &batch.packets {
            Self::note(&mut self.late, &mut self.watermark, packet.ts);
        }
        self.watermark = self.watermark.max(batch.watermark);
        batch.watermark = self.watermark;
        poll
    }

    fn gather(&mut self, out: &mut Vec<Descriptor>) {
        while out.len() < BATCH
            && let Some((first, limit)) = self.front()
        {
            let input = &mut self.inputs[first];
            let taken = out.len();
            while let Some(packet) = input.batch.packets.get(input.next)
                && (packet.ts, first) < limit
                && out.len() < BATCH
            {
                Self::note(&mut self.late, &mut self.watermark, packet.ts);
                let handle = (first as u64) << 32 | input.next as u64;
                let interface = input.map.get(usize::from(packet.interface)).copied().unwrap_or_default();
                out.push(Descriptor { handle, interface, ..*packet });
                input.next += 1;
            }
            if out.len() == taken {
                // The one that may bring the oldest has used its batch up; it is polled after the release.
                return;
            }
        }
    }
}

impl<S: Source> Source for Merge<S> {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        debug_assert!(batch.packets.is_empty(), "poll needs a released batch");
        if self.inputs.len() == 1 {
            return self.poll_single(batch);
        }
        for input in &mut self.inputs {
            if !input.ended && !input.lent {
                input.poll();
                input.map_interfaces(&mut self.interfaces);
            }
        }
        self.gather(&mut batch.packets);
        if let Some(bound) = self.inputs.iter().filter_map(Input::bound).min() {
            self.watermark = self.watermark.max(bound);
        }
        batch.watermark = self.watermark;
        if !batch.packets.is_empty() {
            Poll::Packets
        } else if self.inputs.iter().all(|input| input.ended) {
            Poll::End
        } else {
            Poll::Idle(self.watermark)
        }
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        if let [only] = &self.inputs[..] {
            return only.source.bytes(packet);
        }
        let input = &self.inputs[(packet.handle >> 32) as usize];
        input.source.bytes(&input.batch.packets[packet.handle as u32 as usize])
    }

    fn release(&mut self, batch: &mut Batch) {
        if let [only] = &mut self.inputs[..] {
            return only.source.release(batch);
        }
        for input in &mut self.inputs {
            if input.lent && input.head().is_none() {
                input.source.release(&mut input.batch);
                input.next = 0;
                input.lent = false;
            }
        }
        batch.packets.clear();
    }

    fn interfaces(&self) -> &[Interface] {
        match &self.inputs[..] {
            [only] => only.source.interfaces(),
            _ => &self.interfaces,
        }
    }
}
