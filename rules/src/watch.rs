//! What each rule is asked, what it answers and what it costs: for trying rules out, never on a live box.
//!
//! The guards of a watched set are wrapped, so that an ordinary set pays nothing. The counters are read after the run.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clause::{Because, Clause, Clauses, stops_at};
use crate::facts::table::Subject;
use crate::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use crate::lower::row::Row;
use crate::lower::test::Test;
use crate::lower::types::Stop;
use crate::set::{Guarded, RuleMeta};

/// One question in so many is timed.
const TIMED: u64 = 64;
/// A guard takes less than the clock does: it is asked this often for one look at it.
const REPEATS: u32 = 32;

/// What was seen of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// How often the condition was asked: once for each event, or for each host, service or link in a tick.
    pub asked: u64,
    pub matched: u64,
    /// It reached a fact that is not known.
    pub unknown: u64,
    /// It overflowed or divided by zero.
    pub faults: u64,
    /// What one question costs, in picoseconds, and how many were timed.
    pub guard_ps: u64,
    pub timed: u64,
    /// Runs of the body and what all of them took, in nanoseconds.
    pub runs: u64,
    pub body_ns: u64,
}

/// An operand that kept a condition from holding.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopped {
    /// The operand, and what it saw the first time.
    pub because: Because,
    /// How often it was the first that did not hold, and how often of these because a fact was not known.
    pub times: u64,
    pub unknown: u64,
}

/// Of whom and when the condition was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moment {
    now_ns: u64,
    ends: [Option<(IpAddr, u16)>; 2],
}

#[derive(Debug, Default)]
struct Counters {
    last: Mutex<(Moment, u64)>,
    asked: AtomicU64,
    matched: AtomicU64,
    unknown: AtomicU64,
    faults: AtomicU64,
    guard_ps: AtomicU64,
    timed: AtomicU64,
    runs: AtomicU64,
    body_ns: AtomicU64,
    /// By operand.
    stopped: Mutex<BTreeMap<usize, Stopped>>,
}

/// The counters of a watched set, by rule.
#[derive(Debug)]
pub struct Watch {
    rules: Box<[Counters]>,
}

impl Watch {
    pub(crate) fn new(rules: usize) -> Watch {
        Watch { rules: (0..rules).map(|_| Counters::default()).collect() }
    }

    pub(crate) fn ran(&self, rule: u16, took: Duration) {
        if let Some(counters) = self.rules.get(usize::from(rule)) {
            add(&counters.runs, 1);
            add(&counters.body_ns, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// The operands that kept a rule's condition from holding, in the order they are written.
    pub fn stopped(&self, rule: u16) -> Vec<Stopped> {
        let Some(counters) = self.rules.get(usize::from(rule)) else { return Vec::new() };
        let stopped = counters.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.values().cloned().collect()
    }

    /// What was seen of a rule.
    pub fn of(&self, rule: u16) -> Watched {
        let Some(counters) = self.rules.get(usize::from(rule)) else { return Watched::default() };
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Watched {
            asked: get(&counters.asked),
            matched: get(&counters.matched),
            unknown: get(&counters.unknown),
            faults: get(&counters.faults),
            guard_ps: get(&counters.guard_ps).checked_div(get(&counters.timed)).unwrap_or(0),
            timed: get(&counters.timed),
            runs: get(&counters.runs),
            body_ns: get(&counters.body_ns),
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// A snapshot that tells of whom and when it is.
pub(crate) trait Timed: Subject {
    /// A rule's operands, if it is about such a snapshot.
    fn clauses(clauses: &Clauses) -> Option<&Arc<[Clause<Self>]>>;
    fn now_ns(&self) -> u64;
    fn ends(&self) -> [Option<(IpAddr, u16)>; 2];
}

impl Timed for FlowFacts {
    fn clauses(clauses: &Clauses) -> Option<&Arc<[Clause<FlowFacts>]>> {
        if let Clauses::Flow(clauses) = clauses { Some(clauses) } else { None }
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn ends(&self) -> [Option<(IpAddr, u16)>; 2] {
        [Some((self.src, self.sport)), Some((self.dst, self.dport))]
    }
}

impl Timed for HostFacts {
    fn clauses(clauses: &Clauses) -> Option<&Arc<[Clause<HostFacts>]>> {
        if let Clauses::Host(clauses) = clauses { Some(clauses) } else { None }
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn ends(&self) -> [Option<(IpAddr, u16)>; 2] {
        [Some((self.addr, 0)), None]
    }
}

impl Timed for ServiceFacts {
    fn clauses(clauses: &Clauses) -> Option<&Arc<[Clause<ServiceFacts>]>> {
        if let Clauses::Service(clauses) = clauses { Some(clauses) } else { None }
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn ends(&self) -> [Option<(IpAddr, u16)>; 2] {
        [Some((self.addr, self.port)), None]
    }
}

impl Timed for LinkFacts {
    fn clauses(clauses: &Clauses) -> Option<&Arc<[Clause<LinkFacts>]>> {
        if let Clauses::Link(clauses) = clauses { Some(clauses) } else { None }
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn ends(&self) -> [Option<(IpAddr, u16)>; 2] {
        [None, None]
    }
}

impl Counters {
    /// What is at hand of a flow has no time: if that is not enough to say no, the condition is asked again about the
    /// same event. And the judge asks again and again about one host in one tick, to know what it is that matches.
    ///
    /// False if this question was counted before.
    fn count<S: Timed>(&self, subject: &S, answer: Result<bool, Stop>, is_flow: bool) -> bool {
        let moment = Moment { now_ns: subject.now_ns(), ends: subject.ends() };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, waiting) = *last;
        let at_hand = is_flow && moment.now_ns == 0;
        let again = if at_hand {
            false
        } else if is_flow {
            before.ends == moment.ends && waiting > 0
        } else {
            before == moment && waiting > 0
        };
        let waiting = match (is_flow, at_hand, again) {
            (true, true, _) if before.ends == moment.ends => waiting + 1,
            (true, true, _) | (false, ..) => 1,
            (true, false, true) => waiting - 1,
            (true, false, false) => 0,
        };
        *last = (moment, waiting);
        drop(last);
        if !again {
            add(&self.asked, 1);
        }
        match answer {
            // Asked again about all there is.
            Ok(true) if at_hand => {}
            _ if again && !is_flow => {}
            Ok(true) => add(&self.matched, 1),
            Ok(false) => {}
            Err(_) if again => {}
            Err(Stop::Unknown) => add(&self.unknown, 1),
            Err(Stop::Fault) => add(&self.faults, 1),
            Err(Stop::Missing(_)) => {}
        }
        !again
    }

    fn stopped<S: Subject>(&self, clauses: &[Clause<S>], subject: &S) {
        let Some((at, stop)) = stops_at(clauses, subject) else { return };
        let Some(clause) = clauses.get(at) else { return };
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = stopped.entry(at).or_insert_with(|| Stopped {
            because: clause.because(subject),
            times: 0,
            unknown: 0,
        });
        entry.times += 1;
        entry.unknown += u64::from(stop == Some(Stop::Unknown));
    }

    fn time<S: Subject>(&self, guard: &Row<S>, subject: &S) {
        let started = Instant::now();
        for _ in 0..REPEATS {
            let _ = black_box(guard.eval(black_box(subject)));
        }
        let picoseconds = started.elapsed().as_nanos() * 1000 / u128::from(REPEATS);
        add(&self.guard_ps, u64::try_from(picoseconds).unwrap_or(0));
        add(&self.timed, 1);
    }
}

/// Puts the counting around each guard.
pub(crate) fn wrap<S: Timed>(guards: &mut [Guarded<S>], rules: &[RuleMeta], watch: &Arc<Watch>) {
    let is_flow = std::any::TypeId::of::<S>() == std::any::TypeId::of::<FlowFacts>();
    for guarded in guards {
        let (watch, rule) = (Arc::clone(watch), usize::from(guarded.rule));
        let clauses = rules.get(rule).and_then(|meta| S::clauses(&meta.clauses)).cloned();
        let guard = std::mem::replace(&mut guarded.guard, Test::Const(false).into());
        guarded.guard = Row::from(Test::Expr(Box::new(move |subject: &S| {
            let answer = guard.eval(subject);
            if matches!(answer, Err(Stop::Missing(_))) {
                // It is asked again once that is gathered.
                return answer;
            }
            if let Some(counters) = watch.rules.get(rule) {
                if counters.asked.load(Ordering::Relaxed) % TIMED == 0 {
                    counters.time(&guard, subject);
                }
                let first = counters.count(subject, answer, is_flow);
                if let Some(clauses) = clauses.as_ref().filter(|_| first && answer != Ok(true)) {
                    counters.stopped(clauses, subject);
                }
            }
            answer
        })));
    }
}
