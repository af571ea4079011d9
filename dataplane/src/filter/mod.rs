//! What is to be captured: an expression in pcap-filter's syntax, and what belongs to what it names.
//!
//! Main thread compiles it, before packets come. On an AF_XDP interface it becomes part of the XDP program, for a
//! packet socket a filter of that socket ([`kernel`]); packets of files are judged here, on the worker's thread, by
//! [`Filtered`], remembered ones by a [`Selection`]. All go by one checked program, and [`related`] decides what the
//! XDP program's chain decides.

mod compile;
mod kernel;
mod related;
mod selection;
mod source;
mod vm;

use std::sync::{Arc, OnceLock};

use dataplane_sys::bpf;
use dataplane_sys::pcap::CompileError;
use xdp_prog::filter::{Instruction, Program, Refusal, Untranslatable};

pub use kernel::SocketFilter;
pub use selection::Selection;
pub use source::{Filtered, Refused};

/// Ethernet's LINKTYPE_ number.
const ETHERNET: u16 = 1;

/// An expression, and whether it is to be taken to the letter.
#[derive(Clone, Debug)]
pub struct Filter {
    expression: String,
    /// Nothing else passes: no later fragment and no ICMP error that the expression doesn't name.
    exact: bool,
    /// What it is for Ethernet, once somebody asked: compiling can take long.
    ethernet: Arc<OnceLock<Vec<Instruction>>>,
}

/// A filter can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the expression can't be used: {0}")]
    Refusal(#[from] Refusal),
    #[error("the expression can't be used in the kernel: {0}")]
    Untranslatable(#[from] Untranslatable),
    #[error("the kernel does not take the filter: {0}")]
    Kernel(#[from] bpf::Refused),
    #[error(transparent)]
    Load(#[from] xdp_prog::LoadError),
}

impl FilterError {
    /// libpcap is what is missing.
    pub fn is_library(&self) -> bool {
        matches!(self, FilterError::Compile(CompileError::NoLibrary))
    }
}

impl Filter {
    pub fn new(expression: &str, exact: bool) -> Filter {
        Filter { expression: expression.to_owned(), exact, ethernet: Arc::default() }
    }

    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub fn exact(&self) -> bool {
        self.exact
    }

    /// The program for packets of this link type (a LINKTYPE_ number).
    ///
    /// # Errors
    /// libpcap's, in its own words, and what can't be used of what it makes.
    pub fn program(&self, link: u16) -> Result<Program, FilterError> {
        Ok(Program::check(&self.code(link)?)?)
    }

    fn code(&self, link: u16) -> Result<Vec<Instruction>, FilterError> {
        if link != ETHERNET {
            return compile::compile(&self.expression, link);
        }
        if let Some(code) = self.ethernet.get() {
            return Ok(code.clone());
        }
        let code = compile::compile(&self.expression, link)?;
        Ok(self.ethernet.get_or_init(|| code).clone())
    }
}
