//! `referee notify test`: tells everybody whom referee.toml names that this is a test, once, and says who heard it.
//!
//! Main thread; the same threads tell as in a run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use dataplane::judge::{Incident, Subject};
use rules::{Scope, Severity};

use super::webhook::Pace;
use super::{Note, Prepared, State, now_ns};
use crate::config::{Config, DEFAULT_PATH};
use crate::error::Failure;
use crate::live::owner;
use crate::term;

#[derive(Subcommand)]
pub enum NotifyCommand {
    /// Tell everybody whom the settings name that this is a test, and say who heard it
    Test {
        /// Settings; without it those in /etc/referee/referee.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Longer than one try may take.
const PATIENCE: Duration = Duration::from_secs(310);

/// # Errors
/// Usage: the settings, or nobody is to be told. Failed: somebody didn't hear it.
pub fn try_out(config: Option<&Path>) -> Result<(), Failure> {
    let path = config.unwrap_or(Path::new(DEFAULT_PATH));
    let settings = Config::load(Some(path))?;
    let pace = Pace { give_up: Duration::ZERO, ..Pace::default() };
    if settings.notify.is_empty() {
        let what = format!("{}: [notify] names nobody to be told", path.display());
        return Err(Failure::usage(what).help("docs/notify.md has an example of each"));
    }
    // A file that is made is that of whoever will run.
    owner::settle_for(settings.store_dir.as_deref(), &[])?;
    let (prepared, refused) = Prepared::some(&settings.notify, false, pace, PATIENCE);
    let mut notify = prepared.spawn()?;
    notify.hand_on(&std::sync::Arc::new(Note { state: State::Open, incident: test() }));
    let told = notify.finish();
    notify.news().iter().for_each(|what| term::note(what));
    let cannot =
        refused.iter().map(|(name, failure)| format!("{name}: can't be told: {}\n", failure.message));
    let out = told.iter().map(|told| format!("{}\n", told.words())).chain(cannot).collect::<String>();
    // On standard error if the other is itself told.
    match settings.notify.stdout {
        Some(_) => out.lines().for_each(term::note),
        None => term::show(|to| to.write_all(out.as_bytes()))?,
    }
    match !refused.is_empty() || told.iter().any(|told| told.missed()) {
        true => Err(Failure::failed("not everybody could be told")),
        false => Ok(()),
    }
}

fn test() -> Incident {
    let now = now_ns();
    Incident {
        id: format!("{now:016x}"),
        kind: "notify_test".to_owned(),
        rule: "notify_test".to_owned(),
        severity: Severity::Info,
        scope: Scope::Link,
        subject: Subject::Link { link: "all" },
        first_ns: now,
        last_ns: now,
        count: 1,
        flows: 0,
        flow_ids: Vec::new(),
        evidence: serde_json::Map::new(),
        explain: "This is a test of [notify] in referee.toml: nothing is wrong.".to_owned(),
        advise: String::new(),
        tags: Vec::new(),
        rules_hash: String::new(),
        because: Vec::new(),
        withdrawn: false,
    }
}
