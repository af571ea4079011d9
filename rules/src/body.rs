//! Rule bodies: ordinary Rhai, run by the judge on a snapshot, under limits.
//!
//! Runs on the judge's thread only, never on a worker. A body sees facts and parameters, reaches no file,
//! network, clock or randomness, and cannot outlive its limits. The verdict goes to the judge's incidents.

mod api;
mod engine;
mod large;
mod memory;
mod meter;
mod views;
mod words;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhai::{AST, Caches, Engine, EvalAltResult, Scope as RhaiScope};

pub(crate) use crate::body::engine::STATE;
use crate::body::engine::{Run, Stage};
use crate::body::memory::Memory;
use crate::body::meter::{Clocks, Meter};
use crate::body::views::Subjects;
use crate::event::Event;
use crate::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use crate::set::{RuleMeta, RuleSet, Scope};
use crate::verdict::Verdict;

/// The facts a body runs on.
#[derive(Clone, Copy, Debug)]
pub enum Snapshot<'a> {
    Flow(&'a FlowFacts, Event),
    Host(&'a HostFacts),
    Service(&'a ServiceFacts),
    Link(&'a LinkFacts),
}

impl Snapshot<'_> {
    /// Packet time it is of.
    pub const fn now_ns(&self) -> u64 {
        match self {
            Snapshot::Flow(facts, _) => facts.now_ns,
            Snapshot::Host(facts) => facts.now_ns,
            Snapshot::Service(facts) => facts.now_ns,
            Snapshot::Link(facts) => facts.now_ns,
        }
    }

    pub const fn scope(&self) -> Scope {
        match self {
            Snapshot::Flow(..) => Scope::Flow,
            Snapshot::Host(_) => Scope::Host,
            Snapshot::Service(_) => Scope::Service,
            Snapshot::Link(_) => Scope::Link,
        }
    }
}

/// What one run of a body may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Rhai operations; 0 would mean no limit and counts as 1.
    pub operations: u64,
    /// Nested function calls.
    pub depth: usize,
    /// Bytes of one text.
    pub string_len: usize,
    /// Processor time; `None` in replay, where only operation limits keep output reproducible.
    pub deadline: Option<Duration>,
}

impl Default for BodyLimits {
    /// Room for a hundred times what a shipped rule uses.
    fn default() -> Self {
        BodyLimits { operations: 20_000, depth: 16, string_len: 8_192, deadline: None }
    }
}

/// Why a body gave no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It used more operations, depth, variables or memory than it may.
    #[error("{place}: rule `{rule}` was stopped: {message}")]
    Limit { rule: String, place: Place, message: String },
    /// It had the processor for longer than the deadline.
    #[error("{place}: rule `{rule}` was stopped: it ran longer than {limit:?}")]
    Deadline { rule: String, place: Place, limit: Duration },
    /// It failed.
    #[error("{place}: rule `{rule}` failed: {message}")]
    Script { rule: String, place: Place, message: String },
}

/// Where in a rule file something happened; line and column from 1, 0 if not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: usize,
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// Runs the bodies of one rule set at a time. From one run to the next it keeps what bodies put into `state` and what they
/// count, under the rule's name.
pub struct Bodies {
    rules: Arc<RuleSet>,
    engine: Engine,
    stage: Stage,
    meter: Meter,
    limits: BodyLimits,
    /// What the functions that a body calls were found to be, by its rule's number: looking for them takes a good part
    /// of a run.
    found: BTreeMap<u16, Caches>,
    /// By the rule's name: another set may number them otherwise.
    memories: BTreeMap<String, Memory>,
    spent: Duration,
}

impl Bodies {
    pub fn new(rules: Arc<RuleSet>, limits: BodyLimits) -> Bodies {
        let (stage, meter) = (Stage::default(), Meter::new(limits.operations, Clocks::REAL));
        let engine = engine::build(&stage, &limits, &meter);
        let (found, memories, spent) = (BTreeMap::new(), BTreeMap::new(), Duration::ZERO);
        Bodies { rules, engine, stage, meter, limits, found, memories, spent }
    }

    /// How long the last run had the processor; zero without a deadline, where no clock is read.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// What bodies counted: rule, counter, count.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.memories.iter().flat_map(|(rule, memory)| {
            memory.counts.iter().map(move |(name, count)| (rule.as_str(), name.as_str(), *count))
        })
    }

    /// From now on runs the bodies of this set. Rules of the same name go on with what they kept.
    pub fn follow(&mut self, rules: &Arc<RuleSet>) {
        self.rules = Arc::clone(rules);
        self.found.clear();
    }

    /// Runs one rule's body.
    ///
    /// # Errors
    /// When the body exceeds a limit or fails; what it had decided until then is dropped. A panic inside
    /// is contained and reported as a failure.
    pub fn run(&mut self, rule: u16, snapshot: &Snapshot) -> Result<Verdict, BodyError> {
        let Some((meta, body)) = self.rules.body(rule) else {
            let message = "there is no rule of this number".to_owned();
            return Err(BodyError::Script { rule: format!("#{rule}"), place: Place::default(), message });
        };
        if meta.scope != snapshot.scope() {
            let (wanted, given) = (meta.scope.as_str(), snapshot.scope().as_str());
            let message = format!("it is about a {wanted} and was given the facts of a {given}");
            let place = Place { file: meta.file.clone(), line: meta.line, column: 0 };
            return Err(BodyError::Script { rule: meta.name.clone(), place, message });
        }
        let watched = self.rules.watch().map(|watch| (watch, Instant::now()));
        let memory = self.memories.remove(&meta.name).unwrap_or_default();
        self.stage.set(Run {
            subjects: Subjects::of(snapshot),
            params: Arc::clone(&body.params),
            severity: meta.severity,
            memory,
            ..Run::default()
        });
        let began = self.meter.begin(self.limits.deadline);
        let found = self.found.entry(rule).or_default();
        let run = catch_unwind(AssertUnwindSafe(|| evaluate(&self.engine, &body.ast, found)));
        if !matches!(run, Ok(Ok(()))) {
            self.found.remove(&rule);
        }
        self.spent = began.map_or(Duration::ZERO, |began| self.meter.spent(began));
        let (verdict, memory) = self.stage.take(matches!(run, Ok(Ok(()))));
        if !memory.is_empty() {
            self.memories.insert(meta.name.clone(), memory);
        }
        if let Some((watch, started)) = watched {
            watch.ran(rule, started.elapsed());
        }
        match run {
            Ok(Ok(())) => {
                let because = verdict.incident.as_ref().map(|_| self.rules.because(rule, snapshot));
                let rules_hash = self.rules.shared_hash();
                Ok(Verdict { rules_hash, because: because.unwrap_or_default(), ..verdict })
            }
            Ok(Err(error)) => Err(self.error(meta, &error)),
            Err(_) => {
                let place = Place { file: meta.file.clone(), line: meta.line, column: 0 };
                let message = "an internal error; the rule is not to blame, please report it".to_owned();
                Err(BodyError::Script { rule: meta.name.clone(), place, message })
            }
        }
    }

    fn error(&self, meta: &RuleMeta, error: &EvalAltResult) -> BodyError {
        let inner = error.unwrap_inner();
        let at = inner.position().or_else(error.position());
        let place = Place {
            file: meta.file.clone(),
            line: at.line().unwrap_or(meta.line),
            column: at.position().unwrap_or(0),
        };
        let rule = meta.name.clone();
        let message = match inner {
            EvalAltResult::ErrorRuntime(value, _) => value.to_string(),
            EvalAltResult::ErrorTerminated(..) => "Too many operations".to_owned(),
            other => without_position(other),
        };
        match inner {
            EvalAltResult::ErrorTerminated(token, _) if token.is_unit() => {
                BodyError::Deadline { rule, place, limit: self.limits.deadline.unwrap_or_default() }
            }
            EvalAltResult::ErrorTerminated(..)
            | EvalAltResult::ErrorTooManyOperations(_)
            | EvalAltResult::ErrorTooManyVariables(_)
            | EvalAltResult::ErrorTooManyModules(_)
            | EvalAltResult::ErrorStackOverflow(_)
            | EvalAltResult::ErrorDataTooLarge(..) => BodyError::Limit { rule, place, message },
            _ => BodyError::Script { rule, place, message },
        }
    }
}

/// As the engine's `run_ast`, but what it finds is kept from one run to the next.
#[allow(deprecated, reason = "rhai marks it as volatile, not as going away; the version is pinned")]
fn evaluate(engine: &Engine, ast: &AST, found: &mut Caches) -> Result<(), Box<EvalAltResult>> {
    let mut global = engine.new_global_runtime_state();
    global.lib.push(ast.shared_lib().clone());
    engine.eval_statements_raw(&mut global, found, &mut RhaiScope::new(), ast.statements()).map(|_| ())
}

/// Rhai ends its messages with the position, which is already told in front.
fn without_position(error: &EvalAltResult) -> String {
    let text = error.to_string();
    match text.rfind(" (line ") {
        Some(at) if text.ends_with(')') => text[..at].to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown;
