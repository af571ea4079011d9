//! The flood program, loaded: sends copies of a template out of an interface, each of another flow. For tests,
//! benchmarks and the traffic generator; whoever runs it decides how often.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::LoadError;
use crate::skeletons::flood::FloodSkelBuilder;

/// The loaded program.
#[derive(Debug)]
pub struct Flood {
    program: OwnedFd,
}

impl Flood {
    /// Loads it for an interface to send from and `flows` different source ports and addresses.
    ///
    /// # Errors
    /// The kernel refuses it, as for want of privilege.
    pub fn load(out_ifindex: u32, flows: u32) -> Result<Flood, LoadError> {
        let mut place = MaybeUninit::uninit();
        let mut skeleton = FloodSkelBuilder::default().open(&mut place)?;
        let settings = skeleton.maps.rodata_data.as_deref_mut();
        let settings = settings.expect("the program has constants, and they can be set before it is loaded");
        settings.out_ifindex = out_ifindex;
        settings.flows = flows.max(1);
        let skeleton = skeleton.load()?;
        let program = skeleton.progs.flood.as_fd().try_clone_to_owned().map_err(libbpf_rs::Error::from)?;
        Ok(Flood { program })
    }
}

impl AsFd for Flood {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}
