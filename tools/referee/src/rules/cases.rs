//! The cases beside rule files, `NAME.cases.toml` beside `NAME.rhai`: read, checked, run.
//!
//! Main thread. A case gives facts, or a capture, and says what a rule is to make of them. What is wrong with the file is
//! said with its place; what comes out otherwise than expected, with the operand that decided.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::record::Query;
use rules::cases::{Case, Expect};
use rules::{Event, EvidenceValue, Override, RuleSet, Severity, SourceFile};
use serde::Deserialize;
use toml::{Spanned, Value};

use super::backtest;
use crate::config::{Config, Placed};
use crate::error::Failure;

/// How a case came out.
pub struct Outcome {
    pub name: String,
    pub rule: String,
    /// "file:line:column"
    pub place: String,
    /// What is not as expected.
    pub why: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    case: Vec<Spanned<RawCase>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: Option<String>,
    /// The name of a rule; not needed where the file has one.
    rule: Option<Spanned<String>>,
    event: Option<Spanned<String>>,
    #[serde(default)]
    facts: BTreeMap<String, Spanned<Value>>,
    /// Parameters of the rule, instead of those in effect.
    #[serde(default)]
    set: BTreeMap<String, Spanned<Value>>,
    expect: Option<Spanned<String>>,
    severity: Option<Spanned<String>>,
    says: Option<String>,
    captures: Option<bool>,
    /// A capture, seen from the folder of the file.
    pcap: Option<PathBuf>,
    incidents: Option<u64>,
    flows: Option<u64>,
}

/// A file of cases.
struct File<'a> {
    name: String,
    text: &'a str,
    folder: PathBuf,
    /// The rules of the rule file beside it.
    rules: Vec<String>,
}

/// Loads the rules once more, with some parameters set besides.
type Fresh<'a> = &'a dyn Fn(&[Placed]) -> Result<RuleSet, Failure>;

/// Runs all cases beside the rule files.
///
/// # Errors
/// Usage: a file of cases that can't be read, or what is wrong in it. Not a capture: one that a case names.
pub fn run(
    files: &[SourceFile],
    rules: RuleSet,
    fresh: Fresh,
    config: &Config,
) -> Result<Vec<Outcome>, Failure> {
    let rules = Arc::new(rules);
    let mut outcomes = Vec::new();
    for source in files {
        let path = Path::new(&source.name).with_extension("cases.toml");
        if !path.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(format!("the cases in {} can't be read: {error}", path.display()))
        })?;
        let of_file = rules.rules().iter().filter(|meta| meta.file == source.name);
        let file = File {
            name: path.display().to_string(),
            text: &text,
            folder: path.parent().unwrap_or(Path::new("")).to_path_buf(),
            rules: of_file.map(|meta| meta.name.clone()).collect(),
        };
        let raw: Raw = toml::from_str(&text).map_err(|error| file.wrong(error.span(), error.message()))?;
        for case in raw.case {
            outcomes.push(file.run(case, &rules, fresh, config)?);
        }
    }
    Ok(outcomes)
}

impl File<'_> {
    /// "file:line:column" of a byte range; columns in characters from 1.
    fn place(&self, span: Option<Range<usize>>) -> String {
        let Some(before) = span.and_then(|span| self.text.get(..span.start)) else {
            return self.name.clone();
        };
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    fn wrong(&self, span: Option<Range<usize>>, what: &str) -> Failure {
        Failure::usage(format!("{}: {what}", self.place(span)))
    }

    fn run(
        &self,
        case: Spanned<RawCase>,
        rules: &Arc<RuleSet>,
        fresh: Fresh,
        config: &Config,
    ) -> Result<Outcome, Failure> {
        let span = case.span();
        let raw = case.into_inner();
        let rule = self.rule(&raw, &span)?;
        let name = raw.name.clone().unwrap_or_else(|| rule.clone());
        let set = self.params(&raw, &rule)?;
        let why = match (&raw.pcap, set.as_slice()) {
            (Some(pcap), set) => self.on_capture(&raw, &span, pcap, &rule, fresh(set)?, config)?,
            (None, []) => rules::cases::run(rules, &self.case(raw, &span, rule.clone())?).err(),
            (None, set) => {
                let rules = Arc::new(fresh(set)?);
                rules::cases::run(&rules, &self.case(raw, &span, rule.clone())?).err()
            }
        };
        Ok(Outcome { name, rule, place: self.place(Some(span)), why })
    }

    fn params(&self, raw: &RawCase, rule: &str) -> Result<Vec<Placed>, Failure> {
        let one = |(param, value): (&String, &Spanned<Value>)| {
            let place = self.place(Some(value.span()));
            let value = match value.get_ref() {
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => format!("{number:?}"),
                Value::Boolean(yes) => yes.to_string(),
                Value::String(text) => text.clone(),
                _ => {
                    return Err(Failure::usage(format!(
                        "{place}: a parameter is a number, true, false or a text"
                    )));
                }
            };
            Ok(Placed { place, set: Override { rule: rule.to_owned(), param: param.clone(), value } })
        };
        raw.set.iter().map(one).collect()
    }

    fn rule(&self, raw: &RawCase, span: &Range<usize>) -> Result<String, Failure> {
        match (&raw.rule, self.rules.as_slice()) {
            (Some(rule), known) if known.contains(rule.get_ref()) => Ok(rule.get_ref().clone()),
            (Some(rule), known) => {
                let what = format!("there is no rule `{}` in the rule file beside it", rule.get_ref());
                Err(self.wrong(Some(rule.span()), &what).help(format!("it has {}", known.join(", "))))
            }
            (None, [one]) => Ok(one.clone()),
            (None, known) => {
                let what = "which rule is this case about?";
                Err(self.wrong(Some(span.clone()), what).help(format!("rule = one of {}", known.join(", "))))
            }
        }
    }

    /// A case about facts.
    fn case(&self, raw: RawCase, span: &Range<usize>, rule: String) -> Result<Case, Failure> {
        if raw.incidents.or(raw.flows).is_some() {
            let what = "`incidents` and `flows` are counted in a capture";
            return Err(self.wrong(Some(span.clone()), what).help("name one with pcap = \"FILE\""));
        }
        let names = Expect::ALL.map(Expect::name).join(", ");
        let Some(expect) = &raw.expect else {
            let what = "what is to come out of this case?";
            return Err(self.wrong(Some(span.clone()), what).help(format!("expect = one of {names}")));
        };
        let one_of = |given: &Spanned<String>, what: &str, known: &str| {
            self.wrong(Some(given.span()), &format!("there is no {what} `{}`", given.get_ref()))
                .help(format!("there are {known}"))
        };
        let expected =
            Expect::from_name(expect.get_ref()).ok_or_else(|| one_of(expect, "outcome", &names))?;
        let event = raw.event.as_ref().map(|event| {
            let known = Event::ALL.map(Event::name).join(", ");
            Event::from_name(event.get_ref()).ok_or_else(|| one_of(event, "event", &known))
        });
        let severity = raw.severity.as_ref().map(|severity| {
            let known = Severity::ALL.map(Severity::as_str).join(", ");
            Severity::from_name(severity.get_ref()).ok_or_else(|| one_of(severity, "severity", &known))
        });
        let mut facts = Vec::new();
        for (name, value) in raw.facts {
            let span = value.span();
            self.facts(name, value.into_inner(), &span, &mut facts)?;
        }
        Ok(Case {
            rule,
            event: event.transpose()?,
            facts,
            expect: expected,
            severity: severity.transpose()?,
            says: raw.says,
            captures: raw.captures,
        })
    }

    /// A fact, or all below a part of their names: `facts.flow.dport = 443` is `"flow.dport" = 443`.
    fn facts(
        &self,
        name: String,
        value: Value,
        span: &Range<usize>,
        facts: &mut Vec<(String, EvidenceValue)>,
    ) -> Result<(), Failure> {
        let value = match value {
            Value::Table(below) => {
                return below
                    .into_iter()
                    .try_for_each(|(last, value)| self.facts(format!("{name}.{last}"), value, span, facts));
            }
            Value::Integer(number) => EvidenceValue::Int(number),
            Value::Float(number) => EvidenceValue::Float(number),
            Value::Boolean(yes) => EvidenceValue::Bool(yes),
            Value::String(text) => EvidenceValue::Text(text),
            Value::Array(_) | Value::Datetime(_) => {
                let what = format!("`{name}` is a number, true, false or a text");
                return Err(self.wrong(Some(span.clone()), &what));
            }
        };
        facts.push((name, value));
        Ok(())
    }

    /// A case about a capture: the whole set runs on it, and the rule's flows and incidents are counted.
    fn on_capture(
        &self,
        raw: &RawCase,
        span: &Range<usize>,
        pcap: &Path,
        rule: &str,
        rules: RuleSet,
        config: &Config,
    ) -> Result<Option<String>, Failure> {
        let of_facts = raw.event.is_some() || raw.expect.is_some() || !raw.facts.is_empty();
        if of_facts || raw.incidents.or(raw.flows).is_none() {
            let what = "a case with a capture says how many `incidents`, or `flows` that match, are in it";
            return Err(self.wrong(Some(span.clone()), what).help("for example incidents = 1"));
        }
        let (tested, _) = backtest::run(rules, &[self.folder.join(pcap)], &Query::default(), config)?;
        let at = tested.rules.rules().iter().position(|meta| meta.name == rule);
        let Some(of) = at.and_then(|at| tested.of.get(at)) else { return Ok(None) };
        let is = [("incidents", raw.incidents, of.incidents), ("flows", raw.flows, of.flows.len() as u64)];
        let wrong: Vec<String> = is
            .iter()
            .filter_map(|(what, wanted, found)| {
                let wanted = (*wanted)?;
                (wanted != *found).then(|| format!("{what}: expected {wanted}, got {found}"))
            })
            .collect();
        let says =
            raw.says.as_ref().filter(|says| !of.says.as_ref().is_some_and(|said| said.contains(*says)));
        let unsaid = says.map(|says| {
            format!("it was to say {says:?}; it said: {}", of.says.as_deref().unwrap_or("nothing"))
        });
        let wrong: Vec<String> = wrong.into_iter().chain(unsaid).collect();
        Ok((!wrong.is_empty()).then(|| wrong.join("; ")))
    }
}
