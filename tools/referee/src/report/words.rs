//! What people are told of a run: incidents in plain words, worst first, then numbers, then the books.
//!
//! Main thread, to standard output. Only words and layout; nothing is decided here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{CellAlignment, Table};
use dataplane::judge::{Incident, Subject};
use rules::Severity;

use super::finished::{Finished, Inputs, Kept};
use super::ledger::Ledger;
use super::proof::Proofs;
use super::tally::Tally;
use crate::error::Failure;
use crate::term::{self, Paint, count, plural, rate, wrap};
use crate::time::{span, utc};

/// Sizes that the state tables of Linux devices usually have.
const USUAL_TABLES: [u64; 4] = [65_536, 131_072, 262_144, 1_048_576];

/// Shows the report.
///
/// # Errors
/// Failed: standard output can't be written.
pub fn show(mut tally: Tally, f: &Finished, ledger: &Ledger, store: Option<&Path>) -> Result<(), Failure> {
    let paint = Paint::for_stdout();
    let mut text = String::new();
    let proofs = store.map(Proofs::of);
    for incident in tally.told() {
        text.push_str(&told(incident, paint, proofs.as_ref().filter(|_| captured(incident, &f.kept))));
        text.push('\n');
    }
    text.push_str(&verdict(&mut tally, ledger, paint));
    text.push('\n');
    text.push_str(&numbers(&tally, f, ledger));
    text.push_str(&books(ledger, paint));
    term::show(|out| out.write_all(text.as_bytes()))
}

/// An incident that has just opened, in a line and a sentence or two. `proofs`: packets of it are kept.
pub fn opened(incident: &Incident, paint: Paint, proofs: Option<&Proofs>) -> String {
    let (when, who) = (utc(incident.first_ns), subject(&incident.subject));
    let plain = format!("{}  {}  {when}  {who}", incident.severity.as_str(), incident.kind);
    let apart = apart(&plain, term::width());
    let head = format!("{}  {}  {when}{apart}{who}\n", label(incident, paint), paint.bold(&incident.kind));
    let proof = proofs.map(|proofs| proof(&incident.id, paint, proofs)).unwrap_or_default();
    format!("{head}{}{proof}", wrap("  ", &incident.explain))
}

/// What parts whom it is about from the rest of a heading: a terminal would break an address anywhere.
fn apart(heading: &str, columns: usize) -> &'static str {
    if heading.chars().count() > columns { "\n  " } else { "  " }
}

fn proof(id: &str, paint: Paint, proofs: &Proofs) -> String {
    format!("  proof: {}\n", paint.bold(proofs.line(id)))
}

/// An incident that was told when it opened, and turned out to be none.
pub fn withdrawn(incident: &Incident, paint: Paint) -> String {
    let who = subject(&incident.subject);
    let apart = apart(&format!("withdrawn  {}  {who}", incident.kind), term::width());
    let head = format!("withdrawn  {}{apart}{who}", incident.kind);
    format!("{}\n{}", paint.dim(head), wrap("  ", &incident.explain))
}

fn label(incident: &Incident, paint: Paint) -> String {
    let label = incident.severity.as_str().to_uppercase();
    match incident.severity {
        Severity::Critical => paint.red(label),
        Severity::Warning => paint.yellow(label),
        Severity::Info => paint.blue(label),
    }
}

/// True if packets of the incident are kept.
pub fn captured(incident: &Incident, kept: &Kept) -> bool {
    incident.flow_ids.iter().any(|id| u64::from_str_radix(id, 16).is_ok_and(|id| kept.contains(id)))
}

/// One incident in words. `proofs`: packets of it are kept.
pub fn told(incident: &Incident, paint: Paint, proofs: Option<&Proofs>) -> String {
    let label = label(incident, paint);
    let mut text = format!("{label}  {}  {}", paint.bold(&incident.kind), utc(incident.first_ns));
    let lasted = incident.last_ns.saturating_sub(incident.first_ns);
    if lasted > 0 {
        let _ = write!(text, ", for {}", span(lasted));
    }
    let events = plural(incident.count, "event");
    let flows =
        if incident.flows > 0 { format!(", {}", plural(incident.flows, "flow")) } else { String::new() };
    let _ = write!(text, "\n  who: {}  ({events}{flows})\n", subject(&incident.subject));
    text.push_str(&wrap("  ", &incident.explain));
    if !incident.advise.is_empty() {
        text.push_str(&wrap("  what to do: ", &incident.advise));
    }
    match proofs {
        Some(proofs) => text.push_str(&proof(&incident.id, paint, proofs)),
        None => {
            let _ = writeln!(text, "  {}", paint.dim(format!("incident {}", incident.id)));
        }
    }
    text
}

/// Whom it is about.
pub fn subject(subject: &Subject) -> String {
    let end = |addr: &std::net::IpAddr, port: u16| std::net::SocketAddr::new(*addr, port).to_string();
    match subject {
        Subject::Flow { proto, src, sport, dst, dport } => {
            format!("{proto} {} → {}", end(src, *sport), end(dst, *dport))
        }
        Subject::Host { host } => format!("host {host}"),
        Subject::Service { dst, dport, proto } => format!("service {proto} {}", end(dst, *dport)),
        Subject::Link { .. } => "all traffic".to_owned(),
    }
}

/// The one sentence of it all.
fn verdict(tally: &mut Tally, ledger: &Ledger, paint: Paint) -> String {
    let total: u64 = tally.by_severity.iter().sum();
    let told = tally.told().len() as u64;
    let mut text = if total == 0 && ledger.received == 0 {
        paint.bold("No packets came.")
    } else if total == 0 {
        paint.green("Healthy: nothing a person needs to look at.")
    } else {
        let parts: Vec<String> = Severity::ALL
            .into_iter()
            .rev()
            .map(|severity| (tally.by_severity[severity as usize], severity))
            .filter(|(number, _)| *number > 0)
            .map(|(number, severity)| format!("{} {severity}", count(number)))
            .collect();
        paint.bold(format!("{}: {}.", plural(total, "incident"), parts.join(", ")))
    };
    if total > told + tally.told_before {
        let more = count(total - told - tally.told_before);
        let _ = write!(text, " {more} more are not shown; --incidents PATH writes all.");
    }
    if !ledger.input_complete {
        text.push_str(" The input is incomplete (see standard error).");
    }
    text.push('\n');
    text
}

fn numbers(tally: &Tally, f: &Finished, ledger: &Ledger) -> String {
    let mut table = term::table();
    table.add_row(["packets", &packets(ledger.received, ledger.analysed, ledger.bytes)]);
    let peak = count(u64::from(f.peak));
    table.add_row(["flows", &format!("{} ({peak} live at most)", count(f.worker.flows_created))]);
    if let Some(peak) = ledger.judge["state_entries_peak"].as_u64() {
        table.add_row(["state table", &state_table(peak)]);
    }
    if let Some((first, last)) = tally.span {
        let lasted = span(last.saturating_sub(first));
        table.add_row(["time span", &format!("{} to {} ({lasted})", utc(first), utc(last))]);
    }
    let speed = rate(ledger.received, f.seconds);
    match &f.inputs {
        Inputs::Files { .. } => drop(table.add_row(["speed", &format!("{:.2} s, {speed}", f.seconds)])),
        Inputs::Interfaces { reports, .. } => {
            let lasted = span((f.seconds * 1e9) as u64);
            table.add_row(["captured for", &format!("{lasted}, {speed} on average")]);
            for report in reports {
                table.add_row([report.name.as_str(), &report.capture]);
            }
        }
    }
    let mut text = rows(&table);
    text.push('\n');
    if tally.findings.is_empty() {
        return text;
    }
    let mut table = term::table();
    table.set_header(["finding", "flows", "events"]);
    let mut findings: Vec<_> = tally.findings.iter().collect();
    findings.sort_by(|(kind_a, (flows_a, _)), (kind_b, (flows_b, _))| {
        flows_b.cmp(flows_a).then_with(|| kind_a.cmp(kind_b))
    });
    for (kind, (flows, total)) in findings {
        table.add_row([kind.clone(), count(*flows), count(*total)]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text.push_str(&rows(&table));
    text.push('\n');
    text
}

/// How many there were, and what was seen of them: bytes are counted of those analysed.
fn packets(received: u64, analysed: u64, bytes: u64) -> String {
    match analysed {
        _ if analysed == received => format!("{} ({})", count(received), plural(bytes, "byte")),
        0 => format!("{}, none of them analysed", count(received)),
        _ => format!(
            "{}, of which {} were analysed ({})",
            count(received),
            count(analysed),
            plural(bytes, "byte")
        ),
    }
}

/// Near a usual size it is worth a word; whether there is such a table the wire doesn't tell, so it is no more.
fn state_table(peak: u64) -> String {
    let near = USUAL_TABLES.iter().find(|size| (**size * 80..=**size * 110).contains(&(peak * 100)));
    let near = near.map(|size| format!(", near a usual limit of {}", count(*size))).unwrap_or_default();
    format!("{} entries at most in a firewall that saw all this{near}", count(peak))
}

fn rows(table: &Table) -> String {
    term::lines(table).map(|line| line + "\n").collect()
}

fn books(ledger: &Ledger, paint: Paint) -> String {
    let (dropped, unwritten) = (&ledger.dropped, &ledger.unwritten);
    let label = match ledger.balanced {
        true => "books balance".to_owned(),
        false => paint.red("BOOKS DO NOT BALANCE"),
    };
    let mut text = format!(
        "{label}: {} received = {} analysed + {} filtered + {} dropped{}; kept {} = {} written",
        count(ledger.received),
        count(ledger.analysed),
        count(ledger.filtered),
        count(dropped.values().sum()),
        reasons(dropped),
        count(ledger.kept),
        count(ledger.written)
    );
    if unwritten.values().any(|packets| *packets > 0) {
        let _ = write!(text, " + {} unwritten{}", count(unwritten.values().sum()), reasons(unwritten));
    }
    text.push('\n');
    text
}

/// The reasons that have packets, in brackets; nothing if none has.
fn reasons(account: &BTreeMap<&'static str, u64>) -> String {
    let given = account.iter().filter(|(_, packets)| **packets > 0);
    let words: Vec<String> = given.map(|(reason, packets)| format!("{reason} {}", count(*packets))).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_may_be_full_is_worth_a_word() {
        let near =
            |peak| state_table(peak).split_once("near a usual limit of ").map(|(_, size)| size.to_owned());
        assert_eq!(near(52_428), None);
        assert_eq!(near(52_429).as_deref(), Some("65,536"));
        assert_eq!((near(80_000), near(104_858).as_deref()), (None, Some("131,072")));
        assert_eq!((near(0), near(u64::from(u32::MAX))), (None, None));
    }

    #[test]
    fn bytes_are_told_of_what_was_analysed() {
        assert_eq!(packets(0, 0, 0), "0 (0 bytes)");
        assert_eq!(packets(2000, 2000, 128_000), "2,000 (128,000 bytes)");
        assert_eq!(packets(2000, 0, 0), "2,000, none of them analysed");
        assert_eq!(packets(2000, 20, 1), "2,000, of which 20 were analysed (1 byte)");
    }

    #[test]
    fn incidents_read_like_sentences() {
        let incident = Incident {
            id: "00aa".into(),
            kind: "rst_midflow".into(),
            rule: "rst_midflow".into(),
            severity: Severity::Warning,
            scope: rules::Scope::Flow,
            subject: Subject::Flow {
                proto: "tcp".into(),
                src: "10.0.0.1".parse().unwrap(),
                sport: 40000,
                dst: "fd00::2".parse().unwrap(),
                dport: 443,
            },
            first_ns: 0,
            last_ns: 8_800_000_000,
            count: 2000,
            flows: 1,
            flow_ids: vec!["00000000000000ff".into()],
            evidence: serde_json::Map::new(),
            explain: "It broke.".into(),
            advise: "Mend it.".into(),
            tags: Vec::new(),
            rules_hash: String::new(),
            because: Vec::new(),
            withdrawn: false,
        };
        let proofs = Proofs::of(Path::new("s"));
        let mut kept = Kept::default();
        assert!(!captured(&incident, &kept));
        kept.insert(255);
        assert!(captured(&incident, &kept));
        let text = told(&incident, Paint::plain(), Some(&proofs));
        let expected = "WARNING  rst_midflow  1970-01-01T00:00:00.000Z, for 8.8 s\n  \
                        who: tcp 10.0.0.1:40000 → [fd00::2]:443  (2,000 events, 1 flow)\n  It broke.\n  \
                        what to do: Mend it.\n  \
                        proof: referee captures get --store s --incident 00aa -w - | wireshark -k -i -\n";
        assert_eq!(text, expected);
        let beginning = opened(&incident, Paint::plain(), Some(&proofs));
        assert_eq!(beginning.lines().last(), expected.lines().last());
        assert!(!opened(&incident, Paint::plain(), None).contains("proof"));
        let text = told(&incident, Paint::plain(), None);
        assert!(text.ends_with("\n  incident 00aa\n"), "{text}");
    }
}
