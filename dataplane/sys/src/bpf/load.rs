//! Programs made here, instruction by instruction, given to the kernel; and filters given to packet sockets.
//!
//! Main thread and tests; never a worker.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of the verifier's words that are kept.
const LOG: usize = 1 << 16;

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For frames that come in several buffers, or in one.
    Xdp { jumbo: bool },
    /// Of a packet socket.
    SocketFilter,
    /// Of a queue for sending; can be run by hand on a whole frame, which a socket's can't.
    Classifier,
}

/// The kernel does not take a program.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}{said}", if said.is_empty() { "" } else { ": " })]
pub struct Refused {
    pub source: io::Error,
    /// The verifier's last words.
    pub said: String,
}

/// Loads a program of instructions as the kernel has them (`struct bpf_insn`, 8 bytes each).
///
/// # Errors
/// The kernel's verifier refuses it, or privilege is missing.
pub fn load(kind: Kind, name: &CStr, code: &[u64]) -> Result<OwnedFd, Refused> {
    /// BPF_F_XDP_HAS_FRAGS
    const SEVERAL_BUFFERS: u32 = 1 << 5;
    let (program_type, attach_type, flags) = match kind {
        // The attach type that libbpf gives its own: all programs of one map of steps must agree in it.
        Kind::Xdp { jumbo } => {
            let flags = if jumbo { SEVERAL_BUFFERS } else { 0 };
            (libbpf_sys::BPF_PROG_TYPE_XDP, libbpf_sys::BPF_XDP, flags)
        }
        Kind::SocketFilter => (libbpf_sys::BPF_PROG_TYPE_SOCKET_FILTER, 0, 0),
        Kind::Classifier => (libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, 0, 0),
    };
    let mut log = vec![0_u8; LOG];
    let mut opts = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: attach_type,
        prog_flags: flags,
        log_size: LOG as u32,
        log_buf: log.as_mut_ptr().cast(),
        ..Default::default()
    };
    // SAFETY: `code` is as many instructions of 8 bytes as said, `opts` a whole options struct that says its size and
    // points to a live buffer with its length beside it; names are C strings. The kernel checks the program.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            program_type,
            name.as_ptr(),
            c"Dual MIT/GPL".as_ptr(),
            code.as_ptr().cast(),
            code.len() as libbpf_sys::size_t,
            &raw mut opts,
        )
    };
    if fd < 0 {
        return Err(Refused { source: io::Error::from_raw_os_error(-fd), said: last_words(&log) });
    }
    // SAFETY: the call succeeded, so `fd` is a new open file that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The verifier's reason: the last line that is not its statistics.
fn last_words(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log).map(CStr::to_string_lossy).unwrap_or_default();
    let reason = text.lines().rfind(|line| !line.is_empty() && !line.starts_with("processed "));
    reason.unwrap_or_default().to_owned()
}

/// Gives a packet socket its filter: from now on it takes in only what the filter wants.
///
/// # Errors
/// EINVAL: the program is no socket filter.
pub fn filter_socket(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd();
    // SAFETY: `program` is a live int of exactly the size that is passed; the kernel only reads it.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs a classifier once on a frame, which goes nowhere; what it answers.
///
/// # Errors
/// EINVAL: fewer than 14 bytes, or a program of another kind.
pub fn classify_once(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        repeat: 1,
        ..super::options()
    };
    super::test_run(program, &mut opts)?;
    Ok(opts.retval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_its_last_line() {
        let log = b"0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000)\n\0\0";
        assert_eq!(last_words(log), "R0 !read_ok");
        assert_eq!(last_words(b"\0"), "");
    }
}
