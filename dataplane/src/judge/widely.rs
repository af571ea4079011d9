//! Captures of more than one flow: a rule names a host or a service, and the workers record its flows. Runs on the
//! judge's thread; bounded, and what finds no room is counted. Commands go to every worker.

use std::collections::BTreeMap;

use rules::{CaptureWish, Verdict};

use super::Judge;
use super::groups::GroupKey;
use super::known::Home;
use super::message::{Command, Hit, WatchFlows, Whose};
use super::storms::Actor;
use super::window::BUCKET_NS;
use crate::source::Nanos;

/// Hosts and services recorded for flow rules at once; a worker has places for fewer.
const MOST: usize = 64;

/// What flow rules asked to record of hosts and services: until when, and for which incident.
#[derive(Debug, Default)]
pub struct Wide(BTreeMap<(Actor, u16), (Nanos, GroupKey, Home)>);

impl Wide {
    /// False if it is being recorded already, or there is no room.
    fn begin(&mut self, at: (Actor, u16), now: Nanos, until: Nanos, home: (GroupKey, Home)) -> bool {
        self.0.retain(|_, (until, ..)| now <= *until);
        let free = self.0.len() < MOST && !self.0.contains_key(&at);
        if free {
            self.0.insert(at, (until, home.0, home.1));
        }
        free
    }
}

impl Judge {
    /// Has the workers record flows of a host or service from now on.
    pub(super) fn watch(&mut self, actor: Actor, rule: u16, wish: &CaptureWish, flows: WatchFlows) {
        let whose = match actor {
            Actor::Host(addr) => Whose::Host(addr),
            Actor::Service(addr, port, proto) => Whose::Service(addr, port, proto),
            Actor::Link => return,
        };
        let limits = self.captures.limits(wish);
        let now = self.latest.max(self.bucket.saturating_mul(BUCKET_NS));
        let until = now.saturating_add(if wish.seconds.is_some() { limits.nanos } else { self.config.quiet });
        self.watches.push(Command::Watch { whose, rule, flows, until, limits });
    }

    /// What a flow rule's body asked to record of the flow's client and of its service.
    pub(super) fn watch_ends(&mut self, hit: &Hit, verdict: &Verdict, home: Home) {
        let client = Actor::Host(hit.facts.src);
        let service = Actor::Service(hit.facts.dst, hit.facts.dport, hit.facts.proto);
        for (actor, wish) in [(client, &verdict.capture_host), (service, &verdict.capture_service)] {
            let Some(wish) = wish else { continue };
            let now = hit.facts.now_ns;
            let until = now.saturating_add(self.config.quiet);
            if self.wide.begin((actor, hit.rule), now, until, (GroupKey::of(hit), home)) {
                let all = self.config.captures_per_incident;
                self.watch(actor, hit.rule, wish, WatchFlows { all, others: all });
            } else {
                self.captures.over_budget += 1;
            }
        }
    }

    /// A worker records a flow for this rule: the rule's incident names it.
    pub(super) fn recorded(&mut self, whose: Whose, rule: u16, flow_id: u64, reset: bool) {
        let actor = match whose {
            Whose::Host(addr) => Actor::Host(addr),
            Whose::Service(addr, port, proto) => Actor::Service(addr, port, proto),
        };
        if let Some(storm) = self.storms.get_mut(actor, rule) {
            storm.captures += 1;
            match reset {
                true => storm.draft.tally.recorded(flow_id),
                false => storm.draft.tally.list(flow_id),
            }
        } else if let Some((_, key, home)) = self.wide.0.get(&(actor, rule)) {
            self.groups.list(key, *home, flow_id);
        }
    }
}
