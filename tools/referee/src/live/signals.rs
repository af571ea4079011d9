//! What ends a run from outside: SIGINT and SIGTERM.
//!
//! Handlers only set a flag; main looks at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::Failure;

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
