//! The metrics of a live run: gathered from those who count, and written every ten seconds.
//!
//! Main thread, between two looks. Reads what others published; nobody waits for it.

use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::judge::{BodyBooks, JudgeAccount, Standing};
use dataplane::ledger::{DropReason, WorkerAccount};
use dataplane::record::WriterAccount;
use dataplane::source::live::{Port, PortReport};

use super::worker::Snapshot;
use crate::control::Live;
use crate::filter::Advice;
use crate::report::cost::{Ticking, standing};
use crate::report::interfaces::Watched;
use crate::report::metrics::{Sample, counted, text};
use crate::report::outputs::{Kind, Outputs};
use crate::report::rules::InForce;

/// Looks, one a second, between two writings.
const EVERY: u64 = 10;

pub struct Metrics {
    /// What the judge said last.
    pub judged: (JudgeAccount, Standing, BodyBooks),
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
    pub live: &'a Live,
}

impl Metrics {
    pub fn new(ticking: Ticking) -> Metrics {
        Metrics { judged: Default::default(), looks: 0, ticking, advice: Advice::default() }
    }

    /// Once a second: asks the judge, and a second later writes what it said.
    pub fn look(&mut self, asked: &AtomicBool, outputs: &mut Outputs, seen: Seen) {
        if !outputs.wants(Kind::Metrics) {
            return;
        }
        match self.looks % EVERY {
            0 => asked.store(true, Ordering::Relaxed),
            1 => outputs.metrics(false, || text(&self.sample(seen))),
            _ => {}
        }
        self.looks += 1;
    }

    /// The page as it is now.
    pub fn page(&self, seen: Seen) -> String {
        text(&self.sample(seen))
    }

    fn sample<'a>(&'a self, seen: Seen<'a>) -> Sample<'a> {
        let Seen { ports, reports, snapshots, writer, live } = seen;
        let rules = live.rules();
        let counted = counted(&rules);
        let mut worker = WorkerAccount::default();
        snapshots.iter().for_each(|snapshot| worker.add(&snapshot.account));
        let watched = |(port, report): (&'a Port, &'a PortReport)| Watched {
            name: &port.nic().name,
            capture: port.to_string(),
            port: report,
        };
        let filtered: u64 = reports.iter().map(|report| report.filtered).sum();
        worker.received += filtered;
        worker.filtered += filtered;
        let (judge, gauges, bodies) = &self.judged;
        Sample {
            running: true,
            worker,
            related: reports.iter().map(|report| report.related).sum(),
            lost: DropReason::ALL.map(|reason| reports.iter().map(|r| r.dropped[reason as usize]).sum()),
            interfaces: ports.iter().zip(reports).map(watched).collect(),
            live_flows: snapshots.iter().map(|snapshot| snapshot.live).sum(),
            history_seconds: snapshots.iter().map(|s| s.horizon).min().map(|ns| ns as f64 / 1e9),
            judge,
            bodies,
            standing: counted.then_some(gauges),
            writer,
            costs: standing(&rules, Some(&self.ticking)),
            rules: InForce::new(&rules, live.reloads(), live.workers().collect()),
        }
    }
}
