//! What hosts and services did in the present 100 ms of packet time: counted, so that a storm of five million
//! events a second is a few numbers and not a queue. Worker's thread; bounded, never allocates after start.
//!
//! The tables live for one interval: at its end every entry is told to the judge, which keeps the windows.

use std::net::IpAddr;

use rules::facts::{Count, CountSet, Counts};

use crate::decode::{Address, FlowKey};
use crate::judge::message::Message;

/// Length of an interval, ns of packet time.
pub const INTERVAL: u64 = 100_000_000;
/// Cells looked at before an entry is given up on.
const PROBES: u32 = 16;

#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
struct Cell {
    addr: Address,
    port: u16,
    proto: u8,
    v6: bool,
    used: bool,
    counts: CountsCell,
}

#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
struct CountsCell {
    syns: u32,
    established: u32,
    syn_unanswered: u32,
    refused: u32,
    rsts: u32,
    flows_reset: u32,
}

/// One end of a flow, as the tables know it: the host, or with its port and protocol the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    pub addr: Address,
    pub port: u16,
    pub proto: u8,
    pub v6: bool,
}

impl Party {
    /// The end of a flow that sends in direction `dir`.
    pub fn of(key: &FlowKey, dir: usize) -> Party {
        let (addr, port) = if dir == 0 { (key.low, key.low_port) } else { (key.high, key.high_port) };
        Party { addr, port, proto: key.proto, v6: key.v6 }
    }

    pub fn ip(&self) -> IpAddr {
        FlowKey { low: self.addr, v6: self.v6, ..FlowKey::NONE }.low_addr()
    }
}

#[derive(Debug)]
struct Table {
    cells: Box<[Cell]>,
    mask: u32,
    /// Cells in use, in the order they were taken.
    used: Vec<u32>,
}

impl Table {
    fn new(capacity: u32) -> Table {
        let cells = (capacity.max(64) * 2).next_power_of_two();
        Table {
            cells: bytemuck::zeroed_slice_box(cells as usize),
            mask: cells - 1,
            used: Vec::with_capacity(capacity.max(64) as usize),
        }
    }

    fn add(&mut self, who: &Party, what: Count) -> bool {
        let key =
            FlowKey { low: who.addr, low_port: who.port, proto: who.proto, v6: who.v6, ..FlowKey::NONE };
        let start = key.hash(0x6163_7469_7669_7479) as u32;
        for probe in 0..PROBES {
            let at = start.wrapping_add(probe) & self.mask;
            let cell = &mut self.cells[at as usize];
            if !cell.used {
                if self.used.len() == self.used.capacity() {
                    return false;
                }
                self.used.push(at);
                *cell = Cell {
                    addr: who.addr,
                    port: who.port,
                    proto: who.proto,
                    v6: who.v6,
                    used: true,
                    counts: CountsCell::default(),
                };
            } else if (cell.addr, cell.port, cell.proto) != (who.addr, who.port, who.proto) {
                continue;
            }
            let counts = &mut cell.counts;
            *match what {
                Count::Syns => &mut counts.syns,
                Count::Established => &mut counts.established,
                Count::SynUnanswered => &mut counts.syn_unanswered,
                Count::Refused => &mut counts.refused,
                Count::Rsts => &mut counts.rsts,
                Count::FlowsReset => &mut counts.flows_reset,
            } += 1;
            return true;
        }
        false
    }

    fn take(&mut self) -> Option<(Party, Counts)> {
        let at = self.used.pop()?;
        let cell = &mut self.cells[at as usize];
        cell.used = false;
        let c = cell.counts;
        let counts = Counts {
            syns: c.syns,
            established: c.established,
            syn_unanswered: c.syn_unanswered,
            refused: c.refused,
            rsts: c.rsts,
            flows_reset: c.flows_reset,
        };
        Some((Party { addr: cell.addr, port: cell.port, proto: cell.proto, v6: cell.v6 }, counts))
    }
}

/// The two tables of one worker.
#[derive(Debug)]
pub struct Activity {
    hosts: Table,
    services: Table,
    hosts_want: CountSet,
    services_want: CountSet,
    /// Counts that found no room.
    pub lost: u64,
}

impl Activity {
    /// `hosts` and `services` say what some rule reads; the rest is not counted.
    pub fn new(capacity: u32, hosts_want: CountSet, services_want: CountSet) -> Activity {
        Activity {
            hosts: Table::new(capacity),
            services: Table::new(capacity),
            hosts_want,
            services_want,
            lost: 0,
        }
    }

    /// Counts something a host did.
    #[inline]
    pub fn host(&mut self, who: Party, what: Count) {
        if !self.hosts_want.contains(what) {
            return;
        }
        let host = Party { port: 0, proto: 0, ..who };
        self.lost += u64::from(!self.hosts.add(&host, what));
    }

    /// Counts something that happened to a service.
    #[inline]
    pub fn service(&mut self, who: Party, what: Count) {
        if !self.services_want.contains(what) {
            return;
        }
        self.lost += u64::from(!self.services.add(&who, what));
    }

    /// The next entry of the interval that ended, taken out; `None` when all are.
    pub fn take(&mut self) -> Option<Message> {
        if let Some((who, counts)) = self.hosts.take() {
            return Some(Message::Host { addr: who.ip(), counts });
        }
        self.services.take().map(|(who, counts)| Message::Service {
            addr: who.ip(),
            port: who.port,
            proto: who.proto,
            counts,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.used.is_empty() && self.services.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(n: u64) -> Party {
        Party { addr: [0, 0xffff_0000_0000 | n], port: 80, proto: 6, v6: false }
    }

    #[test]
    fn counts_once_each_and_empties() {
        let mut activity = Activity::new(128, CountSet::ALL, CountSet::ALL);
        for n in 0..100 {
            for _ in 0..=n {
                activity.host(party(n), Count::Rsts);
            }
            activity.service(party(n), Count::Syns);
        }
        let (mut hosts, mut services) = (0, 0);
        while let Some(message) = activity.take() {
            match message {
                Message::Host { addr: IpAddr::V4(v4), counts } => {
                    assert_eq!(counts.rsts, u32::from(v4.octets()[3]) + 1);
                    hosts += 1;
                }
                Message::Service { port: 80, proto: 6, counts, .. } => {
                    assert_eq!(counts.syns, 1);
                    services += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((hosts, services, activity.lost), (100, 100, 0));
        assert!(activity.is_empty());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut activity = Activity::new(64, CountSet::ALL, CountSet::ALL);
        for n in 0..1000 {
            activity.host(party(n), Count::Syns);
        }
        let mut told = 0;
        while activity.take().is_some() {
            told += 1;
        }
        assert_eq!(told + activity.lost, 1000);
        assert_eq!(told, 64);
    }
}
