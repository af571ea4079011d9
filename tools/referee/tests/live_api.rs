//! A run asked through its HTTP interface: what it shows, what it is told, and that it captures on under a crowd of clients.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::running::{self, KEEP_ALL, PATIENCE, Running, TELL_RESETS, bench, rules, until};
use common::wire::{Wire, cut_off};
use common::{Bench, Ran};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::live::{Namespace, Shape, need_root};

const ARGS: [&str; 7] = ["-i", "tap0", "--rules", "rules", "--store", "s", "--json"];

/// Tests ask more often than people do.
const FAST: &str = "[api]\nrequests_per_second = 100_000\n";

/// Status and body of one request.
fn ask(socket: &PathBuf, verb: &str, path: &str, body: &str) -> std::io::Result<(u16, Vec<u8>)> {
    ask_with("application/json", socket, verb, path, body)
}

fn ask_with(
    kind: &str,
    socket: &PathBuf,
    verb: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    Ok((status, answer.split_off(end + 4)))
}

fn socket(bench: &Bench) -> PathBuf {
    bench.path(&format!("{}.api", running::SOCKET))
}

#[track_caller]
fn get(bench: &Bench, path: &str) -> Value {
    let (status, body) = ask(&socket(bench), "GET", path, "").unwrap();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn tell(bench: &Bench, verb: &str, path: &str, body: &Value) -> (u16, Value) {
    let (status, body) = ask(&socket(bench), verb, path, &body.to_string()).unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

/// Rules are looked at, checked, switched and loaded anew.
fn rules_are_told(bench: &Bench) {
    let listed = get(bench, "/api/v1/rules");
    let names: Vec<_> =
        listed["rules"].as_array().unwrap().iter().map(|rule| rule["rule"].as_str()).collect();
    assert_eq!(names, [Some("keep_all"), Some("reset")], "{listed}");
    assert_eq!((&listed["workers"][0]["generation"], &listed["errors"]), (&json!(1), &json!([])));
    let good = json!({"files": [{"name": "own.rhai", "text": TELL_RESETS}]});
    let (status, checked) = tell(bench, "POST", "/api/v1/rules/check", &good);
    assert_eq!((status, &checked["rules"]), (200, &json!(["reset"])), "{checked}");
    let bad = json!({"files": [{"name": "more.rhai", "text": "rule \"x\""}]});
    let (status, checked) = tell(bench, "POST", "/api/v1/rules/check", &bad);
    assert_eq!((status, &checked["errors"][0]["file"]), (200, &json!("more.rhai")), "{checked}");

    let (status, done) = tell(bench, "PUT", "/api/v1/rules/reset/shadow", &json!({"on": true}));
    assert_eq!((status, &done["live"], &done["generation"]), (200, &json!(true), &json!(2)), "{done}");
    let (status, problem) = tell(bench, "PUT", "/api/v1/rules/nope/enabled", &json!({"on": true}));
    assert_eq!((status, &problem["type"]), (404, &json!("/problems/no-such-rule")), "{problem}");
    tell(bench, "PUT", "/api/v1/rules/reset/shadow", &json!({"on": false}));
    fs::write(bench.path("rules/own.rhai"), "rule").unwrap();
    let (status, problem) = tell(bench, "POST", "/api/v1/rules/reload", &json!({}));
    assert_eq!((status, &problem["type"]), (422, &json!("/problems/rules-refused")), "{problem}");
    assert_eq!(problem["errors"][0]["line"], 1, "{problem}");
    fs::write(bench.path("rules/own.rhai"), [KEEP_ALL, TELL_RESETS].concat()).unwrap();
    let (status, done) = tell(bench, "POST", "/api/v1/rules/reload", &json!({}));
    assert_eq!((status, &done["errors"]), (200, &json!([])), "{done}");
}

/// Rule files are looked at, refused, written, gone by and deleted.
fn rule_files_are_sent(bench: &Bench) {
    let send = |verb: &str, name: &str, text: &str| -> (u16, Value) {
        let path = format!("/api/v1/rules/files/{name}");
        let (status, body) = ask_with("text/plain", &socket(bench), verb, &path, text).unwrap();
        let whole = String::from_utf8_lossy(&body).into_owned();
        (status, serde_json::from_slice(&body).unwrap_or(Value::String(whole)))
    };
    let names = || {
        let files = get(bench, "/api/v1/rules/files");
        assert_eq!(
            (&files["writable"], &files["items"][0]["shipped"]),
            (&json!(true), &json!(false)),
            "{files}"
        );
        files["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let on_disk = || fs::read_dir(bench.path("rules")).unwrap().count();
    assert_eq!(names(), ["own.rhai"]);
    assert_eq!(send("GET", "own.rhai", "").1, json!([KEEP_ALL, TELL_RESETS].concat()));
    let more = TELL_RESETS.replace("\"reset\"", "\"more\"");
    let (status, problem) = send("PUT", "more.rhai", &more.replace("rule ", "rul "));
    assert_eq!((status, &problem["type"]), (422, &json!("/problems/rules-refused")), "{problem}");
    assert!(problem["errors"][0]["file"].as_str().unwrap().ends_with("rules/more.rhai"), "{problem}");
    assert_eq!(on_disk(), 1, "nothing was changed");
    let (status, done) = send("PUT", "more.rhai", &more);
    assert_eq!((status, &done["added"], &done["live"]), (200, &json!(["more"]), &json!(true)), "{done}");
    assert_eq!(
        (names(), fs::read_to_string(bench.path("rules/more.rhai")).unwrap()),
        (vec!["more.rhai".to_owned(), "own.rhai".to_owned()], more.clone())
    );
    // The same name of a rule in two files.
    assert_eq!(send("PUT", "again.rhai", &more).0, 422);
    for name in ["..%2Fout.rhai", ".hidden.rhai", "a.txt", "%2e%2e.rhai", "a%00.rhai"] {
        let (status, problem) = send("PUT", name, &more);
        assert_eq!((status, &problem["type"]), (400, &json!("/problems/bad-parameter")), "{name}: {problem}");
    }
    let (status, problem) = send("GET", "nope.rhai", "");
    assert_eq!((status, &problem["type"]), (404, &json!("/problems/no-such-rule-file")), "{problem}");
    // A folder that this user may not write to, as a service's often is.
    let mode = |mode| fs::set_permissions(bench.path("rules"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    assert_eq!(get(bench, "/api/v1/rules/files")["writable"], false);
    let (status, problem) = send("DELETE", "more.rhai", "");
    mode(0o755);
    assert_eq!((status, &problem["type"]), (409, &json!("/problems/rules-unwritable")), "{problem}");
    assert!(problem["help"].as_str().unwrap().contains("ReadWritePaths="), "{problem}");
    let (status, done) = send("DELETE", "more.rhai", "");
    assert_eq!((status, &done["removed"]), (200, &json!(["more"])), "{done}");
    assert_eq!(send("DELETE", "more.rhai", "").0, 404);
    assert_eq!(send("DELETE", "own.rhai", "").0, 422, "the last one");
    assert_eq!((on_disk(), names()), (1, vec!["own.rhai".to_owned()]));
}

/// Packets that passed before anybody asked.
fn packets_are_wished_for(bench: &Bench) {
    let wish = json!({"expression": "tcp port 80", "last_s": 600});
    let (status, begun) = tell(bench, "POST", "/api/v1/captures/demands", &wish);
    assert_eq!(status, 201, "{begun}");
    let id = begun["id"].as_str().unwrap();
    let done = until("the packets wished for", || {
        let state = get(bench, &format!("/api/v1/captures/demands/{id}"));
        (state["state"] == "done").then_some(state)
    });
    assert!(done["packets"].as_u64().unwrap() > 0, "{done}");
    until("them on disk", || {
        let (status, _) = ask(&socket(bench), "GET", done["capture"].as_str().unwrap(), "").ok()?;
        (status == 200).then_some(())
    });
    assert_eq!(get(bench, "/api/v1/captures/demands")["items"][0]["id"], id);
    let (status, problem) =
        tell(bench, "POST", "/api/v1/captures/demands", &json!({"expression": "port http ("}));
    assert_eq!((status, &problem["type"]), (400, &json!("/problems/bad-expression")), "{problem}");
    let (status, problem) = tell(bench, "DELETE", "/api/v1/captures/demands/0000000000000001", &json!({}));
    assert_eq!((status, &problem["type"]), (404, &json!("/problems/no-such-demand")), "{problem}");
}

#[test]
fn a_run_shows_what_it_finds_and_does_what_it_is_told() {
    if !need_root("a run asked through its interface") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    running::settings(&bench, FAST);
    let mut wire = Wire::new(&namespace, Shape::default());
    rules(&bench, &[KEEP_ALL, TELL_RESETS].concat());
    let mut running = Running::start(&namespace, &bench, &ARGS);
    let version = get(&bench, "/api/v1/version");
    assert_eq!((&version["live"], &version["pid"]), (&json!(true), &json!(running.id())), "{version}");
    wire.send_all(&cut_off(4000, 80));
    let told = running.incident("open", "reset");
    let id = told["id"].as_str().unwrap();
    let open = until("the incident", || {
        let open = get(&bench, "/api/v1/incidents?state=open");
        open["items"].get(0).cloned()
    });
    assert_eq!((&open["id"], &open["subject"]["dport"]), (&told["id"], &json!(80)), "{open}");
    let books = until("the books", || {
        let (status, books) = ask(&socket(&bench), "GET", "/api/v1/books", "").ok()?;
        let books: Value = serde_json::from_slice(&books).unwrap();
        (status == 200 && books["kept"] != 0).then_some(books)
    });
    assert_eq!(
        (&books["balanced"], &books["interfaces"][0]["name"]),
        (&Value::Null, &json!("tap0")),
        "{books}"
    );
    let health = get(&bench, "/api/v1/health");
    assert!(health["checks"].as_array().unwrap().iter().any(|check| check["name"] == "loss"), "{health}");
    let (status, page) = ask(&socket(&bench), "GET", "/metrics", "").unwrap();
    assert!(status == 200 && String::from_utf8_lossy(&page).contains("referee_running 1"));
    assert!(!get(&bench, "/api/v1/series?step=1")["items"].as_array().unwrap().is_empty());
    rules_are_told(&bench);
    rule_files_are_sent(&bench);
    packets_are_wished_for(&bench);

    let kept = until("the packets on disk", || {
        let kept = get(&bench, &format!("/api/v1/captures?incident={id}"));
        kept["items"].get(0).cloned()
    });
    let (status, capture) =
        ask(&socket(&bench), "GET", &format!("/api/v1/captures/download?incident={id}"), "").unwrap();
    assert_eq!((status, &capture[..4]), (200, &[0x0a, 0x0d, 0x0d, 0x0a][..]), "{kept}");
    let ended = running.stop();
    assert!(!socket(&bench).exists(), "the socket goes with the run");
    assert_eq!(ended.books()["dropped"].as_object().unwrap().values().filter(|lost| **lost != 0).count(), 0);
    ended.ran.exits(0);
}

/// What a client of the crowd asks for, over and over.
const ASKED: [&str; 6] = [
    "/api/v1/incidents",
    "/api/v1/books",
    "/api/v1/rules",
    "/metrics",
    "/api/v1/captures",
    "/api/v1/captures/download",
];

#[test]
fn a_crowd_that_asks_costs_no_packet() {
    if !need_root("a crowd at the interface") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    running::settings(&bench, FAST);
    let mut wire = Wire::new(&namespace, Shape::default());
    rules(&bench, &[KEEP_ALL, TELL_RESETS].concat());
    let running = Running::start(&namespace, &bench, &ARGS);
    let (over, answered, path) = (AtomicBool::new(false), AtomicU64::new(0), socket(&bench));
    let ended = thread::scope(|scope| {
        for client in 0..24 {
            let (over, answered, path) = (&over, &answered, &path);
            scope.spawn(move || {
                for number in client.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // One that finds no place is let go.
                    if let Ok((status, body)) = ask(path, "GET", ASKED[number % ASKED.len()], "") {
                        let body = String::from_utf8_lossy(&body);
                        assert!([200, 404, 409, 429].contains(&status), "{status}: {body}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // Each batch fits the ring several times; between two, so many answers that the crowd has had its turn.
        for batch in 0..20 {
            let before = answered.load(Ordering::Relaxed);
            (0..100).for_each(|port| wire.send_all(&cut_off(4000 + 100 * batch + port, 80)));
            until("answers", || (answered.load(Ordering::Relaxed) >= before + 20).then_some(()));
            wire.all_arrived(&namespace);
            until("the worker", || {
                let (status, books) = ask(&path, "GET", "/api/v1/books", "").ok()?;
                let books: Value = serde_json::from_slice(&books).ok()?;
                (status == 200 && books["received"].as_u64()? >= wire.sent()).then_some(())
            });
        }
        let sent = wire.sent();
        over.store(true, Ordering::Relaxed);
        (running.stop(), sent)
    });
    let (ended, sent) = ended;
    let books = ended.books();
    assert_eq!((books["received"].as_u64(), books["analysed"].as_u64()), (Some(sent), Some(sent)), "{books}");
    assert_eq!(books["events"]["hits_dropped"], 0, "{books}");
    ended.ran.exits(0);
}

/// `referee captures live …` against the run, once it has begun.
fn follow(bench: &Bench, to: &str, args: &[&str]) -> Child {
    let mut command = bench.command(&["captures", "live", "-w", to, "--socket"]);
    let child = command.arg(socket(bench)).args(args).stderr(Stdio::piped()).spawn().unwrap();
    until("its first bytes", || fs::metadata(bench.path(to)).is_ok_and(|meta| meta.len() > 0).then_some(()));
    child
}

fn said(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

/// Destination ports of the packets that a file has by now, its last one cut or not.
fn ports(bench: &Bench, file: &str) -> Vec<String> {
    let mut tshark = Command::new("tshark");
    tshark.current_dir(bench.dir.path()).args(["-n", "-r", file, "-T", "fields", "-e", "tcp.port"]);
    let out = tshark.output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_kept_is_followed_while_it_is_kept() {
    if !need_root("what is kept, followed") {
        return;
    }
    let (namespace, bench) = (Namespace::new(), bench());
    running::settings(&bench, FAST);
    let mut wire = Wire::new(&namespace, Shape::default());
    rules(&bench, KEEP_ALL);
    let running = Running::start(&namespace, &bench, &ARGS);
    let all = follow(&bench, "all.pcapng", &[]);
    let some = follow(&bench, "some.pcapng", &["tcp port 81"]);
    // Wireshark shows packets as they come, through a pipe.
    let pipe = "\"$0\" captures live -w - --socket \"$1\" 2>said | tshark -n -l -i - -c 10 2>/dev/null";
    let mut piped = Command::new("sh");
    piped.args(["-c", pipe, env!("CARGO_BIN_EXE_referee")]).arg(socket(&bench)).current_dir(bench.dir.path());
    let mut piped = piped.stdout(Stdio::piped()).spawn().unwrap();
    until("it to follow", || {
        let (_, page) = ask(&socket(&bench), "GET", "/metrics", "").ok()?;
        String::from_utf8_lossy(&page).contains("referee_live_streams 3\n").then_some(())
    });
    (0..20).for_each(|number| wire.send_all(&cut_off(4000 + number, 80 + number % 2)));
    until("the packets of one port", || (ports(&bench, "some.pcapng").len() == 50).then_some(()));
    let mut shown = String::new();
    piped.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    piped.wait().unwrap();
    assert_eq!(shown.lines().count(), 10, "{shown}");
    // One is ended, the other ends with the run: each is whole.
    kill_process(Pid::from_child(&some), Signal::INT).unwrap();
    said(some).exits(0).says(&["50 packets written to some.pcapng"]);
    let wrong = bench.run(&[
        "captures",
        "live",
        "port port",
        "-w",
        "no",
        "--socket",
        &socket(&bench).display().to_string(),
    ]);
    wrong.exits(2).says(&["syntax error"]);
    assert!(!bench.path("no").exists());
    until("the counts", || {
        let (_, page) = ask(&socket(&bench), "GET", "/metrics", "").ok()?;
        let page = String::from_utf8_lossy(&page).into_owned();
        let left = page
            .lines()
            .find_map(|line| line.strip_prefix("referee_live_streams_ended_total{ending=\"left\"} "));
        (left? == "2").then_some(())
    });
    let ended = running.stop();
    assert_eq!(ended.books()["kept"], 100, "{}", ended.books());
    ended.ran.exits(0);
    said(all).exits(0).says(&["the run has ended", "100 packets written to all.pcapng"]);
    for (file, count) in [("all.pcapng", 100), ("some.pcapng", 50)] {
        let mut seen = running::tshark(&bench, file, &["tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.len"]);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "{file}: each packet once");
    }
    assert!(ports(&bench, "some.pcapng").iter().all(|ports| ports.split(',').any(|port| port == "81")));
}
