//! Who sent a RST, who waits for whom, and what routers said: each verdict, and each case that only looks like it.

use super::*;
use crate::decode::Icmp;

impl Talk {
    /// A packet of B with its own TTL.
    fn b_ttl(&mut self, ttl: u8, flags: u8, seq: u32, ack: u32, payload: usize) -> &mut Talk {
        self.take(20 * MS, Seg { ttl, ..Seg::new(false, flags, seq, ack).data(payload) })
    }

    /// A RST in B's name.
    fn rst(&mut self, after: Nanos, seq: u32, ttl: u8) -> Option<bool> {
        self.take(after, Seg { ttl, ..Seg::new(false, RST, seq, 0).window(0) });
        self.flow.rst_injected(B)
    }

    fn stalled(&self) -> bool {
        self.out.events.contains(Event::Stalled)
    }
}

#[test]
fn a_rst_from_elsewhere_has_another_ttl() {
    for (ttl, injected) in [(64, false), (63, false), (65, false), (62, true), (66, true), (253, true)] {
        twice(|t| {
            t.handshake().a(ACK, 1, 1, 100);
            assert_eq!(t.rst(MS, 1, ttl), Some(injected), "{ttl}");
        });
    }
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).rst(MS, 1, 253);
        let rst = t.facts().resp.rst;
        assert_eq!((rst.ttl, rst.delay_us, rst.too_fast), (Some(253), Some(1000), Some(true)));
        assert_eq!((rst.seq_exact, rst.seq_in_window, rst.df_fits), (Some(true), Some(true), Some(true)));
        assert_eq!((t.facts().orig.rst.injected, t.facts().resp.ttl_usual), (None, Some(64)));
        t.rst(MS, 0x4000_0000, 64);
        assert_eq!(t.facts().resp.rst.ttl, Some(253), "the stranger is remembered");
    });
}

#[test]
fn without_another_packet_of_its_sender_nothing_is_known_until_there_is_one() {
    twice(|t| {
        t.a(SYN, 0, 0, 0);
        assert_eq!(t.rst(MS, 0, 57), None);
        t.take(40 * MS, Seg { ttl: 50, ..Seg::new(false, SYN | ACK, 0, 1).options(&OPTIONS) });
        assert!(t.out.events.contains(Event::AfterRst));
        assert_eq!(t.flow.rst_injected(B), Some(true), "the host answers after all");
    });
}

#[test]
fn the_verdict_turns_when_the_true_ttl_is_learned() {
    // A device answers SYNs for the host, then resets in its name: only the host's own packets tell.
    let proxied = |t: &mut Talk| {
        t.take(0, Seg::new(true, SYN, 0, 0).options(&OPTIONS));
        t.take(8 * MS, Seg { ttl: 60, ..Seg::new(false, SYN | ACK, 0, 1).options(&OPTIONS) });
        t.take(2 * MS, Seg::new(true, ACK, 1, 1)).a(ACK, 1, 1, 100);
    };
    twice(|t| {
        proxied(t);
        assert_eq!(t.rst(9 * MS, 1, 60), Some(false));
        t.b_ttl(50, ACK, 1, 101, 400).b_ttl(50, ACK, 401, 101, 400);
        assert_eq!(t.flow.rst_injected(B), Some(true));
    });
    // The same device, and a RST of the host itself.
    twice(|t| {
        proxied(t);
        t.b_ttl(50, ACK, 1, 101, 400).b_ttl(50, ACK, 401, 101, 400);
        assert_eq!(t.rst(9 * MS, 801, 50), Some(false));
    });
}

#[test]
fn who_goes_on_has_not_reset() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100);
        assert_eq!(t.rst(MS, 1, 64), Some(false), "a forger who knows the TTL");
        t.b(ACK, 1, 101, 400);
        assert!(t.out.events.contains(Event::AfterRst));
        t.b(ACK, 401, 101, 400).a(ACK, 101, 801, 0).b(ACK, 801, 101, 400);
        assert_eq!((t.flow.rst_injected(B), t.facts().resp.rst.followed_by), (Some(true), Some(3)));
    });
    // Packets that the RST overtook are no sign of life.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100);
        t.rst(MS, 801, 64);
        t.take(MS, Seg::new(false, ACK, 1, 101).data(400));
        t.take(MS, Seg::new(false, ACK, 401, 101).data(400));
        assert_eq!(t.flow.rst_injected(B), Some(false));
    });
    // Nor are those that came by a much longer way, and acknowledgements among them.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100);
        t.rst(MS, 801, 64);
        t.take(150 * MS, Seg::new(false, ACK, 1, 1).data(400));
        t.b(ACK, 401, 101, 400).b(ACK, 801, 101, 0);
        assert_eq!(t.flow.rst_injected(B), Some(false));
        t.take(3 * S, Seg::new(false, ACK, 801, 101));
        assert_eq!(t.flow.rst_injected(B), Some(true), "no way is that long");
    });
    // Who only listens acknowledges what was sent after the RST.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100);
        t.rst(MS, 1, 64);
        t.a(ACK, 101, 1, 400).b(ACK, 1, 501, 0);
        t.a(ACK, 501, 1, 400).b(ACK, 1, 901, 0);
        assert_eq!(t.flow.rst_injected(B), Some(true));
    });
}

/// A router one hop off rejects with a RST, and the server's timer sends again what it had sent before.
#[test]
fn who_repeats_after_its_rst_has_not_sent_it() {
    let turns = |t: &Talk| {
        let events = t.out.events;
        (t.flow.rst_injected(B), events.contains(Event::AfterRst), events.contains(Event::Disproved))
    };
    let again = || Seg::new(false, ACK, 1, 101).data(400);
    // Everything was acknowledged, or nothing was.
    for acked in [true, false] {
        twice(|t| {
            t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 400);
            if acked {
                t.a(ACK, 101, 401, 0);
            }
            assert_eq!(t.rst(MS, if acked { 401 } else { 1 }, 65), Some(false));
            t.take(5 * MS, again());
            assert_eq!(turns(t), (Some(false), true, false), "the first after it may have been overtaken");
            t.take(150 * MS, again());
            assert_eq!(turns(t), (Some(false), true, false), "no timer is that short");
            t.take(60 * MS, again());
            assert_eq!(turns(t), (Some(true), true, true), "not one of those that are told anyway");
            t.take(420 * MS, again());
            assert_eq!(turns(t), (Some(true), true, false), "it is known already");
        });
    }
    // What the RST overtook was not seen before, however late.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100);
        t.rst(MS, 801, 65);
        t.take(300 * MS, Seg::new(false, ACK, 1, 101).data(400));
        t.take(300 * MS, Seg::new(false, ACK, 401, 101).data(400));
        assert_eq!(turns(t), (Some(false), true, false));
    });
    // Nor was what fills a gap.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).b(ACK, 401, 101, 400);
        t.rst(MS, 801, 64);
        t.take(300 * MS, Seg::new(false, ACK, 801, 101)).take(300 * MS, again());
        assert_eq!(t.flow.rst_injected(B), Some(false));
    });
    // Numbers of another connection whose SYN was not seen.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 400);
        t.rst(MS, 401, 64);
        t.take(S, Seg::new(false, ACK, 0xa000_0000, 9).data(400));
        t.take(MS, Seg::new(false, ACK, 0xa000_0190, 9).data(400));
        assert_eq!(t.flow.rst_injected(B), Some(false));
    });
}

#[test]
fn the_silence_before_a_rst_is_not_one_after_it() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 400).a(ACK, 101, 401, 0);
        t.rst(MS, 401, 65);
        t.take(S, Seg::new(true, RST, 101, 0)).take(13 * S, Seg::new(false, ACK, 1, 101).data(400));
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (0, 0));
    });
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 400).a(ACK, 101, 401, 0);
        t.take(20 * S, Seg::new(true, ACK, 101, 401).data(100));
        t.rst(MS, 401, 65);
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (20_000, 2));
        t.take(30 * S, Seg::new(false, ACK, 1, 101).data(400));
        assert_eq!((t.facts().idle_before_ms, t.facts().packets_since_idle), (20_000, 2));
    });
}

#[test]
fn hosts_that_look_like_strangers() {
    // The route changed before the RST, which came the new way.
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100);
        for i in 0..20 {
            t.b(ACK, 1 + i * 100, 101, 100);
        }
        t.b_ttl(60, ACK, 2001, 101, 100).b_ttl(60, ACK, 2101, 101, 100);
        assert_eq!(t.rst(MS, 2201, 60), Some(false));
    });
    // 255 less as many hops as its other packets have passed, and a round trip after what it answers.
    for (delay, injected) in [(8 * MS, false), (MS, true)] {
        twice(|t| {
            t.take(0, Seg::new(true, SYN, 0, 0).options(&OPTIONS));
            t.take(8 * MS, Seg { ttl: 54, ..Seg::new(false, SYN | ACK, 0, 1).options(&OPTIONS) });
            t.take(2 * MS, Seg::new(true, ACK, 1, 1)).a(ACK, 1, 1, 100);
            assert_eq!(t.rst(delay, 1, 245), Some(injected));
        });
    }
    // A RST that answers a challenge ACK, and a client that then connects.
    twice(|t| {
        t.a(SYN, 0, 0, 0).b(ACK, 500, 900, 0);
        assert!(t.out.events.contains(Event::ChallengeAck));
        t.a(RST, 900, 0, 0).take(S, Seg::new(true, SYN, 0, 0));
        t.b(SYN | ACK, 0, 1, 0).a(ACK, 1, 1, 0).a(ACK, 1, 1, 100);
        assert_eq!(t.flow.rst_injected(A), Some(false));
    });
}

#[test]
fn what_answers_for_an_old_connection_has_numbers_of_its_own() {
    for old in [500, 0_u32.wrapping_sub(70_000)] {
        twice(|t| {
            t.a(SYN, 0, 0, 0).b(ACK, old, 900, 0).a(RST, 900, 0, 0).take(S, Seg::new(true, SYN, 0, 0));
            t.b(SYN | ACK, 0, 1, 0).a(ACK, 1, 1, 0).a(ACK, 1, 1, 100).b(ACK, 1, 101, 300).a(ACK, 101, 301, 0);
            assert_eq!((t.own(A), t.own(B)), (vec![("retransmission", 1)], vec![]), "{old}");
        });
    }
}

#[test]
fn a_route_of_another_length_is_one_change_and_two_nearly_alike_are_none() {
    for (ttls, changes) in [([64, 64, 60, 60, 60], 1), ([64, 63, 64, 63, 64], 0), ([64, 62, 64, 62, 62], 3)] {
        twice(|t| {
            t.handshake().a(ACK, 1, 1, 100);
            for (i, ttl) in ttls.into_iter().enumerate() {
                t.b_ttl(ttl, ACK, 1 + i as u32 * 100, 101, 100);
            }
            assert_eq!(t.flow.senders[B].ttl_changes, changes, "{ttls:?}");
        });
    }
}

#[test]
fn data_without_any_answer_is_waited_for() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).take(20 * MS, Seg::new(false, ACK, 1, 101));
        assert_eq!(t.flow.next_stall_check(), None);
        t.b(ACK, 1, 101, 100);
        let sent = t.now;
        assert_eq!(t.flow.next_stall_check(), None, "sent once: nothing to say");
        t.take(300 * MS, Seg::new(false, ACK, 1, 101).data(100));
        assert!(t.out.rearm);
        assert_eq!(t.flow.next_stall_check(), Some(sent + 5 * S));
        t.flow.rare.stall_checks = 1;
        assert_eq!(t.flow.next_stall_check(), Some(sent + 10 * S));
        t.take(9 * S, Seg::new(false, ACK, 1, 101).data(100));
        t.now = sent + 10 * S;
        assert_eq!((t.facts().resp.unanswered_ms, t.facts().resp.unanswered_sends), (10_000, 3));
        t.take(2 * S, Seg::new(true, RST, 101, 0));
        assert_eq!(t.facts().resp.unanswered_ms, 12_000);
        assert_eq!(t.flow.next_stall_check(), None);
    });
    // An answer ends it, and says how long it was.
    twice(|t| {
        t.handshake().b(ACK, 1, 1, 100).take(S, Seg::new(false, ACK, 1, 1).data(100));
        t.take(11 * S, Seg::new(true, ACK, 1, 101));
        assert!(t.stalled());
        assert_eq!(t.facts().resp.unanswered_ms, 12_000);
        t.a(ACK, 1, 101, 0);
        assert_eq!((t.stalled(), t.facts().resp.unanswered_ms), (false, 0));
    });
    // Repeated only much later, or acknowledged past this capture point: nobody is gone.
    twice(|t| {
        t.handshake().b(ACK, 1, 1, 100).take(20 * S, Seg::new(false, ACK, 1, 1).data(100));
        assert_eq!(t.flow.next_stall_check(), None);
        t.take(S, Seg::new(false, ACK, 101, 5000).data(100));
        assert_eq!(t.facts().resp.unanswered_ms, 0);
    });
    // The other side was never seen.
    twice(|t| {
        t.b(ACK, 1, 1, 100).take(S, Seg::new(false, ACK, 1, 1).data(100));
        assert_eq!((t.flow.next_stall_check(), t.facts().orig.unanswered_ms), (None, 0));
    });
}

#[test]
fn who_tries_no_more_is_looked_at_no_more() {
    twice(|t| {
        t.handshake().b(ACK, 1, 1, 100);
        let sent = t.now;
        let tries = |t: &mut Talk, at: u64| {
            t.take(sent + at * S - t.now, Seg::new(false, ACK, 1, 1).data(100));
        };
        let checks = |t: &mut Talk| {
            let mut checks = Vec::new();
            while let Some(at) = t.flow.next_stall_check() {
                checks.push((at - sent) / S);
                t.flow.rare.stall_checks += 1;
            }
            checks
        };
        tries(t, 1);
        assert_eq!(checks(t), [5, 10, 20, 40]);
        // It is taken up again with another attempt, and goes on for as long as the next may take.
        tries(t, 55);
        assert!(t.out.rearm);
        assert_eq!(checks(t), [80, 120, 160]);
        tries(t, 300);
        assert_eq!(checks(t), [320, 360, 400, 440]);
    });
}

#[test]
fn a_closed_window_is_timed_until_it_opens() {
    twice(|t| {
        t.handshake().b(ACK, 1, 1, 100).take(MS, Seg::new(true, ACK, 1, 101).window(0));
        let closed = t.now;
        assert!(t.out.rearm);
        assert_eq!(t.flow.next_stall_check().map(|at| at - closed), Some(5 * S));
        t.take(4 * S, Seg::new(false, ACK, 100, 1)).take(MS, Seg::new(true, ACK, 1, 101).window(0));
        let f = t.facts();
        assert_eq!((f.orig.window_closed_ms, f.orig.window_closed, f.resp.window_probes), (4001, true, 1));
        t.take(3 * S, Seg::new(true, ACK, 1, 101));
        assert!(t.stalled());
        assert_eq!((t.facts().orig.window_closed_ms, t.facts().orig.window_closed), (7001, false));
        assert_eq!(t.flow.next_stall_check(), None);
    });
    twice(|t| {
        t.handshake().take(MS, Seg::new(true, ACK, 1, 1).window(0)).take(4 * S, Seg::new(true, ACK, 1, 1));
        assert!(!t.stalled(), "4 s are not worth a word");
    });
}

#[test]
fn keepalives_have_a_rhythm() {
    twice(|t| {
        t.handshake();
        for i in 0..3 {
            t.take(30 * S, Seg::new(true, ACK, 0, 1)).take(MS, Seg::new(false, ACK, 1, 1));
            assert_eq!(t.facts().orig.keepalive_every_ms, (i > 0).then_some(30_001));
        }
    });
}

#[test]
fn routers_are_heeded_or_not() {
    twice(|t| {
        t.handshake().b(ACK, 1, 1, 1400);
        too_big(&mut t.flow, &mut t.slab, 1300, false, t.now);
        t.b(ACK, 1, 1, 1200);
        assert_eq!(t.facts().resp.oversize, 0, "smaller now");
        t.take(S, Seg::new(false, ACK, 1, 1).data(1400)).take(S, Seg::new(false, ACK, 1, 1).data(1400));
        assert_eq!((t.facts().resp.oversize, t.facts().orig.oversize), (2, 0));
        t.take(200 * S, Seg::new(false, ACK, 1, 1).data(1400));
        assert_eq!(t.facts().resp.oversize, 2, "long after, it tries anew");
    });
    let mut t = Talk::new(0);
    t.handshake();
    let says = |kind, code| Icmp { kind, code, ..Icmp::default() };
    for (kind, code, heard) in [(3, 1, true), (3, 4, false), (11, 0, true), (8, 0, false)] {
        let out = unreachable(&mut t.flow, &mut t.slab, &says(kind, code), true);
        assert_eq!(
            out.is_some_and(|out| out.events.contains(Event::IcmpUnreachable)),
            heard,
            "{kind}/{code}"
        );
    }
    let orig = t.facts().orig;
    assert_eq!((orig.icmp_unreachable, orig.icmp_unreachable_code, orig.icmp_time_exceeded), (1, Some(1), 1));
}

#[test]
fn handshakes_that_hang() {
    let odd = |t: &Talk, what| t.flow.rare.oddities & what != 0;
    use crate::flow::record::oddity::INCOMPLETE;
    for (after, incomplete) in [(2 * S, false), (4 * S, true)] {
        twice(|t| {
            t.a(SYN, 0, 0, 0).b(SYN | ACK, 0, 1, 0);
            at_end(&mut t.flow, t.now + after);
            assert_eq!(odd(t, INCOMPLETE), incomplete);
        });
    }
    twice(|t| {
        t.handshake();
        at_end(&mut t.flow, t.now + 10 * S);
        assert!(!odd(t, INCOMPLETE));
    });
    // The server's timer repeats the SYN-ACK; a repeat that crossed the ACK does not count.
    for (after, late) in [(S, 1), (3 * MS, 0)] {
        twice(|t| {
            t.handshake().take(after, Seg::new(false, SYN | ACK, 0, 1).options(&OPTIONS));
            assert_eq!(t.facts().late_syn_acks, late);
        });
    }
}

#[test]
fn new_data_after_two_repeats_tells_of_an_answer_that_passed_unseen() {
    twice(|t| {
        t.handshake().a(ACK, 1, 1, 100).b(ACK, 1, 101, 0).a(ACK, 101, 1, 100);
        t.take(300 * MS, Seg::new(true, ACK, 101, 1).data(100))
            .take(S, Seg::new(true, ACK, 101, 1).data(100));
        t.take(9 * S, Seg::new(true, ACK, 101, 1).data(100));
        assert_eq!(t.facts().orig.unanswered_sends, 4);
        t.take(S, Seg::new(true, ACK, 201, 1).data(100));
        assert_eq!((t.facts().orig.unanswered_ms, t.facts().orig.unanswered_sends), (0, 1));
    });
}

#[test]
fn accurate_ecn_is_a_counter_and_no_echo() {
    use crate::decode::flags::{CWR, ECE};
    let echoes = |answer: (u8, bool)| {
        let mut t = Talk::new(1000);
        let mut take = |from_a, flags, accurate, seq: u32, ack: u32| {
            let mut packet = Seg::new(from_a, flags, seq + 1000, ack + 1000).packet();
            packet.tcp.accurate_ecn = accurate;
            t.now += MS;
            segment(&mut t.flow, &mut t.slab, &packet, t.now, &mut Outcome::default());
        };
        take(true, SYN | ECE | CWR, true, 0, 0);
        take(false, SYN | ACK | answer.0, answer.1, 0, 1);
        (0..30).for_each(|_| take(true, ACK | ECE, false, 1, 1));
        t.facts().orig.congestion_echoes
    };
    assert_eq!(echoes((CWR, false)), 0);
    assert_eq!(echoes((0, true)), 0);
    assert_eq!(echoes((ECE, false)), 30, "the server knows the classic meaning only");
    assert_eq!(echoes((0, false)), 30);
}
