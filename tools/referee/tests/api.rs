//! `referee serve` as clients meet it: what is no HTTP, what is too slow, too much or too large, and how it ends.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use common::Bench;
use common::running::{PATIENCE, Running, until};
use rustix::process::Signal;

/// A store of one flow, served at `api.sock` and at a port of TCP.
fn serve(bench: &Bench) -> (Running, SocketAddr) {
    bench.capture("rst_after_idle", 0.0);
    bench.replay(&["--store", "store", "rst_after_idle.pcap"]).exits(0);
    let token = bench.run(&["token", "mine", "--file", "token"]).exits(0).stdout;
    bench.file("referee.toml", format!("[api]\ntls = \"tls\"\n{token}"));
    let args = ["serve", "--store", "store", "--config", "referee.toml", "--socket", "api.sock"];
    let mut command = bench.command(&[&args[..], &["--listen", "127.0.0.1:0"]].concat());
    let running = Running::spawn(command.stdout(Stdio::null()));
    let said = running.stderr_so_far();
    let at = said.split("https://").nth(1).and_then(|rest| rest.split(',').next()).unwrap().parse();
    (running, at.unwrap())
}

fn unix(bench: &Bench) -> UnixStream {
    let stream = UnixStream::connect(bench.path("api.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes until the end.
fn rest(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn asked(mut stream: UnixStream, request: &str) -> String {
    // It may have been let go already.
    let _ = stream.write_all(request.as_bytes());
    rest(stream)
}

const VERSION: &str = "GET /api/v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn what_is_no_request_holds_up_nobody_and_is_cut() {
    let bench = Bench::new();
    let (running, at) = serve(&bench);
    let tcp = |says: &[u8]| {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(says).unwrap();
        stream
    };
    let silent = tcp(b"");
    let noise = tcp(&[0xa5; 3000]);
    let plain = tcp(VERSION.as_bytes());
    let half = unix(&bench);
    (&half).write_all(b"GET /api/v1/version HT").unwrap();
    let slow = unix(&bench);
    let post = "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    (&slow).write_all(post.as_bytes()).unwrap();

    assert!(asked(unix(&bench), VERSION).starts_with("HTTP/1.1 200 "));
    assert!(!rest(noise).contains("HTTP/1.1 200"));
    assert!(!rest(plain).contains("HTTP/1.1 200"));
    assert_eq!(rest(silent), "");
    assert!(!rest(half).contains("HTTP/1.1 200"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(20_000));
    assert!(asked(unix(&bench), &long).contains("/problems/not-found"));
    let lines = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert!(asked(unix(&bench), &lines).starts_with("HTTP/1.1 431 "));
    let larger = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(100_000));
    assert!(!asked(unix(&bench), &larger).contains("HTTP/1.1 200"));
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 12];
    (&slow).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(asked(unix(&bench), VERSION).starts_with("HTTP/1.1 200 "));
    running.stop().ran.exits(0);
}

#[test]
fn a_65th_connection_is_told_so_and_a_place_comes_back() {
    let bench = Bench::new();
    let (running, _) = serve(&bench);
    // An answer shows that each has its place; then it keeps it, within the time there is for another request.
    let keep = VERSION.replace("Connection: close\r\n", "");
    let held: Vec<UnixStream> = (0..64)
        .map(|_| {
            let mut stream = unix(&bench);
            stream.write_all(keep.as_bytes()).unwrap();
            stream
        })
        .collect();
    held.iter().for_each(|mut stream| stream.read_exact(&mut [0; 15]).unwrap());
    let more = asked(unix(&bench), VERSION);
    // A slow machine may have let the first ones go for their silence.
    let full = more.starts_with("HTTP/1.1 503 ")
        && more.contains("retry-after: 1\r\n")
        && more.contains("/problems/full");
    assert!(full || held_is_over(&held[0]), "{more}");
    drop(held);
    until("a place", || asked(unix(&bench), VERSION).starts_with("HTTP/1.1 200 ").then_some(()));
    running.signal(Signal::TERM);
    running.end().ran.exits(0);
    assert!(!bench.path("api.sock").exists());
}

fn held_is_over(mut stream: &UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.read_to_end(&mut Vec::new()).is_ok()
}

#[test]
fn what_is_not_safe_is_not_begun() {
    let bench = Bench::new();
    bench.capture("rst_after_idle", 0.0);
    bench.replay(&["--store", "store", "rst_after_idle.pcap"]).exits(0);
    bench.file("none.toml", "");
    let args = [
        "serve",
        "--store",
        "store",
        "--config",
        "none.toml",
        "--socket",
        "a.sock",
        "--listen",
        "127.0.0.1:0",
    ];
    bench.run(&args).exits(2).says(&["with a token only", "referee token NAME --role read"]);
    let token = bench.run(&["token", "mine", "--file", "token"]).exits(0);
    assert!(
        !token.stderr.contains(bench.read("token").trim())
            && !token.stdout.contains(bench.read("token").trim())
    );
    bench.run(&["token", "mine", "--file", "token"]).exits(1).says(&["that is not there yet"]);
    let shown = bench.run(&["token", "mine"]).exits(0);
    shown.says(&["the token, shown only now: "]);
    bench.run(&["serve", "--store", "nowhere", "--socket", "a.sock"]).exits(1).says(&["no store at nowhere"]);
    let args = ["serve", "--store", "store", "--config", "none.toml", "--socket", "no/such/folder.sock"];
    bench.run(&args).exits(2).says(&["[api] socket"]);
    bench.run(&["web", "--socket", "a.sock"]).exits(1).says(&["nobody answers at a.sock"]);
}

#[test]
fn a_link_for_a_browser_comes_through_the_socket() {
    let bench = Bench::new();
    let (running, at) = serve(&bench);
    let link = bench.run(&["web", "--socket", "api.sock"]).exits(0).stdout;
    assert!(link.starts_with(&format!("https://{at}/#code=")), "{link}");
    let other = bench.run(&["web", "--socket", "api.sock", "--url", "https://box/"]).exits(0).stdout;
    assert!(other.starts_with("https://box/#code=") && other.trim().len() == "https://box/#code=".len() + 64);
    running.stop().ran.exits(0);
}
