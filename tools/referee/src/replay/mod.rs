//! `referee replay`: capture files through the same worker that runs live, and what it found.
//!
//! Main thread. Sets everything up in the order that fails early and harmlessly (settings, rules, inputs,
//! then outputs), runs the `driver`, and tells machines and people.

pub mod driver;
pub mod progress;

use std::path::Path;
use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::filter::Filtered;
use dataplane::record::Recorder;
use dataplane::source::file::OpenError;
use dataplane::source::open::open_all;

use crate::cli::ReplayArgs;
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::filter;
use crate::live::owner;
use crate::recording::{Prepared, Recording};
use crate::report::outputs::Outputs;
use crate::report::tell;
use crate::rules::load;
use driver::{Ended, Replay};

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
    let rules = load::load(args.common.rules.as_deref(), &config, &args.common.set)?;
    let source = open_all(&args.files).map_err(not_a_capture)?;
    let asked = args.common.filter.given();
    let filtered = filter::compiling(|| Filtered::new(source, asked.as_ref()));
    let source = filtered.map_err(|error| filter::failure(&error))?;
    let outputs = Outputs::open(&args.outputs, false, &args.files)?;
    let store = args.common.store.as_deref();
    if owner::settle_for(store, &[])? {
        outputs.probe()?;
    }
    let recording = store.map(|folder| record_in(folder, &config)).transpose()?;
    let worker = WorkerConfig { lossless: true, remembers: recording.is_some(), ..config.worker };
    let replay = Replay::new(source, &worker, config.judge.clone(), Arc::clone(&rules), recording, outputs);
    let Ended { finished, outputs, tally } = replay.run();
    tell(finished, outputs, tally, &rules, store)
}

/// The store and the one worker's way into it.
fn record_in(folder: &Path, config: &Config) -> Result<(Recording, Recorder), Failure> {
    let (prepared, mut recorders) = Prepared::new(folder, &config.record, 1)?;
    let recorder = recorders.pop().expect("one was asked for");
    Ok((prepared.start()?, recorder))
}

/// An input's failure as the program's.
pub fn not_a_capture(error: OpenError) -> Failure {
    let code = match error {
        OpenError::StandardInputTwice => Code::Usage,
        _ => Code::NotCapture,
    };
    Failure::new(code, error)
}
