//! `referee run` as a child: started, watched, stopped, and its books read.
//! On the thread of whoever measures; what it does is judged by the caller.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Cli;

/// The program, with the shipped rules and a store.
pub struct Program {
    child: Child,
    store: PathBuf,
    ledger: PathBuf,
}

impl Program {
    /// Returns when it is ready for packets.
    pub fn start(cli: &Cli) -> Result<Program> {
        let (store, ledger) = (cli.folder.join("store"), cli.folder.join("ledger.json"));
        let mut command = Command::new(&cli.referee);
        command.args(["run", "-i", &cli.tap, "--zero-copy", "off", "--store"]).arg(&store);
        if let Some(config) = &cli.config {
            command.arg("--config").arg(config);
        }
        command.arg("--ledger").arg(&ledger).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| cli.referee.display().to_string())?;
        wait_for_ready(&mut child)?;
        Ok(Program { child, store, ledger })
    }

    /// Memory it has, KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS in its status")?;
        Ok(kib.parse()?)
    }

    /// Ends it in order; gives its books, which balance.
    pub fn stop(mut self) -> Result<Value> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).context("stopping referee")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "referee run ended with {status}");
        let ledger: Value = serde_json::from_str(&fs::read_to_string(&self.ledger)?)?;
        fs::remove_dir_all(&self.store)?;
        ensure!(ledger["balanced"] == true, "the books don't balance");
        Ok(ledger)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended, or else nobody is left to stop it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the ledger's numbers.
pub fn number(ledger: &Value, name: &str) -> Result<u64> {
    ledger[name].as_u64().with_context(|| format!("no {name} in the ledger"))
}

/// Reads what it says until it is ready for packets.
fn wait_for_ready(child: &mut Child) -> Result<()> {
    let mut lines = BufReader::new(child.stderr.take().context("its standard error was piped")?).lines();
    let mut said = Vec::new();
    for line in lines.by_ref() {
        let line = line?;
        if line == "ready" {
            // Its later words go nowhere, but it must not block on them.
            thread::spawn(move || lines.for_each(drop));
            return Ok(());
        }
        said.push(line);
    }
    bail!("referee run did not start: {}", said.join("; "))
}
