//! What one segment holds: read through once, from its first packet to its last.
//!
//! On the thread that fills the index. Memory is bounded: of a segment with more flows or addresses than are told apart,
//! only so much is known that it must always be read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::record::tuple::{Endpoints, community_id, endpoints};
use dataplane::record::{Ending, Recorded, SegmentFile, SegmentReader};

/// Flows, and pairs of ends, told apart in one segment.
const MOST: usize = 200_000;

/// What one segment holds.
#[derive(Debug)]
pub struct Scan {
    /// Bytes of the file.
    pub size: u64,
    pub packets: u64,
    /// Packet bytes.
    pub bytes: u64,
    pub first_ns: u64,
    pub last_ns: u64,
    /// "complete", "cut" or "damaged".
    pub ending: &'static str,
    /// Everything in it is known; otherwise it is always read.
    pub whole: bool,
    /// First and last packet of each flow.
    pub flows: HashMap<u64, (u64, u64)>,
    pub addresses: HashSet<IpAddr>,
    pub communities: HashSet<String>,
}

/// How far reading came.
pub enum Scanned {
    Done(Box<Scan>),
    /// It is gone, or changes while it is read.
    NotYet,
    /// `stop` was set.
    Stopped,
}

/// Reads a segment through.
pub fn scan(segment: &SegmentFile, stop: &AtomicBool) -> io::Result<Scanned> {
    let file = match File::open(&segment.path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Scanned::NotYet),
        other => other?,
    };
    let size = file.metadata()?.len();
    let again = file.try_clone()?;
    let mut reader = SegmentReader::new(file)?;
    let mut scan = Scan {
        size,
        packets: 0,
        bytes: 0,
        first_ns: u64::MAX,
        last_ns: 0,
        ending: "complete",
        whole: true,
        flows: HashMap::new(),
        addresses: HashSet::new(),
        communities: HashSet::new(),
    };
    let mut ends = HashSet::new();
    while let Some(packet) = reader.next_packet() {
        scan.take(&packet, &mut ends);
        if scan.packets.is_multiple_of(4096) && stop.load(Ordering::Relaxed) {
            return Ok(Scanned::Stopped);
        }
    }
    match reader.ending() {
        None | Some(Ending::Complete) => {}
        Some(Ending::Cut { .. }) => scan.ending = "cut",
        Some(Ending::Damaged { .. }) => (scan.ending, scan.whole) = ("damaged", false),
    }
    match again.metadata()?.len() == size {
        true => Ok(Scanned::Done(Box::new(scan))),
        false => Ok(Scanned::NotYet),
    }
}

impl Scan {
    fn take(&mut self, packet: &Recorded<'_>, ends: &mut HashSet<Endpoints>) {
        self.packets += 1;
        self.bytes += packet.bytes.len() as u64;
        self.first_ns = self.first_ns.min(packet.ts);
        self.last_ns = self.last_ns.max(packet.ts);
        if !self.whole {
            return;
        }
        let extent = self.flows.entry(packet.flow_id).or_insert((packet.ts, packet.ts));
        *extent = (extent.0.min(packet.ts), extent.1.max(packet.ts));
        let (link, bytes) = (packet.interface.link, packet.bytes);
        if let Some(tuple) = endpoints(link, bytes)
            // ICMP has no ports to tell its conversations apart by.
            && (ends.insert(tuple) || (tuple.sport, tuple.dport) == (0, 0))
        {
            self.addresses.extend([tuple.src, tuple.dst]);
            self.communities.extend(community_id(link, bytes));
        }
        if self.flows.len() > MOST || ends.len() > MOST || self.communities.len() > MOST {
            self.whole = false;
            (self.flows, self.addresses, self.communities) = Default::default();
            ends.clear();
        }
    }
}
