//! Files that are renamed, a log daemon that comes and goes, and everybody told through one handle.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::*;
use crate::config::notify::{FileConfig, SyslogConfig};
use crate::report::metrics::tests::incident;

pub fn note(kind: &str) -> Arc<Note> {
    Arc::new(Note { state: State::Open, incident: incident(kind) })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap()
}

fn form() -> Form {
    Form { event_type: "incident", host: "box".to_owned(), in_iface: None }
}

fn said() -> (Said, Receiver<String>) {
    let (sender, heard) = channel();
    (Said(sender), heard)
}

/// Tells one sink these kinds, as its thread does.
fn told(sink: &mut Vec<Sink>, kinds: &[&str], said: &Said) {
    let (sender, inbox) = sync_channel(WAITING);
    kinds.iter().for_each(|kind| sender.send(note(kind)).unwrap());
    drop(sender);
    lines::run(std::mem::take(sink), &inbox, &form(), said);
}

fn sink(name: &'static str, out: Out, per_minute: u32) -> (Vec<Sink>, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let limit = Limit::new(per_minute);
    (vec![Sink { name, out, limit, counts: Arc::clone(&counts), failing: false }], counts)
}

fn kinds(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let kind = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let kind = event["alert"]["signature"].as_str().or(event["event_type"].as_str());
        kind.unwrap().to_owned()
    };
    text.lines().map(kind).collect()
}

#[test]
fn one_file_follows_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eve.json");
    let (said, heard) = said();
    let reopen = Arc::new(AtomicBool::new(false));
    let mut file = Sink {
        name: "file",
        out: Out::File(LogFile::open(&path, Arc::clone(&reopen)).unwrap()),
        limit: Limit::new(0),
        counts: Arc::new(Counts::default()),
        failing: false,
    };
    let (form, counts) = (form(), Arc::clone(&file.counts));
    let mut tell = |kind: &str| file.tell(&note(kind), &form, &said);
    tell("a");
    fs::rename(&path, folder.path().join("old")).unwrap();
    tell("b");
    tell("c");
    reopen.store(true, Ordering::Relaxed);
    tell("d");
    assert!(!reopen.load(Ordering::Relaxed));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    tell("lost");
    tell("lost too");
    fs::remove_dir(&path).unwrap();
    tell("e");
    assert_eq!(kinds(&folder.path().join("old")), ["a"]);
    assert_eq!(kinds(&path), ["e"]);
    let counted = counts.told("file");
    assert_eq!((counted.sent, counted.failed), (5, 2));
    let news: Vec<String> = heard.try_iter().collect();
    assert!(news.len() == 2 && news[0].contains("can't be told: ") && news[1].ends_with("again"), "{news:?}");
}

#[test]
fn the_log_daemon_gets_datagrams_it_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let config = SyslogConfig { socket: path.clone(), facility: 19, per_minute: 0 };
    let (said, heard) = said();
    let (mut absent, counts) = sink("syslog", Out::Syslog(Syslog::new(&config).unwrap()), 0);
    told(&mut absent, &["nobody", "listens"], &said);
    assert_eq!((counts.told("syslog").failed, heard.try_iter().count()), (2, 1));
    let daemon = UnixDatagram::bind(&path).unwrap();
    let (mut present, counts) = sink("syslog", Out::Syslog(Syslog::new(&config).unwrap()), 1);
    told(&mut present, &["a", "b"], &said);
    let mut buffer = [0; 16 << 10];
    let mut next = || {
        let len = daemon.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    let first = next();
    let (head, line) = first.split_once(": ").unwrap();
    assert_eq!(head, format!("<156>referee[{}]", std::process::id()));
    assert_eq!(serde_json::from_str::<Value>(line).unwrap()["alert"]["signature"], "a");
    assert!(next().contains("\"left_out\":{\"all\":1,\"kinds\":{\"b\":1},\"others\":0}"));
    assert_eq!((counts.told("syslog").sent, counts.told("syslog").limited), (1, 1));
}

#[test]
fn only_what_is_wanted_is_told_and_what_was_told_is_taken_back() {
    let wanted = NotifyConfig::default().wanted;
    let told = |wanted: &Wanted, state, change: fn(&mut Incident)| {
        let mut incident = incident("rst_after_idle");
        change(&mut incident);
        wants(wanted, state, &incident)
    };
    assert!(told(&wanted, State::Open, |_| {}) && told(&wanted, State::Closed, |_| {}));
    assert!(!told(&wanted, State::Open, |incident| incident.severity = rules::Severity::Info));
    let wanted = Wanted { closed: false, kinds: ["rst_after_idle".to_owned()].into(), ..wanted };
    assert!(told(&wanted, State::Open, |_| {}) && !told(&wanted, State::Closed, |_| {}));
    assert!(told(&wanted, State::Closed, |incident| incident.withdrawn = true));
    assert!(!told(&wanted, State::Open, |incident| incident.kind = "other".to_owned()));
}

#[test]
fn everybody_is_told_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eve.json");
    let config = NotifyConfig {
        file: Some(FileConfig { path: path.clone(), per_minute: 0 }),
        syslog: Some(SyslogConfig { socket: folder.path().join("none"), facility: 3, per_minute: 0 }),
        ..NotifyConfig::default()
    };
    assert!(Prepared::new(&NotifyConfig::default(), true).unwrap().is_none());
    let mut notify = Prepared::new(&config, true).unwrap().unwrap().spawn().unwrap();
    (0..3).for_each(|n| notify.tell(State::Open, &incident(&format!("kind_{n}"))));
    let told = notify.finish();
    let words: Vec<String> = told.iter().map(Told::words).collect();
    assert_eq!(words, ["file: 3 told", "syslog: 0 told, 3 failed"]);
    assert!(!told[0].missed() && told[1].missed());
    assert_eq!(kinds(&path), ["kind_0", "kind_1", "kind_2"]);
    let said = notify.news();
    let none = folder.path().join("none");
    assert!(
        said.len() == 1 && said[0].contains(&format!("syslog ({}) can't be told", none.display())),
        "{said:?}"
    );
    let stdout = NotifyConfig {
        stdout: Some(crate::config::notify::StdoutConfig { per_minute: 0 }),
        ..NotifyConfig::default()
    };
    assert!(Prepared::new(&stdout, true).is_err() && Prepared::new(&stdout, false).is_ok());
    let file = Some(FileConfig { path: folder.path().join("no/such"), per_minute: 0 });
    let half = NotifyConfig { file, ..config };
    assert!(Prepared::new(&half, false).is_err());
    // The others can be told all the same.
    let (prepared, refused) = Prepared::some(&half, false, Pace::default(), PATIENCE);
    assert_eq!(refused.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["file"]);
    let mut notify = prepared.spawn().unwrap();
    assert_eq!(notify.finish().iter().map(Told::words).collect::<Vec<_>>(), ["syslog: 0 told"]);
}
