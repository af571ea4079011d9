//! The metrics of a live run: gathered from those who count, and written every ten seconds.
//!
//! Main thread, between two looks. Reads what others published; nobody waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dataplane::filter::Refused;
use dataplane::ledger::{DropReason, WorkerAccount};
use dataplane::record::WriterAccount;
use dataplane::source::live::{Port, PortReport};

use super::judge::Judged;
use super::worker::Snapshot;
use crate::control::Live;
use crate::filter::Advice;
use crate::notify::account::Told;
use crate::report::cost::{Ticking, standing};
use crate::report::metrics::interfaces::Watched;
use crate::report::metrics::troubles::Troubles;
use crate::report::metrics::{OfWorker, Sample, Store, counted, text};
use crate::report::outputs::{Kind, Outputs};
use crate::report::rules::InForce;

/// Looks, one a second, between two writings.
const EVERY: u64 = 10;

pub struct Metrics {
    /// What the judge said last.
    pub judged: Judged,
    /// Incidents, as the desk has them.
    pub troubles: Troubles,
    began: SystemTime,
    looks: u64,
    pub ticking: Ticking,
    /// About the filter.
    pub advice: Advice,
}

/// What main sees of the others.
#[derive(Clone)]
pub struct Seen<'a> {
    pub ports: &'a [Port],
    pub reports: &'a [PortReport],
    pub snapshots: &'a [Snapshot],
    pub writer: Option<WriterAccount>,
    pub notified: Vec<Told>,
    pub live: &'a Live,
}

impl Metrics {
    pub fn new(ticking: Ticking) -> Metrics {
        Metrics {
            judged: Judged::default(),
            troubles: Troubles::default(),
            began: SystemTime::now(),
            looks: 0,
            ticking,
            advice: Advice::default(),
        }
    }

    /// Once a second: asks the judge, and a second later writes what it said.
    pub fn look(&mut self, asked: &AtomicBool, outputs: &mut Outputs, seen: Seen) {
        if !outputs.wants(Kind::Metrics) {
            return;
        }
        match self.looks % EVERY {
            0 => asked.store(true, Ordering::Relaxed),
            1 => outputs.metrics(false, || self.page(seen)),
            _ => {}
        }
        self.looks += 1;
    }

    /// As things stand now, by what the judge said last.
    pub fn page(&self, seen: Seen) -> String {
        text(&self.sample(seen))
    }

    fn sample<'a>(&'a self, seen: Seen<'a>) -> Sample<'a> {
        let Seen { ports, reports, snapshots, writer, notified, live } = seen;
        let rules = live.rules();
        let counted = counted(&rules);
        let mut worker = WorkerAccount::default();
        snapshots.iter().for_each(|snapshot| worker.add(&snapshot.account));
        let watched = |(port, report): (&'a Port, &'a PortReport)| {
            Watched::new(&port.nic().name, port.to_string(), report)
        };
        let refused = refused(reports);
        worker.received += refused.packets;
        worker.filtered += refused.packets;
        let now = SystemTime::now();
        let Judged { account: judge, standing: gauges, bodies, counted: taken, timing } = &self.judged;
        Sample {
            running: true,
            began: self.began.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64()),
            workers: snapshots.iter().map(of_worker).collect(),
            refused,
            lost: DropReason::ALL.map(|reason| reports.iter().map(|r| r.dropped[reason as usize]).sum()),
            late: snapshots.iter().map(|snapshot| snapshot.late).sum(),
            interfaces: ports.iter().zip(reports).map(watched).collect(),
            live_flows: snapshots.iter().map(|snapshot| snapshot.live).sum(),
            peak_flows: snapshots.iter().map(|snapshot| snapshot.peak).sum(),
            history_seconds: snapshots.iter().filter_map(|s| s.horizon).min().map(|ns| ns as f64 / 1e9),
            judge,
            bodies,
            counted: taken,
            timing: Some(timing),
            troubles: &self.troubles,
            notified,
            standing: counted.then_some(gauges),
            store: writer.map(|account| Store { lag_ns: lag(&worker, &account, now), account }),
            costs: standing(&rules, Some(&self.ticking)),
            rules: InForce::new(&rules, live.reloads(), live.workers().collect()),
            worker,
        }
    }
}

/// What filters in the kernel left out.
fn refused(reports: &[PortReport]) -> Refused {
    let sum = |of: fn(&PortReport) -> u64| reports.iter().map(of).sum();
    Refused {
        packets: sum(|report| report.filtered),
        tagged: sum(|report| report.filtered_tagged),
        related: sum(|report| report.related),
        unjudged: 0,
    }
}

fn of_worker(snapshot: &Snapshot) -> OfWorker {
    OfWorker { account: snapshot.account, live: snapshot.live, history_ns: snapshot.horizon.unwrap_or(0) }
}

/// How old the newest packet on disk is, if others were selected that are not there; and nothing if none is missing.
fn lag(worker: &WorkerAccount, writer: &WriterAccount, now: SystemTime) -> Option<u64> {
    let lost: u64 = worker.kept.unwritten.iter().chain(&writer.unwritten_packets).sum();
    if worker.kept.kept <= writer.written_packets + lost {
        return Some(0);
    }
    let now = u64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()?;
    (writer.newest_ns > 0).then(|| now.saturating_sub(writer.newest_ns))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_store_lags_only_while_packets_are_missing_there() {
        let mut worker = WorkerAccount::default();
        let mut writer = WriterAccount::default();
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(lag(&worker, &writer, now), Some(0));
        worker.kept.kept = 3;
        assert_eq!(lag(&worker, &writer, now), None, "nothing was ever written");
        (writer.written_packets, writer.newest_ns) = (1, 90_000_000_000);
        assert_eq!(lag(&worker, &writer, now), Some(10_000_000_000));
        (worker.kept.unwritten[0], writer.unwritten_packets[1]) = (1, 1);
        assert_eq!(lag(&worker, &writer, now), Some(0));
    }
}
