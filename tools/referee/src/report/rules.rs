//! The rules in force, for the report, the ledger and the metrics: which set, how often it changed, what each rule has done,
//! what became of their bodies, and what rules in shadow would have done. Main thread; only words of what others counted.

use dataplane::judge::{BodyBooks, BodyFailure, Incident, ShadowCounts};
use rules::{RuleCounters, RuleSet, SWITCHED_OFF};
use serde_json::{Map, Value, json};

use super::metrics::Text;
use crate::term;

/// Failing rules told of, at most: those that failed most.
const SHOWN: usize = 20;
/// Rules of which it is said at once that they were switched off.
const SAID_AT_ONCE: u64 = 20;
/// Failing rules with metrics of their own, at most.
const MEASURED: usize = 200;

/// The set in force, and how it came to be.
pub struct InForce {
    generation: u32,
    hash: String,
    loaded: usize,
    /// Sets that took another's place, and that were refused.
    reloads: (u64, u64),
    /// Generation of each worker, while there are workers.
    workers: Vec<u32>,
}

impl InForce {
    pub fn new(rules: &RuleSet, reloads: (u64, u64), workers: Vec<u32>) -> InForce {
        let (generation, hash) = (rules.generation(), rules.hash().to_owned());
        InForce { generation, hash, loaded: rules.in_force().count(), reloads, workers }
    }

    pub(super) fn show(&self, page: &mut Text) {
        page.gauge("referee_rules", "Rules in force.").only("rules.loaded", self.loaded as u64);
        page.gauge("referee_rules_info", "The set of rules in force.").labelled(&[("hash", &self.hash)], 1);
        page.gauge("referee_rules_generation", "Sets of rules that were in force so far.")
            .only("rules.generation", self.generation.into());
        if !self.workers.is_empty() {
            page.gauge("referee_worker_rules_generation", "The same, as each worker goes by it.");
            for (worker, generation) in self.workers.iter().enumerate() {
                page.labelled(&[("worker", &worker.to_string())], generation);
            }
        }
        page.counter(
            "referee_rules_reloads_total",
            "Attempts to put other rules in force, by what became of them.",
        );
        page.account("rules.reloads", &[("result", "live")], self.reloads.0);
        page.account("rules.refused_reloads", &[("result", "refused")], self.reloads.1);
    }
}

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

/// What a rule did while it only looked on.
pub fn shadow(rule: &str, counts: &ShadowCounts) -> String {
    let ShadowCounts { matched, would_open, would_join, would_capture, samples } = counts;
    let such = if samples.is_empty() { String::new() } else { format!(", such as {}", samples.join(", ")) };
    let joined = match would_join {
        0 => String::new(),
        n => format!(", have added {} to other incidents", term::plural(*n, "flow")),
    };
    format!(
        "rule {rule} in shadow: it matched {}; it would have opened {}{joined} and recorded {}{such}",
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

/// The ledger's account of the rules: those in force at the end, of all that there were what they did, and their bodies.
pub fn books(rules: &RuleSet, (reloads, refused): (u64, u64), bodies: &BodyBooks) -> Value {
    let counters = |rule: u16| rules.counters(rule);
    let all = || (0..=u16::MAX).zip(rules.rules());
    let faults: u64 = all().filter_map(|(rule, _)| counters(rule)).map(RuleCounters::faults).sum();
    let by_rule: Map<String, Value> = all()
        .filter_map(|(rule, meta)| Some((meta.name.clone(), counters(rule)?)))
        .filter(|(_, counters)| counters.matched() + counters.faults() > 0)
        .map(|(name, c)| (name, json!({ "matched": c.matched(), "faults": c.faults() })))
        .collect();
    let off = bodies.failures.iter().filter(|failure| failure.switched_off.is_some()).count();
    let mut object = json!({
        "hash": rules.hash(), "generation": rules.generation(), "loaded": rules.in_force().count(),
        "guard_faults": faults, "reloads": reloads, "refused_reloads": refused, "by_rule": by_rule,
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
    let off = bodies.failures.iter().filter(|failure| failure.switched_off.is_some()).count();
    page.gauge("referee_rules_failing", "Rules whose bodies have failed, by whether they are still run.")
        .account("rules.switched_off", &[("state", "switched_off")], off as u64)
        .labelled(&[("state", "run")], bodies.failures.len() - off);
    let failing = most(bodies, MEASURED);
    if !failing.is_empty() {
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
            page.account(&format!("rules.counts.{rule}.{name}"), &[("rule", rule), ("name", name)], *count);
        }
    }
    if bodies.shadows.is_empty() {
        return;
    }
    for (name, help, path, value) in SHADOWS {
        page.counter(name, help);
        for (rule, counts) in &bodies.shadows {
            page.account(&format!("rules.shadow.{rule}.{path}"), &[("rule", rule)], value(counts));
        }
    }
}

/// A family's name, what it says, and its value of a rule in shadow with the value's name in the ledger.
type Shadow = (&'static str, &'static str, &'static str, fn(&ShadowCounts) -> u64);

const SHADOWS: [Shadow; 4] = [
    ("referee_rule_shadow_matches_total", "How often rules in shadow matched.", "matched", |c| c.matched),
    (
        "referee_rule_shadow_incidents_total",
        "Incidents that rules in shadow would have opened.",
        "would_open",
        |c| c.would_open,
    ),
    (
        "referee_rule_shadow_joins_total",
        "Flows that rules in shadow would have added to other incidents.",
        "would_join",
        |c| c.would_join,
    ),
    (
        "referee_rule_shadow_captures_total",
        "Flows that rules in shadow would have recorded.",
        "would_capture",
        |c| c.would_capture,
    ),
];
