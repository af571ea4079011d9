//! `referee run` as a process inside a namespace: started, listened to, stopped, and never left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::live::Namespace;

use super::{Bench, Ran, lines};

/// A test that waits longer than this for something that has to happen has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Small tables start sooner; incidents are told soon; all that is asked for is kept.
const SETTINGS: &str = "[capture]\nring_packets = 4096\n\
    [worker]\nflows = 16_384\nhalf_open = 4096\ntroubled = 4096\nhistory_mib = 8\ntails = 512\nholds = 256\n\
    hold_pool_mib = 8\nholds_per_rule_per_second = 60_000\n[store]\nchunk_age_ms = 100\n\
    [judge]\nsettle_ms = 100\ncaptures_per_incident = 100_000\n";

/// Where it listens, in the test's folder.
pub const SOCKET: &str = "referee.sock";

/// A rule that keeps every connection from its first packet.
pub const KEEP_ALL: &str = "rule \"keep_all\" on syn\nthen { capture(flow); }\n";

/// A rule that makes an incident of any reset, which no storm takes over.
pub const TELL_RESETS: &str = "rule \"reset\" on rst\nthen { incident(\"info\", \"a reset\"); }\n";

/// Asks again and again until there is an answer.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lines from one of the program's outputs.
struct Stream {
    lines: Receiver<String>,
    /// What was read so far.
    said: String,
}

impl Stream {
    fn of(pipe: impl Read + Send + 'static) -> Stream {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Stream { lines, said: String::new() }
    }

    /// The next line that is wanted; `None` if there is an end before it.
    #[track_caller]
    fn find(&mut self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said += &line;
                    self.said.push('\n');
                    if wanted(&line) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("waited too long for a line after: {}", self.said),
            }
        }
    }

    fn rest(mut self) -> String {
        self.find(|_| false);
        self.said
    }
}

/// The program, capturing.
pub struct Running {
    child: Child,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    books: PathBuf,
}

/// The program, done.
pub struct Ended {
    pub ran: Ran,
    /// `None` if it wrote none.
    pub ledger: Option<Value>,
}

impl Ended {
    /// The books, which balance.
    #[track_caller]
    pub fn books(&self) -> &Value {
        let ledger = self.ledger.as_ref().unwrap_or_else(|| panic!("no ledger: {}", self.ran.stderr));
        assert_eq!(ledger["balanced"], true, "{ledger}\n{}", self.ran.stderr);
        ledger
    }
}

/// A folder with settings for small live runs.
pub fn bench() -> Bench {
    let bench = Bench::new();
    settings(&bench, "");
    bench
}

/// The small settings and more of them; what comes before the first table belongs to `[judge]`.
pub fn settings(bench: &Bench, more: &str) {
    bench.file("live.toml", format!("{SETTINGS}{more}"));
}

/// The small settings with more in `[capture]`.
pub fn capture_settings(bench: &Bench, more: &str) {
    bench.file("live.toml", format!("[capture]\n{more}{}", SETTINGS.trim_start_matches("[capture]\n")));
}

/// Rules of the test's own, in the folder `rules`.
pub fn rules(bench: &Bench, text: &str) {
    fs::create_dir(bench.path("rules")).unwrap();
    bench.file("rules/own.rhai", text);
}

/// `referee run --config live.toml …` in a namespace.
pub fn command(namespace: &Namespace, bench: &Bench, args: &[&str]) -> Command {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_referee"));
    command.current_dir(bench.dir.path()).args(["run", "--config", "live.toml"]).args(args);
    // One of its own: runs of other tests listen too.
    if !args.contains(&"--socket") {
        command.args(["--socket", SOCKET]);
    }
    command.stdin(Stdio::null());
    command
}

/// A run that is expected to end by itself.
pub fn run(namespace: &Namespace, bench: &Bench, args: &[&str]) -> Ran {
    command(namespace, bench, args).output().unwrap().into()
}

impl Running {
    /// Starts it, with its ledger going to a file, and waits until it is ready for packets.
    #[track_caller]
    pub fn start(namespace: &Namespace, bench: &Bench, args: &[&str]) -> Running {
        let mut command = command(namespace, bench, args);
        command.args(["--ledger", "books.json"]);
        let _ = fs::remove_file(bench.path("books.json"));
        let mut running = Running::spawn(command.stdout(Stdio::piped()));
        running.books = bench.path("books.json");
        running
    }

    /// Starts a command made by the test and waits until it is ready.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().map(Stream::of);
        let stderr = child.stderr.take().map(Stream::of);
        let mut running = Running { child, stdout, stderr, books: PathBuf::new() };
        let said = running.stderr.as_mut().unwrap();
        if said.find(|line| line == "ready").is_none() {
            panic!("it was never ready: {}", said.said);
        }
        running
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What was read of standard error so far.
    pub fn stderr_so_far(&self) -> &str {
        self.stderr.as_ref().map_or("", |stderr| &stderr.said)
    }

    /// The next line on standard output that holds all of these.
    #[track_caller]
    pub fn line(&mut self, words: &[&str]) -> String {
        let stdout = self.stdout.as_mut().expect("standard output is read");
        let found = stdout.find(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("it ended without {words:?}: {}", stdout.said))
    }

    /// The next line on standard error that holds this.
    #[track_caller]
    pub fn warning(&mut self, words: &str) -> String {
        let stderr = self.stderr.as_mut().expect("standard error is read");
        let found = stderr.find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("it ended without {words:?}: {}", stderr.said))
    }

    /// True if a line that holds this has come on standard output since it was last looked at.
    pub fn has_said(&mut self, words: &str) -> bool {
        let stdout = self.stdout.as_mut().expect("standard output is read");
        let before = stdout.said.len();
        while let Ok(line) = stdout.lines.try_recv() {
            stdout.said += &line;
            stdout.said.push('\n');
        }
        stdout.said[before..].contains(words)
    }

    /// The next incident that `--json` gives in this state.
    #[track_caller]
    pub fn incident(&mut self, state: &str, kind: &str) -> Value {
        let (state, kind) = (format!("\"state\":\"{state}\""), format!("\"kind\":\"{kind}\""));
        lines(&self.line(&[&state, &kind])).remove(0)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// It has ended, by itself or by a signal that was sent before.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let stderr = self.stderr.take().map(Stream::rest).unwrap_or_default();
        let stdout = self.stdout.take().map(Stream::rest).unwrap_or_default();
        let code = self.child.wait().unwrap().code();
        let ledger = fs::read_to_string(&self.books).ok().and_then(|text| lines(&text).pop());
        Ended { ran: Ran { code, stdout, stderr }, ledger }
    }

    /// Ctrl-C.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::INT);
        self.end()
    }

    /// Has ended, by now.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// A field of /proc/PID/status, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        field(&status, "VmRSS").trim_end_matches(" kB").parse().unwrap()
    }

    /// Names of its threads and their `status` files.
    pub fn threads(&self) -> Vec<(String, String)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path.join("status")).ok();
        let all = tasks.filter_map(|task| read(task.unwrap().path()));
        all.map(|status| (field(&status, "Name").to_owned(), status)).collect()
    }
}

/// What tshark shows of each packet of a file: these fields, separated by tabs.
#[track_caller]
pub fn tshark(bench: &Bench, file: &str, fields: &[&str]) -> Vec<String> {
    let mut tshark = Command::new("tshark");
    tshark.current_dir(bench.dir.path()).args(["-n", "-r", file, "-T", "fields"]);
    tshark.args(fields.iter().flat_map(|field| ["-e", field]));
    let out = tshark.output().unwrap_or_else(|error| panic!("{error}; it is in Debian's package tshark"));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Segments of the store `s`.
pub fn segments(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.path("s/segments")).unwrap();
    let mut all: Vec<String> = entries.map(|entry| entry.unwrap().path().display().to_string()).collect();
    all.sort();
    all
}

/// A field of a `status` file.
#[track_caller]
pub fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
