//! What there is to know about a rule and where it came from, without running it. Plain values, made at load time, read by
//! everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clause::Clauses;
use crate::event::{Event, EventSet};
use crate::facts::CountSet;
use crate::verdict::{EvidenceValue, Severity};

/// A rule file: its name as the user knows it (path) and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

/// A value for one `param`, from `--set RULE.PARAM=VALUE` or from `[rules.RULE]` of referee.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// A rule's name, or the stem of the file the parameter is in.
    pub rule: String,
    pub param: String,
    pub value: String,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Flow,
    Host,
    Service,
    /// All traffic at the capture point.
    Link,
}

impl Scope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Flow => "flow",
            Scope::Host => "host",
            Scope::Service => "service",
            Scope::Link => "link",
        }
    }
}

/// What there is to know about a rule without running it.
#[derive(Clone, Debug)]
pub struct RuleMeta {
    pub name: String,
    pub file: String,
    pub line: usize,
    pub events: EventSet,
    pub scope: Scope,
    /// The body, or a helper function it calls, can call `capture`.
    pub holds: bool,
    /// What the windowed facts it reads count.
    pub counts: CountSet,
    /// Of these, what it reads over a single second.
    pub second: CountSet,
    /// The header's, for incidents of which the body names none.
    pub severity: Option<Severity>,
    /// It only looks on: what it would do is counted, nothing is told, held or found.
    pub shadow: bool,
    /// It takes one flow in so many.
    pub sample: u64,
    /// Else it never matches.
    pub enabled: bool,
    /// The parameters of its file, as they are in effect.
    pub params: Arc<BTreeMap<String, EvidenceValue>>,
    pub(crate) clauses: Clauses,
    pub(crate) comments: Arc<[String; Event::ALL.len()]>,
    /// False for a rule of an earlier set that this one has no more: its name is kept for what it found.
    pub in_force: bool,
    /// Of its text, and of its file's helper functions and parameters in effect: another one is another rule.
    pub fingerprint: u64,
}

impl RuleMeta {
    /// Later packets can turn its verdict: it waits for those that follow a RST.
    pub const fn can_turn(&self) -> bool {
        self.events.contains(Event::AfterRst)
    }

    /// The flow is one of those it takes.
    #[inline]
    pub const fn takes(&self, flow_id: u64) -> bool {
        self.sample <= 1 || flow_id.is_multiple_of(self.sample)
    }

    /// The packet comment for a hit of this rule: "referee: rst_after_idle (rst)". Does not allocate.
    pub fn comment(&self, event: Event) -> &str {
        &self.comments[event as usize]
    }
}
