//! Rule bodies as the judge runs them: each failure is counted and remembered, and a rule that keeps failing
//! is switched off, alone: its condition matches nothing any more. Runs on the judge's thread only. Verdicts go to
//! groups and storms, failures to whoever reports to the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rules::{Bodies, BodyError, BodyLimits, RuleSet, Snapshot, Verdict};

use super::health::{Cause, Health};
use crate::source::Nanos;

/// Processor time that failing bodies may take together in a second of packet time; live only.
const ALLOWANCE: Duration = Duration::from_millis(200);
/// What bodies of one rule may take of a processor's second, so that it does not hold up all others; live only.
const SHARE: Duration = Duration::from_millis(200);
/// Rules whose first failure is told at once.
const TOLD_AT_ONCE: usize = 16;

/// What went wrong with one rule's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFailure {
    pub rule: String,
    /// Runs that gave no verdict.
    pub count: u64,
    /// Of these, runs that used up their operations, memory or time.
    pub overruns: u64,
    /// What the last of them said: file, line, column, cause.
    pub message: String,
    /// It is not run any more, and why.
    pub switched_off: Option<Cause>,
    /// Runs left out since then.
    pub skipped: u64,
    /// Packet time of the first failure and of the last.
    pub first_ns: Nanos,
    pub last_ns: Nanos,
}

/// What bodies took in this second of packet time.
#[derive(Debug, Default)]
struct Second {
    number: u64,
    /// Of each rule; and of that, in runs that failed.
    rules: BTreeMap<u16, (Duration, Duration)>,
}

impl Second {
    fn of(&mut self, rule: u16, now: Nanos) -> (Duration, Duration) {
        let number = now / 1_000_000_000;
        if number > self.number {
            self.number = number;
            self.rules.clear();
        }
        self.rules.get(&rule).copied().unwrap_or_default()
    }

    fn took(&mut self, rule: u16, spent: Duration, failed: bool) {
        let (all, failing) = self.rules.entry(rule).or_default();
        *all = all.saturating_add(spent);
        if failed {
            *failing = failing.saturating_add(spent);
        }
    }
}

pub struct Scripts {
    rules: Arc<RuleSet>,
    bodies: Bodies,
    failures: BTreeMap<u16, (BodyFailure, Health)>,
    /// Which text of a rule failed last.
    failed: BTreeMap<u16, u64>,
    failures_before_off: u32,
    second: Second,
    /// Rules switched off since somebody asked.
    switched_off: Vec<u16>,
    /// First failures, to be told at once.
    news: Vec<String>,
    /// Rules of which it was said that they are slow.
    slow: BTreeSet<u16>,
    told: usize,
    /// A clock may be read: there is a deadline, and nothing is repeated from a file.
    timed: bool,
    pub runs: u64,
    /// Runs left out because the rule had taken its share of the second; live only.
    pub left_out: u64,
    pub errors: u64,
    /// Errors that were a deadline: with one of these, a replay may not be repeatable.
    pub deadlines: u64,
}

impl Scripts {
    pub fn new(rules: Arc<RuleSet>, limits: BodyLimits, failures_before_off: u32) -> Scripts {
        Scripts {
            bodies: Bodies::new(Arc::clone(&rules), limits),
            rules,
            failures: BTreeMap::new(),
            failed: BTreeMap::new(),
            failures_before_off,
            second: Second::default(),
            left_out: 0,
            switched_off: Vec::new(),
            news: Vec::new(),
            slow: BTreeSet::new(),
            told: 0,
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
    /// Gives those.
    pub fn adopt(&mut self, rules: &RuleSet) -> Vec<u16> {
        let mut on_again = Vec::new();
        for (rule, (failure, health)) in &mut self.failures {
            let now = rules.rules().get(usize::from(*rule)).filter(|meta| meta.in_force);
            if now.is_some_and(|meta| self.failed.get(rule) != Some(&meta.fingerprint)) {
                health.starts_over();
                if failure.switched_off.take().is_some() {
                    rules.switch(*rule, false);
                    on_again.push(*rule);
                }
            }
        }
        on_again
    }

    /// The verdict, or `None` if the body failed or is switched off.
    pub fn run(&mut self, rule: u16, snapshot: &Snapshot) -> Option<Verdict> {
        // A worker may have found it to match before it knew.
        if let Some((failure, _)) = self.failures.get_mut(&rule)
            && failure.switched_off.is_some()
        {
            failure.skipped += 1;
            return None;
        }
        if self.timed && self.second.of(rule, snapshot.now_ns()).0 > SHARE {
            self.leave_out(rule);
            return None;
        }
        self.runs += 1;
        let begun = self.timed.then(Instant::now);
        let outcome = self.bodies.run(rule, snapshot);
        self.count(rule, begun.map(|begun| begun.elapsed()), &outcome);
        if self.timed {
            self.second.took(rule, self.bodies.spent(), outcome.is_err());
        }
        match outcome {
            Ok(verdict) => {
                if let Some((_, health)) = self.failures.get_mut(&rule) {
                    health.went_well();
                }
                Some(verdict)
            }
            Err(error) => {
                self.failed(rule, &error, snapshot.now_ns());
                None
            }
        }
    }

    /// Notes under the rule's name what a run of its body came to.
    fn count(&self, rule: u16, took: Option<Duration>, outcome: &Result<Verdict, BodyError>) {
        let Some(counters) = self.rules.counters(rule) else { return };
        counters.count_run(took);
        if let Err(error) = outcome {
            counters.count_failure(!matches!(error, BodyError::Script { .. }));
        }
    }

    #[cold]
    fn failed(&mut self, rule: u16, error: &BodyError, now: Nanos) {
        self.errors += 1;
        if let Some(meta) = self.rules.rules().get(usize::from(rule)) {
            self.failed.insert(rule, meta.fingerprint);
        }
        self.deadlines += u64::from(matches!(error, BodyError::Deadline { .. }));
        let spent = self.bodies.spent();
        let (failure, health) = self.failures.entry(rule).or_insert_with(|| {
            let name = self.rules.rules().get(rule as usize).map(|meta| meta.name.clone());
            (BodyFailure::first(name.unwrap_or_default(), now), Health::default())
        });
        let overrun = !matches!(error, BodyError::Script { .. });
        let off = health.failed(overrun, spent, self.failures_before_off);
        (failure.count, failure.overruns) = (health.failures, health.overruns);
        failure.last_ns = failure.last_ns.max(now);
        failure.message = error.to_string();
        if failure.count == 1 && self.told < TOLD_AT_ONCE {
            self.told += 1;
            self.news.push(failure.message.clone());
        }
        match off {
            Some(cause) => self.switch_off(rule, cause),
            None => self.spend(),
        }
    }

    #[cold]
    fn leave_out(&mut self, rule: u16) {
        self.left_out += 1;
        let name = self.rules.rules().get(usize::from(rule)).map(|meta| &meta.name);
        if let Some(name) = name
            && self.told < TOLD_AT_ONCE
            && self.slow.insert(rule)
        {
            self.told += 1;
            self.news.push(format!(
                "rule {name} is slow: its body took {} ms within a second; what it matches beyond that is counted \
                 (bodies_left_out) and not judged",
                SHARE.as_millis()
            ));
        }
    }

    /// Where failing bodies take too much time together, the costliest of this second goes.
    fn spend(&mut self) {
        let Scripts { failures, second, .. } = self;
        let on = |rule: &u16| failures.get(rule).is_some_and(|(failure, _)| failure.switched_off.is_none());
        let failing = || second.rules.iter().filter(|(rule, _)| on(rule)).map(|(rule, took)| (took.1, *rule));
        if failing().map(|(took, _)| took).sum::<Duration>() <= ALLOWANCE {
            return;
        }
        if let Some((_, rule)) = failing().max() {
            self.switch_off(rule, Cause::Time);
        }
    }

    fn switch_off(&mut self, rule: u16, cause: Cause) {
        if let Some((failure, _)) = self.failures.get_mut(&rule) {
            failure.switched_off = Some(cause);
            self.rules.switch(rule, true);
            self.switched_off.push(rule);
        }
    }

    /// [`Scripts::switched_off`] has something to tell.
    #[inline]
    pub fn has_switched_off(&self) -> bool {
        !self.switched_off.is_empty()
    }

    /// Rules switched off since the last call, with what went wrong.
    pub fn switched_off(&mut self) -> Vec<(u16, BodyFailure)> {
        let of = |rule: u16| Some((rule, self.failures.get(&rule)?.0.clone()));
        let switched = self.switched_off.iter().filter_map(|rule| of(*rule)).collect();
        self.switched_off.clear();
        switched
    }

    /// The first failures of rules since the last call, in words; not of all, if there are many.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    pub fn failure(&self, rule: u16) -> Option<&BodyFailure> {
        self.failures.get(&rule).map(|(failure, _)| failure)
    }

    /// In the order of the rule set.
    pub fn failures(&self) -> impl Iterator<Item = &BodyFailure> {
        self.failures.values().map(|(failure, _)| failure)
    }

    /// What bodies counted: rule, counter, count.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.bodies.counts()
    }
}

impl BodyFailure {
    fn first(rule: String, now: Nanos) -> BodyFailure {
        BodyFailure {
            rule,
            count: 0,
            overruns: 0,
            message: String::new(),
            switched_off: None,
            skipped: 0,
            first_ns: now,
            last_ns: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use rules::event::Event;
    use rules::facts::FlowFacts;
    use rules::{Snapshot, SourceFile};

    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const MS: Duration = Duration::from_millis(1);

    fn scripts() -> Scripts {
        let text = ["good", "slow"].map(|name| format!("rule \"{name}\" on rst then {{ }}")).join("\n")
            + "\nrule \"bad\" on rst then { throw 1; }\nrule \"worse\" on rst then { throw 1; }";
        let set =
            RuleSet::load(&[SourceFile { name: "t.rhai".to_owned(), text }], &[]).expect("they are right");
        let limits = BodyLimits { deadline: Some(Duration::from_secs(60)), ..BodyLimits::default() };
        Scripts::new(Arc::new(set), limits, 20)
    }

    fn run(scripts: &mut Scripts, rule: u16, now_ns: Nanos) -> bool {
        let facts = FlowFacts { now_ns, ..FlowFacts::default() };
        scripts.run(rule, &Snapshot::Flow(&facts, Event::Rst)).is_some()
    }

    #[test]
    fn a_slow_rule_has_its_share_of_a_second_and_no_other_rules() {
        let mut scripts = scripts();
        assert!(run(&mut scripts, 1, 5 * SECOND));
        scripts.second.took(1, 201 * MS, false);
        for _ in 0..3 {
            assert!(!run(&mut scripts, 1, 5 * SECOND + 7));
            assert!(run(&mut scripts, 0, 5 * SECOND + 8));
        }
        assert_eq!((scripts.left_out, scripts.runs), (3, 4));
        let news = scripts.news();
        assert!(news.len() == 1 && news[0].contains("rule slow is slow"), "said once: {news:?}");
        assert!(run(&mut scripts, 1, 6 * SECOND), "the next second is another");
    }

    #[test]
    fn who_goes_is_the_costliest_of_this_second_and_not_whoever_fails_next() {
        let mut scripts = scripts();
        assert!(!run(&mut scripts, 3, SECOND) && !run(&mut scripts, 2, SECOND));
        scripts.second.took(3, 190 * MS, true);
        scripts.second.took(2, 20 * MS, true);
        assert!(!run(&mut scripts, 2, SECOND));
        let off: Vec<u16> = scripts.switched_off().into_iter().map(|(rule, _)| rule).collect();
        assert_eq!(off, [3]);
        for _ in 0..5 {
            assert!(!run(&mut scripts, 2, SECOND));
        }
        assert!(scripts.switched_off().is_empty(), "what took the time has gone already");
    }
}
