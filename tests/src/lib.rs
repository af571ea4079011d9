//! What the integration tests share: the whole pipeline in one call, in one thread, on any source.
//!
//! Drives the same worker and judge as the program does, without a recorder; hands back rows, incidents and
//! accounts, with the books checked.

use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::flow::row::FlowRow;
use dataplane::judge::{Incident, Judge, JudgeConfig};
use dataplane::ledger::WorkerAccount;
use dataplane::source::Source;
use dataplane::worker::{Queues, Step, Worker};
use rules::RuleSet;

/// What came of a run.
#[derive(Debug)]
pub struct Replayed {
    pub rows: Vec<FlowRow>,
    pub incidents: Vec<Incident>,
    pub account: WorkerAccount,
    pub peak_flows: u32,
}

/// The shipped rules.
pub fn shipped_rules() -> Arc<RuleSet> {
    Arc::new(RuleSet::load(&rules::library(), &[]).expect("the shipped rules load"))
}

/// Runs everything there is in `source` through a worker and the judge.
pub fn replay<S: Source>(source: S, config: &WorkerConfig, rules: Arc<RuleSet>) -> Replayed {
    let config = WorkerConfig { lossless: true, ..*config };
    let queues = Queues::new(config.messages, true);
    let mut worker = Worker::new(source, &config, Arc::clone(&rules), queues.clone(), None, 0);
    let mut judge = Judge::new(Arc::clone(&rules), JudgeConfig::default());
    let (mut rows, mut incidents, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let step = worker.step();
        while let Some(message) = queues.messages.pop() {
            judge.handle(&message, &mut commands);
        }
        while let Some(row) = queues.rows.as_ref().and_then(|rows| rows.pop()) {
            rows.push(FlowRow::from_ended(&row, &rules));
        }
        incidents.extend(judge.closed());
        if step == Step::Done {
            break;
        }
    }
    judge.finish(&mut commands);
    incidents.extend(judge.closed());
    let account = worker.account();
    assert!(account.balanced(u64::from(worker.live_flows())), "the books balance: {account:?}");
    assert_eq!(account.events.dropped + account.events.rows_dropped, 0, "lossless");
    Replayed { rows, incidents, account, peak_flows: worker.peak_flows() }
}
