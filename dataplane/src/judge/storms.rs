//! Host and service incidents: open while a rule on `tick` keeps matching a host's or service's windows, and
//! take in the flow incidents that host causes. Runs on the judge's thread; bounded, and refusals are counted.
//!
//! What a rule counts is asked of its guard: an event kind is its subject if the guard would not match had
//! those events not happened, a window likewise. So any rule's incident gets the right count and beginning
//! without the rule having to say them twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rules::Verdict;
use rules::facts::Counts;
use serde_json::{Map, json};

use super::evidence::Evidence;
use super::gauges::Services;
use super::groups::{Cause, GroupKey, Part, Takes};
use super::incident::{Draft, Subject};
use super::known::Home;
use super::message::Hit;
use super::sight::{self, Crowdwise};
use super::window::{Field, SPANS, Windows};
use crate::source::Nanos;

/// Whose windows matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    Host(IpAddr),
    Service(IpAddr, u16, u8),
    /// All traffic.
    Link,
}

impl Actor {
    pub fn subject(self) -> Subject {
        match self {
            Actor::Host(host) => Subject::Host { host },
            Actor::Service(addr, port, proto) => Subject::service(addr, port, proto),
            Actor::Link => Subject::ALL_TRAFFIC,
        }
    }
}

/// What a matching guard counts, and over how many buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// `None`: no one kind of event decides; then each tick that matches is one event.
    pub field: Option<Field>,
    /// What it is about if not counts.
    pub crowdwise: Option<Crowdwise>,
    /// One of [`SPANS`].
    pub span: u64,
}

impl Measure {
    /// Asks the guard, by taking events away: all but one first, so that a ratio has something to divide
    /// by; every one only if that tells nothing (thresholds of one).
    pub fn of(sums: &[Counts; 3], matches: impl Fn(&[Counts; 3]) -> bool) -> Measure {
        let decides = |field: Field, windows: &[usize], floor: u32| {
            let mut without = *sums;
            for window in windows {
                let value = field.get_mut(&mut without[*window]);
                *value = (*value).min(floor);
            }
            without != *sums && !matches(&without)
        };
        let deciding = [1, 0].into_iter().find_map(|floor| {
            let field = Field::ALL.into_iter().find(|field| decides(*field, &[0, 1, 2], floor))?;
            Some((field, floor))
        });
        let Some((field, floor)) = deciding else {
            return Measure { field: None, crowdwise: None, span: SPANS[0] };
        };
        let window = (0..SPANS.len()).rev().find(|window| decides(field, &[*window], floor)).unwrap_or(0);
        Measure { field: Some(field), crowdwise: None, span: SPANS[window] }
    }

    /// Which of the window sums this is about.
    pub fn level(&self, sums: &[Counts; 3]) -> u64 {
        let window = SPANS.iter().position(|span| *span == self.span).unwrap_or(0);
        self.field.map_or(0, |field| u64::from(field.get(&sums[window])))
    }
}

/// An open host or service incident.
#[derive(Debug)]
pub struct Storm {
    pub serial: Home,
    pub draft: Draft,
    pub measure: Measure,
    pub takes: Takes,
    /// Events up to this bucket are in the count.
    pub counted_to: u64,
    /// The highest level a verdict was given for; the incident's words are of the peak.
    pub peak: u64,
    pub captures: u32,
    /// Groups some of whose flows it took over.
    absorbed: BTreeSet<Home>,
    /// Flows and evidence by rule.
    by_rule: BTreeMap<u16, (u64, Evidence)>,
}

impl Storm {
    pub fn new(
        serial: Home,
        draft: Draft,
        (actor, measure): (Actor, Measure),
        peak: u64,
        counted_to: u64,
    ) -> Storm {
        Storm {
            takes: sight::takes(actor, &measure),
            serial,
            draft,
            measure,
            counted_to,
            peak,
            captures: 0,
            absorbed: BTreeSet::new(),
            by_rule: BTreeMap::new(),
        }
    }

    /// A flow known under this home is already part of it.
    pub fn holds(&self, home: Home) -> bool {
        home == self.serial || self.absorbed.contains(&home)
    }

    /// Takes over what a group had gathered. The storm's own count has these events already.
    pub fn absorb(&mut self, key: &GroupKey, home: Home, part: &Part) {
        self.take(key.rule, home, &part.draft, (part.own_flows, part.captures));
    }

    /// Takes over an incident, or a part of one, of which `own_flows` are not here yet.
    pub fn take(&mut self, rule: u16, home: Home, draft: &Draft, (own_flows, captures): (u64, u32)) {
        self.absorbed.insert(home);
        self.captures += captures;
        self.draft.tally.merge(&draft.tally, own_flows, false);
        self.book(rule, draft.tally.flows, &draft.evidence);
    }

    /// Takes in a flow it caused; `own`: no other rule brought this flow before. `verdict`: the rule's, if it was
    /// asked.
    pub fn join(&mut self, hit: &Hit, verdict: Option<&Verdict>, own: bool) {
        if own {
            self.draft.tally.flow(hit.facts.flow_id);
        }
        self.draft.tally.events(hit.facts.now_ns, 0);
        self.book(hit.rule, 1, &Evidence::new(verdict.map_or(&[], |verdict| &verdict.evidence)));
    }

    fn book(&mut self, rule: u16, flows: u64, evidence: &Evidence) {
        match self.by_rule.get_mut(&rule) {
            Some((sum, merged)) => {
                *sum += flows;
                merged.merge(evidence);
            }
            None => {
                self.by_rule.insert(rule, (flows, evidence.clone()));
            }
        }
    }

    /// The draft, with what it took in noted under `absorbed`, by rule.
    pub fn close(mut self, name: impl Fn(u16) -> String) -> Draft {
        if !self.by_rule.is_empty() {
            let rules: Map<_, _> = self
                .by_rule
                .iter()
                .map(|(rule, (flows, evidence))| {
                    (name(*rule), json!({"flows": flows, "evidence": evidence.to_json()}))
                })
                .collect();
            self.draft.evidence.note("absorbed", rules.into());
        }
        self.draft
    }
}

#[derive(Debug, Default)]
pub struct Storms {
    storms: BTreeMap<(Actor, u16), Storm>,
}

impl Storms {
    pub fn len(&self) -> usize {
        self.storms.len()
    }

    /// Drafts of the incidents that are open.
    pub fn open(&self) -> impl Iterator<Item = &Draft> {
        self.storms.values().map(|storm| &storm.draft)
    }

    pub fn get_mut(&mut self, actor: Actor, rule: u16) -> Option<&mut Storm> {
        self.storms.get_mut(&(actor, rule))
    }

    pub fn insert(&mut self, actor: Actor, storm: Storm) -> &mut Storm {
        self.storms.entry((actor, storm.draft.rule)).insert_entry(storm).into_mut()
    }

    /// The incident that a hit belongs to: the first opened of those that take it.
    pub fn of_hit(&mut self, key: &GroupKey, cause: Option<Cause>) -> Option<&mut Storm> {
        let (Cause::Reset(host) | Cause::Attempt(host)) = cause?;
        let service = Actor::Service(key.responder, key.port, key.proto);
        let takes = |storm: &Storm| storm.takes.takes(key, cause);
        let first = |actor: Actor| {
            let of_actor = self.storms.range((actor, 0)..=(actor, u16::MAX));
            of_actor.filter(|(_, storm)| takes(storm)).map(|(at, storm)| (storm.serial, *at)).min()
        };
        let (_, at) = first(Actor::Host(host)).into_iter().chain(first(service)).min()?;
        self.storms.get_mut(&at)
    }

    /// Takes out the incidents whose last event was at `before` or earlier.
    pub fn close(&mut self, before: Nanos) -> Vec<Storm> {
        let quiet: Vec<_> = self
            .storms
            .iter()
            .filter(|(_, storm)| storm.draft.tally.last_ns <= before)
            .map(|(key, _)| *key)
            .collect();
        quiet.iter().filter_map(|key| self.storms.remove(key)).collect()
    }
}

/// What hosts, services and, if a rule asks, all traffic did.
pub(super) type Counted<'a> = (&'a Windows<IpAddr>, &'a Services, Option<&'a Windows<()>>);

/// An actor's events of one kind after a bucket, and the first bucket that holds one.
pub(super) fn counted(
    (hosts, services, link): Counted,
    actor: Actor,
    field: Field,
    after: u64,
) -> (u64, Option<u64>) {
    match actor {
        Actor::Host(host) => hosts.since(&host, field, after),
        Actor::Service(addr, port, proto) => services.since(&(addr, port, proto), field, after),
        Actor::Link => link.map_or((0, None), |link| link.since(&(), field, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(counts: Counts) -> [Counts; 3] {
        [counts; 3]
    }

    #[test]
    fn the_measure_is_what_the_guard_would_not_match_without() {
        let sums = all(Counts {
            rsts: 60,
            syns: 70,
            established: 1,
            refused: 30,
            syn_unanswered: 40,
            flows_reset: 9,
            ..Counts::default()
        });
        let storm = Measure::of(&sums, |w| w[0].rsts >= 50);
        assert_eq!(storm, Measure { field: Some(Field::Rsts), crowdwise: None, span: 10 });
        let scan = Measure::of(&sums, |w| w[2].syns >= 20 && w[2].established * 4 < w[2].syns);
        assert_eq!(scan, Measure { field: Some(Field::Syns), crowdwise: None, span: 600 });
        let ratio = Measure::of(&sums, |w| w[1].syn_unanswered * 100 / w[1].syns > 10);
        assert_eq!(ratio, Measure { field: Some(Field::SynUnanswered), crowdwise: None, span: 100 });
        let flood = Measure::of(&sums, |w| w[0].syns >= 50 && w[2].syns >= 60);
        assert_eq!(flood, Measure { field: Some(Field::Syns), crowdwise: None, span: 600 });
        let any = Measure::of(&all(Counts { refused: 1, ..Counts::default() }), |w| w[0].refused > 0);
        assert_eq!(any, Measure { field: Some(Field::Refused), crowdwise: None, span: 10 });
        let either = Measure::of(&sums, |w| w[0].rsts >= 50 || w[2].syns >= 50);
        assert_eq!(either.field, None, "taking one of two reasons away decides nothing");
        let always = Measure::of(&sums, |_| true);
        assert_eq!(always, Measure { field: None, crowdwise: None, span: 10 });
        assert_eq!((storm.level(&sums), always.level(&sums)), (60, 0));
    }
}
