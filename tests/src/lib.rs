//! What the integration tests and `why` share: the whole pipeline in one thread, captures to run through it,
//! and what must come out.
//!
//! `run` drives the same worker, judge and writer as the program does and checks the books of every run;
//! `captures` makes inputs, `disk` is a disk that fails, `expect` compares with the truth, `case` reads the
//! hand-kept cases, `explain` takes guards apart, `live` makes namespaces and interfaces, `tap` captures from
//! one, `lossy` makes healthy ends of a path that is not, `soup` makes conversations gone wrong, `talk` makes them
//! of a fuzzer's bytes. Used by tests only; may allocate and panic freely.
#![allow(clippy::panic, reason = "a panic is how a test says no")]

pub mod captures;
pub mod case;
pub mod disk;
pub mod expect;
pub mod explain;
pub mod live;
pub mod lossy;
pub mod run;
pub mod soup;
pub mod talk;
pub mod tap;

pub use run::{Outcome, Pipeline, Setup, replay, shipped_rules};
