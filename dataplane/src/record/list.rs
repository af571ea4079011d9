//! What a store holds, flow by flow, and capture on demand by capture on demand.
//!
//! Runs wherever captures are read, never on a worker; memory is one entry a flow, at most [`FLOWS_LIMIT`], and what tells
//! packets that were recorded twice. The summaries go to the command line and the API.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::source::Nanos;

use super::incidents::LinePlace;
use super::query::{Finder, Query, QueryError, ReadAll, Walk};
use super::read::Recorded;
use super::store::{Store, StoreError};
use super::tuple::{Endpoints, community_id, endpoints};

/// Most flows listed at a time.
pub const FLOWS_LIMIT: usize = 1_000_000;

/// Packets, the latest read, among which one recorded twice is known: so many, and up to twice as many.
const RECENT: usize = 1 << 20;

/// Flows of one capture on demand that are told apart.
pub(super) const DEMANDED_LIMIT: usize = 1 << 16;

/// What is kept of one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowSummary {
    /// Serialised as 16 hex digits.
    #[serde(serialize_with = "hex")]
    pub flow_id: u64,
    /// Of its earliest packet that shows one; the side that sent it is `src`. None of a capture on demand.
    pub flow: Option<Endpoints>,
    /// Of the same packet.
    pub community_id: Option<String>,
    /// It is no flow, but what was captured on demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demanded>,
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

/// A capture on demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demanded {
    pub expression: String,
    /// Flows in it, whichever side sent; `None`: too many to tell.
    pub flows: Option<u64>,
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
    /// Of a capture on demand, what was met of flows.
    flows: HashSet<Endpoints>,
}

impl Entry {
    fn new(packet: &Recorded<'_>, expression: Option<&String>) -> Entry {
        let summary = FlowSummary {
            flow_id: packet.flow_id,
            flow: None,
            community_id: None,
            demand: expression.map(|words| Demanded { expression: words.clone(), flows: Some(0) }),
            packets: 0,
            bytes: 0,
            first_ns: packet.ts,
            last_ns: packet.ts,
            segments: 0,
            incidents: Vec::new(),
        };
        Entry { summary, tuple_ns: Nanos::MAX, last_segment: None, flows: HashSet::new() }
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
        let tuple = || endpoints(packet.interface.link, packet.bytes);
        if let Some(demand) = &mut summary.demand {
            if let Some(tuple) = tuple().filter(|_| demand.flows.is_some()) {
                self.flows.insert(tuple.either_way());
                demand.flows = Some(self.flows.len() as u64).filter(|_| self.flows.len() <= DEMANDED_LIMIT);
            }
        } else if packet.ts < self.tuple_ns
            && let Some(tuple) = tuple()
        {
            self.tuple_ns = packet.ts;
            summary.flow = Some(tuple);
            summary.community_id = community_id(packet.interface.link, packet.bytes);
        }
    }
}

/// Knows packets that were read not long ago: one that several incidents led to is recorded for each, near to the others.
#[derive(Default)]
struct Recent {
    now: HashSet<u64>,
    before: HashSet<u64>,
    hasher: RandomState,
}

impl Recent {
    /// False for a packet of this flow that is known.
    fn is_new(&mut self, packet: &Recorded<'_>) -> bool {
        let key = self.hasher.hash_one((packet.flow_id, packet.ts, packet.packet_id));
        if self.now.len() == RECENT {
            self.before = std::mem::take(&mut self.now);
        }
        !self.before.contains(&key) && self.now.insert(key)
    }
}

/// The flows with packets that match, earliest first. A packet that was recorded several times within a million packets
/// counts once, as an export has it; that of the same input replayed into the same store much later counts again.
pub fn list(store: &Store, query: &Query) -> Result<Vec<FlowSummary>, ListError> {
    list_by(store, query, &ReadAll)
}

/// As [`list`], with a finder that saves reading segments.
pub fn list_by(store: &Store, query: &Query, finder: &dyn Finder) -> Result<Vec<FlowSummary>, ListError> {
    let mut flows: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut too_many = false;
    let demands = demands(store)?;
    let mut recent = Recent::default();
    Walk::new(store, query, finder)?.visit(|segment, packet| {
        if flows.len() == FLOWS_LIMIT && !flows.contains_key(&packet.flow_id) {
            too_many = true;
            return false;
        }
        if recent.is_new(packet) {
            let new = || Entry::new(packet, demands.get(&packet.flow_id));
            flows.entry(packet.flow_id).or_insert_with(new).take(segment, packet);
        }
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

/// The expressions of captures on demand, by what their packets have in place of a flow's id.
pub(super) fn demands(store: &Store) -> Result<HashMap<u64, String>, StoreError> {
    #[derive(Deserialize)]
    struct Record {
        id: String,
        kind: String,
        evidence: Evidence,
    }
    #[derive(Deserialize)]
    struct Evidence {
        expression: String,
    }
    const KIND: &[u8] = b"on_demand";
    let mut demands = HashMap::new();
    let files = store.incident_files()?;
    let mut lines = files.lines(&[]);
    while let Some(line) = lines.next_line()? {
        // Most lines are incidents, which need not be understood.
        if line.bytes.windows(KIND.len()).any(|word| word == KIND)
            && let Some(Record { id, kind, evidence }) = line.parse()
            && kind.as_bytes() == KIND
            && let Ok(id) = u64::from_str_radix(&id, 16)
        {
            demands.insert(id, evidence.expression);
        }
    }
    Ok(demands)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::*;
    use super::super::{IncidentLog, RealDisk, StoredPacket};
    use super::*;

    #[test]
    fn a_packet_counts_once_and_a_capture_on_demand_is_no_flow() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let (mut recorder, mut writer) = pair(&small(), RealDisk::new(&store.segments()));
        let (there, back, other) = (frame(1, 2, 10), frame(2, 1, 10), frame(3, 2, 10));
        // Its ports are of the frame's maker: what goes back has the same ones, exchanged.
        let back: Vec<u8> = [&back[..34], &there[36..38], &there[34..36], &back[38..]].concat();
        let all: [(u64, u64, &[u8]); 7] = [
            (1, 7, &there),
            (2, 7, &back),
            (1, 7, &there),
            (2, 7, &back),
            (1, 9, &there),
            (2, 9, &back),
            (3, 9, &other),
        ];
        for (number, flow, bytes) in all {
            recorder.write(&StoredPacket { ..packet(number, flow, bytes) }).unwrap();
        }
        recorder.flush();
        writer.close();
        let record = json!({
            "id": format!("{:016x}", 9), "kind": "on_demand", "flow_ids": [format!("{:016x}", 9)],
            "evidence": { "expression": "tcp port 443" },
        });
        IncidentLog::open(&store).unwrap().append(&record).unwrap();
        let listed = list(&store, &Query::default()).unwrap();
        let flow = listed.iter().find(|one| one.flow_id == 7).unwrap();
        assert_eq!((flow.packets, flow.demand.as_ref()), (2, None));
        assert!(flow.community_id.as_ref().is_some_and(|id| id.starts_with("1:")), "{flow:?}");
        let demand = listed.iter().find(|one| one.flow_id == 9).unwrap();
        assert_eq!((demand.packets, demand.flow, demand.community_id.as_ref()), (3, None, None));
        let demanded = Query { flow: Some(9), ..Query::default() };
        let export = super::super::export(&store, &demanded, &mut std::io::sink()).unwrap();
        assert_eq!((export.packets, export.flows), (3, 2), "so does its export");
        assert_eq!(demand.demand, Some(Demanded { expression: "tcp port 443".to_owned(), flows: Some(2) }));
    }
}
