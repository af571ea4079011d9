//! The thread that a writer runs on: it sleeps while there is nothing to write and publishes the account.
//!
//! Owns the writer, which alone touches the disk; a handle on main's side tells it the time and when to end. No worker
//! ever waits for it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::source::Nanos;

use super::writer::{Writer, WriterAccount};

/// How long an idle writer sleeps before it looks again, at first and at most; a worker never wakes it.
const NAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// A writer on its own thread. Dropping it stops the thread and waits for it.
#[derive(Debug)]
pub struct WriterHandle {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// See [`Writer::advance`]; 0: nobody said.
    clock: Arc<AtomicU64>,
    account: Arc<Mutex<WriterAccount>>,
}

/// Runs a writer on a thread of its own until [`WriterHandle::stop`]. Fails if no thread can be made.
pub fn spawn(mut writer: Writer) -> io::Result<WriterHandle> {
    let stop = Arc::new(AtomicBool::new(false));
    let account = Arc::new(Mutex::new(writer.account().clone()));
    let clock = Arc::new(AtomicU64::new(0));
    let (told, published, time) = (Arc::clone(&stop), Arc::clone(&account), Arc::clone(&clock));
    let thread = thread::Builder::new().name("writer".to_owned()).spawn(move || {
        let publish =
            |w: &Writer| published.lock().unwrap_or_else(PoisonError::into_inner).clone_from(w.account());
        let mut nap = NAPS.0;
        while !told.load(Ordering::Acquire) {
            let missed = writer.advance(time.load(Ordering::Relaxed));
            if writer.pump() || missed {
                publish(&writer);
                nap = NAPS.0;
            } else {
                thread::park_timeout(nap);
                nap = (nap * 2).min(NAPS.1);
            }
        }
        writer.close();
        publish(&writer);
    })?;
    Ok(WriterHandle { thread: Some(thread), stop, clock, account })
}

impl WriterHandle {
    /// The account as of the last chunk. Takes a lock the writer also takes: not for workers.
    pub fn account(&self) -> WriterAccount {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what time it is; see [`Writer::advance`].
    pub fn advance(&self, now: Nanos) {
        self.clock.store(now, Ordering::Relaxed);
    }

    /// Wakes the writer early; never needed for correctness.
    pub fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// After the recorders have flushed: writes what was handed over, closes the segments, ends the thread
    /// and returns the final account.
    pub fn stop(mut self) -> WriterAccount {
        self.join();
        self.account()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
            account.failing = true;
            account.last_error = Some("the writer thread ended by a fault of its own".to_owned());
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        self.join();
    }
}
