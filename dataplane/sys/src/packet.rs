//! Packet sockets (packet(7)): keeping an interface promiscuous, and sending frames as they are.
//!
//! Main thread, tests and the traffic generator; never a worker.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An interface takes in frames that are addressed to others for as long as this lives.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: OwnedFd,
}

/// Makes an interface promiscuous; the kernel undoes it when the last process that has the socket ends.
///
/// # Errors
/// EPERM: missing privilege. ENODEV: no such interface.
pub fn promiscuous(ifindex: u32) -> io::Result<Promiscuous> {
    let socket = open()?;
    let wish = libc::packet_mreq {
        mr_ifindex: index(ifindex)?,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(&socket, libc::PACKET_ADD_MEMBERSHIP, &wish)?;
    Ok(Promiscuous { _socket: socket })
}

/// A socket through which whole frames, written to it one by one, leave an interface.
///
/// # Errors
/// EPERM: missing privilege. ENODEV: no such interface. ENETDOWN: it is down.
pub fn sender(ifindex: u32) -> io::Result<OwnedFd> {
    let socket = visible_sender(ifindex)?;
    // A frame must not wait behind others in a queue that could drop it.
    set(&socket, libc::PACKET_QDISC_BYPASS, &1_i32)?;
    Ok(socket)
}

/// Like [`sender`], but through the interface's queue, before which captures on this host see the frames; those
/// of a socket that bypasses it they never see.
///
/// # Errors
/// Those of [`sender`].
pub fn visible_sender(ifindex: u32) -> io::Result<OwnedFd> {
    let socket = open()?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: 0,
        sll_ifindex: index(ifindex)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    bind(&socket, &address)?;
    Ok(socket)
}

pub(crate) fn bind(socket: &OwnedFd, address: &libc::sockaddr_ll) -> io::Result<()> {
    // SAFETY: `address` is a whole sockaddr_ll of the size that is passed; the kernel only reads it.
    let failed = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A raw packet socket that receives nothing: its protocol is 0.
pub(crate) fn open() -> io::Result<OwnedFd> {
    // SAFETY: makes a file and touches no memory.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new open file that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn index(ifindex: u32) -> io::Result<i32> {
    i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

pub(crate) fn set<T>(socket: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a live T of exactly the size that is passed; the kernel only reads it.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
