//! What Wireshark lists, and what its dialogs ask for.
//!
//! Main thread. Asks this host's run for its latest incidents and waits a fifth of a second for them at most; other boxes
//! are not asked before somebody captures.

use std::time::Duration;

use serde_json::Value;

use super::Call;
use super::boxes::{Boxes, THIS};
use super::demand::{LAST, LASTS};
use super::grammar::Sentences;
use crate::client::{Client, ReachArgs, encoded};
use crate::error::Failure;
use crate::time;

/// What is kept, as it is.
pub const LIVE: &str = "referee-live";
pub const INCIDENT: &str = "referee-incident";
/// What Wireshark's capture filter names.
pub const DEMAND: &str = "referee-demand";

/// How long a list may wait for a box.
const PATIENCE: Duration = Duration::from_millis(200);
/// Incidents that are listed by themselves.
const LISTED: usize = 10;
/// So many are asked for at once, and so often.
const PAGE: usize = 50;
const PAGES: usize = 20;
/// What stands among a store's incidents and is none.
const ON_DEMAND: &str = "on_demand";
/// Stands for the latest incident.
pub const NEWEST: &str = "newest";

/// An incident as people choose it.
struct Known {
    id: String,
    words: String,
}

/// The latest incidents, and after them the latest captures on demand; none if there is nobody to ask.
fn newest(reach: &ReachArgs) -> Vec<Known> {
    let ask = || -> Result<(Vec<Value>, Value), Failure> {
        let client = Client::reach(reach)?.hurried(PATIENCE);
        let demands = client.json(&format!("/api/v1/incidents?kind={ON_DEMAND}&limit={LISTED}"))?;
        Ok((incidents(&client, LISTED)?, demands))
    };
    let (incidents, demands) = ask().unwrap_or_default();
    incidents.iter().filter_map(known).chain(items(&demands).filter_map(known).take(LISTED)).collect()
}

fn items(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("items").and_then(Value::as_array).into_iter().flatten()
}

/// It was asked for, and nothing is wrong with it.
fn is_demand(incident: &Value) -> bool {
    incident.get("kind").and_then(Value::as_str) == Some(ON_DEMAND)
}

/// The latest so many incidents of a box, however much was captured on demand meanwhile.
fn incidents(client: &Client, most: usize) -> Result<Vec<Value>, Failure> {
    let (mut found, mut after) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let page: Value = client.json(&format!("/api/v1/incidents?limit={PAGE}{after}"))?;
        found.extend(items(&page).filter(|one| !is_demand(one)).cloned());
        match page.get("next").and_then(Value::as_str) {
            Some(next) if found.len() < most => after = format!("&after={}", encoded(next)),
            _ => break,
        }
    }
    found.truncate(most);
    Ok(found)
}

/// The latest incident of a box.
///
/// # Errors
/// Failed: it can't be asked, or has none.
pub fn newest_id(client: &Client) -> Result<String, Failure> {
    let newest = incidents(client, 1)?;
    let id = newest.first().and_then(|one| one.get("id")?.as_str()).filter(|id| is_id(id));
    id.map(str::to_owned).ok_or_else(|| Failure::failed("there is no incident"))
}

fn known(incident: &Value) -> Option<Known> {
    let text = |name: &str| incident.get(name).and_then(Value::as_str);
    let id = text("id").filter(|id| is_id(id))?.to_owned();
    let when = incident.get("first_ns").and_then(Value::as_u64).map(time::utc).unwrap_or_default();
    if is_demand(incident) {
        let asked =
            incident.pointer("/evidence/expression").and_then(Value::as_str).filter(|text| !text.is_empty());
        let words = format!("capture on demand: {}, {when}", asked.unwrap_or("all packets"));
        return Some(Known { id, words });
    }
    let kind = text("kind").unwrap_or("incident");
    Some(Known { id, words: format!("{kind} {} {when}", subject(incident.get("subject")?)) })
}

/// What ids are made of. It becomes part of an interface's name.
pub fn is_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whom it is about, in few letters.
fn subject(subject: &Value) -> String {
    let text = |name: &str| subject.get(name).and_then(Value::as_str).unwrap_or_default();
    let port = |name: &str| {
        subject.get(name).and_then(Value::as_u64).map(|port| format!(":{port}")).unwrap_or_default()
    };
    match (text("host"), text("src"), text("dst")) {
        ("", "", "") => "all traffic".to_owned(),
        (host, "", "") => host.to_owned(),
        (_, "", dst) => format!("{dst}{}", port("dport")),
        (_, src, dst) => format!("{src}{} → {dst}{}", port("sport"), port("dport")),
    }
}

/// All interfaces.
pub fn list(boxes: &Boxes) -> String {
    let mut said = Sentences::default();
    let version = env!("CARGO_PKG_VERSION");
    let help = "file:///usr/share/doc/referee/docs/wireshark.md";
    said.say("extcap", &[("version", version), ("help", help), ("display", "Referee")]);
    said.say("interface", &[("value", LIVE), ("display", "Referee: flagged flows, as they are found")]);
    let demand = "Referee: capture on demand (capture filter)";
    said.say("interface", &[("value", DEMAND), ("display", demand)]);
    said.say("interface", &[("value", INCIDENT), ("display", "Referee: an incident")]);
    for incident in newest(&boxes.this()) {
        let name = format!("{INCIDENT}-{}", incident.id);
        said.say("interface", &[("value", &name), ("display", &format!("Referee: {}", incident.words))]);
    }
    said.text()
}

/// The one link type there is to choose; the packets have those of their interfaces.
pub fn dlts(interface: &str) -> String {
    let mut said = Sentences::default();
    if interface.starts_with("referee-") {
        said.say("dlt", &[("number", "1"), ("name", "EN10MB"), ("display", "Ethernet")]);
    }
    said.text()
}

/// A dialog's questions, numbered as they come.
#[derive(Default)]
struct Dialog {
    said: Sentences,
    number: usize,
}

impl Dialog {
    fn ask(&mut self, call: &str, display: &str, kind: &str, more: &[(&str, &str)]) -> String {
        let number = self.number.to_string();
        self.number += 1;
        let call = format!("--{call}");
        let mut things =
            vec![("number", number.as_str()), ("call", &call), ("display", display), ("type", kind)];
        things.extend_from_slice(more);
        self.said.say("arg", &things);
        number
    }

    fn offer(&mut self, number: &str, value: &str, display: &str, default: bool) {
        let default = if default { "true" } else { "false" };
        let things = [("arg", number), ("value", value), ("display", display), ("default", default)];
        self.said.say("value", &things);
    }
}

/// What the dialog of an interface asks for.
pub fn config(call: &Call, interface: &str, boxes: &Boxes) -> String {
    let mut dialog = Dialog::default();
    if !interface.starts_with("referee-") {
        return String::new();
    }
    if interface == INCIDENT {
        let known = newest(&boxes.meant(call).unwrap_or_else(|_| boxes.this()));
        let reload = [("reload", "true"), ("placeholder", "Ask again")];
        let number = dialog.ask("incident", "Incident", "selector", &reload);
        dialog.offer(&number, NEWEST, "the newest", true);
        for incident in &known {
            dialog.offer(&number, &incident.id, &format!("{} {}", incident.id, incident.words), false);
        }
        let tip = ("tooltip", "16 hexadecimal digits, as they stand under an incident");
        dialog.ask("id", "Or one with this id", "string", &[tip]);
    }
    if interface == DEMAND {
        for (call, display, (usual, range)) in
            [("last", "Seconds of the past", LAST), ("for", "Seconds from now on", LASTS)]
        {
            dialog.ask(call, display, "integer", &[("range", range), ("default", usual)]);
        }
    }
    let place = ("group", "Box");
    if !boxes.named.is_empty() {
        let number = dialog.ask("box", "Box", "selector", &[place]);
        dialog.offer(&number, THIS, "this one", true);
        boxes
            .named
            .iter()
            .for_each(|(name, known)| dialog.offer(&number, name, &format!("{name}, {}", known.url), false));
    }
    dialog.ask("url", "Another box", "string", &[("placeholder", "https://box:8443"), place]);
    dialog.ask("token-file", "File with its token", "fileselect", &[("mustexist", "false"), place]);
    let tip = ("tooltip", "SHA-256 of its certificate: a run says it when it begins");
    dialog.ask("fingerprint", "Its fingerprint", "string", &[tip, place]);
    dialog.said.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_incident_is_named_in_a_line() {
        let incident = json!({"id": "357944c3423f11a4", "kind": "rst_after_idle", "first_ns": 1_700_000_000_000_000_000_u64,
            "subject": {"proto": "tcp", "src": "10.20.0.10", "sport": 47994, "dst": "10.50.1.10", "dport": 5432}});
        let words = known(&incident).unwrap().words;
        assert_eq!(words, "rst_after_idle 10.20.0.10:47994 → 10.50.1.10:5432 2023-11-14T22:13:20.000Z");
        assert_eq!(subject(&json!({"host": "10.0.0.1"})), "10.0.0.1");
        assert_eq!(subject(&json!({"dst": "10.0.0.1", "dport": 53, "proto": "udp"})), "10.0.0.1:53");
        assert_eq!(subject(&json!({"link": "all"})), "all traffic");
        let demand = |expression: &str| {
            let one = json!({"id": "1f", "kind": "on_demand", "first_ns": 1_700_000_000_000_000_000_u64,
                "subject": {"link": "all"}, "evidence": {"expression": expression}});
            known(&one).unwrap().words
        };
        assert_eq!(demand("port 443"), "capture on demand: port 443, 2023-11-14T22:13:20.000Z");
        assert_eq!(demand(""), "capture on demand: all packets, 2023-11-14T22:13:20.000Z");
        // What would not make a name makes no interface.
        for id in ["", "x}{value=y", "../../etc", "é"] {
            assert!(known(&json!({"id": id, "subject": {}})).is_none(), "{id}");
        }
    }

    #[test]
    fn dialogs_number_their_questions() {
        let mut boxes = Boxes::parse("[east]\nurl = \"https://east:8443\"\ntoken_file = \"/t\"\n").unwrap();
        boxes.socket = Some("/nonexistent/api.sock".into());
        let said = config(&Call::default(), INCIDENT, &boxes);
        let number =
            |line: &str| line.strip_prefix("arg {number=").and_then(|rest| rest.get(..1)).map(str::to_owned);
        let numbers: Vec<String> = said.lines().filter_map(number).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"]);
        let first = "arg {number=0}{call=--incident}{display=Incident}{type=selector}{reload=true}";
        assert!(said.starts_with(first), "{said}");
        let east = "value {arg=2}{value=east}{display=east, https://east:8443}{default=false}\n";
        assert!(said.contains(east), "{said}");
        let said = config(&Call::default(), DEMAND, &boxes);
        let last = "arg {number=0}{call=--last}{display=Seconds of the past}{type=integer}{range=0,3600}{default=30}";
        assert!(said.starts_with(last) && said.contains("arg {number=1}{call=--for}"), "{said}");
        assert_eq!(config(&Call::default(), "other", &boxes), "");
        assert_eq!(dlts(INCIDENT), "dlt {number=1}{name=EN10MB}{display=Ethernet}\n");
    }

    #[test]
    fn there_is_a_list_where_nothing_runs() {
        let boxes = Boxes { socket: Some("/nonexistent/api.sock".into()), ..Boxes::default() };
        let said = list(&boxes);
        assert_eq!(said.lines().count(), 4, "{said}");
        assert!(
            said.starts_with("extcap {version=") && said.contains("interface {value=referee-incident}"),
            "{said}"
        );
    }
}
