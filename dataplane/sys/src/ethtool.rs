//! What a driver says of its interface (ethtool's ioctls): its queues and its name.
//!
//! Main thread, before anything is opened; changes nothing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const GET_DRIVER: u32 = 0x3;
const GET_CHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`, include/uapi/linux/ethtool.h: the most there can be (receive, send, other, combined), then
/// those in use.
#[derive(Default)]
#[repr(C)]
struct ChannelCounts {
    command: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`, include/uapi/linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<ChannelCounts>() == 36);
const _: () = assert!(size_of::<DriverInfo>() == 196);

/// Receive queues in use. A driver that doesn't say has one.
///
/// # Errors
/// ENODEV: no such interface.
pub fn receive_queues(interface: &str) -> io::Result<u32> {
    match channels(interface) {
        Ok(channels) => Ok(channels.receiving()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(error) => Err(error),
    }
}

/// Queues that receive, and what they can be set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// In use: such as only receive, and such as send as well.
    pub rx: u32,
    pub combined: u32,
    /// The most there can be of each; 0: the driver has none of that kind.
    pub max_rx: u32,
    pub max_combined: u32,
}

impl Channels {
    /// Queues that receive; there is at least one.
    pub fn receiving(self) -> u32 {
        self.rx.saturating_add(self.combined).max(1)
    }
}

/// # Errors
/// ENODEV: no such interface. EOPNOTSUPP: its driver doesn't say.
pub fn channels(interface: &str) -> io::Result<Channels> {
    let mut counts = ChannelCounts { command: GET_CHANNELS, ..ChannelCounts::default() };
    ask(interface, &mut counts)?;
    let ChannelCounts { max: [max_rx, _, _, max_combined], rx, combined, .. } = counts;
    Ok(Channels { rx, combined, max_rx, max_combined })
}

/// The driver's name ("veth", "ice").
///
/// # Errors
/// ENODEV: no such interface. EOPNOTSUPP: it doesn't say.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    ask(interface, &mut info)?;
    let name = info.driver.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// One ethtool command; `command` begins with its number and is as large as the kernel takes it to be.
pub(crate) fn ask<T>(interface: &str, command: &mut T) -> io::Result<()> {
    ioctl(interface, libc::SIOCETHTOOL, command)
}

/// An ioctl about an interface, whose data is `command`, of the struct that this `number` stands for.
pub(crate) fn ioctl<T>(interface: &str, number: libc::Ioctl, command: &mut T) -> io::Result<()> {
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    submit(number, &mut request)
}

/// The same for a command whose length only the kernel knows: `words` has room for all it can write.
pub(crate) fn ask_words(interface: &str, words: &mut [u32]) -> io::Result<()> {
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    submit(libc::SIOCETHTOOL, &mut request)
}

/// A request about an interface, still without what is asked.
pub(crate) fn request(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is integers, bytes and a pointer, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

pub(crate) fn submit(number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: makes a file and touches no memory.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new open file that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `request` is a whole ifreq; where its command has data, that points to the command's own struct, which
    // outlives the call (callers of this crate, sizes asserted).
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(request)) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = receive_queues("no-such-if").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(driver("a-name-that-no-interface-can-have").is_err());
        assert_eq!(receive_queues("lo").unwrap(), 1);
        assert_eq!(channels("lo").unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(Channels { rx: 2, combined: 3, ..Channels::default() }.receiving(), 5);
    }
}
