//! Where no rule can match on an ordinary SYN-ACK, rules are not asked about it. A rule that can has all of them asked: the
//! others must say the same then, and it must match at each.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::sync::Arc;

use dataplane::config::WorkerConfig;
use rules::{RuleSet, SourceFile};
use tests::captures::{self, NG};
use tests::run::load;
use tests::{Outcome, Pipeline, Setup};
use wiregen::scenario::{NAMES, Options};

const EACH: &str =
    "rule \"each\" on syn_ack when flow.syn_acks > 0 then { incident(\"info\", `an answer`); }";

fn run(file: &[u8], rules: &Arc<RuleSet>) -> Outcome {
    let setup = Setup::with(WorkerConfig::small(), Arc::clone(rules));
    Pipeline::new(captures::opened(file.to_vec()), setup).run()
}

/// What the shipped rules say; not the contrast with flows that went well, as one that a rule matches is none.
fn told(outcome: &Outcome) -> Vec<String> {
    let incidents = outcome.incidents.iter().filter(|incident| incident.kind != "each");
    incidents
        .map(|incident| {
            let mut evidence = incident.evidence.clone();
            evidence.remove("apart");
            format!("{} {:?} {} {evidence:?}", incident.kind, incident.severity, incident.first_ns)
        })
        .collect()
}

#[test]
fn what_is_not_asked_would_not_have_been_answered() {
    let mut files = rules::library();
    let shipped = load(&files, &[]);
    files.push(SourceFile { name: "each.rhai".into(), text: EACH.into() });
    let asking = load(&files, &[]);
    assert!(!shipped.asks_ordinary_syn_acks() && asking.asks_ordinary_syn_acks());
    let mut answers = 0;
    for name in NAMES {
        let file = captures::file(&captures::scenario(name, &Options::default()).0, NG);
        let (skipped, asked) = (run(&file, &shipped), run(&file, &asking));
        assert_eq!(told(&skipped), told(&asked), "{name}");
        for row in &asked.rows {
            let row = serde_json::to_value(row).unwrap();
            let seen = |side: &str| row[side]["syn_ack"].as_u64().unwrap_or(0);
            let matched = row["findings"]["each"].as_u64().unwrap_or(0);
            assert_eq!(matched > 0, seen("orig") + seen("resp") > 0, "{name}: {row}");
            answers += matched;
        }
    }
    assert!(answers > 500, "{answers}");
}
