//! What became of the bodies of rules, for the report, the ledger and the metrics: failures, rules switched off, what they
//! counted, and what rules in shadow would have done. Main thread; only words of what the judge counted.

use dataplane::judge::{BodyBooks, BodyFailure, Incident, ShadowCounts};
use rules::{RuleSet, SWITCHED_OFF};
use serde_json::{Map, Value, json};

use super::metrics::Text;
use crate::term;

/// Failing rules told of, at most: those that failed most.
const SHOWN: usize = 20;
/// Rules of which it is said at once that they were switched off.
const SAID_AT_ONCE: u64 = 20;
/// Failing rules with metrics of their own, at most.
const MEASURED: usize = 200;

/// What people should know, although the work was done.
pub fn notes(bodies: &BodyBooks) {
    let failing = most(bodies, SHOWN);
    for failure in &failing {
        let times = term::plural(failure.count, "time");
        let off = match failure.switched_off {
            Some(cause) => format!("; it was switched off, because {}", cause.words()),
            None => String::new(),
        };
        term::note(&format!("rule {} failed {times}, last: {}{off}", failure.rule, failure.message));
    }
    if bodies.failures.len() > failing.len() {
        let more = bodies.failures.len() - failing.len();
        term::note(&format!(
            "and {} failed, none of them more often",
            term::plural(more as u64, "other rule")
        ));
    }
    for (rule, counts) in &bodies.shadows {
        term::note(&shadow(rule, counts));
    }
}

/// What to say at once of an incident if it is about a rule that was switched off, the next after `number` others.
pub fn told_off(number: &mut u64, incident: &Incident) -> Option<String> {
    if incident.kind != SWITCHED_OFF {
        return None;
    }
    *number += 1;
    match *number {
        ..=SAID_AT_ONCE => Some(incident.explain.clone()),
        n if n == SAID_AT_ONCE + 1 => {
            Some("more rules are switched off: see the incidents rule_switched_off".to_owned())
        }
        _ => None,
    }
}

fn shadow(rule: &str, counts: &ShadowCounts) -> String {
    let ShadowCounts { matched, would_open, would_join, would_capture, samples } = counts;
    let such = if samples.is_empty() { String::new() } else { format!(", such as {}", samples.join(", ")) };
    let joined = match would_join {
        0 => String::new(),
        n => format!(", have added {} to other incidents", term::plural(*n, "flow")),
    };
    format!(
        "rule {rule} is in shadow: it matched {}; it would have opened {}{joined} and recorded {}{such}",
        term::plural(*matched, "time"),
        term::plural(*would_open, "incident"),
        term::plural(*would_capture, "flow"),
    )
}

/// The rules that failed most, in that order.
fn most(bodies: &BodyBooks, number: usize) -> Vec<&BodyFailure> {
    let mut failing: Vec<_> = bodies.failures.iter().collect();
    failing.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.rule.cmp(&b.rule)));
    failing.truncate(number);
    failing
}

/// The rules that were in force, how often a condition overflowed or divided by zero, and their bodies.
pub fn ledger(rules: &RuleSet, bodies: &BodyBooks) -> Value {
    let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
    let faults: u64 = (0..rules.rules().len()).map(|at| rules.guard_faults(number(at))).sum();
    let off = bodies.failures.iter().filter(|failure| failure.switched_off.is_some()).count();
    let mut object = json!({
        "hash": rules.hash(), "loaded": rules.rules().len(), "guard_faults": faults,
        "failing": bodies.failures.len(), "switched_off": off,
        "overruns": bodies.failures.iter().map(|failure| failure.overruns).sum::<u64>(),
    });
    if !bodies.shadows.is_empty() {
        object["shadow"] =
            bodies.shadows.iter().map(|(rule, counts)| (rule.clone(), json!(counts))).collect();
    }
    if !bodies.counts.is_empty() {
        let mut counts: Map<String, Value> = Map::new();
        for (rule, name, count) in &bodies.counts {
            let of_rule = counts.entry(rule.clone()).or_insert_with(|| json!({}));
            of_rule[name.as_str()] = json!(count);
        }
        object["counts"] = counts.into();
    }
    object
}

/// Families of metrics with the rule as label; none of a rule of which there is nothing to say.
pub(super) fn metrics(page: &mut Text, bodies: &BodyBooks) {
    let failing = most(bodies, MEASURED);
    if !failing.is_empty() {
        page.counter(
            "referee_rule_body_errors_total",
            "Failed runs of a rule's body; of the rules that failed most.",
        );
        failing.iter().for_each(|failure| page.labelled(&[("rule", &failure.rule)], failure.count));
        page.counter(
            "referee_rule_body_overruns_total",
            "Of these, runs that used up their operations, memory or time.",
        );
        failing.iter().for_each(|failure| page.labelled(&[("rule", &failure.rule)], failure.overruns));
        page.gauge(
            "referee_rule_switched_off",
            "1 for a rule that failed too often and is not run any more.",
        );
        let off = |failure: &BodyFailure| u8::from(failure.switched_off.is_some());
        failing.iter().for_each(|failure| page.labelled(&[("rule", &failure.rule)], off(failure)));
    }
    if !bodies.counts.is_empty() {
        page.counter("referee_rule_count_total", "What bodies of rules counted with count(name).");
        for (rule, name, count) in &bodies.counts {
            page.labelled(&[("rule", rule), ("name", name)], count);
        }
    }
    if !bodies.shadows.is_empty() {
        page.counter(
            "referee_rule_shadow_incidents_total",
            "Incidents that rules in shadow would have opened.",
        );
        bodies.shadows.iter().for_each(|(rule, counts)| page.labelled(&[("rule", rule)], counts.would_open));
        page.counter("referee_rule_shadow_captures_total", "Flows that rules in shadow would have recorded.");
        bodies
            .shadows
            .iter()
            .for_each(|(rule, counts)| page.labelled(&[("rule", rule)], counts.would_capture));
    }
}
