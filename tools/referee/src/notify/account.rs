//! What became of what was to be told, for each who is told: counted where it happens, read by main for the metrics, the
//! books and the report. Plain atomics; nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Written by the threads that tell.
#[derive(Debug, Default)]
pub struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    limited: AtomicU64,
    waiting: AtomicU64,
}

/// Of one who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    #[serde(skip)]
    pub name: String,
    pub sent: u64,
    /// Refused by the other side, or given up.
    pub failed: u64,
    /// No room to wait, or no time at the end.
    pub dropped: u64,
    /// Left out because there had been too many in this minute.
    pub limited: u64,
    /// Not told yet.
    #[serde(skip)]
    pub waiting: u64,
}

impl Counts {
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn dropped(&self, number: u64) {
        self.dropped.fetch_add(number, Ordering::Relaxed);
    }

    pub fn limited(&self) {
        self.limited.fetch_add(1, Ordering::Relaxed);
    }

    /// So many wait now.
    pub fn waiting(&self, number: u64) {
        self.waiting.store(number, Ordering::Relaxed);
    }

    /// One more waits.
    pub fn put(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// One waits no more.
    pub fn taken(&self) {
        let less = |waiting: u64| Some(waiting.saturating_sub(1));
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Nobody takes what waits.
    pub fn give_up(&self) {
        self.dropped(self.waiting.swap(0, Ordering::Relaxed));
    }

    pub fn told(&self, name: &str) -> Told {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Told {
            name: name.to_owned(),
            sent: of(&self.sent),
            failed: of(&self.failed),
            dropped: of(&self.dropped),
            limited: of(&self.limited),
            waiting: of(&self.waiting),
        }
    }
}

impl Told {
    /// Not everything arrived.
    pub fn missed(&self) -> bool {
        self.failed + self.dropped > 0
    }

    /// "webhook-1: 3 told, 2 failed".
    pub fn words(&self) -> String {
        let parts = [
            (self.failed, "failed"),
            (self.dropped, "dropped"),
            (self.limited, "left out for being too many at once"),
        ];
        let more =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
        format!("{}: {} told{}", self.name, self.sent, more.collect::<String>())
    }
}
