//! Incidents that are open, as they stand now: for those who look on while they grow. Judge's thread, when asked; changes
//! nothing, and what closes later is told as ever.

use std::cmp::Reverse;

use super::{Incident, Judge};

impl Judge {
    /// The `most` of them that something happened to last.
    pub fn open(&self, most: usize) -> Vec<Incident> {
        let drafts = self.groups.open().chain(self.storms.open());
        let mut drafts: Vec<_> = drafts.filter(|draft| draft.withdrawn.is_none()).collect();
        drafts.sort_by_key(|draft| Reverse((draft.tally.last_ns, draft.tally.first_ns)));
        drafts.iter().take(most).map(|draft| draft.incident(&self.rules, false)).collect()
    }
}
