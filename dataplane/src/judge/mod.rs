//! Verdicts: rule bodies, windows, incidents. Runs on the judge's thread (in replay, between two batches);
//! may allocate, may not be waited for by a worker. Reads [`message::Message`]s, answers with
//! [`message::Command`]s, and hands incidents to whoever asked for them.
//!
//! Packet time is the only time here: output depends on nothing but the order of messages.

mod aged;
pub mod because;
mod captures;
mod cause;
mod config;
mod crowd;
mod dealings;
mod diagnosis;
mod evidence;
mod gauges;
mod generations;
mod groups;
mod health;
mod incident;
mod known;
pub mod message;
mod novices;
mod open;
mod revise;
mod scripts;
mod shadow;
mod sight;
mod spread;
mod storms;
mod sums;
mod switched;
mod text;
mod tick;
mod widely;
mod window;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use rules::facts::Counts;
use rules::{RuleSet, Scope, Snapshot, Verdict};

use self::captures::Captures;
pub use self::config::{BodyBooks, JudgeAccount, JudgeConfig};
use self::crowd::Crowd;
use self::diagnosis::Wellness;
use self::gauges::{Gauges, Services};
pub use self::gauges::{ServiceStanding, Standing};
use self::generations::Generations;
use self::groups::{Cause, GroupKey, Groups};
pub use self::health::Cause as OffCause;
use self::incident::Draft;
pub use self::incident::{Incident, Subject};
use self::known::{Home, Known, NOWHERE};
use self::message::{Command, Hit, Message};
pub use self::scripts::BodyFailure;
use self::scripts::Scripts;
use self::shadow::Shadow;
pub use self::shadow::ShadowCounts;
use self::storms::Storms;
use self::sums::accumulate;
use self::switched::Switched;
use self::widely::Wide;
use self::window::{BUCKET_NS, Windows};
use crate::source::Nanos;

type Order = (Nanos, u16, u64, u16, Subject);

/// Makes incidents of what workers report.
///
/// Several workers: give each message's commands to the worker it came from. A worker's reports go into the
/// bucket of the next tick that arrives, so hand over one worker's reports together with its tick.
pub struct Judge {
    /// Of whatever is being dealt with.
    rules: Arc<RuleSet>,
    /// Its generation.
    spoken_of: u32,
    generations: Generations,
    config: JudgeConfig,
    scripts: Scripts,
    groups: Groups,
    storms: Storms,
    hosts: Windows<IpAddr>,
    /// With their gauges.
    services: Services,
    /// Of all services together, if a rule asks; and what was reported of them since the last tick.
    link: Option<Windows<()>>,
    all_services: Counts,
    crowd: Crowd,
    gauges: Gauges,
    captures: Captures,
    wide: Wide,
    shadow: Shadow,
    switched: Switched,
    known: Known,
    wellness: Wellness,
    last_serial: Home,
    /// Bucket of the latest tick.
    bucket: u64,
    /// Time of the latest hit or tick.
    latest: Nanos,
    opened: Vec<(Order, Incident)>,
    closed: Vec<(Order, Incident)>,
    folded: Vec<(Order, Incident)>,
    /// Commands a tick gave rise to.
    watches: Vec<Command>,
    account: JudgeAccount,
}

impl Judge {
    pub fn new(rules: Arc<RuleSet>, config: JudgeConfig) -> Judge {
        Judge {
            spoken_of: rules.generation(),
            generations: Generations::new(Arc::clone(&rules)),
            scripts: Scripts::new(Arc::clone(&rules), config.body_limits, config.failures_before_off),
            groups: Groups::new(config.max_open, config.captures_per_incident),
            storms: Storms::default(),
            hosts: Windows::new(config.max_hosts),
            services: Services::new(config.max_services),
            link: wants_link(&rules).then(|| Windows::new(1)),
            all_services: Counts::default(),
            crowd: Crowd::new(config.max_pairs),
            gauges: Gauges::new(config.max_hosts),
            captures: Captures::new(config.default_limits, config.max_kept),
            known: Known::new(config.max_known, rules.generation()),
            wide: Wide::default(),
            shadow: Shadow::new(config.max_known, config.max_open, config.captures_per_incident),
            switched: Switched::new(),
            wellness: Wellness::default(),
            last_serial: NOWHERE,
            bucket: 0,
            latest: 0,
            opened: Vec::new(),
            closed: Vec::new(),
            folded: Vec::new(),
            watches: Vec::new(),
            account: JudgeAccount::default(),
            rules,
            config,
        }
    }

    /// Takes one message; appends commands for the worker it came from.
    pub fn handle(&mut self, message: &Message, commands: &mut Vec<Command>) {
        match message {
            Message::Hit(hit) => {
                self.speak_of(hit.worker);
                self.hit(hit, commands);
                self.speak_of_newest();
            }
            Message::Rules { worker, generation } => self.switched(*worker, *generation),
            Message::Host { addr, counts } => {
                self.hosts.report(*addr, Some(counts), (), self.bucket);
            }
            Message::Service { addr, port, proto, counts, changes } => {
                let counted = *counts != Counts::default();
                // That an entry was made or is gone is no news for rules.
                let told = (counted || changes.standing != [0; 5]).then_some(counts);
                self.services.report((*addr, *port, *proto), told, *changes, self.bucket);
                self.gauges.change(&changes.entries, self.bucket);
                if counted && self.link.is_some() {
                    accumulate(&mut self.all_services, counts);
                }
            }
            Message::Dealing { client, addr, port, proto, dealing } => {
                self.crowd.report(*client, (*addr, *port, *proto), dealing);
            }
            Message::Siblings { addr, port, worker, siblings } => {
                self.wellness.report(*addr, *port, *worker, siblings);
            }
            Message::Watched { whose, rule, flow_id, reset } => {
                self.recorded(*whose, *rule, *flow_id, *reset);
            }
            Message::Tick(now) => self.tick(*now),
        }
        commands.append(&mut self.watches);
        if self.scripts.has_switched_off() {
            self.tell_switched_off();
        }
    }

    /// Input has ended: what was reported since the last tick is judged, and everything opens and closes.
    /// Every held hit has been answered when it came, so no command is left to give.
    pub fn finish(&mut self, _commands: &mut Vec<Command>) {
        if self.hosts.has_changed() || self.services.has_changed() || self.crowd.has_changed() {
            self.evaluate((self.latest / BUCKET_NS + 1).max(self.bucket + 1));
        }
        self.settle(Nanos::MAX);
        self.close(Nanos::MAX);
        self.tell_switched_off();
        self.close_switched_off(|_| true);
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

    /// Incidents that opened and then turned out to be part of another, since the last call: who was told of their
    /// opening is told that they closed; they are none of their own.
    pub fn folded(&mut self) -> Vec<Incident> {
        drain(&mut self.folded)
    }

    /// How things stand now, with at most `number` services and clients.
    pub fn standing(&mut self, number: usize) -> Standing {
        self.take_in();
        self.gauges.standing(number, self.bucket, &mut self.services)
    }

    pub fn account(&self) -> JudgeAccount {
        JudgeAccount {
            bodies_run: self.scripts.runs,
            bodies_left_out: self.scripts.left_out,
            body_errors: self.scripts.errors,
            body_deadlines: self.scripts.deadlines,
            keeps: self.captures.keeps,
            releases: self.captures.releases,
            captures_over_budget: self.captures.over_budget,
            hosts_evicted: self.hosts.evicted(),
            services_evicted: self.services.evicted(),
            pairs_evicted: self.crowd.evicted(),
            gauges_evicted: self.gauges.evicted(),
            state_entries_peak: u64::from(self.gauges.peak),
            flows_forgotten: self.known.forgotten,
            kept_forgotten: self.captures.forgotten,
            siblings_refused: self.wellness.refused,
            open: (self.groups.len() + self.storms.len() + self.switched.len()) as u64,
            ..self.account
        }
    }

    /// What became of the bodies of rules.
    pub fn bodies(&self) -> BodyBooks {
        let counts = self.scripts.counts().map(|(rule, name, n)| (rule.to_owned(), name.to_owned(), n));
        BodyBooks {
            failures: self.scripts.failures().cloned().collect(),
            counts: counts.collect(),
            shadows: self.shadows(),
        }
    }

    /// First failures of rules since the last call, in words; not of all, if there are many.
    pub fn failing(&mut self) -> Vec<String> {
        self.scripts.news()
    }

    fn hit(&mut self, hit: &Hit, commands: &mut Vec<Command>) {
        self.account.hits += 1;
        self.latest = self.latest.max(hit.facts.now_ns);
        if self.is_shadow(hit.rule) {
            return self.shadow_hit(hit);
        }
        let (key, cause) = (GroupKey::of(hit), Cause::of(hit));
        self.known.now = hit.facts.now_ns;
        if let Some(home) = self.known.get(hit.facts.flow_id, hit.rule)
            && self.again(hit, home)
        {
            self.known.touch(hit.facts.flow_id, hit.rule);
            self.account.hits_repeated += 1;
            self.captures.answer(hit, None, false, commands);
            return;
        }
        let storm = self.storms.of_hit(&key, cause).map(|storm| storm.captures);
        let storming = storm.is_some();
        let exists = usize::from(hit.rule) < self.rules.rules().len();
        if !exists || !storming && !self.groups.has_room(&key, cause) {
            self.account.hits_refused += 1;
            self.captures.answer(hit, None, false, commands);
            return;
        }
        self.account.hits_judged += 1;
        if storm.is_some_and(|captures| captures >= self.config.captures_per_incident) {
            // One of thousands: it changes neither the words nor what is captured.
            let home = self.join_storm(hit, None, commands);
            self.known.set(hit.facts.flow_id, hit.rule, home);
            return;
        }
        let verdict = self.scripts.run(hit.rule, &Snapshot::Flow(&hit.facts, hit.event)).unwrap_or_default();
        let home = match (&verdict.incident, storming) {
            (None, _) => {
                let budget = (self.config.captures_per_incident, self.config.quiet);
                self.captures.answer_plain(hit, verdict.capture.as_ref(), budget, commands);
                NOWHERE
            }
            (Some(_), true) => self.join_storm(hit, Some(&verdict), commands),
            (Some(_), false) => self.join_group(hit, &verdict, commands),
        };
        self.known.set(hit.facts.flow_id, hit.rule, home);
        if !storming {
            self.watch_ends(hit, &verdict, home);
        }
    }

    /// Counts a further hit of a rule on a flow where the first went; false if that has closed since.
    fn repeat(&mut self, hit: &Hit, home: Home) -> bool {
        if home == NOWHERE {
            return true;
        }
        let (key, cause) = (GroupKey::of(hit), Cause::of(hit));
        match self.storms.of_hit(&key, cause) {
            // The host's reports count the event already.
            Some(storm) if storm.holds(home) => {
                storm.draft.tally.events(hit.facts.now_ns, 0);
                true
            }
            Some(_) => false,
            None => self.groups.repeat(&key, cause, home, hit.facts.now_ns),
        }
    }

    fn join_storm(&mut self, hit: &Hit, verdict: Option<&Verdict>, commands: &mut Vec<Command>) -> Home {
        let Some(storm) = self.storms.of_hit(&GroupKey::of(hit), Cause::of(hit)) else { return NOWHERE };
        let own = !self.known.elsewhere(hit.facts.flow_id, hit.rule).any(|(_, home)| storm.holds(home));
        storm.join(hit, verdict, own);
        self.account.absorbed += 1;
        let room = storm.captures < self.config.captures_per_incident;
        let wish = verdict.and_then(|verdict| verdict.capture.as_ref());
        storm.captures += u32::from(self.captures.answer(hit, wish, room, commands));
        storm.serial
    }

    fn join_group(&mut self, hit: &Hit, verdict: &Verdict, commands: &mut Vec<Command>) -> Home {
        let (key, cause) = (GroupKey::of(hit), Cause::of(hit));
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

    fn settle(&mut self, before: Nanos) {
        let late = if before == Nanos::MAX { before } else { before.saturating_sub(self.config.suspect) };
        let waits = |client: &IpAddr| self.crowd.is_suspect(client);
        let remark = |key: &GroupKey| {
            let sums = self.services.sums(&(key.responder, key.port, key.proto))?;
            text::unanswered(key.responder, key.port, &sums[2])
        };
        let opened = self.groups.settle((before, late), waits, remark, &self.rules);
        self.account.incidents_opened += opened.len() as u64;
        self.opened.extend(opened);
        self.settle_shadow(before);
    }

    fn close(&mut self, before: Nanos) {
        let rules = Arc::clone(&self.rules);
        let name = |rule: u16| rules.rules().get(usize::from(rule)).map_or("", |meta| &meta.name).to_owned();
        let mut drafts = self.groups.close(before);
        // Of flows that a rule left out by `sample` it is not known that they went well.
        let whole =
            |draft: &Draft| rules.rules().get(usize::from(draft.rule)).is_none_or(|meta| meta.sample <= 1);
        let told = drafts.iter_mut().filter(|draft| draft.withdrawn.is_none() && whole(draft));
        told.for_each(|draft| draft.diagnose(&self.wellness));
        drafts.extend(self.storms.close(before).into_iter().map(|storm| storm.close(name)));
        for draft in drafts {
            self.closed.push((draft.order(), draft.incident(&self.rules, true)));
            self.account.incidents_closed += 1;
            self.account.incidents_withdrawn += u64::from(draft.withdrawn.is_some());
        }
        self.close_shadow(before);
    }
}

fn wants_link(rules: &RuleSet) -> bool {
    rules.in_force().any(|(_, rule)| rule.scope == Scope::Link)
}

fn drain(waiting: &mut Vec<(Order, Incident)>) -> Vec<Incident> {
    if waiting.is_empty() {
        return Vec::new();
    }
    waiting.sort_by(|(a, _), (b, _)| a.cmp(b));
    waiting.drain(..).map(|(_, incident)| incident).collect()
}
