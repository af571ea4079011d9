//! What `wiregen send` and `wiregen flood` say, and how they exit, when there is nothing to send on or with.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::process::Command;

/// The exit code and standard error; nothing may be on standard output.
fn wiregen(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wiregen")).args(arguments).output().unwrap();
    assert_eq!(output.stdout, b"", "{arguments:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_missing_interface_is_named_and_has_a_code_of_its_own() {
    for arguments in [&["send", "-i", "no-such-if", "x.pcap"][..], &["flood", "-i", "no-such-if"]] {
        let (code, said) = wiregen(arguments);
        assert_eq!(code, 4, "{said}");
        assert!(said.starts_with("wiregen: there is no interface no-such-if; ip "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn wrong_usage_is_found_before_anything_else() {
    let wrong = [
        &["send", "-i", "no-such-if"][..],
        &["send", "-i", "no-such-if", "--pps", "1", "--full-speed", "x.pcap"],
        &["send", "-i", "no-such-if", "--speed", "0", "x.pcap"],
        &["send", "-i", "no-such-if", "--loops", "2", "-"],
        &["flood", "-i", "no-such-if", "--packets", "1", "--seconds", "1"],
        &["flood", "-i", "no-such-if", "--queue", "1"],
        &["flood", "-i", "no-such-if", "--size", "59"],
        &["flood", "-i", "no-such-if", "--flows", "0"],
        &["flood", "-i", "no-such-if", "--pps", "-1"],
    ];
    for arguments in wrong {
        let (code, said) = wiregen(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
    }
}

#[test]
fn every_command_has_a_page() {
    let folder = std::env::temp_dir().join(format!("wiregen-pages-{}", std::process::id()));
    let (code, said) = wiregen(&["generate", &folder.display().to_string()]);
    let there = |name: &str| folder.join(name).exists();
    let all = there("wiregen.1") && there("wiregen-scenario.1") && !there("wiregen-generate.1");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(code == 0 && all, "{said}");
}
