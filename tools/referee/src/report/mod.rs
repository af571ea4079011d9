//! How a run ends for those who wait for it: machines get the ledger, people the report, and whatever went
//! wrong is named. Main thread, once, after all threads have stopped.

pub mod cost;
pub mod finished;
pub mod interfaces;
pub mod ledger;
pub mod metrics;
pub mod outputs;
pub mod page;
pub mod proof;
pub mod rules;
pub mod tally;
pub mod words;

use std::path::Path;

use ::rules::RuleSet;
use dataplane::source::file::InputReport;
use serde::Serialize;

use crate::error::Failure;
use crate::{filter, term};
use finished::{Finished, Inputs, InterfaceReport};
use ledger::Ledger;
use outputs::{Kind, Outputs};
use tally::Tally;

/// The last line of `--json`.
#[derive(Serialize)]
struct Last<'a> {
    ledger: &'a Ledger,
}

/// Writes the ledger and the report, and says all that went wrong.
///
/// # Errors
/// Failed: an output, the store, or the books.
pub fn tell(
    finished: Finished,
    mut outputs: Outputs,
    tally: Option<Tally>,
    rules: &RuleSet,
    store: Option<&Path>,
) -> Result<(), Failure> {
    let ledger = Ledger::of(&finished, rules);
    outputs.line(Kind::Ledger, &ledger);
    outputs.line(Kind::Live, &Last { ledger: &ledger });
    outputs.metrics(true, || metrics::text(&metrics::Sample::last(&finished, rules)));
    let mut failures = Vec::new();
    if let Some(tally) = tally {
        failures.extend(words::show(tally, &finished, &ledger, store).err());
    }
    notes(&finished, rules);
    failures.extend(outputs.finish());
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
pub fn notes(finished: &Finished, rules: &RuleSet) {
    match &finished.inputs {
        Inputs::Files { reports, late, .. } => file_notes(reports, *late),
        Inputs::Interfaces { reports, clock_steps, .. } => interface_notes(reports, *clock_steps),
    }
    filter::notes(&finished.inputs).iter().for_each(|note| term::note(note));
    // Whose other half is with another worker looks as if it had not been captured.
    if finished.worker.flows_split == 0 {
        one_direction(finished.worker.connections_whole, finished.worker.connections_one_sided);
    }
    split(finished.worker.flows_split);
    unjudged(finished.worker.events.hits_dropped);
    rules::notes(&finished.bodies);
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

/// A flow that two workers have is judged by each as if the other part didn't exist.
fn split(flows: u64) {
    if flows > 0 {
        let flows = term::plural(flows, "flow");
        term::note(&format!(
            "{flows} reached two workers each, which judged a part of it: [capture] redispatch = \"on\" brings them together"
        ));
    }
}

/// Of what rules matched, that nobody looked at.
fn unjudged(dropped: u64) {
    if dropped > 0 {
        let matches = term::plural(dropped, "hit");
        term::note(&format!(
            "{matches} of rules found no room on the way to the judge and had no say: rules match too often, or their \
             bodies are slow (referee_rule_body_seconds_total in --metrics says whose)"
        ));
    }
}

/// A mirror of one direction shows no answer, and a missing answer is then no evidence.
fn one_direction(whole: u64, one_sided: u64) {
    let percent = one_sided * 100 / (whole + one_sided).max(1);
    if one_sided >= 5 && percent >= 5 {
        term::note(&format!(
            "of {percent} % of the connections only one direction was captured ({one_sided} of {}): what the other end \
             did not say there proves nothing, and is not reported; mirror both directions (SPAN: both; tap: both lines)",
            whole + one_sided
        ));
    }
}

fn file_notes(reports: &[InputReport], late: u64) {
    for input in reports.iter().filter(|input| input.damage.is_some()) {
        let before = term::plural(input.packets, "packet");
        term::note(&format!("{input}; the {before} before it count"));
    }
    if late > 0 {
        let late = term::plural(late, "packet");
        term::note(&format!(
            "{late} came later than packets with a later time; they were analysed as they came"
        ));
    }
}

fn interface_notes(reports: &[InterfaceReport], clock_steps: u64) {
    for InterfaceReport { name, port, .. } in reports {
        if port.nic.rx_missed > 0 {
            let missed = term::plural(port.nic.rx_missed, "packet");
            term::note(&format!(
                "{name}: the interface itself had no room for {missed}; they were lost before anybody saw them"
            ));
        }
        if port.nic.rx_errors > 0 {
            let damaged = term::plural(port.nic.rx_errors, "frame");
            term::note(&format!(
                "{name}: {damaged} came damaged and were thrown away by the interface (cable, optics)"
            ));
        }
    }
    if clock_steps > 0 {
        let times = term::plural(clock_steps, "time");
        term::note(&format!(
            "the host's clock was set {times} meanwhile: times before and after don't compare"
        ));
    }
}
