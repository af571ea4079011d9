//! What can be said about an input: why it could not be opened, how it ended, where it is damaged.
//!
//! Plain values, made when a source is opened and when it ends, never per packet. The program prints them
//! and puts `complete` into the ledger.

use std::fmt;
use std::io;

/// Why an input can't be read as a capture at all. The text names the input and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{name}: no such file; check the path")]
    NotFound { name: String },
    #[error("{name}: permission denied; make it readable for this user, or run as one who may read it")]
    Permission { name: String },
    #[error("{name}: is a directory; name the capture files in it")]
    Directory { name: String },
    #[error("{name}: cannot be opened: {source}")]
    Io { name: String, source: io::Error },
    #[error("{name}: cannot be read: {source}; nothing of the capture was found before that")]
    Read { name: String, source: io::Error },
    #[error("{name}: is empty; a capture starts with a file header, so this one was never written")]
    Empty { name: String },
    #[error("{name}: {what}")]
    Unknown { name: String, what: String },
    #[error("{name}: the {format} file header is cut: {have} of {need} bytes are there; copy the file again")]
    HeaderCut { name: String, format: &'static str, have: usize, need: usize },
    #[error("{name}: the {format} file header is unusable: it {what}")]
    Header { name: String, format: &'static str, what: String },
    #[error("standard input is named twice; it can be read only once")]
    StandardInputTwice,
}

/// What became of one input so far; final once its source has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputReport {
    /// The input as it was named when opened.
    pub name: String,
    /// Packets handed over.
    pub packets: u64,
    /// Bytes read of the file as it lies on disk, compressed or not.
    pub bytes: u64,
    /// The input was read to its end and nothing was wrong with it.
    pub complete: bool,
    pub damage: Option<Damage>,
}

impl fmt::Display for InputReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.damage {
            Some(damage) => write!(f, "{}: {damage}", self.name),
            None if self.complete => write!(f, "{}: {} packets, complete", self.name, self.packets),
            None => write!(f, "{}: {} packets so far", self.name, self.packets),
        }
    }
}

/// Where an input stopped making sense. Everything before it was delivered, nothing after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Byte offset in the uncompressed stream of the record or block that is damaged.
    pub offset: u64,
    /// Packets before it.
    pub packet: u64,
    /// The record or block, and what is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: file damaged from here on", self.what)
    }
}
