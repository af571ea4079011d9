//! Setting what is safe to set, and setting it back: each change is written down before it is made, with what was before.
//!
//! Main thread. One file an interface, replaced whole; what somebody else changed since stays.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::source::nic::Nic;
use dataplane_sys::tuning::{self, Setting};
use serde::{Deserialize, Serialize};

use super::check::Check;
use crate::error::{Code, Failure};
use crate::term;

/// How long a link may take to come when an interface is set up.
const LINK: Duration = Duration::from_secs(10);
const NAMES: [(Setting, &str); 6] = [
    (Setting::Up, "up"),
    (Setting::Lro, "lro"),
    (Setting::VlanStrip, "vlan_strip"),
    (Setting::Gro, "gro"),
    (Setting::RxRing, "rx_ring"),
    (Setting::Pause, "pause"),
];

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub interface: String,
    pub setting: String,
    pub before: u32,
    pub after: u32,
}

impl Change {
    fn setting(&self) -> Option<Setting> {
        NAMES.iter().find(|(_, name)| *name == self.setting).map(|(setting, _)| *setting)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { interface, setting, before, after } = self;
        write!(f, "{interface} {setting}: {before} to {after}")
    }
}

/// What was changed of an interface, in the order in which it was.
struct Journal {
    path: PathBuf,
    changes: Vec<Change>,
}

impl Journal {
    fn open(folder: &Path, interface: &str) -> Result<Journal, Failure> {
        let path = folder.join(format!("doctor-{interface}.json"));
        let changes = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        Ok(Journal { path, changes })
    }

    /// Replaces the file; without changes there is none.
    fn save(&self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            let what = format!("{}: what is changed can't be written down: {error}", self.path.display());
            Failure::failed(what)
                .help("--state DIR names another folder; nothing is changed that can't be undone")
        };
        if self.changes.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_string_pretty(&self.changes).map_err(Failure::failed)?;
        let new = self.path.with_extension("json.new");
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::write(&new, text + "\n").map_err(failed)?;
        fs::File::open(&new).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)
    }
}

/// Sets what the checks of an interface say is safe. What can't be set is said, and stays.
///
/// # Errors
/// Failed: what is changed can't be written down, so that nothing more is changed.
pub fn apply(folder: &Path, interface: &str, checks: &[Check]) -> Result<Vec<Change>, Failure> {
    let mut journal = Journal::open(folder, interface)?;
    let mut done = Vec::new();
    let own = checks.iter().filter(|check| check.is_of(interface));
    for (setting, to) in own.filter_map(|check| check.fix) {
        let name = NAMES.iter().find(|(one, _)| *one == setting).map_or("", |(_, name)| name);
        let Ok(before) = tuning::read(interface, setting) else { continue };
        let old = journal.changes.clone();
        let change = Change { interface: interface.to_owned(), setting: name.to_owned(), before, after: to };
        // What was set before is set back to what was there first.
        match journal.changes.iter_mut().find(|known| known.setting == name) {
            Some(known) => known.after = to,
            None => journal.changes.push(change.clone()),
        }
        journal.save()?;
        let set = tuning::write(interface, setting, to).and_then(|()| tuning::read(interface, setting));
        match set {
            Ok(after) if after != before => {
                // A driver may round what it is told.
                if let Some(known) = journal.changes.iter_mut().find(|known| known.setting == name) {
                    known.after = after;
                }
                done.push(Change { after, ..change });
            }
            other => {
                let why = other
                    .err()
                    .map_or_else(|| "its driver leaves it as it is".to_owned(), |error| error.to_string());
                term::note(&format!("{interface}: {name} can't be set: {why}"));
                journal.changes = old;
            }
        }
        journal.save()?;
        if setting == Setting::Up {
            wait_for_link(interface);
        }
    }
    Ok(done)
}

fn wait_for_link(interface: &str) {
    let began = Instant::now();
    while began.elapsed() < LINK && !Nic::find(interface).is_ok_and(|nic| nic.carrier) {
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sets back what [`apply`] set, the latest first, and adds it to `done`.
///
/// # Errors
/// Failed: something could not be set back, or was changed since; it stays written down.
pub fn undo(folder: &Path, interface: &str, done: &mut Vec<Change>) -> Result<(), Failure> {
    let mut journal = Journal::open(folder, interface)?;
    if journal.changes.is_empty() {
        let what = format!("{}: nothing is written down to be undone", journal.path.display());
        return Err(Failure::failed(what)
            .help("--fix writes there what it changes; --state DIR names another folder"));
    }
    let mut left = Vec::new();
    while let Some(change) = journal.changes.pop() {
        match set_back(&change) {
            Ok(true) => done.push(Change { before: change.after, after: change.before, ..change }),
            Ok(false) => {}
            Err(why) => {
                term::note(&format!("{interface}: {} is left as it is: {why}", change.setting));
                left.insert(0, change);
            }
        }
    }
    journal.changes = left;
    journal.save()?;
    match journal.changes.len() as u64 {
        0 => Ok(()),
        left => {
            let what = format!("{interface}: {} could not be undone", term::plural(left, "change"));
            Err(Failure::new(Code::Failed, what)
                .help(format!("{} says what was before", journal.path.display())))
        }
    }
}

/// True if it was set back; false if somebody had done so.
fn set_back(change: &Change) -> Result<bool, String> {
    let setting = change.setting().ok_or("there is no such setting")?;
    let now = tuning::read(&change.interface, setting).map_err(|error| error.to_string())?;
    if now == change.before {
        return Ok(false);
    }
    if now != change.after {
        return Err(format!("it was changed to {now} since"));
    }
    tuning::write(&change.interface, setting, change.before).map_err(|error| error.to_string())?;
    Ok(true)
}
