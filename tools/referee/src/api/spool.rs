//! Downloads made ready: files without a name, so that they can be read from anywhere and go with their last reader.
//!
//! API thread and its threads for files. A few are remembered for a while, so that a client that comes back for the rest,
//! or asked for the headers first, doesn't have it made again.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dataplane::record::{ExportError, Query, Store, export};
use sha2::{Digest, Sha256};

use super::auth::hex;
use super::jobs::unexported;
use super::problem::Problem;

/// How many are remembered, and how long.
const REMEMBERED: usize = 4;
const HOLDS: Duration = Duration::from_secs(300);
const BUFFER: usize = 1 << 20;

/// A download made ready.
#[derive(Debug)]
pub struct Spooled {
    file: File,
    pub len: u64,
    /// In quotes, as it goes out: a hash of all bytes.
    pub etag: String,
    total: Arc<AtomicU64>,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.total.fetch_sub(self.len, Ordering::Relaxed);
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
    store: u64,
    since: Instant,
    spooled: Arc<Spooled>,
}

/// All of them.
pub struct Spool {
    most: u64,
    folders: Vec<PathBuf>,
    total: Arc<AtomicU64>,
    number: AtomicU64,
    remembered: Mutex<VecDeque<Remembered>>,
}

impl Spool {
    /// At most so many bytes, on the disk of the store if it lets itself be written to.
    pub fn new(most: u64, store: Option<&Path>) -> Spool {
        let folders = store.map(Path::to_path_buf).into_iter().chain([std::env::temp_dir()]).collect();
        Spool {
            most,
            folders,
            total: Arc::default(),
            number: AtomicU64::new(0),
            remembered: Mutex::default(),
        }
    }

    /// What the query matches, as one capture file. Waits for the disk.
    pub fn make(&self, store: &Store, query: &Query) -> Result<Arc<Spooled>, Problem> {
        let state = state(store);
        {
            let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.retain(|one| one.since.elapsed() < HOLDS);
            if let Some(one) = remembered.iter().find(|one| one.query == *query && one.store == state) {
                return Ok(Arc::clone(&one.spooled));
            }
        }
        let file = self.file().map_err(|_| no_room())?;
        let mut out = Counted { file, len: 0, hash: Sha256::new(), spool: self };
        let exported = {
            let mut buffered = io::BufWriter::with_capacity(BUFFER, &mut out);
            export_to(store, query, &mut buffered)
        };
        let Counted { file, len, hash, .. } = out;
        let spooled = Spooled {
            file,
            len,
            etag: format!("\"{}\"", hex(&hash.finalize()[..16])),
            total: Arc::clone(&self.total),
        };
        match exported {
            Ok(()) => Ok(self.remember(query, state, spooled)),
            Err(error) => Err(unexported(error)),
        }
    }

    fn remember(&self, query: &Query, store: u64, spooled: Spooled) -> Arc<Spooled> {
        let spooled = Arc::new(spooled);
        let one =
            Remembered { query: query.clone(), store, since: Instant::now(), spooled: Arc::clone(&spooled) };
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(one);
        spooled
    }

    /// A file that nobody else can find.
    fn file(&self) -> io::Result<File> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let name = format!(".spool-{}-{number}", std::process::id());
        let mut made = Err(io::ErrorKind::NotFound.into());
        for folder in &self.folders {
            let path = folder.join(&name);
            made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            if made.is_ok() {
                let _ = fs::remove_file(&path);
                break;
            }
        }
        made
    }

    /// Takes so many bytes of the space there is.
    fn take(&self, bytes: u64) -> io::Result<()> {
        let before = self.total.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.most {
            return Ok(());
        }
        // Those that are only remembered give way.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if self.total.load(Ordering::Relaxed) <= self.most {
            return Ok(());
        }
        self.total.fetch_sub(bytes, Ordering::Relaxed);
        Err(io::ErrorKind::QuotaExceeded.into())
    }
}

fn no_room() -> Problem {
    unexported(ExportError::Output(io::ErrorKind::StorageFull.into()))
}

/// The one place that knows how an export is made.
pub fn export_to(store: &Store, query: &Query, out: &mut dyn Write) -> Result<(), ExportError> {
    export(store, query, out).map(drop)
}

/// Changes whenever what lies in the store does.
fn state(store: &Store) -> u64 {
    let mut hash = Sha256::new();
    let mut note = |path: &Path| {
        if let Ok(meta) = fs::metadata(path) {
            let (name, times) =
                (path.as_os_str().as_encoded_bytes(), [meta.len(), meta.ino(), meta.mtime() as u64]);
            hash.update(name);
            times.iter().for_each(|number| hash.update(number.to_le_bytes()));
        }
    };
    note(&store.root().join("incidents.jsonl"));
    let mut segments: Vec<PathBuf> =
        fs::read_dir(store.segments()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    segments.sort();
    segments.iter().for_each(|path| note(path));
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

struct Counted<'a> {
    file: File,
    len: u64,
    hash: Sha256,
    spool: &'a Spool,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.spool.take(bytes.len() as u64)?;
        self.len += bytes.len() as u64;
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
