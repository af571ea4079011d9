//! The store's incidents: one JSON object a line, read back line by line.
//!
//! Runs wherever captures are read; never on a worker. They lie in two files, an older and a newer one (`incident_log`
//! appends and rotates); who reads has both open as they were at one moment, whatever becomes of their names. There may be
//! any number of lines: whoever reads them keeps what it needs, and [`LinePlace`] finds a line again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::query::{Finder, ReadAll};
use super::store::{Store, StoreError};

/// Longest line read back, bytes; a longer one is none of ours.
const LINE_LIMIT: u64 = 16 << 20;

/// Bytes by which the beginning of a file is known again.
const HEAD: usize = 256;

/// How often opening is tried again when the files are rotated under it.
const TRIES: usize = 16;

/// Where a line is, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinePlace {
    /// Which of the open files, from 0, the oldest.
    pub file: usize,
    pub at: u64,
    pub len: u32,
}

/// What a file is known again by, under whatever name. The beginning tells it from another that was given its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    pub device: u64,
    pub inode: u64,
    /// Hash of its beginning.
    pub head: u64,
}

/// The incidents' files as they were at one moment, open.
#[derive(Debug)]
pub struct IncidentFiles {
    /// Older first.
    files: Vec<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    path: PathBuf,
    inode: (u64, u64),
}

impl OpenFile {
    fn open(path: &Path) -> Result<Option<OpenFile>, StoreError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path: path.to_path_buf(), source }),
            Ok((meta, file)) => {
                Ok(Some(OpenFile { file, path: path.to_path_buf(), inode: (meta.dev(), meta.ino()) }))
            }
        }
    }
}

/// A file's device and number; `None` if there is none.
pub(super) fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl IncidentFiles {
    fn open(store: &Store) -> Result<IncidentFiles, StoreError> {
        let path = store.incidents_path();
        let mut tries = 0;
        loop {
            tries += 1;
            // The newer one first: what is rotated in between is found once more, and not missed.
            let newer = OpenFile::open(&path)?;
            let older = OpenFile::open(&store.older_incidents_path())?;
            let seen = newer.as_ref().map(|newer| newer.inode);
            if inode(&path) == seen || tries == TRIES {
                let older = older.filter(|older| Some(older.inode) != seen);
                return Ok(IncidentFiles { files: older.into_iter().chain(newer).collect() });
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Bytes of a file so far.
    pub fn len(&self, file: usize) -> u64 {
        let meta = self.files.get(file).and_then(|open| open.file.metadata().ok());
        meta.map_or(0, |meta| meta.len())
    }

    /// What a file is known by; `None` as long as it has no line.
    pub fn identity(&self, file: usize) -> Option<FileIdentity> {
        let open = self.files.get(file)?;
        let mut head = Vec::with_capacity(HEAD);
        let from = Cursor { file: &open.file, at: 0 };
        BufReader::with_capacity(HEAD, from.take(HEAD as u64)).read_until(b'\n', &mut head).ok()?;
        if head.len() < HEAD && head.last() != Some(&b'\n') {
            return None;
        }
        let hash = Sha256::digest(&head);
        let head = u64::from_be_bytes(hash.first_chunk().copied()?);
        Some(FileIdentity { device: open.inode.0, inode: open.inode.1, head })
    }

    /// All lines, each file's from the byte `starts` says, or its first; from `u64::MAX` there are none.
    pub fn lines<'f>(&'f self, starts: &[u64]) -> IncidentLines<'f> {
        IncidentLines { files: self, starts: starts.to_vec(), next: 0, input: None, at: 0, line: Vec::new() }
    }

    /// A line read before, once more.
    pub fn read_again(&self, place: LinePlace) -> io::Result<Vec<u8>> {
        let open = self.files.get(place.file).ok_or(io::ErrorKind::NotFound)?;
        let mut line = vec![0; place.len as usize];
        open.file.read_exact_at(&mut line, place.at)?;
        Ok(line)
    }

    /// One incident as last written, if it is found where the finder says, or behind what that knows.
    fn incident(&self, id: &str, known: &Told) -> Result<Option<IncidentRecord>, StoreError> {
        let again = known.last.and_then(|place| self.read_again(place).ok());
        let mut found = again.and_then(|line| serde_json::from_slice::<IncidentRecord>(&line).ok());
        found = found.filter(|record| record.id == id);
        if known.last.is_some() && found.is_none() {
            // Not the line that the finder meant: all are read.
            return self.incident(id, &Told::default());
        }
        let mut lines = self.lines(&known.read);
        while let Some(line) = lines.next_line()? {
            if line.parse::<Id>().is_some_and(|line| line.id == id) {
                found = line.parse().or(found);
            }
        }
        Ok(found)
    }
}

/// What a [`Finder`] knows of one incident's lines.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its last line, of those that the finder knows.
    pub last: Option<LinePlace>,
    /// Of each file, up to where it knows all lines.
    pub read: Vec<u64>,
}

/// Reads from where it is, without moving anybody else in the file.
#[derive(Debug)]
struct Cursor<'f> {
    file: &'f File,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Behind whatever a file can hold there is nothing, and the system calls it an error.
        let read = if self.at > i64::MAX.cast_unsigned() { 0 } else { self.file.read_at(into, self.at)? };
        self.at += read as u64;
        Ok(read)
    }
}

/// The files, line by line, one after the other.
#[derive(Debug)]
pub struct IncidentLines<'f> {
    files: &'f IncidentFiles,
    starts: Vec<u64>,
    /// The file after this one.
    next: usize,
    input: Option<BufReader<Cursor<'f>>>,
    /// Where the next line begins.
    at: u64,
    line: Vec<u8>,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct IncidentLine<'a> {
    pub place: LinePlace,
    /// Without the line's end.
    pub bytes: &'a [u8],
    /// It has an end; the last one may be being written.
    pub ended: bool,
}

impl IncidentLine<'_> {
    /// The incident; `None` if the line holds none (one cut by a crash, say).
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(self.bytes).ok()
    }
}

impl<'f> IncidentLines<'f> {
    /// The next line; `None` at the end of the last file. Each file is begun as it is then: of one that grows, more lines
    /// may come than there were.
    pub fn next_line(&mut self) -> Result<Option<IncidentLine<'_>>, StoreError> {
        self.line.clear();
        loop {
            let Some(input) = &mut self.input else {
                let Some(open) = self.files.files.get(self.next) else { return Ok(None) };
                self.at = self.starts.get(self.next).copied().unwrap_or(0);
                let from = Cursor { file: &open.file, at: self.at };
                self.input = Some(BufReader::with_capacity(64 << 10, from));
                self.next += 1;
                continue;
            };
            if input.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut self.line).map_err(|source| {
                let open = self.next.checked_sub(1).and_then(|file| self.files.files.get(file));
                StoreError::Read { path: open.map_or_else(PathBuf::new, |open| open.path.clone()), source }
            })? > 0
            {
                break;
            }
            self.input = None;
        }
        let (file, at) = (self.next.saturating_sub(1), self.at);
        self.at += self.line.len() as u64;
        let ended = self.line.last() == Some(&b'\n');
        if ended {
            self.line.pop();
        }
        let len = u32::try_from(self.line.len()).unwrap_or(u32::MAX);
        Ok(Some(IncidentLine { place: LinePlace { file, at, len }, bytes: &self.line, ended }))
    }
}

/// The id alone.
#[derive(Deserialize)]
struct Id {
    id: String,
}

impl Store {
    /// What there is now, opened.
    pub fn incident_files(&self) -> Result<IncidentFiles, StoreError> {
        IncidentFiles::open(self)
    }

    /// Shows every incident line that can be read, in the order they were written, replaced ones included. Returns
    /// the number of lines that can't be.
    pub fn each_incident<T: serde::de::DeserializeOwned>(
        &self,
        mut visit: impl FnMut(LinePlace, T),
    ) -> Result<u64, StoreError> {
        let mut unreadable = 0;
        let files = self.incident_files()?;
        let mut lines = files.lines(&[]);
        while let Some(line) = lines.next_line()? {
            match line.parse() {
                Some(incident) => visit(line.place, incident),
                None => unreadable += 1,
            }
        }
        Ok(unreadable)
    }

    /// One incident as last written.
    pub fn incident(&self, id: &str) -> Result<Option<IncidentRecord>, StoreError> {
        self.incident_by(id, &ReadAll)
    }

    /// The same with a finder, that saves reading.
    pub fn incident_by(&self, id: &str, finder: &dyn Finder) -> Result<Option<IncidentRecord>, StoreError> {
        let files = self.incident_files()?;
        let known = finder.incident(&files, id).unwrap_or_default();
        files.incident(id, &known)
    }

    /// How many incidents there are, and how many lines that can't be read.
    pub fn count_incidents(&self) -> Result<(u64, u64), StoreError> {
        let (mut known, hasher) = (HashSet::new(), RandomState::new());
        let unreadable = self.each_incident(|_, line: Id| {
            known.insert(hasher.hash_one(&line.id));
        })?;
        Ok((known.len() as u64, unreadable))
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

#[cfg(test)]
mod tests {
    use super::super::testing::incidents;
    use super::*;

    fn store(folder: &tempfile::TempDir) -> Store {
        Store::create(&folder.path().join("store")).unwrap()
    }

    #[test]
    fn a_line_is_found_again_and_one_being_written_has_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        assert!(store.incident_files().unwrap().lines(&[]).next_line().unwrap().is_none());
        assert_eq!(store.incident("a").unwrap(), None);
        fs::write(
            store.incidents_path(),
            "{\"id\":\"a\"}\nnonsense\n{\"id\":\"b\",\"n\":1}\n{\"id\":\"b\",\"n\":2}",
        )
        .unwrap();
        let mut places = Vec::new();
        let unreadable = store.each_incident(|place, record: IncidentRecord| places.push((place, record.id)));
        assert_eq!(unreadable.unwrap(), 1);
        assert_eq!(store.count_incidents().unwrap(), (2, 1));
        let files = store.incident_files().unwrap();
        assert_eq!(files.read_again(places[1].0).unwrap(), b"{\"id\":\"b\",\"n\":1}");
        assert_eq!(store.incident("b").unwrap().unwrap().rest["n"], 2);
        let mut lines = files.lines(&[places[1].0.at]);
        assert!(lines.next_line().unwrap().unwrap().ended);
        let last = lines.next_line().unwrap().unwrap();
        assert_eq!((last.place, last.ended), (places[2].0, false));
        assert!(lines.next_line().unwrap().is_none());
    }

    #[test]
    fn the_older_file_comes_first_and_its_torn_end_is_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        fs::write(store.older_incidents_path(), "{\"id\":\"a\",\"n\":1}\n{\"id\":\"torn").unwrap();
        assert_eq!(incidents(&store).len(), 1, "as a kill between two steps of the rotation leaves it");
        fs::write(store.incidents_path(), "{\"id\":\"b\"}\n{\"id\":\"a\",\"n\":2}\n").unwrap();
        let all = incidents(&store);
        assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((&all[0].rest["n"], store.count_incidents().unwrap()), (&2.into(), (2, 1)));
        let files = store.incident_files().unwrap();
        let mut lines = files.lines(&[u64::MAX, 11]);
        let last = lines.next_line().unwrap().unwrap();
        assert_eq!((last.place, last.ended), (LinePlace { file: 1, at: 11, len: 16 }, true));
        assert!(lines.next_line().unwrap().is_none());
    }

    #[test]
    fn a_finder_that_is_wrong_changes_no_answer() {
        struct Says(Told);
        impl Finder for Says {
            fn without(&self, _: &super::super::Sought<'_>) -> HashSet<(String, u64)> {
                HashSet::new()
            }
            fn incident(&self, _: &IncidentFiles, _: &str) -> Option<Told> {
                Some(self.0.clone())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        fs::write(store.incidents_path(), "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"b\",\"n\":2}\n")
            .unwrap();
        let place = |file, at, len| Some(LinePlace { file, at, len });
        let n = |last, read: &[u64]| {
            let found = store.incident_by("b", &Says(Told { last, read: read.to_vec() })).unwrap();
            found.map(|record| record.rest.get("n").cloned())
        };
        assert_eq!(n(place(0, 11, 10), &[22]), Some(Some(2.into())), "a later line stands");
        for wrong in [place(0, 0, 10), place(0, 5, 10), place(0, 11, 1000), place(7, 0, 10)] {
            assert_eq!(n(wrong, &[39]), Some(Some(2.into())));
        }
        assert_eq!(n(None, &[11]), Some(Some(2.into())));
    }

    #[test]
    fn a_file_is_known_again_by_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let identity = || store.incident_files().unwrap().identity(0);
        fs::write(store.incidents_path(), "{\"id\":\"").unwrap();
        assert_eq!(identity(), None, "it has no line");
        fs::write(store.incidents_path(), "{\"id\":\"a\"}\n").unwrap();
        let first = identity();
        assert!(first.is_some());
        fs::rename(store.incidents_path(), store.older_incidents_path()).unwrap();
        assert_eq!(identity(), first);
        fs::rename(store.older_incidents_path(), store.incidents_path()).unwrap();
        // The same number, another file.
        fs::write(store.incidents_path(), "{\"id\":\"b\"}\n").unwrap();
        assert_ne!(identity(), first);
    }
}
