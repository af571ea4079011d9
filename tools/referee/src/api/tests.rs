//! The whole interface by requests, without a network: routes, roles, refusals, the description, downloads.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::auth::{Peer, Role};
use super::problem::KINDS;
use super::routes::{self, Route, Takes};
use super::system::OPENAPI;
use super::testing::{Answered, OPERATE, READ, Tried, tcp, tried};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn description() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// With something for each name in it.
fn filled(path: &str) -> String {
    path.replace("{id}", "0123456789abcdef")
        .replace("{name}", "x")
        .replace("{kind}", "rst_storm")
        .replace("{flow_id}", "00000000000000ff")
}

#[track_caller]
fn is_problem(answered: &Answered, status: u16, name: &str) {
    assert_eq!(answered.status, status, "{}", answered.text());
    assert_eq!(answered.header("content-type"), "application/problem+json");
    let problem = answered.json();
    assert_eq!(problem["type"], format!("/problems/{name}"), "{problem}");
    assert_eq!(problem["status"], status);
    conforms(&problem, &json!({"$ref": "#/components/schemas/Problem"}));
}

/// Checks a value against a schema, as far as the description uses JSON Schema.
#[track_caller]
fn conforms(value: &Value, schema: &Value) {
    let mut wrong = Vec::new();
    check(value, schema, &description(), "", &mut wrong);
    assert!(wrong.is_empty(), "{value}\n{}", wrong.join("\n"));
}

fn check(value: &Value, schema: &Value, whole: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = whole.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("no {name}"));
        return check(value, target, whole, at, wrong);
    }
    let all = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
    all("allOf").iter().for_each(|one| check(value, one, whole, at, wrong));
    let fits = |one: &Value| {
        let mut wrong = Vec::new();
        check(value, one, whole, at, &mut wrong);
        wrong.is_empty()
    };
    if !all("oneOf").is_empty() && all("oneOf").iter().filter(|one| fits(one)).count() != 1 {
        wrong.push(format!("{at}: {value} is not one of those it can be"));
    }
    let types: Vec<String> = match &schema["type"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let is = |name: &String| match name.as_str() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    };
    if !types.is_empty() && !types.iter().any(is) {
        wrong.push(format!("{at}: {value} is no {types:?}"));
    }
    if !all("enum").is_empty() && !all("enum").contains(value) {
        wrong.push(format!("{at}: {value} is not among {:?}", all("enum")));
    }
    if let Some(object) = value.as_object() {
        for name in all("required") {
            if !object.contains_key(name.as_str().unwrap_or("")) {
                wrong.push(format!("{at}: there is no {name}"));
            }
        }
        for (name, inner) in object {
            match schema["properties"].get(name) {
                Some(of) => check(inner, of, whole, &format!("{at}/{name}"), wrong),
                None if schema["additionalProperties"] == false => {
                    wrong.push(format!("{at}: {name} is unknown"))
                }
                None => {}
            }
        }
    }
    for inner in value.as_array().into_iter().flatten() {
        check(inner, &schema["items"], whole, &format!("{at}/[]"), wrong);
    }
}

/// Outside the description: a page and its parts, and what load balancers ask.
fn described(route: &Route) -> bool {
    route.path.starts_with("/api/") || route.path == "/metrics"
}

#[test]
fn the_description_has_the_routes_and_the_routes_the_description() {
    let (whole, mut there) = (description(), BTreeSet::new());
    for (path, operations) in whole["paths"].as_object().unwrap() {
        for (verb, operation) in operations.as_object().unwrap() {
            let params = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_query = params.iter().filter(|one| one["in"] == "query");
            let names: BTreeSet<String> =
                in_query.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
            let role = operation["x-role"].as_str().unwrap().to_owned();
            let body = operation.get("requestBody").is_some();
            there.insert((path.clone(), verb.to_uppercase(), names, role, body));
        }
    }
    let role = |role| match role {
        Role::Open => "open",
        Role::Read => "read",
        Role::Packets => "packets",
        Role::Operate => "operate",
        Role::Local => "local",
    };
    let of = |route: &Route| {
        let names = route.params.iter().map(|name| (*name).to_owned()).collect();
        let body = route.takes != Takes::Nothing;
        (route.path.to_owned(), route.verb.name().to_owned(), names, role(route.role).to_owned(), body)
    };
    let routes: BTreeSet<_> = routes::all().filter(|route| described(route)).map(of).collect();
    assert_eq!(routes, there);
}

#[test]
fn the_handbook_names_every_route_and_every_problem() {
    let text = include_str!("../../../../docs/api.md");
    for route in routes::all().filter(|route| described(route)) {
        let line = format!("| `{} {}` |", route.verb.name(), route.path);
        let found = text.lines().find(|have| have.starts_with(&line)).unwrap_or_else(|| panic!("no {line}"));
        route.params.iter().for_each(|name| assert!(found.contains(&format!("`{name}`")), "{found}: {name}"));
    }
    for (_, name, status, what) in KINDS {
        let line = format!("| `{name}` | {status} | {what} |");
        assert!(text.contains(&line), "no {line}");
    }
}

#[test]
fn answers_are_as_described() {
    run(async {
        let (live, store) = (tried(true, |_| {}), tried(false, |_| {}));
        let whole = description();
        for route in routes::all().filter(|route| described(route) && route.verb.name() == "GET") {
            let operation = &whole["paths"][route.path]["get"];
            for tried in [&live, &store] {
                let answered = tried.get(&filled(route.path)).await;
                let status = answered.status.to_string();
                let documented = operation["responses"].get(&status);
                let documented =
                    documented.or_else(|| operation["responses"].get(format!("{}XX", &status[..1])));
                assert!(documented.is_some(), "{} gives {status}: {}", route.path, answered.text());
                match answered.header("content-type") {
                    "application/json" => {
                        conforms(
                            &answered.json(),
                            &documented.unwrap()["content"]["application/json"]["schema"],
                        );
                    }
                    "application/problem+json" => {
                        conforms(&answered.json(), &json!({"$ref": "#/components/schemas/Problem"}));
                    }
                    _ => {}
                }
            }
        }
    });
}

#[test]
fn every_route_keeps_out_who_may_not() {
    run(async {
        let tried = tried(true, |_| {});
        for route in routes::all() {
            let path = filled(route.path);
            let answered = |token: &'static str| tried.tcp(token, route.verb.name(), &path);
            let nobody = answered("").await.status;
            let reader = answered(READ).await.status;
            let operator = answered(OPERATE).await.status;
            let stopped = |status: u16| [401, 403].contains(&status);
            let expected = match route.role {
                Role::Open => [nobody == 401 && route.verb.name() == "POST", false, false],
                Role::Read | Role::Packets => [true, false, false],
                Role::Operate => [true, true, false],
                Role::Local => [true, true, true],
            };
            assert_eq!([nobody, reader, operator].map(stopped), expected, "{} {path}", route.verb.name());
            // Told apart only by how often it was tried.
            assert!([401, 429].contains(&answered("wrong").await.status));
        }
    });
}

#[test]
fn packets_can_be_kept_from_readers() {
    run(async {
        let tried = tried(false, |config| config.read_captures = false);
        let path = "/api/v1/captures/download?flow=00000000000000ff";
        is_problem(&tried.tcp(READ, "GET", path).await, 403, "forbidden");
        assert_eq!(tried.tcp(OPERATE, "GET", path).await.status, 200);
        assert_eq!(tried.tcp(READ, "GET", "/api/v1/captures").await.status, 200);
    });
}

#[test]
fn whatever_is_asked_wrongly_is_a_problem_with_its_name() {
    run(async {
        let tried = tried(false, |_| {});
        let long = format!("/api/v1/incidents?text={}", "x".repeat(9000));
        let cases = [
            ("GET", "/api/v2/incidents", 404, "not-found"),
            ("GET", "/api/v1/incidents/", 404, "not-found"),
            ("GET", "/api/v1/incidents/%ff", 404, "not-found"),
            ("GET", "/api/v1/incidents/nope", 404, "no-such-incident"),
            ("GET", "/api/v1/captures/download?incident=nope", 404, "no-such-incident"),
            ("GET", "/api/v1/captures/download?flow=0000000000000001", 404, "nothing-kept"),
            ("GET", "/api/v1/captures/download?flow=0000000000000001&stream=true", 404, "nothing-kept"),
            ("PATCH", "/api/v1/incidents", 405, "method-not-allowed"),
            ("DELETE", "/api/v1/version", 405, "method-not-allowed"),
            ("GET", "/api/v1/incidents?limit=0", 400, "bad-parameter"),
            ("GET", "/api/v1/incidents?limit=501", 400, "bad-parameter"),
            ("GET", "/api/v1/incidents?limit=1&limit=2", 400, "bad-parameter"),
            ("GET", "/api/v1/incidents?colour=red", 400, "bad-parameter"),
            ("GET", "/api/v1/incidents?after=x", 400, "bad-parameter"),
            ("GET", "/api/v1/incidents?host=x", 400, "bad-parameter"),
            ("GET", "/api/v1/incidents?state=x", 400, "bad-parameter"),
            ("GET", "/api/v1/incidents?since=2&until=1", 400, "bad-parameter"),
            ("GET", "/api/v1/captures?flow=ff", 400, "bad-parameter"),
            ("GET", "/api/v1/captures?flow=00000000000000ff&host=10.0.0.1", 400, "bad-parameter"),
            ("GET", "/api/v1/captures/download?stream=maybe", 400, "bad-parameter"),
            ("GET", "/api/v1/books", 409, "no-run"),
            ("GET", "/api/v1/series", 409, "no-run"),
            ("GET", "/metrics", 409, "no-run"),
            ("GET", long.as_str(), 414, "uri-too-long"),
            ("POST", "/api/v1/session", 415, "unsupported-media-type"),
            ("GET", "/assets/nope", 404, "not-found"),
        ];
        for (verb, path, status, name) in cases {
            is_problem(&tried.tcp(OPERATE, verb, path).await, status, name);
        }
        let refused = tried.tcp(READ, "PATCH", "/api/v1/incidents").await;
        assert_eq!(refused.header("allow"), "GET, HEAD");
        let json = [("content-type", "application/json")];
        let large = format!("{{\"token\":\"{}\"}}", "x".repeat(1 << 20));
        let bodies = [
            ("{", 400, "bad-body"),
            ("{}", 400, "bad-body"),
            ("[1]", 400, "bad-body"),
            ("{\"token\":\"a\",\"code\":\"b\"}", 400, "bad-body"),
            (large.as_str(), 413, "body-too-large"),
            ("{\"token\":\"wrong\"}", 401, "unauthorized"),
        ];
        for (body, status, name) in bodies {
            is_problem(&tried.ask(tcp(), "POST", "/api/v1/session", &json, body).await, status, name);
        }
        assert_eq!(KINDS.iter().map(|kind| kind.1).collect::<BTreeSet<_>>().len(), KINDS.len());
    });
}

#[test]
fn a_name_that_is_not_this_boxs_is_refused() {
    run(async {
        let tried = tried(false, |config| config.names = vec!["referee.example".to_owned()]);
        let asked = async |host: &str| {
            let mut request = Request::get("/api/v1/health").body(Body::empty()).unwrap();
            request.headers_mut().insert("host", host.parse().unwrap());
            tried.raw(tcp(), request).await.status().as_u16()
        };
        for good in
            ["box", "BOX:8443", "localhost:1", "192.0.2.9:8443", "[2001:db8::1]:8443", "referee.example:8443"]
        {
            assert_eq!(asked(good).await, 200, "{good}");
        }
        for bad in ["evil.example", "box.evil.example:8443", "", ":8443"] {
            assert_eq!(asked(bad).await, 400, "{bad}");
        }
    });
}

#[test]
fn one_list_of_this_run_and_of_the_store() {
    run(async {
        let tried = tried(true, |_| {});
        let list = async |query: &str| -> Vec<(String, String)> {
            let json = tried.get(&format!("/api/v1/incidents{query}")).await.json();
            let of =
                |item: &Value| (item["id"].as_str().unwrap().into(), item["state"].as_str().unwrap().into());
            json["items"].as_array().unwrap_or_else(|| panic!("{json}")).iter().map(of).collect()
        };
        let (kept, open) = (("00000000000000aa", "closed"), ("0123456789abcdef", "open"));
        let pair = |(id, state): (&str, &str)| (id.to_owned(), state.to_owned());
        assert_eq!(list("").await, [pair(kept), pair(open)]);
        assert_eq!(list("?state=open").await, [pair(open)]);
        assert_eq!(list("?text=SOMEBODY").await, [pair(kept)]);
        assert_eq!(list("?host=10.0.0.1&kind=rst_after_idle&severity=warning").await.len(), 2);
        assert_eq!(list("?host=10.0.0.9").await, []);
        assert_eq!(list("?since=8000000000").await, [pair(kept)]);
        assert_eq!(list("?until=8000000000").await, [pair(open)]);
        let first = tried.get("/api/v1/incidents?limit=1").await.json();
        let next = first["next"].as_str().unwrap();
        assert_eq!(list(&format!("?limit=1&after={next}")).await, [pair(open)]);
        let one = tried.get("/api/v1/incidents/00000000000000aa").await.json();
        assert_eq!(one["similar"][0]["id"], "0123456789abcdef");
        assert_eq!(one["captured"], Value::Null);
        let proof = one["proof"].as_str().unwrap();
        assert!(proof.contains("--incident 00000000000000aa -w - | wireshark -k -i -"), "{proof}");
        let capture = tried.get(one["capture"].as_str().unwrap()).await;
        assert_eq!((capture.status, capture.header("content-type")), (200, "application/x-pcapng"));
    });
}

#[test]
fn pages_are_the_same_through_the_index_and_say_what_is_kept() {
    run(async {
        let tried = tried(false, |_| {});
        let store = tried.folder.path();
        let mut log = std::fs::OpenOptions::new().append(true).open(store.join("incidents.jsonl")).unwrap();
        for n in 0..100_u64 {
            use std::io::Write;
            let line = json!({"id": format!("{:016x}", n % 70), "kind": "a", "rule": "a", "severity": "info", "first_ns": n % 70,
                "last_ns": n, "flow_ids": ["00000000000000ee"], "explain": "", "advise": "", "withdrawn": n > 90,
                "subject": {"host": format!("10.0.0.{}", n % 7)}});
            writeln!(log, "{line}").unwrap();
        }
        let all = async |query: &str| -> Vec<Value> {
            let (mut all, mut after) = (Vec::new(), String::new());
            loop {
                let page = tried.get(&format!("/api/v1/incidents?limit=7{query}{after}")).await.json();
                all.extend(page["items"].as_array().unwrap_or_else(|| panic!("{page}")).clone());
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => return all,
                }
            }
        };
        let queries =
            ["", "&kind=a", "&host=10.0.0.3", "&state=withdrawn", "&since=60&until=65", "&text=10.0.0.5"];
        let mut read = Vec::new();
        for query in queries {
            read.push(all(query).await);
        }
        assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [71, 70, 10, 9, 36, 10]);
        assert!(read[0].iter().all(|one| one["captured"].is_null()), "nobody knows without an index");
        crate::index::rebuild(store, true).unwrap();
        for (query, mut read) in queries.into_iter().zip(read) {
            for one in &mut read {
                one["captured"] = json!(one["id"] == "00000000000000aa");
            }
            assert_eq!(all(query).await, read, "{query}");
        }
        let one = tried.get("/api/v1/incidents/00000000000000aa").await.json();
        assert_eq!(one["captured"], true);
    });
}

#[test]
fn packets_that_were_deleted_are_kept_no_more() {
    run(async {
        let tried = tried(true, |_| {});
        crate::index::rebuild(tried.folder.path(), true).unwrap();
        let captured = async || {
            let mut said = Vec::new();
            for path in ["/api/v1/incidents?kind=rst_after_idle", "/api/v1/incidents?state=open"] {
                let items = tried.get(path).await.json()["items"].as_array().unwrap().clone();
                said.extend(items.iter().map(|item| item["captured"].clone()));
            }
            said.push(tried.get("/api/v1/incidents/0123456789abcdef").await.json()["captured"].clone());
            said
        };
        assert_eq!(captured().await, [json!(true), json!(true), json!(true), json!(true)]);
        let store = dataplane::record::Store::open(tried.folder.path()).unwrap();
        store
            .segment_files()
            .unwrap()
            .iter()
            .for_each(|segment| std::fs::remove_file(&segment.path).unwrap());
        assert_eq!(captured().await, [json!(false), json!(false), json!(false), json!(false)]);
    });
}

#[test]
fn what_a_client_does_not_take_and_what_is_too_much() {
    run(async {
        let tried = tried(true, |_| {});
        let ask = async |path: &str, headers: &[(&str, &str)]| {
            tried.ask(Peer::Unix { uid: 0 }, "GET", path, headers, "").await
        };
        for (path, accept) in [
            ("/api/v1/version", "text/html"),
            ("/metrics", "application/json"),
            ("/api/v1/events", "application/json"),
            ("/api/v1/captures/download", "application/json;q=0.5, text/*"),
        ] {
            is_problem(&ask(path, &[("accept", accept)]).await, 406, "not-acceptable");
        }
        assert_eq!(ask("/", &[("accept", "image/png")]).await.status, 200);
        let names: Vec<String> = (0..120).map(|n| format!("x-{n}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        is_problem(&ask("/api/v1/version", &many).await, 431, "headers-too-large");
        let long = "x".repeat(40_000);
        is_problem(&ask("/api/v1/version", &[("cookie", long.as_str())]).await, 431, "headers-too-large");
    });
}

#[test]
fn rule_files_are_those_of_a_run() {
    run(async {
        let tried = tried(false, |_| {});
        let one = "/api/v1/rules/files/a.rhai";
        for (verb, path) in [("GET", "/api/v1/rules/files"), ("GET", one), ("PUT", one), ("DELETE", one)] {
            let text = [("content-type", "text/plain; charset=utf-8")];
            is_problem(&tried.ask(Peer::Unix { uid: 0 }, verb, path, &text, "x").await, 409, "no-run");
        }
        let json = [("content-type", "application/json")];
        is_problem(
            &tried.ask(Peer::Unix { uid: 0 }, "PUT", one, &json, "{}").await,
            415,
            "unsupported-media-type",
        );
        let text = [("content-type", "text/plain")];
        let large = "x".repeat((1 << 20) + 1);
        is_problem(&tried.ask(Peer::Unix { uid: 0 }, "PUT", one, &text, &large).await, 413, "body-too-large");
    });
}

#[test]
fn a_download_whole_and_in_parts() {
    run(async {
        let tried = tried(false, |_| {});
        let path = "/api/v1/captures/download?incident=00000000000000aa";
        let whole = tried.get(path).await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        assert_eq!(whole.bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
        let (len, etag) = (whole.bytes.len(), whole.header("etag").to_owned());
        assert_eq!(whole.header("content-length"), len.to_string());
        assert_eq!(whole.header("content-disposition"), "attachment; filename=\"00000000000000aa.pcapng\"");
        let part =
            async |headers: &[(&str, &str)]| tried.ask(Peer::Unix { uid: 0 }, "GET", path, headers, "").await;
        let last = len - 1;
        let (range, end) = (format!("bytes={last}-"), format!("bytes {last}-{last}/{len}"));
        for (asked, from, to) in
            [("bytes=0-0", 0, 1), ("bytes=5-9", 5, 10), (range.as_str(), last, len), ("bytes=-1", last, len)]
        {
            let part = part(&[("range", asked), ("if-range", &etag)]).await;
            assert_eq!((part.status, &part.bytes[..]), (206, &whole.bytes[from..to]), "{asked}");
        }
        assert_eq!(part(&[("range", "bytes=-1")]).await.header("content-range"), end);
        let beyond = part(&[("range", &format!("bytes={len}-"))]).await;
        is_problem(&beyond, 416, "bad-range");
        assert_eq!(beyond.header("content-range"), format!("bytes */{len}"));
        assert_eq!(part(&[("range", "bytes=0-1,5-6")]).await.status, 200);
        assert_eq!(part(&[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await.status, 200);
        assert_eq!(part(&[("if-none-match", &etag)]).await.status, 304);
        let head = tried.ask(Peer::Unix { uid: 0 }, "HEAD", path, &[], "").await;
        assert_eq!(
            (head.status, head.bytes.len(), head.header("content-length")),
            (200, 0, len.to_string().as_str())
        );
        let streamed = tried.get(&format!("{path}&stream=true")).await;
        assert_eq!((streamed.bytes == whole.bytes, streamed.header("content-length")), (true, ""));
    });
}

#[test]
fn another_store_is_another_file_and_the_spool_has_an_end() {
    run(async {
        let path = "/api/v1/captures/download";
        let tried = tried(false, |_| {});
        let before = tried.get(path).await.header("etag").to_owned();
        let (again, same) = (tried.get(path).await, before.clone());
        assert_eq!(again.header("etag"), same);
        let segments = tried.folder.path().join("segments");
        std::fs::read_dir(&segments)
            .unwrap()
            .for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
        is_problem(&tried.get(path).await, 404, "nothing-kept");
        let small = tried_with_spool(100);
        is_problem(&small.get(path).await, 409, "no-room");
        assert_eq!(small.get(&format!("{path}?stream=true")).await.status, 200);
        let left = std::fs::read_dir(small.folder.path())
            .unwrap()
            .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with(".spool"));
        assert_eq!(left.count(), 0);
    });
}

fn tried_with_spool(bytes: u64) -> Tried {
    tried(false, |config| config.spool_bytes = bytes)
}

#[test]
fn a_fifth_download_has_to_wait_and_a_place_comes_back() {
    run(async {
        let tried = tried(false, |_| {});
        let ask = async || {
            let request = Request::get("/api/v1/captures/download").body(Body::empty()).unwrap();
            tried.raw(Peer::Unix { uid: 0 }, request).await
        };
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(ask().await);
        }
        assert!(held.iter().all(|response| response.status() == 200));
        let fifth = ask().await;
        assert_eq!(fifth.status(), 429);
        assert!(fifth.headers().contains_key("retry-after"));
        held.pop();
        assert_eq!(ask().await.status(), 200);
    });
}

#[test]
fn events_go_on_where_a_follower_left() {
    run(async {
        let tried = tried(true, |_| {});
        let mut asked = Request::get("/api/v1/events").body(Body::empty()).unwrap();
        asked.headers_mut().insert("last-event-id", "0".parse().unwrap());
        let mut body = tried.raw(Peer::Unix { uid: 0 }, asked).await.into_body();
        let mut text = String::new();
        while !text.contains("id: 2") {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            text += std::str::from_utf8(&data).unwrap();
        }
        assert!(
            text.starts_with(": \n\nevent: incident\nid: 1\ndata: {\"id\":\"0123456789abcdef\""),
            "{text}"
        );
        tried.app.board.notice("something\nelse");
        while !text.ends_with("event: notice\nid: 3\ndata: {\"text\":\"something\\nelse\"}\n\n") {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            text += std::str::from_utf8(&data).unwrap();
        }
        let mut asked = Request::get("/api/v1/events").body(Body::empty()).unwrap();
        asked.headers_mut().insert("last-event-id", "999".parse().unwrap());
        let mut other = tried.raw(Peer::Unix { uid: 0 }, asked).await.into_body();
        let first = other.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b": \n\nevent: gap\ndata: {}\n\n"));
        let mut held = Vec::new();
        for _ in 0..14 {
            held.push(
                tried
                    .raw(Peer::Unix { uid: 0 }, Request::get("/api/v1/events").body(Body::empty()).unwrap())
                    .await,
            );
        }
        is_problem(&tried.get("/api/v1/events").await, 429, "too-many-requests");
        tried.over.send(true).unwrap();
        while other.frame().await.is_some() {}
    });
}

#[test]
fn rules_are_checked_without_a_run() {
    run(async {
        let tried = tried(false, |_| {});
        let json = [("content-type", "application/json")];
        let check = async |files: Value| {
            let body = json!({"files": files}).to_string();
            tried.ask(Peer::Unix { uid: 0 }, "POST", "/api/v1/rules/check", &json, &body).await
        };
        let none = check(json!([])).await.json();
        conforms(&none, &json!({"$ref": "#/components/schemas/Checked"}));
        assert!(none["rules"].as_array().unwrap().len() > 10 && none["errors"] == json!([]), "{none}");
        let wrong = check(json!([{"name": "mine.rhai", "text": "rule \"x\" {"}])).await;
        assert_eq!(wrong.status, 200, "{}", wrong.text());
        let wrong = wrong.json();
        conforms(&wrong, &json!({"$ref": "#/components/schemas/Checked"}));
        assert_eq!(
            (wrong["hash"].clone(), wrong["errors"][0]["file"].as_str()),
            (Value::Null, Some("mine.rhai")),
            "{wrong}"
        );
        is_problem(&check(json!([{"name": "a"}])).await, 400, "bad-body");
        is_problem(&tried.get("/api/v1/rules").await, 409, "no-run");
    });
}

#[test]
fn requests_are_numbered() {
    run(async {
        let tried = tried(false, |config| config.requests_per_second = 1);
        for _ in 0..100 {
            assert_eq!(tried.tcp(READ, "GET", "/api/v1/version").await.status, 200);
        }
        let more = tried.tcp(READ, "GET", "/api/v1/version").await;
        is_problem(&more, 429, "too-many-requests");
        assert!(more.header("retry-after").parse::<u32>().unwrap() >= 1);
        assert_eq!(tried.tcp(OPERATE, "GET", "/api/v1/version").await.status, 200);
    });
}

#[test]
fn a_browser_logs_in_by_a_code_and_writes_from_its_own_page_only() {
    run(async {
        let tried = tried(true, |_| {});
        let code = tried.ask(Peer::Unix { uid: 0 }, "POST", "/api/v1/session/codes", &[], "").await.json();
        assert_eq!(code["url"], "https://box:1");
        let json = [("content-type", "application/json")];
        let body = json!({"code": code["code"]}).to_string();
        let login = tried.ask(tcp(), "POST", "/api/v1/session", &json, &body).await;
        assert_eq!((login.status, login.json()["role"].as_str()), (200, Some("operate")));
        let cookie = login.header("set-cookie");
        assert!(cookie.ends_with("HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age=43200"), "{cookie}");
        let cookie = ("cookie", cookie.split(';').next().unwrap());
        assert_eq!(tried.ask(tcp(), "GET", "/api/v1/version", &[cookie], "").await.status, 200);
        let end = async |site: &[(&str, &str)]| {
            let headers = [&[cookie][..], site].concat();
            tried.ask(tcp(), "DELETE", "/api/v1/session", &headers, "").await.status
        };
        assert_eq!(end(&[("sec-fetch-site", "cross-site")]).await, 403);
        assert_eq!(end(&[]).await, 403);
        assert_eq!(end(&[("sec-fetch-site", "same-origin")]).await, 204);
        assert_eq!(tried.ask(tcp(), "GET", "/api/v1/version", &[cookie], "").await.status, 401);
        assert_eq!(tried.ask(tcp(), "POST", "/api/v1/session", &json, &body).await.status, 401);
    });
}

#[test]
fn health_tells_strangers_only_how_it_stands() {
    run(async {
        let tried = tried(false, |_| {});
        assert_eq!(tried.tcp("", "GET", "/api/v1/health").await.json(), json!({"status": "ok"}));
        let whole = tried.tcp(READ, "GET", "/api/v1/health").await.json();
        assert_eq!(whole["checks"][0]["name"], "store");
        assert_eq!(tried.tcp("", "GET", "/healthz").await.status, 200);
        std::fs::remove_dir_all(tried.folder.path().join("segments")).unwrap();
        assert_eq!(tried.tcp("", "GET", "/healthz").await.status, 503);
        assert_eq!(tried.tcp("", "GET", "/api/v1/health").await.json(), json!({"status": "failing"}));
        is_problem(&tried.tcp(READ, "GET", "/api/v1/incidents").await, 409, "store-unreadable");
    });
}
