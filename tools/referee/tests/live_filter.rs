//! `run --filter`: the books of a filter in the kernel, on a wire.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

mod common;

use common::lines;
use common::running::{Running, bench};
use common::wire::{CUT_OFF, Wire, cut_off};
use dataplane::filter::Filter;
use tests::live::{Namespace, Shape, need_root};
use wiregen::scenario::{self, Options};

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
