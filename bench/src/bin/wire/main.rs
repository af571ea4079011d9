//! `referee run` on a wire, beside a bare loop that receives and drops, in the same run: frames are injected on
//! one core as fast as the kernel makes them, and both receivers take turns on another. Needs root and an
//! interface of its own: `scripts/bench-wire.sh` makes a network namespace with a veth pair and calls this in it.
//!
//! Two ways in. Direct: the program attached to the tap is run on each frame as if it had been received. Veth: the
//! frames cross the pair. Each frame is of another of many flows. The copy into the socket's memory runs on the
//! sender's core, so what is measured is throughput when both are busy, not loss at a given rate.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use dataplane::source::nic::Nic;
use dataplane_sys::bpf::{self, XdpMode};
use dataplane_sys::xsk::{BURST, Settings, Socket};
use serde::Serialize;
use wiregen::wire::{Summary, flood};
use xdp_prog::Capture;

mod program;
mod soak;

use program::{Program, number};

const RING: u32 = 16_384;

/// Throughput of `referee run` beside a bare AF_XDP loop.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The interface to capture from
    #[arg(long)]
    tap: String,
    /// Its peer, to send from
    #[arg(long)]
    wire: String,
    /// The program
    #[arg(long)]
    referee: PathBuf,
    /// A folder for stores and ledgers
    #[arg(long)]
    folder: PathBuf,
    /// Its configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// Runs of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// Length of a run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Flows in turn
    #[arg(long, default_value_t = 100_000)]
    flows: u32,
    /// Only loads whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Fail if the ratio of any load is below this
    #[arg(long)]
    at_least: Option<f64>,
    /// Instead: `referee run` alone, so many seconds at half of what it takes, its memory and losses watched
    #[arg(long, conflicts_with_all = ["runs", "at_least"])]
    soak: Option<f64>,
    /// One JSON object a load instead of a table
    #[arg(long)]
    json: bool,
}

/// What is sent, and how. Lengths without the frame check sequence, so 60 bytes are the least a wire carries.
#[derive(Clone, Copy, Debug)]
struct Load {
    name: &'static str,
    direct: bool,
    bytes: usize,
    tcp: bool,
}

const LOADS: [Load; 5] = [
    Load { name: "direct, 60 B", direct: true, bytes: 60, tcp: false },
    Load { name: "direct, 1514 B", direct: true, bytes: 1514, tcp: false },
    Load { name: "direct, 60 B, TCP repeated", direct: true, bytes: 60, tcp: true },
    Load { name: "veth, 60 B", direct: false, bytes: 60, tcp: false },
    Load { name: "veth, 1514 B", direct: false, bytes: 1514, tcp: false },
];

/// One load's medians, millions of packets a second.
#[derive(Debug, Serialize)]
struct Row {
    load: &'static str,
    bare_mpps: f64,
    referee_mpps: f64,
    ratio: f64,
    /// Of the packets that the interface saw, by `referee run`'s own books.
    dropped_percent: f64,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "wire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    xdp_prog::silence();
    let cores = dataplane_sys::allowed_cores().context("cannot tell the CPUs this process may use")?;
    ensure!(
        cores.len() >= 2,
        "a sender and a receiver need a CPU each; this process may use {}",
        cores.len()
    );
    if let Some(seconds) = cli.soak {
        return soak::soak(cli, seconds, cores[0]);
    }
    let mut enough = true;
    let mut out = std::io::stdout().lock();
    if !cli.json {
        writeln!(
            out,
            "{:<26}{:>10}{:>10}{:>8}{:>10}",
            "Mpps, medians", "bare", "referee", "ratio", "dropped"
        )?;
    }
    let wanted = |load: &Load| cli.only.as_ref().is_none_or(|only| load.name.contains(only.as_str()));
    for load in LOADS.into_iter().filter(wanted) {
        let row = measure(cli, load, &cores)?;
        enough &= cli.at_least.is_none_or(|least| row.ratio >= least);
        if cli.json {
            writeln!(out, "{}", serde_json::to_string(&row)?)?;
        } else {
            let Row { load, bare_mpps, referee_mpps, ratio, dropped_percent } = row;
            writeln!(
                out,
                "{load:<26}{bare_mpps:>10.2}{referee_mpps:>10.2}{:>7.0}%{dropped_percent:>9.1}%",
                ratio * 100.0
            )?;
        }
    }
    Ok(enough)
}

/// Both receivers in turns.
fn measure(cli: &Cli, load: Load, cores: &[usize]) -> Result<Row> {
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    let (mut bare, mut ours, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..cli.runs {
        let send = || send(cli, load, first, (cli.seconds, None));
        bare.push(receive_and_drop(cli, last, send)?);
        let (mpps, percent) = referee(cli, send)?;
        ours.push(mpps);
        dropped.push(percent);
    }
    let (bare_mpps, referee_mpps) = (median(bare), median(ours));
    let ratio = referee_mpps / bare_mpps;
    Ok(Row { load: load.name, bare_mpps, referee_mpps, ratio, dropped_percent: median(dropped) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sends a load from a thread on the sender's core until the time is up, so many packets a second or as fast as it
/// goes.
fn send(cli: &Cli, load: Load, core: usize, (seconds, pps): (f64, Option<f64>)) -> Result<Summary> {
    let options = flood::Options {
        interface: if load.direct { cli.tap.clone() } else { cli.wire.clone() },
        direct: load.direct,
        queue: 0,
        size: load.bytes,
        flows: cli.flows,
        tcp: load.tcp,
        packets: None,
        seconds: Some(seconds),
        pps,
    };
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            dataplane_sys::pin_to_core(core).context("pinning the sender")?;
            let mut flood = flood::Flood::open(options)?;
            flood.run(&AtomicBool::new(false))?;
            Ok(flood.summary())
        });
        sending.join().unwrap_or_else(|_| bail!("the sender's thread ended by a fault of its own"))
    })
}

/// The floor: take each frame, touch its first byte, give it back.
fn receive_and_drop(cli: &Cli, core: usize, send: impl Fn() -> Result<Summary>) -> Result<f64> {
    let tap = Nic::find(&cli.tap)?;
    let program = Capture::load(1, false)?;
    let _link = bpf::attach_xdp(program.as_fd(), tap.ifindex, XdpMode::Native).context("attaching")?;
    let settings = Settings {
        interface: &cli.tap,
        queue: 0,
        ring: RING,
        frame_bytes: 2048,
        zero_copy: false,
        busy_poll: false,
        jumbo: false,
    };
    let mut socket = Socket::open(&settings)?;
    program.give(0, socket.as_fd())?;
    let (stop, received) = (AtomicBool::new(false), Arc::new(AtomicU64::new(0)));
    thread::scope(|scope| {
        scope.spawn(|| {
            let pinned = dataplane_sys::pin_to_core(core);
            let mut frames = Vec::with_capacity(BURST);
            let (mut packets, mut sum) = (0_u64, 0_u64);
            while pinned.is_ok() && !stop.load(Ordering::Relaxed) {
                packets += socket.receive(&mut frames) as u64;
                sum += frames
                    .iter()
                    .map(|f| u64::from(socket.bytes(f).first().copied().unwrap_or(0)))
                    .sum::<u64>();
                socket.give(&mut frames);
            }
            std::hint::black_box(sum);
            received.store(packets, Ordering::Relaxed);
        });
        let sent = send();
        stop.store(true, Ordering::Relaxed);
        sent
    })
    .map(|sent| received.load(Ordering::Relaxed) as f64 / sent.seconds / 1e6)
}

/// The whole program, with the shipped rules and a store: packets analysed a second, and what it dropped, in
/// percent.
fn referee(cli: &Cli, send: impl Fn() -> Result<Summary>) -> Result<(f64, f64)> {
    let program = Program::start(cli)?;
    let sent = send();
    let ledger = program.stop()?;
    let sent = sent?;
    let (received, analysed) = (number(&ledger, "received")?, number(&ledger, "analysed")?);
    ensure!(received == sent.sent, "{} frames were sent, {received} are in the books", sent.sent);
    let dropped = 100.0 * (received - analysed) as f64 / received.max(1) as f64;
    Ok((analysed as f64 / sent.seconds / 1e6, dropped))
}
