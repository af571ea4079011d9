//! Tells the second delivery of a packet: a mirror of two ports or VLANs sees what passes both twice, and a copy
//! must not look like a retransmission. Worker's thread; fixed memory, never allocates after start.
//!
//! Two packets are one if all that a sender would change between two sends is the same (IP-ID, checksum and with
//! it time stamps, sequence, acknowledgement, length), the TTL is the same or one less, and hardly any time has
//! passed. VLAN, MAC and tunnel may differ. Sets of four in a cache line each, under the flow's keyed hash; what
//! they forget too early is analysed as before.

use dataplane_sys::Table;

use crate::decode::{Class, Packet, flags};
use crate::flow::Flow;
use crate::flow::record::flow_flag;
use crate::source::{Marks, Nanos};

/// A copy takes another way through a switch, at most this long. An IP-ID of its own tells a packet from a
/// retransmission, however quick.
const WINDOW: Nanos = 2_000_000;
/// Without one, only time does: a sender needs at least a round trip to know that a segment is to be sent again.
const WINDOW_WITHOUT_ID: Nanos = 1_000_000;
/// Weight of a packet found twice, against packets of its flow seen for the first time.
const FOUND_TWICE: u8 = 8;
/// Never more than this: so many first deliveries with no second one, and the flow is not mirrored twice any more.
const MOST: u8 = 64;

const WAYS: usize = 4;

/// The last packets of those that fall together; the oldest makes room for the next.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Set {
    at: [Nanos; WAYS],
    /// 0 when free.
    identity: [u32; WAYS],
    ttl: [u8; WAYS],
    oldest: u8,
    spare: [u8; 11],
}

const _: () = assert!(size_of::<Set>() == 64);

/// What a packet is, as far as the table can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    First,
    /// The same packet again: its headers say so.
    Again,
    /// The same again if the mirror is known to deliver packets twice; else a packet of its own.
    Perhaps,
}

/// The table.
#[derive(Debug)]
pub struct Copies {
    sets: Table<Set>,
    mask: u64,
    /// As [`Rare::copied`](super::record::Rare::copied), over all flows: for packets that can't be told from a repeat
    /// by themselves.
    copied: u8,
}

impl Copies {
    /// Remembers the last packets, about `capacity` of them.
    pub fn new(capacity: u32) -> Copies {
        let sets = (capacity as usize).div_ceil(WAYS).next_power_of_two();
        Copies { sets: Table::zeroed(sets), mask: sets as u64 - 1, copied: 0 }
    }

    /// Starts loading where a packet is looked up; to be called for a whole batch before the first look.
    #[inline(always)]
    pub fn prefetch(&self, identity: u64) {
        dataplane_sys::prefetch(&self.sets[(identity & self.mask) as usize]);
    }

    /// Looks a packet of a flow up, and remembers it.
    #[inline]
    pub fn look(&mut self, packet: &Packet, identity: u64, now: Nanos) -> Delivery {
        let tag = ((identity >> 32) as u32).max(1);
        let set = &mut self.sets[(identity & self.mask) as usize];
        // Not one by one: nearly always all of them are others.
        if set.identity.map(|known| known == tag) != [false; WAYS] {
            return set.repeated(packet, tag, now);
        }
        let way = usize::from(set.oldest) % WAYS;
        (set.at[way], set.identity[way], set.ttl[way]) = (now, tag, packet.ttl);
        set.oldest = set.oldest.wrapping_add(1);
        self.copied = self.copied.saturating_sub(1);
        Delivery::First
    }

    /// What [`Copies::look`] said, decided: true if the packet is a second delivery. What is sure of itself is
    /// evidence for what is not.
    pub fn decide(&mut self, delivery: Delivery, packet: &Packet, flow: &mut Flow) -> bool {
        match delivery {
            Delivery::First => false,
            Delivery::Perhaps if packet.class == Class::Tcp => flow.has(flow_flag::COPIED),
            Delivery::Perhaps => self.copied > 0,
            Delivery::Again if asked_for(packet, flow) => false,
            Delivery::Again => {
                flow.rare.copied = flow.rare.copied.saturating_add(FOUND_TWICE).min(MOST);
                flow.flags |= flow_flag::COPIED;
                self.copied = self.copied.saturating_add(FOUND_TWICE).min(MOST);
                true
            }
        }
    }
}

/// Without an IP-ID, a segment the other side keeps asking for is one sent again, however soon.
fn asked_for(packet: &Packet, flow: &Flow) -> bool {
    let other = flow.dir(!packet.from_low);
    !has_id(packet) && other.dup_acks >= 2 && other.last_ack == packet.tcp.seq
}

fn has_id(packet: &Packet) -> bool {
    packet.ip_id.is_some_and(|id| id != 0)
}

/// A packet that would be known again came for the first time, on a flow whose packets have come twice.
#[cold]
pub fn came_once(flow: &mut Flow) {
    flow.rare.copied = flow.rare.copied.saturating_sub(1);
    if flow.rare.copied == 0 {
        flow.flags &= !flow_flag::COPIED;
    }
}

impl Set {
    /// One of the set is this very packet, perhaps not long ago.
    #[cold]
    fn repeated(&mut self, packet: &Packet, tag: u32, now: Nanos) -> Delivery {
        let way = self.identity.iter().position(|known| *known == tag).unwrap_or(0);
        let passed = now.saturating_sub(self.at[way]);
        let has_id = has_id(packet);
        let hops = self.ttl[way].wrapping_sub(packet.ttl);
        if hops > 1 || passed > if has_id { WINDOW } else { WINDOW_WITHOUT_ID } {
            (self.at[way], self.ttl[way]) = (now, packet.ttl);
            return Delivery::First;
        }
        let sure = is_telling(packet);
        if !sure && !has_id {
            // Each first one has one copy: a train of equal acknowledgements, each delivered twice, stays a train.
            self.identity[way] = 0;
        }
        if sure { Delivery::Again } else { Delivery::Perhaps }
    }
}

/// No stack sends another packet just like this one within the window. An acknowledgement may be repeated at
/// once, and means something by it; without an IP-ID a RST or a datagram may, and any segment may seem to whose
/// checksum is not known.
pub fn is_telling(packet: &Packet) -> bool {
    let has_id = has_id(packet);
    // Without a checksum nothing tells a new time stamp.
    if packet.class != Class::Tcp || (packet.marks.has(Marks::UNCHECKED) && !has_id) {
        return has_id;
    }
    let flags = packet.tcp.flags;
    packet.tcp.payload > 0 || flags & (flags::SYN | flags::FIN) != 0 || (has_id && flags & flags::RST != 0)
}

/// All that a second copy has in common with the first, and hardly any other packet. `hash` is its flow's.
#[inline(always)]
pub fn identity(packet: &Packet, hash: u64) -> u64 {
    let tcp = &packet.tcp;
    let numbers = match packet.icmp.quote {
        // Errors of one router about two packets may have one checksum.
        Some(quote) => {
            u64::from(quote.seq.unwrap_or(0)) << 32
                | u64::from(quote.key.low_port) << 16
                | u64::from(quote.key.high_port)
        }
        None => u64::from(tcp.seq) << 32 | u64::from(tcp.ack),
    };
    let rest = u64::from(packet.checksum) << 48
        | u64::from(packet.ip_id.unwrap_or(0)) << 32
        | u64::from(packet.ip_len as u16) << 16
        | u64::from(tcp.flags) << 8
        | u64::from(packet.from_low);
    let product = u128::from(hash ^ numbers) * u128::from(rest ^ hash.rotate_left(32) | 1);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::frames::Seg;

    const US: Nanos = 1000;
    const MS: Nanos = 1000 * US;
    const HASH: u64 = 0x1234_5678_9abc_def1;

    fn segment(len: usize, id: u16) -> Packet {
        Packet { ip_id: Some(id), ..Seg::new(true, flags::ACK, 100, 7).data(len).packet() }
    }

    struct Mirror {
        copies: Copies,
        flow: Flow,
        now: Nanos,
    }

    impl Mirror {
        fn new() -> Mirror {
            Mirror { copies: Copies::new(64), flow: bytemuck::Zeroable::zeroed(), now: 1_000_000 * MS }
        }

        /// True if the packet, `after` ns later, is taken for a second delivery.
        fn sees(&mut self, packet: &Packet, after: Nanos) -> bool {
            self.now += after;
            let delivery = self.copies.look(packet, identity(packet, HASH), self.now);
            let again = self.copies.decide(delivery, packet, &mut self.flow);
            if !again && self.flow.has(flow_flag::COPIED) && is_telling(packet) {
                came_once(&mut self.flow);
            }
            again
        }
    }

    #[test]
    fn the_same_packet_at_once_is_a_second_delivery_whatever_the_way() {
        for (id, limit) in [(7, WINDOW), (0, WINDOW_WITHOUT_ID)] {
            let data = segment(100, id);
            let hop = Packet { ttl: data.ttl - 1, vlan: [5, 0], depth: 1, ..data };
            for copy in [data, hop] {
                assert!(!Mirror::new().sees(&data, 0));
                let after = |ns| {
                    let mut mirror = Mirror::new();
                    mirror.sees(&data, 0);
                    mirror.sees(&copy, ns)
                };
                assert!(after(0) && after(30 * US) && after(limit));
                assert!(!after(limit + 1) && !after(200 * MS), "a retransmission, id {id}");
            }
            let mut thrice = Mirror::new();
            assert_eq!([0, 1, 2].map(|_| thrice.sees(&data, US)), [false, true, true]);
        }
    }

    #[test]
    fn what_differs_in_anything_a_sender_changes_is_another_packet() {
        let data = segment(100, 7);
        let mut others = [data; 7];
        others[0].ip_id = Some(8);
        others[1].checksum = 1;
        others[2].tcp.seq += 1;
        others[3].tcp.ack += 1;
        others[4].ip_len += 1;
        others[5].ttl += 1;
        others[6].ttl -= 2;
        for (i, other) in others.iter().enumerate() {
            let mut mirror = Mirror::new();
            mirror.sees(&data, 0);
            assert!(!mirror.sees(other, US), "{i}");
        }
    }

    #[test]
    fn a_train_of_duplicate_acks_is_one_unless_data_comes_twice() {
        // A stack without IP-ID or time stamps: nothing tells one duplicate ACK from the next.
        let (ack, data) = (segment(0, 0), segment(100, 0));
        let mut mirror = Mirror::new();
        assert!((0..6).all(|_| !mirror.sees(&ack, 20 * US)));
        mirror.sees(&data, MS);
        assert!(mirror.sees(&data, 10 * US), "data twice");
        mirror.now += 10 * MS;
        // Now each of the train comes twice, and is still a train.
        let seen: Vec<bool> = (0..6).map(|_| mirror.sees(&ack, 10 * US)).collect();
        assert_eq!(seen, [false, true, false, true, false, true]);
        // The mirror is set right: after some data that comes once, ACKs are believed again.
        for seq in 0..u32::from(FOUND_TWICE) {
            let mut next = data;
            next.tcp.seq += 1000 + seq;
            assert!(!mirror.sees(&next, MS));
        }
        assert!((0..4).all(|_| !mirror.sees(&ack, 20 * US)));
    }

    #[test]
    fn without_checksum_and_id_nothing_tells_a_copy_from_a_repeat() {
        let (mut data, mut named) = (segment(100, 0), segment(100, 9));
        data.mark(Marks::UNCHECKED);
        named.mark(Marks::UNCHECKED);
        let mut mirror = Mirror::new();
        assert!(!mirror.sees(&data, 0) && !mirror.sees(&data, US), "it may have another time stamp");
        assert!(!mirror.sees(&named, US) && mirror.sees(&named, US));
    }

    #[test]
    fn a_segment_the_other_side_asks_for_is_sent_again_however_soon() {
        let data = segment(100, 0);
        let mut mirror = Mirror::new();
        mirror.sees(&data, 0);
        mirror.flow.dirs[1].dup_acks = 3;
        mirror.flow.dirs[1].last_ack = data.tcp.seq;
        assert!(!mirror.sees(&data, 300 * US));
        // With an IP-ID there is no doubt: a sender counts on.
        let data = segment(100, 9);
        mirror.sees(&data, 0);
        assert!(mirror.sees(&data, 300 * US));
    }

    #[test]
    fn a_reset_or_datagram_without_id_is_a_copy_only_where_copies_are_usual() {
        let reset = Packet { ip_id: Some(0), ..Seg::new(true, flags::RST, 100, 0).packet() };
        let datagram = Packet { class: Class::Udp, ip_id: None, ..reset };
        for packet in [reset, datagram] {
            let mut mirror = Mirror::new();
            mirror.sees(&packet, 0);
            assert!(!mirror.sees(&packet, US));
            let data = segment(100, 3);
            mirror.sees(&data, MS);
            assert!(mirror.sees(&data, US));
            mirror.sees(&packet, 10 * MS);
            assert!(mirror.sees(&packet, US));
        }
    }
}
