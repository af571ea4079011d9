//! What was looked at, in words: for people aligned and in colour, for programs as JSON.
//!
//! Main thread, to standard output, last.

use std::fmt::Write as _;

use serde::Serialize;

use super::check::{Check, State, ready};
use super::fix::Change;
use crate::error::Failure;
use crate::term::{self, Paint, plural, wrap};

/// Columns of a state's word, and of a check's name.
const STATE: usize = 9;
const NAME: usize = 15;

#[derive(Serialize)]
struct Told<'a> {
    ready: bool,
    checks: &'a [Check],
    /// With `--fix`, also if there was nothing to set.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<&'a [Change]>,
}

/// # Errors
/// Failed: standard output can't be written.
pub fn show(checks: &[Check], fixed: Option<&[Change]>, call: &str, json: bool) -> Result<(), Failure> {
    let text = match json {
        true => {
            serde_json::to_string(&Told { ready: ready(checks), checks, fixed }).map_err(Failure::failed)?
                + "\n"
        }
        false => people(checks, fixed.unwrap_or_default(), call, Paint::for_stdout()),
    };
    term::show(|out| out.write_all(text.as_bytes()))
}

/// What was set back, and, for programs, what could not be.
///
/// # Errors
/// As for [`show`].
pub fn undone(changes: &[Change], failed: &[Check], json: bool) -> Result<(), Failure> {
    let text = match json {
        true => format!("{}\n", serde_json::json!({ "undone": changes, "checks": failed })),
        false => changes.iter().map(|change| format!("set back {change}\n")).collect(),
    };
    term::show(|out| out.write_all(text.as_bytes()))
}

/// `call`: what was typed, for what to type next.
fn people(checks: &[Check], fixed: &[Change], call: &str, paint: Paint) -> String {
    let mut text = String::new();
    for change in fixed {
        let _ = writeln!(text, "{} {change}", paint.green("set"));
    }
    if !fixed.is_empty() {
        text.push('\n');
    }
    let mut of = None;
    for check in checks {
        if of != Some(&check.interface) {
            let head = check.interface.as_deref().unwrap_or("host");
            let _ = writeln!(text, "{}{}", if of.is_some() { "\n" } else { "" }, paint.bold(head));
            of = Some(&check.interface);
        }
        text.push_str(&told(check, paint));
    }
    text.push('\n');
    text.push_str(&verdict(checks, call, paint));
    text
}

fn told(check: &Check, paint: Paint) -> String {
    let pad = |word: &str| format!("{word:STATE$}");
    let state = match check.state {
        State::Ok => paint.green(pad("ok")),
        State::Unknown => paint.dim(pad("unknown")),
        State::Warn => paint.yellow(pad("warning")),
        State::Bad => paint.red(pad("bad")),
    };
    let name = check.name.replace('_', " ");
    let mut text = format!("  {state}{name:NAME$}{}\n", check.found);
    let indent = " ".repeat(2 + STATE);
    if !check.why.is_empty() {
        text.push_str(&wrap(&format!("{indent}{:NAME$}", "why"), check.why));
    }
    if let Some(command) = &check.command {
        let _ = writeln!(text, "{indent}{:NAME$}{}", "type", paint.bold(command));
    }
    text
}

fn verdict(checks: &[Check], call: &str, paint: Paint) -> String {
    let count = |state| checks.iter().filter(|check| check.state == state).count() as u64;
    let (bad, warnings) = (count(State::Bad), count(State::Warn));
    let mut text = match (bad, warnings) {
        (0, 0) => paint.green("Ready."),
        (0, _) => paint.yellow(format!("Ready, with {}.", plural(warnings, "warning"))),
        _ => paint.red(format!("Not ready: {} in the way.", plural(bad, "thing"))),
    };
    let safe = checks.iter().filter(|check| check.safe).count() as u64;
    if safe > 0 {
        let what = if bad > 0 {
            "of the settings named above (which may not be what is in the way)"
        } else {
            "of these"
        };
        let _ = write!(text, " {call} --fix sets {safe} {what}, and --undo sets them back.");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use dataplane_sys::tuning::Setting;

    use super::*;

    #[test]
    fn people_read_what_is_wrong_and_what_to_type() {
        let checks = [
            Check::new("kernel", "Linux 6.18"),
            Check::new("vlan_strip", "on")
                .warn("Tags are lost.")
                .command("ethtool …")
                .fix(Setting::VlanStrip, 0)
                .of("tap0"),
        ];
        let expected = "host\n  ok       kernel         Linux 6.18\n\ntap0\n  warning  vlan strip     on\n\
                        \u{20}          why            Tags are lost.\n           type           ethtool …\n\n\
                        Ready, with 1 warning. referee doctor -i tap0 --fix sets 1 of these, and --undo sets them back.\n";
        assert_eq!(people(&checks, &[], "referee doctor -i tap0", Paint::plain()), expected);
        let bad = [Check::new("link", "down").bad("x"), Check::unknown("clock", "?")];
        assert!(people(&bad, &[], "", Paint::plain()).ends_with("\nNot ready: 1 thing in the way.\n"));
        assert!(people(&[Check::new("a", "b")], &[], "", Paint::plain()).ends_with("\nReady.\n"));
    }

    #[test]
    fn programs_read_the_same() {
        let check = Check::new("lro", "on").bad("Joined.").command("ethtool").fix(Setting::Lro, 0).of("e");
        let told = serde_json::to_value(Told { ready: false, checks: &[check], fixed: None }).unwrap();
        let expected = serde_json::json!({"ready": false, "checks": [{
            "name": "lro", "interface": "e", "state": "bad", "found": "on", "why": "Joined.", "type": "ethtool",
            "safe": true,
        }]});
        assert_eq!(told, expected);
    }
}
