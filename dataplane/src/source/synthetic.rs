//! Packets from memory, for tests and benchmarks.
//!
//! Built by whoever wants certain packets at certain times, then polled by a worker like any other source.
//! A poll allocates nothing and copies no packet. Repeating the packets with moved times makes a long input
//! out of a short one.

use super::{BATCH, Batch, Descriptor, Interface, LinkType, Marks, Nanos, Poll, Source};

enum Item {
    Packet { ts: Nanos, start: u64, cap_len: u32, orig_len: u32, interface: u16 },
    Idle(Nanos),
}

/// A source over packets in memory.
pub struct Synthetic {
    name: String,
    bytes: Vec<u8>,
    items: Vec<Item>,
    interfaces: Vec<Interface>,
    /// Next item to hand out.
    next: usize,
    /// Passes over the items after this one.
    passes_left: u64,
    /// Nanoseconds each pass is later than the one before.
    period: Nanos,
    shift: Nanos,
    latest: Nanos,
}

impl Synthetic {
    /// `name` becomes the name of its interfaces.
    pub fn new(name: &str) -> Synthetic {
        Synthetic {
            name: name.to_owned(),
            bytes: Vec::new(),
            items: Vec::new(),
            interfaces: Vec::new(),
            next: 0,
            passes_left: 0,
            period: 0,
            shift: 0,
            latest: 0,
        }
    }

    /// Appends a packet. Each link type gets an interface of its own.
    pub fn push(&mut self, ts: Nanos, bytes: &[u8], link: LinkType) {
        self.push_cut(ts, bytes, bytes.len() as u32, link);
    }

    /// Appends a packet of which only the first bytes are there; `orig_len` is its length on the wire.
    pub fn push_cut(&mut self, ts: Nanos, bytes: &[u8], orig_len: u32, link: LinkType) {
        let known = self.interfaces.iter().position(|interface| interface.link == link);
        let interface = known.unwrap_or_else(|| {
            self.interfaces.push(Interface {
                name: self.name.clone(),
                description: "synthetic".to_owned(),
                link,
                link_number: link.number(),
                snap_len: 0,
            });
            self.interfaces.len() - 1
        }) as u16;
        let (start, cap_len) = (self.bytes.len() as u64, bytes.len() as u32);
        self.bytes.extend_from_slice(bytes);
        self.items.push(Item::Packet { ts, start, cap_len, orig_len: orig_len.max(cap_len), interface });
    }

    /// Appends a poll that brings nothing, at this capture time.
    pub fn idle(&mut self, now: Nanos) {
        self.items.push(Item::Idle(now));
    }

    /// Hands everything out `times` times in all, each time `period` nanoseconds later than the last.
    pub fn repeat(&mut self, times: u64, period: Nanos) {
        self.passes_left = times.saturating_sub(1);
        self.period = period;
    }
}

impl Source for Synthetic {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        debug_assert!(batch.packets.is_empty(), "poll needs a released batch");
        if self.next == self.items.len() && self.passes_left > 0 {
            self.passes_left -= 1;
            self.shift = self.shift.saturating_add(self.period);
            self.next = 0;
        }
        for item in self.items[self.next..].iter().take(BATCH) {
            match *item {
                Item::Packet { ts, start, cap_len, orig_len, interface } => {
                    let ts = ts.saturating_add(self.shift);
                    self.latest = self.latest.max(ts);
                    let link = self.interfaces[usize::from(interface)].link;
                    batch.packets.push(Descriptor {
                        ts,
                        handle: start,
                        cap_len,
                        orig_len,
                        interface,
                        link,
                        marks: Marks::NONE,
                    });
                    self.next += 1;
                }
                Item::Idle(now) => {
                    if batch.packets.is_empty() {
                        self.next += 1;
                        self.latest = self.latest.max(now.saturating_add(self.shift));
                        batch.watermark = self.latest;
                        return Poll::Idle(self.latest);
                    }
                    break;
                }
            }
        }
        batch.watermark = self.latest;
        if batch.packets.is_empty() { Poll::End } else { Poll::Packets }
    }

    #[inline]
    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        let start = packet.handle as usize;
        &self.bytes[start..start + packet.cap_len as usize]
    }

    fn release(&mut self, batch: &mut Batch) {
        batch.packets.clear();
    }

    fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_gaps_and_passes() {
        let mut source = Synthetic::new("s");
        source.push(10, b"one", LinkType::Ethernet);
        source.idle(15);
        source.push_cut(20, b"tw", 900, LinkType::Raw);
        source.repeat(2, 100);
        let mut batch = Batch::new();
        let mut steps = Vec::new();
        loop {
            let poll = source.poll(&mut batch);
            let packets = &batch.packets;
            steps.push((poll, batch.watermark, packets.first().map(|p| (p.ts, source.bytes(p).to_vec()))));
            source.release(&mut batch);
            if poll == Poll::End {
                break;
            }
        }
        let wanted = [
            (Poll::Packets, 10, Some((10, b"one".to_vec()))),
            (Poll::Idle(15), 15, None),
            (Poll::Packets, 20, Some((20, b"tw".to_vec()))),
            (Poll::Packets, 110, Some((110, b"one".to_vec()))),
            (Poll::Idle(115), 115, None),
            (Poll::Packets, 120, Some((120, b"tw".to_vec()))),
            (Poll::End, 120, None),
        ];
        assert_eq!(steps, wanted);
        assert_eq!(source.interfaces().len(), 2);
    }

    #[test]
    fn batches_are_full_until_the_last() {
        let mut source = Synthetic::new("s");
        for ts in 0..150 {
            source.push(ts, b"x", LinkType::Ethernet);
        }
        let mut batch = Batch::new();
        let mut sizes = Vec::new();
        while source.poll(&mut batch) == Poll::Packets {
            sizes.push(batch.packets.len());
            source.release(&mut batch);
        }
        assert_eq!(sizes, [64, 64, 22]);
    }
}
