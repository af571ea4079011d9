//! What ends a run from outside: SIGINT and SIGTERM; and SIGHUP, which reloads its rules.
//!
//! Handlers only set a flag, which main looks at, or write a byte, which the control thread reads. A program that waits for
//! others has a thread wait for the signal.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Waiting;
use signal_hook::{flag, low_level};

use crate::error::Failure;

/// A byte for each SIGHUP from now on. One that comes while a run is being set up waits there, and ends nothing.
///
/// # Errors
/// Failed: signals can't be listened to.
pub fn hangups() -> Result<UnixStream, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("signals can't be listened to: {error}"));
    let (hangups, signalled) = UnixStream::pair().map_err(failed)?;
    hangups.set_nonblocking(true).map_err(failed)?;
    low_level::pipe::register(SIGHUP, signalled).map_err(failed)?;
    Ok(hangups)
}

/// The signals that end a run. A second one ends it at once.
pub struct Signals {
    stop: Arc<AtomicBool>,
}

impl Signals {
    /// # Errors
    /// Failed: signals can't be listened to.
    pub fn listen() -> Result<Signals, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal sets the flag, the second finds it set.
            flag::register_conditional_default(signal, Arc::clone(&stop))
                .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                .map_err(|error| Failure::failed(format!("signals can't be listened to: {error}")))?;
        }
        Ok(Signals { stop })
    }

    pub fn came(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Set, it ends the run as a signal does.
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }
}

/// From now on a signal ends this program, with success, once `last` is done.
///
/// # Errors
/// Failed: signals can't be listened to.
pub fn end_when_told(last: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("signals can't be listened to: {error}"));
    let mut signals = Waiting::new([SIGINT, SIGTERM]).map_err(failed)?;
    let wait = move || {
        if signals.forever().next().is_some() {
            last();
            std::process::exit(0);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop).map_err(failed)
}
