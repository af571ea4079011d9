//! Conversations played packet by packet: what the middle refuses, what a tap never shows, and which tap is first.

use std::net::IpAddr;

use super::stage::{MS, Stage, Talk, host, talk};
use crate::testing::{found, judge};
use wiregen::check;
use wiregen::scenario::Packet;

/// Some conversations that cross: three clients with two services of one server.
fn crossing(stage: &mut Stage, v6: bool) {
    for n in 0..12u8 {
        let port = if n % 2 == 0 { 443 } else { 80 };
        stage.converse(&talk(host(v6, 1, 1 + n % 3), 40_000 + u16::from(n), host(v6, 2, 9), port), 4);
    }
}

#[test]
fn a_service_that_is_refused_in_between() {
    for v6 in [false, true] {
        // The server's other services cross, its network's, or only everything else does.
        for server in [host(v6, 2, 9), host(v6, 2, 77), host(v6, 3, 5)] {
            let mut stage = Stage::new();
            crossing(&mut stage, v6);
            for n in 0..5 {
                stage.refused(&talk(host(v6, 1, 1), 50_000 + n, server, 22));
            }
            crossing(&mut stage, v6);
            let report = judge(&stage.a, &stage.b);
            assert_eq!(found(&report, "packet_lost_between"), (5, 5), "{server}: {:?}", report.summary);
            assert_eq!(found(&report, "rst_one_side_only"), (5, 5), "{server}: {:?}", report.summary);
            assert_eq!(report.findings.len(), 10);
            for finding in &report.findings {
                assert!(finding.evidence["doubt"].as_str().unwrap().contains("filter"), "{finding:?}");
            }
        }
    }
}

#[test]
fn a_service_whose_syns_are_dropped_in_between() {
    for (v6, server) in [(false, 9), (true, 9), (false, 88)] {
        let mut stage = Stage::new();
        crossing(&mut stage, v6);
        for n in 0..4 {
            stage.dropped(&talk(host(v6, 1, 2), 50_000 + n, host(v6, 2, server), 22), 3);
        }
        crossing(&mut stage, v6);
        let report = judge(&stage.a, &stage.b);
        assert_eq!(found(&report, "packet_lost_between"), (4, 12), "{:?}", report.summary);
        assert_eq!(report.findings.len(), 4);
    }
}

/// Puts a conversation past tap A, and leaves B out.
fn around(stage: &mut Stage, talk: &Talk) {
    let b = stage.b.len();
    stage.converse(talk, 3);
    stage.b.truncate(b);
}

#[test]
fn what_is_answered_without_the_other_tap_goes_another_way() {
    let mut stage = Stage::new();
    crossing(&mut stage, false);
    for n in 0..9 {
        around(&mut stage, &talk(host(false, 1, 1), 51_000 + n, host(false, 7, n as u8), 443));
    }
    // Unanswered ones to such places say nothing of the middle; nor do others on the client's side.
    stage.dropped(&talk(host(false, 1, 1), 52_000, host(false, 7, 3), 443), 3);
    stage.dropped(&talk(host(false, 1, 1), 52_001, host(false, 7, 200), 25), 3);
    stage.dropped(&talk(host(false, 1, 1), 52_002, host(false, 9, 9), 25), 3);
    stage.dropped(&talk(host(false, 1, 1), 52_003, host(false, 1, 99), 25), 3);
    crossing(&mut stage, false);
    let report = judge(&stage.a, &stage.b);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[test]
fn a_capture_filter_at_one_tap_loses_nothing() {
    let mut stage = Stage::new();
    for n in 0..30u16 {
        let port = if n % 2 == 0 { 443 } else { 80 };
        stage.converse(&talk(host(false, 1, 1), 40_000 + n, host(false, 2, 9), port), 4);
    }
    stage.dropped(&talk(host(false, 1, 1), 50_000, host(false, 2, 9), 80), 2);
    stage.converse(&talk(host(false, 1, 1), 50_001, host(false, 2, 9), 443), 4);
    let filtered: Vec<Packet> = stage.b.iter().filter(|packet| !is_of(packet, 80)).cloned().collect();
    let report = judge(&stage.a, &filtered);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

fn is_of(packet: &Packet, port: u16) -> bool {
    let seen = check::read(&packet.bytes).unwrap();
    seen.sport == port || seen.dport == port
}

fn from(packet: &Packet, hosts: &[IpAddr]) -> bool {
    hosts.contains(&check::read(&packet.bytes).unwrap().src)
}

#[test]
fn a_tap_of_one_direction_loses_nothing() {
    let servers = [host(false, 2, 9), host(false, 2, 10)];
    for hops in [2, 0] {
        for (tap, keeps_server) in [(0, true), (0, false), (1, true), (1, false)] {
            let mut stage = Stage { hops, ..Stage::new() };
            for round in 0..3 {
                crossing(&mut stage, false);
                for n in 0..10 {
                    let dns = talk(host(false, 1, 1), 33_000 + n, servers[1], 53);
                    let question = [n as u8, round, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                    let answer = [n as u8, round, 0x81, 0, 0, 1, 0, 1, 0, 0, 0, 0];
                    stage.udp(&dns, true, &question, super::stage::Way::Passes);
                    stage.udp(&dns, false, &answer, super::stage::Way::Passes);
                    stage.now += 30 * MS;
                }
            }
            let tapped = if tap == 0 { &mut stage.a } else { &mut stage.b };
            tapped.retain(|packet| from(packet, &servers) == keeps_server);
            let report = judge(&stage.a, &stage.b);
            assert!(report.findings.is_empty(), "{hops} {tap} {keeps_server}: {:#?}", report.findings);
            let books: u64 = report.summary.accounts.values().map(|books| books.not_recorded).sum();
            assert_eq!(books, stage.a.len().abs_diff(stage.b.len()) as u64, "{:?}", report.summary.accounts);
        }
    }
}

#[test]
fn losses_in_the_recorded_direction_of_a_one_way_tap_are_found() {
    let servers = [host(false, 2, 9)];
    let mut stage = Stage::new();
    crossing(&mut stage, false);
    stage.dropped(&talk(host(false, 1, 1), 50_000, servers[0], 443), 3);
    crossing(&mut stage, false);
    stage.b.retain(|packet| !from(packet, &servers));
    let report = judge(&stage.a, &stage.b);
    assert_eq!(found(&report, "packet_lost_between"), (1, 3), "{:?}", report.summary);
    assert_eq!(report.findings.len(), 1);
}

#[test]
fn answers_that_all_vanish_are_lost_though_the_tap_shows_none() {
    use super::stage::Way;
    use wiregen::packet::{ACK, SYN};
    let mut stage = Stage::new();
    crossing(&mut stage, false);
    for n in 0..5u16 {
        let talk = talk(host(false, 1, 1), 50_000 + n, host(false, 2, 50), 443);
        for _ in 0..3 {
            stage.tcp(&talk, true, SYN, [7, 0], 0, Way::Passes);
            stage.tcp(&talk, false, SYN | ACK, [9, 8], 0, Way::Lost);
            stage.now += 1000 * MS;
        }
    }
    crossing(&mut stage, false);
    let report = judge(&stage.a, &stage.b);
    assert_eq!(found(&report, "packet_lost_between"), (5, 15), "{:?}", report.summary);
}

#[test]
fn one_flow_that_comes_back_another_way() {
    let mut stage = Stage::new();
    crossing(&mut stage, false);
    let talk = talk(host(false, 1, 1), 50_000, host(false, 2, 9), 443);
    stage.converse(&talk, 20);
    crossing(&mut stage, false);
    let server = talk.server.0;
    stage.a.retain(|packet| !(is_of(packet, 50_000) && from(packet, &[server])));
    let report = judge(&stage.a, &stage.b);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.summary.accounts[&crate::TapName::B].not_recorded, 22);
}

#[test]
fn taps_a_breath_apart_with_drifting_clocks() {
    use super::stage::Way;
    use wiregen::packet::{ACK, RST};
    for (hops, way) in [(1, 0), (1, 400), (0, 3_000), (0, 20_000)] {
        for (drift_ppm, v6) in [(200.0, false), (-200.0, true), (0.0, false)] {
            let mut stage = Stage { hops, way, drift_ppm, ..Stage::new() };
            let mut resets = 0;
            for n in 0..200u16 {
                let talk = talk(host(v6, 1, 1 + (n % 9) as u8), 40_000 + n, host(v6, 2, (n % 4) as u8), 443);
                stage.converse(&talk, 2);
                stage.now += 50 * MS;
                if n % 4 == 0 {
                    // An old connection, answered by RST from the middle, towards its client.
                    let old = talk.client.1 + 10_000;
                    let talk = Talk { client: (talk.client.0, old), ..talk };
                    stage.tcp(&talk, true, ACK, [5, 9], 10, Way::Passes);
                    stage.tcp(&talk, false, RST, [9, 0], 0, Way::Made);
                    resets += 1;
                }
            }
            let report = judge(&stage.a, &stage.b);
            let name = format!("{hops} {way} {drift_ppm}");
            assert_eq!(found(&report, "rst_one_side_only"), (resets, resets), "{name} {:?}", report.summary);
            assert_eq!(report.findings.len() as u64, resets, "{name} {:?}", report.summary);
            assert!(report.findings.iter().all(|finding| finding.seen_at == Some(crate::TapName::A)));
        }
    }
}

#[test]
fn where_nothing_tells_which_tap_is_first_nothing_is_said() {
    use super::stage::Way;
    use wiregen::packet::{ACK, RST};
    let mut stage = Stage { hops: 0, way: 0, ..Stage::new() };
    crossing(&mut stage, false);
    let talk = talk(host(false, 1, 1), 50_000, host(false, 2, 9), 443);
    stage.tcp(&talk, true, ACK, [5, 9], 10, Way::Passes);
    stage.tcp(&talk, false, RST, [9, 0], 0, Way::Made);
    stage.now += 100 * MS;
    crossing(&mut stage, false);
    let report = judge(&stage.a, &stage.b);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.summary.accounts[&crate::TapName::A].undecided, 1);
}

#[test]
fn header_fields_that_are_changed() {
    for v6 in [false, true] {
        // TTL falls by the routers in between: no finding. DSCP is told.
        let mut stage = Stage::new();
        crossing(&mut stage, v6);
        let remarked: Vec<Packet> = stage.b.iter().map(|packet| with_tos(packet, v6, 46 << 2)).collect();
        let report = judge(&stage.a, &remarked);
        let s = &report.summary;
        assert!(report.findings.is_empty() && s.hops_a_to_b == Some(2) && s.hops_b_to_a == Some(2), "{s:?}");
        let told: Vec<_> = s.dscp_remarked.iter().map(|r| (r.direction, r.sent, r.received)).collect();
        assert_eq!(told, [("a_to_b", 0, 46), ("b_to_a", 46, 0)]);
        // ECN between: erased, marked, or made another.
        for (sent, received, kind) in [
            (2, 0, "ecn_bleached"),
            (1, 3, "ecn_ce_between"),
            (2, 1, "ecn_altered"),
            (3, 2, "ecn_altered"),
            (0, 2, "ecn_altered"),
        ] {
            let client = |packet: &Packet| check::read(&packet.bytes).unwrap().dport < 1024;
            let set = |packets: &[Packet], ecn: u8| -> Vec<Packet> {
                packets.iter().map(|p| with_tos(p, v6, if client(p) { ecn } else { 0 })).collect()
            };
            let report = judge(&set(&stage.a, sent), &set(&stage.b, received));
            assert_eq!(found(&report, kind).0, 12, "{kind} {:?}", report.summary.findings);
            assert_eq!(report.findings.len(), 12, "{sent} {received} {:?}", report.summary.findings);
        }
        // A box that sets every TTL.
        let at = if v6 { 14 + 7 } else { 14 + 8 };
        let ttl = |packet: &Packet| {
            let mut packet = packet.clone();
            if check::read(&packet.bytes).unwrap().dport < 1024 {
                packet.bytes[at] = 255;
            }
            packet
        };
        let raised: Vec<Packet> = stage.b.iter().map(ttl).collect();
        let report = judge(&stage.a, &raised);
        assert_eq!(found(&report, "ttl_raised").0, 12, "{:?}", report.summary.findings);
        assert_eq!(report.findings.len(), 12);
    }
}

/// The packet with another traffic class.
fn with_tos(packet: &Packet, v6: bool, tos: u8) -> Packet {
    let mut packet = packet.clone();
    if v6 {
        packet.bytes[14] = 0x60 | tos >> 4;
        packet.bytes[15] = packet.bytes[15] & 0x0f | tos << 4;
    } else {
        packet.bytes[15] = tos;
    }
    packet
}

#[test]
fn a_router_in_between_speaks_of_what_it_stopped() {
    use super::stage::Way;
    use wiregen::packet::{Ethernet, Ip, icmp};
    let mut stage = Stage::new();
    crossing(&mut stage, false);
    let talk = talk(host(false, 1, 1), 50_000, host(false, 2, 9), 22);
    stage.tcp(&talk, true, wiregen::packet::SYN, [5000, 0], 0, Way::Lost);
    let quoted = stage.a.last().unwrap().bytes[14..42].to_vec();
    stage.packet(false, Way::Made, |_, id| {
        let ip = Ip { src: host(false, 66, 1), dst: talk.client.0, ttl: 254, id, dont_fragment: false };
        let mut bytes = Vec::new();
        icmp(&mut bytes, &Ethernet::default(), &ip, 3, 13, [0; 4], &quoted);
        bytes
    });
    crossing(&mut stage, false);
    let report = judge(&stage.a, &stage.b);
    assert_eq!(found(&report, "icmp_from_between"), (1, 1), "{:?}", report.summary);
    assert_eq!(found(&report, "packet_lost_between"), (1, 1));
    let finding = report.findings.iter().find(|finding| finding.kind == "icmp_from_between").unwrap();
    assert_eq!(finding.evidence["router"], "10.66.0.1");
    assert_eq!(finding.evidence["about"]["dport"], 22);
    assert_eq!((finding.seen_at, report.findings.len()), (Some(crate::TapName::A), 2));
}

#[test]
fn one_segment_of_a_joined_one_is_lost() {
    use super::stage::Way;
    use wiregen::packet::ACK;
    let mut stage = Stage::new();
    crossing(&mut stage, false);
    for n in 0..5u16 {
        let talk = talk(host(false, 1, 1), 50_000 + n, host(false, 2, 9), 443);
        stage.tcp(&talk, false, ACK, [9, 5], 0, Way::Passes);
        stage.tcp(&talk, true, ACK, [5, 9], 10, Way::Passes);
        // A's card sends three segments as one; the middle loses the second, which is sent again.
        stage.tcp(&talk, true, ACK, [15, 9], 3000, Way::Lost);
        stage.tcp(&talk, true, ACK, [15, 9], 1000, Way::Made);
        stage.tcp(&talk, true, ACK, [2015, 9], 1000, Way::Made);
        stage.now += 300 * MS;
        stage.tcp(&talk, true, ACK, [1015, 9], 1000, Way::Passes);
        stage.tcp(&talk, false, ACK, [9, 3015], 0, Way::Passes);
    }
    crossing(&mut stage, false);
    let report = judge(&stage.a, &stage.b);
    assert_eq!(found(&report, "packet_lost_between"), (5, 5), "{:?}", report.summary);
    assert_eq!(report.findings.len(), 5);
    let evidence = &report.findings[0].evidence;
    assert_eq!(
        (&evidence["payload_bytes"], &evidence["arrived_in_part"]),
        (&1000.into(), &1.into()),
        "{evidence:?}"
    );
}
