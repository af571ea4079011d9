//! What main does while others capture: prints incidents, keeps them in the store, shows how it goes, follows
//! the host's clock, and, when told to stop, stops everything in the order in which nothing is lost.
//!
//! Main thread. Never in the path of a packet.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::judge::Incident;
use dataplane::ledger::WorkerAccount;
use dataplane::source::afxdp::CaptureClock;
use dataplane::source::live::{Port, PortReport};
use rules::RuleSet;
use serde::Serialize;

use super::Threads;
use super::judge::Told;
use super::metrics::{Metrics, Seen};
use super::signals::Signals;
use super::status::{Figures, Status};
use super::worker::{Ended, Snapshot};
use crate::control::{Handle, Live};
use crate::error::{Code, Failure};
use crate::recording::Recording;
use crate::report::finished::{Finished, Inputs, InterfaceReport};
use crate::report::outputs::{Kind, Outputs};
use crate::report::rules::told_off;
use crate::report::tally::Tally;
use crate::report::words;
use crate::term::{self, Paint};

/// How often signals and time are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often counters are read and shown.
const SECOND: Duration = Duration::from_secs(1);
/// How long packets that were on their way when the interface was given back may take to arrive.
const SETTLE: Duration = Duration::from_secs(1);

/// An incident as `--json` writes it.
#[derive(Serialize)]
struct Stated<'a> {
    state: &'static str,
    #[serde(flatten)]
    incident: &'a Incident,
}

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

/// What main remembers between two looks.
struct Desk {
    recording: Option<Recording>,
    outputs: Outputs,
    tally: Option<Tally>,
    store: Option<PathBuf>,
    status: Status,
    opened: u64,
    closed: u64,
    /// Rules switched off.
    off: u64,
    told_unjudged: bool,
    /// The run is being ended: what closes now is told in the report.
    ending: bool,
    metrics: Metrics,
}

impl Run {
    /// Runs until a signal, the end of `--duration`, the loss of an interface, or nobody is left to read.
    pub fn supervise(self) -> Done {
        let Run { ports, clock, threads, recording, outputs, signals, duration, store, control, metrics } =
            self;
        let names: Vec<&str> = ports.iter().map(|port| port.nic().name.as_str()).collect();
        let status = Status::new(&names.join(" "));
        let tally = (!outputs.to_stdout()).then(Tally::default);
        let mut desk = Desk {
            recording,
            outputs,
            tally,
            store,
            status,
            opened: 0,
            closed: 0,
            off: 0,
            told_unjudged: false,
            ending: false,
            metrics,
        };
        let linked = ports.iter().map(|port| port.nic().carrier).collect();
        let snapshots = vec![Snapshot::default(); threads.shared.len()];
        let mut watch = Watch { ports, clock, snapshots, linked };
        ready();
        let began = Instant::now();
        let mut next = began + SECOND;
        let failure = loop {
            match threads.inbox.recv_timeout(LOOK) {
                Ok(told) => desk.take(told),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Some(died("judge")),
            }
            if Instant::now() >= next {
                next = Instant::now() + SECOND;
                if let Err(failure) = watch.look(&threads, &control.live, &mut desk) {
                    break Some(failure);
                }
            }
            control.said.try_iter().for_each(|what| desk.say(&what));
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

fn died(who: &str) -> Failure {
    Failure::failed(format!("the {who} thread ended by a fault of its own"))
        .help("this is a fault of Referee; please report it with what it printed")
}

impl Desk {
    fn take(&mut self, told: Told) {
        match told {
            Told::Opened(incident) => {
                self.opened += 1;
                self.keep(&incident);
                told_off(&mut self.off, &incident).iter().for_each(|what| self.say(what));
                self.outputs.line(Kind::Live, &Stated { state: "open", incident: &incident });
                if self.tally.is_some() && !self.ending {
                    self.print(&words::opened(&incident, Paint::for_stdout()));
                }
            }
            Told::Closed { incident, captured } => {
                self.closed += 1;
                self.keep(&incident);
                if !incident.withdrawn {
                    self.outputs.line(Kind::Incidents, &*incident);
                }
                self.outputs.line(Kind::Live, &Stated { state: "closed", incident: &incident });
                self.tell_closed(*incident, captured);
            }
            Told::Failing(what) => self.say(&what),
            Told::Standing(judged) => self.metrics.judged = *judged,
            Told::Row(row) => {
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
        let text = words::told(&incident, Paint::for_stdout(), self.store.as_deref(), captured);
        self.print(&format!("{text}\n"));
    }

    fn keep(&mut self, incident: &Incident) {
        if let Some(recording) = &mut self.recording {
            recording.keep(incident);
        }
    }

    fn print(&self, text: &str) {
        // A full disk behind standard output is told at the end, with the report that doesn't fit either.
        self.status.above(|| drop(term::show(|out| out.write_all(text.as_bytes()))));
    }

    /// Once a second: says what can't be written any more, and what can again.
    fn look(&mut self) {
        for what in self.outputs.lost() {
            self.say(&what);
        }
        if let Some(what) = self.recording.as_mut().and_then(Recording::look) {
            self.say(&what);
        }
    }

    /// What rules match is not all judged: to be said when it begins.
    fn unjudged(&mut self, dropped: u64) {
        if dropped > 0 && !std::mem::replace(&mut self.told_unjudged, true) {
            self.say(
                "rules match faster than they are judged, and some of what they match is lost (hits_dropped): \
                 a rule is too general, or its body slow; `referee rules test` measures both",
            );
        }
    }

    fn say(&self, what: &str) {
        self.status.above(|| term::note(what));
    }

    /// Nobody reads what it finds, and nothing is recorded.
    fn unread(&self) -> bool {
        self.recording.is_none() && self.outputs.all_gone()
    }
}

/// What main looks at once a second.
struct Watch {
    ports: Vec<Port>,
    clock: Arc<CaptureClock>,
    snapshots: Vec<Snapshot>,
    /// Whether each interface had a link the last time.
    linked: Vec<bool>,
}

impl Watch {
    fn look(&mut self, threads: &Threads, live: &Live, desk: &mut Desk) -> Result<(), Failure> {
        self.clock.follow();
        self.ports.iter_mut().for_each(Port::follow);
        if threads.workers.iter().any(|worker| worker.is_finished()) {
            return Err(died("worker"));
        }
        for (snapshot, shared) in self.snapshots.iter_mut().zip(&threads.shared) {
            if let Some(latest) = shared.latest() {
                *snapshot = latest;
            }
        }
        let reports = self.reports()?;
        publish_losses(threads, &reports);
        desk.unjudged(self.snapshots.iter().map(|snapshot| snapshot.account.events.hits_dropped).sum());
        desk.status.show(self.figures(&reports, desk));
        let writer = desk.recording.as_ref().map(Recording::account);
        let seen = Seen { ports: &self.ports, reports: &reports, snapshots: &self.snapshots, writer, live };
        desk.metrics.look(&threads.asked, &mut desk.outputs, seen);
        desk.look();
        self.links(desk)
    }

    /// Says when a link goes and comes.
    ///
    /// # Errors
    /// Privilege: an interface has gone for good.
    fn links(&mut self, desk: &Desk) -> Result<(), Failure> {
        for (port, had) in self.ports.iter().zip(&mut self.linked) {
            let name = &port.nic().name;
            let has = port.has_link().map_err(|error| {
                Failure::new(Code::Privilege, format!("{name} has gone: {error}"))
                    .help("everything captured before is safe; start again when it is back")
            })?;
            if has != *had {
                *had = has;
                let what = if has { "has a link again" } else { "has no link: nothing can come" };
                desk.say(&format!("{name} {what}"));
            }
        }
        Ok(())
    }

    fn reports(&self) -> Result<Vec<PortReport>, Failure> {
        self.ports.iter().map(|port| port.report().map_err(Failure::failed)).collect()
    }

    fn figures(&self, reports: &[PortReport], desk: &Desk) -> Figures {
        let history = self.snapshots.iter().map(|snapshot| snapshot.horizon).min();
        Figures {
            seen: reports.iter().map(|report| report.seen).sum(),
            bytes: reports.iter().map(|report| report.seen_bytes).sum(),
            dropped: reports.iter().flat_map(|report| report.dropped).sum(),
            flows: self.snapshots.iter().map(|snapshot| u64::from(snapshot.live)).sum(),
            unwritten: desk.recording.as_ref().map_or(0, Recording::unwritten),
            open: desk.opened - desk.closed.min(desk.opened),
            incidents: desk.opened,
            history: history.unwrap_or(0),
        }
    }
}

/// What each interface received and lost, for the capture files.
fn publish_losses(threads: &Threads, reports: &[PortReport]) {
    for (shared, &port) in threads.shared.iter().zip(&threads.ports) {
        let report = &reports[port];
        let dropped = report.dropped.iter().sum::<u64>() + report.nic.rx_missed;
        shared.received.store(report.seen + report.nic.rx_missed, Ordering::Relaxed);
        shared.dropped.store(dropped, Ordering::Relaxed);
    }
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
    control.stop();
    watch.ports.iter_mut().for_each(Port::detach);
    settle(&watch);
    if let Ok(reports) = watch.reports() {
        publish_losses(&threads, &reports);
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
    if !control.join() {
        failure.get_or_insert_with(|| died("control"));
    }
    let Desk { recording, outputs, tally, status, metrics, .. } = desk;
    let recorded = recording.map(Recording::finish);
    let mut account = WorkerAccount::default();
    workers.iter().for_each(|worker| account.add(&worker.account));
    let inputs = Inputs::Interfaces { reports: interfaces(&watch), clock_steps: watch.clock.steps() };
    let finished = Finished {
        ticking: Some(metrics.ticking),
        worker: account,
        live: workers.iter().map(|worker| worker.live).sum(),
        peak: workers.iter().map(|worker| worker.peak).sum(),
        judge: verdicts.account,
        standing: verdicts.standing,
        counted: verdicts.counted,
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

fn interfaces(watch: &Watch) -> Vec<InterfaceReport> {
    let report = |port: &Port| InterfaceReport {
        name: port.nic().name.clone(),
        capture: port.to_string(),
        port: port.report().unwrap_or_default(),
    };
    watch.ports.iter().map(report).collect()
}
