//! Operators of guards: which types each takes, and the term it becomes.
//!
//! Lowered at load time, evaluated on workers and the judge without allocating. Integers and floats mix
//! as in Rhai; every other mixture is refused, as it would silently never hold.

use std::net::IpAddr;

use rhai::Position;

use crate::facts::table::Subject;
use crate::lower::arithmetic::{self, Arithmetic};
use crate::lower::expr::Lower;
use crate::lower::test::{Comparison, Test, compare, compare_floats, compare_ints, same};
use crate::lower::text;
use crate::lower::types::{Term, Typed, unary};

impl Lower<'_> {
    pub(crate) fn prefix<S: Subject>(
        &mut self,
        symbol: &str,
        operand: Typed<S>,
        at: Position,
    ) -> Option<Typed<S>> {
        match (symbol, operand) {
            ("!", Typed::Bool(test)) => Some(Typed::Bool(test.not())),
            ("-", Typed::Int(term)) => Some(Typed::Int(unary(term, arithmetic::negate))),
            ("-", Typed::Float(term)) => Some(Typed::Float(unary(term, |value| Ok(-value)))),
            ("+", operand @ (Typed::Int(_) | Typed::Float(_))) => Some(operand),
            (_, operand) => {
                let message = format!("`{symbol}` cannot be applied to {}", operand.type_name());
                self.refuse(at, message, "`!` takes a bool, `-` a number")
            }
        }
    }

    pub(crate) fn infix<S: Subject>(
        &mut self,
        symbol: &str,
        left: Typed<S>,
        right: Typed<S>,
        at: Position,
    ) -> Option<Typed<S>> {
        if let Some(op) = Comparison::from_symbol(symbol) {
            return self.comparison(op, symbol, left, right, at);
        }
        let Some(op) = Arithmetic::from_symbol(symbol) else {
            let help = "use + - * / %, comparisons, `in`, && || and !";
            return self.refuse(at, format!("`{symbol}` cannot be used in a condition"), help);
        };
        match (left, right) {
            (Typed::Int(left), Typed::Int(right)) => Some(Typed::Int(arithmetic::int(op, left, right))),
            (Typed::Float(left), Typed::Float(right)) => {
                Some(Typed::Float(arithmetic::float(op, left, right)))
            }
            (Typed::Int(left), Typed::Float(right)) => {
                Some(Typed::Float(arithmetic::float(op, to_float(left), right)))
            }
            (Typed::Float(left), Typed::Int(right)) => {
                Some(Typed::Float(arithmetic::float(op, left, to_float(right))))
            }
            (left, right) => {
                let types = (left.type_name(), right.type_name());
                let message = format!("`{symbol}` cannot combine {} with {}", types.0, types.1);
                self.refuse(at, message, "arithmetic takes two numbers")
            }
        }
    }

    fn comparison<S: Subject>(
        &mut self,
        op: Comparison,
        symbol: &str,
        left: Typed<S>,
        right: Typed<S>,
        at: Position,
    ) -> Option<Typed<S>> {
        let ordered = !matches!(op, Comparison::Equal | Comparison::NotEqual);
        let test = match (left, right) {
            (Typed::Int(left), Typed::Int(right)) => compare_ints(op, left, right),
            (Typed::Float(left), Typed::Float(right)) => compare_floats(op, left, right),
            (Typed::Int(left), Typed::Float(right)) => compare_floats(op, to_float(left), right),
            (Typed::Float(left), Typed::Int(right)) => compare_floats(op, left, to_float(right)),
            (Typed::Bool(left), Typed::Bool(right)) if !ordered => same(op, left, right),
            (Typed::Address(left), Typed::Address(right)) if !ordered => compare(op, left, right).sure(),
            (Typed::Address(left), Typed::Text(right)) if !ordered => {
                compare(op, left, Term::Const(self.address(&right, at)?)).sure()
            }
            (Typed::Text(left), Typed::Address(right)) if !ordered => {
                compare(op, right, Term::Const(self.address(&left, at)?)).sure()
            }
            (Typed::Text(left), Typed::Text(right)) if !ordered => {
                Test::Const((left == right) == (op == Comparison::Equal))
            }
            (Typed::Name(name), Typed::Text(text)) | (Typed::Text(text), Typed::Name(name)) if !ordered => {
                text::compare(op, name, text)
            }
            (Typed::Name(_), Typed::Name(_)) if !ordered => {
                let help = "a text out of a packet is compared with a constant one";
                return self.refuse(at, "two facts that are texts cannot be compared", help);
            }
            (left, right) => {
                let (left, right) = (left.type_name(), right.type_name());
                let message = format!("`{symbol}` cannot compare {left} with {right}");
                let help = match ordered && left == right {
                    true => "only numbers have an order; use == or !=",
                    false => "compare values of one type: such a comparison would silently never hold",
                };
                return self.refuse(at, message, help);
            }
        };
        Some(Typed::Bool(test))
    }

    fn address(&mut self, text: &str, at: Position) -> Option<IpAddr> {
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) if text.contains('/') => self.refuse(
                at,
                format!("\"{text}\" is a network, not an address"),
                &format!("write `in \"{text}\"`"),
            ),
            Err(_) => self.refuse(at, format!("\"{text}\" is not an IP address"), "for example \"10.0.0.1\""),
        }
    }
}

pub(crate) fn to_float<S: Subject>(term: Term<S, i64>) -> Term<S, f64> {
    unary(term, |value| Ok(value as f64))
}
