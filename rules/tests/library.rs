//! The shipped rules, end to end: snapshots in, hits and verdicts out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use std::net::IpAddr;
use std::sync::Arc;

use rules::facts::{
    AnswerCounts, AppFacts, ClientFacts, Count, Counts, Dealings, DnsFacts, FlowFacts, HostFacts, Name,
    RstFacts, ServiceFacts, ServiceStates, Side, SideFacts, Spread,
};
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
    facts.resp.packets = 1;
    facts
}

/// Index of a shipped rule, as hits give it.
fn index(set: &RuleSet, name: &str) -> u16 {
    set.rules().iter().position(|rule| rule.name == name).unwrap() as u16
}

#[test]
fn every_shipped_file_holds_the_rule_of_its_name() {
    let set = set();
    let files: Vec<String> = library().iter().map(|f| f.name.trim_end_matches(".rhai").to_owned()).collect();
    let mut rules: Vec<_> = set.rules().iter().map(|rule| rule.name.clone()).collect();
    // Four states connections pile up in are one trouble, and so is a state table before and when it is full.
    for (of, file) in
        [("_pileup", "pileups"), ("syn_unanswered_ratio", "state_table"), ("_near_full", "state_table")]
    {
        rules.iter_mut().filter(|name| name.ends_with(of)).for_each(|name| *name = file.to_owned());
    }
    rules.dedup();
    assert_eq!(rules, files);
    let scope = |name| set.rules()[usize::from(index(&set, name))].scope;
    assert_eq!((scope("rst_midflow"), scope("rst_storm")), (Scope::Flow, Scope::Host));
    let rule = &set.rules()[usize::from(index(&set, "rst_after_idle"))];
    assert!(rule.holds);
    assert_eq!(rule.comment(Event::Rst), "referee: rst_after_idle (rst)");
    assert!(set.flow_events().contains(Event::Rst));
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
    let idle = |idle_before_ms, packets_since_idle| FlowFacts {
        rst: true,
        idle_before_ms,
        packets_since_idle,
        ..flow()
    };
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
        let mut facts = FlowFacts { rst: true, by: Some(by), ..flow() };
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
    let explain = verdict.incident.unwrap().1;
    assert!(explain.contains("3 times in 3 s and got no answer at all"), "{explain}");
    assert_eq!(verdict.advise.len(), 3);
    let mut told = facts;
    (told.orig.icmp_unreachable, told.orig.icmp_unreachable_code) = (2, Some(13));
    let explain = self::verdict(&set, "syn_no_synack", &Snapshot::Flow(&told, Event::SynTimeout)).incident;
    let explain = explain.unwrap().1;
    assert!(explain.contains("code 13") && !explain.contains("no answer at all"), "{explain}");
}

#[test]
fn a_silence_proves_nothing_of_whom_is_out_of_sight() {
    let set = set();
    let found = |syns, syn_span_ms, sight: Option<bool>| {
        let mut facts = FlowFacts { syns, syn_span_ms, syn_acks: 0, syn_age_ms: Some(4_000), ..flow() };
        (facts.resp.in_sight, facts.resp.out_of_sight) = (sight == Some(true), sight == Some(false));
        !names(&set, Event::SynTimeout, &facts).is_empty()
    };
    assert!(found(1, 0, Some(true)), "it would have been seen");
    assert!(found(1, 0, None), "nothing says that its packets pass elsewhere");
    assert!(!found(1, 0, Some(false)), "it may have been answered past here");
    assert!(!found(3, 1_000, Some(false)), "some repeat within a second what was refused");
    assert!(found(3, 3_000, Some(false)));
    let hello = |packets, out_of_sight| {
        let app = AppFacts {
            tls_answered: Some(false),
            tls_over: Some(false),
            hello_ms: Some(3_500),
            ..AppFacts::default()
        };
        let mut facts = FlowFacts { app, by: None, ..flow() };
        (facts.resp.packets, facts.resp.out_of_sight) = (packets, out_of_sight);
        !names(&set, Event::TlsTimeout, &facts).is_empty()
    };
    assert!(hello(1, false) && !hello(0, false) && !hello(1, true));
}

#[test]
fn pmtu_blackhole_on_either_side() {
    let set = set();
    let mut facts = FlowFacts { by: Some(Side::Resp), ..flow() };
    facts.resp.stuck_sends = 3;
    (facts.resp.stuck_bytes, facts.resp.stuck_payload) = (1500, 1448);
    facts.resp.stuck_aggregate = Some(false);
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

    // A packet as large got through before: three losses in a row are likelier than a path that has changed.
    facts.resp.largest_acked = Some(1448);
    let judged = |facts: &FlowFacts| {
        verdict(&set, "pmtu_blackhole", &Snapshot::Flow(facts, Event::Retransmission)).incident
    };
    assert_eq!(judged(&facts), None);
    facts.resp.stuck_sends = 5;
    assert!(judged(&facts).unwrap().1.contains("had passed"));

    facts.icmp_too_big = 1;
    assert!(names(&set, Event::Retransmission, &facts).is_empty());
}

#[test]
fn rst_storm() {
    let set = set();
    let host = |rsts, cuts| HostFacts {
        addr: address("10.0.0.9"),
        now_ns: 0,
        last_1s: Counts { rsts, cuts, ..Counts::default() },
        last_10s: Counts { rsts: rsts * 2, ..Counts::default() },
        last_60s: Counts::default(),
        client: ClientFacts::default(),
    };
    let mut hits = Hits::new();
    set.match_host(&host(49, 49), &mut hits);
    set.match_host(&host(900, 49), &mut hits);
    assert!(hits.is_empty());
    set.match_host(&host(50, 50), &mut hits);
    assert_eq!(hits.as_slice(), [index(&set, "rst_storm")]);
    let verdict = verdict(&set, "rst_storm", &Snapshot::Host(&host(50, 50)));
    let (severity, explain) = verdict.incident.unwrap();
    assert_eq!(severity, Severity::Critical);
    assert!(
        explain.contains("50 RSTs were sent by 10.0.0.9, or in its name, within one second (100 within ten)"),
        "{explain}"
    );
    assert_eq!(verdict.capture, Some(CaptureWish::default()), "of flows it goes on to reset");
    let counts = set.counts_read(Scope::Host);
    assert!(counts.contains(Count::Rsts) && counts.contains(Count::FlowsReset));
}

/// A client whose ClientHello is without answer `hello_ms` later.
fn hello(hello_ms: u64) -> FlowFacts {
    let app = AppFacts {
        name: Name::of(b"shop.example"),
        hello_ms: Some(hello_ms),
        tls_answered: Some(false),
        tls_waits: true,
        tls_over: Some(false),
        ..AppFacts::default()
    };
    FlowFacts { app, by: Some(Side::Resp), rst: true, dport: 443, rtt_server_us: Some(70_000), ..flow() }
}

#[test]
fn rst_after_clienthello() {
    let set = set();
    assert_eq!(names(&set, Event::Rst, &hello(6)), ["rst_after_clienthello"]);
    let by_client = |ms| FlowFacts { by: Some(Side::Orig), ..hello(ms) };
    assert_eq!(names(&set, Event::Rst, &by_client(40)), ["rst_after_clienthello"]);
    assert!(names(&set, Event::Rst, &by_client(3_001)).is_empty(), "it gave up");
    let answered = AppFacts { tls_answered: Some(true), tls_waits: false, ..hello(6).app };
    assert!(names(&set, Event::Rst, &FlowFacts { app: answered, ..hello(6) }).is_empty());

    let facts = hello(6);
    let verdict = verdict(&set, "rst_after_clienthello", &Snapshot::Flow(&facts, Event::Rst));
    let (_, explain) = verdict.incident.unwrap();
    assert!(explain.contains("ClientHello for shop.example"), "{explain}");
    assert!(explain.contains("6 ms later") && explain.contains("round trip to it takes 70 ms"), "{explain}");
    assert_eq!(verdict.evidence[0], ("sni".to_owned(), EvidenceValue::Text("shop.example".to_owned())));
}

#[test]
fn tls_no_server_hello() {
    let set = set();
    let timer = |ms| FlowFacts { by: None, ttl: None, ..hello(ms) };
    assert!(names(&set, Event::TlsTimeout, &timer(2_000)).is_empty());
    assert_eq!(names(&set, Event::TlsTimeout, &timer(3_000)), ["tls_no_server_hello"]);
    assert!(names(&set, Event::TlsTimeout, &timer(4_000)).is_empty(), "told once");
    let over = |tls_alert, by| {
        let app = AppFacts { tls_over: Some(true), tls_waits: false, tls_alert, ..hello(9).app };
        let facts = FlowFacts { app, by: Some(by), ..hello(9) };
        assert_eq!(names(&set, Event::TlsTimeout, &facts), ["tls_no_server_hello"]);
        verdict(&set, "tls_no_server_hello", &Snapshot::Flow(&facts, Event::TlsTimeout)).incident
    };
    let (_, closed) = over(None, Side::Resp).unwrap();
    assert!(closed.contains("closed the connection without a word"), "{closed}");
    assert_eq!(over(Some(40), Side::Resp), None, "an alert says why");
    assert_eq!(over(None, Side::Orig), None, "the client changed its mind");
}

fn asked(wait_ms: u64, since_last_ms: u64, rcode: Option<u8>, counts: AnswerCounts) -> FlowFacts {
    let dns = Some(DnsFacts { kind: 28, rcode, wait_ms, since_last_ms, asks: 2, repeats: 1 });
    let name = Name::of(b"db.example");
    let app = AppFacts { name, dns, service: Some(counts), ..AppFacts::default() };
    let mut facts = FlowFacts { app, proto: 17, dport: 53, established: false, ..flow() };
    facts.resp.in_sight = true;
    facts
}

#[test]
fn names_that_are_late_lost_or_refused() {
    let set = set();
    let some = AnswerCounts { answers: 20, errors: 5, late: 3 };
    let timeout = |ms| names(&set, Event::DnsTimeout, &asked(ms, ms, None, some));
    assert_eq!((timeout(3_000), timeout(4_000), timeout(5_000)).1, ["dns_unanswered"]);
    assert!(timeout(3_000).is_empty() && timeout(5_000).is_empty());
    let sighted = |event, out_of_sight, both_ways, repeats, since_last_ms| {
        let mut facts = asked(4_000, since_last_ms, None, some);
        (facts.resp.in_sight, facts.resp.out_of_sight, facts.both_ways) = (false, out_of_sight, both_ways);
        facts.app.dns = facts.app.dns.map(|dns| DnsFacts { repeats, ..dns });
        !names(&set, event, &facts).is_empty()
    };
    let timeout_of = |out, both, repeats, last| sighted(Event::DnsTimeout, out, both, repeats, last);
    assert!(timeout_of(false, true, 0, 3_000), "asked elsewhere again, where both directions are seen");
    assert!(!timeout_of(false, false, 0, 3_000) && !timeout_of(true, true, 0, 3_000));
    assert!(timeout_of(true, false, 2, 1_000), "still asking three seconds later");
    assert!(!timeout_of(true, false, 1, 3_000), "it has stopped asking");
    let retry_of = |out, both, repeats| sighted(Event::DnsRetry, out, both, repeats, 1_000);
    assert!(retry_of(true, false, 1) && retry_of(false, true, 0));
    assert!(!retry_of(false, false, 0) && !retry_of(true, true, 0), "a client without a cache");
    let told_by_icmp = |event| {
        let mut facts = asked(4_000, 4_000, None, some);
        facts.orig.icmp_unreachable = 1;
        names(&set, event, &facts)
    };
    assert!(told_by_icmp(Event::DnsTimeout).is_empty() && told_by_icmp(Event::DnsRetry).is_empty());
    assert!(told_by_icmp(Event::IcmpUnreachable).is_empty(), "a datagram that was no question");
    let retry = |ms| names(&set, Event::DnsRetry, &asked(ms, ms, None, some));
    let advice = |ms| {
        let facts = asked(ms, ms, None, some);
        verdict(&set, "dns_timeout_retry", &Snapshot::Flow(&facts, Event::DnsRetry)).advise.concat()
    };
    assert!(advice(5_001).contains("single-request-reopen"));
    assert!(!advice(1_000).contains("single-request-reopen"), "that is another timeout");
    assert_eq!(retry(300), ["dns_timeout_retry"]);
    assert!(retry(299).is_empty());

    let answer = |facts: &FlowFacts| {
        let names = names(&set, Event::DnsAnswer, facts);
        let explain = names.first().and_then(|name| {
            let verdict = verdict(&set, name, &Snapshot::Flow(facts, Event::DnsAnswer));
            verdict.incident.map(|(_, explain)| explain)
        });
        (names, explain)
    };
    assert_eq!(answer(&asked(999, 999, Some(0), some)), (vec![], None));
    let (names, explain) = answer(&asked(1_000, 1_000, Some(0), some));
    assert_eq!(names, ["dns_slow"]);
    assert!(explain.unwrap().contains("3 of 20 DNS questions late"));
    let few = AnswerCounts { late: 2, errors: 4, ..some };
    assert_eq!(answer(&asked(1_000, 1_000, Some(0), few)), (vec!["dns_slow".to_owned()], None));
    assert_eq!(answer(&asked(5_015, 7, Some(0), some)), (vec![], None), "lost, not slow");
    let (names, explain) = answer(&asked(8, 8, Some(2), some));
    assert_eq!(names, ["dns_error"]);
    assert!(explain.unwrap().contains("5 of 20 DNS questions with an error"));
    assert_eq!(answer(&asked(8, 8, Some(3), some)).0, Vec::<String>::new(), "NXDOMAIN");
    assert_eq!(answer(&asked(8, 8, Some(2), few)).0, Vec::<String>::new());
}

#[test]
fn slow_and_failing_services() {
    let set = set();
    let app = |http_status, answer_ms, errors| AppFacts {
        http_status: Some(http_status),
        answer_ms: Some(answer_ms),
        service: Some(AnswerCounts { answers: 40, errors, late: 0 }),
        ..AppFacts::default()
    };
    let facts = |app| FlowFacts { app, by: Some(Side::Resp), ..flow() };
    assert!(names(&set, Event::HttpError, &facts(app(500, 3, 4))).is_empty());
    assert_eq!(names(&set, Event::HttpError, &facts(app(500, 3, 5))), ["http_server_error"]);
    assert!(names(&set, Event::FirstByte, &facts(app(200, 4_999, 0))).is_empty());
    let slow = facts(app(200, 5_000, 0));
    assert_eq!(names(&set, Event::FirstByte, &slow), ["slow_server"]);
    let quiet = verdict(&set, "slow_server", &Snapshot::Flow(&slow, Event::FirstByte));
    let nothing = Verdict { rules_hash: set.shared_hash(), ..Verdict::default() };
    assert_eq!(quiet, nothing, "a finding, unless incidents are asked for");

    let connect = |ms: u64, syns, server_ms: Option<u64>| {
        let app = AppFacts { connect_us: Some(ms * 1_000), ..AppFacts::default() };
        let facts = FlowFacts { app, syns, rtt_server_us: server_ms.map(|ms| ms * 1_000), ..flow() };
        let names = names(&set, Event::Established, &facts);
        let incident = names
            .first()
            .and_then(|name| verdict(&set, name, &Snapshot::Flow(&facts, Event::Established)).incident);
        (names.len(), incident.is_some())
    };
    assert_eq!(connect(999, 1, Some(900)), (0, false));
    assert_eq!(connect(1_100, 1, Some(1_050)), (1, true));
    assert_eq!(connect(1_100, 1, Some(50)), (1, false), "the client's side is far away");
    assert_eq!(connect(1_050, 2, None), (1, false), "one loss");
    assert_eq!(connect(2_050, 3, None), (1, true));
}

fn host(client: ClientFacts) -> HostFacts {
    let zero = Counts::default();
    HostFacts { addr: address("10.0.0.9"), now_ns: 0, last_1s: zero, last_10s: zero, last_60s: zero, client }
}

fn service(last_60s: Counts, last_1s: Counts, states: ServiceStates) -> ServiceFacts {
    let addr = address("10.0.4.21");
    ServiceFacts {
        addr,
        port: 8080,
        proto: 6,
        now_ns: 0,
        last_1s,
        last_10s: last_1s,
        last_60s,
        unfinished_most: last_1s.unfinished,
        states,
    }
}

fn said_of_host(set: &Arc<RuleSet>, facts: &HostFacts) -> Vec<(String, String)> {
    let mut hits = Hits::new();
    set.match_host(facts, &mut hits);
    said(set, &hits, &Snapshot::Host(facts))
}

fn said_of_service(set: &Arc<RuleSet>, facts: &ServiceFacts) -> Vec<(String, String)> {
    let mut hits = Hits::new();
    set.match_service(facts, &mut hits);
    said(set, &hits, &Snapshot::Service(facts))
}

fn said(set: &Arc<RuleSet>, hits: &Hits, snapshot: &Snapshot) -> Vec<(String, String)> {
    let name = |rule: &u16| set.rules()[usize::from(*rule)].name.clone();
    let explain = |name: &str| verdict(set, name, snapshot).incident.unwrap().1;
    hits.as_slice().iter().map(name).map(|name| (name.clone(), explain(&name))).collect()
}

#[test]
fn scans_begin_at_twenty_of_which_few_complete() {
    let set = set();
    let of = |tried, attempts, completed| Spread {
        of_host: Some(address("10.0.4.21")),
        of_port: Some(22),
        tried,
        attempts,
        completed,
        refused: 3,
        ..Spread::default()
    };
    let ports = |spread| host(ClientFacts { ports: spread, ..ClientFacts::default() });
    let hosts = |spread| host(ClientFacts { hosts: spread, ..ClientFacts::default() });
    for scan in [ports, hosts] {
        assert_eq!(said_of_host(&set, &scan(of(19, 30, 0))), []);
        assert_eq!(said_of_host(&set, &scan(of(20, 40, 10))), []);
        let said = said_of_host(&set, &scan(of(20, 40, 9)));
        assert!(
            said[0].1.contains("of 40 attempts 9 became connections, 3 were refused (RST), 28"),
            "{said:?}"
        );
    }
}

#[test]
fn ports_that_recur_are_reported_and_those_of_a_wide_range_are_not() {
    let set = set();
    let reuse = |begun, reuses, low, high, completed| {
        let reuse = Dealings {
            addr: Some(address("10.0.4.21")),
            port: 80,
            begun_60s: begun,
            completed_60s: completed,
            reuses,
            port_low: low,
            port_high: high,
            shortest_ms: Some(1500),
            ..Dealings::default()
        };
        host(ClientFacts { reuse, ..ClientFacts::default() })
    };
    assert_eq!(said_of_host(&set, &reuse(29, 15, 40_000, 40_014, 29)), []);
    assert_eq!(said_of_host(&set, &reuse(100, 9, 33_000, 60_000, 100)), []);
    assert_eq!(said_of_host(&set, &reuse(100, 50, 40_000, 40_050, 0)), [], "a flood from one address");
    assert_eq!(said_of_host(&set, &reuse(100, 10, 33_000, 60_000, 100))[0].0, "port_exhaustion");
    let said = said_of_host(&set, &reuse(30, 1, 40_000, 40_028, 30));
    assert!(said[0].1.contains("the soonest after 1 s"), "{said:?}");
    let churn =
        Dealings { addr: Some(address("10.0.4.21")), port: 80, short_10s: 500, ..Dealings::default() };
    let said = said_of_host(&set, &host(ClientFacts { churn, ..ClientFacts::default() }));
    assert!(said[0].1.contains("about 50 a second. In steady state they hold 6000 entries"), "{said:?}");
}

#[test]
fn floods_outages_and_lost_syns_are_told_apart() {
    let set = set();
    let unfinished = |minute, second, repeated| {
        let last_60s = Counts { unfinished: minute, unfinished_repeated: repeated, ..Counts::default() };
        service(last_60s, Counts { unfinished: second, ..Counts::default() }, ServiceStates::default())
    };
    assert_eq!(said_of_service(&set, &unfinished(99, 60, 0)), []);
    assert_eq!(said_of_service(&set, &unfinished(500, 49, 0)), []);
    assert_eq!(said_of_service(&set, &unfinished(500, 100, 250)), [], "clients that mean it");
    assert_eq!(said_of_service(&set, &unfinished(100, 50, 49))[0].0, "syn_flood");
    // The burst came first, the hundredth half a minute later.
    let slowly = |now| ServiceFacts { unfinished_most: 60, ..unfinished(100, now, 0) };
    assert!(said_of_service(&set, &slowly(1))[0].1.contains("60 of them within one second"));
    assert_eq!(said_of_service(&set, &slowly(0)), [], "it is over");

    let lost = |syns, syn_unanswered, recovered, states| {
        let counts = Counts { syns, syn_unanswered, recovered, ..Counts::default() };
        service(counts, Counts::default(), states)
    };
    let few = ServiceStates { entries_total: 900, ..ServiceStates::default() };
    assert_eq!(said_of_service(&set, &lost(600, 2, 2, few)), []);
    assert_eq!(said_of_service(&set, &lost(1000, 5, 4, few)), []);
    assert_eq!(said_of_service(&set, &lost(100, 51, 0, few)), []);
    let said = said_of_service(&set, &lost(600, 2, 10, few));
    assert!(
        said[0].1.contains("12 of 600 SYNs to 10.0.4.21:8080 within 60 s got no answer, 1 in 50"),
        "{said:?}"
    );
    assert!(said[0].1.contains("in 10 of these cases") && !said[0].1.contains("table size"), "{said:?}");
    let top_client = Some(address("10.0.0.7"));
    let full = ServiceStates { entries_total: 262_000, top_client, top_client_entries: 200_000, ..few };
    let said = said_of_service(&set, &lost(600, 12, 0, full));
    let told = "near a table size of 262144: such a table is full, and 10.0.0.7 alone holds 200000";
    assert!(said[0].1.contains(told), "{said:?}");
}

#[test]
fn piles_are_measured_against_what_comes_and_goes() {
    let set = set();
    let pile = |states, closed| {
        let counts = Counts { closed, unfinished: 200, unfinished_repeated: 150, ..Counts::default() };
        service(counts, counts, states)
    };
    let none = ServiceStates::default();
    assert_eq!(said_of_service(&set, &pile(ServiceStates { close_wait: 300, ..none }, 300)), []);
    for (name, states) in [
        ("close_wait_pileup", ServiceStates { close_wait: 300, ..none }),
        ("fin_wait2_pileup", ServiceStates { fin_wait2: 300, ..none }),
        ("syn_recv_pileup", ServiceStates { syn_recv: 128, ..none }),
        ("time_wait_pileup", ServiceStates { time_wait: 10_000, ..none }),
    ] {
        assert_eq!(said_of_service(&set, &pile(states, 10))[0].0, name);
    }
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
    for part in ["TTL is 253", "arrive with 53", "900 µs", "takes 40 ms"] {
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
    (facts.resp.packets, facts.resp.unacked) = (9, Some(0));
    assert_eq!(names(&set, Event::Stalled, &facts), ["zero_window_stall"]);
    let unwanted = verdict(&set, "zero_window_stall", &Snapshot::Flow(&facts, Event::Stalled));
    let (severity, explain) = unwanted.incident.unwrap();
    assert_eq!(severity, Severity::Info, "perhaps nobody had anything to send");
    assert!(explain.contains("not seen to ask") && unwanted.capture.is_some(), "{explain}");
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
