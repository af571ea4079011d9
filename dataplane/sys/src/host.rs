//! What a host is like, as far as only the C library tells: its clock, and which libraries it has.
//!
//! Main thread of a command that examines a host; changes nothing.

use std::ffi::CStr;
use std::io;

/// How well the clock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Something (NTP, PTP) keeps it.
    pub synchronised: bool,
    /// How far it may be off, by whoever keeps it. µs.
    pub largest_error: i64,
}

/// # Errors
/// Those of `adjtimex(2)`.
pub fn clock() -> io::Result<Clock> {
    // SAFETY: timex is integers, for which zero is a value; no mode is set, so that the call only writes to it.
    let (state, now) = unsafe {
        let mut now: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut now), now)
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Clock { synchronised: now.status & libc::STA_UNSYNC == 0, largest_error: now.maxerror })
}

/// The loader finds a library of this name.
pub fn has_library(name: &CStr) -> bool {
    // SAFETY: `name` ends in a zero byte. The library's initialisers run, as they would when it is used; it is closed at
    // once, and nothing of it was taken.
    unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
        !library.is_null() && libc::dlclose(library) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_clock_and_a_c_library() {
        assert!(clock().unwrap().largest_error >= 0);
        assert!(has_library(c"libc.so.6") && !has_library(c"libno-such.so.1"));
    }
}
