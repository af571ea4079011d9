//! Findings for people: by kind, the worst first, and by cause within a kind; of each a few, and counts of the rest.
//!
//! Main thread. Orders, counts and draws; nothing is decided here. `words` puts it between verdict and books.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;

use compare::{Finding, FlowName, TapName};
use serde_json::Value;

use super::sentences::sentence;
use crate::term::{Paint, plural, wrap};

/// Causes told of each kind.
const CAUSES: usize = 4;

/// Kinds, the most important first.
const RANKS: [&str; 16] = [
    "rst_one_side_only",
    "packet_injected_between",
    "packet_lost_between",
    "icmp_from_between",
    "payload_altered",
    "wscale_mismatch",
    "wscale_stripped",
    "mss_clamped",
    "sack_garbled",
    "sack_stripped",
    "timestamps_stripped",
    "seq_rewritten",
    "ttl_raised",
    "ecn_bleached",
    "ecn_altered",
    "ecn_ce_between",
];

/// Place of a kind among others.
pub fn rank(kind: &str) -> usize {
    RANKS.iter().position(|known| *known == kind).unwrap_or(RANKS.len())
}

/// Findings that the same thing seems to have made.
struct Cause<'f> {
    findings: Vec<&'f Finding>,
    packets: u64,
}

/// What is alike in findings of one cause: the tap that saw it and, of packets lost, what they were; of changes, from
/// what to what. Services are told within.
fn cause(finding: &Finding) -> (Option<TapName>, String) {
    let of = |field: &str| finding.evidence.get(field).map(Value::to_string).unwrap_or_default();
    let alike = match finding.kind {
        "packet_lost_between" => what(finding).to_owned(),
        "icmp_from_between" => [of("router"), of("icmp_type"), of("icmp_code")].join(" "),
        "mss_clamped" | "wscale_stripped" | "sack_stripped" | "timestamps_stripped" => {
            [of("syn"), of("synack")].concat()
        }
        _ => String::new(),
    };
    (finding.seen_at, alike)
}

fn service(flow: &FlowName) -> String {
    format!("{} {}", flow.proto, end(flow, false))
}

/// Which packets were lost, in a word.
fn what(finding: &Finding) -> &'static str {
    let some = |field: &str| finding.evidence.get(field).and_then(Value::as_u64).is_some_and(|n| n > 0);
    match (some("data"), some("syn"), some("fin"), some("rst")) {
        (true, ..) => "data",
        (_, true, ..) => "SYN",
        (_, _, true, _) => "FIN",
        (.., true) => "RST",
        _ => "packets",
    }
}

/// All findings, told.
pub fn told(findings: &[Finding], paint: Paint) -> String {
    let mut kinds: HashMap<&str, Vec<&Finding>> = HashMap::new();
    for finding in findings {
        kinds.entry(finding.kind).or_default().push(finding);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(kind, _)| (rank(kind), *kind));
    kinds.into_iter().map(|(kind, findings)| of_kind(kind, findings, paint) + "\n").collect()
}

fn sums(packets: u64, connections: usize) -> String {
    format!("{} in {}", plural(packets, "packet"), plural(connections as u64, "connection"))
}

fn of_kind(kind: &str, findings: Vec<&Finding>, paint: Paint) -> String {
    let packets = findings.iter().map(|finding| finding.count).sum();
    let doubtful = findings.iter().filter(|finding| finding.evidence.get("doubt").is_some()).count();
    let doubt = match doubtful {
        0 => String::new(),
        some if some == findings.len() => ", with doubt".to_owned(),
        some => format!(", {} of them with doubt", plural(some as u64, "connection")),
    };
    let mut text = format!("{}  {}{doubt}\n", paint.bold(kind), sums(packets, findings.len()));
    let mut causes: HashMap<_, Cause<'_>> = HashMap::new();
    for finding in findings {
        let cause = causes.entry(cause(finding)).or_insert(Cause { findings: Vec::new(), packets: 0 });
        cause.packets += finding.count;
        cause.findings.push(finding);
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by(|(x, one), (y, other)| other.packets.cmp(&one.packets).then_with(|| x.cmp(y)));
    for (_, cause) in causes.iter().take(CAUSES) {
        text.push_str(&of_cause(cause));
    }
    let rest = causes.get(CAUSES..).unwrap_or_default();
    let connections: usize = rest.iter().map(|(_, cause)| cause.findings.len()).sum();
    if connections > 0 {
        let packets = rest.iter().map(|(_, cause)| cause.packets).sum();
        let more =
            format!("and {} of {}", sums(packets, connections), plural(rest.len() as u64, "other cause"));
        let _ = writeln!(text, "  {}", paint.dim(format!("{more}; --json shows all")));
    }
    text
}

fn of_cause(cause: &Cause<'_>) -> String {
    let worst = cause.findings.iter().min_by_key(|f| (Reverse(f.count), f.first_ns, &f.flow));
    let Some(worst) = worst else { return String::new() };
    let mut text = format!("  {}\n{}", arrow(worst), wrap("    ", &sentence(worst)));
    let others = cause.findings.len() - 1;
    if others > 0 {
        let more =
            format!("the same of {} more{}", sums(cause.packets - worst.count, others), services(cause));
        text.push_str(&wrap("    ", &more));
    }
    text
}

/// Whether one service stands out among those of a cause.
fn services(cause: &Cause<'_>) -> String {
    let mut packets: HashMap<String, u64> = HashMap::new();
    for finding in &cause.findings {
        *packets.entry(service(&finding.flow)).or_default() += finding.count;
    }
    let most = packets.iter().max_by(|(x, one), (y, other)| one.cmp(other).then_with(|| y.cmp(x)));
    match most {
        Some((service, _)) if packets.len() == 1 => format!(", all of {service}"),
        Some((service, most)) if most * 2 >= cause.packets => {
            let of = plural(packets.len() as u64, "service");
            format!(", of {of}; {} of all are of {service}", plural(*most, "packet"))
        }
        _ => format!(", of {}, none of which stands out", plural(packets.len() as u64, "service")),
    }
}

/// One end of a flow; an ICMP message has no ports.
fn end(flow: &FlowName, client: bool) -> String {
    let (addr, port) = if client { (&flow.src, flow.sport) } else { (&flow.dst, flow.dport) };
    let has_ports = matches!(flow.proto.as_str(), "tcp" | "udp");
    match (has_ports, addr.contains(':')) {
        (false, _) => addr.clone(),
        (true, true) => format!("[{addr}]:{port}"),
        (true, false) => format!("{addr}:{port}"),
    }
}

/// Both ends and the taps as they lie, and how far the packets came. Where it went wrong is marked ✗.
fn arrow(finding: &Finding) -> String {
    let near = match finding.evidence.get("client_side").and_then(Value::as_str) {
        Some("b") => TapName::B,
        _ => TapName::A,
    };
    let far = if near == TapName::A { TapName::B } else { TapName::A };
    let flow = &finding.flow;
    let (client, server) = (end(flow, true), end(flow, false));
    let near_saw = finding.seen_at != Some(far);
    let (a, middle, b) = match (finding.kind, near_saw) {
        ("icmp_from_between", _) => return from_router(finding),
        // Lost: went in at one tap and nowhere else.
        ("packet_lost_between", true) => ("──▶", "──▶ (✗ lost)     ", "   "),
        ("packet_lost_between", false) => ("   ", "     (lost ✗) ◀──", "◀──"),
        ("rst_one_side_only" | "packet_injected_between", true) => ("◀──", "◀── (✗ made here)    ", "   "),
        ("rst_one_side_only" | "packet_injected_between", false) => ("   ", "    (made here ✗) ──▶", "──▶"),
        (_, true) => ("──▶", "──▶ (changed) ──▶", "──▶"),
        (_, false) => ("◀──", "◀── (changed) ◀──", "◀──"),
    };
    format!("{} {client} {a} [{}] {middle} [{}] {b} {server}", flow.proto, near.letter(), far.letter())
}

/// A router between the taps speaks to somebody on one side.
fn from_router(finding: &Finding) -> String {
    let flow = &finding.flow;
    let router = finding.evidence.get("router").and_then(Value::as_str).unwrap_or("?");
    let receiver = if router == flow.src { &flow.dst } else { &flow.src };
    let letters = if finding.seen_at == Some(TapName::B) { ["B", "A"] } else { ["A", "B"] };
    format!("{} {receiver} ◀── [{}] ◀── (✗ {router}) [{}]", flow.proto, letters[0], letters[1])
}
