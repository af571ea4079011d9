//! The rules that were in force last, kept so that a restart with a broken folder goes on with them.
//!
//! Read on main at the start of a live run, written by the control thread whenever another set is in force. A replay
//! never looks at them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rules::{LoadError, Override, RuleSet, SourceFile};
use serde::{Deserialize, Serialize};

use super::Control;
use super::command::Mistake;
use crate::config::{Config, Placed};
use crate::error::Failure;
use crate::rules::load::{self, Origin};
use crate::term;

const NAME: &str = "last-good-rules.json";
/// Where it is kept without a store.
const STATE: &str = "/var/lib/referee";

/// A set as it was loaded.
#[derive(Serialize, Deserialize)]
struct LastGood {
    /// The rule file or folder: a run that is given another one has nothing of this.
    path: PathBuf,
    files: Vec<(String, String)>,
    overrides: Vec<[String; 3]>,
}

/// The rules a run begins with.
#[derive(Debug)]
pub struct Start {
    pub rules: Arc<RuleSet>,
    /// What they were made of.
    pub files: Vec<SourceFile>,
    pub params: Vec<Placed>,
    /// What is wrong with the files, if these are the last good ones instead.
    pub errors: Vec<Mistake>,
}

/// The folder it is kept in, if there is one: `[rules] keep`, else the store, else the state folder.
pub fn folder(config: &Config, store: Option<&Path>) -> Option<PathBuf> {
    let state = Path::new(STATE);
    let named = config.rules_keep.as_deref().or(store);
    named.or(state.is_dir().then_some(state)).map(Path::to_path_buf)
}

/// The origin's rules; if they can't be loaded, those that were in force last.
///
/// # Errors
/// Usage: all that is wrong with the rules, and there are none from before.
pub fn start(origin: &Origin, keep: Option<&Path>) -> Result<Start, Failure> {
    let loaded =
        origin.files().map_err(|failure| (failure.clone(), mistake(origin, &failure))).and_then(|files| {
            let set = origin.load(None, &files).map_err(|errors| (load::refusal(&errors), mistakes(errors)));
            set.map(|rules| Start { rules, files, params: origin.params.clone(), errors: Vec::new() })
        });
    let (failure, errors) = match loaded {
        Ok(start) => return Ok(start),
        Err(refused) => refused,
    };
    // What was typed anew is wrong anew, whatever the files hold.
    let typed = errors.iter().any(|error| error.file == "--set");
    let kept = keep.and_then(|folder| read(folder, origin));
    let Some(kept) = kept.filter(|kept| !typed || kept.overrides == given(origin)) else {
        return Err(failure);
    };
    let Some((rules, files, params)) = kept.load() else { return Err(failure) };
    term::note(&failure.to_string());
    term::note(&format!(
        "the rules that were in force last go on: {}, hash {}; these mistakes are to be corrected, then \
         `referee rules reload`",
        term::plural(rules.in_force().count() as u64, "rule"),
        rules.hash()
    ));
    Ok(Start { rules, files, params, errors })
}

pub fn mistakes(errors: Vec<LoadError>) -> Vec<Mistake> {
    errors.into_iter().map(Mistake::from).collect()
}

/// One that is about all of the rules.
pub fn mistake(origin: &Origin, failure: &Failure) -> Vec<Mistake> {
    let file = origin.path.as_ref().map_or("rules".to_owned(), |path| path.display().to_string());
    vec![Mistake { file, line: 0, column: 0, message: failure.message.clone(), help: failure.help.clone() }]
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn given(origin: &Origin) -> Vec<[String; 3]> {
    origin.overrides().into_iter().map(|set| [set.rule, set.param, set.value]).collect()
}

fn read(folder: &Path, origin: &Origin) -> Option<LastGood> {
    let kept: LastGood = serde_json::from_slice(&fs::read(folder.join(NAME)).ok()?).ok()?;
    (kept.path == absolute(origin.path.as_deref()?)).then_some(kept)
}

impl LastGood {
    fn load(self) -> Option<(Arc<RuleSet>, Vec<SourceFile>, Vec<Placed>)> {
        let files: Vec<_> = self.files.into_iter().map(|(name, text)| SourceFile { name, text }).collect();
        let set = |[rule, param, value]: [String; 3]| Override { rule, param, value };
        let overrides: Vec<_> = self.overrides.into_iter().map(set).collect();
        let rules = RuleSet::load(&files, &overrides).ok()?;
        let params = overrides.into_iter().map(|set| Placed { place: NAME.to_owned(), set });
        Some((Arc::new(rules), files, params.collect()))
    }
}

/// Keeps what a set that is in force was made of, but for what was switched by hand: that ends with the run. The shipped
/// rules alone need no keeping.
///
/// # Errors
/// The folder can't be written to.
pub fn keep(folder: &Path, origin: &Origin, files: &[SourceFile]) -> io::Result<()> {
    let Some(path) = &origin.path else { return Ok(()) };
    let kept = LastGood {
        path: absolute(path),
        files: files.iter().map(|file| (file.name.clone(), file.text.clone())).collect(),
        overrides: given(origin),
    };
    let beside = folder.join(format!(".{NAME}.new"));
    let mut file = fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(&kept)?)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(NAME))
}

impl Control {
    /// Keeps the set in force for a restart.
    pub(super) fn remember(&mut self) {
        let Some(folder) = &self.keep else { return };
        match keep(folder, &self.made.origin, &self.made.files) {
            Ok(()) => self.unkept = false,
            Err(error) if !self.unkept => {
                self.unkept = true;
                let folder = folder.display();
                self.say(format!(
                    "{folder}: the rules in force can't be kept there for a restart with broken ones: {error}"
                ));
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "param low = 1;\nrule \"r\" on rst when flow.dport > low then { }";

    fn origin(path: &Path, low: &str) -> Origin {
        let set = Override { rule: "r".into(), param: "low".into(), value: low.into() };
        Origin::new(Some(path), &Config::default(), &[set])
    }

    #[test]
    fn a_broken_folder_begins_with_what_was_in_force_before() {
        let (dir, keep) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let origin = origin(dir.path(), "7");
        fs::write(dir.path().join("r.rhai"), GOOD).unwrap();
        let good = start(&origin, Some(keep.path())).unwrap();
        super::keep(keep.path(), &origin, &good.files).unwrap();

        for text in ["rule \"r\" on rst when flow.dprot > low then { }", ""] {
            fs::write(dir.path().join("r.rhai"), text).unwrap();
            let started = start(&origin, Some(keep.path())).unwrap();
            assert_eq!(started.rules.hash(), good.rules.hash());
            assert!(!started.errors.is_empty() && started.files == good.files);
        }
        fs::remove_file(dir.path().join("r.rhai")).unwrap();
        assert!(start(&origin, Some(keep.path())).unwrap().errors[0].message.contains("holds no rule files"));
        assert!(start(&origin, None).is_err());
        // What was typed now is wrong now.
        fs::write(dir.path().join("r.rhai"), GOOD).unwrap();
        let wrong = super::tests::origin(dir.path(), "x");
        assert!(start(&wrong, Some(keep.path())).is_err());
    }

    #[test]
    fn another_folder_has_nothing_of_it() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [first, other, keep] = [0, 1, 2].map(|index| dirs[index].path());
        fs::write(first.join("r.rhai"), GOOD).unwrap();
        let good = start(&origin(first, "7"), Some(keep)).unwrap();
        super::keep(keep, &origin(first, "7"), &good.files).unwrap();
        assert!(start(&origin(other, "7"), Some(keep)).is_err());
    }
}
