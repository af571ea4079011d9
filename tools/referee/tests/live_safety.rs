//! `referee run` takes no interface that others need, changes nothing where it refuses, and says why and what
//! to type instead.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::fs;
use std::os::fd::AsFd;

use common::Ran;
use common::running::{self, Running, bench, run, until};
use common::wire::{CUT_OFF, Wire, assert_given_back, cut_off, described, program};
use dataplane_sys::bpf::{XdpMode, attach_xdp};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};
use xdp_prog::Capture;

/// What a run must not change: the interface but for its counters, and addresses and routes.
fn state(namespace: &Namespace, interface: &str) -> (Value, String, String) {
    let mut link = described(namespace, interface);
    let fields = link.as_object_mut().unwrap();
    fields.remove("stats64");
    (link, namespace.ip(&["address"]), namespace.ip(&["route", "show", "table", "all"]))
}

/// Runs on `tap0` and expects to be refused, and all to be as before.
#[track_caller]
fn refused(namespace: &Namespace, args: &[&str], code: i32, says: &[&str]) -> Ran {
    let before = state(namespace, "tap0");
    let bench = bench();
    let all = [&["-i", "tap0", "--store", "s"], args].concat();
    let ran = run(namespace, &bench, &all).exits(code).says(says).says(&["help: "]);
    let ready = ran.stderr.lines().any(|line| line == "ready");
    assert!(!ready && ran.stdout.is_empty(), "{}{}", ran.stderr, ran.stdout);
    assert_eq!(state(namespace, "tap0"), before);
    assert!(!bench.path("s").exists(), "a store was made for a run that was refused");
    ran
}

/// With `--steal` it is taken, works, and is given back as it was.
#[track_caller]
fn stolen(namespace: &Namespace, wire: &mut Wire) {
    let before = state(namespace, "tap0");
    let bench = bench();
    let running = Running::start(namespace, &bench, &["-i", "tap0", "--steal"]);
    assert!(program(namespace, "tap0").is_some());
    wire.send_all(&cut_off(4000, 80));
    wire.all_arrived(namespace);
    let ended = running.stop();
    assert_eq!(ended.books()["received"], CUT_OFF);
    ended.ran.exits(0);
    assert_eq!(state(namespace, "tap0"), before);
}

fn ipv6(namespace: &Namespace) {
    namespace.run(|| {
        for scope in ["all", "default", "tap0"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0").unwrap();
        }
    });
}

#[test]
fn an_interface_with_an_address_or_a_route_is_refused_unless_it_is_to_be_stolen() {
    if !need_root("interfaces that are in use") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let says = ["tap0 is in use", "the address 10.9.0.1", "--steal"];
    namespace.ip(&["address", "add", "10.9.0.1/24", "dev", "tap0"]);
    refused(&namespace, &[], 2, &says);
    stolen(&namespace, &mut wire);
    namespace.ip(&["address", "flush", "dev", "tap0"]);
    namespace.ip(&["route", "add", "192.0.2.0/24", "dev", "tap0"]);
    refused(&namespace, &[], 2, &["tap0 is in use", "the route to 192.0.2.0/24"]);
    namespace.ip(&["route", "del", "192.0.2.0/24", "dev", "tap0"]);
    // In a table that only a rule leads to, it carries traffic all the same.
    namespace.ip(&["route", "add", "default", "dev", "tap0", "table", "77"]);
    refused(&namespace, &[], 2, &["tap0 is in use", "the default route"]);
    namespace.ip(&["route", "flush", "table", "77"]);
    Running::start(&namespace, &bench(), &["-i", "tap0"]).stop().ran.exits(0);
}

#[test]
fn an_ipv6_address_counts_unless_the_interface_gave_it_to_itself() {
    if !need_root("interfaces with IPv6") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    ipv6(&namespace);
    until("the link-local addresses of both ends", || {
        let addresses = namespace.ip(&["address"]);
        let settled = addresses.matches("inet6 fe80::").count() == 2 && !addresses.contains("tentative");
        settled.then_some(())
    });
    namespace.ip(&["address", "add", "fd00::1/64", "dev", "tap0", "nodad"]);
    until("the routes of all three addresses", || {
        let routes = namespace.ip(&["-6", "route", "show", "table", "local"]);
        let all = routes.matches("local fe80::").count() == 2 && routes.contains("local fd00::1");
        all.then_some(())
    });
    refused(&namespace, &[], 2, &["tap0 is in use", "the address fd00::1"]);
    namespace.ip(&["address", "del", "fd00::1/64", "dev", "tap0"]);
    Running::start(&namespace, &bench(), &["-i", "tap0"]).stop().ran.exits(0);
}

/// Makes a bridge or bond, if the kernel can.
fn master(namespace: &Namespace, kind: &str) -> bool {
    let made = namespace.command("ip").args(["link", "add", "m0", "type", kind]).output();
    let made = made.unwrap();
    if !made.status.success() {
        eprintln!("skipped: member of a {kind}: {}", String::from_utf8_lossy(&made.stderr).trim());
    }
    made.status.success()
}

#[test]
fn a_member_of_a_bridge_or_bond_is_refused() {
    if !need_root("members of a bridge") {
        return;
    }
    for kind in ["bridge", "bond"] {
        let namespace = Namespace::new();
        let mut wire = Wire::new(&namespace, Shape::default());
        if master(&namespace, kind) {
            // A bond takes in only what is down.
            namespace.ip(&["link", "set", "tap0", "down"]);
            namespace.ip(&["link", "set", "tap0", "master", "m0"]);
            namespace.ip(&["link", "set", "tap0", "up"]);
            refused(&namespace, &[], 2, &["tap0 is in use", "the bridge or bond m0"]);
        }
        if kind == "bridge" {
            stolen(&namespace, &mut wire);
        }
    }
}

#[test]
fn an_interface_that_others_sit_on_is_refused() {
    if !need_root("an interface on top of another") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    let add = ["link", "add", "link", "tap0", "name", "m0", "type"];
    let mut tried = 0;
    for kind in [&["macvlan"][..], &["vlan", "id", "7"]] {
        let made = namespace.command("ip").args(add).args(kind).output().unwrap();
        if made.status.success() {
            refused(&namespace, &[], 2, &["tap0 is in use", "the interface m0 on top of it"]);
            namespace.ip(&["link", "delete", "m0"]);
            tried += 1;
        }
    }
    if tried == 0 {
        eprintln!("skipped: an interface on top of another: this kernel makes neither macvlan nor VLAN");
    }
    // The other end of the pair names this one, too, and is no reason.
    Running::start(&namespace, &bench(), &["-i", "tap0"]).stop().ran.exits(0);
}

#[test]
fn an_xdp_program_of_somebody_else_stays() {
    if !need_root("somebody else's program") {
        return;
    }
    let namespace = Namespace::new();
    let wire = Wire::new(&namespace, Shape::default());
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let theirs = Capture::load(1, false).unwrap();
        let link = namespace.run(|| attach_xdp(theirs.as_fd(), wire.pair.tap.index, mode)).unwrap();
        let id = program(&namespace, "tap0");
        assert!(id.is_some());
        let named = format!("tap0 has an XDP program already (id {}, capture", id.unwrap());
        for args in [&[][..], &["--steal"]] {
            refused(&namespace, args, 4, &[&named, "bpftool prog"]);
        }
        assert_eq!(program(&namespace, "tap0"), id);
        drop(link);
    }
}

#[test]
fn what_cannot_be_captured_from_exits_4_and_says_what_to_type() {
    if !need_root("interfaces that can't be taken") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    let zero_copy =
        ["tap0 (driver veth) can't do zero-copy", "Operation not supported", "--zero-copy prefer"];
    refused(&namespace, &["--zero-copy", "require"], 4, &zero_copy);
    // All or none: the first is given back when the second can't be had.
    refused(&namespace, &["-i", "none0"], 4, &["there is no interface none0", "ip -brief link"]);
    refused(&namespace, &["-i", "lo"], 4, &["lo is no Ethernet interface"]);
    namespace.ip(&["link", "set", "tap0", "down"]);
    refused(&namespace, &[], 4, &["tap0 is down", "ip link set tap0 up"]);
}

#[test]
fn zero_copy_that_was_preferred_is_said_to_be_missing_and_copies() {
    if !need_root("zero-copy where there is none") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    for (given, told) in [("prefer", true), ("off", false)] {
        let args = ["-i", "tap0", "--zero-copy", given];
        let bench = bench();
        let running = Running::start(&namespace, &bench, &args);
        wire.send_all(&cut_off(4000, 80));
        wire.all_arrived(&namespace);
        let ended = running.stop();
        let books = ended.books();
        assert_eq!((&books["received"], &books["balanced"]), (&Value::from(CUT_OFF), &Value::from(true)));
        assert_eq!(books["interfaces"][0]["queues"][0]["zero_copy"], Value::from(false));
        let ran = ended.ran.exits(0).says(&["tap0: AF_XDP copy mode, native XDP, driver veth"]);
        let missing = "driver veth can't do zero-copy, so packets are copied once more";
        assert_eq!(ran.stderr.contains(missing), told, "{}", ran.stderr);
    }
}

#[test]
fn time_is_the_kernels_where_the_card_has_no_clock_and_that_is_said() {
    if !need_root("a card without a clock") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    for clock in ["nic", "auto", "kernel"] {
        let bench = bench();
        let settings = bench.read("live.toml");
        let settings = settings.replace("[capture]\n", &format!("[capture]\nclock = \"{clock}\"\n"));
        bench.file("live.toml", settings);
        let running = Running::start(&namespace, &bench, &["-i", "tap0"]);
        wire.send_all(&cut_off(4000, 80));
        wire.all_arrived(&namespace);
        let ended = running.stop();
        let interface = &ended.books()["interfaces"][0];
        assert_eq!(
            (&interface["clock"], &interface["nic_clock_steps"]),
            (&Value::from("kernel"), &Value::Null)
        );
        assert_eq!(interface["taken"], CUT_OFF);
        let ran = ended.ran.exits(0).says(&["time by the kernel's clock at XDP"]);
        let told = ran.stderr.contains("tap0: the card's clock can't be used (");
        assert_eq!(told, clock == "nic", "{}", ran.stderr);
    }
}

#[test]
fn a_packet_of_several_buffers_is_no_zero_copy_and_the_size_that_would_be_is_said() {
    if !need_root("zero-copy of large packets") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape { mtu: 9000, ..Shape::default() });
    let says = ["can't do zero-copy", "its MTU of 9000", "3498 in one", "--zero-copy prefer"];
    refused(&namespace, &["--zero-copy", "require"], 4, &says);
}

#[test]
fn without_privilege_it_exits_4_and_names_what_it_needs() {
    if !need_root("a run without privileges") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    let before = state(&namespace, "tap0");
    let bench = bench();
    let mut bare = namespace.command("setpriv");
    bare.args(["--bounding-set", "-all", "--inh-caps", "-all", env!("CARGO_BIN_EXE_referee")]);
    bare.args(["run", "--config", "live.toml", "-i", "tap0"]).current_dir(bench.dir.path());
    let ran: Ran = bare.output().unwrap().into();
    ran.exits(4).says(&["not permitted", "net_admin", "net_raw", "bpf"]);
    assert_eq!(state(&namespace, "tap0"), before);
}

#[test]
fn an_interface_that_goes_away_ends_the_run_and_nothing_is_lost() {
    if !need_root("an interface that goes away") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    running::rules(&bench, running::KEEP_ALL);
    let args = ["-i", "tap0", "--rules", "rules", "--store", "s"];
    let running = Running::start(&namespace, &bench, &args);
    (4000..4010).for_each(|port| wire.send_all(&cut_off(port, 80)));
    wire.all_arrived(&namespace);
    drop(wire);
    let ended = running.end();
    let books = ended.books();
    assert_eq!((&books["received"], &books["analysed"]), (&Value::from(10 * CUT_OFF), &books["received"]));
    assert_eq!((&books["kept"], &books["written"]), (&books["received"], &books["received"]));
    let ran = ended.ran.exits(4).says(&["tap0", "everything captured before is safe"]);
    assert!(ran.stdout.contains("books balance: 50 received = 50 analysed"), "{}", ran.stdout);
    let whole = bench.run(&["store", "verify", "--store", "s"]).exits(0).stdout;
    assert!(whole.contains("1 complete, 0 cut, 0 damaged"), "{whole}");
}

#[test]
fn what_was_begun_is_undone() {
    if !need_root("giving back what was taken") {
        return;
    }
    let namespace = Namespace::new();
    let _wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    // The store is opened after the interface was taken.
    bench.file("plain", "");
    run(&namespace, &bench, &["-i", "tap0", "--store", "plain"]).exits(1).says(&["plain"]);
    assert_given_back(&namespace, "tap0");
}
