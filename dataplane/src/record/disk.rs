//! What the writer does to a disk, as a trait, and the real one. Tests put a faulty disk in its place.
//!
//! Runs on the writer's thread and may block there. Names are file names inside `segments/`. The data ends
//! here.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
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
    /// Whether an open file still has its name: nobody has deleted, moved or replaced it.
    fn is_there(&mut self, name: &str) -> bool;
    /// Makes the folder anew if somebody has removed it.
    fn restore(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        let path = self.folder.join(name);
        let open = || OpenOptions::new().append(true).create_new(true).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.restore().and_then(|()| open())?,
            other => other?,
        };
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

    fn is_there(&mut self, name: &str) -> bool {
        let Some(open) = self.open.get(name) else { return false };
        let both = fs::symlink_metadata(self.folder.join(name)).and_then(|it| Ok((it, open.metadata()?)));
        match both {
            Ok((named, open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            // Of what can't be looked at nothing is known.
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        }
    }

    fn restore(&mut self) -> io::Result<()> {
        match fs::create_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_its_name_is_gone_and_the_folder_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("segments");
        let mut disk = RealDisk::new(&folder);
        for name in ["removed", "moved", "replaced", "with-the-folder"] {
            disk.create(name).unwrap();
            assert!(disk.is_there(name));
        }
        fs::remove_file(folder.join("removed")).unwrap();
        fs::rename(folder.join("moved"), folder.join("elsewhere")).unwrap();
        fs::remove_file(folder.join("replaced")).unwrap();
        fs::write(folder.join("replaced"), "").unwrap();
        assert!(!["removed", "moved", "replaced", "never"].iter().any(|name| disk.is_there(name)));
        fs::remove_dir_all(&folder).unwrap();
        assert!(!disk.is_there("with-the-folder"));
        disk.restore().unwrap();
        disk.restore().unwrap();
        assert!(folder.is_dir());
    }
}
