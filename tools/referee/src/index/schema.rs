//! The index's file: its tables, and how it is opened.
//!
//! On the thread that fills it or searches it. A file that is not ours, or of another version, is not read and is made
//! anew by whoever fills it. No write-ahead log: a reader of another user could not open it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::record::Store;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// "RFIX", in the file's header.
const APPLICATION_ID: i32 = 0x5246_4958;

/// Of the tables below.
const VERSION: i32 = 2;

/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a search waits before it reads the segments instead.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);

const TABLES: &str = "
CREATE TABLE segments(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, packets INTEGER NOT NULL,
    bytes INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, ending TEXT NOT NULL,
    whole INTEGER NOT NULL);
CREATE TABLE extents(
    flow_id INTEGER, segment_id INTEGER, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    PRIMARY KEY(flow_id, segment_id)) WITHOUT ROWID;
CREATE TABLE addresses(addr BLOB, segment_id INTEGER, PRIMARY KEY(addr, segment_id)) WITHOUT ROWID;
CREATE TABLE communities(id TEXT, segment_id INTEGER, PRIMARY KEY(id, segment_id)) WITHOUT ROWID;
CREATE TABLE logs(
    id INTEGER PRIMARY KEY AUTOINCREMENT, device INTEGER NOT NULL, inode INTEGER NOT NULL, head INTEGER NOT NULL,
    at INTEGER NOT NULL);
CREATE TABLE incidents(
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, log_id INTEGER NOT NULL, at INTEGER NOT NULL, len INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, kind TEXT NOT NULL, severity TEXT NOT NULL,
    withdrawn INTEGER NOT NULL);
CREATE TABLE subjects(addr BLOB, n INTEGER, PRIMARY KEY(addr, n)) WITHOUT ROWID;
CREATE INDEX incidents_by_log ON incidents(log_id);
CREATE INDEX incidents_by_time ON incidents(first, id, last, severity, withdrawn);
CREATE INDEX incidents_by_kind ON incidents(kind, first, id);
CREATE INDEX subjects_by_incident ON subjects(n);
CREATE INDEX extents_by_segment ON extents(segment_id);
CREATE INDEX addresses_by_segment ON addresses(segment_id);
CREATE INDEX communities_by_segment ON communities(segment_id);
";

pub fn path(store: &Store) -> PathBuf {
    store.root().join("index.db")
}

/// For searching; `None` if there is none that can be used.
pub fn open_to_read(store: &Store) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path(store), flags).ok()?;
    db.busy_timeout(SHORT_PATIENCE).ok()?;
    is_ours(&db).ok()?.then_some(db)
}

/// For filling: makes it where there is none, anew where it is not ours or broken.
pub fn open_to_write(store: &Store) -> rusqlite::Result<Connection> {
    match opened(store) {
        Err(error) if is_broken(&error) => anew(store),
        Ok(db) if is_ours(&db).unwrap_or(false) => Ok(db),
        Ok(db) => {
            drop(db);
            anew(store)
        }
        Err(error) => Err(error),
    }
}

/// An empty one.
pub fn anew(store: &Store) -> rusqlite::Result<Connection> {
    for name in ["index.db", "index.db-journal"] {
        match fs::remove_file(store.root().join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(rusqlite::Error::InvalidPath(store.root().join(name)));
            }
            _ => {}
        }
    }
    let mut db = opened(store)?;
    let step = db.transaction()?;
    step.execute_batch(TABLES)?;
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", VERSION)?;
    step.commit()?;
    Ok(db)
}

fn opened(store: &Store) -> rusqlite::Result<Connection> {
    let db = Connection::open(path(store))?;
    db.busy_timeout(PATIENCE)?;
    db.query_row("PRAGMA journal_mode = TRUNCATE", [], |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -4096)?;
    Ok(db)
}

fn is_ours(db: &Connection) -> rusqlite::Result<bool> {
    let number = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    Ok((number("application_id")?, number("user_version")?) == (APPLICATION_ID, VERSION))
}

/// The file is damaged, or no database.
pub fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
