//! How a run stands, for machines that watch it: the books, gauges and durations as Prometheus text.
//!
//! Main thread, at the end and every few seconds of a live run. Only words of numbers that others counted: every account
//! of the ledger has its family here. Labels are bounded: of clients and services the [`SHOWN`] with most state-table
//! entries.

pub mod interfaces;
mod judge;
pub mod served;
mod text;
mod traffic;
pub mod troubles;

#[cfg(test)]
pub mod tests;

use dataplane::filter::Refused;
use dataplane::judge::{BodyBooks, JudgeAccount, Standing};
use dataplane::ledger::{DropReason, WorkerAccount};
use dataplane::record::WriterAccount;
use dataplane::source::Nanos;
use rules::{RuleSet, Scope};

use super::cost::{self, Standings};
use super::finished::{Counted, Finished, Inputs, InterfaceReport, Timing};
use super::rules::InForce;
use crate::board::streams::Streamed;
use crate::filter;
use crate::notify::account::Told;
use interfaces::Watched;
use served::Requests;
pub(super) use text::Text;
use troubles::Troubles;

/// Clients and services named at most, of each.
pub const SHOWN: usize = 10;

/// One worker while it works.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfWorker {
    pub account: WorkerAccount,
    pub live: u32,
    /// How far back its history reaches.
    pub history_ns: Nanos,
}

/// What is written to.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub account: WriterAccount,
    /// How old the newest packet in it is, while others wait; `None` if nobody looks at a clock.
    pub lag_ns: Option<Nanos>,
}

/// All that is shown.
pub struct Sample<'a> {
    /// Packets are still being taken.
    pub running: bool,
    /// When the run began, s since the epoch; unknown in a replay.
    pub began: Option<f64>,
    /// Of all workers, what filters in the kernel left out included.
    pub worker: WorkerAccount,
    /// Each for itself, while they work.
    pub workers: Vec<OfWorker>,
    /// What a filter left out.
    pub refused: Refused,
    /// Lost before any worker, by [`DropReason`].
    pub lost: [u64; DropReason::ALL.len()],
    /// Packets taken after later ones.
    pub late: u64,
    pub interfaces: Vec<Watched<'a>>,
    pub live_flows: u32,
    pub peak_flows: u32,
    /// How far back the shortest history reaches, s; unknown in a replay.
    pub history_seconds: Option<f64>,
    pub judge: &'a JudgeAccount,
    pub bodies: &'a BodyBooks,
    pub counted: &'a Counted,
    /// `None` in a replay, where it would say how fast this computer is.
    pub timing: Option<&'a Timing>,
    pub troubles: &'a Troubles,
    pub notified: Vec<Told>,
    /// Live, with the HTTP interface.
    pub streamed: Option<Streamed>,
    /// `None` if no rule asks what many flows show, and so nobody counts it.
    pub standing: Option<&'a Standing>,
    pub store: Option<Store>,
    pub rules: InForce,
    pub costs: Standings,
    /// Of the HTTP interface, while there is one.
    pub requests: Option<&'a Requests>,
}

impl<'a> Sample<'a> {
    /// Of a run that has ended.
    pub fn last(f: &'a Finished, rules: &RuleSet) -> Sample<'a> {
        let (interfaces, late, live) = match &f.inputs {
            Inputs::Files { late, .. } => (Vec::new(), *late, false),
            Inputs::Interfaces { reports, late, .. } => {
                let watched = |r: &'a InterfaceReport| Watched::new(&r.name, r.capture.clone(), &r.port);
                (reports.iter().map(watched).collect(), *late, true)
            }
        };
        let store =
            |recorded: &crate::recording::Recorded| Store { account: recorded.account.clone(), lag_ns: None };
        Sample {
            running: false,
            began: None,
            worker: super::ledger::received(f),
            workers: Vec::new(),
            refused: filter::of(&f.inputs).map_or(Refused::default(), |(_, refused)| refused),
            lost: super::ledger::lost(&f.inputs),
            late,
            interfaces,
            live_flows: f.live,
            peak_flows: f.peak,
            history_seconds: None,
            judge: &f.judge,
            bodies: &f.bodies,
            counted: &f.counted,
            timing: live.then_some(&f.timing),
            troubles: &f.troubles,
            notified: f.notified.clone(),
            streamed: None,
            standing: counted(rules).then_some(&f.standing),
            store: f.recorded.as_ref().map(store),
            rules: InForce::new(rules, f.reloads, Vec::new()),
            costs: cost::standing(rules, f.ticking.as_ref()),
            requests: None,
        }
    }
}

/// What many flows show is counted, because a rule asks for it.
pub fn counted(rules: &RuleSet) -> bool {
    rules.in_force().any(|(_, rule)| rule.scope != Scope::Flow)
}

/// The page.
pub fn text(sample: &Sample) -> String {
    page(sample).into_text()
}

fn page(sample: &Sample) -> Text {
    let mut page = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    page.gauge("referee_build_info", "The program's version.").labelled(&[("version", version)], 1);
    page.gauge("referee_running", "1 while packets are taken, 0 once the run has ended.")
        .is(u8::from(sample.running));
    if let Some(began) = sample.began {
        page.gauge("referee_start_time_seconds", "When the run began, since the epoch.").is(began);
    }
    traffic::packets(&mut page, sample);
    interfaces::show(&mut page, &sample.interfaces);
    traffic::kept(&mut page, sample);
    traffic::flows(&mut page, sample);
    traffic::workers(&mut page, &sample.workers);
    judge::events(&mut page, sample);
    judge::judged(&mut page, sample.judge);
    judge::incidents(&mut page, sample);
    judge::told(&mut page, &sample.notified);
    traffic::streamed(&mut page, sample.streamed);
    sample.rules.show(&mut page);
    super::rules::metrics(&mut page, sample.bodies);
    if let Some(standing) = sample.standing {
        judge::state_tables(&mut page, standing);
    }
    cost::show(&mut page, &sample.costs);
    sample.requests.iter().for_each(|requests| requests.show(&mut page));
    page
}
