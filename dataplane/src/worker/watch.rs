//! Hosts and services whose flows are to be recorded: a rule about them matched, and the packets that show it are
//! those of the flows they have now and begin next. Worker's thread; a few fixed places, the oldest gives way. What is
//! recorded goes to the recorder by way of a hold, and is told to the judge.

use std::net::IpAddr;

use super::engine::Engine;
use crate::activity::Party;
use crate::flow::Flow;
use crate::flow::keeper::Stamp;
use crate::flow::record::flow_flag;
use crate::judge::message::{CaptureLimits, Message, WatchFlows, Whose};
use crate::source::Nanos;

use rules::event::Event;

/// Hosts and services watched at once.
const PLACES: usize = 8;
/// Flows of each remembered as taken, the latest.
const TAKEN: usize = 64;

/// What to record of a host or service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub whose: Whose,
    pub rule: u16,
    /// Flows still to record.
    pub left: WatchFlows,
    pub until: Nanos,
    pub limits: CaptureLimits,
    taken: [u64; TAKEN],
    takes: usize,
}

impl Watch {
    pub fn new(whose: Whose, rule: u16, left: WatchFlows, until: Nanos, limits: CaptureLimits) -> Watch {
        Watch { whose, rule, left, until, limits, taken: [0; TAKEN], takes: 0 }
    }

    /// Whether it wants this flow, which shows what is watched for or does not.
    fn wants(&self, flow: &Flow, shows: bool) -> bool {
        let parties = [Party::of(&flow.key, flow.orig()), Party::of(&flow.key, flow.orig() ^ 1)];
        let ours = match self.whose {
            Whose::Host(addr) => parties.iter().any(|party| party.ip() == addr),
            Whose::Service(addr, port, proto) => {
                parties[1].ip() == addr && parties[1].port == port && flow.key.proto == proto
            }
        };
        ours && (shows || self.left.others > 0) && !self.taken.contains(&flow.id())
    }

    fn take(&mut self, flow_id: u64, shows: bool) {
        self.left.all -= 1;
        self.left.others = self.left.others.saturating_sub(u32::from(!shows)).min(self.left.all);
        self.taken[self.takes % TAKEN] = flow_id;
        self.takes += 1;
    }
}

/// The watched hosts and services.
#[derive(Debug, Default)]
pub(super) struct Watches {
    places: [Option<Watch>; PLACES],
    next: usize,
    active: usize,
}

impl Watches {
    /// True while nothing is watched.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.active == 0
    }

    /// One of the same rule on the same host or service is replaced.
    pub fn add(&mut self, watch: Watch) {
        let same = |place: &Option<Watch>| {
            place.as_ref().is_some_and(|old| (old.whose, old.rule) == (watch.whose, watch.rule))
        };
        let known = self.places.iter().position(same);
        let free = known.or_else(|| self.places.iter().position(Option::is_none));
        let place = free.unwrap_or(self.next);
        self.places[place] = (watch.left.all > 0).then_some(watch);
        self.next = (place + 1) % PLACES;
        self.recount();
    }

    /// Forgets what has been watched long enough, or had all it wanted.
    fn tidy(&mut self, now: Nanos) {
        for place in &mut self.places {
            place.take_if(|watch| watch.left.all == 0 || now > watch.until);
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.active = self.places.iter().flatten().count();
    }
}

impl Engine {
    /// A packet came on this flow while something is watched: records the flow if it is wanted. `dir` sent it.
    #[cold]
    pub(super) fn watched(&mut self, slot: u32, dir: usize, rst: bool, stamp: &Stamp) {
        self.watches.tidy(stamp.ts);
        let flow = &self.table.flows[slot as usize];
        let recorded = flow.has(flow_flag::HELD) && self.holds.is_kept(flow.hold, flow.id());
        if recorded {
            return;
        }
        let (flow_id, sender): (u64, IpAddr) = (flow.id(), Party::of(&flow.key, dir).ip());
        for place in 0..PLACES {
            let Some(watch) = self.watches.places[place] else { continue };
            let reset = rst && watch.whose == Whose::Host(sender);
            let flow = &self.table.flows[slot as usize];
            let shows = reset || matches!(watch.whose, Whose::Service(..)) && fails(flow);
            if !watch.wants(flow, shows) || !self.record(slot, &watch, reset, stamp) {
                continue;
            }
            if let Some(watch) = &mut self.watches.places[place] {
                watch.take(flow_id, shows);
            }
            let Watch { whose, rule, .. } = watch;
            self.outlet.send(Message::Watched { whose, rule, flow_id, reset });
            return;
        }
    }

    /// Begins to record the flow; false if there is no room for it.
    fn record(&mut self, slot: u32, watch: &Watch, reset: bool, stamp: &Stamp) -> bool {
        let held = match reset {
            true => self.hold(slot, watch.rule, Event::Rst, Some(stamp.number), stamp.ts),
            // A packet that raised nothing gets no comment.
            false => self.take_hold(slot, watch.rule, stamp.ts).is_some_and(|hold| self.holds.ask(hold)),
        };
        if held {
            self.holds.keep(self.table.flows[slot as usize].id(), watch.limits, stamp.ts);
        }
        held
    }
}

/// The attempt that began it is refused, or has to be made again.
fn fails(flow: &Flow) -> bool {
    let repeated = flow.senders[flow.orig()].syn > 1 && !flow.has(flow_flag::ESTABLISHED);
    flow.has(flow_flag::REFUSED) || repeated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(rule: u16, flows: u32, until: Nanos) -> Watch {
        let limits = CaptureLimits { packets: 1, bytes: 1, nanos: 1 };
        let flows = WatchFlows { all: flows, others: flows / 2 };
        Watch::new(Whose::Host(IpAddr::from([10, 0, 0, 1])), rule, flows, until, limits)
    }

    #[test]
    fn the_same_is_replaced_the_oldest_gives_way_and_what_is_over_is_forgotten() {
        let mut watches = Watches::default();
        watches.add(watch(1, 0, 10));
        assert!(watches.is_empty(), "it wants nothing");
        (0..PLACES as u16).for_each(|rule| watches.add(watch(rule, 4, 10 + u64::from(rule))));
        watches.add(watch(3, 5, 20));
        assert_eq!(watches.active, PLACES);
        assert_eq!(watches.places[3].map(|w| w.left.all), Some(5));
        watches.add(watch(100, 5, 30));
        assert_eq!((watches.places[4].map(|w| w.rule), watches.active), (Some(100), PLACES));
        watches.tidy(12);
        assert_eq!(watches.active, PLACES - 2);
        watches.tidy(31);
        assert!(watches.is_empty());
    }

    #[test]
    fn flows_that_are_not_reset_leave_room_for_those_that_are() {
        let mut watch = watch(1, 4, 10);
        watch.take(1, false);
        watch.take(2, false);
        assert_eq!(watch.left, WatchFlows { all: 2, others: 0 });
        watch.take(3, true);
        assert_eq!((watch.left.all, watch.taken[..3].to_vec()), (1, vec![1, 2, 3]));
    }
}
