//! A run that has ended: every thread's accounts, side by side, for the ledger to add up and the report to tell.
//! Main thread. Only holds; decides nothing.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use dataplane::filter::{Filter, Refused};
use dataplane::judge::{BodyBooks, JudgeAccount, Standing};
use dataplane::latency::{RoundTrips, Runs};
use dataplane::ledger::WorkerAccount;
use dataplane::source::file::InputReport;
use dataplane::source::live::PortReport;

use super::cost::Ticking;
use super::metrics::troubles::Troubles;
use crate::notify::account::Told;
use crate::recording::Recorded;

/// Flows remembered as kept, at most.
const KEPT_LIMIT: usize = 1_000_000;

/// The flows whose packets are kept, the latest of them; only a hint to people depends on it.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    flows: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Kept {
    pub fn insert(&mut self, flow_id: u64) {
        if self.flows.insert(flow_id) {
            self.order.push_back(flow_id);
        }
        if self.order.len() > KEPT_LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.flows.remove(&oldest);
        }
    }

    pub fn contains(&self, flow_id: u64) -> bool {
        self.flows.contains(&flow_id)
    }
}

/// What the far end of the workers' queues has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub messages: u64,
    pub rows: u64,
    /// Commands that a worker's queue had no room for, and that were given up.
    pub commands_dropped: u64,
    /// Incidents and rows that main was too busy to take.
    pub reports_dropped: u64,
}

/// What the judge's thread took its time for, live.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// From a moment of packet time until the judge had it from a worker.
    pub lag: RoundTrips,
    /// What judging a hit took, of some.
    pub hits: Runs,
}

/// Where the packets came from.
#[derive(Clone, Debug)]
pub enum Inputs {
    Files {
        reports: Vec<InputReport>,
        late: u64,
        /// The readers of all outputs went away before the end.
        abandoned: bool,
        filter: Option<(Filter, Refused)>,
    },
    Interfaces {
        reports: Vec<InterfaceReport>,
        /// How often the host's clock was set meanwhile.
        clock_steps: u64,
        /// Packets that a worker got after later ones.
        late: u64,
    },
}

/// One interface's counters, with its name.
#[derive(Clone, Debug)]
pub struct InterfaceReport {
    pub name: String,
    /// How it captured.
    pub capture: String,
    pub filter: Option<Arc<Filter>>,
    pub port: PortReport,
    /// What its driver counted meanwhile that sounds like loss, by the driver's names.
    pub driver: BTreeMap<String, u64>,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Of all workers together.
    pub worker: WorkerAccount,
    pub live: u32,
    pub peak: u32,
    pub judge: JudgeAccount,
    pub standing: Standing,
    pub counted: Counted,
    pub timing: Timing,
    pub troubles: Troubles,
    /// Whoever else was told.
    pub notified: Vec<Told>,
    pub bodies: BodyBooks,
    pub recorded: Option<Recorded>,
    /// Chunks there are, and chunks free once all was written.
    pub chunks: (usize, usize),
    pub inputs: Inputs,
    pub kept: Kept,
    /// Sets of rules that took another's place, and that were refused.
    pub reloads: (u64, u64),
    pub seconds: f64,
    /// If conditions were timed.
    pub ticking: Option<Ticking>,
}
