//! What is asked of a store, and the walk over its segments that answers it.
//!
//! Runs wherever captures are read; memory is one block and the store's incidents. Matching packets go to
//! `export` and `list`.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::source::Nanos;

use super::read::{Ending, Recorded, SegmentReader};
use super::store::{IncidentRecord, Store, StoreError};
use super::tuple::addresses;

/// Which packets are wanted: those that meet every condition given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of the flows this incident names.
    pub incident: Option<String>,
    pub flow: Option<u64>,
    /// From or to this address (outermost IP header).
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
        words.extend(self.host.map(|host| format!("host {host}")));
        words.extend(self.since.map(|ns| format!("since {ns} ns")));
        words.extend(self.until.map(|ns| format!("until {ns} ns")));
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

/// A question made ready: incidents looked up, segments listed.
pub(super) struct Walk {
    query: Query,
    flows: Option<HashSet<u64>>,
    pub(super) incidents: Vec<IncidentRecord>,
    pub(super) segments: Vec<PathBuf>,
}

impl Walk {
    pub(super) fn new(store: &Store, query: &Query) -> Result<Walk, QueryError> {
        let incidents = store.incidents()?;
        let flows = match &query.incident {
            None => None,
            Some(id) => {
                let incident = incidents.iter().find(|i| i.id == *id);
                Some(incident.ok_or_else(|| QueryError::NoIncident(id.clone()))?.flows().collect())
            }
        };
        Ok(Walk { query: query.clone(), flows, incidents, segments: store.segment_paths()? })
    }

    fn wants(&self, packet: &Recorded<'_>) -> bool {
        let q = &self.query;
        q.since.is_none_or(|since| packet.ts >= since)
            && q.until.is_none_or(|until| packet.ts <= until)
            && q.flow.is_none_or(|flow| packet.flow_id == flow)
            && self.flows.as_ref().is_none_or(|flows| flows.contains(&packet.flow_id))
            && q.host.is_none_or(|host| {
                addresses(packet.interface.link, packet.bytes)
                    .is_some_and(|(src, dst)| src == host || dst == host)
            })
    }

    /// Reads one segment and shows every packet of it with its number in the segment. The visitor ends the
    /// reading by `false`. Returns `None` if the file is gone.
    pub(super) fn read_segment(
        &self,
        segment: usize,
        mut visit: impl FnMut(u32, &Recorded<'_>) -> bool,
    ) -> Result<Option<Ending>, StoreError> {
        let path = &self.segments[segment];
        let failed = |source| StoreError::Read { path: path.clone(), source };
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut reader = SegmentReader::new(file).map_err(failed)?;
        let mut number = 0u32;
        while let Some(packet) = reader.next_packet() {
            if !visit(number, &packet) {
                return Ok(Some(Ending::Complete));
            }
            number += 1;
        }
        Ok(reader.ending().cloned())
    }

    /// Shows every wanted packet: segment, its number there, the packet. The visitor ends the
    /// walk by `false`.
    pub(super) fn visit(
        &self,
        mut visit: impl FnMut(u32, u32, &Recorded<'_>) -> bool,
    ) -> Result<WalkSummary, StoreError> {
        let mut summary = WalkSummary::default();
        for (index, path) in self.segments.iter().enumerate() {
            let segment = u32::try_from(index).unwrap_or(u32::MAX);
            let mut go_on = true;
            let ending = self.read_segment(index, |number, packet| {
                go_on = !self.wants(packet) || visit(segment, number, packet);
                go_on
            })?;
            match ending {
                None => summary.vanished += 1,
                Some(Ending::Complete) => {}
                Some(Ending::Cut { .. }) => summary.cut += 1,
                Some(Ending::Damaged { offset, what }) => summary.damaged.push(format!(
                    "{}: {what} at uncompressed byte {offset}; what came before was read",
                    path.display()
                )),
            }
            summary.segments += 1;
            if !go_on {
                break;
            }
        }
        Ok(summary)
    }
}
