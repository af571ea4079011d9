//! What comes back from the others, for whoever reads: incidents as they open and close, rows, and what there is to say.
//!
//! Main thread, between two looks. It prints and writes; it decides nothing.

use std::sync::Arc;

use dataplane::judge::Incident;
use serde::Serialize;

use super::judge;
use super::metrics::Metrics;
use super::status::Status;
use crate::board::Board;
use crate::control::demands::Record;
use crate::notify::account::Told;
use crate::notify::{Notify, State};
use crate::recording::Recording;
use crate::report::outputs::{Kind, Outputs};
use crate::report::proof::Proofs;
use crate::report::rules::told_off;
use crate::report::tally::Tally;
use crate::report::words;
use crate::term::{self, Paint};

/// An incident as `--json` writes it.
#[derive(Serialize)]
struct Stated<'a> {
    state: &'static str,
    #[serde(flatten)]
    incident: &'a Incident,
}

/// What main remembers between two looks.
pub struct Desk {
    pub recording: Option<Recording>,
    pub outputs: Outputs,
    pub tally: Option<Tally>,
    /// With a store.
    pub proofs: Option<Proofs>,
    pub status: Status,
    pub opened: u64,
    pub closed: u64,
    /// Rules switched off.
    pub off: u64,
    pub told_unjudged: bool,
    /// The run is being ended: what closes now is told in the report.
    pub ending: bool,
    pub metrics: Metrics,
    /// Whoever else is told.
    pub notify: Option<Notify>,
    /// For those who ask through the HTTP interface, if anybody can.
    pub board: Option<Arc<Board>>,
}

impl Desk {
    pub fn take(&mut self, told: judge::Told) {
        match told {
            judge::Told::Opened { incident, captured } => {
                self.opened += 1;
                self.metrics.troubles.opened(&incident);
                self.notify.iter().for_each(|notify| notify.tell(State::Open, &incident));
                self.keep(&incident);
                self.board.iter().for_each(|board| board.opened(&incident, captured));
                told_off(&mut self.off, &incident).iter().for_each(|what| self.say(what));
                self.outputs.line(Kind::Live, &Stated { state: "open", incident: &incident });
                if self.tally.is_some() && !self.ending {
                    let proofs = self.proofs.as_ref().filter(|_| captured);
                    self.print(&words::opened(&incident, Paint::for_stdout(), proofs));
                }
            }
            judge::Told::Closed { incident, captured } => {
                self.closed += 1;
                self.metrics.troubles.over(&incident);
                self.notify.iter().for_each(|notify| notify.tell(State::Closed, &incident));
                self.keep(&incident);
                self.board.iter().for_each(|board| board.closed(&incident, captured));
                if !incident.withdrawn {
                    self.outputs.line(Kind::Incidents, &*incident);
                }
                self.outputs.line(Kind::Live, &Stated { state: "closed", incident: &incident });
                self.tell_closed(*incident, captured);
            }
            judge::Told::Failing(what) => self.say(&what),
            judge::Told::Standing(judged) => self.metrics.judged = judged.into(),
            judge::Told::Open(open) => {
                if let Some(board) = &self.board {
                    board.standing(open);
                }
            }
            judge::Told::Row(row) => {
                self.board
                    .iter()
                    .filter(|_| !row.findings.is_empty())
                    .for_each(|board| board.row((*row).clone()));
                if !self.outputs.wants(Kind::Flows) {
                    return;
                }
                self.outputs.line(Kind::Flows, &*row);
                if let Some(tally) = &mut self.tally {
                    tally.flow((row.start_ns, row.end_ns), &row.findings);
                }
            }
        }
    }

    fn tell_closed(&mut self, incident: Incident, captured: bool) {
        let Some(tally) = &mut self.tally else { return };
        if incident.withdrawn {
            self.print(&format!("{}\n", words::withdrawn(&incident, Paint::for_stdout())));
            return;
        }
        if self.ending {
            tally.incident(incident);
            return;
        }
        tally.told_already(&incident);
        let text = words::told(&incident, Paint::for_stdout(), self.proofs.as_ref().filter(|_| captured));
        self.print(&format!("{text}\n"));
    }

    fn keep(&mut self, incident: &Incident) {
        if let Some(recording) = &mut self.recording {
            recording.keep(incident);
        }
    }

    /// What became of a capture on demand.
    pub fn record(&mut self, record: Record) {
        if let Some(recording) = &mut self.recording {
            recording.keep_record(record.value.to_string());
        }
        record.kept();
    }

    fn print(&self, text: &str) {
        // A full disk behind standard output is told at the end, with the report that doesn't fit either.
        self.status.above(|| drop(term::show(|out| out.write_all(text.as_bytes()))));
    }

    /// Once a second: says what can't be written any more, and what can again.
    pub fn look(&mut self) {
        for what in self.outputs.lost() {
            self.say(&what);
        }
        self.notify.iter().flat_map(Notify::news).for_each(|what| self.say(&what));
        if let Some(what) = self.recording.as_mut().and_then(Recording::look) {
            self.say(&what);
        }
    }

    /// What waits to be told has a few seconds. What became of all of it.
    pub fn finish_telling(&mut self) -> Vec<Told> {
        let Some(mut notify) = self.notify.take() else { return Vec::new() };
        let told = notify.finish();
        notify.news().iter().for_each(|what| self.say(what));
        told
    }

    /// What rules match is not all judged: to be said when it begins.
    pub fn unjudged(&mut self, dropped: u64) {
        if dropped > 0 && !std::mem::replace(&mut self.told_unjudged, true) {
            self.say(
                "rules match faster than they are judged, and some of what they match is lost (hits_dropped): \
                 a rule is too general, or its body slow; `referee rules test` measures both",
            );
        }
    }

    pub fn say(&self, what: &str) {
        self.board.iter().for_each(|board| board.notice(what));
        self.status.above(|| term::note(what));
    }

    /// Nobody reads what it finds, and nothing is recorded.
    pub fn unread(&self) -> bool {
        self.recording.is_none() && self.outputs.all_gone()
    }
}
