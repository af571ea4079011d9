//! A packet socket as main holds it: lets packets come, ends it, asks what the kernel counted.
//! Main thread; the worker has the ring, and needs none of this.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::packet::{bind, index};

/// Option of level SOL_PACKET, include/uapi/linux/if_packet.h.
const STATISTICS: i32 = 6;
const ETH_P_ALL: u16 = 3;

/// `struct tpacket_stats_v3`.
#[derive(Default)]
#[repr(C)]
struct Statistics {
    packets: u32,
    drops: u32,
    freezes: u32,
}

/// What the socket has counted since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All packets, dropped ones included.
    pub packets: u64,
    /// Those there was no room for.
    pub drops: u64,
}

/// The socket, for main.
#[derive(Debug)]
pub struct Control {
    pub(super) socket: OwnedFd,
    pub(super) ifindex: u32,
}

impl Control {
    /// Lets packets come.
    ///
    /// # Errors
    /// ENODEV: the interface has gone.
    pub fn begin(&self) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: ETH_P_ALL.to_be(),
            sll_ifindex: index(self.ifindex)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        bind(&self.socket, &address)
    }

    /// Takes nothing more: a filter refuses all before it is counted. What is in the ring stays there, and what is in the
    /// block the kernel is filling follows in its time.
    ///
    /// # Errors
    /// The kernel has no memory for a filter of one instruction.
    pub fn end(&self) -> io::Result<()> {
        // BPF_RET | BPF_K
        let mut refuse = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut refuse };
        // SAFETY: `program` is a whole sock_fprog whose one instruction outlives the call; the kernel copies both.
        let failed = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// What was counted since this was last asked: the kernel begins anew each time.
    ///
    /// # Errors
    /// None that is known.
    pub fn counted(&self) -> io::Result<Counted> {
        let mut statistics = Statistics::default();
        let mut size = size_of::<Statistics>() as libc::socklen_t;
        // SAFETY: `statistics` is a live, writable Statistics of the size that is passed; `size` outlives the call.
        let failed = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut size,
            )
        } != 0;
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(Counted { packets: statistics.packets.into(), drops: statistics.drops.into() })
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
