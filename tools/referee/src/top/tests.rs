//! Pictures of the terminal: what is on it at 80 × 24, at 120 × 40, and where there is too little room.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::model::{Model, Tab, Told};
use super::view::{Looks, draw};

const NOW: u64 = 1_760_000_600_000_000_000;
const PLAIN: Looks = Looks { colour: false, unicode: true };

fn incident(id: &str, kind: &str, severity: &str) -> Value {
    json!({
        "id": id, "kind": kind, "severity": severity, "state": "open", "count": 1234, "flows": 7,
        "first_ns": 1_760_000_000_000_000_000_u64, "last_ns": 1_760_000_590_000_000_000_u64,
        "subject": { "proto": "tcp", "src": "10.0.0.1", "sport": 40000, "dst": "2001:db8::2", "dport": 443 },
        "explain": "A RST came after \u{1b}[31m 301 s of silence.", "advise": "Raise the timeout.",
        "evidence": { "idle_s": 301, "name": "a\nb" },
    })
}

fn told() -> Told {
    let sample = |n: u64| {
        json!({
            "at_ns": n, "packets": n * 10, "bytes": n * 1000, "dropped": u64::from(n == 55), "flows": 5000 + n,
            "flows_created": n, "history_s": 42.5,
            "latency": {
                "rtt_server": { "count": 3, "p50_us": 840, "p95_us": 12_340, "p99_us": 9 }, "rtt_client": null,
                "connect": { "count": 3, "p50_us": 840_000, "p95_us": 8_388_608, "p99_us": 9 },
            },
        })
    };
    Told {
        version: json!({
            "hostname": "tap-box", "started_ns": 1_760_000_000_000_000_000_u64,
            "interfaces": [{ "name": "tap0" }, { "name": "tap1" }],
        }),
        health: json!({ "status": "degraded", "checks": [
            { "name": "losses", "status": "degraded", "what": "1 packet was lost" },
            { "name": "store", "status": "ok", "what": "it is there" },
        ] }),
        series: (0..60).map(sample).collect(),
        incidents: vec![incident("a1", "rst_after_idle", "warning"), incident("b2", "syn_flood", "critical")],
        rules: vec![
            json!({ "rule": "rst_after_idle", "matched": 12_345, "guard_ns": 31.25, "body_runs": 7, "body_us": 20.0,
                "errors": 0, "overruns": 0, "enabled": true, "shadow": false, "switched_off": false }),
            json!({ "rule": "own", "matched": 1, "guard_ns": null, "body_runs": 0, "body_us": null, "errors": 2,
                "overruns": 1, "enabled": true, "shadow": true, "switched_off": false }),
        ],
        books: json!({ "received": 1_000_001, "analysed": 1_000_000, "dropped": { "rx_ring_full": 1 }, "kept": 10,
            "unwritten": { "no_chunk": 0 }, "flows": { "created": 9, "live": 3 } }),
    }
}

fn model() -> Model {
    let mut model = Model::default();
    model.take(told());
    model
}

fn terminal(model: &Model, looks: Looks, size: (u16, u16)) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, model, looks, NOW)).unwrap();
    terminal
}

fn picture(model: &Model, looks: Looks, size: (u16, u16)) -> Vec<String> {
    let terminal = terminal(model, looks, size);
    let buffer = terminal.backend().buffer();
    let line =
        |y: u16| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..size.1).map(line).collect()
}

fn has(picture: &[String], words: &[&str]) {
    for word in words {
        assert!(picture.iter().any(|line| line.contains(word)), "{word:?} is not in\n{}", picture.join("\n"));
    }
}

#[test]
fn what_is_broken_is_seen_at_once() {
    let picture = picture(&model(), PLAIN, (80, 24));
    assert_eq!(picture[0], "Referee tap-box  tap0 tap1  up 10 min 0 s   degraded");
    assert_eq!(picture[1], "1 Now   2 Traffic   3 Rules   4 Books");
    has(&picture, &["packets/s 590", "Mbit/s 0.5", "lost/s 0  (1 in 5 min)", "2 things are broken now", "█"]);
    let line = |kind: &str| picture.iter().position(|line| line.contains(kind)).unwrap();
    assert!(line("syn_flood") < line("rst_after_idle"), "the worst first");
    let worst = &picture[line("syn_flood")];
    assert!(worst.starts_with("CRITICAL syn_flood ") && worst.ends_with(" 10 min 0 s 1,234"), "{worst}");
    assert!(worst.contains("  10.0.0.1:40000 > [2001:db8::2]"), "{worst}");
    has(&picture, &["A RST came after \u{fffd}[31m 301 s of silence."]);
    assert!(picture[23].starts_with("? help   q quit"), "{}", picture[23]);
}

#[test]
fn no_address_port_or_number_is_cut() {
    let one = |kind: &str, count: u64, subject: Value| {
        let first = NOW - 754_000_000_000;
        json!({ "id": kind, "kind": kind, "severity": "warning", "first_ns": first, "count": count, "subject": subject })
    };
    let flow = |src: &str, dst: &str| json!({ "proto": "tcp", "src": src, "sport": 39662, "dst": dst, "dport": 9000 });
    let v4 = one("half_open", 2, flow("192.168.100.101", "10.9.2.20"));
    let v6 = one("rst_injected", 1_234_567, flow("fd00:aaaa:bbbb:1::10", "fd00:aaaa:bbbb:2::20"));
    let long = "fd00:aaaa:bbbb:cccc:dddd:eeee:ffff:1111";
    let longest = one("spurious_retransmission", 7, flow(long, long));
    let shown = |incidents: &[&Value], width| {
        let mut model = Model::default();
        model.take(Told { incidents: incidents.iter().copied().cloned().collect(), ..told() });
        picture(&model, PLAIN, (width, 24))
    };
    for (width, line) in [
        (80, "WARNING half_open 192.168.100.101:39662 > 10.9.2.20:9000      12 min 34 s 2"),
        (100, "WARNING half_open 192.168.100.101:39662 > 10.9.2.20:9000 "),
    ] {
        has(&shown(&[&v4], width), &[line]);
    }
    for (width, words) in [
        (80, &["WARNING rst_injected [fd00:aaaa:bbbb:1::10]:39662 > [fd00:aaaa:bbbb:2::20]:9000"][..]),
        (100, &["[fd00:aaaa:bbbb:1::10]:39662 > [fd00:aaaa:bbbb:2::20]:9000", " 12 min 34 s"]),
        (140, &["[fd00:aaaa:bbbb:1::10]:39662 > [fd00:aaaa:bbbb:2::20]:9000", " 12 min 34 s 1,234,567"]),
    ] {
        has(&shown(&[&v6], width), words);
    }
    let to = format!("[{long}]:9000");
    let whole = format!("[{long}]:39662 > {to}");
    has(&shown(&[&longest], 80), &[&format!("WARNING spurious_retransmission {to}")]);
    has(&shown(&[&longest, &v4], 100), &[&format!("… > {to}"), "192.168.100.101:39662 > 10.9.2.20:9000"]);
    has(&shown(&[&longest], 140), &[&whole]);
}

#[test]
fn what_has_no_room_says_so() {
    let mut many = told();
    let interfaces: Vec<Value> = (0..12).map(|n| json!({ "name": format!("enp{n}s0f1np1") })).collect();
    many.version["interfaces"] = json!(interfaces);
    many.rules[0]["matched"] = json!(12_345_678_901_u64);
    many.rules[0]["body_runs"] = json!(12_345_678_u64);
    let name = "a_rule_of_the_house_about_the_database_in_the_basement";
    many.rules[1]["rule"] = json!(name);
    let mut model = Model::default();
    model.take(many);
    model.said = "word ".repeat(30);
    let now = picture(&model, PLAIN, (80, 24));
    assert!(now[0].ends_with("…  up 10 min 0 s   degraded"), "{}", now[0]);
    assert!(now[0].contains(" enp0s0f1np1 "), "{}", now[0]);
    assert!(now[23].ends_with(" word…") && now[23].len() < 83, "{}", now[23]);
    model.turn_to(Tab::Rules);
    has(&picture(&model, PLAIN, (80, 24)), &["12,345,678,901", "a_rule_of_the_house", "…", "in shadow"]);
    has(&picture(&model, PLAIN, (140, 24)), &["12,345,678,901 31.2 ", " 12,345,678 ", name, "in shadow"]);
}

#[test]
fn an_incident_is_read_whole() {
    let mut model = model();
    (model.at, model.open) = (1, true);
    let picture = picture(&model, PLAIN, (80, 24));
    has(
        &picture,
        &[
            "WARNING  rst_after_idle  10.0.0.1:40000 > [2001:db8::2]:443",
            "since 2025-10-09T08:53:20.000Z, last 2025-10-09T09:03:10.000Z; 1,234 events,",
            "what to do: Raise the timeout.",
            "id a1",
            "idle_s = 301",
            "name = a\u{fffd}b",
            "Esc back",
        ],
    );
}

#[test]
fn a_healthy_box_says_so() {
    let mut model = Model::default();
    model.take(Told { incidents: Vec::new(), ..told() });
    has(
        &picture(&model, PLAIN, (80, 24)),
        &[
            "nothing a person needs to look at",
            "17,700 packets in the last minute.",
            "losses: 1 packet was lost",
        ],
    );
    model.take(Told { series: Vec::new(), incidents: Vec::new(), ..told() });
    has(&picture(&model, PLAIN, (80, 24)), &["No packets come: is the mirror on?"]);
    let version = serde_json::json!({ "live": false });
    model.take(Told { version, series: Vec::new(), incidents: Vec::new(), ..told() });
    has(&picture(&model, PLAIN, (80, 24)), &["A store, and no run"]);
}

#[test]
fn nobody_answers_and_then_nobody_answers_any_more() {
    let mut model = Model::default();
    model.lost("/run/referee/api.sock can't be reached".to_owned());
    has(
        &picture(&model, PLAIN, (80, 24)),
        &["no answer", "No run answers", "/run/referee/api.sock can't be reached"],
    );
    model.take(told());
    model.lost("it has gone".to_owned());
    has(
        &picture(&model, PLAIN, (80, 24)),
        &["no answer", "2 things are broken", "what is shown is old: it has gone"],
    );
}

#[test]
fn every_page_fits_and_says_what_it_is_for() {
    let mut model = model();
    for (tab, words) in [
        (
            Tab::Traffic,
            &[
                "packets/s 590  (most 590)",
                "flows 5,059",
                "history, s 42",
                "flows begun/s 59",
                "half / 95 % within, ms:  round trip to servers 0.84 / 12.3   to clients -",
                "connect 840 / 8389   first byte -   DNS -",
            ][..],
        ),
        (Tab::Rules, &["rst_after_idle", "12,345", "31.2", "in shadow", "guard ns"][..]),
        (Tab::Books, &["received", "1,000,001", "dropped: rx_ring_full", "judge: hits"][..]),
    ] {
        model.turn_to(tab);
        for size in [(80, 24), (120, 40)] {
            has(&picture(&model, PLAIN, size), words);
        }
    }
    model.turn_to(Tab::Rules);
    (model.at, model.open, model.said) = (1, true, "done".to_owned());
    has(
        &picture(&model, PLAIN, (80, 24)),
        &["rule             own", "errors           2", "done", "s shadow on/off"],
    );
    model.help = true;
    has(&picture(&model, PLAIN, (80, 24)), &["Enter           all of it"]);
}

#[test]
fn where_there_is_no_room_it_says_so() {
    let small = picture(&model(), PLAIN, (40, 10));
    assert!(small[0].starts_with("40 x 10 is too small: 80 x 20"), "{small:?}");
    for size in [(1, 1), (0, 0), (80, 1), (300, 100), (80, 20)] {
        picture(&model(), PLAIN, size);
    }
}

#[test]
fn a_plain_terminal_gets_ascii_and_no_colour() {
    let model = Model { open: false, ..model() };
    let ascii = Looks { colour: false, unicode: false };
    let terminal = terminal(&model, ascii, (80, 24));
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    // What a packet brought in is replaced by one character that is not ASCII.
    let foreign: Vec<&str> =
        cells.iter().map(|cell| cell.symbol()).filter(|s| !s.is_ascii() && *s != "\u{fffd}").collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let coloured = Looks { colour: true, ..PLAIN };
    let mut red = Terminal::new(TestBackend::new(80, 24)).unwrap();
    red.draw(|frame| draw(frame, &model, coloured, NOW)).unwrap();
    assert!(red.backend().buffer().content().iter().any(|cell| cell.fg == Color::Red));
}
