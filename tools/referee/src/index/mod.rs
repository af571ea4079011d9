//! A store's index, `index.db`: which flows, addresses and Community IDs each closed segment holds, and where each
//! incident's last line is.
//!
//! The segments stay the truth: what the index does not know, or whose size differs, is read. It is filled by following
//! the store as any reader would (`follow`: a thread of a live run, or `store rebuild-index`), and saves reading
//! segments when captures are searched (`find`). No worker, judge or writer knows of it.

mod fill;
mod find;
mod follow;
pub mod held;
pub mod incidents;
mod scan;
mod schema;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use dataplane::record::{Finder, ReadAll, Store};

use crate::access;
use crate::captures::store_folder;
use crate::cli::StoreArgs;
use crate::error::Failure;
use crate::live::owner;
use crate::term::{self, count, plural};

pub use find::{Known, known};
pub use follow::Follower;
pub use schema::path;

/// The best there is for this store.
pub fn finder(store: &Store) -> Box<dyn Finder> {
    match find::Index::open(store) {
        Some(index) => Box::new(index),
        None => Box::new(ReadAll),
    }
}

/// `referee store rebuild-index`.
///
/// # Errors
/// Usage: no store is named. Those of [`rebuild`].
pub fn run(args: &StoreArgs) -> Result<(), Failure> {
    rebuild(&store_folder(args.store.as_deref(), args.config.as_deref())?, args.json)
}

/// Throws away what the index knows and reads the store through once more.
///
/// # Errors
/// Failed: the store can't be read, or its index not be written.
pub fn rebuild(folder: &Path, json: bool) -> Result<(), Failure> {
    let store = access::store(folder)?;
    let unwritable = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("the index of {} can't be written: {error}", folder.display())).help(
            "captures are found without it, by reading every segment; the user must own the store's folder",
        )
    };
    owner::settle_for(Some(folder), &[])?;
    let mut filler = fill::Filler::anew(&store).map_err(|error| unwritable(&error))?;
    filler.look(&AtomicBool::new(false), true).map_err(|error| unwritable(&error))?;
    let filled = known(&store).ok_or_else(|| unwritable(&"it is not there after all"))?;
    term::show(|out| match json {
        true => {
            serde_json::to_writer(&mut *out, &filled.counts)?;
            writeln!(out)
        }
        false => {
            let segments = plural(filled.counts.segments, "segment");
            let (flows, incidents) =
                (count(filled.counts.flows), plural(filled.counts.incidents, "incident"));
            writeln!(out, "index of {}: {segments}, {flows} flows, {incidents}", folder.display())
        }
    })
}
