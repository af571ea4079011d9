//! What rules would have done: a replay that keeps no packet, with every question, match and verdict booked by rule.
//!
//! Main thread, which is worker and judge as in any replay; only that each flow counts as held, so that the judge decides
//! on its capture as it would with a store. Reports to `test`.

use std::collections::{BTreeMap, HashSet};
use std::io::PipeReader;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use dataplane::config::WorkerConfig;
use dataplane::filter::Filtered;
use dataplane::judge::message::{Command, Hit, Message};
use dataplane::judge::{Incident, Judge, Subject, because};
use dataplane::record::{self, ExportError, ExportSummary, Query};
use dataplane::source::open::open_all;
use rules::clause::seen;
use rules::{RuleSet, Scope, Snapshot};
use serde_json::{Value, json};

use crate::access;
use crate::cli::OutputArgs;
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::replay::driver::{Ended, Observer, Replay};
use crate::replay::not_a_capture;
use crate::report::finished::Finished;
use crate::report::outputs::Outputs;
use crate::report::words;
use crate::term;

/// Flows, or for wider rules incidents, shown of each rule.
const SAMPLES: usize = 5;

/// A flow or incident of a rule, as an example.
pub struct Sample {
    pub who: String,
    pub at_ns: u64,
    /// "operand", "what it saw".
    pub because: Vec<(String, String)>,
    pub json: Value,
}

/// What one rule did.
#[derive(Default)]
pub struct OfRule {
    pub hits: u64,
    pub flows: HashSet<u64>,
    /// Flows whose packets would be kept.
    pub kept: HashSet<u64>,
    /// Flows that would be kept of those that come next, at most.
    pub watched: u64,
    pub incidents: u64,
    pub withdrawn: u64,
    pub samples: Vec<Sample>,
    /// The words of its first incident.
    pub says: Option<String>,
}

/// A replay that books by rule.
pub struct Backtest {
    pub rules: Arc<RuleSet>,
    pub of: Vec<OfRule>,
    by_name: BTreeMap<String, usize>,
}

impl Backtest {
    fn new(rules: Arc<RuleSet>) -> Backtest {
        let by_name = rules.rules().iter().enumerate().map(|(at, meta)| (meta.name.clone(), at)).collect();
        Backtest { of: rules.rules().iter().map(|_| OfRule::default()).collect(), by_name, rules }
    }

    fn hit(&mut self, hit: &Hit) {
        let Some(of) = self.of.get_mut(usize::from(hit.rule)) else { return };
        of.hits += 1;
        if !of.flows.insert(hit.facts.flow_id) || of.samples.len() == SAMPLES {
            return;
        }
        let subject = Subject::flow(&hit.facts);
        let saw = self.rules.because(hit.rule, &Snapshot::Flow(&hit.facts, hit.event));
        let flow_id = format!("{:016x}", hit.facts.flow_id);
        of.samples.push(Sample {
            who: format!("{}  (flow {flow_id}, {})", words::subject(&subject), hit.event.name()),
            at_ns: hit.facts.now_ns,
            because: saw.iter().map(|because| (because.clause.to_string(), seen(because))).collect(),
            json: json!({
                "flow": subject, "flow_id": flow_id, "event": hit.event.name(), "at_ns": hit.facts.now_ns,
                "because": because::to_json(&saw),
            }),
        });
    }
}

impl Backtest {
    fn watches(&mut self, command: &Command) {
        if let Command::Watch { rule, flows, .. } = command
            && let Some(of) = self.of.get_mut(usize::from(*rule))
        {
            of.watched += u64::from(flows.all);
        }
    }
}

impl Observer for Backtest {
    fn message(&mut self, message: &Message, judge: &mut Judge, commands: &mut Vec<Command>) {
        let Message::Hit(hit) = message else {
            judge.handle(message, commands);
            commands.drain(..).for_each(|command| self.watches(&command));
            return;
        };
        self.hit(hit);
        let held = self.rules.rules().get(usize::from(hit.rule)).is_some_and(|meta| meta.holds);
        judge.handle(&Message::Hit(Hit { held, ..*hit }), commands);
        // Nothing is held: the worker is not to know.
        for command in commands.drain(..) {
            if let Command::Keep { flow_id, .. } = command
                && let Some(of) = self.of.get_mut(usize::from(hit.rule))
            {
                of.kept.insert(flow_id);
            }
            self.watches(&command);
        }
    }

    fn opened(&mut self, incident: &Incident) {
        let at = self.by_name.get(&incident.rule);
        let Some(of) = at.and_then(|at| self.of.get_mut(*at)) else { return };
        of.says.get_or_insert_with(|| incident.explain.clone());
        if incident.scope == Scope::Flow || of.samples.len() == SAMPLES {
            return;
        }
        of.samples.push(Sample {
            who: words::subject(&incident.subject),
            at_ns: incident.first_ns,
            because: incident.because.iter().map(super::explain::operand).collect(),
            json: json!({
                "subject": incident.subject, "incident": incident.id, "at_ns": incident.first_ns,
                "because": incident.because,
            }),
        });
    }

    fn closed(&mut self, incident: &Incident) {
        let at = self.by_name.get(&incident.rule);
        let Some(of) = at.and_then(|at| self.of.get_mut(*at)) else { return };
        if incident.withdrawn {
            of.withdrawn += 1;
        } else {
            of.incidents += 1;
        }
    }
}

/// Runs captures through the rules. A folder among `paths` is a store: what it keeps of the time asked for is taken, in
/// order of time.
///
/// # Errors
/// Usage: a folder that is no store. Not a capture: an input. Failed: a store that can't be read.
pub fn run(
    rules: RuleSet,
    paths: &[PathBuf],
    asked: &Query,
    config: &Config,
) -> Result<(Backtest, Finished), Failure> {
    let rules = Arc::new(rules.watched());
    let outputs = Outputs::open(&OutputArgs::default(), false, paths)?;
    let (mut files, mut stores) = (Vec::new(), Vec::new());
    for path in paths {
        match path.is_dir() {
            true => stores.push(StoreFeed::begin(path, asked)?),
            false => files.push(path.clone()),
        }
    }
    files.extend(stores.iter().map(StoreFeed::path));
    let opened = open_all(&files);
    let stores: Vec<_> = stores.into_iter().map(StoreFeed::opened).collect();
    let source = match opened {
        Ok(source) => source,
        Err(error) => {
            // A store that can't be read gives nothing to read.
            stores.into_iter().try_for_each(join)?;
            return Err(not_a_capture(error));
        }
    };
    let worker = WorkerConfig { lossless: true, ..config.worker };
    let mut backtest = Backtest::new(Arc::clone(&rules));
    let replay = Replay::new(Filtered::none(source), &worker, config.judge.clone(), rules, None, outputs);
    let Ended { finished, .. } = replay.observed(&mut backtest).run();
    stores.into_iter().try_for_each(join)?;
    Ok((backtest, finished))
}

type Exporting = JoinHandle<Result<ExportSummary, ExportError>>;

/// A store's packets as one capture. Its segments have them as they were recorded, what led up to a verdict after what
/// came meanwhile; exported, they are in order of time.
struct StoreFeed {
    reader: PipeReader,
    exporting: Exporting,
}

impl StoreFeed {
    fn begin(folder: &Path, asked: &Query) -> Result<StoreFeed, Failure> {
        let store = access::store(folder).map_err(|failure| match failure.code {
            Code::Privilege => failure,
            _ => Failure::usage(format!("{} is a folder, and no store", folder.display()))
                .help("name capture files, or the folder of an earlier `--store`"),
        })?;
        let (reader, mut writer) = std::io::pipe().map_err(Failure::failed)?;
        let asked = asked.clone();
        let exporting = thread::spawn(move || record::export(&store, &asked, &mut writer));
        Ok(StoreFeed { reader, exporting })
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.reader.as_raw_fd()).into()
    }

    /// The capture was opened: this end is needed no more, and would hide that the other went away.
    fn opened(self) -> Exporting {
        self.exporting
    }
}

fn join(exporting: Exporting) -> Result<(), Failure> {
    let done = exporting.join().map_err(|_| Failure::failed("reading the store failed; please report it"))?;
    let summary = done.map_err(Failure::failed)?;
    summary.damaged.iter().for_each(|damage| {
        term::note(&format!("{damage}; `referee store verify` shows how every segment is"));
    });
    Ok(())
}
