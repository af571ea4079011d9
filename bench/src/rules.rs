//! What rules cost: one guard on a stream of different flows, and whole sets of rules in the worker, against none
//! in the same process. On the benchmark's one thread. The numbers go to `report`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use rules::facts::{DnsFacts, FlowFacts, Side, SideFacts};
use rules::{Event, Hits, RuleSet, library};
use serde::Serialize;

use crate::input::{Input, progress};
use crate::many_rules;
use crate::report::Stage;
use crate::whole;

/// Different snapshots that guards are asked about.
const SNAPSHOTS: usize = 1 << 16;
const GUARDS: [usize; 4] = [1, 10, 50, 200];
/// Sets of this many rules go through the worker.
const SETS: [usize; 2] = [50, 200];

/// What one guard costs if so many are asked.
#[derive(Clone, Debug, Serialize)]
pub struct GuardCost {
    pub guards: usize,
    /// ns a guard, the snapshot's way into the cache left out; the median run.
    pub ns: f64,
    pub min: f64,
    pub max: f64,
    /// Of all guards asked in a run, those that matched.
    pub matched: u64,
}

/// What a set of rules costs the worker.
#[derive(Clone, Debug, Serialize)]
pub struct SetCost {
    pub name: &'static str,
    pub rules: usize,
    /// The worker, ns a packet, without the judge.
    pub worker: Stage,
    /// Over the runs without rules in between, percent: the fastest over the fastest, as these were disturbed least.
    pub percent: f64,
    pub judge_ns: f64,
    pub hits: u64,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Rules {
    pub guards: Vec<GuardCost>,
    pub sets: Vec<SetCost>,
    pub complaints: Vec<String>,
}

pub fn measure(input: &Input, runs: usize) -> Result<Rules> {
    let snapshots = snapshots();
    let mut guards = Vec::with_capacity(GUARDS.len());
    for count in GUARDS {
        progress(&format!("rules: {count} guards"));
        guards.push(guard_cost(&snapshots, &many_rules::load(count, Some("close"))?, count, runs));
    }
    drop(snapshots);
    let (sets, complaints) = set_costs(input, runs)?;
    Ok(Rules { guards, sets, complaints })
}

fn guard_cost(snapshots: &[FlowFacts], rules: &RuleSet, count: usize, runs: usize) -> GuardCost {
    let mut order = Random(7);
    let mut places: Vec<usize> = (0..snapshots.len()).collect();
    for i in (1..places.len()).rev() {
        places.swap(i, order.below(i as u64 + 1) as usize);
    }
    let mut matched = 0;
    let asked = (snapshots.len() * count) as f64;
    let mut each: Vec<f64> = (0..runs.max(3))
        .map(|_| {
            let floor = pass(snapshots, &places, |_| 0).0;
            let hits = &mut Hits::new();
            let (all, hit) = pass(snapshots, &places, |facts| {
                hits.clear();
                rules.match_flow(Event::Close, facts, hits);
                hits.len() as u64
            });
            matched = hit;
            (all - floor) / asked
        })
        .collect();
    each.sort_by(f64::total_cmp);
    GuardCost { guards: count, ns: each[each.len() / 2], min: each[0], max: each[each.len() - 1], matched }
}

/// Each snapshot once, copied to one place as a worker makes it there; ns and what `ask` adds up to.
#[inline(never)]
fn pass(snapshots: &[FlowFacts], places: &[usize], mut ask: impl FnMut(&FlowFacts) -> u64) -> (f64, u64) {
    let mut sum = 0;
    let mut here = FlowFacts::default();
    let begun = Instant::now();
    for &place in places {
        here.clone_from(&snapshots[place]);
        sum += ask(black_box(&here));
    }
    (begun.elapsed().as_secs_f64() * 1e9, black_box(sum))
}

/// Sets in turn, each with a run without rules before it.
fn set_costs(input: &Input, runs: usize) -> Result<(Vec<SetCost>, Vec<String>)> {
    let load =
        |set: Result<RuleSet, Vec<rules::LoadError>>| set.map(Arc::new).map_err(|e| anyhow::anyhow!("{e:?}"));
    let none = load(RuleSet::load(&[], &[]))?;
    let of_flows: Vec<_> = library().into_iter().filter(|file| !file.text.contains("\" on tick")).collect();
    let mut sets = vec![
        ("shipped rules", load(RuleSet::load(&library(), &[]))?),
        ("shipped, of flows", load(RuleSet::load(&of_flows, &[]))?),
    ];
    for (count, name) in SETS.into_iter().zip(["operators' rules", "operators' rules"]) {
        sets.push((name, Arc::new(many_rules::load(count, None)?)));
    }
    let mut complaints = Vec::new();
    let mut run = |rules: &Arc<RuleSet>| -> Result<(f64, f64, u64)> {
        let whole = whole::worker(input, rules, false)?;
        complaints.extend(
            whole.complaints.into_iter().map(|what| format!("with {} rules: {what}", rules.rules().len())),
        );
        let elsewhere = whole.totals.judge_ns + whole.totals.writer_ns;
        Ok((whole.seen.timing.ns_per_packet() - elsewhere, whole.totals.judge_ns, whole.totals.hits))
    };
    // Once unclocked, so that the page cache has all of the file.
    run(&none)?;
    let mut without = Vec::new();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); sets.len()];
    let mut told = vec![(0.0, 0); sets.len()];
    for round in 0..runs {
        progress(&format!("rules: run {} of {runs}", round + 1));
        for (at, (_, set)) in sets.iter().enumerate() {
            without.push(run(&none)?.0);
            let (with, judge, hits) = run(set)?;
            times[at].push(with);
            told[at] = (judge, hits);
        }
    }
    let mut costs = vec![SetCost {
        name: "none",
        rules: 0,
        worker: Stage::new("worker", without, 0.0),
        percent: 0.0,
        judge_ns: 0.0,
        hits: 0,
    }];
    let (base, fastest) = (costs[0].worker.median, costs[0].worker.min);
    for (((name, set), times), (judge_ns, hits)) in sets.iter().zip(times).zip(told) {
        let worker = Stage::new("worker", times, base);
        costs.push(SetCost {
            name,
            rules: set.rules().len(),
            percent: worker.min / fastest * 100.0 - 100.0,
            worker,
            judge_ns,
            hits,
        });
    }
    Ok((costs, complaints))
}

/// Numbers out of nowhere, the same each time (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut h = self.0;
        h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        h ^ h >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn often(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Small numbers are likelier: any number of bits alike.
    fn long_tailed(&mut self, bits: u64) -> u64 {
        self.next() >> (63 - self.below(bits))
    }
}

fn snapshots() -> Vec<FlowFacts> {
    let mut random = Random(1);
    (0..SNAPSHOTS).map(|_| snapshot(&mut random)).collect()
}

/// A flow as there are many, most of them in order.
fn snapshot(random: &mut Random) -> FlowFacts {
    let address = |random: &mut Random| {
        let [_, a, b, c] = (random.next() as u32).to_be_bytes();
        let first = [10, 10, 172, 192][random.below(4) as usize];
        IpAddr::V4(Ipv4Addr::new(first, a, b, c))
    };
    let ports = [443, 443, 443, 80, 53, 22, 5432, 3306, 6379, 8080, 9200, 25];
    let start = random.next() >> 4;
    let mut facts = FlowFacts {
        src: address(random),
        dst: address(random),
        sport: 1024 + random.below(60_000) as u16,
        dport: if random.often(80) { ports[random.below(12) as usize] } else { random.below(65_536) as u16 },
        proto: if random.often(80) { 6 } else { 17 },
        start_ns: start,
        now_ns: start + random.long_tailed(40),
        by: random.often(90).then(|| if random.often(50) { Side::Orig } else { Side::Resp }),
        established: random.often(85),
        fin_seen: random.often(60),
        rst_seen: random.often(10),
        syns: 1 + u32::from(random.often(5)),
        syn_acks: 1,
        idle_before_ms: if random.often(10) { random.long_tailed(20) } else { 0 },
        rtt_client_us: random.often(80).then(|| random.long_tailed(18)),
        rtt_server_us: random.often(80).then(|| random.long_tailed(18)),
        orig: side(random),
        resp: side(random),
        ..FlowFacts::default()
    };
    facts.app.connect_us = random.often(80).then(|| random.long_tailed(20));
    facts.app.answer_ms = random.often(30).then(|| random.long_tailed(14));
    facts.app.dns = (facts.dport == 53).then(|| DnsFacts {
        rcode: Some(if random.often(90) { 0 } else { 3 }),
        wait_ms: random.long_tailed(12),
        ..DnsFacts::default()
    });
    facts
}

fn side(random: &mut Random) -> SideFacts {
    let packets = random.long_tailed(16);
    SideFacts {
        packets,
        bytes: packets * 400,
        payload: packets * 350,
        mss: random.often(90).then_some(1460),
        wscale: random.often(90).then_some(7),
        sack: random.often(90).then_some(true),
        ttl_min: Some(64 - random.below(20) as u8),
        ttl_max: Some(64),
        max_payload: Some(1460),
        retransmissions: if random.often(10) { random.below(20) as u32 } else { 0 },
        ..SideFacts::default()
    }
}
