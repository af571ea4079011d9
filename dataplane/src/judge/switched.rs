//! The judge's own incident: a rule was switched off, because its body kept failing. Runs on the judge's thread. It opens
//! at once and closes with the run or when the rule gets another text; bounded, and what finds no place is counted.

use rules::{RuleSet, SWITCHED_OFF, Severity};
use serde_json::{Map, json};

use super::Judge;
use super::incident::{Incident, Subject};
use super::scripts::BodyFailure;

/// Incidents open until the run ends or the rule has another text, by rule.
pub type Switched = Vec<(u16, Incident)>;

impl Judge {
    /// Tells of rules switched off just now. Those that only look on are not told of.
    pub(super) fn tell_switched_off(&mut self) {
        for (rule, failure) in self.scripts.switched_off() {
            if self.is_shadow(rule) {
                continue;
            }
            if self.switched.len() >= self.config.max_open {
                self.account.switched_off_untold += 1;
                continue;
            }
            let incident = incident(rule, &failure, &self.rules);
            self.opened.push((order(rule, &incident), incident.clone()));
            self.account.incidents_opened += 1;
            self.switched.push((rule, incident));
        }
    }

    /// The run has ended, or these rules have another text.
    pub(super) fn close_switched_off(&mut self, over: impl Fn(u16) -> bool) {
        let (over, stay) = std::mem::take(&mut self.switched).into_iter().partition(|(rule, _)| over(*rule));
        self.switched = stay;
        let over: Switched = over;
        for (rule, mut incident) in over {
            if let Some(failure) = self.scripts.failure(rule) {
                incident.evidence.insert("left_out".to_owned(), json!(failure.skipped));
            }
            self.closed.push((order(rule, &incident), incident));
            self.account.incidents_closed += 1;
        }
    }
}

fn order(rule: u16, incident: &Incident) -> super::Order {
    (incident.first_ns, u16::MAX, 0, rule, incident.subject.clone())
}

fn incident(rule: u16, failure: &BodyFailure, rules: &RuleSet) -> Incident {
    let why = failure.switched_off.map(|cause| cause.words()).unwrap_or_default();
    let meta = rules.rules().get(usize::from(rule));
    let place = meta.map(|meta| format!("{}:{}", meta.file, meta.line)).unwrap_or_default();
    let BodyFailure { rule: name, message, count, overruns, first_ns, last_ns, .. } = failure;
    let evidence = json!({
        "rule": name, "place": place, "cause": why, "failures": count, "overruns": overruns, "last_error": message,
    });
    let advise = "correct the rule, prove it with `referee rules check` and `referee rules test`, and load it again; \
                  `[rules.NAME] enabled = false` leaves it out";
    let subject = Subject::ALL_TRAFFIC;
    Incident {
        id: super::incident::id(&format!("{SWITCHED_OFF} {name}"), &subject, *first_ns),
        kind: SWITCHED_OFF.to_owned(),
        rule: SWITCHED_OFF.to_owned(),
        severity: Severity::Warning,
        scope: subject.scope(),
        subject,
        first_ns: *first_ns,
        last_ns: *last_ns,
        count: *count,
        flows: 0,
        flow_ids: Vec::new(),
        evidence: match evidence {
            serde_json::Value::Object(evidence) => evidence,
            _ => Map::new(),
        },
        explain: format!(
            "Rule {name} ({place}) was switched off and finds nothing any more: {why}. Last: {message}"
        ),
        advise: advise.to_owned(),
        tags: Vec::new(),
        because: Vec::new(),
        rules_hash: rules.hash().to_owned(),
        withdrawn: false,
    }
}
