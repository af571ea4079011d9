//! Referee among Wireshark's interfaces: tshark lists it, asks it what to ask, and captures an incident through it; from
//! this host's API and from another box's.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::running::{self, KEEP_ALL, Running, until};
use common::wire::{Wire, cut_off};
use common::{Bench, Ran, lines};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::live::{Namespace, Shape, need_root};

const REFEREE: &str = env!("CARGO_BIN_EXE_referee");
const TOKEN: &str = "a token of the test's own";
/// A rule that finds nothing: all that is kept is asked for.
const NOTHING: &str = "rule \"nothing\" on rst when flow.dport == 1 then { }\n";

/// Settings by which who has the token of a role is let in; that token is in a file of its name.
fn access(bench: &Bench, roles: &[&str]) -> String {
    let mut settings = "[api]\ntls = \"tls\"\n".to_owned();
    for role in roles {
        let token = format!("{TOKEN}, to {role}");
        let hash: String = Sha256::digest(&token).iter().map(|byte| format!("{byte:02x}")).collect();
        settings += &format!("[[api.token]]\nname = \"{role}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"\n");
        bench.file(role, token);
        fs::set_permissions(bench.path(role), fs::Permissions::from_mode(0o600)).unwrap();
    }
    settings
}

/// What follows these words in what a program said of where it is reached.
fn after(said: &str, words: &str) -> String {
    let (_, rest) = said.split_once(words).unwrap_or_else(|| panic!("no {words} in {said}"));
    rest.split([',', '\n']).next().unwrap().to_owned()
}

/// `referee serve` over a store with one incident.
struct Served {
    bench: Bench,
    child: Child,
    /// What it said at its start.
    said: String,
    incident: String,
}

impl Served {
    fn new(args: &[&str]) -> Served {
        let bench = Bench::new();
        bench.capture("rst_after_idle", 60.0);
        bench.replay(&["--store", "s", "rst_after_idle.pcap"]).exits(0);
        let incidents = lines(&bench.read("s/incidents.jsonl"));
        let incident = incidents[0]["id"].as_str().unwrap().to_owned();
        bench.file("serve.toml", access(&bench, &["read"]));
        let mut command =
            bench.command(&["serve", "--config", "serve.toml", "--store", "s", "--socket", "api.sock"]);
        let mut child = command.args(args).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.ends_with("ready\n") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        }
        // What it says later must not stop it.
        thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        Served { bench, child, said, incident }
    }

    fn wireshark(&self, program: &str, args: &[&str]) -> Command {
        let mut command = wireshark(Command::new("unshare"), &self.bench, program, args);
        command.env("REFEREE_API_SOCKET", self.bench.path("api.sock"));
        command
    }

    fn tshark(&self, args: &[&str]) -> Ran {
        self.wireshark("tshark", args).output().unwrap().into()
    }

    /// What an export of the incident has.
    fn expected(&self) -> usize {
        let get = ["captures", "get", "--store", "s", "--incident", &self.incident, "-w", "all.pcapng"];
        self.bench.run(&get).exits(0);
        packets(&self.bench.path("all.pcapng"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A program of Wireshark's that sees Referee, and it alone, in the extcap folder: a call of `unshare`, which may be
/// made from inside a namespace.
fn wireshark(mut unshare: Command, bench: &Bench, program: &str, args: &[&str]) -> Command {
    let folder = bench.path("extcap");
    if !folder.exists() {
        fs::create_dir(&folder).unwrap();
        symlink(REFEREE, folder.join("referee")).unwrap();
    }
    let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    unshare.args(["-m", "sh", "-c", script, "sh"]).arg(&folder).arg(extcap_folder().unwrap());
    unshare.arg(program).args(args).current_dir(bench.dir.path()).stdin(Stdio::null());
    // Neither settings nor boxes of whoever runs the test.
    unshare.env("HOME", bench.path("home")).env_remove("XDG_CONFIG_HOME");
    unshare
}

fn packets(capture: &Path) -> usize {
    let ran = Command::new("tshark").args(["-n", "-r"]).arg(capture).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout.iter().filter(|byte| **byte == b'\n').count()
}

fn extcap_folder() -> Option<PathBuf> {
    let said = Command::new("tshark").args(["-G", "folders"]).output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = text.lines().rfind(|line| line.to_lowercase().contains("extcap path"))?.to_owned();
    let path = PathBuf::from(line.split_once(':')?.1.trim());
    path.is_dir().then_some(path)
}

fn possible(test: &str) -> bool {
    if extcap_folder().is_none() {
        eprintln!("skipped: {test}: tshark, or its folder for extcap programs, is not there");
        return false;
    }
    need_root(test)
}

#[test]
fn tshark_lists_and_captures_an_incident() {
    if !possible("tshark_lists_and_captures_an_incident") {
        return;
    }
    let served = Served::new(&[]);
    let (id, expected) = (served.incident.as_str(), served.expected());
    let listed = served.tshark(&["-D"]).exits(0).stdout;
    assert!(listed.contains("referee-incident (Referee: an incident)"), "{listed}");
    assert!(listed.contains(&format!("referee-incident-{id} (Referee: rst_after_idle 10.20.0.")), "{listed}");

    let newest = format!("referee-incident-{id}");
    served.tshark(&["-i", &newest, "-w", "newest.pcapng"]).exits(0);
    assert_eq!(packets(&served.bench.path("newest.pcapng")), expected);

    let chosen = format!("extcap.referee_incident.incident:{id}");
    let shown =
        served.tshark(&["-n", "-i", "referee-incident", "-o", &chosen, "-Y", "frame.comment"]).exits(0);
    assert!(shown.stdout.contains("RST"), "{}", shown.stdout);

    // The dialog's default is the newest; what is no incident is said.
    served.tshark(&["-i", "referee-incident", "-w", "default.pcapng"]).exits(0);
    assert_eq!(packets(&served.bench.path("default.pcapng")), expected);
    let wrong = served.tshark(&["-i", "referee-incident", "-o", "extcap.referee_incident.id:nothing"]);
    wrong.says(&["`nothing` is no incident's id"]);
}

#[test]
fn another_box_is_reached_by_address_and_token() {
    if !possible("another_box_is_reached_by_address_and_token") {
        return;
    }
    let served = Served::new(&["--listen", "127.0.0.1:0"]);
    let url = format!("https://{}", after(&served.said, "api: https://"));
    let fingerprint = after(&served.said, "certificate ");
    let expected = served.expected();

    let home = served.bench.path("home");
    fs::create_dir(&home).unwrap();
    let extcap = |args: &[&str]| -> Ran {
        let mut command = served.bench.command(&[&["extcap"], args].concat());
        command.env("HOME", &home).env_remove("XDG_CONFIG_HOME").output().unwrap().into()
    };
    let other = "00".repeat(32);
    extcap(&["add", "lab", &url, "--token-file", "read", "--fingerprint", &other])
        .exits(1)
        .says(&["is not trusted"]);
    extcap(&["add", "lab", &url, "--token-file", "read", "--fingerprint", &fingerprint])
        .exits(0)
        .says(&["lab is referee"]);
    let listed = extcap(&["list"]).exits(0).stdout;
    assert!(listed.contains(&format!("lab  {url}")), "{listed}");
    assert!(!fs::read_to_string(home.join(".config/referee/boxes.toml")).unwrap().contains(TOKEN));

    let id = format!("extcap.referee_incident.id:{}", served.incident);
    served
        .tshark(&[
            "-i",
            "referee-incident",
            "-o",
            "extcap.referee_incident.box:lab",
            "-o",
            &id,
            "-w",
            "lab.pcapng",
        ])
        .exits(0);
    assert_eq!(packets(&served.bench.path("lab.pcapng")), expected);
}

/// A run on a wire of its own, and what Wireshark's programs need to reach it.
struct Recording {
    namespace: Namespace,
    wire: Wire,
    bench: Bench,
    running: Running,
}

impl Recording {
    fn new(rule: &str) -> Recording {
        Recording::with(rule, |_| String::new())
    }

    /// With more settings.
    fn with(rule: &str, more: impl Fn(&Bench) -> String) -> Recording {
        let (namespace, bench) = (Namespace::new(), running::bench());
        running::settings(&bench, &more(&bench));
        let wire = Wire::new(&namespace, Shape::default());
        running::rules(&bench, rule);
        let running = Running::start(&namespace, &bench, &["-i", "tap0", "--rules", "rules", "--store", "s"]);
        Recording { namespace, wire, bench, running }
    }

    fn tshark(&self, args: &[&str]) -> Child {
        let unshare = self.namespace.command("unshare");
        let mut tshark = wireshark(unshare, &self.bench, "tshark", args);
        tshark.env("REFEREE_API_SOCKET", self.bench.path(&format!("{}.api", running::SOCKET)));
        tshark.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Sends connections that are cut off, to a service's port and the next in turn, until a program has seen enough.
    fn send_until_over(&mut self, mut child: Child, service: u16, ports: &mut Range<u16>) -> Ran {
        until("enough packets", || {
            if let Some(port) = ports.next() {
                self.wire.send_all(&cut_off(port, service + port % 2));
            }
            thread::sleep(Duration::from_millis(50));
            child.try_wait().unwrap()
        });
        child.wait_with_output().unwrap().into()
    }

    fn end(self) {
        self.wire.all_arrived(&self.namespace);
        let ended = self.running.stop();
        ended.books();
        ended.ran.exits(0);
    }
}

#[test]
fn what_is_kept_comes_as_it_is_kept() {
    if !possible("what_is_kept_comes_as_it_is_kept") {
        return;
    }
    let mut recording = Recording::new(KEEP_ALL);
    let mut ports = 4000..5000;
    let fields = ["-n", "-l", "-T", "fields", "-e", "tcp.port"];
    for (filter, both) in [(&[][..], true), (&["-f", "port 81"], false)] {
        let tshark = recording.tshark(&[&["-i", "referee-live", "-c", "20"], filter, &fields].concat());
        let shown = recording.send_until_over(tshark, 80, &mut ports).exits(0).stdout;
        assert_eq!(shown.lines().count(), 20, "{shown}");
        let of = |service: &str| shown.lines().any(|line| line.split(',').any(|port| port == service));
        assert_eq!((of("80"), of("81")), (both, true), "{shown}");
    }
    let wrong: Ran = recording
        .tshark(&["-i", "referee-live", "-f", "port port", "-c", "1"])
        .wait_with_output()
        .unwrap()
        .into();
    wrong.says(&["syntax error"]);
    recording.end();
}

#[test]
fn a_capture_filter_captures_on_demand() {
    if !possible("a_capture_filter_captures_on_demand") {
        return;
    }
    let mut recording = Recording::new(NOTHING);
    let listed: Ran = recording.tshark(&["-D"]).wait_with_output().unwrap().into();
    let shown = listed.exits(0).stdout;
    assert!(shown.contains("referee-demand (Referee: capture on demand (capture filter))"), "{shown}");
    // The past: it ends by itself.
    let (past, gone) = (recording.bench.path("past.pcapng"), recording.bench.path("gone.pcapng"));
    (4000..4010).for_each(|port| recording.wire.send_all(&cut_off(port, 443 + port % 2)));
    recording.wire.all_arrived(&recording.namespace);
    let times = ["-o", "extcap.referee_demand.last:600", "-o", "extcap.referee_demand.for:0"];
    let demand = |recording: &Recording, file: &Path, more: &[&str]| {
        let file = file.to_str().unwrap();
        let args = [&["-i", "referee-demand", "-f", "port 443", "-w", file], more].concat();
        recording.tshark(&args)
    };
    until("the past to be captured", || {
        let ran: Ran = demand(&recording, &past, &times).wait_with_output().unwrap().into();
        ran.exits(0);
        (packets(&past) == 25).then_some(())
    });
    // It is listed, and is no incident.
    let listed: Ran = recording.tshark(&["-D"]).wait_with_output().unwrap().into();
    let shown = listed.exits(0).stdout;
    assert!(
        shown.contains("(Referee: capture on demand: port 443, ") && !shown.contains("on_demand"),
        "{shown}"
    );
    // Past and present in one, until Wireshark has had enough: then the box stops, too.
    let times = ["-o", "extcap.referee_demand.last:600", "-o", "extcap.referee_demand.for:3600", "-c", "60"];
    let both = demand(&recording, &gone, &times);
    recording.send_until_over(both, 443, &mut (5000..60_000)).exits(0);
    let seen = running::tshark(&recording.bench, "gone.pcapng", &["tcp.port", "frame.time_delta"]);
    assert_eq!(seen.len(), 60);
    assert!(seen.iter().all(|line| line.split([',', '\t']).any(|port| port == "443")), "{seen:?}");
    assert!(seen.iter().all(|line| !line.contains('-')), "the past comes first: {seen:?}");
    let command = json!({"command": "demands"});
    until("the box to stop", || {
        let told = asked(&recording.bench.path(running::SOCKET), &command);
        let all = told["demands"].as_array().unwrap().clone();
        all.iter().all(|one| one["state"] == "done").then(|| assert_eq!(all.last().unwrap()["ended"], true))
    });
    // Wireshark asks whether a filter is one while it is typed.
    let extcap = |filter: &str| -> Ran {
        let args = ["--extcap-interface", "referee-demand", "--extcap-capture-filter", filter];
        recording.bench.run(&args).exits(0)
    };
    assert_eq!(extcap("port 443").stdout, "");
    assert!(extcap("port port").stdout.contains("syntax error"));
    recording.end();
}

#[test]
fn another_box_captures_on_demand_for_who_may_operate() {
    if !possible("another_box_captures_on_demand_for_who_may_operate") {
        return;
    }
    let mut recording = Recording::with(NOTHING, |bench| {
        access(bench, &["read", "operate"]).replace("[api]\n", "[api]\nlisten = \"127.0.0.1:8443\"\n")
    });
    let Recording { namespace, bench, .. } = &recording;
    fs::create_dir(bench.path("home")).unwrap();
    let fingerprint = after(recording.running.stderr_so_far(), "certificate ");
    for role in ["read", "operate"] {
        let mut add = namespace.command(REFEREE);
        add.args(["extcap", "add", role, "https://127.0.0.1:8443", "--token-file", role, "--fingerprint"]);
        add.arg(&fingerprint).current_dir(bench.dir.path());
        add.env("HOME", bench.path("home")).env_remove("XDG_CONFIG_HOME");
        Ran::from(add.output().unwrap()).exits(0);
    }
    let demand = |recording: &Recording, role: &str| {
        let far = format!("extcap.referee_demand.box:{role}");
        let file = recording.bench.path("far.pcapng");
        let args =
            ["-i", "referee-demand", "-f", "port 443", "-c", "30", "-o", &far, "-w", file.to_str().unwrap()];
        recording.tshark(&args)
    };
    let refused: Ran = demand(&recording, "read").wait_with_output().unwrap().into();
    refused.says(&["operate"]);
    let allowed = demand(&recording, "operate");
    recording.send_until_over(allowed, 443, &mut (5000..60_000)).exits(0);
    assert_eq!(packets(&recording.bench.path("far.pcapng")), 30);
    recording.end();
}

/// What a run says on its own socket.
fn asked(socket: &Path, command: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    writeln!(stream, "{command}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// dumpcap runs no extcap programs, but reads their pipes.
#[test]
fn dumpcap_takes_what_goes_through_the_pipe() {
    if !possible("dumpcap_takes_what_goes_through_the_pipe") {
        return;
    }
    let served = Served::new(&[]);
    let fifo = served.bench.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let pipe = fifo.to_str().unwrap().to_owned();
    let mut dumpcap = served.wireshark("dumpcap", &["-q", "-i", &pipe, "-w", "piped.pcapng"]);
    let mut dumpcap = dumpcap.stderr(Stdio::null()).spawn().unwrap();
    let interface = format!("referee-incident-{}", served.incident);
    let mut command = served.bench.command(&["--capture", "--extcap-interface", &interface, "--fifo", &pipe]);
    let ran: Ran = command.env("REFEREE_API_SOCKET", served.bench.path("api.sock")).output().unwrap().into();
    ran.exits(0);
    dumpcap.wait().unwrap();
    assert_eq!(packets(&served.bench.path("piped.pcapng")), served.expected());
}
