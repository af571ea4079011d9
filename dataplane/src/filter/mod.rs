//! What is to be captured: an expression in pcap-filter's syntax, and what belongs to what it names.
//!
//! Main thread compiles it, before packets come. On an AF_XDP interface it becomes part of the XDP program, for a
//! packet socket a filter of that socket ([`kernel`]); packets of files are judged here, on the worker's thread, by
//! [`Filtered`], remembered ones by a [`Selection`]. All go by one checked program, and [`related`] decides what the XDP program's chain decides.

mod kernel;
mod related;
mod selection;
mod source;
mod vm;

use dataplane_sys::bpf;
use dataplane_sys::pcap::{self, CompileError};
use xdp_prog::filter::{Instruction, Program, Refusal, Untranslatable};

pub use kernel::SocketFilter;
pub use selection::Selection;
pub use source::{Filtered, Refused};

/// Ethernet's LINKTYPE_ number.
const ETHERNET: u16 = 1;

/// An expression, and whether it is to be taken to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    expression: String,
    /// Nothing else passes: no later fragment and no ICMP error that the expression doesn't name.
    exact: bool,
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
        Filter { expression: expression.to_owned(), exact }
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
        compile(&self.expression, link)
    }
}

fn compile(expression: &str, link: u16) -> Result<Program, FilterError> {
    let code = pcap::compile(expression, dlt(link))?;
    let code: Vec<Instruction> = code
        .into_iter()
        .map(|pcap::Instruction { code, jt, jf, k }| Instruction { code, jt, jf, k })
        .collect();
    Ok(Program::check(&code)?)
}

/// libpcap's own number (DLT_) for a link type of files, on Linux.
fn dlt(link: u16) -> i32 {
    match link {
        // Raw IP has had several.
        12 | 14 | 101 => 12,
        same => same.into(),
    }
}
