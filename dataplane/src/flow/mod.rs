//! The flow table: who talks to whom, and what is known of each conversation. One per worker, owned by its
//! thread; all memory is taken at start, nothing here allocates after it.
//!
//! `record` is one flow (five cache lines), `sender` its sides' fingerprints, `table` finds and makes them,
//! `timer` wakes them on packet time, `trouble` and its `notes` hold what only troubled flows need, `keeper`
//! their handshakes, `row` what is told of them when they end. `analyze` reads and writes the records next.

pub mod keeper;
pub mod notes;
pub mod record;
pub mod row;
pub mod sender;
pub mod table;
pub mod timer;
pub mod trouble;

pub use record::{Direction, Flow};
pub use sender::Sender;
pub use table::FlowTable;

#[cfg(test)]
mod tests;
