//! Ends a bucket of packet time: host and service rules on what changed in it, and the incidents they open and carry
//! on. Runs on the judge's thread, between messages; part of [`Judge`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rules::facts::{ClientFacts, Counts, HostFacts, LinkFacts, ServiceFacts};
use rules::{Hits, RuleSet, Verdict};

use super::Judge;
use super::config::JudgeAccount;
use super::groups::Takes;
use super::incident::Draft;
use super::message::WatchFlows;
use super::sight::{Crowdwise, Sight, takes};
use super::storms::{Actor, Measure, Storm, counted};
use super::window::{BUCKET_NS, Field, SPANS, Told};
use crate::source::Nanos;

/// Entries from which on a client is worth a look that does nothing else of note.
const MANY_ENTRIES: u32 = 1000;

impl Judge {
    /// Takes in what was reported since the last tick.
    pub(super) fn take_in(&mut self) {
        self.hosts.take_in(self.bucket);
        self.services.take_in(self.bucket);
        self.gauges.clients(self.crowd.new_reports(), self.bucket);
    }

    /// Host and service rules on what was reported for this bucket.
    pub(super) fn evaluate(&mut self, bucket: u64) {
        self.take_in();
        self.bucket = self.bucket.max(bucket);
        let now_ns = self.bucket.saturating_mul(BUCKET_NS);
        self.gauges.tick(self.bucket, &mut self.services);
        let mut matched = Vec::new();
        for (addr, (mut client, [last_1s, last_10s, last_60s])) in self.hosts_of_note(bucket) {
            client.state_entries = self.gauges.of_client(&addr, self.bucket);
            let quiet =
                client == ClientFacts { state_entries: client.state_entries, ..ClientFacts::default() };
            if quiet && client.state_entries < MANY_ENTRIES && last_60s == Counts::default() {
                continue;
            }
            let sight = Sight::Host(HostFacts { addr, now_ns, last_1s, last_10s, last_60s, client });
            matched.extend(matching(sight, &self.rules, &mut self.account));
        }
        let Judge { services, gauges, rules, account, bucket: now, .. } = self;
        let mut hits = Hits::new();
        services.tick(bucket, *now, |(addr, port, proto), told, service| {
            let Told { sums: [last_1s, last_10s, last_60s], unfinished_most } = told;
            let states = gauges.facts(service, &last_60s, *now);
            let facts = ServiceFacts {
                addr,
                port,
                proto,
                now_ns,
                last_1s,
                last_10s,
                last_60s,
                unfinished_most,
                states,
            };
            rules.match_service(&facts, &mut hits);
            if !hits.is_empty() {
                account.matches_overflowed += hits.overflowed;
                matched.push((Sight::Service(facts), std::mem::take(&mut hits)));
            }
        });
        // They came in the order of a worker's hash table.
        matched.sort_unstable_by_key(|(sight, _)| sight.actor());
        for (sight, hits) in &matched {
            self.matched(sight, hits);
        }
        self.evaluate_link(bucket, now_ns);
    }

    /// Link rules: on the sums over all services, and on what all traffic takes in a state table.
    fn evaluate_link(&mut self, bucket: u64, now_ns: Nanos) {
        let Some(link) = &mut self.link else { return };
        let reported = std::mem::take(&mut self.all_services);
        if reported != Counts::default() {
            link.report((), Some(&reported), (), self.bucket);
            link.take_in(self.bucket);
        }
        link.tick(bucket, self.bucket, |(), _, ()| ());
        let [last_1s, last_10s, last_60s] = link.sums(&()).unwrap_or_default();
        let mut facts = LinkFacts { now_ns, last_1s, last_10s, last_60s, ..LinkFacts::default() };
        self.gauges.fill(&mut facts, self.bucket);
        if let Some((sight, hits)) = matching(Sight::Link(facts), &self.rules, &mut self.account) {
            self.matched(&sight, &hits);
        }
    }

    /// Hosts that did something rules may ask about, as clients or otherwise.
    fn hosts_of_note(&mut self, bucket: u64) -> BTreeMap<IpAddr, (ClientFacts, [Counts; 3])> {
        let (windows, gauges) = (&self.hosts, &self.gauges);
        let (no_windows, few_entries) = (windows.is_empty(), gauges.all_below(MANY_ENTRIES));
        let noted = |client: &IpAddr| !few_entries || !no_windows && windows.sums(client).is_some();
        let clients = self.crowd.tick(self.bucket, noted).into_iter();
        let mut hosts: BTreeMap<_, _> =
            clients.map(|(addr, client)| (addr, (client, windows.sums(&addr).unwrap_or_default()))).collect();
        self.hosts.tick(bucket, self.bucket, |addr, told, ()| hosts.entry(addr).or_default().1 = told.sums);
        hosts
    }

    fn matched(&mut self, sight: &Sight, hits: &Hits) {
        let rules = Arc::clone(&self.rules);
        let actor = sight.actor();
        for &rule in hits.as_slice() {
            if let Some(counters) = rules.counters(rule) {
                counters.count_match();
            }
            if self.is_shadow(rule) {
                self.shadow_sight(rule, sight, self.bucket.saturating_mul(BUCKET_NS));
            } else if self.storms.get_mut(actor, rule).is_some() {
                self.carry_on(rule, sight);
            } else if self.storms.len() >= self.config.max_open {
                self.account.matches_refused += 1;
            } else if let Some(verdict) = self.scripts.run(rule, &sight.snapshot())
                && verdict.incident.is_some()
            {
                self.open_storm(rule, &verdict, sight.measure(rule, &rules), sight);
            }
        }
    }

    /// A rule keeps matching: its incident goes on. At a new peak it takes that verdict's words.
    fn carry_on(&mut self, rule: u16, sight: &Sight) {
        let actor = sight.actor();
        let Some(storm) = self.storms.get_mut(actor, rule) else { return };
        let after = storm.counted_to.max(self.bucket.saturating_sub(storm.measure.span));
        let level = sight.level(&storm.measure);
        let so_far = storm.draft.tally.count;
        let events = match (storm.measure.field, storm.measure.crowdwise) {
            (Some(field), _) => {
                counted((&self.hosts, &self.services, self.link.as_ref()), actor, field, after).0
            }
            (None, Some(what)) => sight.began(what).map_or(level, |(_, total)| total).saturating_sub(so_far),
            (None, None) => 1,
        };
        storm.counted_to = self.bucket;
        storm.draft.tally.events(self.bucket.saturating_mul(BUCKET_NS), events);
        if storm.measure.field == Some(Field::Rsts) {
            let reset =
                counted((&self.hosts, &self.services, self.link.as_ref()), actor, Field::FlowsReset, after).0;
            storm.draft.tally.flows_reset += reset;
        }
        if level > storm.peak {
            storm.peak = level;
            if let Some(verdict) = self.scripts.run(rule, &sight.snapshot()) {
                storm.draft.restate(&verdict);
            }
        }
    }

    /// A slow scan or flood is known for what it is long after its first attempts failed: their incidents are part of
    /// its own.
    fn fold(&mut self, storm: &mut Storm, began: Nanos) {
        let since = began.saturating_sub(self.config.before_storm);
        let into = storm.draft.incident(&self.rules, false).id;
        for (key, home, mut draft, captures) in self.groups.fold(storm.takes, since) {
            self.account.absorbed += draft.tally.flows;
            storm.take(key.rule, home, &draft, (draft.tally.flows, captures));
            draft.remark = format!("It is part of what incident {into} tells of.");
            self.folded.push((draft.order(), draft.incident(&self.rules, true)));
            self.account.incidents_closed += 1;
        }
    }

    fn open_storm(&mut self, rule: u16, verdict: &Verdict, measure: Measure, sight: &Sight) {
        let actor = sight.actor();
        // A second may lie in one bucket more (see `Track::told`).
        let partly = u64::from(measure.field == Some(Field::Rsts) && measure.span == SPANS[0]);
        let window_start = self.bucket.saturating_sub(measure.span + partly);
        let since = (window_start * BUCKET_NS).saturating_sub(self.config.before_storm);
        let parts = match takes(actor, &measure) {
            Takes::Nothing => Vec::new(),
            takes => self.groups.surrender(takes, since),
        };
        // It began with the first flow taken over, or with the first event in its window.
        let hits_began = parts.iter().map(|(_, _, part)| part.draft.tally.first_ns).min();
        let after = hits_began.map_or(window_start, |ns| window_start.min(ns / BUCKET_NS));
        let (count, first_ns) = match (measure.field, measure.crowdwise.and_then(|what| sight.began(what))) {
            (Some(field), _) => {
                let (count, first) =
                    counted((&self.hosts, &self.services, self.link.as_ref()), actor, field, after);
                (count, first.unwrap_or(self.bucket).saturating_sub(1) * BUCKET_NS)
            }
            (None, Some((first_ns, count))) => (count, first_ns),
            (None, None) => (1, self.bucket.saturating_sub(1) * BUCKET_NS),
        };
        let first_ns = hits_began.filter(|ns| *ns < first_ns + BUCKET_NS).unwrap_or(first_ns);
        let Some(mut draft) = Draft::new(rule, actor.subject(), verdict, first_ns, (0, 0)) else { return };
        let level = sight.level(&measure);
        let states = measure.crowdwise.is_some_and(|what| sight.began(what).is_none());
        draft.tally.events(self.bucket.saturating_mul(BUCKET_NS), if states { level } else { count });
        if measure.field == Some(Field::Rsts) {
            draft.tally.flows_reset =
                counted((&self.hosts, &self.services, self.link.as_ref()), actor, Field::FlowsReset, after).0;
        }
        self.last_serial += 1;
        let mut storm = Storm::new(self.last_serial, draft, (actor, measure), level, self.bucket);
        for (key, home, part) in &parts {
            self.account.absorbed += part.draft.tally.flows;
            storm.absorb(key, *home, part);
        }
        let scans = matches!(measure.crowdwise, Some(Crowdwise::Ports | Crowdwise::Hosts));
        if scans || matches!(storm.takes, Takes::AttemptsAt(..)) {
            self.fold(&mut storm, first_ns);
        }
        if let Some(wish) = &verdict.capture {
            let all = self.config.captures_per_incident.saturating_sub(storm.captures);
            self.watch(actor, rule, wish, WatchFlows { all, others: others(actor, measure.field, all) });
        }
        let storm = self.storms.insert(actor, storm);
        self.opened.push((storm.draft.order(), storm.draft.incident(&self.rules, false)));
        self.account.incidents_opened += 1;
    }
}

/// What proves a storm of resets are flows that are reset: others take half of the places at most. Where a service's
/// failing attempts are counted, others prove nothing.
const fn others(actor: Actor, field: Option<Field>, all: u32) -> u32 {
    match (actor, field) {
        (_, Some(Field::Rsts)) => all / 2,
        (
            Actor::Service(..),
            Some(
                Field::SynUnanswered
                | Field::Refused
                | Field::Recovered
                | Field::Unfinished
                | Field::UnfinishedRepeated,
            ),
        ) => 0,
        _ => all,
    }
}

/// What is seen, if some rule's condition holds on it.
fn matching(sight: Sight, rules: &RuleSet, account: &mut JudgeAccount) -> Option<(Sight, Hits)> {
    let hits = sight.matching(rules);
    account.matches_overflowed += hits.overflowed;
    (!hits.is_empty()).then_some((sight, hits))
}
