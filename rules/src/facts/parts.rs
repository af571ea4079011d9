//! Parts of a flow's snapshot. A worker fills in each when the first condition reads a fact of it, and nearly every
//! condition is decided before that. Plain values, used when rules are loaded and on workers.

use std::fmt;

/// Which parts of a snapshot are there, or are needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parts(u16);

impl Parts {
    /// What is always there: ports, protocol, times, flags, packets and bytes.
    pub const HAND: Parts = Parts(0);
    pub const ADDRESSES: Parts = Parts(1);
    /// SYNs, SYN-ACKs, FINs and RSTs, and when they came.
    pub const SIGNALS: Parts = Parts(1 << 1);
    /// What the SYNs offered.
    pub const OFFERS: Parts = Parts(1 << 2);
    /// Round trips of the handshake.
    pub const ROUND_TRIPS: Parts = Parts(1 << 3);
    /// Where the conversation stands: silences, sizes, TTLs, who waits.
    pub const STREAM: Parts = Parts(1 << 4);
    /// What only flows in trouble have.
    pub const TROUBLE: Parts = Parts(1 << 5);
    /// The RSTs' fingerprints.
    pub const RST: Parts = Parts(1 << 6);
    pub const APP: Parts = Parts(1 << 7);
    /// What is known of the hosts from other flows.
    pub const AROUND: Parts = Parts(1 << 8);
    /// What only whoever is told of a match needs.
    pub const IDENTITY: Parts = Parts(1 << 9);
    pub const ALL: Parts = Parts((1 << 10) - 1);

    #[inline(always)]
    pub const fn with(self, other: Parts) -> Parts {
        Parts(self.0 | other.0)
    }

    #[inline(always)]
    pub const fn without(self, other: Parts) -> Parts {
        Parts(self.0 & !other.0)
    }

    /// All of `other` is among them.
    #[inline(always)]
    pub const fn cover(self, other: Parts) -> bool {
        other.0 & !self.0 == 0
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({:#012b})", self.0)
    }
}

const SIGNALS: [&str; 8] = [
    "orig_opened",
    "syns",
    "ecn_syns",
    "last_syn_plain",
    "syn_acks",
    "late_syn_acks",
    "syn_age_ms",
    "syn_span_ms",
];
const HAND: [&str; 15] = [
    "sport",
    "dport",
    "proto",
    "vlan",
    "inner_vlan",
    "age_ms",
    "silent_ms",
    "by_orig",
    "by_resp",
    "established",
    "fin_seen",
    "rst_seen",
    "rst",
    "ttl",
    "disproved",
];

/// What a flow's fact is read from. One that is not known here needs everything.
pub(crate) fn parts_of(path: &str) -> Parts {
    let Some(name) = path.strip_prefix("flow.") else { return Parts::ALL };
    if let Some(name) = name.strip_prefix("orig.").or_else(|| name.strip_prefix("resp.")) {
        return of_side(name);
    }
    match name {
        "src" | "dst" => Parts::ADDRESSES,
        "idle_before_ms" | "packets_since_idle" | "unacked" => Parts::STREAM,
        "icmp_too_big" | "icmp_mtu" => Parts::TROUBLE,
        "plain_answered" | "plain_lost" | "ecn_answered" | "both_ways" => Parts::AROUND,
        name if HAND.contains(&name) => Parts::HAND,
        "rtt_client_us" | "rtt_server_us" | "rtt_us" | "connect_us" => Parts::ROUND_TRIPS,
        name if SIGNALS.contains(&name) => Parts::SIGNALS,
        name if crate::facts::app::APP.iter().any(|fact| fact.path[5..] == *name) => Parts::APP,
        _ => Parts::ALL,
    }
}

fn of_side(name: &str) -> Parts {
    match name {
        "packets" | "bytes" | "payload" | "rate" => Parts::HAND,
        "mss" | "wscale" | "sack" => Parts::OFFERS,
        "rsts" | "fins" => Parts::SIGNALS,
        "segments" | "ttl_min" | "ttl_max" | "unacked" | "max_payload" | "largest_acked"
        | "filled_window" | "sack_garbled" | "congestion_marks" | "congestion_echoes"
        | "congestion_answers" | "ttl_usual" | "arrived_sends" | "answered_unseen" | "opened_unseen"
        | "unanswered_ms" | "unanswered_sends" | "window_closed_ms" | "window_closed" => Parts::STREAM,
        "loss_ppm" => Parts::STREAM.with(Parts::TROUBLE),
        "window_bound" => Parts::STREAM.with(Parts::ROUND_TRIPS),
        "loss_bound" => Parts::STREAM.with(Parts::TROUBLE).with(Parts::ROUND_TRIPS),
        "retransmissions"
        | "losses"
        | "zero_windows"
        | "keepalives"
        | "stuck_sends"
        | "stuck_bytes"
        | "stuck_payload"
        | "stuck_aggregate"
        | "small_passes"
        | "only_large_stuck"
        | "spurious_retransmissions"
        | "needless"
        | "window_fulls"
        | "window_probes"
        | "keepalive_every_ms"
        | "oversize"
        | "icmp_unreachable"
        | "icmp_unreachable_code"
        | "icmp_time_exceeded" => Parts::TROUBLE,
        "in_sight" | "out_of_sight" => Parts::AROUND,
        name if name.starts_with("rst_") || name == "packets_after_rst" => Parts::RST,
        _ => Parts::ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FlowFacts;
    use crate::facts::table::Subject;

    /// One that needs everything would be right, and slow.
    #[test]
    fn each_fact_has_its_parts() {
        for fact in FlowFacts::facts() {
            assert_ne!(parts_of(fact.path), Parts::ALL, "{}", fact.path);
        }
        assert_eq!(parts_of("flow.new"), Parts::ALL);
    }
}
