//! The program that asks the NIC for a packet's time, loaded for one interface in front of the capture program. Main
//! thread only; attaching it is for whoever opens the interface.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::LoadError;
use crate::skeletons::nic_clock::NicClockSkelBuilder;

/// The loaded program. What it calls stays loaded as long as this.
#[derive(Debug)]
pub struct NicClock {
    program: OwnedFd,
    /// The kernel empties the map of programs to call when nobody has it open.
    _next: MapHandle,
}

impl NicClock {
    /// Loads it for this interface alone, to call `capture`, which is of the same kind (`jumbo` or not).
    ///
    /// # Errors
    /// The kernel refuses it: it is older than Linux 6.3, or lets no program of this kind call another (before 6.15),
    /// or the driver gives no metadata at all.
    pub fn load(capture: BorrowedFd<'_>, jumbo: bool, ifindex: u32) -> Result<NicClock, LoadError> {
        /// BPF_F_XDP_DEV_BOUND_ONLY, include/uapi/linux/bpf.h.
        const BOUND: u32 = 1 << 6;
        let mut place = MaybeUninit::uninit();
        let mut skeleton = NicClockSkelBuilder::default().open(&mut place)?;
        for (program, wanted) in
            [(&mut skeleton.progs.nic_clock, !jumbo), (&mut skeleton.progs.nic_clock_jumbo, jumbo)]
        {
            program.set_autoload(wanted);
            program.set_ifindex(ifindex);
            program.set_flags(BOUND);
        }
        let skeleton = skeleton.load()?;
        let fd = u32::try_from(capture.as_raw_fd()).expect("an open file's number is not negative");
        skeleton.maps.next.update(&0_u32.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)?;
        let program = match jumbo {
            true => skeleton.progs.nic_clock_jumbo.as_fd(),
            false => skeleton.progs.nic_clock.as_fd(),
        };
        let program = program.try_clone_to_owned().map_err(libbpf_rs::Error::from)?;
        Ok(NicClock { program, _next: MapHandle::try_from(&skeleton.maps.next)? })
    }
}

impl AsFd for NicClock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}
