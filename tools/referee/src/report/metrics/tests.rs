//! Every account of the books is on the page, and every family is known to those who read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use dataplane::filter::Filter;
use dataplane::judge::{BodyFailure, Incident, ServiceStanding, ShadowCounts, Subject};
use dataplane::latency::RoundTrips;
use dataplane::source::live::{PortReport, QueueReport};
use rules::{Severity, SourceFile};
use serde_json::Value;

use super::*;
use crate::recording::Recorded;
use crate::report::cost::Ticking;
use crate::report::finished::Kept;
use crate::report::ledger::Ledger;

/// An incident of this kind about one flow.
pub fn incident(kind: &str) -> Incident {
    Incident {
        id: "00000000000000ab".to_owned(),
        kind: kind.to_owned(),
        rule: kind.to_owned(),
        severity: Severity::Warning,
        scope: Scope::Flow,
        subject: Subject::Flow {
            proto: "tcp".to_owned(),
            src: [10, 0, 0, 1].into(),
            sport: 40_000,
            dst: [10, 0, 0, 2].into(),
            dport: 443,
        },
        first_ns: 1_760_000_000_123_456_789,
        last_ns: 1_760_000_001_000_000_000,
        count: 3,
        flows: 1,
        flow_ids: vec!["fedcba9876543210".to_owned()],
        evidence: [("idle_s".to_owned(), 301.into())].into_iter().collect(),
        explain: "A RST came after a silence.".to_owned(),
        advise: "Raise the timeout.".to_owned(),
        tags: Vec::new(),
        rules_hash: "ab".to_owned(),
        because: Vec::new(),
        withdrawn: false,
    }
}

/// Gives every account of a struct a number of its own.
macro_rules! fill {
    ($next:ident, $account:expr; $($field:ident),* $(,)?) => {
        $( $next += 1; $account.$field = $next; )*
    };
}

fn worker(mut next: u64) -> WorkerAccount {
    let mut w = WorkerAccount::default();
    fill!(next, w; received, bytes, analysed, filtered, flows_created, flows_ended, flows_evicted, half_open_evicted,
        flows_split, handed_over, trouble_refused, apps_refused, questions_forgotten, icmp_unmatched, span_duplicates,
        fragments_followed, fragments_unmatched, fragments_evicted, siblings_evicted, connections_whole,
        connections_one_sided, history_cut, tails_rescued, tails_forgotten, tails_refused, holds_taken, holds_refused,
        holds_unanswered);
    fill!(next, w.events; raised, delivered, dropped, matched, matched_again, sampled_out, hits_overflowed,
        hits_dropped, rules_per_flow_lost, activity_lost, pairs_lost, siblings_unwatched, rows, rows_dropped);
    w.kept.kept = next + 1;
    for count in w.classes.iter_mut().chain(&mut w.dropped).chain(&mut w.kept.unwritten) {
        next += 10;
        *count = next;
    }
    let durations = RoundTrips { counts: [1; _], sum_ns: 1 };
    (w.latency.client_rtt, w.latency.server_rtt) = (durations, durations);
    w
}

fn judge(mut next: u64) -> JudgeAccount {
    let mut j = JudgeAccount::default();
    fill!(next, j; hits, hits_judged, hits_repeated, hits_refused, matches_refused, matches_overflowed, bodies_run,
        body_errors, body_deadlines, incidents_opened, incidents_closed, incidents_withdrawn, absorbed, keeps, releases,
        captures_over_budget, hosts_evicted, services_evicted, pairs_evicted, gauges_evicted, state_entries_peak,
        flows_forgotten, kept_forgotten, siblings_refused, open, switched_off_untold, bodies_left_out);
    j
}

fn writer(mut next: u64) -> WriterAccount {
    let mut w = WriterAccount::default();
    fill!(next, w; written_packets, chunks, segments, segments_abandoned, segments_deleted, bytes_deleted, bytes_written,
        incident_bytes_deleted, sync_failures, newest_ns, chunks_free);
    w
}

fn port(mut next: u64) -> PortReport {
    let mut p = PortReport { nic_clock_steps: Some(7), ..PortReport::default() };
    fill!(next, p; seen, seen_bytes, filtered, filtered_tagged, related);
    fill!(next, p.nic; rx_packets, rx_missed, rx_dropped, rx_errors);
    p.dropped.iter_mut().for_each(|count| *count = next + 1);
    for _ in 0..2 {
        let mut queue = QueueReport::default();
        fill!(next, queue; taken, unstamped, busy_polls, coalesced, after_silence, woken_late, unstamped_by_nic, frames,
            frames_with_kernel, frames_in_hand);
        fill!(next, queue.socket; rx_ring_full, rx_dropped, rx_invalid_descs, rx_fill_ring_empty_descs);
        p.queues.push(queue);
    }
    p
}

fn bodies() -> BodyBooks {
    let failure = BodyFailure {
        rule: "a".to_owned(),
        count: 2,
        overruns: 1,
        message: "it failed".to_owned(),
        switched_off: None,
        skipped: 0,
        first_ns: 1,
        last_ns: 2,
    };
    BodyBooks {
        failures: vec![failure],
        counts: vec![("a".to_owned(), "seen".to_owned(), 4242)],
        shadows: vec![(
            "b".to_owned(),
            ShadowCounts {
                matched: 51,
                would_open: 52,
                would_join: 53,
                would_capture: 54,
                samples: Vec::new(),
            },
        )],
    }
}

fn rules() -> RuleSet {
    let text = "rule \"a\" on rst then { }\nrule \"b\" on tick shadow when host.rsts(1) > 0 then { }";
    let set = RuleSet::load(&[SourceFile { name: "t.rhai".to_owned(), text: text.to_owned() }], &[]);
    let set = set.expect("it loads");
    for (number, times) in [(0, 31), (1, 32)] {
        let counters = set.counters(number).expect("a rule");
        (0..times).for_each(|_| counters.count_match());
        counters.count_run(Some(std::time::Duration::from_micros(30)));
        counters.count_failure(true);
        counters.count_failure(false);
    }
    set
}

/// A run of which every account has a number of its own.
fn finished() -> Finished {
    let report = |name: &str, next| InterfaceReport {
        name: name.to_owned(),
        capture: "AF_XDP".to_owned(),
        filter: Some(Arc::new(Filter::new("tcp", true))),
        port: port(next),
        driver: BTreeMap::new(),
    };
    let reports = vec![report("tap0", 20_000), report("tap1", 30_000)];
    let judge = judge(2000);
    let service = ServiceStanding {
        addr: [10, 0, 0, 2].into(),
        port: 443,
        proto: "tcp".to_owned(),
        states: Default::default(),
    };
    let mut troubles = Troubles::default();
    troubles.opened(&incident("rst_after_idle"));
    Finished {
        worker: worker(1000),
        live: 901,
        peak: 902,
        standing: Standing {
            entries: 5,
            peak: judge.state_entries_peak as u32,
            services: vec![service],
            clients: vec![([10, 0, 0, 1].into(), 5)],
        },
        judge,
        counted: Counted { messages: 911, rows: 912, commands_dropped: 913, reports_dropped: 914 },
        timing: Timing::default(),
        troubles,
        notified: vec![Told {
            name: "chat".to_owned(),
            sent: 941,
            failed: 942,
            dropped: 943,
            limited: 944,
            waiting: 945,
        }],
        bodies: bodies(),
        recorded: Some(Recorded { account: writer(4000), stalled: false, failures: Vec::new() }),
        chunks: (921, 922),
        inputs: Inputs::Interfaces { reports, clock_steps: 0, late: 903 },
        kept: Kept::default(),
        reloads: (931, 932),
        seconds: 1.0,
        ticking: Some(Ticking::begun()),
    }
}

/// Accounts that have no family, and why.
const NOT_SHOWN: [(&str, &str); 12] = [
    ("analysed", "the sum of its classes"),
    ("filter.filtered", "filtered"),
    ("events.raised", "the sum of what became of them"),
    ("judge.hits", "the sum of what became of them"),
    ("chunks.chunks", "a setting"),
    ("chunks.free", "known only when the writer has closed"),
    ("rules.guard_faults", "the sum of the rules'"),
    ("rules.overruns", "the sum of the rules'"),
    ("rules.failing", "the sum of its states"),
    ("interfaces.taken", "the sum of the queues'"),
    ("interfaces.queues.frames", "the sum of who has them"),
    ("interfaces.nic.driver", "has names of the driver's own, and is read at the end"),
];

fn leaves(path: &str, value: &Value, found: &mut Vec<(String, u64)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(&below(key), value, found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| leaves(&below(&at.to_string()), value, found));
        }
        Value::Number(number) => found.push((path.to_owned(), number.as_u64().expect("a count"))),
        _ => {}
    }
}

/// Without the numbers of interfaces and queues.
fn general(path: &str) -> String {
    path.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

#[test]
fn every_account_of_the_ledger_has_a_family_with_its_value() {
    let (finished, rules) = (finished(), rules());
    let ledger = serde_json::to_value(Ledger::of(&finished, &rules)).expect("an object");
    let page = page(&Sample::last(&finished, &rules));
    let shown: BTreeMap<&str, u64> = page.books.iter().map(|(path, value)| (path.as_str(), *value)).collect();
    assert_eq!(shown.len(), page.books.len(), "an account is shown twice");
    let mut accounts = Vec::new();
    leaves("", &ledger, &mut accounts);
    assert!(accounts.len() > 200, "{}", accounts.len());
    let excused = |path: &str| NOT_SHOWN.iter().any(|(name, _)| *name == general(path));
    // Of rules that have nothing to tell.
    let silent = |path: &str, value: u64| path.starts_with("rules.by_rule.") && value == 0;
    let wrong: Vec<_> = accounts
        .iter()
        .filter(|(path, value)| {
            shown.get(path.as_str()) != Some(value) && !excused(path) && !silent(path, *value)
        })
        .map(|(path, value)| format!("{path} is {value}, shown as {:?}", shown.get(path.as_str())))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let unknown: Vec<_> =
        page.books.iter().filter(|(path, _)| !accounts.iter().any(|(account, _)| account == path)).collect();
    assert!(unknown.is_empty(), "no such accounts: {unknown:?}");
}

/// A run under way, with something in every family.
fn everything() -> String {
    let (finished, rules) = (finished(), rules());
    let worker = OfWorker { account: worker(1), live: 3, history_ns: 9_500_000_000 };
    let rules_now = InForce::new(&rules, (1, 0), vec![1, 1]);
    let mut costs = cost::standing(&rules, None);
    costs.0.iter_mut().for_each(|s| (s.guard_ns, s.guard_samples, s.faults) = (Some(30.0), 4, 1));
    let store = Store { account: writer(4000), lag_ns: Some(0) };
    let requests = Requests::default();
    requests.count("GET", "/api/v1/incidents/{id}", 200, std::time::Duration::from_millis(2));
    requests.count(served::OTHER, served::OTHER, 404, std::time::Duration::ZERO);
    text(&Sample {
        running: true,
        began: Some(1_760_000_000.5),
        workers: vec![worker, worker],
        history_seconds: Some(9.5),
        store: Some(store),
        streamed: Some(Streamed::default()),
        rules: rules_now,
        costs,
        requests: Some(&requests),
        ..Sample::last(&finished, &rules)
    })
}

fn families(page: &str) -> BTreeSet<&str> {
    let heads = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    heads.filter_map(|head| head.split_once(' ')).map(|(name, _)| name).collect()
}

fn docs(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names in a text that can only be those of metrics.
fn names(text: &str) -> BTreeSet<&str> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(word).filter(|word| word.starts_with("referee_")).collect()
}

#[test]
fn a_page_is_well_formed() {
    let page = everything();
    let mut known = BTreeSet::new();
    let (mut family, mut kind) = ("", "");
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("help says something");
            assert!(text.ends_with('.') && known.insert(name), "{line}");
            family = name;
        } else if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, is) = head.split_once(' ').expect("a type");
            assert_eq!((name, is == "counter"), (family, name.ends_with("_total")), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&is), "{line}");
            kind = is;
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap_or_default();
            let parts = ["_bucket", "_sum", "_count"];
            let own = parts.iter().find_map(|part| name.strip_suffix(part)).filter(|_| kind == "histogram");
            assert_eq!(own.unwrap_or(name), family, "{line}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    let series: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    let distinct: BTreeSet<&str> =
        series.iter().filter_map(|line| line.rsplit_once(' ')).map(|s| s.0).collect();
    assert_eq!(series.len(), distinct.len(), "a series is told twice");
    if let Some(path) = std::env::var_os("REFEREE_METRICS_PAGE") {
        std::fs::write(path, &page).expect("the page can be written");
    }
}

#[test]
fn every_family_is_documented_and_nothing_else() {
    let page = everything();
    let told = docs("metrics.md");
    let rows = told.lines().filter_map(|line| line.strip_prefix("| `referee_"));
    let documented: BTreeSet<String> = rows
        .flat_map(|row| row.split(" | ").next().unwrap_or_default().split('`').map(str::to_owned))
        .filter(|name| !name.is_empty() && !name.starts_with(','))
        .map(|name| format!("referee_{}", name.trim_start_matches("referee_")))
        .collect();
    let real: BTreeSet<String> = families(&page).into_iter().map(str::to_owned).collect();
    let untold: Vec<_> = real.difference(&documented).collect();
    let unreal: Vec<_> = documented.difference(&real).collect();
    assert!(untold.is_empty() && unreal.is_empty(), "not documented: {untold:#?}, not there: {unreal:#?}");
}

#[test]
fn alerts_and_the_dashboard_ask_for_what_there_is() {
    let page = everything();
    let real = families(&page);
    let exists = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        real.contains(name) || base.is_some_and(|base| real.contains(base))
    };
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/referee.json"] {
        let text = docs(file);
        let unreal: Vec<_> = names(&text).into_iter().filter(|name| !exists(name)).collect();
        assert!(names(&text).len() > 5 && unreal.is_empty(), "{file} asks for {unreal:?}");
    }
    let dashboard: Value = serde_json::from_str(&docs("grafana/referee.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "a panel's id is used twice");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        assert!(panel["targets"][0]["expr"].is_string(), "{panel}");
    }
}
