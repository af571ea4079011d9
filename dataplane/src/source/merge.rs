//! Several sources as one, ordered by packet time.
//!
//! Runs on the worker's thread. Buffers nothing beyond each input's own batch and allocates only for a new
//! interface. A packet goes out once no other open input can still bring an older one; of packets of the same
//! time the one of the earlier-named input goes first, however the inputs cut their batches. What comes out
//! behind the watermark is passed on and counted. The worker polls it like any other source.

use super::{BATCH, Batch, Descriptor, Interface, LinkType, Nanos, Poll, Source};

/// Interfaces that can be told apart; the last number stands for all that come after.
const MAX_INTERFACES: usize = u16::MAX as usize;

#[derive(Debug)]
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
    fn new(source: S, map: Vec<u16>) -> Input<S> {
        Input { source, batch: Batch::new(), next: 0, lent: false, ended: false, watermark: 0, map }
    }

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
#[derive(Debug)]
pub struct Merge<S: Source> {
    inputs: Vec<Input<S>>,
    interfaces: Vec<Interface>,
    watermark: Nanos,
    late: u64,
}

impl<S: Source> Merge<S> {
    /// The order of `sources` decides between packets of the same time.
    pub fn new(sources: Vec<S>) -> Merge<S> {
        let input = |source| Input::new(source, Vec::new());
        let mut inputs: Vec<Input<S>> = sources.into_iter().map(input).collect();
        let mut interfaces = Vec::new();
        for input in &mut inputs {
            input.map_interfaces(&mut interfaces);
        }
        Merge { inputs, interfaces, watermark: 0, late: 0 }
    }

    /// The same of sources that all number their packets' interfaces by the same list.
    pub fn numbered(sources: Vec<S>, interfaces: &[Interface]) -> Merge<S> {
        let mut merge = Merge::new(Vec::new());
        merge.interfaces = interfaces.to_vec();
        let numbers = interfaces.len().min(MAX_INTERFACES) as u16;
        merge.inputs = sources.into_iter().map(|source| Input::new(source, (0..numbers).collect())).collect();
        merge
    }

    /// Packets that came out behind the watermark: an input's times went backwards.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// A packet is there and waits until none older can come.
    pub fn holds_back(&self) -> bool {
        self.inputs.len() > 1 && self.inputs.iter().any(|input| input.head().is_some())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::synthetic::Synthetic;
    use super::*;

    const LINK: LinkType = LinkType::Ethernet;

    fn source(packets: &[(Nanos, &[u8])]) -> Synthetic {
        let mut source = Synthetic::new("s");
        for (ts, bytes) in packets {
            source.push(*ts, bytes, LINK);
        }
        source
    }

    /// All packets, checking the promises on the way.
    fn drain(merge: &mut Merge<Synthetic>) -> Vec<(Nanos, Vec<u8>)> {
        let mut batch = Batch::new();
        let mut seen = Vec::new();
        let mut watermark = 0;
        loop {
            let poll = merge.poll(&mut batch);
            assert!(batch.watermark >= watermark, "a watermark never goes back");
            match poll {
                Poll::Packets => {
                    assert!(!batch.packets.is_empty() && batch.packets.len() <= BATCH);
                    let early = batch.packets.iter().filter(|p| p.ts < watermark).count() as u64;
                    assert!(early <= merge.late(), "a packet behind the watermark is counted");
                    seen.extend(batch.packets.iter().map(|p| (p.ts, merge.bytes(p).to_vec())));
                }
                Poll::Idle(now) => assert_eq!(now, batch.watermark),
                Poll::End => break,
            }
            watermark = batch.watermark;
            merge.release(&mut batch);
            assert!(batch.packets.is_empty());
        }
        assert_eq!(merge.poll(&mut batch), Poll::End);
        seen
    }

    #[test]
    fn three_inputs_in_time_order_with_the_earlier_input_first_among_equals() {
        let mut merge = Merge::new(vec![
            source(&[(1, b"a1"), (5, b"a5"), (5, b"a5'"), (9, b"a9")]),
            source(&[(1, b"b1"), (2, b"b2"), (5, b"b5"), (9, b"b9"), (12, b"b12")]),
            source(&[(0, b"c0"), (5, b"c5"), (9, b"c9")]),
        ]);
        let names: Vec<String> =
            drain(&mut merge).into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect();
        let wanted = ["c0", "a1", "b1", "b2", "a5", "a5'", "b5", "c5", "a9", "b9", "c9", "b12"];
        assert_eq!(names, wanted);
        assert_eq!(merge.late(), 0);
    }

    #[test]
    fn nothing_overtakes_an_input_whose_next_packet_is_not_known() {
        // The first input's batch ends at time 64; its next packet has the same time as the second's only one.
        let mut first = Synthetic::new("first");
        for ts in 1..=64 {
            first.push(ts, b"first", LINK);
        }
        first.push(64, b"tie", LINK);
        let mut merge = Merge::new(vec![first, source(&[(64, b"second")])]);
        let seen = drain(&mut merge);
        assert_eq!(seen[64..], [(64, b"tie".to_vec()), (64, b"second".to_vec())]);
    }

    #[test]
    fn an_idle_input_holds_back_what_it_may_still_precede() {
        let mut quiet = Synthetic::new("quiet");
        quiet.idle(10);
        quiet.idle(20);
        quiet.push(25, b"q", LINK);
        let mut merge = Merge::new(vec![quiet, source(&[(5, b"x"), (15, b"y"), (30, b"z")])]);
        let mut batch = Batch::new();
        let mut steps = Vec::new();
        loop {
            let poll = merge.poll(&mut batch);
            let times: Vec<Nanos> = batch.packets.iter().map(|p| p.ts).collect();
            steps.push((poll, times, batch.watermark));
            merge.release(&mut batch);
            if poll == Poll::End {
                break;
            }
        }
        let wanted = [
            (Poll::Packets, vec![5], 10),
            (Poll::Packets, vec![15], 20),
            (Poll::Packets, vec![25], 25),
            (Poll::Packets, vec![30], 30),
            (Poll::End, vec![], 30),
        ];
        assert_eq!(steps, wanted);
    }

    #[test]
    fn packets_behind_the_watermark_pass_and_are_counted() {
        for others in [vec![], vec![source(&[(7, b"o")])]] {
            let mut sources = vec![source(&[(1, b"1"), (9, b"9"), (3, b"3"), (4, b"4"), (10, b"10")])];
            let more = others.len();
            sources.extend(others);
            let mut merge = Merge::new(sources);
            let seen = drain(&mut merge);
            assert_eq!(seen.len(), 5 + more);
            assert_eq!(merge.late(), 2);
            let order: Vec<Nanos> = seen.iter().map(|(ts, _)| *ts).filter(|ts| *ts != 7).collect();
            assert_eq!(order, [1, 9, 3, 4, 10], "an input's own order is kept");
        }
    }

    #[test]
    fn interfaces_are_joined_and_packets_point_to_theirs() {
        let mut first = Synthetic::new("first");
        first.push(1, b"a", LinkType::Raw);
        first.push(3, b"b", LinkType::Ethernet);
        let mut second = Synthetic::new("second");
        second.push(2, b"c", LinkType::Ethernet);
        let mut merge = Merge::new(vec![first, second]);
        let names: Vec<_> = merge.interfaces().iter().map(|i| (i.name.as_str(), i.link)).collect();
        let wanted =
            [("first", LinkType::Raw), ("first", LinkType::Ethernet), ("second", LinkType::Ethernet)];
        assert_eq!(names, wanted);
        let mut batch = Batch::new();
        let mut seen = Vec::new();
        while merge.poll(&mut batch) != Poll::End {
            seen.extend(batch.packets.iter().map(|p| (p.ts, p.interface)));
            merge.release(&mut batch);
        }
        assert_eq!(seen, [(1, 0), (2, 2), (3, 1)]);
    }

    #[test]
    fn no_inputs_are_the_end() {
        assert_eq!(Merge::<Synthetic>::new(vec![]).poll(&mut Batch::new()), Poll::End);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// However a sorted stream is dealt out, the merge deals it back: equal times in order of input.
        #[test]
        fn a_split_stream_comes_back(
            steps in prop::collection::vec((0u64..3, 0usize..4, 0u8..8), 0..700),
        ) {
            let mut inputs: Vec<Synthetic> = (0..4).map(|_| Synthetic::new("s")).collect();
            let mut wanted = Vec::new();
            let mut now = 0;
            for (number, (step, input, idle)) in steps.into_iter().enumerate() {
                now += step;
                let bytes = (number as u32).to_le_bytes();
                inputs[input].push(now, &bytes, LINK);
                if idle == 0 {
                    inputs[input].idle(now);
                }
                wanted.push((now, input, bytes.to_vec()));
            }
            wanted.sort_by_key(|(ts, input, _)| (*ts, *input));
            let mut merge = Merge::new(inputs);
            let seen = drain(&mut merge);
            let wanted: Vec<_> = wanted.into_iter().map(|(ts, _, bytes)| (ts, bytes)).collect();
            prop_assert_eq!(seen, wanted);
            prop_assert_eq!(merge.late(), 0);
        }
    }
}
