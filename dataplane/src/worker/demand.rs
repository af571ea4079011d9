//! Captures on demand, at the worker: what is wanted of history is found by going through the ring, a bounded piece a step,
//! and what is wanted of packets to come by looking at each. Worker's thread; a few fixed places, never allocates. Kept
//! packets go to the recorder, with the demand's id in place of a flow's.
//!
//! Every packet is in the ring once, so history ends where it ended when the demand came, and each packet is met once.
//! Incidents come first: a demand writes only while a part of the chunks is free. History waits for them, packets that pass
//! by can't.

use std::sync::Arc;

use super::engine::Engine;
use crate::decode::Packet;
use crate::demand::{DEMANDS, Demand, Over, Progress};
use crate::flow::keeper::Stamp;
use crate::history::{Ring, ring::Ahead};
use crate::ledger::{KeptAccount, UnwrittenReason};
use crate::record::{Recorder, StoredPacket};
use crate::source::{Interface, LinkType, Nanos};

/// What is gone through of the ring in a step: twice the packets of a batch, so that the ring is not faster.
const RECORDS: usize = 128;
const BYTES: u64 = 256 << 10;
/// Packets are remembered as they came, which for several queues is not quite by their time.
const DISORDER: Nanos = 1_000_000_000;

#[derive(Debug)]
struct Place {
    demand: Arc<Demand>,
    /// Of history: where it is, and where it ends.
    scan: Option<(u64, u64)>,
    /// Packets that come are looked at.
    live: bool,
    /// Chunks that have to be written before all that was kept is.
    written_at: Option<u64>,
}

/// Demands under way.
#[derive(Debug)]
pub(super) struct Demands {
    places: [Option<Place>; DEMANDS],
    /// Those that look at packets that come.
    live: usize,
    under_way: usize,
    /// History is being gone through, and nothing hinders it.
    scanning: bool,
    /// Of each interface.
    links: Vec<(LinkType, u16)>,
    /// Chunks that are left to incidents.
    reserve: usize,
}

impl Demands {
    pub fn new(recorder: Option<&Recorder>) -> Demands {
        let reserve = recorder.map_or(0, |recorder| recorder.free_chunks() / 4);
        Demands {
            places: [const { None }; DEMANDS],
            live: 0,
            under_way: 0,
            scanning: false,
            links: Vec::new(),
            reserve,
        }
    }

    /// Makes an interface known. Allocates: where the recorder does.
    pub fn announce(&mut self, interface: &Interface) {
        self.links.push((interface.link, interface.link_number));
    }

    /// True while nobody wants packets that come.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// A part of history could be gone through right now.
    #[inline(always)]
    pub fn scans(&self) -> bool {
        self.scanning
    }

    fn recount(&mut self) {
        self.under_way = self.places.iter().flatten().count();
        self.live = self.places.iter().flatten().filter(|place| place.live).count();
    }
}

/// Where what is kept goes.
struct Store<'a> {
    recorder: &'a mut Recorder,
    account: &'a mut KeptAccount,
    reserve: usize,
}

impl Store<'_> {
    fn has_room(&self) -> bool {
        self.recorder.free_chunks() > self.reserve
    }

    fn keep(&mut self, demand: &Demand, progress: &Progress, stamp: &Stamp, bytes: &[u8]) {
        let room = self.has_room();
        if room && !demand.spend(bytes.len() as u64) {
            return;
        }
        self.account.kept += 1;
        let packet = StoredPacket {
            ts: stamp.ts,
            number: stamp.number,
            flow_id: demand.id,
            interface: stamp.interface,
            orig_len: stamp.orig_len,
            bytes,
            comment: None,
        };
        let written = if room { self.recorder.write(&packet) } else { Err(UnwrittenReason::NoChunk) };
        match written {
            Ok(()) => progress.keep(bytes.len() as u64),
            Err(reason) => {
                self.account.unwritten[reason as usize] += 1;
                progress.refuse();
            }
        }
    }
}

impl Place {
    fn begin(demand: Arc<Demand>, ring: &Ring, progress: &Progress) -> Place {
        let mut place = Place { demand, scan: None, live: true, written_at: None };
        let at = ring.beginning(place.demand.since, DISORDER);
        place.go_on_from(at, ring.written(), ring, progress);
        place
    }

    /// History is there from here on.
    fn go_on_from(&mut self, at: u64, end: u64, ring: &Ring, progress: &Progress) {
        self.scan = Some((at.min(end), end));
        if let (Ahead::Packet(first, _), 1..) = (ring.ahead(at), at) {
            progress.reach(first.ts.max(self.demand.since));
        } else {
            // Nothing was ever forgotten.
            progress.reach(self.demand.since);
        }
    }

    /// Goes through a piece of history. False if the store is short of room.
    fn scan(
        &mut self,
        ring: &Ring,
        links: &[(LinkType, u16)],
        store: &mut Store<'_>,
        progress: &Progress,
    ) -> bool {
        let Some((mut at, end)) = self.scan else { return true };
        let piece = at.saturating_add(BYTES);
        for _ in 0..RECORDS {
            if at >= end.min(piece) || self.demand.over().is_some() {
                break;
            }
            match ring.ahead(at) {
                Ahead::Packet(packet, after) => {
                    if self.demand.covers(packet.ts)
                        && wants(&self.demand, links, packet.interface, packet.bytes, packet.orig_len)
                    {
                        if !store.has_room() {
                            self.scan = Some((at, end));
                            return false;
                        }
                        store.keep(&self.demand, progress, &Stamp::from(&packet), packet.bytes);
                    }
                    progress.look();
                    at = after;
                }
                Ahead::End => at = end,
                Ahead::Overtaken => {
                    let next = ring.beginning(0, 0);
                    progress.lap(next.min(end) - at);
                    self.go_on_from(next, end, ring, progress);
                    at = next;
                }
            }
        }
        self.scan = (at < end).then_some((at, end));
        true
    }
}

fn wants(demand: &Demand, links: &[(LinkType, u16)], interface: u16, bytes: &[u8], wire_len: u32) -> bool {
    let link = links.get(usize::from(interface));
    link.is_some_and(|(link, number)| demand.selection.wants(*link, *number, bytes, wire_len))
}

impl Engine {
    /// Between two batches.
    #[inline(always)]
    pub(super) fn follow_demands(&mut self) {
        if self.demands.under_way > 0 || !self.outlet.demands().is_empty() {
            self.serve_demands();
        }
    }

    #[cold]
    fn serve_demands(&mut self) {
        self.take_demands();
        let Engine { demands, recorder, account, ring, now, number, .. } = self;
        let Demands { places, links, reserve, .. } = demands;
        demands.scanning = false;
        for slot in places.iter_mut() {
            let (Some(place), Some(recorder)) = (&mut *slot, recorder.as_mut()) else { continue };
            // The place may change meanwhile; whoever made the demand has it until the end.
            let demand = Arc::clone(&place.demand);
            let Some(progress) = demand.progress(*number) else { continue };
            let over = demand.over().is_some();
            place.live &= !over && *now <= demand.until;
            if over {
                place.scan = None;
            }
            if place.scan.is_some() {
                let mut store = Store { recorder, account: &mut account.kept, reserve: *reserve };
                let goes_on = place.scan(ring, links, &mut store, progress);
                demands.scanning |= goes_on && place.scan.is_some();
                if place.scan.is_none() && demand.over().is_none() {
                    progress.scanned();
                }
            }
            if place.live || place.scan.is_some() {
                continue;
            }
            let written_at = *place.written_at.get_or_insert_with(|| {
                recorder.flush();
                recorder.handed_over()
            });
            if recorder.given_back() >= written_at {
                progress.done();
                progress.fate().settle();
                *slot = None;
            }
        }
        self.demands.recount();
    }

    fn take_demands(&mut self) {
        while let Some(free) = self.demands.places.iter().position(Option::is_none)
            && let Some(demand) = self.outlet.demands().take()
        {
            let mine = Arc::clone(&demand);
            let Some(progress) = mine.progress(self.number) else { continue };
            let Some(recorder) = &self.recorder else {
                demand.end(Over::Ended);
                progress.done();
                continue;
            };
            recorder.follow(progress.fate());
            self.demands.places[free] = Some(Place::begin(demand, &self.ring, progress));
        }
    }

    /// A packet came while somebody wants some.
    #[cold]
    pub(super) fn demanded(&mut self, stamp: &Stamp, packet: &Packet, bytes: &[u8]) {
        for index in 0..DEMANDS {
            let Some(place) = &self.demands.places[index] else { continue };
            let demand = &place.demand;
            let Some(progress) = demand.progress(self.number).filter(|_| place.live) else { continue };
            if !demand.covers(stamp.ts) || demand.over().is_some() {
                continue;
            }
            progress.look();
            if !wants(demand, &self.demands.links, stamp.interface, bytes, stamp.orig_len) {
                continue;
            }
            let kept = self.kept(packet, bytes);
            if let Some(recorder) = &mut self.recorder {
                let account = &mut self.account.kept;
                Store { recorder, account, reserve: self.demands.reserve }
                    .keep(demand, progress, stamp, kept);
            }
        }
    }

    /// The run is over: so is every demand, and those that still wait for a place.
    pub(super) fn end_demands(&mut self) {
        while self.demands.under_way > 0 || !self.outlet.demands().is_empty() {
            self.take_demands();
            for place in self.demands.places.iter_mut().filter_map(Option::take) {
                if place.live || place.scan.is_some() {
                    place.demand.end(Over::Ended);
                }
                if let Some(progress) = place.demand.progress(self.number) {
                    progress.done();
                }
            }
            self.demands.recount();
        }
    }
}
