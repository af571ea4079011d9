//! Why a rule matches: the operands of its condition's `&&`, each with the facts and parameters it names.
//!
//! Made when rules are loaded. The judge reads the facts when a body has named an incident; whoever tries a rule out asks
//! which operand decides. Workers never come here. Reading allocates, and is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rhai::{ASTNode, Expr, Stmt};

use crate::body::Snapshot;
use crate::facts::table::{Fact, Get, Subject, Window};
use crate::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use crate::language::check::{Chain, window};
use crate::language::syntax::RuleItem;
use crate::lower::expr::{self, Context};
use crate::lower::row::Row;
use crate::lower::types::Stop;
use crate::set::RuleSet;
use crate::verdict::EvidenceValue;

/// Operands told of one condition, and facts and parameters of one operand.
const TOLD: usize = 16;
/// Helper functions calling helper functions, as far as conditions go.
const CALLS: usize = 16;

/// One operand of a condition, and what it saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Because {
    /// As it is written in the rule.
    pub clause: Arc<str>,
    /// In the order they are written; a fact over a window by its call: `host.rsts(10)`.
    pub facts: Vec<(Arc<str>, EvidenceValue)>,
    pub params: Vec<(Arc<str>, EvidenceValue)>,
}

/// What a condition says of one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It holds.
    Match,
    /// This operand is false.
    NoMatch(Because),
    /// This one reaches a fact that is not known.
    Unknown(Because),
    /// This one overflows or divides by zero.
    Fault(Because),
}

/// A condition's operands, by the snapshot they read.
#[derive(Clone)]
pub(crate) enum Clauses {
    Flow(Arc<[Clause<FlowFacts>]>),
    Host(Arc<[Clause<HostFacts>]>),
    Service(Arc<[Clause<ServiceFacts>]>),
    Link(Arc<[Clause<LinkFacts>]>),
}

impl fmt::Debug for Clauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, texts: Vec<&str>| f.debug_list().entries(texts).finish();
        match self {
            Clauses::Flow(clauses) => list(f, clauses.iter().map(|c| &*c.text).collect()),
            Clauses::Host(clauses) => list(f, clauses.iter().map(|c| &*c.text).collect()),
            Clauses::Service(clauses) => list(f, clauses.iter().map(|c| &*c.text).collect()),
            Clauses::Link(clauses) => list(f, clauses.iter().map(|c| &*c.text).collect()),
        }
    }
}

pub(crate) struct Clause<S: 'static> {
    text: Arc<str>,
    term: Row<S>,
    reads: Vec<Read<S>>,
    params: Vec<(Arc<str>, EvidenceValue)>,
}

/// A fact as a condition reads it.
struct Read<S: 'static> {
    name: Arc<str>,
    fact: &'static Fact<S>,
    window: Option<Window>,
}

impl<S> Read<S> {
    fn value(&self, subject: &S) -> EvidenceValue {
        let value = match (&self.fact.get, self.window) {
            (Get::Int(get), _) => get(subject).map(EvidenceValue::Int),
            (Get::Bool(get), _) => get(subject).map(EvidenceValue::Bool),
            (Get::Address(get), _) => get(subject).map(EvidenceValue::Address),
            (Get::Text(get), _) => get(subject).map(|name| EvidenceValue::Text(name.to_string())),
            (Get::CountOver(get), Some(window)) => get(subject, window).map(EvidenceValue::Int),
            (Get::RateOver(get), Some(window)) => get(subject, window).map(EvidenceValue::Float),
            (Get::CountOver(_) | Get::RateOver(_), None) => None,
        };
        value.unwrap_or(EvidenceValue::Unknown)
    }
}

impl<S: 'static> Clause<S> {
    pub(crate) fn because(&self, subject: &S) -> Because {
        let facts = self.reads.iter().map(|read| (Arc::clone(&read.name), read.value(subject))).collect();
        Because { clause: Arc::clone(&self.text), facts, params: self.params.clone() }
    }
}

fn told<S: Subject>(clauses: &[Clause<S>], subject: &S) -> Vec<Because> {
    clauses.iter().take(TOLD).map(|clause| clause.because(subject)).collect()
}

fn decided<S: Subject>(clauses: &[Clause<S>], subject: &S) -> Decision {
    let Some((at, stop)) = stops_at(clauses, subject) else { return Decision::Match };
    let because = clauses.get(at).map(|clause| clause.because(subject));
    match (stop, because) {
        (None, Some(because)) => Decision::NoMatch(because),
        (Some(Stop::Unknown | Stop::Missing(_)), Some(because)) => Decision::Unknown(because),
        (Some(Stop::Fault), Some(because)) => Decision::Fault(because),
        (_, None) => Decision::Match,
    }
}

/// The first operand that does not hold, and why it gave no answer if it did not; `None` if all hold.
pub(crate) fn stops_at<S: Subject>(clauses: &[Clause<S>], subject: &S) -> Option<(usize, Option<Stop>)> {
    clauses.iter().enumerate().find_map(|(at, clause)| match clause.term.eval(subject) {
        Ok(true) => None,
        Ok(false) => Some((at, None)),
        Err(stop) => Some((at, Some(stop))),
    })
}

impl RuleSet {
    /// What the rule's condition sees in a snapshot, operand by operand, in the order they are written. Empty if it has
    /// no condition, or the snapshot is of another scope.
    pub fn because(&self, rule: u16, snapshot: &Snapshot) -> Vec<Because> {
        match (self.rules().get(usize::from(rule)).map(|meta| &meta.clauses), snapshot) {
            (Some(Clauses::Flow(clauses)), Snapshot::Flow(facts, _)) => told(clauses, facts),
            (Some(Clauses::Host(clauses)), Snapshot::Host(facts)) => told(clauses, facts),
            (Some(Clauses::Service(clauses)), Snapshot::Service(facts)) => told(clauses, facts),
            (Some(Clauses::Link(clauses)), Snapshot::Link(facts)) => told(clauses, facts),
            _ => Vec::new(),
        }
    }

    /// What the rule's condition says of a snapshot, and which operand decides: the same as its guard. `None` if there
    /// is no such rule, or the snapshot is of another scope.
    pub fn decision(&self, rule: u16, snapshot: &Snapshot) -> Option<Decision> {
        match (&self.rules().get(usize::from(rule))?.clauses, snapshot) {
            (Clauses::Flow(clauses), Snapshot::Flow(facts, _)) => Some(decided(clauses, facts)),
            (Clauses::Host(clauses), Snapshot::Host(facts)) => Some(decided(clauses, facts)),
            (Clauses::Service(clauses), Snapshot::Service(facts)) => Some(decided(clauses, facts)),
            (Clauses::Link(clauses), Snapshot::Link(facts)) => Some(decided(clauses, facts)),
            _ => None,
        }
    }
}

/// The operands of a rule's condition. Call it for conditions that can be lowered.
pub(crate) fn clauses<S: Subject>(rule: &RuleItem, context: &Context) -> Arc<[Clause<S>]> {
    let Some(guard) = &rule.guard else { return Arc::new([]) };
    let mut operands = Vec::new();
    flatten(guard, &mut operands);
    let whole = [rule.operands.join(" && ")];
    let texts = if operands.len() == rule.operands.len() {
        &rule.operands[..]
    } else {
        operands = vec![guard];
        &whole
    };
    let one = |(operand, text): (&Expr, &String)| {
        let mut named = Named::default();
        names::<S>(operand, context, &[], 0, &mut named);
        let Named { reads, params } = named;
        Some(Clause {
            text: text.as_str().into(),
            term: expr::guard(operand, context).ok()?.into(),
            reads,
            params,
        })
    };
    operands.into_iter().zip(texts).filter_map(one).collect()
}

fn flatten<'e>(expr: &'e Expr, operands: &mut Vec<&'e Expr>) {
    match expr {
        Expr::And(inner, _) => inner.iter().for_each(|operand| flatten(operand, operands)),
        other => operands.push(other),
    }
}

struct Named<S: 'static> {
    reads: Vec<Read<S>>,
    params: Vec<(Arc<str>, EvidenceValue)>,
}

impl<S> Default for Named<S> {
    fn default() -> Self {
        Named { reads: Vec::new(), params: Vec::new() }
    }
}

/// The facts and parameters that an expression names, in helper functions too. `arguments` stand for what the caller
/// wrote, which is looked at where it is written.
fn names<S: Subject>(
    expr: &Expr,
    context: &Context,
    arguments: &[String],
    depth: usize,
    named: &mut Named<S>,
) {
    expr.walk(&mut Vec::new(), &mut |path| {
        match path.last() {
            Some(ASTNode::Expr(dot @ Expr::Dot(..))) => named.reads_fact(dot),
            Some(ASTNode::Expr(Expr::Variable(name, ..))) if !arguments.contains(&name.1.to_string()) => {
                named.reads_param(&name.1, context);
            }
            Some(ASTNode::Expr(Expr::FnCall(call, _))) if depth < CALLS && !call.is_operator_call() => {
                // As they are written: what is handed over first.
                call.args.iter().for_each(|arg| names(arg, context, arguments, depth + 1, named));
                let mut known = context.functions.iter();
                let helper =
                    known.find(|f| f.name.text == call.name.as_str() && f.params.len() == call.args.len());
                if let Some(helper) = helper
                    && let [Stmt::Expr(body)] = helper.body.as_slice()
                {
                    names(body, context, &helper.params, depth + 1, named);
                }
            }
            _ => {}
        }
        true
    });
}

impl<S: Subject> Named<S> {
    fn reads_fact(&mut self, dot: &Expr) {
        let Some(chain) = Chain::of(dot) else { return };
        let plain = chain.path();
        let over = chain.method.and_then(|(call, at)| {
            let path = format!("{plain}.{}", call.name);
            let fact = S::find(&path)?;
            let window = window(call, &path, at).ok()?;
            Some((format!("{path}({})", window.seconds()), fact, Some(window)))
        });
        let Some((name, fact, window)) = over.or_else(|| S::find(&plain).map(|fact| (plain, fact, None)))
        else {
            return;
        };
        if self.reads.len() < TOLD && !self.reads.iter().any(|read| *read.name == *name) {
            self.reads.push(Read { name: name.into(), fact, window });
        }
    }

    fn reads_param(&mut self, name: &str, context: &Context) {
        let Some(value) = context.params.get(name) else { return };
        if self.params.len() < TOLD && !self.params.iter().any(|(known, _)| **known == *name) {
            self.params.push((name.into(), value.into()));
        }
    }
}

/// A line for people: "flow.dport = 443, low = 3".
pub fn seen(because: &Because) -> String {
    let values: BTreeMap<_, _> = because.params.iter().map(|(name, value)| (name, value)).collect();
    let facts = because.facts.iter().map(|(name, value)| format!("{name} = {value}"));
    let params = values.into_iter().map(|(name, value)| format!("{name} = {value}"));
    facts.chain(params).collect::<Vec<_>>().join(", ")
}
