//! What is asked of a store, and the walk over its segments that answers it.
//!
//! Runs wherever captures are read; memory is one block and the flows asked for. Matching packets go to `export` and
//! `list`.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::moment::utc;
use crate::source::Nanos;

use super::incidents::{IncidentFiles, Told};
use super::read::{Ending, Recorded, SegmentReader};
use super::store::{Store, StoreError};
use super::tuple::{addresses, community_id, endpoints};

/// Which packets are wanted: those that meet every condition given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of the flows this incident names.
    pub incident: Option<String>,
    pub flow: Option<u64>,
    /// Of flows with a packet of this Community ID.
    pub community_id: Option<String>,
    /// From or to this address, in the innermost IP header as the flow table has it.
    pub host: Option<IpAddr>,
    /// Not before, ns since the epoch.
    pub since: Option<Nanos>,
    /// Not after, ns since the epoch.
    pub until: Option<Nanos>,
}

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = Vec::new();
        words.extend(self.incident.as_ref().map(|id| format!("incident {id}")));
        words.extend(self.flow.map(|id| format!("flow {id:016x}")));
        words.extend(self.community_id.as_ref().map(|id| format!("Community ID {id}")));
        words.extend(self.host.map(|host| format!("host {host}")));
        words.extend(self.since.map(|ns| format!("since {}", utc(ns))));
        words.extend(self.until.map(|ns| format!("until {}", utc(ns))));
        if words.is_empty() {
            words.push("the whole store".to_owned());
        }
        f.write_str(&words.join(", "))
    }
}

/// Why a question can't be answered.
#[derive(Debug, Error)]
pub enum QueryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no incident {0} in this store; `referee captures list` shows what there is")]
    NoIncident(String),
}

/// How the segments walked over were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkSummary {
    pub segments: u32,
    /// Cut: still being written, or left behind by a crash or a full disk. All before the cut was read.
    pub cut: u32,
    /// Damaged places, in words: file, offset, what. All before them was read.
    pub damaged: Vec<String>,
    /// Deleted by retention between listing and reading.
    pub vanished: u32,
}

/// What may know, without reading a segment, that it holds nothing of what is asked for. Whatever it knows, answers are
/// the same; it only saves reading.
pub trait Finder {
    /// Segments, by file name and size, that hold no packet of `sought`. All others are read.
    fn without(&self, sought: &Sought<'_>) -> HashSet<(String, u64)>;

    /// Where this incident's last line is, and which lines need not be looked at for a later one; `None`: not known.
    fn incident(&self, files: &IncidentFiles, id: &str) -> Option<Told>;
}

/// What is sought in the segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sought<'a> {
    /// A packet of one of these flows.
    pub flows: Option<&'a HashSet<u64>>,
    /// From or to this address.
    pub host: Option<IpAddr>,
    pub since: Option<Nanos>,
    pub until: Option<Nanos>,
    /// Whose own addresses and ports have this Community ID.
    pub community: Option<&'a str>,
}

/// Knows nothing: every segment is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadAll;

impl Finder for ReadAll {
    fn without(&self, _: &Sought<'_>) -> HashSet<(String, u64)> {
        HashSet::new()
    }

    fn incident(&self, _: &IncidentFiles, _: &str) -> Option<Told> {
        None
    }
}

/// A question made ready: incidents looked up, segments listed.
pub(super) struct Walk {
    query: Query,
    /// Packets of other flows are not wanted.
    flows: Option<HashSet<u64>>,
    segments: Vec<PathBuf>,
}

impl Walk {
    pub(super) fn new(store: &Store, query: &Query, finder: &dyn Finder) -> Result<Walk, QueryError> {
        let mut flows = query.flow.map(|flow| HashSet::from([flow]));
        if let Some(id) = &query.incident {
            let incident = store.incident_by(id, finder)?;
            let named: HashSet<u64> =
                incident.ok_or_else(|| QueryError::NoIncident(id.clone()))?.flows().collect();
            narrow(&mut flows, named);
        }
        if let Some(id) = &query.community_id {
            narrow(&mut flows, named_so(store, id, finder)?);
        }
        let Query { host, since, until, .. } = *query;
        let sought = Sought { flows: flows.as_ref(), host, since, until, community: None };
        let segments = segments(store, finder, &sought)?;
        Ok(Walk { query: query.clone(), flows, segments })
    }

    fn wants(&self, packet: &Recorded<'_>) -> bool {
        let q = &self.query;
        q.since.is_none_or(|since| packet.ts >= since)
            && q.until.is_none_or(|until| packet.ts <= until)
            && self.flows.as_ref().is_none_or(|flows| flows.contains(&packet.flow_id))
            && q.host.is_none_or(|host| {
                addresses(packet.interface.link, packet.bytes)
                    .is_some_and(|(src, dst)| src == host || dst == host)
            })
    }

    /// Shows every wanted packet and the number of its segment. The visitor ends the walk by `false`.
    pub(super) fn visit(
        &self,
        mut visit: impl FnMut(u32, &Recorded<'_>) -> bool,
    ) -> Result<WalkSummary, StoreError> {
        read_through(&self.segments, |segment, packet| !self.wants(packet) || visit(segment, packet))
    }
}

/// Those that both name; none named before is no condition.
fn narrow(flows: &mut Option<HashSet<u64>>, named: HashSet<u64>) {
    *flows = Some(match flows.take() {
        None => named,
        Some(before) => before.intersection(&named).copied().collect(),
    });
}

/// The segments that may hold what is sought.
fn segments(store: &Store, finder: &dyn Finder, sought: &Sought<'_>) -> Result<Vec<PathBuf>, StoreError> {
    let without = finder.without(sought);
    let mut segments = store.segment_paths()?;
    if !without.is_empty() {
        segments.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let size = path.metadata().map_or(0, |meta| meta.len());
            !without.contains(&(name.to_owned(), size))
        });
    }
    Ok(segments)
}

/// The flows with a packet whose own addresses and ports have this Community ID. All their packets are wanted: later
/// fragments and ICMP errors of the flow show other ones, or none.
fn named_so(store: &Store, id: &str, finder: &dyn Finder) -> Result<HashSet<u64>, StoreError> {
    let sought = Sought { community: Some(id), ..Sought::default() };
    let mut flows = HashSet::new();
    // What flow and ends the last packet had: mostly those of the next.
    let mut last = None;
    read_through(&segments(store, finder, &sought)?, |_, packet| {
        let seen = Some((packet.flow_id, endpoints(packet.interface.link, packet.bytes)));
        if last != seen && !flows.contains(&packet.flow_id) {
            last = seen;
            if community_id(packet.interface.link, packet.bytes).is_some_and(|of_packet| of_packet == id) {
                flows.insert(packet.flow_id);
            }
        }
        true
    })?;
    Ok(flows)
}

/// Shows every packet of these segments, with its segment's number. The visitor ends the reading by `false`.
fn read_through(
    segments: &[PathBuf],
    mut visit: impl FnMut(u32, &Recorded<'_>) -> bool,
) -> Result<WalkSummary, StoreError> {
    let mut summary = WalkSummary::default();
    for (number, path) in (0u32..).zip(segments) {
        let failed = |source| StoreError::Read { path: path.clone(), source };
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                summary.vanished += 1;
                continue;
            }
            other => other.map_err(failed)?,
        };
        summary.segments += 1;
        let mut reader = SegmentReader::new(file).map_err(failed)?;
        while let Some(packet) = reader.next_packet() {
            if !visit(number, &packet) {
                return Ok(summary);
            }
        }
        match reader.ending() {
            None | Some(Ending::Complete) => {}
            Some(Ending::Cut { .. }) => summary.cut += 1,
            Some(Ending::Damaged { offset, what }) => summary.damaged.push(format!(
                "{}: {what} at uncompressed byte {offset}; what came before was read",
                path.display()
            )),
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_in_words() {
        let query = Query { since: Some(1_795_705_606_098_881_681), ..Query::default() };
        assert_eq!(query.to_string(), "since 2026-11-26T15:06:46.098Z");
        assert_eq!(Query::default().to_string(), "the whole store");
    }
}
