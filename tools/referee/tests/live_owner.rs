//! Root that writes to somebody else's store becomes that user: all that is made is theirs, and they can go on with it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use common::running::{KEEP_ALL, PATIENCE, Running, bench, command, rules, run, settings};
use common::wire::{Wire, cut_off};
use common::{Bench, Ran};
use rustix::fs::{Gid, Uid};
use rustix::process::Signal;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tests::live::{Namespace, Shape, VethPair, need_root};

const UID: u32 = 4242;
const GID: u32 = 4343;

/// A folder of that user's, in one that everybody may enter.
fn theirs(bench: &Bench, name: &str) -> PathBuf {
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let folder = bench.path(name);
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(UID), Some(GID)).unwrap();
    folder
}

/// Everything below a folder, it included, that is not that user's.
fn strays(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_path_buf()];
    let mut at = 0;
    while let Some(path) = all.get(at).cloned() {
        at += 1;
        if path.is_dir() {
            all.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    let other = |path: &PathBuf| {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.uid(), meta.gid()) != (UID, GID)
    };
    all.retain(other);
    all
}

/// The same run as that user, with what the service's unit gives it.
fn as_user(namespace: &Namespace, bench: &Bench, args: &[&str]) -> Ran {
    let capabilities = "+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock,+setpcap";
    let mut command = namespace.command("setpriv");
    command.args([&format!("--reuid={UID}"), &format!("--regid={GID}"), "--clear-groups"]);
    command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities, env!("CARGO_BIN_EXE_referee")]);
    command.args(["run", "--config", "live.toml", "--duration", "0.1"]).args(args);
    command.current_dir(bench.dir.path()).output().unwrap().into()
}

#[test]
fn root_leaves_nothing_of_its_own_in_the_services_store() {
    if !need_root("a store of another user") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let store = theirs(&bench, "s");
    let (logs, sockets) = (theirs(&bench, "logs"), theirs(&bench, "run"));
    rules(&bench, KEEP_ALL);
    bench.file("owned.toml", "[store]\ndir = \"s\"\n[notify.file]\npath = \"logs/eve.json\"\n");
    settings(
        &bench,
        "[notify.file]\npath = \"logs/eve.json\"\n[api]\nlisten = \"127.0.0.1:0\"\ntls = \"s/tls\"\n\
         [[api.token]]\nname = \"t\"\nrole = \"read\"\n\
         sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n",
    );
    let args = ["-i", "tap0", "--store", "s", "--rules", "rules", "--socket", "run/s"];
    // Left behind by root's own, killed.
    drop(UnixListener::bind(bench.path("run/s")).unwrap());
    let mut command = command(&namespace, &bench, &args);
    let running = Running::spawn(command.stdout(std::process::Stdio::piped()));
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    for line in [
        "Uid:\t4242\t4242\t4242\t4242",
        "Gid:\t4343\t4343\t4343\t4343",
        "Groups:\t \n",
        "CapPrm:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line:?} is not in: {status}");
    }
    assert_eq!((strays(&sockets), sockets.join("s").exists()), (Vec::new(), true));
    wire.send_all(&cut_off(4000, 80));
    wire.all_arrived(&namespace);
    running.signal(Signal::TERM);
    running.end().ran.exits(0).says(&["the store belongs to user 4242"]);
    assert!(store.join("index.db").exists() && store.join("tls/key.pem").exists());
    assert_eq!((strays(&store), strays(&logs)), (Vec::new(), Vec::new()));
    let segment = fs::read_dir(store.join("segments")).unwrap().next().unwrap().unwrap();
    assert_eq!(segment.metadata().unwrap().mode() & 0o027, 0, "as the service's");
    as_user(&namespace, &bench, &args).exits(0);
    // Whether anybody listens at a socket of root's, only root can tell.
    drop(UnixListener::bind(bench.path("run/s")).unwrap());
    fs::set_permissions(bench.path("run/s"), fs::Permissions::from_mode(0o700)).unwrap();
    as_user(&namespace, &bench, &args)
        .exits(2)
        .says(&["a socket of another user (uid 0) is there", "rm run/s"]);
    fs::remove_file(logs.join("eve.json")).unwrap();
    bench.run(&["notify", "test", "--config", "owned.toml"]).exits(0);
    assert_eq!(strays(&logs), Vec::<PathBuf>::new());
    // Other commands that write to a store do the same.
    bench.run(&["store", "rebuild-index", "--store", "s"]).exits(0);
    bench.capture("rst_after_idle", 301.0);
    bench.replay(&["rst_after_idle.pcap", "--store", "s"]).exits(0);
    assert_eq!(strays(&store), Vec::<PathBuf>::new());
}

#[test]
fn what_root_left_there_before_is_named_with_what_to_type() {
    if !need_root("a store of another user") {
        return;
    }
    let namespace = Namespace::new();
    let _pair = VethPair::new(&namespace, Shape::default());
    let bench = bench();
    let store = theirs(&bench, "s");
    fs::create_dir(store.join("segments")).unwrap();
    let says = ["cannot write to the store s/segments", "chown -R --reference=s s"];
    run(&namespace, &bench, &["-i", "tap0", "--store", "s"]).exits(1).says(&says);
    let doctor = |code| bench.run(&["doctor", "--config", "small.toml", "--store", "s"]).exits(code).stdout;
    let told = doctor(1);
    assert!(told.contains("s/segments belongs to another user (uid 0)"), "{told}");
    assert!(told.contains("chown -R --reference=s s"), "{told}");
    chown(store.join("segments"), Some(UID), Some(GID)).unwrap();
    let told = bench.run(&["doctor", "--config", "small.toml", "--store", "s"]).stdout;
    assert!(told.contains("s (as user 4242): "), "{told}");
    assert_eq!(strays(&store), Vec::<PathBuf>::new());
    theirs(&bench, "run");
    let args = ["-i", "tap0", "--store", "s", "--duration", "0.1", "--socket", "run/s"];
    run(&namespace, &bench, &args).exits(0);
}

#[test]
fn a_wrong_interface_is_said_before_what_cannot_be_written() {
    if !need_root("a wrong interface") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    let _pair = VethPair::new(&namespace, Shape::default());
    let store = theirs(&bench, "s");
    settings(&bench, "[notify.file]\npath = \"nowhere/eve.json\"\n");
    let told = |more: &[&str], code| run(&namespace, &bench, &[&["--store", "s"], more].concat()).exits(code);
    told(&["-i", "none0"], 4).says(&["there is no interface none0"]);
    told(&["-i", "tap0", "--filter", "tcp prt 80"], 2).says(&["--filter"]);
    told(&["-i", "tap0"], 2).says(&["[notify.file] ", "nowhere/eve.json: can't be opened"]);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0, "nothing is made in the store");
}

#[test]
fn a_hangup_before_it_is_ready_ends_nothing() {
    if !need_root("a hangup") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    let _pair = VethPair::new(&namespace, Shape::default());
    // It reads its settings from a pipe that nobody has written to yet: it is not ready before that.
    let text = bench.read("live.toml");
    let (pipe, file) = (bench.path("live.toml"), bench.file("file.toml", &text));
    fs::remove_file(&pipe).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = command(&namespace, &bench, &["-i", "tap0", "--duration", "0.1"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    // Opening it waits for its reader.
    let mut writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    fs::rename(&file, &pipe).unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    drop(writer);
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.exits(0).says(&["ready"]);
}

/// The status of an answer at the run's HTTP socket, asked by a member of the group of the user whose it is.
fn asked_by_member(socket: PathBuf, verb: &str, path: &str) -> String {
    let body = "{\"on\":true}";
    let request = format!(
        "{verb} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Who a thread is is its own.
    let asked = std::thread::spawn(move || {
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(Gid::from_raw(GID), Gid::from_raw(GID), Gid::from_raw(GID)).unwrap();
        set_thread_res_uid(Uid::from_raw(4999), Uid::from_raw(4999), Uid::from_raw(4999)).unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8(status.to_vec()).unwrap()
    });
    asked.join().unwrap()
}

#[test]
fn the_group_reads_at_the_socket_and_changes_nothing() {
    if !need_root("users of a group") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    let _pair = VethPair::new(&namespace, Shape::default());
    let (_store, sockets) = (theirs(&bench, "s"), theirs(&bench, "run"));
    let running = Running::start(&namespace, &bench, &["-i", "tap0", "--store", "s", "--socket", "run/s"]);
    let socket = sockets.join("s.api");
    assert_eq!(asked_by_member(socket.clone(), "GET", "/api/v1/rules"), "HTTP/1.1 200");
    assert_eq!(asked_by_member(socket, "PUT", "/api/v1/rules/rst_after_idle/shadow"), "HTTP/1.1 403");
    running.stop().ran.exits(0);
}
