//! One sentence for each finding of a comparison: what was seen where, and what follows.
//!
//! Main thread. Words only; reads the evidence that the `compare` crate gives with each kind.

use compare::{Finding, TapName};
use serde_json::Value;

use crate::term::{count, plural};
use crate::time::{span, utc};

/// A kind in a few words.
pub fn heading(kind: &str) -> &str {
    match kind {
        "packet_lost_between" => "packets were lost",
        "rst_one_side_only" => "resets were forged",
        "packet_injected_between" => "packets were injected",
        "icmp_from_between" => "routers sent ICMP errors",
        "mss_clamped" => "the MSS was changed",
        "wscale_stripped" => "window scaling was removed",
        "wscale_mismatch" => "the ends disagree about window scaling",
        "sack_stripped" => "SACK was removed",
        "timestamps_stripped" => "time stamps were removed",
        "seq_rewritten" => "sequence numbers were rewritten",
        "sack_garbled" => "SACK blocks were left with the old sequence numbers",
        "ecn_bleached" => "ECN was erased",
        "ecn_ce_between" => "congestion was marked",
        "ecn_altered" => "ECN was changed",
        "ttl_raised" => "TTL was raised",
        "payload_altered" => "payload was altered",
        other => other,
    }
}

fn text<'f>(f: &'f Finding, field: &str) -> &'f str {
    f.evidence.get(field).and_then(Value::as_str).unwrap_or("?")
}

fn number(f: &Finding, field: &str) -> Option<u64> {
    f.evidence.get(field).and_then(Value::as_u64)
}

fn is(f: &Finding, field: &str) -> bool {
    f.evidence.get(field).and_then(Value::as_bool).unwrap_or(false)
}

fn letter(tap: Option<TapName>) -> &'static str {
    tap.map_or("?", TapName::letter)
}

/// Says it.
pub fn sentence(f: &Finding) -> String {
    let (seen, missing) = (letter(f.seen_at), letter(f.missing_at));
    let when = utc(f.first_ns);
    match f.kind {
        "packet_lost_between" => lost(f, seen, missing, &when),
        "rst_one_side_only" | "packet_injected_between" => made(f, seen, missing, &when),
        "icmp_from_between" => icmp(f, seen, missing, &when),
        "wscale_mismatch" => mismatch(f),
        "seq_rewritten" | "sack_garbled" => rewritten(f),
        "mss_clamped" | "wscale_stripped" | "sack_stripped" | "timestamps_stripped" => options(f),
        "ecn_bleached" => {
            format!("{} with ECN set passed {seen} and arrived without it.", plural(f.count, "packet"))
        }
        "ecn_ce_between" => {
            let marked = plural(f.count, "packet");
            format!("{marked} passed {seen} unmarked and arrived with CE: a queue in between is congested.")
        }
        "ecn_altered" => format!(
            "{} passed {seen} with another ECN field than they arrived with (first {} became {}).",
            plural(f.count, "packet"),
            number(f, "sent").unwrap_or(0),
            number(f, "received").unwrap_or(0)
        ),
        "ttl_raised" => format!(
            "{} arrived with a higher TTL than they passed {seen} with (first {} became {}): something in between sets \
             it, and loops through it never end.",
            plural(f.count, "packet"),
            number(f, "sent").unwrap_or(0),
            number(f, "received").unwrap_or(0)
        ),
        "payload_altered" => {
            format!(
                "{} arrived with other payload than passed {seen}, first at {when}.",
                plural(f.count, "packet")
            )
        }
        other => other.to_owned(),
    }
}

fn icmp(f: &Finding, seen: &str, missing: &str, when: &str) -> String {
    let about = match f.evidence.get("about").filter(|about| about.is_object()) {
        Some(about) => {
            let of = |field: &str| about.get(field).and_then(Value::as_str).unwrap_or("?");
            let port = |field: &str| about.get(field).and_then(Value::as_u64).filter(|port| *port > 0);
            let end = |host: &str, field: &str| {
                port(field).map_or(host.to_owned(), |port| format!("{host} port {port}"))
            };
            format!(" about {} from {} to {}", of("proto"), end(of("src"), "sport"), end(of("dst"), "dport"))
        }
        None => String::new(),
    };
    format!(
        "A router between the taps ({}) sent ICMP type {} code {}{about} to {seen}'s side at {when}; {missing} never saw \
         it.",
        text(f, "router"),
        number(f, "icmp_type").unwrap_or(0),
        number(f, "icmp_code").unwrap_or(0)
    )
}

fn lost(f: &Finding, seen: &str, missing: &str, when: &str) -> String {
    let parts: Vec<String> = [("syn", "SYN"), ("data", "data segment"), ("fin", "FIN"), ("rst", "RST")]
        .into_iter()
        .filter_map(|(field, name)| Some((number(f, field).filter(|n| *n > 0)?, name)))
        .map(|(n, name)| plural(n, name))
        .collect();
    let what = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    let packets = plural(f.count, "packet");
    let mut said = format!("{packets}{what} passed {seen}, first at {when}, and never reached {missing}");
    let in_part = number(f, "arrived_in_part").unwrap_or(0);
    if in_part > 0 {
        let bytes = plural(number(f, "payload_bytes").unwrap_or(0), "byte");
        said.push_str(&format!(
            " ({in_part} of them only in part: segments are joined at {seen}; {bytes} are missing)"
        ));
    }
    let silent = number(f, "never_answered").unwrap_or(0);
    if silent == f.count {
        said.push_str("; nothing answered");
    }
    if number(f, "after_other_taps_last_packet").unwrap_or(0) > 0 {
        let after = format!(", though {missing} has no later packet that would show that it still captured");
        said.push_str(&after);
    }
    format!("{said}.{}", doubt(f))
}

/// What else it could be.
fn doubt(f: &Finding) -> String {
    match f.evidence.get("doubt").and_then(Value::as_str) {
        Some(doubt) => format!(" But {doubt}."),
        None => String::new(),
    }
}

fn made(f: &Finding, seen: &str, missing: &str, when: &str) -> String {
    let what = if f.kind == "rst_one_side_only" { "RST" } else { "packet" };
    let what = if f.count == 1 { format!("The {what}") } else { plural(f.count, what) };
    let (claim, it) = if f.count == 1 { ("claims", "it") } else { ("claim", "them") };
    let mut said =
        format!("{what} that {claim} to come from {} reached {seen} at {when}", text(f, "alleged_sender"));
    said = format!("{said}, and {missing} never saw {it} sent: the sender is between the two taps");
    let mut why = Vec::new();
    if let (Some(ttl), Some(usual), true) = (number(f, "ttl"), number(f, "usual_ttl"), is(f, "ttl_foreign")) {
        why.push(format!("TTL {ttl} where that host's packets have {usual}"));
    }
    if let (Some(after), Some(rtt), true) =
        (number(f, "after_ns"), number(f, "rtt_between_ns"), is(f, "too_fast_for_other_side"))
    {
        why.push(format!(
            "it came {} after what it answers, and the way between the taps and back takes {}",
            span(after),
            span(rtt)
        ));
    }
    if !why.is_empty() {
        said = format!("{said} ({})", why.join("; "));
    }
    format!("{said}.{}", doubt(f))
}

/// "sent 1460, received 1360", for SYN and SYN-ACK.
fn options(f: &Finding) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    };
    let mut parts = Vec::new();
    for (field, name) in [("syn", "SYN"), ("synack", "SYN-ACK")] {
        let Some(values) = f.evidence.get(field) else { continue };
        let (sent, received) = (&values["sent"], &values["received"]);
        parts.push(format!("the {name} sent {}, and {} arrived", shown(sent), shown(received)));
    }
    let option = match f.kind {
        "mss_clamped" => "Maximum segment size",
        "wscale_stripped" => "Window scale",
        "sack_stripped" => "SACK permitted",
        _ => "Time stamps",
    };
    format!("{option}: {}.", parts.join("; "))
}

fn mismatch(f: &Finding) -> String {
    let end = |scales: bool| if scales { "scales windows" } else { "does not scale windows" };
    let shift = |field: &str| number(f, field).unwrap_or(0);
    format!(
        "After what the middle changed, the client {} and the server {}: the server shifts its windows by {} and \
         the client reads them by {}; the client shifts by {} and the server reads by {}.",
        end(is(f, "client_scales")),
        end(is(f, "server_scales")),
        shift("server_sends_shift"),
        shift("client_reads_shift"),
        shift("client_sends_shift"),
        shift("server_reads_shift")
    )
}

fn rewritten(f: &Finding) -> String {
    let delta = |field: &str| f.evidence.get(field).and_then(Value::as_i64).unwrap_or(0);
    let (client, server) = (delta("client_delta_b_minus_a"), delta("server_delta_b_minus_a"));
    if f.kind == "sack_garbled" {
        let blocks = plural(f.count, "packet");
        return format!(
            "{blocks} carried SACK blocks past the middle unchanged, while it shifts the sequence numbers they \
             speak of: the sender can't make sense of them."
        );
    }
    format!(
        "At B the client's sequence numbers are {client:+} and the server's {server:+} from those at A, in {} \
         matched packets.",
        count(f.count)
    )
}
