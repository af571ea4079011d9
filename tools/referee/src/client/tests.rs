//! A client against servers of the tests' own: over a Unix socket and over TLS, kind and unkind ones.

use std::io::{self, BufRead as _, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;

/// Reads one request and answers it; returns its head and body.
fn answer<S: Read + Write>(mut stream: S, answer: &[u8]) -> io::Result<String> {
    let mut asked = String::new();
    let mut reader = BufReader::new(&mut stream);
    while !asked.ends_with("\r\n\r\n") {
        if reader.read_line(&mut asked)? == 0 {
            return Ok(asked);
        }
    }
    let length =
        asked.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    asked.push_str(&String::from_utf8_lossy(&body));
    stream.write_all(answer)?;
    stream.flush()?;
    Ok(asked)
}

struct Local {
    _folder: tempfile::TempDir,
    client: Client,
    served: JoinHandle<io::Result<String>>,
}

/// A run on this host that answers once.
fn local(said: impl Into<Vec<u8>>) -> Local {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let said = said.into();
    let served = thread::spawn(move || answer(listener.accept()?.0, &said));
    let args = ReachArgs { socket: Some(path), ..ReachArgs::default() };
    Local { _folder: folder, client: Client::reach(&args).unwrap(), served }
}

fn reply(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_answer_of_this_host_is_read() {
    let local = local(reply("200 OK", "application/json", r#"{"api":1}"#));
    assert_eq!(local.client.json::<Value>("/api/v1/version?x=1").unwrap(), json!({"api": 1}));
    let asked = local.served.join().unwrap().unwrap();
    assert!(asked.starts_with("GET /api/v1/version?x=1 HTTP/1.1\r\nhost: localhost\r\n"), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
}

#[test]
fn what_is_sent_is_json_and_nothing_is_an_answer() {
    let local = local("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(local.client.send("POST", "/api/v1/rules/reload", &json!({"a": 1})).unwrap(), Value::Null);
    let asked = local.served.join().unwrap().unwrap();
    assert!(
        asked.contains("content-type: application/json\r\n") && asked.ends_with("\r\n\r\n{\"a\":1}"),
        "{asked}"
    );
}

#[test]
fn a_problem_is_a_failure_with_its_help() {
    let problem = r#"{"type":"/problems/no-run","title":"No run","status":409,"detail":"only a store","help":"start one"}"#;
    let local = local(reply("409 Conflict", "application/problem+json", problem));
    let failure = local.client.get("/api/v1/books").err().unwrap();
    assert!(failure.message.ends_with("api.sock: only a store"), "{}", failure.message);
    assert_eq!((failure.code, failure.help.as_deref()), (Code::Failed, Some("start one")));
    let plain = super::tests::local(reply("404 Not Found", "text/html", "<h1>lost</h1>"));
    let failure = plain.client.get("/").err().unwrap();
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.ends_with("it answers with status 404"), "{}", failure.message);
}

#[test]
fn bodies_are_read_as_they_come() {
    let mut said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..64 {
        said.extend_from_slice(b"10000\r\n");
        said.extend_from_slice(&vec![b'x'; 0x10000]);
        said.extend_from_slice(b"\r\n");
    }
    said.extend_from_slice(b"0\r\n\r\n");
    let chunked = local(said);
    assert_eq!(io::copy(&mut chunked.client.get("/").unwrap().body, &mut io::sink()).unwrap(), 64 << 16);

    // Broken off: that is no end.
    let broken = local("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    let mut text = String::new();
    assert!(broken.client.get("/").unwrap().body.read_to_string(&mut text).is_err());
}

#[test]
fn nobody_there_and_nobody_who_speaks() {
    let args = ReachArgs { socket: Some("/nonexistent/api.sock".into()), ..ReachArgs::default() };
    let failure = Client::reach(&args).unwrap().get("/").err().unwrap();
    assert!(failure.message.starts_with("the run at /nonexistent/api.sock can't be reached: "), "{failure}");
    assert!(failure.help.is_some());

    // It takes the connection and says nothing.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let args = ReachArgs { socket: Some(path), ..ReachArgs::default() };
    let client = Client::reach(&args).unwrap().hurried(Duration::from_millis(50));
    assert!(client.get("/").err().unwrap().message.ends_with("it does not answer"));

    assert!(local("this is no HTTP\r\n\r\n").client.get("/").is_err());
}

/// A box with a certificate of its own making, that answers once; its URL, its fingerprint and the token's file.
struct Remote {
    folder: tempfile::TempDir,
    url: String,
    fingerprint: String,
    served: JoinHandle<io::Result<String>>,
}

fn remote() -> Remote {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let fingerprint = tls::shown(&Sha256::digest(&certificate));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let served = thread::spawn(move || {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, listener.accept()?.0);
        let asked = answer(&mut stream, reply("200 OK", "application/json", "[1]").as_bytes());
        stream.conn.send_close_notify();
        let _ = stream.flush();
        asked
    });
    let folder = tempfile::tempdir().unwrap();
    Remote { folder, url, fingerprint, served }
}

impl Remote {
    fn args(&self, fingerprint: Option<&str>) -> ReachArgs {
        let token: PathBuf = self.folder.path().join("token");
        std::fs::write(&token, "secret\n").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        ReachArgs {
            url: Some(self.url.clone()),
            token_file: Some(token),
            fingerprint: fingerprint.map(str::to_owned),
            socket: None,
        }
    }
}

#[test]
fn another_box_is_known_by_its_fingerprint_and_gets_the_token() {
    let remote = remote();
    let client = Client::reach(&remote.args(Some(&remote.fingerprint))).unwrap();
    assert_eq!(client.json::<Value>("/api/v1/incidents").unwrap(), json!([1]));
    let asked = remote.served.join().unwrap().unwrap();
    assert!(asked.contains("authorization: Bearer secret\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: {}\r\n", remote.url.trim_start_matches("https://"))), "{asked}");
}

#[test]
fn a_box_with_another_certificate_gets_no_token() {
    for fingerprint in [Some("ab".repeat(32)), None] {
        let remote = remote();
        let failure = Client::reach(&remote.args(fingerprint.as_deref())).unwrap().get("/").err().unwrap();
        assert!(failure.message.contains("is not trusted: "), "{failure}");
        assert!(failure.help.unwrap().contains("--fingerprint"));
        let asked = remote.served.join().unwrap();
        assert!(!asked.is_ok_and(|asked| asked.contains("secret")));
    }
}
