//! Packets that Wireshark's capture filter names, out of a box's history and from now on: a capture on demand, copied into
//! Wireshark's pipe while it goes on.
//!
//! Main thread. However this ends, the box is told, so that it does not capture for nobody.

use std::fs::File;
use std::time::Duration;

use dataplane::filter::Selection;
use serde_json::{Value, json};

use super::Call;
use super::capture::{Copied, copy};
use super::interfaces::is_id;
use crate::client::Client;
use crate::control::expression::selection;
use crate::error::Failure;
use crate::live::signals::end_when_told;

const DEMANDS: &str = "/api/v1/captures/demands";
/// Seconds of the past and of what comes, if the dialog says nothing else; and the most of each.
pub const LAST: (&str, &str) = ("30", "0,3600");
pub const LASTS: (&str, &str) = ("60", "0,86400");
/// How long Wireshark's end waits for the box.
const PATIENCE: Duration = Duration::from_secs(1);

/// # Errors
/// Usage: the filter or the times. Failed: the box can't be asked or refuses, or the pipe is none.
pub fn run(
    client: &Client,
    call: &Call,
    open: impl FnOnce() -> Result<File, Failure>,
) -> Result<(), Failure> {
    let begun = client.send("POST", DEMANDS, &wish(call)?)?;
    let id = begun.get("id").and_then(Value::as_str).filter(|id| is_id(id));
    let id = id.ok_or_else(|| Failure::failed("the box answers in another way"))?;
    let (of_box, one) = (client.clone().hurried(PATIENCE), format!("{DEMANDS}/{id}"));
    let end = move || drop(of_box.send("DELETE", &one, &Value::Null));
    let at_end = end.clone();
    end_when_told(at_end)?;
    let follow = || copy(&mut client.get(&format!("/api/v1/captures/live?demand={id}"))?.body, &mut open()?);
    let copied = follow();
    if copied != Ok(Copied::All) {
        end();
    }
    copied.map(drop)
}

fn wish(call: &Call) -> Result<Value, Failure> {
    let seconds = |name: &str, (usual, _): (&str, &str)| {
        let text = call.value(name).unwrap_or(usual);
        let seconds = text.trim().trim_end_matches('s').parse::<f64>().ok();
        seconds
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
            .ok_or_else(|| Failure::usage(format!("--{name} `{text}` is no number of seconds")))
    };
    let filter = call.value("extcap-capture-filter").unwrap_or_default();
    Ok(json!({ "expression": filter, "last_s": seconds("last", LAST)?, "for_s": seconds("for", LASTS)? }))
}

/// What is wrong with a filter; nothing if it is fine, or if nobody here can tell. Wireshark asks while it is typed.
pub fn mistake(filter: &str) -> String {
    const ETHERNET: [u16; 1] = [1];
    if Selection::new("", &ETHERNET).is_err() {
        return String::new();
    }
    match selection(filter, &ETHERNET) {
        Ok(_) => String::new(),
        Err(refusal) => format!("{}; {}\n", refusal.error, refusal.help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wished(text: &str) -> Option<Value> {
        let words: Vec<String> = text.split('|').map(str::to_owned).collect();
        wish(&Call::read(&words)).ok()
    }

    #[test]
    fn a_dialog_makes_a_wish() {
        assert_eq!(wished(""), Some(json!({"expression": "", "last_s": 30.0, "for_s": 60.0})));
        let all = wished("--extcap-capture-filter|port 443|--last|5|--for|0.5s");
        assert_eq!(all, Some(json!({"expression": "port 443", "last_s": 5.0, "for_s": 0.5})));
        for wrong in ["--last|-1", "--for|soon", "--last|inf"] {
            assert_eq!(wished(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_filter_is_looked_at_before_it_is_used() {
        if Selection::new("", &[1]).is_err() {
            return;
        }
        assert_eq!(mistake("port 443 and not arp"), "");
        assert_eq!(mistake(""), "");
        assert!(mistake("port port").contains("syntax error"));
        assert!(mistake("host example.com").contains("`example.com`"));
    }
}
