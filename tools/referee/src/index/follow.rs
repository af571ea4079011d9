//! The thread of a live run that keeps the store's index: every two seconds it looks for segments that were closed.
//!
//! A thread of its own, with low priority; it reads the store as anybody could and never waits for, or holds up, those
//! who record. What it last failed at goes to the run's main thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dataplane::record::Store;

use super::fill::Filler;

const EVERY: Duration = Duration::from_secs(2);

/// For the segments that are closed at the end of a run; what is not done then is done by the next run.
const LAST_LOOK: Duration = Duration::from_secs(3);

/// How much less than others this thread gets of the CPU.
const NICE: i32 = 10;

/// The thread; dropping it ends it.
#[derive(Debug)]
pub struct Follower {
    thread: Option<JoinHandle<()>>,
    end: Arc<AtomicBool>,
    hurry: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Follower {
    /// Starts it, before anybody writes to the store. Without the thread the store just has no index.
    pub fn spawn(store: &Store) -> Follower {
        let [end, hurry] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let trouble = Arc::new(Mutex::new(None));
        let (told, hurried, tell) = (Arc::clone(&end), Arc::clone(&hurry), Arc::clone(&trouble));
        let mut filler = Filler::before_writing(store);
        let thread = thread::Builder::new().name("index".to_owned()).spawn(move || {
            // Not being allowed to is no reason to do without.
            let _ = rustix::process::nice(NICE);
            let mut over = false;
            while !over {
                over = told.load(Ordering::Acquire);
                let failed = filler.look(&hurried, over).err().map(|error| error.to_string());
                *tell.lock().unwrap_or_else(PoisonError::into_inner) = failed;
                if !over && !told.load(Ordering::Acquire) {
                    thread::park_timeout(EVERY);
                }
            }
        });
        Follower { thread: thread.ok(), end, hurry, trouble }
    }

    /// What the last look failed at.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    /// After the writer has ended: takes in the segments that it closed, as far as there is time.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.end.store(true, Ordering::Release);
        thread.thread().unpark();
        let deadline = Instant::now() + LAST_LOOK;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.hurry.store(true, Ordering::Release);
        // It only keeps an index: whatever ended it, the store is as it should be.
        drop(thread.join());
    }
}
