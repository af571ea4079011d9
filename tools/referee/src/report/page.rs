//! A file that is replaced whole, so that whoever reads it never sees half of one: written beside it, then renamed.
//!
//! Main thread. A write that fails is told of and tried again the next time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::access;
use crate::error::Failure;

pub struct Page {
    path: PathBuf,
    /// In the same folder, as renaming needs; its name ends in none that a collector looks for.
    beside: PathBuf,
    /// Why the last write failed.
    error: Option<io::Error>,
    /// People were told that it fails.
    failing: bool,
}

impl Page {
    /// Devices and pipes can't be replaced; nothing and regular files can.
    pub fn suits(path: &Path) -> bool {
        fs::metadata(path).map_or(true, |meta| meta.is_file())
    }

    /// # Errors
    /// Failed: nothing can be written there.
    pub fn open(path: &Path) -> Result<Page, Failure> {
        // Whoever gave a link wants the file behind it to be new.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.new"));
        let page = Page { path, beside, error: None, failing: false };
        page.probe().map(|()| page)
    }

    /// # Errors
    /// Failed: nothing can be written there.
    pub fn probe(&self) -> Result<(), Failure> {
        fs::write(&self.beside, "").and_then(|()| fs::remove_file(&self.beside)).map_err(|error| {
            Failure::failed(format!("{}: can't be made: {error}", self.path.display()))
                .help(access::own_folder(&self.path, &error))
        })
    }

    pub fn write(&mut self, text: &str) {
        let written = fs::write(&self.beside, text).and_then(|()| fs::rename(&self.beside, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&self.beside);
        }
        self.error = written.err();
    }

    /// Says when it begins to fail and when it works again.
    pub fn news(&mut self) -> Option<String> {
        let path = self.path.display();
        let news = match &self.error {
            Some(error) if !self.failing => format!("{path} can't be written: {error}; it is tried again"),
            None if self.failing => format!("{path} can be written again"),
            _ => return None,
        };
        self.failing = !self.failing;
        Some(news)
    }

    pub fn failure(&self) -> Option<Failure> {
        let error = self.error.as_ref()?;
        let what = format!("{} can't be written: {error}; what is there is older", self.path.display());
        Some(Failure::failed(what).help("make room, or name a path on another disk"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_the_old_file_or_the_new_one_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("referee.prom");
        let mut page = Page::open(&path).unwrap();
        assert!(!path.exists(), "nothing is shown before there is something to show");
        page.write("one");
        let old = fs::File::open(&path).unwrap();
        page.write("two");
        assert_eq!(io::read_to_string(old).unwrap(), "one");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(page.news().is_none() && page.failure().is_none());
    }

    #[test]
    fn what_fails_is_said_once_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        assert!(Page::open(&inner.join("x.prom")).is_err());
        fs::create_dir(&inner).unwrap();
        let mut page = Page::open(&inner.join("x.prom")).unwrap();
        fs::remove_dir(&inner).unwrap();
        page.write("one");
        assert!(page.news().is_some_and(|news| news.contains("tried again")) && page.news().is_none());
        assert!(page.failure().is_some());
        fs::create_dir(&inner).unwrap();
        page.write("two");
        assert!(page.news().is_some_and(|news| news.contains("again")) && page.failure().is_none());
    }

    #[test]
    fn a_device_is_not_replaced() {
        assert!(!Page::suits(Path::new("/dev/null")) && Page::suits(Path::new("/no/such/file")));
    }
}
