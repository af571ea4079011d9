//! The packet's way, a library: source → decode → flow → analyze → guards → history / record, and the judge.
//!
//! Data flows one way. Only `worker` knows all stages of the packet path and it only calls them; nobody
//! imports `worker` or `judge` but the program that wires them. No module here prints or parses arguments.

pub mod judge;
pub mod ledger;
pub mod source;
