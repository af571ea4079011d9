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
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{Bench, Ran, lines};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tests::live::need_root;

const REFEREE: &str = env!("CARGO_BIN_EXE_referee");
const TOKEN: &str = "a token of the test's own";

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
        let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!(
            "[[api.token]]\nname = \"t\"\nrole = \"read\"\nsha256 = \"{hash}\"\n[api]\ntls = \"tls\"\n"
        );
        bench.file("serve.toml", token);
        bench.file("token", TOKEN);
        fs::set_permissions(bench.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
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

    /// A program of Wireshark's that sees Referee, and it alone, in the extcap folder.
    fn wireshark(&self, program: &str, args: &[&str]) -> Command {
        let folder = self.bench.path("extcap");
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            symlink(REFEREE, folder.join("referee")).unwrap();
        }
        let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(&folder).arg(extcap_folder().unwrap());
        command.arg(program).args(args).current_dir(self.bench.dir.path()).stdin(Stdio::null());
        command.env("REFEREE_API_SOCKET", self.bench.path("api.sock"));
        // Neither settings nor boxes of whoever runs the test.
        command.env("HOME", self.bench.path("home")).env_remove("XDG_CONFIG_HOME");
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
    let after = |words: &str| -> String {
        let (_, rest) =
            served.said.split_once(words).unwrap_or_else(|| panic!("no {words} in {}", served.said));
        rest.split([',', '\n']).next().unwrap().to_owned()
    };
    let (url, fingerprint) = (format!("https://{}", after("api: https://")), after("certificate "));
    let expected = served.expected();

    let home = served.bench.path("home");
    fs::create_dir(&home).unwrap();
    let extcap = |args: &[&str]| -> Ran {
        let mut command = served.bench.command(&[&["extcap"], args].concat());
        command.env("HOME", &home).env_remove("XDG_CONFIG_HOME").output().unwrap().into()
    };
    let other = "00".repeat(32);
    extcap(&["add", "lab", &url, "--token-file", "token", "--fingerprint", &other])
        .exits(1)
        .says(&["is not trusted"]);
    extcap(&["add", "lab", &url, "--token-file", "token", "--fingerprint", &fingerprint])
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

#[test]
fn new_incidents_come_as_they_are_found() {
    if !possible("new_incidents_come_as_they_are_found") {
        return;
    }
    let served = Served::new(&[]);
    let mut tshark = served.wireshark("tshark", &["-n", "-i", "referee-live", "-c", "5"]);
    let mut tshark = tshark.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // It may not have begun when the first of these is found, which is then no news.
    let scenarios =
        ["rst_midflow", "pmtu_blackhole", "zero_window_stall", "half_open", "syn_no_synack", "rst_injected"];
    let over = scenarios.into_iter().any(|scenario| {
        served.bench.capture(scenario, 60.0);
        served.bench.replay(&["--store", "s", &format!("{scenario}.pcap")]).exits(0);
        let ended = |_| {
            thread::sleep(Duration::from_millis(100));
            tshark.try_wait().unwrap().is_some()
        };
        (0..300).any(ended)
    });
    if !over {
        let _ = tshark.kill();
    }
    let shown = tshark.wait_with_output().unwrap();
    assert!(over, "nothing came in three minutes: {}", String::from_utf8_lossy(&shown.stdout));
    assert_eq!(shown.stdout.iter().filter(|byte| **byte == b'\n').count(), 5);
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
