//! A classic BPF program, checked: every jump lands, every slot exists, the last instruction returns. Main thread.
//!
//! What is refused here is told to the operator with the expression it came from. Meaning is that of libpcap's own
//! interpreter, which tcpdump reads files with (bpf_filter(3) in pcap; McCanne and Jacobson, 1993).

/// One instruction as libpcap gives it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// Slots of scratch memory.
pub const SLOTS: usize = 16;

/// Offsets from here on are not in the packet: they ask for what a kernel knows besides (SKF_AD_OFF and below).
const BESIDES: u32 = 0xffe0_0000;

/// Instructions at most, as in the kernel (BPF_MAXINSNS).
const MOST: usize = 4096;

/// Bytes of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Byte = 1,
    Half = 2,
    Word = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    A,
    X,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    K(u32),
    X,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    /// By 32 or more gives 0, as with the next.
    Lsh,
    Rsh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    /// They have a bit in common.
    AnyBit,
}

/// What an instruction does; targets of jumps are indices into the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A = the big-endian number at `at`, or at X + `at`; beyond the packet's end the packet is refused.
    Load {
        size: Size,
        at: u32,
        indexed: bool,
    },
    /// X = 4 * (the low four bits of the byte at this offset): the length of an IPv4 header.
    HeaderLength(u32),
    Set(Register, u32),
    /// The packet's length on the wire.
    Length(Register),
    Recall(Register, u8),
    Keep(Register, u8),
    Alu(Alu, Operand),
    Negate,
    Jump(usize),
    Branch {
        test: Test,
        operand: Operand,
        yes: usize,
        no: usize,
    },
    Return(bool),
    /// Wanted unless A is 0.
    ReturnA,
    /// X = A
    ToX,
    /// A = X
    ToA,
}

/// Why a program can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it asks for what packets don't show, such as the direction they took through a host")]
    NotInPacket,
    #[error("it is too long: {0} instructions, at most {MOST}")]
    TooLong(usize),
    #[error("instruction {0} ({1:#06x}) is none that libpcap is known to make")]
    Unknown(usize, u16),
}

/// A program that can be run as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    ops: Vec<Op>,
    loops: bool,
}

impl Program {
    /// Checks what a compiler made.
    ///
    /// # Errors
    /// What it can't do, or does wrong.
    pub fn check(code: &[Instruction]) -> Result<Program, Refusal> {
        if code.len() > MOST {
            return Err(Refusal::TooLong(code.len()));
        }
        let read = |(at, insn): (usize, &Instruction)| read(at, insn, code.len());
        let ops = code.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        let last = ops.last().copied();
        if !matches!(last, Some(Op::Return(_) | Op::ReturnA | Op::Jump(_) | Op::Branch { .. })) {
            return Err(Refusal::Unknown(code.len(), 0));
        }
        let back = |(at, op): (usize, &Op)| matches!(op, Op::Jump(to) if *to <= at);
        let loops = ops.iter().enumerate().any(back);
        Ok(Program { ops, loops })
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// It jumps backwards: how long it runs depends on the packet.
    pub fn loops(&self) -> bool {
        self.loops
    }
}

fn read(at: usize, insn: &Instruction, len: usize) -> Result<Op, Refusal> {
    let Instruction { code, k, .. } = *insn;
    let unknown = Err(Refusal::Unknown(at, code));
    let slot = || u8::try_from(k).ok().filter(|slot| usize::from(*slot) < SLOTS);
    let operand = if code & 0x08 == 0 { Operand::K(k) } else { Operand::X };
    let op = match code & 0x07 {
        0x00 => return load(at, insn),
        0x01 => match code {
            0x01 => Op::Set(Register::X, k),
            0x61 => match slot() {
                Some(slot) => Op::Recall(Register::X, slot),
                None => return unknown,
            },
            0x81 => Op::Length(Register::X),
            0xb1 if k < BESIDES => Op::HeaderLength(k),
            0xb1 => return Err(Refusal::NotInPacket),
            _ => return unknown,
        },
        class @ (0x02 | 0x03) => match slot() {
            Some(slot) if class == 0x02 => Op::Keep(Register::A, slot),
            Some(slot) => Op::Keep(Register::X, slot),
            None => return unknown,
        },
        0x04 if code == 0x84 => Op::Negate,
        0x04 => match alu(code) {
            Some(Alu::Div | Alu::Mod) if operand == Operand::K(0) => return unknown,
            Some(Alu::Lsh | Alu::Rsh) if matches!(operand, Operand::K(32..)) => Op::Set(Register::A, 0),
            Some(alu) => Op::Alu(alu, operand),
            None => return unknown,
        },
        0x05 => return jump(at, insn, operand, len),
        0x06 => match code {
            0x06 => Op::Return(k != 0),
            0x16 => Op::ReturnA,
            _ => return unknown,
        },
        _ => match code {
            0x07 => Op::ToX,
            0x87 => Op::ToA,
            _ => return unknown,
        },
    };
    Ok(op)
}

fn load(at: usize, insn: &Instruction) -> Result<Op, Refusal> {
    let Instruction { code, k, .. } = *insn;
    let size = match code & 0x18 {
        0x00 => Size::Word,
        0x08 => Size::Half,
        0x10 => Size::Byte,
        _ => return Err(Refusal::Unknown(at, code)),
    };
    match code & 0xe0 {
        0x00 => Ok(Op::Set(Register::A, k)),
        0x20 if k >= BESIDES => Err(Refusal::NotInPacket),
        0x20 => Ok(Op::Load { size, at: k, indexed: false }),
        // X + k wraps round, so that any k may be meant.
        0x40 => Ok(Op::Load { size, at: k, indexed: true }),
        0x60 if k < SLOTS as u32 => Ok(Op::Recall(Register::A, k as u8)),
        0x80 => Ok(Op::Length(Register::A)),
        _ => Err(Refusal::Unknown(at, code)),
    }
}

fn alu(code: u16) -> Option<Alu> {
    Some(match code & 0xf0 {
        0x00 => Alu::Add,
        0x10 => Alu::Sub,
        0x20 => Alu::Mul,
        0x30 => Alu::Div,
        0x40 => Alu::Or,
        0x50 => Alu::And,
        0x60 => Alu::Lsh,
        0x70 => Alu::Rsh,
        0x90 => Alu::Mod,
        0xa0 => Alu::Xor,
        _ => return None,
    })
}

fn jump(at: usize, insn: &Instruction, operand: Operand, len: usize) -> Result<Op, Refusal> {
    let unknown = Refusal::Unknown(at, insn.code);
    let test = match insn.code & 0xf0 {
        0x00 => {
            // Only this one can go backwards, by a negative k: protochain does.
            let to = (at as i64) + 1 + i64::from(insn.k.cast_signed());
            let to = usize::try_from(to).ok().filter(|to| *to < len && insn.code == 0x05);
            return to.map(Op::Jump).ok_or(unknown);
        }
        0x10 => Test::Equal,
        0x20 => Test::Greater,
        0x30 => Test::GreaterOrEqual,
        0x40 => Test::AnyBit,
        _ => return Err(unknown),
    };
    let (yes, no) = (at + 1 + usize::from(insn.jt), at + 1 + usize::from(insn.jf));
    if yes >= len || no >= len {
        return Err(unknown);
    }
    Ok(Op::Branch { test, operand, yes, no })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    #[test]
    fn a_program_is_read_as_it_was_meant() {
        let code = [insn(0x28, 0, 0, 12), insn(0x15, 0, 1, 0x800), insn(6, 0, 0, 262_144), insn(6, 0, 0, 0)];
        let program = Program::check(&code).unwrap();
        let wanted = [
            Op::Load { size: Size::Half, at: 12, indexed: false },
            Op::Branch { test: Test::Equal, operand: Operand::K(0x800), yes: 2, no: 3 },
            Op::Return(true),
            Op::Return(false),
        ];
        assert_eq!(program.ops(), wanted);
        assert!(!program.loops());
        let code = [insn(0x80, 0, 0, 0), insn(0x05, 0, 0, u32::MAX - 1)];
        assert!(Program::check(&code).unwrap().loops());
    }

    #[test]
    fn what_could_go_astray_is_refused() {
        let ret = insn(6, 0, 0, 0);
        for wrong in [
            vec![],
            vec![insn(0x28, 0, 0, 12)],
            vec![insn(0x05, 0, 0, 1), ret],
            vec![insn(0x05, 0, 0, u32::MAX - 7), ret],
            vec![insn(0x15, 0, 9, 0), ret],
            vec![insn(0x02, 0, 0, 16), ret],
            vec![insn(0x60, 0, 0, 16), ret],
            vec![insn(0x34, 0, 0, 0), ret],
            vec![insn(0x18, 0, 0, 0), insn(0x38, 0, 0, 0), ret],
            vec![insn(0xffff, 0, 0, 0), ret],
        ] {
            assert!(matches!(Program::check(&wrong), Err(Refusal::Unknown(..))), "{wrong:?}");
        }
        // ldh [SKF_AD_OFF + SKF_AD_PKTTYPE]: `inbound`.
        let direction = [insn(0x28, 0, 0, 0xffff_f004), ret];
        assert_eq!(Program::check(&direction), Err(Refusal::NotInPacket));
        assert_eq!(Program::check(&vec![ret; 5000]), Err(Refusal::TooLong(5000)));
    }
}
