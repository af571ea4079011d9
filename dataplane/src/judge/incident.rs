//! Incidents: the record other programs read, and the draft it grows from. Runs on the judge's thread;
//! computes no clock time and prints nothing. Drafts are merged by `groups` and `storms`; finished records
//! go to the program.

use std::net::IpAddr;
use std::sync::Arc;

use rules::facts::FlowFacts;
use rules::{Because, RuleSet, Scope, Severity, Verdict};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::diagnosis::{Failing, Wellness};
use super::evidence::Evidence;
use super::{because, text};
use crate::source::Nanos;

/// Flow ids listed in one incident at most; `flows` counts them all.
pub const FLOW_IDS: usize = 100;

/// Something a person should look at. Serialises with the fields and order of `--incidents`; the program
/// adds `state` where it prints opening and closing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// 16 hex digits: a hash of rule, subject and the time of the first event.
    pub id: String,
    pub kind: String,
    pub rule: String,
    #[serde(serialize_with = "severity")]
    pub severity: Severity,
    #[serde(serialize_with = "scope")]
    pub scope: Scope,
    pub subject: Subject,
    /// First event, ns since the epoch (hosts and services: to 100 ms).
    pub first_ns: Nanos,
    /// Last event, ns since the epoch (hosts and services: to 100 ms).
    pub last_ns: Nanos,
    /// Events.
    pub count: u64,
    /// Distinct flows.
    pub flows: u64,
    /// The first [`FLOW_IDS`] of them, 16 hex digits each.
    pub flow_ids: Vec<String>,
    pub evidence: serde_json::Map<String, serde_json::Value>,
    pub explain: String,
    pub advise: String,
    /// Words that bodies gave to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Of the set of rules that was in force when it began.
    pub rules_hash: String,
    /// The operands of the rule's condition, with the facts and parameters they saw when it fired on the flow, host
    /// or service that the words are about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<serde_json::Value>,
    /// Later packets have disproved it; it was shown as open before, and is not an incident any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
}

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Subject {
    Flow {
        proto: String,
        src: IpAddr,
        sport: u16,
        dst: IpAddr,
        dport: u16,
    },
    Host {
        host: IpAddr,
    },
    Service {
        dst: IpAddr,
        dport: u16,
        proto: String,
    },
    /// Traffic that is about no single host or service.
    Link {
        link: &'static str,
    },
}

impl Subject {
    /// All traffic at the capture point.
    pub const ALL_TRAFFIC: Subject = Subject::Link { link: "all" };

    pub fn flow(facts: &FlowFacts) -> Subject {
        Subject::Flow {
            proto: text::protocol(facts.proto),
            src: facts.src,
            sport: facts.sport,
            dst: facts.dst,
            dport: facts.dport,
        }
    }

    pub fn service(addr: IpAddr, port: u16, proto: u8) -> Subject {
        Subject::Service { dst: addr, dport: port, proto: text::protocol(proto) }
    }

    pub const fn scope(&self) -> Scope {
        match self {
            Subject::Flow { .. } => Scope::Flow,
            Subject::Host { .. } => Scope::Host,
            Subject::Service { .. } => Scope::Service,
            Subject::Link { .. } => Scope::Link,
        }
    }
}

fn severity<S: Serializer>(value: &Severity, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(value.as_str())
}

fn scope<S: Serializer>(value: &Scope, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(value.as_str())
}

/// How often, when and on which flows.
#[derive(Clone, Debug)]
pub struct Tally {
    pub first_ns: Nanos,
    pub last_ns: Nanos,
    pub count: u64,
    pub flows: u64,
    /// Flows counted by the worker, which need not have been told one by one.
    pub flows_reset: u64,
    flow_ids: Vec<u64>,
}

impl Tally {
    /// A tally with no event and no flow yet.
    pub fn starting(first_ns: Nanos) -> Tally {
        Tally { first_ns, last_ns: first_ns, count: 0, flows: 0, flows_reset: 0, flow_ids: Vec::new() }
    }

    pub fn events(&mut self, at: Nanos, count: u64) {
        self.last_ns = self.last_ns.max(at);
        self.count = self.count.saturating_add(count);
    }

    /// Flows the incident is about, told one by one or counted.
    pub fn all_flows(&self) -> u64 {
        self.flows.max(self.flows_reset)
    }

    /// A flow that belongs to the incident from now on.
    pub fn flow(&mut self, flow_id: u64) {
        self.flows += 1;
        self.list(flow_id);
    }

    /// A flow of the incident that is being recorded; new to it unless it is listed.
    pub fn recorded(&mut self, flow_id: u64) {
        if !self.flow_ids.contains(&flow_id) {
            self.flow(flow_id);
        }
    }

    /// The flow is among those listed.
    pub fn lists(&self, flow_id: u64) -> bool {
        self.flow_ids.contains(&flow_id)
    }

    /// A flow that does not belong to it after all; the last one stays listed.
    fn take_back(&mut self, flow_id: u64) {
        self.flows = self.flows.saturating_sub(1);
        if self.flows > 0 {
            self.count = self.count.saturating_sub(1).max(1);
            self.flow_ids.retain(|id| *id != flow_id);
        }
    }

    /// Names a flow without counting it.
    pub fn list(&mut self, flow_id: u64) {
        if self.flow_ids.len() < FLOW_IDS && !self.flow_ids.contains(&flow_id) {
            self.flow_ids.push(flow_id);
        }
    }

    /// Takes over another tally's flows, of which `flows` are new here; its events only if `with_events`.
    pub fn merge(&mut self, other: &Tally, flows: u64, with_events: bool) {
        self.first_ns = self.first_ns.min(other.first_ns);
        self.events(other.last_ns, if with_events { other.count } else { 0 });
        self.flows += flows;
        other.flow_ids.iter().for_each(|id| self.list(*id));
    }
}

/// An incident in the making.
#[derive(Clone, Debug)]
pub struct Draft {
    pub rule: u16,
    pub subject: Subject,
    pub severity: Severity,
    explain: String,
    advise: String,
    because: Vec<Because>,
    pub evidence: Evidence,
    /// Hash of the set of rules that began it.
    rules_hash: Arc<str>,
    pub tally: Tally,
    /// What its flows have in common.
    pub failing: Failing,
    /// What sets them apart from others, in words.
    apart: String,
    /// A sentence of the judge's own, after the body's words; empty if there is none.
    pub remark: String,
    /// Go into the id: later merges may find an earlier first event or speak of another flow, the id stays.
    began: Nanos,
    named: Subject,
    id: std::cell::OnceCell<String>,
    /// Worker and sequence of the hit that began it; orders incidents of one instant.
    pub origin: (u16, u64),
    /// The flow its words are about, 0 if they are about no one flow; and the words of another, in case that one is
    /// taken back.
    pub about: u64,
    other: Option<Box<Words>>,
    /// Why it was taken back, if no flow is left.
    pub withdrawn: Option<String>,
}

/// What a draft says of one flow.
#[derive(Clone, Debug)]
pub struct Words {
    about: u64,
    subject: Subject,
    explain: String,
    advise: String,
    because: Vec<Because>,
}

impl Draft {
    /// `None` if the verdict names no incident.
    pub fn new(
        rule: u16,
        subject: Subject,
        verdict: &Verdict,
        first_ns: Nanos,
        origin: (u16, u64),
    ) -> Option<Draft> {
        let (severity, explain) = verdict.incident.clone()?;
        let named = subject.clone();
        Some(Draft {
            rule,
            subject,
            severity,
            explain,
            advise: text::advice(&verdict.advise),
            because: verdict.because.clone(),
            evidence: Evidence::of(verdict),
            rules_hash: Arc::clone(&verdict.rules_hash),
            tally: Tally::starting(first_ns),
            failing: Failing::default(),
            apart: String::new(),
            remark: String::new(),
            began: first_ns,
            named,
            id: Default::default(),
            origin,
            about: 0,
            other: None,
            withdrawn: None,
        })
    }

    /// Its words, which are about this flow.
    pub fn words(&self, about: u64) -> Words {
        let (subject, explain, advise) = (self.subject.clone(), self.explain.clone(), self.advise.clone());
        Words { about, subject, explain, advise, because: self.because.clone() }
    }

    /// Keeps the words about another flow for later.
    pub fn stand_by(&mut self, words: Words) {
        self.other.get_or_insert_with(|| Box::new(words));
    }

    /// One of its flows does not belong to it after all.
    pub fn withdraw(&mut self, flow_id: u64, reason: &str, at: Nanos) {
        self.tally.take_back(flow_id);
        self.tally.events(at, 0);
        self.other = self.other.take().filter(|words| words.about != flow_id);
        if self.tally.flows == 0 {
            self.withdrawn = Some(reason.to_owned());
        } else if self.about == flow_id
            && let Some(words) = self.other.take()
        {
            (self.about, self.subject) = (words.about, words.subject);
            (self.explain, self.advise) = (words.explain, words.advise);
            self.because = words.because;
        }
    }

    /// Takes another flow's or another part's words into account: the worst severity, the evidence's span.
    pub fn widen(&mut self, severity: Severity, evidence: &Evidence) {
        self.severity = self.severity.max(severity);
        self.evidence.merge(evidence);
    }

    /// Takes the words of a later verdict on the same subject instead of the first.
    pub fn restate(&mut self, verdict: &Verdict) {
        if let Some((severity, explain)) = &verdict.incident {
            self.severity = self.severity.max(*severity);
            self.explain.clone_from(explain);
            self.advise = text::advice(&verdict.advise);
            self.because.clone_from(&verdict.because);
            self.evidence = Evidence::of(verdict);
        }
    }

    /// Contrasts its flows with those to the same service that went well.
    pub fn diagnose(&mut self, wellness: &Wellness) {
        let Subject::Flow { dst, dport, .. } = self.subject else { return };
        let Some(siblings) = wellness.of(dst, dport) else { return };
        let apart = self.failing.apart(&siblings);
        if apart.is_empty() {
            return;
        }
        apart.iter().for_each(|(text, _)| {
            self.apart.push_str(if self.apart.is_empty() { "" } else { " " });
            self.apart.push_str(text);
        });
        self.evidence.note("apart", apart.into_iter().map(|(_, record)| record).collect());
    }

    /// Takes a later verdict on one of its flows into account: its words if they are about the subject, and its
    /// evidence instead of what was said before as long as no other flow had a part in that.
    pub fn revise(&mut self, subject: &Subject, verdict: &Verdict) {
        let Some((severity, explain)) = &verdict.incident else { return };
        let evidence = Evidence::of(verdict);
        if self.tally.flows <= 1 {
            self.evidence = evidence;
        } else {
            self.evidence.merge(&evidence);
        }
        self.severity = self.severity.max(*severity);
        if self.subject == *subject {
            self.explain.clone_from(explain);
            self.advise = text::advice(&verdict.advise);
            self.because.clone_from(&verdict.because);
        }
    }

    /// First event, worker, sequence, rule: incidents are handed out in this order.
    pub fn order(&self) -> (Nanos, u16, u64, u16, Subject) {
        (self.tally.first_ns, self.origin.0, self.origin.1, self.rule, self.subject.clone())
    }

    /// The record as it stands; `closing` adds the sentence about the other flows.
    pub fn incident(&self, rules: &RuleSet, closing: bool) -> Incident {
        let name = rules.rules().get(self.rule as usize).map_or("", |meta| meta.name.as_str());
        let mut explain = self.explain.clone();
        explain.push_str(&self.remark);
        if let Some(reason) = &self.withdrawn {
            explain = format!("Withdrawn: {reason} It had said: {explain}");
        } else if closing {
            explain.push_str(&text::closing(&self.subject, &self.tally));
            if !self.apart.is_empty() {
                explain.push_str(if explain.ends_with('.') { " " } else { ". " });
                explain.push_str(&self.apart);
            }
        }
        Incident {
            id: self.id.get_or_init(|| id(name, &self.named, self.began)).clone(),
            kind: name.to_owned(),
            rule: name.to_owned(),
            severity: self.severity,
            scope: self.subject.scope(),
            subject: self.subject.clone(),
            first_ns: self.tally.first_ns,
            last_ns: self.tally.last_ns,
            count: self.tally.count,
            flows: self.tally.all_flows(),
            flow_ids: self.tally.flow_ids.iter().map(|id| text::hex(*id)).collect(),
            evidence: self.evidence.to_json(),
            explain,
            advise: if self.withdrawn.is_some() { String::new() } else { self.advise.clone() },
            tags: self.evidence.tags().to_vec(),
            rules_hash: self.rules_hash.as_ref().to_owned(),
            because: because::to_json(&self.because),
            withdrawn: self.withdrawn.is_some(),
        }
    }
}

/// The first 8 bytes of SHA-256 over rule, subject and time, each ended by a byte that none of them holds.
pub fn id(rule: &str, subject: &Subject, first_ns: Nanos) -> String {
    let subject = match subject {
        Subject::Flow { proto, src, sport, dst, dport } => format!("{proto} {src} {sport} {dst} {dport}"),
        Subject::Host { host } => format!("{host}"),
        Subject::Service { dst, dport, proto } => format!("{proto} {dst} {dport}"),
        Subject::Link { link } => format!("link {link}"),
    };
    let digest = Sha256::digest(format!("{rule}\0{subject}\0{first_ns}"));
    text::hex(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Verdict {
        Verdict { incident: Some((Severity::Warning, "broken".into())), ..Verdict::default() }
    }

    #[test]
    fn the_id_depends_on_rule_subject_and_time() {
        let subject = Subject::flow(&FlowFacts::default());
        let base = id("a", &subject, 1);
        assert_eq!(base.len(), 16);
        assert_eq!(base, id("a", &subject, 1));
        assert_ne!(base, id("b", &subject, 1));
        assert_ne!(base, id("a", &subject, 2));
        assert_ne!(base, id("a", &Subject::Host { host: FlowFacts::default().src }, 1));
    }

    #[test]
    fn flow_ids_stop_at_the_limit_while_flows_count_on() {
        let mut tally = Tally::starting(5);
        (0..250).for_each(|id| tally.flow(id));
        assert_eq!((tally.flows, tally.flow_ids.len()), (250, FLOW_IDS));
        let mut other = Tally::starting(3);
        other.merge(&tally, 249, false);
        assert_eq!((other.flows, other.count, other.first_ns, other.flow_ids.len()), (249, 0, 3, FLOW_IDS));
    }

    #[test]
    fn a_verdict_without_incident_makes_no_draft() {
        let subject = Subject::flow(&FlowFacts::default());
        assert!(Draft::new(0, subject.clone(), &Verdict::default(), 0, (0, 0)).is_none());
        let mut draft = Draft::new(0, subject, &verdict(), 0, (0, 0)).expect("names an incident");
        draft.widen(Severity::Critical, &Evidence::new(&[]));
        draft.widen(Severity::Info, &Evidence::new(&[]));
        assert_eq!(draft.severity, Severity::Critical);
    }
}
