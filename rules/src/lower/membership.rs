//! `x in …`: ranges, lists and networks.
//!
//! Lowered at load time, evaluated on workers and the judge without allocating.

use std::net::IpAddr;

use rhai::Position;

use crate::language::syntax::Refusal;
use crate::lower::types::{Term, Typed, unary};
use crate::network::Network;

/// What stands to the right of `in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two bounds.
    Range { inclusive: bool },
    /// Any number of members.
    List,
    /// One text: an address or a network.
    Text,
}

type Members<S> = Vec<(Typed<S>, Position)>;

/// `value in shape(members)`.
pub(crate) fn lower<S: 'static>(
    value: Typed<S>,
    shape: Shape,
    members: Members<S>,
    at: Position,
) -> Result<Term<S, bool>, Refusal> {
    match (value, shape) {
        (Typed::Int(value), Shape::Range { inclusive }) => range(value, inclusive, members),
        (Typed::Int(value), Shape::List) => list(value, members),
        (Typed::Address(value), Shape::List | Shape::Text) => networks(value, members),
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
            "ranges and lists take integers, lists also addresses",
        )),
    }
}

fn whole<S>(member: (Typed<S>, Position)) -> Result<Term<S, i64>, Refusal> {
    match member {
        (Typed::Int(term), _) => Ok(term),
        (other, at) => Err(Refusal::new(
            at,
            format!("expected an integer, found {}", other.type_name()),
            "the value on the left of `in` is an integer",
        )),
    }
}

/// Rhai builds the whole range before it looks, so both bounds are evaluated, first to last, and then
/// the value: an unknown or a fault in any of them counts.
fn range<S: 'static>(
    value: Term<S, i64>,
    inclusive: bool,
    members: Members<S>,
) -> Result<Term<S, bool>, Refusal> {
    let mut bounds = members.into_iter().map(whole);
    let (Some(low), Some(high)) = (bounds.next(), bounds.next()) else {
        return Err(Refusal::new(Position::NONE, "a range has two ends", "write 1..10 or 1..=10"));
    };
    let (low, high) = (low?, high?);
    Ok(match (low, high) {
        (Term::Const(low), Term::Const(high)) if inclusive => {
            unary(value, move |v| Ok(low <= v && v <= high))
        }
        (Term::Const(low), Term::Const(high)) => unary(value, move |v| Ok(low <= v && v < high)),
        (low, high) => Term::Expr(Box::new(move |s| {
            let (low, high, value) = (low.eval(s)?, high.eval(s)?, value.eval(s)?);
            Ok(low <= value && (value < high || inclusive && value == high))
        })),
    })
}

fn list<S: 'static>(value: Term<S, i64>, members: Members<S>) -> Result<Term<S, bool>, Refusal> {
    let members = members.into_iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    let constants: Option<Box<[i64]>> = members
        .iter()
        .map(|member| match member {
            Term::Const(value) => Some(*value),
            _ => None,
        })
        .collect();
    if let Some(constants) = constants {
        return Ok(Term::Expr(Box::new(move |s| value.eval(s).map(|v| constants.contains(&v)))));
    }
    // All members are evaluated, as Rhai builds the list before it looks.
    Ok(Term::Expr(Box::new(move |s| {
        let mut found = false;
        let wanted = value.eval(s);
        for member in &members {
            found |= Ok(member.eval(s)?) == wanted;
        }
        wanted.map(|_| found)
    })))
}

fn networks<S: 'static>(value: Term<S, IpAddr>, members: Members<S>) -> Result<Term<S, bool>, Refusal> {
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
            other => {
                let message = format!("expected a network, found {}", other.type_name());
                return Err(Refusal::new(at, message, "write for example \"10.0.0.0/8\""));
            }
        }
    }
    if let ([network], []) = (networks.as_slice(), addresses.as_slice()) {
        let network = *network;
        return Ok(unary(value, move |address| Ok(network.contains(address))));
    }
    let networks = networks.into_boxed_slice();
    Ok(Term::Expr(Box::new(move |s| {
        let address = value.eval(s)?;
        let mut found = networks.iter().any(|network| network.contains(address));
        for other in &addresses {
            found |= other.eval(s)? == address;
        }
        Ok(found)
    })))
}
