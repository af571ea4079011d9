//! `referee capture`: has a run under way capture what an expression names, shows how it goes, and gives what was kept.
//!
//! Main thread of a process of its own; knows of the other only what its socket and its store say.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use dataplane::source::Nanos;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::captures;
use crate::cli::{GetArgs, QueryArgs};
use crate::control::client;
use crate::control::command::Command;
use crate::control::demands::{DemandState, Stage, Wish};
use crate::control::socket::DEFAULT_PATH;
use crate::error::Failure;
use crate::live::signals::Signals;
use crate::report::proof::Proofs;
use crate::term::{self, Paint, count, plural};
use crate::time::{lasting, span, utc};

/// How often it is asked how it goes, and how often a signal is looked for.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(25));

#[derive(Args)]
pub struct CaptureArgs {
    /// Which packets, as tcpdump takes it (pcap-filter syntax; quote several words), and ICMP errors about them
    #[arg(value_name = "EXPR")]
    pub expression: String,
    /// Out of history, as far as it reaches: so long ago and since (1h at most); without this and --for, 30s
    #[arg(long, value_name = "D", value_parser = lasting)]
    pub last: Option<Nanos>,
    /// From now on, for so long (24h at most). Ctrl-C ends it earlier; what was kept stays
    #[arg(long = "for", value_name = "D", value_parser = lasting)]
    pub lasts: Option<Nanos>,
    /// Write what was captured to this file, too (- for standard output)
    #[arg(short = 'w', value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// The socket that `referee run` was given
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub socket: PathBuf,
    /// What became of it, as one JSON object (with -w -, on standard error)
    #[arg(long)]
    pub json: bool,
}

/// Captures.
///
/// # Errors
/// Usage: the expression, or a terminal to write to. Failed: nobody answers, the run keeps nothing or ended meanwhile, the
/// file can't be written, or packets that were wanted are not in the store.
pub fn run(args: &CaptureArgs) -> Result<(), Failure> {
    let to_stdout = args.write.as_deref() == Some(Path::new("-"));
    if to_stdout && io::stdout().is_terminal() {
        let what = "standard output is a terminal, and a capture is not text";
        return Err(Failure::usage(what).help("name a file with -w, or pipe it: … -w - | wireshark -k -i -"));
    }
    let signals = Signals::listen()?;
    let expression = args.expression.clone();
    let wish = Wish { expression, last_ns: args.last, for_ns: args.lasts, packets: None, bytes: None };
    let begun: DemandState = client::of(&client::ask(&args.socket, &Command::Demand(wish))?)?;
    let proofs = Proofs::of(&begun.store);
    let id = begun.id.clone();
    let done = follow(&args.socket, begun, &signals).map_err(|failure| {
        let help = format!("what it had kept by then: {}", proofs.line(&id));
        Failure::failed(format!("the run ended before the capture did: {}", failure.message)).help(help)
    })?;
    tell(&done, &proofs, args.json, to_stdout)?;
    let whole = whole(&done);
    match &args.write {
        Some(path) if done.packets > 0 => captures::get(&GetArgs {
            query: QueryArgs { store: Some(done.store), incident: Some(done.id), ..QueryArgs::default() },
            json: false,
            write: Some(path.clone()),
        })?,
        Some(_) if whole.is_ok() => return Err(Failure::failed("there is nothing to write")),
        _ => {}
    }
    whole
}

/// Packets that were wanted and are not in the store.
fn lost(done: &DemandState) -> u64 {
    done.refused + done.unwritten.values().sum::<u64>()
}

/// # Errors
/// Failed: packets that were wanted are not in the store.
fn whole(done: &DemandState) -> Result<(), Failure> {
    match lost(done) {
        0 => Ok(()),
        lost => {
            Err(Failure::failed(format!("the capture is not whole, for want of {}", plural(lost, "packet")))
                .help("`referee status` says how the store stands; with room on its disk, capture again"))
        }
    }
}

/// Waits until all is in the store. A signal ends the capture, a second one this program.
fn follow(socket: &Path, begun: DemandState, signals: &Signals) -> Result<DemandState, Failure> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    let (mut state, mut ended) = (begun, false);
    while state.state != Stage::Done {
        bar.tick();
        bar.set_message(progress(&state));
        let until = Instant::now() + LOOKS.0;
        while Instant::now() < until && (ended || !signals.came()) {
            thread::sleep(LOOKS.1);
        }
        let id = state.id.clone();
        let command = if signals.came() && !std::mem::replace(&mut ended, signals.came()) {
            Command::DemandEnd { id }
        } else {
            Command::DemandGet { id }
        };
        state = client::of(&client::ask(socket, &command)?)?;
    }
    bar.finish_and_clear();
    Ok(state)
}

fn progress(state: &DemandState) -> String {
    let what = match state.state {
        Stage::Capturing => "capturing, Ctrl-C ends it",
        Stage::Finishing | Stage::Done => "writing",
    };
    format!("{what}: {} of {} looked at", plural(state.packets, "packet"), count(state.looked))
}

/// In words on standard error, and the line that opens it on standard output, unless the capture itself goes there.
fn tell(done: &DemandState, proofs: &Proofs, json: bool, to_stdout: bool) -> Result<(), Failure> {
    let line = proofs.line(&done.id);
    if json {
        let mut object = serde_json::to_value(done).map_err(Failure::failed)?;
        object["proof"] = line.into();
        if to_stdout {
            term::note(&object.to_string());
            return Ok(());
        }
        return term::show(|out| writeln!(out, "{object}"));
    }
    words(done).iter().for_each(|what| term::note(what));
    match (done.packets, to_stdout) {
        (0, _) => Ok(()),
        (_, true) => {
            term::note(&format!("proof: {line}"));
            Ok(())
        }
        (_, false) => term::show(|out| writeln!(out, "proof: {}", Paint::for_stdout().bold(&line))),
    }
}

/// What became of it, and what is missing.
fn words(done: &DemandState) -> Vec<String> {
    let looked = plural(done.looked, "packet");
    let mut all = vec![match done.packets {
        0 if lost(done) > 0 => format!("nothing of {looked} is kept"),
        0 => format!("none of {looked} is wanted"),
        kept => {
            format!("{} ({}) of {looked} kept", plural(kept, "packet"), plural(done.bytes, "byte"))
        }
    }];
    if done.reached_ns > done.since_ns {
        let missing = span(done.reached_ns - done.since_ns);
        all.push(format!("history begins at {}, {missing} later than asked for", utc(done.reached_ns)));
    }
    if done.missed_bytes > 0 {
        let missed = plural(done.missed_bytes, "byte");
        all.push(format!("{missed} of history were overwritten before they could be looked at"));
    }
    if done.refused > 0 {
        let refused = plural(done.refused, "packet");
        all.push(format!("{refused} more were wanted, and left out because the store was short of room"));
    }
    for (reason, packets) in &done.unwritten {
        let lost = plural(*packets, "packet");
        all.push(format!("more was wanted, and {lost} of it did not reach the disk: {reason}"));
    }
    if done.full {
        all.push("it ended because it had all it may have ([capture] demand_mib)".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let mut done = DemandState {
            id: "00aa".to_owned(),
            expression: "tcp".to_owned(),
            state: Stage::Done,
            begun_ns: 0,
            since_ns: 0,
            until_ns: 0,
            reached_ns: 0,
            looked: 1000,
            packets: 0,
            bytes: 0,
            unwritten: BTreeMap::new(),
            refused: 0,
            missed_bytes: 0,
            ended: false,
            full: false,
            scanned: true,
            fragments: false,
            store: "/s".into(),
        };
        assert_eq!(words(&done), ["none of 1,000 packets is wanted"]);
        (done.packets, done.bytes, done.reached_ns) = (1, 60, 1_500_000_000);
        (done.refused, done.missed_bytes, done.full) = (2, 3, true);
        let all = words(&done);
        assert_eq!(all[0], "1 packet (60 bytes) of 1,000 packets kept");
        assert_eq!(all[1], "history begins at 1970-01-01T00:00:01.500Z, 1.5 s later than asked for");
        assert_eq!(all.len(), 5, "{all:?}");
        assert!(whole(&done).unwrap_err().message.contains("for want of 2 packets"));
        (done.refused, done.full) = (0, false);
        assert!(whole(&done).is_ok());
        done.unwritten.insert("disk_full".to_owned(), 17_387);
        let all = words(&done);
        assert_eq!(all[3], "more was wanted, and 17,387 packets of it did not reach the disk: disk_full");
        assert_eq!(whole(&done).unwrap_err().code as u8, 1);
    }
}
