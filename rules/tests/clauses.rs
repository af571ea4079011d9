//! A condition taken apart says the same as the whole: over the shipped rules and some of every shape, on many snapshots.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is a failed test")]

use std::sync::Arc;

use rules::clause::Decision;
use rules::facts::{AnswerCounts, Counts, FlowFacts, HostFacts, Name, Side};
use rules::{Bodies, BodyLimits, Event, EvidenceValue, Hits, RuleSet, Snapshot, SourceFile, library};

const SHAPES: &str = r#"
param low = 3;
param nets = 10;
fn far(ms) { ms > low && flow.orig.packets < nets }
rule "plain" on rst, close when flow.established then { incident("info", "x"); }
rule "nested" on rst, close when (flow.orig.packets > low && (flow.resp.packets > 2 || flow.fin_seen)) && !(flow.rst_seen)
then { incident("info", "x"); }
rule "helper" on rst, close when far(flow.idle_before_ms) && flow.dport in [80, 443, low] then { incident("info", "x"); }
rule "faulty" on rst, close when 10 / flow.orig.packets > low && flow.unacked > 0 then { incident("info", "x"); }
rule "either" on rst, close when flow.established || flow.fin_seen && flow.rst_seen then { incident("info", "x"); }
rule "bare" on rst, close then { incident("info", "x"); }
rule "off" on rst, close when low > 5 && flow.established then { incident("info", "x"); }
rule "wide" on tick when host.rsts(10) >= low && host.rst_rate(1) > 0.5 && host.addr in "10.0.0.0/8"
then { incident("info", "x"); }
"#;

fn sets() -> Vec<Arc<RuleSet>> {
    let shapes = SourceFile { name: "shapes.rhai".to_owned(), text: SHAPES.to_owned() };
    [vec![shapes], library()].iter().map(|files| Arc::new(RuleSet::load(files, &[]).unwrap())).collect()
}

/// Small numbers, in an order that looks like none.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn maybe(&mut self, limit: u64) -> Option<u64> {
        (self.below(4) > 0).then(|| self.below(limit))
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 0
    }
}

fn flow(n: &mut Numbers) -> FlowFacts {
    let mut f = FlowFacts {
        dport: [80, 443, 53, 8080][n.below(4) as usize],
        established: n.below(4) > 0,
        fin_seen: n.yes(),
        rst_seen: n.below(4) == 0,
        rst: n.yes(),
        by: [None, Some(Side::Orig), Some(Side::Resp)][n.below(3) as usize],
        syns: n.below(4) as u32,
        syn_acks: n.below(3) as u32,
        idle_before_ms: n.below(3) * 300_000,
        packets_since_idle: n.below(4),
        rtt_client_us: n.maybe(50_000),
        rtt_server_us: n.maybe(50_000),
        icmp_too_big: n.below(2) as u32,
        now_ns: 5_000_000_000,
        ..FlowFacts::default()
    };
    for side in [&mut f.orig, &mut f.resp] {
        side.packets = n.below(12);
        side.payload = n.below(3) * 1_000_000;
        side.mss = n.maybe(1460).map(|mss| mss as u32);
        side.unacked = n.maybe(3).map(|bytes| bytes as u32 * 1000);
        side.retransmissions = n.below(40) as u32;
        side.stuck_sends = n.below(5) as u32;
        side.small_passes = n.yes();
        side.rst.injected = n.maybe(2).map(|yes| yes == 1);
        side.unanswered_ms = n.below(3) as u32 * 8000;
        side.max_payload = Some(n.below(2) as u32 * 1460);
    }
    f.app.name = Name::of(b"shop.example");
    f.app.tls_answered = n.maybe(2).map(|yes| yes == 1);
    f.app.service = n.maybe(9).map(|answers| AnswerCounts {
        answers: answers as u32,
        errors: n.below(9) as u32,
        late: 3,
    });
    f
}

fn host(n: &mut Numbers) -> HostFacts {
    let mut sums = || Counts {
        rsts: n.below(120) as u32,
        cuts: n.below(120) as u32,
        syns: n.below(9) as u32,
        ..Counts::default()
    };
    let (last_1s, last_10s, last_60s) = (sums(), sums(), sums());
    let addr = ["10.0.0.1", "192.0.2.1"][n.below(2) as usize].parse().unwrap();
    HostFacts { addr, now_ns: 1, last_1s, last_10s, last_60s, client: Default::default() }
}

#[test]
fn operands_say_what_the_guard_says() {
    let (mut matches, mut n) = (0, Numbers(7));
    for set in sets() {
        for _ in 0..3000 {
            let facts = flow(&mut n);
            for event in Event::ALL.into_iter().filter(|event| *event != Event::Tick) {
                let mut hits = Hits::new();
                set.match_flow(event, &facts, &mut hits);
                let waiting = set.rules().iter().enumerate().filter(|(_, meta)| meta.events.contains(event));
                for (rule, meta) in waiting {
                    let decision = set.decision(rule as u16, &Snapshot::Flow(&facts, event)).unwrap();
                    let hit = hits.as_slice().contains(&(rule as u16));
                    assert_eq!(decision == Decision::Match, hit, "{} {decision:?} {facts:?}", meta.name);
                    matches += u32::from(hit);
                }
            }
            let facts = host(&mut n);
            let mut hits = Hits::new();
            set.match_host(&facts, &mut hits);
            for (rule, meta) in set.rules().iter().enumerate() {
                let Some(decision) = set.decision(rule as u16, &Snapshot::Host(&facts)) else { continue };
                assert_eq!(
                    decision == Decision::Match,
                    hits.as_slice().contains(&(rule as u16)),
                    "{}",
                    meta.name
                );
            }
        }
    }
    assert!(matches > 5000, "{matches}");
}

#[test]
fn a_verdict_tells_what_its_condition_saw() {
    let set = sets().remove(0);
    let rule = set.rules().iter().position(|meta| meta.name == "helper").unwrap() as u16;
    let mut facts = FlowFacts { idle_before_ms: 9, dport: 443, ..FlowFacts::default() };
    facts.orig.packets = 4;
    let snapshot = Snapshot::Flow(&facts, Event::Rst);
    let verdict = Bodies::new(Arc::clone(&set), BodyLimits::default()).run(rule, &snapshot).unwrap();
    let told: Vec<(&str, Vec<(&str, i64)>)> = verdict
        .because
        .iter()
        .map(|because| {
            let values = because.facts.iter().chain(&because.params).map(|(name, value)| match value {
                EvidenceValue::Int(value) => (&**name, *value),
                other => panic!("{other:?}"),
            });
            (&*because.clause, values.collect())
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "far(flow.idle_before_ms)",
                vec![("flow.idle_before_ms", 9), ("flow.orig.packets", 4), ("low", 3), ("nets", 10)]
            ),
            ("flow.dport in [80, 443, low]", vec![("flow.dport", 443), ("low", 3)]),
        ]
    );
    let wide = set.rules().iter().position(|meta| meta.name == "wide").unwrap() as u16;
    let mut host = host(&mut Numbers(1));
    host.last_10s.rsts = 12;
    let because = set.because(wide, &Snapshot::Host(&host));
    assert_eq!(&*because[0].facts[0].0, "host.rsts(10)");
    assert_eq!(because[0].facts[0].1, EvidenceValue::Int(12));
    assert_eq!(set.because(wide, &snapshot), [], "facts of another scope say nothing");
    let bare = set.rules().iter().position(|meta| meta.name == "bare").unwrap() as u16;
    assert_eq!(set.because(bare, &snapshot), []);
}

#[test]
fn no_condition_told_of_is_without_bounds() {
    let long: Vec<String> = (0..20)
        .map(|n| format!("(flow.dport > {n} || {})", vec!["flow.syns > 0"; 18].join(" || ")))
        .collect();
    let text = format!("rule \"long\" on rst when {} then {{ }}", long.join(" && "));
    let set = RuleSet::load(&[SourceFile { name: "a".to_owned(), text }], &[]).unwrap();
    assert_eq!(set.because(0, &Snapshot::Flow(&FlowFacts::default(), Event::Rst)).len(), 16);
}
