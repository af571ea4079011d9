//! A disk in memory that keeps everything, or fails as a seed says: full for a while, broken, short writes,
//! interrupted calls, files that can't be removed.
//!
//! Stands in for the real one under a writer; clones see the same files.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::record::Disk;
use wiregen::rng::Rng;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: Option<Rng>,
    /// Appends for which the disk stays full.
    full_for: u64,
    /// Bytes it takes before it is full for good.
    room: Option<usize>,
}

impl State {
    fn strikes(&mut self, one_in: u64) -> bool {
        self.faults.as_mut().is_some_and(|rng| rng.below(one_in) == 0)
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

impl MemDisk {
    /// A disk that never fails.
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// A disk that fails at random, and after `room` bytes is full for good.
    pub fn faulty(seed: u64, room: Option<usize>) -> MemDisk {
        let state = State { faults: Some(Rng::new(seed)), room, ..State::default() };
        MemDisk(Arc::new(Mutex::new(state)))
    }

    /// Names and contents of all files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().files.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure() -> io::Error {
    io::Error::other("the disk fails as told")
}

impl Disk for MemDisk {
    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.strikes(12) {
            return Err(failure());
        }
        state.files.insert(name.to_owned(), Vec::new());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.strikes(10) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if state.full_for == 0 && state.strikes(25) {
            state.full_for = 5;
        }
        if state.full_for > 0 || state.room == Some(0) {
            state.full_for = state.full_for.saturating_sub(1);
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.strikes(25) {
            return Err(failure());
        }
        let mut len = if state.strikes(3) { bytes.len().div_ceil(3) } else { bytes.len() };
        if let Some(room) = &mut state.room {
            len = len.min(*room);
            *room -= len;
        }
        let file = state.files.get_mut(name).ok_or_else(failure)?;
        file.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        if self.state().strikes(6) { Err(failure()) } else { Ok(()) }
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let file = state.files.get_mut(name).ok_or_else(failure)?;
        file.truncate(len as usize);
        Ok(())
    }

    fn close(&mut self, _: &str) {}

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.strikes(5) {
            return Err(failure());
        }
        state.files.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn is_there(&mut self, name: &str) -> bool {
        self.state().files.contains_key(name)
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.state().files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }
}
