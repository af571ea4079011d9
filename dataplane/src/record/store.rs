//! A store on disk: its folders and its segments' names.
//!
//! Runs on main at start (opening) and wherever captures are read. Never on a worker. Segments are written by `writer`
//! and read by `query`; the incidents' files are `incidents`'.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::segment::SegmentName;

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
    #[error("another program is writing to the store {path}; end that, or give this one a store of its own")]
    Busy { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// A store's folder: `segments/`, `incidents.jsonl` and an older one of these.
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

    /// Paths of all segments, by worker, then in the order they were written.
    pub(super) fn segment_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        Ok(self.segment_files()?.into_iter().map(|segment| segment.path).collect())
    }

    /// All segments, by worker, then in the order they were written.
    pub fn segment_files(&self) -> Result<Vec<SegmentFile>, StoreError> {
        let folder = self.segments();
        let failed = |source| StoreError::Read { path: folder.clone(), source };
        let mut segments = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(parsed) = SegmentName::parse(&name) {
                let SegmentName { worker, sequence, .. } = parsed;
                segments.push(SegmentFile { path: entry.path(), name, worker, sequence });
            }
        }
        segments
            .sort_unstable_by(|a, b| (a.worker, a.sequence, &a.name).cmp(&(b.worker, b.sequence, &b.name)));
        Ok(segments)
    }

    /// Where the incidents are, one JSON object a line.
    pub fn incidents_path(&self) -> PathBuf {
        self.root.join("incidents.jsonl")
    }

    /// Where they are once there are too many for one file.
    pub fn older_incidents_path(&self) -> PathBuf {
        self.root.join("incidents.1.jsonl")
    }
}

/// A segment's file, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    pub path: PathBuf,
    pub name: String,
    pub worker: u16,
    /// Rises with every segment of this worker; all but the last are closed.
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
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
