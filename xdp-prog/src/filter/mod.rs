//! Capture filters: classic BPF as libpcap compiles it, checked once, and its translation into programs for the
//! kernel's own machine. Main thread, before packets come; pure logic, loads nothing.
//!
//! A checked [`Program`] is also what user space runs on packets of files, so that both go by the same reading.

mod asm;
mod classic;
mod loads;
mod refusals;
mod translate;

pub use classic::{Alu, Instruction, Op, Operand, Program, Refusal, Register, SLOTS, Size, Test};
pub use refusals::{Refusals, RefusedCount};
pub use translate::{Target, Untranslatable, translate};
