//! The metrics of a live run: gathered from those who count, and written every ten seconds.
//!
//! Main thread, between two looks. Reads what others published; nobody waits for it. For those who ask through the HTTP
//! interface the api thread words what main has seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dataplane::filter::Refused;
use dataplane::ledger::{DropReason, WorkerAccount};
use dataplane::record::WriterAccount;
use dataplane::source::live::PortReport;
use rules::RuleSet;

use super::judge::Judged;
use super::worker::Snapshot;
use crate::board::streams::Streamed;
use crate::control::Live;
use crate::filter::Advice;
use crate::notify::account::Told;
use crate::recording::Recorded;
use crate::report::cost::{Ticking, standing};
use crate::report::finished::{Finished, Inputs, InterfaceReport, Kept};
use crate::report::metrics::interfaces::Watched;
use crate::report::metrics::served::Requests;
use crate::report::metrics::troubles::Troubles;
use crate::report::metrics::{OfWorker, Sample, Store, counted, text};
use crate::report::outputs::{Kind, Outputs};
use crate::report::rules::InForce;

/// Looks, one a second, between two writings.
const EVERY: u64 = 10;

pub struct Metrics {
    /// What the judge said last.
    pub judged: Arc<Judged>,
    /// Incidents, as the desk has them.
    pub troubles: Troubles,
    began: SystemTime,
    looks: u64,
    pub ticking: Ticking,
    /// About the filter.
    pub advice: Advice,
    /// Of the HTTP interface, if there is one.
    requests: Option<Arc<Requests>>,
}

/// What main looks at once a second.
pub struct Looked {
    pub interfaces: Vec<InterfaceReport>,
    pub snapshots: Vec<Snapshot>,
    pub writer: Option<WriterAccount>,
    pub notified: Vec<Told>,
    /// Of the HTTP interface, if there is one.
    pub streamed: Option<Streamed>,
    /// Of all recorders.
    pub chunks: usize,
}

/// All that main sees of the others at one moment. Whoever wants more than figures words it, on a thread of its own
/// choosing: nobody is asked again.
pub struct Seen {
    pub at: SystemTime,
    began: SystemTime,
    pub looked: Looked,
    /// Of all workers.
    pub worker: WorkerAccount,
    pub judged: Arc<Judged>,
    troubles: Troubles,
    pub rules: Arc<RuleSet>,
    reloads: (u64, u64),
    generations: Vec<u32>,
    ticking: Ticking,
    requests: Option<Arc<Requests>>,
}

impl Metrics {
    pub fn new(ticking: Ticking, requests: Option<Arc<Requests>>) -> Metrics {
        Metrics {
            judged: Arc::default(),
            troubles: Troubles::default(),
            began: SystemTime::now(),
            looks: 0,
            ticking,
            advice: Advice::default(),
            requests,
        }
    }

    /// As things stand now, by what the judge said last.
    pub fn seen(&self, looked: Looked, live: &Live) -> Seen {
        let mut worker = WorkerAccount::default();
        looked.snapshots.iter().for_each(|snapshot| worker.add(&snapshot.account));
        Seen {
            at: SystemTime::now(),
            began: self.began,
            looked,
            worker,
            judged: Arc::clone(&self.judged),
            troubles: self.troubles.shown(),
            rules: live.rules(),
            reloads: live.reloads(),
            generations: live.workers().collect(),
            ticking: self.ticking,
            requests: self.requests.clone(),
        }
    }

    /// Once a second: asks the judge, and a second later writes what it said.
    pub fn look(&mut self, asked: &AtomicBool, outputs: &mut Outputs, seen: &Seen) {
        if !outputs.wants(Kind::Metrics) {
            return;
        }
        match self.looks % EVERY {
            0 => asked.store(true, Ordering::Relaxed),
            1 => outputs.metrics(false, || seen.page()),
            _ => {}
        }
        self.looks += 1;
    }
}

impl Seen {
    /// The page of metrics.
    pub fn page(&self) -> String {
        text(&self.sample())
    }

    fn sample(&self) -> Sample<'_> {
        let Looked { interfaces, snapshots, writer, notified, streamed, .. } = &self.looked;
        let reports = || interfaces.iter().map(|interface| &interface.port);
        let mut worker = self.worker;
        let refused = refused(reports());
        worker.received += refused.packets;
        worker.filtered += refused.packets;
        let Judged { account: judge, standing: gauges, bodies, counted: taken, timing } = &*self.judged;
        Sample {
            running: true,
            began: self.began.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64()),
            workers: snapshots.iter().map(of_worker).collect(),
            refused,
            lost: DropReason::ALL.map(|reason| reports().map(|r| r.dropped[reason as usize]).sum()),
            late: snapshots.iter().map(|snapshot| snapshot.late).sum(),
            interfaces: interfaces
                .iter()
                .map(|i| Watched::new(&i.name, i.capture.clone(), &i.port))
                .collect(),
            live_flows: snapshots.iter().map(|snapshot| snapshot.live).sum(),
            peak_flows: snapshots.iter().map(|snapshot| snapshot.peak).sum(),
            history_seconds: snapshots.iter().filter_map(|s| s.horizon).min().map(|ns| ns as f64 / 1e9),
            judge,
            bodies,
            counted: taken,
            timing: Some(timing),
            troubles: &self.troubles,
            notified: notified.clone(),
            streamed: *streamed,
            standing: counted(&self.rules).then_some(gauges),
            store: writer.clone().map(|account| Store { lag_ns: lag(&worker, &account, self.at), account }),
            costs: standing(&self.rules, Some(&self.ticking)),
            rules: InForce::new(&self.rules, self.reloads, self.generations.clone()),
            requests: self.requests.as_deref(),
            worker,
        }
    }

    /// The run as if it had ended now.
    pub fn finished(&self) -> Finished {
        let Looked { interfaces, snapshots, writer, notified, chunks, .. } = &self.looked;
        let Judged { account: judge, standing, bodies, counted, timing } = (*self.judged).clone();
        Finished {
            worker: self.worker,
            live: snapshots.iter().map(|snapshot| snapshot.live).sum(),
            peak: snapshots.iter().map(|snapshot| snapshot.peak).sum(),
            judge,
            standing,
            counted,
            timing,
            troubles: Troubles::default(),
            notified: notified.clone(),
            bodies,
            chunks: (*chunks, 0),
            recorded: writer.clone().map(|account| Recorded {
                account,
                stalled: false,
                failures: Vec::new(),
            }),
            inputs: Inputs::Interfaces {
                reports: interfaces.clone(),
                clock_steps: 0,
                late: snapshots.iter().map(|snapshot| snapshot.late).sum(),
            },
            kept: Kept::default(),
            reloads: self.reloads,
            seconds: 0.0,
            ticking: Some(self.ticking),
        }
    }
}

/// What filters in the kernel left out.
fn refused<'a>(reports: impl Iterator<Item = &'a PortReport>) -> Refused {
    reports.fold(Refused::default(), |all, report| Refused {
        packets: all.packets + report.filtered,
        tagged: all.tagged + report.filtered_tagged,
        related: all.related + report.related,
        unjudged: 0,
    })
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
