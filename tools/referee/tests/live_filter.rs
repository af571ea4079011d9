//! `run --filter`: the books of a filter in the kernel, on a wire.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

mod common;

use common::lines;
use common::running::{Running, bench};
use common::wire::{CUT_OFF, Wire, cut_off};
use dataplane::filter::Filter;
use tests::captures;
use tests::live::{Namespace, Shape, need_root};
use wiregen::scenario::{self, Options, Packet};

fn has_libpcap(test: &str) -> bool {
    let missing = matches!(Filter::new("", true).program(1), Err(error) if error.is_library());
    if missing {
        println!("skipped: {test}: no libpcap on this host");
    }
    !missing
}

#[test]
fn what_is_not_wanted_is_filtered_in_the_kernel_and_counted() {
    if !need_root("a filter on a wire") || !has_libpcap("a filter on a wire") {
        return;
    }
    for mtu in [1500, 9000] {
        let namespace = Namespace::new();
        let mut wire = Wire::new(&namespace, Shape { mtu, ..Shape::default() });
        let bench = bench();
        let args = ["-i", "tap0", "--flows", "f", "--metrics", "m", "--filter", "port 81"];
        let running = Running::start(&namespace, &bench, &args);
        for n in 0..20 {
            wire.send_all(&cut_off(4000 + n, 80));
            wire.send_all(&cut_off(5000 + n, 81));
        }
        wire.all_arrived(&namespace);
        let ended = running.stop();
        let books = ended.books();
        assert_eq!(books["received"], 40 * CUT_OFF, "{books}");
        for account in ["analysed", "filtered"] {
            assert_eq!(books[account], 20 * CUT_OFF, "{account}: {books}");
        }
        let interface = &books["interfaces"][0];
        assert_eq!(interface["seen"], 40 * CUT_OFF);
        for account in ["taken", "filtered"] {
            assert_eq!(interface[account], 20 * CUT_OFF, "{account}: {books}");
        }
        assert_eq!(books["filter"]["expression"], "port 81");
        ended.ran.exits(0);
        let ports: Vec<_> = lines(&bench.read("f")).iter().map(|row| row["flow"]["dport"].clone()).collect();
        assert!(ports.len() == 20 && ports.iter().all(|port| port == 81), "{ports:?}");
        let metrics = bench.read("m");
        for line in [
            format!("referee_received_packets_total {}", 40 * CUT_OFF),
            format!("referee_filtered_packets_total {}", 20 * CUT_OFF),
        ] {
            assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
        }
    }
}

/// All that looks into a tag does so alike, and says alike what the expression did not see for a tag.
#[test]
fn tagged_packets_left_out_are_counted_alike_in_every_mode() {
    if !need_root("tagged packets on a wire") || !has_libpcap("tagged packets on a wire") {
        return;
    }
    let mut frames = Vec::new();
    for (port, tag) in (4000..).zip([
        &[][..],
        &[0x81, 0x00, 0x00, 0x07],
        &[0x88, 0xa8, 0x00, 0x08],
        &[0x91, 0x00, 0x00, 0x09],
    ]) {
        frames.extend(cut_off(port, 80).iter().map(|frame| [&frame[..12], tag, &frame[12..]].concat()));
    }
    let tagged = 3 * CUT_OFF;
    for exact in [true, false] {
        let mut filter = vec!["--filter", "tcp port 80"];
        filter.extend(exact.then_some("--filter-exact"));
        for mode in ["xdp", "afpacket"] {
            let namespace = Namespace::new();
            let mut wire = Wire::new(&namespace, Shape::default());
            let bench = bench();
            let args = [&["-i", "tap0", "--mode", mode][..], &filter].concat();
            let running = Running::start(&namespace, &bench, &args);
            wire.send_all(&frames);
            wire.all_arrived(&namespace);
            let ended = running.stop();
            let books = ended.books();
            let counted = [&books["received"], &books["filtered"], &books["filter"]["filtered_vlan"]];
            assert_eq!(counted, [wire.sent(), tagged, tagged], "{mode}, exact {exact}: {books}");
            ended
                .ran
                .exits(0)
                .says(&["have a VLAN tag", "try --filter 'tcp port 80 or (vlan and (tcp port 80))'"]);
        }
        let bench = bench();
        let packets: Vec<Packet> =
            frames.iter().zip(1..).map(|(bytes, ts)| Packet { ts, bytes: bytes.clone() }).collect();
        bench.file("c.pcap", captures::file(&packets, captures::NANOS));
        let ran = bench.replay(&[&filter[..], &["--ledger", "l", "c.pcap"]].concat()).exits(0);
        let books = &lines(&bench.read("l"))[0];
        assert_eq!([&books["filtered"], &books["filter"]["filtered_vlan"]], [tagged, tagged], "{books}");
        ran.says(&["have a VLAN tag"]);
    }
}

#[test]
fn errors_about_a_wanted_flow_pass_the_kernels_filter() {
    if !need_root("ICMP errors on a wire") || !has_libpcap("ICMP errors on a wire") {
        return;
    }
    let (packets, _) = scenario::packets("icmp_frag_needed", &Options::default()).unwrap();
    for exact in [false, true] {
        let namespace = Namespace::new();
        let mut wire = Wire::new(&namespace, Shape::default());
        let bench = bench();
        let mut args = vec!["-i", "tap0", "--flows", "f", "--filter", "tcp"];
        if exact {
            args.push("--filter-exact");
        }
        let running = Running::start(&namespace, &bench, &args);
        // Without the pauses: only what passes matters.
        packets.iter().for_each(|packet| wire.send(&packet.bytes));
        wire.all_arrived(&namespace);
        let ended = running.stop();
        let books = ended.books();
        assert_eq!(books["received"], wire.sent(), "{books}");
        assert_eq!(books["filter"]["related"].as_u64().unwrap() > 0, !exact, "{books}");
        assert_eq!(books["classes"]["icmp"].as_u64().unwrap() > 0, !exact, "{books}");
        ended.ran.exits(0);
    }
}
