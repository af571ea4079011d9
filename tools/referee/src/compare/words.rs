//! A comparison in words for people: the verdict, what is wrong and where, then clocks and books.
//!
//! Main thread, to standard output. Only words and layout; nothing is decided here.

use std::fmt::Write as _;

use compare::{Books, Report, Summary, TapName};

use super::Input;
use super::groups::{rank, told};
use super::sentences::heading;
use crate::term::{self, Paint, count, plural, wrap};
use crate::time::{span, utc};

/// Changes of DSCP shown.
const REMARKS: usize = 4;
/// Kinds named in the verdict.
const NAMED: usize = 5;

/// The whole report.
pub fn report(report: &Report, inputs: &[Input], paint: Paint) -> String {
    let mut text = verdict(&report.summary, paint);
    text.push('\n');
    text.push_str(&told(&report.findings, paint));
    text.push_str(&numbers(&report.summary, inputs));
    text.push_str(&books(&report.summary, inputs, paint));
    text
}

/// The one sentence of it all.
fn verdict(s: &Summary, paint: Paint) -> String {
    let text = if s.matched_packets == 0 {
        paint.bold(wrap("", &nothing_in_common(s)).trim_end())
    } else if s.findings.is_empty() {
        let (sure, said) = innocent(s);
        let said = wrap("", &said);
        if sure { paint.green(said.trim_end()) } else { paint.yellow(said.trim_end()) }
    } else {
        let mut kinds: Vec<_> = s.findings.iter().collect();
        kinds.sort_by_key(|(kind, _)| rank(kind));
        let mut said: Vec<String> = kinds
            .iter()
            .take(NAMED)
            .map(|(kind, flows)| format!("{} ({})", heading(kind), plural(**flows, "connection")))
            .collect();
        if kinds.len() > NAMED {
            said.push(format!("{} more", plural((kinds.len() - NAMED) as u64, "kind")));
        }
        paint.red(wrap("", &format!("Between the taps: {}.", said.join("; "))).trim_end())
    };
    text + "\n"
}

/// Nothing is wrong; whether that is sure, and in words.
fn innocent(s: &Summary) -> (bool, String) {
    let sum = |of: fn(&Books) -> u64| s.accounts.values().map(of).sum::<u64>();
    let (undecided, unseen) =
        (sum(|books| books.unproven + books.undecided), sum(|books| books.not_recorded));
    let hops = s.hops_a_to_b.into_iter().chain(s.hops_b_to_a).any(|hops| hops != 0);
    let mut but = Vec::new();
    if hops {
        but.push("TTL");
    }
    if !s.dscp_remarked.is_empty() {
        but.push("DSCP");
    }
    let unchanged = match but.is_empty() {
        true => "unchanged".to_owned(),
        false => format!("unchanged but for {}", but.join(" and ")),
    };
    if undecided == 0 && unseen == 0 {
        return (
            true,
            format!("The network between the taps is innocent: what went in came out, {unchanged}."),
        );
    }
    let mut said = format!("Nothing wrong was found between the taps: what both saw is {unchanged}");
    if unseen > 0 {
        let _ = write!(said, "; {} in a direction that one tap does not record", plural(unseen, "packet"));
    }
    if undecided > 0 {
        let _ = write!(said, "; {} could not be judged", plural(undecided, "packet"));
    }
    (false, said + ".")
}

/// Why no packet was found in both.
fn nothing_in_common(s: &Summary) -> String {
    let packets = |tap: TapName| {
        s.accounts
            .get(&tap)
            .map_or((0, 0), |books| (books.packets, books.packets - books.not_ip - books.malformed))
    };
    match (packets(TapName::A), packets(TapName::B)) {
        ((0, _), (0, _)) => return "No packets came: both captures are empty.".into(),
        ((_, _), (0, _)) => return "B has no packets: there is nothing to compare A with.".into(),
        ((0, _), (_, _)) => return "A has no packets: there is nothing to compare B with.".into(),
        ((_, a), (_, b)) if a == 0 || b == 0 => {
            let which = if b == 0 { "B" } else { "A" };
            return format!("{which} has no IP packets: there is nothing to compare.");
        }
        _ => {}
    }
    let mut why = Vec::new();
    if let (Some(a), Some(b)) = (s.span_a_ns, s.span_b_ns) {
        let apart = b[0].saturating_sub(a[1]).max(a[0].saturating_sub(b[1]));
        if apart > 0 {
            why.push(format!("by their clocks, {} lie between the two captures", span(apart)));
        }
    }
    if s.hosts_in_both == 0 {
        why.push("no address is in both, so something in between translates them, or the taps are on different paths".into());
    } else {
        let hosts = match s.hosts_in_both {
            1 => "one address is".to_owned(),
            hosts => format!("{} addresses are", count(hosts)),
        };
        why.push(format!(
            "{hosts} in both, so the captures are of different times, one of them is filtered, ports are translated, \
             or nothing came through at all"
        ));
    }
    format!("No packet of A is in B: {}.", why.join("; "))
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
        _ if !s.clock_steps.is_empty() => text.push_str(", before one of them was set; drift is not told"),
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
    for step in &s.clock_steps {
        let by = signed(step.b_less_a_by_ns);
        let way = if step.b_less_a_by_ns > 0 { "forward" } else { "back" };
        table.add_row([
            "clock set",
            &format!("B's by {by} {way} (or A's the other way) at {}", utc(step.at_b_ns)),
        ]);
    }
    let hops = |hops: Option<i16>| hops.map_or_else(|| "unknown".to_owned(), |hops| hops.to_string());
    if s.matched_packets > 0 {
        let rtt = s.rtt_between_ns.map_or_else(|| "not known".to_owned(), signed);
        let routers = format!("{} from A to B, {} back", hops(s.hops_a_to_b), hops(s.hops_b_to_a));
        let others = match s.other_hops_a_to_b + s.other_hops_b_to_a {
            0 => String::new(),
            others => format!(" (by another number in {})", plural(others, "packet")),
        };
        let shortest = format!("shortest round trip {rtt}; TTL lowered by {routers}{others}");
        table.add_row(["between", &shortest]);
    }
    for remark in s.dscp_remarked.iter().take(REMARKS) {
        let way = if remark.direction == "a_to_b" { "from A to B" } else { "from B to A" };
        let (packets, sent, received) = (plural(remark.packets, "packet"), remark.sent, remark.received);
        table.add_row(["DSCP", &format!("{sent} became {received} in {packets} {way}")]);
    }
    for (tap, other) in [(TapName::A, TapName::B), (TapName::B, TapName::A)] {
        let missed = s.accounts.get(&other).map_or(0, |books| books.missed_by_other_tap);
        if missed > 0 {
            let what =
                format!("{}'s capture lacks {} that did pass it", tap.letter(), plural(missed, "packet"));
            table.add_row(["missed", &what]);
        }
    }
    for unrecorded in &s.not_recorded {
        let way = if unrecorded.direction == "a_to_b" { "from A to B" } else { "from B to A" };
        table.add_row(["one way", &format!("{} does not record what goes {way}", unrecorded.tap.letter())]);
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

fn accounts(books: &Books) -> [(u64, &'static str); 13] {
    [
        (books.lost_between, "lost between"),
        (books.made_between, "made between"),
        (books.resegmented, "in other segments"),
        (books.duplicate, "duplicates"),
        (books.missed_by_other_tap, "missed by the other tap"),
        (books.outside_overlap, "outside the common time"),
        (books.other_path, "of other paths"),
        (books.not_recorded, "in a direction not recorded there"),
        (books.undecided, "undecided"),
        (books.local, "local"),
        (books.unproven, "lost or missed"),
        (books.not_ip, "not IP"),
        (books.malformed, "malformed"),
    ]
}
