//! What is wrong with a rule file, where, and what to write instead.
//!
//! Made at load time on whichever thread loads rules (never a worker) and shown to the operator; never
//! printed here. Positions count lines and characters from 1; 0 means the whole file.

use std::fmt;

/// One mistake in a rule file or in an override of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file as the user knows it; `--set` for an override.
    pub file: String,
    /// From 1; 0 if the mistake belongs to no line.
    pub line: usize,
    /// In characters, from 1; 0 if the mistake belongs to no column.
    pub column: usize,
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}: {}", self.file, self.message)?,
            (line, column) => write!(f, "{}:{line}:{column}: {}", self.file, self.message)?,
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for LoadError {}
