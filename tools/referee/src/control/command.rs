//! What a running Referee can be told and asked, and what it answers: plain values, one JSON object each way. Whoever
//! carries them (a Unix socket) knows nothing of what they mean.

use rules::LoadError;
use serde::{Deserialize, Serialize};

/// What can be told or asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Read the rules, and their parameters in the settings, and go by them.
    Reload {},
    /// How it stands.
    Status {},
    /// The rules in force, and what each has done.
    Rules {},
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Reload(Reloaded),
    Status(Status),
    Rules { rules: Vec<RuleState> },
    Refused { error: String },
}

/// One worker's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRules {
    pub worker: usize,
    pub generation: u32,
    pub hash: String,
}

/// What became of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Of the set in force, whether it came of this reload or not.
    pub hash: String,
    pub generation: u32,
    /// How many are in force.
    pub rules: usize,
    pub workers: Vec<WorkerRules>,
    /// Every worker goes by it.
    pub live: bool,
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    /// Why the set that was there stays.
    pub errors: Vec<Mistake>,
}

/// One mistake in the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    pub file: String,
    /// From 1; 0 if it belongs to no line.
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub help: Option<String>,
}

impl From<LoadError> for Mistake {
    fn from(error: LoadError) -> Mistake {
        let LoadError { file, line, column, message, help } = error;
        Mistake { file, line, column, message, help }
    }
}

impl From<Mistake> for LoadError {
    fn from(mistake: Mistake) -> LoadError {
        let Mistake { file, line, column, message, help } = mistake;
        LoadError { file, line, column, message, help }
    }
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub hash: String,
    pub generation: u32,
    /// How many are in force.
    pub rules: usize,
    pub workers: Vec<WorkerRules>,
    /// The rule file or folder; none for the shipped rules alone.
    pub path: Option<String>,
    /// The shipped rules as well.
    pub library: bool,
    /// The rules could not be loaded at the start: those of an earlier run are in force.
    pub last_good: bool,
    pub reloads: u64,
    pub refused_reloads: u64,
    /// Why what is in the files now is not in force; empty if it is.
    pub errors: Vec<Mistake>,
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleState {
    pub rule: String,
    pub file: String,
    pub line: usize,
    pub scope: &'static str,
    pub events: Vec<&'static str>,
    pub matched: u64,
    pub faults: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        let parse = |text: &str| serde_json::from_str::<Command>(text).ok();
        assert_eq!(parse(r#"{"command":"reload"}"#), Some(Command::Reload {}));
        assert_eq!(parse(r#"{"command":"stop"}"#), None);
        assert_eq!(parse(r#"{"command":"status","more":1}"#), None);
    }
}
