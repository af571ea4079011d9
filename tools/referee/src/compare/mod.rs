//! `referee compare`: two captures of one path, and what happened between the taps.
//!
//! Main thread. Opens both inputs before reading either, reads one after the other into the `compare` crate's
//! records, and shows its report to machines or, by `words`, to people.

mod groups;
mod sentences;
mod words;

use std::path::Path;

use compare::{Flows, Reading, Report, Tap};
use dataplane::source::file::{FileSource, InputReport, OpenError};
use dataplane::source::merge::Merge;
use dataplane::source::open::open_all;
use serde_json::json;

use crate::cli::CompareArgs;
use crate::error::Failure;
use crate::replay::not_a_capture;
use crate::replay::progress::Progress;
use crate::term::{self, Paint};

/// How an input was read.
pub struct Input {
    pub name: String,
    pub complete: bool,
}

/// Compares.
///
/// # Errors
/// Usage: standard input twice. Not a capture: an input. Failed: standard output, or books that don't balance.
pub fn run(args: &CompareArgs) -> Result<(), Failure> {
    if args.a == Path::new("-") && args.b == Path::new("-") {
        return Err(not_a_capture(OpenError::StandardInputTwice));
    }
    let open = |path: &Path| open_all(&[path]).map_err(not_a_capture);
    let sources = [open(&args.a)?, open(&args.b)?];
    let mut flows = Flows::new();
    let mut taps = Vec::new();
    let mut inputs = Vec::new();
    for source in sources {
        let (tap, report) = read(source, &mut flows);
        if report.damage.is_some() {
            term::note(&format!("{report}; the {} before it count", term::plural(report.packets, "packet")));
        }
        inputs.push(Input { name: report.name, complete: report.complete });
        taps.push(tap);
    }
    let [a, b] = &taps[..] else { return Err(Failure::failed("two captures were read")) };
    let report = compare::compare(a, b, &flows);
    if args.json {
        machine(&report, &inputs)?;
    } else {
        let text = words::report(&report, &inputs, Paint::for_stdout());
        term::show(|out| out.write_all(text.as_bytes()))?;
    }
    if report.summary.balanced {
        Ok(())
    } else {
        Err(Failure::failed("the books do not balance: a packet is in no account, or in two")
            .help("this is a mistake of referee's; please report it with both captures"))
    }
}

fn read(mut source: Merge<FileSource>, flows: &mut Flows) -> (Tap, InputReport) {
    let mut progress = Progress::new(true, &source);
    let mut reading = Reading::new(flows);
    while reading.step(&mut source) {
        progress.step(&source, || reading.packets());
    }
    progress.finish();
    let tap = reading.finish();
    let report = source.reports().pop().unwrap_or_else(|| InputReport {
        name: String::new(),
        packets: 0,
        bytes: 0,
        complete: false,
        damage: None,
    });
    (tap, report)
}

fn machine(report: &Report, inputs: &[Input]) -> Result<(), Failure> {
    let mut summary = json!(report.summary);
    if let Some(fields) = summary.as_object_mut() {
        let complete = inputs.iter().all(|input| input.complete);
        fields.insert("input_complete".into(), json!(complete));
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        fields.insert("inputs".into(), json!(names));
    }
    term::show(|out| {
        for finding in &report.findings {
            serde_json::to_writer(&mut *out, finding)?;
            writeln!(out)?;
        }
        serde_json::to_writer(&mut *out, &json!({ "summary": summary }))?;
        writeln!(out)
    })
}
