//! `replay --filter`: what passes, what is said of what doesn't, and what is wrong with an expression.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use common::{Bench, lines};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::captures;
use wiregen::scenario::Options;

/// A bench with a capture of this scenario, `c.pcap`; `None` without libpcap.
fn bench(scenario: &str, options: &Options) -> Option<Bench> {
    let bench = Bench::new();
    let (packets, _) = captures::scenario(scenario, options);
    bench.file("c.pcap", captures::file(&packets, captures::NANOS));
    let ran = bench.replay(&["--filter", "ip", "c.pcap"]);
    let missing = ran.stderr.contains("no libpcap on this host");
    if missing {
        println!("skipped: no libpcap on this host");
    }
    (!missing).then_some(bench)
}

fn books(bench: &Bench, args: &[&str]) -> Value {
    let all = [&["--ledger", "l", "--flows", "f", "--incidents", "i"], args, &["c.pcap"]].concat();
    bench.replay(&all).exits(0);
    let books: Value = serde_json::from_str(&bench.read("l")).unwrap();
    assert_eq!(books["balanced"], true, "{books}");
    books
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn kinds(bench: &Bench) -> Vec<String> {
    lines(&bench.read("i")).iter().map(|incident| incident["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_filter_has_its_own_account() {
    let Some(bench) = bench("healthy", &Options::default()) else { return };
    let whole = books(&bench, &[]);
    assert_eq!(whole["filter"], Value::Null);
    let flows = lines(&bench.read("f"));
    let host = flows[0]["flow"]["src"].as_str().unwrap().to_owned();
    let of_host =
        flows.iter().filter(|row| [&row["flow"]["src"], &row["flow"]["dst"]].contains(&&Value::from(&*host)));
    let of_host = of_host.count();
    let books = books(&bench, &["--filter", &format!("host {host}")]);
    assert_eq!(books["received"], whole["received"]);
    let filtered = number(&books["filtered"]);
    assert!(filtered > 0 && number(&books["analysed"]) > 0, "{books}");
    assert_eq!(number(&books["received"]), filtered + number(&books["analysed"]));
    assert_eq!(books["filter"]["filtered"], filtered);
    assert_eq!(books["filter"]["exact"], false);
    assert_eq!(books["inputs"][0]["packets"], whole["received"]);
    assert_eq!(lines(&bench.read("f")).len(), of_host);
}

#[test]
fn what_speaks_of_a_wanted_flow_is_not_filtered_away() {
    let Some(bench) = bench("icmp_ignored", &Options::default()) else { return };
    let whole = books(&bench, &[]);
    assert!(kinds(&bench).contains(&"icmp_ignored".to_owned()), "{whole}");
    let related = books(&bench, &["--filter", "tcp"]);
    assert!(number(&related["filter"]["related"]) > 0, "{related}");
    assert!(kinds(&bench).contains(&"icmp_ignored".to_owned()), "{related}");
    let exact = books(&bench, &["--filter", "tcp", "--filter-exact"]);
    assert_eq!(exact["filter"]["related"], 0);
    assert!(!kinds(&bench).contains(&"icmp_ignored".to_owned()), "{exact}");
    assert_eq!(
        number(&exact["filtered"]),
        number(&related["filtered"]) + number(&related["filter"]["related"])
    );
}

/// An expression that libpcap has to optimise as a whole.
fn long() -> String {
    let host = |n: u32| format!("host 10.{}.{}.{}", n / 256, n % 256, n * 7 % 256);
    format!("tcp and ({})", (0..2500).map(host).collect::<Vec<_>>().join(" or "))
}

#[test]
fn a_filter_that_takes_long_is_said_and_can_be_interrupted() {
    let Some(bench) = bench("healthy", &Options::default()) else { return };
    let long = long();
    for args in [
        &["replay", "--filter", &long, "c.pcap"][..],
        &["run", "-i", "lo", "--mode", "afpacket", "--filter", &long, "--socket", "s"],
    ] {
        let mut child = bench.command(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let told = said.lines().map_while(Result::ok).find(|line| line.contains("compiling the filter…"));
        assert!(told.is_some(), "it compiled without a word");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert!(!child.wait().unwrap().success(), "it was interrupted");
    }
}

#[test]
fn a_long_list_of_hosts_is_refused_or_compiled_without_ado() {
    let Some(bench) = bench("healthy", &Options::default()) else { return };
    let hosts =
        |count: u32| (0..count).map(|n| format!("host 10.0.{}.{}", n / 256, n % 256)).collect::<Vec<_>>();
    let books = books(&bench, &["--filter", &hosts(600).join(" or ")]);
    assert_eq!(
        number(&books["received"]),
        number(&books["filtered"]) + number(&books["analysed"]),
        "{books}"
    );
    let too_long = bench.replay(&["--filter", &hosts(5000).join(" or "), "c.pcap"]).exits(2);
    too_long.says(&["--filter: the expression can't be used: it is too long", "at most 4096", "help: "]);
}

#[test]
fn a_tag_that_hides_what_is_wanted_is_told() {
    let Some(bench) = bench("healthy", &Options { vlan: [5, 0], ..Options::default() }) else { return };
    let told = bench.replay(&["--filter", "tcp", "c.pcap"]).exits(0);
    told.says(&["filtered packets have a VLAN tag", "try --filter 'tcp or (vlan and (tcp))'"]);
    let books = books(&bench, &["--filter", "tcp or (vlan and (tcp))"]);
    assert!(number(&books["classes"]["tcp"]) > 0, "{books}");
    assert!(!bench.replay(&["--filter", "vlan and tcp", "c.pcap"]).stderr.contains("VLAN tag"));
}

#[test]
fn a_wrong_filter_exits_2_in_libpcaps_words() {
    let Some(bench) = bench("healthy", &Options::default()) else { return };
    let wrong = bench.replay(&["--filter", "hots 10.0.0.1", "c.pcap"]).exits(2);
    wrong.says(&["--filter: can't parse filter expression: syntax error", "help: ", "pcap-filter(7)"]);
    let out_of_range = bench.replay(&["--filter", "port 99999", "c.pcap"]).exits(2);
    out_of_range.says(&["--filter: "]);
    bench.replay(&["--filter", "inbound", "c.pcap"]).exits(2).says(&["what packets don't show"]);
    bench.replay(&["--filter-exact", "c.pcap"]).exits(2).says(&["--filter <EXPR>"]);
    // Before an interface is looked for.
    let run = ["run", "-i", "nonesuch", "--filter"];
    bench.run(&[&run[..], &["hots 10.0.0.1"]].concat()).exits(2).says(&["syntax error"]);
    bench.run(&[&run[..], &["ip6 protochain 6"]].concat()).exits(2).says(&["protochain", "help: "]);
    bench.replay(&["--filter", "ip6 protochain 6", "c.pcap"]).exits(0);
}
