//! `referee doctor`: whether this host and these interfaces are ready to capture, and what to type where they are not.
//!
//! Main thread. Looks and changes nothing, but for `--fix`, which sets what is safe and can be set back by `--undo`.

mod args;
mod check;
mod cpus;
mod disk;
mod fix;
mod host;
mod nic;
mod tuning;
mod words;

pub use args::DoctorArgs;

use std::path::Path;

use crate::config::{Config, DEFAULT_PATH, Redispatch};
use crate::error::{Code, Failure};
use crate::live::layout::{Layout, Wanted as Queues, local_cores};
use crate::live::mode::Mode;
use crate::live::not_there;
use crate::live::owner::Owner;
use crate::term;
use check::{Check, ready};
use host::Wanted;
use nic::Asked;
use tuning::Workers;

/// What was looked at and what went wrong on the way, each of which is a check, too.
#[derive(Default)]
struct Report {
    checks: Vec<Check>,
    problems: Vec<Failure>,
}

impl Report {
    fn problem(&mut self, check: Check, interface: &str, failure: Failure) {
        self.checks.push(check.of(interface));
        self.problems.push(failure);
    }

    /// The first problem decides the exit code; the others are said.
    fn end(self) -> Result<(), Failure> {
        let mut problems = self.problems.into_iter();
        let first = problems.next();
        problems.for_each(|problem| term::note(&problem.to_string()));
        match first {
            Some(problem) => Err(problem),
            None if ready(&self.checks) => Ok(()),
            None => Err(Failure::new(Code::Failed, "not ready to capture")),
        }
    }
}

/// Examines, and with `--fix` or `--undo` sets.
///
/// # Errors
/// Failed: something stands in the way of a capture, or can't be set back. Usage: arguments, settings, or `--fix` of an
/// interface that is captured from. Privilege: no such interface.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let installed = Path::new(DEFAULT_PATH);
    let config = Config::load(args.config.as_deref().or(installed.exists().then_some(installed)))?;
    if args.undo {
        return undo(args);
    }
    let mut report = examine(args, &config)?;
    let mut fixed = args.fix.then(Vec::new);
    if let Some(fixed) = &mut fixed {
        let there =
            |name: &&String| report.checks.iter().any(|check| check.is_of(name) && check.name != "interface");
        let mut refused = Vec::new();
        for interface in args.interface.iter().filter(there) {
            match may_change(interface).and_then(|()| fix::apply(&args.state, interface, &report.checks)) {
                Ok(changes) => fixed.extend(changes),
                Err(failure) => refused.push((interface, failure)),
            }
        }
        report = examine(args, &config)?;
        for (interface, failure) in refused {
            let check = Check::new("fix", failure.message.clone()).bad("what is safe to set was not set");
            report.problem(check, interface, failure);
        }
    }
    let call =
        args.interface.iter().fold("referee doctor".to_owned(), |call, name| format!("{call} -i {name}"));
    words::show(&report.checks, fixed.as_deref(), &call, args.json)?;
    report.end()
}

fn undo(args: &DoctorArgs) -> Result<(), Failure> {
    let (mut report, mut undone) = (Report::default(), Vec::new());
    for interface in &args.interface {
        let left = match may_change(interface) {
            Ok(()) => fix::undo(&args.state, interface, &mut undone),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = left {
            let check = Check::new("undo", failure.message.clone()).bad("not all is as it was before --fix");
            report.problem(check, interface, failure);
        }
    }
    words::undone(&undone, &report.checks, args.json)?;
    report.end()
}

fn examine(args: &DoctorArgs, config: &Config) -> Result<Report, Failure> {
    let mut missing = Report::default();
    let mut asked = Vec::new();
    for name in &args.interface {
        match Asked::ask(name) {
            Ok(one) => asked.push(one),
            Err(error) => {
                let check = Check::new("interface", format!("there is none of this name: {error}"));
                let check = check.bad("nothing can be captured from it").command("ip -brief link");
                missing.problem(check, name, not_there(name, &error));
            }
        }
    }
    let layout = layout(args, config, &asked)?;
    let ring_bytes = asked.iter().map(|one| one.ring_bytes(config.ring_packets)).sum();
    let mut checks = host::checks(&Wanted { ring_bytes, workers: layout.workers });
    if let Some(store) = args.store.as_deref().or(config.store_dir.as_deref()) {
        // As the user who will write it: what root may is no answer.
        let bytes = config.record.store_bytes;
        checks.extend(match Owner::of(Some(store)) {
            Some(owner) => owner.borrow(|| disk::checks(store, bytes, Some(&owner.name)))?,
            None => disk::checks(store, bytes, None),
        });
    }
    let cores = dataplane_sys::allowed_cores().unwrap_or_default();
    let on: Vec<usize> = (0..layout.workers).filter_map(|worker| layout.core_of(worker)).collect();
    let workers = Workers { count: layout.workers, hand_over: config.redispatch != Redispatch::Off };
    for one in &asked {
        let name = one.nic.name.as_str();
        let own = [
            nic::checks(one, args.mode),
            tuning::checks(one, args.mode, workers),
            cpus::checks(name, &cores, &on),
        ];
        checks.extend(own.concat().into_iter().map(|check| check.of(name)));
    }
    checks.extend(missing.checks);
    Ok(Report { checks, problems: missing.problems })
}

/// The workers that `referee run` would have.
fn layout(args: &DoctorArgs, config: &Config, asked: &[Asked]) -> Result<Layout, Failure> {
    let wanted = asked.iter().map(|one| Queues {
        queues: if args.mode == Mode::Afpacket { 1 } else { one.queues as usize },
        local: local_cores(&one.nic.name),
    });
    Layout::new(config, &wanted.collect::<Vec<_>>())
}

/// Setting a ring or an offload resets many a NIC, under whoever captures from it.
fn may_change(interface: &str) -> Result<(), Failure> {
    let nic = dataplane::source::nic::Nic::find(interface).map_err(|error| not_there(interface, &error))?;
    match nic.xdp_program {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format!(
            "{interface} has an XDP program: its settings are not changed under it"
        ))
        .help("stop what captures from it first")),
    }
}
