//! `zero_copy FOLDER`: judges what the guest of `make test-zero-copy` brought back: that each packet sent was received
//! without a copy, that what is broken was found, and that TShark can read the packets that prove it.
//!
//! Main thread; scripts/zero-copy/init says what the files are.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells whoever called it how it went")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

/// One capture in the guest.
struct Case {
    folder: PathBuf,
    driver: &'static str,
    queues: usize,
    /// What was found wrong.
    wrong: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder] = &arguments[..] else {
        eprintln!("usage: zero_copy FOLDER");
        return ExitCode::from(2);
    };
    let folder = Path::new(folder);
    let mut failed = false;
    for (name, driver, queues) in [("igb-1", "igb", 1), ("igb-4", "igb", 4), ("virtio-1", "virtio_net", 1)] {
        let mut case = Case { folder: folder.join(name), driver, queues, wrong: Vec::new() };
        case.judge();
        if !case.wrong.is_empty() {
            failed = true;
            eprintln!("{name}:\n  {}\nwhat it said:\n{}", case.wrong.join("\n  "), case.text("notes"));
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Case {
    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_else(|error| format!("{file}: {error}"))
    }

    /// JSON objects, one a line.
    fn lines(&self, file: &str) -> Vec<Value> {
        self.text(file).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn expect(&mut self, good: bool, what: impl FnOnce() -> String) {
        if !good {
            self.wrong.push(what());
        }
    }

    fn judge(&mut self) {
        let books = self.lines("ledger").pop().unwrap_or_default();
        let sent: u64 = self.lines("sent").iter().filter_map(|one| one["sent"].as_u64()).sum();
        self.received(&books, sent);
        self.zero_copy(&books);
        if self.queues > 1 {
            self.spread(&books);
        }
        let packets = self.proof();
        if self.wrong.is_empty() {
            let plural = if self.queues == 1 { "" } else { "s, both directions of each connection in one" };
            println!(
                "{}: zero-copy, {} queue{plural}; {sent} packets sent, {sent} received; {packets} packets prove rst_midflow",
                self.driver, self.queues
            );
        }
    }

    /// Everything sent is in the books.
    fn received(&mut self, books: &Value, sent: u64) {
        self.expect(sent > 20_000, || format!("only {sent} packets were sent"));
        let code = self.text("code");
        self.expect(code.trim() == "0", || format!("exit code {code}"));
        let nic = self.text("nic");
        self.expect(nic.trim() == sent.to_string(), || format!("{sent} sent, the interface counted {nic}"));
        for count in ["received", "analysed"] {
            let value = &books[count];
            self.expect(value.as_u64() == Some(sent), || format!("{sent} sent, {value} {count}"));
        }
        let balanced = &books["balanced"];
        self.expect(balanced == &Value::Bool(true), || format!("books balanced: {balanced}"));
        let dropped = &books["interfaces"][0]["dropped"];
        let none = dropped.as_object().is_some_and(|all| all.values().all(|count| count == 0));
        self.expect(none, || format!("dropped {dropped}"));
    }

    /// By the kernel's word for each socket (XDP_OPTIONS), not by what was asked for.
    fn zero_copy(&mut self, books: &Value) {
        let queues = books["interfaces"][0]["queues"].as_array().cloned().unwrap_or_default();
        let wanted = self.queues;
        self.expect(queues.len() == wanted, || format!("{} queues, not {wanted}", queues.len()));
        for (number, queue) in queues.iter().enumerate() {
            let zero_copy = queue["zero_copy"] == true;
            self.expect(zero_copy, || format!("queue {number} is not zero-copy: {queue}"));
            let taken = queue["taken"].as_u64().unwrap_or(0);
            self.expect(taken > 0, || format!("queue {number} brought nothing"));
        }
        let says = format!("AF_XDP zero-copy, native XDP, driver {}", self.driver);
        let notes = self.text("notes");
        self.expect(notes.contains(&says), || format!("it did not say `{says}`"));
    }

    /// Packets that each queue received, by the driver's count.
    fn counted(&self, file: &str) -> Vec<u64> {
        let text = self.text(file);
        text.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).take(self.queues).collect()
    }

    /// Of each connection two packets went there and one came back: if both directions of each meet in one queue, that
    /// holds for each queue.
    fn spread(&mut self, books: &Value) {
        let [first, there, back, last] =
            ["at-first", "after-there", "after-back", "at-last"].map(|file| self.counted(file));
        let meet = |queue: usize| there[queue] - first[queue] == 2 * (back[queue] - there[queue]);
        let all = [&first, &there, &back, &last].iter().all(|counts| counts.len() == self.queues);
        self.expect(all && (0..self.queues).all(meet), || {
            format!("the two directions part: {first:?}, then {there:?}, then {back:?}")
        });
        let queues = books["interfaces"][0]["queues"].as_array().cloned().unwrap_or_default();
        let taken: Vec<u64> = queues.iter().filter_map(|queue| queue["taken"].as_u64()).collect();
        let arrived: Vec<u64> = last.iter().zip(&first).map(|(last, first)| last - first).collect();
        self.expect(taken == arrived, || format!("taken {taken:?}, and the driver counted {arrived:?}"));
        let packets = |flow: &Value, side: &str| flow[side]["packets"].as_u64().unwrap_or(0);
        let rows = self.lines("flows");
        let half =
            rows.iter().filter(|flow| packets(flow, "orig") == 0 || packets(flow, "resp") == 0).count();
        self.expect(!rows.is_empty() && half == 0, || {
            format!("{half} of {} flows have one side", rows.len())
        });
        let notes = self.text("notes");
        self.expect(notes.contains("(verified)"), || {
            "it did not verify that the hash is symmetric".to_owned()
        });
        self.expect(notes.contains("stays so after this run"), || {
            "it did not say what it changed".to_owned()
        });
    }

    /// An incident came out, and its packets are readable.
    fn proof(&mut self) -> usize {
        let found = self.lines("incidents").iter().any(|incident| incident["rule"] == "rst_midflow");
        self.expect(found, || "rst_midflow was not found".to_owned());
        let file = self.folder.join("proof.pcapng");
        let read = Command::new("tshark")
            .arg("-r")
            .arg(file)
            .args(["-T", "fields", "-e", "tcp.flags.reset"])
            .output();
        let text = match read {
            Ok(read) if read.status.success() => String::from_utf8_lossy(&read.stdout).into_owned(),
            Ok(read) => {
                self.wrong.push(format!("tshark: {}", String::from_utf8_lossy(&read.stderr).trim()));
                return 0;
            }
            Err(error) => {
                self.wrong.push(format!("tshark: {error}"));
                return 0;
            }
        };
        let reset = text.lines().any(|line| matches!(line, "1" | "True"));
        self.expect(reset, || format!("no RST is among the packets that prove it: {text:?}"));
        text.lines().count()
    }
}
