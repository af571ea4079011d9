//! The subcommands that use an interface: their arguments, what they print, and how they are stopped.
//!
//! Main thread. One JSON object goes to standard output, also after an interruption or a failure half-way; words
//! and the progress bar go to standard error.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use wiregen::wire::flood::{self, Flood};
use wiregen::wire::send::{self, Pace, Replay};
use wiregen::wire::{Error, Summary};

#[derive(Subcommand)]
pub enum WireCommand {
    /// Play capture files onto an interface, with the timing they have
    Send(SendArgs),
    /// Send copies of one packet, each of another flow, as fast as the kernel can
    Flood(FloodArgs),
}

#[derive(Args)]
pub struct SendArgs {
    /// The interface to send out of
    #[arg(short, long, value_name = "IFACE")]
    interface: String,
    /// Capture files (pcap or pcapng, also compressed), merged by time; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// So many times as fast as it was captured
    #[arg(long, value_name = "X", default_value_t = 1.0, conflicts_with_all = ["pps", "full_speed"])]
    speed: f64,
    /// So many packets a second, evenly
    #[arg(long, value_name = "N", conflicts_with = "full_speed")]
    pps: Option<f64>,
    /// One after the other, without waiting
    #[arg(long)]
    full_speed: bool,
    /// How often all of it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    loops: u64,
}

#[derive(Args)]
pub struct FloodArgs {
    /// The interface to send out of; a veth's other end must have XDP on
    #[arg(short, long, value_name = "IFACE")]
    interface: String,
    /// As if the interface had received them: run the XDP program that is attached to it
    #[arg(long)]
    direct: bool,
    /// The receive queue they come from
    #[arg(long, value_name = "N", default_value_t = 0, requires = "direct")]
    queue: u32,
    /// Of a frame, without FCS: 60 is what is called 64
    #[arg(long, value_name = "BYTES", default_value_t = flood::LEAST_BYTES)]
    size: usize,
    #[arg(long, value_name = "N", default_value_t = 4096)]
    flows: u32,
    /// Exactly so many; without this and --seconds, until interrupted
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    packets: Option<u64>,
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// So many a second, in bursts of at most 256
    #[arg(long, value_name = "N")]
    pps: Option<f64>,
    /// TCP segments with data instead of UDP
    #[arg(long)]
    tcp: bool,
}

/// The exit code for an error of `wiregen::wire`.
pub fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Failed(_) => 1,
        Error::Usage(_) => 2,
        Error::Unavailable(_) => 4,
    }
}

pub fn run(command: WireCommand) -> Result<()> {
    // What libbpf would print is in the errors.
    xdp_prog::silence();
    match command {
        WireCommand::Send(args) => send(args),
        WireCommand::Flood(args) => flood(args),
    }
}

fn send(args: SendArgs) -> Result<()> {
    let pace = match (args.pps, args.full_speed) {
        (Some(pps), _) => Pace::Rate { pps },
        (None, true) => Pace::Full,
        (None, false) => Pace::File { speed: args.speed },
    };
    let (interface, loops) = (args.interface.clone(), args.loops);
    let mut replay = Replay::open(send::Options { interface, files: args.files, pace, loops })?;
    let stop = stop_on_signal()?;
    let mut bar = Bar::new();
    let done = replay.run(&stop, &mut |read, size, packets| bar.show(read, size, packets));
    bar.finish();
    finish(&args.interface, &replay.summary(), done)
}

fn flood(args: FloodArgs) -> Result<()> {
    let mut flood = Flood::open(flood::Options {
        interface: args.interface.clone(),
        direct: args.direct,
        queue: args.queue,
        size: args.size,
        flows: args.flows,
        tcp: args.tcp,
        packets: args.packets,
        seconds: args.seconds,
        pps: args.pps,
    })?;
    let stop = stop_on_signal()?;
    let done = flood.run(&stop);
    finish(&args.interface, &flood.summary(), done)
}

/// Set by the first Ctrl-C or `kill`; the second ends the program at once.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .context("signals can't be handled")?;
    }
    Ok(stop)
}

fn finish(interface: &str, summary: &Summary, done: Result<(), Error>) -> Result<()> {
    let mut words = io::stderr().lock();
    let Summary { sent, bytes, seconds, pps, .. } = summary;
    writeln!(words, "{interface}: {sent} frames, {bytes} bytes, in {seconds:.3} s ({pps:.0} a second)")?;
    for note in &summary.notes {
        writeln!(words, "{note}")?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(summary)?).context("standard output can't be written")?;
    Ok(done?)
}

/// How far it is, for people who look at a terminal.
struct Bar {
    bar: Option<ProgressBar>,
    shown: Instant,
}

impl Bar {
    fn new() -> Bar {
        Bar { bar: io::stderr().is_terminal().then(|| bar(None)), shown: Instant::now() }
    }

    fn show(&mut self, read: u64, size: Option<u64>, packets: u64) {
        let Some(shown) = &self.bar else { return };
        if self.shown.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.shown = Instant::now();
        if let Some(size) = size.filter(|_| shown.length().is_none()) {
            shown.set_style(style(true));
            shown.set_length(size);
        }
        shown.set_position(read);
        shown.set_message(format!("{packets} frames"));
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr()).with_style(style(size.is_some()))
}

fn style(sized: bool) -> ProgressStyle {
    let template = if sized {
        "{bar:32} {binary_bytes}/{binary_total_bytes}  {msg}  {eta} left"
    } else {
        "{spinner} {binary_bytes}  {msg}"
    };
    ProgressStyle::with_template(template).expect("the template is well formed")
}
