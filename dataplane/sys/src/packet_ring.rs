//! Packets of one interface in memory shared with the kernel (packet_mmap, TPACKET_V3): a ring of blocks, each filled
//! by the kernel with as many packets as fit, handed over when it is full or some milliseconds old.
//!
//! Opened on the main thread. The [`Ring`] goes to a worker, which calls `receive`, `bytes` and `give`: they make no
//! system call, don't allocate and don't lock. The [`Control`] stays with main. The public API has no `unsafe fn`:
//! bytes are lent only of the block that is held, and whoever gives it back lends nothing.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::packet::{index, open, set};

/// Packets handed out at once, at most.
pub const BURST: usize = 64;
/// Bytes of a block. A packet that is longer comes cut.
pub const BLOCK: usize = 256 << 10;
/// How long the kernel may keep a block with packets to itself, ms.
pub const RETIRE_MS: u32 = 4;

/// Options of level SOL_PACKET and their values, include/uapi/linux/if_packet.h.
const RX_RING: i32 = 5;
const STATISTICS: i32 = 6;
const VERSION: i32 = 10;
const RESERVE: i32 = 12;
const IGNORE_OUTGOING: i32 = 23;
const TPACKET_V3: i32 = 2;
/// Room in front of a packet, for a tag to be put back.
const TAG: usize = 4;

/// Whose a block is: `tp_block_status`.
const KERNELS: u32 = 0;
const OURS: u32 = 1;

/// Places in `struct tpacket_block_desc` …
const BLOCK_STATUS: usize = 8;
const PACKETS: usize = 12;
const FIRST: usize = 16;
/// … and in `struct tpacket3_hdr`.
const NEXT: usize = 0;
const SECONDS: usize = 4;
const NANOS: usize = 8;
const LENGTH: usize = 12;
const WIRE_LENGTH: usize = 16;
const STATUS: usize = 20;
const MAC: usize = 24;
const VLAN_TCI: usize = 32;
const VLAN_TPID: usize = 36;

/// Bits of `tp_status`.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
const VLAN_VALID: u32 = 1 << 4;
const VLAN_TPID_VALID: u32 = 1 << 6;
const GSO_TCP: u32 = 1 << 8;

const ETH_P_ALL: u16 = 3;
const ETH_P_8021Q: u16 = 0x8100;

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

/// `struct tpacket_stats_v3`.
#[derive(Default)]
#[repr(C)]
struct Statistics {
    packets: u32,
    drops: u32,
    freezes: u32,
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

/// A packet of the block that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Where it begins in the block.
    at: u32,
    /// Bytes there are, and were on the wire or will be.
    pub len: u32,
    pub wire_len: u32,
    /// When the kernel had it: CLOCK_REALTIME, ns.
    pub ts: u64,
    /// The host has joined several segments into it, or has yet to cut it up. (Linux 6.3; before, nobody says.)
    pub joined: bool,
    /// Its checksum is not filled in yet.
    pub unchecked: bool,
}

/// What the socket has counted since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All packets, dropped ones included.
    pub packets: u64,
    /// Those there was no room for.
    pub drops: u64,
}

/// The socket, for main.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    ifindex: u32,
}

impl Control {
    /// Lets packets come.
    ///
    /// # Errors
    /// ENODEV: the interface has gone.
    pub fn begin(&self) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: ETH_P_ALL.to_be(),
            sll_ifindex: index(self.ifindex)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        crate::packet::bind(&self.socket, &address)
    }

    /// Takes nothing more: a filter refuses all before it is counted. What is in the ring stays there, and what is in the
    /// block the kernel is filling follows in its time.
    ///
    /// # Errors
    /// The kernel has no memory for a filter of one instruction.
    pub fn end(&self) -> io::Result<()> {
        // BPF_RET | BPF_K
        let mut refuse = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut refuse };
        // SAFETY: `program` is a whole sock_fprog whose one instruction outlives the call; the kernel copies both.
        let failed = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// What was counted since this was last asked: the kernel begins anew each time.
    ///
    /// # Errors
    /// None that is known.
    pub fn counted(&self) -> io::Result<Counted> {
        let mut statistics = Statistics::default();
        let mut size = size_of::<Statistics>() as libc::socklen_t;
        // SAFETY: `statistics` is a live, writable Statistics of the size that is passed; `size` outlives the call.
        let failed = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut size,
            )
        } != 0;
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(Counted { packets: statistics.packets.into(), drops: statistics.drops.into() })
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
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

/// What a packet's header says besides.
struct Header {
    /// From this header to the next one.
    next: usize,
    /// The VLAN tag the kernel took out of the packet.
    tag: Option<[u8; TAG]>,
}

#[inline]
fn word(block: &[u8], at: usize) -> Option<u32> {
    block.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[inline]
fn half(block: &[u8], at: usize) -> Option<u16> {
    block.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// The packet whose header is at `at`.
#[inline]
fn read(block: &[u8], at: usize) -> Option<(Packet, Header)> {
    let header = block.get(at..at + 48)?;
    let status = word(header, STATUS)?;
    let start = at + usize::from(half(header, MAC)?);
    let len = word(header, LENGTH)?;
    let wire_len = word(header, WIRE_LENGTH)?.max(len);
    block.get(start..start.checked_add(len as usize)?)?;
    let ts = u64::from(word(header, SECONDS)?) * 1_000_000_000 + u64::from(word(header, NANOS)?);
    let (joined, unchecked) = (status & GSO_TCP != 0, status & CHECKSUM_NOT_READY != 0);
    let packet = Packet { at: start as u32, len, wire_len, ts, joined, unchecked };
    let tag = if status & VLAN_VALID == 0 { None } else { Some(tag(header, status)?) };
    Some((packet, Header { next: word(header, NEXT)? as usize, tag }))
}

#[cold]
fn tag(header: &[u8], status: u32) -> Option<[u8; TAG]> {
    let known = status & VLAN_TPID_VALID != 0;
    let protocol = if known { half(header, VLAN_TPID)? } else { ETH_P_8021Q };
    let ([a, b], [c, d]) = (protocol.to_be_bytes(), (word(header, VLAN_TCI)? as u16).to_be_bytes());
    Some([a, b, c, d])
}

/// Puts a tag where it was, between the addresses and the type. What lies before the packet is its own header, which
/// has been read, and the room asked for.
#[cold]
fn put_back(block: &mut [u8], packet: &mut Packet, tag: [u8; TAG]) {
    const ADDRESSES: usize = 12;
    let start = packet.at as usize;
    if (packet.len as usize) < ADDRESSES || start < TAG {
        return;
    }
    block.copy_within(start..start + ADDRESSES, start - TAG);
    block[start - TAG + ADDRESSES..start + ADDRESSES].copy_from_slice(&tag);
    packet.at -= TAG as u32;
    packet.len += TAG as u32;
    packet.wire_len += TAG as u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block as the kernel makes it, with one packet of these bytes.
    fn block(bytes: &[u8], status: u32, vlan: (u32, u16)) -> Vec<u8> {
        let mut block = vec![0; 4096];
        let mut put = |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        let (at, mac) = (48, 86);
        put(PACKETS, 1);
        put(FIRST, at as u32);
        put(at + SECONDS, 3);
        put(at + NANOS, 7);
        put(at + LENGTH, bytes.len() as u32);
        put(at + WIRE_LENGTH, bytes.len() as u32 + 100);
        put(at + STATUS, status);
        put(at + MAC, mac as u32);
        put(at + VLAN_TCI, vlan.0);
        block[at + VLAN_TPID..at + VLAN_TPID + 2].copy_from_slice(&vlan.1.to_ne_bytes());
        block[at + mac..at + mac + bytes.len()].copy_from_slice(bytes);
        block
    }

    #[test]
    fn a_packet_is_read_with_all_that_is_said_of_it() {
        let block = block(&[9; 60], GSO_TCP | CHECKSUM_NOT_READY, (0, 0));
        let (packet, header) = read(&block, 48).unwrap();
        assert_eq!((packet.len, packet.wire_len, packet.ts), (60, 160, 3_000_000_007));
        assert!(packet.joined && packet.unchecked && header.tag.is_none());
        assert_eq!(block[packet.at as usize..][..60], [9; 60]);
    }

    #[test]
    fn a_tag_is_put_back_with_its_own_protocol() {
        let frame: Vec<u8> = (0..60).collect();
        for (status, protocol) in
            [(VLAN_VALID, 0x8100_u16), (VLAN_VALID | VLAN_TPID_VALID, 0x88a8), (VLAN_VALID, 0x8100)]
        {
            let mut block = block(&frame, status, (0x6064, 0x88a8));
            let (mut packet, header) = read(&block, 48).unwrap();
            put_back(&mut block, &mut packet, header.tag.unwrap());
            let [high, low] = protocol.to_be_bytes();
            let wanted = [&frame[..12], &[high, low, 0x60, 0x64], &frame[12..]].concat();
            assert_eq!(block[packet.at as usize..][..64], wanted);
            assert_eq!((packet.len, packet.wire_len), (64, 164));
        }
    }

    #[test]
    fn numbers_that_lead_outside_give_nothing() {
        let good = block(&[1; 60], 0, (0, 0));
        for (place, value) in [(LENGTH, 4096_u32), (LENGTH, u32::MAX), (MAC, 0xffff)] {
            let mut bad = good.clone();
            bad[48 + place..48 + place + 4].copy_from_slice(&value.to_ne_bytes());
            assert!(read(&bad, 48).is_none(), "{place}");
        }
        assert!(read(&good, 4090).is_none() && read(&good, usize::MAX - 50).is_none());
        let mut packet = Packet { at: 2, len: 60, ..Packet::default() };
        put_back(&mut good.clone(), &mut packet, [0; 4]);
        assert_eq!((packet.at, packet.len), (2, 60));
    }
}
