//! A rule's own test cases: facts as they would be, and what the rule is to make of them.
//!
//! Runs where rules are tried out, on the thread that asks; nothing here is called while packets come. Where cases are
//! kept, and in what form, is the business of whoever reads them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::body::{Bodies, BodyLimits, Snapshot};
use crate::clause::{Because, Decision, seen};
use crate::event::Event;
use crate::facts::given::{Given, give};
use crate::facts::{ClientFacts, Counts, FlowFacts, HostFacts, LinkFacts, ServiceFacts, ServiceStates};
use crate::set::{RuleSet, Scope};
use crate::verdict::{EvidenceValue, Severity, Verdict};

/// What a rule is to make of the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The condition holds, and the body names an incident.
    Incident,
    /// The condition holds, and the body names none.
    Quiet,
    /// The condition holds.
    Match,
    NoMatch,
    /// The condition reaches a fact that is not known.
    Unknown,
    /// The condition overflows or divides by zero.
    Fault,
}

impl Expect {
    pub const ALL: [Expect; 6] =
        [Expect::Incident, Expect::Quiet, Expect::Match, Expect::NoMatch, Expect::Unknown, Expect::Fault];

    pub const fn name(self) -> &'static str {
        match self {
            Expect::Incident => "incident",
            Expect::Quiet => "quiet",
            Expect::Match => "match",
            Expect::NoMatch => "no_match",
            Expect::Unknown => "unknown",
            Expect::Fault => "fault",
        }
    }

    pub fn from_name(name: &str) -> Option<Expect> {
        Expect::ALL.into_iter().find(|expect| expect.name() == name)
    }
}

/// One case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The name of the rule it is about.
    pub rule: String,
    /// One of the rule's events; without it, the first.
    pub event: Option<Event>,
    /// Facts by the names rules use. Of the others, those that can be unknown are, and the rest are 0 or false.
    pub facts: Vec<(String, EvidenceValue)>,
    pub expect: Expect,
    /// Of the incident.
    pub severity: Option<Severity>,
    /// A part of the incident's words or advice.
    pub says: Option<String>,
    /// Whether the body asks for a capture.
    pub captures: Option<bool>,
}

/// Snapshots of which nothing is known yet.
pub(crate) trait Blank {
    fn blank() -> Self;
}

const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Blank for FlowFacts {
    fn blank() -> Self {
        FlowFacts::default()
    }
}

impl Blank for HostFacts {
    fn blank() -> Self {
        let (none, client) = (Counts::default(), ClientFacts::default());
        HostFacts { addr: NOBODY, now_ns: 0, last_1s: none, last_10s: none, last_60s: none, client }
    }
}

impl Blank for ServiceFacts {
    fn blank() -> Self {
        let (none, states) = (Counts::default(), ServiceStates::default());
        ServiceFacts {
            addr: NOBODY,
            port: 0,
            proto: 6,
            now_ns: 0,
            last_1s: none,
            last_10s: none,
            last_60s: none,
            unfinished_most: 0,
            states,
        }
    }
}

impl Blank for LinkFacts {
    fn blank() -> Self {
        LinkFacts::default()
    }
}

/// Runs a case.
///
/// # Errors
/// How it came out instead, and why.
pub fn run(rules: &Arc<RuleSet>, case: &Case) -> Result<(), String> {
    let position = rules.rules().iter().position(|meta| meta.name == case.rule);
    let found = position.and_then(|at| Some((u16::try_from(at).ok()?, rules.rules().get(at)?)));
    let Some((rule, meta)) = found else {
        return Err(format!("there is no rule `{}`", case.rule));
    };
    let event = match case.event {
        Some(event) if !meta.events.contains(event) => {
            let events: Vec<&str> = meta.events.iter().map(Event::name).collect();
            return Err(format!("the rule waits for {}, not for {}", events.join(", "), event.name()));
        }
        Some(event) => event,
        None => meta.events.iter().next().unwrap_or(Event::Tick),
    };
    match meta.scope {
        Scope::Flow => {
            let mut facts: FlowFacts = given(case)?;
            facts.rst |= event == Event::Rst;
            facts.disproved |= event == Event::Disproved;
            judged(rules, rule, &Snapshot::Flow(&facts, event), case)
        }
        Scope::Host => judged(rules, rule, &Snapshot::Host(&given(case)?), case),
        Scope::Service => judged(rules, rule, &Snapshot::Service(&given(case)?), case),
        Scope::Link => judged(rules, rule, &Snapshot::Link(&given(case)?), case),
    }
}

fn given<S: Given + Blank>(case: &Case) -> Result<S, String> {
    let mut subject = S::blank();
    for (name, value) in &case.facts {
        give(&mut subject, name, value)?;
    }
    Ok(subject)
}

fn judged(rules: &Arc<RuleSet>, rule: u16, snapshot: &Snapshot, case: &Case) -> Result<(), String> {
    let decision = rules.decision(rule, snapshot).ok_or("there is no such rule")?;
    let (got, because) = match &decision {
        Decision::Match => (Expect::Match, None),
        Decision::NoMatch(because) => (Expect::NoMatch, Some(because)),
        Decision::Unknown(because) => (Expect::Unknown, Some(because)),
        Decision::Fault(because) => (Expect::Fault, Some(because)),
    };
    if got != Expect::Match {
        return if got == case.expect { Ok(()) } else { Err(instead(case.expect, got, because)) };
    }
    if matches!(case.expect, Expect::NoMatch | Expect::Unknown | Expect::Fault) {
        let saw = rules.because(rule, snapshot).iter().map(seen).collect::<Vec<_>>().join(", ");
        return Err(format!("expected {}, but the condition holds ({saw})", case.expect.name()));
    }
    let verdict = Bodies::new(Arc::clone(rules), BodyLimits::default())
        .run(rule, snapshot)
        .map_err(|error| error.to_string())?;
    told(case, &verdict)
}

fn instead(expected: Expect, got: Expect, because: Option<&Because>) -> String {
    let is = match got {
        Expect::NoMatch => "is false",
        Expect::Unknown => "reaches an unknown fact",
        _ => "overflows or divides by zero",
    };
    let why = because.map(|because| format!("`{}` {is} ({})", because.clause, seen(because)));
    format!("expected {}, got {}: {}", expected.name(), got.name(), why.unwrap_or_default())
}

/// Whether the body said what it was to say.
fn told(case: &Case, verdict: &Verdict) -> Result<(), String> {
    let words = verdict.incident.as_ref().map(|(severity, words)| (*severity, words.as_str()));
    match (case.expect, words) {
        (Expect::Incident, None) => {
            return Err("the condition holds, but the body names no incident".to_owned());
        }
        (Expect::Quiet, Some((_, words))) => {
            return Err(format!("the body was to name no incident; it said: {words}"));
        }
        _ => {}
    }
    if let (Some(wanted), Some((severity, _))) = (case.severity, words)
        && wanted != severity
    {
        return Err(format!("the severity was to be {wanted}, and is {severity}"));
    }
    if let Some(says) = &case.says {
        let all = [words.map_or("", |(_, words)| words), &verdict.advise.join(" ")].join(" ");
        if !all.contains(says.as_str()) {
            return Err(format!("it was to say {says:?}; it said: {}", all.trim()));
        }
    }
    match case.captures {
        Some(wanted) if wanted != verdict.capture.is_some() => {
            Err(format!("it was {}to ask for a capture", if wanted { "" } else { "not " }))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::SourceFile;

    const RULE: &str = "param low = 3;\n\
        rule \"r\" on rst, close when flow.dport > low && (flow.orig.mss < 900 || flow.syns > 1)\n\
        then { if flow.sni == \"a.example\" { incident(\"warning\", `port ${flow.dport}`); capture(flow); } }\n\
        rule \"h\" on tick when 100 / host.syns(10) > low then { incident(\"info\", \"x\"); }";

    fn set() -> Arc<RuleSet> {
        let file = SourceFile { name: "r.rhai".into(), text: RULE.into() };
        Arc::new(RuleSet::load(&[file], &[]).unwrap())
    }

    fn case(rule: &str, facts: &[(&str, i64)], expect: Expect) -> Case {
        let facts =
            facts.iter().map(|(name, value)| ((*name).to_owned(), EvidenceValue::Int(*value))).collect();
        Case { rule: rule.into(), event: None, facts, expect, severity: None, says: None, captures: None }
    }

    #[test]
    fn each_outcome_is_told_from_the_others() {
        let set = set();
        let run = |case: &Case| run(&set, case);
        let met: &[(&str, i64)] = &[("flow.dport", 80), ("flow.orig.mss", 500)];
        assert_eq!(run(&case("r", met, Expect::Match)), Ok(()));
        assert_eq!(run(&case("r", met, Expect::Quiet)), Ok(()));
        let error = run(&case("r", met, Expect::Incident)).unwrap_err();
        assert_eq!(error, "the condition holds, but the body names no incident");
        let error = run(&case("r", met, Expect::NoMatch)).unwrap_err();
        assert!(
            error.contains("holds (flow.dport = 80, low = 3, flow.orig.mss = 500, flow.syns = 0)"),
            "{error}"
        );
        assert_eq!(run(&case("r", &[("flow.dport", 3)], Expect::NoMatch)), Ok(()));
        assert_eq!(run(&case("r", &[("flow.dport", 4)], Expect::Unknown)), Ok(()));
        let error = run(&case("r", &[("flow.dport", 4)], Expect::Incident)).unwrap_err();
        assert_eq!(
            error,
            "expected incident, got unknown: `flow.orig.mss < 900 || flow.syns > 1` reaches an unknown fact \
             (flow.orig.mss = unknown, flow.syns = 0)"
        );
        assert_eq!(run(&case("h", &[], Expect::Fault)), Ok(()));
        assert_eq!(run(&case("h", &[("host.syns(10)", 2)], Expect::Incident)), Ok(()));
        assert!(run(&case("none", &[], Expect::Match)).unwrap_err().contains("no rule `none`"));
        let other = Case { event: Some(Event::Syn), ..case("r", met, Expect::Match) };
        assert_eq!(run(&other).unwrap_err(), "the rule waits for rst, close, not for syn");
    }

    #[test]
    fn words_severity_and_capture_are_looked_at() {
        let set = set();
        let mut all = case("r", &[("flow.dport", 80), ("flow.orig.mss", 500)], Expect::Incident);
        all.facts.push(("flow.sni".into(), EvidenceValue::Text("a.example".into())));
        let all = Case {
            severity: Some(Severity::Warning),
            says: Some("port 80".into()),
            captures: Some(true),
            ..all
        };
        assert_eq!(run(&set, &all), Ok(()));
        let wrong = Case { severity: Some(Severity::Info), ..all.clone() };
        assert!(run(&set, &wrong).unwrap_err().contains("info, and is warning"));
        let wrong = Case { says: Some("port 81".into()), ..all.clone() };
        assert!(run(&set, &wrong).unwrap_err().contains("it said: port 80"));
        let wrong = Case { captures: Some(false), ..all };
        assert!(run(&set, &wrong).unwrap_err().contains("not to ask for a capture"));
    }
}
