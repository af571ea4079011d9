//! How a translated filter reads a packet: straight from an XDP buffer, through the kernel where it comes in several,
//! and as if a VLAN tag were still in it where the kernel keeps that beside. Main thread; part of `translate`.

use super::classic::Size;
use super::refusals::{TAGGED, UNTAGGED};
use super::translate::{
    ABOVE, BYTE, EQUAL, FARTHEST, LOADED, NOT_EQUAL, OFFSET, PACKET, SHIFT, SHIFTED_FROM, STACK, TAG, Target,
    Writer, X,
};

/// Helpers of the kernel, include/uapi/linux/bpf.h.
const SKB_LOAD_BYTES: i32 = 26;
const XDP_LOAD_BYTES: i32 = 189;

/// 64-bit jumps, with an immediate and with a register.
const AT_LEAST: u8 = 0x35;
const BELOW: u8 = 0xa5;
const AT_MOST: u8 = 0xb5;
const ABOVE_REGISTER: u8 = 0x2d;
const BELOW_REGISTER: u8 = 0xad;

impl Writer {
    /// r4 = the offset.
    fn offset(&mut self, at: u32, indexed: bool) {
        if indexed {
            self.asm.copy(4, X);
            self.asm.add(4, at.cast_signed());
        } else {
            self.asm.set32(4, at);
        }
    }

    pub(super) fn load(&mut self, to: u8, size: Size, at: u32, indexed: bool) {
        match self.target {
            Target::Xdp { jumbo, quoted, .. } => {
                self.offset(at, indexed);
                if quoted.is_some() {
                    let before = self.asm.label();
                    self.asm.read(8, 3, STACK, SHIFTED_FROM);
                    self.asm.jump_if_register(BELOW_REGISTER, 4, 3, before);
                    self.asm.insn(0x0f, 4, SHIFT, 0, 0);
                    self.asm.place(before);
                }
                if quoted.is_some() || indexed {
                    let refused = self.refuse();
                    self.asm.jump_if(ABOVE, 4, FARTHEST.cast_signed(), refused);
                }
                self.load_from_xdp(to, size as usize, jumbo);
            }
            Target::Socket { .. } => self.load_from_socket(to, size as usize, at, indexed),
        }
        self.asm.big_endian(to, size as usize);
    }

    /// From the bytes that lie in the first buffer; the kernel is asked for others.
    fn load_from_xdp(&mut self, to: u8, size: usize, jumbo: bool) {
        let refused = self.refuse();
        let (far, done) = (self.asm.label(), self.asm.label());
        let asm = &mut self.asm;
        // Anew each time: kept, they would be something more for the verifier to keep track of.
        asm.read(4, 1, PACKET, 0);
        asm.read(4, 2, PACKET, 4);
        asm.insn(0x0f, 1, 4, 0, 0);
        asm.copy(3, 1);
        asm.add(3, size as i32);
        asm.jump_if_register(ABOVE_REGISTER, 3, 2, if jumbo { far } else { refused });
        asm.read(size, to, 1, 0);
        if jumbo {
            asm.jump(done);
            asm.place(far);
            asm.copy(2, 4);
            self.fetch(XDP_LOAD_BYTES, size, LOADED);
            self.asm.read(size, to, STACK, LOADED);
        }
        self.asm.place(done);
    }

    /// Has the kernel copy `size` bytes from offset r2 onto the stack.
    fn fetch(&mut self, helper: i32, size: usize, place: i16) {
        let refused = self.refuse();
        self.asm.copy(1, PACKET);
        self.asm.copy(3, STACK);
        self.asm.add(3, place.into());
        self.asm.set32(4, size as u32);
        self.asm.call(helper);
        self.asm.jump_if(NOT_EQUAL, 0, 0, refused);
    }

    /// As if the VLAN tag were where it was on the wire, at byte 12.
    fn load_from_socket(&mut self, to: u8, size: usize, at: u32, indexed: bool) {
        self.offset(at, indexed);
        if indexed {
            let refused = self.refuse();
            self.asm.jump_if(ABOVE, 4, FARTHEST.cast_signed(), refused);
        }
        let (plain, behind, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.copy(2, 4);
        if indexed || at + size as u32 > 12 {
            self.asm.jump_if(EQUAL, SHIFT, 0, plain);
            if indexed {
                self.asm.jump_if(AT_MOST, 2, 12 - size as i32, plain);
                self.asm.jump_if(AT_LEAST, 2, 16, behind);
            }
            if indexed || at < 16 {
                self.byte_by_byte(size);
                self.asm.read(size, to, STACK, LOADED);
                self.asm.jump(done);
            }
            self.asm.place(behind);
            if indexed || at >= 16 {
                self.asm.add(2, -4);
            }
        }
        self.asm.place(plain);
        self.fetch(SKB_LOAD_BYTES, size, LOADED);
        self.asm.read(size, to, STACK, LOADED);
        self.asm.place(done);
    }

    /// Puts the key of a socket's counter at [`LOADED`]: whether a VLAN tag lies beside the packet or is still in it.
    pub(super) fn find_tag(&mut self) {
        /// What stands where an EtherType would.
        const TAGS: [i32; 3] = [0x8100, 0x88a8, 0x9100];
        let asm = &mut self.asm;
        let (tagged, done) = (asm.label(), asm.label());
        asm.insn(0x62, STACK, 0, LOADED, UNTAGGED.cast_signed());
        asm.jump_if(NOT_EQUAL, SHIFT, 0, tagged);
        asm.copy(1, PACKET);
        asm.set32(2, 12);
        asm.copy(3, STACK);
        asm.add(3, BYTE.into());
        asm.set32(4, 2);
        asm.call(SKB_LOAD_BYTES);
        asm.jump_if(NOT_EQUAL, 0, 0, done);
        asm.read(2, 1, STACK, BYTE);
        asm.big_endian(1, 2);
        TAGS.iter().for_each(|&tag| asm.jump_if(EQUAL, 1, tag, tagged));
        asm.jump(done);
        asm.place(tagged);
        asm.insn(0x62, STACK, 0, LOADED, TAGGED.cast_signed());
        asm.place(done);
    }

    /// Puts bytes together of which some are the tag's, from offset r2.
    fn byte_by_byte(&mut self, size: usize) {
        self.asm.write(8, STACK, OFFSET, 2);
        for byte in 0..size {
            let (fetch, tag, have) = (self.asm.label(), self.asm.label(), self.asm.label());
            let asm = &mut self.asm;
            asm.read(8, 2, STACK, OFFSET);
            asm.add(2, byte as i32);
            asm.jump_if(BELOW, 2, 12, fetch);
            asm.jump_if(BELOW, 2, 16, tag);
            asm.add(2, -4);
            asm.place(fetch);
            self.fetch(SKB_LOAD_BYTES, 1, BYTE);
            let asm = &mut self.asm;
            asm.read(1, 1, STACK, BYTE);
            asm.jump(have);
            asm.place(tag);
            asm.set32(3, 15);
            asm.insn(0x1f, 3, 2, 0, 0);
            asm.insn(0x67, 3, 0, 0, 3);
            asm.read(8, 1, STACK, TAG);
            asm.insn(0x7f, 1, 3, 0, 0);
            asm.insn(0x57, 1, 0, 0, 0xff);
            asm.place(have);
            asm.insn(0x73, STACK, 1, LOADED + byte as i16, 0);
        }
    }
}
