//! Incidents in the index: for each, where its last line is and what it is looked for by. The lines stay the truth: what is
//! found is read there, and what the index does not know yet is read from the files' ends.
//!
//! Filling: on the index's thread or main's. Asking: wherever incidents are read. Files are known by what they are, not by
//! their names, so that the index follows when they are rotated.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::record::{FileIdentity, IncidentFiles, IncidentRecord, LinePlace, Store, StoreError, Told};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params, params_from_iter};

use super::fill::{Trouble, octets};
use super::find::Index;

/// Incident lines in one transaction.
const LINES: usize = 1000;

/// A file as the index knows it.
#[derive(Clone, Copy, Debug)]
struct Log {
    id: i64,
    identity: FileIdentity,
    /// Up to where its lines are in the index.
    at: u64,
}

/// Oldest first.
fn logs(db: &Connection) -> rusqlite::Result<Vec<Log>> {
    let mut all = db.prepare_cached("SELECT id, device, inode, head, at FROM logs ORDER BY id")?;
    let rows = all.query_map([], |row| {
        let [device, inode, head, at] =
            [row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?, row.get(4)?].map(i64::cast_unsigned);
        Ok(Log { id: row.get(0)?, identity: FileIdentity { device, inode, head }, at })
    })?;
    rows.collect()
}

/// Reads on in the incidents' files, and forgets those that are gone.
pub fn follow(store: &Store, db: &mut Connection, stop: &AtomicBool) -> Result<(), Trouble> {
    let files = store.incident_files().map_err(Trouble::other)?;
    for (file, identity, known) in keep_known(db, &files)? {
        let log = match known {
            Some(log) => log,
            None => begin(db, identity)?,
        };
        let ended = read_on(db, &files, file, log, stop)?;
        // The newer one's lines replace those of the older one, so that has to be done.
        if !ended {
            return Ok(());
        }
    }
    Ok(())
}

/// The files that have lines, oldest first, and what is known of each.
type Known = Vec<(usize, FileIdentity, Option<Log>)>;

fn known(all: &[Log], files: &IncidentFiles) -> Known {
    let known = |file: usize| {
        let identity = files.identity(file)?;
        let log = all.iter().find(|log| log.identity == identity && log.at <= files.len(file));
        Some((file, identity, log.copied()))
    };
    (0..files.count()).filter_map(known).collect()
}

/// One is unknown that was written before a known one.
fn has_gap(known: &Known) -> bool {
    known.windows(2).any(|pair| matches!(pair, [(.., None), (.., Some(_))]))
}

/// As [`known`]; all else is forgotten.
fn keep_known(db: &mut Connection, files: &IncidentFiles) -> Result<Known, Trouble> {
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let all = logs(&step)?;
    let mut known = known(&all, files);
    // Begun anew, for lines to be taken in their order.
    if has_gap(&known) {
        known.iter_mut().for_each(|(.., log)| *log = None);
    }
    let kept = |id: i64| known.iter().any(|(.., log)| log.is_some_and(|log| log.id == id));
    for log in all.iter().filter(|log| !kept(log.id)) {
        step.execute(
            "DELETE FROM subjects WHERE n IN (SELECT n FROM incidents WHERE log_id = ?1)",
            [log.id],
        )?;
        step.execute("DELETE FROM incidents WHERE log_id = ?1", [log.id])?;
        step.execute("DELETE FROM logs WHERE id = ?1", [log.id])?;
    }
    step.commit()?;
    Ok(known)
}

fn begin(db: &Connection, identity: FileIdentity) -> rusqlite::Result<Log> {
    let FileIdentity { device, inode, head } = identity;
    let [device, inode, head] = [device, inode, head].map(u64::cast_signed);
    db.execute("INSERT INTO logs(device, inode, head, at) VALUES(?1, ?2, ?3, 0)", [device, inode, head])?;
    Ok(Log { id: db.last_insert_rowid(), identity, at: 0 })
}

/// Whether the file's end was reached.
fn read_on(
    db: &mut Connection,
    files: &IncidentFiles,
    file: usize,
    log: Log,
    stop: &AtomicBool,
) -> Result<bool, Trouble> {
    let mut starts = vec![u64::MAX; files.count()];
    if let Some(start) = starts.get_mut(file) {
        *start = log.at;
    }
    let (mut lines, mut at, mut more) = (files.lines(&starts), log.at, true);
    while more {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for _ in 0..LINES {
            let line = lines.next_line().map_err(Trouble::other)?;
            let Some(line) = line.filter(|line| line.ended && line.place.file == file) else {
                more = false;
                break;
            };
            at = line.place.at + u64::from(line.place.len) + 1;
            if let Some(record) = line.parse::<IncidentRecord>() {
                put(&step, log.id, line.place, &record)?;
            }
        }
        step.execute("UPDATE logs SET at = ?2 WHERE id = ?1", [log.id, at.cast_signed()])?;
        step.commit()?;
    }
    Ok(true)
}

fn put(step: &Transaction<'_>, log: i64, place: LinePlace, record: &IncidentRecord) -> rusqlite::Result<()> {
    let sql = "INSERT INTO incidents(id, log_id, at, len, first, last, kind, severity, withdrawn)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT(id) DO UPDATE SET log_id = ?2, at = ?3, len = ?4, first = ?5, last = ?6, kind = ?7, severity = ?8,
            withdrawn = ?9
        RETURNING n";
    let (first, last) = (ordered(record.first_ns), ordered(record.last_ns));
    let values = params![
        record.id,
        log,
        place.at.cast_signed(),
        place.len,
        first,
        last,
        record.kind,
        record.severity,
        withdrawn(record)
    ];
    let n: i64 = step.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
    step.prepare_cached("DELETE FROM subjects WHERE n = ?1")?.execute([n])?;
    let mut subjects = step.prepare_cached("INSERT OR IGNORE INTO subjects VALUES(?1, ?2)")?;
    for address in addresses(record) {
        subjects.execute(params![octets(address), n])?;
    }
    Ok(())
}

/// Whether later packets have disproved it.
pub fn withdrawn(record: &IncidentRecord) -> bool {
    record.rest.get("withdrawn").and_then(serde_json::Value::as_bool) == Some(true)
}

/// The addresses that an incident is about.
fn addresses(record: &IncidentRecord) -> impl Iterator<Item = IpAddr> {
    let subject = record.rest.get("subject");
    ["src", "dst", "host"].into_iter().filter_map(move |name| subject?.get(name)?.as_str()?.parse().ok())
}

/// As a column's numbers, which have a sign, in the same order.
fn ordered(ns: u64) -> i64 {
    (ns ^ 1 << 63).cast_signed()
}

/// What the index knows of these files; `None` if it knows others, newer ones perhaps.
struct View {
    /// Log and number of the file.
    logs: Vec<(i64, usize)>,
    /// Up to where each file's lines are known.
    read: Vec<u64>,
}

impl View {
    fn of(db: &Connection, files: &IncidentFiles) -> rusqlite::Result<Option<View>> {
        let all = logs(db)?;
        let known = known(&all, files);
        let mut view = View { logs: Vec::new(), read: vec![0; files.count()] };
        for (file, _, log) in &known {
            if let (Some(log), Some(read)) = (log, view.read.get_mut(*file)) {
                view.logs.push((log.id, *file));
                *read = log.at;
            }
        }
        // Of others that are newer, last lines may be known in place of those that are here.
        let newest = all.last().is_some_and(|log| view.logs.iter().any(|(id, _)| *id == log.id));
        Ok((newest && !has_gap(&known)).then_some(view))
    }

    fn place(&self, row: &Row<'_>) -> rusqlite::Result<Option<LinePlace>> {
        let log: i64 = row.get("log_id")?;
        let file = self.logs.iter().find(|(id, _)| *id == log).map(|(_, file)| *file);
        let (at, len) = (row.get::<_, i64>("at")?.cast_unsigned(), row.get("len")?);
        Ok(file.map(|file| LinePlace { file, at, len }))
    }
}

/// Where an incident's last line is, as far as the index knows.
pub fn told(db: &Connection, files: &IncidentFiles, id: &str) -> rusqlite::Result<Option<Told>> {
    let step = db.unchecked_transaction()?;
    let Some(view) = View::of(&step, files)? else { return Ok(None) };
    let mut known = step.prepare_cached("SELECT log_id, at, len FROM incidents WHERE id = ?1")?;
    let mut rows = known.query([id])?;
    let last = rows.next()?.map(|row| view.place(row)).transpose()?.flatten();
    Ok(Some(Told { last, read: view.read }))
}

/// What a list of incidents is narrowed by, as far as the index can. Who asks looks at each once more.
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    /// Only those behind this place in a list, newest first: time and id.
    pub after: Option<(u64, String)>,
    pub kind: Option<String>,
    pub severity: Option<String>,
    pub withdrawn: Option<bool>,
    /// One of the subject's addresses.
    pub host: Option<IpAddr>,
    /// Not over before.
    pub since: Option<u64>,
    /// Begun not after.
    pub until: Option<u64>,
}

impl Sieve {
    fn query(&self) -> (String, Vec<Value>) {
        let (mut terms, mut values) = (Vec::new(), Vec::<Value>::new());
        if let Some((first, id)) = &self.after {
            values.extend([ordered(*first).into(), id.clone().into()]);
            terms.push("(first, id) < (?1, ?2)".to_owned());
        }
        let mut narrow = |term: &str, value: Value| {
            values.push(value);
            terms.push(term.replace('?', &format!("?{}", values.len())));
        };
        self.kind.iter().for_each(|kind| narrow("kind = ?", kind.clone().into()));
        self.severity.iter().for_each(|severity| narrow("severity = ?", severity.clone().into()));
        self.withdrawn.iter().for_each(|withdrawn| narrow("withdrawn = ?", i64::from(*withdrawn).into()));
        self.since.iter().for_each(|since| narrow("last >= ?", ordered(*since).into()));
        self.until.iter().for_each(|until| narrow("first <= ?", ordered(*until).into()));
        self.host.iter().for_each(|host| {
            narrow("n IN (SELECT n FROM subjects WHERE addr = ?)", octets(*host).into());
        });
        let terms = if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
        (format!("SELECT id, log_id, at, len FROM incidents{terms} ORDER BY first DESC, id DESC"), values)
    }
}

/// How an incident is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As the lines come: a later one with the same id stands in the place of the earlier.
    Written,
    /// As it was last written; after this, only older ones come.
    Newest,
}

/// Shows the incidents of a store, those at least that pass the sieve: first what the index doesn't know, which may be
/// all, as it is written; then what it does, newest first, until `visit` says that it is enough.
pub fn walk(
    store: &Store,
    sieve: &Sieve,
    visit: &mut dyn FnMut(Shown, IncidentRecord) -> bool,
) -> Result<(), StoreError> {
    let files = store.incident_files()?;
    if let Some(index) = Index::open(store)
        && matches!(index.walk(&files, sieve, visit), Ok(true))
    {
        return Ok(());
    }
    read_all(&files, &[], visit)
}

fn read_all(
    files: &IncidentFiles,
    starts: &[u64],
    visit: &mut dyn FnMut(Shown, IncidentRecord) -> bool,
) -> Result<(), StoreError> {
    let mut lines = files.lines(starts);
    while let Some(line) = lines.next_line()? {
        if let Some(record) = line.parse() {
            visit(Shown::Written, record);
        }
    }
    Ok(())
}

impl Index {
    /// False: it can't say; what was shown then is right, but not all.
    fn walk(
        &self,
        files: &IncidentFiles,
        sieve: &Sieve,
        visit: &mut dyn FnMut(Shown, IncidentRecord) -> bool,
    ) -> rusqlite::Result<bool> {
        let step = self.db.unchecked_transaction()?;
        let Some(view) = View::of(&step, files)? else { return Ok(false) };
        let mut told_since = HashSet::new();
        let read = read_all(files, &view.read, &mut |shown, record| {
            told_since.insert(record.id.clone());
            visit(shown, record)
        });
        if read.is_err() {
            return Ok(false);
        }
        let (sql, values) = sieve.query();
        let mut found = step.prepare_cached(&sql)?;
        let mut rows = found.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            // Of a file that is gone.
            let Some(place) = view.place(row)? else { continue };
            let id: String = row.get("id")?;
            if told_since.contains(&id) {
                continue;
            }
            let line = files.read_again(place).ok();
            let record = line.and_then(|line| serde_json::from_slice::<IncidentRecord>(&line).ok());
            match record.filter(|record| record.id == id) {
                None => return Ok(false),
                Some(record) => {
                    if !visit(Shown::Newest, record) {
                        break;
                    }
                }
            }
        }
        Ok(true)
    }
}
