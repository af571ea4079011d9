//! Rules that change while packets come: by command, by signal, by whatever an editor does to their files.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::running::{self, Ended, Running, SOCKET, bench, command, rules, until};
use common::wire::{Wire, cut_off};
use common::{Bench, Ran};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

const ARGS: [&str; 6] = ["-i", "tap0", "--rules", "rules", "--metrics", "m.prom"];

fn telling(word: &str) -> String {
    format!("rule \"reset\" on rst\nthen {{ incident(\"info\", \"{word}\"); }}\n")
}

/// `referee …` beside the run.
fn ask(bench: &Bench, args: &[&str]) -> Ran {
    bench.run(&[args, &["--socket", SOCKET]].concat())
}

fn reload(bench: &Bench) -> Value {
    let ran = ask(bench, &["rules", "reload", "--json"]);
    ran.json().pop().unwrap_or_else(|| panic!("{}", ran.stderr))
}

fn status(bench: &Bench) -> Value {
    ask(bench, &["status", "--json"]).exits(0).json().remove(0)
}

/// Rules that would be in force if the file held this.
fn hash_of(bench: &Bench, text: &str) -> String {
    let folder = bench.path("other");
    let _ = fs::create_dir(&folder);
    fs::write(folder.join("own.rhai"), text).unwrap();
    let listed = bench.run(&["rules", "list", "--rules", "other"]).exits(0).stdout;
    let hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    listed.split_whitespace().find(hash).unwrap_or_else(|| panic!("{listed}")).to_owned()
}

struct Live {
    bench: Bench,
    namespace: Namespace,
    wire: Wire,
    running: Running,
}

fn live(text: &str) -> Live {
    let namespace = Namespace::new();
    let wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, text);
    let running = Running::start(&namespace, &bench, &[&ARGS[..], &["--json"]].concat());
    Live { bench, namespace, wire, running }
}

impl Live {
    fn own(&self) -> PathBuf {
        self.bench.path("rules/own.rhai")
    }

    fn stop(self) -> Ended {
        self.wire.all_arrived(&self.namespace);
        self.running.stop()
    }
}

#[test]
fn by_command_and_by_signal_all_or_nothing() {
    if !need_root("rules that are loaded again") {
        return;
    }
    let mut live = live(&telling("one"));
    let first = status(&live.bench);
    assert_eq!((&first["generation"], &first["workers"][0]["generation"]), (&1.into(), &1.into()));
    assert_eq!(first["hash"], hash_of(&live.bench, &telling("one")));
    live.wire.send_all(&cut_off(4000, 80));
    assert_eq!(live.running.incident("open", "reset")["explain"], "one");

    // Beside the folder, so that only the command knows: a set of the settings' making.
    running::settings(&live.bench, "[rules.reset]\nnone = 1\n");
    let refused = reload(&live.bench);
    assert!(refused["errors"][0]["file"].as_str().unwrap().starts_with("live.toml:"), "{refused}");
    assert_eq!((&refused["generation"], &refused["hash"]), (&1.into(), &first["hash"]));
    running::settings(&live.bench, "");

    fs::write(live.own(), telling("two") + "rule \"more\" on syn then { }\n").unwrap();
    let done = reload(&live.bench);
    assert_eq!((&done["live"], &done["generation"], &done["rules"]), (&true.into(), &2.into(), &2.into()));
    assert_eq!((&done["added"][0], &done["changed"][0]), (&"more".into(), &"reset".into()), "{done}");
    assert_eq!(done["workers"][0]["hash"], done["hash"]);
    assert_eq!(reload(&live.bench)["generation"], 2, "nothing has changed");
    live.wire.send_all(&cut_off(4001, 81));
    let incident = live.running.incident("open", "reset");
    assert_eq!((&incident["explain"], &incident["rules_hash"]), (&"two".into(), &done["hash"]));

    // Signal and folder may both be first: either way it is one set.
    fs::write(live.own(), telling("three")).unwrap();
    live.running.signal(Signal::HUP);
    until("the third set", || (status(&live.bench)["generation"] == 3).then_some(()));
    let ran = ask(&live.bench, &["rules", "reload"]).exits(0);
    assert!(ran.stdout.contains("generation 3 is live on 1 worker: 1 rule, hash "), "{}", ran.stdout);
    fs::write(live.own(), "rule \"reset\" on rst when flow.dprot then { }").unwrap();
    let ran = ask(&live.bench, &["rules", "reload"]).exits(2);
    ran.says(&["own.rhai:1:26", "did you mean `flow.dport`?", "generation 3 stays in force"]);
    let now = status(&live.bench);
    assert_eq!((&now["generation"], now["errors"].as_array().unwrap().len()), (&3.into(), 1));

    let bench = Bench::new();
    let ended = live.stop();
    let books = ended.books()["rules"].clone();
    assert_eq!(
        (&books["generation"], &books["reloads"], &books["loaded"]),
        (&3.into(), &2.into(), &1.into())
    );
    assert!(books["refused_reloads"].as_u64().unwrap() >= 2, "{books}");
    assert_eq!(books["by_rule"]["reset"]["matched"], 2);
    ended.ran.exits(0).says(&["rules: not loaded, generation 3 stays in force", "generation 2 is live"]);
    ask(&bench, &["status"]).exits(1).says(&["nobody answers", "--socket"]);
}

/// Puts text into the rule file, as some program does.
type Writer = fn(&Path, &str);

/// What editors and copying programs do, each by its own way.
const WRITERS: [(&str, Writer); 8] = [
    ("written over", |path, text| fs::write(path, text).unwrap()),
    ("written beside and moved over, as sed -i and rsync do", |path, text| {
        let beside = path.with_file_name(".own.rhai.Xa3b2");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }),
    ("the old one moved away, as vim does with a backup", |path, text| {
        let (swap, backup) = (path.with_file_name(".own.rhai.swp"), path.with_file_name("own.rhai~"));
        fs::write(&swap, "b0VIM 9.0").unwrap();
        fs::write(path.with_file_name("4913"), "").unwrap();
        fs::remove_file(path.with_file_name("4913")).unwrap();
        fs::rename(path, &backup).unwrap();
        fs::write(path, text).unwrap();
        fs::remove_file(backup).unwrap();
        fs::remove_file(swap).unwrap();
    }),
    ("locks and backups left beside, as emacs does", |path, text| {
        let lock = path.with_file_name(".#own.rhai");
        std::os::unix::fs::symlink("root@nowhere.1:2", &lock).unwrap();
        fs::write(path.with_file_name("#own.rhai#"), "rule half").unwrap();
        fs::copy(path, path.with_file_name("own.rhai~")).unwrap();
        fs::write(path, text).unwrap();
        fs::remove_file(lock).unwrap();
    }),
    ("emptied, and written byte by byte", |path, text| {
        let mut file = fs::File::create(path).unwrap();
        thread::sleep(Duration::from_millis(700));
        // Half of it is a set of its own.
        let (first, rest) = text.split_at(text.find("// half").unwrap());
        for part in [first, rest] {
            file.write_all(part.as_bytes()).unwrap();
            file.sync_all().unwrap();
            thread::sleep(Duration::from_millis(700));
        }
    }),
    ("emptied and closed, and filled a second later", |path, text| {
        fs::write(path, "").unwrap();
        thread::sleep(Duration::from_secs(1));
        fs::write(path, text).unwrap();
    }),
    ("sed -i", |path, text| {
        let number = text.chars().find(char::is_ascii_digit).unwrap();
        let script = format!("s/[0-9]/{number}/g");
        let done = Command::new("sed").args(["-i", &script]).arg(path).status().unwrap();
        assert!(done.success());
    }),
    ("the whole folder replaced", |path, text| {
        let folder = path.parent().unwrap();
        let (next, old) = (folder.with_file_name("next"), folder.with_file_name("old"));
        fs::create_dir(&next).unwrap();
        fs::write(next.join("own.rhai"), text).unwrap();
        fs::rename(folder, &old).unwrap();
        fs::rename(&next, folder).unwrap();
        fs::remove_dir_all(old).unwrap();
    }),
];

#[test]
fn whatever_writes_the_files_only_whole_sets_go_live() {
    if !need_root("files that are edited") {
        return;
    }
    let text = |number: usize| {
        format!(
            "{}\n// half\nrule \"second\" on syn\nthen {{ evidence(\"n\", {number}); }}\n",
            telling(&number.to_string())
        )
    };
    let live = live(&text(0));
    let mut meant: BTreeSet<String> = BTreeSet::from([hash_of(&live.bench, &text(0))]);
    for (number, (how, write)) in (1..).zip(WRITERS) {
        meant.insert(hash_of(&live.bench, &text(number)));
        write(&live.own(), &text(number));
        let generation = until(how, || {
            let now = status(&live.bench);
            assert!(meant.contains(now["hash"].as_str().unwrap()), "{how}: a set that nobody meant: {now}");
            (now["hash"] == hash_of(&live.bench, &text(number))).then(|| now["generation"].clone())
        });
        assert_eq!(generation, number + 1, "{how}");
    }
    // An empty file is meant if it stays empty.
    fs::write(live.own(), "").unwrap();
    let emptied = Instant::now();
    until("no rules", || (status(&live.bench)["rules"] == 0).then_some(()));
    assert!(emptied.elapsed() > Duration::from_secs(2));
    let ended = live.stop();
    let books = &ended.books()["rules"];
    assert_eq!(
        (&books["reloads"], &books["refused_reloads"]),
        (&9.into(), &0.into()),
        "{}",
        ended.ran.stderr
    );
    ended.ran.exits(0).says(&["own.rhai holds nothing any more"]);
}

#[test]
fn a_restart_with_broken_files_goes_on_with_the_last_good_rules() {
    if !need_root("a restart with broken rules") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    rules(&bench, &telling("good"));
    running::settings(&bench, "[rules]\nkeep = \"kept\"\nlibrary = true\n");
    fs::create_dir(bench.path("kept")).unwrap();
    let good = Running::start(&namespace, &bench, &ARGS);
    fs::write(bench.path("rules/own.rhai"), telling("better")).unwrap();
    let better = reload(&bench);
    assert!(better["rules"].as_u64().unwrap() > 20, "the shipped ones as well: {better}");
    good.stop().ran.exits(0);

    fs::write(bench.path("rules/own.rhai"), "rule \"reset\" on rsd\nthen { incident(7); }\n").unwrap();
    let mut running = Running::start(&namespace, &bench, &[&ARGS[..], &["--json"]].concat());
    let now = status(&bench);
    assert_eq!((&now["last_good"], &now["hash"]), (&true.into(), &better["hash"]));
    assert_eq!(now["errors"][0]["line"], 1);
    wire.send_all(&cut_off(4000, 80));
    let incident = running.incident("open", "reset");
    assert_eq!((&incident["explain"], &incident["rules_hash"]), (&"better".into(), &better["hash"]));
    fs::write(bench.path("rules/own.rhai"), telling("best")).unwrap();
    until("the corrected rules", || (status(&bench)["generation"] == 2).then_some(()));
    assert_eq!(status(&bench)["last_good"], false);
    let hash = better["hash"].as_str().unwrap();
    running.stop().ran.exits(0).says(&["own.rhai:1:17: there is no event `rsd`", "go on", hash]);
    // Without what was kept it is refused, as ever.
    fs::write(bench.path("rules/own.rhai"), "rule").unwrap();
    fs::remove_dir_all(bench.path("kept")).unwrap();
    running::run(&namespace, &bench, &ARGS).exits(2).says(&["own.rhai:1:5"]);
}

/// With two workers, and room for the packets of a second: a machine that tests share does not always give the worker its turn.
fn patient(text: &str) -> Live {
    let (namespace, bench) = (Namespace::new(), bench());
    running::capture_settings(&bench, "workers = 2\n");
    let wire = Wire::new(&namespace, Shape { queues: 2, ..Shape::default() });
    rules(&bench, text);
    let settings = bench.read("live.toml").replace("ring_packets = 4096", "ring_packets = 32768");
    bench.file("live.toml", settings);
    let running = Running::start(&namespace, &bench, &[&ARGS[..], &["--json"]].concat());
    Live { bench, namespace, wire, running }
}

#[test]
fn a_storm_of_reloads_under_load_costs_no_packet() {
    if !need_root("a storm of reloads") {
        return;
    }
    let seconds: u64 = std::env::var("RELOAD_STORM_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(12);
    let mut live = patient(&telling("0"));
    let bench = &live.bench;
    let (began, mut number, mut packets) = (Instant::now(), 0_u64, 0_u64);
    let (mut known, mut generation, mut slowest) = (BTreeSet::new(), 1, Duration::ZERO);
    known.insert(status(bench)["hash"].as_str().unwrap().to_owned());
    let (mut refused, mut resident) = (0, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        // A hundred a minute, every tenth of them broken.
        number += 1;
        let broken = number % 10 == 0;
        let text = if broken { "rule \"reset\" on".to_owned() } else { telling(&number.to_string()) };
        let beside = bench.path("rules/.new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, live.own()).unwrap();
        let asked = Instant::now();
        let done = reload(bench);
        slowest = slowest.max(asked.elapsed());
        let now = done["generation"].as_u64().unwrap();
        assert!(now >= generation, "{done}");
        let workers = done["workers"].as_array().unwrap();
        assert!(done["live"] == true && workers.len() == 2, "{done}");
        assert!(workers.iter().all(|worker| worker["generation"] == now), "{done}");
        assert_eq!(done["errors"].as_array().unwrap().is_empty(), !broken);
        assert_eq!(now, generation + u64::from(!broken));
        generation = now;
        refused += u64::from(broken);
        known.insert(done["hash"].as_str().unwrap().to_owned());
        resident.push(live.running.resident_kib());
        let next = began + Duration::from_millis(600) * u32::try_from(number).unwrap();
        while Instant::now() < next {
            let frames = cut_off(1024 + (packets % 60_000) as u16, 80 + number as u16);
            live.wire.send_all(&frames);
            packets += frames.len() as u64;
            // About 20,000 a second, far less than what the worker is good for.
            thread::sleep(Duration::from_micros(200));
        }
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // Tables fill at first; only a longer run shows whether something else grows.
    let (early, late) = (resident[resident.len() / 2], resident[resident.len() - 1]);
    assert!(seconds < 60 || late < early + 16_384, "{resident:?}");
    let sent = live.wire.sent();
    let ended = live.stop();
    let books = ended.books();
    assert_eq!((&books["received"], &books["analysed"]), (&sent.into(), &sent.into()), "no packet is lost");
    assert_eq!(books["events"]["dropped"], 0, "no event is lost either");
    assert_eq!(books["rules"]["generation"], generation);
    assert_eq!(books["rules"]["reloads"], generation - 1);
    assert_eq!(books["rules"]["refused_reloads"], refused);
    let incidents: Vec<Value> = ended.ran.json().into_iter().filter(|line| line["kind"] == "reset").collect();
    let hashes: BTreeSet<String> =
        incidents.iter().map(|incident| incident["rules_hash"].as_str().unwrap().to_owned()).collect();
    assert!(hashes.is_subset(&known) && !hashes.is_empty(), "{hashes:?} {known:?}");
    #[allow(clippy::print_stdout, reason = "what was measured, for who wants to see it")]
    {
        println!(
            "{number} reloads in {seconds} s, {sent} packets, slowest answer {slowest:?}, {} incidents of {} sets, \
             {early} to {late} KiB",
            incidents.len(),
            hashes.len()
        );
    }
}

#[test]
fn two_runs_do_not_share_a_socket() {
    if !need_root("a socket that is taken") {
        return;
    }
    let live = live(&telling("x"));
    let other = Namespace::new();
    let _wire = Wire::new(&other, Shape::default());
    let ran: Ran = command(&other, &live.bench, &["-i", "tap0"]).output().unwrap().into();
    ran.exits(2).says(&["--socket referee.sock"]);
    assert_eq!(status(&live.bench)["generation"], 1);
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    assert!(live.bench.path(SOCKET).exists() && !bench.path(SOCKET).exists());
    let path = live.bench.path(SOCKET);
    live.stop();
    assert!(!path.exists());
}

#[test]
fn a_terminal_that_goes_away_ends_it_in_order() {
    if !need_root("a terminal that goes away") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    let wire = Wire::new(&namespace, Shape::default());
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let other_end = fs::File::options().read(true).write(true).open(name).unwrap();
    let mut command = command(&namespace, &bench, &["-i", "tap0", "--ledger", "books.json"]);
    let mut child = command.stdout(Stdio::null()).stderr(other_end).spawn().unwrap();
    drop(command);
    let mut reader = BufReader::new(fs::File::from(terminal));
    let mut said = String::new();
    while !said.ends_with("ready\r\n") {
        assert!(reader.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let hangup = |child: &Child| kill_process(Pid::from_child(child), Signal::HUP).unwrap();
    // With the terminal there it is a reload like any other.
    hangup(&child);
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    drop(reader);
    hangup(&child);
    let ended = until("the end", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(bench.read("books.json").contains("\"balanced\":true"));
    common::wire::assert_given_back(&namespace, wire.tap());
}
