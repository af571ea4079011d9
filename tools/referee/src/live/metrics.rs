//! The metrics of a live run: gathered from those who count, and written every ten seconds.
//!
//! Main thread, between two looks. Reads what others published; nobody waits for it.

use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::judge::{BodyBooks, JudgeAccount, Standing};
use dataplane::ledger::{DropReason, WorkerAccount};
use dataplane::record::WriterAccount;
use dataplane::source::afxdp::{Tap, TapReport};

use super::worker::Snapshot;
use crate::report::metrics::{Sample, text};
use crate::report::outputs::{Kind, Outputs};

/// Looks, one a second, between two writings.
const EVERY: u64 = 10;

pub struct Metrics {
    /// What the judge said last.
    pub judged: (JudgeAccount, Standing, BodyBooks),
    /// A rule asks what many flows show, so that there are gauges.
    counted: bool,
    looks: u64,
}

/// What main sees of the others.
pub struct Seen<'a> {
    pub taps: &'a [Tap],
    pub reports: &'a [TapReport],
    pub snapshots: &'a [Snapshot],
    pub writer: Option<WriterAccount>,
}

impl Metrics {
    pub fn new(counted: bool) -> Metrics {
        Metrics { judged: Default::default(), counted, looks: 0 }
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

    fn sample<'a>(&'a self, seen: Seen<'a>) -> Sample<'a> {
        let Seen { taps, reports, snapshots, writer } = seen;
        let mut worker = WorkerAccount::default();
        snapshots.iter().for_each(|snapshot| worker.add(&snapshot.account));
        let names = taps.iter().map(|tap| tap.nic().name.as_str());
        let (judge, standing, bodies) = &self.judged;
        Sample {
            running: true,
            worker,
            lost: DropReason::ALL.map(|reason| reports.iter().map(|r| r.dropped[reason as usize]).sum()),
            interfaces: names.zip(reports).map(|(name, r)| (name, r.seen, r.nic.rx_missed)).collect(),
            live_flows: snapshots.iter().map(|snapshot| snapshot.live).sum(),
            history_seconds: snapshots.iter().map(|s| s.horizon).min().map(|ns| ns as f64 / 1e9),
            judge,
            bodies,
            standing: self.counted.then_some(standing),
            writer,
        }
    }
}
