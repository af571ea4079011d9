//! Time from the card, where it is wanted and can be had: the program that asks for it, the clock it is by, and what the
//! card was told for it. Main thread, while an interface is taken.

use std::os::fd::{AsFd, BorrowedFd};

use dataplane_sys::bpf::{XdpLink, XdpMode, attach_xdp};
use dataplane_sys::ptp::{self, Stamping};
use xdp_prog::{Capture, NicClock};

use super::phc::Follower;
use crate::source::nic::Nic;

/// `[capture] clock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockChoice {
    /// The card's, if it stamps all packets already; nothing is changed for it.
    #[default]
    Auto,
    /// The card's; it is told to stamp all packets. Where it can't, the kernel's, which is said.
    Nic,
    Kernel,
}

/// An interface whose packets have the card's time.
#[derive(Debug)]
pub(super) struct NicTime {
    program: NicClock,
    pub(super) follower: Follower,
    interface: String,
    /// How the card stamped packets before, if that was changed.
    before: Option<Stamping>,
}

impl NicTime {
    /// Whatever can be done before the program is attached. `None`: time is the kernel's.
    pub(super) fn prepare(
        nic: &Nic,
        capture: &Capture,
        jumbo: bool,
        choice: ClockChoice,
        compromises: &mut Vec<String>,
    ) -> Option<NicTime> {
        if choice == ClockChoice::Kernel {
            return None;
        }
        match NicTime::open(nic, capture, jumbo, choice) {
            Ok(time) => {
                compromises.extend(time.before.map(|_| {
                    format!(
                        "{}: its card was told to stamp all packets, and does so after this run; `hwstamp_ctl -i {0} -r 0` ends \
                         it",
                        nic.name
                    )
                }));
                Some(time)
            }
            Err(why) => {
                if choice == ClockChoice::Nic {
                    compromises.push(no_time(&nic.name, &why));
                }
                None
            }
        }
    }

    fn open(nic: &Nic, capture: &Capture, jumbo: bool, choice: ClockChoice) -> Result<NicTime, String> {
        let number = ptp::clock_of(&nic.name).map_err(|error| error.to_string())?;
        let number = number.ok_or_else(|| "it has none".to_owned())?;
        let now =
            Stamping::of(&nic.name).map_err(|error| format!("it doesn't say what it stamps: {error}"))?;
        if !now.is_complete() && choice == ClockChoice::Auto {
            return Err("it does not stamp all packets".to_owned());
        }
        let program =
            NicClock::load(capture.as_fd(), jumbo, nic.ifindex).map_err(|error| error.to_string())?;
        let follower = Follower::open(number).map_err(|error| format!("/dev/ptp{number}: {error}"))?;
        let mut time = NicTime { program, follower, interface: nic.name.clone(), before: None };
        if !now.is_complete() {
            let applied = now.complete().apply(&nic.name);
            time.before = applied.is_ok().then_some(now);
            let applied = applied.map_err(|error| format!("it does not stamp all packets: {error}"))?;
            if !applied.is_complete() {
                return Err("it stamps only some packets".to_owned());
            }
        }
        Ok(time)
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Attaches its program. If the driver refuses that, time is the kernel's after all.
    pub(super) fn attach(
        time: &mut Option<NicTime>,
        nic: &Nic,
        compromises: &mut Vec<String>,
    ) -> Option<XdpLink> {
        let attached = attach_xdp(time.as_ref()?.program.as_fd(), nic.ifindex, XdpMode::Native);
        match attached {
            Ok(link) => Some(link),
            Err(error) => {
                compromises.push(no_time(&nic.name, &error.to_string()));
                *time = None;
                None
            }
        }
    }
}

fn no_time(interface: &str, why: &str) -> String {
    format!("{interface}: the card's clock can't be used ({why}); time is the kernel's")
}

impl Drop for NicTime {
    fn drop(&mut self) {
        // Without the privilege, which a run gives up once all is set up, it stays, as was said at the start.
        if let Some(before) = self.before {
            let _ = before.apply(&self.interface);
        }
    }
}
