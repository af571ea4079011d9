//! `flows`: the latest flows that ended with findings, as `--flows` writes them.
//!
//! API thread; main has put them on the board.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use dataplane::flow::row::FlowRow;
use serde_json::{Value, json};

use super::App;
use super::auth::Role;
use super::call::{Answer, Call, json};
use super::problem::{Kind, Problem};
use super::routes::Route;
use crate::index::held::Held;

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

/// The same, as the store is now: what was kept may have been deleted since. If nobody has time to look, it stays as it was.
async fn told_now(app: &Arc<App>, rows: &[&Arc<FlowRow>]) -> Vec<Value> {
    let captured = captured(app);
    let told: Vec<Value> = rows.iter().map(|row| told(row, &captured)).collect();
    if app.store.is_none() || told.iter().all(|row| row["captured"] == false) {
        return told;
    }
    let mut asked = told.clone();
    let looked = app.job(move |store, _| {
        let Some(held) = Held::now(store) else { return Ok(asked) };
        let now = SystemTime::now();
        for row in asked.iter_mut().filter(|row| row["captured"] == true) {
            let id = row["flow_id"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok());
            let end_ns = row["end_ns"].as_u64().unwrap_or(0);
            row["captured"] = json!(id.and_then(|id| held.still(&[id], end_ns, end_ns, now)));
        }
        Ok(asked)
    });
    looked.await.unwrap_or(told)
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
    json(&json!({ "items": told_now(&call.app, &rows).await, "next": next }))
}

async fn one(call: Call) -> Answer {
    call.app.live()?;
    let id = call.path("flow_id");
    let rows = call.app.board.rows();
    match rows.iter().rev().find(|row| row.flow_id == id) {
        Some(row) => json(&told_now(&call.app, &[row]).await.pop()),
        None => {
            let shown: String = id.chars().take(100).collect();
            Err(Problem::new(Kind::NoSuchFlow, format!("no flow {shown:?} is remembered"))
                .help("only the latest that ended with findings are; /api/v1/captures has those whose packets are kept"))
        }
    }
}
