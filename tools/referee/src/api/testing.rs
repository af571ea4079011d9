//! A router to be tried without a network, over a store of a few packets. Tests only.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use dataplane::record::{RecordConfig, StoredPacket};
use dataplane::source::{Interface, LinkType};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::auth::{Grant, Peer, Token, digest};
use super::{ApiConfig, App, Backend, routes};
use crate::board::tests::incident;
use crate::board::{Board, BoxInfo, Published, later};
use crate::recording::Prepared;

pub const READ: &str = "token-to-read";
pub const OPERATE: &str = "token-to-operate";

/// A router, and what lies behind it.
pub struct Tried {
    pub router: Router,
    pub app: Arc<App>,
    pub folder: tempfile::TempDir,
    pub over: tokio::sync::watch::Sender<bool>,
}

pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub fn config() -> ApiConfig {
    let token = |name: &str, text: &str, grant| Token { name: name.into(), grant, digest: digest(text) };
    ApiConfig {
        tokens: vec![token("reader", READ, Grant::Read), token("operator", OPERATE, Grant::Operate)],
        requests_per_second: 100_000,
        ..ApiConfig::default()
    }
}

/// A run with one open incident and a store with one incident's packets, or that store alone.
pub fn tried(live: bool, change: impl FnOnce(&mut ApiConfig)) -> Tried {
    let folder = tempfile::tempdir().unwrap();
    store_with_a_flow(folder.path());
    let info = BoxInfo { hostname: "box".to_owned(), started_ns: 1, live };
    let board = Board::new(info);
    if live {
        board.opened(&incident("0123456789abcdef", 7_000_000_000), true);
        let books = later(|| serde_json::json!({"received": 1, "balanced": null}));
        let metrics = later(|| "# HELP referee_up 1\n".to_owned());
        board.publish(Published { books, metrics, ..Published::default() }, Default::default());
    }
    over(board, folder, change)
}

fn over(board: Arc<Board>, folder: tempfile::TempDir, change: impl FnOnce(&mut ApiConfig)) -> Tried {
    let mut config = config();
    change(&mut config);
    let (over, watching) = tokio::sync::watch::channel(false);
    let store: &Path = folder.path();
    let store = Some(store.to_path_buf());
    let backend = Backend { board, store, requests: None, rules: None, interfaces: vec![tap()] };
    let app = Arc::new(App::new(backend, config, Some("https://box:1".to_owned()), watching));
    Tried { router: routes::router(&app), app, folder, over }
}

impl Tried {
    pub async fn raw(&self, peer: Peer, request: Request<Body>) -> Response<Body> {
        let mut request = request;
        request.extensions_mut().insert(peer);
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn ask(
        &self,
        peer: Peer,
        verb: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answered {
        let mut request = Request::builder().method(verb).uri(path).header("host", "box:8443");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.raw(peer, request.body(Body::from(body.to_owned())).unwrap()).await;
        let (parts, body) = response.into_parts();
        // What never ends is left after its headers.
        let endless = parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream")
            || path.contains("/captures/live") && parts.status == 200;
        let body = if endless { Body::empty() } else { body };
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answered { status: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// Over TCP, with a token if there is one.
    pub async fn tcp(&self, token: &str, verb: &str, path: &str) -> Answered {
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str())];
        let headers = if token == "Bearer " { &[][..] } else { &headers[..] };
        self.ask(tcp(), verb, path, headers, "").await
    }

    /// Over the Unix socket.
    pub async fn get(&self, path: &str) -> Answered {
        self.ask(Peer::Unix { uid: 0 }, "GET", path, &[], "").await
    }
}

pub fn tcp() -> Peer {
    Peer::Tcp(IpAddr::from([192, 0, 2, 1]))
}

pub fn tap() -> Interface {
    Interface {
        name: "tap0".to_owned(),
        description: "test".to_owned(),
        link: LinkType::Ethernet,
        link_number: 1,
        snap_len: 0,
    }
}

/// One flow's packets, and the incident that names it.
pub fn store_with_a_flow(folder: &Path) {
    let (prepared, mut recorders) = Prepared::new(folder, &RecordConfig::default(), 1).unwrap();
    let mut recording = prepared.start().unwrap();
    let mut recorder = recorders.pop().unwrap();
    recorder.announce(&tap());
    for number in 0..20_u64 {
        let mut bytes =
            vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 140, 0, 1, 0x40, 0, 64, 6, 0, 0];
        bytes.extend([
            10,
            0,
            0,
            1,
            10,
            0,
            0,
            2,
            0x9C,
            1,
            1,
            0xBB,
            0,
            0,
            0,
            number as u8,
            0,
            0,
            0,
            2,
            0x50,
            0x10,
            1,
            0,
        ]);
        bytes.resize(154, number as u8);
        let packet = StoredPacket {
            ts: 1_700_000_000_000_000_000 + number,
            number,
            flow_id: 255,
            interface: 0,
            orig_len: 154,
            bytes: &bytes,
            comment: None,
        };
        recorder.write(&packet).unwrap();
    }
    recorder.flush();
    let mut one = incident("00000000000000aa", 1_700_000_000_000_000_000);
    one.explain = "Somebody reset it.".to_owned();
    recording.keep(&one);
    recording.finish();
}
