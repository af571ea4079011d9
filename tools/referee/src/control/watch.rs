//! Whether something happened to the rule files: inotify on their folder, and once a second a look whether the folder
//! itself is still the same one.
//!
//! Control thread. Only says that there is something to read, or that somebody is still writing; reads no rule.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::rules::load::is_rule_file;

/// A file that was begun to be written and then left alone for so long counts as written.
const WRITTEN_BY_NOW: Duration = Duration::from_secs(10);

/// What a folder is recognised by, and when something in it was last made, renamed or deleted.
type Identity = (u64, u64, i64, i64);

/// The folder of the rule files, watched.
pub struct Watch {
    inotify: OwnedFd,
    folder: Option<PathBuf>,
    /// Of the folder that is watched now.
    watched: Option<(i32, Identity)>,
    /// Files being written, and when that was last seen.
    writing: BTreeMap<OsString, Instant>,
}

impl Watch {
    /// # Errors
    /// Those of `inotify(7)`.
    pub fn new() -> io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Watch { inotify, folder: None, watched: None, writing: BTreeMap::new() })
    }

    /// To be told when there is something to [`Watch::look`] at.
    pub fn fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }

    /// Watches the folder this is, or this is in.
    pub fn follow(&mut self, path: Option<&Path>) {
        let folder = path.map(|path| match path.is_file() {
            true => path
                .parent()
                .filter(|folder| *folder != Path::new(""))
                .unwrap_or(Path::new("."))
                .to_path_buf(),
            false => path.to_path_buf(),
        });
        if folder != self.folder {
            self.folder = folder;
            self.arm();
        }
    }

    fn identity(&self) -> Option<Identity> {
        let meta = fs::metadata(self.folder.as_ref()?).ok()?;
        Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
    }

    fn arm(&mut self) {
        if let Some((watch, _)) = self.watched.take() {
            // It may have gone with its folder.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
        self.writing.clear();
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let identity = self.identity();
        let armed =
            self.folder.as_ref().and_then(|folder| inotify::add_watch(&self.inotify, folder, what).ok());
        self.watched = armed.zip(identity);
    }

    /// Takes what happened since the last call; true if the files may be others now.
    pub fn look(&mut self) -> bool {
        let mut happened = self.read();
        let before = self.writing.len();
        self.writing.retain(|_, since| since.elapsed() < WRITTEN_BY_NOW);
        happened |= self.writing.len() < before;
        let identity = self.identity();
        if identity != self.watched.map(|(_, identity)| identity) {
            happened = true;
            match (&mut self.watched, identity) {
                (Some((_, known)), Some(now)) if (known.0, known.1) == (now.0, now.1) => *known = now,
                _ => self.arm(),
            }
        }
        happened
    }

    /// A rule file that somebody writes to just now.
    pub fn being_written(&self) -> Option<PathBuf> {
        self.writing.keys().next().zip(self.folder.as_ref()).map(|(name, folder)| folder.join(name))
    }

    fn read(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Vec::new();
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
                    events.push((event.wd(), event.events(), name));
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let watch = self.watched.map(|(watch, _)| watch);
        events.into_iter().fold(false, |happened, (wd, what, name)| {
            let of_folder = Some(wd) == watch || what.contains(ReadFlags::QUEUE_OVERFLOW);
            happened | (of_folder && self.event(what, name))
        })
    }

    fn event(&mut self, what: ReadFlags, name: Option<OsString>) -> bool {
        let (Some(name), Some(folder)) = (name, &self.folder) else {
            // About the folder, or events were lost.
            self.writing.clear();
            return true;
        };
        let path = folder.join(&name);
        if what.contains(ReadFlags::CREATE) {
            let Ok(meta) = fs::symlink_metadata(&path) else { return false };
            // A link is there at once; anything else is going to be written, and closed.
            if !meta.is_file() || meta.nlink() > 1 {
                return true;
            }
        }
        if what.intersects(ReadFlags::CREATE | ReadFlags::MODIFY) {
            if is_rule_file(&path) {
                self.writing.insert(name, Instant::now());
            }
            return false;
        }
        if !what.contains(ReadFlags::ATTRIB) {
            self.writing.remove(&name);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn watching(path: &Path) -> Watch {
        let mut watch = Watch::new().unwrap();
        watch.follow(Some(path));
        watch.look();
        watch
    }

    #[test]
    fn a_file_is_being_written_from_its_first_byte_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watching(dir.path());
        let mut file = fs::File::create(dir.path().join("a.rhai")).unwrap();
        watch.look();
        assert_eq!(watch.being_written(), Some(dir.path().join("a.rhai")));
        drop(file);
        assert!(watch.look() && watch.being_written().is_none());
        file = fs::File::options().write(true).truncate(true).open(dir.path().join("a.rhai")).unwrap();
        assert!(!watch.look() || watch.being_written().is_some());
        file.write_all(b"x").unwrap();
        watch.look();
        assert!(watch.being_written().is_some());
        fs::rename(dir.path().join("a.rhai"), dir.path().join("b.rhai")).unwrap();
        assert!(watch.look() && watch.being_written().is_none());
        fs::File::create(dir.path().join(".a.rhai.swp")).unwrap().write_all(b"x").unwrap();
        watch.look();
        assert!(watch.being_written().is_none(), "what is no rule file may be written at any time");
    }

    #[test]
    fn whatever_happens_to_a_file_or_its_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (rules, other) = (dir.path().join("rules"), dir.path().join("other"));
        for folder in [&rules, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("a.rhai"), "x").unwrap();
        }
        let mut watch = watching(&rules);
        assert!(!watch.look());
        let steps: [(&str, &dyn Fn() -> io::Result<()>); 7] = [
            ("a link", &|| std::os::unix::fs::symlink(other.join("a.rhai"), rules.join("b.rhai"))),
            ("a hard link", &|| fs::hard_link(other.join("a.rhai"), rules.join("c.rhai"))),
            ("gone", &|| fs::remove_file(rules.join("c.rhai"))),
            ("moved in", &|| fs::rename(rules.join("a.rhai"), rules.join("d.rhai"))),
            ("the folder is another", &|| {
                fs::rename(&rules, dir.path().join("old")).and_then(|()| fs::rename(&other, &rules))
            }),
            ("written there", &|| fs::write(rules.join("a.rhai"), "y")),
            ("all gone", &|| fs::remove_dir_all(&rules)),
        ];
        for (what, step) in steps {
            step().unwrap();
            assert!(watch.look(), "{what}");
            assert!(!watch.look(), "{what}: once");
        }
        fs::create_dir(&rules).unwrap();
        assert!(watch.look(), "it is there again");
        fs::write(rules.join("a.rhai"), "z").unwrap();
        assert!(watch.look());
    }
}
