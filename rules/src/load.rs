//! From rule files to a rule set: overrides, names, scopes, guards, bodies, and all errors of all files.
//!
//! Runs at load time on the thread that starts or controls the program, never on a worker. The result is
//! shared with workers and the judge as an immutable [`RuleSet`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhai::{AST, Dynamic, Stmt};
use sha2::{Digest, Sha256};

use crate::clause::{Clauses, clauses};
use crate::error::LoadError;
use crate::event::{Event, EventSet};
use crate::facts::CountSet;
use crate::facts::table::Subject;
use crate::header::Header;
use crate::language::RuleFile;
use crate::language::check::{self, Names, Reach};
use crate::language::syntax::{Name, Parser, Refusal, RuleItem};
use crate::lower::expr::{self, Context};
use crate::lower::test::Test;
use crate::nearest::nearest;
use crate::overrides::apply_overrides;
use crate::set::{Body, Guard, MAX_RULES, Override, RuleMeta, RuleSet, Scope, SourceFile};
use crate::value::ParamValue;
use crate::verdict::EvidenceValue;

/// The kind of the incident that a rule was switched off; no rule's name.
pub const SWITCHED_OFF: &str = "rule_switched_off";

/// Loads a set of rules. Files are taken in the order of their names, so that the same files give the
/// same rule indexes and hash however they were listed.
///
/// # Errors
/// Every mistake in every file and override, ordered by place.
pub(crate) fn load(
    previous: Option<&RuleSet>,
    sources: &[SourceFile],
    overrides: &[Override],
) -> Result<RuleSet, Vec<LoadError>> {
    let parser = Parser::new();
    let mut sources: Vec<&SourceFile> = sources.iter().collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let mut files: Vec<RuleFile> = sources.iter().map(|source| RuleFile::parse(&parser, source)).collect();
    let mut errors: Vec<LoadError> = apply_overrides(&mut files, overrides);
    refuse_repeated_names(&mut files);

    let mut set = RuleSet::begun(hash(&sources, &files), previous);
    let mut unnumbered = 0;
    for file in &mut files {
        unnumbered += compile(file, &mut set);
        errors.append(&mut file.errors);
    }
    let whole = |message: String, help: Option<String>| {
        let file = sources.last().map_or(String::new(), |source| source.name.clone());
        LoadError { file, line: 0, column: 0, message, help }
    };
    let rules = set.in_force().count() + unnumbered;
    if rules > MAX_RULES {
        errors.push(whole(format!("{rules} rules are too many; at most {MAX_RULES} can be loaded"), None));
    } else if unnumbered > 0 {
        let message = format!("no number is left for {unnumbered} rules: one run knows {} names", 1 << 16);
        errors.push(whole(
            message,
            Some("restart referee, which forgets the names of rules removed".to_owned()),
        ));
    }
    if errors.is_empty() {
        return Ok(set);
    }
    errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    errors.dedup();
    Err(errors)
}

/// Of the files' contents and of the parameters in effect, in hexadecimal.
fn hash(sources: &[&SourceFile], files: &[RuleFile]) -> String {
    let mut hasher = Sha256::new();
    for (source, file) in sources.iter().zip(files) {
        digest(&mut hasher, source, file);
        file.rules.iter().for_each(|rule| hasher.update(rule.switches.text(&rule.name.text)));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(hasher: &mut Sha256, source: &SourceFile, file: &RuleFile) {
    hasher.update((source.text.len() as u64).to_le_bytes());
    hasher.update(source.text.as_bytes());
    for (name, value) in &file.params {
        hasher.update(format!("{name}={value}\n").as_bytes());
    }
}

/// Rule names are incident kinds: unique over all files.
fn refuse_repeated_names(files: &mut [RuleFile]) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let mut refusals = Vec::new();
        for rule in &file.rules {
            let Name { text, at } = &rule.name;
            if text == SWITCHED_OFF {
                let message = format!("\"{text}\" is the kind of incident that tells of failing rules");
                refusals.push(Refusal::new(*at, message, "choose another name"));
            }
            if !is_rule_name(text) {
                let message = format!("\"{text}\" cannot be a rule's name");
                refusals.push(Refusal::new(*at, message, "use 1 to 64 letters, digits, `_` and `-`"));
            }
            let place = format!("{}:{}", file.name, at.line().unwrap_or(0));
            if let Some(first) = seen.get(text) {
                let message = format!("there is already a rule \"{text}\" at {first}");
                refusals.push(Refusal::new(*at, message, &format!("rename one: this, or that of {first}")));
            } else {
                seen.insert(text.clone(), place);
            }
        }
        refusals.into_iter().for_each(|refusal| file.report(refusal));
    }
}

fn is_rule_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

/// Checks a file's functions and rules, and adds the rules to the set. Gives how many found no number.
fn compile(file: &mut RuleFile, set: &mut RuleSet) -> usize {
    let (mut refusals, mut unnumbered) = (Vec::new(), 0);
    let rules = std::mem::take(&mut file.rules);
    {
        let params: BTreeSet<&str> = file.params.keys().chain(&file.broken).map(String::as_str).collect();
        let functions: BTreeSet<(&str, usize)> =
            file.functions.iter().map(|f| (f.name.text.as_str(), f.params.len())).collect();
        let names = Names { params: &params, functions: &functions };
        let mut reaches: Vec<(&str, Reach)> = Vec::new();
        for function in &file.functions {
            let (reach, mut wrong) = check::check(&function.body, &names);
            refusals.append(&mut wrong);
            reaches.push((&function.name.text, reach));
        }
        let shared = Shared::of(file);
        for rule in rules {
            match compile_rule(rule, file, &names, &reaches, &shared) {
                Ok((meta, guard, body)) => unnumbered += usize::from(!set.add(meta, guard, body)),
                Err(mut wrong) => refusals.append(&mut wrong),
            }
        }
    }
    refusals.into_iter().for_each(|refusal| file.report(refusal));
    unnumbered
}

/// What tells a rule from another of its name.
fn fingerprint(rule: &RuleItem, file: &RuleFile) -> u64 {
    let mut hasher = Sha256::new();
    for text in [&rule.text, &file.helpers] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    file.params.iter().for_each(|(name, value)| hasher.update(format!("{name}={value}\n").as_bytes()));
    let digest = hasher.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What the bodies of one file have in common.
struct Shared {
    functions: AST,
    params: Arc<BTreeMap<String, Dynamic>>,
    values: Arc<BTreeMap<String, EvidenceValue>>,
}

impl Shared {
    fn of(file: &RuleFile) -> Shared {
        let mut functions = AST::empty();
        for function in &file.functions {
            functions.combine(function.ast.clone());
        }
        let value = |value: &ParamValue| match value {
            ParamValue::Int(value) => Dynamic::from_int(*value),
            ParamValue::Float(value) => Dynamic::from_float(*value),
            ParamValue::Bool(value) => Dynamic::from_bool(*value),
            ParamValue::Text(value) => value.clone().into(),
        };
        let params = file.params.iter().map(|(name, v)| (name.clone(), value(v))).collect();
        let values = file.params.iter().map(|(name, v)| (name.clone(), v.into())).collect();
        Shared { functions, params: Arc::new(params), values: Arc::new(values) }
    }
}

type Compiled = (RuleMeta, Guard, Body);

fn compile_rule(
    rule: RuleItem,
    file: &RuleFile,
    names: &Names,
    functions: &[(&str, Reach)],
    shared: &Shared,
) -> Result<Compiled, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let (body_reach, mut wrong) = check::check(rule.body.statements(), names);
    refusals.append(&mut wrong);
    let body_reach = with_functions(body_reach, functions);
    let mut all_reach = rule.guard.as_ref().map(check::reach).unwrap_or_default();
    all_reach = with_functions(all_reach, functions);
    all_reach.merge(&body_reach);

    let events = events(&rule.events, &mut refusals);
    if events.contains(Event::Tick) {
        for (root, at) in &body_reach.captured {
            all_reach.roots.entry(root).or_insert(*at);
        }
    }
    let scope = scope(events, &rule.name, &all_reach, &mut refusals);
    let header = Header::of(&rule, events, &mut refusals);
    if let (None, Some(at)) = (header.severity, body_reach.plain_incident) {
        let help = "write incident(\"warning\", text), or `severity \"warning\"` after the rule's events";
        refusals.push(Refusal::new(at, "neither this call nor the rule's header names a severity", help));
    }
    let context = Context { params: &file.params, broken: &file.broken, functions: &file.functions };
    let guard = match scope {
        Some(Scope::Flow) => lower(&rule, &context, &mut refusals).map(Guard::Flow),
        Some(Scope::Host) => lower(&rule, &context, &mut refusals).map(Guard::Host),
        Some(Scope::Service) => lower(&rule, &context, &mut refusals).map(Guard::Service),
        Some(Scope::Link) => lower(&rule, &context, &mut refusals).map(Guard::Link),
        None => None,
    };
    let (Some(scope), Some(mut guard), true) = (scope, guard, refusals.is_empty()) else {
        return Err(refusals);
    };
    if !header.enabled {
        (guard, all_reach.counts) = (Guard::Flow(Test::Const(false)), CountSet::EMPTY);
    }
    let meta = RuleMeta {
        name: rule.name.text.clone(),
        file: file.name.clone(),
        line: rule.name.at.line().unwrap_or(0),
        events,
        scope,
        holds: body_reach.captures || scope != Scope::Flow && !body_reach.captured.is_empty(),
        counts: all_reach.counts,
        second: all_reach.second,
        severity: header.severity,
        shadow: header.shadow,
        sample: header.sample,
        enabled: header.enabled,
        params: Arc::clone(&shared.values),
        clauses: match scope {
            Scope::Flow => Clauses::Flow(clauses(&rule, &context)),
            Scope::Host => Clauses::Host(clauses(&rule, &context)),
            Scope::Service => Clauses::Service(clauses(&rule, &context)),
            Scope::Link => Clauses::Link(clauses(&rule, &context)),
        },
        comments: Arc::new(Event::ALL.map(|event| format!("referee: {} ({})", rule.name.text, event.name()))),
        in_force: true,
        fingerprint: fingerprint(&rule, file),
    };
    let block = Stmt::Block(Box::new(rule.body));
    let ast = AST::new([block], shared.functions.shared_lib().clone());
    Ok((meta, guard, Body { ast, params: Arc::clone(&shared.params) }))
}

/// The guard's term; a rule without a condition always matches.
fn lower<S: Subject>(rule: &RuleItem, context: &Context, refusals: &mut Vec<Refusal>) -> Option<Test<S>> {
    let Some(guard) = &rule.guard else { return Some(Test::Const(true)) };
    match expr::guard(guard, context) {
        Ok(test) => Some(test),
        Err(mut wrong) => {
            refusals.append(&mut wrong);
            None
        }
    }
}

/// Adds what the helper functions reach that are called, and those that they call.
fn with_functions(mut reach: Reach, functions: &[(&str, Reach)]) -> Reach {
    let mut followed = BTreeSet::new();
    while let Some(name) = reach.calls.iter().find(|name| !followed.contains(*name)).cloned() {
        for (_, inner) in functions.iter().filter(|(function, _)| *function == name) {
            reach.merge(inner);
        }
        followed.insert(name);
    }
    reach
}

fn events(names: &[Name], refusals: &mut Vec<Refusal>) -> EventSet {
    let mut events = EventSet::EMPTY;
    for Name { text, at } in names {
        match Event::from_name(text) {
            Some(event) if events.contains(event) => {
                refusals.push(Refusal::new(*at, format!("the event `{text}` is named twice"), "remove one"));
            }
            Some(event) => events.insert(event),
            None => {
                let help = match nearest(text, Event::ALL.map(Event::name)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the events are {}", Event::ALL.map(Event::name).join(", ")),
                };
                refusals.push(Refusal::new(*at, format!("there is no event `{text}`"), &help));
            }
        }
    }
    events
}

/// The scope follows from the event; for `tick`, from what the rule speaks of.
fn scope(events: EventSet, name: &Name, reach: &Reach, refusals: &mut Vec<Refusal>) -> Option<Scope> {
    let at = name.at;
    if events.is_empty() {
        return None;
    }
    let mut refuse = |at, message: &str, help: &str| {
        refusals.push(Refusal::new(at, message, help));
        None
    };
    let wide = [("host", Scope::Host), ("service", Scope::Service), ("link", Scope::Link)];
    let mut spoken = wide.iter().filter_map(|(root, scope)| Some((*scope, *reach.roots.get(root)?)));
    let (first, second) = (spoken.next(), spoken.next());
    if !events.contains(Event::Tick) {
        return match first {
            None => Some(Scope::Flow),
            Some((_, at)) => refuse(
                at,
                "this rule's events are about a flow: `host`, `service` and `link` have no facts here",
                "use flow's facts, or write `on tick`; what can be done here is capture(host) and capture(service)",
            ),
        };
    }
    if events != EventSet::EMPTY.with(Event::Tick) {
        return refuse(at, "`tick` cannot be combined with events of a flow", "write two rules");
    }
    match (reach.roots.get("flow"), first, second) {
        (Some(at), _, _) => refuse(
            *at,
            "a tick is about a host, a service or the link: `flow` has no facts here",
            "use the facts of host, service or link",
        ),
        (_, Some((one, _)), Some((other, at))) => {
            let what = format!("one rule cannot speak of both `{}` and `{}`", one.as_str(), other.as_str());
            refuse(at, &what, "write two rules")
        }
        (_, Some((scope, _)), None) => Some(scope),
        (_, None, _) => refuse(
            at,
            "a rule on `tick` must name a fact of `host`, `service` or `link`",
            "for example `when host.rsts(1) >= 50`",
        ),
    }
}
