//! The flood program, loaded: gives each copy of a template another flow, and sends it or hands it to another
//! program. For tests, benchmarks and the traffic generator; whoever runs it decides how often.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::LoadError;
use crate::skeletons::flood::FloodSkelBuilder;

/// What becomes of the copies.
enum Use<'a> {
    Send { ifindex: u32 },
    Call { program: BorrowedFd<'a>, jumbo: bool },
}

/// The loaded program. Its template is Ethernet, IPv4 without options, and UDP or TCP, as [`Flood::SOURCE`] says.
#[derive(Debug)]
pub struct Flood {
    program: OwnedFd,
    /// The kernel empties the map of programs to call when nobody has it open.
    _target: MapHandle,
}

impl Flood {
    /// More flows than this there can't be.
    pub const MOST_FLOWS: u32 = 1 << 24;
    /// Of the first flow, and so of the template: checksums stay right only if they were for these. Besides, the
    /// 16 bits behind the template's first 8 bytes of UDP or TCP are [`Flood::BALANCE`].
    pub const SOURCE: ([u8; 4], u16) = ([10, 1, 0, 0], 1024);
    /// The template's IPv4 identification.
    pub const ID: u16 = 0x4000;
    pub const BALANCE: u16 = 0x8000;

    /// Loads it for an interface to send from and `flows` different source ports and addresses.
    ///
    /// # Errors
    /// The kernel refuses it, as for want of privilege.
    pub fn load(out_ifindex: u32, flows: u32) -> Result<Flood, LoadError> {
        Flood::load_for(&Use::Send { ifindex: out_ifindex }, flows)
    }

    /// Loads it for a program that is to take its frames as if they had been received.
    ///
    /// # Errors
    /// The kernel refuses it, or lets nobody call that program.
    pub fn load_into(program: BorrowedFd<'_>, flows: u32) -> Result<Flood, LoadError> {
        // Which kind the program is of the kernel doesn't say, but it lets only its own kind call it.
        Flood::load_for(&Use::Call { program, jumbo: false }, flows)
            .or_else(|_| Flood::load_for(&Use::Call { program, jumbo: true }, flows))
    }

    fn load_for(what: &Use<'_>, flows: u32) -> Result<Flood, LoadError> {
        let mut place = MaybeUninit::uninit();
        let mut skeleton = FloodSkelBuilder::default().open(&mut place)?;
        let settings = skeleton.maps.rodata_data.as_deref_mut();
        let settings = settings.expect("the program has constants, and they can be set before it is loaded");
        settings.flows = flows.clamp(1, Flood::MOST_FLOWS);
        if let Use::Send { ifindex } = what {
            settings.out_ifindex = *ifindex;
        }
        skeleton.progs.flood.set_autoload(matches!(what, Use::Send { .. }));
        skeleton.progs.flood_into.set_autoload(matches!(what, Use::Call { jumbo: false, .. }));
        skeleton.progs.flood_into_jumbo.set_autoload(matches!(what, Use::Call { jumbo: true, .. }));
        let skeleton = skeleton.load()?;
        let program = match what {
            Use::Send { .. } => skeleton.progs.flood.as_fd(),
            Use::Call { jumbo: false, .. } => skeleton.progs.flood_into.as_fd(),
            Use::Call { jumbo: true, .. } => skeleton.progs.flood_into_jumbo.as_fd(),
        };
        let program = program.try_clone_to_owned().map_err(libbpf_rs::Error::from)?;
        if let Use::Call { program: target, .. } = what {
            let fd = u32::try_from(target.as_raw_fd()).expect("an open file's number is not negative");
            let (key, value) = (0_u32.to_ne_bytes(), fd.to_ne_bytes());
            skeleton.maps.target.update(&key, &value, MapFlags::ANY)?;
        }
        Ok(Flood { program, _target: MapHandle::try_from(&skeleton.maps.target)? })
    }
}

impl AsFd for Flood {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}
