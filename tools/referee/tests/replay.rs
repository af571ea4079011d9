//! `referee replay` from capture files: what it writes, where, and that it does so twice alike.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{Bench, Ran, lines, tree};
use serde_json::Value;

/// Kinds of the incidents on standard output.
fn kinds(ran: &Ran) -> Vec<String> {
    ran.json().iter().map(|incident| incident["kind"].as_str().unwrap().to_owned()).collect()
}

/// The names of an object's fields that must be there.
#[track_caller]
fn has(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "{field} is missing in {object}");
    }
}

#[test]
fn a_store_keeps_incidents_in_the_form_of_the_output() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 20.0);
    bench.replay(&["--store", "s", "--incidents", "i", "rst_after_idle.pcap"]).exits(0);
    let (kept, told) = (bench.read("s/incidents.jsonl"), bench.read("i"));
    assert!(told.lines().count() > 0);
    for line in told.lines() {
        assert!(kept.lines().any(|kept| kept == line), "{line}");
    }
}

#[test]
fn outputs_have_the_promised_shape() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 20.0);
    let args = ["--flows", "f", "--incidents", "i", "--ledger", "l", "rst_after_idle.pcap"];
    bench.replay(&args).exits(0);
    let flows = lines(&bench.read("f"));
    let tcp = flows.iter().find(|row| row["flow"]["proto"] == "tcp").unwrap();
    has(
        tcp,
        &[
            "flow_id",
            "start_ns",
            "end_ns",
            "orig",
            "resp",
            "conn_state",
            "history",
            "handshake",
            "rtt_us",
            "findings",
        ],
    );
    has(&tcp["flow"], &["src", "sport", "dst", "dport", "vlan", "tunnel"]);
    has(&tcp["orig"], &["packets", "bytes", "payload", "syn", "mss", "wscale", "ttl_min", "facts"]);
    assert!(flows.iter().any(|row| row["findings"]["rst_after_idle"] == 1));
    let incidents = lines(&bench.read("i"));
    assert!(!incidents.is_empty());
    for incident in &incidents {
        let fields =
            ["id", "kind", "rule", "severity", "scope", "subject", "first_ns", "last_ns", "count", "flows"];
        has(incident, &fields);
        has(incident, &["flow_ids", "evidence", "explain", "advise", "rules_hash"]);
        assert_eq!(incident["kind"], "rst_after_idle");
    }
    let ledger = &lines(&bench.read("l"))[0];
    has(&ledger["flows"], &["created", "evicted", "live"]);
    let dropped = ledger["dropped"].as_object().unwrap();
    assert!(!dropped.is_empty() && dropped.values().all(|packets| *packets == 0), "{ledger}");
    has(&ledger["unwritten"], &["no_chunk", "hold_pool_full", "overwritten", "disk_full", "write_failed"]);
    has(ledger, &["events", "chunks", "filtered", "kept", "written"]);
    for truth in ["balanced", "input_complete", "deterministic"] {
        assert_eq!(ledger[truth], true, "{truth}: {ledger}");
    }
    assert_eq!(ledger["received"], ledger["analysed"]);
    assert_eq!(ledger["flows"]["created"], flows.len());
    assert_eq!(ledger["inputs"][0]["packets"], ledger["received"]);
}

#[test]
fn two_replays_are_byte_identical() {
    let bench = Bench::new();
    bench.capture("demo", 20.0);
    for n in ["1", "2"] {
        let path = |name: &str| format!("{name}{n}");
        let (f, i, l, s) = (path("f"), path("i"), path("l"), path("s"));
        let args = ["--flows", &f, "--incidents", &i, "--ledger", &l, "--store", &s, "demo.pcap"];
        bench.replay(&args).exits(0);
    }
    for name in ["f", "i", "l"] {
        let (one, two) = (bench.read(&format!("{name}1")), bench.read(&format!("{name}2")));
        assert!(one == two && !one.is_empty(), "{name} differs");
    }
    let (one, two) = (tree(&bench.path("s1")), tree(&bench.path("s2")));
    assert!(one.len() >= 2 && one == two, "stores differ");
    let ledger = &lines(&bench.read("l1"))[0];
    assert!(ledger["kept"].as_u64() > Some(0) && ledger["kept"] == ledger["written"]);
}

#[test]
fn thresholds_come_from_set_and_from_the_configuration() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 20.0);
    let replay = |args: &[&str]| {
        kinds(&bench.run(&[&["replay", "--incidents", "-", "rst_after_idle.pcap"], args].concat()).exits(0))
    };
    assert!(replay(&[]).iter().any(|kind| kind == "rst_after_idle"));
    let raised = replay(&["--set", "rst_after_idle.idle_ms=3_600_000"]);
    assert!(raised.iter().all(|kind| kind != "rst_after_idle"), "{raised:?}");
    bench.file("high.toml", "[rules.rst_after_idle]\nidle_ms = 3_600_000\n");
    assert_eq!(replay(&["--config", "high.toml"]), raised);
    let lowered = replay(&["--config", "high.toml", "--set", "rst_after_idle.idle_ms=10_000"]);
    assert_eq!(lowered, replay(&[]));
}

#[test]
fn people_are_told_in_words_and_machines_only_in_json() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 20.0);
    bench.capture("healthy", 1.0);
    let told = bench.replay(&["rst_after_idle.pcap"]).exits(0);
    for words in ["WARNING  rst_after_idle", "who: tcp ", "what to do: ", "books balance: ", "finding"] {
        assert!(told.stdout.contains(words), "{words:?} is not in {}", told.stdout);
    }
    assert!(!told.stdout.contains('\x1b') && told.stderr.is_empty(), "{}", told.stderr);
    assert!(!told.stdout.contains("captures get"), "nothing was kept");
    let stored = bench.replay(&["--store", "st ore", "rst_after_idle.pcap"]).exits(0).stdout;
    assert!(stored.contains("referee captures get --store 'st ore' --incident "), "{stored}");
    let healthy = bench.replay(&["healthy.pcap"]).exits(0).stdout;
    assert!(healthy.contains("nothing a person needs to look at"), "{healthy}");
    let machine = bench.replay(&["--incidents", "-", "--ledger", "-", "rst_after_idle.pcap"]).exits(0);
    let all = machine.json();
    assert!(all.len() >= 2 && machine.stderr.is_empty());
    assert_eq!(all.last().unwrap()["balanced"], true);
}

#[test]
fn standard_input_and_several_files_are_one_stream() {
    let bench = Bench::new();
    let (idle, healthy) = (bench.capture("rst_after_idle", 20.0), bench.capture("healthy", 1.0));
    let mut command = bench.command(&["replay", "--ledger", "-", "-", "healthy.pcap"]);
    let piped: Ran = command.stdin(std::fs::File::open(&idle).unwrap()).output().unwrap().into();
    let piped = piped.exits(0).json().remove(0);
    let named = bench.run(&["replay", "--ledger", "-", "rst_after_idle.pcap", "healthy.pcap"]).exits(0);
    let named = named.json().remove(0);
    assert_eq!(piped["received"], named["received"]);
    assert_eq!((&piped["flows"], &piped["late"]), (&named["flows"], &Value::from(0)));
    assert_eq!(piped["inputs"][0]["name"], "standard input");
    assert!(healthy.exists());
}

#[test]
fn a_damaged_file_counts_up_to_the_damage() {
    let bench = Bench::new();
    let capture = bench.capture("healthy", 1.0);
    let bytes = std::fs::read(capture).unwrap();
    bench.file("cut.pcap", &bytes[..bytes.len() / 2]);
    let ran = bench.replay(&["--ledger", "-", "cut.pcap"]).exits(0).says(&[
        "cut.pcap: record ",
        " at byte ",
        "before it count",
    ]);
    let ledger = &ran.json()[0];
    assert_eq!((&ledger["input_complete"], &ledger["balanced"]), (&Value::from(false), &Value::from(true)));
    assert!(ledger["received"].as_u64() > Some(100));
    assert!(ledger["inputs"][0]["damage"]["offset"].is_u64());
    let told = bench.replay(&["cut.pcap"]).exits(0);
    assert!(told.stdout.contains("The input is incomplete"), "{}", told.stdout);
}

#[test]
fn an_empty_capture_is_a_capture() {
    let bench = Bench::new();
    let capture = bench.capture("healthy", 1.0);
    bench.file("none.pcap", &std::fs::read(capture).unwrap()[..24]);
    let ran = bench.replay(&["--ledger", "-", "none.pcap"]).exits(0);
    assert_eq!(
        (&ran.json()[0]["received"], &ran.json()[0]["balanced"]),
        (&Value::from(0), &Value::from(true))
    );
    assert!(bench.replay(&["none.pcap"]).exits(0).stdout.contains("No packets came."));
}

#[test]
fn a_full_disk_is_named_and_the_other_outputs_are_whole() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 20.0);
    let args = ["--flows", "/dev/full", "--incidents", "i", "--ledger", "l", "rst_after_idle.pcap"];
    let said = ["/dev/full can't be written", "help: "];
    bench.replay(&args).exits(1).says(&said);
    assert!(!lines(&bench.read("i")).is_empty());
    assert_eq!(lines(&bench.read("l"))[0]["balanced"], true);
    bench.replay(&["--incidents", "/dev/full", "rst_after_idle.pcap"]).exits(1).says(&said);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let bench = Bench::new();
    bench.capture("demo", 20.0);
    let read_one_line = |args: &[&str]| -> (String, Ran) {
        let mut command = bench.command(&[&["replay", "--config", "small.toml"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let code = child.wait().unwrap().code();
        (first, Ran { code, stdout: String::new(), stderr })
    };
    for args in [&["demo.pcap"][..], &["--flows", "-", "demo.pcap"]] {
        let (first, ran) = read_one_line(args);
        assert!(!first.is_empty() && ran.stderr.is_empty(), "{first} {}", ran.stderr);
        ran.exits(0);
    }
    let (_, ran) = read_one_line(&["--flows", "-", "--ledger", "l", "--incidents", "i", "demo.pcap"]);
    ran.exits(0);
    let ledger = &lines(&bench.read("l"))[0];
    assert_eq!((&ledger["input_complete"], &ledger["balanced"]), (&Value::from(true), &Value::from(true)));
}

/// The page taken apart as Prometheus does: every family has its head once, before its values; every value is a number.
fn families(page: &str) -> std::collections::BTreeMap<String, Vec<(String, f64)>> {
    let mut families = std::collections::BTreeMap::new();
    let mut lines = page.lines();
    let mut current = String::new();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(!text.is_empty() && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(name.starts_with("referee_") && !families.contains_key(name), "{name}");
            name.clone_into(&mut current);
            families.insert(current.clone(), Vec::new());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let parts = ["_bucket", "_sum", "_count"];
        let own =
            name == current || parts.iter().any(|part| name.strip_suffix(part) == Some(current.as_str()));
        assert!(own && labels.ends_with('}'), "{line} stands in {current}");
        families
            .get_mut(&current)
            .unwrap()
            .push((labels.trim_end_matches('}').to_owned(), value.parse().unwrap()));
    }
    families
}

#[test]
fn metrics_are_the_books_and_gauges_in_prometheus_form() {
    let bench = Bench::new();
    bench.capture("connection_churn", 5.0);
    let all = ["--metrics", "referee.prom", "--ledger", "l", "--store", "s", "connection_churn.pcap"];
    bench.replay(&all).exits(0);
    let page = bench.read("referee.prom");
    let families = families(&page);
    let told = include_str!("../../../docs/metrics.md");
    let untold = families.keys().find(|name| !told.contains(&format!("| `{name}` |")));
    assert_eq!(untold, None, "docs/metrics.md lists every family");
    let sum = |name: &str| families[name].iter().map(|(_, value)| value).sum::<f64>();
    let ledger = &lines(&bench.read("l"))[0];
    let number = |value: &Value| value.as_f64().unwrap();
    assert_eq!(sum("referee_received_packets_total"), number(&ledger["received"]));
    assert_eq!(sum("referee_analysed_packets_total"), number(&ledger["analysed"]));
    assert_eq!(sum("referee_kept_packets_total"), number(&ledger["kept"]));
    assert_eq!(sum("referee_written_packets_total"), number(&ledger["written"]));
    assert_eq!(sum("referee_incidents_closed_total"), number(&ledger["judge"]["incidents_closed"]));
    assert_eq!(families["referee_dropped_packets_total"][0], ("reason=\"no_socket\"".to_owned(), 0.0));
    assert_eq!(sum("referee_running"), 0.0);
    let peak = number(&ledger["judge"]["state_entries_peak"]);
    assert!(peak > 100.0 && sum("referee_state_table_entries_peak") == peak);
    let entries = sum("referee_state_table_entries");
    for of in ["referee_state_table_client_entries", "referee_state_table_service_entries"] {
        assert!((1..=10).contains(&families[of].len()) && sum(of) <= entries, "{page}");
    }
    assert!(families["referee_state_table_service_entries"][0].0.ends_with("protocol=\"tcp\""), "{page}");
    assert!(page.contains(",state=\"time_wait\"} "), "{page}");
    let timed = |page: &str, head: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(head)).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    assert!(timed(&page, "referee_connect_seconds_count ") > 100, "{page}");
    assert!(timed(&page, "referee_handshake_rtt_seconds_count{side=\"server\"}") > 100, "{page}");
    bench.capture("dns_slow", 5.0);
    let dns = bench.replay(&["--metrics", "-", "dns_slow.pcap"]).exits(0).stdout;
    assert!(timed(&dns, "referee_dns_answer_seconds_count ") > 0, "{dns}");
    let told = bench.replay(&["--metrics", "-", "connection_churn.pcap"]).exits(0);
    assert!(told.stdout.starts_with("# HELP referee_build_info "), "{}", told.stdout);
    bench.replay(&["--metrics", "l", "--ledger", "l", "connection_churn.pcap"]).exits(2).says(&["already"]);
    bench.replay(&["--metrics", "no/such/x.prom", "connection_churn.pcap"]).exits(1).says(&["can't be made"]);
}

#[test]
fn a_state_table_of_known_size_is_watched_in_a_capture() {
    let bench = Bench::new();
    bench.capture("connection_churn", 5.0);
    let told = |size: &str| {
        let set = format!("state_table_near_full.table_size={size}");
        kinds(&bench.replay(&["--set", &set, "--incidents", "-", "connection_churn.pcap"]).exits(0))
    };
    assert!(told("100").contains(&"state_table_near_full".to_owned()));
    assert_eq!(told("1_000_000"), told("0"));
}

#[test]
fn of_what_no_rule_had_counted_nothing_is_told() {
    let bench = Bench::new();
    bench.capture("connection_churn", 5.0);
    bench.file(
        "own.rhai",
        "// A RST.\nrule \"reset\" on rst when flow.rst then { incident(\"info\", \"x\"); }\n",
    );
    for (rules, counted) in [(&["--rules", "own.rhai"][..], false), (&[], true)] {
        let ran = bench.replay(&[rules, &["--ledger", "l", "connection_churn.pcap"]].concat()).exits(0);
        assert_eq!(ran.stdout.contains("entries at most in a firewall"), counted, "{}", ran.stdout);
        let ledger = &lines(&bench.read("l"))[0];
        assert_eq!(ledger["judge"]["state_entries_peak"].is_u64(), counted, "{ledger}");
        assert!(counted || ledger["judge"]["state_entries_peak"].is_null(), "{ledger}");
    }
}
