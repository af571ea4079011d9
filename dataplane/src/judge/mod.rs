//! Verdicts: rule bodies, windows, incidents. Runs on the judge's thread (in replay, between two batches);
//! may allocate, may not be waited for by a worker. Reads [`message::Message`]s, answers with
//! [`message::Command`]s, and hands incidents to whoever asked for them.
//!
//! Packet time is the only time here: output depends on nothing but the order of messages.

mod captures;
mod config;
mod evidence;
mod groups;
mod incident;
mod known;
pub mod message;
mod revise;
mod scripts;
mod storms;
mod text;
mod window;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use rules::facts::{Counts, HostFacts, ServiceFacts};
use rules::{Hits, RuleSet, Snapshot, Verdict};

use self::captures::Captures;
pub use self::config::{JudgeAccount, JudgeConfig};
use self::groups::{GroupKey, Groups, cause};
use self::incident::Draft;
pub use self::incident::{Incident, Subject};
use self::known::{Home, Known, NOWHERE};
use self::message::{Command, Hit, Message};
pub use self::scripts::BodyFailure;
use self::scripts::Scripts;
use self::storms::{Actor, Measure, Storm, Storms, counted};
use self::window::{BUCKET_NS, Field, Windows};
use crate::source::Nanos;

type Order = (Nanos, u16, u64, u16, Subject);

/// Makes incidents of what workers report.
///
/// Several workers: give each message's commands to the worker it came from. A worker's reports go into the
/// bucket of the next tick that arrives, so hand over one worker's reports together with its tick.
pub struct Judge {
    rules: Arc<RuleSet>,
    config: JudgeConfig,
    scripts: Scripts,
    groups: Groups,
    storms: Storms,
    hosts: Windows<IpAddr>,
    services: Windows<(IpAddr, u16, u8)>,
    captures: Captures,
    known: Known,
    last_serial: Home,
    /// Bucket of the latest tick.
    bucket: u64,
    /// Time of the latest hit or tick.
    latest: Nanos,
    opened: Vec<(Order, Incident)>,
    closed: Vec<(Order, Incident)>,
    /// Commands a tick gave rise to.
    watches: Vec<Command>,
    account: JudgeAccount,
}

impl Judge {
    pub fn new(rules: Arc<RuleSet>, config: JudgeConfig) -> Judge {
        Judge {
            scripts: Scripts::new(Arc::clone(&rules), config.body_limits, config.failures_before_off),
            groups: Groups::new(config.max_open, config.captures_per_incident),
            storms: Storms::default(),
            hosts: Windows::new(config.max_hosts),
            services: Windows::new(config.max_services),
            captures: Captures::new(config.default_limits, config.max_kept),
            known: Known::new(config.max_known),
            last_serial: NOWHERE,
            bucket: 0,
            latest: 0,
            opened: Vec::new(),
            closed: Vec::new(),
            watches: Vec::new(),
            account: JudgeAccount::default(),
            rules,
            config,
        }
    }

    /// Takes one message; appends commands for the worker it came from.
    pub fn handle(&mut self, message: &Message, commands: &mut Vec<Command>) {
        match message {
            Message::Hit(hit) => self.hit(hit, commands),
            Message::Host { addr, counts } => self.hosts.report(*addr, counts, self.bucket),
            Message::Service { addr, port, proto, counts } => {
                self.services.report((*addr, *port, *proto), counts, self.bucket);
            }
            Message::Watched { addr, flow_id } => {
                if let Some(storm) = self.storms.of_cause(*addr) {
                    storm.captures += 1;
                    storm.draft.tally.recorded(*flow_id);
                }
            }
            Message::Tick(now) => self.tick(*now),
        }
        commands.append(&mut self.watches);
    }

    /// Input has ended: what was reported since the last tick is judged, and everything opens and closes.
    /// Every held hit has been answered when it came, so no command is left to give.
    pub fn finish(&mut self, _commands: &mut Vec<Command>) {
        if self.hosts.has_changed() || self.services.has_changed() {
            self.evaluate((self.latest / BUCKET_NS + 1).max(self.bucket + 1));
        }
        self.settle(Nanos::MAX);
        self.close(Nanos::MAX);
    }

    /// Incidents that opened since the last call, by first event, then worker and sequence. To be called
    /// after each batch of messages, as [`Judge::closed`]: they wait here until then.
    pub fn opened(&mut self) -> Vec<Incident> {
        drain(&mut self.opened)
    }

    /// Incidents that closed since the last call, by first event, then worker and sequence.
    pub fn closed(&mut self) -> Vec<Incident> {
        drain(&mut self.closed)
    }

    pub fn account(&self) -> JudgeAccount {
        JudgeAccount {
            bodies_run: self.scripts.runs,
            body_errors: self.scripts.errors,
            body_deadlines: self.scripts.deadlines,
            keeps: self.captures.keeps,
            releases: self.captures.releases,
            captures_over_budget: self.captures.over_budget,
            hosts_evicted: self.hosts.evicted,
            services_evicted: self.services.evicted,
            flows_forgotten: self.known.forgotten,
            kept_forgotten: self.captures.forgotten,
            open: (self.groups.len() + self.storms.len()) as u64,
            ..self.account
        }
    }

    /// Rules whose body failed, how often, and what the last failure said.
    pub fn body_failures(&self) -> Vec<BodyFailure> {
        self.scripts.failures().cloned().collect()
    }

    fn hit(&mut self, hit: &Hit, commands: &mut Vec<Command>) {
        self.account.hits += 1;
        self.latest = self.latest.max(hit.facts.now_ns);
        let (key, cause) = (GroupKey::of(hit), cause(hit));
        if let Some(home) = self.known.get(hit.facts.flow_id, hit.rule)
            && self.again(hit, home)
        {
            self.account.hits_repeated += 1;
            self.captures.answer(hit, None, false, commands);
            return;
        }
        let storming = cause.is_some_and(|host| self.storms.of_cause(host).is_some());
        let exists = usize::from(hit.rule) < self.rules.rules().len();
        if !exists || !storming && !self.groups.has_room(&key, cause) {
            self.account.hits_refused += 1;
            self.captures.answer(hit, None, false, commands);
            return;
        }
        self.account.hits_judged += 1;
        let verdict = self.scripts.run(hit.rule, &Snapshot::Flow(&hit.facts, hit.event)).unwrap_or_default();
        let home = match (&verdict.incident, cause) {
            (None, _) => {
                let budget = (self.config.captures_per_incident, self.config.quiet);
                self.captures.answer_plain(hit, verdict.capture.as_ref(), budget, commands);
                NOWHERE
            }
            (Some(_), Some(host)) if storming => self.join_storm(hit, host, &verdict, commands),
            (Some(_), _) => self.join_group(hit, &verdict, commands),
        };
        self.known.set(hit.facts.flow_id, hit.rule, home);
    }

    /// Counts a further hit of a rule on a flow where the first went; false if that has closed since.
    fn repeat(&mut self, hit: &Hit, home: Home) -> bool {
        if home == NOWHERE {
            return true;
        }
        let (key, cause) = (GroupKey::of(hit), cause(hit));
        match cause.and_then(|host| self.storms.of_cause(host)) {
            // The host's reports count the event already.
            Some(storm) if storm.holds(home) => {
                storm.draft.tally.events(hit.facts.now_ns, 0);
                true
            }
            Some(_) => false,
            None => self.groups.repeat(&key, cause, home, hit.facts.now_ns),
        }
    }

    fn join_storm(
        &mut self,
        hit: &Hit,
        host: IpAddr,
        verdict: &Verdict,
        commands: &mut Vec<Command>,
    ) -> Home {
        let Some(storm) = self.storms.of_cause(host) else { return NOWHERE };
        let own = !self.known.elsewhere(hit.facts.flow_id, hit.rule).any(|(_, home)| storm.holds(home));
        storm.join(hit, verdict, own);
        self.account.absorbed += 1;
        let room = storm.captures < self.config.captures_per_incident;
        storm.captures += u32::from(self.captures.answer(hit, verdict.capture.as_ref(), room, commands));
        storm.serial
    }

    fn join_group(&mut self, hit: &Hit, verdict: &Verdict, commands: &mut Vec<Command>) -> Home {
        let (key, cause) = (GroupKey::of(hit), cause(hit));
        self.last_serial += 1;
        let home = self.groups.join(hit, verdict, self.last_serial, &self.known).unwrap_or(NOWHERE);
        let room = self.groups.may_capture(&key, cause);
        if self.captures.answer(hit, verdict.capture.as_ref(), room, commands) {
            self.groups.charge(&key, cause);
        }
        home
    }

    fn tick(&mut self, now: Nanos) {
        self.latest = self.latest.max(now);
        self.evaluate(now / BUCKET_NS);
        let now = self.bucket * BUCKET_NS;
        if let Some(before) = now.checked_sub(self.config.settle) {
            self.settle(before);
        }
        if let Some(before) = now.checked_sub(self.config.quiet) {
            self.close(before);
        }
        self.captures.tick(now);
    }

    /// Ends a bucket: host and service rules on what changed in it.
    fn evaluate(&mut self, bucket: u64) {
        self.bucket = self.bucket.max(bucket);
        let now_ns = self.bucket * BUCKET_NS;
        let rules = Arc::clone(&self.rules);
        for (addr, sums) in self.hosts.tick(bucket, self.bucket) {
            let facts = |[last_1s, last_10s, last_60s]: [Counts; 3]| HostFacts {
                addr,
                now_ns,
                last_1s,
                last_10s,
                last_60s,
            };
            let matching = |sums: &[Counts; 3], hits: &mut Hits| rules.match_host(&facts(*sums), hits);
            self.matched(Actor::Host(addr), &sums, &Snapshot::Host(&facts(sums)), &matching);
        }
        for ((addr, port, proto), sums) in self.services.tick(bucket, self.bucket) {
            let facts = |[last_1s, last_10s, last_60s]: [Counts; 3]| ServiceFacts {
                addr,
                port,
                proto,
                now_ns,
                last_1s,
                last_10s,
                last_60s,
            };
            let matching = |sums: &[Counts; 3], hits: &mut Hits| rules.match_service(&facts(*sums), hits);
            let actor = Actor::Service(addr, port, proto);
            self.matched(actor, &sums, &Snapshot::Service(&facts(sums)), &matching);
        }
    }

    fn matched(
        &mut self,
        actor: Actor,
        sums: &[Counts; 3],
        snapshot: &Snapshot,
        matching: &dyn Fn(&[Counts; 3], &mut Hits),
    ) {
        let mut hits = Hits::new();
        matching(sums, &mut hits);
        self.account.matches_overflowed += hits.overflowed;
        for &rule in hits.as_slice() {
            if self.storms.get_mut(actor, rule).is_some() {
                self.carry_on(actor, rule, sums, snapshot);
            } else if self.storms.len() >= self.config.max_open {
                self.account.matches_refused += 1;
            } else if let Some(verdict) = self.scripts.run(rule, snapshot)
                && verdict.incident.is_some()
            {
                let measure = Measure::of(sums, |sums| {
                    let mut hits = Hits::new();
                    matching(sums, &mut hits);
                    hits.as_slice().contains(&rule)
                });
                self.open_storm(actor, rule, &verdict, measure, sums);
            }
        }
    }

    /// A rule keeps matching: its incident goes on. At a new peak it takes that verdict's words.
    fn carry_on(&mut self, actor: Actor, rule: u16, sums: &[Counts; 3], snapshot: &Snapshot) {
        let Some(storm) = self.storms.get_mut(actor, rule) else { return };
        let after = storm.counted_to.max(self.bucket.saturating_sub(storm.measure.span));
        let events = match storm.measure.field {
            Some(field) => counted(&self.hosts, &self.services, actor, field, after).0,
            None => 1,
        };
        storm.counted_to = self.bucket;
        storm.draft.tally.events(self.bucket * BUCKET_NS, events);
        if storm.measure.field == Some(Field::Rsts) {
            let reset = counted(&self.hosts, &self.services, actor, Field::FlowsReset, after).0;
            storm.draft.tally.flows_reset += reset;
        }
        let level = storm.measure.level(sums);
        if level > storm.peak {
            storm.peak = level;
            if let Some(verdict) = self.scripts.run(rule, snapshot) {
                storm.draft.restate(&verdict);
            }
        }
    }

    fn open_storm(
        &mut self,
        actor: Actor,
        rule: u16,
        verdict: &Verdict,
        measure: Measure,
        sums: &[Counts; 3],
    ) {
        let window_start = self.bucket.saturating_sub(measure.span);
        let parts = match actor {
            Actor::Host(host) => {
                let since = (window_start * BUCKET_NS).saturating_sub(self.config.before_storm);
                self.groups.surrender(host, since)
            }
            Actor::Service(..) => Vec::new(),
        };
        // It began with the first flow taken over, or with the first event in its window.
        let hits_began = parts.iter().map(|(_, _, part)| part.draft.tally.first_ns).min();
        let after = hits_began.map_or(window_start, |ns| window_start.min(ns / BUCKET_NS));
        let (count, first) = match measure.field {
            Some(field) => counted(&self.hosts, &self.services, actor, field, after),
            None => (1, None),
        };
        let first = first.unwrap_or(self.bucket);
        let first_ns =
            hits_began.filter(|ns| *ns < first * BUCKET_NS).unwrap_or(first.saturating_sub(1) * BUCKET_NS);
        let Some(mut draft) = Draft::new(rule, actor.subject(), verdict, first_ns, (0, 0)) else { return };
        draft.tally.events(self.bucket * BUCKET_NS, count);
        if measure.field == Some(Field::Rsts) {
            draft.tally.flows_reset = counted(&self.hosts, &self.services, actor, Field::FlowsReset, after).0;
        }
        self.last_serial += 1;
        let mut storm = Storm::new(self.last_serial, draft, measure, measure.level(sums), self.bucket);
        for (key, home, part) in &parts {
            self.account.absorbed += part.draft.tally.flows;
            storm.absorb(key, *home, part);
        }
        if let (Actor::Host(addr), Some(wish)) = (actor, &verdict.capture) {
            self.watches.push(Command::Watch {
                addr,
                rule,
                flows: self.config.captures_per_incident.saturating_sub(storm.captures),
                until: (self.bucket * BUCKET_NS).saturating_add(self.config.quiet),
                limits: self.captures.limits(wish),
            });
        }
        let storm = self.storms.insert(actor, storm);
        self.opened.push((storm.draft.order(), storm.draft.incident(&self.rules, false)));
        self.account.incidents_opened += 1;
    }

    fn settle(&mut self, before: Nanos) {
        for (draft, incident) in self.groups.settle(before, &self.rules) {
            self.opened.push((draft.order(), incident));
            self.account.incidents_opened += 1;
        }
    }

    fn close(&mut self, before: Nanos) {
        let rules = Arc::clone(&self.rules);
        let name = |rule: u16| rules.rules().get(usize::from(rule)).map_or("", |meta| &meta.name).to_owned();
        let mut drafts = self.groups.close(before);
        drafts.extend(self.storms.close(before).into_iter().map(|storm| storm.close(name)));
        for draft in drafts {
            self.closed.push((draft.order(), draft.incident(&self.rules, true)));
            self.account.incidents_closed += 1;
        }
    }
}

fn drain(waiting: &mut Vec<(Order, Incident)>) -> Vec<Incident> {
    waiting.sort_by(|(a, _), (b, _)| a.cmp(b));
    waiting.drain(..).map(|(_, incident)| incident).collect()
}
