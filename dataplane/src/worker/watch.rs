//! Hosts whose resets are to be recorded: after a storm was recognised, the packets that prove it come from
//! the flows it still tears down. Worker's thread; a few fixed places, the oldest gives way.

use std::net::IpAddr;

use super::engine::Engine;
use crate::activity::Party;
use crate::flow::keeper::Stamp;
use crate::judge::message::{CaptureLimits, Message};
use crate::source::Nanos;

use rules::event::Event;

/// Hosts watched at once.
const HOSTS: usize = 8;

/// What to record of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub rule: u16,
    /// Flows still to record.
    pub left: u32,
    pub until: Nanos,
    pub limits: CaptureLimits,
}

/// The watched hosts.
#[derive(Debug, Default)]
pub(super) struct Watches {
    places: [Option<(IpAddr, Watch)>; HOSTS],
    next: usize,
    active: usize,
}

impl Watches {
    /// True while no host is watched.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.active == 0
    }

    pub fn add(&mut self, addr: IpAddr, watch: Watch) {
        self.places[self.next] = (watch.left > 0).then_some((addr, watch));
        self.next = (self.next + 1) % HOSTS;
        self.recount();
    }

    /// The watch on this host, if it wants another flow.
    fn of(&self, addr: IpAddr) -> Option<Watch> {
        self.places.iter().flatten().find(|(watched, _)| *watched == addr).map(|(_, watch)| *watch)
    }

    /// One flow less to record; a host watched long enough is forgotten.
    fn spend(&mut self, addr: IpAddr, now: Nanos) {
        for place in &mut self.places {
            if let Some((watched, watch)) = place {
                watch.left -= u32::from(*watched == addr);
                if watch.left == 0 || now > watch.until {
                    *place = None;
                }
            }
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.active = self.places.iter().flatten().count();
    }
}

impl Engine {
    /// A RST was sent on this flow while hosts are watched: records the flow if its sender is one of them.
    #[cold]
    pub(super) fn watched_reset(&mut self, slot: u32, dir: usize, stamp: &Stamp) {
        let addr = Party::of(&self.table.flows[slot as usize].key, dir).ip();
        let Some(watch) = self.watches.of(addr) else { return };
        let raising = Some(stamp.number);
        if stamp.ts <= watch.until && self.hold(slot, watch.rule, Event::Rst, raising, stamp.ts) {
            let flow_id = self.table.flows[slot as usize].id();
            self.holds.keep(flow_id, watch.limits, stamp.ts);
            self.outlet.send(Message::Watched { addr, flow_id });
            self.watches.spend(addr, stamp.ts);
        }
    }
}
