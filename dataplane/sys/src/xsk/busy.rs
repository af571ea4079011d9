//! Busy polling: the driver's receive loop runs on the core of whoever reads the socket, when they ask for it
//! (Documentation/networking/napi.rst, "busy polling"). Set up on the main thread, used by a worker.
//!
//! Interrupts keep out of the way only if the interface's `napi_defer_hard_irqs` and `gro_flush_timeout` are set.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{BURST, Socket};

/// How long one call may look for packets, us; what is there is taken at once.
const LOOK: i32 = 20;

/// Asks for it.
///
/// # Errors
/// Those of `setsockopt(2)`: EPERM without the capability net_admin, ENOPROTOOPT before Linux 5.11.
pub(super) fn prefer(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SO_PREFER_BUSY_POLL, 1)?;
    set(socket, libc::SO_BUSY_POLL, LOOK)?;
    set(socket, libc::SO_BUSY_POLL_BUDGET, BURST as i32)
}

fn set(socket: &Socket, option: i32, value: i32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `value`, which outlives the call.
    let set =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, std::ptr::from_ref(&value).cast(), size) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What it answers makes no difference: packets are in the ring or they are not.
#[inline]
pub(super) fn poll(socket: &Socket) {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: no buffer is given, and none of the socket's memory but its own rings is written to.
    unsafe {
        libc::recvfrom(
            fd,
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}
