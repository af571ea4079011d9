//! A condition as it is asked: its predicates in a row, each with where to go on from it. One loop and no branches of its
//! own for `&&` and `||`, since it is asked for every connection.
//!
//! Built at load time; evaluated on workers and on the judge without allocating, locking or touching Rhai.

use crate::facts::table::Subject;
use crate::lower::test::Test;
use crate::lower::types::{Key, Stop};

/// Not a place in the row, but the end: the condition holds, or does not.
const HOLDS: u16 = u16::MAX;
const FAILS: u16 = u16::MAX - 1;

/// A predicate, and where to go on if it is false and if it is true.
struct Step<S> {
    leaf: Test<S>,
    next: [u16; 2],
}

/// A condition, ready to be asked. It has fewer predicates than nodes, of which `lower` allows no more than 4,096.
pub(crate) struct Row<S>(Box<[Step<S>]>);

impl<S: Subject> Row<S> {
    /// # Errors
    /// What the first predicate says that gives no answer; those behind it are not asked.
    #[inline]
    pub(crate) fn eval(&self, subject: &S) -> Result<bool, Stop> {
        let mut at = 0;
        while let Some(step) = self.0.get(usize::from(at)) {
            at = step.next[usize::from(step.leaf.leaf(subject)?)];
        }
        Ok(at == HOLDS)
    }

    /// False if it cannot hold where facts are what `known` says, nor fault, whatever the others are.
    pub(crate) fn can_hold(&self, known: impl Fn(Key) -> Option<i64> + Copy) -> bool {
        let mut reached = vec![false; self.0.len()];
        reached.iter_mut().take(1).for_each(|first| *first = true);
        for (at, Step { leaf, next }) in self.0.iter().enumerate() {
            if !reached[at] {
                continue;
            }
            let foreseen = leaf.foreseen(known);
            for (answer, next) in [false, true].into_iter().zip(next) {
                if foreseen.is_none_or(|value| value == answer) {
                    if *next == HOLDS || leaf.may_fault() {
                        return true;
                    }
                    // The row only goes on, never back.
                    reached.get_mut(usize::from(*next)).into_iter().for_each(|place| *place = true);
                }
            }
        }
        false
    }
}

impl<S> From<Test<S>> for Row<S> {
    fn from(test: Test<S>) -> Row<S> {
        let mut steps = Vec::with_capacity(usize::from(leaves(&test)));
        lay(test, [FAILS, HOLDS], &mut steps);
        Row(steps.into_boxed_slice())
    }
}

/// Adds a term's predicates to the row; `next`: where to go on if it is false and if it is true.
fn lay<S>(test: Test<S>, next: [u16; 2], steps: &mut Vec<Step<S>>) {
    match test {
        Test::All(tests) => lay_all(tests, next, true, steps),
        Test::Any(tests) => lay_all(tests, next, false, steps),
        Test::Not(test) => lay(*test, [next[1], next[0]], steps),
        leaf => steps.push(Step { leaf, next }),
    }
}

/// `goes_on`: the value after which the next of them is asked.
fn lay_all<S>(tests: Box<[Test<S>]>, next: [u16; 2], goes_on: bool, steps: &mut Vec<Step<S>>) {
    let last = tests.len().saturating_sub(1);
    for (n, test) in tests.into_iter().enumerate() {
        let mut own = next;
        if n < last {
            own[usize::from(goes_on)] = steps.len() as u16 + leaves(&test);
        }
        lay(test, own, steps);
    }
}

fn leaves<S>(test: &Test<S>) -> u16 {
    match test {
        Test::All(tests) | Test::Any(tests) => tests.iter().map(leaves).sum(),
        Test::Not(test) => leaves(test),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FlowFacts;
    use crate::lower::test::{all, any};
    use std::cell::RefCell;

    thread_local! {
        static ASKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    /// A predicate that notes that it was asked.
    fn leaf(name: u8, answer: Option<bool>) -> Test<FlowFacts> {
        Test::Expr(Box::new(move |_| {
            ASKED.with_borrow_mut(|asked| asked.push(name));
            answer.ok_or(Stop::Unknown)
        }))
    }

    fn asked(test: Test<FlowFacts>) -> (Option<bool>, String) {
        ASKED.take();
        let answer = Row::from(test).eval(&FlowFacts::default()).ok();
        (answer, ASKED.take().into_iter().map(char::from).collect())
    }

    #[test]
    fn each_predicate_is_asked_in_its_turn_and_no_more_than_needed() {
        let (yes, no, unknown) = (Some(true), Some(false), None);
        // a && (b || !(c && d)) && e
        let nested = |answers: [Option<bool>; 5]| {
            let [a, b, c, d, e] = answers;
            let inner = Test::Not(Box::new(all(vec![leaf(b'c', c), leaf(b'd', d)])));
            asked(all(vec![leaf(b'a', a), any(vec![leaf(b'b', b), inner]), leaf(b'e', e)]))
        };
        for (answers, expected) in [
            ([no, yes, yes, yes, yes], (no, "a")),
            ([yes, yes, yes, yes, yes], (yes, "abe")),
            ([yes, yes, yes, yes, no], (no, "abe")),
            ([yes, no, no, yes, yes], (yes, "abce")),
            ([yes, no, yes, no, no], (no, "abcde")),
            ([yes, no, yes, yes, yes], (no, "abcd")),
            ([yes, unknown, yes, yes, yes], (unknown, "ab")),
            ([yes, no, unknown, yes, yes], (unknown, "abc")),
        ] {
            let (answer, order) = nested(answers);
            assert_eq!((answer, order.as_str()), expected, "{answers:?}");
        }
        assert_eq!(asked(leaf(b'a', yes)), (yes, "a".into()));
        assert_eq!(asked(Test::Const(true)), (yes, String::new()));
        assert_eq!(asked(Test::Not(Box::new(leaf(b'a', yes)))), (no, "a".into()));
    }
}
