//! Rule bodies as the judge runs them: each failure is counted and remembered, and a rule that keeps failing
//! is switched off, alone. Runs on the judge's thread only. Verdicts go to groups and storms, failures to
//! whoever reports to the operator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rules::{Bodies, BodyError, BodyLimits, RuleSet, Snapshot, Verdict};

/// What went wrong with one rule's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFailure {
    pub rule: String,
    /// Runs that gave no verdict.
    pub count: u64,
    /// What the last of them said: file, line, column, cause.
    pub message: String,
    /// It failed too often in a row and is not run any more.
    pub switched_off: bool,
    /// Runs left out since then.
    pub skipped: u64,
}

pub struct Scripts {
    rules: Arc<RuleSet>,
    bodies: Bodies,
    failures: BTreeMap<u16, BodyFailure>,
    /// Which text of a rule failed last.
    failed: BTreeMap<u16, u64>,
    /// Failures of a rule since its last verdict.
    in_a_row: BTreeMap<u16, u32>,
    failures_before_off: u32,
    /// A clock may be read: there is a deadline, and nothing is repeated from a file.
    timed: bool,
    pub runs: u64,
    pub errors: u64,
    /// Errors that were a wall-clock deadline: with one of these, a replay may not be repeatable.
    pub deadlines: u64,
}

impl Scripts {
    pub fn new(rules: Arc<RuleSet>, limits: BodyLimits, failures_before_off: u32) -> Scripts {
        Scripts {
            bodies: Bodies::new(Arc::clone(&rules), limits),
            rules,
            failures: BTreeMap::new(),
            failed: BTreeMap::new(),
            in_a_row: BTreeMap::new(),
            failures_before_off,
            timed: limits.deadline.is_some(),
            runs: 0,
            errors: 0,
            deadlines: 0,
        }
    }

    /// Runs bodies of this set from now on.
    pub fn follow(&mut self, rules: &Arc<RuleSet>) {
        self.bodies.follow(rules);
        self.rules = Arc::clone(rules);
    }

    /// A set that will be followed: a rule that was switched off and has another text now gets its chance.
    pub fn adopt(&mut self, rules: &RuleSet) {
        for (rule, failure) in &mut self.failures {
            let now = rules.rules().get(usize::from(*rule)).filter(|meta| meta.in_force);
            if now.is_some_and(|meta| self.failed.get(rule) != Some(&meta.fingerprint)) {
                failure.switched_off = false;
                self.in_a_row.remove(rule);
            }
        }
    }

    /// The verdict, or `None` if the body failed or is switched off.
    pub fn run(&mut self, rule: u16, snapshot: &Snapshot) -> Option<Verdict> {
        if let Some(failure) = self.failures.get_mut(&rule)
            && failure.switched_off
        {
            failure.skipped += 1;
            return None;
        }
        self.runs += 1;
        let begun = self.timed.then(Instant::now);
        let outcome = self.bodies.run(rule, snapshot);
        self.count(rule, begun.map(|begun| begun.elapsed()), &outcome);
        match outcome {
            Ok(verdict) => {
                self.in_a_row.remove(&rule);
                Some(verdict)
            }
            Err(error) => {
                self.deadlines += u64::from(matches!(error, BodyError::Deadline { .. }));
                self.failed(rule, error.to_string());
                None
            }
        }
    }

    /// Notes under the rule's name what a run of its body came to.
    fn count(&self, rule: u16, took: Option<Duration>, outcome: &Result<Verdict, BodyError>) {
        let Some(counters) = self.rules.counters(rule) else { return };
        counters.count_run(took);
        if let Err(error) = outcome {
            counters.count_failure(matches!(error, BodyError::Deadline { .. }));
        }
    }

    fn failed(&mut self, rule: u16, message: String) {
        self.errors += 1;
        if let Some(meta) = self.rules.rules().get(usize::from(rule)) {
            self.failed.insert(rule, meta.fingerprint);
        }
        let in_a_row = self.in_a_row.entry(rule).or_insert(0);
        *in_a_row += 1;
        let failure = self.failures.entry(rule).or_insert_with(|| BodyFailure {
            rule: self.rules.rules().get(rule as usize).map_or_else(String::new, |meta| meta.name.clone()),
            count: 0,
            message: String::new(),
            switched_off: false,
            skipped: 0,
        });
        failure.count += 1;
        failure.message = message;
        failure.switched_off = *in_a_row >= self.failures_before_off;
    }

    /// In the order of the rule set.
    pub fn failures(&self) -> impl Iterator<Item = &BodyFailure> {
        self.failures.values()
    }
}
