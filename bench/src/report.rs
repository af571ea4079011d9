//! What the runs come to: medians, differences between neighbouring stages, a table for people and one JSON
//! object for programs. After all clocks have stopped.

use std::fmt::Write;

use serde::Serialize;

use crate::host::Host;
use crate::input::{Input, Kind};
use crate::rules::Rules;
use crate::stages::Seen;
use crate::whole::Totals;

/// Bytes the flow table of a million live flows may take.
pub const TABLE_LIMIT: u64 = 512 << 20;

/// One stage over all runs.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    pub name: &'static str,
    /// ns a packet.
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Median less that of the stage it adds to, ns a packet.
    pub adds: f64,
    pub mpps: f64,
}

impl Stage {
    /// `ns` holds one number a run, at least one.
    pub fn new(name: &'static str, mut ns: Vec<f64>, below: f64) -> Stage {
        ns.sort_by(f64::total_cmp);
        let (min, max) = (ns[0], ns[ns.len() - 1]);
        let median = (ns[(ns.len() - 1) / 2] + ns[ns.len() / 2]) / 2.0;
        Stage {
            name,
            median,
            min,
            max,
            adds: median - below,
            mpps: if median > 0.0 { 1e3 / median } else { 0.0 },
        }
    }
}

/// A workload's results.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    pub name: &'static str,
    pub packets: u64,
    pub timed_packets: u64,
    pub bytes: u64,
    pub flows: u64,
    pub stages: Vec<Stage>,
    /// Of the stage with table and analysis.
    pub table_bytes: u64,
    /// Where the flows alive are what the table was sized for.
    pub table_bytes_per_live_flow: Option<f64>,
    pub keeper_bytes: u64,
    /// Of the last run with the recorder.
    pub totals: Totals,
    /// Whole worker over the memory floor.
    pub ratio: f64,
    /// The same, each without what reading the file costs.
    pub ratio_without_file: f64,
    pub complaints: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub host: Host,
    pub runs: usize,
    pub workloads: Vec<Workload>,
    pub rules: Option<Rules>,
}

/// Stages by name, for the ratios; what is not there is not a number.
pub fn median_of(stages: &[Stage], name: &str) -> f64 {
    stages.iter().find(|stage| stage.name == name).map_or(f64::NAN, |stage| stage.median)
}

impl Workload {
    pub fn new(
        input: &Input,
        stages: Vec<Stage>,
        analysed: &Seen,
        totals: Totals,
        complaints: Vec<String>,
    ) -> Self {
        let of = |name| median_of(&stages, name);
        let (stream, memory, worker) = (of("stream"), of("memory floor"), of("worker"));
        let slots = u64::from(input.config.flows + input.config.half_open);
        Workload {
            name: input.kind.name(),
            packets: input.packets,
            timed_packets: analysed.timing.packets,
            bytes: input.bytes,
            flows: input.flows,
            table_bytes: analysed.table_bytes,
            table_bytes_per_live_flow: (input.kind == Kind::Million)
                .then(|| analysed.table_bytes as f64 / f64::from(totals.peak_flows.max(1))),
            keeper_bytes: slots * size_of::<[dataplane::flow::keeper::Kept; 2]>() as u64,
            totals,
            ratio: worker / memory,
            ratio_without_file: (worker - stream) / (memory - stream),
            stages,
            complaints,
        }
    }
}

impl Report {
    /// In what it contradicts itself.
    pub fn complaints(&self) -> Vec<String> {
        let of = |w: &Workload| {
            w.complaints.iter().map(|c| format!("{}: inconsistent: {c}", w.name)).collect::<Vec<_>>()
        };
        let rules = self.rules.iter().flat_map(|rules| &rules.complaints);
        let rules = rules.map(|complaint| format!("rules: inconsistent: {complaint}"));
        self.workloads.iter().flat_map(of).chain(rules).collect()
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let host = &self.host;
        line(
            &mut out,
            &format!(
                "{}, {} cores, last-level cache {}, Linux {}; all on CPU {}, median of {} runs (min to max)",
                host.cpu, host.cores, host.last_level_cache, host.kernel, host.core, self.runs
            ),
        );
        for workload in &self.workloads {
            workload.text(&mut out);
        }
        if let Some(rules) = &self.rules {
            rules.text(&mut out);
        }
        if self.workloads.is_empty() {
            return out;
        }
        line(&mut out, "");
        let ratio = |w: &Workload| {
            format!("{} {:.2} ({:.2} without reading the file)", w.name, w.ratio, w.ratio_without_file)
        };
        let ratios: Vec<_> = self.workloads.iter().map(ratio).collect();
        line(&mut out, &format!("worker / memory floor: {}", ratios.join(", ")));
        out
    }
}

impl Workload {
    fn text(&self, out: &mut String) {
        line(out, "");
        let (all, timed) = (grouped(self.packets), grouped(self.timed_packets));
        let size = self.bytes as f64 / self.packets.max(1) as f64;
        let flows = grouped(self.flows);
        let what =
            format!("{all} packets ({timed} timed, the rest fills the tables), {size:.0} B on average");
        line(out, &format!("{}: {what}, {flows} flows", self.name));
        let head = ["ns/packet", "adds", "min to max", "Mpps"];
        line(out, &format!("  {:<22}{:>11}{:>9}{:>19}{:>8}", "stage", head[0], head[1], head[2], head[3]));
        for s in &self.stages {
            let range = format!("{:.1} to {:.1}", s.min, s.max);
            line(
                out,
                &format!("  {:<22}{:>11.1}{:>+9.1}{range:>19}{:>8.2}", s.name, s.median, s.adds, s.mpps),
            );
        }
        line(out, "  (judge and writer ran in between and are in no other row; live they are other threads)");
        for (name, text) in self.facts() {
            line(out, &format!("  {name:<22}{text}"));
        }
        for complaint in &self.complaints {
            line(out, &format!("  {:<22}{complaint}", "INCONSISTENT"));
        }
    }

    /// What was counted, in words.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let (t, mib) = (&self.totals, |bytes: u64| bytes >> 20);
        let [made, alive, out] = [t.flows_created, t.peak_flows.into(), t.flows_evicted].map(grouped);
        let [messages, hits, incidents] = [t.messages, t.hits, t.incidents].map(grouped);
        let [kept, written, bytes] = [t.packets_kept, t.packets_written, t.segment_bytes].map(grouped);
        let rescued = grouped(t.tails_rescued);
        let [warm, timed] = [t.faults_warm, t.faults_timed].map(grouped);
        let table = format!("{} MiB (limit {} MiB)", mib(self.table_bytes), mib(TABLE_LIMIT));
        let each = match self.table_bytes_per_live_flow {
            Some(bytes) => format!(", {bytes:.0} B a live flow"),
            None => String::new(),
        };
        let (keeper, resident) = (mib(self.keeper_bytes), mib(t.resident_bytes));
        vec![
            ("flows", format!("{made} made, {alive} alive at most, {out} pushed out")),
            ("events", format!("{messages} messages, {hits} hits, {incidents} incidents")),
            ("kept", format!("{kept} packets, {written} written in {bytes} B; {rescued} tails rescued")),
            ("flow table", format!("{table}{each}; handshake keeper {keeper} MiB at most besides")),
            (
                "memory",
                format!("{resident} MiB resident; {warm} page faults before the clock, {timed} in it"),
            ),
            ("allocations", format!("{} in the worker's steps", t.allocations)),
        ]
    }
}

impl Rules {
    fn text(&self, out: &mut String) {
        line(out, "");
        line(out, "rules: one guard of 3 to 5 predicates, on 65,536 different flows in random order");
        line(out, &format!("  {:<22}{:>11}{:>28}{:>11}", "guards", "ns/guard", "min to max", "matched"));
        for g in &self.guards {
            let range = format!("{:.1} to {:.1}", g.min, g.max);
            line(out, &format!("  {:<22}{:>11.1}{range:>28}{:>11}", g.guards, g.ns, grouped(g.matched)));
        }
        line(out, "rules: the worker on the mix, without the judge, in turns with none");
        line(
            out,
            &format!(
                "  {:<22}{:>11}{:>9}{:>19}{:>9}{:>9}{:>9}",
                "set", "ns/packet", "adds", "min to max", "percent", "judge", "hits"
            ),
        );
        for s in &self.sets {
            let (w, name) = (&s.worker, format!("{} {}", s.rules, s.name));
            let range = format!("{:.1} to {:.1}", w.min, w.max);
            let adds = if s.rules == 0 { 0.0 } else { w.adds };
            line(
                out,
                &format!(
                    "  {name:<22}{:>11.1}{adds:>+9.1}{range:>19}{:>+9.1}{:>9.1}{:>9}",
                    w.median, s.percent, s.judge_ns, s.hits
                ),
            );
        }
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string takes all");
}

/// Digits in threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_differences_are_of_medians() {
        let odd = Stage::new("odd", vec![9.0, 1.0, 5.0], 2.0);
        assert_eq!((odd.median, odd.min, odd.max, odd.adds, odd.mpps), (5.0, 1.0, 9.0, 3.0, 200.0));
        assert_eq!(Stage::new("even", vec![4.0, 1.0, 2.0, 100.0], 0.0).median, 3.0);
        assert_eq!(Stage::new("one", vec![7.0], 0.0).median, 7.0);
    }

    #[test]
    fn digits_come_in_threes() {
        let groups = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(groups, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }
}
