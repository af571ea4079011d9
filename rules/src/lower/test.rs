//! Terms of truth: what a condition is made of. A fact beside a constant, as most predicates are, is a few numbers
//! in a row of their like; only what is neither has a closure of its own.
//!
//! Built at load time; evaluated on workers and on the judge without allocating, locking or touching Rhai.

use crate::facts::Parts;
use crate::facts::table::Subject;
use crate::lower::row::Row;
use crate::lower::types::{Eval, Key, Read, Stop, Term, binary};

/// A condition or a part of one.
pub(crate) enum Test<S> {
    Const(bool),
    /// A yes/no fact is this.
    Flag(Read<S, bool>, bool),
    /// A number lies in a range, both ends included; or, with `inside` false, does not.
    Within {
        read: Read<S, i64>,
        low: i64,
        span: u64,
        inside: bool,
    },
    /// A number is one of these, or none.
    Among {
        read: Read<S, i64>,
        members: Box<[i64]>,
        inside: bool,
    },
    /// `&&`, left to right, to the first that is false.
    All(Box<[Test<S>]>),
    /// `||`, left to right, to the first that is true.
    Any(Box<[Test<S>]>),
    Not(Box<Test<S>>),
    /// Anything else that can be unknown but never faults.
    Sure(Eval<S, bool>),
    Expr(Eval<S, bool>),
}

impl<S: Subject> Test<S> {
    /// The answer of one that has no others in it.
    #[inline(always)]
    pub(crate) fn leaf(&self, subject: &S) -> Result<bool, Stop> {
        match self {
            Test::Flag(read, wanted) => read.read(subject).map(|value| value == *wanted),
            Test::Within { read, low, span, inside } => {
                let value = read.read(subject)?;
                Ok((value.wrapping_sub(*low).cast_unsigned() <= *span) == *inside)
            }
            Test::Among { read, members, inside } => {
                let value = read.read(subject)?;
                Ok(members.contains(&value) == *inside)
            }
            Test::Sure(eval) | Test::Expr(eval) => eval(subject),
            Test::Const(value) => Ok(*value),
            // Never reached: a row has only leaves.
            Test::All(_) | Test::Any(_) | Test::Not(_) => Err(Stop::Unknown),
        }
    }

    pub(crate) fn not(self) -> Test<S> {
        match self {
            Test::Const(value) => Test::Const(!value),
            Test::Flag(read, wanted) => Test::Flag(read, !wanted),
            Test::Within { read, low, span, inside } => Test::Within { read, low, span, inside: !inside },
            Test::Among { read, members, inside } => Test::Among { read, members, inside: !inside },
            Test::Not(test) => *test,
            test => Test::Not(Box::new(test)),
        }
    }

    /// It is known never to fault.
    pub(crate) fn sure(self) -> Test<S> {
        match self {
            Test::Expr(eval) => Test::Sure(eval),
            test => test,
        }
    }

    /// What of the snapshot it reads before anything else, as far as that can be seen.
    pub(crate) fn first_read(&self) -> Parts {
        match self {
            Test::Flag(read, _) => read.parts,
            Test::Within { read, .. } | Test::Among { read, .. } => read.parts,
            Test::All(tests) | Test::Any(tests) => tests.first().map_or(Parts::HAND, Test::first_read),
            Test::Not(test) => test.first_read(),
            Test::Const(_) | Test::Sure(_) | Test::Expr(_) => Parts::HAND,
        }
    }

    /// The answer of a leaf that reads nothing but what `known` tells.
    pub(crate) fn foreseen(&self, known: impl Fn(Key) -> Option<i64>) -> Option<bool> {
        match self {
            Test::Const(value) => Some(*value),
            Test::Within { read, low, span, inside } => {
                let value = known(read.key)?;
                Some((value.wrapping_sub(*low).cast_unsigned() <= *span) == *inside)
            }
            Test::Among { read, members, inside } => Some(members.contains(&known(read.key)?) == *inside),
            _ => None,
        }
    }

    pub(crate) fn may_fault(&self) -> bool {
        match self {
            Test::Expr(_) => true,
            Test::All(tests) | Test::Any(tests) => tests.iter().any(Test::may_fault),
            Test::Not(test) => test.may_fault(),
            _ => false,
        }
    }

    /// The destination ports of the only flows it can match, if it names some before anything that may fault: the
    /// others then needn't be asked, as nothing would come of it.
    pub(crate) fn ports(&self) -> Option<Vec<i64>> {
        let row = match self {
            Test::All(tests) => tests,
            test => std::slice::from_ref(test),
        };
        for test in row {
            match test {
                Test::Within { read, low, span: 0, inside: true } if read.key == Key::Dport => {
                    return Some(vec![*low]);
                }
                Test::Among { read, members, inside: true } if read.key == Key::Dport => {
                    return Some(members.to_vec());
                }
                test if test.may_fault() => return None,
                _ => {}
            }
        }
        None
    }
}

impl<S: Subject> From<Term<S, bool>> for Test<S> {
    fn from(term: Term<S, bool>) -> Test<S> {
        match term {
            Term::Const(value) => Test::Const(value),
            Term::Fact(read) => Test::Flag(read, true),
            Term::Expr(eval) => Test::Expr(eval),
            Term::Over(get, window) => Test::Expr(Box::new(move |s| get(s, window).ok_or(Stop::Unknown))),
        }
    }
}

/// `&&` over its operands.
pub(crate) fn all<S>(tests: Vec<Test<S>>) -> Test<S> {
    let mut row = Vec::with_capacity(tests.len());
    for test in tests {
        match test {
            Test::All(inner) => row.extend(inner),
            test => row.push(test),
        }
    }
    folded(row, true).unwrap_or_else(|tests| Test::All(tests.into_boxed_slice()))
}

/// `||` over its operands.
pub(crate) fn any<S>(tests: Vec<Test<S>>) -> Test<S> {
    let mut row = Vec::with_capacity(tests.len());
    for test in tests {
        match test {
            Test::Any(inner) => row.extend(inner),
            test => row.push(test),
        }
    }
    folded(row, false).unwrap_or_else(|tests| Test::Any(tests.into_boxed_slice()))
}

/// Operands without those that change nothing and those never reached; the only one, if one is left. `neutral`: the
/// value that goes on to the next operand.
fn folded<S>(operands: Vec<Test<S>>, neutral: bool) -> Result<Test<S>, Vec<Test<S>>> {
    let mut tests = Vec::with_capacity(operands.len());
    for test in operands {
        match test {
            Test::Const(value) if value == neutral => {}
            Test::Const(_) => {
                tests.push(test);
                break;
            }
            test => tests.push(test),
        }
    }
    match tests.len() {
        0 => Ok(Test::Const(neutral)),
        1 => tests.pop().ok_or_else(Vec::new),
        _ => Err(tests),
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

    /// With its sides exchanged.
    fn turned(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            same => same,
        }
    }
}

/// `low <= read <= high`; no number does if the ends are the wrong way round.
pub(crate) fn within<S>(read: Read<S, i64>, low: i64, high: i64) -> Test<S> {
    if low > high {
        return Test::Within { read, low: 0, span: u64::MAX, inside: false };
    }
    Test::Within { read, low, span: high.wrapping_sub(low).cast_unsigned(), inside: true }
}

/// `left op right` of integers.
pub(crate) fn compare_ints<S: Subject>(op: Comparison, left: Term<S, i64>, right: Term<S, i64>) -> Test<S> {
    match (left, right) {
        (Term::Const(c), Term::Fact(read)) => compare_ints(op.turned(), Term::Fact(read), Term::Const(c)),
        (Term::Fact(read), Term::Const(c)) => match op {
            Comparison::Equal => within(read, c, c),
            Comparison::NotEqual => within(read, c, c).not(),
            Comparison::LessOrEqual => within(read, i64::MIN, c),
            Comparison::Greater => within(read, i64::MIN, c).not(),
            Comparison::GreaterOrEqual => within(read, c, i64::MAX),
            Comparison::Less => within(read, c, i64::MAX).not(),
        },
        (left, right) => compare(op, left, right),
    }
}

/// `left op right` of any values that can be compared exactly.
pub(crate) fn compare<S: Subject, T>(op: Comparison, left: Term<S, T>, right: Term<S, T>) -> Test<S>
where
    T: Copy + PartialOrd + Send + Sync + 'static,
{
    Test::from(match op {
        Comparison::Equal => binary(left, right, |a, b| Ok(a == b)),
        Comparison::NotEqual => binary(left, right, |a, b| Ok(a != b)),
        Comparison::Less => binary(left, right, |a, b| Ok(a < b)),
        Comparison::LessOrEqual => binary(left, right, |a, b| Ok(a <= b)),
        Comparison::Greater => binary(left, right, |a, b| Ok(a > b)),
        Comparison::GreaterOrEqual => binary(left, right, |a, b| Ok(a >= b)),
    })
}

/// `left == right`, or `!=`, of truths: both are evaluated.
pub(crate) fn same<S: Subject>(op: Comparison, left: Test<S>, right: Test<S>) -> Test<S> {
    let equal = match (left, right) {
        (Test::Const(value), test) | (test, Test::Const(value)) => match value {
            true => test,
            false => test.not(),
        },
        (left, right) => {
            let (left, right) = (Row::from(left), Row::from(right));
            Test::Expr(Box::new(move |s| Ok(left.eval(s)? == right.eval(s)?)))
        }
    };
    if op == Comparison::Equal { equal } else { equal.not() }
}

/// Compares floats as rule bodies do: those closer than one part in 2^52 of the larger are equal.
pub(crate) fn compare_floats<S: Subject>(op: Comparison, left: Term<S, f64>, right: Term<S, f64>) -> Test<S> {
    Test::from(match op {
        Comparison::Equal => binary(left, right, |a, b| Ok(apart(a, b).abs() <= f64::EPSILON)),
        Comparison::NotEqual => binary(left, right, |a, b| Ok(apart(a, b).abs() > f64::EPSILON)),
        Comparison::Less => binary(left, right, |a, b| Ok(is_less(a, b))),
        Comparison::LessOrEqual => binary(left, right, |a, b| Ok(is_at_most(a, b))),
        Comparison::Greater => binary(left, right, |a, b| Ok(is_less(b, a))),
        Comparison::GreaterOrEqual => binary(left, right, |a, b| Ok(is_at_most(b, a))),
    })
}

pub(crate) fn is_less(a: f64, b: f64) -> bool {
    apart(b, a) > f64::EPSILON
}

pub(crate) fn is_at_most(a: f64, b: f64) -> bool {
    apart(b, a) > -f64::EPSILON
}

pub(crate) fn is_equal(a: f64, b: f64) -> bool {
    apart(a, b).abs() <= f64::EPSILON
}

/// How much `a` exceeds `b`, as a part of the larger; itself where one of them is 0.
fn apart(a: f64, b: f64) -> f64 {
    let larger = if a * b == 0.0 { 1.0 } else { a.abs().max(b.abs()) };
    (a - b) / larger
}
