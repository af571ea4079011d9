//! What went well, service by service: how long a silence connections outlived, how large a segment arrived,
//! from which networks, by which TTL, with which options. A failing flow means little by itself; beside these
//! it tells what sets it apart. Worker's thread; bounded, never allocates after start.
//!
//! Written when a flow ends well or a silence proves to have been outlived; told to the judge at ticks, for the
//! services in which something failed of late.

use crate::decode::{Address, FlowKey};
use crate::flow::Flow;
use crate::flow::record::{flow_flag, offer, sign};
use crate::judge::message::{Message, NETWORKS, Siblings};
use crate::source::Nanos;

const TCP: u8 = 6;
/// Cells looked at before the oldest of them gives way.
const PROBES: u32 = 8;
/// Services told of at the same time, at most.
const WATCHED: usize = 64;
/// How long after its last failure a service is told of, ns.
const WATCH_FOR: Nanos = 120_000_000_000;
/// Packets after a silence that show the connection outlived it.
const OUTLIVED_PACKETS: u64 = 5;

#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
struct Cell {
    addr: Address,
    touched: Nanos,
    port: u16,
    v6: bool,
    /// Something changed since the judge was told.
    news: bool,
    spare: [u8; 4],
    siblings: Siblings,
}

/// One worker's table.
#[derive(Debug)]
pub struct SiblingTable {
    cells: Box<[Cell]>,
    /// For each cell, of its service's hash what does not say the place; 0 if it is free. Looking here first spares most
    /// looks at cells, which are large.
    tags: Box<[u32]>,
    mask: u32,
    /// Cells of services in trouble, and until when they are told of.
    watched: Vec<(u32, Nanos)>,
    /// Services forgotten for others.
    pub evicted: u64,
    /// Failures at services that are not told of, since so many are already.
    pub unwatched: u64,
}

impl SiblingTable {
    pub fn new(services: u32) -> SiblingTable {
        let cells = services.max(64).next_power_of_two();
        SiblingTable {
            cells: bytemuck::zeroed_slice_box(cells as usize),
            tags: bytemuck::zeroed_slice_box(cells as usize),
            mask: cells - 1,
            watched: Vec::with_capacity(WATCHED),
            evicted: 0,
            unwatched: 0,
        }
    }

    /// A flow has ended. If it went well it becomes a sibling of those that don't; `troubled`: a rule matched.
    #[inline]
    pub fn ended(&mut self, flow: &Flow, troubled: bool) {
        let both_spoke = flow.dirs[0].payload > 0 && flow.dirs[1].payload > 0;
        if flow.key.proto != TCP || !flow.has(flow_flag::HANDSHAKE) || !both_spoke || troubled {
            return;
        }
        let client = flow.orig();
        let Some(at) = self.cell(flow, flow.last_ns) else { return };
        let cell = &mut self.cells[at as usize];
        cell.news = true;
        let siblings = &mut cell.siblings;
        siblings.flows = siblings.flows.saturating_add(1);
        for (side, dir) in [client, client ^ 1].into_iter().enumerate() {
            let own = &flow.dirs[dir];
            // Larger ones may have arrived, for all that is known.
            let arrived = if own.shows(sign::COALESCED) { u16::MAX } else { own.largest_acked }.into();
            siblings.largest_acked[side] = siblings.largest_acked[side].max(arrived);
        }
        siblings.see_ttl(flow.dirs[client].ttl_max);
        let (address, _) = end_of(&flow.key, client);
        siblings.see_network(network(address, flow.key.v6));
        let offers = |what| u32::from(flow.offered[client] & what != 0);
        siblings.ecn += u32::from(flow.rare.ecn_syns > 0);
        siblings.timestamps += offers(offer::TIMESTAMPS);
        siblings.wscale += offers(offer::WSCALE);
        siblings.sack += offers(offer::SACK);
        outlived(siblings, flow);
    }

    /// A silence begins: if the one before it was outlived, that is worth knowing while the flow still lives.
    #[cold]
    pub fn silent_again(&mut self, flow: &Flow) {
        if flow.idle_ms > 0
            && let Some(at) = self.cell(flow, flow.last_ns)
        {
            self.cells[at as usize].news |= outlived(&mut self.cells[at as usize].siblings, flow);
        }
    }

    /// Something failed on a flow of this service: from now on the judge is told what goes well there.
    pub fn watch(&mut self, flow: &Flow, now: Nanos) {
        let Some(at) = self.cell(flow, now) else { return };
        let until = now.saturating_add(WATCH_FOR);
        if let Some(known) = self.watched.iter_mut().find(|(cell, _)| *cell == at) {
            known.1 = until;
        } else if self.watched.len() < WATCHED {
            self.watched.push((at, until));
            self.cells[at as usize].news = true;
        } else {
            self.unwatched += 1;
        }
    }

    /// The next news of a watched service; `None` when there is no more. Forgets services long at peace.
    pub fn news(&mut self, now: Nanos) -> Option<Message> {
        self.watched.retain(|(_, until)| *until > now);
        for (at, _) in &self.watched {
            let cell = &mut self.cells[*at as usize];
            if std::mem::take(&mut cell.news) {
                let addr = FlowKey { low: cell.addr, v6: cell.v6, ..FlowKey::NONE }.low_addr();
                return Some(Message::Siblings { addr, port: cell.port, worker: 0, siblings: cell.siblings });
            }
        }
        None
    }

    /// The service's cell, made if need be. `None` if all its places are of services in trouble.
    fn cell(&mut self, flow: &Flow, now: Nanos) -> Option<u32> {
        let (addr, port) = end_of(&flow.key, flow.orig() ^ 1);
        let key = FlowKey { low: addr, low_port: port, v6: flow.key.v6, proto: TCP, ..FlowKey::NONE };
        let hash = key.hash(0x7369_626c_696e_6773);
        let tag = ((hash >> 32) as u32).max(1);
        let places = (0..PROBES).map(|probe| (hash as u32).wrapping_add(probe) & self.mask);
        for at in places.clone() {
            let cell = &mut self.cells[at as usize];
            match self.tags[at as usize] {
                0 => {
                    self.make(at, tag, (addr, port, flow.key.v6), now);
                    return Some(at);
                }
                other if other == tag && (cell.addr, cell.port) == (addr, port) => {
                    cell.touched = cell.touched.max(now);
                    return Some(at);
                }
                _ => {}
            }
        }
        let peaceful = places.filter(|at| !self.watched.iter().any(|(watched, _)| watched == at));
        let oldest = peaceful.min_by_key(|at| self.cells[*at as usize].touched)?;
        self.evicted += 1;
        self.make(oldest, tag, (addr, port, flow.key.v6), now);
        Some(oldest)
    }

    fn make(&mut self, at: u32, tag: u32, (addr, port, v6): (Address, u16, bool), touched: Nanos) {
        self.tags[at as usize] = tag;
        self.cells[at as usize] = Cell { addr, touched, port, v6, ..bytemuck::Zeroable::zeroed() };
    }
}

/// Takes in a silence that the flow went on after; true if that was news.
fn outlived(siblings: &mut Siblings, flow: &Flow) -> bool {
    let since = flow.packets() - u64::from(flow.idle_packets).min(flow.packets());
    if flow.idle_ms == 0 || since < OUTLIVED_PACKETS || flow.has(flow_flag::RST) {
        return false;
    }
    siblings.silences = siblings.silences.saturating_add(1);
    siblings.longest_silence_ms = siblings.longest_silence_ms.max(flow.idle_ms);
    true
}

fn end_of(key: &FlowKey, dir: usize) -> (Address, u16) {
    if dir == 0 { (key.low, key.low_port) } else { (key.high, key.high_port) }
}

/// The network an address is in, as one word: an IPv4 /24, an IPv6 /64; never 0.
fn network(address: Address, v6: bool) -> u64 {
    if v6 { address[0].max(1) } else { (address[1] & 0xffff_ffff) >> 8 | 1 << 32 }
}

impl Siblings {
    fn see_ttl(&mut self, ttl: u8) {
        self.ttls[usize::from(ttl >> 6)] |= 1 << (ttl & 63);
    }

    fn see_network(&mut self, network: u64) {
        for at in 0..NETWORKS {
            if self.networks[at] == network || self.networks[at] == 0 {
                self.networks[at] = network;
                self.in_network[at] = self.in_network[at].saturating_add(1);
                return;
            }
        }
        self.in_others = self.in_others.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::record::dir_flag;

    /// A connection that went well, from a client to one of many services.
    fn flow(client: u32, service: u16) -> Flow {
        let mut flow: Flow = bytemuck::Zeroable::zeroed();
        let address = |bits: u32| [0, 0xffff_0000_0000 | u64::from(bits)];
        let (key, from_low) = FlowKey::new(
            (address(0x0a00_0000 | client), 40_000),
            (address(0x0a01_0001), service),
            TCP,
            false,
        );
        flow.key = key;
        flow.set_originator(from_low);
        flow.flags |= flow_flag::ESTABLISHED | flow_flag::HANDSHAKE;
        for dir in &mut flow.dirs {
            (dir.payload, dir.packets, dir.largest_acked) = (1000, 20, 500);
            dir.flags |= dir_flag::SEEN;
        }
        flow
    }

    fn told(table: &mut SiblingTable) -> Option<Siblings> {
        match table.news(0)? {
            Message::Siblings { siblings, .. } => Some(siblings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_service_in_trouble_is_told_of_and_only_what_is_new() {
        let mut table = SiblingTable::new(64);
        (0..12).for_each(|n| table.ended(&flow(n << 8, 443), false));
        assert!(told(&mut table).is_none());
        table.watch(&flow(99, 443), 1);
        let siblings = told(&mut table).expect("in trouble");
        assert_eq!((siblings.flows, siblings.in_others, siblings.largest_acked), (12, 4, [500, 500]));
        assert!(told(&mut table).is_none());
        table.ended(&flow(1, 443), false);
        assert_eq!(told(&mut table).map(|s| s.flows), Some(13));
        table.ended(&flow(1, 443), false);
        assert!(table.news(WATCH_FOR + 1).is_none(), "long at peace");
    }

    #[test]
    fn what_did_not_go_well_is_no_sibling() {
        let mut table = SiblingTable::new(64);
        table.watch(&flow(1, 443), 1);
        table.ended(&flow(1, 443), true);
        let mut silent = flow(1, 443);
        silent.dirs[1].payload = 0;
        table.ended(&silent, false);
        let mut udp = flow(1, 443);
        udp.key.proto = 17;
        table.ended(&udp, false);
        assert_eq!(told(&mut table).map(|s| s.flows), Some(0));
    }

    #[test]
    fn a_silence_counts_once_the_flow_went_on() {
        let mut table = SiblingTable::new(64);
        table.watch(&flow(1, 443), 1);
        let mut slept = flow(1, 443);
        (slept.idle_ms, slept.idle_packets) = (90_000, 37);
        table.silent_again(&slept);
        assert_eq!(told(&mut table).map(|s| s.silences), Some(0), "three packets tell nothing yet");
        slept.idle_packets = 30;
        table.silent_again(&slept);
        let siblings = told(&mut table).expect("news");
        assert_eq!((siblings.silences, siblings.longest_silence_ms), (1, 90_000));
    }

    #[test]
    fn services_in_trouble_beyond_the_most_are_counted() {
        let mut table = SiblingTable::new(4096);
        for service in 0..100 {
            table.watch(&flow(1, 1000 + service), 1);
            table.watch(&flow(2, 1000 + service), 1);
        }
        assert_eq!(table.unwatched, 2 * (100 - WATCHED as u64));
        assert!(table.news(WATCH_FOR + 1).is_none());
        table.watch(&flow(1, 9), WATCH_FOR + 1);
        assert_eq!(table.unwatched, 2 * (100 - WATCHED as u64), "there is room again");
    }

    #[test]
    fn the_table_forgets_the_service_untouched_for_longest_but_none_in_trouble() {
        let mut table = SiblingTable::new(64);
        table.watch(&flow(1, 1), 1);
        table.ended(&flow(1, 1), false);
        for service in 2..2000 {
            let mut other = flow(1, service);
            other.last_ns = u64::from(service);
            table.ended(&other, false);
        }
        assert!(table.evicted > 1800, "{}", table.evicted);
        assert_eq!(told(&mut table).map(|s| s.flows), Some(1));
    }
}
