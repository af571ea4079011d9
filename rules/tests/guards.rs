//! Guards as native code: their answers on known snapshots and on unknown facts. Against Rhai itself: `differential`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use rules::facts::{Counts, DnsFacts, FlowFacts, HostFacts, Name, Parts, ServiceFacts, Side};
use rules::{Event, Hits, RuleSet, SourceFile};

fn load(text: &str) -> RuleSet {
    let source = SourceFile { name: "t.rhai".to_owned(), text: text.to_owned() };
    RuleSet::load(&[source], &[]).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"))
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Match,
    NoMatch,
    Fault,
}

fn ask(set: &RuleSet, facts: &FlowFacts) -> Answer {
    let mut hits = Hits::new();
    let before = set.guard_faults(0);
    set.match_flow(Event::Rst, facts, &mut hits);
    match (hits.is_empty(), set.guard_faults(0) - before) {
        (false, 0) => Answer::Match,
        (true, 0) => Answer::NoMatch,
        (true, 1) => Answer::Fault,
        other => panic!("{other:?}"),
    }
}

fn guard(condition: &str, facts: &FlowFacts) -> Answer {
    ask(&load(&format!("rule \"x\" on rst when {condition} then {{ }}")), facts)
}

fn facts() -> FlowFacts {
    let mut facts = FlowFacts {
        src: "10.1.2.3".parse().unwrap(),
        dst: "2001:db8::5".parse().unwrap(),
        sport: 40_000,
        dport: 443,
        established: true,
        by: Some(Side::Resp),
        ..FlowFacts::default()
    };
    facts.orig.packets = 12;
    facts.app.name = Name::of(b"Shop.Example.com");
    facts
}

#[test]
fn known_facts() {
    let facts = facts();
    for holds in [
        "flow.dport == 443",
        "443 == flow.dport",
        "flow.sport > flow.dport",
        "flow.dport in [80, 443]",
        "flow.dport in 443..444 && flow.dport !in 442..443",
        "flow.dport in 440..=443",
        "flow.dport in flow.dport..=flow.sport",
        "flow.dport in [1, flow.dport]",
        "flow.orig.packets * 2 - 4 == 20",
        "flow.orig.packets / 5 == 2 && flow.orig.packets % 5 == 2",
        "-flow.orig.packets < 0",
        "flow.orig.packets / 5.0 == 2.4",
        "flow.orig.packets >= 12.0",
        "flow.established == true && !flow.fin_seen",
        "flow.src == \"10.1.2.3\" && \"10.1.2.4\" != flow.src && flow.src != flow.dst",
        "flow.src in \"10.0.0.0/8\" && flow.dst in \"2001:db8::/32\" && flow.src !in \"2001:db8::/32\"",
        "flow.dst in [\"10.0.0.0/8\", \"2001:db8::5\"]",
        "flow.dst in [flow.src, flow.dst]",
        "flow.by_resp && !flow.by_orig",
        "true",
        "flow.orig.packets in 11.5..12.5 && flow.orig.packets !in 12.5..=20.0 && flow.orig.packets in 12..=12.0",
        "flow.orig.packets / 5.0 in 2.4..=2.4 && flow.orig.packets / 5.0 !in 2.0..2.4",
        "flow.orig.packets / 5.0 in [1.5, 2.4] && flow.orig.packets in [12.0, 3]",
        "flow.established == (flow.dport == 443) && flow.established != flow.fin_seen",
        "flow.dport !in 9..3 && !(flow.dport in 444..444)",
        "flow.sni == \"shop.example.com\" && flow.sni != \"example.com\" && \"Shop.Example.Com\" == flow.sni",
        "flow.sni in [\"a.example\", \"SHOP.example.com\"] && flow.sni !in [\"a.example\"]",
        "flow.sni.starts_with(\"shop.\") && flow.sni.ends_with(\".COM\") && flow.sni.contains(\"example\")",
        "ends_with(flow.sni, \"example.com\") && \"shop\" in flow.sni && !contains(flow.sni, \"mail\")",
    ] {
        assert_eq!(guard(holds, &facts), Answer::Match, "{holds}");
        assert_eq!(guard(&format!("!({holds})"), &facts), Answer::NoMatch, "{holds}");
    }
}

#[test]
fn unknown_facts_do_not_match_but_are_not_reached_behind_a_decision() {
    let facts = facts();
    let unknown = "flow.orig.mss > 3";
    for no_match in
        [unknown, "!(flow.orig.mss > 3)", "flow.orig.sack", "!flow.orig.sack", "flow.unacked >= 0"]
    {
        assert_eq!(guard(no_match, &facts), Answer::NoMatch, "{no_match}");
    }
    assert_eq!(guard(&format!("true || {unknown}"), &facts), Answer::Match);
    assert_eq!(guard(&format!("{unknown} || true"), &facts), Answer::NoMatch);
    assert_eq!(guard(&format!("!(false && {unknown})"), &facts), Answer::Match);
    assert_eq!(guard(&format!("!({unknown} && false)"), &facts), Answer::NoMatch);
}

#[test]
fn faults_are_counted_only_when_reached() {
    let facts = facts();
    for fault in [
        "flow.orig.packets / flow.resp.packets == 1",
        "flow.orig.packets % 0 == 1",
        "flow.orig.packets + 9_223_372_036_854_775_807 > 0",
        "9_223_372_036_854_775_807 * flow.orig.packets > 0",
        "flow.orig.packets / 0.0 > 1.0",
        "1 / 0 == 1",
    ] {
        assert_eq!(guard(fault, &facts), Answer::Fault, "{fault}");
        assert_eq!(guard(&format!("true || {fault}"), &facts), Answer::Match, "{fault}");
        assert_eq!(guard(&format!("false && {fault}"), &facts), Answer::NoMatch, "{fault}");
    }
}

#[test]
fn params_and_helper_functions() {
    let text = |value: &str| {
        format!(
            "param port = {value};\nparam net = \"10.0.0.0/8\";\nfn inside(a) {{ a in net }}
            fn wanted(a, p) {{ inside(a) && (p == port || p == port + 1) }}
            rule \"x\" on rst when wanted(flow.src, flow.dport) then {{ }}"
        )
    };
    assert_eq!(ask(&load(&text("442")), &facts()), Answer::Match);
    assert_eq!(ask(&load(&text("444")), &facts()), Answer::NoMatch);
}

#[test]
fn names_that_are_unknown_or_cut_decide_what_they_can() {
    let mut facts = facts();
    facts.app.name = Name::EMPTY;
    for unknown in
        ["flow.sni == \"a\"", "flow.sni != \"a\"", "flow.sni.contains(\"\")", "flow.sni in [\"a\"]"]
    {
        assert_eq!(guard(unknown, &facts), Answer::NoMatch, "{unknown}");
        assert_eq!(guard(&format!("!({unknown})"), &facts), Answer::NoMatch, "{unknown}");
    }
    facts.app.name = Name::of([b"www.".as_slice(), &[b'x'; 90]].concat().as_slice());
    for (condition, answer) in [
        ("flow.sni.starts_with(\"www.x\")", Answer::Match),
        ("!flow.sni.starts_with(\"mail.\")", Answer::Match),
        ("flow.sni != \"www.example.com\"", Answer::Match),
        ("flow.sni.ends_with(\"x\")", Answer::NoMatch),
        ("!flow.sni.ends_with(\"x\")", Answer::NoMatch),
        ("flow.sni.contains(\"xx\")", Answer::Match),
        ("!flow.sni.contains(\"yy\")", Answer::NoMatch),
        ("flow.sni in [\"a\", \"b\"] == false", Answer::Match),
    ] {
        assert_eq!(guard(condition, &facts), answer, "{condition}");
    }
    // The name is the one of a question, and no server's.
    (facts.proto, facts.app.dns) = (17, Some(DnsFacts::default()));
    assert_eq!(guard("flow.dns_name.starts_with(\"www.\")", &facts), Answer::Match);
    assert_eq!(guard("flow.sni.starts_with(\"www.\")", &facts), Answer::NoMatch);
}

#[test]
fn constants_hold_in_conditions_and_in_what_follows_them() {
    let text = "const MINUTE = 60; const HTTPS = 443; param age = 2 * MINUTE; const OURS = \".example.com\";
        fn ours(name, end) { name.ends_with(end) && name.starts_with(\"shop\") }
        rule \"x\" on rst when flow.dport == HTTPS && age == 120 && ours(flow.sni, OURS) then { }";
    assert_eq!(ask(&load(text), &facts()), Answer::Match);
}

#[test]
fn a_part_of_the_snapshot_is_gathered_when_a_condition_reads_it_and_once() {
    let set = load(
        "rule \"a\" on rst when flow.dport == 443 && flow.src in \"10.0.0.0/8\" then { }
        rule \"b\" on rst when flow.dport == 443 && flow.dst in \"10.0.0.0/8\" && flow.orig.mss == 1 then { }
        rule \"c\" on rst when flow.fin_seen && flow.orig.mss == 1 then { }
        rule \"d\" on rst when flow.sni.contains(\"shop\") || flow.orig.mss == 1 then { }
        rule \"e\" on rst when flow.orig.retransmissions / flow.resp.packets == 0 then { }",
    );
    let (whole, mut gathered, mut hits) = (facts(), Vec::new(), Hits::new());
    let mut snapshot = FlowFacts { src: whole.dst, have: Parts::HAND, app: Default::default(), ..whole };
    set.match_flow_gathering(Event::Rst, &mut snapshot, &mut hits, |facts, parts| {
        gathered.push(parts);
        if parts.cover(Parts::ADDRESSES) {
            facts.src = whole.src;
        }
        if parts.cover(Parts::APP) {
            facts.app = whole.app;
        }
    });
    assert_eq!(hits.as_slice(), [0, 3]);
    assert_eq!(gathered, [Parts::ADDRESSES, Parts::APP, Parts::TROUBLE]);
    assert_eq!(set.guard_faults(4), 1, "asked again for a part, a condition faults once");
    let mut hits_of_whole = Hits::new();
    set.match_flow(Event::Rst, &whole, &mut hits_of_whole);
    assert_eq!(hits_of_whole.as_slice(), hits.as_slice());
}

#[test]
fn rules_of_other_ports_are_passed_over_and_nothing_comes_of_it() {
    let set = load(
        "rule \"a\" on rst when flow.established && flow.dport in [80, 443] then { }
        rule \"b\" on rst then { }
        rule \"c\" on rst when 443 == flow.dport && flow.orig.packets / flow.resp.packets > 0 then { }
        rule \"d\" on rst when flow.orig.packets / flow.resp.packets > 0 && flow.dport == 22 then { }
        rule \"e\" on rst when flow.orig.mss == 3 && flow.dport == 22 then { }
        rule \"f\" on rst when flow.dport == 443 || flow.dport == 22 then { }",
    );
    let at = |dport| {
        let (mut hits, before) = (Hits::new(), [2, 3].map(|rule| set.guard_faults(rule)));
        set.match_flow(Event::Rst, &FlowFacts { dport, ..facts() }, &mut hits);
        let faults = [2, 3].map(|rule| set.guard_faults(rule));
        (hits.as_slice().to_vec(), [faults[0] - before[0], faults[1] - before[1]])
    };
    assert_eq!(at(443), (vec![0, 1, 5], [1, 1]));
    assert_eq!(at(22), (vec![1, 5], [0, 1]), "what faults before the port is reached faults all the same");
    assert_eq!(at(25), (vec![1], [0, 1]));
}

#[test]
fn timed_conditions_answer_alike_and_leave_their_cost() {
    let set = load("rule \"a\" on rst then { }\nrule \"b\" on rst when flow.dport == 1 then { }");
    let (mut hits, mut snapshot, clock) = (Hits::new(), facts(), std::cell::Cell::new(0));
    let tick = || {
        clock.set(clock.get() + 5);
        clock.get()
    };
    set.match_flow_timed(Event::Rst, &mut snapshot, &mut hits, |_, _| {}, tick);
    assert_eq!(hits.as_slice(), [0]);
    let cost = |rule| set.counters(rule).unwrap().cost();
    assert_eq!((cost(0).samples, cost(0).ticks), (1, 5));
    assert_eq!((cost(1).samples, cost(1).ticks), (0, 0), "it is of another port, and was not asked");
}

#[test]
fn rules_match_their_own_events_only_and_in_order() {
    let set = load(
        "rule \"a\" on rst, close then { }\nrule \"b\" on close when flow.established then { }\n\
         rule \"c\" on tick when host.rsts(1) > 0 then { }",
    );
    let matched = |event| {
        let mut hits = Hits::new();
        set.match_flow(event, &facts(), &mut hits);
        hits.as_slice().to_vec()
    };
    assert_eq!(matched(Event::Rst), [0]);
    assert_eq!(matched(Event::Close), [0, 1]);
    assert!(matched(Event::Syn).is_empty());
    assert!(matched(Event::Tick).is_empty());
}

#[test]
fn hosts_and_services() {
    let set = load(
        "rule \"h\" on tick when host.rst_rate(10) >= 1.5 && host.addr in \"10.0.0.0/8\" then { }
        rule \"s\" on tick when service.port == 443 && service.syn_unanswered_ratio(60) > 0.02 then { }",
    );
    let addr = "10.0.0.9".parse().unwrap();
    let counts = |rsts, syns, syn_unanswered| Counts { rsts, syns, syn_unanswered, ..Counts::default() };
    let zero = Counts::default();
    let host = |rsts| HostFacts {
        addr,
        now_ns: 0,
        last_1s: zero,
        last_10s: counts(rsts, 0, 0),
        last_60s: zero,
        client: Default::default(),
    };
    let service = |syns, unanswered| ServiceFacts {
        addr,
        port: 443,
        proto: 6,
        now_ns: 0,
        last_1s: zero,
        last_10s: zero,
        last_60s: counts(0, syns, unanswered),
        unfinished_most: 0,
        states: Default::default(),
    };
    let host_hits = |facts| {
        let mut hits = Hits::new();
        set.match_host(&facts, &mut hits);
        hits.as_slice().to_vec()
    };
    let service_hits = |facts| {
        let mut hits = Hits::new();
        set.match_service(&facts, &mut hits);
        hits.as_slice().to_vec()
    };
    assert_eq!(host_hits(host(15)), [0]);
    assert!(host_hits(host(14)).is_empty());
    assert_eq!(service_hits(service(100, 3)), [1]);
    assert!(service_hits(service(100, 2)).is_empty());
    assert!(service_hits(service(0, 0)).is_empty(), "a ratio of nothing is unknown");
}

#[test]
fn hits_overflow_is_counted() {
    let rules: String = (0..70).map(|i| format!("rule \"r{i}\" on rst then {{ }}\n")).collect();
    let (rules, mut hits) = (load(&rules), Hits::with_room(64));
    rules.match_flow(Event::Rst, &facts(), &mut hits);
    assert_eq!((hits.len(), hits.overflowed), (64, 6));
    hits.clear();
    assert!(hits.is_empty() && hits.overflowed == 0);
    hits = Hits::new();
    rules.match_flow(Event::Rst, &facts(), &mut hits);
    assert_eq!((hits.len(), hits.overflowed), (70, 0));
}

#[test]
fn a_rule_set_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<RuleSet>();
}
