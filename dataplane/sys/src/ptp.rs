//! The clock of a network card (a PTP hardware clock): whether an interface has one, whether its packets are stamped
//! with it, and what it shows beside the host's.
//!
//! Main thread. The device is opened before privileges are given up; reading it needs none.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::ethtool::{ask, ioctl};

const GET_TIME_STAMPING: u32 = 0x41;
const SIOCSHWTSTAMP: libc::c_ulong = 0x89b0;
const SIOCGHWTSTAMP: libc::c_ulong = 0x89b1;
/// Every packet received is stamped (HWTSTAMP_FILTER_ALL).
const ALL: i32 = 1;
/// Readings in one question at most (PTP_MAX_SAMPLES).
const MOST_READINGS: usize = 25;

/// `struct ethtool_ts_info`, include/uapi/linux/ethtool.h.
#[derive(Default)]
#[repr(C)]
struct TimeStamping {
    command: u32,
    abilities: u32,
    clock: i32,
    sent: [u32; 4],
    received: u32,
    rest: [u32; 3],
}

/// `struct hwtstamp_config`, include/uapi/linux/net_tstamp.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stamping {
    flags: i32,
    sent: i32,
    received: i32,
}

/// `struct ptp_clock_time`, include/uapi/linux/ptp_clock.h.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Time {
    seconds: i64,
    nanos: u32,
    reserved: u32,
}

/// `struct ptp_sys_offset_extended`, include/uapi/linux/ptp_clock.h.
#[repr(C)]
struct Readings {
    count: u32,
    /// 0 is CLOCK_REALTIME.
    clock: i32,
    reserved: [u32; 2],
    times: [[Time; 3]; MOST_READINGS],
}

const _: () = assert!(size_of::<TimeStamping>() == 44);
const _: () = assert!(size_of::<Stamping>() == 12);
const _: () = assert!(size_of::<Readings>() == 1216);

/// `PTP_SYS_OFFSET_EXTENDED`: _IOWR('=', 9, struct ptp_sys_offset_extended).
const READ_BESIDE: libc::c_ulong =
    3 << 30 | (size_of::<Readings>() as libc::c_ulong) << 16 | (b'=' as libc::c_ulong) << 8 | 9;

/// The card's clock between two readings of the host's UTC. Ns since the epoch, each by its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    pub before: u64,
    pub card: u64,
    pub after: u64,
}

/// The number of the interface's clock (`/dev/ptpN`); `None` if it has none.
///
/// # Errors
/// EOPNOTSUPP: the driver doesn't say. ENODEV: no such interface.
pub fn clock_of(interface: &str) -> io::Result<Option<u32>> {
    let mut info = TimeStamping { command: GET_TIME_STAMPING, clock: -1, ..TimeStamping::default() };
    ask(interface, &mut info)?;
    Ok(u32::try_from(info.clock).ok())
}

impl Stamping {
    /// How the interface stamps packets now.
    ///
    /// # Errors
    /// EOPNOTSUPP: it doesn't. ENODEV: no such interface.
    pub fn of(interface: &str) -> io::Result<Stamping> {
        let mut now = Stamping::default();
        ioctl(interface, SIOCGHWTSTAMP, &mut now)?;
        Ok(now)
    }

    /// Every packet received has a stamp.
    pub fn is_complete(self) -> bool {
        self.received == ALL
    }

    /// The same with a stamp for every packet received.
    pub fn complete(self) -> Stamping {
        Stamping { received: ALL, ..self }
    }

    /// Has the interface stamp packets so. The driver may choose to stamp more than was asked for, which is returned.
    ///
    /// # Errors
    /// ERANGE: the card can't. EPERM: missing privilege (CAP_NET_ADMIN).
    pub fn apply(mut self, interface: &str) -> io::Result<Stamping> {
        ioctl(interface, SIOCSHWTSTAMP, &mut self)?;
        Ok(self)
    }
}

/// A card's clock, open.
#[derive(Debug)]
pub struct Clock {
    device: OwnedFd,
}

impl Clock {
    /// # Errors
    /// Those of opening `/dev/ptpN`.
    pub fn open(number: u32) -> io::Result<Clock> {
        Ok(Clock { device: File::open(format!("/dev/ptp{number}"))?.into() })
    }

    /// The clock beside the host's, `readings` times in a row.
    ///
    /// # Errors
    /// EOPNOTSUPP: the driver can't read both at once.
    pub fn beside_utc(&self, readings: usize) -> io::Result<Vec<Beside>> {
        let count = readings.clamp(1, MOST_READINGS);
        let times = [[Time::default(); 3]; MOST_READINGS];
        let mut all = Readings { count: count as u32, clock: 0, reserved: [0; 2], times };
        // SAFETY: the device is open for the call's length, and `all` is the struct whose size the command's number
        // says; the kernel reads and writes that and nothing else.
        if unsafe { libc::ioctl(self.device.as_raw_fd(), READ_BESIDE, &raw mut all) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let nanos = |time: Time| {
            let seconds = u64::try_from(time.seconds).unwrap_or(0);
            seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())
        };
        let beside = |[before, card, after]: [Time; 3]| Beside {
            before: nanos(before),
            card: nanos(card),
            after: nanos(after),
        };
        Ok(all.times.into_iter().take(count).map(beside).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_has_the_number_the_kernel_knows() {
        assert_eq!(READ_BESIDE, 0xc4c0_3d09);
    }

    #[test]
    fn the_loopback_has_no_clock() {
        assert_eq!(clock_of("lo").unwrap_or(None), None);
        assert!(Stamping::of("lo").is_err());
        assert!(clock_of("no-such-if").is_err());
        assert!(Clock::open(u32::MAX).is_err());
    }

    #[test]
    fn a_file_that_is_no_clock_can_not_be_read_as_one() {
        let clock = Clock { device: File::open("/dev/null").unwrap().into() };
        assert!(clock.beside_utc(5).is_err());
    }
}
