//! A bell at a sleeping worker's bed: who puts packets into its inbox rings it, and only if it sleeps.
//!
//! Made at start, shared by all workers. While nobody sleeps it costs a look at one flag for each batch that changes
//! hands; no system call, no lock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

#[derive(Debug)]
pub struct Bell {
    asleep: AtomicBool,
    file: OwnedFd,
}

impl Bell {
    /// # Errors
    /// No more files can be opened.
    pub fn new() -> io::Result<Bell> {
        let file = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { asleep: AtomicBool::new(false), file })
    }

    /// What the sleeper waits on, besides its sockets, for edges: it is never read from.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The sleeper's word. Having said that it sleeps, it looks once more for what came before that was seen.
    pub fn sleeps(&self, yes: bool) {
        self.asleep.store(yes, Ordering::Relaxed);
        if yes {
            fence(Ordering::SeqCst);
        }
    }

    /// Wakes the sleeper, if it sleeps, for what was published before this.
    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Should it ever fail, the sleeper wakes by itself within its nap.
        if self.asleep.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.file, &1_u64.to_ne_bytes());
        }
    }
}
