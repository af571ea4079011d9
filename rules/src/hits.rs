//! Which rules matched: filled by the sets, read by whoever asked, on workers and on the judge's thread. A worker's takes all
//! its room at start.

use crate::set::MAX_RULES;

/// Rules that matched, as numbers, the indexes into [`RuleSet::rules`]. Reused.
#[derive(Clone, Debug)]
pub struct Hits {
    rules: Vec<u16>,
    most: usize,
    /// Hits that found no room, since the last `clear`.
    pub overflowed: u64,
}

impl Hits {
    /// Takes room as it is needed: not for a worker.
    pub const fn new() -> Hits {
        Hits { rules: Vec::new(), most: MAX_RULES, overflowed: 0 }
    }

    /// Takes all its room now, and no more later.
    pub fn with_room(most: usize) -> Hits {
        Hits { rules: Vec::with_capacity(most), most, overflowed: 0 }
    }

    pub fn clear(&mut self) {
        self.rules.clear();
        self.overflowed = 0;
    }

    pub fn push(&mut self, rule: u16) {
        match self.rules.len() < self.most {
            true => self.rules.push(rule),
            false => self.overflowed += 1,
        }
    }

    pub fn as_slice(&self) -> &[u16] {
        &self.rules
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }
}

impl Default for Hits {
    fn default() -> Self {
        Hits::new()
    }
}
