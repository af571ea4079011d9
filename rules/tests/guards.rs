//! Guards as native code: their answers on known snapshots, on unknown facts, and against Rhai itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use proptest::prelude::*;
use rules::facts::{Counts, FlowFacts, HostFacts, ServiceFacts, Side};
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

/// Integer facts of the differential test, by their name in rules; floats come from mixing.
const INTS: [&str; 4] = ["flow.orig.packets", "flow.resp.packets", "flow.dport", "flow.syns"];
const BOOLS: [&str; 3] = ["flow.established", "flow.fin_seen", "flow.rst_seen"];

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        (-3i64..=3).prop_map(|i| format!("({i})")),
        Just("9223372036854775807".to_owned()),
        Just("(-9223372036854775807)".to_owned()),
        any::<i32>().prop_map(|i| format!("({i})")),
    ]
}

fn integer() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![prop::sample::select(&INTS[..]).prop_map(str::to_owned), literal()];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(&["+", "-", "*", "/", "%"][..]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.prop_map(|a| format!("(-{a})")),
        ]
    })
}

fn float() -> impl Strategy<Value = String> {
    let part = (-40i32..40).prop_map(|i| format!("({:?})", f64::from(i) / 8.0));
    (integer(), prop::sample::select(&["+", "-", "*"][..]), part)
        .prop_map(|(a, op, b)| format!("({a} {op} {b})"))
}

fn condition() -> impl Strategy<Value = String> {
    let comparison = prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let leaf = prop_oneof![
        2 => prop::sample::select(&BOOLS[..]).prop_map(str::to_owned),
        4 => (integer(), comparison.clone(), integer()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        1 => (float(), comparison.clone(), float()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        1 => (float(), comparison, integer()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        1 => (integer(), literal(), literal()).prop_map(|(x, a, b)| format!("({x} in {a}..{b})")),
        1 => (integer(), literal(), literal()).prop_map(|(x, a, b)| format!("({x} in {a}..={b})")),
        1 => (integer(), integer(), literal()).prop_map(|(x, a, b)| format!("({x} in [{a}, {b}])")),
        1 => (integer(), literal(), literal()).prop_map(|(x, a, b)| format!("({x} !in [{a}, {b}])")),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} == {b})")),
            inner.prop_map(|a| format!("!{a}")),
        ]
    })
}

/// Rhai's own answer, on an engine that only knows the facts as nested maps.
fn rhai_answer(condition: &str, facts: &FlowFacts) -> Answer {
    let mut engine = rhai::Engine::new();
    engine.set_max_expr_depths(256, 256);
    engine.set_optimization_level(rhai::OptimizationLevel::None);
    let side = |packets: u64| {
        let mut map = rhai::Map::new();
        map.insert("packets".into(), (packets as i64).into());
        rhai::Dynamic::from_map(map)
    };
    let mut flow = rhai::Map::new();
    flow.insert("orig".into(), side(facts.orig.packets));
    flow.insert("resp".into(), side(facts.resp.packets));
    flow.insert("dport".into(), i64::from(facts.dport).into());
    flow.insert("syns".into(), i64::from(facts.syns).into());
    flow.insert("established".into(), facts.established.into());
    flow.insert("fin_seen".into(), facts.fin_seen.into());
    flow.insert("rst_seen".into(), facts.rst_seen.into());
    let mut scope = rhai::Scope::new();
    scope.push("flow", flow);
    match engine.eval_with_scope::<bool>(&mut scope, condition) {
        Ok(true) => Answer::Match,
        Ok(false) => Answer::NoMatch,
        Err(error) => match *error {
            rhai::EvalAltResult::ErrorArithmetic(..) => Answer::Fault,
            other => panic!("{condition}: {other}"),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn native_guards_agree_with_rhai(
        condition in condition(),
        orig in prop_oneof![0u64..4, Just(i64::MAX as u64), any::<u32>().prop_map(u64::from)],
        resp in 0u64..4,
        dport in prop_oneof![0u16..4, any::<u16>()],
        syns in 0u32..4,
        flags in any::<[bool; 3]>(),
    ) {
        let mut facts = FlowFacts {
            dport,
            syns,
            established: flags[0],
            fin_seen: flags[1],
            rst_seen: flags[2],
            ..FlowFacts::default()
        };
        facts.orig.packets = orig;
        facts.resp.packets = resp;
        prop_assert_eq!(guard(&condition, &facts), rhai_answer(&condition, &facts), "{}", condition);
    }
}

/// Found by the test above: bodies hold floats that differ in their last bit for equal, and so must guards.
#[test]
fn floats_a_bit_apart_are_equal_in_guards_as_in_bodies() {
    let mut facts = FlowFacts { dport: 512, ..FlowFacts::default() };
    facts.orig.packets = i64::MAX as u64;
    for op in ["==", "!=", "<", "<=", ">", ">="] {
        let condition = format!("((-9223372036854775807) + 0.0) {op} (-(flow.orig.packets - flow.dport))");
        assert_eq!(guard(&condition, &facts), rhai_answer(&condition, &facts), "{condition}");
        assert_eq!(
            guard(&condition, &facts) == Answer::Match,
            ["==", "<=", ">="].contains(&op),
            "{condition}"
        );
    }
}
