//! Runs the built program on small generated captures, each test in a folder of its own.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]
#![allow(dead_code, reason = "every test file uses its part")]

pub mod network;
pub mod running;
pub mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use wiregen::scenario::{self, Options};
use wiregen::write::Style;

/// A folder with captures, and the program run inside it.
pub struct Bench {
    pub dir: tempfile::TempDir,
}

/// What the program did.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Asserts the exit code, showing what was said.
    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts that each of these is in what was said on standard error.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Ran {
        for words in words {
            assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
        }
        self
    }

    /// Standard output, a JSON value a line.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        lines(&self.stdout)
    }
}

#[track_caller]
pub fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

impl Bench {
    pub fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        // Small tables start sooner.
        bench
            .file("small.toml", "[worker]\nflows = 16_384\nhalf_open = 4096\nhistory_mib = 8\nholds = 128\n");
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A scenario's capture; `silence` seconds for those that turn on one.
    pub fn capture(&self, scenario: &str, silence: f64) -> PathBuf {
        self.file(&format!("{scenario}.pcap"), capture(scenario, silence, Style::default()))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_referee"));
        command.current_dir(self.dir.path()).args(args).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// `referee replay --config small.toml …`
    pub fn replay(&self, args: &[&str]) -> Ran {
        self.run(&[&["replay", "--config", "small.toml"], args].concat())
    }
}

/// A scenario's capture file.
pub fn capture(scenario: &str, silence: f64, style: Style) -> Vec<u8> {
    let options = Options { idle_s: Some(silence), style, ..Options::default() };
    let mut bytes = Vec::new();
    scenario::write(scenario, &options, &mut bytes).unwrap();
    bytes
}

/// Names and contents of everything below a folder.
pub fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => all.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap())),
            }
        }
    }
    all.sort();
    all
}
