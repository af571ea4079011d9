//! What hosts and services did in the present second of packet time, and who dealt with whom: counted, so that a
//! storm of five million events a second is a few numbers and not a queue. Worker's thread; bounded, never
//! allocates after start.
//!
//! The tables live for a second: at its end every entry is told to the judge, which keeps the windows. What went wrong,
//! and what a rule reads over a single second, is told at the end of its 100 ms.

mod dense;
mod pairs;

use std::net::IpAddr;

use rules::facts::{Count, CountSet, Counts};
use rules::{RuleSet, Scope};

use self::dense::Dense;
use self::pairs::Pairs;
use crate::decode::{Address, FlowKey};
use crate::judge::message::{Dealing, Message, Note, StateChanges};

/// Length of an interval, ns of packet time.
pub const INTERVAL: u64 = 100_000_000;
/// How exactly the time of a RST is told, ns.
const RST_STEP: u64 = 2_000;
/// Places looked at before an entry is given up on.
const PROBES: u32 = 16;
/// Clients of one service told of in one second: whoever floods it makes no more of them.
const CLIENTS_OF_SERVICE: u32 = 512;

/// What happened to a host or service.
#[derive(Clone, Copy, Debug, Default)]
struct Doings {
    counts: Counts,
    changes: StateChanges,
    /// Pairs made for it in this second.
    clients: u32,
    /// It is to be told of at the next tick, whether a second ends there or not.
    urgent: bool,
}

/// What happened to somebody who has not been told of.
type News = (Party, Counts, StateChanges);

/// How a connection stands, as `ss` shows it on the service's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Not begun, or over; TIME-WAIT is counted by its beginning.
    None,
    SynRecv,
    Established,
    /// The client has closed.
    CloseWait,
    /// The service has closed.
    FinWait2,
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

    fn hash(&self, secret: u64) -> u32 {
        let Party { addr, port, proto, v6 } = *self;
        FlowKey { low: addr, low_port: port, proto, v6, ..FlowKey::NONE }.hash(secret) as u32
    }

    pub fn ip(&self) -> IpAddr {
        FlowKey { low: self.addr, v6: self.v6, ..FlowKey::NONE }.low_addr()
    }
}

#[derive(Debug)]
struct Table {
    doings: Dense<Party, Doings>,
    /// Numbers of the entries to be told of at the next tick.
    urgent: Vec<u32>,
    /// Counts that make an entry so.
    prompt: CountSet,
    secret: u64,
}

impl Table {
    fn new(capacity: u32, secret: u64) -> Table {
        let (doings, urgent) = (Dense::new(capacity), Vec::with_capacity(capacity as usize));
        Table { doings, urgent, prompt: CountSet::EMPTY, secret }
    }

    /// The entry of this party, made if it has none yet; `None` if there is no room.
    #[inline]
    fn entry(&mut self, who: &Party) -> Option<&mut Doings> {
        let secret = self.secret;
        self.doings.entry(who, || who.hash(secret), || true)
    }

    fn add(&mut self, who: &Party, what: Count) -> bool {
        let prompt = self.prompt.contains(what);
        let Some(Doings { counts, urgent, .. }) = self.entry(who) else { return false };
        *match what {
            Count::Syns => &mut counts.syns,
            Count::Established => &mut counts.established,
            Count::SynUnanswered => &mut counts.syn_unanswered,
            Count::Refused => &mut counts.refused,
            Count::Rsts => &mut counts.rsts,
            Count::FlowsReset => &mut counts.flows_reset,
            Count::Unfinished => &mut counts.unfinished,
            Count::UnfinishedRepeated => &mut counts.unfinished_repeated,
            Count::Recovered => &mut counts.recovered,
            Count::Closed => &mut counts.closed,
            Count::Cuts => &mut counts.cuts,
            Count::Refusals => &mut counts.refusals,
            Count::ClientCuts => &mut counts.client_cuts,
        } += 1;
        if prompt && !std::mem::replace(urgent, true) {
            self.hurry();
        }
        true
    }

    /// The entry last asked for is to be told of at the next tick; without room in the list, at the second's end.
    #[cold]
    fn hurry(&mut self) {
        if self.urgent.len() < self.urgent.capacity() {
            self.urgent.push(self.doings.recent() as u32);
        }
    }

    /// What is to be told now; at the end of a second, `all`. May give `None` while there is more.
    fn take(&mut self, all: bool) -> Option<News> {
        if all {
            self.urgent.clear();
            let (who, Doings { counts, changes, .. }) = self.doings.take()?;
            let news = counts != Counts::default() || changes != StateChanges::default();
            return news.then_some((who, counts, changes));
        }
        let (who, doings) = self.doings.at(self.urgent.pop()? as usize)?;
        let told = std::mem::replace(doings, Doings { clients: doings.clients, ..Doings::default() });
        Some((who, told.counts, told.changes))
    }

    fn is_empty(&self, all: bool) -> bool {
        if all { self.doings.is_empty() } else { self.urgent.is_empty() }
    }
}

/// The three tables of one worker.
#[derive(Debug)]
pub struct Activity {
    hosts: Table,
    services: Table,
    pairs: Pairs,
    hosts_want: CountSet,
    services_want: CountSet,
    /// A second ends: everything is told, pairs too.
    tells_all: bool,
    /// Some rule is about hosts; about services.
    wanted: (bool, bool),
    /// Counts that found no room.
    pub lost: u64,
    /// What pairs did that found no room, or one client too many of its service.
    pub pairs_lost: u64,
}

impl Activity {
    /// What rules read is counted, the rest is not. `secret`: key of the hashes, so that nobody can aim collisions.
    pub fn new(capacity: u32, rules: &RuleSet, secret: u64) -> Activity {
        let mut activity = Activity {
            hosts: Table::new(capacity, secret),
            services: Table::new(capacity, secret),
            pairs: Pairs::new(capacity / 4, secret),
            tells_all: false,
            hosts_want: CountSet::EMPTY,
            services_want: CountSet::EMPTY,
            wanted: (false, false),
            lost: 0,
            pairs_lost: 0,
        };
        activity.follow(rules);
        activity
    }

    /// Counts what these rules read from now on. How connections stand is told by its changes: once it is counted, it
    /// is counted on.
    pub fn follow(&mut self, rules: &RuleSet) {
        let scopes = |scope| rules.in_force().any(|(_, rule)| rule.scope == scope);
        let link = scopes(Scope::Link);
        self.hosts_want = rules.counts_read(Scope::Host);
        self.services_want = rules.counts_read(Scope::Service).union(rules.counts_read(Scope::Link));
        let prompt = |scope| CountSet::TROUBLE.union(rules.counts_read_over_a_second(scope));
        self.hosts.prompt = prompt(Scope::Host);
        self.services.prompt = prompt(Scope::Service).union(prompt(Scope::Link));
        self.wanted = (scopes(Scope::Host) || link, self.wanted.1 || scopes(Scope::Service) || link);
    }

    /// How connections stand, and what takes entries in a state table, is counted.
    #[inline]
    pub fn counts_states(&self) -> bool {
        self.wanted.1
    }

    /// Starts loading what a service did.
    #[inline]
    pub fn prefetch(&self, service: &Party) {
        self.services.doings.prefetch(service.hash(self.services.secret));
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

    /// Counts a RST that a host sent at this time, and what else it is.
    pub fn reset(&mut self, who: Party, now: u64, what: impl Iterator<Item = Count>) {
        if !self.hosts_want.contains(Count::Rsts) {
            return;
        }
        let host = Party { port: 0, proto: 0, ..who };
        self.lost += u64::from(!self.hosts.add(&host, Count::Rsts));
        if let Some(Doings { counts, .. }) = self.hosts.entry(&host) {
            let at = (now % INTERVAL / RST_STEP) as u16 + 1;
            let [first, last] = counts.rst_at;
            counts.rst_at = [if first == 0 { at } else { first.min(at) }, last.max(at)];
        }
        what.for_each(|count| self.host(who, count));
    }

    /// Counts something that happened to a service.
    #[inline]
    pub fn service(&mut self, who: Party, what: Count) {
        if !self.services_want.contains(what) {
            return;
        }
        self.lost += u64::from(!self.services.add(&who, what));
    }

    /// Counts something for the client and for the service.
    #[inline]
    pub fn both(&mut self, client: Party, service: Party, what: Count) {
        self.host(client, what);
        self.service(service, what);
    }

    /// Changes how many connections to a service stand in which state.
    #[inline]
    pub fn states(&mut self, service: &Party, change: impl FnOnce(&mut StateChanges)) {
        if self.wanted.1 {
            match self.services.entry(service) {
                Some(doings) => change(&mut doings.changes),
                None => self.lost += 1,
            }
        }
    }

    /// Counts what a client did with a service.
    #[inline]
    pub fn pair(&mut self, client: &Party, service: &Party, change: impl FnOnce(&mut Dealing)) {
        if !self.wanted.0 {
            return;
        }
        let services = &mut self.services;
        let may = || {
            let clients = services.entry(service).map(|doings| &mut doings.clients);
            clients.filter(|clients| **clients < CLIENTS_OF_SERVICE).map(|clients| *clients += 1).is_some()
        };
        match self.pairs.entry(client, service, may) {
            Some(dealing) => change(dealing),
            None => self.pairs_lost += 1,
        }
    }

    /// The next entry that is to be told of now, taken out. May give `None` while there is more.
    pub fn take(&mut self) -> Option<Note> {
        let all = self.tells_all;
        if !self.hosts.is_empty(all) {
            return self.hosts.take(all).map(|(who, counts, _)| Message::Host { addr: who.ip(), counts });
        }
        if all && let Some((client, who, dealing)) = self.pairs.take() {
            let (addr, port, proto) = (who.ip(), who.port, who.proto);
            return Some(Message::Dealing { client: client.ip(), addr, port, proto, dealing });
        }
        self.services.take(all).map(|(who, counts, changes)| Message::Service {
            addr: who.ip(),
            port: who.port,
            proto: who.proto,
            counts,
            changes,
        })
    }

    /// Nothing is left to tell at this tick.
    pub fn is_empty(&self) -> bool {
        let all = self.tells_all;
        self.hosts.is_empty(all) && self.services.is_empty(all) && (!all || self.pairs.is_empty())
    }

    /// There may not be room until the second ends.
    pub fn is_filling(&self) -> bool {
        self.hosts.doings.is_filling() || self.services.doings.is_filling() || self.pairs.is_filling()
    }

    /// Whether what is told next is everything, as at the end of a second.
    pub fn tell_all(&mut self, all: bool) {
        self.tells_all = all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(n: u64) -> Party {
        Party { addr: [0, 0xffff_0000_0000 | n], port: 80, proto: 6, v6: false }
    }

    fn activity(capacity: u32) -> Activity {
        let text = "rule \"h\" on tick when host.syns(1) + host.rsts(1) > 0 then { incident(\"info\", `x`); }
            rule \"s\" on tick when service.syns(10) + service.unanswered(10) + service.established(10) > 0
            then { incident(\"info\", `x`); }";
        let file = rules::SourceFile { name: "t.rhai".into(), text: text.into() };
        Activity::new(
            capacity,
            &RuleSet::load(&[file], &[]).expect("the rules are right"),
            0x7265_6665_7265_6521,
        )
    }

    fn told(activity: &mut Activity) -> Vec<Note> {
        let mut told = Vec::new();
        while !activity.is_empty() {
            told.extend(activity.take());
        }
        told
    }

    #[test]
    fn what_goes_wrong_is_told_at_once_and_the_rest_once() {
        let mut activity = activity(128);
        for n in 0..20 {
            activity.service(party(n), Count::Established);
            activity.states(&party(n), |changes| changes.standing[2] += 1);
        }
        assert!(activity.is_empty(), "nothing of it is urgent");
        activity.service(party(7), Count::SynUnanswered);
        let [Message::Service { counts, changes, .. }] = told(&mut activity)[..] else { panic!("one is") };
        assert_eq!((counts.established, counts.syn_unanswered, changes.standing[2]), (1, 1, 1));
        activity.service(party(8), Count::SynUnanswered);
        activity.service(party(9), Count::Syns);
        activity.tell_all(true);
        let mut sums = (0, 0, 0);
        for message in told(&mut activity) {
            if let Message::Service { counts, changes, .. } = message {
                sums.0 += counts.established;
                sums.1 += counts.syn_unanswered + counts.syns;
                sums.2 += changes.standing[2];
            }
        }
        assert_eq!(sums, (19, 2, 19), "and nothing is told twice");
        activity.tell_all(false);
        assert!(activity.is_empty());
    }

    #[test]
    fn counts_once_each_and_empties() {
        let mut activity = activity(128);
        for n in 0..100 {
            for _ in 0..=n {
                activity.host(party(n), Count::Rsts);
            }
            activity.service(party(n), Count::Syns);
        }
        let (mut hosts, mut services) = (0, 0);
        activity.tell_all(true);
        for message in told(&mut activity) {
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
        let mut activity = activity(64);
        for n in 0..1000 {
            activity.host(party(n), Count::Syns);
        }
        assert!(activity.is_filling());
        activity.tell_all(true);
        let told = told(&mut activity).len() as u64;
        assert_eq!(told + activity.lost, 1000);
        assert_eq!(told, 64);
        assert!(!activity.is_filling());
    }

    #[test]
    fn a_flooded_service_makes_a_few_pairs_and_a_scanner_as_many_as_there_is_room_for() {
        let mut activity = activity(8192);
        for n in 0..1000 {
            activity.pair(&party(n), &party(9999), |d| d.begun += 1);
            activity.pair(&party(5), &party(9999), |d| d.begun += 1);
        }
        assert_eq!(activity.pairs_lost, 1000 - u64::from(CLIENTS_OF_SERVICE));
        for port in 0..1000 {
            activity.pair(&party(1), &Party { port, ..party(2) }, |d| d.unfinished += 1);
        }
        let mut pairs = Vec::new();
        activity.tell_all(true);
        for message in told(&mut activity) {
            if let Message::Dealing { port, dealing, .. } = message {
                pairs.push((port, dealing.begun, dealing.unfinished));
            }
        }
        pairs.sort_unstable();
        assert!(pairs.contains(&(80, 1001, 0)) && pairs.contains(&(7, 0, 1)), "{pairs:?}");
        assert!(pairs.len() > 900 && activity.is_empty());
    }
}
