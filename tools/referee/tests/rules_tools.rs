//! What helps who writes rules: trying them on captures, their cases, and why an incident was reported.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

mod common;

use std::collections::BTreeMap;

use common::{Bench, lines};
use serde_json::Value;
use wiregen::scenario::NAMES;

const OWN: &str = "param idle_ms = 5_000;\nrule \"own\" on rst\n\
    when flow.established && (flow.idle_before_ms >= idle_ms || flow.fin_seen) && flow.dport != 22\n\
    then { if flow.dport != 80 { incident(\"warning\", `reset after ${flow.idle_before_ms} ms`); } capture(flow); }\n";

fn rule<'l>(lines: &'l [Value], name: &str) -> &'l Value {
    lines.iter().find(|line| line["rule"] == name && line["asked"].is_number()).unwrap()
}

#[test]
fn a_rule_is_tried_on_captures_and_names_what_replay_names() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 300.0);
    bench.file("own.rhai", OWN);
    let tested = ["rules", "test", "--config", "small.toml", "--json", "own.rhai", "rst_after_idle.pcap"];
    let said = bench.run(&tested).exits(0).json();
    bench
        .replay(&["--rules", "own.rhai", "--flows", "f", "--incidents", "i", "rst_after_idle.pcap"])
        .exits(0);
    let (flows, incidents) = (lines(&bench.read("f")), lines(&bench.read("i")));
    let own = rule(&said, "own");
    let found: Vec<&Value> = flows.iter().filter(|flow| flow["findings"]["own"].is_number()).collect();
    assert!(!found.is_empty() && !incidents.is_empty());
    assert_eq!((&own["flows"], &own["incidents"]), (&found.len().into(), &incidents.len().into()));
    for sample in own["samples"].as_array().unwrap() {
        assert!(found.iter().any(|flow| flow["flow_id"] == sample["flow_id"]), "{sample}");
        assert_eq!(sample["because"][1]["params"]["idle_ms"], 5000);
    }
    let asked = own["asked"].as_u64().unwrap();
    assert!(asked >= own["matched"].as_u64().unwrap() && asked > 0, "{own}");
    assert!(own["guard_ns"].is_number() && own["body_us"].is_number(), "{own}");
    assert!(own["would_capture"].as_u64().unwrap() > 0, "{own}");
    let summary = &said.last().unwrap()["summary"];
    assert_eq!((&summary["rules"], &summary["input_complete"]), (&1.into(), &true.into()));
    let people = bench.run(&["rules", "test", "own.rhai", "rst_after_idle.pcap"]).exits(0).stdout;
    for words in
        ["would capture", "flow.idle_before_ms >= idle_ms || flow.fin_seen", "idle_ms = 5000", "says: reset"]
    {
        assert!(people.contains(words), "{words} is not in {people}");
    }
}

#[test]
fn expectations_decide_the_exit_code() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 300.0);
    bench.file("own.rhai", OWN);
    let test = |more: &[&str]| {
        bench.run(
            &[&["rules", "test", "own.rhai", "rst_after_idle.pcap", "--config", "small.toml"], more].concat(),
        )
    };
    let made = test(&["--json"]).exits(0).json();
    let number = rule(&made, "own")["incidents"].as_u64().unwrap();
    test(&[&format!("--expect=own={number}")]).exits(0);
    test(&["--expect", &format!("own={number}")]).exits(0);
    test(&["--expect=own=77"]).exits(1).says(&["1 expectation not met", "own made", "not 77"]);
    bench.file("bad.rhai", "rule \"bad\" on rst then { throw \"x\"; }");
    let bad = bench.run(&["rules", "test", "bad.rhai", "rst_after_idle.pcap", "--config", "small.toml"]);
    bad.exits(1).says(&["the body of bad is to work, and failed"]);
    test(&["--expect=none=1"]).exits(2).says(&["no rule `none`", "help: "]);
    test(&["--expect=what"]).exits(2).says(&["--expect=RULE=N"]);
    let silent = ["--set", "own.idle_ms=9000000", "--expect=own=0"];
    let ran = test(&silent).exits(0);
    assert!(ran.stdout.contains("own held on none of"), "{}", ran.stdout);
    let said = test(&[&silent[..], &["--json"]].concat()).exits(0).json();
    let stopped = rule(&said, "own")["stopped_at"].as_array().unwrap();
    assert_eq!(stopped[0]["if"], "flow.idle_before_ms >= idle_ms || flow.fin_seen");
    assert_eq!(stopped[0]["times"], rule(&said, "own")["asked"], "{stopped:?}");
    bench.run(&["rules", "test", "own.rhai", "missing.pcap"]).exits(3).says(&["missing.pcap"]);
    bench.run(&["rules", "test", "none.rhai"]).exits(2).says(&["none.rhai: can't be read"]);
    bench.run(&["rules", "test", "own.rhai", "."]).exits(2).says(&["no store", "help: "]);
}

/// The shipped rules under names that no finding has which the flow table counts itself.
fn renamed(bench: &Bench) {
    std::fs::create_dir(bench.path("rules")).unwrap();
    for file in rules::library() {
        bench.file(&format!("rules/{}", file.name), file.text.replace("rule \"", "rule \"my_"));
    }
}

/// Counts of every shipped rule on every scenario are those that replay counts; and every incident tells what its rule's
/// condition saw.
#[test]
fn every_scenario_counts_as_in_replay_and_explains_itself() {
    let bench = Bench::new();
    renamed(&bench);
    let mut explained = 0;
    for name in NAMES {
        let capture = bench.capture(name, 300.0);
        let capture = capture.to_str().unwrap();
        let tested = ["rules", "test", "--config", "small.toml", "--json", "rules", capture];
        let said = bench.run(&tested).exits(0).json();
        bench.replay(&["--rules", "rules", "--flows", "f", "--incidents", "i", capture]).exits(0);
        let (mut flows, mut incidents): (BTreeMap<String, u64>, BTreeMap<String, u64>) = Default::default();
        let found = lines(&bench.read("f"));
        for row in &found {
            row["findings"]
                .as_object()
                .unwrap()
                .keys()
                .for_each(|kind| *flows.entry(kind.clone()).or_default() += 1);
        }
        let told = lines(&bench.read("i"));
        told.iter().for_each(|i| *incidents.entry(i["rule"].as_str().unwrap().to_owned()).or_default() += 1);
        for line in said.iter().filter(|line| line["asked"].is_number()) {
            let rule = line["rule"].as_str().unwrap();
            assert_eq!(
                line["incidents"].as_u64(),
                Some(incidents.get(rule).copied().unwrap_or(0)),
                "{name}: {rule}"
            );
            if line["scope"] == "flow" {
                let of_rule = found.iter().filter(|row| row["findings"][rule].is_number()).count() as u64;
                assert_eq!(line["flows"].as_u64(), Some(of_rule), "{name}: {rule}");
            }
        }
        for incident in &told {
            let id = incident["id"].as_str().unwrap();
            let why =
                bench.run(&["rules", "explain", id, "--incidents", "i", "--json"]).exits(0).json().remove(0);
            let because = why["because"].as_array().unwrap();
            assert!(!because.is_empty(), "{name}: {incident}");
            for clause in because {
                let facts = clause["facts"].as_object().unwrap();
                let params = clause["params"].as_object().map_or(0, serde_json::Map::len);
                assert!(
                    !clause["if"].as_str().unwrap().is_empty() && facts.len() + params > 0,
                    "{name}: {clause}"
                );
                facts.keys().for_each(|fact| assert!(why["facts"][fact]["meaning"].is_string(), "{fact}"));
            }
            explained += 1;
        }
    }
    assert!(explained > 40, "{explained}");
}

#[test]
fn a_store_is_replayed_and_its_incidents_are_explained() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 300.0);
    bench.replay(&["--store", "kept", "--incidents", "i", "rst_after_idle.pcap"]).exits(0);
    bench.file("own.rhai", OWN);
    let ran = bench.run(&["rules", "test", "--json", "own.rhai", "kept"]).exits(0);
    assert_eq!(ran.stderr, "", "packets of a store come in order of time");
    let said = ran.json();
    assert!(rule(&said, "own")["flows"].as_u64().unwrap() > 0, "{said:?}");
    let test = ["rules", "test", "--json", "own.rhai", "kept"];
    let none = [&test[..], &["--until", "1999-12-31T00:00:00Z"]].concat();
    bench.run(&none).exits(1).says(&["nothing kept"]);
    let all = [&test[..], &["--since", "1999-12-31T00:00:00Z"]].concat();
    assert_eq!(rule(&bench.run(&all).exits(0).json(), "own")["flows"], rule(&said, "own")["flows"]);
    let capture = ["rules", "test", "own.rhai", "rst_after_idle.pcap", "--since", "1h"];
    bench.run(&capture).exits(2).says(&["of a store", "help: "]);
    let incident = lines(&bench.read("i")).remove(0);
    let id = incident["id"].as_str().unwrap();
    let why = bench.run(&["rules", "explain", id, "--store", "kept"]).exits(0).stdout;
    for words in [
        "rst_after_idle",
        "fired because all of this held",
        "flow.idle_before_ms",
        "Length of the silence",
        id,
    ] {
        assert!(why.contains(words), "{words} is not in {why}");
    }
    assert_eq!(why, bench.run(&["rules", "explain", &id[..6], "--incidents", "i"]).exits(0).stdout);
    bench.run(&["rules", "explain", "zz", "--store", "kept"]).exits(1).says(&["no incident zz", "help: "]);
    bench.run(&["rules", "explain", "zz", "--incidents", "none"]).exits(1).says(&["none can't be read"]);
    bench.run(&["rules", "explain", "zz", "--store", "none"]).exits(1).says(&["no store at none"]);
}

const CASES: &str = r#"
[[case]]
name = "a reset after a silence"
event = "rst"
facts.flow = { established = true, idle_before_ms = 6000, dport = 443 }
expect = "incident"
severity = "warning"
says = "after 6000 ms"
captures = true

[[case]]
facts = { "flow.established" = true, "flow.fin_seen" = true, "flow.dport" = 80 }
expect = "quiet"

[[case]]
facts = { "flow.established" = true, "flow.dport" = 22, "flow.fin_seen" = true }
expect = "no_match"

[[case]]
set = { idle_ms = 7000 }
facts.flow = { established = true, idle_before_ms = 6000, dport = 443 }
expect = "no_match"

[[case]]
pcap = "rst_after_idle.pcap"
incidents = 1

[[case]]
pcap = "rst_after_idle.pcap"
set = { idle_ms = 9_000_000 }
incidents = 0
"#;

#[test]
fn cases_beside_a_rule_are_run() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 300.0);
    bench.file("own.rhai", OWN);
    let test =
        |more: &[&str]| bench.run(&[&["rules", "test", "own.rhai", "--config", "small.toml"], more].concat());
    assert!(test(&[]).exits(0).stdout.contains("no cases: they stand in NAME.cases.toml"));
    bench.file("own.cases.toml", CASES);
    assert!(test(&[]).exits(0).stdout.contains("6 cases, all as expected"));
    let both = test(&["rst_after_idle.pcap", "--expect", "--json"]).exits(0).json();
    assert_eq!(both.last().unwrap()["summary"]["cases"]["run"], 6);
    assert!(rule(&both, "own")["asked"].as_u64().unwrap() > 0);
    bench.file(
        "own.cases.toml",
        CASES
            .replace("idle_before_ms = 6000", "idle_before_ms = 4000")
            .replace("incidents = 1", "incidents = 9"),
    );
    let wrong = test(&[]).exits(1).says(&[
        "2 expectations not met",
        "own.cases.toml:2:1: a reset after a silence: expected incident, got no_match",
        "`flow.idle_before_ms >= idle_ms || flow.fin_seen` is false (flow.idle_before_ms = 4000",
        "incidents: expected 9, got 1",
    ]);
    assert!(wrong.stdout.contains("2 not as expected"), "{}", wrong.stdout);
}

#[test]
fn what_is_wrong_with_cases_is_said_with_its_place() {
    let bench = Bench::new();
    bench.file("own.rhai", OWN);
    let wrong = |cases: &str, words: &[&str]| {
        bench.file("own.cases.toml", cases);
        bench.run(&["rules", "test", "own.rhai"]).exits(2).says(words);
    };
    wrong("[[case]]\nexpcet = \"match\"\n", &["own.cases.toml:2:1", "expcet"]);
    wrong("[[case]]\nexpect = \"mach\"\n", &["own.cases.toml:2:10", "no outcome `mach`", "no_match"]);
    wrong("[[case]]\nexpect = \"match\"\nevent = \"rts\"\n", &["own.cases.toml:3:9", "no event `rts`"]);
    wrong("[[case]]\nexpect = \"match\"\nrule = \"onw\"\n", &["own.cases.toml:3:8", "no rule `onw`", "own"]);
    wrong("[[case]]\n", &["own.cases.toml:1:1", "what is to come out", "no_match"]);
    wrong("[[case]]\npcap = \"x\"\n", &["own.cases.toml:1:1", "incidents = 1"]);
    wrong("[[case]]\nexpect = \"match\"\nfacts = { a = [1] }\n", &["own.cases.toml:3:15", "a text"]);
    let other = "[[case]]\nexpect = \"match\"\nset = { idle_sm = 1 }\n";
    wrong(other, &["own.cases.toml:3:19", "`own` has no param `idle_sm`", "did you mean `own.idle_ms`?"]);
    wrong("[[case]\n", &["own.cases.toml:1:"]);
    bench.file("own.cases.toml", "[[case]]\nexpect = \"match\"\nfacts = { \"flow.dprot\" = 1 }\n");
    bench
        .run(&["rules", "test", "own.rhai"])
        .exits(1)
        .says(&["no fact `flow.dprot`", "did you mean `flow.dport`?"]);
}

/// The cases of the cookbook, at least one that fires and one that does not for each rule, and those of the shipped rules.
#[test]
fn cookbook_and_library_do_what_their_cases_say() {
    let bench = Bench::new();
    for (folder, rules) in [("cookbook", 20), ("library", 5)] {
        let path = format!("{}/../../rules/{folder}", env!("CARGO_MANIFEST_DIR"));
        let ran = bench.run(&["rules", "test", "--json", &path]).exits(0).json();
        let (cases, summary) = ran.split_at(ran.len() - 1);
        assert_eq!(summary[0]["summary"]["cases"]["failed"], 0);
        let mut of: BTreeMap<&str, u32> = BTreeMap::new();
        cases.iter().for_each(|case| *of.entry(case["rule"].as_str().unwrap()).or_default() += 1);
        assert!(of.len() >= rules && of.values().all(|cases| *cases > 1), "{of:?}");
    }
    let cookbook = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rules/cookbook");
    for file in std::fs::read_dir(cookbook).unwrap().map(|file| file.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        if file.to_string_lossy().ends_with(".cases.toml") {
            assert!(text.contains("expect = \"incident\""), "{} has no case that fires", file.display());
            let silent =
                ["no_match", "quiet"].map(|outcome| text.contains(&format!("expect = \"{outcome}\"")));
            assert!(silent.contains(&true), "{} has no case that stays silent", file.display());
        }
    }
}

/// A line without what differs between machines: times, and rule hashes, which a change of the example changes.
fn steady(line: &str) -> String {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    for at in 1..words.len() {
        let timed = ["ns", "µs"].contains(&words[at].as_str());
        let hash = ["hash", "set"].contains(&words[at - 1].as_str())
            && words[at].chars().all(|c| c.is_ascii_hexdigit());
        if timed {
            words[at - 1] = "N".to_owned();
        } else if hash {
            words[at] = "N".to_owned();
        }
    }
    words.join(" ")
}

/// Whether `said` is what is `written`, whose lines `[…]` stand for any number of lines.
fn matches(written: &[String], said: &[String]) -> bool {
    match (written.split_first(), said.split_first()) {
        (None, _) => said.is_empty(),
        (Some((first, rest)), _) if first == "[…]" => {
            (0..=said.len()).any(|skipped| matches(rest, &said[skipped..]))
        }
        (Some((first, rest)), Some((line, more))) => first == line && matches(rest, more),
        (Some(_), None) => false,
    }
}

/// The handbook's way from nothing to a rule: its files are written, its commands run, and they say what it says.
#[test]
fn the_handbook_shows_what_is_said() {
    let bench = Bench::new();
    let yesterday = bench.capture("rst_after_idle", 300.0);
    std::fs::rename(yesterday, bench.path("yesterday.pcap")).unwrap();
    std::fs::create_dir(bench.path("rules")).unwrap();
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operators.md")).unwrap();
    let section = page.split("\n## Writing a rule\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut commands = 0;
    for block in section.split("\n```").skip(1).step_by(2) {
        let (info, text) = block.split_once('\n').unwrap();
        if let Some((_, file)) = info.split_once(' ') {
            bench.file(file, format!("{text}\n"));
            continue;
        }
        if info != "console" {
            continue;
        }
        let (command, written) = text.strip_prefix("$ referee ").unwrap().split_once('\n').unwrap();
        let args: Vec<&str> = command.split(' ').collect();
        let ran = bench.run(&args);
        let lines = |text: &str| text.lines().map(steady).collect::<Vec<String>>();
        let said = [lines(&ran.stdout), lines(&ran.stderr)].concat();
        assert!(matches(&lines(written), &said), "$ referee {command}\n{}{}", ran.stdout, ran.stderr);
        commands += 1;
    }
    assert!(commands >= 9, "{commands}");
}
