//! Verdicts: rule bodies, windows, incidents. Runs on the judge's thread (in replay, between two batches);
//! may allocate, may not be waited for by a worker. Reads [`message::Message`]s, answers with
//! [`message::Command`]s, and hands incidents to whoever asked for them.

pub mod message;
