//! A checked filter as a program for the kernel's own machine: one of the XDP chain, or a packet socket's filter.
//!
//! Main thread. Registers: r6 the packet, r7 A, r8 X, r9 what shifts offsets; r0 to r5 are scratch. A and X only ever
//! change by 32-bit instructions, so that their upper halves are 0. Scratch memory lies at the top of the stack, of
//! which only what is used is cleared: what the verifier must not keep track of makes long filters pass it.

use std::collections::BTreeSet;

use super::asm::{Asm, Label};
use super::classic::{Alu, Op, Operand, Program, Register, Size, Test};

/// Largest offset that is looked at: the verifier lets a packet have 65,535 bytes.
pub(super) const FARTHEST: u32 = 0xfff0;

/// Places on the stack, below the scratch memory.
pub(super) const LOADED: i16 = -72;
pub(super) const SHIFTED_FROM: i16 = -80;
pub(super) const OFFSET: i16 = -80;
pub(super) const BYTE: i16 = -88;
pub(super) const TAG: i16 = -96;

pub(super) const PACKET: u8 = 6;
const A: u8 = 7;
pub(super) const X: u8 = 8;
pub(super) const SHIFT: u8 = 9;
pub(super) const STACK: u8 = 10;

/// Helpers of the kernel, include/uapi/linux/bpf.h.
const MAP_LOOKUP: i32 = 1;
const TAIL_CALL: i32 = 12;
const XDP_BUFF_LEN: i32 = 188;

/// 64-bit jumps, with an immediate.
pub(super) const EQUAL: u8 = 0x15;
pub(super) const NOT_EQUAL: u8 = 0x55;
pub(super) const ABOVE: u8 = 0x25;

/// What the filter is to be part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The XDP chain: goes on with one step for packets that are wanted, another for those that aren't.
    Xdp {
        /// The map of steps, an open file.
        steps: i32,
        wanted: u32,
        refused: u32,
        /// Frames may come in several buffers.
        jumbo: bool,
        /// To judge the packet quoted in another: the map that says where it is (`struct look`).
        quoted: Option<i32>,
    },
    /// A packet socket's filter. Counts what it refuses in this per-CPU map of [`super::Refusals`].
    Socket { refused: Option<i32> },
}

/// Why a filter can't run in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    #[error("it loops over a packet's headers (protochain), which the kernel does not let a filter do")]
    Loops,
    #[error("it is too long for a program of the kernel")]
    TooLong,
}

/// Translates.
///
/// # Errors
/// What this filter can't be turned into.
pub fn translate(program: &Program, target: Target) -> Result<Vec<u64>, Untranslatable> {
    if program.loops() {
        return Err(Untranslatable::Loops);
    }
    let ops: Vec<Op> = program.ops().iter().map(|op| within_reach(*op)).collect();
    let reached = reached(&ops);
    let mut asm = Asm::default();
    let labels = ops.iter().map(|_| asm.label()).collect();
    let (wanted, refused) = (asm.label(), asm.label());
    let mut writer = Writer { asm, target, labels, wanted, refused, some_wanted: false, some_refused: false };
    writer.begin(&ops);
    for (at, op) in ops.iter().enumerate().filter(|(at, _)| reached.contains(at)) {
        writer.asm.place(writer.label(at));
        writer.op(at, *op);
    }
    writer.end();
    writer.asm.finish().ok_or(Untranslatable::TooLong)
}

/// A load that no packet is long enough for ends the program.
fn within_reach(op: Op) -> Op {
    match op {
        Op::Load { at, .. } | Op::HeaderLength(at) if at > FARTHEST => Op::Return(false),
        _ => op,
    }
}

/// Instructions that can be reached; the kernel refuses a program with others.
fn reached(ops: &[Op]) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        let Some(op) = ops.get(at).filter(|_| reached.insert(at)) else { continue };
        match *op {
            Op::Jump(to) => open.push(to),
            Op::Branch { yes, no, .. } => open.extend([yes, no]),
            Op::Return(_) | Op::ReturnA => {}
            _ => open.push(at + 1),
        }
    }
    reached
}

pub(super) struct Writer {
    pub(super) asm: Asm,
    pub(super) target: Target,
    labels: Vec<Label>,
    wanted: Label,
    refused: Label,
    some_wanted: bool,
    some_refused: bool,
}

const fn register(register: Register) -> u8 {
    match register {
        Register::A => A,
        Register::X => X,
    }
}

/// Where a slot of scratch memory is.
const fn slot(slot: u8) -> i16 {
    -4 * (slot as i16 + 1)
}

impl Writer {
    fn label(&self, op: usize) -> Label {
        // Targets were checked; one that isn't there would leave its jump without a place, which `finish` refuses.
        self.labels.get(op).copied().unwrap_or(self.refused)
    }

    fn begin(&mut self, ops: &[Op]) {
        let asm = &mut self.asm;
        asm.copy(PACKET, 1);
        let slots = ops.iter().filter_map(|op| match op {
            Op::Recall(_, slot) | Op::Keep(_, slot) => Some(*slot),
            _ => None,
        });
        for used in slots.collect::<BTreeSet<u8>>() {
            asm.insn(0x62, STACK, 0, slot(used), 0);
        }
        match self.target {
            Target::Xdp { quoted: Some(look), .. } => {
                asm.insn(0x62, STACK, 0, LOADED, 0);
                asm.copy(2, STACK);
                asm.add(2, LOADED.into());
                asm.map(1, look);
                asm.call(MAP_LOOKUP);
                let found = asm.label();
                asm.jump_if(NOT_EQUAL, 0, 0, found);
                asm.jump(self.refused);
                self.some_refused = true;
                let asm = &mut self.asm;
                asm.place(found);
                asm.read(4, SHIFT, 0, 0);
                asm.read(4, 1, 0, 4);
                asm.write(8, STACK, SHIFTED_FROM, 1);
            }
            Target::Xdp { .. } => {}
            Target::Socket { .. } => {
                // The VLAN tag lies beside the packet (struct __sk_buff: vlan_present, vlan_tci, vlan_proto).
                asm.read(4, SHIFT, PACKET, 20);
                asm.read(4, 1, PACKET, 28);
                asm.big_endian(1, 2);
                asm.insn(0x67, 1, 0, 0, 16);
                asm.read(4, 2, PACKET, 24);
                asm.insn(0x57, 2, 0, 0, 0xffff);
                asm.insn(0x4f, 1, 2, 0, 0);
                asm.write(8, STACK, TAG, 1);
            }
        }
        self.asm.set32(A, 0);
        self.asm.set32(X, 0);
    }

    pub(super) fn refuse(&mut self) -> Label {
        self.some_refused = true;
        self.refused
    }

    fn want(&mut self) -> Label {
        self.some_wanted = true;
        self.wanted
    }

    fn op(&mut self, at: usize, op: Op) {
        match op {
            Op::Load { size, at, indexed } => self.load(A, size, at, indexed),
            Op::HeaderLength(at) => {
                self.load(X, Size::Byte, at, false);
                self.asm.insn(0x54, X, 0, 0, 15);
                self.asm.insn(0x64, X, 0, 0, 2);
            }
            Op::Set(to, value) => self.asm.set32(register(to), value),
            Op::Length(to) => self.length(register(to)),
            Op::Recall(to, from) => self.asm.read(4, register(to), STACK, slot(from)),
            Op::Keep(from, to) => self.asm.write(4, STACK, slot(to), register(from)),
            Op::Alu(alu, operand) => self.alu(alu, operand),
            Op::Negate => self.asm.insn(0x84, A, 0, 0, 0),
            Op::Jump(to) => {
                let to = self.label(to);
                self.asm.jump(to);
            }
            Op::Branch { test, operand, yes, no } => self.branch(at, test, operand, (yes, no)),
            Op::Return(true) => {
                let wanted = self.want();
                self.asm.jump(wanted);
            }
            Op::Return(false) => {
                let refused = self.refuse();
                self.asm.jump(refused);
            }
            Op::ReturnA => {
                let (wanted, refused) = (self.want(), self.refuse());
                self.asm.jump_if(0x16, A, 0, refused);
                self.asm.jump(wanted);
            }
            Op::ToX => self.asm.insn(0xbc, X, A, 0, 0),
            Op::ToA => self.asm.insn(0xbc, A, X, 0, 0),
        }
    }

    fn alu(&mut self, alu: Alu, operand: Operand) {
        let code = match alu {
            Alu::Add => 0x00,
            Alu::Sub => 0x10,
            Alu::Mul => 0x20,
            Alu::Div => 0x30,
            Alu::Or => 0x40,
            Alu::And => 0x50,
            Alu::Lsh => 0x60,
            Alu::Rsh => 0x70,
            Alu::Mod => 0x90,
            Alu::Xor => 0xa0,
        };
        match (alu, operand) {
            (_, Operand::K(k)) => self.asm.insn(code | 0x04, A, 0, 0, k.cast_signed()),
            (Alu::Div | Alu::Mod, Operand::X) => {
                let refused = self.refuse();
                self.asm.jump_if(0x16, X, 0, refused);
                self.asm.insn(code | 0x0c, A, X, 0, 0);
            }
            (Alu::Lsh | Alu::Rsh, Operand::X) => {
                // The machine would take X modulo 32.
                let (far, done) = (self.asm.label(), self.asm.label());
                self.asm.jump_if(0x26, X, 31, far);
                self.asm.insn(code | 0x0c, A, X, 0, 0);
                self.asm.jump(done);
                self.asm.place(far);
                self.asm.set32(A, 0);
                self.asm.place(done);
            }
            (_, Operand::X) => self.asm.insn(code | 0x0c, A, X, 0, 0),
        }
    }

    fn branch(&mut self, at: usize, test: Test, operand: Operand, (yes, no): (usize, usize)) {
        // Of 32 bits, so that any K is an immediate.
        let code = match test {
            Test::Equal => 0x10,
            Test::Greater => 0x20,
            Test::GreaterOrEqual => 0x30,
            Test::AnyBit => 0x40,
        };
        let (yes, next, no) = (self.label(yes), no == at + 1, self.label(no));
        match operand {
            Operand::K(k) => self.asm.jump_if(code | 0x06, A, k.cast_signed(), yes),
            Operand::X => self.asm.jump_if_register(code | 0x0e, A, X, yes),
        }
        if !next {
            self.asm.jump(no);
        }
    }

    fn length(&mut self, to: u8) {
        let asm = &mut self.asm;
        match self.target {
            Target::Xdp { jumbo: true, .. } => {
                asm.copy(1, PACKET);
                asm.call(XDP_BUFF_LEN);
                asm.insn(0xbc, to, 0, 0, 0);
            }
            Target::Xdp { .. } => {
                asm.read(4, 1, PACKET, 0);
                asm.read(4, 2, PACKET, 4);
                asm.insn(0x1f, 2, 1, 0, 0);
                asm.insn(0xbc, to, 2, 0, 0);
            }
            Target::Socket { .. } => {
                let untagged = asm.label();
                asm.read(4, to, PACKET, 0);
                asm.jump_if(EQUAL, SHIFT, 0, untagged);
                asm.insn(0x04, to, 0, 0, 4);
                asm.place(untagged);
            }
        }
    }

    fn end(&mut self) {
        if self.some_wanted {
            self.asm.place(self.wanted);
            self.verdict(true);
        }
        if self.some_refused {
            self.asm.place(self.refused);
            self.verdict(false);
        }
    }

    fn verdict(&mut self, is_wanted: bool) {
        /// For a step that isn't there: the kernel is to have the packet.
        const XDP_PASS: u32 = 2;
        let asm = &mut self.asm;
        match self.target {
            Target::Xdp { steps, wanted, refused, .. } => {
                asm.copy(1, PACKET);
                asm.map(2, steps);
                asm.set32(3, if is_wanted { wanted } else { refused });
                asm.call(TAIL_CALL);
                asm.set32(0, XDP_PASS);
            }
            Target::Socket { .. } if is_wanted => asm.set32(0, u32::MAX),
            Target::Socket { refused } => {
                if let Some(count) = refused {
                    self.count_refused(count);
                }
                self.asm.set32(0, 0);
            }
        }
        self.asm.exit();
    }

    /// Counts a packet that a socket doesn't want, apart if it has a VLAN tag.
    fn count_refused(&mut self, count: i32) {
        self.find_tag();
        let asm = &mut self.asm;
        let none = asm.label();
        asm.copy(2, STACK);
        asm.add(2, LOADED.into());
        asm.map(1, count);
        asm.call(MAP_LOOKUP);
        asm.jump_if(EQUAL, 0, 0, none);
        asm.read(8, 1, 0, 0);
        asm.add(1, 1);
        asm.write(8, 0, 0, 1);
        asm.place(none);
    }
}
