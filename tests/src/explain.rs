//! What `why` needs to show the inside of a replay without being inside: packets one at a time, rules that see
//! every event, guards taken apart into their conditions, facts by name.
//!
//! All of it works from outside: the worker runs as ever, with observer rules riding along. What it can't
//! show is in `why`'s help.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::source::{Batch, Descriptor, Interface, Poll, Source};
use rules::facts::FlowFacts;
use rules::facts::table::{Get, Subject};
use rules::{Event, Hits, Override, RuleSet, SourceFile};

/// Hands a source's packets out one to a batch, so that each step of a worker is one packet.
pub struct OneByOne<S: Source> {
    source: S,
    batch: Batch,
    next: usize,
    /// The packet handed out last, until the next poll.
    pub last: Option<Descriptor>,
}

impl<S: Source> OneByOne<S> {
    pub fn new(source: S) -> OneByOne<S> {
        OneByOne { source, batch: Batch::new(), next: 0, last: None }
    }

    pub fn inner(&self) -> &S {
        &self.source
    }
}

impl<S: Source> Source for OneByOne<S> {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        self.last = None;
        if self.next == self.batch.packets.len() {
            self.source.release(&mut self.batch);
            self.next = 0;
            let poll = self.source.poll(&mut self.batch);
            if poll != Poll::Packets {
                return poll;
            }
        }
        let packet = self.batch.packets[self.next];
        self.next += 1;
        self.last = Some(packet);
        batch.packets.push(packet);
        batch.watermark = packet.ts;
        Poll::Packets
    }

    fn bytes(&self, packet: &Descriptor) -> &[u8] {
        self.source.bytes(packet)
    }

    fn release(&mut self, batch: &mut Batch) {
        batch.packets.clear();
    }

    fn interfaces(&self) -> &[Interface] {
        self.source.interfaces()
    }
}

/// What observer rules' names begin with.
const OBSERVER: &str = "why_";

/// Sees every event of every flow. A rule hears of a flow's silence once, so three of them listen for it.
const OBSERVERS: &str = r#"
rule "why_sees" on syn, syn_ack, established, rst, retransmission, zero_window, keepalive, icmp_too_big,
    icmp_unreachable, after_rst, stalled, challenge_ack, close then { }
rule "why_waits_1" on syn_timeout then { }
rule "why_waits_2" on syn_timeout when flow.syn_age_ms >= 2000 then { }
rule "why_waits_3" on syn_timeout when flow.syn_age_ms >= 3000 then { }
"#;

/// Rules with observers after them: indexes of the others stay as they are.
pub fn with_observers(files: &[SourceFile], overrides: &[Override]) -> Arc<RuleSet> {
    let observers = SourceFile { name: "\u{10ffff}why.rhai".to_owned(), text: OBSERVERS.to_owned() };
    let files: Vec<SourceFile> = files.iter().cloned().chain([observers]).collect();
    crate::run::load(&files, overrides)
}

pub fn is_observer(name: &str) -> bool {
    name.starts_with(OBSERVER)
}

/// A guard taken apart: the conditions that `&&` joins, each loaded as a rule of its own.
pub struct Guards {
    set: Option<RuleSet>,
    /// By rule: the text of its conditions, in order.
    conditions: BTreeMap<String, Vec<String>>,
}

/// What a guard said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Matched,
    /// The first condition that is false or unknown; `None` if the guard could not be taken apart.
    Failed(Option<String>),
}

impl Guards {
    pub fn new(files: &[SourceFile], overrides: &[Override]) -> Guards {
        let mut conditions = BTreeMap::new();
        let mut apart = files.to_vec();
        for file in &mut apart {
            // What a tick asks is not of a flow, and a condition of parameters alone would not say of what.
            let of_flows = rules_of(&file.text).into_iter().filter(|(_, events, _)| events != "tick");
            for (name, events, guard) in of_flows.collect::<Vec<_>>() {
                let parts = conjuncts(&guard);
                for (i, part) in parts.iter().enumerate() {
                    file.text
                        .push_str(&format!("\nrule \"{name}__{i}\" on {events} when {part} then {{ }}\n"));
                }
                conditions.insert(name, parts);
            }
        }
        // Should a rule be written so that this cuts it wrongly, the plain set still says yes or no.
        let set = RuleSet::load(&apart, overrides).or_else(|_| {
            conditions.clear();
            RuleSet::load(files, overrides)
        });
        Guards { set: set.ok(), conditions }
    }

    /// What the guards that wait for `event` say of these facts, by rule.
    pub fn ask(&self, event: Event, facts: &FlowFacts) -> Vec<(String, Answer)> {
        let Some(set) = &self.set else { return Vec::new() };
        let mut hits = Hits::new();
        set.match_flow(event, facts, &mut hits);
        let name = |rule: u16| set.rules()[usize::from(rule)].name.as_str();
        let matched: Vec<&str> = hits.as_slice().iter().map(|&rule| name(rule)).collect();
        let waiting =
            set.rules().iter().filter(|rule| rule.events.contains(event) && !rule.name.contains("__"));
        let answer = |rule: &str| {
            if matched.contains(&rule) {
                return Answer::Matched;
            }
            let parts = self.conditions.get(rule).map_or(&[][..], Vec::as_slice);
            let failed = parts.iter().enumerate().find(|(i, _)| !matched.contains(&&*format!("{rule}__{i}")));
            Answer::Failed(failed.map(|(_, part)| part.clone()))
        };
        waiting.map(|rule| (rule.name.clone(), answer(&rule.name))).collect()
    }
}

/// Name, events and guard of each rule in a file; rules without a guard are left out.
fn rules_of(text: &str) -> Vec<(String, String, String)> {
    let plain: String =
        text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let mut found = Vec::new();
    for item in plain.split("\nrule \"").skip(1) {
        let Some((name, rest)) = item.split_once('"') else { continue };
        let head = rest.split("then").next().unwrap_or("");
        let Some((events, guard)) = head.split_once("when") else { continue };
        let events = events.trim().trim_start_matches("on").trim().to_owned();
        found.push((name.to_owned(), events, guard.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    found
}

/// The conditions that `&&` joins at the top level.
fn conjuncts(guard: &str) -> Vec<String> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in guard.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '&' if depth == 0 && guard[at..].starts_with("&&") => {
                parts.push(guard[from..at].trim().to_owned());
                from = at + 2;
            }
            // Weaker than `&&`: the guard is one condition.
            '|' if depth == 0 => return vec![guard.to_owned()],
            _ => {}
        }
    }
    parts.push(guard[from..].trim().to_owned());
    parts
}

/// Every fact of a flow by name; "unknown" where it is.
pub fn facts(flow: &FlowFacts) -> Vec<(&'static str, String)> {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let value = |get: &Get<FlowFacts>| match get {
        Get::Int(get) => shown(get(flow).map(|v| v.to_string())),
        Get::Bool(get) => shown(get(flow).map(|v| v.to_string())),
        Get::Address(get) => shown(get(flow).map(|v| v.to_string())),
        Get::Text(get) => shown(get(flow).map(|v| v.to_string())),
        Get::CountOver(_) | Get::RateOver(_) => String::new(),
    };
    FlowFacts::facts().map(|fact| (fact.path, value(&fact.get))).collect()
}

#[cfg(test)]
mod tests {
    use rules::Scope;

    use super::*;

    #[test]
    fn guards_come_apart_at_the_top_level() {
        assert_eq!(conjuncts("a && (b && c || d) && e > 1"), ["a", "(b && c || d)", "e > 1"]);
        assert_eq!(conjuncts("a && b || c"), ["a && b || c"]);
    }

    #[test]
    fn every_shipped_flow_guard_comes_apart() {
        let guards = Guards::new(&rules::library(), &[]);
        let set = guards.set.as_ref().unwrap();
        let flow_rules = || set.rules().iter().filter(|rule| rule.scope == Scope::Flow);
        let whole = flow_rules().map(|rule| rule.name.as_str()).filter(|name| !name.contains("__"));
        assert!(whole.eq(guards.conditions.keys()), "{:?}", guards.conditions.keys());
        let facts = FlowFacts { established: true, fin_seen: true, ..FlowFacts::default() };
        let answers = guards.ask(Event::Rst, &facts);
        let wanted = Answer::Failed(Some("!flow.fin_seen".to_owned()));
        assert!(answers.contains(&("rst_after_clienthello".to_owned(), wanted)), "{answers:?}");
    }
}
