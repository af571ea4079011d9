//! Webhooks against a server that answers as it is told to: what is tried again, in which order, and what is given up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use super::*;
use crate::config::notify::NotifyConfig;
use crate::notify::tests::{note, runtime};

/// What the server was asked.
struct Asked {
    head: String,
    body: Value,
    at: Instant,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &str| line.split_once(": ").is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| named(line))?.split_once(": ").map(|(_, value)| value)
    }

    fn kind(&self) -> &str {
        self.body["incident"]["kind"].as_str().unwrap_or("none")
    }
}

/// No answer at all, as long as the test lasts.
const SILENCE: &str = "";

fn asked(stream: &mut dyn Read) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    Asked { head, body: serde_json::from_slice(&body).unwrap(), at: Instant::now() }
}

/// A server that gives these answers, one a connection.
fn server(answers: Vec<&'static str>) -> (SocketAddr, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let request = asked(&mut stream);
            if answer == SILENCE {
                held.push(stream);
            } else {
                stream
                    .write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                    .unwrap();
            }
            if sender.send(request).is_err() {
                return;
            }
        }
        // Until the test has ended, so that those who wait go on waiting.
        while sender.send(Asked { head: String::new(), body: Value::Null, at: Instant::now() }).is_ok() {
            std::thread::park();
        }
    });
    (address, requests)
}

fn config(address: SocketAddr) -> WebhookConfig {
    WebhookConfig {
        name: "chat".to_owned(),
        url: format!("http://{address}/hook/secret?x=1").parse().unwrap(),
        header_file: None,
        secret_file: None,
        ca_file: None,
        per_minute: 0,
        timeout: Duration::from_secs(600),
    }
}

const QUICK: Pace = Pace {
    first: Duration::from_millis(1),
    most: Duration::from_millis(4),
    give_up: Duration::from_secs(600),
};
const ONCE: Pace = Pace { give_up: Duration::ZERO, ..QUICK };

struct Ended {
    told: crate::notify::account::Told,
    news: Vec<String>,
}

/// Tells these kinds and waits until all of it has an end.
fn tell(config: &WebhookConfig, pace: Pace, kinds: &[&str]) -> Ended {
    let (sender, heard) = channel();
    let hook = Hook::new(config, Some("https://box:8443".to_owned()), pace).unwrap();
    let queue = Arc::clone(&hook.queue);
    kinds.iter().for_each(|kind| queue.put(&note(kind)));
    queue.close();
    runtime().block_on(hook.run(Said(sender)));
    Ended { told: queue.counts.told("chat"), news: heard.try_iter().collect() }
}

#[test]
fn a_server_that_fails_is_asked_again_with_the_same_news_until_it_works() {
    let (address, requests) = server(vec!["500 Oh", "503 No", "200 OK", "200 OK"]);
    let ended = tell(&config(address), QUICK, &["a", "b"]);
    assert_eq!((ended.told.sent, ended.told.failed, ended.told.waiting), (2, 0, 0));
    let asked: Vec<Asked> = requests.iter().take(4).collect();
    assert_eq!(asked.iter().map(Asked::kind).collect::<Vec<_>>(), ["a", "a", "a", "b"]);
    assert!(asked.iter().all(|asked| asked.header("idempotency-key") == Some("00000000000000ab-open")));
    assert!(asked[0].head.starts_with("POST /hook/secret?x=1 HTTP/1.1\r\n"), "{}", asked[0].head);
    assert_eq!(asked[0].header("host"), Some(address.to_string().as_str()));
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    let told = "notify: chat can't be told: 127.0.0.1 says 500 Internal Server Error";
    assert_eq!(ended.news, [told, "notify: chat can be told again"]);
}

#[test]
fn a_body_says_it_to_people_and_to_programs() {
    let (address, requests) = server(vec!["204 Fine"]);
    tell(&config(address), ONCE, &["rst_after_idle"]);
    let body = requests.recv().unwrap().body;
    let text = "WARNING rst_after_idle: tcp 10.0.0.1:40000 → 10.0.0.2:443. A RST came after a silence.";
    assert_eq!(body["text"], text);
    assert_eq!(body["url"], "https://box:8443/#/incident/00000000000000ab");
    assert_eq!((&body["state"], &body["incident"]["state"]), (&"open".into(), &"open".into()));
    assert_eq!(harmless("<!channel> @all\n"), "‹!channel› ＠all\u{fffd}");
}

#[test]
fn who_asks_for_time_gets_it() {
    let (address, requests) = server(vec!["429 Slow\r\nRetry-After: 1", "200 OK"]);
    let ended = tell(&config(address), QUICK, &["a"]);
    let (first, second) = (requests.recv().unwrap(), requests.recv().unwrap());
    assert!(second.at - first.at >= Duration::from_millis(900), "{:?}", second.at - first.at);
    assert_eq!((ended.told.sent, ended.told.failed), (1, 0));
}

#[test]
fn waits_double_up_to_a_limit_and_end() {
    let pace = Pace::default();
    let waits: Vec<_> =
        (1..=8).map(|tries| pace.wait(tries, None, Duration::ZERO).unwrap().as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(pace.wait(40, Some(Duration::from_secs(90)), Duration::ZERO), Some(Duration::from_secs(90)));
    assert_eq!(pace.wait(1, Some(Duration::from_secs(4000)), Duration::ZERO), None);
    assert_eq!(pace.wait(9, None, Duration::from_secs(3550)), None);
}

#[test]
fn who_refuses_is_not_asked_again() {
    let (address, requests) =
        server(vec!["404 Gone", "301 There\r\nLocation: http://127.0.0.1:1/", "200 OK"]);
    let ended = tell(&config(address), QUICK, &["a", "b", "c"]);
    assert_eq!((ended.told.sent, ended.told.failed), (1, 2));
    let kinds: Vec<String> = requests.iter().take(3).map(|asked| asked.kind().to_owned()).collect();
    assert_eq!(kinds, ["a", "b", "c"]);
    assert_eq!(ended.news.len(), 2, "once that it fails, once that it works: {:?}", ended.news);
}

#[test]
fn news_comes_in_order_and_a_dead_port_costs_only_its_own() {
    let (address, requests) = server(vec!["200 OK"; 20]);
    let kinds: Vec<String> = (0..20).map(|n| format!("kind_{n:02}")).collect();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    assert_eq!(tell(&config(address), QUICK, &kinds).told.sent, 20);
    let came: Vec<String> = requests.iter().take(20).map(|asked| asked.kind().to_owned()).collect();
    assert_eq!(came, kinds);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = tell(&config(gone), ONCE, &["a", "b"]);
    assert_eq!((ended.told.sent, ended.told.failed, ended.news.len()), (0, 2, 1));
    assert!(!ended.news[0].contains("secret"), "{}", ended.news[0]);
}

#[test]
fn too_many_are_summed_up() {
    let (address, requests) = server(vec!["200 OK"; 3]);
    let ended = tell(&WebhookConfig { per_minute: 2, ..config(address) }, QUICK, &["a", "b", "c", "c"]);
    assert_eq!((ended.told.sent, ended.told.limited), (2, 2));
    let last = requests.iter().take(3).last().unwrap().body;
    assert_eq!(last["text"], "2 more notices were not told one by one (2 c)");
    assert_eq!(last["left_out"]["kinds"]["c"], 2);
}

#[test]
fn one_that_hangs_holds_up_no_other_and_is_left_at_the_end() {
    let (hanging, silent) = server(vec![SILENCE]);
    let (quick, requests) = server(vec!["200 OK"]);
    let (sender, _heard) = channel();
    let hooks = [hanging, quick].map(|address| Hook::new(&config(address), None, QUICK).unwrap());
    let queues = [0, 1].map(|n: usize| Arc::clone(&hooks[n].queue));
    queues.iter().for_each(|queue| queue.put(&note("a")));
    let (over, ends) = watch::channel(false);
    let thread = std::thread::spawn(move || {
        runtime().block_on(run(hooks.into(), ends, Duration::ZERO, &Said(sender)));
    });
    silent.recv().unwrap();
    requests.recv().unwrap();
    while queues[1].counts.told("quick").sent == 0 {
        std::thread::yield_now();
    }
    queues.iter().for_each(|queue| queue.close());
    over.send(true).unwrap();
    thread.join().unwrap();
    let told = queues[0].counts.told("hanging");
    assert_eq!((told.sent, told.failed, told.dropped, told.waiting), (0, 0, 1, 0));
}

#[test]
fn headers_and_a_signature_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Some(folder.path().join(name))
    };
    let (address, requests) = server(vec!["200 OK"]);
    let signed = WebhookConfig {
        header_file: file("headers", "Authorization: Bearer abc\n\nX-Team: net\n"),
        secret_file: file("secret", "s3cret\n"),
        ..config(address)
    };
    tell(&signed, ONCE, &["a"]);
    let asked = requests.recv().unwrap();
    assert_eq!((asked.header("authorization"), asked.header("x-team")), (Some("Bearer abc"), Some("net")));
    let signature = asked.header("x-referee-signature").unwrap();
    assert!(signature.starts_with("sha256=") && signature.len() == 71, "{signature}");
    let wrong = WebhookConfig { header_file: file("wrong", "secret without a name"), ..config(address) };
    let failure = Target::new(&wrong).err().unwrap().to_string();
    assert!(failure.contains("no header") && !failure.contains("secret without"), "{failure}");
    let absent = WebhookConfig { secret_file: Some(folder.path().join("none")), ..config(address) };
    assert!(Target::new(&absent).is_err());
}

/// A server with a certificate of its own, which it writes to `ca`.
fn secure_server(ca: &Path) -> (SocketAddr, Receiver<Asked>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(ca, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let server = Arc::new(server);
        loop {
            let (socket, _) = listener.accept().unwrap();
            let session = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, socket);
            // Whoever doesn't trust it asks nothing.
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                continue;
            }
            let request = asked(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

#[test]
fn a_server_is_told_only_if_it_is_who_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let (address, requests) = secure_server(&ca);
    let at = |host: &str, ca_file| WebhookConfig {
        url: format!("https://{host}:{}/", address.port()).parse().unwrap(),
        ca_file,
        ..config(address)
    };
    assert_eq!(tell(&at("localhost", Some(ca.clone())), ONCE, &["a"]).told.sent, 1);
    assert_eq!(requests.recv().unwrap().kind(), "a");
    let other = tell(&at("127.0.0.1", Some(ca.clone())), ONCE, &["b"]);
    assert_eq!((other.told.failed, requests.try_iter().count()), (1, 0), "{:?}", other.news);
    std::fs::write(&ca, "no certificate").unwrap();
    assert!(Target::new(&at("localhost", Some(ca))).is_err());
}

#[test]
fn all_of_it_through_one_handle() {
    let (address, requests) = server(vec!["200 OK"]);
    let config = NotifyConfig { webhooks: vec![config(address)], ..NotifyConfig::default() };
    let mut notify = crate::notify::Prepared::new(&config, true).unwrap().unwrap().spawn().unwrap();
    notify.tell(State::Closed, &note("a").incident);
    assert_eq!(requests.recv().unwrap().header("idempotency-key"), Some("00000000000000ab-closed"));
    let told = notify.finish();
    assert_eq!((told[0].name.as_str(), told[0].sent), ("chat", 1));
}
