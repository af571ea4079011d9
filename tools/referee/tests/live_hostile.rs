//! Rules whose bodies never end, take all memory or fail, on a live capture: they are stopped and switched off, the
//! operator is told at once, and everything else goes on as if they were not there.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fmt::Write as _;
use std::fs;

use common::running::{Running, bench, rules, settings, until};
use common::wire::{CUT_OFF, Wire, cut_off};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

/// Each takes what it can get for as long as it is let.
const HOSTILE: [(&str, &str); 6] = [
    ("loops", "loop { }"),
    ("catches", "loop { try { loop { let a = 1; } } catch { } }"),
    ("bombs", "let s = \"x\"; loop { s += s; }"),
    ("compares", "let a = []; for i in 0..255 { a.push(i); } let b = a; loop { let c = a == b; }"),
    ("nests", "let a = [1]; for i in 0..250 { a = [a]; } loop { let c = `${a}`; }"),
    ("recurses", "deep(0);"),
];

const GOOD: &str = "rule \"good\" on rst then { incident(\"info\", `a RST to port ${flow.dport}`); }\n";

/// Settings under which only time stops a body.
fn timed(bench: &common::Bench, deadline_ms: u32) {
    settings(
        bench,
        &format!("body_deadline_ms = {deadline_ms}\nbody_operations = 1_000_000_000_000\nquiet_s = 2\n"),
    );
}

#[test]
fn hostile_bodies_are_stopped_and_everything_else_goes_on() {
    if !need_root("hostile bodies") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    timed(&bench, 5);
    let mut text = "fn deep(n) { 1 + (1 + (1 + deep(n + 1))) }\n".to_owned();
    for (name, body) in HOSTILE {
        let _ = writeln!(text, "rule \"{name}\" on rst then {{ {body} }}");
    }
    rules(&bench, &(text + GOOD));
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0", "--rules", "rules", "--json"]);
    wire.send_all(&cut_off(4000, 80));
    // The first failure is told while it runs, and by place.
    running.warning("rules/own.rhai:2:");
    assert_eq!(running.incident("open", "good")["subject"]["dport"], 80);
    let before = running.resident_kib();
    let mut sent = 1;
    for n in 1..10 {
        wire.send_all(&cut_off(4000 + n, 80 + n));
        sent += 1;
        assert_eq!(running.incident("open", "good")["subject"]["dport"], 80 + n);
    }
    let ended = running.stop();
    let books = ended.books();
    assert_eq!(books["received"], sent * CUT_OFF, "{books}");
    assert!(books["dropped"].as_object().unwrap().values().all(|lost| *lost == 0), "{books}");
    assert_eq!(
        (&books["rules"]["failing"], &books["rules"]["switched_off"]),
        (&Value::from(6), &Value::from(6))
    );
    // Three overruns each; none of them was asked again.
    assert_eq!(books["judge"]["body_errors"], 18, "{books}");
    let ran = ended.ran.exits(0);
    let off = |state: &str| {
        let told = |line: &&Value| line["state"] == state && line["kind"] == "rule_switched_off";
        ran.json().iter().filter(told).map(|line| line["evidence"]["rule"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!((off("open").len(), off("closed").len()), (6, 6), "{}", ran.stdout);
    for (name, _) in HOSTILE {
        assert!(ran.stderr.contains(&format!("Rule {name} (")), "{name}: {}", ran.stderr);
    }
    assert!(before < 400 << 10, "{before} KiB are resident");
}

#[test]
fn ten_thousand_failing_rules_do_not_keep_a_good_one_from_being_heard() {
    if !need_root("ten thousand failing rules") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    timed(&bench, 1);
    rules(&bench, GOOD);
    fs::rename(bench.path("rules/own.rhai"), bench.path("rules/zz.rhai")).unwrap();
    for file in 0..10 {
        let mut text = String::new();
        for n in 0..1000 {
            let body =
                ["throw 1;", "loop { }", "let s = \"x\"; loop { s += s; }", "let a = [1]; loop { a += a; }"];
            let _ = writeln!(text, "rule \"bad{file}_{n:03}\" on rst then {{ {} }}", body[n % 4]);
        }
        bench.file(&format!("rules/bad{file}.rhai"), text);
    }
    let mut running = Running::start(&namespace, &bench, &["-i", "tap0", "--rules", "rules", "--json"]);
    let (mut port, mut sent) = (4000, 0);
    until("the good rule's incident", || {
        port += 1;
        sent += 1;
        wire.send_all(&cut_off(port, 80));
        running.has_said("\"kind\":\"good\"").then_some(())
    });
    let resident = running.resident_kib();
    let ended = running.stop();
    let books = ended.books();
    assert_eq!(books["received"], sent * CUT_OFF, "{books}");
    assert!(books["dropped"].as_object().unwrap().values().all(|lost| *lost == 0), "{books}");
    assert!(books["rules"]["failing"].as_u64().unwrap() > 1000, "{books}");
    assert!(resident < 1 << 20, "{resident} KiB are resident");
    assert!(ended.ran.stderr.lines().count() < 100, "what is said stays readable: {}", ended.ran.stderr);
    ended.ran.exits(0);
}
