//! `referee replay`: capture files through the same worker that runs live, and what it found.
//!
//! Main thread. Sets everything up in the order that fails early and harmlessly (settings, rules, inputs,
//! then outputs), runs the `driver`, and tells machines and people.

mod driver;
mod ledger;
mod outputs;
mod progress;
mod recording;
mod report;
mod tally;

use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::source::file::OpenError;
use dataplane::source::open::open_all;
use rules::RuleSet;

use crate::cli::ReplayArgs;
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::{rules_load, term};
use driver::{Finished, Replay};
use ledger::Ledger;
use outputs::{Kind, Outputs};
use recording::Recording;

/// Replays.
///
/// # Errors
/// Usage: arguments, settings or rules. Not a capture: an input. Failed: an output, the store, or the books.
pub fn run(args: &ReplayArgs) -> Result<(), Failure> {
    if args.workers != 1 {
        let what = format!("--workers {}: replay runs on one worker for now", args.workers);
        return Err(Failure::usage(what).help("leave --workers out"));
    }
    let config = Config::load(args.common.config.as_deref())?;
    let rules = rules_load::load(args.common.rules.as_deref(), &config, &args.common.set)?;
    let source = open_all(&args.files).map_err(not_a_capture)?;
    let wanted = [
        (Kind::Flows, args.flows.as_ref()),
        (Kind::Incidents, args.incidents.as_ref()),
        (Kind::Ledger, args.ledger.as_ref()),
    ];
    let outputs = Outputs::open(wanted, &args.files)?;
    let store = args.common.store.as_deref();
    let recording = store.map(|folder| Recording::begin(folder, &config.record)).transpose()?;
    let worker = WorkerConfig { lossless: true, ..config.worker };
    let replay = Replay::new(source, &worker, config.judge.clone(), Arc::clone(&rules), recording, outputs);
    tell(replay.run(), &rules, args)
}

fn not_a_capture(error: OpenError) -> Failure {
    let code = match error {
        OpenError::StandardInputTwice => Code::Usage,
        _ => Code::NotCapture,
    };
    Failure::new(code, error)
}

/// Writes the ledger and the report, and says all that went wrong.
fn tell(mut finished: Finished, rules: &RuleSet, args: &ReplayArgs) -> Result<(), Failure> {
    let ledger = Ledger::of(&finished, rules);
    finished.outputs.line(Kind::Ledger, &ledger);
    let mut failures = Vec::new();
    if let Some(tally) = finished.tally.take() {
        let store = args.common.store.as_deref();
        failures.extend(report::show(tally, &finished, &ledger, store).err());
    }
    notes(&finished, rules);
    failures.extend(finished.outputs.finish());
    failures.extend(finished.recorded.into_iter().flat_map(|recorded| recorded.failures));
    if !ledger.balanced {
        let what = format!("the books don't balance:\n  {}", ledger.unbalanced.join("\n  "));
        failures
            .push(Failure::failed(what).help("this is a fault of Referee; please report it with --ledger"));
    }
    let last = failures.pop();
    failures.iter().for_each(|failure| term::note(&failure.to_string()));
    last.map_or(Ok(()), Err)
}

/// What people should know although the work was done.
fn notes(finished: &Finished, rules: &RuleSet) {
    for input in finished.inputs.iter().filter(|input| input.damage.is_some()) {
        let before = term::plural(input.packets, "packet");
        term::note(&format!("{input}; the {before} before it count"));
    }
    if finished.late > 0 {
        let late = term::plural(finished.late, "packet");
        term::note(&format!(
            "{late} came later than packets with a later time; they were analysed as they came"
        ));
    }
    for failure in &finished.body_failures {
        let times = term::plural(failure.count, "time");
        let off = match failure.switched_off {
            true => format!("; it was switched off, and {} left out", term::plural(failure.skipped, "run")),
            false => String::new(),
        };
        term::note(&format!("rule {} failed {times}, last: {}{off}", failure.rule, failure.message));
    }
    for (index, rule) in rules.rules().iter().enumerate() {
        let faults = rules.guard_faults(u16::try_from(index).unwrap_or(u16::MAX));
        if faults > 0 {
            let times = term::plural(faults, "time");
            term::note(&format!(
                "{}:{}: the condition of rule {} overflowed or divided by zero {times}, and so didn't match",
                rule.file, rule.line, rule.name
            ));
        }
    }
}
