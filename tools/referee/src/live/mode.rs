//! How `referee run` is told to take packets.
//! Main thread, while arguments are read.

use clap::ValueEnum;
use dataplane::source::afxdp::ZeroCopy;

/// `--mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// XDP, in the driver if it can; an interface that the host uses is refused
    Auto,
    /// XDP: takes the interface's packets away from the kernel
    Xdp,
    /// AF_PACKET: copies what passes, in and out, also of an interface that the host uses; slower
    Afpacket,
}

/// `--zero-copy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ZeroCopyArg {
    /// Or not at all
    Require,
    /// If the driver can
    Prefer,
    Off,
}

impl From<ZeroCopyArg> for ZeroCopy {
    fn from(given: ZeroCopyArg) -> ZeroCopy {
        match given {
            ZeroCopyArg::Require => ZeroCopy::Require,
            ZeroCopyArg::Prefer => ZeroCopy::Prefer,
            ZeroCopyArg::Off => ZeroCopy::Off,
        }
    }
}
