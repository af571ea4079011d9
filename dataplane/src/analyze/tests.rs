//! Each fact and each change of state, on conversations of a few segments; every conversation is had twice,
//! once with sequence numbers that wrap in its middle.

use rules::event::Event;
use rules::facts::FlowFacts;

use super::*;
use crate::decode::flags::{ACK, FIN, RST, SYN};
use crate::decode::frames::Seg;
use crate::flow::record::NONE;
use crate::flow::trouble::{DirectionTrouble, Trouble};

mod sack;
mod verdicts;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;
const A: usize = 0;
const B: usize = 1;
/// MSS 1460, SACK permitted, window scale 2.
const OPTIONS: [u8; 12] = [2, 4, 5, 0xb4, 4, 2, 3, 3, 2, 1, 1, 1];

/// A conversation; sequence numbers are given relative to each side's first.
struct Talk {
    flow: Flow,
    slab: TroubleSlab,
    now: Nanos,
    isn: u32,
    out: Outcome,
}

impl Talk {
    fn new(isn: u32) -> Talk {
        let mut flow: Flow = bytemuck::Zeroable::zeroed();
        (flow.trouble, flow.tail, flow.hold, flow.app) = (NONE, NONE, NONE, NONE);
        (flow.start_ns, flow.last_ns) = (S, S);
        flow.key = Seg::new(true, ACK, 0, 0).packet().key;
        flow.set_originator(true);
        Talk { flow, slab: TroubleSlab::new(1), now: S, isn, out: Outcome::default() }
    }

    /// Takes a segment in, `after` ns later.
    fn take(&mut self, after: Nanos, seg: Seg) -> &mut Talk {
        self.take_marked(after, seg, Marks::NONE)
    }

    fn take_marked(&mut self, after: Nanos, seg: Seg, marks: Marks) -> &mut Talk {
        self.now += after;
        let ack = if seg.flags & ACK != 0 { seg.ack.wrapping_add(self.isn) } else { 0 };
        let mut packet = Seg { seq: seg.seq.wrapping_add(self.isn), ack, ..seg }.packet();
        packet.mark(marks);
        self.out = Outcome::default();
        segment(&mut self.flow, &mut self.slab, &packet, self.now, &mut self.out);
        self
    }

    fn a(&mut self, flags: u8, seq: u32, ack: u32, payload: usize) -> &mut Talk {
        self.take(20 * MS, Seg::new(true, flags, seq, ack).data(payload))
    }

    fn b(&mut self, flags: u8, seq: u32, ack: u32, payload: usize) -> &mut Talk {
        self.take(20 * MS, Seg::new(false, flags, seq, ack).data(payload))
    }

    fn handshake(&mut self) -> &mut Talk {
        self.take(0, Seg::new(true, SYN, 0, 0).options(&OPTIONS));
        self.take(8 * MS, Seg::new(false, SYN | ACK, 0, 1).options(&OPTIONS));
        self.take(2 * MS, Seg::new(true, ACK, 1, 1))
    }

    /// Ends a chain where nothing is to be returned.
    fn done(&mut self) {}

    fn trouble(&self) -> Trouble {
        self.slab.get(self.flow.trouble).copied().unwrap_or_default()
    }

    /// Trouble of one side, as non-zero counts by name.
    fn counts(&self, dir: usize) -> Vec<(&'static str, u32)> {
        let t: DirectionTrouble = self.trouble().dirs[dir];
        let all = [
            ("retransmission", t.retransmission),
            ("fast", t.fast_retransmission),
            ("spurious", t.spurious_retransmission),
            ("out_of_order", t.out_of_order),
            ("dup_ack", t.duplicate_ack),
            ("lost", t.lost_segment),
            ("ack_lost", t.ack_lost_segment),
            ("zero_window", t.zero_window),
            ("window_full", t.window_full),
            ("probe", t.zero_window_probe),
            ("keepalive", t.keepalive),
            ("keepalive_zero", t.keepalive_into_zero_window),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// The same in Referee's own reading.
    fn own(&self, dir: usize) -> Vec<(&'static str, u32)> {
        let own = self.trouble().dirs[dir].own;
        let all = [
            ("retransmission", own.retransmission),
            ("fast", own.fast_retransmission),
            ("spurious", own.spurious_retransmission),
            ("out_of_order", own.out_of_order),
            ("lost", own.lost_segment),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    fn facts(&self) -> FlowFacts {
        let scene = facts::Scene {
            flow: &self.flow,
            trouble: self.slab.get(self.flow.trouble),
            app: None,
            outcome: &self.out,
            now: self.now,
            timer: false,
        };
        let mut facts = FlowFacts::default();
        facts::begin(&mut facts, &scene);
        facts::gather(&mut facts, rules::facts::Parts::ALL, &scene);
        facts
    }

    fn state(&self) -> u16 {
        use flow_flag::{CLOSED, ESTABLISHED, HANDSHAKE, REFUSED};
        self.flow.flags & (ESTABLISHED | HANDSHAKE | flow_flag::RST | REFUSED | CLOSED)
    }
}

/// Both conversations: sequence numbers far from their end, and about to wrap (past 0, which Wireshark takes for "none").
fn twice(test: impl Fn(&mut Talk)) {
    for isn in [1000, u32::MAX - 333] {
        test(&mut Talk::new(isn));
    }
}

#[test]
fn a_handshake_tells_options_and_round_trips() {
    twice(|t| {
        t.handshake();
        assert!(t.out.established && t.out.events.contains(Event::Established));
        let f = t.facts();
        assert_eq!((f.rtt_server_us, f.rtt_client_us), (Some(8000), Some(2000)));
        assert_eq!((f.orig.mss, f.resp.wscale, f.orig.sack), (Some(1460), Some(2), Some(true)));
        assert_eq!((f.syns, f.syn_acks, f.established, f.syn_age_ms), (1, 1, true, Some(10)));
        t.a(ACK, 1, 1, 100).b(ACK, 1, 101, 700).a(ACK, 101, 701, 0);
        let f = t.facts();
        assert_eq!((f.orig.unacked, f.resp.unacked, f.resp.largest_acked), (Some(0), Some(0), Some(700)));
        assert_eq!((t.counts(A), t.counts(B), t.flow.trouble), (vec![], vec![], NONE));
    });
}

#[test]
fn repeats_of_every_kind() {
    twice(|t| {
        t.a(SYN, 0, 0, 0).a(SYN, 0, 0, 0).b(SYN | ACK, 0, 1, 0).b(SYN | ACK, 0, 1, 0).a(ACK, 1, 1, 0);
        assert_eq!((t.counts(A), t.counts(B)), (vec![("retransmission", 1)], vec![("retransmission", 1)]));
        assert_eq!(t.facts().rtt_server_us, None, "which SYN was answered is not known");
        t.a(ACK, 1, 1, 500).a(ACK, 1, 1, 500);
        assert!(t.out.events.contains(Event::Retransmission));
        t.b(ACK, 1, 501, 0).a(ACK, 1, 1, 500);
        assert_eq!(t.counts(A), [("retransmission", 3), ("spurious", 1)]);
        t.a(FIN | ACK, 501, 1, 0).a(FIN | ACK, 501, 1, 0);
        assert_eq!(t.counts(A), [("retransmission", 4), ("spurious", 1)]);
        assert_eq!((t.flow.senders[A].fin, t.flow.has(flow_flag::CLOSED)), (2, false));
    });
}

#[test]
fn a_hole_its_duplicate_acks_and_what_fills_it() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).a(ACK, 201, 1, 100).a(ACK, 301, 1, 100);
        assert_eq!(t.counts(A), [("lost", 1)]);
        t.b(ACK, 1, 101, 0).b(ACK, 1, 101, 0).b(ACK, 1, 101, 0);
        assert_eq!(t.counts(B), [("dup_ack", 2)]);
        t.take(5 * MS, Seg::new(true, ACK, 101, 1).data(100));
        assert_eq!(t.counts(A), [("retransmission", 1), ("fast", 1), ("lost", 1)]);
        // Filled within the round trip without any duplicate: reordering.
        t.b(ACK, 1, 401, 0).a(ACK, 501, 1, 100);
        t.take(MS, Seg::new(true, ACK, 401, 1).data(100));
        assert_eq!(t.counts(A), [("retransmission", 1), ("fast", 1), ("out_of_order", 1), ("lost", 2)]);
        // As soon, but of what was seen: a repeat all the same, though Wireshark goes by the time alone.
        t.a(ACK, 601, 1, 100).take(MS, Seg::new(true, ACK, 501, 1).data(100));
        assert_eq!(t.counts(A), [("retransmission", 1), ("fast", 1), ("out_of_order", 2), ("lost", 2)]);
        assert_eq!(t.own(A), [("retransmission", 2), ("fast", 1), ("out_of_order", 1), ("lost", 2)]);
        // An acknowledgement of what never passed here.
        t.b(ACK, 1, 901, 0);
        assert_eq!(t.trouble().dirs[B].ack_lost_segment, 1);
        assert_eq!(t.facts().orig.unacked, Some(0));
    });
}

#[test]
fn closed_windows_and_the_two_ways_to_probe_them() {
    twice(|t| {
        t.handshake().take(MS, Seg::new(false, ACK, 1, 1).window(50));
        t.a(ACK, 1, 1, 200);
        assert_eq!(t.counts(A), [("window_full", 1)], "50 << 2");
        assert_eq!(t.flow.scaled_window(A), 4000);
        t.take(MS, Seg::new(false, ACK, 1, 201).window(0));
        assert_eq!((t.counts(B), t.out.events.contains(Event::ZeroWindow)), (vec![("zero_window", 1)], true));
        t.take(S, Seg::new(true, ACK, 200, 1));
        assert_eq!((t.trouble().dirs[A].keepalive, t.trouble().dirs[A].keepalive_into_zero_window), (1, 1));
        assert!(!t.out.events.contains(Event::Keepalive), "it asks for room, not for life");
        t.take(MS, Seg::new(false, ACK, 1, 201).window(0));
        t.take(S, Seg::new(true, ACK, 201, 1).data(1));
        assert_eq!(t.trouble().dirs[A].zero_window_probe, 1);
        t.take(MS, Seg::new(false, ACK, 1, 201).window(0));
        assert_eq!(t.counts(B), [("zero_window", 3)], "answers to probes are no duplicates");
        // The byte goes again at the head of a full segment.
        t.take(S, Seg::new(false, ACK, 1, 201)).a(ACK, 201, 1, 100).b(ACK, 1, 301, 0);
        assert_eq!((t.trouble().dirs[A].retransmission, t.trouble().dirs[A].lost_segment), (0, 0));
        assert_eq!(t.facts().orig.keepalives, 0);
    });
}

#[test]
fn windows_as_far_as_their_scale_is_known() {
    // A SYN's own window is not scaled, whatever it offers.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 1000);
        assert_eq!(t.counts(A), [("window_full", 1)]);
        t.b(ACK, 1, 1001, 0).a(ACK, 1001, 1, 1000);
        assert_eq!(t.counts(A), [("window_full", 1)], "now it is 4000");
    });
    // Only the answer was seen: it offers scaling because the SYN did.
    twice(|t| {
        t.take(0, Seg::new(false, SYN | ACK, 0, 1).options(&OPTIONS)).a(ACK, 1, 1, 0);
        t.take(MS, Seg::new(false, ACK, 1, 1).window(25)).a(ACK, 1, 1, 100);
        assert_eq!(t.counts(A), [("window_full", 1)]);
    });
    twice(|t| {
        t.a(ACK, 1, 1, 10).b(ACK, 1, 11, 0).a(ACK, 11, 1, 1000);
        assert_eq!(t.counts(A), [], "no SYN: no scale, no edge");
    });
    // A keepalive with a byte stands on the edge of a closed window.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 10).take(MS, Seg::new(false, ACK, 1, 11).window(0));
        t.take(S, Seg::new(true, ACK, 10, 1).data(1));
        assert_eq!(t.counts(A), [("window_full", 1), ("keepalive", 1), ("keepalive_zero", 1)]);
    });
}

#[test]
fn a_repeat_that_goes_on_beyond_what_was_seen_is_out_of_order_while_it_is_soon() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).take(MS, Seg::new(true, ACK, 51, 1).data(100));
        assert_eq!(
            (t.counts(A), t.flow.dirs[A].next_seq.wrapping_sub(t.isn)),
            (vec![("out_of_order", 1)], 151)
        );
        t.a(ACK, 101, 1, 400);
        assert_eq!(t.counts(A), [("retransmission", 1), ("out_of_order", 1)]);
    });
}

#[test]
fn keepalives_with_and_without_a_byte() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 10).b(ACK, 1, 11, 0);
        t.take(75 * S, Seg::new(true, ACK, 10, 1)).b(ACK, 1, 11, 0);
        t.take(75 * S, Seg::new(true, ACK, 10, 1).data(1));
        assert!(t.out.events.contains(Event::Keepalive));
        t.b(ACK, 1, 11, 0);
        assert_eq!((t.counts(A), t.counts(B)), (vec![("keepalive", 2)], vec![]));
        let f = t.facts();
        assert_eq!((f.orig.keepalives, f.idle_before_ms, f.packets_since_idle), (2, 75_000, 2));
    });
}

#[test]
fn a_silence_counts_only_with_nothing_outstanding() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 10).b(ACK, 1, 11, 0);
        t.take(20 * S, Seg::new(true, ACK, 11, 1).data(10));
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (20_000, 1));
        // Repeats at growing pauses: data is outstanding, nobody is silent.
        t.take(30 * S, Seg::new(true, ACK, 11, 1).data(10));
        t.take(3 * S, Seg::new(false, RST, 1, 0));
        let f = t.facts();
        assert_eq!((f.idle_before_ms, f.packets_since_idle, f.orig.unacked), (20_000, 3, Some(10)));
        // Whatever follows the RST, it came then.
        for _ in 0..20 {
            t.b(ACK | FIN, 1, 21, 0).a(RST, 21, 1, 0);
        }
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (20_000, 3));
    });
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 10).b(ACK, 1, 11, 0);
        t.take(20 * S, Seg::new(true, ACK, 11, 1).data(10));
        t.b(ACK, 1, 21, 0).a(ACK, 21, 1, 0).b(ACK, 1, 21, 0);
        // A short silence soon after a long one doesn't hide it; eight packets later it is forgotten.
        t.take(2 * S, Seg::new(true, ACK, 21, 1));
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (20_000, 5));
        for _ in 0..4 {
            t.a(ACK, 21, 1, 0);
        }
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (0, 0));
        t.take(2 * S, Seg::new(true, ACK, 21, 1));
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (2000, 1));
        t.take(0, Seg::new(true, ACK, 21, 1));
        t.now -= S;
        t.take(0, Seg::new(true, ACK, 21, 1));
        assert_eq!(t.facts().packets_since_idle, 3, "time that goes back is no silence");
    });
}

#[test]
fn resets_by_what_they_end() {
    use flow_flag::{CLOSED, ESTABLISHED, HANDSHAKE, REFUSED};
    let closed_by_reset = flow_flag::RST | CLOSED;
    twice(|t| {
        t.a(SYN, 0, 0, 0).b(RST | ACK, 0, 1, 0);
        assert_eq!((t.state(), t.out.refused), (closed_by_reset | REFUSED, true));
        t.a(SYN, 0, 0, 0).b(RST | ACK, 0, 1, 0);
        assert!(!t.out.refused && t.out.rst_before, "told once");
    });
    twice(|t| {
        t.a(SYN, 0, 0, 0).b(SYN | ACK, 0, 1, 0).a(RST, 1, 0, 0);
        assert_eq!(t.state(), closed_by_reset, "a scanner's: nobody refused");
    });
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).b(RST | ACK, 1, 1, 40);
        assert_eq!(t.state(), closed_by_reset | ESTABLISHED | HANDSHAKE);
        let f = t.facts();
        assert_eq!((f.orig.unacked, f.resp.unacked, f.resp.rsts, f.rst_seen), (Some(100), Some(0), 1, false));
        assert_eq!(t.trouble().midflow_rsts, 1);
        // A RST's sequence number is not believed but by Wireshark: what follows is where it was.
        t.b(ACK, 1, 101, 10);
        assert_eq!((t.own(B), t.facts().rst_seen), (vec![], true));
        assert_eq!(t.counts(B), [("retransmission", 1)]);
    });
    twice(|t| {
        t.handshake().a(FIN | ACK, 1, 1, 0).b(RST, 1, 0, 0);
        assert_eq!((t.trouble().midflow_rsts, t.facts().fin_seen), (0, true));
    });
}

#[test]
fn a_challenged_syn_that_gets_through_in_the_end_is_a_live_flow() {
    use flow_flag::{ESTABLISHED, HANDSHAKE};
    twice(|t| {
        t.a(SYN, 0, 0, 0).b(ACK, 5000, 7000, 0);
        assert!(!t.out.established, "a challenge ACK");
        t.a(RST, 7000, 0, 0).a(SYN, 0, 0, 0).b(SYN | ACK, 0, 1, 0).a(ACK, 1, 1, 0);
        assert_eq!(t.state(), ESTABLISHED | HANDSHAKE);
        assert!(!t.facts().rst_seen || t.out.rst_before);
        t.a(ACK, 1, 1, 1);
        assert!(!t.facts().rst_seen);
    });
}

#[test]
fn the_close_needs_both_sides() {
    twice(|t| {
        t.handshake().a(FIN | ACK, 1, 1, 5).b(ACK, 1, 7, 0);
        assert!(!t.flow.has(flow_flag::CLOSED) && t.facts().orig.unacked == Some(0));
        t.b(FIN | ACK, 1, 7, 0);
        assert!(t.flow.has(flow_flag::CLOSED));
        t.a(ACK, 7, 2, 0);
        assert_eq!((t.counts(A), t.counts(B), t.facts().resp.unacked), (vec![], vec![], Some(0)));
    });
}

#[test]
fn captures_that_miss_a_side_or_the_beginning() {
    twice(|t| {
        t.a(SYN, 0, 0, 0).a(ACK, 1, 1, 0);
        let f = t.facts();
        assert!(f.established && t.state() & flow_flag::HANDSHAKE == 0, "one direction only");
        assert_eq!((f.orig.unacked, f.resp.mss, f.resp.ttl_min, f.rtt_client_us), (None, None, None, None));
        t.take(20 * S, Seg::new(true, ACK, 1, 1).data(5));
        assert_eq!(t.facts().idle_before_ms, 20_000);
    });
    twice(|t| {
        t.a(SYN, 0, 0, 0).b(ACK, 1, 1, 500);
        assert!(t.out.established, "data from the server: SYN-ACK and ACK were missed");
    });
    twice(|t| {
        t.a(ACK, 50, 60, 10);
        assert!(!t.out.established);
        t.b(ACK, 60, 60, 0);
        assert!(t.out.established && !t.out.events.contains(Event::Established));
        assert_eq!((t.counts(A), t.counts(B)), (vec![], vec![]));
    });
    twice(|t| {
        t.flow.set_originator(false);
        t.b(SYN | ACK, 0, 1, 0).a(SYN, 0, 0, 0).b(SYN | ACK, 0, 1, 0);
        assert_eq!((t.flow.orig(), t.facts().rtt_server_us), (A, None), "the SYN's sender began");
        t.a(ACK, 1, 1, 0);
        assert!(t.out.established && t.flow.has(flow_flag::HANDSHAKE));
    });
    // Both sides open at once (RFC 9293 figure 7).
    twice(|t| {
        t.a(SYN, 0, 0, 0).b(SYN, 0, 0, 0).a(SYN | ACK, 0, 1, 0).b(SYN | ACK, 0, 1, 0).a(ACK, 1, 1, 9);
        assert!(t.out.established && t.flow.orig() == A);
        assert_eq!((t.facts().syns, t.facts().syn_acks), (2, 2));
    });
}

#[test]
fn how_large_segments_are_is_unknown_once_some_were_joined() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 1400).a(ACK, 101, 1401, 0);
        let side = |t: &Talk| {
            let resp = t.facts().resp;
            (resp.max_payload, resp.segments(), resp.largest_acked, resp.loss_ppm())
        };
        assert_eq!(side(t), (Some(1400), Some(1), Some(1400), Some(0)));
        let joined = Seg::new(false, ACK, 1401, 101).data(20_000);
        t.take_marked(20 * MS, joined.clone(), Marks::COALESCED).a(ACK, 101, 21_401, 0);
        assert_eq!(side(t), (None, None, None, None));
        assert_eq!((t.facts().resp.payload, t.facts().orig.max_payload), (21_400, Some(100)));
        // Sent again, however often, it is not the one packet that is too large for a path.
        let stuck = Seg { seq: 21_401, ..joined };
        for _ in 0..5 {
            t.take_marked(300 * MS, stuck.clone(), Marks::COALESCED).a(ACK, 101, 21_401, 0);
        }
        assert!(t.facts().resp.retransmissions > 0);
        assert_eq!(t.facts().resp.stuck_sends, 0);
    });
}

/// A asks, B's large answer is stuck; returns after `sends` sends of it.
fn stuck(t: &mut Talk, sends: usize) {
    t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 300).a(ACK, 101, 301, 0);
    for _ in 0..sends {
        t.take(S, Seg::new(false, ACK, 301, 101).data(1400));
    }
}

#[test]
fn the_stuck_segment_while_small_ones_pass() {
    twice(|t| {
        stuck(t, 3);
        let r = t.facts().resp;
        assert_eq!(
            (r.stuck_sends, r.stuck_bytes, r.small_passes, r.largest_acked),
            (3, 1440, false, Some(300)),
            "nobody has spoken since: it may be a dead peer"
        );
        t.a(ACK, 101, 301, 60);
        assert!(t.facts().resp.small_passes, "the peer lives, and acknowledges all but that");
        // Acknowledged in part: it was cut up and passed.
        t.b(ACK, 301, 161, 500).a(ACK, 161, 801, 0);
        assert_eq!((t.facts().resp.stuck_sends, t.facts().resp.small_passes), (0, false));
    });
    twice(|t| {
        stuck(t, 4);
        t.a(ACK, 101, 1701, 0);
        assert_eq!((t.facts().resp.stuck_sends, t.facts().resp.largest_acked), (0, Some(1400)));
        // Large ones did arrive; now nobody answers: a dead peer, unless it speaks.
        for _ in 0..4 {
            t.take(S, Seg::new(false, ACK, 1701, 101).data(1400));
        }
        assert_eq!((t.facts().resp.stuck_sends, t.facts().resp.small_passes), (4, false));
        t.a(ACK, 101, 1701, 0);
        assert!(t.facts().resp.small_passes);
    });
    // A burst that repairs a loss: one more attempt, however often it repeats the segment.
    twice(|t| {
        stuck(t, 2);
        for _ in 0..5 {
            t.take(2 * MS, Seg::new(false, ACK, 301, 101).data(1400));
            t.take(2 * MS, Seg::new(true, ACK, 101, 301));
        }
        assert_eq!((t.facts().resp.stuck_sends, t.facts().resp.small_passes), (2, true));
        t.take(S, Seg::new(false, ACK, 301, 101).data(1400));
        assert_eq!(t.facts().resp.stuck_sends, 3);
    });
    // Into a closed window, without DF, or small: not suspicious.
    twice(|t| {
        t.handshake().take(MS, Seg::new(true, ACK, 1, 1).window(0));
        for _ in 0..4 {
            t.b(ACK, 1, 1, 1400);
        }
        assert_eq!(t.facts().resp.stuck_sends, 0);
    });
    twice(|t| {
        t.handshake();
        for _ in 0..4 {
            t.take(S, Seg { df: false, ..Seg::new(false, ACK, 1, 1).data(1400) });
        }
        for _ in 0..4 {
            t.take(S, Seg::new(true, ACK, 1, 1).data(999));
        }
        assert_eq!((t.facts().resp.stuck_sends, t.facts().orig.stuck_sends), (0, 0));
    });
}

#[test]
fn a_router_speaks_of_the_flow() {
    let mut t = Talk::new(0);
    t.handshake().a(FIN | ACK, 1, 1, 0);
    t.out = too_big(&mut t.flow, &mut t.slab, 1280, true, S);
    let f = t.facts();
    assert_eq!((f.icmp_too_big, f.icmp_mtu, f.by, f.ttl, f.fin_seen), (1, Some(1280), None, None, true));
}

#[test]
fn no_number_is_too_large() {
    let mut t = Talk::new(7);
    t.handshake();
    t.flow.dirs[A].packets = u32::MAX;
    (t.flow.senders[A].syn, t.flow.senders[B].fin, t.flow.senders[A].rst) = (255, 255, u16::MAX);
    t.now = u64::MAX;
    for side in &mut t.slab.get_or_take(&mut t.flow.trouble).unwrap().dirs {
        (side.retransmission, side.duplicate_ack, side.lost_segment) = (u32::MAX, u32::MAX, u32::MAX);
        (side.zero_window, side.keepalive, side.stuck_sends) = (u32::MAX, u32::MAX, u16::MAX);
    }
    for seq in [0, 1, 1, 0, 9, 0x8000_0007, u32::MAX] {
        for flags in [ACK, SYN, RST, FIN | ACK, SYN | ACK, 0, 255] {
            for size in [0, 1, 1400] {
                t.take(0, Seg::new(true, flags, seq, 1).data(size).window(0));
                t.take(0, Seg::new(false, flags, 1, seq).data(size));
                t.now = if t.now == 0 { u64::MAX } else { 0 };
                t.facts();
            }
        }
    }
    assert_eq!(t.trouble().dirs[A].retransmission, u32::MAX);
}

#[test]
fn waiting_for_room_is_no_silence() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).take(MS, Seg::new(false, ACK, 1, 101).window(0));
        t.take(20 * S, Seg::new(false, RST, 1, 0));
        assert_eq!(t.facts().idle_before_ms, 0);
    });
}

/// Zeek's account of a conversation: state, history.
fn account(t: &Talk) -> (&'static str, String) {
    (t.flow.conn_state(), t.flow.history())
}

fn told(talk: impl Fn(&mut Talk)) -> (&'static str, String) {
    let mut t = Talk::new(1000);
    talk(&mut t);
    account(&t)
}

#[test]
fn zeek_states_of_connections_that_never_were() {
    assert_eq!(told(|t| t.a(SYN, 0, 0, 0).done()), ("S0", "S".into()));
    assert_eq!(told(|t| t.a(SYN, 0, 0, 0).a(SYN, 0, 0, 0).done()), ("S0", "S".into()), "a repeat is no news");
    assert_eq!(told(|t| t.a(SYN, 0, 0, 0).b(RST | ACK, 0, 1, 0).done()), ("REJ", "Sr".into()));
    assert_eq!(told(|t| t.a(SYN, 0, 0, 0).a(RST, 1, 0, 0).done()), ("RSTOS0", "SR".into()));
    assert_eq!(told(|t| t.a(SYN, 0, 0, 0).a(FIN | ACK, 1, 0, 0).done()), ("SH", "SF".into()));
    assert_eq!(told(|t| t.a(SYN, 0, 0, 0).b(SYN | ACK, 0, 1, 0).done()), ("S1", "Sh".into()));
    let scan = |t: &mut Talk| t.a(SYN, 0, 0, 0).b(SYN | ACK, 0, 1, 0).a(RST, 1, 0, 0).done();
    assert_eq!(told(scan), ("RSTO", "ShR".into()));
}

#[test]
fn zeek_states_of_connections_that_were() {
    let talk = |t: &mut Talk| t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 500).a(ACK, 101, 501, 0).done();
    assert_eq!(told(talk), ("S1", "ShADd".into()));
    let close = |t: &mut Talk| {
        talk(t);
        t.a(FIN | ACK, 101, 501, 0);
    };
    assert_eq!(told(close), ("S2", "ShADdF".into()));
    let closed = |t: &mut Talk| {
        close(t);
        t.b(FIN | ACK, 501, 102, 0).a(ACK, 102, 502, 0);
    };
    assert_eq!(told(closed), ("SF", "ShADdFf".into()));
    let late_reset = |t: &mut Talk| {
        closed(t);
        t.a(RST, 102, 0, 0);
    };
    assert_eq!(told(late_reset), ("SF", "ShADdFfR".into()), "closed stays closed");
    let reset = |t: &mut Talk| {
        talk(t);
        t.b(RST, 501, 0, 0);
    };
    assert_eq!(told(reset), ("RSTR", "ShADdr".into()));
    let half = |t: &mut Talk| {
        talk(t);
        t.b(FIN | ACK, 501, 101, 0);
    };
    assert_eq!(told(half), ("S3", "ShADdf".into()));
}

#[test]
fn zeek_states_of_what_was_not_seen_from_its_start() {
    assert_eq!(told(|t| t.a(ACK, 1, 1, 10).b(ACK, 1, 11, 10).done()), ("OTH", "Dd".into()));
    assert_eq!(told(|t| t.a(ACK, 1, 1, 10).b(RST, 1, 0, 0).done()), ("RSTRH", "Dr".into()));
    assert_eq!(told(|t| t.a(ACK, 1, 1, 10).b(FIN | ACK, 1, 11, 0).done()), ("SHR", "Df".into()));
    let answer_first = |t: &mut Talk| t.b(SYN | ACK, 0, 1, 0).a(ACK, 1, 1, 0).done();
    assert_eq!(told(answer_first), ("S1", "hA".into()));
}

#[test]
fn a_history_counts_troubles_by_powers_of_ten() {
    let repeats = |n: u32| {
        told(move |t| {
            t.handshake().a(ACK, 1, 1, 10);
            (0..n).for_each(|_| t.a(ACK, 1, 1, 10).done());
        })
    };
    assert_eq!(repeats(1).1, "ShADT");
    assert_eq!(repeats(9).1, "ShADT");
    assert_eq!(repeats(100).1, "ShADTTT");
    let closed_window = told(|t| t.handshake().take(MS, Seg::new(false, ACK, 1, 1).window(0)).done());
    assert_eq!(closed_window.1, "ShAaw");
}

#[test]
fn both_flags_at_once_and_more_letters_than_fit() {
    let odd = told(|t| t.a(SYN | FIN, 0, 0, 0).a(FIN | RST, 1, 0, 0).done());
    assert_eq!(odd.1, "QI");
    let many = told(|t| (0..90).for_each(|n| t.a(RST, n * 10, 0, 0).done()));
    assert_eq!(many.1.len(), crate::flow::story::LETTERS);
}

#[test]
fn congestion_marks_are_counted_by_side() {
    use crate::decode::flags::{CWR, ECE};
    let mut t = Talk::new(7);
    t.a(SYN | ECE | CWR, 0, 0, 0).b(SYN | ACK | ECE, 0, 1, 0).a(ACK, 1, 1, 0);
    t.b(ACK | ECE, 1, 1, 0).a(ACK | CWR, 1, 1, 100);
    assert_eq!((t.flow.rare.ece, t.flow.rare.cwr, t.flow.story.ce), ([1, 2], [2, 0], [0, 0]));
}
