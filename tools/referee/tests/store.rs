//! From a replay into a store and out again: list, get, verify, and stock Wireshark reading the result.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

mod common;

use std::process::{Command, Stdio};

use common::Bench;
use serde_json::Value;
use wiregen::write::{Format, Style};

/// A store with what the scenario made worth keeping.
fn stored(scenario: &str) -> (Bench, Vec<Value>) {
    let bench = Bench::new();
    let capture = bench.capture(scenario, 20.0);
    let args = ["--store", "s", "--incidents", "-", "--ledger", "l", capture.to_str().unwrap()];
    let incidents = bench.replay(&args).exits(0).json();
    (bench, incidents)
}

fn captures(bench: &Bench, args: &[&str]) -> common::Ran {
    bench.run(&[&["captures"], args, &["--store", "s"]].concat())
}

#[test]
fn what_is_found_can_be_listed() {
    let (bench, incidents) = stored("rst_after_idle");
    let flows = captures(&bench, &["list", "--json"]).exits(0).json();
    let ids = |flow: &Value| flow["flow_id"].as_str().unwrap().to_owned();
    let listed: Vec<String> = flows.iter().map(ids).collect();
    for id in incidents[0]["flow_ids"].as_array().unwrap() {
        assert!(listed.iter().any(|listed| listed == id.as_str().unwrap()), "{id} was kept");
    }
    let packets: u64 = flows.iter().map(|flow| flow["packets"].as_u64().unwrap()).sum();
    let ledger: Value = serde_json::from_str(&bench.read("l")).unwrap();
    assert_eq!(ledger["written"], packets);
    let table = captures(&bench, &["list"]).exits(0).stdout;
    assert!(table.starts_with("flow") && table.contains("rst_after_idle"), "{table}");
    let one = captures(&bench, &["list", "--json", "--flow", &listed[0]]).exits(0).json();
    assert_eq!(one, [flows[0].clone()]);
    let by_incident =
        captures(&bench, &["list", "--json", "--incident", incidents[0]["id"].as_str().unwrap()]);
    assert!(by_incident.exits(0).json().iter().all(|flow| flow["incidents"][0] == incidents[0]["id"]));
    captures(&bench, &["list", "--since", "2025-10-09T00:00:00Z"]).exits(0);
    captures(&bench, &["list", "--until", "2025-10-09T00:00:00Z"]).exits(1).says(&["nothing is kept"]);
    let crossed = ["list", "--since", "2025-10-09T00:00:00Z", "--until", "2025-10-08T00:00:00Z"];
    captures(&bench, &crossed).exits(2).says(&["is after"]);
    bench.run(&["captures", "list", "--store", "none"]).exits(1).says(&["no store at none"]);
}

#[test]
fn what_is_found_can_be_fetched_and_replayed_again() {
    let (bench, incidents) = stored("rst_after_idle");
    let id = incidents[0]["id"].as_str().unwrap();
    captures(&bench, &["get", "--incident", id, "-w", "proof.pcapng"])
        .exits(0)
        .says(&["written to proof.pcapng"]);
    let summary =
        captures(&bench, &["get", "--incident", id, "-w", "again.pcapng", "--json"]).exits(0).json();
    assert!(summary[0]["packets"].as_u64() > Some(0) && summary[0]["verdicts"].as_u64() > Some(0));
    let bytes = |name: &str| std::fs::read(bench.path(name)).unwrap();
    assert!(bytes("proof.pcapng") == bytes("again.pcapng"));
    captures(&bench, &["get", "--incident", &id[..6], "-w", "short.pcapng"]).exits(0);
    assert!(bytes("proof.pcapng") == bytes("short.pcapng"), "its first digits do");
    let piped =
        bench.command(&["captures", "get", "--store", "s", "--incident", id, "-w", "-"]).output().unwrap();
    assert!(piped.stdout == bytes("proof.pcapng"));
    let replayed = bench.replay(&["--incidents", "-", "proof.pcapng"]).exits(0).json();
    assert_eq!(replayed[0]["kind"], "rst_after_idle", "the proof proves it");
    assert_eq!(replayed[0]["flows"], incidents[0]["flows"]);
    let shown = captures(&bench, &["get", "--incident", id]).exits(0).stdout;
    assert!(shown.contains("packets of ") && shown.contains("s/segments"), "{shown}");
}

#[test]
fn an_interface_that_comes_in_the_middle_is_kept_with_its_packets() {
    let bench = Bench::new();
    let style = Style { format: Format::Pcapng, ..Style::default() };
    // Two sections, each with an interface of its own.
    let sections = ["healthy", "rst_after_idle"].map(|name| common::capture(name, 20.0, style));
    bench.file("two.pcapng", sections.concat());
    let ran = bench.replay(&["--store", "s", "--ledger", "-", "two.pcapng"]).exits(0);
    let ledger = &ran.json()[0];
    assert!(ledger["kept"].as_u64() > Some(0) && ledger["kept"] == ledger["written"], "{ledger}");
    captures(&bench, &["get", "-w", "x.pcapng"]).exits(0);
    assert_eq!(bench.replay(&["--ledger", "-", "x.pcapng"]).exits(0).json()[0]["received"], ledger["kept"]);
}

#[test]
fn an_empty_store_is_not_asked_for_less() {
    let bench = Bench::new();
    bench.capture("healthy", 5.0);
    bench.replay(&["--store", "s", "healthy.pcap"]).exits(0);
    let ran = captures(&bench, &["list"]).exits(1).says(&["nothing is kept in s yet", "referee capture"]);
    assert!(!ran.stderr.contains("without conditions"), "{}", ran.stderr);
}

#[test]
fn who_may_not_look_is_told_whom_to_join() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (bench, _) = stored("rst_after_idle");
    let mode = |path: std::path::PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chown(bench.path("s"), Some(4242), Some(4243)).unwrap();
    mode(bench.path("s"), 0o750);
    mode(bench.path(""), 0o755);
    for args in [&["captures", "list"][..], &["store", "verify"], &["incidents"], &["serve"]] {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=4244", "--regid=4244", "--clear-groups", env!("CARGO_BIN_EXE_referee")]);
        let ran: common::Ran =
            command.args(args).arg("--store").arg(bench.path("s")).output().unwrap().into();
        ran.exits(4).says(&["s: permission denied", "join the group 4243: adduser 4244 4243"]);
    }
}

#[test]
fn nothing_found_exits_1_and_leaves_no_file() {
    let (bench, _) = stored("rst_after_idle");
    for what in [["--host", "192.0.2.77"], ["--flow", "0000000000000001"], ["--incident", "nonsense"]] {
        captures(&bench, &["get", what[0], what[1], "-w", "x.pcapng"])
            .exits(1)
            .says(&[what[1], "captures list"]);
        assert!(!bench.path("x.pcapng").exists());
        captures(&bench, &["get", what[0], what[1]]).exits(1).says(&[what[1]]);
    }
    captures(&bench, &["get", "-w", "no/such/x"]).exits(1).says(&["no/such/x can't be written"]);
    captures(&bench, &["get", "-w", "/dev/full"]).exits(1).says(&["/dev/full can't be written"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (bench, _) = stored("demo");
    let mut command = bench.command(&["captures", "get", "--store", "s", "-w", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran: common::Ran = child.wait_with_output().unwrap().into();
    assert!(ran.exits(0).stderr.is_empty());
}

#[test]
fn the_settings_can_name_the_store() {
    let (bench, _) = stored("rst_after_idle");
    bench.file("box.toml", "[store]\ndir = \"s\"\n");
    bench.run(&["captures", "list", "--config", "box.toml"]).exits(0);
}

#[test]
fn verify_tells_whole_cut_and_damaged_apart() {
    let (bench, _) = stored("rst_after_idle");
    let verify = ["store", "verify", "--store", "s"];
    let whole = bench.run(&verify).exits(0).stdout;
    assert!(whole.contains("1 complete, 0 cut, 0 damaged"), "{whole}");
    let segments = || std::fs::read_dir(bench.path("s/segments")).unwrap().map(|e| e.unwrap().path());
    let segment = segments().next().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 40]).unwrap();
    let cut = bench.run(&verify).exits(0).stdout;
    assert!(cut.contains("0 complete, 1 cut, 0 damaged"), "{cut}");
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&segment, damaged).unwrap();
    let json =
        bench.run(&[&verify[..], &["--json"]].concat()).exits(1).says(&["1 segment of s damaged"]).json();
    assert_eq!(json[0]["ending"], "damaged");
    assert!(json[0]["offset"].is_u64() && json[0]["what"].is_string());
    bench.run(&["store", "verify", "--store", "none"]).exits(1).says(&["no store at none"]);
}

#[test]
fn an_index_is_made_checked_and_done_without() {
    let (bench, incidents) = stored("rst_after_idle");
    let id = incidents[0]["id"].as_str().unwrap();
    let verify = || bench.run(&["store", "verify", "--store", "s"]);
    assert!(verify().exits(0).stdout.contains("no index: "), "a replay keeps none");
    let get = |to: &str| {
        captures(&bench, &["get", "--incident", id, "-w", to]).exits(0);
        std::fs::read(bench.path(to)).unwrap()
    };
    let without = get("without.pcapng");
    let made = bench.run(&["store", "rebuild-index", "--store", "s"]).exits(0).stdout;
    assert!(made.starts_with("index of s: 1 segment, "), "{made}");
    assert!(verify().exits(0).stdout.contains("index: 1 segment, "));
    assert!(get("with.pcapng") == without);
    captures(&bench, &["get", "--host", "192.0.2.77", "-w", "x.pcapng"]).exits(1).says(&["192.0.2.77"]);
    // Whatever lies in its place.
    bench.file("s/index.db", "SQLite format 3 it is not");
    assert!(get("broken.pcapng") == without);
    verify().exits(0);
    bench.run(&["store", "rebuild-index", "--store", "s"]).exits(0);
    assert!(verify().exits(0).stdout.contains("index: 1 segment, "));
    let index = bench.path("s/index.db");
    let bytes = std::fs::read(&index).unwrap();
    std::fs::write(&index, &bytes[..bytes.len() / 2]).unwrap();
    assert!(get("half.pcapng") == without);
    assert!(verify().exits(0).stdout.contains("an index that can't be used: "));
    bench.run(&["store", "rebuild-index", "--store", "s"]).exits(0);
    rusqlite::Connection::open(&index).unwrap().execute("UPDATE segments SET packets = 1", []).unwrap();
    verify().exits(1).says(&["the index of s is wrong: it has 1 packets of w0-", "rebuild-index"]);
    bench.run(&["store", "rebuild-index", "--store", "none"]).exits(1).says(&["no store at none"]);
}

#[test]
fn a_flow_is_found_by_its_community_id() {
    let bench = Bench::new();
    let capture = bench.capture("rst_after_idle", 20.0);
    let args = ["--store", "s", "--incidents", "i", "--flows", "f", capture.to_str().unwrap()];
    bench.replay(&args).exits(0);
    let flows = common::lines(&bench.read("f"));
    let kept = captures(&bench, &["list", "--json"]).exits(0).json();
    for flow in kept {
        let id = &flows.iter().find(|row| row["flow_id"] == flow["flow_id"]).unwrap()["community_id"];
        let listed = captures(&bench, &["list", "--json", "--community-id", id.as_str().unwrap()]);
        assert_eq!(listed.exits(0).json(), [flow]);
    }
    let unknown = "1:LQU9qZlK+B5F3KDmev6m5PMibrg=";
    captures(&bench, &["get", "--community-id", unknown]).exits(1).says(&[unknown]);
    captures(&bench, &["get", "--community-id", "LQU9"]).exits(2).says(&["a Community ID is"]);
}

/// What a program says of a file and how it ends; `None` where it isn't installed.
fn stock(bench: &Bench, program: &str, args: &[&str]) -> Option<(bool, String)> {
    let ran = Command::new(program).args(args).current_dir(bench.dir.path()).output().ok()?;
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Some((ran.status.success(), said))
}

#[test]
fn stock_tools_take_every_file() {
    let (bench, _) = stored("demo");
    captures(&bench, &["get", "-w", "all.pcapng"]).exits(0);
    let flows = captures(&bench, &["list", "--json"]).exits(0).json();
    let named = flows.iter().find_map(|flow| flow["incidents"][0].as_str());
    let id = named.unwrap();
    captures(&bench, &["get", "--incident", id, "-w", "one.pcapng"]).exits(0);
    let segment = std::fs::read_dir(bench.path("s/segments")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&segment).unwrap();
    bench.file("whole.pcapng.zst", &whole);
    bench.file("cut.pcapng.zst", &whole[..whole.len() - 9]);
    let files = ["all.pcapng", "one.pcapng", "whole.pcapng.zst", "cut.pcapng.zst"];
    let mut absent = Vec::new();
    for (program, before, after) in [
        ("tshark", &["-r"][..], &[][..]),
        ("capinfos", &[], &[]),
        ("mergecap", &["-w", "merged.pcapng"], &["one.pcapng"]),
        ("editcap", &[], &["edited.pcapng"]),
        ("zstd", &["-t"], &[]),
    ] {
        for file in files {
            let Some((good, said)) = stock(&bench, program, &[before, &[file], after].concat()) else {
                absent.push(program);
                break;
            };
            // A segment that is being written, or was by a run that was killed, ends early; they say so and go on.
            let cut = file.starts_with("cut");
            let is_zst = file.ends_with("zst");
            if cut || (program == "zstd" && !is_zst) {
                continue;
            }
            assert!(good, "{program} {file}: {said}");
        }
    }
    if let Some((_, said)) =
        stock(&bench, "tshark", &["-r", "cut.pcapng.zst", "-T", "fields", "-e", "frame.number"])
    {
        assert!(said.lines().any(|line| line == "1"), "{said}");
    }
    absent.iter().for_each(|program| eprintln!("skipped: {program} is not installed"));
}

#[test]
fn stock_tshark_reads_segments_and_exports() {
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("skipped: tshark is not installed");
        return;
    }
    let (bench, _) = stored("demo");
    captures(&bench, &["get", "-w", "all.pcapng"]).exits(0);
    let packets = |file: &str| {
        let mut tshark = Command::new("tshark");
        tshark.args(["-r", file, "-T", "fields", "-e", "frame.number"]).current_dir(bench.dir.path());
        let out = tshark.output().unwrap();
        assert!(out.status.success(), "{file}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().lines().count() as u64
    };
    let ledger: Value = serde_json::from_str(&bench.read("l")).unwrap();
    assert_eq!(Some(packets("all.pcapng")), ledger["written"].as_u64());
    let segments = std::fs::read_dir(bench.path("s/segments")).unwrap();
    let in_segments = segments.map(|entry| packets(entry.unwrap().path().to_str().unwrap())).sum::<u64>();
    assert_eq!(Some(in_segments), ledger["written"].as_u64());
}
