//! The flow table: who talks to whom, and what is known of each conversation. One per worker, owned by its
//! thread; all memory is taken at start, nothing here allocates after it.
//!
//! `record` is one flow (seven cache lines, of them `story` and `sender` one each), `table` finds and makes them,
//! `timer` wakes them on packet time, `trouble` and its `notes` hold what only troubled flows need and `app` what is
//! known of applications (both in a `slab`), `keeper` their handshakes, `row` what is told of them when they end,
//! under the name `community` gives them. `analyze` reads and writes the records next. `fragments` leads later
//! fragments to their flow, `copies` tells the second delivery of a packet; `questions` holds those of DNS, `services`
//! how services answer, `waits` who waits for an answer.

pub mod app;
mod bits;
pub mod copies;
pub mod fragments;
pub mod keeper;
pub mod notes;
pub mod questions;
pub mod record;
pub mod row;
pub mod sender;
pub mod services;
pub mod slab;
pub mod story;
pub mod table;
pub mod timer;
pub mod trouble;
pub mod waits;

pub use record::{Direction, Flow};
pub use sender::Sender;
pub use table::FlowTable;

#[cfg(test)]
mod tests;
