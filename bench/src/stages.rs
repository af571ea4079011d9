//! The worker's stages put together piece by piece, each loop with one more than the one before, and the floor:
//! what the bytes and the memory alone cost. On the benchmark's one thread; each function runs a whole input
//! and returns what it saw. `whole` runs the real worker.

use std::hint::black_box;

use anyhow::Result;
use dataplane::analyze;
use dataplane::decode::{self, Class, Packet, flags};
use dataplane::flow::FlowTable;
use dataplane::flow::table::Class as Region;
use dataplane::flow::trouble::TroubleSlab;
use dataplane::source::{BATCH, Batch, LinkType, Nanos, Poll, Source};

use crate::clocked::{Clocked, Timing};
use crate::input::Input;

const SECOND: Nanos = 1_000_000_000;
/// As in history: what is written besides each packet.
const RING_HEADER: usize = 40;

/// What a stage saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub timing: Timing,
    pub packets: u64,
    pub bytes: u64,
    /// Flows alive at most and bytes of the flow table, where there is one.
    pub peak: u32,
    pub table_bytes: u64,
}

/// The floor of any program: every packet through the source, its first cache line touched.
pub fn stream(input: &Input) -> Result<Seen> {
    let mut sum = 0_u64;
    let seen = over(input, |source, batch| {
        for descriptor in &batch.packets {
            sum += source.bytes(descriptor).first().map_or(0, |&b| u64::from(b));
        }
    });
    black_box(sum);
    seen
}

/// A flow's record, as the table has it: four cache lines, of which a packet touches three.
#[derive(Clone)]
#[repr(C, align(64))]
struct Record([u64; 32]);

/// The memory floor of what a worker does: besides, three lines of one of as many records as the flow table
/// has, chosen by a hash of the addresses and prefetched a batch at a time, and a copy into a ring.
pub fn memory(input: &Input) -> Result<Seen> {
    let slots = (input.config.flows as usize).next_power_of_two();
    let mut records = dataplane_sys::huge_table(slots, Record([0; 32]));
    let mut ring = dataplane_sys::huge_table(input.config.history_bytes, 0_u8);
    let mut at = 0;
    let mut chosen = [0_usize; BATCH];
    let seen = over(input, |source, batch| {
        for (i, descriptor) in batch.packets.iter().enumerate() {
            chosen[i] = spread(source.bytes(descriptor)) & (slots - 1);
            let record = &records[chosen[i]].0;
            (0..24).step_by(8).for_each(|line| dataplane_sys::prefetch(&record[line]));
        }
        for (i, descriptor) in batch.packets.iter().enumerate() {
            let bytes = source.bytes(descriptor);
            let record = &mut records[chosen[i]].0;
            record[0] = descriptor.ts;
            record[8] += bytes.len() as u64;
            record[16] ^= record[8];
            let need = RING_HEADER + bytes.len();
            if at + need > ring.len() {
                at = 0;
            }
            ring[at + RING_HEADER..at + need].copy_from_slice(bytes);
            at = (at + need).next_multiple_of(8);
        }
    });
    black_box((&records, &ring));
    seen
}

/// A number from where an untagged IPv4 packet has its addresses and ports; the same both ways.
#[inline(always)]
fn spread(frame: &[u8]) -> usize {
    let Some(&[a, b, c, d, e, f, g, h, i, j, k, l]) = frame.get(26..).and_then(|rest| rest.first_chunk())
    else {
        return 0;
    };
    let (from, to) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    let ports = [u64::from(u16::from_be_bytes([i, j])), u64::from(u16::from_be_bytes([k, l]))];
    let ends = u64::from(from ^ to) << 32 | u64::from(from.wrapping_add(to));
    let mixed = (ends ^ (ports[0] * ports[1]) << 13).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize
}

/// Every packet decoded and its flow hashed.
pub fn decoded(input: &Input) -> Result<Seen> {
    let mut front = Front::new(None, input.config.hash_secret);
    over(input, |source, batch| {
        front.decode(source, batch);
        black_box((&front.packets, &front.hashes));
    })
}

/// Every packet's flow found or made, and analysed.
pub fn analysed(input: &Input) -> Result<Seen> {
    let config = &input.config;
    let table = FlowTable::new(config.flows, config.half_open, config.hash_secret);
    let mut front = Front::new(Some(table), config.hash_secret);
    let mut slab = TroubleSlab::new(config.troubled);
    let mut events = 0_u64;
    let seen = over(input, |source, batch| {
        front.decode(source, batch);
        let Front { table: Some(table), packets, hashes, .. } = &mut front else { return };
        for (i, descriptor) in batch.packets.iter().enumerate() {
            if packets[i].has_flow {
                events += u64::from(flow(table, &mut slab, &packets[i], hashes[i], descriptor.ts));
            }
        }
    });
    black_box(events);
    let (peak, memory) = front.table.map_or((0, 0), |table| (table.peak(), table.memory()));
    Ok(Seen { peak, table_bytes: memory as u64, ..seen? })
}

/// One packet through table and analysis, as the worker does it, without timers and the reuse of ports; true
/// if it raised an event.
#[inline(always)]
fn flow(table: &mut FlowTable, slab: &mut TroubleSlab, packet: &Packet, hash: u64, now: Nanos) -> bool {
    let slot = table.find(&packet.key, hash).unwrap_or_else(|| {
        let syn = packet.class == Class::Tcp && packet.tcp.flags & flags::SYN != 0;
        let region = if syn { Region::HalfOpen } else { Region::Full };
        make_room(table, region);
        let slot = table.insert(packet.key, hash, region, now, now + SECOND);
        table.flows[slot as usize].set_originator(packet.from_low);
        slot
    });
    let record = &mut table.flows[slot as usize];
    if packet.class != Class::Tcp {
        analyze::datagram(record, packet, now);
        return false;
    }
    let mut outcome = analyze::Outcome::default();
    analyze::segment(record, slab, packet, now, &mut outcome);
    if outcome.established && table.is_half_open(slot) {
        make_room(table, Region::Full);
        table.promote(slot, now + SECOND);
    }
    !outcome.events.is_empty()
}

fn make_room(table: &mut FlowTable, region: Region) {
    if let Some(victim) = table.must_evict(region) {
        table.remove(victim, true);
    }
}

/// A batch's first pass, as the worker does it: decode, hash, and start loading what comes next.
struct Front {
    table: Option<FlowTable>,
    packets: Box<[Packet]>,
    hashes: Box<[u64]>,
    secret: u64,
}

impl Front {
    fn new(table: Option<FlowTable>, secret: u64) -> Front {
        let blank = decode::decode(LinkType::Other(0), &[], 0);
        Front { table, packets: vec![blank; BATCH].into(), hashes: vec![0; BATCH].into(), secret }
    }

    #[inline(always)]
    fn decode(&mut self, source: &Clocked, batch: &Batch) {
        for (i, descriptor) in batch.packets.iter().enumerate() {
            let bytes = source.bytes(descriptor);
            decode::decode_into(descriptor.link, bytes, descriptor.orig_len, &mut self.packets[i]);
            self.hashes[i] = self.packets[i].key.hash(self.secret);
            if let Some(table) = &self.table {
                table.prefetch_bucket(self.hashes[i]);
            }
        }
        if let Some(table) = &self.table {
            for i in 0..batch.packets.len() {
                table.prefetch_flow(self.hashes[i], &self.packets[i]);
            }
        }
    }
}

/// Runs the input through a loop body, a batch at a time.
#[inline(always)]
fn over(input: &Input, mut each: impl FnMut(&Clocked, &Batch)) -> Result<Seen> {
    let mut source = Clocked::open(input.file.path(), input.warm)?;
    let mut batch = Batch::new();
    let mut bytes = 0;
    while source.poll(&mut batch) != Poll::End {
        bytes += batch.packets.iter().map(|d| u64::from(d.cap_len)).sum::<u64>();
        each(&source, &batch);
        source.release(&mut batch);
    }
    Ok(Seen { timing: source.timing(), packets: source.packets(), bytes, ..Seen::default() })
}
