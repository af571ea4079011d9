//! One thing that was looked at: how it is, why it matters, and what to type.
//!
//! Main thread; the checks make them, `words` shows them, `fix` sets what they say is safe.

use dataplane_sys::tuning::Setting;
use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// The host doesn't say.
    Unknown,
    /// It works, but slower, or what is captured is less exact.
    Warn,
    /// It doesn't work, or what is captured would be wrong.
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// `None`: the host.
    pub interface: Option<String>,
    pub state: State,
    pub found: String,
    /// Why it matters; empty if it is as it should be.
    pub why: &'static str,
    /// What to type.
    #[serde(rename = "type")]
    pub command: Option<String>,
    /// `--fix` does it.
    pub safe: bool,
    /// What `--fix` sets.
    #[serde(skip)]
    pub fix: Option<(Setting, u32)>,
}

impl Check {
    /// As it should be, until more is said.
    pub fn new(name: &'static str, found: impl Into<String>) -> Check {
        Check {
            name,
            interface: None,
            state: State::Ok,
            found: found.into(),
            why: "",
            command: None,
            safe: false,
            fix: None,
        }
    }

    /// The host doesn't say.
    pub fn unknown(name: &'static str, found: impl Into<String>) -> Check {
        Check { state: State::Unknown, ..Check::new(name, found) }
    }

    pub fn warn(self, why: &'static str) -> Check {
        Check { state: State::Warn, why, ..self }
    }

    pub fn bad(self, why: &'static str) -> Check {
        Check { state: State::Bad, why, ..self }
    }

    pub fn command(self, text: impl Into<String>) -> Check {
        Check { command: Some(text.into()), ..self }
    }

    /// What `--fix` may set.
    pub fn fix(self, setting: Setting, to: u32) -> Check {
        Check { safe: true, fix: Some((setting, to)), ..self }
    }

    pub fn of(self, interface: &str) -> Check {
        Check { interface: Some(interface.to_owned()), ..self }
    }

    pub fn is_of(&self, interface: &str) -> bool {
        self.interface.as_deref() == Some(interface)
    }
}

/// Nothing stands in the way.
pub fn ready(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != State::Bad)
}
