//! Whoever is named in the settings is told of incidents while a run goes on, and nobody is waited for who doesn't listen.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;

use common::lines;
use common::running::{Running, bench, settings, until};
use common::wire::{Wire, cut_off};
use serde_json::Value;
use tests::live::{Namespace, Shape, need_root};

#[test]
fn a_file_and_the_log_are_told_and_a_webhook_that_is_not_there_holds_up_nobody() {
    if !need_root("telling others") {
        return;
    }
    let namespace = Namespace::new();
    let mut wire = Wire::new(&namespace, Shape::default());
    let bench = bench();
    let daemon = UnixDatagram::bind(bench.path("log")).unwrap();
    settings(
        &bench,
        "quiet_s = 2\n[notify]\nmin_severity = \"info\"\n[notify.file]\npath = \"eve.json\"\n\
         [notify.syslog]\nsocket = \"log\"\n[[notify.webhook]]\nname = \"gone\"\nurl = \"http://127.0.0.1:9/\"\n",
    );
    let mut running =
        Running::start(&namespace, &bench, &["-i", "tap0", "--json", "--metrics", "referee.prom"]);
    wire.send_all(&cut_off(4000, 80));
    let opened = running.incident("open", "rst_midflow");
    let told = || {
        let text = fs::read_to_string(bench.path("eve.json")).unwrap_or_default();
        text.ends_with('\n').then(|| lines(&text))
    };
    let events = until("the first line", told);
    let (event, subject) = (&events[0], &opened["subject"]);
    assert_eq!((&event["event_type"], &event["proto"]), (&Value::from("incident"), &Value::from("TCP")));
    assert_eq!((&event["src_ip"], &event["dest_port"]), (&subject["src"], &subject["dport"]));
    assert_eq!(event["in_iface"], "tap0");
    assert!(event["community_id"].as_str().is_some_and(|id| id.starts_with("1:")), "{event}");
    assert_eq!(
        (&event["incident"]["id"], &event["incident"]["state"]),
        (&opened["id"], &Value::from("open"))
    );
    let mut datagram = [0; 8192];
    let length = daemon.recv(&mut datagram).unwrap();
    let logged = String::from_utf8_lossy(&datagram[..length]);
    assert!(logged.starts_with('<') && logged.contains(opened["id"].as_str().unwrap()), "{logged}");
    running.incident("closed", "rst_midflow");
    until("the second line", || told().filter(|events| events.len() == 2));
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    wire.send_all(&cut_off(4001, 81));
    running.incident("open", "rst_midflow");
    let ended = running.stop();
    let books = ended.books();
    let of = |name: &str, result: &str| books["notify"][name][result].as_u64().unwrap();
    assert_eq!((of("file", "sent"), of("syslog", "sent"), of("file", "failed")), (4, 4, 0));
    assert_eq!((of("gone", "sent"), of("gone", "failed") + of("gone", "dropped")), (0, 4), "{books}");
    let [old, new] = ["eve.json.1", "eve.json"].map(|name| lines(&bench.read(name)));
    assert!(new.iter().all(|event| event["incident"]["subject"]["dport"] == 81), "{new:?}");
    assert_eq!(old.len() + new.len(), 4);
    let page = bench.read("referee.prom");
    assert!(page.contains("referee_notify_total{sink=\"file\",result=\"sent\"} 4\n"), "{page}");
    ended.ran.exits(0).says(&["notify: gone can't be told", "notify: file: 4 told"]);
}

#[test]
fn a_test_says_who_heard_it() {
    let bench = bench();
    bench.file("r.toml", "[notify.file]\npath = \"eve.json\"\n");
    let told = bench.run(&["notify", "test", "--config", "r.toml"]).exits(0);
    assert_eq!(told.stdout, "file: 1 told\n");
    assert_eq!(lines(&bench.read("eve.json"))[0]["incident"]["kind"], "notify_test");
    bench.file("r.toml", "[notify.syslog]\nsocket = \"none\"\n");
    bench
        .run(&["notify", "test", "--config", "r.toml"])
        .exits(1)
        .says(&["syslog", "not everybody could be told"]);
    // One that can't even be opened keeps nobody from the others.
    let stdout = "[notify.file]\npath = \"no/eve.json\"\n[[notify.webhook]]\nname = \"chat\"\nurl = \"http://127.0.0.1:9/\"\n\
                  secret_file = \"none\"\n[notify.syslog]\nsocket = \"none\"\n";
    bench.file("r.toml", stdout);
    let told = bench.run(&["notify", "test", "--config", "r.toml"]).exits(1);
    for said in ["syslog: 0 told, 1 failed\n", "file: can't be told: [notify.file] ", "chat: can't be told: "]
    {
        assert!(told.stdout.contains(said), "{said} is not in {}", told.stdout);
    }
    let checked = bench.run(&["config", "check", "--config", "r.toml"]).exits(0);
    checked.says(&["[notify.file] ", "there is no folder ", "no log daemon listens there", "chat: "]);
    bench.file("r.toml", "[notify]\n");
    bench.run(&["notify", "test", "--config", "r.toml"]).exits(2).says(&["names nobody"]);
}
