//! What the documents say is so: commands and options they name exist, and the runbook has a section for every kind.
//!
//! Tests only. Reads the repository's Markdown beside the definition of the command line and the rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};

use crate::api::kinds;
use crate::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.push(root().join("README.md"));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// Calls of `referee` in a document: lines of its blocks, with those that go on below, and what stands in backticks.
fn calls(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let line = line.trim_start_matches("$ ");
            match line.strip_prefix("referee ") {
                Some(call) => all.push(call.to_owned()),
                // The rest of a usage is indented below.
                None if line.starts_with("      ") && line.trim_start().starts_with('[') => {
                    if let Some(last) = all.last_mut() {
                        last.push_str(line);
                    }
                }
                None => {}
            }
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    let spans = prose.split('`').skip(1).step_by(2);
    all.extend(spans.filter_map(|span| span.strip_prefix("referee ")).map(str::to_owned));
    // A comment in captures begins with "referee verdict:".
    all.retain(|call| !call.starts_with("verdict:"));
    all
}

/// What of a call does not exist.
fn wrong(call: &str, top: &Command) -> Option<String> {
    let end = call.find(['|', '>', '#', ';', '&', '…']).filter(|end| !call[..*end].contains('['));
    let words = call[..end.unwrap_or(call.len())].split_whitespace();
    let (mut command, mut leading) = (top, true);
    for word in words {
        let word = word.trim_matches(|c: char| "[](){}.,:'\"".contains(c));
        if leading && let Some(found) = command.find_subcommand(word) {
            command = found;
            continue;
        }
        let first = leading && std::ptr::eq(command, top);
        if first && !word.starts_with('-') && word.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Some(format!("there is no command `{word}`"));
        }
        leading = false;
        let name = word.strip_prefix("--").map(|name| name.split(['=', '[']).next().unwrap_or_default());
        let known = |name: &str| {
            ["help", "version", ""].contains(&name)
                || command.get_arguments().any(|argument| argument.get_long() == Some(name))
        };
        if let Some(name) = name.filter(|name| !known(name)) {
            return Some(format!("`{}` has no --{name}", command.get_name()));
        }
    }
    None
}

#[test]
fn commands_in_documents_exist() {
    let mut top = Cli::command();
    top.build();
    let mut found = Vec::new();
    let mut looked = 0;
    for (name, text) in documents() {
        for call in calls(&text) {
            looked += 1;
            found.extend(wrong(&call, &top).map(|what| format!("{name}: referee {call}: {what}")));
        }
    }
    assert!(looked > 60, "{looked} calls were found");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Findings that no rule makes.
const FINDINGS: &str = "syn_retransmission handshake_incomplete port_reuse challenge_ack retransmission fast_retransmission \
    spurious_retransmission out_of_order duplicate_ack lost_segment window_full zero_window zero_window_probe keepalive \
    icmp_frag_needed ttl_changed";
/// Incidents that are nobody's fault on the wire.
const OWN: [&str; 2] = ["rule_switched_off", "on_demand"];
const COMPARED: &str = "packet_lost_between rst_one_side_only packet_injected_between icmp_from_between mss_clamped \
    wscale_stripped wscale_mismatch sack_stripped timestamps_stripped seq_rewritten sack_garbled ecn_bleached \
    ecn_ce_between ecn_altered ttl_raised payload_altered";

/// The shipped rules' names.
fn shipped() -> BTreeSet<String> {
    let name = |line: &str| line.strip_prefix("rule \"")?.split('"').next().map(str::to_owned);
    ::rules::library()
        .iter()
        .flat_map(|file| file.text.lines().filter_map(name).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_runbook_has_a_section_for_every_kind() {
    let listed = FINDINGS.split_whitespace().chain(OWN).chain(COMPARED.split_whitespace()).map(str::to_owned);
    let wanted: BTreeSet<String> = shipped().into_iter().chain(listed).collect();
    let all: Vec<kinds::Kind> = kinds::kinds().collect();
    assert_eq!(all.iter().map(|kind| kind.kind.to_owned()).collect::<BTreeSet<_>>(), wanted);
    assert_eq!(all.len(), wanted.len(), "a kind has two sections");
    let compared = include_str!("compare/sentences.rs");
    for kind in COMPARED.split_whitespace() {
        assert!(compared.contains(&format!("\"{kind}\" => \"")), "compare knows no {kind}");
    }
    for kind in all {
        assert!(kind.title.ends_with('.') && kind.title.matches(". ").count() == 0, "{kind:?}");
        let parts = [&kind.symptom, &kind.wire, &kind.fix, &kind.set];
        assert!(parts.iter().all(|words| words.len() > 5), "{kind:?}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut found = Vec::new();
    for (name, text) in documents() {
        let folder = if name == "README.md" { root() } else { root().join("docs") };
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.starts_with("http") || link.contains(' ') {
                continue;
            }
            let target = if path.is_empty() { folder.join(&name) } else { folder.join(path) };
            if !target.exists() {
                found.push(format!("{name}: {link}"));
            } else if !anchor.is_empty() && path.ends_with(".md") {
                let text = fs::read_to_string(&target).unwrap();
                let heads = text.lines().filter(|line| line.starts_with('#')).map(slug).collect::<Vec<_>>();
                if !heads.iter().any(|head| head == anchor) {
                    found.push(format!("{name}: {link}: no such heading"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A heading as links name it.
fn slug(line: &str) -> String {
    let text = line.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
