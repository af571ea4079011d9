//! `referee rules check` and `config check`: what would be loaded, and all that is wrong with it.
//!
//! Main thread. Loads and prints; runs no rule and touches no packet.

use std::ffi::OsStr;
use std::io::ErrorKind::PermissionDenied;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use rules::{LoadError, SourceFile};
use rustix::process::geteuid;
use serde::Serialize;

use super::{list, load};
use crate::cli::CheckArgs;
use crate::config::{Config, DEFAULT_PATH};
use crate::control::command::{Checked, RuleText};
use crate::control::last_good::mistakes;
use crate::error::Failure;
use crate::live::layout::without_core;
use crate::live::owner::Owner;
use crate::notify;
use crate::term;

/// What can be done with the settings.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Read the settings, and the rules they name, and say what is wrong with them
    Check {
        /// The file
        #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

/// One mistake as other programs read it; `line` and `column` are null where it belongs to none.
#[derive(Serialize)]
struct Mistake<'a> {
    file: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    message: &'a str,
    help: Option<&'a str>,
}

impl<'a> Mistake<'a> {
    fn of(error: &'a LoadError) -> Mistake<'a> {
        let known = |number: usize| (number > 0).then_some(number);
        let LoadError { file, line, column, message, help } = error;
        Mistake { file, line: known(*line), column: known(*column), message, help: help.as_deref() }
    }
}

/// Loads rule files as one set.
///
/// # Errors
/// Usage: all that is wrong with them.
pub fn rules(args: &CheckArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref())?;
    let gathered = load::gather(&args.paths);
    let loaded = gathered.load(&load::params(&config, &args.set));
    let files = (gathered.files.len() + gathered.unread.len()) as u64;
    if args.json {
        let errors = loaded.as_ref().err().map_or(&[][..], Vec::as_slice);
        let rules = loaded.as_ref().ok();
        term::show(|out| {
            for error in errors {
                serde_json::to_writer(&mut *out, &Mistake::of(error))?;
                out.write_all(b"\n")?;
            }
            let summary = serde_json::json!({"summary": {
                "files": files, "mistakes": errors.len(),
                "rules": rules.map(|rules| rules.rules().len()), "hash": rules.map(|rules| rules.hash()),
            }});
            writeln!(out, "{summary}")
        })?;
    }
    let rules = loaded.map_err(|errors| load::refusal(&errors))?;
    if args.json {
        return Ok(());
    }
    term::show(|out| {
        let number = rules.rules().len() as u64;
        writeln!(out, "{} in {}, no mistakes", term::plural(number, "rule"), term::plural(files, "file"))?;
        list::loaded(out, &rules)
    })
}

/// What files that somebody has in hand would make, in the place of those of their names and beside the others.
pub fn texts(origin: &load::Origin, others: &[SourceFile], given: Vec<RuleText>) -> Checked {
    let base = |name: &str| Path::new(name).file_name().map(OsStr::to_owned);
    let stands = |file: &&SourceFile| given.iter().all(|new| base(&new.name) != base(&file.name));
    let mut files: Vec<SourceFile> = others.iter().filter(stands).cloned().collect();
    files.extend(given.into_iter().map(|RuleText { name, text }| SourceFile { name, text }));
    match origin.load(None, &files) {
        Ok(set) => Checked {
            hash: Some(set.hash().to_owned()),
            rules: set.in_force().map(|(_, meta)| meta.name.clone()).collect(),
            errors: Vec::new(),
        },
        Err(errors) => Checked { errors: mistakes(errors), ..Checked::default() },
    }
}

/// Of those who are to be told, as the user who will run sees it, as far as the caller can.
fn out_of_reach(config: &Config) -> Result<Vec<String>, Failure> {
    let store = config.store_dir.as_deref();
    if let Some(owner) = Owner::of(store) {
        return owner.borrow(|| notify::out_of_reach(&config.notify, true));
    }
    let own = store.and_then(|store| std::fs::metadata(store).ok()).map(|meta| meta.uid());
    Ok(notify::out_of_reach(&config.notify, own == Some(geteuid().as_raw())))
}

/// Settings and rules that root can read and the service's user, whose the store is, can't.
fn unreadable(path: &Path, config: &Config) -> Result<Vec<String>, Failure> {
    let Some(owner) = Owner::of(config.store_dir.as_deref()) else { return Ok(Vec::new()) };
    let rules = config.rules_dir.iter().flat_map(|dir| {
        let files = load::in_folder(dir).unwrap_or_default();
        std::iter::once(dir.clone()).chain(files)
    });
    let named: Vec<_> = std::iter::once(path.to_path_buf()).chain(rules).collect();
    let denied = owner.borrow(|| {
        named
            .into_iter()
            .filter(|path| std::fs::File::open(path).is_err_and(|error| error.kind() == PermissionDenied))
            .collect::<Vec<_>>()
    })?;
    let told = |path: PathBuf| {
        let (path, user) = (path.display(), &owner.name);
        format!("{path}: {user}, whose the service is, can't read it: chgrp {user} {path}; chmod g+rX {path}")
    };
    Ok(denied.into_iter().map(told).collect())
}

/// Reads the settings and the rules they name.
///
/// # Errors
/// Usage: all that is wrong with the settings, else with the rules.
pub fn config(path: &Path) -> Result<(), Failure> {
    let config = Config::load(Some(path))?;
    let rules = load::load(None, &config, &[])?;
    // The settings may be meant for another host.
    if let Some(refused) = without_core(&config) {
        term::note(&format!("{refused}; `run` refuses to start here"));
    }
    for what in out_of_reach(&config)? {
        term::note(&format!("{what}; `run` refuses to start here, or can't tell it"));
    }
    unreadable(path, &config)?.iter().for_each(|what| term::note(what));
    let own = load::gather(config.rules_dir.as_slice()).files.len() as u64;
    let from = match &config.rules_dir {
        None => "shipped".to_owned(),
        Some(dir) if config.rules_library => {
            format!("shipped, and {} of {}", term::plural(own, "file"), dir.display())
        }
        Some(dir) => dir.display().to_string(),
    };
    term::show(|out| {
        writeln!(out, "{}: no mistakes", path.display())?;
        writeln!(out, "rules: {} ({from}), {} set", rules.rules().len(), config.params.len())?;
        match &config.store_dir {
            Some(dir) => writeln!(out, "store: {}", dir.display()),
            None => writeln!(out, "store: none named"),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn what_only_root_can_read_is_named() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("store")).unwrap();
        chown(path("store"), Some(4242), Some(4243)).unwrap();
        fs::create_dir(path("rules")).unwrap();
        fs::set_permissions(path("rules"), fs::Permissions::from_mode(0o755)).unwrap();
        let mode = |name: &str, mode| {
            fs::write(path(name), "").unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let config =
            Config { store_dir: Some(path("store")), rules_dir: Some(path("rules")), ..Config::default() };
        mode("referee.toml", 0o644);
        mode("rules/a.rhai", 0o644);
        assert_eq!(unreadable(&path("referee.toml"), &config), Ok(Vec::new()));
        mode("referee.toml", 0o600);
        mode("rules/b.rhai", 0o600);
        let named = unreadable(&path("referee.toml"), &config).unwrap();
        assert_eq!(named.len(), 2, "{named:?}");
        assert!(
            named[0].contains("referee.toml: user 4242, whose") && named[1].contains("b.rhai"),
            "{named:?}"
        );
    }
}
