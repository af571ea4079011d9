//! Runs a checked filter on the bytes of one packet: packets of files, and those of packet sockets the kernel can't
//! decide about. Worker's thread; allocates nothing.

use xdp_prog::filter::{Alu, Op, Operand, Program, Register, SLOTS, Size, Test};

/// Instructions of a program that loops, after which the packet is not wanted.
const MOST_STEPS: u32 = 1000;

/// Where to look for a packet that another quotes: offsets from `from` on are meant `by` bytes later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    pub by: u32,
    pub from: u32,
}

/// A packet as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub bytes: &'a [u8],
    /// Bytes it had on the wire.
    pub wire_len: u32,
    pub shift: Shift,
}

impl View<'_> {
    /// The number at `at + index`; `None` beyond the end.
    fn load(&self, size: Size, at: u32, index: u32) -> Option<u32> {
        let mut start = u64::from(at) + u64::from(index);
        if start >= u64::from(self.shift.from) {
            start += u64::from(self.shift.by);
        }
        let rest = self.bytes.get(usize::try_from(start).ok()?..)?;
        match size {
            Size::Byte => rest.first().map(|byte| u32::from(*byte)),
            Size::Half => rest.first_chunk().map(|bytes| u32::from(u16::from_be_bytes(*bytes))),
            Size::Word => rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
        }
    }
}

/// Whether the program wants this packet.
pub(super) fn wants(program: &Program, packet: View<'_>) -> bool {
    run(program, packet).unwrap_or(false)
}

/// `None` if it reaches beyond the packet's end, divides by zero or doesn't end.
fn run(program: &Program, packet: View<'_>) -> Option<bool> {
    let (mut a, mut x) = (0_u32, 0_u32);
    let mut slots = [0_u32; SLOTS];
    let mut at = 0;
    let mut steps = 0;
    loop {
        let op = *program.ops().get(at)?;
        at += 1;
        match op {
            Op::Load { size, at, indexed } => a = packet.load(size, at, if indexed { x } else { 0 })?,
            Op::HeaderLength(at) => x = (packet.load(Size::Byte, at, 0)? & 15) * 4,
            Op::Set(Register::A, value) => a = value,
            Op::Set(Register::X, value) => x = value,
            Op::Length(Register::A) => a = packet.wire_len,
            Op::Length(Register::X) => x = packet.wire_len,
            Op::Recall(Register::A, slot) => a = *slots.get(usize::from(slot))?,
            Op::Recall(Register::X, slot) => x = *slots.get(usize::from(slot))?,
            Op::Keep(from, slot) => {
                *slots.get_mut(usize::from(slot))? = if from == Register::A { a } else { x };
            }
            Op::Alu(alu, operand) => a = calculate(alu, a, value(operand, x))?,
            Op::Negate => a = a.wrapping_neg(),
            Op::Jump(to) => {
                steps += 1;
                if steps > MOST_STEPS {
                    return None;
                }
                at = to;
            }
            Op::Branch { test, operand, yes, no } => {
                at = if holds(test, a, value(operand, x)) { yes } else { no };
            }
            Op::Return(wanted) => return Some(wanted),
            Op::ReturnA => return Some(a != 0),
            Op::ToX => x = a,
            Op::ToA => a = x,
        }
    }
}

fn value(operand: Operand, x: u32) -> u32 {
    match operand {
        Operand::K(k) => k,
        Operand::X => x,
    }
}

fn holds(test: Test, a: u32, b: u32) -> bool {
    match test {
        Test::Equal => a == b,
        Test::Greater => a > b,
        Test::GreaterOrEqual => a >= b,
        Test::AnyBit => a & b != 0,
    }
}

fn calculate(alu: Alu, a: u32, b: u32) -> Option<u32> {
    Some(match alu {
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::Mul => a.wrapping_mul(b),
        Alu::Div => a.checked_div(b)?,
        Alu::Mod => a.checked_rem(b)?,
        Alu::Or => a | b,
        Alu::And => a & b,
        Alu::Xor => a ^ b,
        Alu::Lsh => a.checked_shl(b).unwrap_or(0),
        Alu::Rsh => a.checked_shr(b).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use xdp_prog::filter::Instruction;

    use super::*;

    fn program(code: &[(u16, u8, u8, u32)]) -> Program {
        let code: Vec<Instruction> =
            code.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
        Program::check(&code).unwrap()
    }

    fn wanted(code: &[(u16, u8, u8, u32)], bytes: &[u8]) -> bool {
        wants(&program(code), View { bytes, wire_len: 1500, shift: Shift::default() })
    }

    #[test]
    fn loads_end_with_the_packet() {
        for (code, size) in [(0x20, 4), (0x28, 2), (0x30, 1)] {
            for have in 0..6 {
                let bytes = vec![1; have];
                assert_eq!(wanted(&[(code, 0, 0, 1), (0x16, 0, 0, 0)], &bytes), have > size, "{size} {have}");
            }
        }
        // X + k does not wrap round to the beginning.
        let wrapping = [(0x01, 0, 0, 2), (0x50, 0, 0, u32::MAX), (0x06, 0, 0, 1)];
        assert!(!wanted(&wrapping, &[1; 10]));
    }

    #[test]
    fn arithmetic_is_the_machines() {
        let calculated = |alu: u16, a: u32, x: u32| {
            move |b: u32| {
                let code = [
                    (0x01, 0, 0, x),
                    (0x00, 0, 0, a),
                    (0x04 | 0x08 | alu, 0, 0, 0),
                    (0x15, 0, 1, b),
                    (0x06, 0, 0, 1),
                    (0x06, 0, 0, 0),
                ];
                wanted(&code, &[])
            }
        };
        assert!(calculated(0x00, u32::MAX, 2)(1));
        assert!(calculated(0x10, 1, 2)(u32::MAX));
        assert!(calculated(0x30, 7, 2)(3));
        assert!(!calculated(0x30, 7, 0)(0), "divided by zero, it is not wanted");
        assert!(calculated(0x60, 1, 31)(1 << 31) && calculated(0x60, 1, 32)(0));
        assert!(calculated(0x70, 4, 1)(2) && calculated(0x90, 7, 4)(3) && calculated(0xa0, 6, 3)(5));
    }

    #[test]
    fn a_program_that_does_not_end_wants_nothing() {
        assert!(!wanted(&[(0x80, 0, 0, 0), (0x05, 0, 0, u32::MAX - 1)], &[]));
    }

    #[test]
    fn what_lies_behind_is_shifted_and_what_lies_before_is_not() {
        let byte = |at| program(&[(0x30, 0, 0, at), (0x16, 0, 0, 0)]);
        let bytes = [1, 0, 0, 0, 0, 1];
        let view = View { bytes: &bytes, wire_len: 6, shift: Shift { by: 4, from: 1 } };
        assert!(wants(&byte(0), view) && wants(&byte(1), view) && !wants(&byte(2), view));
    }
}
