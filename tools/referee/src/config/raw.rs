//! referee.toml as it is written: every key, none required, none unknown, with its place in the file.
//!
//! Main thread. Only `config` sees these; what the rest of the program gets is checked and typed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use toml::{Spanned, Value};

/// A whole number, with its place.
pub type Number = Option<Spanned<u64>>;
/// One of a few words, with its place.
pub type Text = Option<Spanned<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub capture: Capture,
    pub worker: Worker,
    pub store: Store,
    pub judge: Judge,
    pub notify: Notify,
    pub rules: Rules,
    pub api: Api,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    pub flows: Number,
    pub half_open: Number,
    pub troubled: Number,
    pub history_mib: Number,
    pub snap_bytes: Number,
    pub cutoff_kib: Number,
    pub tails: Number,
    pub holds: Number,
    pub hold_pool_mib: Number,
    pub holds_per_rule_per_second: Number,
    pub messages: Number,
    pub activity: Number,
    pub siblings: Number,
    pub fragmented: Number,
    pub copies: Number,
    pub timeout_half_open_s: Number,
    pub timeout_established_s: Number,
    pub timeout_closed_s: Number,
    pub timeout_other_s: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    pub interfaces: Option<Spanned<Vec<String>>>,
    pub ring_packets: Number,
    pub busy_poll: Text,
    pub packet_ring_mib: Number,
    pub workers: Number,
    pub cores: Option<Spanned<Vec<u64>>>,
    pub redispatch: Text,
    pub rss: Text,
    pub clock: Text,
    pub payload_bytes: Number,
    pub demand_mib: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    pub dir: Option<String>,
    pub max_mib: Number,
    pub max_age_h: Number,
    pub incidents_max_mib: Number,
    pub segment_mib: Number,
    pub segment_age_s: Number,
    pub chunk_kib: Number,
    pub chunks: Number,
    pub chunk_age_ms: Number,
    pub compression_level: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Judge {
    pub settle_ms: Number,
    pub quiet_s: Number,
    pub before_storm_ms: Number,
    pub captures_per_incident: Number,
    pub capture_packets: Number,
    pub capture_kib: Number,
    pub capture_s: Number,
    pub max_open: Number,
    pub max_hosts: Number,
    pub max_services: Number,
    pub max_known: Number,
    pub max_kept: Number,
    pub failures_before_off: Number,
    pub body_operations: Number,
    pub body_deadline_ms: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub socket: Option<String>,
    pub group: Option<String>,
    pub listen: Text,
    pub cert: Option<String>,
    pub key: Option<String>,
    pub tls: Option<String>,
    pub names: Option<Vec<String>>,
    pub read_captures: Option<bool>,
    pub spool_mib: Number,
    pub requests_per_second: Number,
    pub token: Vec<Spanned<Token>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Token {
    pub name: Option<String>,
    pub role: Text,
    pub sha256: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    pub min_severity: Text,
    pub kinds: Vec<String>,
    pub states: Option<Spanned<Vec<String>>>,
    pub event_type: Text,
    pub page: Text,
    pub file: Option<NotifyFile>,
    pub stdout: Option<NotifyStdout>,
    pub syslog: Option<NotifySyslog>,
    pub webhook: Vec<Spanned<Webhook>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyFile {
    pub path: String,
    pub per_minute: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyStdout {
    pub per_minute: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifySyslog {
    pub socket: Option<String>,
    pub facility: Text,
    pub per_minute: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub name: Text,
    pub url: Spanned<String>,
    pub header_file: Option<String>,
    pub secret_file: Option<String>,
    pub ca_file: Option<String>,
    pub per_minute: Number,
    pub timeout_s: Number,
}

/// `[rules]`: its own keys and one table of parameters for each rule.
#[derive(Debug, Default)]
pub struct Rules {
    pub entries: BTreeMap<Spanned<String>, Spanned<Entry>>,
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(|entries| Rules { entries })
    }
}

/// What stands behind a key of `[rules]`.
#[derive(Debug)]
pub enum Entry {
    Text(String),
    Bool(bool),
    /// `[rules.NAME]`
    Params(BTreeMap<Spanned<String>, Value>),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`dir = \"FOLDER\"`, `library = true`, or a table of a rule's parameters like `[rules.NAME]`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Entry, E> {
                Ok(Entry::Bool(yes))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let mut params = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    params.insert(key, value);
                }
                Ok(Entry::Params(params))
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}
