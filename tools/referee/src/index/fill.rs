//! Fills the index: looks at what the store holds, reads closed segments it does not know yet, forgets deleted ones, and
//! reads on in the incidents' file.
//!
//! On a thread of a live run with low priority, or on the main thread (`store rebuild-index`). Each segment is one
//! transaction, so whatever ends the process leaves an index that claims nothing but what it has read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::record::{SegmentFile, Store};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::incidents::follow;
use super::scan::{Scan, Scanned, scan};
use super::schema;

/// A worker's last segment is taken in as it is when it has not grown for so many looks.
const QUIET_LOOKS: u32 = 30;

/// Why the index can't be filled.
#[derive(Debug)]
pub struct FillError(String);

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for FillError {
    fn from(error: E) -> Self {
        FillError(error.to_string())
    }
}

/// Keeps an index in step with its store.
pub struct Filler {
    store: Store,
    db: Option<Connection>,
    /// Device and inode of the file that `db` is.
    file: Option<(u64, u64)>,
    /// Of segments that may be being written: size, and looks since it grew.
    quiet: HashMap<String, (u64, u32)>,
    /// Segments that nobody writes to, because they were there before whoever writes now.
    left: HashSet<String>,
}

impl Filler {
    pub fn new(store: &Store) -> Filler {
        Filler { store: store.clone(), db: None, file: None, quiet: HashMap::new(), left: HashSet::new() }
    }

    /// One that is made before anybody writes to the store: what a run that was killed left is closed.
    pub fn before_writing(store: &Store) -> Filler {
        let segments = store.segment_files().unwrap_or_default();
        Filler { left: segments.into_iter().map(|segment| segment.name).collect(), ..Filler::new(store) }
    }

    /// One that begins from nothing.
    pub fn anew(store: &Store) -> Result<Filler, FillError> {
        let db = schema::anew(store)?;
        let file = identity(store);
        Ok(Filler { db: Some(db), file, ..Filler::new(store) })
    }

    /// Brings the index up to date, as far as `stop` lets it. Of a store that nobody writes to, `all` segments can be
    /// taken that are complete; otherwise a worker's last is left until it has not grown for a while.
    pub fn look(&mut self, stop: &AtomicBool, all: bool) -> Result<(), FillError> {
        let mut db = match self.db.take() {
            // Somebody made it anew, or removed it.
            Some(_) if identity(&self.store) != self.file => schema::open_to_write(&self.store)?,
            Some(db) => db,
            None => schema::open_to_write(&self.store)?,
        };
        self.file = identity(&self.store);
        match self.fill(&mut db, stop, all) {
            Err(error) if error.broken => {
                drop(db);
                self.db = Some(schema::anew(&self.store)?);
                self.file = identity(&self.store);
                Err(FillError(error.what))
            }
            done => {
                self.db = Some(db);
                done.map_err(|error| FillError(error.what))
            }
        }
    }

    fn fill(&mut self, db: &mut Connection, stop: &AtomicBool, all: bool) -> Result<(), Trouble> {
        let segments = self.store.segment_files().map_err(Trouble::other)?;
        let known = forget_gone(db, &segments)?;
        self.quiet.retain(|name, _| segments.iter().any(|segment| segment.name == *name));
        for (nth, segment) in segments.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let closed = segments.get(nth + 1).is_some_and(|next| next.worker == segment.worker)
                || self.left.contains(&segment.name);
            if known.contains_key(&segment.name) || !(closed || all || self.is_quiet(segment)) {
                continue;
            }
            match scan(segment, stop).map_err(Trouble::other)? {
                // Of a worker's last segment without an end more may come: then it has another size, and is forgotten.
                Scanned::Done(scan) => insert(db, &segment.name, &scan)?,
                Scanned::Stopped => return Ok(()),
                Scanned::NotYet => {}
            }
        }
        follow(&self.store, db, stop)
    }

    /// Whether a worker's last segment has just become quiet: it is read once then, and again only after it grew.
    fn is_quiet(&mut self, segment: &SegmentFile) -> bool {
        let size = segment.path.metadata().map_or(0, |meta| meta.len());
        let (seen, looks) = self.quiet.entry(segment.name.clone()).or_insert((size, 0));
        if *seen == size {
            *looks = looks.saturating_add(1);
        } else {
            (*seen, *looks) = (size, 0);
        }
        *looks == QUIET_LOOKS
    }
}

/// What went wrong, and whether the file is broken.
pub struct Trouble {
    what: String,
    broken: bool,
}

impl Trouble {
    pub fn other(error: impl fmt::Display) -> Trouble {
        Trouble { what: error.to_string(), broken: false }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble { broken: schema::is_broken(&error), what: error.to_string() }
    }
}

fn identity(store: &Store) -> Option<(u64, u64)> {
    schema::path(store).metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Forgets segments that are gone or of another size; returns the others.
fn forget_gone(db: &mut Connection, segments: &[SegmentFile]) -> Result<HashMap<String, i64>, Trouble> {
    let mut known: HashMap<String, (i64, u64)> = HashMap::new();
    {
        let mut all = db.prepare_cached("SELECT name, id, size FROM segments")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            known.insert(row.get(0)?, (row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()));
        }
    }
    let mut there = HashMap::new();
    for segment in segments {
        if let Some((id, size)) = known.get(&segment.name).copied()
            && segment.path.metadata().is_ok_and(|meta| meta.len() == size)
        {
            known.remove(&segment.name);
            there.insert(segment.name.clone(), id);
        }
    }
    for (id, _) in known.into_values() {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        forget(&step, id)?;
        step.commit()?;
    }
    Ok(there)
}

fn forget(step: &Transaction<'_>, segment: i64) -> rusqlite::Result<()> {
    for table in ["extents", "addresses", "communities"] {
        step.execute(&format!("DELETE FROM {table} WHERE segment_id = ?1"), [segment])?;
    }
    step.execute("DELETE FROM segments WHERE id = ?1", [segment]).map(drop)
}

fn insert(db: &mut Connection, name: &str, scan: &Scan) -> Result<(), Trouble> {
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "INSERT OR IGNORE INTO segments(name, size, packets, bytes, first_ns, last_ns, ending, whole)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let [size, packets, bytes] = [scan.size, scan.packets, scan.bytes].map(u64::cast_signed);
    let (first, last) = (time(scan.first_ns), time(scan.last_ns));
    let new = step.execute(sql, params![name, size, packets, bytes, first, last, scan.ending, scan.whole])?;
    // Another process may have been faster.
    if new == 0 {
        return Ok(());
    }
    let id = step.last_insert_rowid();
    {
        let mut extents = step.prepare_cached("INSERT INTO extents VALUES(?1, ?2, ?3, ?4)")?;
        for (flow, (first, last)) in &scan.flows {
            extents.execute(params![flow.cast_signed(), id, time(*first), time(*last)])?;
        }
        let mut addresses = step.prepare_cached("INSERT INTO addresses VALUES(?1, ?2)")?;
        for address in &scan.addresses {
            addresses.execute(params![octets(*address), id])?;
        }
        let mut communities = step.prepare_cached("INSERT INTO communities VALUES(?1, ?2)")?;
        for community in &scan.communities {
            communities.execute(params![community, id])?;
        }
    }
    step.commit()?;
    Ok(())
}

/// Packet time in a column: the database has signed numbers, and comparing must work.
pub fn time(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// An address as it is in the index.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
