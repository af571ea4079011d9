//! Writes instructions of the kernel's machine (eBPF, RFC 9669), with labels for jumps. Main thread; used by
//! `translate` alone.

/// An instruction as the kernel takes it: code, registers, offset, immediate, in this host's byte order.
fn encode(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    let [low, high] = offset.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    let imm = imm.to_ne_bytes();
    u64::from_ne_bytes([code, registers, low, high, imm[0], imm[1], imm[2], imm[3]])
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Clone, Copy)]
struct Jump {
    at: usize,
    to: Label,
    code: u8,
    dst: u8,
    src: u8,
    imm: i32,
}

/// A program being written.
#[derive(Default)]
pub(super) struct Asm {
    code: Vec<u64>,
    jumps: Vec<Jump>,
    /// Where each label is.
    places: Vec<Option<usize>>,
}

impl Asm {
    pub(super) fn insn(&mut self, code: u8, dst: u8, src: u8, offset: i16, imm: i32) {
        self.code.push(encode(code, dst, src, offset, imm));
    }

    /// dst = src, all 64 bits.
    pub(super) fn copy(&mut self, dst: u8, src: u8) {
        self.insn(0xbf, dst, src, 0, 0);
    }

    /// dst = imm, extended with zeros.
    pub(super) fn set32(&mut self, dst: u8, value: u32) {
        self.insn(0xb4, dst, 0, 0, value.cast_signed());
    }

    /// dst += imm, all 64 bits.
    pub(super) fn add(&mut self, dst: u8, imm: i32) {
        self.insn(0x07, dst, 0, 0, imm);
    }

    /// dst = the value at src + offset, of 1, 2, 4 or 8 bytes.
    pub(super) fn read(&mut self, size: usize, dst: u8, src: u8, offset: i16) {
        let code = match size {
            1 => 0x71,
            2 => 0x69,
            4 => 0x61,
            _ => 0x79,
        };
        self.insn(code, dst, src, offset, 0);
    }

    /// The 4 or 8 bytes at dst + offset = src.
    pub(super) fn write(&mut self, size: usize, dst: u8, offset: i16, src: u8) {
        self.insn(if size == 4 { 0x63 } else { 0x7b }, dst, src, offset, 0);
    }

    /// The low bits of dst, which hold what was read from a packet, as a number.
    pub(super) fn big_endian(&mut self, dst: u8, size: usize) {
        if size > 1 {
            self.insn(0xdc, dst, 0, 0, size as i32 * 8);
        }
    }

    pub(super) fn call(&mut self, helper: i32) {
        self.insn(0x85, 0, 0, 0, helper);
    }

    /// dst = the map that this file stands for.
    pub(super) fn map(&mut self, dst: u8, fd: i32) {
        const PSEUDO_MAP_FD: u8 = 1;
        self.insn(0x18, dst, PSEUDO_MAP_FD, 0, fd);
        self.insn(0, 0, 0, 0, 0);
    }

    pub(super) fn exit(&mut self) {
        self.insn(0x95, 0, 0, 0, 0);
    }

    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// A label is here.
    pub(super) fn place(&mut self, label: Label) {
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    /// Jumps if dst compares to imm; the code says how.
    pub(super) fn jump_if(&mut self, code: u8, dst: u8, imm: i32, to: Label) {
        self.jump_with(code, dst, 0, imm, to);
    }

    /// Jumps if dst compares to src.
    pub(super) fn jump_if_register(&mut self, code: u8, dst: u8, src: u8, to: Label) {
        self.jump_with(code, dst, src, 0, to);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jump_with(0x05, 0, 0, 0, to);
    }

    fn jump_with(&mut self, code: u8, dst: u8, src: u8, imm: i32, to: Label) {
        self.jumps.push(Jump { at: self.code.len(), to, code, dst, src, imm });
        self.insn(code, dst, src, 0, imm);
    }

    /// The program; `None` if a jump is too far for its 16 bits or goes nowhere.
    pub(super) fn finish(mut self) -> Option<Vec<u64>> {
        for jump in &self.jumps {
            let place = (*self.places.get(jump.to.0)?)?;
            let distance = place as i64 - jump.at as i64 - 1;
            let offset = i16::try_from(distance).ok()?;
            *self.code.get_mut(jump.at)? = encode(jump.code, jump.dst, jump.src, offset, jump.imm);
        }
        Some(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_find_their_labels() {
        let mut asm = Asm::default();
        let (back, ahead) = (asm.label(), asm.label());
        asm.place(back);
        asm.set32(0, 7);
        asm.jump(ahead);
        asm.jump_if(0x15, 0, 3, back);
        asm.place(ahead);
        asm.exit();
        let wanted = [
            encode(0xb4, 0, 0, 0, 7),
            encode(0x05, 0, 0, 1, 0),
            encode(0x15, 0, 0, -3, 3),
            encode(0x95, 0, 0, 0, 0),
        ];
        assert_eq!(asm.finish().unwrap(), wanted);
        let mut asm = Asm::default();
        let nowhere = asm.label();
        asm.jump(nowhere);
        assert_eq!(asm.finish(), None);
    }
}
