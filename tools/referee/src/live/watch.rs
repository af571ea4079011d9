//! What main looks at while others capture: their counters, their snapshots, and whether the interfaces are still as
//! they were taken.
//!
//! Main thread, once a second, and for the interfaces whenever the kernel tells of a change. Gives what it finds to the
//! status line, the metrics and the capture files.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::source::afxdp::CaptureClock;
use dataplane::source::live::{Port, PortReport};
use dataplane_sys::statistics::statistics;

use super::build::Threads;
use super::desk::Desk;
use super::links::Links;
use super::metrics::Looked;
use super::publish::Publisher;
use super::status::Figures;
use super::supervise::died;
use super::worker::Snapshot;
use crate::control::Live;
use crate::error::Failure;
use crate::notify::Notify;
use crate::recording::Recording;
use crate::report::finished::InterfaceReport;

/// What main looks at once a second.
pub struct Watch {
    pub ports: Vec<Port>,
    pub clock: Arc<CaptureClock>,
    snapshots: Vec<Snapshot>,
    links: Links,
    /// What the drivers had counted before.
    drivers: Vec<BTreeMap<String, u64>>,
    /// For those who ask through the HTTP interface, if anybody can.
    publisher: Option<Publisher>,
}

impl Watch {
    pub fn new(
        ports: Vec<Port>,
        clock: Arc<CaptureClock>,
        workers: usize,
        publisher: Option<Publisher>,
    ) -> Watch {
        let links = Links::new(&ports);
        let drivers = ports.iter().map(|port| losses(&port.nic().name)).collect();
        Watch { ports, clock, snapshots: vec![Snapshot::default(); workers], links, drivers, publisher }
    }

    /// What became of each interface's packets, once all is over.
    pub fn interfaces(&self) -> Vec<InterfaceReport> {
        let report = |(port, before): (&Port, &BTreeMap<String, u64>)| InterfaceReport {
            name: port.nic().name.clone(),
            capture: port.to_string(),
            filter: port.filter().cloned(),
            port: port.report().unwrap_or_default(),
            driver: port.nic().now().map(|now| grown(losses(&now.name), before)).unwrap_or_default(),
        };
        self.ports.iter().zip(&self.drivers).map(report).collect()
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
        threads.publish_losses(&reports);
        desk.unjudged(self.snapshots.iter().map(|snapshot| snapshot.account.events.hits_dropped).sum());
        let figures = self.figures(&reports, desk);
        desk.status.show(figures);
        let looked = Looked {
            interfaces: self.interfaces_of(&reports),
            snapshots: self.snapshots.clone(),
            writer: desk.recording.as_ref().map(Recording::account),
            notified: desk.notify.as_ref().map(Notify::account).unwrap_or_default(),
            streamed: desk.board.as_ref().map(|board| board.streams.now()),
            chunks: threads.chunks,
        };
        let seen = Arc::new(desk.metrics.seen(looked, live));
        if let Some(publisher) = &mut self.publisher {
            publisher.look(&threads.asked, figures, &self.ports, &seen);
        }
        desk.metrics.look(&threads.asked, &mut desk.outputs, &seen);
        desk.metrics.advice.look(&self.ports, &reports).iter().for_each(|what| desk.say(what));
        threads.unpinned().iter().for_each(|what| desk.say(what));
        desk.look();
        self.links.look(&self.ports, &mut |what| desk.say(what))
    }

    /// Each as it is captured from; what its driver counted is told at the end.
    fn interfaces_of(&self, reports: &[PortReport]) -> Vec<InterfaceReport> {
        let of = |(port, report): (&Port, &PortReport)| InterfaceReport {
            name: port.nic().name.clone(),
            capture: port.to_string(),
            filter: port.filter().cloned(),
            port: report.clone(),
            driver: BTreeMap::new(),
        };
        self.ports.iter().zip(reports).map(of).collect()
    }

    pub fn reports(&self) -> Result<Vec<PortReport>, Failure> {
        self.ports.iter().map(|port| port.report().map_err(Failure::failed)).collect()
    }

    fn figures(&self, reports: &[PortReport], desk: &Desk) -> Figures {
        let history = self.snapshots.iter().filter_map(|snapshot| snapshot.horizon).min();
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

/// Counters of a driver whose names sound like received packets that were lost. Vendors agree on no names.
fn losses(interface: &str) -> BTreeMap<String, u64> {
    const WORDS: [&str; 8] = ["drop", "miss", "err", "discard", "fifo", "no_buf", "out_of", "overrun"];
    let lost = |name: &str| !name.contains("tx") && WORDS.iter().any(|word| name.contains(word));
    let all = statistics(interface).unwrap_or_default();
    all.into_iter().filter(|(name, _)| lost(&name.to_ascii_lowercase())).collect()
}

/// Those that have grown, and by how much.
fn grown(now: BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since = now.into_iter().map(|(name, count)| {
        let was = before.get(&name).copied().unwrap_or(0);
        (name, count.saturating_sub(was))
    });
    since.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_grown_is_told() {
        let counts = |all: &[(&str, u64)]| all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let before = counts(&[("rx_missed", 5), ("rx_drops", 1)]);
        let now = grown(counts(&[("rx_missed", 7), ("rx_drops", 1), ("rx_1_drops", 2)]), &before);
        assert_eq!(now, counts(&[("rx_missed", 2), ("rx_1_drops", 2)]));
    }
}
