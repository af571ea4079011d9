//! The realistic mix: many overlapping flows, heavy-tailed lengths, two in a hundred in trouble.
//!
//! Runs on the caller's thread and streams: a heap holds one entry per live flow, a flow makes its packets an
//! exchange at a time and is forgotten when it ends. The number of packets is exactly what was asked, unless a
//! handful of flows leaves no healthy one to even it out. Packets go to a callback, troubled flows to the truth.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::rng::Rng;
use crate::scenario::START;
use crate::truth::Truth;

mod flow;

use flow::{Class, Live, plan};

/// Fewest packets per flow, on average.
const LEAST_MEAN: u64 = 16;
/// Pareto's shape and the longest flow, as a multiple of the mean (and never above 20,000 packets).
const SHAPE: f64 = 1.2;
const LONGEST: f64 = 700.0;

/// What a mix is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Flows, UDP ones included; at least 1.
    pub flows: u64,
    /// Packets in all; at least 16 times the flows.
    pub packets: u64,
    pub seed: u64,
    /// Flows begin within the first 70 % of this; long ones may end later.
    pub seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { flows: 100_000, packets: 3_000_000, seed: 1, seconds: 60 }
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub packets: u64,
    pub flows: u64,
    /// Frame bytes, without FCS.
    pub bytes: u64,
    pub tcp_flows: u64,
    pub ipv6_flows: u64,
    /// Most flows alive at one time.
    pub most_live: u64,
    pub truth: Truth,
}

/// Options that cannot be met, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOptions(pub String);

impl std::fmt::Display for BadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadOptions {}

impl Options {
    /// Says whether these options can be met, before any file is opened for them.
    ///
    /// # Errors
    /// Names the option, its range and what to do.
    pub fn check(&self) -> Result<(), BadOptions> {
        if self.flows == 0 || self.flows > 50_000_000 {
            return Err(BadOptions(format!("flows is {}; give 1 to 50,000,000", self.flows)));
        }
        if self.packets < self.flows * LEAST_MEAN {
            let least = self.flows * LEAST_MEAN;
            let (packets, flows) = (self.packets, self.flows);
            return Err(BadOptions(format!(
                "{packets} packets are too few for {flows} flows; give at least {least} packets, or fewer flows"
            )));
        }
        if self.seconds == 0 || self.seconds > 1_000_000 {
            return Err(BadOptions(format!("seconds is {}; give 1 to 1,000,000", self.seconds)));
        }
        Ok(())
    }

    /// When flow `id` begins, ns since the epoch.
    fn start(&self, id: u64) -> u64 {
        START + Rng::stream(self.seed ^ 0x57a7, id).below(self.seconds * 700_000_000)
    }
}

/// Draws a length from the Pareto distribution bounded to `low..high`.
fn pareto(rng: &mut Rng, low: f64, high: f64) -> f64 {
    let tail = 1.0 - (low / high).powf(SHAPE);
    low * (1.0 - rng.unit() * tail).powf(-1.0 / SHAPE)
}

/// Packets of each flow: those that decide for themselves as planned, the rest heavy-tailed, the sum exact.
fn lengths(options: &Options) -> (Vec<u32>, Truth) {
    let mut truth = Truth::default();
    let mut lengths = vec![0u32; options.flows as usize];
    let mut raw: Vec<(u32, f32)> = Vec::with_capacity(lengths.len());
    let mut left = options.packets;
    let high = (options.packets as f64 / options.flows as f64 * LONGEST).clamp(40.0, 20_000.0);
    for id in 0..options.flows {
        let plan = plan(options, id);
        match plan.class {
            Class::Healthy { least } => {
                let mut rng = Rng::stream(options.seed ^ 0x1e46, id);
                lengths[id as usize] = least;
                left = left.saturating_sub(u64::from(least));
                raw.push((id as u32, (pareto(&mut rng, 4.0, high) - 4.0) as f32));
            }
            _ => {
                let (count, line) = plan.fixed();
                lengths[id as usize] = count;
                left = left.saturating_sub(u64::from(count));
                truth.lines.extend(line);
            }
        }
    }
    // What is left beyond each flow's least is shared in proportion to the draws.
    let total: f64 = raw.iter().map(|(_, x)| f64::from(*x)).sum();
    let scale = if total > 0.0 { left as f64 / total } else { 0.0 };
    for (id, x) in &raw {
        let more = ((f64::from(*x) * scale) as u64).min(left) as u32;
        lengths[*id as usize] += more;
        left -= u64::from(more);
    }
    for (id, _) in raw.iter().cycle().take(if raw.is_empty() { 0 } else { left as usize }) {
        lengths[*id as usize] += 1;
    }
    (lengths, truth)
}

/// Makes the mix and hands over each packet, in time order: ns since the epoch, frame bytes. A callback that
/// answers `false` stops it.
///
/// # Errors
/// Options out of range.
pub fn run(options: &Options, mut packet: impl FnMut(u64, &[u8]) -> bool) -> Result<Summary, BadOptions> {
    options.check()?;
    let (lengths, truth) = lengths(options);
    let mut summary = Summary { flows: options.flows, truth, ..Summary::default() };
    let mut starts: Vec<(u64, u32)> = (0..options.flows).map(|id| (options.start(id), id as u32)).collect();
    starts.sort_unstable();
    let mut starts = starts.into_iter().peekable();

    let mut slots: Vec<Option<Box<Live>>> = Vec::new();
    let mut free: Vec<u32> = Vec::new();
    let mut heap: BinaryHeap<Reverse<(u64, u32, u32)>> = BinaryHeap::new();
    let mut frame = Vec::with_capacity(2048);
    loop {
        let next = heap.peek().map_or(u64::MAX, |Reverse((at, _, _))| *at);
        if let Some((start, id)) = starts.next_if(|(start, _)| *start <= next) {
            let live = Live::new(options, u64::from(id), start, lengths[id as usize]);
            summary.tcp_flows += u64::from(live.is_tcp());
            summary.ipv6_flows += u64::from(live.is_ipv6());
            let slot = free.pop().unwrap_or_else(|| {
                slots.push(None);
                slots.len() as u32 - 1
            });
            if let Some(at) = live.next_at() {
                heap.push(Reverse((at, id, slot)));
            }
            slots[slot as usize] = Some(Box::new(live));
            summary.most_live = summary.most_live.max((slots.len() - free.len()) as u64);
            continue;
        }
        let Some(mut top) = heap.peek_mut() else { break };
        let Reverse((at, id, slot)) = *top;
        let live = slots[slot as usize].as_mut().expect("the heap names filled slots only");
        live.render(&mut frame);
        summary.packets += 1;
        summary.bytes += frame.len() as u64;
        match live.advance() {
            Some(at) => *top = Reverse((at, id, slot)),
            None => {
                std::collections::binary_heap::PeekMut::pop(top);
                slots[slot as usize] = None;
                free.push(slot);
            }
        }
        if !packet(at, &frame) {
            break;
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use crate::packet::{ACK, FIN, SYN};
    use crate::tcp::after;
    use std::collections::{HashMap, HashSet};

    const SMALL: Options = Options { flows: 2000, packets: 60_000, seed: 3, seconds: 20 };

    fn collect(options: &Options) -> (Vec<(u64, Vec<u8>)>, Summary) {
        let mut all = Vec::new();
        let summary = run(options, |ts, bytes| {
            all.push((ts, bytes.to_vec()));
            true
        })
        .unwrap();
        (all, summary)
    }

    #[test]
    fn same_options_same_packets_other_seed_others() {
        let (a, sa) = collect(&SMALL);
        let (b, sb) = collect(&SMALL);
        assert!(a == b && sa == sb);
        let (c, _) = collect(&Options { seed: 4, ..SMALL });
        assert!(a != c);
    }

    #[test]
    fn counts_are_exact_and_time_never_goes_back() {
        let (all, summary) = collect(&SMALL);
        assert_eq!(all.len() as u64, SMALL.packets);
        assert_eq!(summary.packets, SMALL.packets);
        assert!(all.windows(2).all(|w| w[0].0 <= w[1].0));
        let mut tuples = HashSet::new();
        let mut v6 = 0;
        for (_, bytes) in &all {
            let s = check::read(bytes).unwrap();
            v6 += usize::from(s.src.is_ipv6());
            if s.protocol == 6 || s.protocol == 17 {
                let (a, b) = ((s.src, s.sport), (s.dst, s.dport));
                tuples.insert((a.min(b), a.max(b)));
            }
        }
        assert_eq!(tuples.len() as u64, SMALL.flows);
        assert!(v6 > 0);
        let mean = summary.bytes as f64 / summary.packets as f64;
        assert!((330.0..530.0).contains(&mean), "mean frame {mean} B");
        let troubled = summary.truth.lines.len() as f64 / SMALL.flows as f64;
        assert!((0.01..0.03).contains(&troubled), "{troubled} of the flows are troubled");
    }

    /// Per direction: highest sequence number sent, highest ACK sent, time of the last packet.
    #[derive(Default, Clone, Copy)]
    struct Seen {
        next: Option<u32>,
        acked: Option<u32>,
    }

    /// A flow's client end, server end and what was seen of each direction.
    type Flows<K> = HashMap<(K, K), [Seen; 2]>;

    #[test]
    fn flows_that_are_not_listed_are_clean() {
        let (all, summary) = collect(&SMALL);
        let troubled: HashSet<_> =
            summary.truth.lines.iter().map(|l| (l.src.unwrap(), l.sport.unwrap())).collect();
        let mut flows: Flows<_> = HashMap::new();
        let mut clean = 0;
        for (_, bytes) in &all {
            let s = check::read(bytes).unwrap();
            let (a, b) = ((s.src, s.sport), (s.dst, s.dport));
            if s.protocol != 6 || troubled.contains(&a) || troubled.contains(&b) {
                continue;
            }
            clean += 1;
            let directions = flows.entry((a.min(b), a.max(b))).or_default();
            let mut me = directions[usize::from(a > b)];
            let other = directions[usize::from(a < b)];
            if let Some(next) = me.next {
                assert_eq!(s.seq, next, "{a:?} > {b:?}: a gap or a repeat");
            } else {
                assert!(s.flags & SYN != 0);
            }
            if s.flags & ACK != 0 {
                assert!(!after(s.ack, other.next.unwrap()), "ACK of data not sent");
                let acked = me.acked.unwrap_or(s.ack);
                assert!(!after(acked, s.ack), "ACK goes back");
                let useful = s.payload > 0 || s.flags != ACK || acked != s.ack;
                assert!(useful || me.acked.is_none(), "duplicate ACK");
                me.acked = Some(s.ack);
                assert!(s.window > 0 || s.flags & 4 != 0, "zero window");
            }
            let more = s.payload + u32::from(s.flags & SYN != 0) + u32::from(s.flags & FIN != 0);
            me.next = Some(s.seq.wrapping_add(more));
            directions[usize::from(a > b)] = me;
        }
        assert!(clean > 50_000);
        for ((a, b), [x, y]) in &flows {
            for (sent, acked) in [(x.next, y.acked), (y.next, x.acked)] {
                let open = sent.unwrap().wrapping_sub(acked.unwrap());
                assert!(open <= 1, "{a:?} - {b:?}: {open} bytes never acknowledged");
            }
        }
    }

    #[test]
    fn impossible_options_are_refused_in_words() {
        let error = run(&Options { packets: 100, ..SMALL }, |_, _| true).unwrap_err();
        assert!(error.to_string().contains("at least 32000"), "{error}");
        assert!(run(&Options { flows: 0, ..SMALL }, |_, _| true).is_err());
        assert!(run(&Options { seconds: 0, ..SMALL }, |_, _| true).is_err());
    }

    #[test]
    fn a_callback_can_stop_it() {
        let mut n = 0;
        run(&SMALL, |_, _| {
            n += 1;
            n < 10
        })
        .unwrap();
        assert_eq!(n, 10);
    }
}
