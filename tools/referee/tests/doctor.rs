//! `referee doctor` on interfaces of its own: what it finds, what it says to type, and that what it sets is set back.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::os::fd::AsFd;

use common::{Bench, Ran};
use dataplane_sys::bpf::{XdpMode, attach_xdp};
use serde_json::Value;
use tests::live::{Namespace, Shape, VethPair, need_root};
use xdp_prog::Capture;

fn doctor(namespace: &Namespace, bench: &Bench, args: &[&str]) -> Ran {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_referee"));
    command
        .current_dir(bench.dir.path())
        .args(["doctor", "--config", "small.toml", "--state", "state"])
        .args(args);
    command.output().unwrap().into()
}

/// The checks, of JSON.
#[track_caller]
fn checks(ran: &Ran) -> Vec<Value> {
    let [told] = &ran.json()[..] else { panic!("{}", ran.stdout) };
    told["checks"].as_array().unwrap().clone()
}

#[track_caller]
fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {checks:?}"))
}

#[test]
fn a_mirror_port_is_ready_and_nothing_is_changed() {
    if !need_root("an interface to examine") {
        return;
    }
    let namespace = Namespace::new();
    let _pair = VethPair::new(&namespace, Shape { queues: 2, ..Shape::default() });
    let bench = Bench::new();
    let before = state(&namespace);
    let ran = doctor(&namespace, &bench, &["-i", "tap0", "--store", "."]).exits(0);
    for words in
        ["\nhost\n", "kernel         Linux ", "\ntap0\n", "driver veth runs XDP programs", " MB/s", "\nReady"]
    {
        assert!(format!("\n{}", ran.stdout).contains(words), "{words:?} is not in: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\x1b'), "colours are for terminals");
    assert_eq!(state(&namespace), before);

    let all = checks(&doctor(&namespace, &bench, &["-i", "tap0", "--json"]).exits(0));
    // All have the same fields, and what is not as it should be says why.
    for check in &all {
        assert_eq!(check.as_object().unwrap().len(), 7, "{check}");
        let fine = ["ok", "unknown"].contains(&check["state"].as_str().unwrap());
        assert!(fine || !check["why"].as_str().unwrap().is_empty(), "{check}");
    }
    assert_eq!(check(&all, "zero_copy")["state"], "warn");
    let rss = check(&all, "rss");
    assert_eq!(
        (&rss["state"], &rss["interface"], &rss["type"]),
        (&"ok".into(), &"tap0".into(), &Value::Null),
        "{rss}"
    );
    // A veth's tags are where its other end put them, and no kernel gives it zero-copy.
    assert_eq!(check(&all, "vlan_strip")["state"], "ok");
    assert_eq!(check(&all, "zero_copy")["why"], "each packet is copied once more");
    assert_eq!(check(&all, "free")["state"], "ok");
    assert_eq!(check(&all, "kernel")["interface"], Value::Null);
    // Without an interface it is about the host alone.
    let host = checks(&doctor(&namespace, &bench, &["--json"]).exits(0));
    assert!(host.iter().all(|check| check["interface"].is_null()));
}

#[test]
fn what_stands_in_the_way_exits_1_and_is_named() {
    if !need_root("an interface that is not ready") {
        return;
    }
    let namespace = Namespace::new();
    let pair = VethPair::new(&namespace, Shape::default());
    let bench = Bench::new();
    namespace.ip(&["address", "add", "10.9.0.1/24", "dev", "tap0"]);
    let ran = doctor(&namespace, &bench, &["-i", "tap0", "--json"]).exits(1);
    assert!(check(&checks(&ran), "free")["found"].as_str().unwrap().contains("the address 10.9.0.1"));
    doctor(&namespace, &bench, &["-i", "tap0", "--mode", "afpacket"]).exits(0);
    namespace.ip(&["address", "flush", "dev", "tap0"]);

    let theirs = Capture::load(1, false).unwrap();
    let link = namespace.run(|| attach_xdp(theirs.as_fd(), pair.tap.index, XdpMode::Native)).unwrap();
    let ran = doctor(&namespace, &bench, &["-i", "tap0"]).exits(1).says(&["not ready to capture"]);
    assert!(
        ran.stdout.contains("one is attached: id ") && ran.stdout.contains("Not ready: 1 thing"),
        "{}",
        ran.stdout
    );
    // Under whoever captures from it nothing is set.
    let ran = doctor(&namespace, &bench, &["-i", "tap0", "--fix", "--json"]).exits(2);
    assert_eq!(check(&checks(&ran), "fix")["state"], "bad");
    assert_eq!(ran.json()[0]["fixed"], Value::Array(Vec::new()));
    ran.says(&["not changed under it", "help: "]);
    drop(link);
    assert!(!bench.path("state").exists());

    // What isn't there is told as everything else, and what is there is looked at all the same.
    let ran = doctor(&namespace, &bench, &["-i", "none0", "-i", "tap0", "--json"]).exits(4);
    let all = checks(&ran);
    let missing = check(&all, "interface");
    assert_eq!((&missing["interface"], &missing["state"]), (&"none0".into(), &"bad".into()), "{missing}");
    assert_eq!(check(&all, "link")["interface"], "tap0");
    assert_eq!(ran.json()[0]["ready"], false);
    ran.says(&["there is no interface none0"]);
    let ran = doctor(&namespace, &bench, &["-i", "none0"]).exits(4).says(&["there is no interface none0"]);
    assert!(ran.stdout.contains("\nnone0\n  bad      interface "), "{}", ran.stdout);
    doctor(&namespace, &bench, &["-i", ""]).exits(2).says(&["give the name of an interface"]);
    let ran = doctor(&namespace, &bench, &["-i", "tap0", "--undo", "--json"]).exits(1);
    let [told] = &ran.json()[..] else { panic!("{}", ran.stdout) };
    assert_eq!(told["undone"], Value::Array(Vec::new()));
    assert_eq!(check(told["checks"].as_array().unwrap(), "undo")["state"], "bad");
    doctor(&namespace, &bench, &["--fix"]).exits(2);
    doctor(&namespace, &bench, &["-i", "tap0", "--fix", "--undo"]).exits(2);
    doctor(&namespace, &bench, &["--config", "none.toml"]).exits(2);
}

/// The interface's settings, as others show them.
fn state(namespace: &Namespace) -> (String, String) {
    let features = namespace.command("ethtool").args(["-k", "tap0"]).output();
    let features =
        features.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    (features, namespace.ip(&["-d", "link", "show", "tap0"]))
}

#[test]
fn what_is_set_is_set_back_byte_for_byte() {
    if !need_root("settings that are changed") {
        return;
    }
    let namespace = Namespace::new();
    // A veth's GRO is left as it is; a bridge's is not.
    namespace.ip(&["link", "add", "one", "type", "veth", "peer", "name", "other"]);
    ["one", "other"].iter().for_each(|end| drop(namespace.ip(&["link", "set", end, "up"])));
    namespace.ip(&["link", "add", "tap0", "type", "bridge"]);
    namespace.ip(&["link", "set", "one", "master", "tap0"]);
    // Once up, it keeps its queue.
    ["up", "down"].iter().for_each(|state| drop(namespace.ip(&["link", "set", "tap0", state])));
    let bench = Bench::new();
    let doctor = |namespace: &Namespace, bench: &Bench, args: &[&str]| {
        doctor(namespace, bench, &[&["--mode", "afpacket"], args].concat())
    };
    let before = state(&namespace);
    doctor(&namespace, &bench, &["-i", "tap0"]).exits(1);
    let ran = doctor(&namespace, &bench, &["-i", "tap0", "--fix"]).exits(0);
    for words in ["set tap0 up: 0 to 1\n", "set tap0 gro: 1 to 0\n", "up, with a link", "\nReady"] {
        assert!(ran.stdout.contains(words), "{words:?} is not in: {}", ran.stdout);
    }
    assert_ne!(state(&namespace), before);
    let written = bench.read("state/doctor-tap0.json");
    // Again there is nothing to set, and what was before is not forgotten.
    let again = doctor(&namespace, &bench, &["-i", "tap0", "--fix", "--json"]).exits(0);
    assert_eq!(again.json()[0]["fixed"], Value::Array(Vec::new()), "{}", again.stdout);
    assert_eq!(bench.read("state/doctor-tap0.json"), written);
    let undone = doctor(&namespace, &bench, &["-i", "tap0", "--undo"]).exits(0);
    assert_eq!(undone.stdout, "set back tap0 gro: 0 to 1\nset back tap0 up: 1 to 0\n");
    assert_eq!(state(&namespace), before);
    assert!(!bench.path("state/doctor-tap0.json").exists());
    doctor(&namespace, &bench, &["-i", "tap0", "--undo"])
        .exits(1)
        .says(&["nothing is written down", "help: "]);
}

#[test]
fn what_cannot_be_written_down_is_not_changed() {
    if !need_root("settings that can't be written down") {
        return;
    }
    let namespace = Namespace::new();
    let _pair = VethPair::new(&namespace, Shape::default());
    let bench = Bench::new();
    bench.file("state", "a file, not a folder");
    let before = state(&namespace);
    doctor(&namespace, &bench, &["-i", "tap0", "--fix"]).exits(1).says(&["state/doctor-tap0.json"]);
    assert_eq!(state(&namespace), before);
}

#[test]
fn what_somebody_changed_since_is_left_to_them() {
    if !need_root("settings that others change") {
        return;
    }
    let namespace = Namespace::new();
    let _pair = VethPair::new(&namespace, Shape::default());
    let bench = Bench::new();
    std::fs::create_dir(bench.path("state")).unwrap();
    let change = |before, after| {
        format!("[{{\"interface\":\"tap0\",\"setting\":\"up\",\"before\":{before},\"after\":{after}}}]")
    };
    // As if an earlier call had set it to something that it is not any more.
    bench.file("state/doctor-tap0.json", change(7, 0));
    let says =
        ["tap0: up is left as it is: it was changed to 1 since", "1 change could not be undone", "help: "];
    doctor(&namespace, &bench, &["-i", "tap0", "--undo"]).exits(1).says(&says);
    assert!(bench.read("state/doctor-tap0.json").contains("\"before\": 7"));
    // What is as it was is as good as set back.
    bench.file("state/doctor-tap0.json", change(1, 0));
    doctor(&namespace, &bench, &["-i", "tap0", "--undo"]).exits(0);
    assert!(!bench.path("state/doctor-tap0.json").exists());
    bench.file("state/doctor-tap0.json", "nonsense");
    doctor(&namespace, &bench, &["-i", "tap0", "--undo"]).exits(1).says(&["state/doctor-tap0.json: "]);
}
