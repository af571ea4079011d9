//! `referee rules check` and `config check`: what would be loaded, and all that is wrong with it.
//!
//! Main thread. Loads and prints; runs no rule and touches no packet.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use rules::{LoadError, SourceFile};
use serde::Serialize;

use super::{list, load};
use crate::cli::CheckArgs;
use crate::config::{Config, DEFAULT_PATH};
use crate::control::command::{Checked, RuleText};
use crate::control::last_good::mistakes;
use crate::error::Failure;
use crate::live::layout::without_core;
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
    term::show(|out| {
        writeln!(out, "{}: no mistakes", path.display())?;
        let from = config.rules_dir.as_ref().map_or("shipped".to_owned(), |dir| dir.display().to_string());
        writeln!(out, "rules: {} ({from}), {} set", rules.rules().len(), config.params.len())?;
        match &config.store_dir {
            Some(dir) => writeln!(out, "store: {}", dir.display()),
            None => writeln!(out, "store: none named"),
        }
    })
}
