//! `incidents`: those of this run as main has them, and those of the store; one list, newest first.
//!
//! API thread; the store's are read on threads for files.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::source::Nanos;
use serde_json::{Map, Value, json};

use super::App;
use super::auth::Role;
use super::call::{Answer, Call, json};
use super::jobs::{no_incident, unreadable};
use super::problem::Problem;
use super::routes::Route;
use crate::board::{Entry, State};

/// Incidents of the same kind that one is shown with.
const SIMILAR: usize = 10;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/incidents", Role::Read, |call| Box::pin(list(call)))
        .with(&["state", "severity", "kind", "host", "since", "until", "text", "limit", "after"]),
    Route::get("/api/v1/incidents/{id}", Role::Read, |call| Box::pin(one(call))),
];

/// An incident's object, as it goes out.
type Object = Map<String, Value>;

fn of_board(entry: &Entry) -> Object {
    match serde_json::to_value(entry) {
        Ok(Value::Object(object)) => object,
        _ => Object::new(),
    }
}

/// Whatever this run knows goes before what was written of it.
async fn known(app: &Arc<App>) -> Result<Vec<Object>, Problem> {
    let mut all: HashMap<String, Object> = HashMap::new();
    if app.store.is_some() {
        let records = app.job(|store| store.incidents().map_err(unreadable)).await?;
        for record in records {
            let id = record.id.clone();
            let Ok(Value::Object(mut object)) = serde_json::to_value(record) else { continue };
            let withdrawn = object.get("withdrawn") == Some(&Value::Bool(true));
            object
                .insert("state".to_owned(), json!(if withdrawn { State::Withdrawn } else { State::Closed }));
            // Only the segments know.
            object.insert("captured".to_owned(), Value::Null);
            all.insert(id, object);
        }
    }
    for entry in app.board.entries() {
        all.insert(entry.incident.id.clone(), of_board(&entry));
    }
    let mut all: Vec<Object> = all.into_values().collect();
    all.sort_by(|a, b| key(b).cmp(&key(a)));
    Ok(all)
}

/// The place in the list: time, then id.
fn key(object: &Object) -> (Nanos, &str) {
    (object.get("first_ns").and_then(Value::as_u64).unwrap_or(0), text(object, "id"))
}

fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or("")
}

/// What a list is asked for.
struct Wanted {
    state: Option<String>,
    severity: Option<String>,
    kind: Option<String>,
    host: Option<IpAddr>,
    since: Option<Nanos>,
    until: Option<Nanos>,
    /// In lower case.
    text: Option<String>,
}

impl Wanted {
    fn of(call: &Call) -> Result<Wanted, Problem> {
        let (since, until) = call.between()?;
        let among = |words: &'static [&'static str]| {
            move |given: &str| words.contains(&given).then(|| given.to_owned())
        };
        Ok(Wanted {
            state: call.parsed(
                "state",
                "open, closed or withdrawn",
                among(&["open", "closed", "withdrawn"]),
            )?,
            severity: call.parsed(
                "severity",
                "info, warning or critical",
                among(&["info", "warning", "critical"]),
            )?,
            kind: call.param("kind").map(str::to_owned),
            host: call.host()?,
            since,
            until,
            text: call.param("text").map(str::to_lowercase),
        })
    }

    fn takes(&self, object: &Object) -> bool {
        let is = |name: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| text(object, name) == wanted)
        };
        let ns = |name: &str| object.get(name).and_then(Value::as_u64).unwrap_or(0);
        is("state", &self.state)
            && is("severity", &self.severity)
            && is("kind", &self.kind)
            && self.host.is_none_or(|host| is_about(object, host))
            && self.since.is_none_or(|since| ns("last_ns") >= since)
            && self.until.is_none_or(|until| ns("first_ns") <= until)
            && self.text.as_ref().is_none_or(|wanted| {
                ["id", "kind", "explain", "advise"]
                    .iter()
                    .any(|name| text(object, name).to_lowercase().contains(wanted))
                    || object.get("subject").is_some_and(|subject| subject.to_string().contains(wanted))
                    || object
                        .get("evidence")
                        .is_some_and(|all| all.to_string().to_lowercase().contains(wanted))
            })
    }
}

/// One of the ends, the host or the service is at this address.
fn is_about(object: &Object, host: IpAddr) -> bool {
    let subject = object.get("subject").and_then(Value::as_object);
    let is = |name: &str| {
        let addr = subject.and_then(|subject| subject.get(name)?.as_str()?.parse::<IpAddr>().ok());
        addr == Some(host)
    };
    is("src") || is("dst") || is("host")
}

async fn list(call: Call) -> Answer {
    let (wanted, limit) = (Wanted::of(&call)?, call.limit()?);
    let cursor = |text: &str| {
        let (ns, id) = text.split_once('-')?;
        Some((ns.parse::<Nanos>().ok()?, id.to_owned()))
    };
    let after = call.parsed("after", "the `next` of the page before", cursor)?;
    let all = known(&call.app).await?;
    let behind = |object: &&Object| after.as_ref().is_none_or(|(ns, id)| key(object) < (*ns, id.as_str()));
    let mut items: Vec<&Object> =
        all.iter().filter(behind).filter(|object| wanted.takes(object)).take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| format!("{}-{}", key(last).0, key(last).1));
    json(&json!({ "items": items, "next": next }))
}

async fn one(call: Call) -> Answer {
    let id = call.path("id");
    let all = known(&call.app).await?;
    let Some(found) = all.iter().find(|object| text(object, "id") == id) else {
        return Err(no_incident(id));
    };
    let similar = |other: &&Object| text(other, "id") != id && text(other, "kind") == text(found, "kind");
    let similar = all.iter().filter(similar).take(SIMILAR).map(|other| {
        json!({
            "id": text(other, "id"), "kind": text(other, "kind"), "first_ns": other.get("first_ns"),
            "subject": other.get("subject"),
        })
    });
    let mut object = found.clone();
    object.insert("similar".to_owned(), similar.collect());
    object.insert("proof".to_owned(), proof(&call.app, id).into());
    object.insert("capture".to_owned(), format!("/api/v1/captures/download?incident={id}").into());
    json(&object)
}

/// What opens its packets in Wireshark, on the box itself.
fn proof(app: &App, id: &str) -> String {
    let store = app.store.as_ref().map_or(String::new(), |store| format!(" --store {}", store.display()));
    format!("referee captures get{store} --incident {id} -w - | wireshark -k -i -")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_about_its_ends() {
        let object = |subject: Value| Object::from_iter([("subject".to_owned(), subject)]);
        let host: IpAddr = "2001:db8::1".parse().unwrap();
        assert!(is_about(&object(json!({"src": "10.0.0.1", "dst": "2001:db8::1"})), host));
        assert!(is_about(&object(json!({"host": "2001:0db8::0001"})), host));
        assert!(!is_about(&object(json!({"link": "all"})), host));
        assert!(!is_about(&Object::new(), host));
    }
}
