//! Which flow a later fragment belongs to: the first one has the ports, later ones have the same addresses,
//! protocol and identification. Worker's thread; fixed memory, never allocates after start.
//!
//! Sets of four under a keyed hash, which nobody outside can aim at. A packet is forgotten 30 s after its first
//! fragment, or when a set is full: the oldest goes, counted.

use dataplane_sys::Table;

use crate::decode::{Address, FlowKey, Fragment};
use crate::source::Nanos;

/// How long a receiver waits for the rest, as Linux does (`ipfrag_time`).
const EXPIRY: Nanos = 30_000_000_000;
const WAYS: usize = 4;

/// What is known of a packet whose first fragment was seen.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct Begun {
    /// Identity under the keyed hash; 0 when the entry is free.
    identity: u64,
    at: Nanos,
    pub key: FlowKey,
    /// Sequence number that byte 0 of the fragmented data would have, counted back from the TCP payload.
    pub base_seq: u32,
    pub from_low: bool,
    /// The packet inside was whole but for its bytes: its lengths are known from its own headers.
    pub outer: bool,
}

/// The table.
#[derive(Debug)]
pub struct Fragments {
    entries: Table<Begun>,
    sets: u64,
    secret: u64,
    /// Packets forgotten before their time, for want of room.
    pub evicted: u64,
}

impl Fragments {
    /// Room for `capacity` packets, rounded up to whole sets.
    pub fn new(capacity: u32, secret: u64) -> Fragments {
        let sets = (capacity as usize).div_ceil(WAYS).next_power_of_two();
        let secret = secret.rotate_left(21) ^ 0x6672_6167_6d65_6e74;
        Fragments { entries: Table::zeroed(sets * WAYS), sets: sets as u64, secret, evicted: 0 }
    }

    fn identity(&self, fragment: &Fragment, (src, dst): (Address, Address)) -> u64 {
        // The key is symmetric; the direction is told by the identification's owner, the sender.
        let key = FlowKey {
            low: src,
            high: dst,
            low_port: (fragment.id >> 16) as u16,
            high_port: fragment.id as u16,
            proto: fragment.proto,
            v6: true,
        };
        key.hash(self.secret).max(1)
    }

    fn set(&mut self, identity: u64) -> &mut [Begun] {
        let first = ((identity >> 32) & (self.sets - 1)) as usize * WAYS;
        &mut self.entries[first..first + WAYS]
    }

    /// A first fragment of a packet of the flow `key`.
    pub fn begin(
        &mut self,
        fragment: &Fragment,
        ends: (Address, Address),
        (key, from_low): (FlowKey, bool),
        (base_seq, outer): (u32, bool),
        now: Nanos,
    ) {
        let identity = self.identity(fragment, ends);
        let set = self.set(identity);
        let stale = |entry: &Begun| entry.identity == 0 || now.saturating_sub(entry.at) > EXPIRY;
        let same = set.iter().position(|entry| entry.identity == identity);
        let found = same.or_else(|| set.iter().position(stale));
        let evicts = found.is_none();
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].at).unwrap_or(0);
        let way = found.unwrap_or_else(oldest);
        set[way] = Begun { identity, at: now, key, base_seq, from_low, outer };
        self.evicted += u64::from(evicts);
    }

    /// The packet a later fragment belongs to, if its first one came before it and not too long ago.
    pub fn follow(&mut self, fragment: &Fragment, ends: (Address, Address), now: Nanos) -> Option<Begun> {
        let identity = self.identity(fragment, ends);
        let found = self.set(identity).iter().find(|entry| entry.identity == identity)?;
        (now.saturating_sub(found.at) <= EXPIRY).then_some(*found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Part;

    const ENDS: (Address, Address) = ([0, 1], [0, 2]);

    fn fragment(id: u32) -> Fragment {
        Fragment { id, at: 0, offset: 0, len: 8, proto: 17, part: Part::First, depth: 0 }
    }

    fn flow(port: u16) -> (FlowKey, bool) {
        (FlowKey { low_port: port, ..FlowKey::NONE }, true)
    }

    #[test]
    fn a_later_fragment_finds_its_own_packet_for_thirty_seconds() {
        let mut table = Fragments::new(64, 7);
        assert!(table.follow(&fragment(5), ENDS, 0).is_none(), "before its first");
        table.begin(&fragment(5), ENDS, flow(9), (0, false), 1000);
        assert_eq!(table.follow(&fragment(5), ENDS, 1000 + EXPIRY).unwrap().key.low_port, 9);
        assert!(table.follow(&fragment(5), ENDS, 1001 + EXPIRY).is_none(), "too late");
        assert!(table.follow(&fragment(6), ENDS, 1000).is_none(), "another identification");
        assert!(table.follow(&fragment(5), (ENDS.1, ENDS.0), 1000).is_none(), "the other direction");
        let other = Fragment { proto: 6, ..fragment(5) };
        assert!(table.follow(&other, ENDS, 1000).is_none(), "another protocol");
        // The identification is used again: the newer packet counts.
        table.begin(&fragment(5), ENDS, flow(10), (0, false), 2000);
        assert_eq!(table.follow(&fragment(5), ENDS, 2000).unwrap().key.low_port, 10);
        assert_eq!(table.evicted, 0);
    }

    #[test]
    fn a_full_set_forgets_its_oldest_and_says_so() {
        let mut table = Fragments::new(4, 7);
        for id in 0..6 {
            table.begin(&fragment(id), ENDS, flow(id as u16), (0, false), 1000 + u64::from(id));
        }
        assert_eq!(table.evicted, 2);
        let known = |table: &mut Fragments, id| table.follow(&fragment(id), ENDS, 1010).is_some();
        assert_eq!([0, 1, 2, 5].map(|id| known(&mut table, id)), [false, false, true, true]);
        // What has expired makes room without being missed.
        table.begin(&fragment(9), ENDS, flow(9), (0, false), 2000 + EXPIRY);
        assert_eq!(table.evicted, 2);
    }
}
