//! `referee rules explain`: why an incident was reported, from what was kept of it. No running box is asked.
//!
//! Main thread. The incident itself holds what its rule's condition saw; here it is found and put into words, with unit
//! and meaning of each fact.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use dataplane::record::{IncidentRecord, Store};
use rules::facts::table::{Fact, Subject};
use rules::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use serde_json::{Map, Value, json};

use crate::access;
use crate::captures::store_folder;
use crate::cli::ExplainArgs;
use crate::error::Failure;
use crate::index;
use crate::term::{self, Paint, count, plural, wrap};
use crate::time::utc;

/// Longest line read of an incident, bytes.
const LINE_LIMIT: usize = 16 << 20;

/// Says why.
///
/// # Errors
/// Usage: no store is named. Failed: it can't be read, or has no such incident.
pub fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let (records, place) = match &args.incidents {
        Some(path) => (written(path)?, path.display().to_string()),
        None => {
            let folder = store_folder(args.store.as_deref(), args.config.as_deref())?;
            let store = access::store(&folder)?;
            let place = folder.display().to_string();
            (kept(&store, &args.incident, &place)?, place)
        }
    };
    let record = find(&records, &args.incident, &place)?;
    match args.json {
        true => term::show(|out| writeln!(out, "{}", as_json(record))),
        false => term::show(|out| tell(out, record)),
    }
}

/// The whole id that begins so. One that none has is left as it is, for whoever looks for it to say.
///
/// # Errors
/// Failed: several begin so; the store can't be read.
pub fn whole_id(store: &Store, id: &str) -> Result<String, Failure> {
    let like = begun_so(store, id)?;
    match like.is_empty() {
        true => Ok(id.to_owned()),
        false => find(&like, id, &store.root().display().to_string()).map(|record| record.id.clone()),
    }
}

/// Of those of a store, the incident with this id, or those whose ids begin so.
fn kept(store: &Store, id: &str, place: &str) -> Result<Vec<IncidentRecord>, Failure> {
    let like = begun_so(store, id)?;
    match like.is_empty() {
        false => Ok(like),
        true => Err(unknown(id, store.count_incidents().map_err(Failure::failed)?.0, place)),
    }
}

/// Two at most, as more are no help.
fn begun_so(store: &Store, id: &str) -> Result<Vec<IncidentRecord>, Failure> {
    if let Some(record) = store.incident_by(id, &*index::finder(store)).map_err(Failure::failed)? {
        return Ok(vec![record]);
    }
    let mut like: Vec<IncidentRecord> = Vec::new();
    let each = store.each_incident(|_, record: IncidentRecord| {
        if id.is_empty() || !record.id.starts_with(id) {
            return;
        }
        let room = like.len() < 2;
        match like.iter_mut().find(|known| known.id == record.id) {
            Some(known) => *known = record,
            None if room => like.push(record),
            None => {}
        }
    });
    each.map_err(Failure::failed)?;
    Ok(like)
}

/// Incidents as `--incidents` and `run --json` write them; of one told several times, the last word.
fn written(path: &Path) -> Result<Vec<IncidentRecord>, Failure> {
    let failed = |error: io::Error| {
        Failure::failed(format!("the incidents in {} can't be read: {error}", path.display()))
            .help("name a file that --incidents or `run --json` wrote, or a store with --store")
    };
    let input: Box<dyn BufRead> = match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
    };
    let mut records: Vec<IncidentRecord> = Vec::new();
    for line in input.lines() {
        let line = line.map_err(failed)?;
        let parsed = serde_json::from_str::<IncidentRecord>(&line).ok().filter(|_| line.len() <= LINE_LIMIT);
        // Books and other lines are none.
        let Some(record) = parsed else { continue };
        match records.iter_mut().find(|known| known.id == record.id) {
            Some(known) => *known = record,
            None => records.push(record),
        }
    }
    Ok(records)
}

/// By its id, or by as many of its first digits as tell it from the others.
fn find<'r>(records: &'r [IncidentRecord], id: &str, place: &str) -> Result<&'r IncidentRecord, Failure> {
    if let Some(record) = records.iter().find(|record| record.id == id) {
        return Ok(record);
    }
    let mut like = records.iter().filter(|record| !id.is_empty() && record.id.starts_with(id));
    match (like.next(), like.next()) {
        (Some(record), None) => Ok(record),
        (Some(one), Some(other)) => {
            let what =
                format!("{id} begins the ids of several incidents in {place}: {}, {}", one.id, other.id);
            Err(Failure::failed(what).help("give more of its digits"))
        }
        (None, _) => Err(unknown(id, records.len() as u64, place)),
    }
}

fn unknown(id: &str, among: u64, place: &str) -> Failure {
    let number = plural(among, "incident");
    let what = format!("there is no incident {id} among the {number} of {place}");
    Failure::failed(what).help("replay and run print the id of each; `captures list` those of a store")
}

/// Type, unit and meaning of a fact, as rules name it.
fn meaning(name: &str) -> Option<(&'static str, &'static str, &'static str)> {
    fn of<S: Subject>(path: &str) -> Option<(&'static str, &'static str, &'static str)> {
        S::find(path).map(|fact: &Fact<S>| (fact.type_name(), fact.unit, fact.doc))
    }
    let path = name.split('(').next().unwrap_or(name);
    of::<FlowFacts>(path)
        .or_else(|| of::<HostFacts>(path))
        .or_else(|| of::<ServiceFacts>(path))
        .or_else(|| of::<LinkFacts>(path))
}

fn because(record: &IncidentRecord) -> &[Value] {
    record.rest.get("because").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn object<'v>(clause: &'v Value, key: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    clause.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// An operand of the condition, and what it saw, with units.
pub fn operand(clause: &Value) -> (String, String) {
    let fact = |(name, value): (&String, &Value)| match meaning(name) {
        // What has a unit is large at times; a port is no number to be read aloud.
        Some((_, unit, _)) if !unit.is_empty() && value.is_number() => {
            format!("{name} = {} {unit}", value.as_u64().map_or_else(|| plain(value), count))
        }
        _ => format!("{name} = {}", plain(value)),
    };
    let param = |(name, value): (&String, &Value)| format!("{name} = {}", plain(value));
    let saw: Vec<String> =
        object(clause, "facts").map(fact).chain(object(clause, "params").map(param)).collect();
    (clause.get("if").and_then(Value::as_str).unwrap_or_default().to_owned(), saw.join(", "))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn text<'r>(record: &'r IncidentRecord, key: &str) -> &'r str {
    record.rest.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whom a recorded incident is about.
pub fn subject(record: &IncidentRecord) -> String {
    let Some(subject) = record.rest.get("subject").and_then(Value::as_object) else { return String::new() };
    let part = |key: &str| {
        subject.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let end = |addr: &str, port: &str| match (part(addr), part(port)) {
        (Some(addr), Some(port)) if addr.contains(':') => Some(format!("[{addr}]:{port}")),
        (Some(addr), Some(port)) => Some(format!("{addr}:{port}")),
        _ => None,
    };
    let proto = part("proto").unwrap_or_default();
    match (end("src", "sport"), end("dst", "dport"), part("host")) {
        (Some(from), Some(to), _) => format!("{proto} {from} → {to}"),
        (None, Some(service), _) => format!("service {proto} {service}"),
        (_, _, Some(host)) => format!("host {host}"),
        _ => "all traffic".to_owned(),
    }
}

fn tell(out: &mut dyn Write, record: &IncidentRecord) -> io::Result<()> {
    let paint = Paint::for_stdout();
    let (when, who) = (utc(record.first_ns), subject(record));
    writeln!(out, "{}  {}  {when}  {who}", record.severity.to_uppercase(), paint.bold(&record.kind))?;
    write!(out, "{}", wrap("  ", &record.explain))?;
    let clauses = because(record);
    if clauses.is_empty() {
        writeln!(out, "\nIts rule has no condition, or it was kept before conditions were.")?;
    } else {
        writeln!(out, "\nRule {} fired because all of this held:", paint.bold(&record.rule))?;
        let mut table = term::table();
        for clause in clauses {
            let (operand, saw) = operand(clause);
            table.add_row([operand, saw]);
        }
        term::lines(&table).try_for_each(|line| writeln!(out, "  {line}"))?;
        writeln!(out, "\nWhat these facts are")?;
        let mut table = term::table();
        for (name, _, _, doc) in facts(clauses) {
            table.add_row([name, doc.to_owned()]);
        }
        term::lines(&table).try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    if let Some(evidence) = record.rest.get("evidence").and_then(Value::as_object).filter(|e| !e.is_empty()) {
        writeln!(out, "\nIts evidence")?;
        let mut table = term::table();
        evidence.iter().for_each(|(name, value)| {
            table.add_row([name.clone(), plain(value)]);
        });
        term::lines(&table).try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    writeln!(out, "\nincident {}, rule set {}", record.id, text(record, "rules_hash"))
}

/// The facts of all operands, each once.
fn facts(clauses: &[Value]) -> Vec<(String, &'static str, &'static str, &'static str)> {
    let mut facts: Vec<(String, &str, &str, &str)> = Vec::new();
    for (name, _) in clauses.iter().flat_map(|clause| object(clause, "facts")) {
        if let Some((kind, unit, doc)) = meaning(name)
            && !facts.iter().any(|(known, ..)| known == name)
        {
            facts.push((name.clone(), kind, unit, doc));
        }
    }
    facts
}

fn as_json(record: &IncidentRecord) -> Value {
    let meanings: Map<String, Value> = facts(because(record))
        .into_iter()
        .map(|(name, kind, unit, doc)| (name, json!({"type": kind, "unit": unit, "meaning": doc})))
        .collect();
    json!({
        "id": record.id, "kind": record.kind, "rule": record.rule, "severity": record.severity,
        "scope": record.rest.get("scope"), "subject": record.rest.get("subject"),
        "first_ns": record.first_ns, "last_ns": record.last_ns, "rules_hash": record.rest.get("rules_hash"),
        "explain": record.explain, "advise": record.advise, "evidence": record.rest.get("evidence"),
        "because": because(record), "facts": meanings,
    })
}
