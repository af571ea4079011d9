//! The books of a run: every packet in exactly one account, and whether they balance.
//!
//! Main thread, once, after everything has stopped. Only adds up what the interfaces, the workers, the judge, the
//! writer and the driver counted, each on its own; the result is the `--ledger` object.

use std::collections::BTreeMap;

use dataplane::ledger::{DropReason, EventAccount, UnwrittenReason, WorkerAccount};
use dataplane::source::file::InputReport;
use rules::RuleSet;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::finished::{Finished, Inputs, InterfaceReport};
use super::metrics::counted;
use crate::filter;

/// Names of `WorkerAccount::classes`, in its order.
pub const CLASSES: [&str; 6] = ["tcp", "udp", "icmp", "other_ip", "non_ip", "malformed"];

/// The `--ledger` object.
#[derive(Debug, Serialize)]
pub struct Ledger {
    pub received: u64,
    pub analysed: u64,
    pub filtered: u64,
    pub dropped: BTreeMap<&'static str, u64>,
    pub kept: u64,
    pub written: u64,
    pub unwritten: BTreeMap<&'static str, u64>,
    pub flows: Value,
    pub events: Value,
    pub chunks: Value,
    pub balanced: bool,
    pub input_complete: bool,
    /// Nothing that differs from run to run has left a trace: no deadline, no drop for want of time, no
    /// failing disk.
    pub deterministic: bool,
    pub bytes: u64,
    pub classes: Map<String, Value>,
    pub filter: Value,
    pub icmp_unmatched: u64,
    /// Packets the mirror delivered a second time.
    pub span_duplicates: u64,
    pub fragments: Value,
    /// Packets whose time lay before that of one already taken.
    pub late: u64,
    /// Packets that one worker took and another, who has their flow, received.
    pub handed_over: u64,
    pub history: Value,
    pub holds: Value,
    pub judge: Value,
    pub rules: Value,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub notify: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Value>,
    /// In words, what does not balance; not part of the object.
    #[serde(skip)]
    pub unbalanced: Vec<String>,
}

impl Ledger {
    pub fn of(f: &Finished, rules: &RuleSet) -> Ledger {
        let (w, j) = (&received(f), &f.judge);
        let writer = f.recorded.as_ref().map(|recorded| recorded.account.clone()).unwrap_or_default();
        let mut unwritten = w.kept.unwritten;
        unwritten.iter_mut().zip(writer.unwritten_packets).for_each(|(all, more)| *all += more);
        let lost = lost(&f.inputs);
        let dropped = DropReason::ALL.map(|reason| w.dropped[reason as usize] + lost[reason as usize]);
        let unbalanced = unbalanced(f, writer.written_packets, unwritten.iter().sum());
        let timeless = j.body_deadlines == 0
            && w.kept.unwritten[UnwrittenReason::NoChunk as usize] == 0
            && writer.unwritten_packets.iter().all(|&packets| packets == 0)
            && !f.recorded.as_ref().is_some_and(|recorded| recorded.stalled);
        let (complete, late, inputs, interfaces) = match &f.inputs {
            Inputs::Files { reports, late, abandoned, .. } => {
                let complete = !abandoned && reports.iter().all(|input| input.complete);
                (complete, *late, reports.iter().map(input).collect(), Vec::new())
            }
            Inputs::Interfaces { reports, late, .. } => {
                (true, *late, Vec::new(), reports.iter().map(interface).collect())
            }
        };
        let replayed = matches!(f.inputs, Inputs::Files { .. });
        Ledger {
            received: w.received + lost.iter().sum::<u64>(),
            analysed: w.analysed,
            filtered: w.filtered,
            dropped: DropReason::ALL.map(|reason| (reason.name(), dropped[reason as usize])).into(),
            kept: w.kept.kept,
            written: writer.written_packets,
            unwritten: UnwrittenReason::ALL.map(|reason| (reason.name(), unwritten[reason as usize])).into(),
            flows: flows(f),
            events: events(f),
            chunks: json!({
                "chunks": f.chunks.0, "free": f.chunks.1, "handed_over": writer.chunks,
                "segments": writer.segments, "segments_abandoned": writer.segments_abandoned,
                "segments_deleted": writer.segments_deleted, "bytes_written": writer.bytes_written,
                "sync_failures": writer.sync_failures, "incident_bytes_deleted": writer.incident_bytes_deleted,
            }),
            balanced: unbalanced.is_empty(),
            input_complete: complete,
            deterministic: replayed && timeless && w.events.dropped == 0 && w.events.rows_dropped == 0,
            bytes: w.bytes,
            classes: CLASSES.iter().zip(w.classes).map(|(name, n)| ((*name).to_owned(), n.into())).collect(),
            filter: filter::books(&f.inputs),
            icmp_unmatched: w.icmp_unmatched,
            span_duplicates: w.span_duplicates,
            fragments: json!({
                "followed": w.fragments_followed, "unmatched": w.fragments_unmatched,
                "evicted": w.fragments_evicted,
            }),
            late,
            handed_over: w.handed_over,
            history: json!({
                "cut": w.history_cut, "tails_rescued": w.tails_rescued,
                "tails_forgotten": w.tails_forgotten, "tails_refused": w.tails_refused, "siblings_evicted": w.siblings_evicted,
            }),
            holds: json!({
                "taken": w.holds_taken, "refused": w.holds_refused, "unanswered": w.holds_unanswered,
            }),
            judge: judge(f, rules),
            rules: super::rules::books(rules, f.reloads, &f.bodies),
            notify: f.notified.iter().map(|told| (told.name.clone(), json!(told))).collect(),
            inputs,
            interfaces,
            unbalanced,
        }
    }
}

/// Every law that does not hold, with its numbers.
fn unbalanced(f: &Finished, written: u64, unwritten: u64) -> Vec<String> {
    let (w, j) = (&f.worker, &f.judge);
    let dropped: u64 = w.dropped.iter().sum();
    let ended = w.flows_ended + w.flows_evicted + w.half_open_evicted + u64::from(f.live);
    let matches = matches(&w.events, j.hits);
    let laws = [
        ("received = analysed + filtered + dropped", w.received, w.analysed + w.filtered + dropped),
        ("analysed = the sum of its classes", w.analysed, w.classes.iter().sum()),
        ("kept = written + unwritten", w.kept.kept, written + unwritten),
        ("flows created = ended + evicted + live", w.flows_created, ended),
        ("events raised = delivered + dropped", w.events.raised, w.events.delivered + w.events.dropped),
        ("events delivered = taken by the judge", w.events.delivered, f.counted.messages),
        ("hits = judged + repeated + refused", j.hits, j.hits_judged + j.hits_repeated + j.hits_refused),
        ("matches = hits + those not told", matches.0, matches.1),
        ("flow rows sent = taken", w.events.rows, f.counted.rows),
        ("chunks = free chunks", f.chunks.0 as u64, f.chunks.1 as u64),
    ];
    let say = |law: &str, left: u64, right: u64| format!("{law}: {left} is not {right}");
    let broken = laws.iter().filter(|(_, left, right)| left != right);
    let mut unbalanced: Vec<String> = broken.map(|(law, left, right)| say(law, *left, *right)).collect();
    match &f.inputs {
        Inputs::Files { reports, abandoned, .. } => {
            let given: u64 = reports.iter().map(|input| input.packets).sum();
            if !abandoned && given != w.received {
                unbalanced.push(say("packets read = received", given, w.received));
            }
        }
        Inputs::Interfaces { reports, .. } => {
            unbalanced.extend(reports.iter().flat_map(unbalanced_interface));
            let taken: u64 = reports.iter().map(|report| report.port.taken()).sum();
            if taken != w.received {
                unbalanced.push(say("packets taken from the rings = received by workers", taken, w.received));
            }
        }
    }
    unbalanced
}

/// Conditions that held, and what became of them.
fn matches(e: &EventAccount, hits: u64) -> (u64, u64) {
    let untold = e.matched_again + e.sampled_out + e.hits_overflowed + e.hits_dropped;
    (e.matched, hits + untold)
}

/// What an interface's own counters contradict each other in.
fn unbalanced_interface(report: &InterfaceReport) -> Vec<String> {
    let InterfaceReport { name, port, .. } = report;
    let accounted = port.taken() + port.filtered + port.dropped.iter().sum::<u64>();
    let mut unbalanced = Vec::new();
    if port.seen != accounted {
        let seen = port.seen;
        unbalanced
            .push(format!("{name}: packets seen = taken + filtered + dropped: {seen} is not {accounted}"));
    }
    for (number, queue) in port.queues.iter().enumerate() {
        let (with_kernel, in_hand) = (queue.frames_with_kernel, queue.frames_in_hand);
        if queue.frames != with_kernel + in_hand {
            unbalanced.push(format!(
                "{name}, queue {number}: frames = with the kernel + in hand: {} is not {}",
                queue.frames,
                with_kernel + in_hand
            ));
        }
    }
    unbalanced
}

/// What workers received, and what a filter in the kernel kept from them.
pub fn received(f: &Finished) -> WorkerAccount {
    let Inputs::Interfaces { reports, .. } = &f.inputs else { return f.worker };
    let filtered: u64 = reports.iter().map(|report| report.port.filtered).sum();
    let WorkerAccount { received, filtered: before, .. } = f.worker;
    WorkerAccount { received: received + filtered, filtered: before + filtered, ..f.worker }
}

/// What was lost before any worker, by [`DropReason`].
pub fn lost(inputs: &Inputs) -> [u64; DropReason::ALL.len()] {
    let Inputs::Interfaces { reports, .. } = inputs else { return [0; DropReason::ALL.len()] };
    DropReason::ALL.map(|reason| reports.iter().map(|report| report.port.dropped[reason as usize]).sum())
}

fn interface(report: &InterfaceReport) -> Value {
    let InterfaceReport { name, capture, port, driver, .. } = report;
    let dropped =
        DropReason::ALL.map(|reason| (reason.name().to_owned(), port.dropped[reason as usize].into()));
    let queues = port.queues.iter().map(|queue| {
        json!({
            "taken": queue.taken, "unstamped": queue.unstamped, "unstamped_by_nic": queue.unstamped_by_nic,
            "busy_polls": queue.busy_polls, "coalesced": queue.coalesced,
            "after_silence": queue.after_silence, "woken_late": queue.woken_late,
            "zero_copy": queue.zero_copy,
            "rx_ring_full": queue.socket.rx_ring_full, "rx_dropped": queue.socket.rx_dropped,
            "rx_invalid_descs": queue.socket.rx_invalid_descs,
            "rx_fill_ring_empty_descs": queue.socket.rx_fill_ring_empty_descs,
            "frames": queue.frames, "frames_with_kernel": queue.frames_with_kernel,
            "frames_in_hand": queue.frames_in_hand,
        })
    });
    json!({
        "name": name, "capture": capture, "clock": if port.nic_clock_steps.is_some() { "nic" } else { "kernel" },
        "nic_clock_steps": port.nic_clock_steps, "seen": port.seen, "seen_bytes": port.seen_bytes, "taken": port.taken(),
        "filtered": port.filtered, "related": port.related,
        "dropped": Map::from_iter(dropped), "queues": queues.collect::<Vec<_>>(),
        "nic": {
            "rx_packets": port.nic.rx_packets, "rx_missed": port.nic.rx_missed,
            "rx_dropped": port.nic.rx_dropped, "rx_errors": port.nic.rx_errors,
            "driver": driver,
        },
    })
}

fn flows(f: &Finished) -> Value {
    let w = &f.worker;
    json!({
        "created": w.flows_created, "ended": w.flows_ended, "evicted": w.flows_evicted,
        "half_open_evicted": w.half_open_evicted, "live": f.live, "peak_live": f.peak, "split": w.flows_split,
        "without_trouble_record": w.trouble_refused,
        "without_app_record": w.apps_refused,
        "dns_questions_forgotten": w.questions_forgotten,
        "connections_whole": w.connections_whole, "connections_one_sided": w.connections_one_sided,
    })
}

fn events(f: &Finished) -> Value {
    let e = &f.worker.events;
    json!({
        "raised": e.raised, "delivered": e.delivered, "dropped": e.dropped, "taken": f.counted.messages,
        "matched": e.matched, "matched_again": e.matched_again, "sampled_out": e.sampled_out,
        "hits_overflowed": e.hits_overflowed, "hits_dropped": e.hits_dropped,
        "rules_per_flow_lost": e.rules_per_flow_lost,
        "rows": e.rows, "rows_dropped": e.rows_dropped, "activity_lost": e.activity_lost,
        "pairs_lost": e.pairs_lost, "siblings_unwatched": e.siblings_unwatched,
        "commands_dropped": f.counted.commands_dropped, "reports_dropped": f.counted.reports_dropped,
    })
}

fn judge(f: &Finished, rules: &RuleSet) -> Value {
    let j = &f.judge;
    json!({
        "hits": j.hits, "judged": j.hits_judged, "repeated": j.hits_repeated, "refused": j.hits_refused,
        "matches_refused": j.matches_refused, "matches_overflowed": j.matches_overflowed,
        "bodies_run": j.bodies_run, "body_errors": j.body_errors, "body_deadlines": j.body_deadlines,
        "incidents_opened": j.incidents_opened, "incidents_closed": j.incidents_closed,
        "incidents_withdrawn": j.incidents_withdrawn,
        "absorbed": j.absorbed, "keeps": j.keeps, "releases": j.releases,
        "captures_over_budget": j.captures_over_budget, "hosts_evicted": j.hosts_evicted,
        "services_evicted": j.services_evicted, "pairs_evicted": j.pairs_evicted,
        "gauges_evicted": j.gauges_evicted,
        "state_entries_peak": counted(rules).then_some(j.state_entries_peak),
        "flows_forgotten": j.flows_forgotten, "kept_forgotten": j.kept_forgotten,
        "siblings_refused": j.siblings_refused, "open": j.open,
        "switched_off_untold": j.switched_off_untold, "bodies_left_out": j.bodies_left_out,
    })
}

fn input(report: &InputReport) -> Value {
    let damage = report.damage.as_ref();
    json!({
        "name": report.name, "packets": report.packets, "bytes": report.bytes, "complete": report.complete,
        "damage": damage.map(|d| json!({ "offset": d.offset, "packets_before": d.packet, "what": d.what })),
    })
}
