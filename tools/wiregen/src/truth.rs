//! What is wrong in a generated capture, known by construction: one JSON object a line.
//!
//! Written beside each capture file and handed to tests in process. Plain records; kinds and their meaning are
//! those Referee reports. Truth goes to whoever judges a judgement, never into the capture.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a line speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// `src`, `sport` (the client), `dst`, `dport`.
    Flow,
    /// `host`.
    Host,
    /// `dst`, `dport`.
    Service,
}

/// One statement about a capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub scope: Scope,
    /// A kind of trouble, or `healthy`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// How often, where construction fixes it.
    #[serde(default)]
    pub count: Option<u32>,
    /// Frame numbers (from 1) of the packets that show it.
    #[serde(default)]
    pub marks: Vec<u64>,
    /// True for the trouble the flow was made for; false for what comes with it.
    #[serde(default)]
    pub main: bool,
    /// The longest silence of a flow that was made to be silent, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<f64>,
    /// How a healthy flow ended: `fin`, `rst` (abortive, nothing outstanding) or `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close: Option<String>,
}

/// Everything that is true of one capture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    pub lines: Vec<Line>,
}

impl Truth {
    /// The lines of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.kind == kind)
    }

    /// Flows of which something other than `healthy` is said.
    pub fn troubled(&self) -> usize {
        let flows = self.lines.iter().filter(|line| line.scope == Scope::Flow && line.kind != "healthy");
        flows.map(|line| (line.src, line.sport, line.dst, line.dport)).collect::<BTreeSet<_>>().len()
    }

    /// Writes one JSON object a line.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in &self.lines {
            serde_json::to_writer(&mut *out, line)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}
