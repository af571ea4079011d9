//! Every shipped body with what it reads unknown: a fact the capture can't give makes no rule fail. Test code; facts are
//! hidden from bodies, one at a time and all at once, on snapshots that know as much as can be.

use std::cell::RefCell;
use std::sync::Arc;

use super::*;
use crate::cases::Blank;
use crate::cookbook::cookbook;
use crate::facts::given::{Given, give};
use crate::facts::table::{Fact, Get, Subject, Window};
use crate::library::library;
use crate::set::SourceFile;
use crate::verdict::EvidenceValue;

thread_local! {
    static HIDDEN: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Whether a body is not to know this fact.
pub(super) fn is_hidden(path: &str) -> bool {
    HIDDEN.with_borrow(|hidden| hidden.contains(&path))
}

/// Whether the fact is unknown where nothing is known.
fn can_be_unknown<S: Subject>(fact: &Fact<S>, blank: &S) -> bool {
    match fact.get {
        Get::Int(get) => get(blank).is_none(),
        Get::Bool(get) => get(blank).is_none(),
        Get::Address(get) => get(blank).is_none(),
        Get::Text(get) => get(blank).is_none(),
        Get::CountOver(get) => Window::ALL.iter().any(|window| get(blank, *window).is_none()),
        Get::RateOver(get) => Window::ALL.iter().any(|window| get(blank, *window).is_none()),
    }
}

/// Knows all that can be given: whole numbers are this one, or nearly, and whatever holds or doesn't, does or doesn't.
fn full<S: Given>(mut facts: S, number: i64, holds: bool) -> S {
    for (nth, fact) in S::facts().enumerate() {
        let value = match fact.get {
            Get::Bool(_) => EvidenceValue::Bool(holds),
            Get::Address(_) => EvidenceValue::Text("10.0.0.9".to_owned()),
            Get::Text(_) => EvidenceValue::Text("example.net".to_owned()),
            _ => EvidenceValue::Int(number + nth as i64 % 3),
        };
        let name = if fact.is_windowed() { format!("{}(10)", fact.path) } else { fact.path.to_owned() };
        // What follows from others can't be given, and small fields refuse large numbers.
        let _ = give(&mut facts, &name, &value);
    }
    facts
}

/// What the rule's file names, of what may be unknown.
fn named<S: Subject>(blank: &S, text: &str) -> Vec<&'static str> {
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    S::facts()
        .filter(|fact| can_be_unknown(fact, blank) && text.contains(last(fact.path)))
        .map(|fact| fact.path)
        .collect()
}

/// Runs the body with each of these hidden, then with all; says where it failed.
fn failures(bodies: &mut Bodies, rule: u16, snapshot: &Snapshot, names: &[&'static str]) -> Vec<String> {
    let mut failed = Vec::new();
    let each = names.iter().map(|name| vec![*name]);
    for hidden in each.chain([names.to_vec(), Vec::new()]) {
        HIDDEN.set(hidden.clone());
        if let Err(error) = bodies.run(rule, snapshot) {
            failed.push(format!("{error}, without {hidden:?}"));
        }
        HIDDEN.set(Vec::new());
    }
    failed
}

/// The rules of one folder.
fn failing(files: &[SourceFile]) -> Vec<String> {
    let set = Arc::new(RuleSet::load(files, &[]).unwrap_or_else(|errors| panic!("{errors:#?}")));
    let mut bodies = Bodies::new(Arc::clone(&set), BodyLimits::default());
    let mut failed = Vec::new();
    for (number, rule) in set.rules().iter().enumerate() {
        let text = files.iter().find(|file| file.name == rule.file).map_or("", |file| &file.text);
        for (many, holds) in [(0, false), (1, true), (2, false), (50_000, true), (50_000, false)] {
            let mut run = |snapshot: &Snapshot, names: &[&'static str]| {
                failed.extend(failures(&mut bodies, number as u16, snapshot, names));
            };
            match rule.scope {
                Scope::Flow => {
                    let facts = full(FlowFacts::default(), many, holds);
                    let names = named(&FlowFacts::default(), text);
                    for event in rule.events.iter() {
                        run(&Snapshot::Flow(&facts, event), &names);
                    }
                }
                Scope::Host => {
                    let blank = HostFacts::blank;
                    run(&Snapshot::Host(&full(blank(), many, holds)), &named(&blank(), text));
                }
                Scope::Service => {
                    let blank = ServiceFacts::blank;
                    run(&Snapshot::Service(&full(blank(), many, holds)), &named(&blank(), text));
                }
                Scope::Link => {
                    let blank = LinkFacts::blank;
                    run(&Snapshot::Link(&full(blank(), many, holds)), &named(&blank(), text));
                }
            }
        }
    }
    failed.sort();
    failed.dedup();
    failed
}

#[test]
fn no_body_fails_for_what_it_does_not_know() {
    let failed = [failing(&library()), failing(&cookbook())].concat();
    assert!(failed.is_empty(), "{} failures:\n{}", failed.len(), failed.join("\n"));
}
