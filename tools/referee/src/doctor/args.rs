//! What can be typed after `referee doctor`, as a type.
//!
//! Main thread, before anything is looked at; decides nothing.

use std::path::PathBuf;

use clap::Args;

use crate::live::mode::Mode;

#[derive(Args)]
pub struct DoctorArgs {
    /// An interface to capture from; may be given several times. Without any, only the host is examined
    #[arg(short = 'i', value_name = "IFACE", value_parser = crate::cli::interface)]
    pub interface: Vec<String>,
    /// How it is to be captured from
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: Mode,
    /// The store whose disk is to be measured; without it, the one that the settings name
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Settings; without it those in /etc/referee/referee.toml, if it is there
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set what is safe to set, and write down what it was
    #[arg(long, requires = "interface", conflicts_with = "undo")]
    pub fix: bool,
    /// Set back what `--fix` set, unless it was changed since
    #[arg(long, requires = "interface")]
    pub undo: bool,
    /// Where `--fix` writes down what it changes
    #[arg(long, value_name = "DIR", default_value = "/var/lib/referee")]
    pub state: PathBuf,
    /// All of it as one JSON object
    #[arg(long)]
    pub json: bool,
}
