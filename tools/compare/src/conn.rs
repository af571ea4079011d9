//! Both captures sorted by connection, and all that is found out about them on the way.
//!
//! A 5-tuple used again is another connection. Main thread; the index takes 4 bytes a packet. `pairing` says
//! which connection here is which there.

use std::collections::HashSet;
use std::ops::Range;

use dataplane::decode::{Address, flags};

use crate::clock::Clock;
use crate::flows::Flows;
use crate::pairing;
use crate::places::Places;
use crate::read::Tap;
use crate::record::Record;

/// No counterpart.
pub const NONE: u32 = u32::MAX;

/// One connection, or all packets of a flow that is not TCP.
#[derive(Clone, Debug, Default)]
pub struct Conn {
    pub flow: u32,
    /// Where its packets are in each capture's order.
    pub ranges: [Range<usize>; 2],
    /// What B's sequence numbers of each direction are ahead of A's.
    pub delta: [u32; 2],
    /// Packets seen at both taps.
    pub matched: u32,
    /// For each direction, the tap its packets pass first.
    pub first_tap: [Option<usize>; 2],
    /// Packets by tap, then direction.
    pub sent: [[u32; 2]; 2],
}

/// What the middle leaves as it was, as far as pairs found without it show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    pub ip_id: bool,
    pub tsval: bool,
    /// Both captures hold whole payloads.
    pub body: bool,
}

pub struct World<'t> {
    pub taps: [&'t Tap; 2],
    pub flows: &'t Flows,
    /// Indices of each capture's records, by connection, then time.
    pub order: [Vec<u32>; 2],
    pub conns: Vec<Conn>,
    /// The other capture's record that is the same packet, or [`NONE`].
    pub partner: [Vec<u32>; 2],
    /// Addresses each tap saw packets of.
    pub hosts: [HashSet<Address>; 2],
    pub kept: Kept,
    pub clock: Option<Clock>,
    pub places: Places,
}

impl<'t> World<'t> {
    pub fn new(taps: [&'t Tap; 2], flows: &'t Flows) -> World<'t> {
        let sorted = taps.map(|tap| by_flow(&tap.records, flows.len()));
        let mut conns = Vec::new();
        let [(order_a, starts_a), (order_b, starts_b)] = sorted;
        let order = [order_a, order_b];
        for (flow, (a, b)) in (0u32..).zip(starts_a.windows(2).zip(starts_b.windows(2))) {
            let ranges = [a, b].map(|bounds| bounds[0] as usize..bounds[1] as usize);
            if flows.key(flow).proto == pairing::TCP {
                pairing::connections(taps, &order, flow, ranges, &mut conns);
            } else if ranges.iter().any(|range| !range.is_empty()) {
                conns.push(Conn { flow, ranges, ..Conn::default() });
            }
        }
        for conn in &mut conns {
            for tap in [0, 1] {
                for i in &order[tap][conn.ranges[tap].clone()] {
                    conn.sent[tap][taps[tap].records[*i as usize].dir()] += 1;
                }
            }
        }
        let snapped =
            taps.iter().any(|tap| tap.records.iter().any(|r| r.head != 0 && r.body == 0 && !r.is_error));
        World {
            partner: taps.map(|tap| vec![NONE; tap.records.len()]),
            hosts: taps.map(|tap| hosts(tap, flows)),
            kept: Kept { body: !snapped, ..Kept::default() },
            clock: None,
            places: Places::default(),
            taps,
            flows,
            order,
            conns,
        }
    }

    pub fn record(&self, tap: usize, index: u32) -> &'t Record {
        &self.taps[tap].records[index as usize]
    }

    /// A connection's packets in one capture: index and record, by time.
    pub fn packets(&self, conn: &Conn, tap: usize) -> impl DoubleEndedIterator<Item = (u32, &'t Record)> {
        let records = &self.taps[tap].records;
        self.order[tap][conn.ranges[tap].clone()].iter().map(move |i| (*i, &records[*i as usize]))
    }

    /// Connections of a flow.
    pub fn of_flow(&self, flow: u32) -> &[Conn] {
        let from = self.conns.partition_point(|conn| conn.flow < flow);
        let to = self.conns.partition_point(|conn| conn.flow <= flow);
        &self.conns[from..to]
    }

    pub fn is_matched(&self, tap: usize, index: u32) -> bool {
        self.partner[tap][index as usize] != NONE
    }

    /// Sequence and acknowledgment number as A would have them.
    pub fn numbers(&self, conn: &Conn, tap: usize, r: &Record) -> (u32, u32) {
        if tap == 0 {
            return (r.seq, r.ack);
        }
        let ack = if r.has(flags::ACK) { r.ack.wrapping_sub(conn.delta[1 - r.dir()]) } else { r.ack };
        (r.seq.wrapping_sub(conn.delta[r.dir()]), ack)
    }
}

fn hosts(tap: &Tap, flows: &Flows) -> HashSet<Address> {
    let mut seen = vec![false; flows.len()];
    for record in &tap.records {
        if let Some(seen) = seen.get_mut(record.flow as usize) {
            *seen = true;
        }
    }
    let flows = seen.iter().zip(0u32..).filter(|(seen, _)| **seen).map(|(_, flow)| flows.key(flow));
    flows.flat_map(|key| [key.low, key.high]).collect()
}

/// Indices of the records by flow, then time; and where each flow's begin.
fn by_flow(records: &[Record], flows: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; flows + 1];
    for record in records {
        starts[record.flow as usize + 1] += 1;
    }
    for i in 0..flows {
        starts[i + 1] += starts[i];
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; records.len()];
    for (i, record) in (0u32..).zip(records) {
        let at = &mut next[record.flow as usize];
        order[*at as usize] = i;
        *at += 1;
    }
    for bounds in starts.windows(2) {
        let part = &mut order[bounds[0] as usize..bounds[1] as usize];
        if !part.is_sorted_by_key(|i| records[*i as usize].ts) {
            part.sort_by_key(|i| records[*i as usize].ts);
        }
    }
    (order, starts)
}
