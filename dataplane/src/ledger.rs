//! Every account a packet can end in, and the law that they balance.
//!
//! `received = analysed + filtered + Σ dropped` and `kept = written + Σ unwritten`. Each thread counts in
//! its own block with plain adds; readers sum after the threads have stopped or from published copies. A
//! packet is let go of only by naming a reason here.

use crate::latency::Latency;

/// Why a received packet was not analysed. A capture file loses none; each live source brings its reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// The XDP program found no socket for the packet's queue and left it to the kernel.
    NoSocket,
    /// The AF_XDP socket's receive ring was full: the worker is slower than the wire (`rx_ring_full`).
    RxRingFull,
    /// The AF_XDP socket had no free frame, or none long enough (`rx_dropped`).
    NoFrame,
    /// The AF_PACKET socket's ring was full: the worker is slower than the interface (`tp_drops`).
    PacketRing,
    /// It belonged to another worker, whose ring was full: that worker is slower than what it is given.
    HandoverFull,
}

impl DropReason {
    pub const ALL: [DropReason; 5] = [
        DropReason::NoSocket,
        DropReason::RxRingFull,
        DropReason::NoFrame,
        DropReason::PacketRing,
        DropReason::HandoverFull,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            DropReason::NoSocket => "no_socket",
            DropReason::RxRingFull => "rx_ring_full",
            DropReason::NoFrame => "no_frame",
            DropReason::PacketRing => "packet_ring_full",
            DropReason::HandoverFull => "handover_full",
        }
    }
}

/// Why a packet that was to be kept did not reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UnwrittenReason {
    /// No chunk was free: the writer is slower than the capture.
    NoChunk,
    /// The hold pool had no page left.
    HoldPoolFull,
    /// The history ring overwrote it before it was copied out.
    Overwritten,
    /// The disk has no room.
    DiskFull,
    /// The disk refused the write for another reason.
    WriteFailed,
    /// Written, and somebody deleted the segment before it was closed.
    SegmentDeleted,
}

impl UnwrittenReason {
    pub const ALL: [UnwrittenReason; 6] = [
        UnwrittenReason::NoChunk,
        UnwrittenReason::HoldPoolFull,
        UnwrittenReason::Overwritten,
        UnwrittenReason::DiskFull,
        UnwrittenReason::WriteFailed,
        UnwrittenReason::SegmentDeleted,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            UnwrittenReason::NoChunk => "no_chunk",
            UnwrittenReason::HoldPoolFull => "hold_pool_full",
            UnwrittenReason::Overwritten => "overwritten",
            UnwrittenReason::DiskFull => "disk_full",
            UnwrittenReason::WriteFailed => "write_failed",
            UnwrittenReason::SegmentDeleted => "segment_deleted",
        }
    }
}

/// What was to be kept for captures, as the worker counts it; the writer's own account completes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptAccount {
    /// Packets selected for a capture.
    pub kept: u64,
    /// Of these, lost before a writer had them, by [`UnwrittenReason`].
    pub unwritten: [u64; UnwrittenReason::ALL.len()],
}

/// One worker's accounts. Plain adds on the worker's thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerAccount {
    pub received: u64,
    pub bytes: u64,
    pub analysed: u64,
    pub filtered: u64,
    pub dropped: [u64; DropReason::ALL.len()],
    /// Of the analysed, by `decode::Class`.
    pub classes: [u64; 6],
    pub flows_created: u64,
    pub flows_ended: u64,
    /// Pushed out while still alive, because the table was full.
    pub flows_evicted: u64,
    /// Pushed out half-open.
    pub half_open_evicted: u64,
    /// Flows that another worker has, too: each judges a part of them.
    pub flows_split: u64,
    /// Packets given to the worker that has their flow, by the one that took them.
    pub handed_over: u64,
    /// Flows whose trouble record found no room: their counts are incomplete.
    pub trouble_refused: u64,
    /// Flows whose application found no room for its record: what it said is unknown.
    pub apps_refused: u64,
    /// DNS questions forgotten before they were answered or given up, because their table was full.
    pub questions_forgotten: u64,
    /// ICMP errors whose quoted flow is not known.
    pub icmp_unmatched: u64,
    /// Packets the mirror delivered a second time: kept in history, not analysed as TCP again.
    pub span_duplicates: u64,
    /// Later fragments given to the flow of their first one.
    pub fragments_followed: u64,
    /// Later fragments whose first one did not come before them, or too long ago.
    pub fragments_unmatched: u64,
    /// Fragmented packets forgotten before their time, for want of room.
    pub fragments_evicted: u64,
    pub events: EventAccount,
    pub kept: KeptAccount,
    /// Services whose healthy flows were forgotten for others.
    pub siblings_evicted: u64,
    /// Connections that came about, by whether both ends were seen or one never was.
    pub connections_whole: u64,
    pub connections_one_sided: u64,
    pub history_cut: u64,
    pub tails_rescued: u64,
    pub tails_forgotten: u64,
    pub tails_refused: u64,
    pub holds_taken: u64,
    pub holds_refused: u64,
    /// Held flows let go because no verdict came in time.
    pub holds_unanswered: u64,
    /// How long what was seen took; no account of packets.
    pub latency: Latency,
}

/// Messages to the judge, and rows of ended flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventAccount {
    pub raised: u64,
    pub delivered: u64,
    /// The queue was full.
    pub dropped: u64,
    /// Conditions of rules that held for a flow: `matched = matched_again + sampled_out + hits_overflowed + hits_dropped`
    /// and the hits the judge has.
    pub matched: u64,
    /// Of these, nothing new to tell: the same silence a second later, or nothing to take back.
    pub matched_again: u64,
    /// Of these, on flows that are not in the rule's sample.
    pub sampled_out: u64,
    /// Of these, beyond the most that are taken at once.
    pub hits_overflowed: u64,
    /// Of these, the hits among `dropped`.
    pub hits_dropped: u64,
    /// Matches that found no place among a flow's findings, though the judge was told.
    pub rules_per_flow_lost: u64,
    /// Host and service counts that found no room in their interval's table.
    pub activity_lost: u64,
    /// What clients did with services, and is missing from scans and port reuse for want of room.
    pub pairs_lost: u64,
    /// Failures at services whose healthy flows the judge is not told of, since it is of so many already.
    pub siblings_unwatched: u64,
    pub rows: u64,
    pub rows_dropped: u64,
}

impl WorkerAccount {
    /// Adds another worker's accounts to these.
    pub fn add(&mut self, other: &WorkerAccount) {
        fn all<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        all(&mut self.dropped, &other.dropped);
        all(&mut self.classes, &other.classes);
        all(&mut self.kept.unwritten, &other.kept.unwritten);
        self.latency.add(&other.latency);
        let sums = self.sums();
        let more = { *other }.sums().map(|more| *more);
        sums.into_iter().zip(more).for_each(|(sum, more)| *sum += more);
    }

    /// Every account that is one number.
    fn sums(&mut self) -> [&mut u64; 43] {
        let WorkerAccount { events: e, kept, .. } = self;
        [
            &mut self.received,
            &mut self.bytes,
            &mut self.analysed,
            &mut self.filtered,
            &mut self.flows_created,
            &mut self.flows_ended,
            &mut self.flows_evicted,
            &mut self.half_open_evicted,
            &mut self.flows_split,
            &mut self.handed_over,
            &mut self.trouble_refused,
            &mut self.apps_refused,
            &mut self.questions_forgotten,
            &mut self.icmp_unmatched,
            &mut self.siblings_evicted,
            &mut self.connections_whole,
            &mut self.connections_one_sided,
            &mut self.span_duplicates,
            &mut self.fragments_followed,
            &mut self.fragments_unmatched,
            &mut self.fragments_evicted,
            &mut self.history_cut,
            &mut self.tails_rescued,
            &mut self.tails_forgotten,
            &mut self.tails_refused,
            &mut self.holds_taken,
            &mut self.holds_refused,
            &mut self.holds_unanswered,
            &mut kept.kept,
            &mut e.raised,
            &mut e.delivered,
            &mut e.dropped,
            &mut e.matched,
            &mut e.matched_again,
            &mut e.sampled_out,
            &mut e.hits_overflowed,
            &mut e.hits_dropped,
            &mut e.rules_per_flow_lost,
            &mut e.activity_lost,
            &mut e.pairs_lost,
            &mut e.siblings_unwatched,
            &mut e.rows,
            &mut e.rows_dropped,
        ]
    }

    /// What was received is in exactly one account; so is each flow, given how many live; so is each event.
    pub fn balanced(&self, live: u64) -> bool {
        self.received == self.analysed + self.filtered + self.dropped.iter().sum::<u64>()
            && self.analysed == self.classes.iter().sum::<u64>()
            && self.flows_created == self.flows_ended + self.flows_evicted + self.half_open_evicted + live
            && self.events.raised == self.events.delivered + self.events.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::RoundTrips;

    #[test]
    fn adding_forgets_no_account() {
        // All accounts are words of 64 bits; were one left out of the sums, it would stay 0.
        let mut one = WorkerAccount::default();
        one.sums().into_iter().for_each(|sum| *sum = 1);
        (one.dropped, one.classes, one.kept.unwritten) = ([1; DropReason::ALL.len()], [1; 6], [1; 6]);
        let durations = RoundTrips { counts: [1; _], sum_ns: 1 };
        one.latency = Latency {
            server_rtt: durations,
            client_rtt: durations,
            connect: durations,
            first_byte: durations,
            dns_answer: durations,
        };
        let words = size_of::<WorkerAccount>() / size_of::<u64>();
        assert_eq!(format!("{one:?}").matches('1').count(), words);
        let mut two = one;
        two.add(&one);
        assert_eq!(format!("{two:?}").matches('2').count(), words);
    }
}
