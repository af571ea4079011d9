//! What the fuzz targets do with their bytes; a target is one call.
//!
//! Runs on libFuzzer's thread; may allocate and panic freely: a panic is how a finding is told. `reading` reads files
//! and packets, `whole` runs the pipeline, `between` compares two captures, `scripts` loads rules. Conversations are made
//! of bytes by `tests::talk`, so that a test can have the same one.

mod between;
mod reading;
mod scripts;
mod whole;

pub use between::compare;
pub use reading::{decode, file_reader};
pub use scripts::rules;
pub use whole::pipeline;
