//! Room for sorting: where an export puts packets that don't fit into its memory, and how much memory that is.
//!
//! Runs wherever captures are read. A file has no name any more once it is open, so that nothing stays behind however
//! the export ends; it is readable by its owner alone. `runs` and `merge` write and read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::store::Store;
use super::ExportError;

/// Packets held in memory before they are put on the disk, bytes.
const RUN_BYTES: usize = 8 << 20;

/// What merging may hold in memory, bytes.
const MERGE_BYTES: usize = 16 << 20;

/// Bytes left free for others, the recorder first of all; a twentieth of a small disk.
const LEFT_FREE: u64 = 256 << 20;

/// Bytes between two looks at how much room there is.
const LOOK_BYTES: u64 = 8 << 20;

/// Where an export may put its packets while it sorts them.
#[derive(Clone, Debug)]
pub struct Spool {
    /// The first that takes a file is used.
    folders: Vec<PathBuf>,
    pub(super) run_bytes: usize,
    pub(super) merge_bytes: usize,
    stop: Option<Arc<AtomicBool>>,
}

impl Spool {
    /// In the store's own folder; where that can't be written to, in `$TMPDIR` or `/var/tmp`.
    pub fn beside(store: &Store) -> Spool {
        let temporary = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let folders = [Some(store.root().to_path_buf()), temporary, Some("/var/tmp".into())];
        Spool::new(folders.into_iter().flatten().collect())
    }

    /// In the first of these folders that takes a file.
    pub fn new(folders: Vec<PathBuf>) -> Spool {
        Spool { folders, run_bytes: RUN_BYTES, merge_bytes: MERGE_BYTES, stop: None }
    }

    /// One that sorts on the disk what others sort in memory.
    #[cfg(test)]
    pub(super) fn small(folder: &Path, run_bytes: usize, merge_bytes: usize) -> Spool {
        Spool { run_bytes, merge_bytes, ..Spool::new(vec![folder.to_path_buf()]) }
    }

    /// Gives the export up, with [`ExportError::Stopped`], when `stop` becomes true.
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Spool {
        Spool { stop: Some(stop), ..self }
    }

    pub(super) fn check(&self) -> Result<(), ExportError> {
        match &self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(ExportError::Stopped),
            _ => Ok(()),
        }
    }

    pub(super) fn file(&self) -> Result<SpoolFile, ExportError> {
        let mut refused = None;
        for folder in &self.folders {
            match unnamed(folder) {
                Ok(file) => return Ok(SpoolFile { file, folder: folder.clone(), len: 0, looked: None }),
                Err(error) => refused = refused.or(Some((folder.clone(), error))),
            }
        }
        let (folder, source) = refused.unwrap_or_else(|| (PathBuf::new(), io::ErrorKind::NotFound.into()));
        Err(ExportError::Spool { folder, source })
    }
}

fn unnamed(folder: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".export-{}-{number}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            // A process of the same number, in another namespace, is at the same.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            opened => {
                let file = opened?;
                fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
}

/// A file without a name.
#[derive(Debug)]
pub(super) struct SpoolFile {
    pub(super) file: File,
    folder: PathBuf,
    /// Bytes written.
    pub(super) len: u64,
    /// Its length when the room was last looked at.
    looked: Option<u64>,
}

impl SpoolFile {
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        let failed = |source| ExportError::Spool { folder: self.folder.clone(), source };
        if self.looked.is_none_or(|looked| self.len - looked >= LOOK_BYTES) {
            enough_room(&self.file).map_err(failed)?;
            self.looked = Some(self.len);
        }
        (&self.file).write_all(bytes).map_err(failed)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn failed(&self, source: io::Error) -> ExportError {
        ExportError::Spool { folder: self.folder.clone(), source }
    }
}

fn enough_room(file: &File) -> io::Result<()> {
    let disk = rustix::fs::fstatvfs(file)?;
    let left = LEFT_FREE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 20);
    match disk.f_bavail.saturating_mul(disk.f_frsize) >= left {
        true => Ok(()),
        false => {
            Err(io::Error::new(io::ErrorKind::StorageFull, "the last of the disk is left to the recorder"))
        }
    }
}

/// Writes into a spool file in large pieces.
pub(super) struct Appender<'a> {
    into: &'a mut SpoolFile,
    waiting: Vec<u8>,
}

/// Bytes written at a time.
const PIECE: usize = 256 << 10;

impl<'a> Appender<'a> {
    pub(super) fn new(into: &'a mut SpoolFile) -> Appender<'a> {
        Appender { into, waiting: Vec::with_capacity(PIECE) }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        if self.waiting.len() + bytes.len() > PIECE {
            self.into.append(&self.waiting)?;
            self.waiting.clear();
        }
        if bytes.len() > PIECE {
            return self.into.append(bytes);
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(), ExportError> {
        self.into.append(&self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_file_has_no_name_and_holds_what_was_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(vec![folder.path().join("none"), folder.path().to_path_buf()]);
        let mut file = spool.file().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut appender = Appender::new(&mut file);
        let large = vec![7; PIECE + 1];
        for bytes in [&b"one"[..], &large, b"two"] {
            appender.put(bytes).unwrap();
        }
        appender.finish().unwrap();
        assert_eq!(file.len, large.len() as u64 + 6);
        let mut end = [0; 4];
        file.file.read_exact_at(&mut end, file.len - 4).unwrap();
        assert_eq!(&end, b"\x07two");
    }

    #[test]
    fn without_a_folder_it_says_which() {
        let error = Spool::new(vec!["/none/such".into(), "/none/other".into()]).file().unwrap_err();
        assert!(error.to_string().contains("/none/such"), "{error}");
    }
}
