//! What a path does to packets of healthy ends: it loses, delays, reorders and doubles them, before the tap and behind
//! it, and the tap itself misses some. None of that is a forgery or an alteration, and none is called one.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::BTreeMap;

use dataplane::config::WorkerConfig;
use tests::lossy::{self, Truth};
use tests::{Outcome, Pipeline, Setup, captures};

const SEEDS: u64 = 12;
const FLOWS: u16 = 40;

/// Kinds that say what nobody did.
const NEVER: [&str; 19] = [
    "sack_garbled",
    "rst_injected",
    "ttl_changed",
    "wscale_missing",
    "mss_low",
    "challenge_ack",
    "port_reuse",
    "conn_refused",
    "ecn_ce",
    "ecn_syn_blackhole",
    "icmp_frag_needed",
    "icmp_ignored",
    "icmp_unreachable",
    "rst_after_clienthello",
    "tls_no_server_hello",
    "port_scan",
    "host_scan",
    "port_exhaustion",
    "syn_flood",
];

fn run(packets: &[wiregen::scenario::Packet]) -> Outcome {
    let config = WorkerConfig { troubled: 16_384, ..WorkerConfig::small() };
    Pipeline::new(captures::synthetic(packets), Setup::with(config, tests::shipped_rules())).run()
}

/// What each conversation was said to have, by its client's port.
fn found(outcome: &Outcome) -> BTreeMap<u16, BTreeMap<String, u64>> {
    let mut all: BTreeMap<u16, BTreeMap<String, u64>> = BTreeMap::new();
    for row in &outcome.rows {
        let own = all.entry(row.flow.sport.min(row.flow.dport)).or_default();
        for (kind, count) in &row.findings {
            *own.entry(kind.clone()).or_default() += count;
        }
    }
    all
}

fn strays(truth: &Truth, found: &BTreeMap<String, u64>) -> Vec<String> {
    let mut strays: Vec<String> =
        NEVER.iter().filter(|kind| found.contains_key(**kind)).map(|k| (*k).to_owned()).collect();
    let unless = |so: bool, kinds: &[&str]| {
        let stray = kinds.iter().filter(|kind| !so && found.contains_key(**kind));
        stray.map(|kind| (*kind).to_owned()).collect::<Vec<_>>()
    };
    strays.extend(unless(!truth.sack, &["sack_missing"]));
    strays.extend(unless(truth.resets > 0, &["rst_midflow", "rst_after_idle"]));
    strays.extend(unless(truth.closed_windows > 0, &["zero_window", "zero_window_stall"]));
    strays
}

#[test]
fn no_loss_looks_like_a_forgery() {
    let (mut complaints, mut sacks, mut resets) = (Vec::new(), 0, 0);
    for seed in 1..=SEEDS {
        let (packets, truths) = lossy::conversations(seed, FLOWS, false);
        let outcome = run(&packets);
        let found = found(&outcome);
        for truth in &truths {
            sacks += truth.sacks.iter().sum::<u64>();
            resets += truth.resets;
            let strays = found.get(&truth.port).map_or(Vec::new(), |found| strays(truth, found));
            if !strays.is_empty() {
                complaints.push(format!("seed {seed} port {}: {strays:?} {truth:?}", truth.port));
            }
        }
        let incidents = outcome.incidents.iter().filter(|i| NEVER.contains(&i.kind.as_str()));
        complaints.extend(incidents.map(|i| format!("seed {seed}: {} {:?}", i.kind, i.explain)));
    }
    assert!(complaints.is_empty(), "{}\n{} complaints", complaints.join("\n"), complaints.len());
    assert!(sacks > 5000 && resets > 50, "{sacks} segments with SACK blocks, {resets} resets");
}

#[test]
fn blocks_left_behind_are_always_seen() {
    let mut garbled = 0;
    for seed in 1..=SEEDS / 2 {
        let (packets, truths) = lossy::conversations(100 + seed, FLOWS, true);
        let found = found(&run(&packets));
        for truth in &truths {
            let told =
                found.get(&truth.port).and_then(|found| found.get("sack_garbled")).copied().unwrap_or(0);
            let sacks = truth.sacks.iter().map(|n| (*n).min(255)).sum::<u64>();
            assert!(told >= sacks, "seed {seed}: {told} {truth:?}");
            garbled += sacks;
        }
    }
    assert!(garbled > 2000, "{garbled} segments with SACK blocks");
}
