//! `referee compare` on two captures of one path: what it finds, how it says so, and that neither file's state nor
//! order confuses it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

mod common;

use common::{Bench, Ran};
use serde_json::Value;
use wiregen::encap::Encap;
use wiregen::scenario::{self, Options, Packet};
use wiregen::twotap::{Around, Middle, On, Path, Taps, split};
use wiregen::write::{Format, Style, Writer};

const SECOND: i64 = 1_000_000_000;

fn file(packets: &[Packet], style: Style) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), style).unwrap();
    for packet in packets {
        writer.packet(packet.ts, &packet.bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// Writes a scenario's two captures, in different containers, and tells what the middle did.
fn pair(bench: &Bench, scenario: &str, v6: bool, path: &Path) -> Taps {
    let options = Options { v6, idle_s: Some(30.0), ..Options::default() };
    let taps = split(&scenario::packets(scenario, &options).unwrap().0, path);
    bench.file("client.pcap", file(&taps.client, Style::default()));
    let ng = Style { format: Format::Pcapng, ..Style::default() };
    bench.file("server.pcapng", file(&taps.server, ng));
    taps
}

/// Lines of one kind: how many, and the sum of their packets.
fn found(ran: &Ran, kind: &str) -> (u64, u64) {
    let lines = ran.json();
    let of = lines.iter().filter(|line| line["kind"] == kind);
    of.fold((0, 0), |(n, packets), line| (n + 1, packets + line["count"].as_u64().unwrap()))
}

fn done(taps: &Taps, kind: &str) -> (u64, u64) {
    let of = taps.done.iter().filter(|((done, _), _)| *done == kind);
    of.fold((0, 0), |(n, packets), (_, count)| (n + 1, packets + count))
}

fn summary(ran: &Ran) -> Value {
    ran.json().pop().unwrap()["summary"].clone()
}

#[test]
fn nothing_wrong_is_one_line_whatever_is_around_the_packets() {
    let bench = Bench::new();
    for (v6, around, offset) in [
        (false, Around::Nothing, 0),
        (true, Around::Vlan(12), 5 * SECOND),
        (false, Around::Tunnel(Encap::Vxlan), -7_000_000),
    ] {
        pair(&bench, "healthy", v6, &Path { around, offset, ..Path::default() });
        let ran = bench.run(&["compare", "--json", "client.pcap", "server.pcapng"]).exits(0);
        assert_eq!(ran.json().len(), 1, "{}", ran.stdout);
        let s = summary(&ran);
        let off = (s["offset_ns"].as_i64().unwrap() - offset).abs();
        assert!(off <= s["offset_uncertainty_ns"].as_i64().unwrap() + 1000, "{s}");
        assert_eq!((&s["only_a"], &s["only_b"], &s["client_side"]), (&0.into(), &0.into(), &"a".into()));
        let told = bench.run(&["compare", "server.pcapng", "client.pcap"]).exits(0);
        assert!(told.stdout.starts_with("The network between the taps is innocent"), "{}", told.stdout);
        assert!(!told.stdout.contains('\x1b') && told.stderr.is_empty(), "{}", told.stderr);
    }
}

#[test]
fn a_forged_reset_is_pinned_on_the_middle() {
    let bench = Bench::new();
    let taps = pair(&bench, "rst_after_idle", false, &Path { offset: 3600 * SECOND, ..Path::default() });
    let ran = bench.run(&["compare", "--json", "client.pcap", "server.pcapng"]).exits(0);
    for kind in ["rst_one_side_only", "packet_lost_between"] {
        assert_eq!(found(&ran, kind), done(&taps, kind), "{}", ran.stdout);
    }
    let line = ran.json().into_iter().find(|line| line["kind"] == "rst_one_side_only").unwrap();
    assert_eq!((&line["seen_at"], &line["missing_at"]), (&"a".into(), &"b".into()));
    let evidence = &line["evidence"];
    assert_eq!((&evidence["ttl"], &evidence["ttl_foreign"]), (&253.into(), &true.into()));
    let server = format!("{}:{}", line["flow"]["dst"].as_str().unwrap(), line["flow"]["dport"]);
    assert_eq!(evidence["alleged_sender"], server);
    let told = bench.run(&["compare", "client.pcap", "server.pcapng"]).exits(0).stdout;
    for words in
        ["resets were forged", "◀── [A] ◀── (✗ made here)", "the sender is between the two taps", "TTL 253"]
    {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    let turned = bench.run(&["compare", "server.pcapng", "client.pcap"]).exits(0).stdout;
    assert!(turned.contains("◀── [B] ◀── (✗ made here)"), "{turned}");
}

#[test]
fn lost_packets_are_counted_and_edits_named() {
    let bench = Bench::new();
    let middle = Middle {
        lose_one_in: Some(4),
        mss: Some(1200),
        strip_wscale: On::Syn,
        strip_sack: On::Both,
        ecn: true,
        bleach_ecn: true,
        ..Middle::default()
    };
    for (v6, around) in [(false, Around::Vlan(99)), (true, Around::Nothing)] {
        let path = Path { middle: middle.clone(), around, offset: -3 * SECOND, ..Path::default() };
        let taps = pair(&bench, "healthy", v6, &path);
        let ran = bench.run(&["compare", "--json", "client.pcap", "server.pcapng"]).exits(0);
        for kind in ["packet_lost_between", "mss_clamped", "wscale_stripped", "sack_stripped", "ecn_bleached"]
        {
            let (theirs, ours) = (done(&taps, kind), found(&ran, kind));
            assert!(theirs.0 > 10 && theirs == ours, "{kind}: {theirs:?} {ours:?}");
        }
    }
}

#[test]
fn rewritten_numbers_are_followed() {
    let bench = Bench::new();
    let middle = Middle { shift: Some(0x9000_0001), forget_sack: true, ..Middle::default() };
    let taps = pair(&bench, "retransmission", false, &Path { middle, ..Path::default() });
    let ran = bench.run(&["compare", "--json", "client.pcap", "server.pcapng"]).exits(0);
    for kind in ["seq_rewritten", "sack_garbled"] {
        assert!(done(&taps, kind).0 > 0);
        assert_eq!(found(&ran, kind), done(&taps, kind), "{kind}");
    }
    assert_eq!((&summary(&ran)["only_a"], &summary(&ran)["only_b"]), (&0.into(), &0.into()));
}

#[test]
fn the_books_of_both_files_balance() {
    let bench = Bench::new();
    let middle = Middle { lose_one_in: Some(3), ..Middle::default() };
    pair(&bench, "demo", false, &Path { middle, ..Path::default() });
    let s = summary(&bench.run(&["compare", "--json", "client.pcap", "server.pcapng"]).exits(0));
    assert_eq!((&s["balanced"], &s["input_complete"]), (&true.into(), &true.into()));
    for (tap, only) in [("a", "only_a"), ("b", "only_b")] {
        let books = s["accounts"][tap].as_object().unwrap();
        let sum: u64 =
            books.iter().filter(|(name, _)| *name != "packets").map(|(_, n)| n.as_u64().unwrap()).sum();
        assert_eq!(books["packets"], sum, "{books:?}");
        let rest =
            ["matched", "not_ip", "malformed"].map(|name| books[name].as_u64().unwrap()).iter().sum::<u64>();
        assert_eq!(s[only], sum - rest);
        assert_eq!(books["matched"], s["matched_packets"]);
    }
}

#[test]
fn damaged_empty_and_foreign_files() {
    let bench = Bench::new();
    pair(&bench, "healthy", false, &Path::default());
    let whole = std::fs::read(bench.path("client.pcap")).unwrap();
    bench.file("cut.pcap", &whole[..whole.len() / 2]);
    bench.file("none.pcap", &whole[..24]);
    bench.file("text.pcap", "no capture");
    let ran =
        bench.run(&["compare", "--json", "cut.pcap", "server.pcapng"]).exits(0).says(&["cut.pcap", "count"]);
    assert_eq!(ran.json().len(), 1, "{}", ran.stdout);
    assert_eq!(summary(&ran)["input_complete"], false);
    let told = bench.run(&["compare", "none.pcap", "server.pcapng"]).exits(0).stdout;
    assert!(told.starts_with("A has no packets"), "{told}");
    let told = bench.run(&["compare", "server.pcapng", "none.pcap"]).exits(0).stdout;
    assert!(told.starts_with("B has no packets"), "{told}");
    let s = summary(&bench.run(&["compare", "--json", "none.pcap", "none.pcap"]).exits(0));
    assert_eq!((&s["offset_ns"], &s["drift_ppm"]), (&Value::Null, &Value::Null));
    bench.run(&["compare", "client.pcap", "text.pcap"]).exits(3).says(&["text.pcap"]);
    bench.run(&["compare", "client.pcap", "missing.pcap"]).exits(3).says(&["missing.pcap"]);
    bench.run(&["compare", "-", "-"]).exits(2).says(&["named twice"]);
    bench.run(&["compare", "client.pcap"]).exits(2);
}

#[test]
fn causes_are_grouped_the_gravest_kind_first() {
    let bench = Bench::new();
    let middle = Middle { lose_one_in: Some(2), mss: Some(1200), dscp: Some(46), ..Middle::default() };
    let taps = pair(&bench, "rst_after_idle", false, &Path { middle, ..Path::default() });
    let told = bench.run(&["compare", "client.pcap", "server.pcapng"]).exits(0).stdout;
    let at =
        |words: &str| told.find(&format!("\n{words}")).unwrap_or_else(|| panic!("{words} is not in {told}"));
    assert!(
        at("rst_one_side_only") < at("packet_lost_between") && at("packet_lost_between") < at("mss_clamped")
    );
    assert!(told.contains("0 became 46") && told.lines().count() < 60, "{told}");
    assert_eq!(told.matches("\npacket_lost_between").count(), 1);
    assert!(done(&taps, "packet_lost_between").0 > 4);
    let ran = bench.run(&["compare", "--json", "client.pcap", "server.pcapng"]).exits(0);
    let line = ran.json().into_iter().find(|line| line["kind"] == "packet_lost_between").unwrap();
    assert_eq!(
        (&line["evidence"]["client_side"], &line["evidence"]["crosses"]),
        (&"a".into(), &"other packets of this conversation".into())
    );
}

#[test]
fn a_router_in_between_is_drawn_in_between() {
    let bench = Bench::new();
    let taps = pair(&bench, "icmp_frag_needed", false, &Path::default());
    // What is too big for the link in between comes to the server's tap only, and so does the router's answer.
    let stopped = |packet: &&Packet| {
        let seen = wiregen::check::read(&packet.bytes).ok();
        !seen.is_some_and(|seen| seen.protocol == 1 || seen.payload > 1300)
    };
    let client: Vec<Packet> = taps.client.iter().filter(stopped).cloned().collect();
    bench.file("client.pcap", file(&client, Style::default()));
    let told = bench.run(&["compare", "client.pcap", "server.pcapng"]).exits(0).stdout;
    let line = told.lines().find(|line| line.trim_start().starts_with("icmp ")).unwrap_or_default();
    assert!(line.contains("◀── [B] ◀── (✗ ") && line.ends_with("[A]") && !line.contains(":0"), "{told}");
    assert!(told.contains("about tcp from "), "{told}");
}
