//! How a run stands, for machines that watch it: the books and gauges as Prometheus text (exposition format 0.0.4).
//!
//! Main thread, at the end and every few seconds of a live run. Only words of numbers that others counted. Labels are
//! bounded: of clients and services the [`SHOWN`] with most state-table entries.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;

use dataplane::judge::{BodyBooks, JudgeAccount, Standing};
use dataplane::ledger::{DropReason, UnwrittenReason, WorkerAccount};
use dataplane::record::WriterAccount;
use rules::{RuleSet, Scope};

use super::cost::{self, Standings};
use super::finished::{Finished, Inputs, InterfaceReport};
use super::interfaces::Watched;
use super::ledger::CLASSES;
use super::rules::InForce;
use crate::filter;

/// Clients and services named at most, of each.
pub const SHOWN: usize = 10;

/// All that is shown.
pub struct Sample<'a> {
    /// Packets are still being taken.
    pub running: bool,
    /// What filters in the kernel left out included.
    pub worker: WorkerAccount,
    /// Packets that passed a filter because they belong to what it names.
    pub related: u64,
    /// Lost before any worker, by [`DropReason`].
    pub lost: [u64; DropReason::ALL.len()],
    pub interfaces: Vec<Watched<'a>>,
    pub live_flows: u32,
    /// How far back the shortest history reaches, s; unknown in a replay.
    pub history_seconds: Option<f64>,
    pub judge: &'a JudgeAccount,
    pub bodies: &'a BodyBooks,
    /// `None` if no rule asks what many flows show, and so nobody counts it.
    pub standing: Option<&'a Standing>,
    pub writer: Option<WriterAccount>,
    pub rules: InForce,
    pub costs: Standings,
}

impl<'a> Sample<'a> {
    /// Of a run that has ended.
    pub fn last(f: &'a Finished, rules: &RuleSet) -> Sample<'a> {
        let interfaces = match &f.inputs {
            Inputs::Files { .. } => Vec::new(),
            Inputs::Interfaces { reports, .. } => {
                let watched = |r: &'a InterfaceReport| Watched {
                    name: &r.name,
                    capture: r.capture.clone(),
                    port: &r.port,
                };
                reports.iter().map(watched).collect()
            }
        };
        Sample {
            running: false,
            worker: super::ledger::received(f),
            related: filter::of(&f.inputs).map_or(0, |(_, refused)| refused.related),
            lost: super::ledger::lost(&f.inputs),
            interfaces,
            live_flows: f.live,
            history_seconds: None,
            judge: &f.judge,
            bodies: &f.bodies,
            standing: counted(rules).then_some(&f.standing),
            writer: f.recorded.as_ref().map(|recorded| recorded.account.clone()),
            rules: InForce::new(rules, f.reloads, Vec::new()),
            costs: cost::standing(rules, f.ticking.as_ref()),
        }
    }
}

/// What many flows show is counted, because a rule asks for it.
pub fn counted(rules: &RuleSet) -> bool {
    rules.in_force().any(|(_, rule)| rule.scope != Scope::Flow)
}

/// The page.
pub fn text(sample: &Sample) -> String {
    let mut page = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    page.gauge("referee_build_info", "The program's version.").labelled(&[("version", version)], 1);
    page.gauge("referee_running", "1 while packets are taken, 0 once the run has ended.")
        .is(u8::from(sample.running));
    packets(&mut page, sample);
    kept(&mut page, sample);
    flows(&mut page, sample);
    judged(&mut page, sample.judge);
    sample.rules.show(&mut page);
    super::rules::metrics(&mut page, sample.bodies);
    if let Some(standing) = sample.standing {
        state_tables(&mut page, standing);
    }
    cost::show(&mut page, &sample.costs);
    page.text
}

fn packets(page: &mut Text, s: &Sample) {
    let w = &s.worker;
    page.counter("referee_received_packets_total", "Packets received, lost ones included.")
        .is(w.received + s.lost.iter().sum::<u64>());
    page.counter("referee_received_bytes_total", "Bytes of the packets taken.").is(w.bytes);
    page.counter("referee_analysed_packets_total", "Packets analysed, by what they are.");
    for (class, packets) in CLASSES.iter().zip(w.classes) {
        page.labelled(&[("class", class)], packets);
    }
    page.counter("referee_filtered_packets_total", "Packets left out by a filter.").is(w.filtered);
    page.counter(
        "referee_related_packets_total",
        "Packets a filter doesn't name that belong to what it names.",
    )
    .is(s.related);
    page.counter("referee_dropped_packets_total", "Packets received and not analysed, by the reason.");
    for reason in DropReason::ALL {
        let packets = w.dropped[reason as usize] + s.lost[reason as usize];
        page.labelled(&[("reason", reason.name())], packets);
    }
    page.counter(
        "referee_handed_over_packets_total",
        "Packets one worker took and gave to another, who has their flow.",
    )
    .is(w.handed_over);
    page.counter("referee_duplicate_packets_total", "Packets the mirror delivered a second time.")
        .is(w.span_duplicates);
    super::interfaces::show(page, &s.interfaces);
}

fn kept(page: &mut Text, s: &Sample) {
    let (k, none) = (&s.worker.kept, WriterAccount::default());
    let writer = s.writer.as_ref().unwrap_or(&none);
    page.counter("referee_kept_packets_total", "Packets selected for a capture.").is(k.kept);
    page.counter("referee_written_packets_total", "Packets written to the store.").is(writer.written_packets);
    page.counter("referee_written_bytes_total", "Compressed bytes written to the store.")
        .is(writer.bytes_written);
    page.counter("referee_unwritten_packets_total", "Packets selected and not written, by the reason.");
    for reason in UnwrittenReason::ALL {
        page.labelled(&[("reason", reason.name())], k.unwritten[reason as usize] + writer.unwritten(reason));
    }
    if let Some(seconds) = s.history_seconds {
        page.gauge("referee_history_seconds", "How far back the history of the worst worker reaches.")
            .is(seconds);
    }
}

fn flows(page: &mut Text, s: &Sample) {
    let (w, e) = (&s.worker, &s.worker.events);
    page.gauge("referee_flows", "Flows in the table.").is(s.live_flows);
    page.counter("referee_flows_created_total", "Flows begun.").is(w.flows_created);
    page.counter("referee_flows_evicted_total", "Flows that had to make room while alive, by their state.");
    page.labelled(&[("state", "established")], w.flows_evicted);
    page.labelled(&[("state", "half_open")], w.half_open_evicted);
    page.counter(
        "referee_flows_split_total",
        "Flows that two workers have, so that each judges a part of them.",
    )
    .is(w.flows_split);
    page.counter("referee_events_total", "Messages for the judge, by what became of them.");
    page.labelled(&[("fate", "delivered")], e.delivered);
    page.labelled(&[("fate", "dropped")], e.dropped);
}

fn judged(page: &mut Text, j: &JudgeAccount) {
    page.counter("referee_incidents_opened_total", "Incidents opened.").is(j.incidents_opened);
    page.counter("referee_incidents_closed_total", "Incidents closed.").is(j.incidents_closed);
    page.counter("referee_rule_errors_total", "Bodies of rules that failed.").is(j.body_errors);
    page.counter(
        "referee_gauge_evictions_total",
        "Services and clients missing from the gauges for want of room.",
    )
    .is(j.gauges_evicted);
}

fn state_tables(page: &mut Text, standing: &Standing) {
    page.gauge("referee_state_table_entries", "Entries all traffic takes in a firewall that sees all this.")
        .is(standing.entries);
    page.gauge("referee_state_table_entries_peak", "The most there were.").is(standing.peak);
    page.gauge("referee_state_table_client_entries", "Of these, entries of the clients that have most.");
    for (client, entries) in &standing.clients {
        page.labelled(&[("client", &client.to_string())], entries);
    }
    let services: Vec<_> = standing
        .services
        .iter()
        .map(|service| (SocketAddr::new(service.addr, service.port).to_string(), service))
        .collect();
    page.gauge("referee_state_table_service_entries", "Of these, entries of the services that have most.");
    for (name, service) in &services {
        page.labelled(&[("service", name), ("protocol", &service.proto)], service.states.entries);
    }
    page.gauge(
        "referee_service_connections",
        "Connections to those services, by state as seen from the wire.",
    );
    for (name, service) in services.iter().filter(|(_, service)| service.proto == "tcp") {
        let s = &service.states;
        let states = [
            ("syn_recv", s.syn_recv),
            ("established", s.established),
            ("close_wait", s.close_wait),
            ("fin_wait2", s.fin_wait2),
            ("time_wait", s.time_wait),
        ];
        for (state, connections) in states {
            page.labelled(&[("service", name), ("state", state)], connections);
        }
    }
}

/// The page as it grows: a family's head, then its values.
#[derive(Default)]
pub(super) struct Text {
    text: String,
    family: &'static str,
}

/// Writing to a `String` cannot fail.
impl Text {
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> &mut Text {
        self.head(name, "counter", help)
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> &mut Text {
        self.head(name, "gauge", help)
    }

    fn head(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Text {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    #[cfg(test)]
    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn is(&mut self, value: impl Display) {
        let _ = writeln!(self.text, "{} {value}", self.family);
    }

    pub(super) fn labelled(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let _ = writeln!(self.text, "{}{{{}}} {value}", self.family, labels.join(","));
    }
}
