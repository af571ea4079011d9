//! Rules that change while packets flow: each hit is judged by the set whose guard matched, and nothing that was known
//! before is lost.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::judge::message::{Hit, Message};
use dataplane::judge::{Judge, JudgeConfig};
use dataplane::source::Source;
use dataplane::worker::Step;
use rules::facts::FlowFacts;
use rules::{Event, RuleSet, SourceFile};
use tests::{Outcome, Pipeline, Setup, captures, run};
use wiregen::scenario::{Options, Packet};

const SECOND: u64 = 1_000_000_000;

fn file(text: &str) -> Vec<SourceFile> {
    vec![SourceFile { name: "r.rhai".to_owned(), text: text.to_owned() }]
}

fn telling(word: &str) -> Vec<SourceFile> {
    file(&format!("rule \"r\" on rst then {{ incident(\"info\", `{word}`); }}"))
}

fn resets() -> Vec<Packet> {
    captures::scenario("rst_midflow", &Options { seed: 3, flows: Some(200), ..Options::default() }).0
}

fn pipeline(packets: &[Packet], files: &[SourceFile]) -> Pipeline<impl Source> {
    let setup = Setup::with(WorkerConfig::small(), run::load(files, &[]));
    Pipeline::new(captures::synthetic(packets), setup)
}

/// Runs to the end; what `before` does comes before each step.
fn drive<S: Source>(mut pipeline: Pipeline<S>, mut before: impl FnMut(usize, &mut Pipeline<S>)) -> Outcome {
    for number in 0.. {
        before(number, &mut pipeline);
        let step = pipeline.worker.step();
        pipeline.hear(usize::MAX);
        if step == Step::Done {
            break;
        }
    }
    pipeline.finish()
}

#[test]
fn a_set_that_stays_the_same_leaves_no_trace() {
    let (packets, _) = captures::mix_of(500, 5);
    let still = drive(pipeline(&packets, &rules::library()), |_, _| {});
    let stirred = drive(pipeline(&packets, &rules::library()), |number, pipeline| {
        if number % 7 == 0 {
            pipeline.reload(&rules::library());
        }
    });
    assert!(!still.incidents.is_empty() && still.opened == stirred.opened);
    assert_eq!(still.incidents, stirred.incidents);
    let rows = |outcome: &Outcome| serde_json::to_string(&outcome.rows).unwrap();
    assert!(rows(&still) == rows(&stirred));
}

#[test]
fn an_incident_names_the_set_whose_rule_made_it() {
    // Incidents that close soon, so that there are many.
    let judge = JudgeConfig { settle: 0, quiet: SECOND / 10, ..JudgeConfig::default() };
    let setup = Setup::with(WorkerConfig::small(), run::load(&telling("0"), &[]));
    let pipeline = Pipeline::new(captures::synthetic(&resets()), Setup { judge, ..setup });
    let mut words = Vec::new();
    let outcome = drive(pipeline, |number, pipeline| {
        if number == 0 {
            words.push((pipeline.rules().hash().to_owned(), "0".to_owned()));
        } else if number % 3 == 0 {
            let word = number.to_string();
            words.push((pipeline.reload(&telling(&word)).hash().to_owned(), word));
        }
    });
    let mut hashes: Vec<&str> = Vec::new();
    for incident in outcome.opened.iter().chain(&outcome.incidents) {
        let word = words.iter().find(|(hash, _)| *hash == incident.rules_hash).map(|(_, word)| word.as_str());
        let said = incident.explain.split(|c: char| !c.is_ascii_digit()).next();
        assert_eq!(said, word, "{incident:?}");
        hashes.push(&incident.rules_hash);
    }
    hashes.dedup();
    assert!(hashes.len() > 2, "{hashes:?}");
}

#[test]
fn a_rule_that_is_taken_away_finds_nothing_more_and_what_it_found_keeps_its_name() {
    let packets = resets();
    let all = drive(pipeline(&packets, &telling("x")), |_, _| {});
    let found = |outcome: &Outcome| outcome.rows.iter().filter(|row| row.findings.contains_key("r")).count();
    let half = drive(pipeline(&packets, &telling("x")), |_, pipeline| {
        if pipeline.worker.account().received as usize > packets.len() / 2
            && pipeline.rules().generation() == 1
        {
            pipeline.reload(&file("rule \"other\" on syn_ack then { }"));
        }
    });
    assert!(found(&half) > 0 && found(&half) < found(&all), "{} {}", found(&half), found(&all));
    assert!(half.rows.iter().any(|row| row.findings.contains_key("other")));
    // An incident that was open closes, with all it had.
    assert!(half.incidents.iter().all(|incident| incident.kind == "r") && !half.incidents.is_empty());
}

#[test]
fn without_room_for_the_note_the_worker_keeps_its_set() {
    let many = file("rule \"r\" on syn, syn_ack, established, retransmission, close then { }");
    let setup = Setup::with(WorkerConfig::small(), run::load(&many, &[]));
    let config = WorkerConfig { messages: 512, lossless: false, ..setup.config };
    let (packets, _) = captures::mix_of(500, 6);
    let mut pipeline = Pipeline::new(captures::synthetic(&packets), Setup { config, ..setup });
    while pipeline.worker.account().events.dropped == 0 {
        assert_ne!(pipeline.worker.step(), Step::Done, "the queue fills up");
    }
    pipeline.reload(&telling("x"));
    for _ in 0..5 {
        pipeline.worker.step();
        assert_eq!(pipeline.live(), 1);
    }
    pipeline.hear(usize::MAX);
    pipeline.worker.step();
    assert_eq!(pipeline.live(), 2);
    drive(pipeline, |_, _| {});
}

#[test]
fn of_two_workers_each_is_judged_by_its_own_set() {
    let load = |previous, files: &[SourceFile]| Arc::new(RuleSet::load_after(previous, files, &[]).unwrap());
    let first = load(None, &telling("1"));
    let second = load(Some(&first), &telling("2"));
    let third = load(Some(&second), &telling("3"));
    let mut judge = Judge::new(Arc::clone(&first), JudgeConfig::default());
    judge.hears(2);
    let (mut commands, mut flow_id) = (Vec::new(), 0);
    let mut hit = |judge: &mut Judge, worker| {
        flow_id += 1;
        let dst = std::net::Ipv4Addr::from_bits(0x0a00_0000 + flow_id as u32).into();
        let facts = FlowFacts { flow_id, dst, now_ns: SECOND + flow_id, proto: 6, ..FlowFacts::default() };
        let hit =
            Hit { rule: 0, event: Event::Rst, worker, sequence: flow_id, packet: None, held: false, facts };
        judge.handle(&Message::Hit(hit), &mut commands);
    };
    hit(&mut judge, 0);
    judge.adopt(Arc::clone(&second));
    hit(&mut judge, 0);
    judge.handle(&Message::Rules { worker: 1, generation: 2 }, &mut Vec::new());
    hit(&mut judge, 1);
    hit(&mut judge, 0);
    judge.adopt(Arc::clone(&third));
    hit(&mut judge, 1);
    hit(&mut judge, 0);
    judge.handle(&Message::Rules { worker: 0, generation: 3 }, &mut Vec::new());
    hit(&mut judge, 0);
    assert_eq!(Arc::strong_count(&first), 1, "nobody can speak of the first any more");
    hit(&mut judge, 1);
    judge.handle(&Message::Rules { worker: 1, generation: 3 }, &mut Vec::new());
    hit(&mut judge, 1);
    assert_eq!(Arc::strong_count(&second), 1);
    judge.finish(&mut commands);
    let said = judge.closed().into_iter().map(|incident| (incident.explain, incident.rules_hash));
    let sets = [&first, &second, &third];
    let expected = [1, 1, 2, 1, 2, 1, 3, 2, 3].map(|n: usize| (n.to_string(), sets[n - 1].hash().to_owned()));
    assert_eq!(said.collect::<Vec<_>>(), expected);
}

#[test]
fn what_a_rule_had_nothing_to_say_of_is_judged_by_its_next_text() {
    let quiet = file("rule \"r\" on rst then { }");
    let first = Arc::new(RuleSet::load(&quiet, &[]).unwrap());
    let again = Arc::new(RuleSet::load_after(Some(&first), &[&quiet[..], &other()].concat(), &[]).unwrap());
    let second = Arc::new(RuleSet::load_after(Some(&again), &telling("2"), &[]).unwrap());
    let third = Arc::new(RuleSet::load_after(Some(&second), &telling("3"), &[]).unwrap());
    let mut judge = Judge::new(Arc::clone(&first), JudgeConfig::default());
    let (mut commands, mut sequence) = (Vec::new(), 0);
    let mut judged_after = |judge: &mut Judge, set: Option<&Arc<RuleSet>>| {
        if let Some(set) = set {
            judge.adopt(Arc::clone(set));
            judge.handle(&Message::Rules { worker: 0, generation: set.generation() }, &mut commands);
        }
        sequence += 1;
        let facts = FlowFacts { flow_id: 1, now_ns: SECOND + sequence, proto: 6, ..FlowFacts::default() };
        let hit = Hit { rule: 0, event: Event::Rst, worker: 0, sequence, packet: None, held: false, facts };
        judge.handle(&Message::Hit(hit), &mut commands);
        judge.account().hits_judged
    };
    let sets = [None, None, Some(&again), Some(&second), None, Some(&third)];
    let judged = sets.map(|set| judged_after(&mut judge, set));
    assert_eq!(judged, [1, 1, 1, 2, 2, 2]);
    judge.finish(&mut Vec::new());
    let closed = judge.closed();
    assert_eq!((closed.len(), closed[0].count, closed[0].explain.as_str()), (1, 3, "2"));
    assert_eq!(closed[0].rules_hash, second.hash());
}

fn other() -> Vec<SourceFile> {
    vec![SourceFile { name: "other.rhai".to_owned(), text: "rule \"other\" on syn then { }".to_owned() }]
}

#[test]
fn a_rule_that_was_switched_off_gets_its_chance_when_its_text_changes() {
    let packets = resets();
    let failing = |more: &str| file(&format!("{more}\nrule \"r\" on rst then {{ throw \"x\"; }}"));
    let setup = Setup::with(WorkerConfig::small(), run::load(&failing(""), &[]));
    let judge = JudgeConfig { failures_before_off: 2, ..setup.judge };
    let mut pipeline = Pipeline::new(captures::synthetic(&packets), Setup { judge, ..setup });
    let off = |pipeline: &Pipeline<_>| {
        pipeline.judge.bodies().failures.iter().any(|failure| failure.switched_off.is_some())
    };
    while !off(&pipeline) {
        assert_ne!(pipeline.worker.step(), Step::Done);
        pipeline.hear(usize::MAX);
    }
    pipeline.reload(&failing("rule \"other\" on syn_ack then { }"));
    assert!(off(&pipeline), "the same rule has had its chance");
    pipeline.reload(&telling("x"));
    assert!(!off(&pipeline));
    assert!(!drive(pipeline, |_, _| {}).incidents.is_empty());
}
