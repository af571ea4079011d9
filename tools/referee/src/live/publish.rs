//! What those who ask through the HTTP interface see of a live run: main puts it on the board, once a second and whenever
//! an incident opens or closes.
//!
//! Main thread. Adds up what others counted; asks nobody but the judge, who answers when it has time. Books and metrics are
//! worded on the api thread, when they are asked for.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use dataplane::latency::Latency;
use dataplane::ledger::UnwrittenReason;
use dataplane::record::WriterAccount;
use dataplane::source::Interface;
use dataplane::source::live::Port;
use serde_json::Value;

use super::metrics::Seen;
use super::status::Figures;
use crate::api::{self, Api, Backend, DEFAULT_SOCKET};
use crate::board::series::Sample;
use crate::board::spread::Spreads;
use crate::board::{Board, Check, InterfaceState, Published, Standing, later};
use crate::config::Config;
use crate::control::{Handle, socket};
use crate::error::Failure;
use crate::report::ledger::Ledger;
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
    interfaces: Vec<Interface>,
    control: &Handle,
) -> Result<Api, Failure> {
    let (requests, rules) = (Some(control.requests.clone()), Some(Arc::clone(&control.live)));
    Api::spawn(prepared, Backend { board, store, requests, rules, interfaces })
}

/// The API's usual socket, of a run whose control thread listens at `control`; beside that if it is elsewhere, so that
/// several runs can be.
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
    latency: Latency,
}

impl Totals {
    fn new(figures: Figures, seen: &Seen) -> Totals {
        let refused: u64 = seen.looked.interfaces.iter().map(|interface| interface.port.filtered).sum();
        let worker = &seen.worker;
        Totals {
            figures,
            filtered: worker.filtered + refused,
            kept: worker.kept.kept,
            unwritten: unwritten(seen),
            flows_created: worker.flows_created,
            events: worker.events.raised,
            hits: worker.events.matched,
            latency: worker.latency,
        }
    }
}

pub struct Publisher {
    board: Arc<Board>,
    looks: u64,
    /// Of the last minute, oldest first.
    before: VecDeque<Totals>,
    generation: u32,
}

impl Publisher {
    pub fn new(board: Arc<Board>) -> Publisher {
        Publisher { board, looks: 0, before: VecDeque::from([Totals::default()]), generation: 0 }
    }

    /// Once a second. What is long to word is worded by whoever asks for it, if anybody does.
    pub fn look(&mut self, asked: &AtomicBool, figures: Figures, ports: &[Port], seen: &Arc<Seen>) {
        if self.looks.is_multiple_of(ASKS) {
            asked.store(true, Ordering::Relaxed);
        }
        self.looks += 1;
        if seen.rules.generation() != self.generation {
            self.generation = seen.rules.generation();
            self.board.rules(self.generation, seen.rules.hash());
        }
        let now = Totals::new(figures, seen);
        let interfaces: Vec<InterfaceState> = ports.iter().map(interface).collect();
        let (books, metrics) = (Arc::clone(seen), Arc::clone(seen));
        let published = Published {
            books: later(move || books_of(&books)),
            metrics: later(move || metrics.page()),
            checks: self.checks(&now, &interfaces, seen),
            interfaces,
        };
        let at_ns = seen.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let sample = sample(self.before.back().unwrap_or(&now), &now, at_ns);
        if self.before.len() > LOOKS_BACK {
            self.before.pop_front();
        }
        self.before.push_back(now);
        self.board.publish(published, sample);
    }

    fn checks(&self, now: &Totals, interfaces: &[InterfaceState], seen: &Seen) -> Vec<Check> {
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
        let off = seen.judged.bodies.failures.iter().filter(|failure| failure.switched_off.is_some()).count();
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
        if let Some(writer) = &seen.looked.writer {
            checks.push(store(writer, &before.unwritten, &now.unwritten));
        }
        checks
    }
}

fn books_of(seen: &Seen) -> Value {
    let mut books = serde_json::to_value(Ledger::of(&seen.finished(), &seen.rules)).unwrap_or(Value::Null);
    // Nothing balances while packets are on their way.
    books["balanced"] = Value::Null;
    books
}

/// Packets selected for captures that are not in the store, by reason, the workers' and the writer's.
fn unwritten(seen: &Seen) -> [u64; UnwrittenReason::ALL.len()] {
    UnwrittenReason::ALL.map(|reason| {
        let of_writer = seen.looked.writer.as_ref().map_or(0, |account| account.unwritten(reason));
        seen.worker.kept.unwritten[reason as usize] + of_writer
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

fn interface(port: &Port) -> InterfaceState {
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
        latency: Spreads::between(&before.latency, &now.latency),
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
