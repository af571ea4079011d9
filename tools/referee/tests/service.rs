//! As a service: what systemd is told, interfaces from the settings, and the unit file itself.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::running::{PATIENCE, Running, bench, capture_settings, command, run};
use common::{Bench, Ran};
use rustix::process::Signal;
use tests::live::{Namespace, Shape, VethPair, need_root};

/// What a service manager listens at.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(bench: &Bench) -> Manager {
        let path = bench.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path }
    }

    /// The next message with a line that begins so; all of it.
    #[track_caller]
    fn hears(&self, line: &str) -> String {
        let mut message = [0; 4096];
        loop {
            let read =
                self.socket.recv(&mut message).unwrap_or_else(|error| panic!("waited for {line}: {error}"));
            let text = String::from_utf8_lossy(&message[..read]).into_owned();
            if text.lines().any(|one| one.starts_with(line)) {
                return text;
            }
        }
    }
}

#[test]
fn a_service_manager_is_told_how_it_goes() {
    if !need_root("a_service_manager_is_told_how_it_goes") {
        return;
    }
    let (space, bench) = (Namespace::new(), bench());
    let _pair = VethPair::new(&space, Shape::default());
    capture_settings(&bench, "interfaces = [\"tap0\", \"tap0\"]\n");
    let manager = Manager::new(&bench);
    let mut command = command(&space, &bench, &["--mode", "afpacket", "--store", "s"]);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "30000000");
    let running = Running::spawn(command.stdout(Stdio::piped()));
    manager.hears("READY=1");
    let alive = manager.hears("WATCHDOG=1");
    assert!(alive.contains("STATUS="), "{alive}");
    let status = manager.hears("STATUS=0:0");
    assert!(status.contains("0 lost") && status.contains("0 incidents (0 open)"), "{status}");
    running.signal(Signal::HUP);
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1");
    running.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    running.end().ran.exits(0);
}

#[test]
fn without_an_interface_there_is_nothing_to_capture() {
    if !need_root("without_an_interface_there_is_nothing_to_capture") {
        return;
    }
    let (space, bench) = (Namespace::new(), bench());
    run(&space, &bench, &[]).exits(2).says(&["no interface to capture from is named", "[capture]"]);
    capture_settings(&bench, "interfaces = [\"none0\"]\n");
    run(&space, &bench, &[]).exits(4).says(&["none0"]);
}

/// The unit as it is, but for the program's path, which is only there where the package is installed.
fn unit(bench: &Bench) -> Option<PathBuf> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-analyze is not there");
        return None;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/referee.service");
    let text =
        std::fs::read_to_string(unit).unwrap().replace("/usr/bin/referee", env!("CARGO_BIN_EXE_referee"));
    // What it refers to is the package's.
    let kept = text.lines().filter(|line| !line.starts_with("Documentation="));
    Some(bench.file("referee.service", kept.map(|line| format!("{line}\n")).collect::<String>()))
}

fn analyze(args: &[&str], unit: &Path) -> Ran {
    Command::new("systemd-analyze").args(args).arg(unit).env("SYSTEMD_PAGER", "").output().unwrap().into()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let bench = Bench::new();
    let Some(unit) = unit(&bench) else { return };
    let ran = analyze(&["verify", "--man=no"], &unit).exits(0);
    // Other units of the host are not ours to judge.
    let said: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("referee")).collect();
    assert!(said.is_empty(), "{said:?}");
}

/// 10 is a service that may do anything, 0 one that may do nothing. Capturing takes some of it.
#[test]
fn the_unit_is_locked_down() {
    let bench = Bench::new();
    let Some(unit) = unit(&bench) else { return };
    let ran = analyze(&["security", "--offline=yes", "--no-pager", "--threshold=35"], &unit);
    if ran.stderr.contains("unrecognized option") {
        eprintln!("skipped: this systemd-analyze can't judge a file");
        return;
    }
    ran.exits(0);
}

#[test]
fn shells_and_packages_get_what_they_need() {
    let bench = Bench::new();
    let ran = bench.run(&["completions", "bash"]).exits(0);
    assert!(ran.stdout.contains("complete -F _referee"), "{}", ran.stdout);
    bench.run(&["completions", "csh"]).exits(2);
    bench.run(&["generate", "made"]).exits(0);
    assert!(bench.path("made/man1/referee-captures-get.1").exists());
    bench.file("file", "");
    bench.run(&["generate", "file/x"]).exits(1).says(&["file/x"]);
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What the settings' examples name is there once the package is installed, and the service may write to it.
#[test]
fn the_package_and_the_unit_bring_the_folders_that_are_documented() {
    let read = |name: &str| std::fs::read_to_string(repository().join("packaging").join(name)).unwrap();
    let unit = read("referee.service");
    for line in ["LogsDirectory=referee", "LogsDirectoryMode=0750", "StateDirectory=referee"] {
        assert!(unit.lines().any(|one| one == line), "{line}");
    }
    assert!(read("referee.toml").contains("path = \"/var/log/referee/eve.json\""));
    assert!(read("deb/postinst").contains("in /var/lib/referee /var/log/referee; do"));
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Whoever has the package only finds what a page leads to.
#[test]
fn no_link_of_the_packages_pages_is_dead() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("[\"../../target/package/doc/**/*\", \"usr/share/doc/referee/\", \"644\"]"));
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("skipped: there is no perl");
        return;
    }
    let bench = Bench::new();
    let made =
        Command::new(repository().join("scripts/package-docs.sh")).arg(bench.path("doc")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Debian's own.
    ["changelog.gz", "copyright"].map(|name| bench.file(&format!("doc/{name}"), ""));
    let (mut dead, mut followed) = (Vec::new(), 0);
    for page in
        files(&bench.path("doc")).iter().filter(|page| page.extension().is_some_and(|end| end == "md"))
    {
        let text = std::fs::read_to_string(page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if target.is_empty() || target.contains("://") {
                continue;
            }
            followed += 1;
            if !page.parent().unwrap().join(target).exists() {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(dead.is_empty() && followed > 50, "{followed} {dead:?}");
    let rules = std::fs::read_to_string(bench.path("doc/docs/first-hour.md")).unwrap();
    assert!(rules.contains("](operators.md"), "links to what is there stay");
    for file in
        ["docs/images", "rules/library", "packaging/referee.service", "tools/referee/src/api/openapi.json"]
    {
        assert!(bench.path("doc").join(file).exists(), "{file}");
    }
}
