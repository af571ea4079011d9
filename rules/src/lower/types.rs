//! What a guard is made of once lowered: typed terms that read a snapshot and give a value.
//!
//! Built at load time; evaluated on workers (flows) and on the judge (hosts, services). Evaluation never
//! allocates, locks or touches Rhai. A hit goes to [`crate::set::Hits`].

use std::net::IpAddr;

use crate::facts::table::Window;

/// Why a guard gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A fact it reached is unknown: no match.
    Unknown,
    /// Overflow or division by zero: no match, and counted.
    Fault,
}

pub(crate) type Eval<S, T> = Box<dyn Fn(&S) -> Result<T, Stop> + Send + Sync>;

/// A value of one type, in the cheapest form that gives it.
pub(crate) enum Term<S, T> {
    Const(T),
    Fact(fn(&S) -> Option<T>),
    Over(fn(&S, Window) -> Option<T>, Window),
    Expr(Eval<S, T>),
}

impl<S: 'static, T: Copy + 'static> Term<S, T> {
    #[inline]
    pub(crate) fn eval(&self, subject: &S) -> Result<T, Stop> {
        match self {
            Term::Const(value) => Ok(*value),
            Term::Fact(get) => get(subject).ok_or(Stop::Unknown),
            Term::Over(get, window) => get(subject, *window).ok_or(Stop::Unknown),
            Term::Expr(eval) => eval(subject),
        }
    }
}

/// A lowered expression and its type.
pub(crate) enum Typed<S> {
    Int(Term<S, i64>),
    Float(Term<S, f64>),
    Bool(Term<S, bool>),
    Address(Term<S, IpAddr>),
    /// Text is only ever constant: an address or a network to compare with.
    Text(String),
}

impl<S> Typed<S> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Typed::Int(_) => "an integer",
            Typed::Float(_) => "a float",
            Typed::Bool(_) => "a bool",
            Typed::Address(_) => "an address",
            Typed::Text(_) => "text",
        }
    }
}

/// The six comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) fn from_symbol(symbol: &str) -> Option<Comparison> {
        Some(match symbol {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }
}

/// Compares floats as rule bodies do: those closer than one part in 2^52 of the larger are equal.
pub(crate) fn compare_floats<S: 'static>(
    op: Comparison,
    left: Term<S, f64>,
    right: Term<S, f64>,
) -> Term<S, bool> {
    match op {
        Comparison::Equal => binary(left, right, |a, b| Ok(apart(a, b).abs() <= f64::EPSILON)),
        Comparison::NotEqual => binary(left, right, |a, b| Ok(apart(a, b).abs() > f64::EPSILON)),
        Comparison::Less => binary(left, right, |a, b| Ok(apart(b, a) > f64::EPSILON)),
        Comparison::LessOrEqual => binary(left, right, |a, b| Ok(apart(b, a) > -f64::EPSILON)),
        Comparison::Greater => binary(left, right, |a, b| Ok(apart(a, b) > f64::EPSILON)),
        Comparison::GreaterOrEqual => binary(left, right, |a, b| Ok(apart(a, b) > -f64::EPSILON)),
    }
}

/// How much `a` exceeds `b`, as a part of the larger; itself where one of them is 0.
fn apart(a: f64, b: f64) -> f64 {
    let larger = if a * b == 0.0 { 1.0 } else { a.abs().max(b.abs()) };
    (a - b) / larger
}

/// Lowers `left op right` to the shape that costs least: the fact-with-constant pairs that most guards
/// are made of call one getter and compare, with nothing else in between.
pub(crate) fn compare<S: 'static, T>(op: Comparison, left: Term<S, T>, right: Term<S, T>) -> Term<S, bool>
where
    T: Copy + PartialOrd + Send + Sync + 'static,
{
    match op {
        Comparison::Equal => binary(left, right, |a, b| Ok(a == b)),
        Comparison::NotEqual => binary(left, right, |a, b| Ok(a != b)),
        Comparison::Less => binary(left, right, |a, b| Ok(a < b)),
        Comparison::LessOrEqual => binary(left, right, |a, b| Ok(a <= b)),
        Comparison::Greater => binary(left, right, |a, b| Ok(a > b)),
        Comparison::GreaterOrEqual => binary(left, right, |a, b| Ok(a >= b)),
    }
}

/// Lowers a strict operator of two arguments. Constant arguments are computed now; an operation that
/// faults on constants stays, so that it faults (and is counted) only when it is reached.
pub(crate) fn binary<S: 'static, T, U>(
    left: Term<S, T>,
    right: Term<S, T>,
    op: impl Fn(T, T) -> Result<U, Stop> + Copy + Send + Sync + 'static,
) -> Term<S, U>
where
    T: Copy + Send + Sync + 'static,
{
    match (left, right) {
        (Term::Const(a), Term::Const(b)) => match op(a, b) {
            Ok(value) => Term::Const(value),
            Err(stop) => Term::Expr(Box::new(move |_| Err(stop))),
        },
        (Term::Fact(get), Term::Const(b)) => Term::Expr(Box::new(move |s| match get(s) {
            Some(a) => op(a, b),
            None => Err(Stop::Unknown),
        })),
        (Term::Fact(left), Term::Fact(right)) => Term::Expr(Box::new(move |s| match (left(s), right(s)) {
            (Some(a), Some(b)) => op(a, b),
            _ => Err(Stop::Unknown),
        })),
        (Term::Over(get, window), Term::Const(b)) => Term::Expr(Box::new(move |s| match get(s, window) {
            Some(a) => op(a, b),
            None => Err(Stop::Unknown),
        })),
        (left, right) => Term::Expr(Box::new(move |s| op(left.eval(s)?, right.eval(s)?))),
    }
}

/// Lowers an operator of one argument.
pub(crate) fn unary<S: 'static, T, U>(
    term: Term<S, T>,
    op: impl Fn(T) -> Result<U, Stop> + Copy + Send + Sync + 'static,
) -> Term<S, U>
where
    T: Copy + Send + Sync + 'static,
{
    match term {
        Term::Const(value) => match op(value) {
            Ok(value) => Term::Const(value),
            Err(stop) => Term::Expr(Box::new(move |_| Err(stop))),
        },
        Term::Fact(get) => Term::Expr(Box::new(move |s| match get(s) {
            Some(value) => op(value),
            None => Err(Stop::Unknown),
        })),
        term => Term::Expr(Box::new(move |s| op(term.eval(s)?))),
    }
}

/// `&&` over its operands, left to right, stopping at the first that is false.
pub(crate) fn all<S: 'static>(terms: Vec<Term<S, bool>>) -> Term<S, bool> {
    let terms = match folded(terms, true) {
        Ok(term) => return term,
        Err(terms) => terms.into_boxed_slice(),
    };
    Term::Expr(Box::new(move |s| {
        for term in &terms {
            if !term.eval(s)? {
                return Ok(false);
            }
        }
        Ok(true)
    }))
}

/// `||` over its operands, left to right, stopping at the first that is true.
pub(crate) fn any<S: 'static>(terms: Vec<Term<S, bool>>) -> Term<S, bool> {
    let terms = match folded(terms, false) {
        Ok(term) => return term,
        Err(terms) => terms.into_boxed_slice(),
    };
    Term::Expr(Box::new(move |s| {
        for term in &terms {
            if term.eval(s)? {
                return Ok(true);
            }
        }
        Ok(false)
    }))
}

/// Operands without those that change nothing and those never reached; the only one, if one is left. `neutral`: the
/// value that goes on to the next operand.
fn folded<S>(operands: Vec<Term<S, bool>>, neutral: bool) -> Result<Term<S, bool>, Vec<Term<S, bool>>> {
    let mut terms = Vec::with_capacity(operands.len());
    for term in operands {
        match term {
            Term::Const(value) if value == neutral => {}
            Term::Const(_) => {
                terms.push(term);
                break;
            }
            term => terms.push(term),
        }
    }
    match terms.len() {
        0 => Ok(Term::Const(neutral)),
        1 => terms.pop().ok_or_else(Vec::new),
        _ => Err(terms),
    }
}
