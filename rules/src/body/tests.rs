//! What bodies can and cannot do.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::set::SourceFile;
use crate::verdict::{CaptureWish, EvidenceValue, Severity};

fn set(text: &str) -> Arc<RuleSet> {
    let source = SourceFile { name: "t.rhai".to_owned(), text: text.to_owned() };
    Arc::new(RuleSet::load(&[source], &[]).unwrap_or_else(|errors| panic!("{errors:#?}")))
}

fn run_with(text: &str, limits: BodyLimits, facts: &FlowFacts) -> Result<Verdict, BodyError> {
    Bodies::new(set(text), limits).run(0, &Snapshot::Flow(facts, Event::Rst))
}

fn run(body: &str) -> Result<Verdict, BodyError> {
    let text = format!("rule \"x\" on rst then {{\n{body}\n}}");
    run_with(&text, BodyLimits::default(), &FlowFacts::default())
}

/// The value the body leaves as evidence named `v`.
fn value(expression: &str) -> EvidenceValue {
    let verdict =
        run(&format!("evidence(\"v\", {expression});")).unwrap_or_else(|e| panic!("{expression}: {e}"));
    verdict.evidence[0].1.clone()
}

fn text(value: &str) -> EvidenceValue {
    EvidenceValue::Text(value.to_owned())
}

#[test]
fn the_whole_verdict() {
    let verdict =
        run("incident(\"info\", \"a\"); incident(\"critical\", \"b\"); advise(\"c\"); advise(\"d\");
        evidence(\"n\", 1); evidence(\"m\", 2.5); evidence(\"n\", true); evidence(\"u\", flow.ttl);
        capture(flow, #{packets: 10, seconds: 5});")
        .unwrap();
    assert_eq!(verdict.incident, Some((Severity::Critical, "b".to_owned())));
    assert_eq!(verdict.advise, ["c", "d"]);
    assert_eq!(verdict.capture, Some(CaptureWish { packets: Some(10), bytes: None, seconds: Some(5) }));
    let evidence: Vec<_> =
        verdict.evidence.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let wanted =
        [("n", EvidenceValue::Bool(true)), ("m", EvidenceValue::Float(2.5)), ("u", EvidenceValue::Unknown)];
    assert_eq!(evidence, wanted);
}

#[test]
fn a_flow_s_ends_can_be_captured() {
    let verdict = run("capture(host); capture(service, #{packets: 3}); capture(service);").unwrap();
    assert_eq!((verdict.capture, verdict.capture_host), (None, Some(CaptureWish::default())));
    assert_eq!(verdict.capture_service, Some(CaptureWish { packets: Some(3), ..CaptureWish::default() }));
}

#[test]
fn nothing_is_kept_between_runs() {
    let set =
        set("rule \"x\" on rst then { if flow.dport == 1 { advise(\"a\"); throw \"no\"; } advise(\"b\"); }");
    let mut bodies = Bodies::new(set, BodyLimits::default());
    let bad = FlowFacts { dport: 1, ..FlowFacts::default() };
    let error = bodies.run(0, &Snapshot::Flow(&bad, Event::Rst)).unwrap_err();
    assert!(matches!(&error, BodyError::Script { message, .. } if message == "no"), "{error}");
    let verdict = bodies.run(0, &Snapshot::Flow(&FlowFacts::default(), Event::Rst)).unwrap();
    assert_eq!(verdict.advise, ["b"]);
}

#[test]
fn addresses_and_unknown_facts() {
    assert_eq!(value("flow.src in \"0.0.0.0/8\""), EvidenceValue::Bool(true));
    assert_eq!(value("flow.src in \"10.0.0.0/8\""), EvidenceValue::Bool(false));
    assert_eq!(value("flow.src !in [\"10.0.0.0/8\", \"0.0.0.0\"]"), EvidenceValue::Bool(false));
    assert_eq!(value("flow.src == \"0.0.0.0\""), EvidenceValue::Bool(true));
    assert_eq!(value("\"0.0.0.1\" != flow.src"), EvidenceValue::Bool(true));
    assert_eq!(value("flow.src == flow.dst"), EvidenceValue::Bool(true));
    assert_eq!(value("`from ${flow.src}`"), text("from 0.0.0.0"));
    assert_eq!(value("\"from \" + flow.src"), text("from 0.0.0.0"));
    assert_eq!(value("flow.src.to_string()"), text("0.0.0.0"));
    assert_eq!(value("flow.orig.mss == ()"), EvidenceValue::Bool(true));
    assert_eq!(value("flow.orig.packets"), EvidenceValue::Int(0));
    assert!(run("flow.src in \"10.0.0.0/99\"").is_err());
    assert!(run("flow.src == \"here\"").is_err());
}

#[test]
fn params_reach_everywhere_and_locals_shadow_them() {
    let text = "param p = 7;\nfn f() { p + flow.dport }\nrule \"x\" on rst then {
        evidence(\"a\", f()); let p = 1; evidence(\"b\", p); p += 1; evidence(\"c\", p); }";
    let facts = FlowFacts { dport: 80, ..FlowFacts::default() };
    let verdict = run_with(text, BodyLimits::default(), &facts).unwrap();
    let values: Vec<_> = verdict.evidence.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [EvidenceValue::Int(87), EvidenceValue::Int(1), EvidenceValue::Int(2)]);
}

#[test]
fn listed_functions_exist() {
    for (call, wanted) in [
        ("abs(-3)", EvidenceValue::Int(3)),
        ("sign(-3)", EvidenceValue::Int(-1)),
        ("min(1, 2)", EvidenceValue::Int(1)),
        ("max(1, 2)", EvidenceValue::Int(2)),
        ("round(1.5)", EvidenceValue::Float(2.0)),
        ("floor(1.5)", EvidenceValue::Float(1.0)),
        ("ceiling(1.2)", EvidenceValue::Float(2.0)),
        ("sqrt(4.0)", EvidenceValue::Float(2.0)),
        ("to_int(1.9)", EvidenceValue::Int(1)),
        ("to_float(2)", EvidenceValue::Float(2.0)),
        ("to_string(2)", text("2")),
        ("type_of(flow.ttl)", text("()")),
        ("len(\"abc\")", EvidenceValue::Int(3)),
        ("[1].len()", EvidenceValue::Int(1)),
        ("is_empty(\"\")", EvidenceValue::Bool(true)),
        ("contains(\"abc\", \"b\")", EvidenceValue::Bool(true)),
        ("starts_with(\"abc\", \"a\")", EvidenceValue::Bool(true)),
        ("ends_with(\"abc\", \"c\")", EvidenceValue::Bool(true)),
        ("to_upper(\"a\")", text("A")),
        ("to_lower(\"A\")", text("a")),
        ("sub_string(\"abc\", 1, 1)", text("b")),
        ("index_of(\"abc\", \"c\")", EvidenceValue::Int(2)),
        ("split(\"a b\", \" \").len()", EvidenceValue::Int(2)),
        ("{ let a = [1]; a.push(2); a.pop() }", EvidenceValue::Int(2)),
        ("#{a: 1}.keys().len()", EvidenceValue::Int(1)),
        ("#{a: 1}.values().len()", EvidenceValue::Int(1)),
        ("{ let n = 0; for i in range(0, 4) { n += i; } n }", EvidenceValue::Int(6)),
        ("2 in 1..=3", EvidenceValue::Bool(true)),
        ("2 in [1, 3]", EvidenceValue::Bool(false)),
    ] {
        assert_eq!(value(call), wanted, "{call}");
    }
}

#[test]
fn endless_bodies_are_stopped() {
    for endless in [
        "loop { }",
        "while true { let a = 1; }",
        "let s = \"x\"; loop { s += s; }",
        "let a = [1]; loop { a.push(1); }",
        "let a = [1]; loop { a = [a, a]; }",
        "let i = 0; loop { try { loop { i += 1; } } catch { } }",
    ] {
        let error = run(endless).unwrap_err();
        assert!(matches!(error, BodyError::Limit { .. }), "{endless}: {error}");
        assert!(error.to_string().starts_with("t.rhai:2:"), "{error}");
    }
    let recursion = "fn f(n) { f(n + 1) }\nrule \"x\" on rst then { f(0); }";
    let error = run_with(recursion, BodyLimits::default(), &FlowFacts::default()).unwrap_err();
    assert!(matches!(error, BodyError::Limit { .. }), "{error}");
    let many = run("for i in 0..1000 { advise(\"again\"); }").unwrap_err();
    assert!(matches!(many, BodyError::Script { .. }), "{many}");
}

#[test]
fn a_deadline_stops_what_operations_do_not() {
    let limits = BodyLimits { operations: u64::MAX, deadline: Some(Duration::ZERO), ..BodyLimits::default() };
    let text = "rule \"x\" on rst then { loop { } }";
    let error = run_with(text, limits, &FlowFacts::default()).unwrap_err();
    assert!(matches!(error, BodyError::Deadline { .. }), "{error}");
}

#[test]
fn a_panic_is_contained() {
    let set = set("rule \"x\" on rst then { if flow.dport == 1 { panic_for_test(); } advise(\"b\"); }");
    let mut bodies = Bodies::new(set, BodyLimits::default());
    let bad = FlowFacts { dport: 1, ..FlowFacts::default() };
    let error = bodies.run(0, &Snapshot::Flow(&bad, Event::Rst)).unwrap_err();
    assert!(error.to_string().contains("internal error"), "{error}");
    let verdict = bodies.run(0, &Snapshot::Flow(&FlowFacts::default(), Event::Rst)).unwrap();
    assert_eq!(verdict.advise, ["b"]);
}

#[test]
fn mistakes_name_their_place() {
    let error = run("let a = \"bad\";\n  incident(a, \"x\");").unwrap_err();
    assert_eq!(
        error.to_string(),
        "t.rhai:3:3: rule `x` failed: there is no severity \"bad\": use \"info\", \"warning\" or \"critical\""
    );
    assert!(run("capture(flow, #{packet: 3});").unwrap_err().to_string().contains("no limit `packet`"));
    assert!(run("capture(flow, #{packets: -3});").unwrap_err().to_string().contains("cannot be -3"));
    assert!(run("incident(\"info\", 3);").is_err());
}

#[test]
fn the_wrong_snapshot_is_refused() {
    let mut bodies = Bodies::new(set("rule \"x\" on rst then { }"), BodyLimits::default());
    let facts = FlowFacts::default();
    assert!(bodies.run(9, &Snapshot::Flow(&facts, Event::Rst)).is_err());
    let counts = crate::facts::Counts::default();
    let host = HostFacts {
        addr: facts.src,
        now_ns: 0,
        last_1s: counts,
        last_10s: counts,
        last_60s: counts,
        client: Default::default(),
    };
    assert!(bodies.run(0, &Snapshot::Host(&host)).unwrap_err().to_string().contains("facts of a host"));
}

/// Bodies that would take everything there is, if they were let.
const HOSTILE: [(&str, &str); 22] = [
    ("endless loop", "loop { }"),
    ("endless loop that catches", "loop { try { loop { let a = 1; } } catch { } }"),
    ("endless while", "let i = 0; while i < 1 { i = 0; }"),
    ("endless for", "for i in range(0, 9_000_000_000_000_000_000) { let a = i; }"),
    ("text bomb", "let s = \"x\"; loop { s += s; }"),
    (
        "text bomb that stays below",
        "let s = \"x\"; while s.len() < 4_096 { s += s; } loop { let t = s + s; }",
    ),
    ("list bomb", "let a = [1]; loop { a += a; }"),
    ("list bomb that stays below", "let a = []; loop { a.push(a.len()); if a.len() > 250 { a = []; } }"),
    ("nested lists", "let a = [1]; let n = 0; loop { a = [a]; n += 1; if n > 200 { a = [1]; n = 0; } }"),
    (
        "nested lists compared",
        "let a = [1]; for i in 0..250 { a = [a]; } let b = a; loop { let c = a == b; }",
    ),
    ("nested lists written", "let a = [1]; for i in 0..250 { a = [a]; } loop { let c = `${a}`; }"),
    ("map bomb", "let m = #{}; let i = 0; loop { m[`k${i}`] = m.len(); i += 1; }"),
    ("lists compared", "let a = []; for i in 0..255 { a.push(i); } let b = a; loop { let c = a == b; }"),
    ("list searched", "let a = []; for i in 0..255 { a.push(`t${i}`); } loop { let c = \"none\" in a; }"),
    ("list written", "let a = []; for i in 0..255 { a.push(`t${i}`); } loop { let c = a.to_string(); }"),
    ("list given away", "let a = []; for i in 0..255 { a.push(i); } loop { let f = give(a); }"),
    (
        "texts searched",
        "let s = \"ab\"; while s.len() < 4_096 { s += s; } loop { let c = s.index_of(\"aab\"); }",
    ),
    ("texts split", "let s = \"a \"; for i in 0..7 { s += s; } loop { let c = s.split(\" \"); }"),
    ("texts split too far", "let s = \"a \"; for i in 0..11 { s += s; } loop { let c = s.split(\" \"); }"),
    ("deep recursion", "deep(0);"),
    ("wide recursion", "wide(15);"),
    ("state bomb", "let i = 0; loop { state[`k${i % 60}`] = i; i += 1; }"),
];

/// Functions for them; `deep` goes through as deep an expression as can be written.
fn hostile_rule(body: &str) -> String {
    let nested = format!("{}deep(n + 1){}", "(1 + ".repeat(25), ")".repeat(25));
    format!(
        "fn deep(n) {{ {nested} }}\nfn wide(n) {{ if n > 0 {{ wide(n - 1); wide(n - 1); }} }}\nfn give(a) {{ a }}\n\
         rule \"x\" on rst then {{ {body} }}"
    )
}

#[test]
fn every_hostile_body_is_stopped_by_its_operations() {
    for (name, body) in HOSTILE {
        let set = set(&hostile_rule(body));
        let runs: Vec<String> = (0..2)
            .map(|_| {
                let mut bodies = Bodies::new(Arc::clone(&set), BodyLimits::default());
                let error = bodies.run(0, &Snapshot::Flow(&FlowFacts::default(), Event::Rst)).unwrap_err();
                assert!(matches!(error, BodyError::Limit { .. }), "{name}: {error}");
                error.to_string()
            })
            .collect();
        assert_eq!(runs[0], runs[1], "{name}: as often as it is run");
    }
}

#[test]
fn every_hostile_body_is_stopped_by_its_deadline() {
    let limits = BodyLimits {
        operations: u64::MAX,
        deadline: Some(Duration::from_millis(1)),
        ..BodyLimits::default()
    };
    for (name, body) in HOSTILE {
        let error = run_with(&hostile_rule(body), limits, &FlowFacts::default()).unwrap_err();
        assert!(matches!(error, BodyError::Deadline { .. } | BodyError::Limit { .. }), "{name}: {error}");
    }
}

/// How long after its deadline each is over, as a table: `cargo test --release -p rules -- --ignored --nocapture late`.
#[test]
#[ignore = "it measures; nothing is decided by time"]
fn how_late_hostile_bodies_are() {
    for ms in [1, 5, 50] {
        let deadline = Duration::from_millis(ms);
        let limits = BodyLimits { operations: u64::MAX, deadline: Some(deadline), ..BodyLimits::default() };
        for (name, body) in HOSTILE {
            let mut bodies = Bodies::new(set(&hostile_rule(body)), limits);
            let facts = FlowFacts::default();
            let late = (0..20).map(|_| {
                let began = Instant::now();
                bodies.run(0, &Snapshot::Flow(&facts, Event::Rst)).unwrap_err();
                began.elapsed().saturating_sub(deadline)
            });
            let mut late: Vec<Duration> = late.collect();
            late.sort();
            println!("{ms:>3} ms {name:<28} late by {:>9.1?}, at most {:>9.1?}", late[10], late[19]);
        }
    }
}

#[test]
fn lists_and_maps_compare_and_write_as_before() {
    for (expression, wanted) in [
        ("[1, 2.0, \"a\", true, (), 'c'] == [1.0, 2, \"a\", true, (), 'c']", true),
        ("[1, [2, #{a: 3}]] == [1, [2, #{a: 3}]]", true),
        ("[1, [2, #{a: 3}]] == [1, [2, #{a: 4}]]", false),
        ("[1] == [1, 2]", false),
        ("[1] != [\"1\"]", true),
        ("#{a: 1, b: 2} == #{b: 2, a: 1}", true),
        ("#{a: 1} == #{b: 1}", false),
        ("[flow.src] == [flow.dst]", true),
        ("[1, 2] in [[1, 2], 3]", true),
        ("() in [1, flow.ttl]", true),
    ] {
        assert_eq!(value(expression), EvidenceValue::Bool(wanted), "{expression}");
    }
    assert_eq!(
        value("`${[1, \"a\", [2.0, flow.src], #{b: 3}]}`"),
        text("[1, \"a\", [2.0, 0.0.0.0], #{\"b\": 3}]")
    );
    assert_eq!(value("#{a: [()]}.to_string()"), text("#{\"a\": [()]}"));
    assert_eq!(value("split(\"a,b,,c\", \",\").len()"), EvidenceValue::Int(4));
    assert_eq!(value("index_of(\"äbc\", \"c\")"), EvidenceValue::Int(2));
}

#[test]
fn the_header_s_severity_explanations_and_tags() {
    let text = "rule \"x\" on rst severity \"critical\" then {
        explain(\"And this.\"); incident(\"It broke.\"); explain(\"That too.\"); tag(\"a\"); tag(\"b\"); tag(\"a\"); }";
    let verdict = run_with(text, BodyLimits::default(), &FlowFacts::default()).unwrap();
    assert_eq!(verdict.incident, Some((Severity::Critical, "It broke. And this. That too.".to_owned())));
    assert_eq!(verdict.tags, ["a", "b"]);
    assert!(run("for i in 0..17 { tag(`t${i}`); }").unwrap_err().to_string().contains("more than 16 tags"));
    assert!(run("tag(\"\");").is_err());
    assert!(run("for i in 0..65 { explain(\"x\"); }").is_err());
}

#[test]
fn state_and_counters_last_and_are_rolled_back() {
    let text = "fn more() { state[\"n\"] += 1; state[\"n\"] }
        rule \"x\" on rst then {
            if state[\"n\"] == () { state[\"n\"] = 10; }
            evidence(\"n\", more()); evidence(\"has\", \"t\" in state); evidence(\"t\", state.t);
            state[\"t\"] = \"text\"; count(\"runs\"); count(\"five\", 5);
            if flow.dport == 1 { throw \"no\"; }
            if flow.dport == 2 { loop { } }
            if flow.dport == 3 { state[\"n\"] = (); }
        }
        rule \"y\" on rst then { evidence(\"n\", state[\"n\"]); }";
    let mut bodies = Bodies::new(set(text), BodyLimits::default());
    let mut run = |rule, dport| {
        let facts = FlowFacts { dport, ..FlowFacts::default() };
        let verdict = bodies.run(rule, &Snapshot::Flow(&facts, Event::Rst));
        let counts: Vec<u64> = bodies.counts().map(|(_, _, count)| count).collect();
        let evidence = verdict.map(|v| v.evidence.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
        (evidence.unwrap_or_default(), counts)
    };
    use EvidenceValue::{Bool, Int, Unknown};
    assert_eq!(run(0, 0), (vec![Int(11), Bool(false), Unknown], vec![5, 1]));
    assert_eq!(run(0, 1), (vec![], vec![5, 1]));
    assert_eq!(run(0, 2), (vec![], vec![5, 1]));
    assert_eq!(run(0, 3), (vec![Int(12), Bool(true), EvidenceValue::Text("text".to_owned())], vec![10, 2]));
    assert_eq!(run(0, 0).0[0], Int(11), "() takes a name out");
    assert_eq!(run(1, 0), (vec![Unknown], vec![15, 3]), "another rule's is its own");
    // By name: in another set the rules stand elsewhere.
    bodies.follow(&set(
        "rule \"a\" on rst then { }\nrule \"x\" on rst then { evidence(\"n\", state[\"n\"]); }",
    ));
    let verdict = bodies.run(1, &Snapshot::Flow(&FlowFacts::default(), Event::Rst)).unwrap();
    assert_eq!(verdict.evidence[0].1, Int(11));
}

#[test]
fn state_and_counters_are_small() {
    for (body, wanted) in [
        ("for i in 0..65 { state[`k${i}`] = i; }", "more than 64 names"),
        (
            "let s = \"x\"; while s.len() < 4_096 { s += s; } state[\"a\"] = s; state[\"b\"] = s;",
            "8192 bytes",
        ),
        ("state[\"a\"] = [1];", "keeps numbers, bools and texts"),
        ("state[\"\"] = 1;", "1 to 64 bytes"),
        ("count(\"a b\");", "letters, digits"),
        ("count(\"a\", -1);", "only rises"),
        ("for i in 0..17 { count(`c${i}`); }", "at most 16 counters"),
    ] {
        let error = run(body).unwrap_err().to_string();
        assert!(error.contains(wanted), "{body}: {error}");
    }
    assert!(run("for i in 0..1000 { state[`k${i % 60}`] = \"text\"; }").is_ok());
}
