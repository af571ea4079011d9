//! `captures`: which flows have packets in the store, and the packets themselves as a capture file.
//!
//! API thread; the store is read on threads for files.

use dataplane::record::{FlowSummary, list_by};
use serde_json::json;

use super::auth::Role;
use super::call::{Answer, Call, bad_parameter, json};
use super::download::{self, PCAPNG};
use super::jobs::{QUERY, query, unlisted};
use super::routes::Route;
use crate::index;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/captures", Role::Read, |call| Box::pin(list(call))).with(&[
        "incident",
        "flow",
        "community_id",
        "host",
        "since",
        "until",
        "order",
        "limit",
        "after",
    ]),
    Route::get("/api/v1/captures/download", Role::Packets, |call| Box::pin(download(call)))
        .giving(&[PCAPNG])
        .with(&["incident", "flow", "community_id", "host", "since", "until", "stream"]),
];

async fn list(call: Call) -> Answer {
    let (query, limit) = (query(&call)?, call.limit()?);
    let newest = match call.param("order") {
        None | Some("oldest") => false,
        Some("newest") => true,
        Some(other) => return Err(bad_parameter("order", other, "oldest or newest")),
    };
    let after = call.parsed("after", "the `next` of the page before", cursor)?;
    let mut flows = call
        .app
        .job(move |store, _| list_by(store, &query, &*index::finder(store)).map_err(unlisted))
        .await?;
    let key = |flow: &FlowSummary| (flow.first_ns, flow.flow_id);
    if newest {
        flows.reverse();
    }
    if let Some(after) = after {
        flows.retain(|flow| if newest { key(flow) < after } else { key(flow) > after });
    }
    let next = flows.get(limit).is_some();
    flows.truncate(limit);
    let next = flows.last().filter(|_| next).map(|flow| format!("{}-{:016x}", flow.first_ns, flow.flow_id));
    json(&json!({ "items": flows, "next": next }))
}

fn cursor(text: &str) -> Option<(u64, u64)> {
    let (ns, id) = text.split_once('-')?;
    Some((ns.parse().ok()?, super::call::flow_id(id)?))
}

async fn download(call: Call) -> Answer {
    let query = query(&call)?;
    let stream = match call.param("stream") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(bad_parameter("stream", other, "true or false")),
    };
    let named = QUERY.iter().find_map(|name| call.param(name));
    // What a client names goes into a header and a file's name.
    let safe = |text: &str| {
        text.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).take(64).collect()
    };
    let name = format!("{}.pcapng", named.map_or_else(|| "referee".to_owned(), safe));
    let place = call.app.limits.download()?;
    if stream {
        return download::stream(&call, query, &name, place).await;
    }
    let app = std::sync::Arc::clone(&call.app);
    let spooled = call.app.job(move |store, given_up| app.spool.make(store, &query, given_up)).await?;
    download::send(&call, spooled, &name, place)
}
