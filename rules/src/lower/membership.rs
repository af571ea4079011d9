//! `x in …`: ranges, lists, networks, and a part of a text.
//!
//! Lowered at load time, evaluated on workers and the judge without allocating.

use std::net::IpAddr;

use rhai::Position;

use crate::facts::Name;
use crate::facts::table::Subject;
use crate::language::syntax::Refusal;
use crate::lower::operators::to_float;
use crate::lower::test::{Test, is_at_most, is_equal, is_less, within};
use crate::lower::text::{Asked, any_of};
use crate::lower::types::{Term, Typed};
use crate::network::Network;

/// What stands to the right of `in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two bounds.
    Range { inclusive: bool },
    /// Any number of members.
    List,
    /// One text: an address or a network, or the text to look in.
    Text,
}

type Members<S> = Vec<(Typed<S>, Position)>;

/// `value in shape(members)`.
pub(crate) fn lower<S: Subject>(
    value: Typed<S>,
    shape: Shape,
    members: Members<S>,
    at: Position,
) -> Result<Test<S>, Refusal> {
    let floats = members.iter().any(|(member, _)| matches!(member, Typed::Float(_)));
    match (value, shape) {
        (Typed::Int(value), Shape::Range { inclusive }) if !floats => range(value, inclusive, members),
        (Typed::Int(value), Shape::List) if !floats => list(value, members),
        (Typed::Int(value), Shape::Range { inclusive }) => float_range(to_float(value), inclusive, members),
        (Typed::Int(value), Shape::List) => float_list(to_float(value), members),
        (Typed::Float(value), Shape::Range { inclusive }) => float_range(value, inclusive, members),
        (Typed::Float(value), Shape::List) => float_list(value, members),
        (Typed::Address(value), Shape::List | Shape::Text) => networks(value, members),
        (Typed::Name(value), Shape::List) => names(value, members),
        (Typed::Text(text), Shape::Text) => part(text, members, at),
        (Typed::Address(_), Shape::Range { .. }) => {
            Err(Refusal::new(at, "addresses have no ranges", "write a network: `in \"10.0.0.0/8\"`"))
        }
        (value, Shape::Text) => Err(Refusal::new(
            at,
            format!("`in` cannot look for {} here", value.type_name()),
            "write a range (1..10), a list ([80, 443]), or for addresses a network (\"10.0.0.0/8\")",
        )),
        (value, _) => Err(Refusal::new(
            at,
            format!("`in` cannot look for {} in a range or list", value.type_name()),
            "ranges take numbers, lists also addresses and texts",
        )),
    }
}

fn expected<S, T>(what: &str, member: &Typed<S>, at: Position, help: &str) -> Result<T, Refusal> {
    Err(Refusal::new(at, format!("expected {what}, found {}", member.type_name()), help))
}

fn whole<S>(member: (Typed<S>, Position)) -> Result<Term<S, i64>, Refusal> {
    match member {
        (Typed::Int(term), _) => Ok(term),
        (other, at) => expected("an integer", &other, at, "the value on the left of `in` is an integer"),
    }
}

fn number<S: Subject>(member: (Typed<S>, Position)) -> Result<Term<S, f64>, Refusal> {
    match member {
        (Typed::Int(term), _) => Ok(to_float(term)),
        (Typed::Float(term), _) => Ok(term),
        (other, at) => expected("a number", &other, at, "the value on the left of `in` is a number"),
    }
}

fn ends<T>(mut bounds: impl Iterator<Item = Result<T, Refusal>>) -> Result<(T, T), Refusal> {
    match (bounds.next(), bounds.next()) {
        (Some(low), Some(high)) => Ok((low?, high?)),
        _ => Err(Refusal::new(Position::NONE, "a range has two ends", "write 1..10 or 1..=10")),
    }
}

/// Rhai builds the whole range before it looks, so both bounds are evaluated, first to last, and then
/// the value: an unknown or a fault in any of them counts.
fn range<S: Subject>(value: Term<S, i64>, inclusive: bool, members: Members<S>) -> Result<Test<S>, Refusal> {
    let (low, high) = ends(members.into_iter().map(whole))?;
    Ok(match (value, low, high) {
        (Term::Fact(read), Term::Const(low), Term::Const(high)) => match high.checked_sub(1) {
            _ if inclusive => within(read, low, high),
            Some(last) => within(read, low, last),
            // Nothing lies before the smallest number.
            None => within(read, 1, 0),
        },
        (value, low, high) => Test::Expr(Box::new(move |s| {
            let (low, high, value) = (low.eval(s)?, high.eval(s)?, value.eval(s)?);
            Ok(low <= value && (value < high || inclusive && value == high))
        })),
    })
}

/// Rhai has no ranges of floats; these compare as `>=`, `<` and `<=` do.
fn float_range<S: Subject>(
    value: Term<S, f64>,
    inclusive: bool,
    members: Members<S>,
) -> Result<Test<S>, Refusal> {
    let (low, high) = ends(members.into_iter().map(number))?;
    Ok(Test::Expr(Box::new(move |s| {
        let (low, high, value) = (low.eval(s)?, high.eval(s)?, value.eval(s)?);
        Ok(is_at_most(low, value) && (is_less(value, high) || inclusive && is_at_most(value, high)))
    })))
}

fn list<S: Subject>(value: Term<S, i64>, members: Members<S>) -> Result<Test<S>, Refusal> {
    let members = members.into_iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    let constants: Option<Box<[i64]>> = members
        .iter()
        .map(|member| match member {
            Term::Const(value) => Some(*value),
            _ => None,
        })
        .collect();
    Ok(match (value, constants) {
        (Term::Fact(read), Some(members)) => Test::Among { read, members, inside: true },
        (value, _) => listed(value, members, |a, b| a == b),
    })
}

fn float_list<S: Subject>(value: Term<S, f64>, members: Members<S>) -> Result<Test<S>, Refusal> {
    Ok(listed(value, members.into_iter().map(number).collect::<Result<_, _>>()?, is_equal))
}

/// All members are evaluated, as Rhai builds the list before it looks for the value.
fn listed<S: Subject, T: Copy + Send + Sync + 'static>(
    value: Term<S, T>,
    members: Vec<Term<S, T>>,
    same: impl Fn(T, T) -> bool + Send + Sync + 'static,
) -> Test<S> {
    Test::Expr(Box::new(move |s| {
        let mut found = false;
        let wanted = value.eval(s);
        for member in &members {
            let member = member.eval(s)?;
            found |= wanted.is_ok_and(|wanted| same(member, wanted));
        }
        wanted.map(|_| found)
    }))
}

fn networks<S: Subject>(value: Term<S, IpAddr>, members: Members<S>) -> Result<Test<S>, Refusal> {
    let mut networks = Vec::with_capacity(members.len());
    let mut addresses = Vec::new();
    for (member, at) in members {
        match member {
            Typed::Text(text) => networks.push(Network::parse(&text).map_err(|message| {
                Refusal::new(
                    at,
                    message,
                    "write for example \"10.0.0.0/8\", \"2001:db8::/32\" or \"10.0.0.1\"",
                )
            })?),
            Typed::Address(term) => addresses.push(term),
            other => return expected("a network", &other, at, "write for example \"10.0.0.0/8\""),
        }
    }
    let networks = networks.into_boxed_slice();
    Ok(Test::Sure(Box::new(move |s| {
        let address = value.eval(s)?;
        let mut found = networks.iter().any(|network| network.contains(address));
        for other in &addresses {
            found |= other.eval(s)? == address;
        }
        Ok(found)
    })))
}

fn names<S: Subject>(value: Term<S, Name>, members: Members<S>) -> Result<Test<S>, Refusal> {
    let text = |(member, at)| match member {
        Typed::Text(text) => Ok(text),
        other => expected("a text", &other, at, "the value on the left of `in` is a text"),
    };
    Ok(any_of(Asked::Is, value, members.into_iter().map(text).collect::<Result<_, _>>()?))
}

/// `"part" in name`
fn part<S: Subject>(text: String, members: Members<S>, at: Position) -> Result<Test<S>, Refusal> {
    match members.into_iter().next() {
        Some((Typed::Name(name), _)) => Ok(any_of(Asked::Contains, name, vec![text])),
        _ => Err(Refusal::new(
            at,
            "a text can only be looked for in a fact that is one",
            "for example `\"shop\" in flow.sni`",
        )),
    }
}
