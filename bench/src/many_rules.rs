//! Rules as operators write them, any number of them: three to five predicates over different facts, on the events
//! that ordinary traffic raises, each with values of its own. On the benchmark's one thread, before any clock runs;
//! the texts go through the rule loader.
//!
//! Nearly none of them ever matches, as in a network in order: what costs then is asking.

use anyhow::{Result, bail};
use rules::{RuleSet, SourceFile};

/// Where services listen.
const PORTS: [u16; 20] =
    [443, 80, 22, 25, 53, 110, 143, 389, 445, 587, 636, 993, 1433, 1521, 3306, 3389, 5432, 6379, 8080, 9200];

/// One rule's event and condition, of its number `i` and the port `p`.
type Template = fn(usize, u16) -> (&'static str, String);

const TEMPLATES: [Template; 16] = [
    |i, p| {
        let ms = 300_000 + i * 1000;
        (
            "rst",
            format!("flow.dport == {p} && flow.established && !flow.fin_seen && flow.idle_before_ms >= {ms}"),
        )
    },
    |i, p| {
        let net = i % 200;
        (
            "established",
            format!(
                "flow.dst in \"10.{net}.0.0/16\" && flow.dport in [{p}, 8443] && flow.connect_us > 900_000"
            ),
        )
    },
    |i, _| {
        let bytes = 1_000_000 + i;
        (
            "close",
            format!(
                "flow.proto == 6 && flow.orig.payload > {bytes} && flow.resp.payload == 0 && !flow.rst_seen"
            ),
        )
    },
    |i, p| {
        let loss = 100_000 + i;
        (
            "close",
            format!(
                "flow.dport == {p} && flow.resp.segments > 1000 && flow.resp.loss_ppm > {loss} && flow.rtt_us > 50_000"
            ),
        )
    },
    |i, p| {
        let loss = 200_000 + i;
        (
            "retransmission",
            format!(
                "flow.established && flow.orig.segments > 100 && flow.orig.loss_ppm > {loss} && flow.dport == {p}"
            ),
        )
    },
    |i, p| {
        let (net, mss) = (i % 100, 500 + i % 30);
        ("syn", format!("flow.src in \"172.16.{net}.0/24\" && flow.dport == {p} && flow.orig.mss < {mss}"))
    },
    |i, p| {
        let us = 400_000 + i;
        ("syn_ack", format!("flow.resp.wscale == -1 && flow.dport == {p} && flow.rtt_server_us > {us}"))
    },
    |i, _| {
        let (ms, host) = (3_000 + i, i % 250);
        (
            "dns_answer",
            format!("flow.dns_rcode == 2 && flow.dns_wait_ms > {ms} && flow.dst == \"10.0.9.{host}\""),
        )
    },
    |i, p| {
        let ms = 20_000 + i;
        ("first_byte", format!("flow.answer_ms >= {ms} && flow.by_resp && flow.dport == {p}"))
    },
    |i, p| {
        let ttl = i % 20;
        (
            "close",
            format!(
                "flow.dport == {p} && flow.established && flow.resp.ttl_min < {ttl} && flow.orig.packets > 3"
            ),
        )
    },
    |i, p| {
        let us = 2_000_000 + i;
        (
            "established",
            format!(
                "flow.dport != {p} && flow.rtt_client_us > {us} && flow.orig.mss in 1..600 && flow.syns > 1"
            ),
        )
    },
    |i, p| {
        let ms = 60_000 + i;
        (
            "stalled",
            format!(
                "flow.dport == {p} && flow.established && (flow.orig.unanswered_ms > {ms} || flow.resp.unanswered_ms > {ms})"
            ),
        )
    },
    |i, _| {
        let (ms, net) = (7_000 + i, i % 200);
        (
            "close, rst",
            format!(
                "flow.dst in \"192.168.{net}.0/24\" && flow.age_ms < {ms} && flow.orig.payload == 0 && flow.resp.rsts > 0"
            ),
        )
    },
    |i, p| {
        let bytes = 50_000_000 + i;
        (
            "close",
            format!(
                "flow.dport in [{p}, {}] && flow.orig.payload + flow.resp.payload > {bytes} && !flow.fin_seen",
                p + 1
            ),
        )
    },
    |i, p| {
        let n = 30 + i % 50;
        (
            "zero_window",
            format!("flow.dport == {p} && flow.resp.zero_windows > {n} && flow.resp.window_probes > 3"),
        )
    },
    |i, p| {
        let ms = 10_000 + i;
        (
            "retransmission, close",
            format!("flow.sport < 1024 && flow.dport == {p} && flow.established && flow.age_ms > {ms}"),
        )
    },
];

/// `count` rules; with `event`, all of them wait for that one.
pub fn load(count: usize, event: Option<&str>) -> Result<RuleSet> {
    let mut text = String::new();
    for i in 0..count {
        // Consecutive rules of one form have different ports.
        let (form, port) = (i % TEMPLATES.len(), PORTS[(i / TEMPLATES.len() + i) % PORTS.len()]);
        let (own, condition) = TEMPLATES[form](i, port);
        let event = event.unwrap_or(own);
        text.push_str(&format!(
            "rule \"operator_{i}\" on {event} when {condition} then {{ incident(\"info\", \"x\"); }}\n"
        ));
    }
    let source = SourceFile { name: "operators.rhai".to_owned(), text };
    match RuleSet::load(&[source], &[]) {
        Ok(rules) => Ok(rules),
        Err(errors) => {
            bail!("the benchmark's rules: {}", errors.iter().map(|e| format!("{e}; ")).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_load() {
        assert_eq!(load(200, None).unwrap().rules().len(), 200);
        assert_eq!(load(200, Some("close")).unwrap().flow_events().iter().count(), 1);
    }
}
