//! Arithmetic of guards: Rhai's own meaning on 64-bit integers and floats, checked.
//!
//! Overflow and division by zero are faults (no match, counted). Division of floats by zero is a fault
//! too, where a body would go on with infinity: a threshold met only because of it proves nothing.
//! Lowered at load time, evaluated on workers and the judge without allocating.

use crate::facts::table::Subject;
use crate::lower::types::{Stop, Term, binary};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Arithmetic {
    pub(crate) fn from_symbol(symbol: &str) -> Option<Arithmetic> {
        Some(match symbol {
            "+" => Arithmetic::Add,
            "-" => Arithmetic::Subtract,
            "*" => Arithmetic::Multiply,
            "/" => Arithmetic::Divide,
            "%" => Arithmetic::Remainder,
            _ => return None,
        })
    }
}

pub(crate) fn negate(value: i64) -> Result<i64, Stop> {
    value.checked_neg().ok_or(Stop::Fault)
}

pub(crate) fn int<S: Subject>(op: Arithmetic, left: Term<S, i64>, right: Term<S, i64>) -> Term<S, i64> {
    match op {
        Arithmetic::Add => binary(left, right, |a, b| a.checked_add(b).ok_or(Stop::Fault)),
        Arithmetic::Subtract => binary(left, right, |a, b| a.checked_sub(b).ok_or(Stop::Fault)),
        Arithmetic::Multiply => binary(left, right, |a, b| a.checked_mul(b).ok_or(Stop::Fault)),
        Arithmetic::Divide => binary(left, right, |a, b| a.checked_div(b).ok_or(Stop::Fault)),
        Arithmetic::Remainder => binary(left, right, |a, b| a.checked_rem(b).ok_or(Stop::Fault)),
    }
}

pub(crate) fn float<S: Subject>(op: Arithmetic, left: Term<S, f64>, right: Term<S, f64>) -> Term<S, f64> {
    match op {
        Arithmetic::Add => binary(left, right, |a, b| Ok(a + b)),
        Arithmetic::Subtract => binary(left, right, |a, b| Ok(a - b)),
        Arithmetic::Multiply => binary(left, right, |a, b| Ok(a * b)),
        Arithmetic::Divide => binary(left, right, |a, b| if b == 0.0 { Err(Stop::Fault) } else { Ok(a / b) }),
        Arithmetic::Remainder => {
            binary(left, right, |a, b| if b == 0.0 { Err(Stop::Fault) } else { Ok(a % b) })
        }
    }
}
