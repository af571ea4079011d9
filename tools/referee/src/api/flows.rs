//! `flows`: the latest flows that ended with findings, as `--flows` writes them.
//!
//! API thread; main has put them on the board.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::flow::row::FlowRow;
use serde_json::{Value, json};

use super::App;
use super::auth::Role;
use super::call::{Answer, Call, json};
use super::problem::{Kind, Problem};
use super::routes::Route;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/flows", Role::Read, |call| Box::pin(list(call))).with(&[
        "host",
        "community_id",
        "finding",
        "since",
        "until",
        "limit",
        "after",
    ]),
    Route::get("/api/v1/flows/{flow_id}", Role::Read, |call| Box::pin(one(call))),
];

/// Flows of incidents whose packets are kept.
fn captured(app: &App) -> HashSet<String> {
    let entries = app.board.entries();
    let kept = entries.iter().filter(|entry| entry.captured);
    kept.flat_map(|entry| entry.incident.flow_ids.iter().cloned()).collect()
}

fn told(row: &FlowRow, captured: &HashSet<String>) -> Value {
    let mut value = json!(row);
    value["captured"] = captured.contains(&row.flow_id).into();
    value
}

fn key(row: &FlowRow) -> (u64, &str) {
    (row.end_ns, &row.flow_id)
}

async fn list(call: Call) -> Answer {
    call.app.live()?;
    let (host, limit, (since, until)) = (call.host()?, call.limit()?, call.between()?);
    let cursor = |text: &str| {
        let (ns, id) = text.split_once('-')?;
        Some((ns.parse::<u64>().ok()?, id.to_owned()))
    };
    let after = call.parsed("after", "the `next` of the page before", cursor)?;
    let is = |text: &str, host: IpAddr| text.parse() == Ok(host);
    let wanted = |row: &&Arc<FlowRow>| {
        host.is_none_or(|host| is(&row.flow.src, host) || is(&row.flow.dst, host))
            && call.param("community_id").is_none_or(|id| row.community_id == id)
            && call.param("finding").is_none_or(|finding| row.findings.contains_key(finding))
            && since.is_none_or(|since| row.end_ns >= since)
            && until.is_none_or(|until| row.start_ns <= until)
            && after.as_ref().is_none_or(|(ns, id)| key(row) < (*ns, id.as_str()))
    };
    let rows = call.app.board.rows();
    let mut rows: Vec<_> = rows.iter().filter(wanted).collect();
    rows.sort_by(|a, b| key(b).cmp(&key(a)));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| format!("{}-{}", row.end_ns, row.flow_id));
    let captured = captured(&call.app);
    json(&json!({ "items": rows.iter().map(|row| told(row, &captured)).collect::<Vec<_>>(), "next": next }))
}

async fn one(call: Call) -> Answer {
    call.app.live()?;
    let id = call.path("flow_id");
    let rows = call.app.board.rows();
    match rows.iter().rev().find(|row| row.flow_id == id) {
        Some(row) => json(&told(row, &captured(&call.app))),
        None => {
            let shown: String = id.chars().take(100).collect();
            Err(Problem::new(Kind::NoSuchFlow, format!("no flow {shown:?} is remembered"))
                .help("only the latest that ended with findings are; /api/v1/captures has those whose packets are kept"))
        }
    }
}
