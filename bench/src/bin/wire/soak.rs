//! A long run at half load: memory stays what it was, nothing is lost, and the books balance at the end.
//! The sender on a thread of its own core; another looks at the program's memory meanwhile.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::program::{Program, number};
use crate::{Cli, LOADS, Load, referee, send};

/// How often its memory is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Part of the run after which its tables, rings and caches have filled up.
const WARM: f64 = 0.1;
/// What memory may move about after that.
const SLACK_KIB: u64 = 16 << 10;

/// Runs the first load that was asked for. False if anything was lost or memory grew.
pub fn soak(cli: &Cli, seconds: f64, core: usize) -> Result<bool> {
    let wanted = |load: &&Load| cli.only.as_ref().is_none_or(|only| load.name.contains(only.as_str()));
    let Some(load) = LOADS.iter().find(wanted) else { return Ok(false) };
    let (most, _) = referee(cli, || send(cli, *load, core, (cli.seconds, None)))?;
    let pps = most * 1e6 / 2.0;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: {most:.2} Mpps taken at most; {seconds:.0} s at {:.2} Mpps", load.name, pps / 1e6)?;
    let program = Program::start(cli)?;
    let over = AtomicBool::new(false);
    let (sent, seen) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&program, &over));
        let sent = send(cli, *load, core, (seconds, Some(pps)));
        over.store(true, Ordering::Relaxed);
        (sent, watching.join())
    });
    let (sent, seen) = (sent?, seen.unwrap_or_default());
    let ledger = program.stop()?;
    let (received, analysed) = (number(&ledger, "received")?, number(&ledger, "analysed")?);
    ensure!(received == sent.sent, "{} frames were sent, {received} are in the books", sent.sent);
    let warm = seen.iter().copied().skip((seen.len() as f64 * WARM).ceil() as usize);
    let (least, largest) = (warm.clone().min().unwrap_or(0), warm.max().unwrap_or(0));
    let lost = received - analysed;
    writeln!(
        out,
        "{received} packets in {:.0} s ({:.2} Mpps), {lost} lost; memory {} to {} MiB once warm",
        sent.seconds,
        received as f64 / sent.seconds / 1e6,
        least >> 10,
        largest >> 10
    )?;
    Ok(lost == 0 && largest - least <= SLACK_KIB)
}

/// Its memory, every ten seconds, until the sender has done.
fn watch(program: &Program, over: &AtomicBool) -> Vec<u64> {
    let (mut seen, mut next) = (Vec::new(), Instant::now() + LOOK);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        if Instant::now() >= next {
            next += LOOK;
            seen.extend(program.resident_kib());
        }
    }
    seen
}
