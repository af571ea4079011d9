//! Whole comparisons of generated captures: what the middle did is found, and nothing else.

mod adverse;
mod played;
mod stage;

use wiregen::check::{self, Seen};
use wiregen::encap::Encap;
use wiregen::packet::{self, Ethernet, Ip, RST, TcpHeader};
use wiregen::scenario::Packet;
use wiregen::twotap::{Around, Middle, On, Path};

use crate::testing::{done, found, judge, taps};

const SECOND: i64 = 1_000_000_000;

#[test]
fn nothing_wrong_nothing_said() {
    for (v6, around) in [
        (false, Around::Nothing),
        (true, Around::Nothing),
        (false, Around::Vlan(9)),
        (true, Around::Tunnel(Encap::Vxlan)),
    ] {
        for scenario in
            ["healthy", "retransmission", "zero_window", "keepalive", "rst_midflow", "conn_refused"]
        {
            for offset in [0, -37_000_000, 5 * SECOND, 86_400 * 400 * SECOND] {
                let path = Path { around, offset, ..Path::default() };
                let taps = taps(scenario, v6, &path);
                let report = judge(&taps.client, &taps.server);
                assert!(report.findings.is_empty(), "{scenario} {v6} {offset}: {:#?}", report.findings);
                let s = &report.summary;
                let off = (s.offset_ns.unwrap() - offset).abs();
                assert!(off <= s.offset_uncertainty_ns.unwrap(), "{scenario}: off by {off}: {s:?}");
                assert_eq!((s.hops_a_to_b, s.hops_b_to_a), (Some(3), Some(3)));
                assert_eq!((s.only_a, s.only_b), (0, 0), "{s:?}");
            }
        }
    }
}

#[test]
fn drift_is_read_off_the_packets() {
    for drift_ppm in [-60.0, 25.0] {
        let path = Path { drift_ppm, offset: 3 * SECOND, ..Path::default() };
        let taps = taps("rst_after_idle", false, &path);
        let report = judge(&taps.client, &taps.server);
        let s = &report.summary;
        let (drift, doubt) = (s.drift_ppm.unwrap(), s.drift_uncertainty_ppm.unwrap());
        assert!((drift - drift_ppm).abs() < 6.0 && doubt < 40.0, "{drift} ± {doubt}");
    }
}

#[test]
fn a_forged_reset_and_the_request_it_swallowed() {
    for v6 in [false, true] {
        let taps = taps("rst_after_idle", v6, &Path { offset: 37_000_000, ..Path::default() });
        let report = judge(&taps.client, &taps.server);
        for kind in ["rst_one_side_only", "packet_lost_between"] {
            assert_eq!(found(&report, kind), done(&taps, kind), "{kind}");
        }
        assert_eq!(report.summary.findings.len(), 2, "{:?}", report.summary.findings);
    }
}

#[test]
fn what_was_sent_before_and_lost_is_counted_exactly() {
    for (v6, around) in [(false, Around::Nothing), (true, Around::Vlan(5))] {
        for scenario in ["healthy", "keepalive", "syn_retransmission"] {
            let middle = Middle { lose_one_in: Some(3), ..Middle::default() };
            let taps = taps(scenario, v6, &Path { middle, around, offset: -2 * SECOND, ..Path::default() });
            let report = judge(&taps.client, &taps.server);
            assert_eq!(
                found(&report, "packet_lost_between"),
                done(&taps, "packet_lost_between"),
                "{scenario} {v6}"
            );
            assert_eq!(report.summary.findings.len(), 1, "{scenario} {v6}: {:?}", report.summary.findings);
        }
    }
}

#[test]
fn edits_of_the_handshake() {
    let middle =
        Middle { mss: Some(1300), strip_wscale: On::SynAck, strip_sack: On::Syn, ..Middle::default() };
    for v6 in [false, true] {
        let taps = taps("healthy", v6, &Path { middle: middle.clone(), ..Path::default() });
        let report = judge(&taps.client, &taps.server);
        for kind in ["mss_clamped", "wscale_stripped", "sack_stripped"] {
            assert_eq!(found(&report, kind), done(&taps, kind), "{kind}");
        }
        assert_eq!(found(&report, "wscale_mismatch").0, found(&report, "wscale_stripped").0);
        assert_eq!(report.summary.findings.len(), 4, "{:?}", report.summary.findings);
    }
    let both = Middle { strip_wscale: On::Both, ..Middle::default() };
    let taps = taps("healthy", false, &Path { middle: both, ..Path::default() });
    let report = judge(&taps.client, &taps.server);
    let mismatch = report.findings.iter().find(|finding| finding.kind == "wscale_mismatch");
    assert!(mismatch.is_none(), "neither end scales: {mismatch:?}");
}

#[test]
fn shifted_numbers_and_forgotten_sack_blocks() {
    for (forget_sack, seen) in [(false, 0), (true, 1)] {
        let middle = Middle { shift: Some(0x8123_4567), forget_sack, ..Middle::default() };
        let taps = taps("retransmission", false, &Path { middle, ..Path::default() });
        let report = judge(&taps.client, &taps.server);
        assert_eq!(found(&report, "seq_rewritten"), done(&taps, "seq_rewritten"));
        assert_eq!(found(&report, "sack_garbled").0.min(1), seen, "{:?}", report.summary.findings);
        assert_eq!(found(&report, "sack_garbled"), done(&taps, "sack_garbled"));
        assert_eq!(report.summary.only_a + report.summary.only_b, 0);
    }
}

#[test]
fn shifted_numbers_are_found_without_a_handshake() {
    let middle = Middle { shift: Some(1_000_000), ..Middle::default() };
    let taps = taps("keepalive", false, &Path { middle, ..Path::default() });
    let cut = |packets: &[Packet]| packets[packets.len() / 2..].to_vec();
    let report = judge(&cut(&taps.client), &cut(&taps.server));
    assert!(found(&report, "seq_rewritten").0 > 0);
    assert_eq!(found(&report, "packet_lost_between"), (0, 0), "{:?}", report.findings);
}

#[test]
fn ecn_that_is_erased() {
    let middle = Middle { ecn: true, bleach_ecn: true, ..Middle::default() };
    let taps = taps("healthy", true, &Path { middle, ..Path::default() });
    let report = judge(&taps.client, &taps.server);
    assert_eq!(found(&report, "ecn_bleached"), done(&taps, "ecn_bleached"));
    let kept = Middle { ecn: true, ..Middle::default() };
    let taps = crate::testing::taps("healthy", true, &Path { middle: kept, ..Path::default() });
    assert!(judge(&taps.client, &taps.server).findings.is_empty());
}

#[test]
fn what_else_a_middle_does_to_packets() {
    let middles = [
        ("timestamps_stripped", Middle { strip_timestamps: On::Both, ..Middle::default() }),
        ("timestamps_stripped", Middle { strip_timestamps: On::SynAck, ..Middle::default() }),
        ("ecn_ce_between", Middle { ecn: true, mark_ce: true, ..Middle::default() }),
        ("payload_altered", Middle { alter: true, ..Middle::default() }),
    ];
    for (kind, middle) in middles {
        for v6 in [false, true] {
            let taps = taps("healthy", v6, &Path { middle: middle.clone(), ..Path::default() });
            let report = judge(&taps.client, &taps.server);
            assert!(done(&taps, kind).0 > 50);
            assert_eq!(found(&report, kind), done(&taps, kind), "{kind} {v6}");
            assert_eq!(report.summary.findings.len(), 1, "{v6}: {:?}", report.summary.findings);
        }
    }
}

#[test]
fn routers_between_and_beyond() {
    for (v6, proto) in [(false, 1), (true, 58)] {
        let taps = taps("icmp_frag_needed", v6, &Path::default());
        let report = judge(&taps.client, &taps.server);
        assert!(report.findings.is_empty(), "a router beyond both taps: {:#?}", report.findings);
        let errors = places(&taps.client, |seen| seen.protocol == proto);
        // Both taps saw what they speak of: whoever sent them is beyond, and they came another way.
        let report = judge(&without(&taps.client, &errors), &taps.server);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        let large = places(&taps.client, |seen| seen.protocol == 6 && seen.payload > 1300);
        let stopped = [errors.clone(), large].concat();
        let report = judge(&without(&taps.client, &stopped), &taps.server);
        assert_eq!(found(&report, "icmp_from_between").1, errors.len() as u64, "{:#?}", report.findings);
    }
}

#[test]
fn captures_of_different_times_lose_nothing() {
    let taps = taps("healthy", false, &Path { offset: 9 * SECOND, ..Path::default() });
    let n = taps.server.len();
    let part = |packets: &[Packet], from: usize, to: usize| packets[n * from / 10..n * to / 10].to_vec();
    for (a, b) in [((0, 7), (3, 10)), ((0, 10), (4, 6)), ((2, 5), (0, 10)), ((5, 10), (0, 6))] {
        let report = judge(&part(&taps.client, a.0, a.1), &part(&taps.server, b.0, b.1));
        assert!(report.findings.is_empty(), "{a:?} {b:?}: {:#?}", report.findings);
        assert!(report.summary.matched_packets > 100);
    }
}

#[test]
fn what_a_tap_missed_is_not_called_lost() {
    let taps = taps("healthy", false, &Path::default());
    let drop = |packets: &[Packet], at: usize| -> Vec<Packet> {
        packets.iter().enumerate().filter(|(i, _)| i % 40 != at).map(|(_, packet)| packet.clone()).collect()
    };
    let report = judge(&drop(&taps.client, 7), &drop(&taps.server, 23));
    let lost = found(&report, "packet_lost_between").1 + found(&report, "packet_injected_between").1;
    let books = &report.summary.accounts;
    let missed: u64 = books.values().map(|books| books.missed_by_other_tap).sum();
    assert!(missed > 50, "{books:?}");
    assert!(lost <= 2, "{:#?}", report.findings);
}

#[test]
fn mirrored_copies_are_not_injected() {
    for v6 in [false, true] {
        let taps = taps("healthy", v6, &Path::default());
        let twice: Vec<Packet> = taps
            .client
            .iter()
            .flat_map(|packet| {
                [packet.clone(), Packet { ts: packet.ts + 3_000, bytes: packet.bytes.clone() }]
            })
            .collect();
        let report = judge(&twice, &taps.server);
        assert!(report.findings.is_empty(), "{v6}: {:#?}", report.findings);
        let duplicates: u64 =
            report.summary.accounts.values().map(|books| books.duplicate + books.local).sum();
        assert!(duplicates + 50 > taps.client.len() as u64, "{:?}", report.summary.accounts);
    }
}

#[test]
fn strangers_have_nothing_to_do_with_each_other() {
    let one = taps("healthy", false, &Path::default());
    let other = taps("healthy", true, &Path::default());
    let report = judge(&one.client, &other.server);
    assert_eq!((report.summary.matched_packets, report.summary.offset_ns), (0, None));
    assert!(report.findings.is_empty());
    assert!(judge(&one.client, &[]).findings.is_empty());
    assert!(judge(&[], &[]).findings.is_empty());
}

#[test]
fn a_cut_payload_still_matches() {
    let taps = taps("healthy", false, &Path::default());
    let cut: Vec<Packet> = taps
        .server
        .iter()
        .map(|packet| Packet { bytes: packet.bytes[..packet.bytes.len().min(96)].to_vec(), ..packet.clone() })
        .collect();
    // Bytes cut off the end of a frame look like a shorter snap length.
    let report = judge(&taps.client, &cut);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[test]
fn ten_packets_are_enough() {
    let taps = taps("healthy", false, &Path { offset: 12_345_678, ..Path::default() });
    let report = judge(&taps.client[..12], &taps.server[..10]);
    let s = &report.summary;
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!((s.offset_ns.unwrap() - 12_345_678).abs() < 3_000_000, "{s:?}");
}

/// A tap without the packets at these places.
fn without(packets: &[Packet], places: &[usize]) -> Vec<Packet> {
    let kept = packets.iter().enumerate().filter(|(i, _)| !places.contains(i));
    kept.map(|(_, packet)| packet.clone()).collect()
}

/// Places of packets for which `wanted` holds.
fn places(packets: &[Packet], wanted: impl Fn(&Seen) -> bool) -> Vec<usize> {
    let seen =
        packets.iter().enumerate().filter_map(|(i, packet)| Some((i, check::read(&packet.bytes).ok()?)));
    seen.filter(|(_, seen)| wanted(seen)).map(|(i, _)| i).collect()
}

#[test]
fn pings_that_are_lost() {
    for (v6, proto) in [(false, 1), (true, 58)] {
        let taps = taps("healthy", v6, &Path::default());
        let ping = |seen: &Seen| seen.protocol == proto;
        let (here, there) = (places(&taps.client, ping), places(&taps.server, ping));
        // The second request never arrives, the third answer never comes back.
        let client = without(&taps.client, &[here[3], here[5]]);
        let server = without(&taps.server, &[there[2], there[3]]);
        let report = judge(&client, &server);
        assert_eq!(found(&report, "packet_lost_between"), (2, 2), "{:#?}", report.findings);
        assert_eq!(report.findings.len(), 2);
        // What only the tap misses was answered.
        let report = judge(&taps.client, &without(&taps.server, &[there[2]]));
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

#[test]
fn a_packet_from_nowhere() {
    let taps = taps("healthy", false, &Path::default());
    let answers = places(&taps.client, |seen| seen.sport == 443 && seen.payload > 0 && seen.flags & RST == 0);
    let real = &taps.client[answers[answers.len() / 2]];
    let mut bytes = real.bytes.clone();
    // Another TTL and IP-ID, and other bytes of what the server sends later.
    bytes[22] = 200;
    bytes[18] ^= 0x55;
    bytes[41] = bytes[41].wrapping_add(9);
    let mut client = taps.client.clone();
    client.push(Packet { ts: real.ts + 50_000, bytes });
    let report = judge(&client, &taps.server);
    assert_eq!(found(&report, "packet_injected_between"), (1, 1), "{:#?}", report.findings);
    assert_eq!(report.findings.len(), 1);
}

/// Two segments that follow each other as one, as a card that joins segments hands them over.
fn joined(first: &Packet, second: &Packet) -> Option<Packet> {
    let (one, two) = (check::read(&first.bytes).ok()?, check::read(&second.bytes).ok()?);
    let follows = (one.src, one.sport, one.dst, one.dport, one.ack)
        == (two.src, two.sport, two.dst, two.dport, two.ack)
        && one.seq.wrapping_add(one.payload) == two.seq
        && one.payload > 500
        && two.payload > 500;
    let tail =
        |packet: &Packet, seen: &Seen| packet.bytes[packet.bytes.len() - seen.payload as usize..].to_vec();
    let payload = [tail(first, &one), tail(second, &two)].concat();
    let ip = Ip { src: one.src, dst: one.dst, ttl: one.ttl, id: 9, dont_fragment: true };
    let header = TcpHeader {
        sport: one.sport,
        dport: one.dport,
        seq: one.seq,
        ack: one.ack,
        flags: two.flags,
        window: two.window,
        options: &[],
    };
    let mut bytes = Vec::new();
    packet::tcp(&mut bytes, &Ethernet::default(), &ip, &header, &payload);
    follows.then_some(Packet { ts: first.ts, bytes })
}

#[test]
fn joined_segments_lose_nothing() {
    let taps = taps("healthy", false, &Path::default());
    let mut client: Vec<Packet> = Vec::new();
    let mut joins = 0;
    for packet in &taps.client {
        match client.last().and_then(|last| joined(last, packet)) {
            Some(both) if joins % 3 != 2 => {
                joins += 1;
                client.pop();
                client.push(both);
            }
            _ => {
                joins += usize::from(joins % 3 == 2);
                client.push(packet.clone());
            }
        }
    }
    assert!(joins > 100, "{joins}");
    let report = judge(&client, &taps.server);
    assert!(report.findings.is_empty(), "{joins} {:#?}", report.findings);
    let books: Vec<u64> = report.summary.accounts.values().map(|books| books.resegmented).collect();
    assert!(books.iter().all(|n| *n > 50), "{books:?}");
}
