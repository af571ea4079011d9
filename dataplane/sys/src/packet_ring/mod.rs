//! Packets of one interface in memory shared with the kernel (packet_mmap, TPACKET_V3): a ring of blocks, each filled
//! by the kernel with as many packets as fit, handed over when it is full or some milliseconds old.
//!
//! Opened on the main thread. The [`Ring`] goes to a worker, which calls `receive`, `bytes` and `give`: they make no
//! system call, don't allocate and don't lock. The [`Control`] stays with main. The public API has no `unsafe fn`:
//! bytes are lent only of the block that is held, and whoever gives it back lends nothing.

mod control;
mod layout;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

pub use control::{Control, Counted};
pub use layout::Packet;

use crate::packet::{open, set};
use layout::{BLOCK_STATUS, FIRST, PACKETS, TAG, put_back, read, word};

/// Packets handed out at once, at most.
pub const BURST: usize = 64;
/// Bytes of a block. A packet that is longer comes cut.
pub const BLOCK: usize = 256 << 10;
/// How long the kernel may keep a block with packets to itself, ms.
pub const RETIRE_MS: u32 = 4;

/// Options of level SOL_PACKET and their values, include/uapi/linux/if_packet.h.
const RX_RING: i32 = 5;
const VERSION: i32 = 10;
const RESERVE: i32 = 12;
const IGNORE_OUTGOING: i32 = 23;
const TPACKET_V3: i32 = 2;

/// Whose a block is: `tp_block_status`.
const KERNELS: u32 = 0;
const OURS: u32 = 1;

/// `struct tpacket_req3`.
#[repr(C)]
struct Request {
    block_size: u32,
    blocks: u32,
    frame_size: u32,
    frames: u32,
    retire_ms: u32,
    private: u32,
    features: u32,
}

/// How a ring is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub ifindex: u32,
    /// How many blocks of [`BLOCK`] bytes there are.
    pub blocks: u32,
    /// Packets come with an Ethernet header, into which a VLAN tag is put back.
    pub ethernet: bool,
    /// Leave out what this host sends: on a loopback interface all of it comes back in.
    pub ignore_outgoing: bool,
}

/// The ring, for the worker.
pub struct Ring {
    socket: OwnedFd,
    map: NonNull<u8>,
    blocks: usize,
    ethernet: bool,
    /// The block that is held, or comes next.
    block: usize,
    held: bool,
    /// Of the held block: packets not handed out yet, and where the next one's header is.
    left: u32,
    next: usize,
}

// SAFETY: the ring owns its mapping, which `map` is the start of; all access goes through `&self` or `&mut self`.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens a socket with a ring. No packet comes before [`Control::begin`].
    ///
    /// # Errors
    /// EPERM: missing privilege. ENOMEM: no memory for so many blocks.
    pub fn open(settings: &Settings) -> io::Result<(Ring, Control)> {
        let socket = open()?;
        set(&socket, VERSION, &TPACKET_V3)?;
        set(&socket, RESERVE, &(TAG as u32))?;
        if settings.ignore_outgoing {
            set(&socket, IGNORE_OUTGOING, &1_i32)?;
        }
        const FRAME: u32 = 2048;
        let request = Request {
            block_size: BLOCK as u32,
            blocks: settings.blocks,
            frame_size: FRAME,
            frames: settings.blocks.saturating_mul(BLOCK as u32 / FRAME),
            retire_ms: RETIRE_MS,
            private: 0,
            features: 0,
        };
        set(&socket, RX_RING, &request)?;
        let control = Control { socket: socket.try_clone()?, ifindex: settings.ifindex };
        let blocks = settings.blocks as usize;
        // SAFETY: a shared mapping of the socket's ring at an address of the kernel's choice touches nothing else.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                blocks * BLOCK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        let map = NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED);
        let map = map.ok_or_else(io::Error::last_os_error)?;
        let ethernet = settings.ethernet;
        Ok((Ring { socket, map, blocks, ethernet, block: 0, held: false, left: 0, next: 0 }, control))
    }

    /// Whose the present block is.
    fn status(&self) -> &AtomicU32 {
        // SAFETY: `block` is below `blocks`, so the word lies in the mapping, which lives as long as `self`; blocks begin
        // at pages, so it is aligned. While the kernel may change it, nobody reads it but as an atomic.
        unsafe { AtomicU32::from_ptr(self.map.as_ptr().add(self.block * BLOCK + BLOCK_STATUS).cast()) }
    }

    /// The held block.
    #[inline]
    fn bytes_of_block(&self) -> &[u8] {
        if !self.held {
            return &[];
        }
        // SAFETY: `block` is below `blocks`, so this lies in the mapping, which lives as long as `self`. While the block is
        // held the kernel does not write to it, and giving it back takes `&mut self`, which ends this borrow.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.block * BLOCK), BLOCK) }
    }

    fn bytes_to_change(&mut self) -> &mut [u8] {
        if !self.held {
            return &mut [];
        }
        // SAFETY: as in `bytes_of_block`; `&mut self` makes it the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr().add(self.block * BLOCK), BLOCK) }
    }

    /// Adds packets to an empty list, up to [`BURST`], all of one block; how many.
    #[inline]
    pub fn receive(&mut self, packets: &mut Vec<Packet>) -> usize {
        if !self.held && !self.take() {
            return 0;
        }
        while self.left > 0 && packets.len() < BURST {
            let Some((mut packet, header)) = read(self.bytes_of_block(), self.next) else {
                // Not what the kernel writes: nothing in this block can be believed any more.
                self.left = 0;
                break;
            };
            if self.ethernet
                && let Some(tag) = header.tag
            {
                put_back(self.bytes_to_change(), &mut packet, tag);
            }
            packets.push(packet);
            self.left -= 1;
            self.next += header.next;
        }
        if packets.is_empty() {
            self.give(packets);
        }
        packets.len()
    }

    /// Takes the next block, if it is there.
    #[inline]
    fn take(&mut self) -> bool {
        if self.status().load(Ordering::Acquire) & OURS == 0 {
            return false;
        }
        self.held = true;
        let word = |at| word(self.bytes_of_block(), at).unwrap_or(0);
        (self.left, self.next) = (word(PACKETS), word(FIRST) as usize);
        true
    }

    /// The bytes of a packet of the last `receive`; none after `give`.
    #[inline]
    pub fn bytes(&self, packet: &Packet) -> &[u8] {
        let at = packet.at as usize;
        self.bytes_of_block().get(at..at + packet.len as usize).unwrap_or_default()
    }

    /// Takes the packets back; the kernel has the block again once all its packets have been handed out.
    #[inline]
    pub fn give(&mut self, packets: &mut Vec<Packet>) {
        packets.clear();
        if self.held && self.left == 0 {
            self.held = false;
            self.status().store(KERNELS, Ordering::Release);
            self.block = (self.block + 1) % self.blocks;
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} blocks, at {})", self.blocks, self.block)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `open`, of this size; nobody has a borrow of it any more.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.blocks * BLOCK) };
    }
}
