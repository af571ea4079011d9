//! Downloads made ready: files without a name, so that they can be read from anywhere and go with their last reader.
//!
//! API thread and its threads for files. A few are remembered for a while, so that a client that comes back for the rest,
//! or asked for the headers first, doesn't have it made again.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dataplane::record::{ExportError, Prepared, Query, Store, prepare};
use sha2::{Digest, Sha256};

use super::auth::hex;
use super::jobs::{no_room, unexported};
use super::problem::Problem;
use crate::index;

/// How many are remembered, and how long.
const REMEMBERED: usize = 4;
const HOLDS: Duration = Duration::from_secs(300);

/// A download made ready.
#[derive(Debug)]
pub struct Spooled {
    file: File,
    pub len: u64,
    /// In quotes, as it goes out: other bytes have another.
    pub etag: String,
    _room: Room,
}

/// So many bytes of the space there is.
#[derive(Debug)]
struct Room {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Spooled {
    /// Bytes from `at` on; fewer than wanted at the end.
    pub fn read(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let read = self.file.read_at(&mut bytes, at)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

struct Remembered {
    query: Query,
    state: String,
    since: Instant,
    spooled: Arc<Spooled>,
}

/// All of them.
pub struct Spool {
    most: u64,
    total: Arc<AtomicU64>,
    remembered: Mutex<VecDeque<Remembered>>,
}

impl Spool {
    /// At most so many bytes.
    pub fn new(most: u64) -> Spool {
        Spool { most, total: Arc::default(), remembered: Mutex::default() }
    }

    /// What the query matches, as one capture file, unless it is given up. Waits for the disk.
    pub fn make(
        &self,
        store: &Store,
        query: &Query,
        given_up: &Arc<AtomicBool>,
    ) -> Result<Arc<Spooled>, Problem> {
        let state = state(store);
        if let Some(known) = self.known(query, &state) {
            return Ok(known);
        }
        let prepared = found(store, query, given_up).map_err(unexported)?;
        let room = self.take(prepared.len()).ok_or_else(no_room)?;
        let (file, len) = prepared.into_file().map_err(unexported)?;
        let hash = Sha256::digest(format!("{state} {len} {query}"));
        let etag = format!("\"{}\"", hex(hash.get(..16).unwrap_or_default()));
        let spooled = Arc::new(Spooled { file, len, etag, _room: room });
        let one =
            Remembered { query: query.clone(), state, since: Instant::now(), spooled: Arc::clone(&spooled) };
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(one);
        Ok(spooled)
    }

    fn known(&self, query: &Query, state: &str) -> Option<Arc<Spooled>> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|one| one.since.elapsed() < HOLDS);
        let same = remembered.iter().find(|one| one.query == *query && one.state == state);
        same.map(|one| Arc::clone(&one.spooled))
    }

    fn take(&self, bytes: u64) -> Option<Room> {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { bytes, total: Arc::clone(&self.total) };
        if self.total.load(Ordering::Relaxed) > self.most {
            // Those that are only remembered give way.
            self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        (self.total.load(Ordering::Relaxed) <= self.most).then_some(room)
    }
}

fn found(store: &Store, query: &Query, given_up: &Arc<AtomicBool>) -> Result<Prepared, ExportError> {
    let spool = dataplane::record::Spool::beside(store).stopped_by(Arc::clone(given_up));
    prepare(store, query, &*index::finder(store), &spool)
}

/// The same without a file between.
pub fn export_to(
    store: &Store,
    query: &Query,
    given_up: &Arc<AtomicBool>,
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    found(store, query, given_up)?.write(out).map(drop)
}

/// Another one whenever what lies in the store is another.
fn state(store: &Store) -> String {
    let mut hash = Sha256::new();
    let mut note = |path: &Path| {
        if let Ok(meta) = fs::metadata(path) {
            hash.update(path.as_os_str().as_encoded_bytes());
            let told = [meta.len(), meta.ino(), meta.mtime() as u64, meta.mtime_nsec() as u64];
            told.iter().for_each(|number| hash.update(number.to_le_bytes()));
        }
    };
    note(&store.incidents_path());
    note(&store.older_incidents_path());
    let mut segments: Vec<PathBuf> =
        fs::read_dir(store.segments()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    segments.sort();
    segments.iter().for_each(|path| note(path));
    hex(&hash.finalize())
}
