//! Lowers a guard from Rhai's AST to native terms: an allow-list, typed, every refusal with its place.
//!
//! Runs at load time; what it makes runs on workers and on the judge. Anything not listed here is refused
//! with a word about what to write instead. The terms go to `set`.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{Expr, FnCallExpr, Position, Stmt};

use crate::facts::table::{Get, Subject};
use crate::language::check::{Chain, ROOTS, unknown_fact, window};
use crate::language::syntax::{FunctionItem, Refusal};
use crate::lower::membership;
use crate::lower::test::{Test, all, any};
use crate::lower::text::Asked;
use crate::lower::types::{Read, Term, Typed};
use crate::nearest::nearest;
use crate::value::ParamValue;

/// Nodes one guard may have once its helper functions are put in place.
const MAX_NODES: usize = 4_096;
/// Helper functions calling helper functions.
const MAX_CALLS: usize = 16;

/// What a guard's names can mean.
pub(crate) struct Context<'a> {
    pub(crate) params: &'a BTreeMap<String, ParamValue>,
    /// Parameters whose declaration was refused: naming one is no further mistake.
    pub(crate) broken: &'a BTreeSet<String>,
    pub(crate) functions: &'a [FunctionItem],
}

/// The arguments of the helper function being put in place, in the frame of its caller.
pub(crate) struct Frame<'a> {
    function: &'a FunctionItem,
    args: &'a [Expr],
    caller: Option<&'a Frame<'a>>,
    depth: usize,
}

impl Frame<'_> {
    /// The function has an argument of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.function.params.iter().any(|param| param == name)
    }
}

/// Lowers a rule's condition.
pub(crate) fn guard<S: Subject>(expr: &Expr, context: &Context) -> Result<Test<S>, Vec<Refusal>> {
    let mut lower = Lower { context, refusals: Vec::new(), nodes: 0 };
    let lowered = lower.expr::<S>(expr, None);
    let test = match lowered {
        Some(typed) => lower.boolean(typed, "a rule's condition", start_of(expr)),
        None => None,
    };
    match test {
        Some(test) if lower.refusals.is_empty() => Ok(test),
        _ => Err(lower.refusals),
    }
}

/// Computes a parameter's or constant's value; it may name the constants before it.
pub(crate) fn constant(
    expr: &Expr,
    constants: &BTreeMap<String, ParamValue>,
) -> Result<ParamValue, Vec<Refusal>> {
    let broken = BTreeSet::new();
    let context = Context { params: constants, broken: &broken, functions: &[] };
    let mut lower = Lower { context: &context, refusals: Vec::new(), nodes: 0 };
    let typed = lower.expr::<crate::facts::FlowFacts>(expr, None);
    let value = match typed {
        Some(Typed::Int(Term::Const(value))) => Some(ParamValue::Int(value)),
        Some(Typed::Float(Term::Const(value))) => Some(ParamValue::Float(value)),
        Some(Typed::Bool(Test::Const(value))) => Some(ParamValue::Bool(value)),
        Some(Typed::Text(value)) => Some(ParamValue::Text(value)),
        _ => None,
    };
    match value {
        Some(value) if lower.refusals.is_empty() => Ok(value),
        _ if !lower.refusals.is_empty() => Err(lower.refusals),
        _ => Err(vec![Refusal::new(
            start_of(expr),
            "a parameter's value must be a constant",
            "write a number, true, false or a \"text\"; arithmetic on numbers is fine if it does not overflow",
        )]),
    }
}

pub(crate) struct Lower<'a> {
    context: &'a Context<'a>,
    pub(crate) refusals: Vec<Refusal>,
    nodes: usize,
}

impl Lower<'_> {
    pub(crate) fn refuse<T>(&mut self, at: Position, message: impl Into<String>, help: &str) -> Option<T> {
        self.refusals.push(Refusal::new(at, message, help));
        None
    }

    pub(crate) fn expr<S: Subject>(&mut self, expr: &Expr, frame: Option<&Frame>) -> Option<Typed<S>> {
        self.nodes += 1;
        let at = start_of(expr);
        if self.nodes > MAX_NODES {
            // Said once; the rest of the guard would only repeat it.
            return match self.nodes == MAX_NODES + 1 {
                true => self.refuse(at, "this condition is too large", "split the rule into several"),
                false => None,
            };
        }
        match expr {
            Expr::BoolConstant(value, _) => Some(Typed::Bool(Test::Const(*value))),
            Expr::IntegerConstant(value, _) => Some(Typed::Int(Term::Const(*value))),
            Expr::FloatConstant(value, _) => Some(Typed::Float(Term::Const(**value))),
            Expr::StringConstant(value, _) => Some(Typed::Text(value.to_string())),
            Expr::Variable(name, ..) if name.2.is_empty() => self.variable(&name.1, at, frame),
            Expr::Dot(..) => self.dotted(expr, frame).unwrap_or_else(|| self.fact(expr, at, frame)),
            Expr::And(operands, _) => self.operands(operands, "&&", frame).map(|t| Typed::Bool(all(t))),
            Expr::Or(operands, _) => self.operands(operands, "||", frame).map(|t| Typed::Bool(any(t))),
            Expr::FnCall(call, op_at) => self.call(call, at, *op_at, frame),
            other => self.refuse_kind(other, at),
        }
    }

    fn refuse_kind<T>(&mut self, expr: &Expr, at: Position) -> Option<T> {
        let (what, help) = match expr {
            Expr::Custom(..) => {
                ("a rule inside a condition", "a rule can only stand at the top of the file; move it out")
            }
            Expr::InterpolatedString(..) => ("a template string", "build texts in the body"),
            Expr::Array(..) => ("a list", "a list can only stand to the right of `in`"),
            Expr::Map(..) => ("a map", "compare facts one by one"),
            Expr::Coalesce(..) => (
                "`??`",
                "a condition that reaches an unknown fact does not match; write a second rule for that case",
            ),
            Expr::Stmt(..) => ("`if`, `switch` or a block", "use && and ||, or decide in the body"),
            Expr::Index(..) => ("indexing", "name the fact by its path, for example `flow.orig.mss`"),
            Expr::Unit(..) => ("`()`", "a condition that reaches an unknown fact does not match"),
            Expr::CharConstant(..) => ("a character", "write a text in double quotes"),
            _ => ("this", "use facts, params, numbers, + - * / %, comparisons, `in`, && || and !"),
        };
        self.refuse(at, format!("{what} cannot be used in a condition"), help)
    }

    /// `&&` and `||`: each operand is looked at, so that each is reported.
    fn operands<S: Subject>(
        &mut self,
        operands: &[Expr],
        symbol: &str,
        frame: Option<&Frame>,
    ) -> Option<Vec<Test<S>>> {
        let what = format!("an operand of `{symbol}`");
        let mut terms = Vec::with_capacity(operands.len());
        for operand in operands {
            let typed = self.expr::<S>(operand, frame);
            let term = typed.and_then(|typed| self.boolean(typed, &what, start_of(operand)));
            terms.extend(term);
        }
        (terms.len() == operands.len()).then_some(terms)
    }

    fn boolean<S>(&mut self, typed: Typed<S>, what: &str, at: Position) -> Option<Test<S>> {
        match typed {
            Typed::Bool(test) => Some(test),
            other => {
                let message = format!("{what} must be a bool, not {}", other.type_name());
                self.refuse(at, message, "compare it with something, for example `> 0`")
            }
        }
    }

    fn variable<S: Subject>(&mut self, name: &str, at: Position, frame: Option<&Frame>) -> Option<Typed<S>> {
        if let Some(frame) = frame
            && let Some(index) = frame.function.params.iter().position(|param| param == name)
        {
            return self.expr(&frame.args[index], frame.caller);
        }
        match self.context.params.get(name) {
            Some(ParamValue::Int(value)) => Some(Typed::Int(Term::Const(*value))),
            Some(ParamValue::Float(value)) => Some(Typed::Float(Term::Const(*value))),
            Some(ParamValue::Bool(value)) => Some(Typed::Bool(Test::Const(*value))),
            Some(ParamValue::Text(value)) => Some(Typed::Text(value.clone())),
            None if self.context.broken.contains(name) => None,
            None if ROOTS.contains(&name) => {
                let help = format!("name one of its facts, for example `{}`", example::<S>());
                self.refuse(at, format!("`{name}` alone cannot be used in a condition"), &help)
            }
            None => {
                let known = self.context.params.keys().map(String::as_str);
                let help = match nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "declare it with `param name = VALUE;` at the top of the file".to_owned(),
                };
                self.refuse(at, format!("`{name}` is not known here"), &help)
            }
        }
    }

    fn fact<S: Subject>(&mut self, expr: &Expr, at: Position, frame: Option<&Frame>) -> Option<Typed<S>> {
        let Some(chain) = Chain::of(expr) else {
            let help = "a fact is written as a path from flow, host or service";
            return self.refuse(at, "this is not a fact", help);
        };
        if chain.root != S::ROOT {
            // The rule's scope is checked before lowering and says so better.
            return self.refuse(at, format!("`{}` has no facts here", chain.root), "");
        }
        let mut path = chain.path();
        if let Some((call, method_at)) = chain.method {
            if let Some(Get::Text(get)) = S::find(&path).map(|fact| &fact.get) {
                let name = Typed::Name(Term::Fact(Read::new(*get, &path)));
                return self.method(name, call, method_at, frame);
            }
            path.push('.');
            path.push_str(&call.name);
            return self.windowed(&path, call, at, method_at);
        }
        match S::find(&path).map(|fact| &fact.get) {
            Some(Get::Int(get)) => Some(Typed::Int(Term::Fact(Read::new(*get, &path)))),
            Some(Get::Bool(get)) => Some(Typed::Bool(Test::Flag(Read::new(*get, &path), true))),
            Some(Get::Address(get)) => Some(Typed::Address(Term::Fact(Read::new(*get, &path)))),
            Some(Get::Text(get)) => Some(Typed::Name(Term::Fact(Read::new(*get, &path)))),
            Some(Get::CountOver(_) | Get::RateOver(_)) => {
                self.refuse(at, format!("`{path}` needs a window"), &format!("write `{path}(10)`"))
            }
            None => {
                self.refusals.push(unknown_fact::<S>(&path, at));
                None
            }
        }
    }

    fn windowed<S: Subject>(
        &mut self,
        path: &str,
        call: &FnCallExpr,
        at: Position,
        method_at: Position,
    ) -> Option<Typed<S>> {
        let Some(fact) = S::find(path) else {
            self.refusals.push(unknown_fact::<S>(path, at));
            return None;
        };
        if !fact.is_windowed() {
            return self.refuse(method_at, format!("`{path}` is not a function"), &format!("write `{path}`"));
        }
        match (window(call, path, method_at), &fact.get) {
            (Ok(window), Get::CountOver(get)) => Some(Typed::Int(Term::Over(*get, window))),
            (Ok(window), Get::RateOver(get)) => Some(Typed::Float(Term::Over(*get, window))),
            (Err(refusal), _) => {
                self.refusals.push(refusal);
                None
            }
            _ => None,
        }
    }

    fn call<S: Subject>(
        &mut self,
        call: &FnCallExpr,
        at: Position,
        op_at: Position,
        frame: Option<&Frame>,
    ) -> Option<Typed<S>> {
        let name = call.name.as_str();
        match call.args.as_slice() {
            // `x in list` comes as a call with the list first.
            [among, value] if name == "contains" => {
                let value_typed = self.expr::<S>(value, frame)?;
                self.membership(value_typed, among, op_at, frame)
            }
            [operand] if call.is_operator_call() => {
                let typed = self.expr::<S>(operand, frame)?;
                self.prefix(name, typed, at)
            }
            [left, right] if call.is_operator_call() => {
                let left = self.expr::<S>(left, frame);
                let right = self.expr::<S>(right, frame);
                self.infix(name, left?, right?, op_at)
            }
            [subject, text] if !self.is_helper(name, 2) && Asked::from_method(name).is_some() => {
                let subject_typed = self.expr::<S>(subject, frame)?;
                let text_typed = self.expr::<S>(text, frame)?;
                let asked = Asked::from_method(name)?;
                self.asked(asked, subject_typed, text_typed, start_of(text), at)
            }
            args => self.helper(name, args, at, frame),
        }
    }

    fn membership<S: Subject>(
        &mut self,
        value: Typed<S>,
        among: &Expr,
        at: Position,
        frame: Option<&Frame>,
    ) -> Option<Typed<S>> {
        let mut bounds = Vec::new();
        let shape = match among {
            Expr::FnCall(range, _)
                if matches!(range.name.as_str(), ".." | "..=") && range.args.len() == 2 =>
            {
                for bound in &range.args {
                    bounds.push((self.expr::<S>(bound, frame)?, start_of(bound)));
                }
                membership::Shape::Range { inclusive: range.name.as_str() == "..=" }
            }
            Expr::Array(items, _) => {
                for item in items {
                    bounds.push((self.expr::<S>(item, frame)?, start_of(item)));
                }
                membership::Shape::List
            }
            other => {
                bounds.push((self.expr::<S>(other, frame)?, start_of(other)));
                membership::Shape::Text
            }
        };
        match membership::lower(value, shape, bounds, at) {
            Ok(term) => Some(Typed::Bool(term)),
            Err(refusal) => {
                self.refusals.push(refusal);
                None
            }
        }
    }

    fn is_helper(&self, name: &str, args: usize) -> bool {
        self.context.functions.iter().any(|f| f.name.text == name && f.params.len() == args)
    }

    /// A helper function whose body is one expression is put in place of its call.
    fn helper<S: Subject>(
        &mut self,
        name: &str,
        args: &[Expr],
        at: Position,
        frame: Option<&Frame>,
    ) -> Option<Typed<S>> {
        let functions = self.context.functions;
        let Some(function) = functions.iter().find(|f| f.name.text == name && f.params.len() == args.len())
        else {
            let help = match functions.iter().find(|f| f.name.text == name) {
                Some(f) => format!("`{name}` takes {} argument(s)", f.params.len()),
                None => "conditions can call functions of this file whose body is one expression".to_owned(),
            };
            return self.refuse(at, format!("`{name}` cannot be called in a condition"), &help);
        };
        let [Stmt::Expr(body)] = function.body.as_slice() else {
            let help =
                "a function used in a condition must be one expression, without `let`, `return` or `;`";
            return self.refuse(at, format!("`{name}` cannot be called in a condition"), help);
        };
        let depth = frame.map_or(1, |f| f.depth + 1);
        if depth > MAX_CALLS {
            return self.refuse(
                at,
                format!("`{name}` calls itself, or calls nest too deep"),
                "unroll the calls",
            );
        }
        let inner = Frame { function, args, caller: frame, depth };
        self.expr(body, Some(&inner))
    }
}

/// The place of an expression's first character; Rhai gives that of an operator.
pub(crate) fn start_of(expr: &Expr) -> Position {
    match expr {
        Expr::FnCall(call, at) => match (call.name.as_str(), call.args.as_slice()) {
            // `x in y` comes as `contains(y, x)`, with the place of `in`.
            ("contains", [_, value]) => earlier(start_of(value), *at),
            (_, [left, _]) if call.is_operator_call() => start_of(left),
            _ => *at,
        },
        Expr::And(operands, at) | Expr::Or(operands, at) => operands.first().map_or(*at, start_of),
        other => other.start_position(),
    }
}

fn earlier(a: Position, b: Position) -> Position {
    if (a.line(), a.position()) < (b.line(), b.position()) { a } else { b }
}

fn example<S: Subject>() -> &'static str {
    S::facts().next().map_or("", |fact| fact.path)
}
