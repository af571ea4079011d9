//! `kinds`: what each kind of incident and finding looks like and what helps, from docs/runbook.md.
//!
//! API thread. The text is compiled in and read anew for each question, which takes less than the answer's way.

use serde::Serialize;
use serde_json::json;

use super::auth::Role;
use super::call::{Answer, Call, json};
use super::problem::{Kind as Trouble, Problem};
use super::routes::Route;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/kinds", Role::Read, |call| Box::pin(list(call))),
    Route::get("/api/v1/kinds/{kind}", Role::Read, |call| Box::pin(one(call))),
];

const RUNBOOK: &str = include_str!("../../../../docs/runbook.md");

/// One section of the runbook.
#[derive(Debug, Serialize)]
pub struct Kind {
    pub kind: &'static str,
    /// What it is, in a sentence.
    pub title: String,
    /// What people notice.
    pub symptom: String,
    /// What packets show.
    pub wire: String,
    /// What to do.
    pub fix: String,
    /// What to set.
    pub set: String,
    /// The sysctls that this names.
    pub sysctl: Vec<String>,
    /// A display filter for Wireshark, in which HOST, PORT and N stand for what the incident names.
    pub filter: Option<String>,
}

/// All of them, in the runbook's order.
pub fn kinds() -> impl Iterator<Item = Kind> {
    RUNBOOK.split("\n### `").skip(1).filter_map(section)
}

fn section(text: &'static str) -> Option<Kind> {
    let (kind, rest) = text.split_once("`\n")?;
    let rest = rest.split("\n## ").next()?;
    let title = joined(rest.split("\n* **").next()?);
    let point = |name: &str| rest.split_once(&format!("\n* **{name}:** ")).map(|(_, words)| words);
    let words =
        |name: &str| point(name).map(|words| joined(words.split("\n* **").next().unwrap_or_default()));
    let set = words("Set")?;
    let sysctl = quoted(&set).filter(|word| word.starts_with("net.")).map(str::to_owned).collect();
    let filter = words("In Wireshark").and_then(|words| quoted(&words).next().map(str::to_owned));
    let (symptom, wire, fix) = (words("You notice")?, words("The wire shows")?, words("Do")?);
    Some(Kind { kind, title, symptom, wire, fix, set, sysctl, filter })
}

/// On one line.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

async fn list(_: Call) -> Answer {
    json(&json!({ "items": kinds().collect::<Vec<_>>(), "next": null }))
}

async fn one(call: Call) -> Answer {
    let wanted = call.path("kind");
    let shown: String = wanted.chars().take(100).collect();
    let none = || {
        Problem::new(Trouble::NotFound, format!("there is no kind {shown:?}"))
            .help("/api/v1/kinds lists them")
    };
    json(&kinds().find(|kind| kind.kind == wanted).ok_or_else(none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_taken_apart() {
        let kind = kinds().find(|kind| kind.kind == "rst_after_idle").unwrap();
        assert!(kind.title.starts_with("A connection rested, and was reset"), "{kind:?}");
        assert!(kind.symptom.starts_with("the first request after a pause") && !kind.symptom.contains('\n'));
        assert!(kind.wire.contains("a RST") && kind.fix.contains("keepalives"), "{kind:?}");
        assert!(kind.sysctl.iter().any(|name| name == "net.ipv4.tcp_keepalive_time"), "{kind:?}");
        assert_eq!(kind.filter.as_deref(), Some("tcp.flags.reset == 1 && tcp.time_delta > 5"));
        assert_eq!(kinds().count(), RUNBOOK.matches("\n### `").count());
        let without = kinds().find(|kind| kind.kind == "on_demand").unwrap();
        assert_eq!((without.sysctl.len(), without.filter), (0, None));
    }
}
