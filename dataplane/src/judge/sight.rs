//! What a host, service or link rule looks at in one tick, and what about it made the rule match. Plain values on the
//! judge's thread.

use rules::facts::{Counts, HostFacts, LinkFacts, RANKED, ServiceFacts, ServiceStates};
use rules::{Hits, RuleSet, Snapshot};

use super::groups::{Cause, Takes};
use super::storms::{Actor, Measure};
use super::window::Field;
use crate::source::Nanos;

#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub enum Sight {
    Host(HostFacts),
    Service(ServiceFacts),
    Link(LinkFacts),
}

/// What only shows over many flows, beside the counts; asked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowdwise {
    Ports,
    Hosts,
    Reuse,
    Churn,
    States,
}

impl Crowdwise {
    const ALL: [Crowdwise; 5] =
        [Crowdwise::Ports, Crowdwise::Hosts, Crowdwise::Reuse, Crowdwise::Churn, Crowdwise::States];
}

impl Sight {
    pub const fn actor(&self) -> Actor {
        match self {
            Sight::Host(facts) => Actor::Host(facts.addr),
            Sight::Service(facts) => Actor::Service(facts.addr, facts.port, facts.proto),
            Sight::Link(_) => Actor::Link,
        }
    }

    pub const fn snapshot(&self) -> Snapshot<'_> {
        match self {
            Sight::Host(facts) => Snapshot::Host(facts),
            Sight::Service(facts) => Snapshot::Service(facts),
            Sight::Link(facts) => Snapshot::Link(facts),
        }
    }

    pub const fn sums(&self) -> [Counts; 3] {
        match self {
            Sight::Host(HostFacts { last_1s, last_10s, last_60s, .. })
            | Sight::Service(ServiceFacts { last_1s, last_10s, last_60s, .. })
            | Sight::Link(LinkFacts { last_1s, last_10s, last_60s, .. }) => [*last_1s, *last_10s, *last_60s],
        }
    }

    pub fn matching(&self, rules: &RuleSet) -> Hits {
        let mut hits = Hits::new();
        match self {
            Sight::Host(facts) => rules.match_host(facts, &mut hits),
            Sight::Service(facts) => rules.match_service(facts, &mut hits),
            Sight::Link(facts) => rules.match_link(facts, &mut hits),
        }
        hits
    }

    /// What makes `rule` match: counts of a kind, or else one of the things that only many flows show.
    pub fn measure(&self, rule: u16, rules: &RuleSet) -> Measure {
        let still = |sight: &Sight| sight.matching(rules).as_slice().contains(&rule);
        let crowdwise = Crowdwise::ALL.into_iter().find(|what| !still(&self.without(*what)));
        match crowdwise {
            Some(_) => Measure { field: None, crowdwise, span: super::window::SPANS[2] },
            None => Measure::of(&self.sums(), |sums| still(&self.with(*sums))),
        }
    }

    fn with(self, [last_1s, last_10s, last_60s]: [Counts; 3]) -> Sight {
        match self {
            Sight::Host(facts) => Sight::Host(HostFacts { last_1s, last_10s, last_60s, ..facts }),
            Sight::Service(facts) => Sight::Service(ServiceFacts { last_1s, last_10s, last_60s, ..facts }),
            Sight::Link(facts) => Sight::Link(LinkFacts { last_1s, last_10s, last_60s, ..facts }),
        }
    }

    fn without(mut self, what: Crowdwise) -> Sight {
        match (&mut self, what) {
            (Sight::Host(facts), Crowdwise::Ports) => facts.client.ports = Default::default(),
            (Sight::Host(facts), Crowdwise::Hosts) => facts.client.hosts = Default::default(),
            (Sight::Host(facts), Crowdwise::Reuse) => facts.client.reuse = Default::default(),
            (Sight::Host(facts), Crowdwise::Churn) => facts.client.churn = Default::default(),
            (Sight::Host(facts), Crowdwise::States) => facts.client.state_entries = 0,
            (Sight::Service(facts), Crowdwise::States) => facts.states = ServiceStates::default(),
            (Sight::Link(facts), Crowdwise::States) => {
                facts.state_entries = 0;
                facts.clients = [None; RANKED];
                facts.services = [None; RANKED];
            }
            (Sight::Service(_) | Sight::Link(_), _) => {}
        }
        self
    }

    /// How far it goes; an incident's words are of the peak.
    pub fn level(&self, measure: &Measure) -> u64 {
        let Some(what) = measure.crowdwise else { return measure.level(&self.sums()) };
        u64::from(match (self, what) {
            (Sight::Host(facts), Crowdwise::Ports) => facts.client.ports.tried,
            (Sight::Host(facts), Crowdwise::Hosts) => facts.client.hosts.tried,
            (Sight::Host(facts), Crowdwise::Reuse) => facts.client.reuse.reuses,
            (Sight::Host(facts), Crowdwise::Churn) => facts.client.churn.short_10s,
            (Sight::Host(facts), Crowdwise::States) => facts.client.state_entries,
            (Sight::Link(facts), _) => facts.state_entries,
            (Sight::Service(ServiceFacts { states: s, .. }), _) => {
                s.syn_recv.max(s.close_wait).max(s.fin_wait2).max(s.time_wait)
            }
        })
    }

    /// For what only many flows show: the first event, and how many there were since; `None` if that is not known.
    pub const fn began(&self, what: Crowdwise) -> Option<(Nanos, u64)> {
        match (self, what) {
            (Sight::Host(facts), Crowdwise::Ports) => {
                Some((facts.client.ports.first_ns, facts.client.ports.total))
            }
            (Sight::Host(facts), Crowdwise::Hosts) => {
                Some((facts.client.hosts.first_ns, facts.client.hosts.total))
            }
            (Sight::Host(facts), Crowdwise::Reuse) => {
                Some((facts.client.reuse.first_ns, facts.client.reuse.total))
            }
            (Sight::Host(facts), Crowdwise::Churn) => {
                Some((facts.client.churn.first_ns, facts.client.churn.total))
            }
            _ => None,
        }
    }
}

/// Which flow incidents belong to a storm of this actor and measure: a scanner's and a flood's unanswered SYNs, and
/// of a host that is counted by anything else, the flows it resets.
pub const fn takes(actor: Actor, measure: &Measure) -> Takes {
    match (actor, measure.crowdwise, measure.field) {
        (Actor::Host(host), Some(Crowdwise::Ports | Crowdwise::Hosts), _) => Takes::Of(Cause::Attempt(host)),
        (Actor::Host(host), None, _) => Takes::Of(Cause::Reset(host)),
        (Actor::Service(addr, port, proto), _, Some(Field::Unfinished)) => {
            Takes::AttemptsAt(addr, port, proto)
        }
        _ => Takes::Nothing,
    }
}
