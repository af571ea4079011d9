//! What is wrong with a call, a file or a rule is said, with the exit code of its class.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

mod common;

use common::Bench;

const RULE: &str = "rule \"r\" on rst\nwhen flow.establishd\nthen { capture(flow); }\n";

#[test]
fn wrong_usage_exits_2() {
    let bench = Bench::new();
    bench.capture("healthy", 1.0);
    bench.run(&[]).exits(2);
    bench.run(&["nonsense"]).exits(2).says(&["unrecognized subcommand"]);
    bench.run(&["replay"]).exits(2).says(&["FILE"]);
    bench.replay(&["--nonsense", "healthy.pcap"]).exits(2);
    bench.replay(&["--workers", "2", "healthy.pcap"]).exits(2).says(&["one worker", "help: "]);
    bench.replay(&["--set", "rst_after_idle", "healthy.pcap"]).exits(2).says(&["RULE.PARAM=VALUE"]);
    bench.replay(&["-", "-"]).exits(2).says(&["named twice"]);
    bench.run(&["captures", "list"]).exits(2).says(&["--store"]);
    bench.run(&["store", "verify"]).exits(2).says(&["no store is named", "--store DIR"]);
    bench.run(&["captures", "list", "--store", "s", "--since", "yesterday"]).exits(2).says(&["15m"]);
    bench.run(&["captures", "list", "--store", "s", "--flow", "1"]).exits(2).says(&["16 hexadecimal"]);
    let both = ["captures", "get", "--store", "s", "--host", "::1", "--incident", "a"];
    bench.run(&both).exits(2).says(&["cannot be used with"]);
    bench.run(&["--version"]).exits(0);
}

#[test]
fn wrong_settings_exit_2_with_line_and_nearest_key() {
    let bench = Bench::new();
    let capture = bench.capture("healthy", 1.0);
    bench.file("wrong.toml", "[worker]\nflwos = 5\n");
    let capture = capture.to_str().unwrap();
    let said = ["wrong.toml:2:1", "flwos", "did you mean `flows`?"];
    bench.run(&["replay", "--config", "wrong.toml", capture]).exits(2).says(&said);
    bench.run(&["config", "check", "--config", "wrong.toml"]).exits(2).says(&said);
    bench.run(&["replay", "--config", "none.toml", capture]).exits(2).says(&["none.toml", "No such file"]);
    bench.run(&["config", "check", "--config", "small.toml"]).exits(0);
    bench.file("param.toml", "[rules.rst_after_idle]\nidle_sm = 5\n");
    let said = ["param.toml:2:1", "did you mean `rst_after_idle.idle_ms`?"];
    bench.run(&["replay", "--config", "param.toml", capture]).exits(2).says(&said);
    bench.run(&["config", "check", "--config", "param.toml"]).exits(2).says(&said);
    let set = bench.replay(&["--set", "rst_after_idel.idle_ms=5", capture]).exits(2);
    set.says(&["--set: there is no rule", "did you mean `rst_after_idle`?"]);
    bench.replay(&["--set", "rst_after_idle.idle_ms=long", capture]).exits(2).says(&["is an integer"]);
}

#[test]
fn where_rules_come_from_is_said_of_each() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("own")).unwrap();
    bench.file("own/a.rhai", "rule \"own_a\" on rst\nthen { incident(\"info\", \"a\"); }\n");
    let said = |library: &str| {
        bench.file("c.toml", format!("[rules]\ndir = \"own\"\n{library}"));
        bench.run(&["config", "check", "--config", "c.toml"]).exits(0).stdout
    };
    assert!(said("").contains("\nrules: 1 (own), 0 set\n"), "{}", said(""));
    let both = said("library = true\n");
    assert!(
        both.contains(" (shipped, and 1 file of own), 0 set\n") && !both.contains("rules: 1 ("),
        "{both}"
    );
}

#[test]
fn cpus_that_are_not_there_are_told_and_not_run_on() {
    let bench = Bench::new();
    bench.file("c.toml", "[capture]\ncores = [9999]\n");
    let said = ["c.toml:2:9: `cores` names CPU 9999", "it can have [0"];
    bench
        .run(&["config", "check", "--config", "c.toml"])
        .exits(0)
        .says(&said)
        .says(&["`run` refuses to start here"]);
    let run = ["run", "-i", "lo", "--mode", "afpacket", "--config", "c.toml", "--duration", "1"];
    bench.run(&run).exits(2).says(&said);
}

#[test]
fn a_filter_that_leaves_out_all_says_so_in_the_summary() {
    let bench = Bench::new();
    bench.capture("healthy", 1.0);
    let ran = bench.replay(&["--filter", "host 192.0.2.99", "healthy.pcap"]);
    if ran.stderr.contains("no libpcap on this host") {
        return;
    }
    let ran = ran.exits(0);
    assert!(
        ran.stdout.contains(", none of them analysed\n") && !ran.stdout.contains("(0 bytes)"),
        "{}",
        ran.stdout
    );
}

/// Before anything is taken: a host that runs out of memory kills something, and not always this.
#[test]
fn a_run_that_the_host_has_no_memory_for_is_refused() {
    let bench = Bench::new();
    bench.file("large.toml", "[capture]\nworkers = 256\n[worker]\nhistory_mib = 65536\n");
    let args = ["run", "-i", "lo", "--mode", "afpacket", "--config", "large.toml", "--duration", "1"];
    bench.run(&args).exits(2).says(&["256 workers and 1 queue would fill 167772", "MiB are free", "help: "]);
}

#[test]
fn wrong_rules_exit_2_and_all_mistakes_are_named() {
    let bench = Bench::new();
    bench.capture("healthy", 1.0);
    std::fs::create_dir(bench.path("rules")).unwrap();
    bench
        .replay(&["--rules", "rules", "healthy.pcap"])
        .exits(2)
        .says(&["rules: this folder holds no rule files"]);
    bench.replay(&["--rules", "none", "healthy.pcap"]).exits(2).says(&["none: can't be read"]);
    // Beside the shipped ones there may be none.
    bench.file("beside.toml", "[rules]\ndir = \"rules\"\nlibrary = true\n");
    bench.run(&["replay", "--config", "beside.toml", "healthy.pcap"]).exits(0);
    let checked = bench.run(&["config", "check", "--config", "beside.toml"]).exits(0).stdout;
    assert!(checked.contains("(shipped, and 0 files of "), "{checked}");
    bench.file("rules/a.rhai", RULE);
    bench.file("rules/b.rhai", "rule \"b\" on rstt\nthen { }\n");
    let said = [
        "2 mistakes",
        "rules/a.rhai:2:",
        "rules/b.rhai:1:13: there is no event `rstt`",
        "help: did you mean `rst`?",
    ];
    bench.replay(&["--rules", "rules", "healthy.pcap"]).exits(2).says(&said);
    bench.run(&["rules", "check", "rules"]).exits(2).says(&said);
    bench.run(&["rules", "check", "rules/b.rhai"]).exits(2).says(&["1 mistake in"]);
    let lines = bench.run(&["rules", "check", "--json", "rules"]).exits(2).json();
    assert_eq!((lines.len(), &lines[2]["summary"]["mistakes"]), (3, &2.into()));
    assert_eq!(lines[1]["file"], "rules/b.rhai");
    assert_eq!((&lines[1]["line"], &lines[1]["column"]), (&1.into(), &13.into()));
    assert_eq!(lines[1]["help"], "did you mean `rst`?");
    bench.file("rules/c.rhai", b"// na\xefve\n");
    let three =
        ["3 mistakes", "rules/a.rhai:2:", "rules/b.rhai:1:13", "rules/c.rhai:1:6: can't be read", "UTF-8"];
    bench.run(&["rules", "check", "rules"]).exits(2).says(&three);
    std::fs::remove_file(bench.path("rules/c.rhai")).unwrap();
    bench.file("rules/a.rhai", RULE.replace("establishd", "established"));
    let good = bench.run(&["rules", "check", "rules/a.rhai"]).exits(0);
    assert!(good.stdout.contains("1 rule in 1 file, no mistakes"), "{}", good.stdout);
    assert!(good.stdout.contains("flow rule on rst") && good.stdout.contains("captures"), "{}", good.stdout);
}

#[test]
fn a_run_is_asked_in_the_right_words_and_must_be_there() {
    let bench = Bench::new();
    let away = ["--socket", "away.sock"];
    let ask = |args: &[&str]| bench.run(&[&["rules"], args, &away].concat());
    let nobody = ["nobody answers at away.sock", "is `referee run` under way?"];
    ask(&["list", "--live"]).exits(1).says(&nobody);
    ask(&["list", "--live", "--json"]).exits(1).says(&nobody);
    ask(&["shadow", "rst_after_idle", "on"]).exits(1).says(&nobody);
    ask(&["enable", "rst_after_idle", "off", "--json"]).exits(1).says(&nobody);
    ask(&["shadow", "rst_after_idle", "maybe"]).exits(2).says(&["[possible values: on, off]"]);
    ask(&["shadow", "rst_after_idle"]).exits(2).says(&["<STATE>"]);
    ask(&["list", "--live", "--rules", "r"]).exits(2).says(&["cannot be used with"]);
    ask(&["list"]).exits(2).says(&["--live"]);
    bench.run(&["rules", "list", "--json"]).exits(0);
    let help = bench.run(&["rules", "shadow", "--help"]).exits(0).stdout;
    assert!(help.contains("until that run ends") && help.contains("rules list --live"), "{help}");
}

#[test]
fn rules_list_shows_events_facts_and_rules() {
    let bench = Bench::new();
    let list = bench.run(&["rules", "list"]).exits(0).stdout;
    for word in
        ["syn_timeout", "flow.idle_before_ms", "host.rsts(window)", "rst_after_idle", "flow rule on rst"]
    {
        assert!(list.contains(word), "{word} is not in {list}");
    }
    for word in ["A segment with the RST flag was seen.", "advise(text)", "idle_ms = 10000", "of all traffic"]
    {
        assert!(list.contains(word), "{word} is not in {list}");
    }
    let set = ["rules", "list", "--json", "--set", "rst_after_idle.idle_ms=9"];
    let all = bench.run(&set).exits(0).json().remove(0);
    let find = |list: &str, key: &str, name: &str| {
        all[list].as_array().unwrap().iter().find(|entry| entry[key] == name).unwrap().clone()
    };
    assert_eq!(find("rules", "rule", "rst_after_idle")["params"]["idle_ms"], 9);
    assert_eq!(find("facts", "name", "host.rsts")["window"], true);
    assert_eq!(find("events", "name", "rst")["meaning"], "A segment with the RST flag was seen.");
    assert_eq!(find("functions", "name", "advise")["usage"], "advise(text)");
}

#[test]
fn what_is_no_capture_exits_3() {
    let bench = Bench::new();
    bench.capture("healthy", 1.0);
    bench.file("empty.pcap", "");
    bench.file("text.pcap", "hello, world, this is not a capture");
    bench.replay(&["missing.pcap"]).exits(3).says(&["missing.pcap", "no such file"]);
    bench.replay(&["empty.pcap"]).exits(3).says(&["empty.pcap", "is empty"]);
    bench.replay(&["healthy.pcap", "text.pcap", "--flows", "f"]).exits(3).says(&["text.pcap"]);
    assert!(!bench.path("f").exists(), "nothing is made before the inputs are known to be good");
    bench.replay(&["."]).exits(3).says(&["directory"]);
}

#[test]
fn an_output_that_cannot_be_made_exits_1_and_inputs_are_safe() {
    let bench = Bench::new();
    let capture = bench.capture("healthy", 1.0);
    let before = std::fs::read(&capture).unwrap();
    bench.replay(&["--flows", "no/such/f", "healthy.pcap"]).exits(1).says(&["--flows no/such/f", "help: "]);
    bench.replay(&["--flows", "healthy.pcap", "healthy.pcap"]).exits(2).says(&["an input"]);
    bench.replay(&["--flows", "./healthy.pcap", "healthy.pcap"]).exits(2);
    bench.replay(&["--flows", "x", "--incidents", "./x", "healthy.pcap"]).exits(2).says(&["another output"]);
    assert!(std::fs::read(&capture).unwrap() == before);
    bench.file("plain", "");
    bench.replay(&["--store", "plain", "healthy.pcap"]).exits(1).says(&["plain"]);
    bench.replay(&["--store", "no/such", "healthy.pcap"]).exits(1).says(&["parent folder must exist"]);
}
