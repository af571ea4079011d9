//! How the program fails: an exit code of a known class, what went wrong where, and what to do.
//!
//! Made on the main thread wherever a command can't go on; only main.rs prints one and turns it into the
//! process's exit code.

use std::fmt::{self, Display};

/// Exit codes, as other programs rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The work failed.
    Failed = 1,
    /// Wrong usage, configuration or rules.
    Usage = 2,
    /// An input can't be read as a capture at all.
    NotCapture = 3,
    /// Missing privilege or device.
    Privilege = 4,
    /// The interface changed while it was captured from: what was captured is safe, and the same call takes it anew.
    Changed = 5,
}

/// Why a command ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// What, and where.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Failure {
    pub fn new(code: Code, message: impl Display) -> Failure {
        Failure { code, message: message.to_string(), help: None }
    }

    pub fn failed(message: impl Display) -> Failure {
        Failure::new(Code::Failed, message)
    }

    pub fn usage(message: impl Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    pub fn help(self, help: impl Display) -> Failure {
        Failure { help: Some(help.to_string()), ..self }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_what_to_do() {
        let failure = Failure::usage("no such thing").help("take another");
        assert_eq!(failure.to_string(), "no such thing\n  help: take another");
        assert_eq!(failure.code as u8, 2);
    }
}
