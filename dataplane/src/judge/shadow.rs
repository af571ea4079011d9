//! Rules that only look on: their bodies run and what they would have done is counted. Runs on the judge's thread. Nothing
//! of it is told, held or recorded, and nothing here touches what other rules bring about; bounded as the judge's own.

use std::collections::BTreeMap;

use rules::{Event, Snapshot};
use serde::{Deserialize, Serialize};

use super::Judge;
use super::groups::{Cause, GroupKey, Groups};
use super::known::{Home, Known, NOWHERE};
use super::message::Hit;
use super::sight::Sight;
use super::storms::Actor;
use crate::source::Nanos;

/// Flows or subjects named of each rule.
const SAMPLES: usize = 5;

/// What a rule in shadow would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowCounts {
    /// Hits, or ticks on which it matched.
    pub matched: u64,
    /// Incidents it would have opened.
    pub would_open: u64,
    /// Flows that would have been part of another rule's storm.
    pub would_join: u64,
    /// Flows, hosts or services it would have recorded.
    pub would_capture: u64,
    /// The first flow ids, hosts or services.
    pub samples: Vec<String>,
}

impl ShadowCounts {
    fn sample(&mut self, name: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES {
            self.samples.push(name());
        }
    }
}

#[derive(Debug)]
pub struct Shadow {
    known: Known,
    groups: Groups,
    serial: Home,
    /// Hosts and services of which a rule on `tick` would tell, and when it last matched.
    actors: BTreeMap<(Actor, u16), Nanos>,
    counts: BTreeMap<u16, ShadowCounts>,
    limit: usize,
}

impl Shadow {
    pub fn new(known: usize, limit: usize, captures_per_incident: u32) -> Shadow {
        Shadow {
            known: Known::new(known, 0),
            groups: Groups::new(limit, captures_per_incident),
            serial: NOWHERE,
            actors: BTreeMap::new(),
            counts: BTreeMap::new(),
            limit,
        }
    }
}

impl Judge {
    pub(super) fn is_shadow(&self, rule: u16) -> bool {
        self.rules.rules().get(usize::from(rule)).is_some_and(|meta| meta.shadow)
    }

    /// A hit of a rule in shadow.
    pub(super) fn shadow_hit(&mut self, hit: &Hit) {
        let (key, cause, flow_id) = (GroupKey::of(hit), Cause::of(hit), hit.facts.flow_id);
        self.shadow.counts.entry(hit.rule).or_default().matched += 1;
        let rule = self.rules.rules().get(usize::from(hit.rule));
        let goes_on = rule.is_some_and(|rule| rule.events.iter().any(Event::goes_on));
        if self.shadow.known.get(flow_id, hit.rule).is_some_and(|home| home != NOWHERE || !goes_on) {
            self.account.hits_repeated += 1;
            return;
        }
        if !self.shadow.groups.has_room(&key, cause) {
            self.account.hits_refused += 1;
            return;
        }
        self.account.hits_judged += 1;
        let verdict = self.scripts.run(hit.rule, &Snapshot::Flow(&hit.facts, hit.event)).unwrap_or_default();
        let shadow = &mut self.shadow;
        let counts = shadow.counts.entry(hit.rule).or_default();
        let mut home = NOWHERE;
        if verdict.incident.is_some() {
            counts.sample(|| format!("{flow_id:016x}"));
            if self.storms.of_hit(&key, cause).is_some() {
                counts.would_join += 1;
            } else {
                shadow.serial += 1;
                home = shadow.groups.join(hit, &verdict, shadow.serial, &shadow.known).unwrap_or(NOWHERE);
            }
        }
        let captures =
            verdict.capture.is_some() || verdict.capture_host.is_some() || verdict.capture_service.is_some();
        if captures && shadow.groups.may_capture(&key, cause) {
            counts.would_capture += 1;
            shadow.groups.charge(&key, cause);
        }
        shadow.known.set(flow_id, hit.rule, home);
    }

    /// A rule in shadow matched on a host, a service or all traffic in this tick.
    pub(super) fn shadow_sight(&mut self, rule: u16, sight: &Sight, now: Nanos) {
        let at = (sight.actor(), rule);
        self.shadow.counts.entry(rule).or_default().matched += 1;
        if let Some(last) = self.shadow.actors.get_mut(&at) {
            *last = now;
            return;
        }
        if self.shadow.actors.len() >= self.shadow.limit {
            self.account.matches_refused += 1;
            return;
        }
        let Some(verdict) = self.scripts.run(rule, &sight.snapshot()) else { return };
        if verdict.incident.is_none() {
            return;
        }
        self.shadow.actors.insert(at, now);
        let counts = self.shadow.counts.entry(rule).or_default();
        counts.would_open += 1;
        counts.would_capture += u64::from(verdict.capture.is_some());
        counts.sample(|| match at.0 {
            Actor::Host(addr) => addr.to_string(),
            Actor::Service(addr, port, _) => std::net::SocketAddr::new(addr, port).to_string(),
            Actor::Link => "all traffic".to_owned(),
        });
    }

    /// Incidents that would have opened by `before`, and those that would have closed by `quiet`.
    pub(super) fn settle_shadow(&mut self, before: Nanos) {
        let opened = self.shadow.groups.settle((before, before), |_| false, |_| None, &self.rules);
        for ((_, _, _, rule, _), _) in opened {
            self.shadow.counts.entry(rule).or_default().would_open += 1;
        }
    }

    pub(super) fn close_shadow(&mut self, quiet: Nanos) {
        self.shadow.groups.close(quiet);
        self.shadow.actors.retain(|_, last| *last > quiet);
    }

    /// Of each rule in shadow that matched: its name, and what it would have done.
    pub(super) fn shadows(&self) -> Vec<(String, ShadowCounts)> {
        let name = |rule: &u16| self.rules.rules().get(usize::from(*rule)).map(|meta| meta.name.clone());
        let named = self.shadow.counts.iter().map(|(rule, counts)| (name(rule), counts.clone()));
        named.filter_map(|(name, counts)| Some((name?, counts))).collect()
    }
}
