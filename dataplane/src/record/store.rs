//! A store on disk: its folders, its incidents, its segments' names.
//!
//! Runs on main at start (opening), on the judge's or main's thread (appending incidents) and wherever
//! captures are read. Never on a worker. Segments are written by `writer` and read by `query`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::segment::SegmentName;

/// Longest incident line read back, bytes; a longer one is none of ours.
const LINE_LIMIT: u64 = 16 << 20;

/// Most incidents held in memory when reading back.
const INCIDENTS_LIMIT: usize = 1_000_000;

/// Why a store can't be used: what, where, and what to do.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("no store at {path}: {source}; give the folder of an earlier `--store`")]
    Missing { path: PathBuf, source: io::Error },
    #[error(
        "cannot make the store {path}: {source}; its parent folder must exist and be writable by this user"
    )]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write to the store {path}: {source}; check its owner, its mode and the file system")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(
        "another program is writing to the store of {path}; end that, or give this one a store of its own"
    )]
    Busy { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds more than {INCIDENTS_LIMIT} incidents; move the older lines to another file")]
    TooManyIncidents { path: PathBuf },
}

/// A store's folder: `segments/` and `incidents.jsonl`.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens a store for writing, making the folder if its parent exists. Checks that files can be made.
    pub fn create(root: &Path) -> Result<Store, StoreError> {
        let store = Store { root: root.to_path_buf() };
        for folder in [root.to_path_buf(), store.segments()] {
            match fs::create_dir(&folder) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(source) => return Err(StoreError::Create { path: folder, source }),
                Ok(()) => {}
            }
        }
        let probe = store.segments().join(".probe");
        let writable = File::create(&probe).and_then(|_| fs::remove_file(&probe));
        writable.map_err(|source| StoreError::Unwritable { path: store.segments(), source })?;
        Ok(store)
    }

    /// Opens a store for reading.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let store = Store { root: root.to_path_buf() };
        match fs::read_dir(store.segments()) {
            Ok(_) => Ok(store),
            Err(source) => Err(StoreError::Missing { path: root.to_path_buf(), source }),
        }
    }

    /// Where the segments are; for [`RealDisk::new`](super::RealDisk::new).
    pub fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn incidents_path(&self) -> PathBuf {
        self.root.join("incidents.jsonl")
    }

    /// Paths of all segments, by worker, then in the order they were written.
    pub(super) fn segment_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.segments();
        let failed = |source| StoreError::Read { path: folder.clone(), source };
        let mut segments = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if let Some(parsed) = SegmentName::parse(&name) {
                segments.push((parsed.worker, parsed.sequence, entry.path()));
            }
        }
        segments.sort();
        Ok(segments.into_iter().map(|(_, _, path)| path).collect())
    }

    /// All incidents as last written, in the order of their first line. Lines that can't be read (one cut by
    /// a crash) are passed over.
    pub fn incidents(&self) -> Result<Vec<IncidentRecord>, StoreError> {
        self.read_incidents().map(|(records, _)| records)
    }

    /// As [`Store::incidents`], with the number of lines that can't be read.
    pub fn read_incidents(&self) -> Result<(Vec<IncidentRecord>, u64), StoreError> {
        let path = self.incidents_path();
        let failed = |source| StoreError::Read { path: path.clone(), source };
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            other => other.map_err(failed)?,
        };
        let mut input = BufReader::new(file);
        let mut records: Vec<IncidentRecord> = Vec::new();
        let mut places = std::collections::HashMap::new();
        let mut unreadable = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = input.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                return Ok((records, unreadable));
            }
            let Ok(record) = serde_json::from_slice::<IncidentRecord>(&line) else {
                unreadable += 1;
                continue;
            };
            match places.get(&record.id) {
                Some(&place) => records[place] = record,
                None if records.len() == INCIDENTS_LIMIT => {
                    return Err(StoreError::TooManyIncidents { path });
                }
                None => {
                    places.insert(record.id.clone(), records.len());
                    records.push(record);
                }
            }
        }
    }
}

/// What retrieval needs of an incident; its other fields are kept as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentRecord {
    pub id: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub rule: String,
    #[serde(default)]
    pub severity: String,
    #[serde(default)]
    pub first_ns: u64,
    #[serde(default)]
    pub last_ns: u64,
    /// 16 hex digits each.
    #[serde(default)]
    pub flow_ids: Vec<String>,
    #[serde(default)]
    pub explain: String,
    #[serde(default)]
    pub advise: String,
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl IncidentRecord {
    /// The flows it names; what is not a flow id is passed over.
    pub fn flows(&self) -> impl Iterator<Item = u64> {
        self.flow_ids.iter().filter_map(|id| u64::from_str_radix(id, 16).ok())
    }
}

/// The store's incidents, open for appending. One at a time to a store: it is locked as long as this lives.
#[derive(Debug)]
pub struct IncidentLog {
    file: File,
    path: PathBuf,
    /// The last line has no end.
    cut: bool,
}

impl IncidentLog {
    /// Opens or makes `incidents.jsonl`. A line cut by a crash is ended by the next, so that that stands alone.
    pub fn open(store: &Store) -> Result<IncidentLog, StoreError> {
        let path = store.incidents_path();
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
            // A file system without locks keeps nobody out, and so be it.
            let busy = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            let mut last = [b'\n'];
            if file.seek(SeekFrom::End(0))? > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            Ok((file, busy, last != [b'\n']))
        };
        match open() {
            Ok((_, true, _)) => Err(StoreError::Busy { path }),
            Ok((file, false, cut)) => Ok(IncidentLog { file, path, cut }),
            Err(source) => Err(StoreError::Unwritable { path, source }),
        }
    }

    /// Appends one incident as one line. A later line with the same `id` replaces the earlier.
    pub fn append(&mut self, incident: &serde_json::Value) -> Result<(), StoreError> {
        let start = if self.cut { "\n" } else { "" };
        let before = self.file.metadata().map(|meta| meta.len());
        let written = self.file.write_all(format!("{start}{incident}\n").as_bytes());
        if written.is_err() {
            // What was written of the line is taken back; if that fails as well, the next one ends it.
            self.cut |= before.and_then(|len| self.file.set_len(len)).is_err();
        } else {
            self.cut = false;
        }
        written.map_err(|source| StoreError::Unwritable { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_store_is_made_in_an_existing_parent_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        assert!(matches!(Store::open(&root), Err(StoreError::Missing { .. })));
        Store::create(&root).unwrap();
        Store::create(&root).unwrap();
        Store::open(&root).unwrap();
        let deep = Store::create(&folder.path().join("no/such")).unwrap_err();
        assert!(deep.to_string().contains("parent folder must exist"), "{deep}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Store::create(&file), Err(StoreError::Create { .. })));
    }

    #[test]
    fn later_lines_replace_and_a_cut_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        assert_eq!(store.incidents().unwrap(), []);
        let mut log = IncidentLog::open(&store).unwrap();
        log.append(&json!({"id": "a", "count": 1, "explain": "line\nbreak"})).unwrap();
        log.append(&json!({"id": "b", "flow_ids": ["00000000000000ff", "what?"]})).unwrap();
        log.append(&json!({"id": "a", "count": 2})).unwrap();
        drop(log);
        let path = store.incidents_path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"{\"id\":\"c\",\"cou");
        fs::write(&path, &bytes).unwrap();
        let ids =
            |store: &Store| -> Vec<_> { store.incidents().unwrap().into_iter().map(|i| i.id).collect() };
        assert_eq!(ids(&store), ["a", "b"]);
        let mut first = IncidentLog::open(&store).unwrap();
        assert!(matches!(IncidentLog::open(&store), Err(StoreError::Busy { .. })));
        first.append(&json!({"id": "d"})).unwrap();
        assert_eq!(ids(&store), ["a", "b", "d"]);
        let incidents = store.incidents().unwrap();
        assert_eq!(incidents[0].rest["count"], 2);
        assert_eq!(incidents[1].flows().collect::<Vec<_>>(), [255]);
    }

    #[test]
    fn a_disk_that_refuses_a_line_leaves_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        // Takes nothing, and can't be cut back either.
        std::os::unix::fs::symlink("/dev/full", store.incidents_path()).unwrap();
        let mut log = IncidentLog::open(&store).unwrap();
        let error = log.append(&json!({"id": "a"})).unwrap_err();
        assert!(matches!(error, StoreError::Unwritable { .. }), "{error}");
        assert!(log.cut, "so the next line begins by ending this one");
        fs::remove_file(store.incidents_path()).unwrap();
        fs::write(store.incidents_path(), "{\"id\":\"torn").unwrap();
        let mut log = IncidentLog::open(&store).unwrap();
        assert_eq!(fs::metadata(store.incidents_path()).unwrap().len(), 11, "opening writes nothing");
        log.append(&json!({"id": "b"})).unwrap();
        log.append(&json!({"id": "c"})).unwrap();
        let ids: Vec<_> = store.incidents().unwrap().into_iter().map(|i| i.id).collect();
        assert_eq!(ids, ["b", "c"]);
    }

    #[test]
    fn only_our_own_names_are_segments() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let name = |worker, sequence| SegmentName { worker, first_ns: 7, sequence }.to_string();
        let good = [name(0, 9), name(0, 1_000_000), name(10, 0)];
        for name in ["x.pcapng.zst", "w1-7-1.pcapng.zst", "w+1-00000000000000000007-000001.pcapng.zst"] {
            fs::write(store.segments().join(name), "").unwrap();
        }
        for name in good.iter().rev() {
            fs::write(store.segments().join(name), "").unwrap();
        }
        let paths = store.segment_paths().unwrap();
        let names: Vec<_> = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, good);
    }
}
