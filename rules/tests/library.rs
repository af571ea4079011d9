//! The shipped rules, end to end: snapshots in, hits and verdicts out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use std::net::IpAddr;
use std::sync::Arc;

use rules::facts::{Count, CountSet, Counts, FlowFacts, HostFacts, RstFacts, Side, SideFacts};
use rules::{
    Bodies, BodyLimits, CaptureWish, Event, EvidenceValue, Hits, RuleSet, Scope, Severity, Snapshot, Verdict,
    library,
};

fn set() -> Arc<RuleSet> {
    match RuleSet::load(&library(), &[]) {
        Ok(set) => Arc::new(set),
        Err(errors) => panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()),
    }
}

fn names(set: &RuleSet, event: Event, facts: &FlowFacts) -> Vec<String> {
    let mut hits = Hits::new();
    set.match_flow(event, facts, &mut hits);
    hits.as_slice().iter().map(|&rule| set.rules()[usize::from(rule)].name.clone()).collect()
}

fn verdict(set: &Arc<RuleSet>, name: &str, snapshot: &Snapshot) -> Verdict {
    let rule = set.rules().iter().position(|rule| rule.name == name).unwrap();
    let mut bodies = Bodies::new(Arc::clone(set), BodyLimits::default());
    match bodies.run(rule as u16, snapshot) {
        Ok(verdict) => verdict,
        Err(error) => panic!("{error}"),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An established, healthy flow whose originator sends the packet at hand.
fn flow() -> FlowFacts {
    let mut facts = FlowFacts {
        src: address("10.0.0.1"),
        dst: address("10.0.4.21"),
        sport: 40_000,
        dport: 8080,
        by: Some(Side::Orig),
        established: true,
        syns: 1,
        syn_acks: 1,
        start_ns: 1_000_000_000,
        now_ns: 302_000_000_000,
        ttl: Some(64),
        ..FlowFacts::default()
    };
    facts.orig.unacked = Some(0);
    facts.resp.unacked = Some(0);
    facts
}

#[test]
fn every_shipped_rule_loads_with_its_scope() {
    let set = set();
    let rules: Vec<_> = set.rules().iter().map(|r| (r.name.as_str(), r.scope, r.holds)).collect();
    assert_eq!(
        rules,
        [
            ("conn_refused", Scope::Service, false),
            ("half_open", Scope::Flow, true),
            ("icmp_ignored", Scope::Flow, true),
            ("icmp_unreachable", Scope::Flow, true),
            ("pmtu_blackhole", Scope::Flow, true),
            ("rst_after_idle", Scope::Flow, true),
            ("rst_injected", Scope::Flow, true),
            ("rst_midflow", Scope::Flow, true),
            ("rst_storm", Scope::Host, true),
            ("syn_no_synack", Scope::Flow, true),
            ("synack_retransmission", Scope::Flow, true),
            ("zero_window_stall", Scope::Flow, true),
        ]
    );
    assert!(set.flow_events().contains(Event::Rst));
    assert!(!set.flow_events().contains(Event::Syn));
    assert_eq!(set.rules()[5].comment(Event::Rst), "referee: rst_after_idle (rst)");
}

#[test]
fn a_healthy_flow_matches_nothing_on_any_event() {
    let set = set();
    for event in Event::ALL {
        assert_eq!(names(&set, event, &flow()), Vec::<String>::new(), "{event:?}");
    }
}

fn judged(set: &Arc<RuleSet>, facts: &FlowFacts) -> Verdict {
    verdict(set, "rst_after_idle", &Snapshot::Flow(facts, Event::Rst))
}

#[test]
fn rst_after_idle() {
    let set = set();
    let idle =
        |idle_before_ms, packets_since_idle| FlowFacts { idle_before_ms, packets_since_idle, ..flow() };
    assert_eq!(names(&set, Event::Rst, &idle(10_000, 4)), ["rst_after_idle"]);
    assert!(names(&set, Event::Rst, &idle(9_999, 2)).is_empty());
    assert!(names(&set, Event::Rst, &idle(300_500, 5)).is_empty());
    assert!(names(&set, Event::Rst, &FlowFacts { fin_seen: true, ..idle(300_500, 2) }).is_empty());
    assert!(names(&set, Event::Rst, &FlowFacts { rst_seen: true, ..idle(300_500, 2) }).is_empty());

    let facts = idle(300_500, 2);
    let verdict = verdict(&set, "rst_after_idle", &Snapshot::Flow(&facts, Event::Rst));
    let (severity, explain) = verdict.incident.unwrap();
    assert_eq!(severity, Severity::Warning);
    assert!(explain.contains("silent for 300.5 s"), "{explain}");
    assert!(explain.contains("10.0.0.1:40000 to 10.0.4.21:8080"), "{explain}");
    assert!(verdict.capture.is_some());
    assert_eq!(verdict.evidence[0], ("idle_ms".to_owned(), EvidenceValue::Int(300_500)));
    assert!(verdict.evidence.contains(&("usual_timeout_s".to_owned(), EvidenceValue::Int(300))));
    assert!(verdict.evidence.contains(&("sent_by".to_owned(), EvidenceValue::Text("client".to_owned()))));

    // The RST broke the silence itself, with nothing outstanding and the TTL of its sender: a hasty close.
    let with_ttl = |ttl_max| {
        let side = SideFacts { unacked: Some(0), ttl_min: Some(64), ttl_max: Some(ttl_max), ..flow().orig };
        FlowFacts { orig: side, resp: side, by: Some(Side::Resp), ..idle(300_500, 1) }
    };
    assert_eq!(names(&set, Event::Rst, &with_ttl(64)), ["rst_after_idle"], "still a finding");
    assert!(judged(&set, &with_ttl(64)).incident.is_none());
    assert!(judged(&set, &with_ttl(253)).incident.is_some(), "somebody else's TTL");
}

#[test]
fn rst_midflow_needs_lost_data_and_spares_cancelled_downloads() {
    let set = set();
    let with = |by, orig, resp| {
        let mut facts = FlowFacts { by: Some(by), ..flow() };
        facts.orig.unacked = orig;
        facts.resp.unacked = resp;
        facts
    };
    assert!(names(&set, Event::Rst, &with(Side::Orig, Some(0), Some(50_000))).is_empty());
    assert!(names(&set, Event::Rst, &with(Side::Resp, Some(0), Some(0))).is_empty());
    assert_eq!(names(&set, Event::Rst, &with(Side::Orig, Some(100), Some(0))), ["rst_midflow"]);
    assert_eq!(names(&set, Event::Rst, &with(Side::Resp, Some(100), Some(0))), ["rst_midflow"]);
    assert_eq!(names(&set, Event::Rst, &with(Side::Resp, Some(0), Some(7))), ["rst_midflow"]);
    // One direction only: what is outstanding is unknown, so nothing is claimed.
    assert!(names(&set, Event::Rst, &with(Side::Resp, None, None)).is_empty());

    // Right after a silence it is the other rule's case, and only that one's.
    let idle =
        FlowFacts { idle_before_ms: 60_000, packets_since_idle: 2, ..with(Side::Resp, Some(5), Some(0)) };
    assert_eq!(names(&set, Event::Rst, &idle), ["rst_after_idle"]);

    let facts = with(Side::Resp, Some(100), Some(7));
    let verdict = verdict(&set, "rst_midflow", &Snapshot::Flow(&facts, Event::Rst));
    let (_, explain) = verdict.incident.unwrap();
    assert!(explain.contains("100 bytes from the client and 7 bytes from the server"), "{explain}");
    assert!(explain.contains("in the name of the server"), "{explain}");
}

#[test]
fn syn_no_synack() {
    let set = set();
    let unanswered = |age| FlowFacts {
        established: false,
        by: None,
        syns: 3,
        syn_acks: 0,
        syn_age_ms: age,
        ttl: None,
        ..flow()
    };
    assert_eq!(names(&set, Event::SynTimeout, &unanswered(Some(3_000))), ["syn_no_synack"]);
    assert!(names(&set, Event::SynTimeout, &unanswered(Some(2_000))).is_empty());
    assert!(names(&set, Event::SynTimeout, &unanswered(None)).is_empty());
    let facts = unanswered(Some(3_000));
    let verdict = verdict(&set, "syn_no_synack", &Snapshot::Flow(&facts, Event::SynTimeout));
    assert!(verdict.incident.unwrap().1.contains("3 times in 3000 ms"));
    assert_eq!(verdict.advise.len(), 3);
}

#[test]
fn pmtu_blackhole_on_either_side() {
    let set = set();
    let mut facts = FlowFacts { by: Some(Side::Resp), ..flow() };
    facts.resp.stuck_sends = 3;
    facts.resp.stuck_bytes = 1500;
    assert!(names(&set, Event::Retransmission, &facts).is_empty());
    facts.resp.small_passes = true;
    assert_eq!(names(&set, Event::Retransmission, &facts), ["pmtu_blackhole"]);

    let unknown = verdict(&set, "pmtu_blackhole", &Snapshot::Flow(&facts, Event::Retransmission));
    assert!(unknown.evidence.contains(&("largest_acked_bytes".to_owned(), EvidenceValue::Unknown)));
    let sender = ("sender".to_owned(), EvidenceValue::Address(address("10.0.4.21")));
    assert!(unknown.evidence.contains(&sender));
    facts.resp.largest_acked = Some(1400);
    let known = verdict(&set, "pmtu_blackhole", &Snapshot::Flow(&facts, Event::Retransmission));
    let explain = known.incident.unwrap().1;
    assert!(explain.contains("packet of 1500 bytes") && explain.contains("carried 1400 bytes"), "{explain}");

    facts.icmp_too_big = 1;
    assert!(names(&set, Event::Retransmission, &facts).is_empty());
}

#[test]
fn rst_storm() {
    let set = set();
    let host = |rsts| HostFacts {
        addr: address("10.0.0.9"),
        now_ns: 0,
        last_1s: Counts { rsts, ..Counts::default() },
        last_10s: Counts { rsts: rsts * 2, ..Counts::default() },
        last_60s: Counts::default(),
    };
    let mut hits = Hits::new();
    set.match_host(&host(49), &mut hits);
    assert!(hits.is_empty());
    set.match_host(&host(50), &mut hits);
    assert_eq!(set.rules()[usize::from(hits.as_slice()[0])].name, "rst_storm");
    let verdict = verdict(&set, "rst_storm", &Snapshot::Host(&host(50)));
    let (severity, explain) = verdict.incident.unwrap();
    assert_eq!(severity, Severity::Critical);
    assert!(explain.contains("10.0.0.9 sent 50 RSTs within one second (100 within ten)"), "{explain}");
    assert_eq!(verdict.capture, Some(CaptureWish::default()), "of flows it goes on to reset");
    assert_eq!(set.counts_read(Scope::Host), CountSet::EMPTY.with(Count::Rsts).with(Count::FlowsReset));
    let read = CountSet::EMPTY.with(Count::Refused).with(Count::Established);
    assert_eq!(set.counts_read(Scope::Service), read);
}

#[test]
fn rst_injected_names_the_evidence_and_leaves_silences_to_the_other_rule() {
    let set = set();
    let mut facts = FlowFacts { by: Some(Side::Resp), rst: true, rtt_server_us: Some(40_000), ..flow() };
    facts.resp.ttl_usual = Some(53);
    facts.resp.rst = RstFacts {
        injected: Some(true),
        ttl: Some(253),
        delay_us: Some(900),
        too_fast: Some(true),
        followed_by: Some(0),
        ..RstFacts::default()
    };
    assert_eq!(names(&set, Event::Rst, &facts), ["rst_injected"]);
    assert_eq!(names(&set, Event::AfterRst, &facts), ["rst_injected"]);
    let explain = verdict(&set, "rst_injected", &Snapshot::Flow(&facts, Event::Rst)).incident.unwrap().1;
    for part in ["TTL is 253", "arrive with 53", "0.9 ms", "takes 40 ms"] {
        assert!(explain.contains(part), "{explain}");
    }
    let idle = FlowFacts { idle_before_ms: 300_000, packets_since_idle: 2, ..facts };
    assert!(verdict(&set, "rst_injected", &Snapshot::Flow(&idle, Event::Rst)).incident.is_none());
    let explain = judged(&set, &idle).incident.unwrap().1;
    assert!(explain.contains("server did not send it"), "{explain}");
    // Genuine, or nothing to compare it with; and the other rule has nothing to say of an injected one.
    for injected in [Some(false), None] {
        facts.resp.rst.injected = injected;
        assert!(names(&set, Event::Rst, &facts).is_empty());
    }
    facts.orig.unacked = Some(100);
    assert!(verdict(&set, "rst_midflow", &Snapshot::Flow(&facts, Event::Rst)).incident.is_some());
    facts.resp.rst.injected = Some(true);
    assert!(verdict(&set, "rst_midflow", &Snapshot::Flow(&facts, Event::Rst)).incident.is_none());
}

#[test]
fn half_open_and_zero_window_stall_keep_apart() {
    let set = set();
    let mut facts = FlowFacts { by: None, ..flow() };
    facts.resp.unanswered_ms = 10_000;
    facts.resp.unanswered_sends = 6;
    assert_eq!(names(&set, Event::Stalled, &facts), ["half_open"]);
    let explain = verdict(&set, "half_open", &Snapshot::Flow(&facts, Event::Stalled)).incident.unwrap().1;
    assert!(explain.contains("10.0.4.21 has sent to 10.0.0.1") && explain.contains("for 10 s"), "{explain}");
    let reset = FlowFacts { by: Some(Side::Orig), rst: true, ..facts };
    assert_eq!(names(&set, Event::Rst, &reset), ["half_open"]);
    let explain = verdict(&set, "half_open", &Snapshot::Flow(&reset, Event::Rst)).incident.unwrap().1;
    assert!(explain.contains("knows nothing of the connection"), "{explain}");
    for spoiled in [
        FlowFacts { resp: SideFacts { unanswered_ms: 9_999, ..facts.resp }, ..facts },
        FlowFacts { resp: SideFacts { small_passes: true, ..facts.resp }, ..facts },
        FlowFacts { icmp_too_big: 1, ..facts },
        FlowFacts { established: false, ..facts },
    ] {
        assert!(names(&set, Event::Stalled, &spoiled).is_empty());
    }
    facts.orig.window_closed = true;
    facts.orig.window_closed_ms = 10_000;
    assert_eq!(names(&set, Event::Stalled, &facts), ["zero_window_stall"]);
    let unwanted = verdict(&set, "zero_window_stall", &Snapshot::Flow(&facts, Event::Stalled));
    assert!(unwanted.incident.is_none() && unwanted.capture.is_none(), "nobody had anything to send");
    facts.resp.window_probes = 4;
    let explain =
        verdict(&set, "zero_window_stall", &Snapshot::Flow(&facts, Event::Stalled)).incident.unwrap().1;
    assert!(explain.contains("10.0.0.1 (the client)") && explain.contains("4 times"), "{explain}");
}

#[test]
fn routers_and_full_queues() {
    let set = set();
    let mut facts = FlowFacts { by: None, ..flow() };
    facts.orig.icmp_unreachable = 1;
    facts.orig.icmp_unreachable_code = Some(1);
    assert_eq!(names(&set, Event::IcmpUnreachable, &facts), ["icmp_unreachable"]);
    verdict(&set, "icmp_unreachable", &Snapshot::Flow(&facts, Event::IcmpUnreachable)).incident.unwrap();
    facts.established = false;
    assert!(names(&set, Event::IcmpUnreachable, &facts).is_empty(), "a refusal like any other");
    facts.orig.icmp_unreachable = 3;
    assert_eq!(names(&set, Event::IcmpUnreachable, &facts), ["icmp_unreachable"]);
    assert!(names(&set, Event::IcmpUnreachable, &FlowFacts { proto: 17, ..facts }).is_empty());

    let mut facts = FlowFacts { by: Some(Side::Resp), icmp_too_big: 2, icmp_mtu: Some(1400), ..flow() };
    facts.resp.oversize = 1;
    assert!(names(&set, Event::Retransmission, &facts).is_empty());
    facts.resp.oversize = 2;
    assert_eq!(names(&set, Event::Retransmission, &facts), ["icmp_ignored"]);
    verdict(&set, "icmp_ignored", &Snapshot::Flow(&facts, Event::Retransmission)).incident.unwrap();
    // The segment keeps to what the router said, and is stuck all the same.
    facts.resp = SideFacts { stuck_sends: 3, stuck_bytes: 1400, stuck_payload: 1348, ..SideFacts::default() };
    facts.resp.small_passes = true;
    assert_eq!(names(&set, Event::Retransmission, &facts), ["pmtu_blackhole"]);

    let late = |late_syn_acks, retransmissions| {
        let mut facts = FlowFacts { by: Some(Side::Resp), syn_acks: 3, late_syn_acks, ..flow() };
        facts.orig.retransmissions = retransmissions;
        names(&set, Event::SynAck, &facts)
    };
    assert!(late(0, 3).is_empty() && late(1, 0).is_empty());
    assert_eq!(
        (late(2, 0), late(1, 1)),
        (vec!["synack_retransmission".to_owned()], vec!["synack_retransmission".to_owned()])
    );
}
