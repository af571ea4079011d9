//! `referee incidents`: what was found, newest first, by a run under way or as a store has it.
//!
//! Main thread of a process of its own. Asks a run's API, or reads a store while anybody may write to it; programs get the
//! objects as they are, people a table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use dataplane::record::{IncidentRecord, Query, Store, list_by};
use dataplane::source::Nanos;
use serde::Deserialize;
use serde_json::Value;

use crate::access;
use crate::api::DEFAULT_SOCKET;
use crate::captures::store_folder;
use crate::client::{Client, ReachArgs};
use crate::config::near::nearest;
use crate::config::{Config, DEFAULT_PATH};
use crate::error::{Code, Failure};
use crate::index;
use crate::rules::explain::subject;
use crate::rules::load;
use crate::term;
use crate::time::{When, utc};

/// Items of one page that is asked for.
const PAGE: usize = 500;
/// What is recorded beside incidents and is none.
const ON_DEMAND: &str = "on_demand";
/// How long before an incident its packets are looked for, ns.
const LEAD_UP: Nanos = 600_000_000_000;

#[derive(Args)]
pub struct IncidentsArgs {
    /// This store's, instead of a run's
    #[arg(long, value_name = "DIR", conflicts_with_all = ["socket", "url"])]
    pub store: Option<PathBuf>,
    /// Settings to find the store in
    #[arg(long, value_name = "FILE", conflicts_with_all = ["socket", "url", "store"])]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Of this severity
    #[arg(long, value_name = "S", value_parser = ["info", "warning", "critical"])]
    pub severity: Option<String>,
    /// About this address
    #[arg(long, value_name = "IP")]
    pub host: Option<IpAddr>,
    /// Not over before: RFC 3339, or so long ago (15m)
    #[arg(long, value_name = "T", value_parser = When::parse)]
    pub since: Option<When>,
    /// Not begun after: RFC 3339, or so long ago (15m)
    #[arg(long, value_name = "T", value_parser = When::parse)]
    pub until: Option<When>,
    /// Those that go on; only a run knows
    #[arg(long, conflicts_with_all = ["store", "config"])]
    pub open: bool,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Lists them.
///
/// # Errors
/// Usage: what is asked for. Failed: nobody answers, and there is no store, or it can't be read.
pub fn run(args: &IncidentsArgs) -> Result<(), Failure> {
    let wanted = Wanted::of(args, SystemTime::now())?;
    let source = source(args)?;
    let (incidents, more) = match &source {
        Source::Run(client) => of_run(client, args, &wanted)?,
        Source::Store(store) => of_store(store, &wanted, args.limit as usize)?,
    };
    if let (Some(kind), true) = (&args.kind, incidents.is_empty()) {
        check_kind(kind, &kinds(&source, args.config.as_deref()))?;
    }
    term::show(|out| match args.json {
        true => incidents.iter().try_for_each(|incident| {
            serde_json::to_writer(&mut *out, incident)?;
            out.write_all(b"\n")
        }),
        false => table(out, &incidents),
    })?;
    if more && !args.json {
        term::note(&format!("these are the newest {}; --limit N shows more", incidents.len()));
    }
    Ok(())
}

enum Source {
    Run(Client),
    Store(Store),
}

/// Kinds that incidents can have: those of the rules of the run, or of the settings, and all that came with Referee.
fn kinds(source: &Source, config: Option<&Path>) -> Vec<String> {
    let own = match source {
        Source::Run(client) => client.json::<Value>("/api/v1/rules").ok().map(|told| {
            let rules = told["rules"].as_array().into_iter().flatten();
            rules.filter_map(|rule| Some(rule["rule"].as_str()?.to_owned())).collect::<Vec<_>>()
        }),
        Source::Store(_) => {
            let installed = Path::new(DEFAULT_PATH);
            let settings = config.or_else(|| installed.exists().then_some(installed));
            let rules = Config::load(settings).and_then(|config| load::load(None, &config, &[])).ok();
            rules.map(|rules| rules.in_force().map(|(_, meta)| meta.name.clone()).collect())
        }
    };
    let shipped = crate::api::kinds::kinds().map(|one| one.kind.to_owned());
    own.into_iter().flatten().chain(shipped).collect()
}

/// Of a kind that there is nothing was found; another was meant.
fn check_kind(kind: &str, kinds: &[String]) -> Result<(), Failure> {
    if kinds.iter().any(|known| known == kind) {
        return Ok(());
    }
    let known: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let failure = Failure::usage(format!("no rule makes incidents of the kind `{kind}`"));
    Err(match nearest(kind, &known) {
        Some(near) => failure.help(format!("did you mean `{near}`?")),
        None => failure.help("a kind is the name of a rule: `referee rules list` has them"),
    })
}

/// What is named; else the run of this host, if one is there, and the store of the settings otherwise.
fn source(args: &IncidentsArgs) -> Result<Source, Failure> {
    let named = args.reach.socket.is_some() || args.reach.url.is_some();
    let client = Client::reach(&args.reach)?;
    if named || args.open {
        return Ok(Source::Run(client));
    }
    if args.store.is_none() && args.config.is_none() {
        match client.json::<Value>("/api/v1/version") {
            Ok(_) => return Ok(Source::Run(client)),
            // One is there, and this user may not ask it.
            Err(failure) if failure.code == Code::Privilege => return Err(failure),
            Err(failure) => match store_folder(None, None) {
                Ok(folder) => term::note(&format!(
                    "no run answers at {DEFAULT_SOCKET}: these are of the store {}",
                    folder.display()
                )),
                Err(_) => return Err(failure),
            },
        }
    }
    let folder = store_folder(args.store.as_deref(), args.config.as_deref())?;
    access::store(&folder).map(Source::Store)
}

/// Which ones, whoever has them.
#[derive(Debug, Default)]
struct Wanted {
    kind: Option<String>,
    severity: Option<String>,
    host: Option<IpAddr>,
    since: Option<Nanos>,
    until: Option<Nanos>,
}

impl Wanted {
    fn of(args: &IncidentsArgs, now: SystemTime) -> Result<Wanted, Failure> {
        let [since, until] = [args.since, args.until].map(|when| when.map(|when| when.resolve(now)));
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            let what = format!("--since {} is after --until {}", utc(since), utc(until));
            return Err(Failure::usage(what).help("exchange them"));
        }
        let (kind, severity) = (args.kind.clone(), args.severity.clone());
        Ok(Wanted { kind, severity, host: args.host, since, until })
    }

    fn takes(&self, incident: &IncidentRecord) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
        is(&self.kind, &incident.kind)
            && (self.kind.is_some() || incident.kind != ON_DEMAND)
            && is(&self.severity, &incident.severity)
            && self.host.is_none_or(|host| is_about(incident, host))
            && self.since.is_none_or(|since| incident.last_ns >= since)
            && self.until.is_none_or(|until| incident.first_ns <= until)
    }

    /// As the API takes it.
    fn question(&self, open: bool, limit: usize, after: Option<&str>) -> String {
        let mut parts = vec![format!("limit={limit}")];
        let mut add = |name: &str, value: Option<String>| {
            parts.extend(value.map(|value| format!("{name}={}", escaped(&value))));
        };
        add("state", open.then(|| "open".to_owned()));
        add("kind", self.kind.clone());
        add("severity", self.severity.clone());
        add("host", self.host.map(|host| host.to_string()));
        add("since", self.since.map(|ns| ns.to_string()));
        add("until", self.until.map(|ns| ns.to_string()));
        add("after", after.map(str::to_owned));
        format!("/api/v1/incidents?{}", parts.join("&"))
    }
}

/// One of the ends, the host or the service is at this address.
fn is_about(incident: &IncidentRecord, host: IpAddr) -> bool {
    let subject = &incident.rest.get("subject");
    ["src", "dst", "host"].iter().any(|name| {
        let address = subject.and_then(|subject| subject[*name].as_str()?.parse().ok());
        address == Some(host)
    })
}

/// As a part of a query (RFC 3986, 2.1).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let each = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(each).collect()
}

/// Page by page, newest first, and whether there are more.
fn of_run(
    client: &Client,
    args: &IncidentsArgs,
    wanted: &Wanted,
) -> Result<(Vec<IncidentRecord>, bool), Failure> {
    #[derive(Deserialize)]
    struct Page {
        items: Vec<IncidentRecord>,
        next: Option<String>,
    }
    let (mut incidents, mut after, limit) = (Vec::new(), None, args.limit as usize);
    loop {
        let page: Page = client.json(&wanted.question(args.open, PAGE, after.as_deref()))?;
        incidents.extend(page.items.into_iter().filter(|incident| wanted.takes(incident)));
        after = page.next;
        if after.is_none() || incidents.len() > limit {
            let more = after.is_some() || incidents.len() > limit;
            incidents.truncate(limit);
            return Ok((incidents, more));
        }
    }
}

/// The newest as last written, newest first, and whether there are more. Holds no more than these.
fn of_store(store: &Store, wanted: &Wanted, limit: usize) -> Result<(Vec<IncidentRecord>, bool), Failure> {
    let mut found: BTreeMap<(Nanos, String), IncidentRecord> = BTreeMap::new();
    let (mut places, mut more) = (HashMap::new(), false);
    store
        .each_incident(|_, incident: IncidentRecord| {
            if let Some(at) = places.remove(&incident.id) {
                found.remove(&(at, incident.id.clone()));
            }
            if wanted.takes(&incident) {
                places.insert(incident.id.clone(), incident.first_ns);
                found.insert((incident.first_ns, incident.id.clone()), incident);
            }
            if found.len() > limit
                && let Some(((_, id), _)) = found.pop_first()
            {
                places.remove(&id);
                more = true;
            }
        })
        .map_err(Failure::failed)?;
    let mut incidents: Vec<IncidentRecord> = found.into_values().rev().collect();
    mark(store, &mut incidents)?;
    Ok((incidents, more))
}

/// Says of each whether packets of it are kept, as the segments know, and how it stands.
fn mark(store: &Store, incidents: &mut [IncidentRecord]) -> Result<(), Failure> {
    let Some(oldest) = incidents.iter().map(|incident| incident.first_ns).min() else { return Ok(()) };
    let query = Query { since: Some(oldest.saturating_sub(LEAD_UP)), ..Query::default() };
    let flows = term::patiently("looking for their packets in the store …", || {
        list_by(store, &query, &*index::finder(store))
    });
    let flows: HashSet<u64> = flows.map_err(Failure::failed)?.iter().map(|flow| flow.flow_id).collect();
    for incident in incidents {
        let captured = incident.flows().any(|flow| flows.contains(&flow));
        let withdrawn = incident.rest.get("withdrawn") == Some(&Value::Bool(true));
        incident.rest.insert("captured".to_owned(), captured.into());
        incident.rest.insert("state".to_owned(), if withdrawn { "withdrawn" } else { "closed" }.into());
    }
    Ok(())
}

fn table(out: &mut dyn Write, incidents: &[IncidentRecord]) -> io::Result<()> {
    if incidents.is_empty() {
        return writeln!(out, "no incidents");
    }
    let mut table = term::table();
    table.set_header(["began", "severity", "kind", "about", "state", "packets", "incident"]);
    for incident in incidents {
        let packets = match incident.rest.get("captured").and_then(Value::as_bool) {
            Some(true) => "kept",
            Some(false) => "none",
            None => "?",
        };
        let state = incident.rest.get("state").and_then(Value::as_str).unwrap_or("?").to_owned();
        let (about, packets) = (subject(incident), packets.to_owned());
        let IncidentRecord { first_ns, severity, kind, id, .. } = incident;
        table.add_row([utc(*first_ns), severity.clone(), kind.clone(), about, state, packets, id.clone()]);
    }
    term::lines(&table).try_for_each(|line| writeln!(out, "{line}"))
}

#[cfg(test)]
mod tests {
    use dataplane::record::IncidentLog;
    use serde_json::json;

    use super::*;

    fn incident(id: &str, first_ns: u64, kind: &str) -> Value {
        json!({
            "id": id, "kind": kind, "severity": "warning", "first_ns": first_ns, "last_ns": first_ns + 5,
            "flow_ids": [], "subject": { "dst": "10.0.0.1", "dport": 443, "proto": "tcp" },
        })
    }

    fn ids(incidents: &[IncidentRecord]) -> Vec<&str> {
        incidents.iter().map(|incident| incident.id.as_str()).collect()
    }

    #[test]
    fn the_newest_of_a_store_as_last_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let mut log = IncidentLog::open(&store).unwrap();
        for (id, first_ns, kind) in
            [("a", 1, "x"), ("b", 20, "x"), ("c", 30, "y"), ("d", 40, ON_DEMAND), ("b", 20, "y")]
        {
            log.append(&incident(id, first_ns, kind)).unwrap();
        }
        let listed = |wanted: &Wanted, limit| {
            let (incidents, more) = of_store(&store, wanted, limit).unwrap();
            (ids(&incidents).join(" "), more)
        };
        assert_eq!(listed(&Wanted::default(), 9), ("c b a".to_owned(), false));
        assert_eq!(listed(&Wanted::default(), 2), ("c b".to_owned(), true));
        let of = |kind: &str| Wanted { kind: Some(kind.to_owned()), ..Wanted::default() };
        assert_eq!(listed(&of("x"), 9), ("a".to_owned(), false), "b was said anew");
        assert_eq!(listed(&of(ON_DEMAND), 9), ("d".to_owned(), false));
        let between = Wanted { since: Some(7), until: Some(25), ..Wanted::default() };
        assert_eq!(listed(&between, 9).0, "b");
        let about = |host: &str| Wanted { host: Some(host.parse().unwrap()), ..Wanted::default() };
        assert_eq!(listed(&about("10.0.0.1"), 1), ("c".to_owned(), true));
        assert_eq!(listed(&about("10.0.0.2"), 1), (String::new(), false));
        let (incidents, _) = of_store(&store, &Wanted::default(), 1).unwrap();
        let mut shown = Vec::new();
        table(&mut shown, &incidents).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        for word in ["1970-01-01T00:00:00.000Z", "warning", "10.0.0.1:443", "closed", "none"] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
    }

    #[test]
    fn a_kind_that_there_is_not_is_told_with_the_nearest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Source::Store(Store::create(&folder.path().join("store")).unwrap());
        let rule = folder.path().join("own.rhai");
        std::fs::write(&rule, "rule \"db_refused\" on rst then { }").unwrap();
        let settings = folder.path().join("referee.toml");
        std::fs::write(&settings, "[rules]\ndir = \"own.rhai\"\n").unwrap();
        let kinds = kinds(&store, Some(&settings));
        for known in ["db_refused", "rst_midflow", "on_demand"] {
            assert_eq!(check_kind(known, &kinds), Ok(()));
        }
        let slip = check_kind("rst_midflw", &kinds).unwrap_err();
        assert_eq!((slip.code, slip.help.as_deref()), (Code::Usage, Some("did you mean `rst_midflow`?")));
        assert!(check_kind("bananas", &kinds).unwrap_err().help.unwrap().contains("rules list"));
    }

    #[test]
    fn a_question_of_a_run() {
        let wanted = Wanted { kind: Some("a b&c".to_owned()), since: Some(7), ..Wanted::default() };
        assert_eq!(
            wanted.question(true, 5, Some("9-x")),
            "/api/v1/incidents?limit=5&state=open&kind=a%20b%26c&since=7&after=9-x"
        );
        assert_eq!(Wanted::default().question(false, 5, None), "/api/v1/incidents?limit=5");
    }
}
