//! The facts of hosts and services, in the same form as those of flows: what only shows over many flows.
//!
//! Getters run on the judge: they neither allocate nor block. A getter that returns `None` says *unknown*.

use crate::facts::table::{Fact, Get, Window, int, row};
use crate::facts::{Counts, HostFacts, ServiceFacts};

/// Snapshots that keep [`Counts`] for each window.
pub(super) trait Windows {
    fn counts(&self, window: Window) -> &Counts;
}

impl Windows for HostFacts {
    fn counts(&self, window: Window) -> &Counts {
        match window {
            Window::S1 => &self.last_1s,
            Window::S10 => &self.last_10s,
            Window::S60 => &self.last_60s,
        }
    }
}

impl Windows for ServiceFacts {
    fn counts(&self, window: Window) -> &Counts {
        match window {
            Window::S1 => &self.last_1s,
            Window::S10 => &self.last_10s,
            Window::S60 => &self.last_60s,
        }
    }
}

pub(super) fn rate(count: u32, window: Window) -> f64 {
    f64::from(count) / window.seconds() as f64
}

/// Unknown while there is nothing to take a part of.
pub(super) fn ratio(part: u32, whole: u32) -> Option<f64> {
    (whole != 0).then(|| f64::from(part) / f64::from(whole))
}

/// The facts hosts, services and the link have, for each window.
macro_rules! window_facts {
    ($subject:ty, $root:literal, [$($own:expr),*], $syns:literal, $rsts:literal) => {
        &[
            $($own,)*
            row(concat!($root, ".syns"), "SYNs", $syns,
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).syns.into()))),
            row(concat!($root, ".syn_rate"), "SYNs/s", $syns,
                Get::RateOver(|s: &$subject, w| Some(rate(s.counts(w).syns, w)))),
            row(concat!($root, ".established"), "handshakes", "Handshakes completed.",
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).established.into()))),
            row(concat!($root, ".established_rate"), "handshakes/s", "Handshakes completed.",
                Get::RateOver(|s: &$subject, w| Some(rate(s.counts(w).established, w)))),
            row(concat!($root, ".unanswered"), "SYNs", "SYNs left without any answer for 3 s.",
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).syn_unanswered.into()))),
            row(concat!($root, ".unanswered_rate"), "SYNs/s", "SYNs left without any answer for 3 s.",
                Get::RateOver(|s: &$subject, w| Some(rate(s.counts(w).syn_unanswered, w)))),
            row(concat!($root, ".refused"), "SYNs", "SYNs answered by RST.",
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).refused.into()))),
            row(concat!($root, ".refused_rate"), "SYNs/s", "SYNs answered by RST.",
                Get::RateOver(|s: &$subject, w| Some(rate(s.counts(w).refused, w)))),
            row(concat!($root, ".rsts"), "segments", $rsts,
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).rsts.into()))),
            row(concat!($root, ".rst_rate"), "segments/s", $rsts,
                Get::RateOver(|s: &$subject, w| Some(rate(s.counts(w).rsts, w)))),
            row(concat!($root, ".syn_unanswered_ratio"), "0 to 1",
                "Unanswered SYNs as a part of all SYNs; unknown if there was no SYN.",
                Get::RateOver(|s: &$subject, w| ratio(s.counts(w).syn_unanswered, s.counts(w).syns))),
            row(concat!($root, ".unfinished"), "handshakes",
                "Handshakes neither completed nor refused 3 s after the SYN, or given up before.",
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).unfinished.into()))),
            row(concat!($root, ".unfinished_rate"), "handshakes/s", "The same, by the second.",
                Get::RateOver(|s: &$subject, w| Some(rate(s.counts(w).unfinished, w)))),
            row(concat!($root, ".unfinished_repeated"), "handshakes", "Of those, the ones whose SYN was repeated.",
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).unfinished_repeated.into()))),
            row(concat!($root, ".recovered"), "handshakes",
                "Handshakes whose first SYN went unanswered and a repeat got through.",
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).recovered.into()))),
            row(concat!($root, ".closed"), "connections", "Connections closed by both sides.",
                Get::CountOver(|s: &$subject, w| Some(s.counts(w).closed.into()))),
            row(concat!($root, ".closed_rate"), "connections/s", "Connections closed by both sides.",
                Get::RateOver(|s: &$subject, w| Some(rate(s.counts(w).closed, w)))),
        ]
    };
}
pub(super) use window_facts;

pub(super) static HOST: &[Fact<HostFacts>] = window_facts!(
    HostFacts,
    "host",
    [
        row("host.addr", "", "The host's address.", Get::Address(|h| Some(h.addr))),
        row(
            "host.cuts",
            "segments",
            "RSTs sent by it that refuse a connection or cut one off. Not counted: after a FIN, after another RST, or \
             with nothing outstanding but what the other end was still sending to a client that hung up.",
            Get::CountOver(|h, w| Some(h.counts(w).cuts.into())),
        ),
        row(
            "host.refusals",
            "segments",
            "Of these, answers to SYNs.",
            Get::CountOver(|h, w| Some(h.counts(w).refusals.into())),
        ),
        row(
            "host.client_cuts",
            "segments",
            "Of these, sent by it as the client.",
            Get::CountOver(|h, w| Some(h.counts(w).client_cuts.into())),
        ),
        row(
            "host.ports_tried",
            "ports",
            "Ports of one host it tried within 60 s; that host is the one where most attempts failed.",
            Get::Int(|h| Some(h.client.ports.tried.into())),
        ),
        row(
            "host.ports_of",
            "",
            "That host; unknown if there is none.",
            Get::Address(|h| h.client.ports.of_host)
        ),
        row(
            "host.port_attempts",
            "SYNs",
            "Attempts on that host's ports whose outcome is known.",
            Get::Int(|h| Some(h.client.ports.attempts.into())),
        ),
        row(
            "host.port_attempts_completed",
            "SYNs",
            "Of these, attempts that became connections.",
            Get::Int(|h| Some(h.client.ports.completed.into())),
        ),
        row(
            "host.port_attempts_refused",
            "SYNs",
            "Of these, attempts answered by RST.",
            Get::Int(|h| Some(h.client.ports.refused.into())),
        ),
        row(
            "host.hosts_tried",
            "hosts",
            "Hosts it tried on one port within 60 s; that port is the one where most attempts failed.",
            Get::Int(|h| Some(h.client.hosts.tried.into())),
        ),
        row(
            "host.hosts_port",
            "",
            "That port; unknown if there is none.",
            Get::Int(|h| h.client.hosts.of_port.map(int)),
        ),
        row(
            "host.host_attempts",
            "SYNs",
            "Attempts on that port whose outcome is known.",
            Get::Int(|h| Some(h.client.hosts.attempts.into())),
        ),
        row(
            "host.host_attempts_completed",
            "SYNs",
            "Of these, attempts that became connections, or were answered by SYN-ACK and then broken off.",
            Get::Int(|h| Some(h.client.hosts.completed.into())),
        ),
        row(
            "host.host_attempts_refused",
            "SYNs",
            "Of these, attempts answered by RST.",
            Get::Int(|h| Some(h.client.hosts.refused.into())),
        ),
        row(
            "host.reuse_of",
            "",
            "The service to which it uses ports again within 60 s most often; unknown if there is none.",
            Get::Address(|h| h.client.reuse.addr),
        ),
        row(
            "host.reuse_port",
            "",
            "That service's port.",
            Get::Int(|h| h.client.reuse.addr.map(|_| h.client.reuse.port.into()))
        ),
        row(
            "host.reuse_connections",
            "connections",
            "Connections to it begun within 60 s.",
            Get::Int(|h| Some(h.client.reuse.begun_60s.into())),
        ),
        row(
            "host.reuse_completed",
            "connections",
            "Handshakes with it completed within 60 s.",
            Get::Int(|h| Some(h.client.reuse.completed_60s.into())),
        ),
        row(
            "host.reuses",
            "connections",
            "Of these, connections from a port that had been used within 60 s before.",
            Get::Int(|h| Some(h.client.reuse.reuses.into())),
        ),
        row(
            "host.reuses_known",
            "connections",
            "Of these, connections on a 5-tuple whose earlier flow had ended less than about 15 s before, or not at all.",
            Get::Int(|h| Some(h.client.reuse.reuses_known.into())),
        ),
        row(
            "host.reuse_ports",
            "ports",
            "Client ports those connections came from.",
            Get::Int(|h| Some(h.client.reuse.ports.into())),
        ),
        row(
            "host.reuse_port_low",
            "",
            "The lowest of these ports.",
            Get::Int(|h| h.client.reuse.addr.map(|_| h.client.reuse.port_low.into())),
        ),
        row(
            "host.reuse_port_high",
            "",
            "The highest of these ports.",
            Get::Int(|h| h.client.reuse.addr.map(|_| h.client.reuse.port_high.into())),
        ),
        row(
            "host.reuse_shortest_ms",
            "ms",
            "Shortest time between two uses of a port, to a second; unknown if none was used again.",
            Get::Int(|h| h.client.reuse.shortest_ms.map(int)),
        ),
        row(
            "host.churn_of",
            "",
            "The service with which most short-lived connections were closed; unknown if there is none.",
            Get::Address(|h| h.client.churn.addr),
        ),
        row(
            "host.churn_port",
            "",
            "That service's port.",
            Get::Int(|h| h.client.churn.addr.map(|_| h.client.churn.port.into()))
        ),
        row(
            "host.churn_begun",
            "connections",
            "Connections to it begun within 10 s.",
            Get::Int(|h| Some(h.client.churn.begun_10s.into())),
        ),
        row(
            "host.churn_closed",
            "connections",
            "Connections to it closed within 10 s that had lived for 2 s at most.",
            Get::Int(|h| Some(h.client.churn.short_10s.into())),
        ),
        row(
            "host.state_entries",
            "entries",
            "Entries its connections take in the table of a stateful device in the path (docs/state-gauge.md).",
            Get::Int(|h| Some(h.client.state_entries.into())),
        )
    ],
    "SYNs without ACK sent by the host, repeats not counted.",
    "RST segments sent by the host."
);

pub(super) static SERVICE: &[Fact<ServiceFacts>] = window_facts!(
    ServiceFacts,
    "service",
    [
        row("service.addr", "", "The service's address.", Get::Address(|s| Some(s.addr))),
        row("service.port", "", "The service's port.", Get::Int(|s| Some(s.port.into()))),
        row("service.proto", "", "IP protocol number: 6 TCP, 17 UDP.", Get::Int(|s| Some(s.proto.into()))),
        row(
            "service.unfinished_most",
            "handshakes",
            "Most unfinished handshakes within any one second (to 100 ms) of the last 60.",
            Get::Int(|s| Some(s.unfinished_most.into())),
        ),
        row(
            "service.syn_recv",
            "connections",
            "Connections that wait for the ACK that completes the handshake.",
            Get::Int(|s| Some(s.states.syn_recv.into())),
        ),
        row(
            "service.open",
            "connections",
            "Connections established and closed by neither side.",
            Get::Int(|s| Some(s.states.established.into())),
        ),
        row(
            "service.close_wait",
            "connections",
            "Connections that the client has closed and the service has not.",
            Get::Int(|s| Some(s.states.close_wait.into())),
        ),
        row(
            "service.fin_wait2",
            "connections",
            "Connections that the service has closed and the client has not.",
            Get::Int(|s| Some(s.states.fin_wait2.into())),
        ),
        row(
            "service.time_wait",
            "connections",
            "Connections closed by both sides within the last 60 s.",
            Get::Int(|s| Some(s.states.time_wait.into())),
        ),
        row(
            "service.state_entries",
            "entries",
            "Entries its connections take in the table of a stateful device in the path (docs/state-gauge.md).",
            Get::Int(|s| Some(s.states.entries.into())),
        ),
        row(
            "service.state_entries_total",
            "entries",
            "Entries all traffic takes in such a table.",
            Get::Int(|s| Some(s.states.entries_total.into())),
        ),
        row(
            "service.top_client",
            "",
            "The client that most of all those entries belong to; unknown if none stands out.",
            Get::Address(|s| s.states.top_client),
        ),
        row(
            "service.top_client_entries",
            "entries",
            "How many.",
            Get::Int(|s| Some(s.states.top_client_entries.into())),
        )
    ],
    "SYNs without ACK sent to the service, repeats not counted.",
    "RST segments sent by the service's side."
);
