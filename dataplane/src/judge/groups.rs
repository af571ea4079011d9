//! Flow incidents: hits of one rule on flows to one service become one incident. Runs on the judge's thread.
//!
//! Hits first gather in *parts*, one for each cause (the host that sent the RST, or the SYN nobody answered). A part
//! waits for the settling time, so that a storm of its cause can take it over; then it opens its group's incident or
//! joins it. Groups, and the parts and flow ids in each, are bounded; what finds no room is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rules::{RuleSet, Verdict};

use super::Order;
pub use super::cause::{Cause, GroupKey, Takes};
use super::incident::{Draft, Incident, Subject};
use super::known::{Home, Known};
use super::message::Hit;
use crate::source::Nanos;

/// Causes of an open incident that are told apart.
const CAUSES: usize = 4;

/// Hits of one group with one cause that have not settled.
#[derive(Debug)]
pub struct Part {
    pub draft: Draft,
    /// Flows of it that no other rule's unsettled part of the same cause holds too.
    pub own_flows: u64,
    /// Flows of it kept.
    pub captures: u32,
}

#[derive(Debug)]
struct Group {
    serial: Home,
    open: Option<Draft>,
    /// Causes of what is open, as long as they are few.
    causes: Option<BTreeSet<Option<Cause>>>,
    /// All of them are attempts, however many.
    attempts: bool,
    parts: BTreeMap<Option<Cause>, Part>,
    /// Flows kept for the incident, unsettled parts included.
    captures: u32,
}

#[derive(Debug)]
pub struct Groups {
    groups: BTreeMap<GroupKey, Group>,
    /// Groups that have unsettled parts, and some that had: few of all.
    gathering: BTreeSet<GroupKey>,
    /// Flows kept for unsettled parts, by cause: one host may begin many groups before it is seen to storm.
    unsettled: BTreeMap<Cause, u32>,
    parts: usize,
    /// No unsettled part began before this.
    earliest_part: Nanos,
    /// No open incident had its last event before this.
    earliest_last: Nanos,
    limit: usize,
    captures_per_incident: u32,
}

impl Group {
    fn brought_about_by(&mut self, cause: Option<Cause>) {
        if self.open.is_none() {
            (self.causes, self.attempts) = (Some(BTreeSet::new()), true);
        }
        self.attempts &= matches!(cause, Some(Cause::Attempt(_)));
        if let Some(causes) = &mut self.causes {
            causes.insert(cause);
        }
        self.causes.take_if(|causes| causes.len() > CAUSES);
    }

    /// Everything that is open here belongs to what a storm takes.
    fn is_of(&self, key: &GroupKey, takes: &Takes) -> bool {
        match (takes, &self.causes) {
            (Takes::AttemptsAt(addr, port, proto), _) => {
                self.attempts && (*addr, *port, *proto) == (key.responder, key.port, key.proto)
            }
            (_, Some(causes)) => causes.iter().all(|cause| takes.takes(key, *cause)),
            (_, None) => false,
        }
    }
}

impl Groups {
    /// `limit`: groups, and unsettled parts, at most.
    pub fn new(limit: usize, captures_per_incident: u32) -> Groups {
        Groups {
            groups: BTreeMap::new(),
            gathering: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            parts: 0,
            earliest_part: Nanos::MAX,
            earliest_last: Nanos::MAX,
            limit: limit.max(1),
            captures_per_incident,
        }
    }

    /// Whether a hit of this key and cause would find a place.
    pub fn has_room(&self, key: &GroupKey, cause: Option<Cause>) -> bool {
        match self.groups.get(key) {
            Some(group) => group.parts.contains_key(&cause) || self.parts < self.limit,
            None => self.groups.len() < self.limit && self.parts < self.limit,
        }
    }

    /// Counts another hit of a flow that is part of the group with serial `home`; false if that has gone.
    pub fn repeat(&mut self, key: &GroupKey, cause: Option<Cause>, home: Home, at: Nanos) -> bool {
        let Some(group) = self.groups.get_mut(key).filter(|group| group.serial == home) else { return false };
        let part = group.parts.get_mut(&cause).map(|part| &mut part.draft);
        match part.or(group.open.as_mut()) {
            Some(draft) => {
                draft.tally.events(at, 1);
                true
            }
            None => false,
        }
    }

    /// Takes the newer words of a flow that is part of the group with serial `home`; false if that has gone.
    pub fn revise(&mut self, key: &GroupKey, home: Home, hit: &Hit, verdict: &Verdict) -> bool {
        let Some(group) = self.groups.get_mut(key).filter(|group| group.serial == home) else { return false };
        let flow_id = hit.facts.flow_id;
        let part = group.parts.values_mut().map(|part| &mut part.draft).find(|d| d.tally.lists(flow_id));
        let Some(draft) = part.or(group.open.as_mut()) else { return false };
        draft.revise(&Subject::flow(&hit.facts), verdict);
        draft.tally.events(hit.facts.now_ns, 0);
        true
    }

    /// Names a flow that is being recorded for the group with serial `home`.
    pub fn list(&mut self, key: &GroupKey, home: Home, flow_id: u64) {
        let Some(group) = self.groups.get_mut(key).filter(|group| group.serial == home) else { return };
        let part = group.parts.values_mut().map(|part| &mut part.draft).next();
        if let Some(draft) = group.open.as_mut().or(part) {
            draft.tally.list(flow_id);
        }
    }

    /// Takes back what was said of a flow that is part of the group with serial `home`. An unsettled part of which
    /// nothing is left goes without a word.
    pub fn withdraw(&mut self, key: &GroupKey, home: Home, hit: &Hit, reason: &str) {
        let Some(group) = self.groups.get_mut(key).filter(|group| group.serial == home) else { return };
        let flow_id = hit.facts.flow_id;
        let of_flow =
            |(cause, part): (&Option<Cause>, &Part)| part.draft.tally.lists(flow_id).then_some(*cause);
        let Some(cause) = group.parts.iter().find_map(of_flow) else {
            if let Some(open) = group.open.as_mut().filter(|open| open.tally.lists(flow_id)) {
                open.withdraw(flow_id, reason, hit.facts.now_ns);
                self.earliest_last = 0;
            }
            return;
        };
        let Some(part) = group.parts.get_mut(&cause) else { return };
        part.draft.withdraw(flow_id, reason, hit.facts.now_ns);
        if part.draft.withdrawn.is_some()
            && let Some(part) = group.parts.remove(&cause)
        {
            group.captures -= part.captures;
            let gone = group.open.is_none() && group.parts.is_empty();
            self.settled(cause, part.captures);
            if gone {
                self.groups.remove(key);
            }
        }
    }

    /// Whether a capture of a flow in this group and of this cause is within both budgets.
    pub fn may_capture(&self, key: &GroupKey, cause: Option<Cause>) -> bool {
        let of_cause = cause.and_then(|cause| self.unsettled.get(&cause)).copied().unwrap_or(0);
        let of_group = self.groups.get(key).map_or(0, |group| group.captures);
        of_cause.max(of_group) < self.captures_per_incident
    }

    /// Takes a flow in whose verdict names an incident; `serial` is used if it begins a group. The caller
    /// has asked [`Groups::has_room`].
    pub fn join(&mut self, hit: &Hit, verdict: &Verdict, serial: Home, known: &Known) -> Option<Home> {
        let (key, cause) = (GroupKey::of(hit), Cause::of(hit));
        let own = !known
            .elsewhere(hit.facts.flow_id, hit.rule)
            .any(|(rule, home)| self.is_unsettled(&GroupKey { rule, ..key }, cause, home));
        let origin = (hit.worker, hit.sequence);
        let mut draft = Draft::new(hit.rule, Subject::flow(&hit.facts), verdict, hit.facts.now_ns, origin)?;
        draft.about = hit.facts.flow_id;
        let group = self.groups.entry(key).or_insert_with(|| Group {
            serial,
            open: None,
            causes: Some(BTreeSet::new()),
            attempts: true,
            parts: BTreeMap::new(),
            captures: 0,
        });
        let part = match group.parts.get_mut(&cause) {
            Some(part) => {
                part.draft.widen(draft.severity, &draft.evidence);
                part.draft.stand_by(draft.words(hit.facts.flow_id));
                part
            }
            None => {
                self.parts += 1;
                self.gathering.insert(key);
                self.earliest_part = self.earliest_part.min(draft.tally.first_ns);
                group.parts.entry(cause).or_insert(Part { draft, own_flows: 0, captures: 0 })
            }
        };
        part.draft.tally.events(hit.facts.now_ns, 1);
        part.draft.tally.flow(hit.facts.flow_id);
        part.draft.failing.flow(&hit.facts);
        part.own_flows += u64::from(own);
        Some(group.serial)
    }

    fn is_unsettled(&self, key: &GroupKey, cause: Option<Cause>, home: Home) -> bool {
        self.groups.get(key).is_some_and(|group| group.serial == home && group.parts.contains_key(&cause))
    }

    /// The flow just joined is kept.
    pub fn charge(&mut self, key: &GroupKey, cause: Option<Cause>) {
        let Some(group) = self.groups.get_mut(key) else { return };
        group.captures += 1;
        if let Some(part) = group.parts.get_mut(&cause) {
            part.captures += 1;
            if let Some(cause) = cause {
                *self.unsettled.entry(cause).or_insert(0) += 1;
            }
        }
    }

    /// Hands over the unsettled parts that a storm takes and that began at `since` or later.
    pub fn surrender(&mut self, takes: Takes, since: Nanos) -> Vec<(GroupKey, Home, Part)> {
        let mut parts = Vec::new();
        let mut settled = Vec::new();
        self.groups.retain(|key, group| {
            let due = |(cause, part): (&Option<Cause>, &Part)| {
                (takes.takes(key, *cause) && part.draft.tally.first_ns >= since).then_some(*cause)
            };
            let causes: Vec<_> = group.parts.iter().filter_map(due).collect();
            for cause in causes {
                let Some(part) = group.parts.remove(&cause) else { continue };
                group.captures -= part.captures;
                settled.push(cause);
                parts.push((*key, group.serial, part));
            }
            group.open.is_some() || !group.parts.is_empty()
        });
        for (cause, (_, _, part)) in settled.into_iter().zip(&parts) {
            self.settled(cause, part.captures);
        }
        parts
    }

    /// Hands over the incidents that opened at `since` or later, of whose causes a storm takes every one.
    pub fn fold(&mut self, takes: Takes, since: Nanos) -> Vec<(GroupKey, Home, Draft, u32)> {
        let mut folded = Vec::new();
        self.groups.retain(|key, group| {
            if group.is_of(key, &takes)
                && let Some(draft) = group.open.take_if(|draft| draft.tally.first_ns >= since)
            {
                let unsettled: u32 = group.parts.values().map(|part| part.captures).sum();
                folded.push((*key, group.serial, draft, group.captures.saturating_sub(unsettled)));
                group.captures = unsettled;
            }
            group.open.is_some() || !group.parts.is_empty()
        });
        folded
    }

    /// Books a part with so many captures out of the unsettled ones.
    fn settled(&mut self, cause: Option<Cause>, of_part: u32) {
        self.parts -= 1;
        if let Some(cause) = cause
            && let Some(captures) = self.unsettled.get_mut(&cause)
        {
            *captures -= of_part;
            if *captures == 0 {
                self.unsettled.remove(&cause);
            }
        }
    }

    /// Lets parts that began at `before` or earlier open their incident or join it; gives what opened. A part whose
    /// cause `waits` may turn out to belong to a storm: it has until `late`. `remark` is what else is known of a
    /// service whose clients got no answer.
    pub fn settle(
        &mut self,
        (before, late): (Nanos, Nanos),
        waits: impl Fn(&IpAddr) -> bool,
        remark: impl Fn(&GroupKey) -> Option<String>,
        rules: &RuleSet,
    ) -> Vec<(Order, Incident)> {
        if before < self.earliest_part {
            return Vec::new();
        }
        self.earliest_part = Nanos::MAX;
        let mut due: Vec<_> = Vec::new();
        self.gathering.retain(|key| {
            let Some(group) = self.groups.get(key) else { return false };
            for (cause, part) in &group.parts {
                let patient = matches!(cause, Some(Cause::Attempt(client)) if waits(client));
                let first_ns = part.draft.tally.first_ns;
                if first_ns <= if patient { late } else { before } {
                    due.push((first_ns, part.draft.origin, *key, *cause));
                } else {
                    self.earliest_part = self.earliest_part.min(first_ns);
                }
            }
            !group.parts.is_empty()
        });
        due.sort_unstable();
        let mut opened = Vec::new();
        for (_, _, key, cause) in due {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            let Some(Part { draft: mut new, captures, .. }) = group.parts.remove(&cause) else { continue };
            group.brought_about_by(cause);
            let said = matches!(cause, Some(Cause::Attempt(_))).then(|| remark(&key)).flatten();
            new.remark = said.unwrap_or_default();
            match &mut group.open {
                Some(draft) => {
                    draft.tally.merge(&new.tally, new.tally.flows, true);
                    draft.failing.merge(&new.failing);
                    draft.widen(new.severity, &new.evidence);
                    draft.stand_by(new.words(new.about));
                    draft.remark = new.remark;
                    draft.withdrawn = None;
                }
                open => {
                    self.earliest_last = self.earliest_last.min(new.tally.last_ns);
                    opened.push((new.order(), new.incident(rules, false)));
                    *open = Some(new);
                }
            }
            self.settled(cause, captures);
        }
        opened
    }

    /// Closes incidents whose last event was at `before` or earlier and that have no unsettled part.
    pub fn close(&mut self, before: Nanos) -> Vec<Draft> {
        let mut closed = Vec::new();
        if before < self.earliest_last {
            return closed;
        }
        let mut earliest = Nanos::MAX;
        self.groups.retain(|_, group| {
            let quiet = |draft: &mut Draft| draft.withdrawn.is_some() || draft.tally.last_ns <= before;
            if group.parts.is_empty() {
                closed.extend(group.open.take_if(quiet));
            }
            earliest = group.open.as_ref().map_or(earliest, |draft| earliest.min(draft.tally.last_ns));
            group.open.is_some() || !group.parts.is_empty()
        });
        self.earliest_last = earliest;
        closed
    }

    /// Drafts of the incidents that are open.
    pub fn open(&self) -> impl Iterator<Item = &Draft> {
        self.groups.values().filter_map(|group| group.open.as_ref())
    }

    /// Groups held now.
    pub fn len(&self) -> usize {
        self.groups.len()
    }
}
