//! Of which flows the store holds packets, as far as that is known without reading a segment.
//!
//! Wherever incidents are told of. What the index doesn't know is unknown, not "none".

use std::collections::HashSet;
use std::fs::Metadata;
use std::time::{Duration, SystemTime};

use dataplane::record::Store;

use super::find::Index;

/// After how long what was held for an incident is in a segment's file.
const WRITTEN: Duration = Duration::from_secs(30);
/// What came first of an incident was held within this time of its beginning.
const FIRST_HELD: Duration = Duration::from_secs(60);

/// What is on the shelf at one moment.
pub struct Held {
    index: Index,
    /// Segments, by their number in the index, that are there as the index knows them.
    known: HashSet<i64>,
    unknown: Vec<Unknown>,
}

/// A segment that the index doesn't know as it is.
struct Unknown {
    /// When it was last written to.
    written: SystemTime,
    /// When it was begun, where the file system tells.
    begun: Option<SystemTime>,
}

impl Held {
    /// `None` without an index that can be used.
    pub fn now(store: &Store) -> Option<Held> {
        let index = Index::open(store)?;
        let mut held = Held { index, known: HashSet::new(), unknown: Vec::new() };
        let segments = store.segment_files().ok()?;
        let mut known =
            held.index.db.prepare_cached("SELECT id, size, whole FROM segments WHERE name = ?1").ok()?;
        let (mut there, mut others) = (HashSet::new(), Vec::new());
        for segment in segments {
            // Retention may be faster.
            let Ok(meta) = segment.path.metadata() else { continue };
            let row = known.query_row([&segment.name], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, bool>(2)?))
            });
            let as_known = row.ok().filter(|(_, size, _)| *size == meta.len());
            there.extend(as_known.map(|(id, ..)| id));
            if !as_known.is_some_and(|(.., whole)| whole) {
                others.push(Unknown::of(&meta));
            }
        }
        drop(known);
        (held.known, held.unknown) = (there, others);
        Some(held)
    }

    /// Whether packets of these flows are kept, which an incident names whose last packet came at `last_ns`. `this_run`:
    /// when the present run began, ns since the epoch; what was over before has nothing in segments written since.
    pub fn any(&self, flows: &[u64], last_ns: u64, this_run: Option<u64>) -> Option<bool> {
        if flows.is_empty() {
            return Some(false);
        }
        if flows.iter().any(|flow| self.has(*flow).unwrap_or(false)) {
            return Some(true);
        }
        let earlier = this_run.filter(|begun| last_ns < *begun);
        let begun = earlier.map(moment);
        let unknown = self.unknown.iter().any(|one| begun.is_none_or(|begun| one.written < begun));
        (!unknown).then_some(false)
    }

    /// The same of an incident whose packets were kept as it was told: they may have been deleted since, by retention or by
    /// hand.
    pub fn still(&self, flows: &[u64], first_ns: u64, last_ns: u64, now: SystemTime) -> Option<bool> {
        let held = moment(last_ns).min(moment(first_ns) + FIRST_HELD) + WRITTEN;
        if held > now || flows.iter().any(|flow| self.has(*flow).unwrap_or(false)) {
            return Some(true);
        }
        // They are in one that was begun before, if it is there; one that was begun since may have others.
        match self.unknown.iter().any(|one| one.begun.is_none_or(|begun| begun <= held)) {
            true => Some(true),
            false => self.unknown.is_empty().then_some(false),
        }
    }

    fn has(&self, flow: u64) -> rusqlite::Result<bool> {
        let mut found = self.index.db.prepare_cached("SELECT segment_id FROM extents WHERE flow_id = ?1")?;
        let mut rows = found.query([flow.cast_signed()])?;
        while let Some(row) = rows.next()? {
            if self.known.contains(&row.get(0)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Unknown {
    fn of(meta: &Metadata) -> Unknown {
        Unknown { written: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), begun: meta.created().ok() }
    }
}

fn moment(ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
}
