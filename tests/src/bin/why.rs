//! `why CASE` or `why FILE`: replays one hand-kept case, or any capture file, and prints for each packet that
//! raised something what changed, which guards were asked, what they said, and what came of it.
//!
//! A tool for whoever works on rules or analysis; `make why CASE=name` runs it. One thread, no recording but
//! the judge's words keep and release.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use dataplane::config::WorkerConfig;
use dataplane::decode::{Class, decode, flags};
use dataplane::judge::message::{Command, Hit, Message};
use dataplane::record::RecordConfig;
use dataplane::source::Source;
use dataplane::source::file::FileSource;
use dataplane::worker::Step;
use rules::{Override, SourceFile};
use tests::case::{self, Case};
use tests::disk::MemDisk;
use tests::explain::{self, Answer, Guards, OneByOne};
use tests::{Pipeline, Setup};

const HELP: &str = "usage: why [--all] CASE|FILE

Prints packets that raised an event some rule waits for (with --all: any event):
number, time since the first packet, direction, flags, length; the facts that changed since the flow's last
event; each guard asked, with the first of its conditions that did not hold; verdicts and incidents.

What it can't show: facts between events (they are seen only when an event is raised); which fact of a
condition is unknown rather than false; host and service windows (only the incidents they end in). Observer
rules ride along: they take 4 of the 12 places a flow has for rules, and change the rules' hash.";

struct Why {
    pipeline: Pipeline<OneByOne<FileSource>>,
    guards: Guards,
    names: Vec<String>,
    all: bool,
    first_ns: Option<u64>,
    number: u64,
    /// The facts of each flow at its last event.
    before: BTreeMap<u64, Vec<(&'static str, String)>>,
}

fn main() -> ExitCode {
    let mut all = false;
    let mut input = None;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--all" => all = true,
            "-h" | "--help" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => input = Some(argument),
        }
    }
    let Some(input) = input else {
        eprintln!("{HELP}\n\ncases: {}", case::names().join(", "));
        return ExitCode::from(2);
    };
    match open(&input) {
        Ok((source, config, files, overrides)) => {
            Why::new(source, config, &files, &overrides, all).run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("why: {error}\ncases: {}", case::names().join(", "));
            ExitCode::from(3)
        }
    }
}

type Opened = (FileSource, WorkerConfig, Vec<SourceFile>, Vec<Override>);

fn open(input: &str) -> Result<Opened, String> {
    if Path::new(input).is_file() {
        let source = FileSource::open(Path::new(input)).map_err(|error| error.to_string())?;
        return Ok((source, WorkerConfig::small(), rules::library(), Vec::new()));
    }
    let case = Case::load(input)?;
    println!("{}", case.about.trim());
    Ok((case.source(input), case.config(), case.rule_files(input), case.overrides()))
}

impl Why {
    fn new(
        source: FileSource,
        config: WorkerConfig,
        files: &[SourceFile],
        overrides: &[Override],
        all: bool,
    ) -> Why {
        let rules = explain::with_observers(files, overrides);
        let names = rules.rules().iter().map(|rule| rule.name.clone()).collect();
        // A recorder, so that flows are held and the judge's words mean something.
        let setup = Setup::with(config, rules).recording(RecordConfig::default(), MemDisk::new());
        Why {
            pipeline: Pipeline::new(OneByOne::new(source), setup),
            guards: Guards::new(files, overrides),
            names,
            all,
            first_ns: None,
            number: 0,
            before: BTreeMap::new(),
        }
    }

    fn run(mut self) {
        loop {
            let step = self.pipeline.worker.step();
            // What was asked comes before what was answered, though a worker sends the shipped rules' hits first.
            let (mut events, mut lines) = (Vec::new(), Vec::new());
            while let Some(message) = self.pipeline.message() {
                self.hear(&message, &mut events, &mut lines);
            }
            for incident in self.pipeline.collect() {
                lines.push(format!(
                    "  incident opens: {} ({}): {}",
                    incident.kind, incident.severity, incident.explain
                ));
            }
            self.pipeline.write();
            let head = self.packet();
            events.append(&mut lines);
            if !events.is_empty() {
                println!("{head}\n{}", events.join("\n"));
            }
            if step == Step::Done {
                break;
            }
        }
        let report = self.pipeline.worker.source().inner().report();
        let outcome = self.pipeline.finish();
        println!("\n{report}");
        for i in &outcome.incidents {
            println!(
                "incident: {} ({}), {} events, {} flows: {}",
                i.kind, i.severity, i.count, i.flows, i.explain
            );
        }
        println!("{} packets kept for captures", outcome.account.kept.kept);
    }

    /// The packet of the step just made, as the left column shows it.
    fn packet(&mut self) -> String {
        let source = self.pipeline.worker.source();
        let Some(packet) = source.last else { return "end of input".to_owned() };
        let decoded = decode(packet.link, source.bytes(&packet), packet.orig_len);
        self.number += 1;
        let since = packet.ts.saturating_sub(*self.first_ns.get_or_insert(packet.ts));
        let (low, high) = (decoded.key.low_addr(), decoded.key.high_addr());
        let (low, high) =
            (format!("{low}:{}", decoded.key.low_port), format!("{high}:{}", decoded.key.high_port));
        let (from, to) = if decoded.from_low { (low, high) } else { (high, low) };
        let time = format!("{}.{:06}", since / 1_000_000_000, since % 1_000_000_000 / 1000);
        let what = match decoded.class {
            Class::Tcp => format!("{} len {}", shown_flags(decoded.tcp.flags), decoded.tcp.payload),
            class => class.name().to_owned(),
        };
        format!("#{} {time} s  {from} > {to}  {what}", self.number)
    }

    fn hear(&mut self, message: &Message, events: &mut Vec<String>, lines: &mut Vec<String>) {
        if let Message::Hit(hit) = message {
            let name = self.names[usize::from(hit.rule)].clone();
            if explain::is_observer(&name) {
                self.pipeline.pass_over();
                self.event(hit, events);
                return;
            }
            lines.push(format!("  hit: {name}{}", if hit.held { ", held" } else { "" }));
        }
        for command in self.pipeline.judge(message) {
            lines.push(match command {
                Command::Keep { flow_id, limits } => {
                    format!("  judge: keep {flow_id:016x} within {limits:?}")
                }
                Command::Release { flow_id } => format!("  judge: release {flow_id:016x}"),
                Command::Watch { whose, flows, .. } => {
                    format!("  judge: record the next {} flows of {whose:?}", flows.all)
                }
            });
        }
    }

    /// An event some observer saw: what changed, and what the guards say.
    fn event(&mut self, hit: &Hit, lines: &mut Vec<String>) {
        let answers = self.guards.ask(hit.event, &hit.facts);
        let now = explain::facts(&hit.facts);
        let before = self.before.insert(hit.facts.flow_id, now.clone());
        if answers.is_empty() && !self.all {
            return;
        }
        let timer = if hit.packet.is_none() { " (timer)" } else { "" };
        let f = &hit.facts;
        let who = format!("{}:{} > {}:{}", f.src, f.sport, f.dst, f.dport);
        lines.push(format!("  {}{timer} on flow {:016x} {who}", hit.event.name(), f.flow_id));
        let was = |path| {
            before.as_ref().and_then(|all| all.iter().find(|(p, _)| *p == path)).map(|(_, v)| v.clone())
        };
        let changed = now.iter().filter_map(|(path, value)| match was(*path) {
            Some(old) if old != *value => Some(format!("{path} {old} → {value}")),
            _ => None,
        });
        let changed: Vec<String> = changed.collect();
        if !changed.is_empty() {
            lines.push(format!("    changed: {}", changed.join(", ")));
        }
        for (rule, answer) in answers {
            lines.push(match answer {
                Answer::Matched => format!("    {rule}: matched"),
                Answer::Failed(Some(condition)) => {
                    format!("    {rule}: no, not known to be true: {condition}")
                }
                Answer::Failed(None) => format!("    {rule}: no"),
            });
        }
    }
}

/// Flags as letters: SAFRP, and a dot for a bare ACK.
fn shown_flags(bits: u8) -> String {
    let letters = [
        (flags::SYN, 'S'),
        (flags::FIN, 'F'),
        (flags::RST, 'R'),
        (flags::PSH, 'P'),
        (flags::ECE, 'E'),
        (flags::CWR, 'W'),
        (flags::ACK, '.'),
    ];
    let shown: String =
        letters.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, letter)| letter).collect();
    format!("[{shown}]")
}
