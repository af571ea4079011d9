//! Hand-kept replay cases: a folder under `cases/` with a `case.toml` that says what goes in and what must
//! come out. A crash or a wrong verdict becomes one without a line of code.
//!
//! Read by `replay_cases` (all of them) and `why` (one). Unknown keys are refused, so that a misspelt
//! expectation does not pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dataplane::config::WorkerConfig;
use dataplane::source::file::FileSource;
use rules::{Override, SourceFile};
use serde::Deserialize;
use wiregen::scenario::Options;

use crate::captures::{self, NG};
use crate::run::{self, Outcome, Pipeline, Setup};

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about, and where it comes from.
    pub about: String,
    pub input: Input,
    /// Rule files in the case's folder, instead of the shipped rules.
    #[serde(default)]
    pub rules: Vec<String>,
    /// `rule.param=value`, as `--set` takes them.
    #[serde(default)]
    pub set: Vec<String>,
    #[serde(default)]
    pub worker: Sizes,
    /// All incidents there must be, in any order.
    #[serde(default)]
    pub incident: Vec<Expected>,
    /// How many flows must have each of these findings.
    #[serde(default)]
    pub findings: BTreeMap<String, u64>,
    /// The input can't be read to its end.
    #[serde(default)]
    pub damaged: bool,
}

/// A scenario of the generator, or a capture file in the case's folder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    pub scenario: Option<String>,
    pub file: Option<String>,
    pub seed: Option<u64>,
    pub flows: Option<u32>,
    pub one_in: Option<u32>,
    pub idle_s: Option<f64>,
    pub v6: bool,
    pub vlan: [u16; 2],
}

/// Sizes that differ from a small worker's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sizes {
    pub flows: Option<u32>,
    pub half_open: Option<u32>,
    pub troubled: Option<u32>,
    pub history_bytes: Option<usize>,
}

/// An incident there must be; what is not given may be anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub kind: String,
    pub severity: Option<String>,
    pub count: Option<u64>,
    pub flows: Option<u64>,
    /// Each of these is somewhere in its explanation.
    #[serde(default)]
    pub explains: Vec<String>,
}

/// The folder of all cases.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Names of all cases, in order.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the cases are part of the crate");
    let folders = entries.flatten().filter(|entry| entry.path().join("case.toml").is_file());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Case {
    /// # Errors
    /// What is wrong with `case.toml`, in words.
    pub fn load(name: &str) -> Result<Case, String> {
        let path = folder().join(name).join("case.toml");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The rule files it runs with.
    pub fn rule_files(&self, name: &str) -> Vec<SourceFile> {
        if self.rules.is_empty() {
            return rules::library();
        }
        let read = |file: &String| {
            let path = folder().join(name).join(file);
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            SourceFile { name: file.clone(), text }
        };
        self.rules.iter().map(read).collect()
    }

    pub fn overrides(&self) -> Vec<Override> {
        let parse = |text: &String| {
            let (path, value) = text.split_once('=').unwrap_or_else(|| panic!("set {text:?}: no `=`"));
            let (rule, param) = path.split_once('.').unwrap_or_else(|| panic!("set {text:?}: no `.`"));
            Override { rule: rule.to_owned(), param: param.to_owned(), value: value.to_owned() }
        };
        self.set.iter().map(parse).collect()
    }

    pub fn source(&self, name: &str) -> FileSource {
        let input = &self.input;
        match (&input.scenario, &input.file) {
            (Some(scenario), None) => {
                let options = Options {
                    seed: input.seed.unwrap_or(1),
                    v6: input.v6,
                    vlan: input.vlan,
                    idle_s: input.idle_s,
                    flows: input.flows,
                    one_in: input.one_in,
                    ..Options::default()
                };
                let (packets, _) = captures::scenario(scenario, &options);
                captures::opened(captures::file(&packets, NG))
            }
            (None, Some(file)) => {
                FileSource::open(&folder().join(name).join(file)).unwrap_or_else(|error| panic!("{error}"))
            }
            _ => panic!("case {name}: give `scenario` or `file` under [input], not both"),
        }
    }

    pub fn config(&self) -> WorkerConfig {
        let small = WorkerConfig::small();
        WorkerConfig {
            flows: self.worker.flows.unwrap_or(small.flows),
            half_open: self.worker.half_open.unwrap_or(small.half_open),
            troubled: self.worker.troubled.unwrap_or(small.troubled),
            history_bytes: self.worker.history_bytes.unwrap_or(small.history_bytes),
            ..small
        }
    }

    /// Runs it; gives what differs from what it expects.
    pub fn complaints(&self, name: &str) -> Vec<String> {
        let rules = run::load(&self.rule_files(name), &self.overrides());
        let mut pipeline = Pipeline::new(self.source(name), Setup::with(self.config(), rules));
        while pipeline.worker.step() != dataplane::worker::Step::Done {
            pipeline.hear(usize::MAX);
        }
        let complete = pipeline.worker.source().report().complete;
        let mut complaints = self.compare(&pipeline.finish());
        if complete == self.damaged {
            complaints.push(format!("wanted damaged = {}, but complete is {complete}", self.damaged));
        }
        complaints.into_iter().map(|complaint| format!("case {name}: {complaint}\n")).collect()
    }

    fn compare(&self, outcome: &Outcome) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut left: Vec<_> = outcome.incidents.iter().collect();
        for wanted in &self.incident {
            match left.iter().position(|incident| wanted.fits(incident)) {
                Some(at) => drop(left.remove(at)),
                None => complaints.push(format!("no incident like {wanted:?}")),
            }
        }
        let more = left
            .iter()
            .map(|i| format!("{} of {:?}, count {}, {} flows", i.kind, i.subject, i.count, i.flows));
        complaints.extend(more.map(|incident| format!("an incident not asked for: {incident}")));
        for (kind, wanted) in &self.findings {
            let got = outcome.rows.iter().filter(|row| row.findings.contains_key(kind)).count() as u64;
            if got != *wanted {
                complaints.push(format!("wanted {kind} on {wanted} flows, got it on {got}"));
            }
        }
        complaints
    }
}

impl Expected {
    fn fits(&self, incident: &dataplane::judge::Incident) -> bool {
        incident.kind == self.kind
            && self.severity.as_ref().is_none_or(|severity| incident.severity.as_str() == severity)
            && self.count.is_none_or(|count| incident.count == count)
            && self.flows.is_none_or(|flows| incident.flows == flows)
            && self.explains.iter().all(|words| incident.explain.contains(words))
    }
}
