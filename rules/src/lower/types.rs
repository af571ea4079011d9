//! What a guard is made of once lowered: typed terms that read a snapshot and give a value.
//!
//! Built at load time; evaluated on workers (flows) and on the judge (hosts, services). Evaluation never
//! allocates, locks or touches Rhai. Terms of truth are in `test`. A hit goes to [`crate::set::Hits`].

use std::net::IpAddr;

use crate::facts::table::{Subject, Window};
use crate::facts::{Name, Parts};
use crate::lower::test::Test;

/// Why a guard gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A fact it reached is unknown: no match.
    Unknown,
    /// Overflow or division by zero: no match, and counted.
    Fault,
    /// A fact it reached has not been gathered: gather these parts and ask again.
    Missing(Parts),
}

pub(crate) type Eval<S, T> = Box<dyn Fn(&S) -> Result<T, Stop> + Send + Sync>;

/// A fact by which it is known beforehand that a rule need not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    No,
    Dport,
    Syns,
    EcnSyns,
    SynAcks,
    LateSynAcks,
}

impl Key {
    fn of(path: &str) -> Key {
        match path {
            "flow.dport" => Key::Dport,
            "flow.syns" => Key::Syns,
            "flow.ecn_syns" => Key::EcnSyns,
            "flow.syn_acks" => Key::SynAcks,
            "flow.late_syn_acks" => Key::LateSynAcks,
            _ => Key::No,
        }
    }
}

/// How a fact is read, and what of the snapshot has to be there.
pub(crate) struct Read<S, T> {
    get: fn(&S) -> Option<T>,
    pub(crate) parts: Parts,
    pub(crate) key: Key,
}

impl<S, T> Clone for Read<S, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, T> Copy for Read<S, T> {}

impl<S: Subject, T> Read<S, T> {
    pub(crate) fn new(get: fn(&S) -> Option<T>, path: &str) -> Read<S, T> {
        Read { get, parts: S::parts_of(path), key: Key::of(path) }
    }

    #[inline(always)]
    pub(crate) fn read(&self, subject: &S) -> Result<T, Stop> {
        if !subject.has(self.parts) {
            return Err(Stop::Missing(self.parts));
        }
        (self.get)(subject).ok_or(Stop::Unknown)
    }
}

/// A value of one type, in the cheapest form that gives it.
pub(crate) enum Term<S, T> {
    Const(T),
    Fact(Read<S, T>),
    Over(fn(&S, Window) -> Option<T>, Window),
    Expr(Eval<S, T>),
}

impl<S: Subject, T: Copy + 'static> Term<S, T> {
    #[inline]
    pub(crate) fn eval(&self, subject: &S) -> Result<T, Stop> {
        match self {
            Term::Const(value) => Ok(*value),
            Term::Fact(read) => read.read(subject),
            Term::Over(get, window) => get(subject, *window).ok_or(Stop::Unknown),
            Term::Expr(eval) => eval(subject),
        }
    }
}

/// A lowered expression and its type.
pub(crate) enum Typed<S> {
    Int(Term<S, i64>),
    Float(Term<S, f64>),
    Bool(Test<S>),
    Address(Term<S, IpAddr>),
    /// A text out of a packet.
    Name(Term<S, Name>),
    /// A constant: a text, an address or a network to compare with.
    Text(String),
}

impl<S> Typed<S> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Typed::Int(_) => "an integer",
            Typed::Float(_) => "a float",
            Typed::Bool(_) => "a bool",
            Typed::Address(_) => "an address",
            Typed::Name(_) | Typed::Text(_) => "text",
        }
    }
}

/// Lowers a strict operator of two arguments. Constant arguments are computed now; an operation that
/// faults on constants stays, so that it faults (and is counted) only when it is reached.
pub(crate) fn binary<S: Subject, T, U>(
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
        (Term::Fact(left), Term::Const(b)) => Term::Expr(Box::new(move |s| op(left.read(s)?, b))),
        (Term::Fact(left), Term::Fact(right)) => {
            Term::Expr(Box::new(move |s| op(left.read(s)?, right.read(s)?)))
        }
        (Term::Over(get, window), Term::Const(b)) => {
            Term::Expr(Box::new(move |s| op(get(s, window).ok_or(Stop::Unknown)?, b)))
        }
        (left, right) => Term::Expr(Box::new(move |s| op(left.eval(s)?, right.eval(s)?))),
    }
}

/// Lowers an operator of one argument.
pub(crate) fn unary<S: Subject, T, U>(
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
        Term::Fact(read) => Term::Expr(Box::new(move |s| op(read.read(s)?))),
        term => Term::Expr(Box::new(move |s| op(term.eval(s)?))),
    }
}
