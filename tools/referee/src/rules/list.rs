//! `referee rules list`: the language as the program has it (events, facts, functions), and the rules loaded.
//!
//! Main thread. Everything comes from the tables that rules are checked against; runs no rule.

use std::io::{self, Write};

use comfy_table::Table;
use dataplane::judge::because;
use rules::facts::table::{Fact, Subject};
use rules::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use rules::{Event, RuleMeta, RuleSet, Severity, docs};
use serde_json::{Value, json};

use super::load;
use crate::cli::RulesListArgs;
use crate::config::Config;
use crate::error::Failure;
use crate::term;

/// The events and facts of the language, then the rules.
///
/// # Errors
/// Usage: all that is wrong with the rules.
pub fn list(args: &RulesListArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref())?;
    let rules = load::load(args.rules.as_deref(), &config, &args.set)?;
    if args.json {
        return term::show(|out| writeln!(out, "{}", as_json(&rules)));
    }
    term::show(|out| {
        writeln!(out, "Events")?;
        let mut table = term::table();
        Event::ALL.iter().for_each(|event| {
            table.add_row([event.name(), docs::event_doc(*event)]);
        });
        rows(out, &table)?;
        facts::<FlowFacts>(out, "of a flow, on any event but tick")?;
        facts::<HostFacts>(out, "of a host, on tick")?;
        facts::<ServiceFacts>(out, "of a service, on tick")?;
        facts::<LinkFacts>(out, "of all traffic, on tick")?;
        writeln!(out, "\nFunctions of bodies")?;
        let mut table = term::table();
        docs::body_functions().for_each(|function| {
            table.add_row([function.usage, function.doc]);
        });
        rows(out, &table)?;
        writeln!(out, "\nSeverities\n  {}", Severity::ALL.map(Severity::as_str).join(", "))?;
        writeln!(out, "\nRules")?;
        loaded(out, &rules)
    })
}

fn rows(out: &mut dyn Write, table: &Table) -> io::Result<()> {
    term::lines(table).try_for_each(|line| writeln!(out, "  {line}"))
}

fn written<S: Subject>(fact: &Fact<S>) -> String {
    match fact.is_windowed() {
        true => format!("{}(window)", fact.path),
        false => fact.path.to_owned(),
    }
}

fn facts<S: Subject>(out: &mut dyn Write, what: &str) -> io::Result<()> {
    writeln!(out, "\nFacts {what}")?;
    let mut table = term::table();
    for fact in S::facts() {
        table.add_row([
            written(fact),
            fact.type_name().to_owned(),
            fact.unit.to_owned(),
            fact.doc.to_owned(),
        ]);
    }
    rows(out, &table)
}

/// "idle_ms = 10000, …"
fn params(rule: &RuleMeta) -> String {
    let params: Vec<String> = rule.params.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    params.join(", ")
}

/// The rules of a set, with the parameters in effect, and its hash.
pub fn loaded(out: &mut dyn Write, rules: &RuleSet) -> io::Result<()> {
    let mut table = term::table();
    for rule in rules.rules() {
        let events: Vec<&str> = rule.events.iter().map(Event::name).collect();
        table.add_row([
            rule.name.clone(),
            format!("{} rule on {}", rule.scope.as_str(), events.join(", ")),
            header(rule),
            params(rule),
            format!("{}:{}", rule.file, rule.line),
        ]);
    }
    rows(out, &table)?;
    writeln!(out, "hash {}", rules.hash())
}

/// What it does besides telling, and what its header says.
fn header(rule: &RuleMeta) -> String {
    let words = [
        rule.holds.then(|| "captures".to_owned()),
        rule.severity.map(|severity| severity.as_str().to_owned()),
        rule.shadow.then(|| "shadow".to_owned()),
        (rule.sample > 1).then(|| format!("1 flow in {}", rule.sample)),
        (!rule.enabled).then(|| "not enabled".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn as_json(rules: &RuleSet) -> Value {
    let events: Vec<Value> = Event::ALL
        .iter()
        .map(|event| json!({"name": event.name(), "meaning": docs::event_doc(*event)}))
        .collect();
    let mut facts = facts_json::<FlowFacts>();
    facts.extend(facts_json::<HostFacts>());
    facts.extend(facts_json::<ServiceFacts>());
    facts.extend(facts_json::<LinkFacts>());
    let functions: Vec<Value> =
        docs::body_functions().map(|f| json!({"name": f.name, "usage": f.usage, "meaning": f.doc})).collect();
    json!({
        "hash": rules.hash(),
        "events": events,
        "facts": facts,
        "functions": functions,
        "severities": Severity::ALL.map(Severity::as_str),
        "rules": rules.rules().iter().map(rule_json).collect::<Vec<_>>(),
    })
}

fn facts_json<S: Subject>() -> Vec<Value> {
    let as_json = |fact: &Fact<S>| {
        json!({
            "name": fact.path, "of": S::ROOT, "type": fact.type_name(), "window": fact.is_windowed(),
            "unit": fact.unit, "meaning": fact.doc,
        })
    };
    S::facts().map(as_json).collect()
}

fn rule_json(rule: &RuleMeta) -> Value {
    let params: serde_json::Map<String, Value> =
        rule.params.iter().map(|(name, value)| (name.clone(), because::value(value))).collect();
    json!({
        "rule": rule.name, "file": rule.file, "line": rule.line, "scope": rule.scope.as_str(),
        "events": rule.events.iter().map(Event::name).collect::<Vec<_>>(),
        "captures": rule.holds, "params": params, "severity": rule.severity.map(Severity::as_str),
        "shadow": rule.shadow, "sample": rule.sample, "enabled": rule.enabled,
    })
}
