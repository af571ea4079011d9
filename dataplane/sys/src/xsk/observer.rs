//! A second handle on an AF_XDP socket: its counters and what mode it is in. Main thread; a worker that uses the
//! socket notices nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What an AF_XDP socket counted (`struct xdp_statistics`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets that no free frame was there for, or that were too long for one.
    pub rx_dropped: u64,
    /// Packets that found the receive ring full.
    pub rx_ring_full: u64,
    /// Descriptors in the fill ring that named no frame.
    pub rx_invalid_descs: u64,
    /// Times the kernel found the fill ring empty. In copy mode each is also an `rx_dropped`; in zero-copy mode
    /// the packet stays in the NIC, which counts it if it is lost.
    pub rx_fill_ring_empty_descs: u64,
}

/// A socket's counters and mode, for whoever isn't its worker.
#[derive(Debug)]
pub struct Observer {
    pub(super) socket: OwnedFd,
}

impl AsFd for Observer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Observer {
    /// What the socket has counted so far.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn statistics(&self) -> io::Result<Statistics> {
        // struct xdp_statistics, include/uapi/linux/if_xdp.h: rx_dropped, rx_invalid_descs, tx_invalid_descs,
        // rx_ring_full, rx_fill_ring_empty_descs, tx_ring_empty_descs.
        let mut words = [0_u64; 6];
        self.option(libc::XDP_STATISTICS, &mut words)?;
        let [rx_dropped, rx_invalid_descs, _, rx_ring_full, rx_fill_ring_empty_descs, _] = words;
        Ok(Statistics { rx_dropped, rx_ring_full, rx_invalid_descs, rx_fill_ring_empty_descs })
    }

    /// True if packets reach the UMEM without being copied.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn zero_copy(&self) -> io::Result<bool> {
        // struct xdp_options, XDP_OPTIONS_ZEROCOPY.
        let mut flags = [0_u32; 1];
        self.option(libc::XDP_OPTIONS, &mut flags)?;
        Ok(flags[0] & 1 != 0)
    }

    fn option<T, const N: usize>(&self, option: i32, words: &mut [T; N]) -> io::Result<()> {
        let size = size_of_val(words) as libc::socklen_t;
        let mut written = size;
        // SAFETY: `words` is live and of the size passed; the kernel writes no more than that many bytes, and
        // any bytes are a value of an array of integers (private callers).
        let failed = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_XDP,
                option,
                words.as_mut_ptr().cast(),
                &raw mut written,
            )
        } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
