//! Taking an interface, step by step: what can be told beforehand, attaching the program, binding a socket to each
//! queue; and every way in which that is refused. Main thread. `tap` keeps what comes of it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use dataplane_sys::bpf::{self, XdpLink, XdpMode, attach_xdp};
use dataplane_sys::xsk::{self, Socket};
use xdp_prog::{Capture, Filtering, LoadError};

use super::nic_time::ClockChoice;
use crate::filter::{Filter, FilterError};
use crate::source::nic::Nic;
use crate::source::rss;

/// Bytes before an IP packet at most: Ethernet and two VLAN tags.
const LINK_BYTES: u32 = 14 + 2 * 4;
/// Of a frame's bytes, those the kernel keeps before the packet (XDP_PACKET_HEADROOM).
const HEADROOM: u32 = 256;
/// Of a page's bytes, those that drivers keep behind the packet (struct skb_shared_info).
const TAILROOM: u32 = 320;
const SMALL_FRAME: u32 = 2048;
const PAGE_FRAME: u32 = 4096;
/// Drivers whose card takes the size of a buffer in whole KiB: of a small frame, with its headroom, it would fill one, and
/// hand over what is longer as two packets.
const KIB_BUFFERS: [&str; 3] = ["igb", "igc", "ixgbe"];

/// MTU up to which a packet fits one small frame.
const SMALL_MTU: u32 = SMALL_FRAME - HEADROOM - LINK_BYTES;
/// MTU up to which a packet fits one frame. Larger ones come in several parts, which not every driver does, and hardly one
/// with zero-copy.
pub const LARGEST_MTU: u32 = PAGE_FRAME - HEADROOM - TAILROOM - LINK_BYTES;

/// Error numbers the kernel answers with, include/uapi/asm-generic/errno*.h.
const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EOPNOTSUPP: i32 = 95;
const ENOBUFS: i32 = 105;

/// Whether packets are to reach the program without being copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Or not at all.
    Require,
    /// If the driver can.
    Prefer,
    Off,
}

/// Whether a worker that finds nothing runs the driver's receive loop itself, on its own core, instead of leaving it to
/// interrupts on another: socket(7), SO_PREFER_BUSY_POLL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPoll {
    /// In zero-copy mode, where the driver works for this socket alone.
    #[default]
    Auto,
    On,
    Off,
}

/// How an interface is to be taken.
#[derive(Clone, Debug)]
pub struct TapSettings {
    pub zero_copy: ZeroCopy,
    /// Packets each queue can hold until its worker takes them; a power of two.
    pub ring: u32,
    pub busy_poll: BusyPoll,
    /// Take it although the host's own traffic goes over it.
    pub steal: bool,
    /// What of its packets is wanted; all, without one.
    pub filter: Option<Arc<Filter>>,
    /// What is done about a hash that parts the directions of a connection.
    pub rss: rss::Choice,
    /// Whose clock packets are stamped by.
    pub clock: ClockChoice,
}

/// An interface could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error("{interface} is no Ethernet interface; AF_XDP captures from those alone")]
    NotEthernet { interface: String },
    #[error(
        "{interface} is of a kind (hardware type {hardware}) whose packets begin neither with Ethernet nor with IP; \
         AF_PACKET captures from those alone"
    )]
    NoLinkType { interface: String, hardware: u16 },
    #[error("{interface} is down")]
    Down { interface: String },
    #[error("{interface} is in use: capturing with XDP would take the packets away from {}", depends.join(", "))]
    InUse { interface: String, depends: Vec<String> },
    #[error("{interface} has an XDP program already ({program}), which is not this one's to remove")]
    Occupied { interface: String, program: String },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("the XDP program can't be attached to {interface} ({mode} mode): {source}")]
    Attach { interface: String, mode: &'static str, source: io::Error },
    #[error("{interface} (driver {driver}) can't do zero-copy: {why}")]
    NoZeroCopy { interface: String, driver: String, why: String },
    #[error(transparent)]
    Socket(#[from] xsk::OpenError),
    #[error("{interface}: {doing}: {source}")]
    Interface { interface: String, doing: &'static str, source: io::Error },
}

impl TapError {
    /// Privilege is what was missing.
    pub fn is_privilege(&self) -> bool {
        let source = match self {
            TapError::Attach { source, .. } | TapError::Interface { source, .. } => source.raw_os_error(),
            TapError::Socket(error) => error.errno(),
            TapError::Load(error) | TapError::Filter(FilterError::Load(error)) => {
                return error.is_privilege();
            }
            _ => None,
        };
        source == Some(EPERM)
    }
}

impl Nic {
    /// Packets of this interface can be too long for one buffer, and come in several.
    pub(super) fn is_jumbo(&self) -> bool {
        self.mtu > LARGEST_MTU
    }

    /// What else may be behind a refusal, in words.
    fn parts(&self) -> String {
        match self.is_jumbo() {
            true => format!(
                "; with its MTU of {} packets come in several parts, with one of up to {LARGEST_MTU} in one",
                self.mtu
            ),
            false => String::new(),
        }
    }

    /// The largest MTU whose packets fit the frames taken for the present one; `None` if any does.
    pub(super) fn room(&self) -> Option<u32> {
        (!self.is_jumbo()).then_some(if self.mtu <= SMALL_MTU { SMALL_MTU } else { LARGEST_MTU })
    }

    fn frame_bytes(&self, driver: &str, zero_copy: bool) -> u32 {
        let small = self.mtu <= SMALL_MTU;
        if small && !(zero_copy && KIB_BUFFERS.contains(&driver)) { SMALL_FRAME } else { PAGE_FRAME }
    }
}

pub(super) const fn mode_name(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
    }
}

/// Somebody's XDP program, as far as this process may know it.
pub fn foreign(id: u32) -> String {
    match bpf::program_by_id(id).and_then(|program| bpf::describe(program.as_fd())) {
        Ok(program) if program.name.starts_with("capture") => {
            format!("id {id}, {}: another Referee's?", program.name)
        }
        Ok(program) if program.name.is_empty() => format!("id {id}, tag {}", program.tag),
        Ok(program) => format!("id {id}, {}, tag {}", program.name, program.tag),
        Err(_) => format!("id {id}"),
    }
}

/// Whatever can be told before anything is touched.
pub(super) fn check(nic: &Nic, settings: &TapSettings) -> Result<(), TapError> {
    let interface = nic.name.clone();
    if !nic.ethernet {
        return Err(TapError::NotEthernet { interface });
    }
    if !nic.depends.is_empty() && !settings.steal {
        return Err(TapError::InUse { interface, depends: nic.depends.clone() });
    }
    if let Some(id) = nic.xdp_program {
        return Err(TapError::Occupied { interface, program: foreign(id) });
    }
    if !nic.up {
        return Err(TapError::Down { interface });
    }
    Ok(())
}

/// The program, complete: also what the filter makes of it.
pub(super) fn load(queues: u32, jumbo: bool, settings: &TapSettings) -> Result<Capture, TapError> {
    let Some(filter) = &settings.filter else { return Ok(Capture::load(queues, jumbo)?) };
    let filtering = Filtering { relations: !filter.exact(), pass_refused: settings.steal };
    let capture = Capture::load_filtered(queues, jumbo, filtering)?;
    filter.complete(&capture, jumbo)?;
    Ok(capture)
}

/// In the driver; where that can't, in the kernel's generic path, which is said.
pub(super) fn attach(
    nic: &Nic,
    driver: &str,
    program: &Capture,
    zero_copy: ZeroCopy,
    compromises: &mut Vec<String>,
) -> Result<(XdpLink, XdpMode), TapError> {
    let failed = |mode, source: io::Error| match source.raw_os_error() {
        Some(EBUSY | EEXIST) => {
            // It came between the check and now.
            let id = nic.now().ok().and_then(|now| now.xdp_program);
            let program = id.map_or_else(|| "whose can't be said".to_owned(), foreign);
            TapError::Occupied { interface: nic.name.clone(), program }
        }
        _ => TapError::Attach { interface: nic.name.clone(), mode: mode_name(mode), source },
    };
    let error = match attach_xdp(program.as_fd(), nic.ifindex, XdpMode::Native) {
        Ok(link) => return Ok((link, XdpMode::Native)),
        Err(error) => error,
    };
    if matches!(error.raw_os_error(), Some(EPERM | EBUSY | EEXIST)) {
        return Err(failed(XdpMode::Native, error));
    }
    if zero_copy == ZeroCopy::Require {
        let why = format!("its driver does not run the XDP program ({error}){}", nic.parts());
        return Err(TapError::NoZeroCopy { interface: nic.name.clone(), driver: driver.to_owned(), why });
    }
    compromises.push(format!(
        "{}: driver {driver} does not run the XDP program ({error}); it runs in the kernel's generic path, \
         which is slower{}",
        nic.name,
        nic.parts()
    ));
    match attach_xdp(program.as_fd(), nic.ifindex, XdpMode::Generic) {
        Ok(link) => Ok((link, XdpMode::Generic)),
        Err(error) => Err(failed(XdpMode::Generic, error)),
    }
}

/// What the sockets are bound by.
pub(super) struct Plan<'a> {
    pub nic: &'a Nic,
    pub driver: &'a str,
    pub mode: XdpMode,
    pub jumbo: bool,
    pub settings: &'a TapSettings,
    /// The core whose worker polls a queue, if that is known: its memory is taken there.
    pub near: &'a dyn Fn(u32) -> Option<usize>,
}

impl Plan<'_> {
    pub(super) fn bind(&self, count: u32, compromises: &mut Vec<String>) -> Result<Vec<Socket>, TapError> {
        let wanted = self.settings.zero_copy;
        if wanted != ZeroCopy::Off && self.mode == XdpMode::Native {
            match (0..count).map(|queue| self.open(queue, true)).collect::<Result<Vec<_>, _>>() {
                Ok(sockets) => return Ok(sockets),
                Err(error) if matches!(error.errno(), Some(EPERM | ENOMEM | EBUSY | ENOBUFS)) => {
                    return Err(error.into());
                }
                Err(error) if wanted == ZeroCopy::Require => {
                    return Err(TapError::NoZeroCopy {
                        interface: self.nic.name.clone(),
                        driver: self.driver.to_owned(),
                        why: format!("{error}{}", self.nic.parts()),
                    });
                }
                Err(error) => {
                    // That it can't is all there is to say if it says no more.
                    let why = match error.errno() {
                        Some(EOPNOTSUPP) => String::new(),
                        _ => format!(" ({error})"),
                    };
                    compromises.push(format!(
                        "{}: driver {} can't do zero-copy, so packets are copied once more{why}{}",
                        self.nic.name,
                        self.driver,
                        self.nic.parts()
                    ));
                }
            }
        }
        let sockets = (0..count).map(|queue| self.open(queue, false)).collect::<Result<Vec<_>, _>>();
        Ok(sockets?)
    }

    fn open(&self, queue: u32, zero_copy: bool) -> Result<Socket, xsk::OpenError> {
        let settings = xsk::Settings {
            interface: &self.nic.name,
            queue,
            ring: self.settings.ring,
            frame_bytes: self.nic.frame_bytes(self.driver, zero_copy),
            zero_copy,
            busy_poll: match self.settings.busy_poll {
                BusyPoll::Auto => zero_copy,
                BusyPoll::On => true,
                BusyPoll::Off => false,
            },
            jumbo: self.jumbo,
        };
        dataplane_sys::on_core((self.near)(queue), || Socket::open(&settings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(mtu: u32) -> Nic {
        let (name, depends) = ("tap0".to_owned(), Vec::new());
        Nic {
            name,
            ifindex: 1,
            ethernet: true,
            up: true,
            carrier: true,
            mtu,
            xdp_program: None,
            depends,
            hardware: 1,
        }
    }

    #[test]
    fn a_packet_with_its_tags_fits_its_frame() {
        let sizes = |mtu, driver, zero_copy| (nic(mtu).is_jumbo(), nic(mtu).frame_bytes(driver, zero_copy));
        assert_eq!(sizes(1500, "veth", false), (false, SMALL_FRAME));
        assert_eq!(sizes(1770, "ice", true), (false, SMALL_FRAME));
        assert_eq!(sizes(1771, "ice", true), (false, PAGE_FRAME));
        assert_eq!(sizes(3498, "veth", false), (false, PAGE_FRAME));
        assert_eq!(sizes(3499, "veth", false), (true, PAGE_FRAME));
        assert_eq!(sizes(9000, "igb", true), (true, PAGE_FRAME));
        // Counted in KiB, what a small frame has left is one, and a packet of 1500 bytes would be two.
        assert_eq!((SMALL_FRAME - HEADROOM) / 1024, 1);
        assert_eq!(sizes(1500, "igb", true), (false, PAGE_FRAME));
        assert_eq!(sizes(1500, "igb", false), (false, SMALL_FRAME));
    }
}
