//! What became of what the clients wanted, as an application would log it: it knows nothing of packets.
//!
//! Counted by the threads of `talk`, each in a tally of its own that is added up when it ends.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::AddAssign;

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The connection was never made, and nobody refused it.
    NoAnswer,
    Refused,
    /// "Connection reset by peer", or its echo on the next write.
    Reset,
    /// Connected, but nothing moved any more.
    Stalled,
    /// The answer was not what was asked for, or something else failed.
    Failed,
}

impl Outcome {
    pub fn of_connect(error: &io::Error) -> Outcome {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::NoAnswer,
            ErrorKind::ConnectionRefused => Outcome::Refused,
            _ => Outcome::Failed,
        }
    }

    pub fn of_talk(error: &io::Error) -> Outcome {
        match error.kind() {
            // What a socket's time limit gives depends on the system.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Stalled,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Outcome::Reset
            }
            _ => Outcome::Failed,
        }
    }

    pub fn of(result: &io::Result<()>) -> Outcome {
        result.as_ref().map_or_else(Outcome::of_talk, |()| Outcome::Done)
    }
}

/// Attempts by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub done: u64,
    pub no_answer: u64,
    pub refused: u64,
    pub reset: u64,
    pub stalled: u64,
    pub failed: u64,
}

impl Tally {
    pub fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Done => &mut self.done,
            Outcome::NoAnswer => &mut self.no_answer,
            Outcome::Refused => &mut self.refused,
            Outcome::Reset => &mut self.reset,
            Outcome::Stalled => &mut self.stalled,
            Outcome::Failed => &mut self.failed,
        } += 1;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.done += other.done;
        self.no_answer += other.no_answer;
        self.refused += other.refused;
        self.reset += other.reset;
        self.stalled += other.stalled;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} done", self.done)?;
        let troubles = [
            (self.no_answer, "without an answer"),
            (self.refused, "refused"),
            (self.reset, "reset"),
            (self.stalled, "stalled"),
            (self.failed, "failed"),
        ];
        for (count, what) in troubles.iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        Ok(())
    }
}

/// All that the clients did. A session is one connection of a pool, a stream one connection that reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talked {
    pub pages: Tally,
    pub sessions: Tally,
    pub uploads: Tally,
    pub streams: Tally,
}

impl fmt::Display for Talked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pages: {}; database sessions: {}; ", self.pages, self.sessions)?;
        write!(f, "uploads: {}; streams: {}", self.uploads, self.streams)
    }
}
