//! The rule language: facts a rule can see, the Rhai front end, native guards, and rule bodies.
//!
//! Knows facts and verdicts; knows no network, no disk and no clock. Guards run on a worker's or the
//! judge's thread and neither allocate nor touch Rhai; bodies run on the judge's thread only; loading
//! happens on whichever thread starts or controls the program, never on a worker.

pub mod event;
pub mod facts;
