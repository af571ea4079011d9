//! How a run under way captures, as its API tells: for `referee status`, which asks the control thread for the rules.
//!
//! Main thread of a process of its own. Asks a few questions and makes the words; one that has no API has no answer.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, ReachArgs};
use crate::error::Failure;
use crate::live::publish::beside;
use crate::term::{count, plural};
use crate::time::span;

/// How long is waited for the API.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the API told.
#[derive(Debug, Default)]
pub struct Standing {
    version: Value,
    health: Value,
    books: Value,
    /// Of the last second.
    sample: Value,
}

/// Asks the API that belongs to the run of this control socket.
///
/// # Errors
/// Failed: it does not answer.
pub fn ask(control: &Path) -> Result<Standing, Failure> {
    let reach = ReachArgs { socket: Some(beside(control)), ..ReachArgs::default() };
    let client = Client::reach(&reach)?.hurried(PATIENCE);
    // A run that has just begun has no books yet.
    let or_nothing = |path: &str| client.json::<Value>(path).unwrap_or_default();
    Ok(Standing {
        version: client.json("/api/v1/version")?,
        health: or_nothing("/api/v1/health"),
        books: or_nothing("/api/v1/books"),
        sample: or_nothing("/api/v1/series?since=10s")["items"]
            .as_array_mut()
            .and_then(Vec::pop)
            .unwrap_or_default(),
    })
}

/// Its name, how it is captured from, packets seen and lost; the counts are none in the first second.
type Interface<'a> = (&'a str, &'a str, Option<(u64, u64)>);

fn sum(of: &Value) -> u64 {
    of.as_object().map_or(0, |all| all.values().filter_map(Value::as_u64).sum())
}

impl Standing {
    fn interfaces(&self) -> Vec<Interface<'_>> {
        let books = self.books["interfaces"].as_array();
        let each = self.version["interfaces"].as_array().into_iter().flatten().map(|one| {
            let of_books = books.into_iter().flatten().find(|books| books["name"] == one["name"]);
            let counts = of_books.map(|it| (it["seen"].as_u64().unwrap_or(0), sum(&it["dropped"])));
            (one["name"].as_str().unwrap_or("?"), one["capture"].as_str().unwrap_or("?"), counts)
        });
        each.collect()
    }

    fn open(&self) -> Option<u64> {
        self.sample["open"].as_u64()
    }

    /// How far back history reaches, ns.
    fn history(&self) -> Option<u64> {
        let seconds = self.sample["history_s"].as_f64().filter(|seconds| *seconds > 0.0)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        Some((seconds * 1e9) as u64)
    }

    /// In words, a line each.
    pub fn words(&self, now_ns: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(started) = self.version["started_ns"].as_u64() {
            lines.push(format!("up: {}", span(now_ns.saturating_sub(started))));
        }
        for (name, capture, counts) in self.interfaces() {
            let counts = counts.map_or("not counted yet".to_owned(), |(seen, lost)| {
                format!("{}, {} lost", plural(seen, "packet"), count(lost))
            });
            // The words of how begin with the name.
            lines.push(format!(
                "interface {name}: {counts}; {}",
                capture.trim_start_matches(&format!("{name}: "))
            ));
        }
        lines.extend(self.open().map(|open| format!("incidents: {} open", count(open))));
        lines.extend(self.history().map(|ns| format!("history: {}", span(ns))));
        for check in self.health["checks"].as_array().into_iter().flatten() {
            let text = |name: &str| check[name].as_str();
            match text("status") {
                Some("ok") if check["name"] != "store" => {}
                Some("ok") => lines.push(format!("store: {}", text("what").unwrap_or("?"))),
                status => {
                    let help = text("help").map(|help| format!(" ({help})")).unwrap_or_default();
                    let (name, what) = (text("name").unwrap_or("?"), text("what").unwrap_or("?"));
                    lines.push(format!("{name}: {}: {what}{help}", status.unwrap_or("?")));
                }
            }
        }
        if let Some(url) = self.version["url"].as_str() {
            let certificate = self.version["certificate"].as_str().unwrap_or("?");
            lines.push(format!("api: {url}, certificate {certificate}"));
        }
        lines
    }

    pub fn json(&self) -> Value {
        let interfaces = self.interfaces().into_iter().map(|(name, capture, counts)| {
            let (seen, dropped) = counts.unzip();
            json!({ "name": name, "capture": capture, "seen": seen, "dropped": dropped })
        });
        json!({
            "started_ns": self.version["started_ns"], "interfaces": interfaces.collect::<Vec<_>>(),
            "incidents_open": self.open(), "history_ns": self.history(), "health": self.health,
            "url": self.version["url"], "certificate": self.version["certificate"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_words() {
        let mut run = Standing {
            version: json!({
                "started_ns": 1_000_000_000_000_u64, "url": "https://box:8443", "certificate": "SHA256:ab",
                "interfaces": [{ "name": "eth1", "capture": "eth1: AF_XDP zero-copy, 1 queue", "link": true }],
            }),
            health: json!({ "status": "degraded", "checks": [
                { "name": "links", "status": "ok", "what": "every interface has a link", "help": null },
                { "name": "loss", "status": "degraded", "what": "7 packets lost in the last minute", "help": "see doctor" },
                { "name": "store", "status": "ok", "what": "the store takes what it is given", "help": null },
            ] }),
            books: json!({ "interfaces": [{ "name": "eth1", "seen": 85_454, "dropped": { "no_frame": 3, "no_socket": 4 } }] }),
            sample: json!({ "open": 2, "history_s": 42.5 }),
        };
        let lines = [
            "up: 1 min 1 s",
            "interface eth1: 85,454 packets, 7 lost; AF_XDP zero-copy, 1 queue",
            "incidents: 2 open",
            "history: 42.5 s",
            "loss: degraded: 7 packets lost in the last minute (see doctor)",
            "store: the store takes what it is given",
            "api: https://box:8443, certificate SHA256:ab",
        ];
        assert_eq!(run.words(1_061_000_000_000), lines);
        let told = run.json();
        assert_eq!((&told["interfaces"][0]["dropped"], &told["incidents_open"]), (&json!(7), &json!(2)));
        (run.books, run.sample["history_s"]) = (Value::Null, json!(0.0));
        assert_eq!(run.words(0)[1], "interface eth1: not counted yet; AF_XDP zero-copy, 1 queue");
        assert_eq!((run.history(), run.json()["interfaces"][0]["seen"].clone()), (None, Value::Null));
    }
}
