//! The capture program, loaded: sized for an interface's queues, given its sockets, asked for its counters.
//! Main thread only; attaching it is for whoever opens the interface.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::LoadError;
use crate::abi::{Outcome, Tally};
use crate::skeletons::capture::CaptureSkelBuilder;

/// What the program counted since it was loaded, by [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies([Tally; Outcome::ALL.len()]);

impl Tallies {
    pub fn of(&self, outcome: Outcome) -> Tally {
        self.0[outcome as usize]
    }

    /// Packets seen: each was either redirected or had no socket.
    pub fn seen(&self) -> u64 {
        self.of(Outcome::Redirected).packets + self.of(Outcome::NoSocket).packets
    }
}

/// The loaded program with maps of its own. Dropping it unloads it, unless it is still attached.
#[derive(Debug)]
pub struct Capture {
    program: OwnedFd,
    sockets: MapHandle,
    outcomes: MapHandle,
}

impl Capture {
    /// Loads the program for an interface with this many receive queues: the one for `jumbo` frames, which come
    /// in several buffers, or the one for frames that fit one.
    ///
    /// # Errors
    /// The kernel refuses it: missing privilege (EPERM), or a kernel without what it uses.
    pub fn load(queues: u32, jumbo: bool) -> Result<Capture, LoadError> {
        let mut place = MaybeUninit::uninit();
        let mut skeleton = CaptureSkelBuilder::default().open(&mut place)?;
        skeleton.maps.sockets.set_max_entries(queues)?;
        skeleton.progs.capture.set_autoload(!jumbo);
        skeleton.progs.capture_jumbo.set_autoload(jumbo);
        let skeleton = skeleton.load()?;
        let program = match jumbo {
            true => skeleton.progs.capture_jumbo.as_fd(),
            false => skeleton.progs.capture.as_fd(),
        };
        Ok(Capture {
            program: program.try_clone_to_owned().map_err(libbpf_rs::Error::from)?,
            sockets: MapHandle::try_from(&skeleton.maps.sockets)?,
            outcomes: MapHandle::try_from(&skeleton.maps.outcomes)?,
        })
    }

    /// From now on packets of `queue` go to `socket`, which must be bound to that queue.
    ///
    /// # Errors
    /// Those of the map: a queue beyond those it was loaded for (E2BIG), a file that is no AF_XDP socket.
    pub fn give(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), LoadError> {
        use std::os::fd::AsRawFd;
        let fd = u32::try_from(socket.as_raw_fd()).expect("an open file's number is not negative");
        Ok(self.sockets.update(&queue.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)?)
    }

    /// From now on packets of `queue` go to no socket, if any did.
    ///
    /// # Errors
    /// A queue beyond those it was loaded for (EINVAL).
    pub fn take(&self, queue: u32) -> Result<(), LoadError> {
        Ok(self.sockets.delete(&queue.to_ne_bytes())?)
    }

    /// What the program counted so far, on all CPUs.
    ///
    /// # Errors
    /// Those of reading a map.
    pub fn tallies(&self) -> Result<Tallies, LoadError> {
        let mut tallies = Tallies::default();
        for outcome in Outcome::ALL {
            let key = (outcome as u32).to_ne_bytes();
            let values = self.outcomes.lookup_percpu(&key, MapFlags::ANY)?.unwrap_or_default();
            let sum = &mut tallies.0[outcome as usize];
            for one in values.iter().filter_map(|value| Tally::read(value)) {
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            }
        }
        Ok(tallies)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_counter_for_each_outcome() {
        let mut place = MaybeUninit::uninit();
        let skeleton = CaptureSkelBuilder::default().open(&mut place).unwrap();
        assert_eq!(skeleton.maps.outcomes.max_entries() as usize, Outcome::ALL.len());
    }
}
