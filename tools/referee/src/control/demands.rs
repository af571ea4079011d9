//! Captures on demand of a live run: which are under way, how each stands, what begins and ends one.
//!
//! Control thread; plain questions and answers, so that whoever carries them (a socket) knows nothing of what they mean.
//! Workers are never waited for. What becomes of each goes to main, which keeps it in the store beside the incidents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{SystemTime, UNIX_EPOCH};

use dataplane::demand::{Counts, DEMANDS, Demand, DemandBox, Over};
use dataplane::judge::Subject;
use dataplane::ledger::UnwrittenReason;
use dataplane::source::{Interface, Nanos};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::expression::selection;
use crate::time::{typed, utc};

const SECOND: Nanos = 1_000_000_000;
/// What is taken of history if nothing else is said.
const LAST: Nanos = 30 * SECOND;
/// At most.
const LAST_MOST: Nanos = 3600 * SECOND;
const FOR_MOST: Nanos = 24 * 3600 * SECOND;
pub const PACKETS_MOST: u64 = 1_000_000;
/// Demands remembered after their end.
const REMEMBERED: usize = 64;

/// What somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// As tcpdump takes it.
    pub expression: String,
    /// How much of the past and of the future; neither: the last 30 s.
    #[serde(default)]
    pub last_ns: Option<Nanos>,
    #[serde(default)]
    pub for_ns: Option<Nanos>,
    /// At most so many packets, and bytes of them; no more than the settings allow.
    #[serde(default)]
    pub packets: Option<u64>,
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// How one stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandState {
    /// Also that of its record among the incidents, and of its packets in place of a flow's.
    pub id: String,
    pub expression: String,
    pub state: Stage,
    pub begun_ns: Nanos,
    pub since_ns: Nanos,
    pub until_ns: Nanos,
    /// All packets from here on were looked at, unless there are missed ones.
    pub reached_ns: Nanos,
    pub looked: u64,
    /// Of these, packets given to the store, and their bytes: without those of which is known that they are not on the disk.
    pub packets: u64,
    pub bytes: u64,
    /// Packets that were given to the store and are not on the disk, by the ledger's reasons; what there is none of is left out.
    #[serde(default)]
    pub unwritten: BTreeMap<String, u64>,
    /// Packets that were wanted and left out, because the store was short of room.
    pub refused: u64,
    /// Bytes of history overwritten before they were looked at.
    pub missed_bytes: u64,
    /// It was ended early: by somebody, or because it had all it may have.
    pub ended: bool,
    pub full: bool,
    /// All of history that was wanted has been gone through.
    pub scanned: bool,
    /// Later fragments of what is wanted come with it.
    pub fragments: bool,
    pub store: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Packets are looked at.
    Capturing,
    /// All was looked at; what was kept is on its way to the disk.
    Finishing,
    /// All of it is in the store.
    Done,
}

/// Why one can't be begun, or is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: Reason,
    pub error: String,
    pub help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    NoStore,
    Busy,
    Limit,
    Expression,
    Unknown,
}

pub(super) fn refuse<T>(
    reason: Reason,
    error: impl Into<String>,
    help: impl Into<String>,
) -> Result<T, Refusal> {
    Err(Refusal { reason, error: error.into(), help: help.into() })
}

/// What main is to keep beside the incidents.
#[derive(Debug)]
pub struct Record {
    pub value: Value,
    kept: Arc<AtomicBool>,
}

impl Record {
    /// It is in the store, or will never be.
    pub fn kept(&self) {
        self.kept.store(true, Ordering::Release);
    }
}

/// What a run has for them.
#[derive(Debug, Default)]
pub struct Means {
    /// Where packets are kept.
    pub store: Option<PathBuf>,
    /// Of the interfaces, LINKTYPE_ numbers.
    pub links: Vec<u16>,
    /// The workers' boxes, in their order.
    pub boxes: Vec<Arc<DemandBox>>,
    /// Packet bytes one may keep.
    pub bytes: u64,
}

impl Means {
    pub fn new(
        store: Option<&Path>,
        interfaces: &[Interface],
        boxes: Vec<Arc<DemandBox>>,
        bytes: u64,
    ) -> Means {
        let store = store.map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf()));
        let links = interfaces.iter().map(|interface| interface.link_number).collect();
        Means { store, links, boxes, bytes }
    }
}

#[derive(Debug)]
struct Asked {
    demand: Arc<Demand>,
    expression: String,
    begun: Nanos,
    /// What became of it was told to main, and main has kept it.
    told: bool,
    kept: Arc<AtomicBool>,
}

/// All there were, the latest last.
#[derive(Debug)]
pub struct Demands {
    means: Means,
    records: Sender<Record>,
    all: Vec<Asked>,
    /// When the run began: before that it has seen nothing.
    began: Nanos,
}

fn now() -> Nanos {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(now.as_nanos()).unwrap_or(Nanos::MAX)
}

impl Demands {
    pub fn new(means: Means, records: Sender<Record>) -> Demands {
        Demands { means, records, all: Vec::new(), began: now() }
    }

    /// Begins one.
    ///
    /// # Errors
    /// There is no store, too many are under way, or the wish is no good.
    pub fn begin(&mut self, wish: &Wish) -> Result<DemandState, Refusal> {
        if self.means.store.is_none() {
            let help = "start it with --store DIR, or set [store] dir in referee.toml";
            return refuse(Reason::NoStore, "this run records nothing, so it can capture nothing", help);
        }
        let (last, lasts) = times(wish)?;
        let selection = selection(&wish.expression, &self.means.links)?;
        if self.all.iter().filter(|asked| !asked.demand.counts().done).count() >= DEMANDS {
            let what = format!("{DEMANDS} captures are under way, as many as there can be");
            return refuse(Reason::Busy, what, "wait until one is done, or end one");
        }
        let begun = now();
        let time = (begun.saturating_sub(last), begun.saturating_add(lasts));
        let most = (
            wish.packets.unwrap_or(PACKETS_MOST).min(PACKETS_MOST),
            wish.bytes.unwrap_or(u64::MAX).min(self.means.bytes),
        );
        let demand = Arc::new(Demand::new(fresh_id(), selection, time, most, self.means.boxes.len()));
        for place in &self.means.boxes {
            // There is room for as many as there can be; a worker that had none would have it end early.
            if !place.offer(&demand) {
                demand.end(Over::Ended);
            }
        }
        let expression = wish.expression.clone();
        self.all.push(Asked { demand, expression, begun, told: false, kept: Arc::default() });
        self.tell(self.all.len() - 1);
        Ok(self.state(&self.all[self.all.len() - 1]))
    }

    /// All that are remembered.
    pub fn list(&self) -> Vec<DemandState> {
        self.all.iter().map(|asked| self.state(asked)).collect()
    }

    /// # Errors
    /// There is none of this id.
    pub fn get(&self, id: &str) -> Result<DemandState, Refusal> {
        self.find(id).map(|asked| self.state(asked))
    }

    /// Has one end now; what it has stays.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn end(&self, id: &str) -> Result<DemandState, Refusal> {
        let asked = self.find(id)?;
        if !asked.demand.counts().done {
            asked.demand.end(Over::Ended);
        }
        Ok(self.state(asked))
    }

    fn find(&self, id: &str) -> Result<&Asked, Refusal> {
        let found = self.all.iter().find(|asked| hex(asked.demand.id) == id);
        found.map_or_else(
            || refuse(Reason::Unknown, format!("there is no capture {id}"), "the list shows which there are"),
            Ok,
        )
    }

    /// Tells main what became of those that are done, and forgets the oldest that nobody has any more.
    pub fn look(&mut self) {
        for index in 0..self.all.len() {
            if !self.all[index].told && self.all[index].demand.counts().done {
                self.all[index].told = true;
                self.tell(index);
            }
        }
        let mut over = self.all.len().saturating_sub(REMEMBERED);
        self.all.retain(|asked| {
            let goes = over > 0 && asked.told && Arc::strong_count(&asked.demand) == 1;
            over -= usize::from(goes);
            !goes
        });
    }

    /// The run ends, and with it all of them.
    pub fn stop(&self) {
        self.all.iter().for_each(|asked| asked.demand.end(Over::Ended));
    }

    /// Once no worker is left: what became of those that were under way.
    pub fn last(&self) -> Vec<Record> {
        self.all.iter().filter(|asked| !asked.told).map(|asked| self.record(asked)).collect()
    }

    fn tell(&self, index: usize) {
        // Main has ended first: it will ask for the last.
        let _ = self.records.send(self.record(&self.all[index]));
    }

    fn state(&self, asked: &Asked) -> DemandState {
        let Asked { demand, expression, begun, told, kept } = asked;
        let Counts {
            looked,
            kept: given,
            bytes,
            unwritten,
            unwritten_bytes,
            refused,
            lapped,
            reached_ns,
            done,
            scanned,
        } = demand.counts();
        let over = demand.over();
        let looked_through = over.is_some() || scanned && now() > demand.until.saturating_add(SECOND);
        DemandState {
            id: hex(demand.id),
            expression: expression.clone(),
            state: match (done && *told && kept.load(Ordering::Acquire), looked_through || done) {
                (true, _) => Stage::Done,
                (false, true) => Stage::Finishing,
                (false, false) => Stage::Capturing,
            },
            begun_ns: *begun,
            since_ns: demand.since,
            until_ns: demand.until,
            reached_ns: reached_ns.max(demand.since).max(self.began.min(*begun)),
            looked,
            packets: given.saturating_sub(unwritten.iter().sum()),
            bytes: bytes.saturating_sub(unwritten_bytes),
            unwritten: by_reason(&unwritten),
            refused,
            missed_bytes: lapped,
            ended: over == Some(Over::Ended),
            full: over == Some(Over::Full),
            scanned: scanned || done,
            fragments: false,
            store: self.means.store.clone().unwrap_or_default(),
        }
    }

    /// As an incident, by which its packets are found; it is nobody's trouble.
    fn record(&self, asked: &Asked) -> Record {
        let state = self.state(asked);
        let last_ns = if asked.told { state.until_ns.min(now()) } else { state.begun_ns };
        let value = json!({
            "id": state.id, "kind": "on_demand", "rule": "on_demand", "severity": "info", "scope": "link",
            "subject": Subject::ALL_TRAFFIC, "first_ns": state.reached_ns, "last_ns": last_ns,
            "count": state.packets, "flows": 0, "flow_ids": [state.id],
            "evidence": {
                "expression": state.expression, "since_ns": state.since_ns, "until_ns": state.until_ns,
                "reached_ns": state.reached_ns, "looked": state.looked, "packets": state.packets,
                "bytes": state.bytes, "unwritten": state.unwritten, "refused": state.refused, "missed_bytes": state.missed_bytes,
                "ended": state.ended, "full": state.full,
            },
            "explain": explain(&state), "advise": "", "rules_hash": "",
        });
        // The first record is not the one that is waited for.
        let kept = if asked.told { Arc::clone(&asked.kept) } else { Arc::default() };
        Record { value, kept }
    }
}

/// Those there are any of.
fn by_reason(unwritten: &[u64]) -> BTreeMap<String, u64> {
    let all =
        UnwrittenReason::ALL.iter().map(|reason| reason.name().to_owned()).zip(unwritten.iter().copied());
    all.filter(|(_, packets)| *packets > 0).collect()
}

fn explain(state: &DemandState) -> String {
    let what = match state.expression.as_str() {
        "" => "All packets".to_owned(),
        expression => format!("Packets that match {expression}"),
    };
    let (reached, begun) = (utc(state.reached_ns), utc(state.begun_ns));
    format!("{what}, captured on demand: from {reached} on, asked for at {begun}")
}

/// How much of the past and the future.
fn times(wish: &Wish) -> Result<(Nanos, Nanos), Refusal> {
    let last = wish.last_ns.unwrap_or(if wish.for_ns.is_none() { LAST } else { 0 });
    let lasts = wish.for_ns.unwrap_or(0);
    for (option, given, most) in [("--last", last, LAST_MOST), ("--for", lasts, FOR_MOST)] {
        if given > most {
            let what = format!("{option} {} is too long", typed(given));
            return refuse(Reason::Limit, what, format!("give {} at most", typed(most)));
        }
    }
    Ok((last, lasts))
}

fn fresh_id() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes).max(1),
        // By no other than the time, which nobody asks twice in a nanosecond.
        _ => now().max(1),
    }
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn demands(store: Option<&str>) -> (Demands, Receiver<Record>) {
        let (records, told) = channel();
        let means = Means {
            store: store.map(PathBuf::from),
            links: vec![1],
            boxes: vec![Arc::default(), Arc::default()],
            bytes: 1000,
        };
        (Demands::new(means, records), told)
    }

    fn wish(expression: &str) -> Wish {
        Wish { expression: expression.to_owned(), ..Wish::default() }
    }

    fn reason(refused: Result<DemandState, Refusal>) -> Option<Reason> {
        refused.err().map(|refusal| refusal.reason)
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_reason() {
        let (mut none, _) = demands(None);
        assert_eq!(reason(none.begin(&wish(""))), Some(Reason::NoStore));
        let (mut demands, _told) = demands(Some("/s"));
        assert_eq!(reason(demands.begin(&wish("host example.com"))), Some(Reason::Expression));
        assert_eq!(reason(demands.begin(&wish("hots 10.0.0.1"))), Some(Reason::Expression));
        for (last, lasts) in [(Some(LAST_MOST + 1), None), (None, Some(FOR_MOST + 1))] {
            let wish = Wish { last_ns: last, for_ns: lasts, ..wish("") };
            assert_eq!(reason(demands.begin(&wish)), Some(Reason::Limit));
        }
        assert_eq!(times(&wish("")), Ok((LAST, 0)));
        assert_eq!(times(&Wish { for_ns: Some(5), ..wish("") }), Ok((0, 5)));
        assert_eq!(reason(demands.get("00")), Some(Reason::Unknown));
        assert_eq!(reason(demands.end("00")), Some(Reason::Unknown));
    }

    #[test]
    fn one_from_its_beginning_to_its_record() {
        let (mut demands, told) = demands(Some("/s"));
        let begun = match demands.begin(&Wish { for_ns: Some(SECOND), ..wish("tcp") }) {
            Err(refusal) if refusal.help.contains("libpcap") => return,
            begun => begun.unwrap(),
        };
        assert_eq!((begun.state, begun.packets), (Stage::Capturing, 0));
        assert_eq!((begun.until_ns - begun.begun_ns, begun.since_ns), (SECOND, begun.begun_ns));
        let first = told.try_recv().unwrap();
        assert_eq!((&first.value["id"], &first.value["flow_ids"][0]), (&json!(begun.id), &json!(begun.id)));
        first.kept();
        let taken: Vec<_> = demands.means.boxes.iter().filter_map(|place| place.take()).collect();
        assert_eq!(taken.len(), 2);
        taken.iter().for_each(|demand| assert!(demand.spend(500)));
        assert!(!taken[0].spend(1), "1,000 bytes are all it may have");
        for (worker, demand) in taken.iter().enumerate() {
            let progress = demand.progress(worker as u16).unwrap();
            progress.keep(500);
            demands.look();
            assert_eq!(demands.get(&begun.id).unwrap().state, Stage::Finishing);
            progress.done();
        }
        drop(taken);
        demands.look();
        demands.look();
        assert_eq!(demands.get(&begun.id).unwrap().state, Stage::Finishing, "main has not kept it yet");
        let last = told.try_recv().unwrap();
        assert_eq!((&last.value["count"], &last.value["evidence"]["full"]), (&json!(2), &json!(true)));
        assert!(told.try_recv().is_err(), "once");
        last.kept();
        let done = demands.end(&begun.id).unwrap();
        assert_eq!((done.state, done.full, done.ended), (Stage::Done, true, false));
        assert!(demands.last().is_empty());
    }

    #[test]
    fn four_at_once_and_the_latest_are_remembered() {
        let (mut demands, told) = demands(Some("/s"));
        for n in 0..100_u16 {
            let begun = match demands.begin(&wish("udp")) {
                Err(refusal) if refusal.help.contains("libpcap") => return,
                begun => begun.unwrap(),
            };
            if n >= 3 {
                assert_eq!(reason(demands.begin(&wish("udp"))), Some(Reason::Busy));
                let oldest = demands.all.iter().position(|asked| !asked.told).unwrap();
                for (worker, place) in demands.means.boxes.iter().enumerate() {
                    assert!(place.take().is_some());
                    demands.all[oldest].demand.progress(worker as u16).unwrap().done();
                }
            }
            demands.look();
            assert!(demands.get(&begun.id).is_ok());
        }
        assert_eq!(demands.list().len(), REMEMBERED);
        demands.stop();
        assert_eq!(demands.last().len(), 3);
        assert!(demands.list().iter().rev().take(3).all(|state| state.ended));
        assert_eq!(told.try_iter().count(), 100 + 97);
    }
}
