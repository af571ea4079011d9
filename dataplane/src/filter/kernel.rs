//! The filter as a part of the kernel: steps of the XDP program's chain, or a packet socket's filter.
//!
//! Main thread, while an interface is opened and privileges are there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use dataplane_sys::bpf::{self, Kind};
use xdp_prog::Capture;
use xdp_prog::abi::ChainStep;
use xdp_prog::filter::{Program, Refusals, RefusedCount, Target, translate};

use super::compile::{any_of, compile};
use super::{ETHERNET, Filter, FilterError};

/// What a packet socket lets through before the filter itself is asked: what may be related, and tagged frames, behind
/// whose tags the expressions before it would have to be repeated.
const MAY_BE_RELATED: &str = "icmp or icmp6 or (ip[6:2] & 0x1fff != 0) or ether proto 0x8100 or ether proto 0x88a8 or \
     ether proto 0x9100 or (ip6 and (ip6[6] = 0 or ip6[6] = 43 or ip6[6] = 44 or ip6[6] = 60))";

impl Filter {
    /// Whether it can be used on an interface, without touching one.
    ///
    /// # Errors
    /// The expression can't be compiled or translated.
    pub fn check_for_kernel(&self) -> Result<(), FilterError> {
        translate(&self.program(ETHERNET)?, Target::Socket { refused: None })?;
        Ok(())
    }

    /// Completes the chain of a program that was loaded to have a filter.
    ///
    /// # Errors
    /// The expression can't be compiled or translated, or the kernel refuses what comes of it.
    pub fn complete(&self, capture: &Capture, jumbo: bool) -> Result<(), FilterError> {
        let (Some(steps), Some(looks)) = (capture.steps(), capture.looks()) else { return Ok(()) };
        let program = self.program(ETHERNET)?;
        let step = |wanted: ChainStep, refused: ChainStep, quoted| -> Result<OwnedFd, FilterError> {
            let target = Target::Xdp {
                steps: steps.as_raw_fd(),
                wanted: wanted as u32,
                refused: refused as u32,
                jumbo,
                quoted,
            };
            let code = translate(&program, target)?;
            Ok(bpf::load(Kind::Xdp { jumbo }, c"referee_filter", &code)?)
        };
        if self.exact {
            let filter = step(ChainStep::Take, ChainStep::Refuse, None)?;
            return Ok(capture.put(ChainStep::Filter, filter.as_fd())?);
        }
        let quoted = step(ChainStep::Related, ChainStep::Refuse, Some(looks.as_raw_fd()))?;
        capture.put(ChainStep::Quoted, quoted.as_fd())?;
        let filter = step(ChainStep::Take, ChainStep::Second, None)?;
        Ok(capture.put(ChainStep::Filter, filter.as_fd())?)
    }

    /// The filter for packet sockets, several of which may share it. If it is exact, what passes is what is wanted;
    /// else more passes, of which [`super::Filtered`] takes what is wanted and what is related.
    ///
    /// # Errors
    /// As for [`Filter::complete`].
    pub fn for_sockets(&self) -> Result<SocketFilter, FilterError> {
        let own = self.code(ETHERNET)?;
        let code = match self.exact {
            true => own,
            false => match any_of(vec![compile(MAY_BE_RELATED, ETHERNET)?, own]) {
                Some(both) => both,
                // Which was compiled alone before, so that its parentheses are its own.
                None => compile(&format!("{MAY_BE_RELATED} or ({})", self.expression), ETHERNET)?,
            },
        };
        let program = Program::check(&code)?;
        let refusals = Refusals::new()?;
        let code = translate(&program, Target::Socket { refused: Some(refusals.as_fd().as_raw_fd()) })?;
        let program = bpf::load(Kind::SocketFilter, c"referee_filter", &code)?;
        Ok(SocketFilter { program, refusals })
    }
}

/// A filter of packet sockets, loaded.
#[derive(Debug)]
pub struct SocketFilter {
    program: OwnedFd,
    refusals: Refusals,
}

impl SocketFilter {
    /// Gives it to a socket. Best before that is bound: what came earlier was not filtered.
    ///
    /// # Errors
    /// It is no socket.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::filter_socket(socket, self.program.as_fd())
    }

    /// What it has refused so far, on all sockets.
    ///
    /// # Errors
    /// Those of reading a map.
    pub fn refused(&self) -> Result<RefusedCount, FilterError> {
        Ok(self.refusals.count()?)
    }
}
