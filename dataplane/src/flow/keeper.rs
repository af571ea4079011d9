//! The handshake keeper: the SYN and SYN-ACK (headers) of every live flow, so that a capture made hours later
//! still shows MSS, window scale and SACK-permitted. Worker's thread; never allocates after start.
//!
//! One pair of fixed cells a flow slot; memory that no handshake was written to is never touched.

use dataplane_sys::Table;

use crate::source::Nanos;

/// Bytes kept of each: Ethernet, two VLAN tags, IPv6 and a full TCP option list's common part.
pub const KEPT_BYTES: usize = 96;

/// One kept packet.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct Kept {
    pub ts: Nanos,
    /// The worker's packet number plus one; 0 for an empty cell.
    number: u64,
    pub orig_len: u32,
    pub interface: u16,
    len: u16,
    bytes: [u8; KEPT_BYTES],
}

impl Kept {
    pub fn number(&self) -> Option<u64> {
        self.number.checked_sub(1)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(KEPT_BYTES)]
    }
}

/// What a packet is known by besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub ts: Nanos,
    pub number: u64,
    pub orig_len: u32,
    pub interface: u16,
}

/// Two cells for each flow slot.
#[derive(Debug)]
pub struct Keeper {
    cells: Table<[Kept; 2]>,
}

impl Keeper {
    pub fn new(slots: u32) -> Keeper {
        Keeper { cells: Table::zeroed(slots as usize) }
    }

    /// Keeps a SYN (`which` 0) or SYN-ACK (`which` 1), the first of its kind.
    pub fn keep(&mut self, slot: u32, which: usize, stamp: &Stamp, bytes: &[u8]) {
        let cell = &mut self.cells[slot as usize][which];
        if cell.number != 0 {
            return;
        }
        let len = bytes.len().min(KEPT_BYTES);
        cell.ts = stamp.ts;
        cell.number = stamp.number + 1;
        cell.orig_len = stamp.orig_len;
        cell.interface = stamp.interface;
        cell.len = len as u16;
        cell.bytes[..len].copy_from_slice(&bytes[..len]);
    }

    pub fn of(&self, slot: u32) -> &[Kept; 2] {
        &self.cells[slot as usize]
    }

    /// Follows a flow that moved to another slot.
    pub fn moved(&mut self, from: u32, to: u32) {
        self.cells[to as usize] = self.cells[from as usize];
        self.clear(from);
    }

    /// Empties a slot's cells.
    #[inline]
    pub fn clear(&mut self, slot: u32) {
        for cell in &mut self.cells[slot as usize] {
            // Reading first leaves untouched pages untouched.
            if cell.number != 0 {
                cell.number = 0;
            }
        }
    }
}
