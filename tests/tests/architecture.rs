//! The house rules that can be read off the source text: who may know whom, how large things get, that each
//! counter lives and each file is reached. Parses line by line, which rustfmt's layout makes safe.
//!
//! An exception is a line in one of the tables here, with its reason.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;
const LINE_CHARS: usize = 130;

/// (module, what it may not name, except in). Paths are from the workspace root.
const EDGES: [(&str, &[&str], &[&str]); 18] = [
    ("dataplane/src", &["wiregen", "referee::", "tests::", "bench::", "clap", "anyhow"], &[]),
    // Two captures are compared by what their packets say; who asked, and who is told, is the tool's.
    ("tools/compare/src", &["referee::", "rules::", "clap", "anyhow", "std::fs", "std::io"], &[]),
    // Tasks and sockets of HTTP stay in their rooms; what the interface shows, main has put on the board.
    (
        "tools/referee/src",
        &["axum", "tokio", "hyper", "rustls"],
        &[
            "tools/referee/src/api",
            "tools/referee/src/client",
            "tools/referee/src/config/notify.rs",
            "tools/referee/src/notify",
        ],
    ),
    ("tools/referee/src/api", &["crate::live"], &[]),
    // What touches the kernel knows nobody: neither each other nor what they are for.
    ("dataplane/sys", &["dataplane::", "rules::", "xdp_prog", "wiregen"], &[]),
    ("xdp-prog", &["dataplane", "rules::", "wiregen", "referee::", "tests::"], &[]),
    // What makes traffic shares no code with what judges it; only to send a file is it read as replay reads it.
    (
        "tools/wiregen/src",
        &["dataplane", "rules::", "xdp_prog", "referee::", "tests::"],
        &["tools/wiregen/src/wire"],
    ),
    (
        "rules/src",
        &["dataplane", "wiregen", "std::fs", "TcpStream", "UdpSocket", "std::process", "std::env"],
        &[],
    ),
    (
        "dataplane/src/decode",
        &["crate::flow", "crate::analyze", "crate::history", "crate::hold", "crate::record"],
        &[],
    ),
    (
        "dataplane/src/decode",
        &["crate::judge", "crate::activity", "crate::ledger", "rules::", "std::fs"],
        &[],
    ),
    (
        "dataplane/src/source",
        &["crate::decode", "crate::flow", "crate::analyze", "crate::history", "rules::"],
        &[],
    ),
    ("dataplane/src/source", &["crate::hold", "crate::record", "crate::judge", "crate::worker"], &[]),
    // A row is made of what the worker hands over when a flow ends.
    ("dataplane/src", &["crate::worker"], &["dataplane/src/worker", "dataplane/src/flow/row.rs"]),
    // The messages are what both sides share; the judge's insides are its own.
    (
        "dataplane/src",
        &["crate::judge::{", "crate::judge::Judge", "crate::judge::Incident"],
        &["dataplane/src/judge"],
    ),
    (
        "dataplane/src/judge",
        &["crate::flow", "crate::history", "crate::hold", "crate::record", "crate::decode"],
        &[],
    ),
    (
        "dataplane/src/record",
        &["crate::flow", "crate::judge", "crate::worker", "crate::hold", "rules::"],
        &[],
    ),
    (
        "dataplane/src/history",
        &["crate::hold", "crate::record", "crate::judge", "crate::analyze", "rules::"],
        &[],
    ),
    // Captures are found without a database; it only makes that faster.
    ("tools/referee/src", &["rusqlite"], &["tools/referee/src/index"]),
];

/// Files that may hold the word `unsafe` in code, and why.
const UNSAFE: [(&str, &str); 3] = [
    ("dataplane/sys/src/", "the one room for it"),
    ("tests/tests/no_alloc.rs", "a counting allocator can't be written without"),
    ("bench/src/alloc.rs", "a counting allocator can't be written without"),
];

struct File {
    /// From the workspace root.
    name: String,
    /// All of it.
    text: String,
    /// Without its `#[cfg(test)] mod … { … }`.
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

fn files() -> Vec<File> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = without_tests(&text);
        File { name: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text, code }
    };
    let files: Vec<File> = paths.into_iter().map(read).collect();
    assert!(files.len() > 80, "the workspace has {} files", files.len());
    files
}

/// Cuts the test module out, wherever it is.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let module = line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod "));
        if !module {
            kept.push_str(line);
            kept.push('\n');
        } else if lines.next().is_some_and(|next| next.ends_with('{')) {
            lines.by_ref().find(|line| *line == "}");
        }
    }
    kept
}

/// A file that is compiled for tests only.
fn is_test(name: &str) -> bool {
    let stem = name.rsplit('/').next().unwrap_or(name);
    name.contains("/tests/")
        || name.starts_with("tests/")
        || ["tests.rs", "testing.rs", "testfiles.rs"].contains(&stem)
}

/// The line without its comment and without what is in quotes.
fn bare(line: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => drop(chars.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

fn report(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Complaints about lines of code, found by `wrong`.
fn lines_where(files: &[File], wrong: impl Fn(&File, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (n, line) in file.text.lines().enumerate() {
            if wrong(file, line) {
                found.push(format!("{}:{}: {}", file.name, n + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn modules_know_only_whom_they_may() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| !is_test(&file.name)) {
        for (module, forbidden, except) in EDGES {
            if !file.name.starts_with(module) || except.iter().any(|name| file.name.starts_with(name)) {
                continue;
            }
            for (line, word) in
                file.code.lines().flat_map(|line| forbidden.iter().map(move |word| (line, word)))
            {
                // `rules` is a crate and the name of a field; only paths count.
                if bare(line)
                    .split(|c: char| c.is_whitespace() || "(<&[".contains(c))
                    .any(|w| w.starts_with(word))
                {
                    found.push(format!("{}: {module} may not know {word}: {}", file.name, line.trim()));
                }
            }
        }
    }
    report("module edges", found);
}

#[test]
fn every_file_says_what_it_is() {
    // What a test proves may fit one line: it has no thread and hands nothing on.
    let least = |file: &File| if is_test(&file.name) { 1 } else { 2 };
    let short =
        |file: &File| file.text.lines().take_while(|line| line.starts_with("//!")).count() < least(file);
    let found = files().iter().filter(|f| short(f)).map(|f| f.name.clone()).collect();
    report("files whose header is shorter than two lines (tests: one)", found);
}

#[test]
fn files_and_functions_stay_small() {
    let mut found = Vec::new();
    for file in files() {
        let lines = file.code.lines().count();
        if lines > FILE_LINES && !is_test(&file.name) {
            found.push(format!("{}: {lines} lines, at most {FILE_LINES} without tests", file.name));
        }
        let mut start: Option<(usize, String, usize)> = None;
        for (n, line) in file.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let opens =
                bare(line).split_whitespace().any(|word| word == "fn") && !line.trim_end().ends_with(';');
            match &start {
                Some((from, name, depth)) if indent == *depth && line.trim() == "}" => {
                    if n - from + 1 > FUNCTION_LINES {
                        found.push(format!("{}:{}: {} lines: {name}", file.name, from + 1, n - from + 1));
                    }
                    start = None;
                }
                None if opens && !line.contains('}') => start = Some((n, line.trim().to_owned(), indent)),
                _ => {}
            }
        }
    }
    report("too long", found);
    report("lines too long", lines_where(&files(), |_, line| line.chars().count() > LINE_CHARS));
}

#[test]
fn only_tools_print() {
    let may = |name: &str| {
        let rooms = ["tools/", "bench/", "tests/"];
        // What a build script prints is for cargo.
        rooms.iter().any(|room| name.starts_with(room)) || is_test(name) || name.ends_with("/build.rs")
    };
    let words = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    let found = lines_where(&files(), |file, line| {
        !may(&file.name) && file.code.contains(line) && words.iter().any(|word| bare(line).contains(word))
    });
    report("prints", found);
}

#[test]
fn unsafe_has_one_room() {
    let may = |name: &str| UNSAFE.iter().any(|(place, _)| name.starts_with(place));
    let found = lines_where(&files(), |file, line| {
        !may(&file.name)
            && bare(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    });
    report("unsafe outside its room", found);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together, so that this file does not name them.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["todo", "!("], ["unimplemented", "!("]];
    let words: Vec<String> = words.iter().map(|halves| halves.concat()).collect();
    let found = lines_where(&files(), |_, line| words.iter().any(|word| line.contains(word.as_str())));
    report("left for later", found);
}

/// Names of an enum's variants or a struct's public fields.
fn members(text: &str, head: &str, is_enum: bool) -> Vec<String> {
    let body = text.split_once(head).unwrap_or_else(|| panic!("no {head}")).1.split_once("\n}").unwrap().0;
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    let name = |line: &str| match is_enum {
        true => line.strip_suffix(',').map(str::to_owned),
        false => line.strip_prefix("pub ")?.split_once(':').map(|(name, _)| name.to_owned()),
    };
    lines.filter_map(name).collect()
}

/// `line` adds to the field, sets it, or lends it out to be written.
fn writes(line: &str, field: &str) -> bool {
    let dotted = format!(".{field}");
    let lent = line.contains("&mut ") && line.contains(&dotted);
    let set = line.split(&dotted).skip(1).any(|after| {
        let after = match after.strip_prefix('[') {
            Some(index) => index.split_once("] ").map_or("", |(_, rest)| rest),
            None => after.trim_start(),
        };
        after.starts_with("+= ") || after.starts_with("= ")
    });
    lent || set
}

#[test]
fn every_account_is_written_somewhere() {
    let files = files();
    let ledger = &files.iter().find(|file| file.name == "dataplane/src/ledger.rs").unwrap().code;
    let others = files.iter().filter(|f| f.name.starts_with("dataplane/src") && !is_test(&f.name));
    let code: String =
        others.filter(|f| f.name != "dataplane/src/ledger.rs").map(|f| f.code.clone()).collect();
    let mut dead = Vec::new();
    for reason in ["DropReason", "UnwrittenReason"] {
        for variant in members(ledger, &format!("pub enum {reason} {{"), true) {
            if !code.contains(&format!("{reason}::{variant}")) {
                dead.push(format!("{reason}::{variant} is never given as a reason"));
            }
        }
    }
    for account in ["WorkerAccount", "EventAccount", "KeptAccount"] {
        for field in members(ledger, &format!("pub struct {account} {{"), false) {
            if !code.lines().any(|line| writes(line, &field)) {
                dead.push(format!("{account}.{field} is never written"));
            }
        }
    }
    report("accounts nobody writes", dead);
}

#[test]
fn every_file_is_reached() {
    let files = files();
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let roots = |name: &str| {
        let in_folder = |folder: &str| name.rsplit_once('/').is_some_and(|(path, _)| path.ends_with(folder));
        name.ends_with("src/lib.rs")
            || name.ends_with("src/main.rs")
            || name.contains("src/bin/") && name.ends_with("/main.rs")
            || name.ends_with("build.rs")
            || in_folder("/tests")
            || in_folder("src/bin")
            || in_folder("/benches")
            || name.starts_with("tests/tests/")
            || name.contains("/examples/")
            || name.contains("/fuzz_targets/")
    };
    let mut reached: BTreeSet<String> =
        names.iter().filter(|name| roots(name)).map(|n| (*n).to_owned()).collect();
    let mut open: Vec<String> = reached.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let text = &files.iter().find(|file| file.name == name).unwrap().text;
        let (folder, stem) = name.rsplit_once('/').unwrap();
        let stem = stem.trim_end_matches(".rs");
        let own = ["lib", "main", "mod"].contains(&stem) || roots(&name);
        let base = if own { folder.to_owned() } else { format!("{folder}/{stem}") };
        for line in text.lines().map(str::trim).filter(|line| line.ends_with(';')) {
            let declared =
                line.split_once("mod ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
            let Some((_, module)) = declared else { continue };
            let module = module.trim_end_matches(';');
            for path in [format!("{base}/{module}.rs"), format!("{base}/{module}/mod.rs")] {
                if names.contains(path.as_str()) && reached.insert(path.clone()) {
                    open.push(path);
                }
            }
        }
    }
    let found =
        names.iter().filter(|name| !reached.contains(**name)).map(|name| (*name).to_owned()).collect();
    report("files no module names", found);
    let empty =
        files.iter().filter(|file| file.text.trim().is_empty()).map(|file| file.name.clone()).collect();
    report("empty files", empty);
}
