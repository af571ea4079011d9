//! `incidents`: those of this run as main has them, and those of the store; one list, newest first.
//!
//! API thread; the store's are read on threads for files, through its index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use dataplane::record::{IncidentRecord, Store};
use dataplane::source::Nanos;
use serde_json::{Map, Value, json};

use super::App;
use super::auth::Role;
use super::call::{Answer, Call, json};
use super::jobs::{no_incident, unreadable};
use super::problem::Problem;
use super::routes::Route;
use crate::board::{Entry, State};
use crate::index;
use crate::index::held::Held;
use crate::index::incidents::{Shown, Sieve, walk, withdrawn};

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

fn of_store(record: IncidentRecord) -> Object {
    let withdrawn = withdrawn(&record);
    let Ok(Value::Object(mut object)) = serde_json::to_value(record) else { return Object::new() };
    object.insert("state".to_owned(), json!(if withdrawn { State::Withdrawn } else { State::Closed }));
    // Said last, of those that are shown.
    object.insert("captured".to_owned(), Value::Null);
    object
}

/// What there is to ask the store about an incident's packets.
enum Doubt {
    /// It is of the store, and nothing was said yet.
    Unsaid,
    /// It is of this run, which kept them: they may have been deleted since.
    Kept,
}

fn doubt(object: &Object) -> Option<Doubt> {
    match object.get("captured")? {
        Value::Null => Some(Doubt::Unsaid),
        Value::Bool(true) => Some(Doubt::Kept),
        _ => None,
    }
}

/// Says of incidents whether packets of them are kept in the store; null where the index doesn't know.
fn say_captured<'o>(store: &Store, objects: impl Iterator<Item = &'o mut Object>, this_run: Option<Nanos>) {
    let mut objects = objects.filter(|object| doubt(object).is_some()).peekable();
    if objects.peek().is_none() {
        return;
    }
    let Some(held) = Held::now(store) else { return };
    let now = SystemTime::now();
    for object in objects {
        let ids = object.get("flow_ids").and_then(Value::as_array).into_iter().flatten();
        let flows: Vec<u64> = ids.filter_map(|id| u64::from_str_radix(id.as_str()?, 16).ok()).collect();
        let [first_ns, last_ns] =
            ["first_ns", "last_ns"].map(|name| object.get(name).and_then(Value::as_u64).unwrap_or(0));
        let captured = match doubt(object) {
            Some(Doubt::Kept) => held.still(&flows, first_ns, last_ns, now),
            _ => held.any(&flows, last_ns, this_run),
        };
        object.insert("captured".to_owned(), json!(captured));
    }
}

/// Says the same of what this run knows. If nobody has time to look, it stays as it was said.
async fn checked(app: &Arc<App>, objects: Vec<Object>) -> Vec<Object> {
    if app.store.is_none() || !objects.iter().any(|object| doubt(object).is_some()) {
        return objects;
    }
    let mut asked = objects.clone();
    let looked = app.job(move |store, _| {
        say_captured(store, asked.iter_mut(), None);
        Ok(asked)
    });
    looked.await.unwrap_or(objects)
}

/// When the run began that writes to the store, if one does.
fn this_run(app: &App) -> Option<Nanos> {
    let info = app.board.info();
    info.live.then_some(info.started_ns)
}

/// The newest of those that are wanted and stand behind a place in the list.
struct Newest {
    wanted: Wanted,
    after: Option<(Nanos, String)>,
    most: usize,
    found: BTreeMap<(Nanos, String), Object>,
    places: HashMap<String, Nanos>,
    /// There are more.
    more: bool,
}

impl Newest {
    fn new(wanted: Wanted, after: Option<(Nanos, String)>, most: usize) -> Newest {
        Newest { wanted, after, most, found: BTreeMap::new(), places: HashMap::new(), more: false }
    }

    /// Takes one in the place of what was said of it before.
    fn take(&mut self, object: Object) {
        let key = key(&object);
        let key = (key.0, key.1.to_owned());
        if let Some(at) = self.places.remove(&key.1) {
            self.found.remove(&(at, key.1.clone()));
        }
        if self.after.as_ref().is_some_and(|after| key >= *after) || !self.wanted.takes(&object) {
            return;
        }
        self.places.insert(key.1.clone(), key.0);
        self.found.insert(key, object);
        if self.found.len() > self.most {
            self.more = true;
            let oldest = self.found.pop_first();
            if let Some(((_, id), _)) = oldest {
                self.places.remove(&id);
            }
        }
    }

    /// There are enough, and this place is behind them all.
    fn ends_before(&self, key: (Nanos, &str)) -> bool {
        let oldest = self.found.first_key_value().map(|((ns, id), _)| (*ns, id.as_str()));
        self.more && oldest.is_some_and(|oldest| key < oldest)
    }

    /// Goes through this run's and then the store's; whatever this run knows goes before what was written of it.
    async fn search(mut self, app: &Arc<App>) -> Result<Newest, Problem> {
        let mut known = app.board.entries();
        let place = |entry: &Entry| (entry.incident.first_ns, entry.incident.id.clone());
        known.sort_by_cached_key(|entry| std::cmp::Reverse(place(entry)));
        for entry in &known {
            let (ns, id) = place(entry);
            if self.ends_before((ns, &id)) {
                break;
            }
            self.take(of_board(entry));
        }
        if app.store.is_none() || self.wanted.state.as_deref() == Some("open") {
            let (keys, objects): (Vec<_>, Vec<_>) = std::mem::take(&mut self.found).into_iter().unzip();
            self.found = keys.into_iter().zip(checked(app, objects).await).collect();
            return Ok(self);
        }
        let this_run = this_run(app);
        let ids: HashSet<String> = known.iter().map(|entry| entry.incident.id.clone()).collect();
        app.job(move |store, _| {
            let sieve = self.sieve();
            let mut visit = |shown: Shown, record: IncidentRecord| {
                if ids.contains(&record.id) {
                    return true;
                }
                let object = of_store(record);
                let enough = shown == Shown::Newest && self.ends_before(key(&object));
                if !enough {
                    self.take(object);
                }
                !enough
            };
            walk(store, &sieve, &mut visit).map_err(unreadable)?;
            say_captured(store, self.found.values_mut(), this_run);
            Ok(self)
        })
        .await
    }

    /// What the store's index can pass over.
    fn sieve(&self) -> Sieve {
        let wanted = &self.wanted;
        Sieve {
            after: self.after.clone(),
            kind: wanted.kind.clone(),
            severity: wanted.severity.clone(),
            withdrawn: wanted.state.as_ref().map(|state| state == "withdrawn"),
            host: wanted.host,
            since: wanted.since,
            until: wanted.until,
        }
    }

    /// Newest first.
    fn items(&self) -> impl Iterator<Item = &Object> {
        self.found.values().rev()
    }
}

/// The place in the list: time, then id.
fn key(object: &Object) -> (Nanos, &str) {
    (object.get("first_ns").and_then(Value::as_u64).unwrap_or(0), text(object, "id"))
}

fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or("")
}

/// What a list is asked for.
#[derive(Default)]
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
    let newest = Newest::new(wanted, after, limit).search(&call.app).await?;
    let next = newest.items().last().filter(|_| newest.more);
    let next = next.map(|last| format!("{}-{}", key(last).0, key(last).1));
    json(&json!({ "items": newest.items().collect::<Vec<_>>(), "next": next }))
}

async fn one(call: Call) -> Answer {
    let id = call.path("id").to_owned();
    let found = match call.app.board.entry(&id) {
        Some(entry) => checked(&call.app, vec![of_board(&entry)]).await.pop(),
        None if call.app.store.is_none() => None,
        None => {
            let (id, this_run) = (id.clone(), this_run(&call.app));
            call.app
                .job(move |store, _| {
                    let found = store.incident_by(&id, &*index::finder(store)).map_err(unreadable)?;
                    let mut found = found.map(of_store);
                    say_captured(store, found.iter_mut(), this_run);
                    Ok(found)
                })
                .await?
        }
    };
    let Some(mut object) = found else { return Err(no_incident(&id)) };
    let kind = Wanted { kind: Some(text(&object, "kind").to_owned()), ..Wanted::default() };
    let similar = Newest::new(kind, None, SIMILAR + 1).search(&call.app).await?;
    let similar = similar.items().filter(|other| text(other, "id") != id).take(SIMILAR).map(|other| {
        json!({
            "id": text(other, "id"), "kind": text(other, "kind"), "first_ns": other.get("first_ns"),
            "subject": other.get("subject"),
        })
    });
    object.insert("similar".to_owned(), similar.collect());
    // What opens its packets in Wireshark, on the box itself.
    let proof = call.app.proofs.as_ref().map(|proofs| proofs.line(&id));
    object.insert("proof".to_owned(), json!(proof));
    object.insert("capture".to_owned(), format!("/api/v1/captures/download?incident={id}").into());
    json(&object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_held_and_none_is_lost_between_pages() {
        let of = |id: u64, kind: &str| {
            let object = json!({"id": format!("{id:02}"), "first_ns": id, "kind": kind});
            object.as_object().unwrap().clone()
        };
        let kind = || Wanted { kind: Some("a".to_owned()), ..Wanted::default() };
        let page = |after: Option<(u64, String)>| {
            let mut newest = Newest::new(kind(), after, 3);
            (1..=9).for_each(|id| newest.take(of(id, "a")));
            // Said again, it is something else.
            newest.take(of(9, "b"));
            let ids: Vec<u64> = newest.items().map(|object| key(object).0).collect();
            (ids, newest.more)
        };
        assert_eq!(page(None), (vec![8, 7], true));
        assert_eq!(page(Some((7, "07".to_owned()))), (vec![6, 5, 4], true));
        assert_eq!(page(Some((4, "04".to_owned()))), (vec![3, 2, 1], false));
    }

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
