//! A comparison in words for people: the verdict, what is wrong and where, then clocks and books.
//!
//! Main thread, to standard output. Only words and layout; nothing is decided here.

use std::fmt::Write as _;

use compare::{Books, Finding, FlowName, Report, Summary, TapName};
use serde_json::Value;

use super::Input;
use super::sentences::{heading, sentence};
use crate::term::{self, Paint, count, plural, wrap};
use crate::time::{span, utc};

/// Flows shown of each kind.
const EXAMPLES: usize = 3;

/// The whole report.
pub fn report(report: &Report, inputs: &[Input], paint: Paint) -> String {
    let mut text = verdict(&report.summary, paint);
    text.push('\n');
    for group in report.findings.chunk_by(|x, y| (x.kind, x.seen_at) == (y.kind, y.seen_at)) {
        text.push_str(&told(group, report, paint));
        text.push('\n');
    }
    text.push_str(&numbers(&report.summary, inputs));
    text.push_str(&books(&report.summary, inputs, paint));
    text
}

/// The one sentence of it all.
fn verdict(s: &Summary, paint: Paint) -> String {
    let packets: u64 = s.accounts.values().map(|books| books.packets).sum();
    let mut text = if packets == 0 {
        paint.bold("No packets came.")
    } else if s.matched_packets == 0 {
        let hint = "No packet of A is in B: the taps are on different paths, something in between translates \
                    addresses, the captures are of different times, or nothing came through at all.";
        paint.bold(wrap("", hint).trim_end())
    } else if s.findings.is_empty() {
        paint.green("The network between the taps is innocent: what went in came out, unchanged.")
    } else {
        let kinds: Vec<String> = s
            .findings
            .iter()
            .map(|(kind, flows)| format!("{} ({})", heading(kind), plural(*flows, "connection")))
            .collect();
        paint.red(wrap("", &format!("Between the taps: {}.", kinds.join("; "))).trim_end())
    };
    text.push('\n');
    text
}

/// All findings of one kind that one tap saw.
fn told(group: &[Finding], report: &Report, paint: Paint) -> String {
    let mut ordered: Vec<&Finding> = group.iter().collect();
    ordered.sort_by_key(|finding| (std::cmp::Reverse(finding.count), finding.first_ns));
    let Some(first) = ordered.first() else { return String::new() };
    let packets = group.iter().map(|finding| finding.count).sum();
    let sums = format!("{} in {}", plural(packets, "packet"), plural(group.len() as u64, "connection"));
    let mut text = format!("{}  {}\n", paint.bold(first.kind), sums);
    for finding in ordered.iter().take(EXAMPLES) {
        let _ = writeln!(text, "  {}", arrow(finding, &report.summary));
        text.push_str(&wrap("    ", &sentence(finding)));
    }
    if ordered.len() > EXAMPLES {
        let more = plural((ordered.len() - EXAMPLES) as u64, "more connection");
        let _ = writeln!(text, "  {}", paint.dim(format!("and {more}; --json shows all")));
    }
    text
}

fn end(addr: &str, port: u16) -> String {
    match (addr.contains(':'), port) {
        (_, 0) => addr.to_owned(),
        (true, _) => format!("[{addr}]:{port}"),
        (false, _) => format!("{addr}:{port}"),
    }
}

/// Client, taps and server as they lie, and how far the packets came. Where it went wrong is marked ✗.
fn arrow(finding: &Finding, s: &Summary) -> String {
    let FlowName { proto, src, sport, dst, dport } = &finding.flow;
    let (client, server) = (end(src, *sport), end(dst, *dport));
    let (near, far) = match s.client_side {
        Some(TapName::B) => (TapName::B, TapName::A),
        _ => (TapName::A, TapName::B),
    };
    let near_saw = finding.seen_at == Some(near);
    let to_server = finding.evidence.get("direction").and_then(Value::as_str) == Some("client_to_server");
    let came_out =
        matches!(finding.kind, "rst_one_side_only" | "packet_injected_between" | "icmp_from_between");
    let (a, middle, b) = match (finding.missing_at.is_some(), came_out, near_saw) {
        // Lost: went in at one tap and nowhere else.
        (true, false, true) if finding.kind == "packet_lost_between" => ("──▶", "──▶ (✗ lost)     ", "   "),
        (true, false, false) if finding.kind == "packet_lost_between" => ("   ", "     (lost ✗) ◀──", "◀──"),
        (true, true, true) => ("◀──", "◀── (✗ made here)    ", "   "),
        (true, true, false) => ("   ", "    (made here ✗) ──▶", "──▶"),
        _ if to_server => ("──▶", "──▶ (changed) ──▶", "──▶"),
        _ if near_saw || finding.seen_at.is_none() => ("──▶", "──▶ (changed) ──▶", "──▶"),
        _ => ("◀──", "◀── (changed) ◀──", "◀──"),
    };
    format!("{proto} {client} {a} [{}] {middle} [{}] {b} {server}", near.letter(), far.letter())
}

fn signed(ns: i64) -> String {
    if ns.unsigned_abs() < 1000 {
        return format!("{} ns", ns.unsigned_abs());
    }
    span(ns.unsigned_abs())
}

/// What is known of the clocks.
fn clocks(s: &Summary) -> String {
    let Some(offset) = s.offset_ns else { return "not known: no packet was seen at both taps".into() };
    let who = if offset >= 0 { "ahead of" } else { "behind" };
    let mut text = format!("A's is {} {who} B's", signed(offset));
    match s.offset_uncertainty_ns {
        Some(doubt) => {
            let _ = write!(text, ", ± {}", signed(doubt));
        }
        None => text.push_str(", wrong by the one-way delay: packets went one way only"),
    }
    match (s.drift_ppm, s.drift_uncertainty_ppm) {
        (Some(drift), Some(doubt)) if drift != 0.0 => {
            let _ = write!(text, "; drifts {drift:+.1} ppm (± {doubt:.1})");
        }
        (Some(_), Some(doubt)) => {
            let _ = write!(text, "; no drift (± {doubt:.1} ppm)");
        }
        _ => text.push_str("; too short to tell drift"),
    }
    text
}

fn numbers(s: &Summary, inputs: &[Input]) -> String {
    let mut table = term::table();
    let spans = [(TapName::A, s.span_a_ns), (TapName::B, s.span_b_ns)];
    for ((tap, times), input) in spans.into_iter().zip(inputs) {
        let packets = s.accounts.get(&tap).map_or(0, |books| books.packets);
        let time = times.map_or_else(String::new, |[first, last]| {
            format!(", {} to {} ({})", utc(first), utc(last), span(last.saturating_sub(first)))
        });
        let cut = if input.complete { "" } else { ", incomplete" };
        table.add_row([tap.letter(), &format!("{}: {}{time}{cut}", input.name, plural(packets, "packet"))]);
    }
    if let Some([first, last]) = s.overlap_ns {
        table.add_row(["both ran", &span(last.saturating_sub(first))]);
    }
    table.add_row(["clocks", &clocks(s)]);
    let hops = |hops: Option<i16>| hops.map_or_else(|| "unknown".to_owned(), |hops| hops.to_string());
    if s.matched_packets > 0 {
        let rtt = s.rtt_between_ns.map_or_else(|| "not known".to_owned(), signed);
        let routers = format!("{} from A to B, {} back", hops(s.hops_a_to_b), hops(s.hops_b_to_a));
        let shortest = format!("shortest round trip {rtt}; TTL lowered by {routers}");
        table.add_row(["between", &shortest]);
    }
    if let Some(side) = s.client_side {
        let guess = if s.sides_guessed { " (a guess from raw time stamps)" } else { "" };
        table.add_row(["client side", &format!("{}{guess}", side.letter())]);
    }
    let both = plural(s.matched_packets, "packet");
    let matched =
        format!("{both} at both taps, {} only at A, {} only at B", count(s.only_a), count(s.only_b));
    table.add_row(["matched", &matched]);
    term::lines(&table).map(|line| line + "\n").collect::<String>() + "\n"
}

fn books(s: &Summary, inputs: &[Input], paint: Paint) -> String {
    let mut text = String::new();
    for (tap, books) in &s.accounts {
        let label = match books.balanced() {
            true => format!("books of {} balance", tap.letter()),
            false => paint.red(format!("BOOKS OF {} DO NOT BALANCE", tap.letter())),
        };
        let _ = write!(text, "{label}: {} = {} matched", count(books.packets), count(books.matched));
        for (packets, words) in accounts(books) {
            if packets > 0 {
                let _ = write!(text, " + {} {words}", count(packets));
            }
        }
        text.push('\n');
    }
    if inputs.iter().any(|input| !input.complete) {
        text.push_str("The input is incomplete (see standard error).\n");
    }
    text
}

fn accounts(books: &Books) -> [(u64, &'static str); 11] {
    [
        (books.lost_between, "lost between"),
        (books.made_between, "made between"),
        (books.resegmented, "in other segments"),
        (books.duplicate, "duplicates"),
        (books.missed_by_other_tap, "missed by the other tap"),
        (books.outside_overlap, "outside the common time"),
        (books.other_path, "of other paths"),
        (books.local, "local"),
        (books.unproven, "lost or missed"),
        (books.not_ip, "not IP"),
        (books.malformed, "malformed"),
    ]
}
