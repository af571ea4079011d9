//! referee.toml, checked and typed: what the workers, the recorder and the judge are to take and to wait for.
//!
//! Main thread, before any other exists. Every mistake is named with file, line and column; nothing
//! downstream sees the file. Without a file the defaults of the library hold.

mod api;
pub mod near;
pub mod notify;
mod raw;
mod reader;
#[cfg(test)]
mod shipped;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane::config::WorkerConfig;
use dataplane::judge::JudgeConfig;
use dataplane::record::RecordConfig;
use dataplane::source::afxdp::{BusyPoll, ClockChoice};
use dataplane::source::rss;
use rules::Override;
use toml::Value;

use crate::api::ApiConfig;
use crate::error::Failure;
use near::nearest;
use notify::NotifyConfig;
use raw::{Entry, Raw};
use reader::Reader;

/// Where an installed Referee has its settings.
pub const DEFAULT_PATH: &str = "/etc/referee/referee.toml";

/// Longest settings file read, bytes.
const FILE_LIMIT: u64 = 1 << 20;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const DAY_S: u64 = 86_400;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Those `run` captures from if none is named with -i.
    pub interfaces: Vec<String>,
    /// Packets each AF_XDP ring holds; a power of two.
    pub ring_packets: u32,
    pub busy_poll: BusyPoll,
    /// Memory of an AF_PACKET ring.
    pub packet_ring_mib: u32,
    /// Workers; 0 for as many as fit the queues and the cores.
    pub workers: u32,
    /// Their cores, in order; empty if they are to be chosen.
    pub cores: Vec<usize>,
    /// Where `cores` is in the file: "referee.toml:3:9".
    pub cores_place: String,
    pub redispatch: Redispatch,
    /// What is done about a hash that parts the directions of a connection.
    pub rss: rss::Choice,
    /// Whose clock packets are stamped by.
    pub clock: ClockChoice,
    /// How long a rule's body may take when live.
    pub body_deadline: Duration,
    pub worker: WorkerConfig,
    pub record: RecordConfig,
    pub judge: JudgeConfig,
    /// Packet bytes one capture on demand may keep.
    pub demand_bytes: u64,
    /// Who is told of incidents.
    pub notify: NotifyConfig,
    /// `[store] dir`, as seen from the file's folder.
    pub store_dir: Option<PathBuf>,
    /// `[rules] dir`, as seen from the file's folder.
    pub rules_dir: Option<PathBuf>,
    /// `[rules] library`: the shipped rules beside those of `rules_dir`.
    pub rules_library: bool,
    /// `[rules] keep`, as seen from the file's folder: where the last good rules are kept.
    pub rules_keep: Option<PathBuf>,
    /// `[rules.NAME]`
    pub params: Vec<Placed>,
    pub api: ApiConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            interfaces: Vec::new(),
            ring_packets: 16_384,
            busy_poll: BusyPoll::Auto,
            packet_ring_mib: 64,
            workers: 0,
            cores: Vec::new(),
            cores_place: String::new(),
            redispatch: Redispatch::Auto,
            rss: rss::Choice::default(),
            clock: ClockChoice::default(),
            body_deadline: Duration::from_millis(50),
            worker: WorkerConfig::default(),
            record: RecordConfig::default(),
            judge: JudgeConfig::default(),
            demand_bytes: 256 * MIB,
            notify: NotifyConfig::default(),
            store_dir: None,
            rules_dir: None,
            rules_library: false,
            rules_keep: None,
            params: Vec::new(),
            api: ApiConfig::default(),
        }
    }
}

/// Whether workers give each other the packets of flows that aren't theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redispatch {
    /// Unless it is known that the interface keeps both directions of a flow together.
    Auto,
    On,
    Off,
}

/// A parameter's value and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// "referee.toml:12:1", or "--set".
    pub place: String,
    pub set: Override,
}

impl Config {
    /// The file's settings, or the defaults without one.
    ///
    /// # Errors
    /// Usage: the file can't be read, or everything that is wrong in it.
    pub fn load(path: Option<&Path>) -> Result<Config, Failure> {
        match path {
            Some(path) => {
                let text = read(path)?;
                Config::parse(&path.display().to_string(), &text, path.parent().unwrap_or(Path::new("")))
            }
            None => Ok(Config::default()),
        }
    }

    /// `name` is what messages call the file, `folder` what relative paths in it start from.
    fn parse(name: &str, text: &str, folder: &Path) -> Result<Config, Failure> {
        let mut reader = Reader::new(name, text);
        let raw: Raw = match toml::from_str(text) {
            Ok(raw) => raw,
            Err(error) => return Err(reader.refused(&error)),
        };
        let mut config = Config::default();
        capture(&mut reader, &raw, &mut config);
        worker(&mut reader, &raw.worker, &mut config.worker);
        record(&mut reader, &raw.store, &mut config.record);
        judge(&mut reader, &raw.judge, &mut config.judge);
        config.store_dir = raw.store.dir.map(|dir| folder.join(dir));
        notify::notify(&mut reader, raw.notify, folder, &mut config.notify);
        rules(&mut reader, raw.rules, folder, &mut config);
        api::api(&mut reader, raw.api, folder, &mut config.api);
        match reader.errors.is_empty() {
            true => Ok(config),
            false => Err(Failure::usage(reader.errors.join("\n"))),
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |what: &str| {
        Failure::usage(format!("the settings in {} can't be read: {what}", path.display()))
            .help("name the file with --config")
    };
    let size = fs::metadata(path).map_err(|error| failed(&error.to_string()))?.len();
    if size > FILE_LIMIT {
        return Err(failed("it has more than 1 MiB, so it is something else"));
    }
    fs::read_to_string(path).map_err(|error| failed(&error.to_string()))
}

fn capture(r: &mut Reader<'_>, raw: &Raw, c: &mut Config) {
    r.set(&mut c.ring_packets, &raw.capture.ring_packets, "ring_packets", 64..=1 << 20, 1);
    if let Some(given) = &raw.capture.ring_packets
        && !c.ring_packets.is_power_of_two()
    {
        r.say(given.span(), "`ring_packets` is a power of two, such as 16384");
    }
    let choices = [("auto", BusyPoll::Auto), ("on", BusyPoll::On), ("off", BusyPoll::Off)];
    r.choose(&mut c.busy_poll, &raw.capture.busy_poll, "busy_poll", &choices);
    r.set(&mut c.packet_ring_mib, &raw.capture.packet_ring_mib, "packet_ring_mib", 1..=4096, 1);
    workers(r, &raw.capture, c);
    interfaces(r, &raw.capture, c);
    let choices = [("verify", rss::Choice::Verify), ("set", rss::Choice::Set)];
    r.choose(&mut c.rss, &raw.capture.rss, "rss", &choices);
    let choices = [("auto", ClockChoice::Auto), ("nic", ClockChoice::Nic), ("kernel", ClockChoice::Kernel)];
    r.choose(&mut c.clock, &raw.capture.clock, "clock", &choices);
    r.set(&mut c.demand_bytes, &raw.capture.demand_mib, "demand_mib", 1..=1 << 20, MIB);
    if let given @ Some(_) = &raw.capture.payload_bytes {
        r.set(c.worker.payload_bytes.insert(0), given, "payload_bytes", 0..=262_144, 1);
    }
    let mut deadline_ms = c.body_deadline.as_millis() as u64;
    r.set(&mut deadline_ms, &raw.judge.body_deadline_ms, "body_deadline_ms", 1..=60_000, 1);
    c.body_deadline = Duration::from_millis(deadline_ms);
}

fn interfaces(r: &mut Reader<'_>, raw: &raw::Capture, c: &mut Config) {
    let Some(given) = &raw.interfaces else { return };
    c.interfaces.clone_from(given.get_ref());
    if c.interfaces.iter().any(String::is_empty) || c.interfaces.is_empty() {
        r.say(given.span(), "`interfaces` names those to capture from, such as [\"eth1\"]");
    }
}

fn workers(r: &mut Reader<'_>, raw: &raw::Capture, c: &mut Config) {
    r.set(&mut c.workers, &raw.workers, "workers", 0..=256, 1);
    if let Some(given) = &raw.cores {
        c.cores_place = r.place(given.span());
        c.cores = given.get_ref().iter().map(|&core| usize::try_from(core).unwrap_or(usize::MAX)).collect();
        if c.cores.iter().collect::<BTreeSet<_>>().len() < c.cores.len() {
            r.say(given.span(), "`cores` names one twice");
        } else if c.workers as usize > c.cores.len() {
            r.say(given.span(), "`cores` names fewer than there are `workers`: give each one of its own");
        }
    }
    let choices = [("auto", Redispatch::Auto), ("on", Redispatch::On), ("off", Redispatch::Off)];
    r.choose(&mut c.redispatch, &raw.redispatch, "redispatch", &choices);
}

fn worker(r: &mut Reader<'_>, raw: &raw::Worker, c: &mut WorkerConfig) {
    r.set(&mut c.flows, &raw.flows, "flows", 64..=1 << 25, 1);
    r.set(&mut c.half_open, &raw.half_open, "half_open", 64..=1 << 25, 1);
    r.set(&mut c.troubled, &raw.troubled, "troubled", 1..=1 << 25, 1);
    r.set(&mut c.history_bytes, &raw.history_mib, "history_mib", 1..=1 << 18, MIB);
    r.set(&mut c.snap_bytes, &raw.snap_bytes, "snap_bytes", 0..=262_144, 1);
    r.set(&mut c.cutoff_bytes, &raw.cutoff_kib, "cutoff_kib", 0..=1 << 30, KIB);
    r.set(&mut c.tails, &raw.tails, "tails", 1..=1 << 20, 1);
    r.set(&mut c.hold.holds, &raw.holds, "holds", 1..=1 << 16, 1);
    r.set(&mut c.hold.pool_bytes, &raw.hold_pool_mib, "hold_pool_mib", 1..=1 << 14, MIB);
    let rate = &raw.holds_per_rule_per_second;
    r.set(&mut c.hold.per_rule_per_second, rate, "holds_per_rule_per_second", 0..=65_535, 1);
    r.set(&mut c.messages, &raw.messages, "messages", 512..=1 << 20, 1);
    r.set(&mut c.activity, &raw.activity, "activity", 64..=1 << 22, 1);
    r.set(&mut c.siblings, &raw.siblings, "siblings", 64..=1 << 20, 1);
    r.set(&mut c.fragmented, &raw.fragmented, "fragmented", 16..=1 << 20, 1);
    r.set(&mut c.copies, &raw.copies, "copies", 16..=1 << 22, 1);
    let t = &mut c.timeouts;
    r.set(&mut t.half_open, &raw.timeout_half_open_s, "timeout_half_open_s", 1..=DAY_S, SECOND);
    r.set(&mut t.established, &raw.timeout_established_s, "timeout_established_s", 1..=30 * DAY_S, SECOND);
    r.set(&mut t.closed, &raw.timeout_closed_s, "timeout_closed_s", 1..=DAY_S, SECOND);
    r.set(&mut t.other, &raw.timeout_other_s, "timeout_other_s", 1..=30 * DAY_S, SECOND);
}

fn record(r: &mut Reader<'_>, raw: &raw::Store, c: &mut RecordConfig) {
    r.set(&mut c.store_bytes, &raw.max_mib, "max_mib", 1..=1 << 34, MIB);
    r.set(&mut c.incidents_bytes, &raw.incidents_max_mib, "incidents_max_mib", 1..=1 << 20, MIB);
    r.set(&mut c.store_age, &raw.max_age_h, "max_age_h", 0..=87_600, 3600 * SECOND);
    r.set(&mut c.segment_bytes, &raw.segment_mib, "segment_mib", 1..=4096, MIB);
    r.set(&mut c.segment_age, &raw.segment_age_s, "segment_age_s", 1..=DAY_S, SECOND);
    r.set(&mut c.chunk_bytes, &raw.chunk_kib, "chunk_kib", 64..=16_384, KIB);
    r.set(&mut c.chunks, &raw.chunks, "chunks", 8..=1 << 16, 1);
    r.set(&mut c.chunk_age, &raw.chunk_age_ms, "chunk_age_ms", 10..=3_600_000, MS);
    r.set(&mut c.compression_level, &raw.compression_level, "compression_level", 1..=19, 1);
}

fn judge(r: &mut Reader<'_>, raw: &raw::Judge, c: &mut JudgeConfig) {
    r.set(&mut c.settle, &raw.settle_ms, "settle_ms", 0..=3_600_000, MS);
    r.set(&mut c.quiet, &raw.quiet_s, "quiet_s", 1..=DAY_S, SECOND);
    r.set(&mut c.before_storm, &raw.before_storm_ms, "before_storm_ms", 0..=3_600_000, MS);
    let per_incident = &raw.captures_per_incident;
    r.set(&mut c.captures_per_incident, per_incident, "captures_per_incident", 0..=100_000, 1);
    let limits = &mut c.default_limits;
    r.set(&mut limits.packets, &raw.capture_packets, "capture_packets", 0..=u64::from(u32::MAX), 1);
    r.set(&mut limits.bytes, &raw.capture_kib, "capture_kib", 0..=1 << 30, KIB);
    r.set(&mut limits.nanos, &raw.capture_s, "capture_s", 0..=30 * DAY_S, SECOND);
    r.set(&mut c.max_open, &raw.max_open, "max_open", 1..=1 << 20, 1);
    r.set(&mut c.max_hosts, &raw.max_hosts, "max_hosts", 1..=1 << 20, 1);
    r.set(&mut c.max_services, &raw.max_services, "max_services", 1..=1 << 20, 1);
    r.set(&mut c.max_known, &raw.max_known, "max_known", 1..=1 << 24, 1);
    r.set(&mut c.max_kept, &raw.max_kept, "max_kept", 1..=1 << 24, 1);
    r.set(&mut c.failures_before_off, &raw.failures_before_off, "failures_before_off", 1..=1 << 30, 1);
    r.set(&mut c.body_limits.operations, &raw.body_operations, "body_operations", 1..=1 << 40, 1);
}

fn rules(r: &mut Reader<'_>, raw: raw::Rules, folder: &Path, config: &mut Config) {
    for (key, entry) in raw.entries {
        match (key.get_ref().as_str(), entry.into_inner()) {
            ("dir", Entry::Text(dir)) => config.rules_dir = Some(folder.join(dir)),
            ("keep", Entry::Text(dir)) => config.rules_keep = Some(folder.join(dir)),
            ("library", Entry::Bool(yes)) => config.rules_library = yes,
            (own @ ("dir" | "keep"), _) => {
                r.say(key.span(), &format!("`{own}` is a folder's path, in quotes"));
            }
            ("library", _) => r.say(key.span(), "`library` is true or false"),
            (other, Entry::Text(_) | Entry::Bool(_)) => {
                let near = nearest(other, &["dir", "keep", "library"]).unwrap_or("dir");
                r.say(key.span(), &format!("unknown key `{other}` in [rules]; did you mean `{near}`?"));
            }
            (rule, Entry::Params(params)) => {
                for (param, value) in params {
                    let value = match value {
                        Value::String(text) => text,
                        Value::Integer(number) => number.to_string(),
                        Value::Float(number) => number.to_string(),
                        Value::Boolean(yes) => yes.to_string(),
                        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                            r.say(param.span(), "a parameter is a number, true, false or a text");
                            continue;
                        }
                    };
                    let place = r.place(param.span());
                    let set = Override { rule: rule.to_owned(), param: param.into_inner(), value };
                    config.params.push(Placed { place, set });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse("r.toml", text, Path::new("/etc/referee")).map_err(|failure| failure.to_string())
    }

    #[test]
    fn units_reach_the_settings() {
        let text = "[worker]\nflows = 1_000\nhistory_mib = 2\ntimeout_closed_s = 3\n\
             [store]\ndir = \"kept\"\nmax_mib = 5\nmax_age_h = 72\ncompression_level = 7\n[judge]\nsettle_ms = 4\n\
             [rules]\ndir = \"/opt/rules\"\n[rules.rst_after_idle]\nidle_ms = 5_000\n";
        let config = parse(text).unwrap();
        assert_eq!((config.worker.flows, config.worker.history_bytes), (1000, 2 << 20));
        assert_eq!(config.worker.timeouts.closed, 3 * SECOND);
        assert_eq!((config.worker.payload_bytes, config.demand_bytes), (None, 256 << 20));
        let config = parse("[capture]\npayload_bytes = 0\ndemand_mib = 5\n").unwrap();
        assert_eq!((config.worker.payload_bytes, config.demand_bytes), (Some(0), 5 << 20));
        let config = parse(text).unwrap();
        assert_eq!((config.record.store_bytes, config.record.compression_level), (5 << 20, 7));
        assert_eq!(config.judge.settle, 4 * MS);
        assert_eq!(config.record.store_age, 72 * 3_600_000_000_000);
        assert_eq!(config.store_dir, Some("/etc/referee/kept".into()));
        assert_eq!(config.rules_dir, Some("/opt/rules".into()));
        let set = Override { rule: "rst_after_idle".into(), param: "idle_ms".into(), value: "5000".into() };
        assert_eq!(config.params, [Placed { place: "r.toml:15:1".into(), set }]);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest() {
        let error = parse("[worker]\n\nhistory_mb = 2\n").unwrap_err();
        assert_eq!(
            error,
            "r.toml:3:1: there is no key `history_mb` here\n  help: did you mean `history_mib`?"
        );
        let error = parse("[capture]\nring_packets = 1000\n").unwrap_err();
        assert_eq!(error, "r.toml:2:16: `ring_packets` is a power of two, such as 16384");
        let error = parse("[capture]\nredispatch = \"maybe\"\ncores = [2, 2]\n").unwrap_err();
        let expected = "r.toml:3:9: `cores` names one twice\n\
                        r.toml:2:14: `redispatch` is \"maybe\"; give \"auto\", \"on\" or \"off\"";
        assert_eq!(error, expected);
        let error = parse("[capture]\nworkers = 2\ncores = [3]\n").unwrap_err();
        assert!(error.starts_with("r.toml:3:9: `cores` names fewer"), "{error}");
        let config = parse("[capture]\nworkers = 2\ncores = [3, 1]\nredispatch = \"off\"\n").unwrap();
        assert_eq!((config.workers, config.cores, config.redispatch), (2, vec![3, 1], Redispatch::Off));
        let error = parse("[capture]\ninterfaces = []\n").unwrap_err();
        assert!(error.starts_with("r.toml:2:14: `interfaces` names those"), "{error}");
        let config = parse("[capture]\ninterfaces = [\"eth1\", \"eth2\"]\n").unwrap();
        assert_eq!(config.interfaces, ["eth1", "eth2"]);
        let error = parse("[capture]\nrss = \"yes\"\n").unwrap_err();
        assert_eq!(error, "r.toml:2:7: `rss` is \"yes\"; give \"verify\" or \"set\"");
        let error = parse("[capture]\nclock = \"gps\"\n").unwrap_err();
        assert_eq!(error, "r.toml:2:9: `clock` is \"gps\"; give \"auto\", \"nic\" or \"kernel\"");
        assert_eq!(parse("[capture]\nclock = \"nic\"\n").unwrap().clock, ClockChoice::Nic);
        assert_eq!(parse("[capture]\nrss = \"set\"\n").unwrap().rss, rss::Choice::Set);
        let error = parse("[wurker]\n").unwrap_err();
        assert!(error.starts_with("r.toml:1:2: ") && error.ends_with("did you mean `worker`?"), "{error}");
        let error = parse("[store]\nbanana = 2\n").unwrap_err();
        assert!(error.contains("there are dir, max_mib"), "{error}");
        let error = parse("[rules]\ndri = \"x\"\n").unwrap_err();
        assert_eq!(error, "r.toml:2:1: unknown key `dri` in [rules]; did you mean `dir`?");
        let error = parse("[rules]\nlibary = true\ndir = true\nlibrary = \"x\"\n").unwrap_err();
        let expected = "r.toml:3:1: `dir` is a folder's path, in quotes\n\
                        r.toml:2:1: unknown key `libary` in [rules]; did you mean `library`?\n\
                        r.toml:4:1: `library` is true or false";
        assert_eq!(error, expected);
        let config = parse("[rules]\ndir = \"r\"\nlibrary = true\nkeep = \"/k\"\n").unwrap();
        assert_eq!((config.rules_library, config.rules_keep), (true, Some("/k".into())));
    }

    #[test]
    fn all_numbers_out_of_range_are_named() {
        let error = parse("[worker]\nflows = 1\n[store]\nchunks = 9_000_000\n").unwrap_err();
        let expected = "r.toml:2:9: `flows` is 1; give 64 to 33554432\n\
                        r.toml:4:10: `chunks` is 9000000; give 8 to 65536";
        assert_eq!(error, expected);
        assert!(parse("[worker\n").unwrap_err().starts_with("r.toml:1:"));
        let error = parse("[rules.x]\na = [1]\n").unwrap_err();
        assert_eq!(error, "r.toml:2:1: a parameter is a number, true, false or a text");
    }

    #[test]
    fn what_is_of_another_kind_is_said_in_plain_words() {
        for (text, said) in [
            ("[worker]\nflows = -1\n", "2:9: `flows` is -1; give a whole number, 0 or more"),
            ("[worker]\nflows = \"many\"\n", "2:9: `flows` is \"many\"; give a whole number, 0 or more"),
            ("[worker]\nflows = 1.5\n", "2:9: `flows` is 1.5; give a whole number, 0 or more"),
            ("worker = { flows = true }\n", "1:20: `flows` is true; give a whole number, 0 or more"),
            ("[worker]\nflows = [1]\n", "2:9: `flows` is a list; give a whole number, 0 or more"),
            (
                "[capture]\ninterfaces = \"eth1\"\n",
                "2:14: `interfaces` is \"eth1\"; give a list in brackets, such as [\"eth1\"]",
            ),
            ("[capture]\ncores = 3\n", "2:9: `cores` is 3; give a list in brackets, such as [2, 3]"),
            ("[capture]\ncores = [3, \"x\"]\n", "2:13: `cores` is \"x\"; give a whole number, 0 or more"),
            ("[store]\ndir = 7\n", "2:7: `dir` is 7; give a text in quotes"),
            (
                "worker = 3\n",
                "1:10: `worker` is 3; give a table: [worker] on a line of its own, its keys below",
            ),
            (
                "[capture]\nbusy_poll = \"onn\"\n",
                "2:13: `busy_poll` is \"onn\"; give \"auto\", \"on\" or \"off\"; did you mean \"on\"?",
            ),
            (
                "[rules]\nx = 5\n",
                "2:5: `x` is 5; give `dir = \"FOLDER\"`, `library = true`, or a table of a rule's parameters like `[rules.NAME]`",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), format!("r.toml:{said}"), "{text}");
        }
        let twice = parse("[worker]\nflows = 100\nflows = 200\n").unwrap_err();
        assert!(twice == "r.toml:3:1: `flows` is given twice", "{twice}");
        for text in ["[worker]\nflows = 12 monkeys\n", "[worker]\nflows\n", "x = \"\n"] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("r.toml:") && !error.contains("u64"), "{error}");
        }
    }

    #[test]
    fn the_largest_of_every_number_is_taken() {
        let limits = "[worker]\nflows = 33554432\nhistory_mib = 262144\ncutoff_kib = 1073741824\n\
                      [store]\nmax_mib = 17179869184\n[judge]\ncapture_packets = 4294967295\n";
        let config = parse(limits).unwrap();
        assert_eq!(config.record.store_bytes, 1 << 54);
    }
}
