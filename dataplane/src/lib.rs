//! The packet's way, a library: source → decode → flow → analyze → guards → history / record, and the judge.
//!
//! Data flows one way. Only `worker` knows all stages of the packet path and it only calls them; nobody
//! imports `worker` or `judge` but the program that wires them. No module here prints or parses arguments.

pub mod activity;
pub mod analyze;
pub mod community;
pub mod config;
pub mod decode;
pub mod demand;
pub mod filter;
pub mod flow;
pub mod history;
pub mod hold;
pub mod judge;
pub mod latency;
pub mod ledger;
pub mod moment;
pub mod record;
pub mod siblings;
pub mod sightings;
pub mod source;
pub mod worker;
