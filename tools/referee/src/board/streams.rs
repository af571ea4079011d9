//! How many follow what a run keeps, and what became of those who did.
//!
//! Counted by the API's threads, read by main for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With the run, or because all of a capture on demand was out.
    Over,
    /// Its reader left, or was cut off because it took nothing.
    Left,
    /// Its reader was so slow that retention deleted what it had yet to have.
    Overtaken,
    /// The store could not be read.
    Failed,
}

impl Ending {
    pub const ALL: [Ending; 4] = [Ending::Over, Ending::Left, Ending::Overtaken, Ending::Failed];

    pub const fn name(self) -> &'static str {
        match self {
            Ending::Over => "over",
            Ending::Left => "left",
            Ending::Overtaken => "overtaken",
            Ending::Failed => "failed",
        }
    }
}

#[derive(Debug, Default)]
pub struct Streams {
    open: AtomicU64,
    ended: [AtomicU64; Ending::ALL.len()],
}

/// The numbers of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streamed {
    pub open: u64,
    /// By [`Ending`].
    pub ended: [u64; Ending::ALL.len()],
}

/// One that is followed.
#[derive(Debug)]
pub struct Open<'a>(&'a Streams);

impl Streams {
    pub fn begin(&self) -> Open<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    pub fn now(&self) -> Streamed {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Streamed { open: of(&self.open), ended: self.ended.each_ref().map(of) }
    }
}

impl Open<'_> {
    pub fn end(self, how: Ending) {
        if let Some(count) = self.0.ended.get(how as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_open_until_it_has_ended() {
        let streams = Streams::default();
        let (one, other) = (streams.begin(), streams.begin());
        one.end(Ending::Left);
        assert_eq!(streams.now(), Streamed { open: 1, ended: [0, 1, 0, 0] });
        drop(other);
        assert_eq!(streams.now(), Streamed { open: 0, ended: [0, 1, 0, 0] });
    }
}
