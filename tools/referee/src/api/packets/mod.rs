//! `incidents/{id}/packets`: the packets of an incident's flow as the page draws them, headers in numbers and no byte of
//! payload.
//!
//! API thread; the store is read on threads for files, as any reader reads it, and packets are decoded as the worker did.
//! Memory is one packet, plus the rows that go out. What it makes goes to the page's ladder and time-sequence plot.

mod sketch;
mod survey;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dataplane::decode::{Packet, decode};
use dataplane::record::list::ListError;
use dataplane::record::{FlowSummary, Query, Recorded, SegmentReader, Store};
use serde::Serialize;

use super::auth::Role;
use super::call::{Answer, Call, json};
use super::jobs::{no_incident, unlisted, unreadable};
use super::problem::{Kind, Problem};
use super::routes::Route;
use super::spool::{Spool, Spooled};
use crate::index;
use sketch::{Row, Sketch};
use survey::{Base, Ends, Survey};

pub const ROUTES: &[Route] =
    &[Route::get("/api/v1/incidents/{id}/packets", Role::Packets, |call| Box::pin(answer(call)))
        .with(&["flow", "limit"])];

/// Packets in one answer, at most, and if nothing else is asked for.
const MOST: u64 = 5000;
/// Of a flow with more packets than asked for, this part of them comes from its beginning.
const HEAD_SHARE: u64 = 4;
/// Flows listed, at most.
const FLOWS: usize = 100;
/// Flows of an open incident that are looked for; its first is the one that its subject names.
const TRIED: usize = 4;
/// Bytes read at a time.
const PIECE: usize = 128 << 10;

/// What is kept of an incident's flows, and one of them packet by packet.
#[derive(Debug, Serialize)]
struct Packets {
    flows: Vec<FlowSummary>,
    /// The flow shown, 16 hex digits; none if nothing is kept of any.
    flow_id: Option<String>,
    /// Its ends: `src` is the side that opened it.
    flow: Option<Ends>,
    /// Interfaces, or capture files, it was seen at.
    tap: Vec<String>,
    /// Packets kept of it, and whether some of them are left out here.
    total: u64,
    cut: bool,
    /// Sequence numbers that relative ones count from.
    base: Base,
    packets: Vec<Row>,
}

async fn answer(call: Call) -> Answer {
    let id = call.path("id").to_owned();
    let flow = call.flow_id("flow")?;
    let most = call.number("limit", 1, MOST)?.unwrap_or(MOST);
    // The store knows an incident once it has closed.
    let open = call.app.board.entries().into_iter().find(|entry| entry.incident.id == id);
    let number = |id: &String| u64::from_str_radix(id, 16).ok();
    let open = open.map(|entry| entry.incident.flow_ids.iter().filter_map(number).collect());
    let app = Arc::clone(&call.app);
    json(
        &call
            .app
            .job(move |store, given_up| packets(store, (&app.spool, given_up), &id, open, flow, most))
            .await?,
    )
}

/// The packets of `flow`, or of the incident's first flow of which anything is kept.
fn packets(
    store: &Store,
    (spool, given_up): (&Spool, &Arc<AtomicBool>),
    incident: &str,
    open: Option<Vec<u64>>,
    flow: Option<u64>,
    most: u64,
) -> Result<Packets, Problem> {
    let mut flows = match open {
        Some(named) => of_open(store, &named, flow)?,
        None => of_closed(store, incident)?,
    };
    let shown = match flow {
        Some(id) if flows.iter().any(|known| known.flow_id == id) => Some(id),
        Some(_) => {
            return Err(Problem::new(
                Kind::NoSuchFlow,
                "the incident has no such flow, or nothing of it is kept",
            ));
        }
        None => flows.first().map(|first| first.flow_id),
    };
    flows.truncate(FLOWS);
    let Some(id) = shown else { return Ok(nothing(flows)) };
    let spooled = spool.make(store, &Query { flow: Some(id), ..Query::default() }, given_up)?;
    let mut survey = Survey::default();
    each(&spooled, |recorded, packet| survey.take(recorded, packet)).map_err(broken)?;
    let chosen = Chosen::of(&survey, most);
    let mut sketch = Sketch::new(&survey);
    let mut rows = Vec::new();
    let mut number = 0;
    each(&spooled, |recorded, packet| {
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
        flow: survey.ends(),
        tap: survey.taps().to_vec(),
        total: survey.packets(),
        cut: (rows.len() as u64) < survey.packets(),
        base: survey.base(),
        packets: rows,
    })
}

fn nothing(flows: Vec<FlowSummary>) -> Packets {
    let (flow_id, flow, tap, base) = (None, None, Vec::new(), Base::default());
    Packets { flows, flow_id, flow, tap, total: 0, cut: false, base, packets: Vec::new() }
}

/// Flows of which something is kept, in the order in which the incident names them.
fn of_closed(store: &Store, incident: &str) -> Result<Vec<FlowSummary>, Problem> {
    let record = store.incident_by(incident, &*index::finder(store)).map_err(unreadable)?;
    let named: Vec<u64> = record.ok_or_else(|| no_incident(incident))?.flows().collect();
    let query = Query { incident: Some(incident.to_owned()), ..Query::default() };
    let mut flows = dataplane::record::list(store, &query).map_err(unlisted)?;
    flows.sort_by_key(|flow| named.iter().position(|id| *id == flow.flow_id).unwrap_or(usize::MAX));
    Ok(flows)
}

fn of_open(store: &Store, named: &[u64], wanted: Option<u64>) -> Result<Vec<FlowSummary>, Problem> {
    let tried = named.iter().filter(|id| wanted.is_none_or(|wanted| wanted == **id)).take(TRIED);
    for &id in tried {
        let query = Query { flow: Some(id), ..Query::default() };
        match dataplane::record::list(store, &query) {
            Ok(flows) if flows.is_empty() => {}
            Ok(flows) => return Ok(flows),
            Err(ListError::Query(error)) => return Err(super::jobs::refused(error)),
            Err(error) => return Err(unlisted(error)),
        }
    }
    Ok(Vec::new())
}

fn broken(_: io::Error) -> Problem {
    Problem::new(Kind::StoreUnreadable, "its files can't be read")
        .help("`referee store verify` on the box says more")
}

/// A download made ready, from its beginning.
struct Reading {
    spooled: Arc<Spooled>,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.spooled.read(self.at, into.len().min(PIECE))?;
        self.at += read.len() as u64;
        read.as_slice().read(into)
    }
}

fn each(spooled: &Arc<Spooled>, mut visit: impl FnMut(&Recorded<'_>, &Packet)) -> io::Result<()> {
    let mut reader = SegmentReader::new(Reading { spooled: Arc::clone(spooled), at: 0 })?;
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
    fn of(survey: &Survey, most: u64) -> Chosen {
        let total = survey.packets();
        if total <= most {
            return Chosen { head: total, from: 1, to: total };
        }
        let head = most / HEAD_SHARE;
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
