//! Packets that are not analysed by themselves: those of no flow, later fragments, and what the mirror delivers a
//! second time. Worker's thread; never allocates. All are counted and go into history.

use super::engine::Engine;
use crate::analyze;
use crate::decode::{Packet, Part};
use crate::flow::copies::Delivery;
use crate::flow::keeper::Stamp;
use crate::source::Nanos;

impl Engine {
    /// A packet with no ports: history has it, and if it is a later fragment, perhaps a flow.
    pub(super) fn flowless(&mut self, stamp: &Stamp, packet: &Packet, bytes: &[u8]) {
        if packet.fragment.part == Part::Later && self.follow_fragment(stamp, packet, bytes) {
            return;
        }
        if self.remembers {
            self.append(stamp, packet, bytes, usize::MAX, 0);
            self.tails.look(&mut self.table.flows, &self.ring);
        }
    }

    /// The first fragment of a packet of a flow: later ones will be led to it.
    #[cold]
    pub(super) fn begin_fragments(&mut self, packet: &Packet, bytes: &[u8], now: Nanos) {
        let fragment = &packet.fragment;
        let Some(ends) = fragment.ends(bytes) else { return };
        let base_seq = packet.tcp.seq.wrapping_add(packet.tcp.payload).wrapping_sub(u32::from(fragment.len));
        let outer = fragment.depth != packet.depth;
        self.fragments.begin(fragment, ends, (packet.key, packet.from_low), (base_seq, outer), now);
    }

    /// True if a flow took the fragment.
    #[cold]
    fn follow_fragment(&mut self, stamp: &Stamp, packet: &Packet, bytes: &[u8]) -> bool {
        let fragment = &packet.fragment;
        let begun = fragment.ends(bytes).and_then(|ends| self.fragments.follow(fragment, ends, stamp.ts));
        let found = begun.and_then(|begun| {
            let slot = self.table.find(&begun.key, self.table.hash(&begun.key))?;
            Some((slot, begun))
        });
        let Some((slot, begun)) = found else {
            self.account.fragments_unmatched += 1;
            return false;
        };
        self.account.fragments_followed += 1;
        analyze::later_fragment(&mut self.table.flows[slot as usize], &begun, packet, stamp.ts);
        self.remember_flow(slot, stamp, packet, bytes, false);
        self.record_live(slot, stamp, packet, bytes);
        true
    }

    /// True if the mirror delivered this packet before: it is counted and kept, and means nothing more.
    #[cold]
    pub(super) fn delivered_again(
        &mut self,
        delivery: Delivery,
        stamp: &Stamp,
        packet: &Packet,
        hash: u64,
        bytes: &[u8],
    ) -> bool {
        let Some(slot) = self.table.find(&packet.key, hash) else { return false };
        let flow = &mut self.table.flows[slot as usize];
        if !self.copies.decide(delivery, packet, flow) {
            return false;
        }
        self.account.span_duplicates += 1;
        analyze::second_delivery(flow, &mut self.slab, packet, stamp.ts);
        self.remember_flow(slot, stamp, packet, bytes, false);
        self.record_live(slot, stamp, packet, bytes);
        true
    }
}
