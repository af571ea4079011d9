//! Settings of an interface that spoil captures or cost packets: read, and set one by one (ethtool's ioctls,
//! netdevice(7)).
//!
//! Main thread of a command that examines a host. What is set stays set after the process.

use std::io;

use crate::ethtool::{ask, request, submit};

const GET_RING: u32 = 0x10;
const SET_RING: u32 = 0x11;
const GET_PAUSE: u32 = 0x12;
const SET_PAUSE: u32 = 0x13;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;
/// Bits of the flags (ETH_FLAG_RXVLAN, ETH_FLAG_LRO).
const FLAG_VLAN_STRIP: u32 = 1 << 8;
const FLAG_LRO: u32 = 1 << 15;

/// What can be set, each a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// 1: the interface is up.
    Up,
    /// 1: the NIC joins TCP segments before anybody sees them.
    Lro,
    /// 1: the NIC takes VLAN tags out of frames.
    VlanStrip,
    /// 1: the kernel joins TCP segments before packet sockets see them.
    Gro,
    /// Packets in each receive ring.
    RxRing,
    /// Pause frames: 4 agreed with the other end, 2 obeyed, 1 sent; added up.
    Pause,
}

/// `struct ethtool_value`, include/uapi/linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_ringparam`: maxima, then what is in use; receive, mini, jumbo, send.
#[derive(Default)]
#[repr(C)]
struct Rings {
    command: u32,
    most: [u32; 4],
    now: [u32; 4],
}

/// `struct ethtool_pauseparam`.
#[derive(Default)]
#[repr(C)]
struct Pause {
    command: u32,
    agreed: u32,
    obeyed: u32,
    sent: u32,
}

const _: () = assert!(size_of::<Value>() == 8 && size_of::<Rings>() == 36 && size_of::<Pause>() == 16);

/// # Errors
/// ENODEV: no such interface. EOPNOTSUPP: its driver has no such setting.
pub fn read(interface: &str, setting: Setting) -> io::Result<u32> {
    Ok(match setting {
        Setting::Up => u32::from(flags(interface)? & libc::IFF_UP as libc::c_short != 0),
        Setting::Lro => u32::from(value(interface, GET_FLAGS)? & FLAG_LRO != 0),
        Setting::VlanStrip => u32::from(value(interface, GET_FLAGS)? & FLAG_VLAN_STRIP != 0),
        Setting::Gro => u32::from(value(interface, GET_GRO)? != 0),
        Setting::RxRing => rings(interface)?.now[0],
        Setting::Pause => {
            let mut pause = Pause { command: GET_PAUSE, ..Pause::default() };
            ask(interface, &mut pause)?;
            let bit = |on: u32, bit| u32::from(on != 0) << bit;
            bit(pause.agreed, 2) | bit(pause.obeyed, 1) | bit(pause.sent, 0)
        }
    })
}

/// # Errors
/// As for [`read`]; EPERM: missing privilege. EINVAL: not that value, or not while it is as it is.
pub fn write(interface: &str, setting: Setting, to: u32) -> io::Result<()> {
    match setting {
        Setting::Up => set_up(interface, to != 0),
        Setting::Lro => set_flag(interface, FLAG_LRO, to != 0),
        Setting::VlanStrip => set_flag(interface, FLAG_VLAN_STRIP, to != 0),
        Setting::Gro => ask(interface, &mut Value { command: SET_GRO, data: to }),
        Setting::RxRing => {
            let mut rings = rings(interface)?;
            rings.command = SET_RING;
            rings.now[0] = to;
            ask(interface, &mut rings)
        }
        Setting::Pause => {
            let (agreed, obeyed, sent) = (to >> 2 & 1, to >> 1 & 1, to & 1);
            ask(interface, &mut Pause { command: SET_PAUSE, agreed, obeyed, sent })
        }
    }
}

/// The most packets a receive ring can be set to.
///
/// # Errors
/// As for [`read`].
pub fn largest_rx_ring(interface: &str) -> io::Result<u32> {
    Ok(rings(interface)?.most[0])
}

fn rings(interface: &str) -> io::Result<Rings> {
    let mut rings = Rings { command: GET_RING, ..Rings::default() };
    ask(interface, &mut rings)?;
    Ok(rings)
}

fn value(interface: &str, command: u32) -> io::Result<u32> {
    let mut value = Value { command, data: 0 };
    ask(interface, &mut value)?;
    Ok(value.data)
}

fn set_flag(interface: &str, flag: u32, on: bool) -> io::Result<()> {
    let now = value(interface, GET_FLAGS)?;
    let data = if on { now | flag } else { now & !flag };
    ask(interface, &mut Value { command: SET_FLAGS, data })
}

fn flags(interface: &str) -> io::Result<libc::c_short> {
    let mut request = request(interface)?;
    submit(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the call succeeded, so the kernel has written this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

fn set_up(interface: &str, up: bool) -> io::Result<()> {
    let now = flags(interface)?;
    let mut request = request(interface)?;
    let flag = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = if up { now | flag } else { now & !flag };
    submit(libc::SIOCSIFFLAGS, &mut request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_has_not_is_said() {
        assert_eq!(read("lo", Setting::Up).unwrap(), 1);
        assert_eq!(read("lo", Setting::RxRing).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        for setting in [Setting::Up, Setting::Lro, Setting::Gro, Setting::Pause] {
            assert_eq!(read("no-such-if", setting).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        }
    }
}
