//! What a running Referee can be told and asked, and what it answers: plain values, one JSON object each way. Whoever
//! carries them (a Unix socket) knows nothing of what they mean.

use dataplane::judge::ShadowCounts;
use rules::LoadError;
use serde::{Deserialize, Serialize};

use super::demands::{DemandState, Refusal, Wish};
use super::files::{FileRefusal, RuleFiles};
use super::switches::{Switch, Switched};
use crate::report::cost::RuleStanding;

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
    /// What these files would make in the place of those of their names, and of the others in force.
    Check { files: Vec<RuleText> },
    /// Have a rule look on only, or be left out, or neither, until the run ends.
    Switch { rule: String, switch: Switch, on: bool },
    /// Capture packets that an expression names.
    Demand(Wish),
    /// The captures on demand there are.
    Demands {},
    /// How one stands.
    DemandGet { id: String },
    /// Have one end early.
    DemandEnd { id: String },
    /// The rule files there are.
    RuleFiles {},
    /// One of them.
    RuleFile { name: String },
    /// Write one, if the rules with it are without mistakes, and go by them.
    RuleFilePut(RuleText),
    /// Delete one, if the rules without it are, and go by them.
    RuleFileDelete { name: String },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Reload(Reloaded),
    Status(Status),
    Rules(Rules),
    Demand(DemandState),
    Demands { demands: Vec<DemandState> },
    Denied(Refusal),
    Checked(Checked),
    Files(RuleFiles),
    File(RuleText),
    FileDenied(FileRefusal),
    Refused { error: String },
}

impl Answer {
    pub fn of(answer: Result<DemandState, Refusal>) -> Answer {
        answer.map_or_else(Answer::Denied, Answer::Demand)
    }
}

/// A rule file as somebody has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    pub name: String,
    pub text: String,
}

/// What became of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Of the set they would make; none with mistakes.
    pub hash: Option<String>,
    /// Names of its rules.
    pub rules: Vec<String>,
    pub errors: Vec<Mistake>,
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
    /// What was switched by hand, otherwise than files and settings have it.
    pub switched: Vec<Switched>,
    /// Why what is in the files now is not in force; empty if it is.
    pub errors: Vec<Mistake>,
}

/// The rules in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    pub hash: String,
    pub generation: u32,
    pub rules: Vec<RuleState>,
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    #[serde(flatten)]
    pub standing: RuleStanding,
    pub file: String,
    pub line: usize,
    pub events: Vec<String>,
    /// Why it is switched off, and what it did while it only looked on: only if so, and if the judge found time to say.
    pub off_because: Option<String>,
    pub shadow_counts: Option<ShadowCounts>,
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
        let switch = Command::Switch { rule: "a".into(), switch: Switch::Shadow, on: true };
        assert_eq!(parse(r#"{"command":"switch","rule":"a","switch":"shadow","on":true}"#), Some(switch));
        assert_eq!(parse(r#"{"command":"switch","rule":"a","switch":"volume","on":true}"#), None);
        let wish = Wish { expression: "tcp".into(), last_ns: Some(5), ..Wish::default() };
        assert_eq!(
            parse(r#"{"command":"demand","expression":"tcp","last_ns":5}"#),
            Some(Command::Demand(wish))
        );
        assert_eq!(parse(r#"{"command":"demand","expression":"tcp","lasts":5}"#), None);
        assert_eq!(parse(r#"{"command":"demand"}"#), None);
    }
}
