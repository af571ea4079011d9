//! The store's incidents: one JSON object a line, appended while packets are recorded and read back line by line.
//!
//! Appending runs on the judge's or main's thread, reading wherever captures are read; never on a worker. The file may
//! hold any number of lines: whoever reads it keeps what it needs, and [`LinePlace`] finds a line again.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::store::{Store, StoreError};

/// Longest line read back, bytes; a longer one is none of ours.
const LINE_LIMIT: u64 = 16 << 20;

/// Where a line is in the file, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinePlace {
    pub at: u64,
    pub len: u32,
}

/// The file, line by line.
#[derive(Debug)]
pub struct IncidentLines {
    input: BufReader<File>,
    path: PathBuf,
    /// Where the next line begins.
    at: u64,
    line: Vec<u8>,
}

/// One line of the file.
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

impl IncidentLines {
    /// From the line that begins at byte `at`; `None` where the store has no incidents yet.
    pub fn open(store: &Store, at: u64) -> Result<Option<IncidentLines>, StoreError> {
        let path = store.incidents_path();
        let open = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(at))?;
            Ok::<_, io::Error>(file)
        };
        match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path, source }),
            Ok(file) => Ok(Some(IncidentLines {
                input: BufReader::with_capacity(64 << 10, file),
                path,
                at,
                line: Vec::new(),
            })),
        }
    }

    /// The next line; `None` at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<IncidentLine<'_>>, StoreError> {
        self.line.clear();
        let read = self.input.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut self.line);
        let read = read.map_err(|source| StoreError::Read { path: self.path.clone(), source })?;
        if read == 0 {
            return Ok(None);
        }
        let at = self.at;
        self.at += read as u64;
        let ended = self.line.last() == Some(&b'\n');
        if ended {
            self.line.pop();
        }
        let len = u32::try_from(self.line.len()).unwrap_or(u32::MAX);
        Ok(Some(IncidentLine { place: LinePlace { at, len }, bytes: &self.line, ended }))
    }

    /// Where the next line begins.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The open file: a line's place stays good in it, whatever becomes of the name.
    pub fn into_file(self) -> File {
        self.input.into_inner()
    }
}

/// A line read before, once more.
pub(super) fn read_again(file: &File, place: LinePlace) -> io::Result<Vec<u8>> {
    let mut line = vec![0; place.len as usize];
    file.read_exact_at(&mut line, place.at)?;
    Ok(line)
}

/// The id alone.
#[derive(Deserialize)]
struct Id {
    id: String,
}

impl Store {
    /// Shows every incident line that can be read, in the order they were written, replaced ones included. Returns
    /// the number of lines that can't be.
    pub fn each_incident<T: serde::de::DeserializeOwned>(
        &self,
        mut visit: impl FnMut(LinePlace, T),
    ) -> Result<u64, StoreError> {
        let mut unreadable = 0;
        let Some(mut lines) = IncidentLines::open(self, 0)? else { return Ok(0) };
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
        self.incident_after(id, 0)
    }

    /// The last of the lines from byte `at` on that tell of one incident.
    pub(super) fn incident_after(&self, id: &str, at: u64) -> Result<Option<IncidentRecord>, StoreError> {
        let mut found = None;
        let Some(mut lines) = IncidentLines::open(self, at)? else { return Ok(None) };
        while let Some(line) = lines.next_line()? {
            if line.parse::<Id>().is_some_and(|line| line.id == id) {
                found = line.parse().or(found);
            }
        }
        Ok(found)
    }

    /// How many incidents there are, and how many lines that can't be read.
    pub fn count_incidents(&self) -> Result<(u64, u64), StoreError> {
        let (mut known, hasher) = (HashSet::new(), RandomState::new());
        let unreadable = self.each_incident(|_, line: IncidentRecord| {
            known.insert(hasher.hash_one(&line.id));
        })?;
        Ok((known.len() as u64, unreadable))
    }

    /// All incidents as last written, in the order of their first line. Holds all of them in memory: where there may
    /// be many, [`Store::each_incident`] is the better way.
    pub fn incidents(&self) -> Result<Vec<IncidentRecord>, StoreError> {
        let mut records: Vec<IncidentRecord> = Vec::new();
        let mut places = std::collections::HashMap::new();
        self.each_incident(|_, record: IncidentRecord| {
            let place = *places.entry(record.id.clone()).or_insert(records.len());
            match records.get_mut(place) {
                Some(known) => *known = record,
                None => records.push(record),
            }
        })?;
        Ok(records)
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
            Ok((_, true, _)) => Err(StoreError::Busy { path: store.root().to_path_buf() }),
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
    use std::fs;

    use serde_json::json;

    use super::*;

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
        let busy = IncidentLog::open(&store).unwrap_err().to_string();
        let named = format!("another program is writing to the store {};", store.root().display());
        assert!(busy.starts_with(&named), "{busy}");
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
    fn a_line_is_found_again_and_one_being_written_has_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        assert!(IncidentLines::open(&store, 0).unwrap().is_none());
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
        let file = IncidentLines::open(&store, 0).unwrap().unwrap().into_file();
        assert_eq!(read_again(&file, places[1].0).unwrap(), b"{\"id\":\"b\",\"n\":1}");
        assert_eq!(store.incident("b").unwrap().unwrap().rest["n"], 2);
        let mut lines = IncidentLines::open(&store, places[1].0.at).unwrap().unwrap();
        assert!(lines.next_line().unwrap().unwrap().ended);
        assert_eq!(lines.position(), places[2].0.at);
        assert!(!lines.next_line().unwrap().unwrap().ended);
        assert!(lines.next_line().unwrap().is_none());
    }
}
