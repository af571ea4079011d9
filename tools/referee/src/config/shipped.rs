//! The settings file that is installed says of every key what it is and what it defaults to.
//!
//! Tests only: packaging/referee.toml and the handbook beside the keys that are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::Config;

type Keys = BTreeSet<(String, String)>;

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
}

/// The line as it would be without the mark of a comment, if it is a setting or a table.
fn setting<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let line = line.strip_prefix(mark).unwrap_or(line);
    let key = line.split_once(" = ").is_some_and(|(key, _)| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    });
    (key || line.starts_with('[')).then_some(line)
}

/// Its lines, with the table each is in.
fn settings(text: &str, mark: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut all = Vec::new();
    for line in text.lines().filter_map(|line| setting(line, mark)) {
        match line.strip_prefix('[') {
            Some(name) => name.trim_matches(['[', ']']).clone_into(&mut table),
            None => all.push((table.clone(), line.to_owned())),
        }
    }
    all
}

fn keys(text: &str) -> Keys {
    let all = ["# ", "# example: "].into_iter().flat_map(|mark| settings(text, mark));
    let key = |(table, line): (String, String)| {
        // [[api.token]] is the key `token` of [api], whatever is in it.
        match table.split_once('.') {
            Some((table, key)) => (table.to_owned(), key.to_owned()),
            None => (table, line.split(" = ").next().unwrap_or_default().to_owned()),
        }
    };
    all.map(key).collect()
}

/// Every key that is read, from the text that reads them.
fn read() -> Keys {
    let text = include_str!("raw.rs");
    let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(opened) = line.strip_prefix("pub struct ") {
            name = opened.split(' ').next().unwrap();
        }
        if let Some((key, kind)) = line.strip_prefix("    pub ").and_then(|line| line.split_once(": ")) {
            structs.entry(name).or_default().push((key, kind.trim_end_matches(',')));
        }
    }
    let mut keys = Keys::new();
    for (table, kind) in &structs["Raw"] {
        let own: Vec<&str> = match *table {
            "rules" => vec!["dir", "library", "keep"],
            _ => structs[kind].iter().map(|(key, _)| *key).collect(),
        };
        keys.extend(own.into_iter().map(|key| ((*table).to_owned(), key.to_owned())));
    }
    keys
}

#[test]
fn it_has_every_key_and_no_other() {
    assert_eq!(keys(&file("packaging/referee.toml")), read());
}

#[test]
fn what_is_commented_out_is_the_default() {
    let text = file("packaging/referee.toml");
    let on = |line: &str| setting(line, "# ").unwrap_or(line).to_owned() + "\n";
    let config =
        Config::parse("referee.toml", &text.lines().map(on).collect::<String>(), Path::new("")).unwrap();
    let installed = Config { store_dir: Some("/var/lib/referee".into()), ..Config::default() };
    assert_eq!(format!("{config:#?}"), format!("{installed:#?}"));
}

#[test]
fn its_examples_are_taken() {
    let text = file("packaging/referee.toml");
    let on = |line: &str| line.strip_prefix("# example: ").unwrap_or(line).to_owned() + "\n";
    let config =
        Config::parse("referee.toml", &text.lines().map(on).collect::<String>(), Path::new("")).unwrap();
    assert_eq!((config.interfaces, config.cores), (vec!["eth1".to_owned()], vec![2, 3]));
}

/// Nothing is set that no sentence above it explains.
#[test]
fn every_key_is_explained() {
    let text = file("packaging/referee.toml");
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let key = setting(pair[1], "# ").or(setting(pair[1], "# example: "));
        if let Some(key) = key.filter(|key| !key.starts_with('[')) {
            // Keys of a table that is an example are explained above it.
            let table = pair[0].starts_with("# example: ") && pair[1].starts_with("# example: ");
            assert!(
                table || pair[0].starts_with("# ") && setting(pair[0], "# ").is_none(),
                "nothing explains {key}"
            );
        }
    }
}

#[test]
fn the_handbook_has_every_key() {
    let handbook = file("docs/operators.md");
    let missing: Vec<_> =
        read().into_iter().filter(|(_, key)| !handbook.contains(&format!("`{key}"))).collect();
    assert!(missing.is_empty(), "docs/operators.md says nothing of {missing:?}");
}
