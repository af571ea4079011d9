//! What only a troubled flow needs: Wireshark's counts, the stuck segment, what rules found. A bounded slab;
//! a flow that finds it full goes on without, counted. Worker's thread; never allocates after start.

use dataplane_sys::Table;

use super::notes::Notes;
use super::record::NONE;

/// Rules whose guards matched on one flow, at most; further ones are counted in [`Trouble::hits_lost`].
pub const RULES_PER_FLOW: usize = 12;

/// Wireshark's `tcp.analysis.*` of one direction, and the segment that is stuck there.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct DirectionTrouble {
    /// Includes fast, spurious and SYN retransmissions.
    pub retransmission: u32,
    pub fast_retransmission: u32,
    pub spurious_retransmission: u32,
    pub out_of_order: u32,
    pub duplicate_ack: u32,
    pub lost_segment: u32,
    pub ack_lost_segment: u32,
    pub zero_window: u32,
    pub window_full: u32,
    /// One new byte into a closed window.
    pub zero_window_probe: u32,
    /// As Wireshark counts: 0-byte probes of a closed window included.
    pub keepalive: u32,
    /// Of these, probes of a closed window.
    pub keepalive_into_zero_window: u32,
    /// Sequence space skipped at this capture point and not seen since: [start, end).
    pub hole_start: u32,
    pub hole_end: u32,
    /// Segment of ≥ 1000 B with DF that is being resent: first byte, payload, IP length, times sent.
    pub stuck_seq: u32,
    /// Packet time of the last send that was counted, ms modulo 2^32.
    pub stuck_ms: u32,
    pub stuck_payload: u16,
    pub stuck_ip_len: u16,
    /// 0 when nothing is stuck.
    pub stuck_sends: u16,
    /// The peer has sent something since the first resend.
    pub peer_alive: bool,
    spare: u8,
}

/// A rule that matched on the flow, and how often.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct RuleHits {
    pub rule: u16,
    pub count: u16,
}

/// The extra record of a troubled flow.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Trouble {
    /// By key order, as in the flow.
    pub dirs: [DirectionTrouble; 2],
    pub notes: [Notes; 2],
    pub hits: [RuleHits; RULES_PER_FLOW],
    pub rules: u32,
    pub hits_lost: u32,
    /// RSTs on the established flow with no FIN before them.
    pub midflow_rsts: u32,
    pub icmp_too_big: u32,
    pub icmp_mtu: u32,
    next_free: u32,
}

impl Trouble {
    /// `rule` has matched on the flow before.
    pub fn knows(&self, rule: u16) -> bool {
        self.rule_hits().iter().any(|h| h.rule == rule)
    }

    /// Counts a match of `rule`.
    pub fn hit(&mut self, rule: u16) {
        let used = self.rules as usize;
        if let Some(known) = self.hits[..used].iter_mut().find(|h| h.rule == rule) {
            known.count = known.count.saturating_add(1);
        } else if let Some(free) = self.hits.get_mut(used) {
            *free = RuleHits { rule, count: 1 };
            self.rules += 1;
        } else {
            self.hits_lost = self.hits_lost.saturating_add(1);
        }
    }

    /// Rules that matched, with their counts.
    pub fn rule_hits(&self) -> &[RuleHits] {
        &self.hits[..self.rules as usize]
    }
}

/// The slab.
#[derive(Debug)]
pub struct TroubleSlab {
    records: Table<Trouble>,
    free: u32,
    never_used: u32,
    in_use: u32,
    /// Flows that asked when it was full.
    pub refused: u64,
}

impl TroubleSlab {
    pub fn new(capacity: u32) -> TroubleSlab {
        let records = Table::zeroed(capacity as usize);
        TroubleSlab { records, free: NONE, never_used: 0, in_use: 0, refused: 0 }
    }

    /// The record at `*index`, taken now if the flow has none yet.
    #[inline]
    pub fn get_or_take(&mut self, index: &mut u32) -> Option<&mut Trouble> {
        if *index == NONE {
            *index = self.take()?;
        }
        self.records.get_mut(*index as usize)
    }

    #[inline]
    pub fn get(&self, index: u32) -> Option<&Trouble> {
        self.records.get(index as usize)
    }

    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Trouble> {
        self.records.get_mut(index as usize)
    }

    fn take(&mut self) -> Option<u32> {
        let index = if self.free != NONE {
            let index = self.free;
            self.free = self.records[index as usize].next_free;
            index
        } else if (self.never_used as usize) < self.records.len() {
            self.never_used += 1;
            self.never_used - 1
        } else {
            self.refused += 1;
            return None;
        };
        self.records[index as usize] = Trouble::default();
        self.in_use += 1;
        Some(index)
    }

    pub fn give_back(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(index as usize) {
            record.next_free = self.free;
            self.free = index;
            self.in_use -= 1;
        }
    }

    pub fn in_use(&self) -> u32 {
        self.in_use
    }
}
