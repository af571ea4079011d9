//! Appends to the store's incidents, and keeps them within their bound: a file that is full becomes the older one, in the
//! place of the one before, and a new one is begun.
//!
//! Runs on main's thread; never on a worker. Whatever ends the process between two steps, each line that was to be kept is
//! in one of the two files (`incidents` reads them) and in no other.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::incidents::inode;
use super::store::{Store, StoreError};

/// The store's incidents, open for appending. One at a time to a store: it is locked as long as this lives.
#[derive(Debug)]
pub struct IncidentLog {
    file: File,
    path: PathBuf,
    older: PathBuf,
    /// The last line has no end.
    cut: bool,
    /// Bytes at which the file is full; the two together have twice as many.
    full: u64,
    /// Lines need not be kept longer than this.
    age: Option<Duration>,
    /// When the first line was written, as far as the file system knows.
    begun: SystemTime,
    /// Bytes deleted with older files.
    deleted: u64,
    /// Why the file is not rotated though it is full.
    trouble: Option<String>,
    /// The folder, locked: the file changes.
    _lock: File,
}

impl IncidentLog {
    /// Opens or makes `incidents.jsonl`. A line cut by a crash is ended by the next, so that that stands alone.
    pub fn open(store: &Store) -> Result<IncidentLog, StoreError> {
        let (path, older) = (store.incidents_path(), store.older_incidents_path());
        let open = || {
            let lock = File::open(store.root())?;
            let mut file = append_to(&path)?;
            // A file system without locks keeps nobody out, and so be it. Earlier versions lock the file.
            let busy =
                [&lock, &file].iter().any(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
            let mut last = [b'\n'];
            if file.seek(SeekFrom::End(0))? > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            let meta = file.metadata()?;
            let begun = meta.created().or_else(|_| meta.modified())?;
            Ok((lock, file, busy, last != [b'\n'], begun))
        };
        match open() {
            Ok((_, _, true, ..)) => Err(StoreError::Busy { path: store.root().to_path_buf() }),
            Ok((lock, file, false, cut, begun)) => Ok(IncidentLog {
                file,
                path,
                older,
                cut,
                full: u64::MAX,
                age: None,
                begun,
                deleted: 0,
                trouble: None,
                _lock: lock,
            }),
            Err(source) => Err(StoreError::Unwritable { path, source }),
        }
    }

    /// With a bound on the bytes of both files, and on how long lines are kept if need be.
    pub fn bounded(self, bytes: u64, age: Option<Duration>) -> IncidentLog {
        IncidentLog { full: bytes / 2, age, ..self }
    }

    /// Appends one incident, which shows as a JSON object, as one line. A later line with the same `id` replaces the
    /// earlier.
    pub fn append(&mut self, incident: &(impl ToString + ?Sized)) -> Result<(), StoreError> {
        let incident = incident.to_string();
        let mut before = self.file.metadata().map(|meta| meta.len());
        let added = incident.len() as u64 + 1 + u64::from(self.cut);
        if before.as_ref().is_ok_and(|len| *len > 0 && len.saturating_add(added) > self.full) && self.rotate()
        {
            before = Ok(0);
        }
        let start = if self.cut { "\n" } else { "" };
        let written = self.file.write_all([start, &incident, "\n"].concat().as_bytes());
        if written.is_err() {
            // What was written of the line is taken back; if that fails as well, the next one ends it.
            self.cut |= before.and_then(|len| self.file.set_len(len)).is_err();
        } else {
            self.cut = false;
        }
        written.map_err(|source| StoreError::Unwritable { path: self.path.clone(), source })
    }

    /// Now and then: deletes what has become too old.
    pub fn grow_old(&mut self, now: SystemTime) {
        let Some(age) = self.age else { return };
        let outlived = |then: SystemTime| now.duration_since(then).is_ok_and(|since| since > age);
        if outlived(self.begun) && self.file.metadata().is_ok_and(|meta| meta.len() > 0) {
            self.rotate();
        }
        if let Ok(meta) = fs::metadata(&self.older)
            && meta.modified().is_ok_and(outlived)
            && fs::remove_file(&self.older).is_ok()
        {
            self.deleted += meta.len();
        }
    }

    /// Bytes of incidents that were deleted to make room, or for their age.
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Why more is kept than should be, in words.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Makes the file the older one and begins another. Where that can't be, this one grows on.
    fn rotate(&mut self) -> bool {
        let done = self.put_away().and_then(|()| append_to(&self.path));
        self.trouble = done.as_ref().err().map(ToString::to_string);
        let Ok(file) = done else { return false };
        // The folder's lock is what counts.
        let _ = file.try_lock();
        (self.file, self.cut, self.begun) = (file, false, SystemTime::now());
        true
    }

    fn put_away(&mut self) -> io::Result<()> {
        let meta = self.file.metadata()?;
        // It has its new name already, and only the next could not be begun; or somebody took it away.
        if inode(&self.path) != Some((meta.dev(), meta.ino())) {
            return Ok(());
        }
        let gone = fs::metadata(&self.older).map_or(0, |meta| meta.len());
        fs::rename(&self.path, &self.older)?;
        self.deleted += gone;
        Ok(())
    }
}

fn append_to(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::incidents;
    use super::*;

    fn ids(store: &Store) -> Vec<String> {
        incidents(store).into_iter().map(|incident| incident.id).collect()
    }

    fn store(folder: &tempfile::TempDir) -> Store {
        Store::create(&folder.path().join("store")).unwrap()
    }

    #[test]
    fn later_lines_replace_and_a_cut_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        assert_eq!(incidents(&store), []);
        let mut log = IncidentLog::open(&store).unwrap();
        log.append(&json!({"id": "a", "count": 1, "explain": "line\nbreak"})).unwrap();
        log.append(&json!({"id": "b", "flow_ids": ["00000000000000ff", "what?"]})).unwrap();
        log.append(&json!({"id": "a", "count": 2})).unwrap();
        drop(log);
        let path = store.incidents_path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"{\"id\":\"c\",\"cou");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(ids(&store), ["a", "b"]);
        let mut first = IncidentLog::open(&store).unwrap();
        assert!(matches!(IncidentLog::open(&store), Err(StoreError::Busy { .. })));
        first.append(&json!({"id": "d"})).unwrap();
        assert_eq!(ids(&store), ["a", "b", "d"]);
        let incidents = incidents(&store);
        assert_eq!(incidents[0].rest["count"], 2);
        assert_eq!(incidents[1].flows().collect::<Vec<_>>(), [255]);
    }

    #[test]
    fn a_disk_that_refuses_a_line_leaves_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        // Takes nothing, and can't be cut back either.
        std::os::unix::fs::symlink("/dev/full", store.incidents_path()).unwrap();
        let mut log = IncidentLog::open(&store).unwrap();
        let error = log.append(&json!({"id": "a"})).unwrap_err();
        assert!(matches!(error, StoreError::Unwritable { .. }), "{error}");
        assert!(log.cut, "so the next line begins by ending this one");
        drop(log);
        fs::remove_file(store.incidents_path()).unwrap();
        fs::write(store.incidents_path(), "{\"id\":\"torn").unwrap();
        let mut log = IncidentLog::open(&store).unwrap();
        assert_eq!(fs::metadata(store.incidents_path()).unwrap().len(), 11, "opening writes nothing");
        log.append(&json!({"id": "b"})).unwrap();
        log.append(&json!({"id": "c"})).unwrap();
        assert_eq!(ids(&store), ["b", "c"]);
    }

    #[test]
    fn both_files_stay_within_the_bound_and_the_newest_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let mut log = IncidentLog::open(&store).unwrap().bounded(200, None);
        for number in 0..100 {
            log.append(&json!({"id": format!("{number:04}")})).unwrap();
            let size = |path: PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
            let (newer, older) = (size(store.incidents_path()), size(store.older_incidents_path()));
            assert!(newer + older <= 200);
            let kept = ids(&store);
            let first = number + 1 - kept.len();
            assert!(kept.len() > 6 || first == 0);
            assert!(kept.iter().enumerate().all(|(nth, id)| *id == format!("{:04}", first + nth)));
            assert_eq!(log.deleted(), first as u64 * 14, "{kept:?}");
            assert!(matches!(IncidentLog::open(&store), Err(StoreError::Busy { .. })));
        }
        assert_eq!(log.trouble(), None);
        // One that is larger than the bound is kept all the same.
        log.append(&json!({"id": "large", "explain": "x".repeat(300)})).unwrap();
        assert_eq!(ids(&store).last().unwrap(), "large");
    }

    #[test]
    fn a_kill_between_the_steps_loses_and_repeats_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let line = |id: &str| json!({ "id": id });
        let mut log = IncidentLog::open(&store).unwrap().bounded(30, None);
        log.append(&line("a")).unwrap();
        // After the renaming, before the new file.
        drop(log);
        fs::rename(store.incidents_path(), store.older_incidents_path()).unwrap();
        assert_eq!(ids(&store), ["a"]);
        let mut log = IncidentLog::open(&store).unwrap().bounded(30, None);
        assert_eq!(ids(&store), ["a"]);
        log.append(&line("b")).unwrap();
        assert_eq!(ids(&store), ["a", "b"]);
        // A new file that can't be begun: what is written meanwhile goes to the older one.
        fs::rename(store.incidents_path(), store.older_incidents_path()).unwrap();
        fs::create_dir(store.incidents_path()).unwrap();
        log.append(&line("c")).unwrap();
        assert!(log.trouble().is_some());
        fs::remove_dir(store.incidents_path()).unwrap();
        assert_eq!(ids(&store), ["b", "c"]);
        log.append(&line("d")).unwrap();
        assert_eq!((ids(&store), log.trouble()), (vec!["b".into(), "c".into(), "d".into()], None));
        // With a torn last line in the file that is put away.
        drop(log);
        let torn = [fs::read(store.incidents_path()).unwrap(), b"{\"id\":\"to".to_vec()].concat();
        fs::write(store.incidents_path(), torn).unwrap();
        let mut log = IncidentLog::open(&store).unwrap().bounded(30, None);
        log.append(&line("e")).unwrap();
        assert_eq!(ids(&store), ["d", "e"]);
        assert_eq!(fs::read(store.incidents_path()).unwrap(), b"{\"id\":\"e\"}\n");
    }

    #[test]
    fn lines_are_kept_as_long_as_they_should_and_not_twice_as_long() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let age = Duration::from_secs(3600);
        let mut log = IncidentLog::open(&store).unwrap().bounded(1 << 20, Some(age));
        log.append(&json!({"id": "a"})).unwrap();
        let written = SystemTime::now();
        log.grow_old(written + age / 2);
        assert!(!store.older_incidents_path().exists());
        log.grow_old(written + age + age / 2);
        assert_eq!(ids(&store), [] as [&str; 0], "of one file, whose last line is as old");
        assert_eq!(log.deleted(), 11);
    }
}
