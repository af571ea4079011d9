//! The rules in force, as the ledger and the metrics tell of them: which set, how often it changed, and what each rule
//! has done. Main thread; only words of numbers that others counted.

use rules::{RuleCounters, RuleSet};
use serde_json::{Map, Value, json};

use super::metrics::Text;

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
        page.gauge("referee_rules", "Rules in force.").is(self.loaded);
        page.gauge("referee_rules_info", "The set of rules in force.").labelled(&[("hash", &self.hash)], 1);
        page.gauge("referee_rules_generation", "Sets of rules that were in force so far.")
            .is(self.generation);
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
        page.labelled(&[("result", "live")], self.reloads.0);
        page.labelled(&[("result", "refused")], self.reloads.1);
    }
}

/// The ledger's account of the rules: those in force at the end, and of all that there were what they did.
pub fn books(rules: &RuleSet, (reloads, refused): (u64, u64)) -> Value {
    let counters = |rule: u16| rules.counters(rule);
    let all = || (0..=u16::MAX).zip(rules.rules());
    let faults: u64 = all().filter_map(|(rule, _)| counters(rule)).map(RuleCounters::faults).sum();
    let by_rule: Map<String, Value> = all()
        .filter_map(|(rule, meta)| Some((meta.name.clone(), counters(rule)?)))
        .filter(|(_, counters)| counters.matched() + counters.faults() > 0)
        .map(|(name, c)| (name, json!({ "matched": c.matched(), "faults": c.faults() })))
        .collect();
    json!({
        "hash": rules.hash(), "generation": rules.generation(), "loaded": rules.in_force().count(),
        "guard_faults": faults, "reloads": reloads, "refused_reloads": refused, "by_rule": by_rule,
    })
}
