//! An incident as an event in the form of Suricata's EVE output: one JSON object, the common fields where collectors look
//! for them, our own object beside them under `incident`. Pure; whoever tells calls it.
//!
//! What the capture doesn't say is left out, never made up.

use std::net::IpAddr;

use dataplane::community;
use dataplane::judge::{Incident, Subject};
use dataplane::source::Nanos;
use rules::Severity;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Note, State};
use crate::notify::limit::LeftOut;
use crate::time::utc;

/// Signature ids of ours: a million from here on, by kind.
const SIGNATURES: u32 = 9_000_000;
/// Suricata's flow ids have so many bits at most, since JSON readers take numbers for doubles.
const FLOW_ID_BITS: u32 = 51;
/// Fields of `incident` that go first if a line is too long.
const EXPENDABLE: [&str; 4] = ["evidence", "because", "flow_ids", "advise"];

/// What all events have in common.
#[derive(Clone, Debug)]
pub struct Form {
    /// `incident`, or `alert` for collectors that read nothing else.
    pub event_type: &'static str,
    /// This host's name.
    pub host: String,
    /// The interface that is captured from, if it is one: of several nobody says which brought a flow.
    pub in_iface: Option<String>,
}

impl Form {
    pub fn of(&self, note: &Note) -> Value {
        let incident = &note.incident;
        let mut event = Map::new();
        let at = match note.state {
            State::Open => incident.first_ns,
            State::Closed => incident.last_ns,
        };
        event.insert("timestamp".to_owned(), timestamp(at).into());
        if let Some(id) = incident.flow_ids.first().and_then(|id| u64::from_str_radix(id, 16).ok()) {
            event.insert("flow_id".to_owned(), (id & ((1 << FLOW_ID_BITS) - 1)).into());
        }
        if let Some(interface) = &self.in_iface {
            event.insert("in_iface".to_owned(), interface.as_str().into());
        }
        event.insert("event_type".to_owned(), self.event_type.into());
        about(&incident.subject, &mut event);
        event.insert("host".to_owned(), self.host.clone().into());
        event.insert("alert".to_owned(), alert(incident));
        event.insert("incident".to_owned(), told(note));
        Value::Object(event)
    }

    /// What was left out, as an event of its own.
    pub fn left_out(&self, left: &LeftOut, at: Nanos) -> Value {
        json!({
            "timestamp": timestamp(at), "event_type": "incidents_left_out", "host": self.host,
            "left_out": { "all": left.all(), "kinds": left.kinds, "others": left.others },
        })
    }

    /// The event as one line of at most `limit` bytes, if it can be made that short.
    pub fn line(&self, note: &Note, limit: usize) -> String {
        let mut event = self.of(note);
        let mut line = event.to_string();
        for field in EXPENDABLE {
            if line.len() <= limit {
                break;
            }
            if let Some(incident) = event["incident"].as_object_mut() {
                incident.remove(field);
                incident.insert("cut".to_owned(), true.into());
            }
            line = event.to_string();
        }
        line
    }
}

/// The object of `--incidents`, and how it stands.
pub fn told(note: &Note) -> Value {
    let mut object = serde_json::to_value(&note.incident).unwrap_or_default();
    object["state"] = note.state.name().into();
    object
}

fn about(subject: &Subject, event: &mut Map<String, Value>) {
    let mut say = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    let address = |ip: &IpAddr| Value::from(ip.to_string());
    match subject {
        Subject::Flow { proto, src, sport, dst, dport } => {
            say("src_ip", address(src));
            say("src_port", (*sport).into());
            say("dest_ip", address(dst));
            say("dest_port", (*dport).into());
            say("proto", proto.to_uppercase().into());
            if let Some(proto) = with_ports(proto) {
                say("community_id", community::of(proto, (*src, *sport), (*dst, *dport), [0; 2]).into());
            }
        }
        Subject::Host { host } => say("src_ip", address(host)),
        Subject::Service { dst, dport, proto } => {
            say("dest_ip", address(dst));
            say("dest_port", (*dport).into());
            say("proto", proto.to_uppercase().into());
        }
        Subject::Link { .. } => {}
    }
}

/// The number of a protocol whose flows are told apart by ports: an ICMP flow's Community ID takes its types, which an
/// incident has not.
fn with_ports(proto: &str) -> Option<u8> {
    match proto {
        "tcp" => Some(6),
        "udp" => Some(17),
        _ => None,
    }
}

fn alert(incident: &Incident) -> Value {
    let severity = match incident.severity {
        Severity::Critical => 1,
        Severity::Warning => 2,
        Severity::Info => 3,
    };
    json!({
        "action": "allowed", "gid": 1, "signature_id": signature(&incident.kind), "rev": 1,
        "signature": incident.kind, "category": "network", "severity": severity,
    })
}

/// The same for a kind always and everywhere.
fn signature(kind: &str) -> u32 {
    let [a, b, c, d, ..] = Sha256::digest(kind.as_bytes()).0;
    SIGNATURES + u32::from_be_bytes([a, b, c, d]) % 1_000_000
}

/// As EVE writes it: UTC, µs.
fn timestamp(ns: Nanos) -> String {
    let seconds = utc(ns);
    let seconds = seconds.split('.').next().unwrap_or_default();
    format!("{seconds}.{:06}+0000", ns / 1000 % 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::metrics::tests::incident;

    fn form() -> Form {
        Form { event_type: "incident", host: "box".to_owned(), in_iface: Some("tap0".to_owned()) }
    }

    fn note(state: State, subject: Subject) -> Note {
        Note { state, incident: Incident { subject, ..incident("rst_after_idle") } }
    }

    #[test]
    fn common_fields_stand_where_collectors_look_for_them() {
        let event = form().of(&Note { state: State::Open, incident: incident("rst_after_idle") });
        let expected = json!({
            "timestamp": "2025-10-09T08:53:20.123456+0000", "flow_id": 0x4_ba98_7654_3210_u64,
            "event_type": "incident", "src_ip": "10.0.0.1", "src_port": 40_000, "dest_ip": "10.0.0.2",
            "dest_port": 443, "proto": "TCP", "host": "box", "in_iface": "tap0",
            "community_id": "1:UWHKJ/x6OQ1YiVv4rIl0t3yhjg8=",
            "alert": {
                "action": "allowed", "gid": 1, "signature_id": signature("rst_after_idle"), "rev": 1,
                "signature": "rst_after_idle", "category": "network", "severity": 2,
            },
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&event[name], value, "{name}");
        }
        let own = event["incident"].as_object().unwrap();
        assert_eq!(
            (&own["state"], &own["kind"], &own["evidence"]["idle_s"]),
            (&"open".into(), &"rst_after_idle".into(), &301.into())
        );
        assert_eq!(event.as_object().unwrap().len(), expected.as_object().unwrap().len() + 1);
        assert!(form().line(&note(State::Open, Subject::Link { link: "all" }), 10_000).starts_with('{'));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let fields = |subject| {
            let event = form().of(&note(State::Closed, subject));
            assert_eq!(event["timestamp"], "2025-10-09T08:53:21.000000+0000");
            let names = ["src_ip", "src_port", "dest_ip", "dest_port", "proto", "community_id"];
            names.into_iter().filter(|name| event.get(name).is_some()).collect::<Vec<_>>()
        };
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(fields(Subject::Host { host: ip }), ["src_ip"]);
        let service = Subject::Service { dst: ip, dport: 53, proto: "udp".to_owned() };
        assert_eq!(fields(service), ["dest_ip", "dest_port", "proto"]);
        assert_eq!(fields(Subject::Link { link: "all" }), [""; 0]);
        let ping = Subject::Flow { proto: "icmpv6".to_owned(), src: ip, sport: 0, dst: ip, dport: 0 };
        assert_eq!(fields(ping), ["src_ip", "src_port", "dest_ip", "dest_port", "proto"]);
        let several = Form { in_iface: None, ..form() };
        let event = several.of(&note(State::Open, Subject::Host { host: ip }));
        assert!(event.get("in_iface").is_none());
        let flowless = Incident { flow_ids: Vec::new(), ..incident("port_scan") };
        assert!(form().of(&Note { state: State::Open, incident: flowless }).get("flow_id").is_none());
    }

    #[test]
    fn a_line_is_cut_from_what_matters_least() {
        let mut long = incident("rst_after_idle");
        long.evidence.insert("all".to_owned(), "x".repeat(9000).into());
        let note = Note { state: State::Open, incident: long };
        assert!(form().line(&note, 100_000).len() > 9000);
        let line = form().line(&note, 8192);
        let event: Value = serde_json::from_str(&line).unwrap();
        assert!(line.len() <= 8192 && event["incident"].get("evidence").is_none(), "{line}");
        assert_eq!(
            (&event["incident"]["cut"], &event["incident"]["advise"]),
            (&true.into(), &"Raise the timeout.".into())
        );
    }

    #[test]
    fn kinds_of_the_library_have_signatures_of_their_own() {
        let rules = rules::RuleSet::load(&rules::library(), &[]).unwrap();
        let names: BTreeSet<&str> = rules.rules().iter().map(|rule| rule.name.as_str()).collect();
        let ids: BTreeSet<u32> = names.iter().map(|name| signature(name)).collect();
        assert!(names.len() > 30 && ids.len() == names.len());
        assert!(ids.iter().all(|id| (9_000_000..10_000_000).contains(id)));
    }
}
