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

use crate::config::{Config, DEFAULT_PATH};
use crate::error::{Code, Failure};
use crate::live::layout::{Layout, Wanted as Queues, local_cores};
use crate::live::mode::Mode;
use crate::live::not_there;
use check::{Check, ready};
use host::Wanted;
use nic::Asked;

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
    let mut checks = examine(args, &config)?;
    let mut fixed = Vec::new();
    if args.fix {
        for interface in &args.interface {
            may_change(interface)?;
            fixed.extend(fix::apply(&args.state, interface, &checks)?);
        }
        checks = examine(args, &config)?;
    }
    let call =
        args.interface.iter().fold("referee doctor".to_owned(), |call, name| format!("{call} -i {name}"));
    words::show(&checks, &fixed, &call, args.json)?;
    match ready(&checks) {
        true => Ok(()),
        false => Err(Failure::new(Code::Failed, "not ready to capture")),
    }
}

fn undo(args: &DoctorArgs) -> Result<(), Failure> {
    for interface in &args.interface {
        may_change(interface)?;
        words::undone(&fix::undo(&args.state, interface)?, args.json)?;
    }
    Ok(())
}

fn examine(args: &DoctorArgs, config: &Config) -> Result<Vec<Check>, Failure> {
    let asked = args.interface.iter().map(|name| Asked::ask(name).map_err(|error| not_there(name, &error)));
    let asked = asked.collect::<Result<Vec<Asked>, Failure>>()?;
    let layout = layout(args, config, &asked)?;
    let ring_bytes = asked.iter().map(|one| one.ring_bytes(config.ring_packets)).sum();
    let mut all = host::checks(&Wanted { ring_bytes, workers: layout.workers });
    if let Some(store) = args.store.as_deref().or(config.store_dir.as_deref()) {
        all.extend(disk::checks(store, config.record.store_bytes));
    }
    let cores = dataplane_sys::allowed_cores().unwrap_or_default();
    let workers: Vec<usize> = (0..layout.workers).filter_map(|worker| layout.core_of(worker)).collect();
    for one in &asked {
        let name = one.nic.name.as_str();
        let own = [
            nic::checks(one, args.mode),
            tuning::checks(one, args.mode),
            cpus::checks(name, &cores, &workers),
        ];
        all.extend(own.concat().into_iter().map(|check| check.of(name)));
    }
    Ok(all)
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
