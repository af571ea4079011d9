//! What main does while others capture: prints incidents, keeps them in the store, shows how it goes, follows
//! the host's clock, and, when told to stop, stops everything in the order in which nothing is lost.
//!
//! Main thread. Never in the path of a packet.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::ledger::WorkerAccount;
use dataplane::source::afxdp::CaptureClock;
use dataplane::source::live::{Port, PortReport};
use rules::RuleSet;

use super::build::Threads;
use super::desk::Desk;
use super::metrics::Metrics;
use super::publish::Publisher;
use super::service::{self, Service, Supervised};
use super::signals::Signals;
use super::status::Status;
use super::watch::Watch;
use super::worker::Ended;
use crate::board::Board;
use crate::control::Handle;
use crate::error::Failure;
use crate::notify::Notify;
use crate::recording::Recording;
use crate::report::finished::{Finished, Inputs};
use crate::report::outputs::Outputs;
use crate::report::proof::Proofs;
use crate::report::tally::Tally;

/// How often signals and time are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often counters are read and shown.
const SECOND: Duration = Duration::from_secs(1);
/// How long packets that were on their way when the interface was given back may take to arrive.
const SETTLE: Duration = Duration::from_secs(1);

/// A run under way.
pub struct Run {
    pub ports: Vec<Port>,
    pub clock: Arc<CaptureClock>,
    pub threads: Threads,
    pub recording: Option<Recording>,
    pub outputs: Outputs,
    pub signals: Signals,
    pub duration: Option<Duration>,
    pub store: Option<PathBuf>,
    pub control: Handle,
    pub metrics: Metrics,
    /// Standard output belongs to machines.
    pub quiet: bool,
    pub notify: Option<Notify>,
    pub board: Option<Arc<Board>>,
}

/// A run that has ended.
pub struct Done {
    pub finished: Finished,
    /// The rules in force at the end.
    pub rules: Arc<RuleSet>,
    pub outputs: Outputs,
    pub tally: Option<Tally>,
    /// Why it ended, if nobody wanted it to.
    pub failure: Option<Failure>,
}

impl Run {
    /// Runs until a signal, the end of `--duration`, the loss or change of an interface, or nobody is left to read.
    pub fn supervise(self) -> Done {
        let Run {
            ports, clock, threads, recording, outputs, signals, duration, store, control, board, ..
        } = self;
        let names: Vec<&str> = ports.iter().map(|port| port.nic().name.as_str()).collect();
        let status = Status::new(&names.join(" "));
        let tally = (!self.quiet).then(Tally::default);
        let mut desk = Desk {
            recording,
            outputs,
            tally,
            proofs: store.as_deref().map(Proofs::of),
            status,
            opened: 0,
            closed: 0,
            off: 0,
            told_unjudged: false,
            ending: false,
            metrics: self.metrics,
            notify: self.notify,
            board: board.clone(),
        };
        let publisher = board.map(Publisher::new);
        let mut watch = Watch::new(ports, clock, threads.shared.len(), publisher);
        ready();
        let began = Instant::now();
        let control_thread = Supervised { name: "control".to_owned(), patience: service::CONTROL_STUCK };
        let mut service = Service::ready(threads.supervised().chain([control_thread]), began);
        let mut next = began + SECOND;
        let failure = loop {
            match threads.inbox.recv_timeout(LOOK) {
                Ok(told) => desk.take(told),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Some(died("judge")),
            }
            let looked = if Instant::now() >= next {
                next = Instant::now() + SECOND;
                let turns = threads.turns().chain([control.turns()]);
                let stuck = service.look(Instant::now(), turns, desk.status.line());
                stuck.iter().for_each(|what| desk.say(what));
                watch.look(&threads, &control.live, &mut desk)
            } else {
                watch.listen(&desk)
            };
            if let Err(failure) = looked {
                break Some(failure);
            }
            control.said.try_iter().for_each(|what| desk.say(&what));
            control.recorded.try_iter().for_each(|record| desk.record(record));
            let over = duration.is_some_and(|duration| began.elapsed() >= duration);
            if signals.came() || over || desk.unread() {
                break None;
            }
        };
        end(watch, threads, control, desk, failure)
    }
}

/// From here on no packet is missed.
fn ready() {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "ready");
}

pub fn died(who: &str) -> Failure {
    Failure::failed(format!("the {who} thread ended by a fault of its own"))
        .help("this is a fault of Referee; please report it with what it printed")
}

/// Detach, drain the rings, judge, write, count: in this order nothing is lost.
fn end(
    mut watch: Watch,
    threads: Threads,
    control: Handle,
    mut desk: Desk,
    mut failure: Option<Failure>,
) -> Done {
    desk.ending = true;
    service::stopping();
    control.stop();
    watch.ports.iter_mut().for_each(Port::detach);
    settle(&watch);
    if let Ok(reports) = watch.reports() {
        threads.publish_losses(&reports);
    }
    watch.ports.iter().for_each(Port::stop);
    // Until the judge has said everything; it waits for main now.
    while let Ok(told) = threads.inbox.recv() {
        desk.take(told);
    }
    let verdicts = threads.judge.join();
    let workers: Vec<Ended> = threads.workers.into_iter().filter_map(|worker| worker.join().ok()).collect();
    if verdicts.is_err() || workers.len() < threads.shared.len() {
        failure.get_or_insert_with(|| died("judge or a worker"));
    }
    let verdicts = verdicts.unwrap_or_default();
    let live = Arc::clone(&control.live);
    control.said.try_iter().for_each(|what| desk.say(&what));
    control.recorded.try_iter().for_each(|record| desk.record(record));
    match control.join() {
        Some(demands) => demands.last().into_iter().for_each(|record| desk.record(record)),
        None => drop(failure.get_or_insert_with(|| died("control"))),
    }
    let notified = desk.finish_telling();
    let Desk { recording, outputs, tally, status, metrics, .. } = desk;
    let recorded = recording.map(Recording::finish);
    let mut account = WorkerAccount::default();
    workers.iter().for_each(|worker| account.add(&worker.account));
    let inputs = Inputs::Interfaces {
        reports: watch.interfaces(),
        clock_steps: watch.clock.steps(),
        late: workers.iter().map(|worker| worker.late).sum(),
    };
    let finished = Finished {
        ticking: Some(metrics.ticking),
        worker: account,
        live: workers.iter().map(|worker| worker.live).sum(),
        peak: workers.iter().map(|worker| worker.peak).sum(),
        judge: verdicts.account,
        standing: verdicts.standing,
        counted: verdicts.counted,
        timing: verdicts.timing,
        troubles: metrics.troubles,
        notified,
        bodies: verdicts.bodies,
        chunks: (
            threads.chunks,
            recorded.as_ref().map_or(0, |recorded| recorded.account.chunks_free as usize),
        ),
        recorded,
        inputs,
        kept: verdicts.kept,
        reloads: live.reloads(),
        seconds: status.finish().as_secs_f64(),
    };
    Done { finished, rules: live.rules(), outputs, tally, failure }
}

/// Waits until every packet that the programs saw has been taken or counted as lost.
fn settle(watch: &Watch) {
    let began = Instant::now();
    while began.elapsed() < SETTLE {
        if watch.reports().is_ok_and(|reports| reports.iter().all(PortReport::settled)) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
