//! `referee rules check`, `rules list` and `config check`: what would be loaded, and all that is wrong with it.
//!
//! Main thread. Loads and prints; runs no rule and touches no packet.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use comfy_table::Table;
use rules::facts::table::{Fact, Subject};
use rules::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use rules::{Event, RuleSet, Severity};

use crate::config::Config;
use crate::error::Failure;
use crate::{rules_load, term};

/// Loads rule files as one set.
///
/// # Errors
/// Usage: all that is wrong with them.
pub fn rules_check(paths: &[PathBuf]) -> Result<(), Failure> {
    let files = rules_load::read(paths)?;
    let rules = RuleSet::load(&files, &[]).map_err(|errors| rules_load::refusal(&errors))?;
    term::show(|out| {
        let (number, files) = (rules.rules().len() as u64, files.len() as u64);
        writeln!(out, "{} in {}, no mistakes", term::plural(number, "rule"), term::plural(files, "file"))?;
        loaded(out, &rules)
    })
}

/// The events and facts of the language, then the rules.
///
/// # Errors
/// Usage: all that is wrong with the rules.
pub fn rules_list(rules: Option<&Path>) -> Result<(), Failure> {
    let rules = rules_load::load(rules, &Config::default(), &[])?;
    term::show(|out| {
        writeln!(out, "Events\n  {}\n", Event::ALL.map(Event::name).join(", "))?;
        facts::<FlowFacts>(out, "of a flow, on any event but tick")?;
        facts::<HostFacts>(out, "of a host, on tick")?;
        facts::<ServiceFacts>(out, "of a service, on tick")?;
        facts::<LinkFacts>(out, "of all traffic, on tick")?;
        writeln!(out, "Severities\n  {}\n", Severity::ALL.map(Severity::as_str).join(", "))?;
        writeln!(out, "Rules")?;
        loaded(out, &rules)
    })
}

/// Reads the settings and the rules they name.
///
/// # Errors
/// Usage: all that is wrong with the settings, else with the rules.
pub fn config_check(path: &Path) -> Result<(), Failure> {
    let config = Config::load(Some(path))?;
    let rules = rules_load::load(None, &config, &[])?;
    term::show(|out| {
        writeln!(out, "{}: no mistakes", path.display())?;
        let from = config.rules_dir.as_ref().map_or("shipped".to_owned(), |dir| dir.display().to_string());
        writeln!(out, "rules: {} ({from}), {} set", rules.rules().len(), config.params.len())?;
        match &config.store_dir {
            Some(dir) => writeln!(out, "store: {}", dir.display()),
            None => writeln!(out, "store: none named"),
        }
    })
}

fn rows(out: &mut dyn Write, table: &Table) -> io::Result<()> {
    term::lines(table).try_for_each(|line| writeln!(out, "  {line}"))
}

fn facts<S: Subject>(out: &mut dyn Write, what: &str) -> io::Result<()> {
    writeln!(out, "Facts {what}")?;
    let written = |fact: &Fact<S>| match fact.is_windowed() {
        true => format!("{}(window)", fact.path),
        false => fact.path.to_owned(),
    };
    let mut table = term::table();
    for fact in S::facts() {
        table.add_row([
            written(fact),
            fact.type_name().to_owned(),
            fact.unit.to_owned(),
            fact.doc.to_owned(),
        ]);
    }
    rows(out, &table)?;
    writeln!(out)
}

fn loaded(out: &mut dyn Write, rules: &RuleSet) -> io::Result<()> {
    let mut table = term::table();
    for rule in rules.rules() {
        let events: Vec<&str> = rule.events.iter().map(Event::name).collect();
        let captures = if rule.holds { "captures" } else { "" };
        table.add_row([
            rule.name.clone(),
            format!("{} rule on {}", rule.scope.as_str(), events.join(", ")),
            captures.to_owned(),
            format!("{}:{}", rule.file, rule.line),
        ]);
    }
    rows(out, &table)?;
    writeln!(out, "hash {}", rules.hash())
}
