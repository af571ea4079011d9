//! A loaded set of rules: what workers and the judge ask "does any rule match this?".
//!
//! Built on the thread that loads rules, then shared; matching runs on workers (flows) and on the judge
//! (hosts, services, the link) and neither allocates, locks nor touches Rhai. The hits go to the judge, which runs
//! the bodies ([`crate::body::Bodies`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rhai::{AST, Dynamic};

use crate::error::LoadError;
use crate::event::{Event, EventSet};
use crate::facts::{CountSet, FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use crate::lower::types::{Stop, Term};
use crate::verdict::Severity;

/// Rules in one set at most; a hit names its rule in 16 bits.
pub const MAX_RULES: usize = 16_384;

/// A rule file: its name as the user knows it (path) and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

/// A value for one `param`, from `--set RULE.PARAM=VALUE` or from `[rules.RULE]` of referee.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// A rule's name, or the stem of the file the parameter is in.
    pub rule: String,
    pub param: String,
    pub value: String,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Flow,
    Host,
    Service,
    /// All traffic at the capture point.
    Link,
}

impl Scope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Flow => "flow",
            Scope::Host => "host",
            Scope::Service => "service",
            Scope::Link => "link",
        }
    }
}

/// What there is to know about a rule without running it.
#[derive(Clone, Debug)]
pub struct RuleMeta {
    pub name: String,
    pub file: String,
    pub line: usize,
    pub events: EventSet,
    pub scope: Scope,
    /// The body, or a helper function it calls, can call `capture`.
    pub holds: bool,
    /// What the windowed facts it reads count.
    pub counts: CountSet,
    /// Its condition reads facts of a flow that are not at hand.
    pub gathers: bool,
    /// The header's, for incidents of which the body names none.
    pub severity: Option<Severity>,
    /// It only looks on: what it would do is counted, nothing is told, held or found.
    pub shadow: bool,
    /// It takes one flow in so many.
    pub sample: u64,
    /// Else it never matches.
    pub enabled: bool,
    /// Of its file's text and parameters: another one, and the rule may not be what it was.
    pub fingerprint: u64,
    pub(crate) comments: [String; Event::ALL.len()],
}

impl RuleMeta {
    /// Later packets can turn its verdict: it waits for those that follow a RST.
    pub const fn can_turn(&self) -> bool {
        self.events.contains(Event::AfterRst)
    }

    /// The flow is one of those it takes.
    #[inline]
    pub const fn takes(&self, flow_id: u64) -> bool {
        self.sample <= 1 || flow_id.is_multiple_of(self.sample)
    }

    /// The packet comment for a hit of this rule: "referee: rst_after_idle (rst)". Does not allocate.
    pub fn comment(&self, event: Event) -> &str {
        &self.comments[event as usize]
    }
}

/// Rules that matched, as indexes into [`RuleSet::rules`]. Reused.
#[derive(Clone, Debug)]
pub struct Hits {
    rules: Vec<u16>,
    most: usize,
    /// Hits that found no room, since the last `clear`.
    pub overflowed: u64,
}

impl Hits {
    /// Takes room as it is needed: not for a worker.
    pub const fn new() -> Hits {
        Hits { rules: Vec::new(), most: MAX_RULES, overflowed: 0 }
    }

    /// Takes all its room now, and no more later.
    pub fn with_room(most: usize) -> Hits {
        Hits { rules: Vec::with_capacity(most), most, overflowed: 0 }
    }

    pub fn clear(&mut self) {
        self.rules.clear();
        self.overflowed = 0;
    }

    pub fn push(&mut self, rule: u16) {
        match self.rules.len() < self.most {
            true => self.rules.push(rule),
            false => self.overflowed += 1,
        }
    }

    pub fn as_slice(&self) -> &[u16] {
        &self.rules
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }
}

impl Default for Hits {
    fn default() -> Self {
        Hits::new()
    }
}

/// A lowered condition, by the snapshot it reads.
pub(crate) enum Guard {
    Flow(Term<FlowFacts, bool>),
    Host(Term<HostFacts, bool>),
    Service(Term<ServiceFacts, bool>),
    Link(Term<LinkFacts, bool>),
}

/// A rule's body, as the judge runs it.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) ast: AST,
    pub(crate) params: Arc<BTreeMap<String, Dynamic>>,
}

/// A guard and the index of its rule.
struct Guarded<S> {
    rule: u16,
    guard: Term<S, bool>,
}

/// A loaded set of rules; immutable but for the fault counters and switches.
pub struct RuleSet {
    rules: Vec<RuleMeta>,
    bodies: Vec<Body>,
    flow: Vec<Guarded<FlowFacts>>,
    /// For each event, which of `flow` wait for it.
    flow_by_event: [Vec<u16>; Event::ALL.len()],
    host: Vec<Guarded<HostFacts>>,
    service: Vec<Guarded<ServiceFacts>>,
    link: Vec<Guarded<LinkFacts>>,
    faults: Vec<AtomicU64>,
    /// Rules whose bodies kept failing: they match nothing any more.
    off: Vec<AtomicBool>,
    hash: String,
}

impl RuleSet {
    /// Loads rule files, with overrides of their parameters.
    ///
    /// # Errors
    /// All mistakes of all files and overrides, with file, line, column and what to write instead.
    pub fn load(files: &[SourceFile], overrides: &[Override]) -> Result<RuleSet, Vec<LoadError>> {
        crate::load::load(files, overrides)
    }

    pub(crate) fn empty(hash: String) -> RuleSet {
        RuleSet {
            rules: Vec::new(),
            bodies: Vec::new(),
            flow: Vec::new(),
            flow_by_event: Default::default(),
            host: Vec::new(),
            service: Vec::new(),
            link: Vec::new(),
            faults: Vec::new(),
            off: Vec::new(),
            hash,
        }
    }

    /// Adds a rule. One that finds no 16-bit number left is listed but never matches; the loader refuses
    /// a set long before.
    pub(crate) fn add(&mut self, meta: RuleMeta, guard: Guard, body: Body) {
        if let Ok(rule) = u16::try_from(self.rules.len()) {
            match guard {
                // Its parameters have switched it off.
                Guard::Flow(Term::Const(false))
                | Guard::Host(Term::Const(false))
                | Guard::Service(Term::Const(false))
                | Guard::Link(Term::Const(false)) => {}
                Guard::Flow(guard) => {
                    for event in meta.events.iter() {
                        self.flow_by_event[event as usize].push(self.flow.len() as u16);
                    }
                    self.flow.push(Guarded { rule, guard });
                }
                Guard::Host(guard) => self.host.push(Guarded { rule, guard }),
                Guard::Service(guard) => self.service.push(Guarded { rule, guard }),
                Guard::Link(guard) => self.link.push(Guarded { rule, guard }),
            }
        }
        self.rules.push(meta);
        self.bodies.push(body);
        self.faults.push(AtomicU64::new(0));
        self.off.push(AtomicBool::new(false));
    }

    pub(crate) fn body(&self, rule: u16) -> Option<(&RuleMeta, &Body)> {
        self.rules.get(usize::from(rule)).zip(self.bodies.get(usize::from(rule)))
    }

    /// The rules, in the order of their indexes.
    pub fn rules(&self) -> &[RuleMeta] {
        &self.rules
    }

    /// SHA-256 of the files' contents and the parameters in effect, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The events that any flow rule waits for.
    pub fn flow_events(&self) -> EventSet {
        let waited = Event::ALL.into_iter().filter(|event| !self.flow_by_event[*event as usize].is_empty());
        waited.fold(EventSet::EMPTY, EventSet::with)
    }

    /// Rules that wait for one event, at most.
    pub fn most_on_an_event(&self) -> usize {
        self.flow_by_event.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Of these, the events on which no rule's condition reads more than what is at hand
    /// ([`crate::facts::is_at_hand`]).
    pub fn events_at_hand(&self) -> EventSet {
        let gathers = |index: &u16| {
            let rule = self.flow.get(usize::from(*index)).map(|guarded| usize::from(guarded.rule));
            rule.and_then(|rule| self.rules.get(rule)).is_none_or(|rule| rule.gathers)
        };
        let at_hand = |event: &Event| !self.flow_by_event[*event as usize].iter().any(gathers);
        self.flow_events().iter().filter(at_hand).fold(EventSet::EMPTY, EventSet::with)
    }

    /// What rules of this scope read of the counts kept for each host or service.
    pub fn counts_read(&self, scope: Scope) -> CountSet {
        let rules = self.rules.iter().filter(|rule| rule.scope == scope);
        rules.fold(CountSet::EMPTY, |read, rule| read.union(rule.counts))
    }

    /// Adds to `hits` the flow rules that wait for the event and whose condition holds.
    #[inline]
    pub fn match_flow(&self, event: Event, facts: &FlowFacts, hits: &mut Hits) {
        for &index in &self.flow_by_event[event as usize] {
            self.ask(&self.flow[usize::from(index)], facts, hits);
        }
    }

    /// Adds to `hits` the host rules whose condition holds.
    pub fn match_host(&self, facts: &HostFacts, hits: &mut Hits) {
        for guarded in &self.host {
            self.ask(guarded, facts, hits);
        }
    }

    /// Adds to `hits` the service rules whose condition holds.
    pub fn match_service(&self, facts: &ServiceFacts, hits: &mut Hits) {
        for guarded in &self.service {
            self.ask(guarded, facts, hits);
        }
    }

    /// Adds to `hits` the link rules whose condition holds.
    pub fn match_link(&self, facts: &LinkFacts, hits: &mut Hits) {
        for guarded in &self.link {
            self.ask(guarded, facts, hits);
        }
    }

    #[inline]
    fn ask<S: 'static>(&self, guarded: &Guarded<S>, facts: &S, hits: &mut Hits) {
        match guarded.guard.eval(facts) {
            Ok(true) if self.is_off(guarded.rule) => {}
            Ok(true) => hits.push(guarded.rule),
            Ok(false) | Err(Stop::Unknown) => {}
            Err(Stop::Fault) => {
                self.faults[usize::from(guarded.rule)].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// From now on the rule matches nothing, or again what its condition says.
    pub fn switch(&self, rule: u16, off: bool) {
        if let Some(switch) = self.off.get(usize::from(rule)) {
            switch.store(off, Ordering::Relaxed);
        }
    }

    #[inline]
    pub fn is_off(&self, rule: u16) -> bool {
        self.off.get(usize::from(rule)).is_some_and(|off| off.load(Ordering::Relaxed))
    }

    /// How often the rule's condition overflowed or divided by zero, and so did not match. 0 for a rule
    /// that does not exist.
    pub fn guard_faults(&self, rule: u16) -> u64 {
        self.faults.get(usize::from(rule)).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet").field("hash", &self.hash).field("rules", &self.rules).finish()
    }
}
