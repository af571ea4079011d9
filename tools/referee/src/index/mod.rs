//! What a store's index knows: which segments hold nothing of what is asked for.
//!
//! Runs wherever captures are read. Without an index every segment is read; answers are the same. The finder goes to
//! `dataplane::record`.

use dataplane::record::{Finder, ReadAll, Store};

/// The best there is for this store.
pub fn finder(_: &Store) -> Box<dyn Finder> {
    Box::new(ReadAll)
}
