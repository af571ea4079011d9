//! The judge as a whole, fed with messages as a worker would send them. Test code: any thread, no input but
//! its own; the rules are small ones of its own, so that the shipped thresholds can move.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rules::event::Event;
use rules::facts::{FlowFacts, Side};
use rules::{Hits, SourceFile};
use serde_json::{Value, json};

use super::message::{CaptureLimits, Dealing, Entries, StateChanges, WatchFlows, Whose};
use super::*;

const RULES: &str = r#"
rule "midflow" on rst
when flow.established
then {
    evidence("idle_ms", flow.idle_before_ms);
    incident("warning", `RST after ${flow.idle_before_ms} ms`);
    advise("look at the path");
    advise("and at the server");
    capture(flow);
}

rule "any_rst" on rst
when flow.dport == 8443
then {
    incident("info", "a RST");
}

rule "unanswered" on syn_timeout
then {
    incident("warning", "no answer");
    capture(flow);
}

rule "failing" on zero_window
then {
    let zero = flow.dport - flow.dport;
    let broken = 1 / zero;
    incident("info", "never reached");
}

rule "only_capture" on keepalive
then {
    capture(flow);
}

rule "storm" on tick
when host.rsts(1) >= 50
then {
    evidence("peak", host.rsts(1));
    incident("critical", `${host.rsts(1)} RSTs in a second`);
}

rule "flood" on tick
when service.syns(10) >= 20
then {
    incident("critical", "flooded");
}
"#;

const MS: Nanos = 1_000_000;
const SEC: Nanos = 1000 * MS;
/// Any moment will do; this one is not round.
const START: Nanos = 1_700_000_000 * SEC;
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// A worker that reports to a judge, and what came back.
struct Bench {
    judge: Judge,
    names: BTreeMap<String, u16>,
    clock: Nanos,
    sequence: u64,
    held: u64,
    commands: Vec<Command>,
}

impl Bench {
    fn new(config: JudgeConfig) -> Bench {
        Bench::with(&[SourceFile { name: "test.rhai".into(), text: RULES.into() }], config)
    }

    fn with(files: &[SourceFile], config: JudgeConfig) -> Bench {
        let rules = RuleSet::load(files, &[]).expect("the rules are right");
        let names = rules.rules().iter().zip(0..).map(|(meta, at)| (meta.name.clone(), at)).collect();
        let mut judge = Judge::new(Arc::new(rules), config);
        judge.handle(&Message::Tick(START), &mut Vec::new());
        Bench { judge, names, clock: START, sequence: 0, held: 0, commands: Vec::new() }
    }

    /// Ticks up to `at`, as a worker does before it passes on a packet of that time.
    fn until(&mut self, at: Nanos) {
        while self.clock + BUCKET_NS <= at {
            self.clock += BUCKET_NS;
            self.judge.handle(&Message::Tick(self.clock), &mut self.commands);
        }
    }

    fn hit(&mut self, rule: &str, event: Event, facts: FlowFacts) {
        self.until(facts.now_ns);
        self.sequence += 1;
        self.held += 1;
        let rule = self.names[rule];
        let sequence = self.sequence;
        let hit = Hit { rule, event, worker: 0, sequence, packet: None, held: true, facts };
        self.judge.handle(&Message::Hit(hit), &mut self.commands);
    }

    fn rsts(&mut self, addr: IpAddr, rsts: u32) {
        let counts = Counts { rsts, cuts: rsts, ..Counts::default() };
        self.judge.handle(&Message::Host { addr, counts }, &mut self.commands);
    }

    /// One RST of `flow_id`, counted for its sender.
    fn rst(&mut self, rule: &str, facts: FlowFacts) {
        self.hit(rule, Event::Rst, facts);
        let sender = if facts.by == Some(Side::Orig) { facts.src } else { facts.dst };
        self.rsts(sender, 1);
    }

    fn finish(&mut self) -> Vec<Incident> {
        self.judge.finish(&mut self.commands);
        let closed = self.judge.closed();
        let account = self.judge.account();
        assert_eq!(account.incidents_opened, account.incidents_closed);
        assert_eq!(account.hits, account.hits_judged + account.hits_repeated + account.hits_refused);
        assert_eq!(account.open, 0);
        closed
    }

    fn keeps(&self) -> usize {
        self.commands.iter().filter(|c| matches!(c, Command::Keep { .. })).count()
    }

    /// Every held hit was answered once, and no flow was answered for that was not asked about.
    fn assert_answered(&self) {
        assert_eq!(self.commands.len() as u64, self.held);
        let account = self.judge.account();
        assert_eq!(account.keeps + account.releases, self.held);
    }
}

fn client(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + n))
}

/// A flow of client `n` to the server's port 443; the server sent the packet of time `at`.
fn flow(n: u32, at: Nanos) -> FlowFacts {
    FlowFacts {
        src: client(n),
        sport: 40_000,
        dst: SERVER,
        dport: 443,
        flow_id: u64::from(n) + 1,
        now_ns: at,
        by: Some(Side::Resp),
        established: true,
        ..FlowFacts::default()
    }
}

fn as_json(incidents: &[Incident]) -> Vec<Value> {
    incidents.iter().map(|i| serde_json::to_value(i).expect("plain data")).collect()
}

#[test]
fn unanswered_syns_to_one_service_are_one_incident() {
    let mut bench = Bench::new(JudgeConfig::default());
    for n in 0..6 {
        let at = START + u64::from(n) * 500 * MS;
        bench.hit("unanswered", Event::SynTimeout, FlowFacts { by: None, ..flow(n, at) });
        bench.hit("unanswered", Event::SynTimeout, FlowFacts { by: None, ..flow(n, at + 100 * MS) });
    }
    let closed = bench.finish();
    let [incident] = &as_json(&closed)[..] else { panic!("one incident: {closed:?}") };
    assert_eq!(incident["count"], 12);
    assert_eq!(incident["flows"], 6);
    assert_eq!(incident["flow_ids"][5], "0000000000000006");
    let subject = json!({"proto": "tcp", "src": "10.1.0.0", "sport": 40000, "dst": "10.0.0.2", "dport": 443});
    assert_eq!(incident["subject"], subject);
    assert_eq!(incident["first_ns"], START);
    assert_eq!(incident["last_ns"], START + 2600 * MS);
    let explain = "no answer … and 5 more flows to 10.0.0.2:443 between \
                   2023-11-14T22:13:20.000Z and 2023-11-14T22:13:22.600Z";
    assert_eq!(incident["explain"], explain);
    let account = bench.judge.account();
    assert_eq!((account.hits_judged, account.hits_repeated, account.bodies_run), (6, 6, 6));
    // A flow's second hit finds it kept already, and there is nothing left to say.
    assert_eq!((bench.keeps(), bench.commands.len()), (6, 6));
}

#[test]
fn a_record_has_the_contracts_fields_in_their_order() {
    let mut bench = Bench::new(JudgeConfig::default());
    bench.rst("midflow", FlowFacts { idle_before_ms: 300, ..flow(0, START) });
    bench.rst("midflow", FlowFacts { idle_before_ms: 100, ..flow(1, START) });
    let closed = bench.finish();
    let text = serde_json::to_string(&closed[0]).expect("plain data");
    let fields = [
        "id",
        "kind",
        "rule",
        "severity",
        "scope",
        "subject",
        "first_ns",
        "last_ns",
        "count",
        "flows",
        "flow_ids",
        "evidence",
        "explain",
        "advise",
        "rules_hash",
        "because",
    ];
    let mut from = 0;
    for field in fields {
        let at = text[from..].find(&format!("\"{field}\":")).expect("each field after the one before");
        from += at;
    }
    let incident = &as_json(&closed)[0];
    assert_eq!(incident.as_object().map(serde_json::Map::len), Some(fields.len()));
    assert_eq!(incident["severity"], "warning");
    assert_eq!(incident["scope"], "flow");
    assert_eq!(incident["advise"], "look at the path; and at the server");
    assert_eq!(incident["evidence"], json!({"idle_ms": {"min": 100, "max": 300}}));
    let because = json!([{"if": "flow.established", "facts": {"flow.established": true}}]);
    assert_eq!(incident["because"], because);
}

#[test]
fn a_group_shows_only_when_it_has_settled() {
    let mut bench = Bench::new(JudgeConfig::default());
    bench.rst("midflow", flow(0, START));
    bench.until(START + 1400 * MS);
    assert!(bench.judge.opened().is_empty());
    bench.until(START + 1500 * MS);
    let opened = bench.judge.opened();
    assert_eq!((opened.len(), opened[0].explain.as_str()), (1, "RST after 0 ms"));
    assert!(bench.judge.opened().is_empty(), "drained");
    assert_eq!(bench.finish()[0].id, opened[0].id);
}

#[test]
fn a_quiet_incident_closes_and_the_same_flow_opens_another() {
    let mut bench = Bench::new(JudgeConfig::default());
    bench.rst("midflow", flow(0, START));
    bench.rst("midflow", flow(0, START + 30 * SEC));
    bench.until(START + 89 * SEC);
    assert!(bench.judge.closed().is_empty());
    bench.until(START + 90 * SEC);
    let first = bench.judge.closed();
    assert_eq!((first.len(), first[0].count, first[0].flows), (1, 2, 1));
    bench.rst("midflow", flow(0, START + 95 * SEC));
    let second = bench.finish();
    assert_eq!((second.len(), second[0].count, second[0].flows), (1, 1, 1));
    assert_ne!(first[0].id, second[0].id);
    assert_eq!(bench.judge.account().incidents_opened, 2);
}

/// 5,000 RSTs of the server within a second, reported as a worker would.
fn storm(bench: &mut Bench, start: Nanos, facts: impl Fn(u32, Nanos) -> FlowFacts) {
    for n in 0..5000 {
        bench.rst("midflow", facts(n, start + u64::from(n) * 200_000));
    }
}

#[test]
fn a_storm_of_five_thousand_flows_is_one_incident() {
    let mut bench = Bench::new(JudgeConfig::default());
    storm(&mut bench, START + 20 * SEC, flow);
    bench.assert_answered();
    let closed = bench.finish();
    let [incident] = &as_json(&closed)[..] else { panic!("one incident, not {}", closed.len()) };
    assert_eq!(incident["rule"], "storm");
    assert_eq!(incident["subject"], json!({"host": "10.0.0.2"}));
    assert_eq!((&incident["count"], &incident["flows"]), (&json!(5000), &json!(5000)));
    assert_eq!(incident["flow_ids"].as_array().map(Vec::len), Some(100));
    assert_eq!(incident["first_ns"], START + 20 * SEC);
    assert_eq!(incident["last_ns"], START + 21 * SEC);
    assert_eq!(incident["evidence"]["peak"], 5000, "the words are those of the peak");
    assert_eq!(incident["because"][0]["facts"]["host.rsts(1)"], 5000, "and so is what the condition saw");
    assert_eq!(incident["evidence"]["absorbed"]["midflow"]["flows"], 5000);
    assert_eq!(bench.keeps(), JudgeConfig::default().captures_per_incident as usize);
    assert_eq!(bench.judge.account().absorbed, 5000);
}

#[test]
fn a_client_that_resets_flows_to_many_services_is_one_incident_within_one_budget() {
    let mut bench = Bench::new(JudgeConfig::default());
    let to_many = |n: u32, at| FlowFacts { src: SERVER, dst: client(n), by: Some(Side::Orig), ..flow(n, at) };
    storm(&mut bench, START + 20 * SEC, to_many);
    bench.assert_answered();
    let closed = bench.finish();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].count, closed[0].flows), (5000, 5000));
    assert_eq!(bench.keeps(), JudgeConfig::default().captures_per_incident as usize);
}

#[test]
fn two_rules_on_the_flows_of_a_storm_count_each_flow_once() {
    let mut bench = Bench::new(JudgeConfig::default());
    for n in 0..500 {
        let facts = FlowFacts { dport: 8443, ..flow(n, START + u64::from(n) * MS) };
        bench.rst("midflow", facts);
        bench.hit("any_rst", Event::Rst, facts);
    }
    let closed = bench.finish();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].count, closed[0].flows), (500, 500));
    assert_eq!(closed[0].evidence["absorbed"]["any_rst"]["flows"], 500);
}

#[test]
fn hits_long_before_a_storm_or_of_another_host_stay_their_own() {
    let mut bench = Bench::new(JudgeConfig::default());
    bench.rst("midflow", flow(9000, START));
    let by_client = FlowFacts { by: Some(Side::Orig), ..flow(9001, START + 10 * SEC) };
    storm(&mut bench, START + 10 * SEC - 50 * MS, flow);
    bench.rst("midflow", FlowFacts { now_ns: START + 11 * SEC, ..by_client });
    let closed = bench.finish();
    let rules: Vec<_> = closed.iter().map(|i| (i.rule.as_str(), i.flows)).collect();
    assert_eq!(rules, [("midflow", 2), ("storm", 5000)], "one service, so one incident beside the storm");
    assert_eq!(closed[0].flow_ids, ["0000000000002329", "000000000000232a"]);
}

/// Flows that a shipped flow rule reports, each reset with data outstanding.
fn reset_with_data_outstanding(bench: &mut Bench, flows: u32) {
    for n in 0..flows {
        let mut facts = flow(n, START + u64::from(n) * MS);
        facts.orig.unacked = Some(100);
        facts.resp.unacked = Some(0);
        let mut hits = Hits::new();
        bench.judge.rules.match_flow(Event::Rst, &facts, &mut hits);
        for rule in hits.as_slice() {
            let name = bench.judge.rules.rules()[usize::from(*rule)].name.clone();
            bench.hit(&name, Event::Rst, facts);
        }
        bench.rsts(SERVER, 1);
    }
}

#[test]
fn the_shipped_rules_make_a_storm_one_incident_and_a_few_resets_another() {
    let mut bench = Bench::with(&rules::library(), JudgeConfig::default());
    reset_with_data_outstanding(&mut bench, 400);
    let closed = bench.finish();
    assert_eq!(closed.iter().map(|i| i.kind.as_str()).collect::<Vec<_>>(), ["rst_storm"]);
    assert_eq!((closed[0].count, closed[0].flows), (400, 400));
    assert_eq!(bench.keeps(), JudgeConfig::default().captures_per_incident as usize);

    let mut bench = Bench::with(&rules::library(), JudgeConfig::default());
    reset_with_data_outstanding(&mut bench, 40);
    let closed = bench.finish();
    assert_eq!(closed.iter().map(|i| i.kind.as_str()).collect::<Vec<_>>(), ["rst_midflow"]);
    assert_eq!((closed[0].count, closed[0].flows), (40, 40));
    assert!(bench.judge.bodies().failures.is_empty());
}

#[test]
fn a_storm_just_above_the_threshold_is_seen_before_its_hits_settle() {
    let mut bench = Bench::new(JudgeConfig::default());
    for n in 0..300 {
        bench.rst("midflow", flow(n, START + u64::from(n) * 18 * MS));
    }
    let closed = bench.finish();
    assert_eq!((closed.len(), closed[0].rule.as_str()), (1, "storm"));
    assert_eq!((closed[0].count, closed[0].flows), (300, 300));
}

#[test]
fn a_storm_takes_in_what_began_two_seconds_before_its_window_and_nothing_older() {
    let mut bench = Bench::new(JudgeConfig { settle: 10 * SEC, ..JudgeConfig::default() });
    let storm_at = START + 5 * SEC;
    bench.rst("midflow", FlowFacts { dport: 80, ..flow(900, START) });
    bench.rst("midflow", flow(901, storm_at - 1500 * MS));
    for n in 0..60 {
        bench.rst("midflow", flow(n, storm_at + u64::from(n) * MS));
        bench.rst("midflow", flow(n, storm_at + u64::from(n) * MS));
    }
    bench.until(storm_at + SEC);
    bench.rst("midflow", flow(901, storm_at + 1500 * MS));
    let closed = bench.finish();
    let got: Vec<_> = closed.iter().map(|i| (i.rule.as_str(), i.first_ns, i.flows)).collect();
    assert_eq!(got, [("midflow", START, 1), ("storm", storm_at - 1500 * MS, 61)]);
    assert_eq!(closed[1].count, 121, "the early one, and each of the repeats");
}

#[test]
fn reports_of_two_workers_meet_in_one_bucket() {
    let mut bench = Bench::new(JudgeConfig::default());
    for _worker in 0..2 {
        bench.rsts(SERVER, 25);
        bench.judge.handle(&Message::Tick(START + 100 * MS), &mut bench.commands);
    }
    // A third lags behind the others: its report belongs to a bucket that has left the window.
    bench.judge.handle(&Message::Tick(START + 2 * SEC), &mut bench.commands);
    bench.rsts(SERVER, 60);
    bench.judge.handle(&Message::Tick(START + 200 * MS), &mut bench.commands);
    let closed = bench.finish();
    assert_eq!((closed.len(), closed[0].count), (1, 50));
}

#[test]
fn a_window_of_one_second_is_ten_buckets() {
    let storms = |reports: &[(Nanos, u32)]| {
        let mut bench = Bench::new(JudgeConfig::default());
        for (at, rsts) in reports {
            bench.until(START + at);
            bench.rsts(SERVER, *rsts);
        }
        bench.finish().iter().map(|i| i.count).collect::<Vec<_>>()
    };
    assert_eq!(storms(&[(0, 49)]), [0; 0]);
    assert_eq!(storms(&[(0, 50)]), [50]);
    assert_eq!(storms(&[(0, 25), (900 * MS, 25)]), [50], "first and tenth bucket");
    assert_eq!(storms(&[(0, 25), (1000 * MS, 25)]), [0; 0], "first and eleventh");
    let spread: Vec<_> = (0..20).map(|n| (n * 100 * MS, 2 + u32::from(n % 2 == 0))).collect();
    assert_eq!(storms(&spread), [0; 0], "50 in two seconds");
    // While it matches, every report counts; a straggler after the window has passed does not.
    assert_eq!(storms(&[(0, 60), (500 * MS, 7), (1400 * MS, 50), (5000 * MS, 3)]), [117]);
}

#[test]
fn a_service_rule_makes_a_service_incident() {
    let mut bench = Bench::new(JudgeConfig::default());
    for second in 0..30_u32 {
        bench.until(START + u64::from(second) * SEC);
        let counts = Counts { syns: 3, ..Counts::default() };
        let report =
            Message::Service { addr: SERVER, port: 80, proto: 6, counts, changes: Default::default() };
        bench.judge.handle(&report, &mut bench.commands);
    }
    let opened = bench.judge.opened();
    assert_eq!((opened.len(), opened[0].count, opened[0].first_ns), (1, 21, START));
    let closed = as_json(&bench.finish());
    assert_eq!(closed[0]["subject"], json!({"dst": "10.0.0.2", "dport": 80, "proto": "tcp"}));
    assert_eq!((&closed[0]["count"], &closed[0]["scope"]), (&json!(90), &json!("service")));
}

#[test]
fn a_failing_body_releases_and_is_switched_off() {
    let mut bench = Bench::new(JudgeConfig { failures_before_off: 3, ..JudgeConfig::default() });
    for n in 0..5 {
        bench.hit("failing", Event::ZeroWindow, flow(n, START));
    }
    assert!(bench.commands.iter().all(|c| matches!(c, Command::Release { .. })));
    bench.assert_answered();
    // It is told at once, and only of the first failure besides.
    let opened = bench.judge.opened();
    assert_eq!((opened.len(), opened[0].kind.as_str(), opened[0].count), (1, "rule_switched_off", 3));
    assert_eq!(opened[0].evidence["rule"], json!("failing"));
    assert!(opened[0].explain.contains("3 times in a row"), "{}", opened[0].explain);
    assert_eq!(bench.judge.failing().len(), 1);
    let rule = bench.names["failing"];
    assert!(bench.judge.rules.is_off(rule) && !bench.judge.rules.is_off(rule + 1));
    let closed = bench.finish();
    assert_eq!((closed.len(), &closed[0].id, &closed[0].evidence["left_out"]), (1, &opened[0].id, &json!(2)));
    let account = bench.judge.account();
    assert_eq!((account.bodies_run, account.body_errors), (3, 3));
    let failures = bench.judge.bodies().failures;
    assert_eq!((failures.len(), failures[0].rule.as_str(), failures[0].count), (1, "failing", 3));
    assert_eq!((failures[0].switched_off, failures[0].skipped), (Some(OffCause::InARow(3)), 2));
    assert!(failures[0].message.contains("failing"), "{}", failures[0].message);
}

#[test]
fn a_capture_without_an_incident_is_kept_within_a_budget() {
    let limits = CaptureLimits { packets: 5, bytes: 6, nanos: SEC };
    let config = JudgeConfig { captures_per_incident: 2, default_limits: limits, ..JudgeConfig::default() };
    let mut bench = Bench::new(config);
    for n in 0..4 {
        bench.hit("only_capture", Event::Keepalive, flow(n, START));
    }
    assert_eq!(bench.commands[0], Command::Keep { flow_id: 1, limits });
    assert_eq!(bench.keeps(), 2);
    bench.assert_answered();
    assert!(bench.finish().is_empty());
}

#[test]
fn tables_are_bounded_and_what_they_lose_is_counted() {
    let config = JudgeConfig {
        max_open: 3,
        max_hosts: 10,
        max_services: 5,
        max_known: 4,
        max_kept: 2,
        ..JudgeConfig::default()
    };
    let mut bench = Bench::new(config);
    for n in 0..100 {
        let to_own_service = FlowFacts { dst: client(n), by: None, ..flow(n, START) };
        bench.hit("unanswered", Event::SynTimeout, to_own_service);
        bench.rsts(client(n), 60);
        let counts = Counts { syns: 1, ..Counts::default() };
        let report =
            Message::Service { addr: client(n), port: 80, proto: 6, counts, changes: Default::default() };
        bench.judge.handle(&report, &mut bench.commands);
    }
    bench.assert_answered();
    let closed = bench.finish();
    assert_eq!(closed.len(), 6, "three flow incidents and three storms");
    let account = bench.judge.account();
    assert_eq!((account.hits_refused, account.matches_refused), (97, 7));
    assert_eq!((account.hosts_evicted, account.services_evicted), (90, 95));
    assert_eq!(account.kept_forgotten, 1);

    let mut bench = Bench::new(JudgeConfig { max_known: 4, ..JudgeConfig::default() });
    (0..10).for_each(|n| bench.rst("midflow", flow(n, START)));
    assert_eq!(bench.judge.account().flows_forgotten, 6);
}

#[test]
fn a_hit_of_a_rule_that_does_not_exist_is_refused_and_released() {
    let mut bench = Bench::new(JudgeConfig::default());
    let facts = flow(0, START);
    let hit = Hit { rule: 999, event: Event::Rst, worker: 0, sequence: 1, packet: None, held: true, facts };
    bench.judge.handle(&Message::Hit(hit), &mut bench.commands);
    assert_eq!(bench.commands, [Command::Release { flow_id: 1 }]);
    assert!(bench.finish().is_empty());
    assert_eq!(bench.judge.account().hits_refused, 1);
}

#[test]
fn the_same_messages_give_the_same_output() {
    let run = || {
        let mut bench = Bench::new(JudgeConfig::default());
        for n in 0..300_u32 {
            let at = START + u64::from(n) * 37 * MS;
            let dport = 443 + (n % 7) as u16;
            bench.rst("midflow", FlowFacts { dport, idle_before_ms: u64::from(n), ..flow(n, at) });
        }
        storm(&mut bench, START + 15 * SEC, flow);
        let opened = bench.judge.opened();
        let closed = bench.finish();
        let text = serde_json::to_string(&(opened, &closed)).expect("plain data");
        let in_order = closed.windows(2).all(|pair| pair[0].first_ns <= pair[1].first_ns);
        (text, bench.commands, in_order)
    };
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    assert!(first.2);
}

#[test]
fn a_storm_told_only_by_counts_watches_its_host_and_names_what_is_recorded() {
    let rules = Arc::new(RuleSet::load(&rules::library(), &[]).unwrap());
    let mut judge = Judge::new(rules, JudgeConfig::default());
    let (addr, mut commands) = (IpAddr::from([10, 0, 0, 2]), Vec::new());
    let counts = Counts { rsts: 60, cuts: 55, flows_reset: 55, ..Counts::default() };
    judge.handle(&Message::Host { addr, counts }, &mut commands);
    judge.handle(&Message::Tick(START + 100 * MS), &mut commands);
    let most = JudgeConfig::default().captures_per_incident;
    assert!(
        matches!(commands[..], [Command::Watch { whose: of, flows, .. }]
            if of == Whose::Host(addr) && flows == WatchFlows { all: most, others: most / 2 }),
        "{commands:?}"
    );
    let Command::Watch { whose, rule, .. } = commands[0] else { panic!("it is one") };
    judge.handle(&Message::Watched { whose, rule, flow_id: 7, reset: true }, &mut commands);
    judge.finish(&mut commands);
    let closed = judge.closed();
    assert_eq!((closed.len(), closed[0].count, closed[0].flows), (1, 60, 55));
    assert_eq!(closed[0].flow_ids, ["0000000000000007"]);
}

#[test]
fn newer_words_replace_older_ones_and_do_not_count_again() {
    let text = r#"
rule "lasting" on stalled, rst
when flow.established
then {
    if flow.age_ms >= 2000 {
        incident("warning", `for ${flow.age_ms} ms`);
        evidence("age_ms", flow.age_ms);
    }
}
"#;
    let file = SourceFile { name: "lasting.rhai".into(), text: text.into() };
    let mut bench = Bench::with(&[file], JudgeConfig::default());
    let at = |seconds: u64| FlowFacts { start_ns: START, by: None, ..flow(1, START + seconds * SEC) };
    // Nothing to say at first, then something, then more of the same; at last a RST.
    for seconds in [1, 5, 10] {
        bench.hit("lasting", Event::Stalled, at(seconds));
    }
    bench.hit("lasting", Event::Rst, FlowFacts { by: Some(Side::Resp), ..at(12) });
    let closed = bench.finish();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].explain.as_str(), closed[0].count, closed[0].flows), ("for 12000 ms", 1, 1));
    assert_eq!(closed[0].evidence["age_ms"], json!(12_000));
    assert_eq!((closed[0].first_ns, closed[0].last_ns), (START + 5 * SEC, START + 12 * SEC));
}

#[test]
fn what_goes_on_after_its_incident_closed_is_not_told_again() {
    let text = r#"
rule "follows" on rst, after_rst then { incident("warning", "a RST"); }
rule "silent" on idle then { incident("warning", `silent for ${flow.silent_ms} ms`); }
"#;
    let file = SourceFile { name: "goes_on.rhai".into(), text: text.into() };
    let told = |rule: &str, hits: &[(Event, u64, u64)]| {
        let mut bench = Bench::with(std::slice::from_ref(&file), JudgeConfig::default());
        for (event, seconds, silent) in hits {
            let facts = FlowFacts { silent_ms: silent * 1000, by: None, ..flow(1, START + seconds * SEC) };
            bench.hit(rule, *event, facts);
        }
        bench.finish().len()
    };
    assert_eq!(
        told("follows", &[(Event::Rst, 1, 0), (Event::AfterRst, 120, 0), (Event::AfterRst, 300, 0)]),
        1
    );
    assert_eq!(told("follows", &[(Event::Rst, 1, 0), (Event::AfterRst, 120, 0), (Event::Rst, 300, 0)]), 2);
    let silence = [10, 20, 40, 80, 160, 320].map(|seconds| (Event::Idle, seconds, seconds));
    assert_eq!(told("silent", &silence), 1);
    // Somebody spoke at 330 s, and then nobody.
    assert_eq!(
        told("silent", &[&silence[..], &[(Event::Idle, 340, 10), (Event::Idle, 490, 160)]].concat()),
        2
    );
}

#[test]
fn another_flow_s_words_stand_and_its_evidence_is_added() {
    let text = r#"
rule "lasting" on stalled
then {
    incident("warning", `for ${flow.age_ms} ms`);
    evidence("age_ms", flow.age_ms);
}
"#;
    let file = SourceFile { name: "lasting.rhai".into(), text: text.into() };
    let mut bench = Bench::with(&[file], JudgeConfig::default());
    for (n, seconds) in [(1, 5), (2, 6), (2, 10)] {
        bench.hit(
            "lasting",
            Event::Stalled,
            FlowFacts { start_ns: START, by: None, ..flow(n, START + seconds * SEC) },
        );
    }
    let closed = bench.finish();
    assert_eq!((closed.len(), closed[0].count, closed[0].flows), (1, 2, 2));
    assert!(closed[0].explain.starts_with("for 5000 ms"), "{}", closed[0].explain);
    assert_eq!(closed[0].evidence["age_ms"], json!({"min": 5000, "max": 10_000}));
}

#[test]
fn what_is_taken_back_is_not_told_or_is_closed_as_withdrawn() {
    let text = r#"
rule "hasty" on retransmission, disproved
when flow.established && flow.sport > 0
then {
    if flow.disproved { withdraw("it arrived."); } else { incident("warning", `${flow.sport} is stuck`); }
}
"#;
    let file = SourceFile { name: "hasty.rhai".into(), text: text.into() };
    let said = |sport: u16, at| FlowFacts { sport, by: None, ..flow(sport.into(), START + at) };
    let run = |steps: &[(u16, bool, Nanos)]| {
        let mut bench = Bench::with(std::slice::from_ref(&file), JudgeConfig::default());
        for (sport, stuck, at) in steps {
            let event = if *stuck { Event::Retransmission } else { Event::Disproved };
            bench.hit("hasty", event, FlowFacts { disproved: !stuck, ..said(*sport, *at) });
        }
        bench.until(START + 20 * SEC);
        let opened = bench.judge.opened();
        let closed = bench.finish();
        assert_eq!(
            bench.judge.account().incidents_withdrawn,
            closed.iter().filter(|i| i.withdrawn).count() as u64
        );
        (opened, closed)
    };
    // Before anybody was told.
    let (opened, closed) = run(&[(1, true, SEC), (1, false, 2 * SEC)]);
    assert_eq!((opened.len(), closed.len()), (0, 0));
    // After; and then once more, as another incident.
    let (opened, closed) = run(&[(1, true, SEC), (1, false, 5 * SEC), (1, true, 6 * SEC)]);
    assert_eq!((opened.len(), closed.len()), (2, 2));
    assert_eq!((closed[0].id == opened[0].id, closed[0].withdrawn, closed[1].withdrawn), (true, true, false));
    assert_eq!(closed[0].explain, "Withdrawn: it arrived. It had said: 1 is stuck");
    // One of two: what stays is about the other, under the same name.
    for taken_back in [2 * SEC, 5 * SEC] {
        let (opened, closed) = run(&[(1, true, SEC), (2, true, SEC + MS), (1, false, taken_back)]);
        assert_eq!((opened.len(), closed.len(), closed[0].withdrawn), (1, 1, false));
        assert_eq!((closed[0].explain.as_str(), closed[0].flows, closed[0].count), ("2 is stuck", 1, 1));
        assert_eq!((&closed[0].id, closed[0].flow_ids.len()), (&opened[0].id, 1));
        assert_eq!(closed[0].because[1]["facts"]["flow.sport"], 2, "what the words say is what was seen");
    }
    // Nothing was said before.
    assert_eq!(run(&[(1, false, SEC)]).1.len(), 0);
}

/// A minute of traffic that takes `entries` entries in a state table, three in four of them of one client and one
/// service; `lost` SYNs vanish.
fn filled(overrides: &[rules::Override], entries: u32, lost: u32) -> Vec<Incident> {
    let rules = RuleSet::load(&rules::library(), overrides).expect("the rules are right");
    let mut judge = Judge::new(Arc::new(rules), JudgeConfig::default());
    let mut commands = Vec::new();
    judge.handle(&Message::Tick(START), &mut commands);
    for (n, part) in [(1, entries - entries / 4), (2, entries / 4)] {
        let made = Entries { made: part, ..Entries::default() };
        let changes = StateChanges { standing: [0; 5], entries: made };
        let counts = Counts { syns: part, syn_unanswered: lost / 2, ..Counts::default() };
        let addr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        judge.handle(&Message::Service { addr, port: 443, proto: 6, counts, changes }, &mut commands);
        let dealing = Dealing { begun: part, ..Dealing::default() };
        let message = Message::Dealing { client: client(n.into()), addr, port: 443, proto: 6, dealing };
        judge.handle(&message, &mut commands);
    }
    (1..=20).for_each(|tick| judge.handle(&Message::Tick(START + tick * BUCKET_NS), &mut commands));
    assert_eq!(judge.standing(1).services.len(), 1);
    judge.finish(&mut commands);
    assert!(judge.bodies().failures.is_empty(), "{:?}", judge.bodies().failures);
    judge.closed()
}

#[test]
fn a_state_table_of_known_size_warns_at_four_fifths_and_names_who_fills_it() {
    let size = |rule: &str| rules::Override {
        rule: rule.to_owned(),
        param: "table_size".to_owned(),
        value: "10_000".to_owned(),
    };
    let size = [size("state_table_near_full")];
    assert_eq!(filled(&size, 7_999, 0), []);
    let near = filled(&size, 8_000, 0);
    let near = as_json(&near);
    assert_eq!(near.len(), 1, "{near:?}");
    assert_eq!((&near[0]["kind"], &near[0]["scope"]), (&json!("state_table_near_full"), &json!("link")));
    assert_eq!((&near[0]["subject"], &near[0]["severity"]), (&json!({"link": "all"}), &json!("warning")));
    let explain = near[0]["explain"].as_str().unwrap();
    for words in ["80 % of the 10000", "So far every SYN", "10.0.0.1:443 with 75 %, 10.0.0.2:443 with 25 %"] {
        assert!(explain.contains(words), "{words:?} is not in {explain}");
    }
    let named = format!("Clients that fill it: {} with 75 %", client(1));
    assert!(explain.contains(&named), "{explain}");
    let full = filled(&size, 10_100, 4);
    assert_eq!(
        full.iter().map(|i| (&*i.kind, i.severity)).collect::<Vec<_>>(),
        [("state_table_near_full", rules::Severity::Critical)]
    );
    assert!(full[0].explain.contains("4 of 10100 SYNs"), "{}", full[0].explain);
}

#[test]
fn a_state_table_that_nobody_told_of_is_no_incident_while_every_syn_is_answered() {
    assert_eq!(filled(&[], 60_000, 0), []);
    let lost = filled(&[], 60_000, 2_000);
    assert!(lost.iter().all(|i| i.kind == "syn_unanswered_ratio") && !lost.is_empty(), "{lost:?}");
    assert!(lost[0].explain.contains("near a table size of 65536"), "{}", lost[0].explain);
}

#[test]
fn tags_are_gathered_over_flows() {
    let text = "rule \"x\" on rst severity \"info\" then { incident(\"x\"); tag(`p${flow.sport % 3}`); tag(\"all\"); }";
    let file = SourceFile { name: "tags.rhai".into(), text: text.into() };
    let mut bench = Bench::with(&[file], JudgeConfig::default());
    for n in 0..6 {
        bench.hit("x", Event::Rst, FlowFacts { sport: n as u16, ..flow(n, START + u64::from(n) * MS) });
    }
    let closed = bench.finish();
    assert_eq!(
        (closed.len(), closed[0].tags.clone()),
        (1, vec!["p0".into(), "all".into(), "p1".into(), "p2".into()])
    );
    assert_eq!(closed[0].severity.as_str(), "info");
}

#[test]
fn rules_in_shadow_count_and_do_nothing() {
    let text = "rule \"look\" on rst severity \"info\" shadow when flow.dport == 443 then { incident(\"x\"); capture(flow); }
        rule \"storm\" on tick shadow when host.rsts(1) >= 3 then { incident(\"critical\", \"x\"); capture(host); }
        rule \"bad\" on zero_window shadow then { throw 1; }
        rule \"seen\" on rst then { incident(\"warning\", \"y\"); }";
    let file = SourceFile { name: "look.rhai".into(), text: text.into() };
    let mut bench = Bench::with(&[file], JudgeConfig { failures_before_off: 2, ..JudgeConfig::default() });
    for n in 0..7 {
        let facts = flow(n, START + u64::from(n) * MS);
        for rule in ["look", "look", "seen"] {
            let (rule, sequence) = (bench.names[rule], u64::from(n));
            let hit = Hit { rule, event: Event::Rst, worker: 0, sequence, packet: None, held: false, facts };
            bench.judge.handle(&Message::Hit(hit), &mut bench.commands);
        }
        bench.rsts(SERVER, 1);
        bench.hit("bad", Event::ZeroWindow, facts);
    }
    let closed = bench.finish();
    assert_eq!(closed.iter().map(|i| i.rule.as_str()).collect::<Vec<_>>(), ["seen"]);
    assert!(!bench.commands.iter().any(|c| matches!(c, Command::Keep { .. } | Command::Watch { .. })));
    let books = bench.judge.bodies();
    assert_eq!((books.failures[0].rule.as_str(), books.failures[0].switched_off.is_some()), ("bad", true));
    let counts: BTreeMap<_, _> = books.shadows.into_iter().collect();
    let samples = (1..=5).map(|n| format!("{n:016x}")).collect();
    let looked = ShadowCounts { matched: 14, would_open: 1, would_join: 0, would_capture: 7, samples };
    assert_eq!(counts["look"], looked);
    assert_eq!((counts["storm"].would_open, counts["storm"].would_capture), (1, 1));
    assert_eq!(counts["storm"].samples, ["10.0.0.2"]);
}
