//! Asks the index: which segments hold nothing of what is sought, and where an incident's last line is.
//!
//! Wherever captures are read. Any trouble with the index means that it knows nothing, and the segments are read.

use std::collections::HashSet;

use dataplane::record::{Finder, IncidentFiles, Sought, Store, Told};
use rusqlite::{Connection, params};
use serde::Serialize;

use super::fill::{octets, time};
use super::incidents;
use super::schema;

/// Flows looked up one by one; with more, every segment is read.
const FLOWS_LIMIT: usize = 50_000;

/// An index that can be asked.
pub struct Index {
    pub(super) db: Connection,
}

impl Index {
    pub fn open(store: &Store) -> Option<Index> {
        Some(Index { db: schema::open_to_read(store)? })
    }

    /// Names and sizes of the segments with nothing of what is sought.
    fn empty_ones(&self, sought: &Sought<'_>) -> rusqlite::Result<HashSet<(String, u64)>> {
        // One transaction, so that all answers are of one moment.
        let step = self.db.unchecked_transaction()?;
        let (since, until) = (time(sought.since.unwrap_or(0)), time(sought.until.unwrap_or(u64::MAX)));
        let mut holding: Vec<HashSet<i64>> = Vec::new();
        if let Some(host) = sought.host {
            let mut rows = step.prepare_cached("SELECT segment_id FROM addresses WHERE addr = ?1")?;
            let found = rows.query_map([octets(host)], |row| row.get(0))?;
            holding.push(found.collect::<Result<_, _>>()?);
        }
        if let Some(id) = sought.community {
            let mut rows = step.prepare_cached("SELECT segment_id FROM communities WHERE id = ?1")?;
            let found = rows.query_map([id], |row| row.get(0))?;
            holding.push(found.collect::<Result<_, _>>()?);
        }
        if let Some(flows) = sought.flows.filter(|flows| flows.len() <= FLOWS_LIMIT) {
            let sql =
                "SELECT segment_id FROM extents WHERE flow_id = ?1 AND last_ns >= ?2 AND first_ns <= ?3";
            let mut rows = step.prepare_cached(sql)?;
            let mut found = HashSet::new();
            for flow in flows {
                for id in rows.query_map(params![flow.cast_signed(), since, until], |row| row.get(0))? {
                    found.insert(id?);
                }
            }
            holding.push(found);
        }
        let sql = "SELECT id, name, size, last_ns >= ?1 AND first_ns <= ?2 FROM segments WHERE whole = 1";
        let mut all = step.prepare_cached(sql)?;
        let mut rows = all.query(params![since, until])?;
        let mut empty = HashSet::new();
        while let Some(row) = rows.next()? {
            let (id, in_time): (i64, bool) = (row.get(0)?, row.get(3)?);
            if !in_time || holding.iter().any(|holding| !holding.contains(&id)) {
                empty.insert((row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()));
            }
        }
        Ok(empty)
    }
}

impl Finder for Index {
    fn without(&self, sought: &Sought<'_>) -> HashSet<(String, u64)> {
        self.empty_ones(sought).unwrap_or_default()
    }

    fn incident(&self, files: &IncidentFiles, id: &str) -> Option<Told> {
        incidents::told(&self.db, files, id).ok().flatten()
    }
}

/// How much an index holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub segments: u64,
    pub flows: u64,
    pub incidents: u64,
}

/// A segment as the index knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownSegment {
    pub name: String,
    pub size: u64,
    pub packets: u64,
}

/// What an index says of itself.
#[derive(Debug)]
pub struct Known {
    pub counts: Counts,
    pub segments: Vec<KnownSegment>,
    /// What the database finds wrong with itself.
    pub damage: Option<String>,
}

/// Reads an index through; `None` if there is none that can be used.
pub fn known(store: &Store) -> Option<Known> {
    let db = schema::open_to_read(store)?;
    let check = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let damage = match check {
        Ok(words) if words == "ok" => None,
        Ok(words) => Some(words),
        Err(error) => Some(error.to_string()),
    };
    let read = || -> rusqlite::Result<(Counts, Vec<KnownSegment>)> {
        let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        let counts = Counts {
            segments: number("SELECT count(*) FROM segments")?,
            flows: number("SELECT count(DISTINCT flow_id) FROM extents")?,
            incidents: number("SELECT count(*) FROM incidents")?,
        };
        let mut all = db.prepare("SELECT name, size, packets FROM segments ORDER BY name")?;
        let rows = all.query_map([], |row| {
            let [size, packets] = [row.get::<_, i64>(1)?, row.get(2)?].map(i64::cast_unsigned);
            Ok(KnownSegment { name: row.get(0)?, size, packets })
        })?;
        Ok((counts, rows.collect::<Result<_, _>>()?))
    };
    Some(match read() {
        Ok((counts, segments)) => Known { counts, segments, damage },
        Err(error) => {
            let damage = damage.or_else(|| Some(error.to_string()));
            Known { counts: Counts::default(), segments: Vec::new(), damage }
        }
    })
}
