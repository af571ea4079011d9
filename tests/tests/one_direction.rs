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

fn kinds(outcome: &Outcome) -> BTreeSet<&str> {
    outcome.incidents.iter().map(|incident| &*incident.kind).collect()
}

#[test]
fn show() {
    for name in NAMES {
        for by_clients in [true, false] {
            let outcome = replay(captures::synthetic(&half(name, by_clients)));
            let said: Vec<_> = outcome
                .incidents
                .iter()
                .map(|i| {
                    format!("{} x{} {}", i.kind, i.flows, i.explain.chars().take(150).collect::<String>())
                })
                .collect();
            if !said.is_empty() {
                println!(
                    "{name} {} {} {}: {said:#?}",
                    if by_clients { "clients" } else { "servers" },
                    outcome.account.connections_whole,
                    outcome.account.connections_one_sided
                );
            }
        }
    }
    let _ = kinds;
}
