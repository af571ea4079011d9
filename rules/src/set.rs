//! A loaded set of rules: what workers and the judge ask "does any rule match this?".
//!
//! Built on the thread that loads rules, then shared; matching runs on workers (flows) and on the judge
//! (hosts, services, the link) and neither allocates, locks nor touches Rhai. The hits go to the judge, which runs
//! the bodies ([`crate::body::Bodies`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{AST, Dynamic};

use crate::counters::RuleCounters;
use crate::error::LoadError;
use crate::event::{Event, EventSet};
use crate::facts::table::Subject;
use crate::facts::{CountSet, FlowFacts, HostFacts, LinkFacts, Parts, ServiceFacts};
pub use crate::hits::Hits;
use crate::lower::row::Row;
use crate::lower::test::Test;
use crate::lower::types::{Key, Stop};
pub use crate::meta::{Override, RuleMeta, Scope, SourceFile};

use crate::waiting::Waiting;
use crate::watch::{self, Watch};

/// Rules in force at most. A hit names its rule in 16 bits, of which a run that is given other rules while it goes on
/// needs some more.
pub const MAX_RULES: usize = 16_384;

/// A lowered condition, by the snapshot it reads.
pub(crate) enum Guard {
    Flow(Test<FlowFacts>),
    Host(Test<HostFacts>),
    Service(Test<ServiceFacts>),
    Link(Test<LinkFacts>),
}

/// A rule's body, as the judge runs it.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) ast: AST,
    pub(crate) params: Arc<BTreeMap<String, Dynamic>>,
}

/// A guard and the index of its rule.
pub(crate) struct Guarded<S> {
    pub(crate) rule: u16,
    pub(crate) guard: Row<S>,
}

/// A loaded set of rules; immutable but for the counters and switches.
///
/// A rule's number is its index in [`RuleSet::rules`]. A set loaded after another keeps the numbers of rules with the
/// same name, so that what was noted under a number before still means the same.
pub struct RuleSet {
    rules: Vec<RuleMeta>,
    /// None for a rule that is not in force.
    bodies: Vec<Option<Body>>,
    numbers: BTreeMap<String, u16>,
    flow: Vec<Guarded<FlowFacts>>,
    /// For each event, which of `flow` wait for it.
    flow_by_event: [Waiting; Event::ALL.len()],
    asks_ordinary_syn_acks: bool,
    /// For each event, what all that wait for it at any port read in any case.
    read_first: [Parts; Event::ALL.len()],
    host: Vec<Guarded<HostFacts>>,
    service: Vec<Guarded<ServiceFacts>>,
    link: Vec<Guarded<LinkFacts>>,
    counters: Vec<Arc<RuleCounters>>,
    hash: Arc<str>,
    generation: u32,
    watch: Option<Arc<Watch>>,
}

impl RuleSet {
    /// Loads rule files, with overrides of their parameters.
    ///
    /// # Errors
    /// All mistakes of all files and overrides, with file, line, column and what to write instead.
    pub fn load(files: &[SourceFile], overrides: &[Override]) -> Result<RuleSet, Vec<LoadError>> {
        RuleSet::load_after(None, files, overrides)
    }

    /// Loads the set that follows `previous`: of the next generation, with the numbers and counters of rules that
    /// keep their names.
    ///
    /// # Errors
    /// As [`RuleSet::load`]; also if one run would have known more names than there are numbers.
    pub fn load_after(
        previous: Option<&RuleSet>,
        files: &[SourceFile],
        overrides: &[Override],
    ) -> Result<RuleSet, Vec<LoadError>> {
        crate::load::load(previous, files, overrides)
    }

    /// A set with no rule in force, only those that `previous` knew.
    pub(crate) fn begun(hash: String, previous: Option<&RuleSet>) -> RuleSet {
        let known = previous.map_or(&[][..], |set| &set.rules);
        RuleSet {
            rules: known.iter().map(|meta| RuleMeta { in_force: false, ..meta.clone() }).collect(),
            bodies: known.iter().map(|_| None).collect(),
            numbers: previous.map(|set| set.numbers.clone()).unwrap_or_default(),
            flow: Vec::new(),
            flow_by_event: Default::default(),
            asks_ordinary_syn_acks: false,
            read_first: [Parts::HAND; Event::ALL.len()],
            host: Vec::new(),
            service: Vec::new(),
            link: Vec::new(),
            counters: previous.map(|set| set.counters.clone()).unwrap_or_default(),
            hash: hash.into(),
            generation: previous.map_or(1, |set| set.generation.saturating_add(1)),
            watch: None,
        }
    }

    /// Adds a rule; false if no number is left for it.
    pub(crate) fn add(&mut self, meta: RuleMeta, guard: Guard, body: Body) -> bool {
        let known = self.numbers.get(&meta.name).copied();
        let Some(rule) = known.or_else(|| u16::try_from(self.rules.len()).ok()) else { return false };
        match guard {
            // Its parameters have switched it off.
            Guard::Flow(Test::Const(false))
            | Guard::Host(Test::Const(false))
            | Guard::Service(Test::Const(false))
            | Guard::Link(Test::Const(false)) => {}
            Guard::Flow(guard) => {
                let ports = guard.ports();
                let first = if ports.is_none() { guard.first_read() } else { Parts::HAND };
                for event in meta.events.iter() {
                    self.flow_by_event[event as usize].add(self.flow.len() as u16, ports.as_deref());
                    let read = &mut self.read_first[event as usize];
                    *read = read.with(first);
                }
                let guard = Row::from(guard);
                self.asks_ordinary_syn_acks |=
                    meta.events.contains(Event::SynAck) && guard.can_hold(of_ordinary_syn_ack);
                self.flow.push(Guarded { rule, guard });
            }
            Guard::Host(guard) => self.host.push(Guarded { rule, guard: guard.into() }),
            Guard::Service(guard) => self.service.push(Guarded { rule, guard: guard.into() }),
            Guard::Link(guard) => self.link.push(Guarded { rule, guard: guard.into() }),
        }
        let index = usize::from(rule);
        if index < self.rules.len() {
            self.rules[index] = meta;
            self.bodies[index] = Some(body);
        } else {
            self.numbers.insert(meta.name.clone(), rule);
            self.rules.push(meta);
            self.bodies.push(Some(body));
            self.counters.push(Arc::default());
        }
        true
    }

    pub(crate) fn body(&self, rule: u16) -> Option<(&RuleMeta, &Body)> {
        self.rules.get(usize::from(rule)).zip(self.bodies.get(usize::from(rule))?.as_ref())
    }

    /// The same rules, each question and each run of a body counted and timed: for trying rules out, as it costs more.
    pub fn watched(mut self) -> RuleSet {
        let watch = Arc::new(Watch::new(self.rules.len()));
        watch::wrap(&mut self.flow, &self.rules, &watch);
        watch::wrap(&mut self.host, &self.rules, &watch);
        watch::wrap(&mut self.service, &self.rules, &watch);
        watch::wrap(&mut self.link, &self.rules, &watch);
        // Who tries a rule out wants to see what it does.
        self.rules.iter_mut().for_each(|rule| rule.shadow = false);
        // Every rule is asked about everything it waits for, so that it shows where its condition stops.
        let mut by_event: [Waiting; Event::ALL.len()] = Default::default();
        for (place, guarded) in (0..=u16::MAX).zip(&self.flow) {
            let Some(meta) = self.rules.get(usize::from(guarded.rule)) else { continue };
            meta.events.iter().for_each(|event| by_event[event as usize].add(place, None));
        }
        RuleSet { watch: Some(watch), flow_by_event: by_event, asks_ordinary_syn_acks: true, ..self }
    }

    /// What was counted and timed, if it is.
    pub fn watch(&self) -> Option<&Watch> {
        self.watch.as_deref()
    }

    /// All rules, in the order of their numbers, those that are no more in force among them.
    pub fn rules(&self) -> &[RuleMeta] {
        &self.rules
    }

    /// The rules in force, with their numbers.
    pub fn in_force(&self) -> impl Iterator<Item = (u16, &RuleMeta)> {
        (0..=u16::MAX).zip(&self.rules).filter(|(_, meta)| meta.in_force)
    }

    /// The number that the rule of this name has, or had while it was in force.
    pub fn number(&self, name: &str) -> Option<u16> {
        self.numbers.get(name).copied()
    }

    /// What the rule has done so far; `None` if there is none of this number.
    pub fn counters(&self, rule: u16) -> Option<&RuleCounters> {
        self.counters.get(usize::from(rule)).map(Arc::as_ref)
    }

    /// SHA-256 of the files' contents and the parameters in effect, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The same, to be kept longer than the set.
    pub fn shared_hash(&self) -> Arc<str> {
        Arc::clone(&self.hash)
    }

    /// How many sets were loaded one after the other, from 1.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The events that any flow rule waits for.
    pub fn flow_events(&self) -> EventSet {
        let waited = Event::ALL.into_iter().filter(|event| !self.flow_by_event[*event as usize].is_empty());
        waited.fold(EventSet::EMPTY, EventSet::with)
    }

    /// Whether some rule can match on `syn_ack` when the answer is an ordinary one: one SYN, which does not offer ECN, and
    /// its first SYN-ACK. If none can, it need not be asked of each connection.
    pub fn asks_ordinary_syn_acks(&self) -> bool {
        self.asks_ordinary_syn_acks
    }

    /// Rules that wait for one event, at most.
    pub fn most_on_an_event(&self) -> usize {
        self.flow_by_event.iter().map(Waiting::most).max().unwrap_or(0)
    }

    /// What rules of this scope read of the counts kept for each host or service.
    pub fn counts_read(&self, scope: Scope) -> CountSet {
        let rules = self.rules.iter().filter(|rule| rule.in_force && rule.scope == scope);
        rules.fold(CountSet::EMPTY, |read, rule| read.union(rule.counts))
    }

    /// Likewise, over the shortest window: it should be exact, so nothing of it may be told late.
    pub fn counts_read_over_a_second(&self, scope: Scope) -> CountSet {
        let rules = self.rules.iter().filter(|rule| rule.in_force && rule.scope == scope);
        rules.fold(CountSet::EMPTY, |read, rule| read.union(rule.second))
    }

    /// Adds to `hits` the flow rules that wait for the event and whose condition holds.
    #[inline]
    pub fn match_flow(&self, event: Event, facts: &FlowFacts, hits: &mut Hits) {
        self.flow_by_event[event as usize].each(facts.dport, |index| {
            self.ask(&self.flow[usize::from(index)], facts, hits);
        });
    }

    /// Likewise, of facts that are not all there: `gather` gets the parts that a condition lacks, and fills them in.
    #[inline]
    pub fn match_flow_gathering(
        &self,
        event: Event,
        facts: &mut FlowFacts,
        hits: &mut Hits,
        mut gather: impl FnMut(&mut FlowFacts, Parts),
    ) {
        let first = self.read_first[event as usize];
        if !facts.have.cover(first) {
            gather(facts, first.without(facts.have));
            facts.have = facts.have.with(first);
        }
        self.flow_by_event[event as usize].each(facts.dport, |index| {
            let guarded = &self.flow[usize::from(index)];
            while let Some(missing) = self.ask(guarded, facts, hits) {
                gather(facts, missing.without(facts.have));
                facts.have = facts.have.with(missing);
            }
        });
    }

    /// Likewise, and notes what each condition takes by a clock of ticks.
    #[cold]
    pub fn match_flow_timed(
        &self,
        event: Event,
        facts: &mut FlowFacts,
        hits: &mut Hits,
        mut gather: impl FnMut(&mut FlowFacts, Parts),
        clock: impl Fn() -> u64,
    ) {
        self.flow_by_event[event as usize].each(facts.dport, |index| {
            let guarded = &self.flow[usize::from(index)];
            let begun = clock();
            while let Some(missing) = self.ask(guarded, facts, hits) {
                gather(facts, missing.without(facts.have));
                facts.have = facts.have.with(missing);
            }
            self.counters[usize::from(guarded.rule)].sample(clock().saturating_sub(begun));
        });
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

    /// Adds the rule to `hits` if its condition holds; gives what has to be gathered before it can be said.
    #[inline]
    fn ask<S: Subject>(&self, guarded: &Guarded<S>, facts: &S, hits: &mut Hits) -> Option<Parts> {
        match guarded.guard.eval(facts) {
            Ok(true) if self.is_off(guarded.rule) => {}
            Ok(true) => hits.push(guarded.rule),
            Ok(false) | Err(Stop::Unknown) => {}
            Err(Stop::Fault) => self.counters[usize::from(guarded.rule)].count_fault(),
            Err(Stop::Missing(parts)) => return Some(parts),
        }
        None
    }

    /// From now on the rule matches nothing, or again what its condition says; in all sets that know it.
    pub fn switch(&self, rule: u16, off: bool) {
        if let Some(counters) = self.counters(rule) {
            counters.switch(off);
        }
    }

    #[inline]
    pub fn is_off(&self, rule: u16) -> bool {
        self.counters(rule).is_some_and(RuleCounters::is_off)
    }

    /// How often the rule's condition overflowed or divided by zero, and so did not match. 0 for a rule
    /// that does not exist.
    pub fn guard_faults(&self, rule: u16) -> u64 {
        self.counters(rule).map_or(0, RuleCounters::faults)
    }
}

/// What is known of an ordinary SYN-ACK's handshake.
fn of_ordinary_syn_ack(key: Key) -> Option<i64> {
    match key {
        Key::Syns | Key::SynAcks => Some(1),
        Key::EcnSyns | Key::LateSynAcks => Some(0),
        Key::No | Key::Dport => None,
    }
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet")
            .field("hash", &self.hash)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clause::Clauses;

    fn add(set: &mut RuleSet, name: String) -> bool {
        let meta = RuleMeta {
            name,
            file: String::new(),
            line: 0,
            events: EventSet::EMPTY.with(Event::Rst),
            scope: Scope::Flow,
            holds: false,
            counts: CountSet::EMPTY,
            second: CountSet::EMPTY,
            severity: None,
            shadow: false,
            sample: 1,
            enabled: true,
            params: Arc::default(),
            clauses: Clauses::Flow(Arc::new([])),
            comments: Arc::default(),
            in_force: true,
            fingerprint: 0,
        };
        let body = Body { ast: AST::empty(), params: Arc::default() };
        set.add(meta, Guard::Flow(Test::Const(true)), body)
    }

    /// Whether a rule with this condition is asked of ordinary SYN-ACKs.
    fn asks(header: &str) -> bool {
        let text = format!("param wanted = 2; rule \"r\" on {header} then {{ incident(\"info\", `x`); }}");
        let file = SourceFile { name: "t.rhai".into(), text };
        RuleSet::load(&[file], &[]).expect("it is right").asks_ordinary_syn_acks()
    }

    #[test]
    fn who_cares_for_no_ordinary_syn_ack_is_not_asked_about_it() {
        for condition in [
            "flow.syn_acks > 1",
            "flow.syns == 0",
            "flow.late_syn_acks >= wanted || (flow.late_syn_acks > 0 && flow.orig.mss / flow.orig.wscale > 1)",
            "!(flow.syns == 1 && flow.syn_acks == 1)",
            "flow.dport == 443 && flow.ecn_syns in [1, 2]",
            "flow.established && flow.syns > wanted",
        ] {
            assert!(!asks(&format!("syn_ack when {condition}")), "{condition}");
        }
        assert!(!asks("established") && !asks("rst when flow.syns == 1"));
        for condition in [
            "flow.syn_acks == 1",
            "flow.ecn_syns > 0 || flow.orig.mss < 500",
            "flow.syns < wanted && flow.dport == 443",
            // It may fault, which is counted.
            "flow.orig.mss / flow.orig.wscale > 1 && flow.syns > 1",
            "flow.syns * wanted > 9",
        ] {
            assert!(asks(&format!("syn_ack when {condition}")), "{condition}");
        }
        assert!(asks("syn_ack") && asks("rst, syn_ack when flow.syns == 1"));
        let shipped = RuleSet::load(&crate::library::library(), &[]).expect("they are right");
        assert!(!shipped.asks_ordinary_syn_acks() && shipped.watched().asks_ordinary_syn_acks());
    }

    #[test]
    fn a_name_too_many_finds_no_number_and_one_that_was_known_keeps_its_own() {
        let mut first = RuleSet::begun(String::new(), None);
        assert!((0..=u16::MAX).all(|n| add(&mut first, n.to_string())));
        assert!(!add(&mut first, "new".to_owned()));
        let mut second = RuleSet::begun(String::new(), Some(&first));
        assert!(!add(&mut second, "new".to_owned()) && add(&mut second, "65535".to_owned()));
        assert_eq!((second.in_force().count(), second.number("65535")), (1, Some(u16::MAX)));
    }
}
