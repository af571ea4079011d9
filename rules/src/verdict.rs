//! What a rule's body decides, and why a body can fail. Plain values, made on the judge's thread.
//! Reaches nothing outside itself; the judge makes incidents and captures of it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::clause::Because;

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something is broken for someone.
    Warning,
    /// A service or a network is broken for many.
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }

    pub fn from_name(name: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|s| s.as_str() == name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value a body gave to `evidence(name, value)`.
#[derive(Clone, Debug, PartialEq)]
pub enum EvidenceValue {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Address(IpAddr),
    /// The fact was not known.
    Unknown,
}

/// As a rule file writes it.
impl fmt::Display for EvidenceValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvidenceValue::Int(value) => write!(f, "{value}"),
            EvidenceValue::Float(value) => write!(f, "{value:?}"),
            EvidenceValue::Bool(value) => write!(f, "{value}"),
            EvidenceValue::Text(value) => write!(f, "{value:?}"),
            EvidenceValue::Address(value) => write!(f, "{value}"),
            EvidenceValue::Unknown => f.write_str("unknown"),
        }
    }
}

/// How much a body asks to capture; `None` leaves it to the configured default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureWish {
    pub packets: Option<i64>,
    pub bytes: Option<i64>,
    /// Of packet time, from the verdict.
    pub seconds: Option<i64>,
}

/// What a rule's body decided. Empty if it called nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Severity and explanation; the last call wins. The incident's kind is the rule's name.
    pub incident: Option<(Severity, String)>,
    /// What was said before is taken back, and why. An incident named in the same run goes first.
    pub withdraw: Option<String>,
    pub advise: Vec<String>,
    /// What to record of the rule's subject.
    pub capture: Option<CaptureWish>,
    /// Of a flow rule: what to record of the flow's client and of its service.
    pub capture_host: Option<CaptureWish>,
    pub capture_service: Option<CaptureWish>,
    /// Words to find the incident by, each once.
    pub tags: Vec<String>,
    /// In the order given; a name given twice keeps its place and takes the later value.
    pub evidence: Vec<(String, EvidenceValue)>,
    /// What the condition saw, if an incident is named.
    pub because: Vec<Because>,
    /// Hash of the set whose rule it is.
    pub rules_hash: Arc<str>,
}

impl Verdict {
    /// Tags at most.
    pub const TAGS: usize = 16;
}
