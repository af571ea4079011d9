//! Packets onto an interface: what the rest of the library writes to a file, sent, and floods of one packet.
//!
//! Unlike the rest it reads the clock and needs a kernel and privilege. It runs on its caller's thread (a flood
//! on one of its own), knows nothing of whoever receives, and prints nothing: what went, and what went wrong, is
//! in a [`Summary`] and an [`Error`] for the program to tell.

pub mod flood;
mod pace;
pub mod send;

use std::io;

use rustix::net::{AddressFamily, SocketType, netdevice};
use serde::Serialize;

/// Why nothing was sent, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for can't be meant.
    #[error("{0}")]
    Usage(String),
    /// The interface, or the privilege to use it, is not there.
    #[error("{0}")]
    Unavailable(String),
    /// An input, or the sending itself.
    #[error("{0}")]
    Failed(String),
}

/// What went onto the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Frames that the interface took.
    pub sent: u64,
    /// Frames that it didn't.
    pub errors: u64,
    /// Of those sent, without FCS.
    pub bytes: u64,
    pub seconds: f64,
    pub pps: f64,
    /// Of the errors: frames that are longer than the interface takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub too_long: Option<u64>,
    /// What else there is to say, in words.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Summary {
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    fn timed(self, seconds: f64) -> Summary {
        let pps = if seconds > 0.0 { (self.sent as f64 / seconds).round() } else { 0.0 };
        let seconds = (seconds * 1e6).round() / 1e6;
        Summary { seconds, pps, ..self }
    }
}

/// An interface in the calling thread's namespace.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    index: u32,
}

impl Interface {
    fn find(name: &str) -> Result<Interface, Error> {
        let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
        let found = any.and_then(|any| netdevice::name_to_index(any, name));
        match found {
            Ok(index) => Ok(Interface { name: name.to_owned(), index }),
            Err(error) if error == rustix::io::Errno::NODEV => Err(Error::Unavailable(format!(
                "there is no interface {name}; ip -br link lists those there are"
            ))),
            Err(error) => Err(Error::Unavailable(format!("{name} can't be looked up: {error}"))),
        }
    }

    /// What it means that the kernel refuses to use it.
    fn refused(&self, error: &io::Error, privilege: &str) -> Error {
        let name = &self.name;
        Error::Unavailable(match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                format!("{name} can't be used without privilege: run it as root, or with {privilege}")
            }
            Some(rustix::io::Errno::NETDOWN) => format!("{name} is down; ip link set {name} up"),
            Some(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => format!("{name} is gone"),
            _ => format!("{name} can't be used: {error}"),
        })
    }
}
