//! What those who ask through the HTTP interface see of a live run: main puts it on the board, once a second and whenever
//! an incident opens or closes.
//!
//! Main thread. Adds up and words what others counted; asks nobody but the judge, who answers when it has time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dataplane::ledger::{UnwrittenReason, WorkerAccount};
use dataplane::record::WriterAccount;
use serde_json::Value;

use super::judge::Judged;
use super::metrics::{Metrics, Seen};
use super::status::Figures;
use crate::api::{self, Api, Backend, DEFAULT_SOCKET};
use crate::board::series::Sample;
use crate::board::{Board, Check, InterfaceState, Published, Standing};
use crate::config::Config;
use crate::control::{Handle, socket};
use crate::error::Failure;
use crate::recording::Recorded;
use crate::report::finished::{Finished, Inputs, InterfaceReport, Kept};
use crate::report::ledger::Ledger;
use crate::report::metrics::troubles::Troubles;
use crate::serve;

/// Seconds that health looks back on.
const LOOKS_BACK: usize = 60;
/// Seconds between two questions to the judge.
const ASKS: u64 = 5;

/// Where the interface listens, and the board it shows; none if it can't listen.
///
/// # Errors
/// Usage: a place that was asked for can't be had.
pub fn prepare(config: &Config, control: &Path) -> Result<Option<(api::Prepared, Arc<Board>)>, Failure> {
    let info = serve::info(true);
    let prepared = api::Prepared::new(&config.api, &beside(control), &info.hostname)?;
    Ok(prepared.map(|prepared| (prepared, Board::new(info))))
}

/// Starts the interface of a run.
///
/// # Errors
/// Failed: no thread can be made.
pub fn spawn(
    prepared: api::Prepared,
    board: Arc<Board>,
    store: Option<PathBuf>,
    control: &Handle,
) -> Result<Api, Failure> {
    let (requests, rules) = (Some(control.requests.clone()), Some(Arc::clone(&control.live)));
    Api::spawn(prepared, Backend { board, store, requests, rules })
}

/// The API's usual socket; beside that of the control thread if this is elsewhere, so that several runs can be.
pub fn beside(control: &Path) -> PathBuf {
    match control == Path::new(socket::DEFAULT_PATH) {
        true => PathBuf::from(DEFAULT_SOCKET),
        false => {
            let mut name = control.as_os_str().to_owned();
            name.push(".api");
            PathBuf::from(name)
        }
    }
}

/// Counters at the end of a second.
#[derive(Clone, Copy, Default)]
struct Totals {
    figures: Figures,
    filtered: u64,
    kept: u64,
    unwritten: [u64; UnwrittenReason::ALL.len()],
    flows_created: u64,
    events: u64,
    hits: u64,
}

pub struct Publisher {
    board: Arc<Board>,
    looks: u64,
    /// Of the last minute, oldest first.
    before: VecDeque<Totals>,
    generation: u32,
    chunks: usize,
}

impl Publisher {
    pub fn new(board: Arc<Board>, chunks: usize) -> Publisher {
        Publisher { board, looks: 0, before: VecDeque::from([Totals::default()]), generation: 0, chunks }
    }

    /// Once a second.
    pub fn look(&mut self, asked: &AtomicBool, metrics: &Metrics, figures: Figures, seen: &Seen) {
        if self.looks.is_multiple_of(ASKS) {
            asked.store(true, Ordering::Relaxed);
        }
        self.looks += 1;
        let rules = seen.live.rules();
        if rules.generation() != self.generation {
            self.generation = rules.generation();
            self.board.rules(self.generation, rules.hash());
        }
        let finished = self.so_far(metrics, seen);
        let now = Totals {
            figures,
            filtered: finished.worker.filtered
                + seen.reports.iter().map(|report| report.filtered).sum::<u64>(),
            kept: finished.worker.kept.kept,
            unwritten: unwritten(&finished),
            flows_created: finished.worker.flows_created,
            events: finished.worker.events.raised,
            hits: finished.worker.events.matched,
        };
        let mut books = serde_json::to_value(Ledger::of(&finished, &rules)).unwrap_or(Value::Null);
        // Nothing balances while packets are on their way.
        books["balanced"] = Value::Null;
        let at_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let interfaces: Vec<InterfaceState> = seen.ports.iter().map(interface).collect();
        let published = Published {
            books: Arc::new(books),
            metrics: metrics.page(seen.clone()).into(),
            checks: self.checks(&now, &interfaces, metrics, seen),
            interfaces,
        };
        let sample = sample(self.before.back().unwrap_or(&now), &now, at_ns);
        if self.before.len() > LOOKS_BACK {
            self.before.pop_front();
        }
        self.before.push_back(now);
        self.board.publish(published, sample);
    }

    /// The run as if it had ended now.
    fn so_far(&self, metrics: &Metrics, seen: &Seen) -> Finished {
        let mut worker = WorkerAccount::default();
        seen.snapshots.iter().for_each(|snapshot| worker.add(&snapshot.account));
        let Judged { account: judge, standing, bodies, counted, timing } = metrics.judged.clone();
        let report =
            |(port, report): (&dataplane::source::live::Port, &dataplane::source::live::PortReport)| {
                InterfaceReport {
                    name: port.nic().name.clone(),
                    capture: port.to_string(),
                    filter: port.filter().cloned(),
                    port: report.clone(),
                    driver: Default::default(),
                }
            };
        let writer = seen.writer.clone();
        Finished {
            worker,
            live: seen.snapshots.iter().map(|snapshot| snapshot.live).sum(),
            peak: seen.snapshots.iter().map(|snapshot| snapshot.peak).sum(),
            judge,
            standing,
            counted,
            timing,
            troubles: Troubles::default(),
            notified: seen.notified.clone(),
            bodies,
            chunks: (self.chunks, 0),
            recorded: writer.map(|account| Recorded { account, stalled: false, failures: Vec::new() }),
            inputs: Inputs::Interfaces {
                reports: seen.ports.iter().zip(seen.reports).map(report).collect(),
                clock_steps: 0,
                late: seen.snapshots.iter().map(|snapshot| snapshot.late).sum(),
            },
            kept: Kept::default(),
            reloads: seen.live.reloads(),
            seconds: 0.0,
            ticking: Some(metrics.ticking),
        }
    }

    fn checks(
        &self,
        now: &Totals,
        interfaces: &[InterfaceState],
        metrics: &Metrics,
        seen: &Seen,
    ) -> Vec<Check> {
        let before = self.before.front().unwrap_or(now);
        let then = before.figures;
        let since = |count: fn(&Figures) -> u64| count(&now.figures).saturating_sub(count(&then));
        let (packets, lost) = (since(|figures| figures.seen), since(|figures| figures.dropped));
        let check = |name, bad: bool, status, what: String, help: &str| Check {
            name,
            status: if bad { status } else { Standing::Ok },
            what,
            help: bad.then(|| help.to_owned()),
        };
        let down: Vec<&str> =
            interfaces.iter().filter(|one| !one.link).map(|one| one.name.as_str()).collect();
        let quiet = packets == 0 && self.looks > LOOKS_BACK as u64;
        let off =
            metrics.judged.bodies.failures.iter().filter(|failure| failure.switched_off.is_some()).count();
        let mut checks = vec![
            check(
                "links",
                !down.is_empty(),
                Standing::Degraded,
                match down.is_empty() {
                    true => "every interface has a link".to_owned(),
                    false => format!("no link: {}", down.join(", ")),
                },
                "see cable, optics and the mirror port",
            ),
            check(
                "traffic",
                quiet,
                Standing::Degraded,
                format!("{packets} packets in the last minute"),
                "is the mirror on, and does it lead here?",
            ),
            check(
                "loss",
                lost > 0,
                Standing::Degraded,
                format!("{lost} packets lost in the last minute"),
                "`referee doctor` says what this host lacks",
            ),
            check(
                "rules",
                off > 0,
                Standing::Degraded,
                format!("{off} rules are switched off because they fail"),
                "the incidents rule_switched_off say why",
            ),
        ];
        if let Some(writer) = &seen.writer {
            checks.push(store(writer, &before.unwritten, &now.unwritten));
        }
        checks
    }
}

/// Packets selected for captures that are not in the store, by reason, the workers' and the writer's.
fn unwritten(finished: &Finished) -> [u64; UnwrittenReason::ALL.len()] {
    let writer = finished.recorded.as_ref().map(|recorded| &recorded.account);
    UnwrittenReason::ALL.map(|reason| {
        let of_writer = writer.map_or(0, |account| account.unwritten(reason));
        finished.worker.kept.unwritten[reason as usize] + of_writer
    })
}

/// Whether the store takes what it is given, and has done so for a minute.
fn store(writer: &WriterAccount, before: &[u64], now: &[u64]) -> Check {
    let grown = UnwrittenReason::ALL.iter().zip(now.iter().zip(before));
    let lost: Vec<String> = grown
        .filter(|(_, (now, before))| now > before)
        .map(|(reason, (now, before))| format!("{} {}", now - before, reason.name()))
        .collect();
    let (status, what, help) = match &writer.last_error {
        Some(error) if writer.failing => (
            Standing::Failing,
            format!("the store can't be written to: {error}"),
            Some("make room, or see the disk"),
        ),
        _ if !lost.is_empty() => (
            Standing::Degraded,
            format!("packets to be kept that were not, in the last minute: {}", lost.join(", ")),
            Some("operators.md, \"The ledger\", says what each reason means"),
        ),
        _ => (Standing::Ok, "the store takes what it is given".to_owned(), None),
    };
    Check { name: "store", status, what, help: help.map(str::to_owned) }
}

fn interface(port: &dataplane::source::live::Port) -> InterfaceState {
    let nic = port.nic();
    InterfaceState {
        name: nic.name.clone(),
        capture: port.to_string(),
        link: nic.has_link().unwrap_or(false),
    }
}

fn sample(before: &Totals, now: &Totals, at_ns: u64) -> Sample {
    let grown = |count: fn(&Totals) -> u64| count(now).saturating_sub(count(before));
    Sample {
        at_ns,
        seconds: 1,
        packets: grown(|t| t.figures.seen),
        bytes: grown(|t| t.figures.bytes),
        dropped: grown(|t| t.figures.dropped),
        filtered: grown(|t| t.filtered),
        kept: grown(|t| t.kept),
        unwritten: grown(|t| t.figures.unwritten),
        flows_created: grown(|t| t.flows_created),
        events: grown(|t| t.events),
        hits: grown(|t| t.hits),
        incidents: grown(|t| t.figures.incidents),
        flows: now.figures.flows,
        open: now.figures.open,
        history_s: now.figures.history as f32 / 1e9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_lost_packets_is_not_well() {
        let none = [0; UnwrittenReason::ALL.len()];
        let mut lost = none;
        lost[UnwrittenReason::SegmentDeleted as usize] = 12;
        let mut writer = WriterAccount::default();
        assert_eq!(store(&writer, &none, &none).status, Standing::Ok);
        assert_eq!(store(&writer, &lost, &lost).status, Standing::Ok, "longer ago");
        let degraded = store(&writer, &none, &lost);
        assert_eq!(degraded.status, Standing::Degraded);
        assert!(degraded.what.ends_with("in the last minute: 12 segment_deleted"), "{}", degraded.what);
        (writer.failing, writer.last_error) = (true, Some("no room".to_owned()));
        assert_eq!(store(&writer, &none, &lost).status, Standing::Failing);
    }
}
