//! The flow tail: what broke after 300 s of silence needs packets that the ring forgot long ago. When half
//! the ring has passed a flow by, its last packets (headers) are copied here. Worker's thread; bounded,
//! never allocates after start.
//!
//! No clock and no sweep over all flows: each flow is noted once per sixteenth of the ring it was active in;
//! when that sixteenth is half a ring old, the notes are gone through, a few with every packet, and a flow
//! whose newest packet still lies there has been silent since.

use super::ring::{EPOCHS, Ring};
use dataplane_sys::Table;

use super::Remembered;
use crate::flow::Flow;
use crate::flow::keeper::Stamp;
use crate::flow::record::{NONE, dir_flag, flow_flag};
use crate::source::Nanos;

/// Packets kept of a silent flow.
pub const TAIL_PACKETS: usize = 8;
/// Bytes kept of each.
pub const TAIL_BYTES: usize = 128;
/// Notes looked at with every packet; one is added with a packet at most.
const LOOKS: usize = 2;
const LOOKS_WHEN_BEHIND: usize = 16;
/// Of all tails, one part in so many may be taken from flows still silent in a sixteenth of the ring: with
/// more silent flows than tails, copying would else go on without end and save nothing for long.
const TAKEN_PER_EPOCH: u32 = 8;

/// One kept packet.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
struct Kept {
    ts: Nanos,
    number: u64,
    orig_len: u32,
    interface: u16,
    len: u16,
    bytes: [u8; TAIL_BYTES],
}

#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
struct Tail {
    /// The flow's slot plus one; 0 while unused.
    owner: u32,
    /// Oldest first.
    count: u32,
    packets: [Kept; TAIL_PACKETS],
}

/// Tails of silent flows, and the notes that find them.
#[derive(Debug)]
pub struct Tails {
    tails: Table<Tail>,
    /// The next tail to be given away: those rescued longest ago go first.
    next: u32,
    /// Slots noted, one list for each sixteenth of the ring.
    notes: Vec<Vec<u32>>,
    /// The epoch whose notes are being gone through, and how far.
    reading: u64,
    read: usize,
    /// All notes of the epochs before this have been gone through.
    done: u64,
    /// Flows rescued, and tails taken from flows still silent.
    pub rescued: u64,
    pub forgotten: u64,
    /// Silent flows that found all tails taken, and the epoch's share of replacements used up.
    pub refused: u64,
    may_take: u32,
    /// Notes that found no room.
    pub unnoted: u64,
}

impl Tails {
    /// `capacity` tails, for a ring of `ring_size` bytes and flows in `slots` slots.
    pub fn new(capacity: u32, ring_size: u64, slots: u32) -> Tails {
        let tails = Table::zeroed(capacity as usize);
        // No more flows can be active in a sixteenth than it has room for packets: 40 bytes and a runt each.
        let most = (ring_size / EPOCHS / 56).min(u64::from(slots) * 2) as usize;
        let notes = (0..EPOCHS).map(|_| Vec::with_capacity(most)).collect();
        Tails {
            tails,
            next: 0,
            notes,
            reading: 0,
            read: 0,
            done: 0,
            rescued: 0,
            forgotten: 0,
            refused: 0,
            may_take: capacity / TAKEN_PER_EPOCH,
            unnoted: 0,
        }
    }

    /// Notes that a flow is active in the ring's present epoch, unless it was noted with its packet before, at link
    /// `previous` (0: it is new in this slot). To be called after its packet was appended.
    #[inline(always)]
    pub fn note(&mut self, previous: u64, slot: u32, ring: &Ring) {
        if !ring.is_of_this_epoch(previous) {
            self.add_note(slot, ring.epoch());
        }
    }

    #[inline(never)]
    fn add_note(&mut self, slot: u32, epoch: u64) {
        let list = &mut self.notes[(epoch % EPOCHS) as usize];
        if list.len() < list.capacity() {
            list.push(slot);
        } else {
            self.unnoted += 1;
        }
    }

    /// Goes through a few notes of the epoch that is half a ring old.
    #[inline(always)]
    pub fn look(&mut self, flows: &mut [Flow], ring: &Ring) {
        if ring.epoch() >= EPOCHS / 2 + self.done {
            self.look_at_old(flows, ring, ring.epoch() - EPOCHS / 2);
        }
    }

    fn look_at_old(&mut self, flows: &mut [Flow], ring: &Ring, old: u64) {
        // An epoch of small packets has more notes than the epochs of large ones after it have packets.
        let looks = if self.reading + 1 < old { LOOKS_WHEN_BEHIND } else { LOOKS };
        for _ in 0..looks {
            let list = &mut self.notes[(self.reading % EPOCHS) as usize];
            if self.read == list.len() {
                if self.reading >= old {
                    self.done = old + 1;
                    return;
                }
                // Done with it: its list is used again when the ring comes round.
                list.clear();
                (self.reading, self.read) = (self.reading + 1, 0);
                self.may_take = (self.tails.len() as u32 / TAKEN_PER_EPOCH).max(1);
                continue;
            }
            let slot = list[self.read];
            self.read += 1;
            if let Some(&ahead) = list.get(self.read + LOOKS) {
                dataplane_sys::prefetch(&flows[ahead as usize].key);
            }
            let flow = &mut flows[slot as usize];
            let silent = ring.holds(flow.newest) && ring.epoch_of(flow.newest) == self.reading;
            if silent && worth_keeping(flow) {
                self.rescue(flow, slot, ring);
            }
        }
    }

    /// Copies a silent flow's last packets out of the ring.
    #[cold]
    fn rescue(&mut self, flow: &mut Flow, slot: u32, ring: &Ring) {
        let known = self.tails.get(flow.tail as usize).is_some_and(|t| t.owner == slot + 1);
        if !known {
            let Some(tail) = self.tails.get_mut(self.next as usize) else { return };
            if tail.owner != 0 {
                if self.may_take == 0 {
                    self.refused += 1;
                    return;
                }
                self.may_take -= 1;
                self.forgotten += 1;
            }
            (tail.owner, tail.count) = (slot + 1, 0);
            flow.tail = self.next;
            self.next = (self.next + 1) % self.tails.len() as u32;
        }
        let tail = &mut self.tails[flow.tail as usize];
        let newest_kept = match tail.count {
            0 => None,
            count => Some(tail.packets[count as usize - 1].number),
        };
        let mut fresh = [0_u64; TAIL_PACKETS];
        let mut found = 0;
        let mut link = flow.newest;
        while found < TAIL_PACKETS
            && let Some((packet, previous)) = ring.get(link)
            && newest_kept.is_none_or(|kept| packet.number > kept)
        {
            fresh[found] = link;
            (found, link) = (found + 1, previous);
        }
        // None if the slot was noted twice.
        self.rescued += u64::from(found > 0);
        let stay = (tail.count as usize).min(TAIL_PACKETS - found);
        let drop = tail.count as usize - stay;
        tail.packets.copy_within(drop..drop + stay, 0);
        for (i, link) in fresh[..found].iter().rev().enumerate() {
            if let Some((packet, _)) = ring.get(*link) {
                tail.packets[stay + i] = keep(&packet);
            }
        }
        tail.count = (stay + found) as u32;
    }

    /// What was rescued of a flow, oldest first.
    pub fn of<'a>(&'a self, flow: &Flow, slot: u32) -> impl Iterator<Item = Remembered<'a>> + use<'a> {
        let tail = self.tails.get(flow.tail as usize).filter(|t| t.owner == slot + 1);
        let packets = tail.map_or(&[][..], |t| &t.packets[..t.count as usize]);
        packets.iter().map(|p| Remembered {
            ts: p.ts,
            number: p.number,
            orig_len: p.orig_len,
            interface: p.interface,
            bytes: &p.bytes[..usize::from(p.len)],
        })
    }

    /// The flow ended: its tail may be given away.
    #[inline]
    pub fn release(&mut self, flow: &Flow, slot: u32) {
        if flow.tail == NONE {
            return;
        }
        if let Some(tail) = self.tails.get_mut(flow.tail as usize)
            && tail.owner == slot + 1
        {
            tail.owner = 0;
        }
    }

    /// The flow moved to another slot.
    pub fn moved(&mut self, flow: &Flow, from: u32, to: u32) {
        if let Some(tail) = self.tails.get_mut(flow.tail as usize)
            && tail.owner == from + 1
        {
            tail.owner = to + 1;
        }
    }
}

/// Not a closed flow, nor a handshake under way: the keeper has that, and a SYN flood would push out the tails
/// of real conversations.
fn worth_keeping(flow: &Flow) -> bool {
    let handshake = (flow.dirs[0].flags | flow.dirs[1].flags) & dir_flag::SYN != 0;
    !flow.has(flow_flag::CLOSED) && (flow.has(flow_flag::ESTABLISHED) || !handshake)
}

fn keep(packet: &Remembered<'_>) -> Kept {
    let len = packet.bytes.len().min(TAIL_BYTES);
    let mut bytes = [0; TAIL_BYTES];
    bytes[..len].copy_from_slice(&packet.bytes[..len]);
    Kept {
        ts: packet.ts,
        number: packet.number,
        orig_len: packet.orig_len,
        interface: packet.interface,
        len: len as u16,
        bytes,
    }
}

/// Stamps a remembered packet again, for another place.
impl From<&Remembered<'_>> for Stamp {
    fn from(packet: &Remembered<'_>) -> Stamp {
        Stamp { ts: packet.ts, number: packet.number, orig_len: packet.orig_len, interface: packet.interface }
    }
}
