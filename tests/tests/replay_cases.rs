//! Every scenario of the generator, in every dress, through reader, worker and judge: what is true of it must
//! be found, and nothing else. And the hand-kept cases under `cases/`, one folder each.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use dataplane::config::WorkerConfig;
use tests::captures::{self, MICROS, MICROS_BIG, NG};
use tests::{Pipeline, Setup, case, expect, replay};
use wiregen::encap::Encap;
use wiregen::scenario::{NAMES, Options, Packet, START};
use wiregen::write::Style;

fn check(name: &str, dress: &str, options: &Options, style: Style) -> Vec<String> {
    let (packets, truth) = captures::scenario(name, options);
    let outcome = replay(captures::opened(captures::file(&packets, style)));
    let mut complaints = expect::complaints(&truth, &outcome);
    if outcome.account.received != packets.len() as u64 {
        complaints.push(format!("wrote {} packets, read {}", packets.len(), outcome.account.received));
    }
    if ["healthy", "span_duplicates", "fragments"].contains(&name) && !outcome.incidents.is_empty() {
        complaints.push(format!("a healthy network makes no incident: {:?}", outcome.incidents));
    }
    complaints.into_iter().map(|c| format!("{name} ({dress}): {c}\n")).collect()
}

fn check_all(dress: &str, options: &Options, style: Style) {
    let complaints: Vec<String> = NAMES.iter().flat_map(|name| check(name, dress, options, style)).collect();
    let shown: String = complaints.iter().take(40).map(String::as_str).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{shown}", complaints.len());
}

#[test]
fn scenarios_over_ipv4_in_a_microsecond_pcap() {
    check_all("IPv4, pcap", &Options::default(), MICROS);
}

#[test]
fn scenarios_over_ipv6_and_vlans_in_a_big_endian_pcap() {
    let options = Options { v6: true, vlan: [120, 7], seed: 2, ..Options::default() };
    check_all("IPv6, QinQ, big-endian pcap", &options, MICROS_BIG);
}

#[test]
fn scenarios_in_nanosecond_pcapng() {
    check_all("IPv4, VLAN, pcapng", &Options { vlan: [9, 0], seed: 3, ..Options::default() }, NG);
}

#[test]
fn scenarios_over_ipv6_in_vxlan() {
    let options = Options { v6: true, encap: Encap::Vxlan, seed: 4, ..Options::default() };
    check_all("IPv6 in VXLAN over IPv4", &options, NG);
}

#[test]
fn scenarios_in_gre_with_a_key() {
    check_all("IPv4 in GRE", &Options { encap: Encap::Gre, seed: 5, ..Options::default() }, MICROS);
}

#[test]
fn a_healthy_network_is_healthy_in_every_tunnel() {
    let plain = Options { flows: Some(40), ..Options::default() };
    for encap in Encap::ALL {
        for v6 in [false, true] {
            let options = Options { encap, v6, vlan: [if v6 { 30 } else { 0 }, 0], ..plain.clone() };
            let complaints = check("healthy", encap.name(), &options, NG);
            assert!(complaints.is_empty(), "{v6}: {complaints:?}");
            let (packets, _) = captures::scenario("rst_midflow", &options);
            let outcome = replay(captures::opened(captures::file(&packets, NG)));
            let wanted = match encap {
                Encap::None => None,
                Encap::Vxlan6 => Some("vxlan:42".to_owned()),
                Encap::GreBridged => Some("gre".to_owned()),
                Encap::IpIp => Some("ipip".to_owned()),
                Encap::MplsEthernet => Some("mpls:42".to_owned()),
                Encap::Gtp => Some("gtp:0x2a".to_owned()),
                other => Some(format!("{}:42", other.name())),
            };
            let of_tcp: Vec<_> = outcome.rows.iter().filter(|row| row.flow.proto == "tcp").collect();
            assert!(!of_tcp.is_empty() && of_tcp.iter().all(|row| row.flow.tunnel == wanted), "{encap:?}");
        }
    }
}

#[test]
fn what_a_mirror_delivers_twice_is_counted_twice_and_judged_once() {
    for v6 in [false, true] {
        let options = Options { flows: Some(40), v6, ..Options::default() };
        let (packets, _) = captures::scenario("span_duplicates", &options);
        let outcome = replay(captures::synthetic(&packets));
        let tcp: Vec<_> = outcome.rows.iter().filter(|row| row.flow.proto == "tcp").collect();
        for side in tcp.iter().flat_map(|row| [&row.orig, &row.resp]) {
            let facts = &side.tcp.as_ref().unwrap().facts;
            assert_eq!(facts.span_duplicate * 2, side.packets, "{v6}");
        }
        assert!(
            outcome.account.span_duplicates * 2 + 20 > packets.len() as u64,
            "{v6}: {:?}",
            outcome.account
        );
    }
}

#[test]
fn fragments_are_found_with_their_flow() {
    for v6 in [false, true] {
        let options = Options { flows: Some(40), v6, ..Options::default() };
        let payload = |name| {
            let (packets, _) = captures::scenario(name, &options);
            let outcome = replay(captures::synthetic(&packets));
            assert_eq!(outcome.account.fragments_unmatched, 0);
            let sides = outcome.rows.iter().flat_map(|row| [row.orig.clone(), row.resp.clone()]);
            let sides = sides.filter_map(|side| Some((side.packets, side.tcp?.payload)));
            (sides.collect::<Vec<_>>(), outcome.account.fragments_followed)
        };
        let (whole, split) = (payload("healthy"), payload("fragments"));
        assert!(split.1 > 100 && whole.1 == 0 && whole.0 == split.0, "{v6}: {}", split.1);
    }
}

#[test]
fn a_storm_of_thousands_of_flows_is_one_incident() {
    let (packets, truth) =
        captures::scenario("rst_storm", &Options { flows: Some(5200), ..Options::default() });
    // A storm troubles more flows than a small worker has trouble records for.
    let config = WorkerConfig { troubled: 8192, ..WorkerConfig::small() };
    let setup = Setup::with(config, tests::shipped_rules());
    let outcome = Pipeline::new(captures::synthetic(&packets), setup).run();
    assert_eq!(outcome.account.trouble_refused, 0);
    let shown: Vec<_> = outcome.incidents.iter().map(|i| (&i.kind, &i.subject, i.count, i.flows)).collect();
    assert_eq!(outcome.incidents.len(), 1, "{shown:?}");
    assert_eq!(expect::complaints(&truth, &outcome), Vec::<String>::new());
}

#[test]
fn what_a_slow_scan_met_before_it_was_known_is_folded_into_it() {
    let (packets, _) = captures::scenario("slow_scan", &Options::default());
    let outcome = replay(captures::synthetic(&packets));
    let scan = outcome.incidents.iter().find(|i| i.kind == "port_scan").unwrap();
    // Beside the scan another client's attempt was lost; it is told with the scanner's at the same port.
    let rest: Vec<_> = outcome.incidents.iter().filter(|i| i.kind != "port_scan").collect();
    assert!(rest.len() == 1 && rest[0].kind == "syn_no_synack" && rest[0].flows == 2, "{rest:?}");
    assert_eq!((scan.count, scan.flows), (40, 39), "{:?}", scan.evidence);
    assert!(outcome.folded.len() > 5, "they had been told of as they opened");
    assert!(outcome.folded.iter().all(|i| i.explain.contains(&scan.id)), "{:?}", outcome.folded[0]);
}

/// Sixty SYNs within half a second and then one every 700 ms: the hundredth comes half a minute after the burst. Told the
/// same at whatever phase of the ticks it begins.
#[test]
fn a_burst_that_goes_on_slowly_is_one_flood() {
    let (packets, _) = captures::scenario("syn_flood", &Options { flows: Some(105), ..Options::default() });
    let is_syn = |p: &&Packet| p.bytes.get(30..34) == Some(&[10, 50, 0, 10]) && p.bytes.get(47) == Some(&2);
    let syns: Vec<_> = packets.iter().filter(is_syn).take(105).collect();
    assert_eq!(syns.len(), 105);
    for phase in 0..4 {
        let at = |i: u64| if i < 60 { i * 8 + phase * 13 } else { 9_000 + (i - 60) * 700 + phase * 30 };
        let mut slow: Vec<Packet> = (0_u64..)
            .zip(&syns)
            .map(|(i, syn)| Packet { ts: START + at(i) * 1_000_000, bytes: syn.bytes.clone() })
            .collect();
        slow.push(Packet { ts: START + 50_000_000_000, bytes: vec![0; 60] });
        let outcome = replay(captures::synthetic(&slow));
        let said: Vec<_> = outcome.incidents.iter().map(|i| (&*i.kind, i.count)).collect();
        assert_eq!(said, [("syn_flood", 105)], "phase {phase}");
    }
}

#[test]
fn ten_thousand_in_time_wait_are_a_pile() {
    let options = Options { flows: Some(10_300), ..Options::default() };
    let (packets, truth) = captures::scenario("time_wait_pileup", &options);
    let outcome = replay(captures::synthetic(&packets));
    assert_eq!(truth.of_kind("time_wait_pileup").count(), 1);
    assert_eq!(expect::complaints(&truth, &outcome), Vec::<String>::new());
}

#[test]
fn a_mix_has_its_troubles_and_no_others() {
    let (packets, truth) = captures::mix_of(3000, 5);
    let outcome = replay(captures::synthetic(&packets));
    assert!(truth.lines.len() > 30, "the mix has troubles");
    let complaints = expect::complaints(&truth, &outcome);
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn hand_kept_cases() {
    let names = case::names();
    assert!(names.len() >= 4, "{names:?}");
    let complaints: String = names
        .iter()
        .flat_map(|name| case::Case::load(name).unwrap_or_else(|error| panic!("{error}")).complaints(name))
        .collect();
    assert!(complaints.is_empty(), "{complaints}");
}
