//! `referee token`: a fresh secret for the HTTP interface, and the lines of the settings that let it in.
//!
//! Main thread. The secret is shown once, or written to a file; the settings hold only its hash.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::api::auth::{digest, fresh, hex};
use crate::error::Failure;
use crate::term;

#[derive(Args)]
pub struct TokenArgs {
    /// Whose it is: letters, digits, . - _
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: String,
    /// What it may: read all there is to see, or also change rules
    #[arg(long, value_name = "ROLE", value_parser = ["read", "operate"], default_value = "read")]
    pub role: String,
    /// Write the token to this new file, which only its owner can read, instead of showing it
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    match (1..=64).contains(&text.len()) && plain {
        true => Ok(text.to_owned()),
        false => Err("give 1 to 64 letters, digits, dots, dashes or underscores".to_owned()),
    }
}

/// Makes one.
///
/// # Errors
/// Failed: no random numbers, or the file can't be made.
pub fn run(args: &TokenArgs) -> Result<(), Failure> {
    let Some(secret) = fresh() else {
        return Err(Failure::failed("the system gives no random numbers"));
    };
    match &args.file {
        Some(path) => write(path, &secret)?,
        None => term::note(&format!("the token, shown only now: {secret}")),
    }
    let lines = settings(&args.name, &args.role, &secret);
    term::show(|out| out.write_all(lines.as_bytes()))
}

/// What goes into referee.toml.
fn settings(name: &str, role: &str, secret: &str) -> String {
    let hash = hex(&digest(secret));
    format!("[[api.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n")
}

fn write(path: &Path, secret: &str) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| writeln!(file, "{secret}")).map_err(|error| {
        Failure::failed(format!("{}: {error}", path.display())).help("name a file that is not there yet")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_lines_let_the_token_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("referee.toml");
        std::fs::write(&path, settings("mine", "operate", "secret")).unwrap();
        let tokens = Config::load(Some(&path)).unwrap().api.tokens;
        assert_eq!((tokens[0].name.as_str(), tokens[0].digest), ("mine", digest("secret")));
    }

    #[test]
    fn names_go_into_the_settings_as_they_are() {
        assert!(name("box-1.read_er").is_ok());
        for wrong in ["", "a\"b", "a b", &"x".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
