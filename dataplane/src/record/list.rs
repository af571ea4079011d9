//! What a store holds, flow by flow.
//!
//! Runs wherever captures are read, never on a worker; memory is one entry a flow, at most
//! [`FLOWS_LIMIT`]. The summaries go to the command line and the API.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::source::Nanos;

use super::incidents::LinePlace;
use super::query::{Finder, Query, QueryError, ReadAll, Walk};
use super::read::Recorded;
use super::store::{Store, StoreError};
use super::tuple::{Endpoints, endpoints};

/// Most flows listed at a time.
pub const FLOWS_LIMIT: usize = 1_000_000;

/// What is kept of one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowSummary {
    /// Serialised as 16 hex digits.
    #[serde(serialize_with = "hex")]
    pub flow_id: u64,
    /// Of its earliest packet that shows one; the side that sent it is `src`.
    pub flow: Option<Endpoints>,
    pub packets: u64,
    /// Packet bytes kept.
    pub bytes: u64,
    pub first_ns: Nanos,
    pub last_ns: Nanos,
    /// Segments it is in.
    pub segments: u32,
    /// Ids of the incidents that name it.
    pub incidents: Vec<String>,
}

fn hex<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:016x}"))
}

/// Why nothing is listed.
#[derive(Debug, Error)]
pub enum ListError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("more than {FLOWS_LIMIT} flows match {0}; narrow it by host or time")]
    TooMany(String),
}

impl From<StoreError> for ListError {
    fn from(e: StoreError) -> Self {
        ListError::Query(e.into())
    }
}

struct Entry {
    summary: FlowSummary,
    tuple_ns: Nanos,
    last_segment: Option<u32>,
}

impl Entry {
    fn new(packet: &Recorded<'_>) -> Entry {
        let summary = FlowSummary {
            flow_id: packet.flow_id,
            flow: None,
            packets: 0,
            bytes: 0,
            first_ns: packet.ts,
            last_ns: packet.ts,
            segments: 0,
            incidents: Vec::new(),
        };
        Entry { summary, tuple_ns: Nanos::MAX, last_segment: None }
    }

    fn take(&mut self, segment: u32, packet: &Recorded<'_>) {
        let summary = &mut self.summary;
        summary.packets += 1;
        summary.bytes += packet.bytes.len() as u64;
        summary.first_ns = summary.first_ns.min(packet.ts);
        summary.last_ns = summary.last_ns.max(packet.ts);
        if self.last_segment != Some(segment) {
            self.last_segment = Some(segment);
            summary.segments += 1;
        }
        if packet.ts < self.tuple_ns
            && let Some(tuple) = endpoints(packet.interface.link, packet.bytes)
        {
            self.tuple_ns = packet.ts;
            summary.flow = Some(tuple);
        }
    }
}

/// The flows with packets that match, earliest first. A packet that was kept twice (the same input
/// replayed into the same store) counts twice here; an export has it once.
pub fn list(store: &Store, query: &Query) -> Result<Vec<FlowSummary>, ListError> {
    list_by(store, query, &ReadAll)
}

/// As [`list`], with a finder that saves reading segments.
pub fn list_by(store: &Store, query: &Query, finder: &dyn Finder) -> Result<Vec<FlowSummary>, ListError> {
    let mut flows: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut too_many = false;
    Walk::new(store, query, finder)?.visit(|segment, packet| {
        if flows.len() == FLOWS_LIMIT && !flows.contains_key(&packet.flow_id) {
            too_many = true;
            return false;
        }
        flows.entry(packet.flow_id).or_insert_with(|| Entry::new(packet)).take(segment, packet);
        true
    })?;
    if too_many {
        return Err(ListError::TooMany(query.to_string()));
    }
    name_incidents(store, &mut flows)?;
    let mut list: Vec<FlowSummary> = flows.into_values().map(|e| e.summary).collect();
    list.sort_by_key(|f| (f.first_ns, f.flow_id));
    Ok(list)
}

/// What is needed of an incident's line.
#[derive(Deserialize)]
struct Named {
    id: String,
    #[serde(default)]
    flow_ids: Vec<String>,
}

/// Tells each flow which incidents name it, as they were last written.
fn name_incidents(store: &Store, flows: &mut BTreeMap<u64, Entry>) -> Result<(), StoreError> {
    // Of incidents that name a listed flow: where the first such line is, and the flows of the last line.
    let mut naming: HashMap<String, (LinePlace, Vec<u64>)> = HashMap::new();
    store.each_incident(|place, line: Named| {
        let named = line.flow_ids.iter().filter_map(|id| u64::from_str_radix(id, 16).ok());
        let named: Vec<u64> = named.filter(|flow| flows.contains_key(flow)).collect();
        if named.is_empty() {
            naming.remove(&line.id);
        } else {
            naming.entry(line.id).or_insert((place, Vec::new())).1 = named;
        }
    })?;
    let mut naming: Vec<_> = naming.into_iter().map(|(id, (at, named))| (at, id, named)).collect();
    naming.sort_unstable();
    for (_, id, named) in &naming {
        for flow in named {
            if let Some(entry) = flows.get_mut(flow) {
                entry.summary.incidents.push(id.clone());
            }
        }
    }
    Ok(())
}
