//! What main looks at while others capture: their counters, their snapshots, and whether the interfaces are still as
//! they were taken.
//!
//! Main thread, once a second, and for the interfaces whenever the kernel tells of a change. Gives what it finds to the
//! status line, the metrics and the capture files.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::source::afxdp::CaptureClock;
use dataplane::source::live::{Port, PortReport};

use super::Threads;
use super::desk::Desk;
use super::links::Links;
use super::metrics::Seen;
use super::status::Figures;
use super::supervise::died;
use super::worker::Snapshot;
use crate::control::Live;
use crate::error::Failure;
use crate::recording::Recording;

/// What main looks at once a second.
pub struct Watch {
    pub ports: Vec<Port>,
    pub clock: Arc<CaptureClock>,
    snapshots: Vec<Snapshot>,
    links: Links,
}

impl Watch {
    pub fn new(ports: Vec<Port>, clock: Arc<CaptureClock>, workers: usize) -> Watch {
        let links = Links::new(&ports);
        Watch { ports, clock, snapshots: vec![Snapshot::default(); workers], links }
    }

    /// As often as signals are looked for: what the kernel told of the interfaces meanwhile.
    ///
    /// # Errors
    /// As [`Links::look`].
    pub fn listen(&mut self, desk: &Desk) -> Result<(), Failure> {
        match self.links.stirred(&self.ports) {
            true => self.links.look(&self.ports, &mut |what| desk.say(what)),
            false => Ok(()),
        }
    }

    /// Once a second.
    ///
    /// # Errors
    /// Failed: a thread has died, a counter can't be read. Privilege, Changed: as [`Links::look`] says.
    pub fn look(&mut self, threads: &Threads, live: &Live, desk: &mut Desk) -> Result<(), Failure> {
        self.clock.follow();
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
        self.links.look(&self.ports, &mut |what| desk.say(what))
    }

    pub fn reports(&self) -> Result<Vec<PortReport>, Failure> {
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
pub fn publish_losses(threads: &Threads, reports: &[PortReport]) {
    for (shared, &port) in threads.shared.iter().zip(&threads.ports) {
        let report = &reports[port];
        let dropped = report.dropped.iter().sum::<u64>() + report.nic.rx_missed;
        shared.received.store(report.seen + report.nic.rx_missed, Ordering::Relaxed);
        shared.dropped.store(dropped, Ordering::Relaxed);
    }
}
