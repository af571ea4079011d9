//! `referee captures list` and `get`: what a store keeps, and out of it as one pcapng.
//!
//! Main thread, possibly while a recorder writes to the same store. Finding and ordering packets is
//! `dataplane::record`'s; here are the command line's questions and answers.

pub mod live;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use comfy_table::CellAlignment;
use dataplane::record::list::ListError;
use dataplane::record::query::QueryError;
use dataplane::record::{
    ExportError, ExportSummary, FlowSummary, IncidentRecord, Query, Spool, Store, StoreError, list_by,
    prepare,
};

use crate::access;
use crate::cli::{GetArgs, ListArgs, QueryArgs};
use crate::config::{Config, DEFAULT_PATH};
use crate::error::Failure;
use crate::index::{self, incidents::Sieve};
use crate::rules::explain::whole_id;
use crate::term::{self, count, plural};
use crate::time::{span, utc};

/// Prints the flows that have packets in the store.
///
/// # Errors
/// Usage: no store named. Failed: the store can't be read, or holds nothing of what was asked for.
pub fn list(args: &ListArgs) -> Result<(), Failure> {
    let (store, query) = question(&args.query)?;
    let flows = found(&store, &query)?;
    if args.json {
        return term::show(|out| {
            for flow in &flows {
                serde_json::to_writer(&mut *out, flow)?;
                out.write_all(b"\n")?;
            }
            Ok(())
        });
    }
    let kinds = kinds(&store, &flows)?;
    term::show(|out| table(out, &flows, &kinds))
}

/// Writes the packets asked for as one capture file.
///
/// # Errors
/// Usage: no store named, or a terminal to write to. Failed: the store can't be read, the file can't be
/// written, or nothing of what was asked for is kept.
pub fn get(args: &GetArgs) -> Result<(), Failure> {
    let to_stdout = args.write.as_deref() == Some(Path::new("-"));
    if to_stdout && io::stdout().is_terminal() {
        let what = "standard output is a terminal, and a capture is not text";
        return Err(Failure::usage(what).help("name a file with -w, or pipe it: … -w - | tshark -r -"));
    }
    let (store, query) = question(&args.query)?;
    let Some(path) = &args.write else {
        return show_only(&store, &query, args.json);
    };
    let prepared = prepare(&store, &query, &*index::finder(&store), &Spool::beside(&store));
    let exported = prepared.and_then(|prepared| match to_stdout {
        true => prepared.write(&mut BufWriter::new(io::stdout().lock())),
        false => prepared.write(&mut BufWriter::with_capacity(1 << 20, file(path)?)),
    });
    let summary = match exported {
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(ExportError::Output(error)) => {
            let where_to = if to_stdout { "standard output".to_owned() } else { path.display().to_string() };
            return Err(Failure::failed(format!("{where_to} can't be written: {error}"))
                .help("name a path with room on its disk, in a folder this user may write to"));
        }
        other => other.map_err(|error| unanswered(error.to_string()))?,
    };
    told(&summary, path, args.json && !to_stdout)
}

/// The store and what is asked of it.
fn question(args: &QueryArgs) -> Result<(Store, Query), Failure> {
    let store = access::store(&store_folder(args.store.as_deref(), args.config.as_deref())?)?;
    let now = SystemTime::now();
    let query = Query {
        incident: args.incident.as_deref().map(|id| whole_id(&store, id)).transpose()?,
        flow: args.flow,
        community_id: args.community_id.clone(),
        host: args.host,
        since: args.since.map(|when| when.resolve(now)),
        until: args.until.map(|when| when.resolve(now)),
    };
    if let (Some(since), Some(until)) = (query.since, query.until)
        && since > until
    {
        let what = format!("--since {} is after --until {}", utc(since), utc(until));
        return Err(Failure::usage(what).help("exchange them"));
    }
    Ok((store, query))
}

/// `--store`, else the store that the settings name.
pub fn store_folder(store: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(store) = store {
        return Ok(store.to_path_buf());
    }
    let installed = Path::new(DEFAULT_PATH);
    let settings = config.or_else(|| installed.exists().then_some(installed));
    let named =
        settings.map(|path| Config::load(Some(path))).transpose()?.and_then(|config| config.store_dir);
    named.ok_or_else(|| Failure::usage("no store is named").help("name one with --store DIR"))
}

fn failed(error: StoreError) -> Failure {
    Failure::failed(error)
}

/// Library errors already say what to do.
fn unanswered(message: String) -> Failure {
    Failure::failed(message)
}

/// The flows that match; none is a failure.
fn found(store: &Store, query: &Query) -> Result<Vec<FlowSummary>, Failure> {
    let listed = list_by(store, query, &*index::finder(store)).map_err(|error| match error {
        ListError::Query(QueryError::Store(error)) => failed(error),
        other => unanswered(other.to_string()),
    })?;
    if listed.is_empty() {
        let place = store.root().display();
        return Err(match *query == Query::default() {
            true => Failure::failed(format!("nothing is kept in {place} yet"))
                .help("packets come with incidents, and with `referee capture`"),
            false => Failure::failed(format!("nothing is kept in {place} for {query}"))
                .help("`referee captures list` without conditions shows what there is"),
        });
    }
    Ok(listed)
}

/// Incidents shown with a flow; of more, their number.
const SHOWN: usize = 3;

/// Kinds of the incidents that the table shows, by id.
fn kinds(store: &Store, flows: &[FlowSummary]) -> Result<HashMap<String, String>, Failure> {
    let shown = flows.iter().flat_map(|flow| flow.incidents.iter().take(SHOWN));
    let mut sought: HashSet<&str> = shown.map(String::as_str).collect();
    let mut kinds = HashMap::new();
    let mut found = |_, incident: IncidentRecord| {
        if sought.remove(incident.id.as_str()) {
            kinds.insert(incident.id, incident.kind);
        }
        !sought.is_empty()
    };
    index::incidents::walk(store, &Sieve::default(), &mut found).map_err(failed)?;
    Ok(kinds)
}

/// Its two ends; of a capture on demand what was asked for.
fn who(flow: &FlowSummary) -> String {
    if let Some(demand) = &flow.demand {
        let what = if demand.expression.is_empty() { "all packets" } else { &demand.expression };
        let flows = demand.flows.map_or("very many flows".to_owned(), |flows| plural(flows, "flow"));
        return format!("on demand: {what} ({flows})");
    }
    flow.flow.map_or("?".to_owned(), |tuple| {
        let end = |addr, port| std::net::SocketAddr::new(addr, port);
        let proto = serde_json::to_value(tuple).ok();
        let proto = proto.as_ref().and_then(|value| value["proto"].as_str()).unwrap_or("?");
        format!("{proto} {} → {}", end(tuple.src, tuple.sport), end(tuple.dst, tuple.dport))
    })
}

fn table(out: &mut dyn Write, flows: &[FlowSummary], kinds: &HashMap<String, String>) -> io::Result<()> {
    let mut table = term::table();
    table.set_header(["flow", "who", "first packet", "span", "packets", "bytes", "incidents"]);
    for flow in flows {
        let who = who(flow);
        let mut of_flow: Vec<String> = flow
            .incidents
            .iter()
            .take(SHOWN)
            .map(|id| format!("{} {id}", kinds.get(id).map_or("?", String::as_str)))
            .collect();
        let more = flow.incidents.len().saturating_sub(SHOWN);
        if more > 0 {
            of_flow.push(format!("and {more} more"));
        }
        table.add_row([
            format!("{:016x}", flow.flow_id),
            who,
            utc(flow.first_ns),
            span(flow.last_ns.saturating_sub(flow.first_ns)),
            count(flow.packets),
            count(flow.bytes),
            of_flow.join(", "),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    term::lines(&table).try_for_each(|line| writeln!(out, "{line}"))
}

/// Without `-w`: what would be written, and where it lies.
fn show_only(store: &Store, query: &Query, json: bool) -> Result<(), Failure> {
    // As if it were written: packets that were recorded for several flows or reasons are one there.
    let prepared = prepare(store, query, &*index::finder(store), &Spool::beside(store));
    let summary = prepared.map_err(|error| unanswered(error.to_string()))?.summary().clone();
    let folder = store.segments();
    term::show(|out| {
        if json {
            let (packets, bytes) = (summary.packets, summary.bytes);
            return writeln!(
                out,
                "{}",
                serde_json::json!({
                    "packets": packets, "bytes": bytes, "flows": summary.flows,
                    "first_ns": summary.first_ns, "last_ns": summary.last_ns, "segments": folder,
                })
            );
        }
        writeln!(out, "{}, kept in {}", extent(&summary), folder.display())?;
        writeln!(out, "-w FILE writes them as one capture file, -w - to standard output")
    })
}

fn extent(summary: &ExportSummary) -> String {
    format!(
        "{} of {}, {} to {}",
        plural(summary.packets, "packet"),
        plural(summary.flows, "flow"),
        utc(summary.first_ns),
        utc(summary.last_ns)
    )
}

/// Says what was written, and what of the store could not be read.
fn told(summary: &ExportSummary, path: &Path, json: bool) -> Result<(), Failure> {
    for damage in &summary.damaged {
        term::note(&format!("{damage}; `referee store verify` shows how every segment is"));
    }
    if summary.vanished > 0 {
        let gone = plural(summary.vanished, "segment");
        term::note(&format!("{gone} of what was asked for: deleted by retention before it could be read"));
    }
    if json {
        return term::show(|out| {
            serde_json::to_writer(&mut *out, summary)?;
            out.write_all(b"\n")
        });
    }
    let to = if path == Path::new("-") { "standard output".into() } else { path.display().to_string() };
    term::note(&format!("{}, written to {to}", extent(summary)));
    Ok(())
}

/// The file to write: made now that there is something to put in it.
fn file(path: &Path) -> Result<File, ExportError> {
    File::create(path).map_err(ExportError::Output)
}
