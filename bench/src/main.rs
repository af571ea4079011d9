//! What a packet costs, stage by stage, against a floor measured in the same run on the same core.
//!
//! One thread, pinned; makes its input once, then takes the stages in turn, so that a machine that slows down
//! slows all of them. Exits with 1 if anything contradicts itself (books, allocations, packets lost), never
//! because of speed. The numbers go to `report`.

mod alloc;
mod clocked;
mod host;
mod input;
mod many_rules;
mod report;
mod rules;
mod stages;
mod whole;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use ::rules::RuleSet;
use anyhow::{Context, Result, bail};
use clap::Parser;

use input::{Input, Kind, progress};
use report::{Report, Stage, TABLE_LIMIT, Workload};
use stages::Seen;
use whole::Totals;

/// What a packet costs, stage by stage, against a floor measured in the same run.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Packets; by default 3,000,000. The million has three more a flow, for its handshakes
    #[arg(long)]
    packets: Option<u64>,
    /// Flows; by default 100,000 for the mix and 1,000,000 for the million
    #[arg(long)]
    flows: Option<u64>,
    /// Runs of each stage
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// One part only
    #[arg(long)]
    only: Option<Only>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Small inputs and one run: whether it all adds up, in seconds
    #[arg(long)]
    quick: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    Mix,
    Million,
    /// What rules cost; the mix goes through it
    Rules,
}

impl Cli {
    fn wants(&self, part: Only) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    fn runs(&self) -> usize {
        if self.quick { 1 } else { self.runs.into() }
    }

    fn flows(&self, kind: Kind) -> u64 {
        self.flows.unwrap_or(match (kind, self.quick) {
            (Kind::Mix, false) => 100_000,
            (Kind::Mix, true) => 10_000,
            (Kind::Million, false) => 1_000_000,
            (Kind::Million, true) => 50_000,
        })
    }

    fn packets(&self, kind: Kind) -> u64 {
        self.packets.unwrap_or(match (kind, self.quick) {
            (_, false) => 3_000_000,
            (Kind::Mix, true) => 300_000,
            (Kind::Million, true) => 150_000,
        })
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            progress(&format!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// True if nothing contradicted itself.
fn run(cli: &Cli) -> Result<bool> {
    let core = dataplane_sys::first_allowed_core().context("cannot tell the CPUs this process may use")?;
    dataplane_sys::pin_to_core(core).with_context(|| format!("cannot pin to CPU {core}"))?;
    let rules = match RuleSet::load(&::rules::library(), &[]) {
        Ok(rules) => Arc::new(rules),
        Err(errors) => {
            bail!("the shipped rules: {}", errors.iter().map(|e| format!("{e}; ")).collect::<String>())
        }
    };
    let host = host::Host::read(core);
    let mut report = Report { host, runs: cli.runs(), workloads: Vec::new(), rules: None };
    for (kind, part) in [(Kind::Mix, Only::Mix), (Kind::Million, Only::Million)] {
        let with_rules = kind == Kind::Mix && cli.wants(Only::Rules);
        if !cli.wants(part) && !with_rules {
            continue;
        }
        let (flows, packets) = (cli.flows(kind), cli.packets(kind));
        if flows == 0 || flows > 16_000_000 || packets == 0 {
            bail!("{flows} flows and {packets} packets: give 1 to 16,000,000 flows and at least one packet");
        }
        let input = Input::make(kind, flows, packets)?;
        if cli.wants(part) {
            report.workloads.push(measure(&input, &rules, cli.runs())?);
        }
        if with_rules {
            report.rules = Some(rules::measure(&input, cli.runs())?);
        }
    }
    let text = if cli.json { serde_json::to_string(&report)? + "\n" } else { report.text() };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the report")?;
    let complaints = report.complaints();
    for complaint in &complaints {
        progress(&format!("bench: {complaint}"));
    }
    Ok(complaints.is_empty())
}

/// The stages, and which one each adds to. The last two are parts of the one before, timed apart.
const STAGES: [(&str, Option<usize>); 8] = [
    ("stream", None),
    ("memory floor", Some(0)),
    ("decode and hash", Some(0)),
    ("flows and analysis", Some(2)),
    ("worker", Some(3)),
    ("worker and recorder", Some(4)),
    ("judge", None),
    ("writer", None),
];

/// Takes the stages in turn, `runs` times.
fn measure(input: &Input, rules: &Arc<RuleSet>, runs: usize) -> Result<Workload> {
    let mut times: [Vec<f64>; STAGES.len()] = Default::default();
    let mut complaints = Vec::new();
    let mut analysed = Seen::default();
    let mut totals = Totals::default();
    // Once unclocked, so that the page cache has all of the file.
    stages::stream(input)?;
    for run in 0..runs {
        progress(&format!("{}: run {} of {runs}", input.kind.name(), run + 1));
        for (stage, (name, _)) in STAGES.iter().enumerate().take(6) {
            let seen = match stage {
                0 => stages::stream(input)?,
                1 => stages::memory(input)?,
                2 => stages::decoded(input)?,
                3 => {
                    analysed = stages::analysed(input)?;
                    analysed
                }
                _ => {
                    let whole = whole::worker(input, rules, stage == 5)?;
                    complaints.extend(whole.complaints.into_iter().map(|what| format!("{name}: {what}")));
                    totals = whole.totals;
                    whole.seen
                }
            };
            check(input, name, &seen, stage, &mut complaints);
            let elsewhere = if stage >= 4 { totals.judge_ns + totals.writer_ns } else { 0.0 };
            times[stage].push(seen.timing.ns_per_packet() - elsewhere);
        }
        times[6].push(totals.judge_ns);
        times[7].push(totals.writer_ns);
    }
    let mut done: Vec<Stage> = Vec::with_capacity(STAGES.len());
    for ((name, below), ns) in STAGES.iter().zip(times) {
        let below = below.map_or(0.0, |stage| done[stage].median);
        done.push(Stage::new(name, ns, below));
    }
    complaints.sort();
    complaints.dedup();
    Ok(Workload::new(input, done, &analysed, totals, complaints))
}

/// What has to be true of every stage.
fn check(input: &Input, name: &str, seen: &Seen, stage: usize, complaints: &mut Vec<String>) {
    if (seen.packets, seen.bytes) != (input.packets, input.bytes) {
        let made = format!("{} packets of {} bytes were made", input.packets, input.bytes);
        complaints.push(format!("{name}: {made}, {} of {} came", seen.packets, seen.bytes));
    }
    if seen.timing.packets == 0 {
        complaints.push(format!("{name}: no packet was timed"));
    }
    if stage >= 3 && input.kind == Kind::Million && u64::from(seen.peak) < input.flows {
        complaints.push(format!("{name}: {} flows alive at most, {} were made", seen.peak, input.flows));
    }
    // The limit is for a million flows; a table asked to hold more may take more.
    if input.flows <= 1_000_000 && seen.table_bytes > TABLE_LIMIT {
        complaints.push(format!("{name}: the flow table takes {} bytes", seen.table_bytes));
    }
}
