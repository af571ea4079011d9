//! Asks a box once a second how it stands, and has it do what the reader wants. A thread of its own, so that keys are heard
//! while a box takes its time; what comes back goes to main through a channel.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use serde_json::{Value, json};

use super::keys::Asked;
use super::model::Told;
use crate::client::Client;
use crate::error::Failure;

const SECOND: Duration = Duration::from_secs(1);

/// What comes back.
#[derive(Debug)]
pub enum News {
    Told(Box<Told>),
    /// Nobody answers, and why.
    Lost(String),
    /// What came of what the reader wanted.
    Said(String),
}

/// The thread's body: ends when nobody listens any more.
pub fn run(client: &Client, wishes: &Receiver<Asked>, news: &Sender<News>) {
    loop {
        let told = match round(client) {
            Ok(told) => News::Told(Box::new(told)),
            Err(failure) => News::Lost(failure.to_string()),
        };
        if news.send(told).is_err() {
            return;
        }
        let said = match wishes.recv_timeout(SECOND) {
            Ok(Asked::Shadow { rule, on }) => shadow(client, &rule, on),
            Ok(Asked::Quit) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => continue,
        };
        if news.send(News::Said(said)).is_err() {
            return;
        }
    }
}

fn round(client: &Client) -> Result<Told, Failure> {
    let get = |path: &str| client.json::<Value>(path);
    let items = |mut value: Value, name: &str| match value.get_mut(name).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    // Who can say what it is can be asked; what else it has to say depends on what it is.
    let version = get("/api/v1/version")?;
    let or_nothing = |path: &str| get(path).unwrap_or_default();
    Ok(Told {
        version,
        health: or_nothing("/api/v1/health"),
        series: items(or_nothing("/api/v1/series?since=5m"), "items"),
        incidents: items(or_nothing("/api/v1/incidents?state=open&limit=500"), "items"),
        rules: items(or_nothing("/api/v1/rules"), "rules"),
        books: or_nothing("/api/v1/books"),
    })
}

fn shadow(client: &Client, rule: &str, on: bool) -> String {
    let done = client.send("PUT", &format!("/api/v1/rules/{rule}/shadow"), &json!({ "on": on }));
    match (done, on) {
        (Ok(_), true) => format!("rule {rule} only looks on now, until the run ends"),
        (Ok(_), false) => format!("rule {rule} speaks again"),
        (Err(failure), _) => failure.message,
    }
}
