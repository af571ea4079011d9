//! The rule language: facts a rule can see, the Rhai front end, native guards, and rule bodies.
//!
//! Knows facts and verdicts; knows no network, no disk and no clock. Guards run on a worker's or the
//! judge's thread and neither allocate nor touch Rhai; bodies run on the judge's thread only; loading
//! happens on whichever thread starts or controls the program, never on a worker.

pub mod body;
pub mod cases;
pub mod clause;
pub mod cookbook;
mod counters;
pub mod docs;
pub mod error;
pub mod event;
pub mod facts;
mod header;
mod hits;
mod language;
pub mod library;
mod load;
mod lower;
mod meta;
mod nearest;
mod network;
mod overrides;
pub mod set;
mod value;
pub mod verdict;
mod waiting;
mod watch;

pub use body::{Bodies, BodyError, BodyLimits, Snapshot};
pub use clause::Because;
pub use counters::{RuleCost, RuleCounters};
pub use error::LoadError;
pub use event::{Event, EventSet};
pub use library::library;
pub use load::SWITCHED_OFF;
pub use set::{Hits, MAX_RULES, Override, RuleMeta, RuleSet, Scope, SourceFile};
pub use verdict::{CaptureWish, EvidenceValue, Severity, Verdict};
pub use watch::{Stopped, Watch, Watched};
