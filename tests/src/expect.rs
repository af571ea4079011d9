//! Compares what came out with what is true of a generated capture; gives complaints in words.
//!
//! The one place that knows which kinds packets are counted by, and which deserve an incident.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::judge::{Incident, Subject};
use wiregen::truth::{Line, Scope, Truth};

use crate::run::Outcome;

/// Kinds that count packets: where the truth gives a number, it is this one.
const COUNTED: [&str; 10] = [
    "retransmission",
    "syn_retransmission",
    "spurious_retransmission",
    "out_of_order",
    "lost_segment",
    "zero_window",
    "keepalive",
    "icmp_frag_needed",
    "icmp_unreachable",
    "ttl_changed",
];
/// Kinds so rare that a flow has them only where the truth says so.
const RARE: [&str; 8] = [
    "handshake_incomplete",
    "port_reuse",
    "challenge_ack",
    "spurious_retransmission",
    "out_of_order",
    "lost_segment",
    "icmp_unreachable",
    "ttl_changed",
];
/// Kinds a person should look at.
const INCIDENTS: [&str; 22] = [
    "dns_timeout_retry",
    "dns_unanswered",
    "ecn_ce",
    "ecn_syn_blackhole",
    "half_open",
    "icmp_ignored",
    "icmp_unreachable",
    "loss_limited",
    "mss_low",
    "pmtu_blackhole",
    "rst_after_clienthello",
    "rst_after_idle",
    "rst_injected",
    "rst_midflow",
    "rst_storm",
    "sack_garbled",
    "slow_connect",
    "syn_no_synack",
    "synack_retransmission",
    "tls_no_server_hello",
    "window_limited",
    "zero_window_stall",
];
/// Of hosts and services: kinds whose incident counts the packets that the truth marks.
const COUNTED_WIDE: [&str; 4] = ["rst_storm", "syn_flood", "port_scan", "host_scan"];
/// What may be said of a service besides what was made: some of its SYNs were lost.
const COMPANIONS: [(&str, &str); 2] =
    [("syn_no_synack", "syn_unanswered_ratio"), ("syn_unanswered_ratio", "syn_no_synack")];

/// What a hasty close may show: it is mid-flow, and its RST may have come another way.
const HASTY: [&str; 1] = ["rst_midflow"];

type Tuple = (IpAddr, u16, IpAddr, u16);

/// What was said of one 5-tuple; several flows of a reused one are added up.
#[derive(Default)]
struct Found {
    ids: Vec<String>,
    findings: BTreeMap<String, u64>,
}

struct Report<'a> {
    outcome: &'a Outcome,
    flows: BTreeMap<Tuple, Found>,
    complaints: Vec<String>,
}

/// Everything in which an outcome differs from the truth.
pub fn complaints(truth: &Truth, outcome: &Outcome) -> Vec<String> {
    let mut report = Report { outcome, flows: BTreeMap::new(), complaints: Vec::new() };
    for row in &outcome.rows {
        let address = |text: &str| text.parse().expect("rows have addresses");
        let tuple = (address(&row.flow.src), row.flow.sport, address(&row.flow.dst), row.flow.dport);
        let found = report.flows.entry(tuple).or_default();
        found.ids.push(row.flow_id.clone());
        for (kind, count) in &row.findings {
            *found.findings.entry(kind.clone()).or_default() += count;
        }
    }
    for line in &truth.lines {
        match line.scope {
            Scope::Flow => report.flow(line),
            Scope::Host | Scope::Service => report.wide(line),
        }
    }
    report.nothing_rare(truth);
    report.nothing_else(truth);
    report.complaints
}

impl Report<'_> {
    fn expect(&mut self, fine: bool, complaint: impl FnOnce() -> String) {
        if !fine {
            self.complaints.push(complaint());
        }
    }

    fn flow(&mut self, line: &Line) {
        let (Some(src), Some(sport), Some(dst), Some(dport)) = (line.src, line.sport, line.dst, line.dport)
        else {
            self.complaints.push(format!("truth without a tuple: {line:?}"));
            return;
        };
        let who = format!("{src}:{sport} > {dst}:{dport}");
        let Some(found) = self.flows.get(&(src, sport, dst, dport)) else {
            self.complaints.push(format!("{who}: wanted {}, got no row at all", line.kind));
            return;
        };
        let (ids, findings) = (found.ids.clone(), found.findings.clone());
        if line.kind == "healthy" {
            self.healthy(line, &who, &ids, &findings);
            return;
        }
        let got = findings.get(&line.kind).copied().unwrap_or(0);
        let wanted = line.count.filter(|_| COUNTED.contains(&&*line.kind)).map(u64::from);
        self.expect(wanted.map_or(got > 0, |wanted| got == wanted), || {
            let wanted = wanted.map_or("some".to_owned(), |n| n.to_string());
            format!("{who}: wanted {wanted} {}, got {got}; its findings: {findings:?}", line.kind)
        });
        if line.main && INCIDENTS.contains(&&*line.kind) {
            let shown =
                self.outcome.incidents.iter().any(|i| i.kind == line.kind && names(i, &ids, dst, dport));
            self.expect(shown, || format!("{who}: no {} incident names it", line.kind));
        }
    }

    fn healthy(&mut self, line: &Line, who: &str, ids: &[String], findings: &BTreeMap<String, u64>) {
        let hasty = line.close.as_deref() == Some("rst");
        let stray: Vec<_> = findings.keys().filter(|kind| !(hasty && HASTY.contains(&&***kind))).collect();
        self.expect(stray.is_empty(), || format!("{who} is healthy, but: {findings:?}"));
        let named = self.outcome.incidents.iter().find(|i| i.flow_ids.iter().any(|id| ids.contains(id)));
        let named = named.map(|i| (i.kind.clone(), i.subject.clone()));
        self.expect(named.is_none(), || format!("{who} is healthy, but an incident names it: {named:?}"));
    }

    /// One incident about the host or the service, of as many events as the truth has marks.
    fn wide(&mut self, line: &Line) {
        let of_kind = self.outcome.incidents.iter().filter(|i| i.kind == line.kind);
        let found: Vec<_> = of_kind.filter(|i| is_about(line, &i.subject)).collect();
        let count = found.iter().map(|i| i.count).sum::<u64>();
        let wanted = line.count.filter(|_| COUNTED_WIDE.contains(&&*line.kind)).map(u64::from);
        let fine = found.len() == 1 && wanted.is_none_or(|wanted| wanted == count);
        self.expect(fine, || format!("wanted one incident of {wanted:?} events for {line:?}, got {found:?}"));
    }

    /// No rare finding on a flow, no incident that names it, no incident of a host or service, but what was made.
    fn nothing_rare(&mut self, truth: &Truth) {
        let mut claims: BTreeMap<Tuple, Vec<&Line>> = BTreeMap::new();
        for line in &truth.lines {
            if let (Some(src), Some(sport), Some(dst), Some(dport)) =
                (line.src, line.sport, line.dst, line.dport)
            {
                claims.entry((src, sport, dst, dport)).or_default().push(line);
            }
        }
        let mut stray = Vec::new();
        for (tuple, lines) in &claims {
            let Some(found) = self.flows.get(tuple) else { continue };
            let said = |kind: &str| lines.iter().any(|line| line.kind == kind);
            let rare = found.findings.keys().filter(|kind| RARE.contains(&&***kind) && !said(kind));
            stray.extend(rare.map(|kind| format!("{tuple:?}: {kind} was not made; made were {lines:?}")));
            let made = |kind: &str| lines.iter().any(|line| line.kind == kind && line.main);
            let named = self.outcome.incidents.iter().filter(|i| {
                RARE.contains(&&*i.kind)
                    && !made(&i.kind)
                    && i.flow_ids.iter().any(|id| found.ids.contains(id))
            });
            stray.extend(named.map(|i| format!("{tuple:?}: an incident names it: {}", i.kind)));
        }
        for incident in &self.outcome.incidents {
            let mut of_kind =
                truth.of_kind(&incident.kind).filter(|line| line.scope != Scope::Flow).peekable();
            let wide = !matches!(incident.subject, Subject::Flow { .. });
            if wide && of_kind.peek().is_some() && !of_kind.any(|line| is_about(line, &incident.subject)) {
                stray.push(format!("{} of {:?} was not made", incident.kind, incident.subject));
            }
        }
        self.complaints.append(&mut stray);
    }

    /// No incident whose kind nothing in the capture was made for.
    fn nothing_else(&mut self, truth: &Truth) {
        let mut wanted: BTreeSet<&str> = truth.lines.iter().filter(|l| l.main).map(|l| &*l.kind).collect();
        let companions = COMPANIONS.iter().filter(|(kind, _)| truth.of_kind(kind).next().is_some());
        wanted.extend(companions.map(|(_, companion)| *companion));
        let stray: Vec<_> = self.outcome.incidents.iter().filter(|i| !wanted.contains(&*i.kind)).collect();
        let stray: Vec<_> =
            stray.iter().map(|i| format!("{} of {:?}, {} flows", i.kind, i.subject, i.flows)).collect();
        self.expect(stray.is_empty(), || format!("incidents nothing was made for: {stray:?}"));
    }
}

/// The line speaks of this host or service.
fn is_about(line: &Line, subject: &Subject) -> bool {
    match subject {
        Subject::Host { host } => line.host == Some(*host),
        Subject::Service { dst, dport, .. } => (line.dst, line.dport) == (Some(*dst), Some(*dport)),
        Subject::Flow { .. } | Subject::Link { .. } => false,
    }
}

/// An incident lists at most 100 flows; beyond that, one of the same service stands for the rest.
fn names(incident: &Incident, ids: &[String], dst: IpAddr, dport: u16) -> bool {
    let service = match &incident.subject {
        Subject::Flow { dst: d, dport: p, .. } | Subject::Service { dst: d, dport: p, .. } => {
            (*d, *p) == (dst, dport)
        }
        Subject::Host { host } => *host == dst,
        Subject::Link { .. } => false,
    };
    incident.flow_ids.iter().any(|id| ids.contains(id)) || incident.flows > 100 && service
}
