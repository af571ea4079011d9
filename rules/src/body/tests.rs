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
    let error = run("let a = 1;\n  incident(\"bad\", \"x\");").unwrap_err();
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
