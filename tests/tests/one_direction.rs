//! Captures that show only one direction: what the other end did not say there proves nothing.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::BTreeSet;

use tests::{Outcome, captures, replay};
use wiregen::scenario::{NAMES, Options, Packet};

/// IPv4 frames of a scenario that its clients sent, or its servers.
fn half(name: &str, by_clients: bool) -> Vec<Packet> {
    let (packets, _) = captures::scenario(name, &Options::default());
    let of_clients = |packet: &Packet| packet.bytes.get(26..28) == Some(&CLIENTS[..]);
    packets.into_iter().filter(|packet| of_clients(packet) == by_clients).collect()
}

/// The first two bytes of clients' addresses.
const CLIENTS: [u8; 2] = [10, 20];

/// Kinds whose evidence is that something did not come.
const SILENCES: [&str; 10] = [
    "close_wait_pileup",
    "dns_timeout_retry",
    "dns_unanswered",
    "ecn_ce",
    "fin_wait2_pileup",
    "half_open",
    "pmtu_blackhole",
    "syn_no_synack",
    "syn_recv_pileup",
    "tls_no_server_hello",
];

/// What the half of a scenario shows all the same: the same SYN or question, sent again and again.
const SHOWN: [(&str, &str); 9] = [
    ("demo", "syn_no_synack"),
    ("dns_timeout_retry", "dns_timeout_retry"),
    ("ecn_blackhole_flows", "syn_no_synack"),
    ("icmp_unreachable", "syn_no_synack"),
    ("outage", "syn_no_synack"),
    ("slow_scan", "syn_no_synack"),
    ("syn_no_synack", "syn_no_synack"),
    // The answers are lost beyond this capture point, and so they are as good as never given.
    ("syn_recv_pileup", "syn_no_synack"),
    ("ecn_syn_blackhole", "ecn_syn_blackhole"),
];

fn stray(name: &str, outcome: &Outcome) -> BTreeSet<String> {
    let silent = outcome.incidents.iter().filter(|i| SILENCES.contains(&&*i.kind));
    silent
        .filter(|i| !SHOWN.contains(&(name, &*i.kind)))
        .map(|i| format!("{name}: {} {}", i.kind, i.explain))
        .collect()
}

#[test]
fn half_of_a_capture_proves_no_silence() {
    let mut found = BTreeSet::new();
    for name in NAMES {
        for by_clients in [true, false] {
            found.extend(stray(name, &replay(captures::synthetic(&half(name, by_clients)))));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn whose_syns_are_repeated_is_not_answered_in_either_half() {
    let outcome = replay(captures::synthetic(&half("syn_no_synack", true)));
    assert!(
        outcome.incidents.iter().any(|i| i.kind == "syn_no_synack" && i.flows == 20),
        "{:?}",
        outcome.incidents
    );
    let account = outcome.account;
    assert_eq!((account.connections_whole, account.connections_one_sided), (0, 380));
    let one_sided = outcome.rows.iter().filter(|row| row.findings.contains_key("one_sided")).count();
    assert_eq!(one_sided, 380);
    let outcome = replay(captures::synthetic(&half("syn_no_synack", false)));
    assert_eq!(outcome.incidents, []);
    assert_eq!((outcome.account.connections_whole, outcome.account.connections_one_sided), (0, 380));
}

#[test]
fn a_resolver_beside_the_path_is_not_blamed() {
    // The link shows both directions, only this server's answers come another way.
    let (packets, _) = captures::scenario("healthy", &Options::default());
    let answers =
        |p: &Packet| p.bytes.get(34..36) == Some(&[0, 53]) || p.bytes.get(26..30) == Some(&[10, 50, 0, 53]);
    let questions = packets.iter().filter(|p| p.bytes.get(36..38) == Some(&[0, 53])).count();
    let outcome =
        replay(captures::synthetic(&packets.into_iter().filter(|p| !answers(p)).collect::<Vec<_>>()));
    assert!(questions > 30);
    assert_eq!(outcome.incidents, []);
}
