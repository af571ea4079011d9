//! What is on the shelf: the segments of a store and their sizes, oldest first, and which must go.
//!
//! Runs on the writer's thread; only counts, the writer deletes.

use std::collections::BTreeMap;

use crate::source::Nanos;

use super::segment::SegmentName;

/// All segments of a store, those being written included.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// By (oldest packet, name).
    sizes: BTreeMap<(Nanos, String), u64>,
    total: u64,
}

impl Shelf {
    /// Takes stock of a folder; files that are not segments are left alone.
    pub(super) fn new(files: &[(String, u64)]) -> Shelf {
        let mut shelf = Shelf::default();
        for (name, size) in files {
            if let Some(parsed) = SegmentName::parse(name) {
                shelf.set(parsed.first_ns, name, *size);
            }
        }
        shelf
    }

    /// A segment now has this many bytes.
    pub(super) fn set(&mut self, first_ns: Nanos, name: &str, size: u64) {
        let before = self.sizes.insert((first_ns, name.to_owned()), size).unwrap_or(0);
        self.total = self.total - before + size;
    }

    pub(super) fn forget(&mut self, first_ns: Nanos, name: &str) {
        self.total -= self.sizes.remove(&(first_ns, name.to_owned())).unwrap_or(0);
    }

    /// The oldest segment that is not `open`, if all together exceed `limit` bytes.
    pub(super) fn surplus(&self, limit: u64, open: impl Fn(&str) -> bool) -> Option<(Nanos, String, u64)> {
        if self.total <= limit {
            return None;
        }
        let oldest = self.sizes.iter().find(|((_, name), _)| !open(name))?;
        Some((oldest.0.0, oldest.0.1.clone(), *oldest.1))
    }
}
