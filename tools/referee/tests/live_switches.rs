//! Rules looked at and switched while packets come: what each has done, into shadow and out of it, left out and taken in.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use common::running::{self, Running, SOCKET, bench, rules, until};
use common::wire::{Wire, cut_off};
use common::{Bench, Ran};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

const ARGS: [&str; 7] = ["-i", "tap0", "--rules", "rules", "--metrics", "m.prom", "--json"];
const RESET: &str = "rule \"reset\" on rst\nthen { incident(\"info\", \"a reset\"); capture(flow); }\n";
const OTHERS: &str = "rule \"other\" on rst when flow.dport > 1\nthen { incident(\"info\", \"another\"); }\n\
                      rule \"fails\" on rst then { throw 7; }\n";

/// `referee rules …` beside the run.
fn ask(bench: &Bench, args: &[&str]) -> Ran {
    bench.run(&[&["rules"], args, &["--socket", SOCKET]].concat())
}

fn status(bench: &Bench) -> Value {
    bench.run(&["status", "--json", "--socket", SOCKET]).exits(0).json().remove(0)
}

/// A switch turned: what is in force then, on every worker.
fn switch(bench: &Bench, what: &str, rule: &str, state: &str) -> Value {
    let done = ask(bench, &[what, rule, state, "--json"]).exits(0).json().remove(0);
    assert!(done["live"] == true && done["errors"] == Value::Array(Vec::new()), "{done}");
    let of = |key: &str| done["workers"].as_array().unwrap().iter().all(|worker| worker[key] == done[key]);
    assert!(of("hash") && of("generation"), "{done}");
    done
}

/// What a rule has done so far.
fn standing(bench: &Bench, rule: &str) -> Value {
    let listed = ask(bench, &["list", "--live", "--json"]).exits(0).json().remove(0);
    let mut rules = listed["rules"].as_array().unwrap().iter();
    rules.find(|state| state["rule"] == rule).unwrap_or_else(|| panic!("{listed}")).clone()
}

/// Waits until it has matched so often, and the judge knows.
fn matched(bench: &Bench, rule: &str, times: u64, runs: u64) -> Value {
    until("matches", || {
        let state = standing(bench, rule);
        (state["matched"] == times && state["body_runs"] == runs).then_some(state)
    })
}

/// Other files go live with what is switched, and broken ones change nothing of it.
fn other_files_keep_it(bench: &Bench) {
    fs::write(bench.path("rules/own.rhai"), [OTHERS, "// moved\n", RESET].concat()).unwrap();
    until("the other files", || (status(bench)["generation"] == 3).then_some(()));
    assert_eq!(standing(bench, "reset")["shadow"], true);
    let now = status(bench);
    assert_eq!((&now["switched"][0]["rule"], &now["switched"][0]["on"]), (&"reset".into(), &true.into()));
    let status_words = bench.run(&["status", "--socket", SOCKET]).exits(0).stdout;
    assert!(status_words.contains("switched by hand: reset only looks on"), "{status_words}");
    fs::write(bench.path("rules/own.rhai"), "rule").unwrap();
    until("the mistake", || (status(bench)["errors"][0]["line"] == 1).then_some(()));
    assert_eq!(standing(bench, "reset")["shadow"], true);
}

#[test]
fn a_rule_goes_into_shadow_and_comes_out_of_it() {
    if !need_root("rules switched by hand") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    running::settings(&bench, "failures_before_off = 2\n");
    let mut wire = Wire::new(&namespace, Shape::default());
    rules(&bench, &[RESET, OTHERS].concat());
    let mut running = Running::start(&namespace, &bench, &ARGS);
    let first = status(&bench);
    wire.send_all(&cut_off(4000, 80));
    assert_eq!(running.incident("open", "reset")["subject"]["dport"], 80);

    let wrong = ask(&bench, &["shadow", "rest", "on"]).exits(2);
    wrong.says(&["there is no rule or rule file `rest`", "did you mean `reset`?"]);
    ask(&bench, &["shadow", "own", "on"]).exits(2).says(&["`own` is a rule file"]);
    assert_eq!(status(&bench), first, "nothing has come of that");

    let done = switch(&bench, "shadow", "reset", "on");
    assert_eq!((&done["generation"], &done["changed"][0]), (&2.into(), &"reset".into()), "{done}");
    assert_eq!(switch(&bench, "shadow", "reset", "on")["generation"], 2, "it is there already");
    wire.send_all(&cut_off(4001, 81));
    assert_eq!(running.incident("open", "other")["subject"]["dport"], 80);
    assert_eq!(running.incident("open", "other")["subject"]["dport"], 81);
    let would = until("what it would have done", || {
        let counts = standing(&bench, "reset")["shadow_counts"].clone();
        (counts["would_open"] == 1).then_some(counts)
    });
    assert_eq!((&would["matched"], &would["would_capture"]), (&1.into(), &1.into()), "{would}");
    let said = ask(&bench, &["list", "--live"]).exits(0).stdout;
    for words in
        ["in shadow", "rule reset in shadow: it matched 1 time", "switched off", "failed 2 times in a row"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    other_files_keep_it(&bench);

    let done = switch(&bench, "shadow", "reset", "off");
    assert_eq!(done["generation"], 4);
    let now = status(&bench);
    assert_eq!((now["errors"].as_array().unwrap().len(), now["switched"].as_array().unwrap().len()), (1, 0));
    wire.send_all(&cut_off(4002, 82));
    let incident = running.incident("open", "reset");
    assert_eq!((&incident["subject"]["dport"], &incident["rules_hash"]), (&82.into(), &done["hash"]));

    switch(&bench, "enable", "other", "off");
    wire.send_all(&cut_off(4003, 83));
    assert_eq!(running.incident("open", "reset")["subject"]["dport"], 83);
    assert_eq!(standing(&bench, "other")["matched"], 3);
    assert!(ask(&bench, &["list", "--live"]).stdout.contains("left out"));
    assert_eq!(switch(&bench, "enable", "other", "on")["hash"], done["hash"], "as the files have it");
    let ended = running.stop();
    let told: Vec<Value> = ended.ran.json().into_iter().filter(|line| line["state"] == "open").collect();
    let ports = |kind: &str| {
        let mine = told.iter().filter(|line| line["kind"] == kind);
        mine.map(|line| line["subject"]["dport"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((ports("reset"), ports("other")), (vec![80, 82, 83], vec![80, 81, 82]));
    let books = ended.books()["rules"].clone();
    assert_eq!(
        (&books["reloads"], &books["shadow"]["reset"]["would_open"]),
        (&5.into(), &1.into()),
        "{books}"
    );
    ended.ran.says(&["rules: reset only looks on until this run ends: generation 2 is live on 1 worker"]);
}

#[test]
fn what_is_listed_is_what_the_metrics_say() {
    if !need_root("what rules of a run have done") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    // Room for all packets: a machine that tests share does not always give the worker its turn.
    let settings = bench.read("live.toml").replace("ring_packets = 4096", "ring_packets = 32768");
    bench.file("live.toml", settings);
    let mut wire = Wire::new(&namespace, Shape::default());
    rules(&bench, &[RESET, OTHERS].concat());
    let running = Running::start(&namespace, &bench, &ARGS);
    // More than are needed for a condition to be timed.
    let flows = 1100;
    for port in 0..flows {
        wire.send_all(&cut_off(4000 + port, 80));
        thread::sleep(Duration::from_micros(500));
    }
    let flows = u64::from(flows);
    matched(&bench, "reset", flows, flows);
    let other = matched(&bench, "other", flows, flows);
    let fails = standing(&bench, "fails");
    // Timed, but not so often that a mean would say something.
    assert!(other["guard_samples"].as_u64() >= Some(1) && other["guard_ns"].is_null(), "{other}");
    assert!(other["body_us"].as_f64().is_some(), "{other}");
    assert_eq!((&fails["switched_off"], &fails["errors"]), (&true.into(), &20.into()), "{fails}");
    running.stop().ran.exits(0);
    let page = bench.read("m.prom");
    for state in [&other, &fails] {
        let rule = state["rule"].as_str().unwrap();
        let value = |family: &str| {
            let head = format!("referee_rule_{family}{{rule=\"{rule}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&head)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        let families = ["matches_total", "faults_total", "runs_total", "failures_total", "overruns_total"];
        let fields = ["matched", "faults", "body_runs", "errors", "overruns"];
        for (family, field) in families.into_iter().zip(fields) {
            assert_eq!(Some(value(family)), state[field].as_f64(), "{family} of {rule}: {page}");
        }
        assert_eq!(value("guard_seconds"), 0.0, "{page}");
    }
}

#[test]
fn what_is_switched_ends_with_the_run() {
    if !need_root("switches and restarts") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    running::capture_settings(&bench, "workers = 2\n");
    let settings = bench.read("live.toml");
    bench.file("live.toml", settings + "[rules]\nkeep = \"kept\"\n");
    fs::create_dir(bench.path("kept")).unwrap();
    let mut wire = Wire::new(&namespace, Shape { queues: 2, ..Shape::default() });
    rules(&bench, RESET);
    let running = Running::start(&namespace, &bench, &ARGS);
    let first = status(&bench);
    assert_eq!(first["workers"].as_array().unwrap().len(), 2);
    switch(&bench, "shadow", "reset", "on");
    // Taken anew while it is switched, and so kept anew.
    fs::write(bench.path("rules/own.rhai"), [RESET, OTHERS].concat()).unwrap();
    until("the other files", || (status(&bench)["generation"] == 3).then_some(()));
    running.stop().ran.exits(0);
    fs::write(bench.path("rules/own.rhai"), "rule").unwrap();
    let mut running = Running::start(&namespace, &bench, &ARGS);
    let now = status(&bench);
    assert_eq!((&now["last_good"], now["switched"].as_array().unwrap().len()), (&true.into(), 0));
    assert_ne!(now["hash"], first["hash"]);
    wire.send_all(&cut_off(4000, 80));
    running.incident("open", "reset");
    // These too can be switched, although they are in no file.
    assert_eq!(switch(&bench, "shadow", "other", "on")["generation"], 2);
    assert_eq!(status(&bench)["last_good"], true);
    let back = switch(&bench, "shadow", "other", "off");
    assert_eq!((&back["generation"], &back["hash"]), (&3.into(), &now["hash"]));
    running.stop().ran.exits(0);
}
