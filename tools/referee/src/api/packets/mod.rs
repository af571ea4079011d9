//! The packets of an incident's flow as the page draws them: headers in numbers, no payload byte.
//!
//! A blocking job of the API's, never of a worker's or the server's own thread. Reads the store as any reader does and
//! decodes as the worker did; memory is one packet, plus the rows that go out. What it makes goes to the page's ladder and
//! time-sequence plot.

mod sketch;
mod survey;

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use dataplane::decode::{Packet, decode};
use dataplane::record::list::ListError;
use dataplane::record::query::QueryError;
use dataplane::record::{ExportError, FlowSummary, Query, Recorded, SegmentReader, Store, StoreError};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use sketch::{Row, Sketch};
use survey::{Base, Survey};

/// Packets in one answer, at most, and if nothing else is asked for.
pub const MOST: usize = 5000;
/// Of a flow with more packets than asked for, this part of them comes from its beginning.
const HEAD_SHARE: usize = 4;
/// Flows listed, at most.
const FLOWS: usize = 100;

/// Why there is no answer.
#[derive(Debug)]
pub enum PacketsError {
    NoIncident(String),
    NoFlow(u64),
    Store(String),
}

impl Display for PacketsError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            PacketsError::NoIncident(id) => write!(f, "no incident {id} in this store"),
            PacketsError::NoFlow(id) => {
                write!(f, "the incident has no flow {id:016x}, or nothing of it is kept")
            }
            PacketsError::Store(why) => write!(f, "the store can't be read: {why}"),
        }
    }
}

/// What is kept of an incident's flows, and one of them packet by packet.
#[derive(Debug, Serialize)]
pub struct Packets {
    pub flows: Vec<FlowSummary>,
    /// The flow shown, 16 hex digits; none if nothing is kept of any.
    pub flow_id: Option<String>,
    /// Interfaces, or capture files, it was seen at.
    pub tap: Vec<String>,
    /// Packets kept of it, and whether some of them are left out here.
    pub total: u64,
    pub cut: bool,
    /// Sequence numbers that relative ones count from.
    pub base: Base,
    pub packets: Vec<Row>,
}

/// The packets of `flow`, or of the incident's first flow of which anything is kept; `most` of them.
///
/// # Errors
/// No such incident, no such flow of it, or a store that can't be read.
pub fn packets(root: &Path, incident: &str, flow: Option<u64>, most: usize) -> Result<Packets, PacketsError> {
    let store = Store::open(root).map_err(|error| PacketsError::Store(reason(&error)))?;
    let named = Query { incident: Some(incident.to_owned()), ..Query::default() };
    let mut flows = dataplane::record::list(&store, &named).map_err(|error| match error {
        ListError::Query(QueryError::NoIncident(id)) => PacketsError::NoIncident(id),
        other => PacketsError::Store(other.to_string()),
    })?;
    let shown = match flow {
        Some(id) => Some(flows.iter().find(|f| f.flow_id == id).ok_or(PacketsError::NoFlow(id))?.flow_id),
        None => first_named(&store, incident, &flows),
    };
    flows.truncate(FLOWS);
    let Some(id) = shown else {
        let (tap, base) = (Vec::new(), Base::default());
        return Ok(Packets { flows, flow_id: None, tap, total: 0, cut: false, base, packets: Vec::new() });
    };
    let broken = |error: io::Error| PacketsError::Store(error.to_string());
    let mut spool = spooled(&store, id)?;
    let mut survey = Survey::default();
    each(&mut spool, |recorded, packet| survey.take(recorded, packet)).map_err(broken)?;
    let chosen = Chosen::of(&survey, most.clamp(1, MOST));
    let mut sketch = Sketch::new(&survey);
    let mut rows = Vec::new();
    let mut number = 0;
    each(&mut spool, |recorded, packet| {
        number += 1;
        let row = sketch.row(number, recorded, packet);
        if chosen.holds(number) {
            rows.push(row);
        }
    })
    .map_err(broken)?;
    Ok(Packets {
        flows,
        flow_id: Some(format!("{id:016x}")),
        tap: survey.taps().to_vec(),
        total: survey.packets(),
        cut: (rows.len() as u64) < survey.packets(),
        base: survey.base(),
        packets: rows,
    })
}

/// The incident's first flow of which packets are kept: that is the one its subject names.
fn first_named(store: &Store, incident: &str, kept: &[FlowSummary]) -> Option<u64> {
    let incidents = store.incidents().ok()?;
    let mut named = incidents.iter().find(|record| record.id == incident)?.flows();
    named.find(|id| kept.iter().any(|flow| flow.flow_id == *id))
}

/// Without the folder the store is in: who asks over the network need not know it.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Missing { source, .. } | StoreError::Read { source, .. } => source.to_string(),
        _ => "it is not as it should be; `referee store verify` says more".to_owned(),
    }
}

/// One flow's packets in time order, each once, in a file without a name.
fn spooled(store: &Store, flow: u64) -> Result<File, PacketsError> {
    let failed = |error: io::Error| PacketsError::Store(format!("no temporary file: {error}"));
    let query = Query { flow: Some(flow), ..Query::default() };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| failed(error.into()))?;
    let mut out = BufWriter::new(File::from(file));
    dataplane::record::export(store, &query, &mut out).map_err(|error| match error {
        ExportError::NothingKept(_) => PacketsError::NoFlow(flow),
        other => PacketsError::Store(other.to_string()),
    })?;
    out.flush().map_err(failed)?;
    out.into_inner().map_err(|error| failed(error.into_error()))
}

fn each(spool: &mut File, mut visit: impl FnMut(&Recorded<'_>, &Packet)) -> io::Result<()> {
    spool.rewind()?;
    let mut reader = SegmentReader::new(spool.try_clone()?)?;
    while let Some(recorded) = reader.next_packet() {
        let packet = decode(recorded.interface.link, recorded.bytes, recorded.orig_len);
        visit(&recorded, &packet);
    }
    Ok(())
}

/// Which packets of a flow are shown, by number from 1: its beginning, and what is around the first that raised something.
struct Chosen {
    head: u64,
    from: u64,
    to: u64,
}

impl Chosen {
    fn of(survey: &Survey, most: usize) -> Chosen {
        let (total, most) = (survey.packets(), most as u64);
        if total <= most {
            return Chosen { head: total, from: 1, to: total };
        }
        let head = most / HEAD_SHARE as u64;
        let rest = most - head;
        let focus = survey.first_raised().unwrap_or(total);
        let to = (focus + rest / 2).clamp(most, total);
        Chosen { head, from: to - rest + 1, to }
    }

    fn holds(&self, number: u64) -> bool {
        number <= self.head || (self.from..=self.to).contains(&number)
    }
}

#[cfg(test)]
mod tests;
