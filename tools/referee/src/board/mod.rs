//! What main knows of a run, for those who are asked: incidents open and closed, events, ended flows, books, figures.
//!
//! Main pushes, the API's thread reads. The lock is held for a copy of pointers only, and no worker, judge or writer ever
//! takes it. Everything has a fixed size: what is older goes.

pub mod series;
pub mod spread;
pub mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use dataplane::flow::row::FlowRow;
use dataplane::judge::Incident;
use dataplane::source::Nanos;
use serde::Serialize;
use serde_json::{Value, json};

use crate::report::metrics::served::Requests;
use series::{Sample, Series};
use streams::Streams;

/// Incidents of this run that are remembered once they have closed.
const CLOSED: usize = 10_000;
/// Events that a reader who was away can still have.
const EVENTS: usize = 4096;
/// Flows with findings that are remembered.
const ROWS: usize = 10_000;

/// The box and its run, as they don't change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoxInfo {
    pub hostname: String,
    /// When this process began, ns since the epoch.
    pub started_ns: Nanos,
    /// Packets are captured; a store alone is shown otherwise.
    pub live: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Open,
    Closed,
    Withdrawn,
}

/// An incident of this run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    #[serde(flatten)]
    pub incident: Incident,
    pub state: State,
    /// Packets of it are kept.
    pub captured: bool,
}

/// Something that happened: `name` is `incident`, `books`, `rules` or `notice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// From 1, without gaps.
    pub seq: u64,
    pub name: &'static str,
    /// A JSON object.
    pub data: String,
}

/// An interface that is captured from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceState {
    pub name: String,
    /// How, in words.
    pub capture: String,
    pub link: bool,
}

/// How something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    #[default]
    Ok,
    Degraded,
    Failing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Standing,
    /// In words, and what to do; no help where all is well.
    pub what: String,
    pub help: Option<String>,
}

/// Made when somebody first asks for it, on their thread, and once.
pub type Later<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

pub fn later<T>(make: impl FnOnce() -> T + Send + 'static) -> Later<T> {
    LazyLock::new(Box::new(make))
}

/// What main has found out in the last second.
#[derive(Debug)]
pub struct Published {
    /// The `--ledger` object so far; null before the first second and without a run.
    pub books: Later<Value>,
    /// The page of metrics; empty without a run.
    pub metrics: Later<String>,
    pub interfaces: Vec<InterfaceState>,
    pub checks: Vec<Check>,
}

impl Default for Published {
    fn default() -> Self {
        let (books, metrics) = (later(Value::default), later(String::default));
        Published { books, metrics, interfaces: Vec::new(), checks: Vec::new() }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// By id.
    entries: BTreeMap<String, Arc<Entry>>,
    /// Ids of the closed ones, oldest first.
    closed: VecDeque<String>,
    events: VecDeque<Arc<Event>>,
    seq: u64,
    rows: VecDeque<Arc<FlowRow>>,
    series: Series,
    latest: Arc<Published>,
}

#[derive(Debug, Default)]
pub struct Board {
    info: BoxInfo,
    pub streams: Streams,
    inner: Mutex<Inner>,
    /// The other way round: the api thread counts, the metrics show it.
    requests: Arc<Requests>,
}

impl Board {
    pub fn new(info: BoxInfo) -> Arc<Board> {
        Arc::new(Board { info, ..Board::default() })
    }

    pub fn info(&self) -> &BoxInfo {
        &self.info
    }

    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn opened(&self, incident: &Incident, captured: bool) {
        self.put(Entry { incident: incident.clone(), state: State::Open, captured });
    }

    /// It has closed, or later packets have disproved it.
    pub fn closed(&self, incident: &Incident, captured: bool) {
        let state = if incident.withdrawn { State::Withdrawn } else { State::Closed };
        self.put(Entry { incident: incident.clone(), state, captured });
    }

    fn put(&self, entry: Entry) {
        let data = serde_json::to_string(&entry).unwrap_or_default();
        let (id, over) = (entry.incident.id.clone(), entry.state != State::Open);
        let mut inner = self.lock();
        inner.entries.insert(id.clone(), Arc::new(entry));
        if over {
            inner.closed.push_back(id);
        }
        if inner.closed.len() > CLOSED
            && let Some(oldest) = inner.closed.pop_front()
        {
            inner.entries.remove(&oldest);
        }
        inner.happened("incident", data);
    }

    /// What open incidents have grown to; those that are not open here are passed over.
    pub fn standing(&self, open: Vec<Incident>) {
        let mut inner = self.lock();
        for incident in open {
            if let Some(entry) = inner.entries.get_mut(&incident.id)
                && entry.state == State::Open
            {
                let captured = entry.captured;
                *entry = Arc::new(Entry { incident, state: State::Open, captured });
            }
        }
    }

    /// A flow with findings has ended.
    pub fn row(&self, row: FlowRow) {
        let mut inner = self.lock();
        if inner.rows.len() == ROWS {
            inner.rows.pop_front();
        }
        inner.rows.push_back(Arc::new(row));
    }

    /// Something that people are told.
    pub fn notice(&self, text: &str) {
        self.lock().happened("notice", json!({ "text": text }).to_string());
    }

    /// Other rules are in force, or were refused.
    pub fn rules(&self, generation: u32, hash: &str) {
        self.lock().happened("rules", json!({ "generation": generation, "hash": hash }).to_string());
    }

    /// Once a second.
    pub fn publish(&self, published: Published, sample: Sample) {
        let data = serde_json::to_string(&sample).unwrap_or_default();
        let mut latest = Arc::new(published);
        let mut inner = self.lock();
        std::mem::swap(&mut inner.latest, &mut latest);
        inner.series.push(sample);
        inner.happened("books", data);
        // What was made of the second before is taken apart while nobody waits.
        drop(inner);
    }

    pub fn latest(&self) -> Arc<Published> {
        Arc::clone(&self.lock().latest)
    }

    /// Incidents of this run, in no order.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().entries.values().cloned().collect()
    }

    pub fn entry(&self, id: &str) -> Option<Arc<Entry>> {
        self.lock().entries.get(id).cloned()
    }

    /// Flows with findings, oldest first.
    pub fn rows(&self) -> Vec<Arc<FlowRow>> {
        self.lock().rows.iter().cloned().collect()
    }

    pub fn series(&self, since: Nanos, step: u32) -> Vec<Sample> {
        self.lock().series.read(since, step)
    }

    /// The newest event's number; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.lock().seq
    }

    /// Events after `seq`, oldest first and at most so many, and whether some of them are forgotten already.
    pub fn since(&self, seq: u64, most: usize) -> (Vec<Arc<Event>>, bool) {
        let inner = self.lock();
        let oldest = inner.events.front().map_or(inner.seq + 1, |event| event.seq);
        // A number that is not given out yet is that of an earlier run.
        let lost = seq + 1 < oldest || seq > inner.seq;
        let seq = if seq > inner.seq { 0 } else { seq };
        let from = usize::try_from((seq + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        (inner.events.iter().skip(from).take(most).cloned().collect(), lost)
    }
}

impl Inner {
    fn happened(&mut self, name: &'static str, data: String) {
        self.seq += 1;
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(Event { seq: self.seq, name, data }));
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use dataplane::judge::Subject;
    use rules::{Scope, Severity};

    use super::*;

    pub fn incident(id: &str, first_ns: u64) -> Incident {
        Incident {
            id: id.to_owned(),
            kind: "rst_after_idle".to_owned(),
            rule: "rst_after_idle".to_owned(),
            severity: Severity::Warning,
            scope: Scope::Flow,
            subject: Subject::Host { host: "10.0.0.1".parse().unwrap() },
            first_ns,
            last_ns: first_ns + 1,
            count: 1,
            flows: 1,
            flow_ids: vec!["00000000000000ff".to_owned()],
            evidence: serde_json::Map::new(),
            explain: "It was reset.".to_owned(),
            advise: "Look.".to_owned(),
            tags: Vec::new(),
            rules_hash: "abc".to_owned(),
            because: Vec::new(),
            withdrawn: false,
        }
    }

    #[test]
    fn an_incident_opens_grows_and_closes_in_one_place() {
        let board = Board::new(BoxInfo::default());
        let mut one = incident("a", 5);
        board.opened(&one, false);
        assert_eq!(board.entry("a").map(|entry| entry.state), Some(State::Open));
        one.count = 7;
        board.standing(vec![one.clone(), incident("unknown", 1)]);
        assert_eq!(board.entries().len(), 1);
        assert_eq!(board.entry("a").map(|entry| entry.incident.count), Some(7));
        one.withdrawn = true;
        board.closed(&one, true);
        let entry = board.entry("a").unwrap();
        assert_eq!((entry.state, entry.captured), (State::Withdrawn, true));
        let json = serde_json::to_value(&*entry).unwrap();
        assert_eq!((json["id"].as_str(), json["state"].as_str()), (Some("a"), Some("withdrawn")));
    }

    #[test]
    fn what_is_long_to_make_is_made_once_and_only_if_asked_for() {
        let made = Arc::new(AtomicU32::new(0));
        let published = |second: u32| {
            let made = Arc::clone(&made);
            let metrics = later(move || format!("{second} {}", made.fetch_add(1, Ordering::Relaxed)));
            Published { metrics, ..Published::default() }
        };
        let board = Board::new(BoxInfo::default());
        assert_eq!(*board.latest().books, Value::Null);
        (0..10).for_each(|second| board.publish(published(second), Sample::default()));
        assert_eq!(made.load(Ordering::Relaxed), 0, "nobody has asked");
        let latest = board.latest();
        assert_eq!((&**board.latest().metrics, &**latest.metrics), ("9 0", "9 0"));
        board.publish(published(10), Sample::default());
        assert_eq!((&**board.latest().metrics, &**latest.metrics), ("10 1", "9 0"));
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn only_so_many_closed_ones_are_remembered_and_all_open_ones() {
        let board = Board::new(BoxInfo::default());
        board.opened(&incident("open", 1), false);
        (0..CLOSED + 5).for_each(|number| board.closed(&incident(&number.to_string(), 1), false));
        assert_eq!(board.entries().len(), CLOSED + 1);
        assert!(board.entry("open").is_some() && board.entry("0").is_none());
    }

    #[test]
    fn a_reader_who_was_away_learns_what_is_missing() {
        let board = Board::new(BoxInfo::default());
        assert_eq!(board.since(0, 10), (Vec::new(), false));
        (0..10).for_each(|_| board.notice("x"));
        let (events, lost) = board.since(7, 10);
        assert_eq!((events.iter().map(|event| event.seq).collect::<Vec<_>>(), lost), (vec![8, 9, 10], false));
        assert_eq!(board.since(10, 10), (Vec::new(), false));
        (0..EVENTS).for_each(|_| board.notice("x"));
        let (events, lost) = board.since(7, 2);
        assert_eq!((events[0].seq, events.len(), lost), (11, 2, true));
        // The number of an earlier run.
        assert!(board.since(1_000_000, 1).1);
    }
}
