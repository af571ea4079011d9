//! What the writer does to a disk, as a trait, and the real one. Tests put a faulty disk in its place.
//!
//! Runs on the writer's thread and may block there. Names are file names inside `segments/`. The data ends
//! here.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The files of a store's `segments/`. A file is open from `create` until `close` or `remove`.
pub trait Disk: Send {
    /// Makes and opens an empty file. `AlreadyExists` if there is one.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes at the end of an open file, as many bytes as the disk takes; returns how many.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<usize>;
    /// Returns when an open file, and its name, would survive a power cut.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Cuts an open file to this many bytes.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Lets go of an open file.
    fn close(&mut self, name: &str);
    /// Deletes a file, open or not.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Names and sizes of all files.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;
}

/// A folder of the file system.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    open: HashMap<String, File>,
}

impl RealDisk {
    /// `folder` exists: [`Store::segments`](super::Store::segments) of an opened store.
    pub fn new(folder: &Path) -> RealDisk {
        RealDisk { folder: folder.to_path_buf(), open: HashMap::new() }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.open.get_mut(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "file is not open"))
    }
}

impl Disk for RealDisk {
    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create_new(true).open(self.folder.join(name))?;
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<usize> {
        self.file(name)?.write(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name)?.set_len(len)
    }

    fn close(&mut self, name: &str) {
        self.open.remove(name);
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        fs::remove_file(self.folder.join(name))
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }
}
