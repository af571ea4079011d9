//! The `wiregen` program: writes generated captures, and beside each the truth about it; sends packets onto a wire;
//! or talks over a network.
//!
//! One thread, and those of `peers`. It parses arguments, opens files and says what went wrong and what to do;
//! everything else is in the library. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 4 an interface or
//! privilege is missing.

mod pair_cli;
mod wire_cli;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use wiregen::encap::Encap;
use wiregen::peers::{self, Endpoint, Service};
use wiregen::truth::Truth;
use wiregen::write::{Format, Style, Writer};
use wiregen::{live, mix, scenario};

/// Deterministic traffic and trouble, to a capture file (the same arguments give the same bytes) or onto a wire. And
/// real peers, for a network whose trouble is made elsewhere.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A realistic mix, 2 % of its flows in trouble; OUT.truth.jsonl lists those
    Mix {
        /// The capture file to write
        out: PathBuf,
        /// Flows in all
        #[arg(long, default_value_t = 100_000)]
        flows: u64,
        /// Packets in all, at least 16 a flow
        #[arg(long, default_value_t = 3_000_000)]
        packets: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Flows begin within the first 70 % of this
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        #[command(flatten)]
        file: FileArgs,
    },
    /// A small capture in which one thing is broken; OUT.truth.jsonl says what
    Scenario(ScenarioArgs),
    /// A scenario as two taps of one path see it, with something in between
    Pair(Box<pair_cli::PairArgs>),
    /// Many established flows, packets spread over them at random
    Live {
        /// The capture file to write
        out: PathBuf,
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
        flows: u32,
        /// Packets, besides the handshakes
        #[arg(long, default_value_t = 1_000_000)]
        packets: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Payload bytes of each packet
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(0..=1448))]
        payload: u16,
        /// Begin each flow with its handshake
        #[arg(long)]
        handshakes: bool,
        #[command(flatten)]
        file: FileArgs,
    },
    /// The scenarios there are
    List,
    /// Services on real sockets, until the time is up or it is killed; says `listening` when clients may come
    Serve {
        /// ROLE=ADDRESS:PORT; roles are pages, queries, uploads, streams
        #[arg(required = true)]
        endpoints: Vec<Endpoint>,
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Clients of such services; says at its end how they fared
    Talk(TalkArgs),
    #[command(flatten)]
    Wire(wire_cli::WireCommand),
    /// Writes what a package installs
    #[command(hide = true)]
    Generate {
        /// Where its man pages go
        folder: PathBuf,
    },
}

#[derive(Args)]
struct FileArgs {
    #[arg(long, value_enum, default_value = "pcap")]
    format: Container,
    /// Time stamps in ns (pcapng always has them)
    #[arg(long)]
    ns: bool,
    /// Big-endian file headers
    #[arg(long)]
    big_endian: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Container {
    Pcap,
    Pcapng,
}

#[derive(Clone, Copy, ValueEnum)]
enum IpVersion {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

#[derive(Args)]
struct ScenarioArgs {
    /// Which one (see `wiregen list`)
    #[arg(value_parser = PossibleValuesParser::new(scenario::NAMES))]
    name: String,
    /// The capture file to write
    out: PathBuf,
    #[command(flatten)]
    file: FileArgs,
    /// IP version
    #[arg(long, value_enum, default_value = "4")]
    ip: IpVersion,
    /// VLAN id; given twice, outer then inner (QinQ)
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Vec<u16>,
    /// A tunnel around each frame
    #[arg(long, default_value = "none", value_parser = encap_parser())]
    encap: Encap,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of the silence it turns on, seconds (rst_after_idle: 300, keepalive: 30)
    #[arg(long, value_name = "SECONDS", value_parser = idle_seconds)]
    idle: Option<f64>,
    /// How many flows (troubled ones; all of healthy, syn_no_synack and syn_flood)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    flows: Option<u32>,
    /// syn_no_synack: one in so many SYNs vanishes (20)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    one_in: Option<u32>,
}

#[derive(Args)]
struct TalkArgs {
    /// ROLE=ADDRESS:PORT; roles are pages, queries, uploads, streams
    #[arg(required = true)]
    targets: Vec<Endpoint>,
    /// Nothing new is begun after this; what is under way then gets some seconds more
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pages a second, from each such service
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=100))]
    pages: u32,
    /// Uploads a second, to each such service
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    uploads: u32,
    /// Database sessions, with each such service; every other one rests for 12 to 14 s at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=500))]
    sessions: u32,
    /// Streams, to each such service
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=500))]
    streams: u32,
}

/// Knows the tunnels by their names, and says which there are.
fn encap_parser() -> impl TypedValueParser<Value = Encap> {
    PossibleValuesParser::new(Encap::ALL.map(Encap::name)).map(|name| Encap::named(&name).unwrap_or_default())
}

fn idle_seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    if (1.0..=100_000.0).contains(&value) { Ok(value) } else { Err("give 1 to 100000 seconds".into()) }
}

impl FileArgs {
    fn style(&self) -> Style {
        let format = match self.format {
            Container::Pcap => Format::Pcap,
            Container::Pcapng => Format::Pcapng,
        };
        Style { format, nanoseconds: self.ns, big_endian: self.big_endian }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let usage = error.is::<mix::BadOptions>();
            let wire = error.downcast_ref().map(wire_cli::exit_code);
            // Nothing is left to try if stderr is closed.
            let _ = writeln!(io::stderr(), "wiregen: {error:#}");
            ExitCode::from(wire.unwrap_or(if usage { 2 } else { 1 }))
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Mix { out, flows, packets, seed, seconds, file } => {
            write_mix(&out, &mix::Options { flows, packets, seed, seconds }, file.style())
        }
        Command::Scenario(args) => write_scenario(&args),
        Command::Pair(args) => pair_cli::run(&args),
        Command::Live { out, flows, packets, seed, payload, handshakes, file } => {
            let options =
                live::Options { flows, packets, seed, payload, handshakes, ..live::Options::default() };
            write_live(&out, &options, file.style())
        }
        Command::Wire(command) => wire_cli::run(command),
        Command::Generate { folder } => std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(<Cli as clap::CommandFactory>::command(), &folder))
            .with_context(|| format!("man pages can't be made in {}", folder.display())),
        Command::List => {
            let mut out = io::stdout().lock();
            for name in scenario::NAMES {
                writeln!(out, "{name:<20} {}", scenario::about(name).unwrap_or_default())?;
            }
            Ok(())
        }
        Command::Serve { endpoints, seconds } => serve(&endpoints, seconds),
        Command::Talk(args) => talk(args),
    }
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path)
        .with_context(|| format!("{} can't be created; give a path that can be written", path.display()))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

fn failed(path: &Path) -> String {
    format!("writing {} failed; is the disk full?", path.display())
}

fn write_truth(capture: &Path, truth: &Truth) -> Result<()> {
    let mut name = capture.as_os_str().to_owned();
    name.push(".truth.jsonl");
    let path = PathBuf::from(name);
    truth.write(&mut create(&path)?).with_context(|| failed(&path))
}

fn report(line: &str) -> Result<()> {
    writeln!(io::stderr(), "{line}").context("stderr is closed")
}

fn write_mix(out: &Path, options: &mix::Options, style: Style) -> Result<()> {
    options.check()?;
    let mut writer = Writer::new(create(out)?, style).with_context(|| failed(out))?;
    let mut result = Ok(());
    let summary = mix::run(options, |ts, bytes| {
        result = writer.packet(ts, bytes);
        result.is_ok()
    })?;
    result.and_then(|()| writer.finish().map(drop)).with_context(|| failed(out))?;
    write_truth(out, &summary.truth)?;
    let mean = summary.bytes / summary.packets.max(1);
    report(&format!(
        "{}: {} packets, {} flows ({} TCP, {} IPv6, {} alive at most), {} bytes ({mean} a frame), {} troubled",
        out.display(),
        summary.packets,
        summary.flows,
        summary.tcp_flows,
        summary.ipv6_flows,
        summary.most_live,
        summary.bytes,
        summary.truth.lines.len()
    ))
}

fn write_scenario(args: &ScenarioArgs) -> Result<()> {
    let vlan = match args.vlan[..] {
        [] => [0, 0],
        [id] => [id, 0],
        [outer, inner] => [outer, inner],
        _ => return Err(mix::BadOptions("--vlan is given more than twice; one or two ids".into()).into()),
    };
    let options = scenario::Options {
        seed: args.seed,
        v6: matches!(args.ip, IpVersion::V6),
        vlan,
        encap: args.encap,
        idle_s: args.idle,
        flows: args.flows,
        one_in: args.one_in,
        style: args.file.style(),
    };
    let out = &args.out;
    let (truth, written) =
        scenario::write(&args.name, &options, &mut create(out)?).with_context(|| failed(out))?;
    write_truth(out, &truth)?;
    let flows: std::collections::BTreeSet<_> =
        truth.lines.iter().map(|line| (line.src, line.sport, line.dst, line.dport)).collect();
    report(&format!(
        "{}: {} packets, {} flows listed, {} bytes, {} troubled",
        out.display(),
        written.packets,
        flows.len(),
        written.bytes,
        truth.troubled()
    ))
}

fn write_live(out: &Path, options: &live::Options, style: Style) -> Result<()> {
    let mut writer = Writer::new(create(out)?, style).with_context(|| failed(out))?;
    let mut result = Ok(());
    let mut packets = 0u64;
    live::run(options, |ts, bytes| {
        if result.is_ok() {
            result = writer.packet(ts, bytes);
            packets += 1;
        }
    });
    let bytes = writer.written;
    result.and_then(|()| writer.finish().map(drop)).with_context(|| failed(out))?;
    report(&format!(
        "{}: {packets} packets, {} flows, {bytes} bytes, 0 troubled",
        out.display(),
        options.flows
    ))
}

fn serve(endpoints: &[Endpoint], seconds: u64) -> Result<()> {
    let mut services = Vec::new();
    for endpoint in endpoints {
        let service = Service::start(*endpoint).with_context(|| {
            format!("can't listen on {}; is the address this host's, and the port free?", endpoint.at)
        })?;
        services.push(service);
    }
    report("listening")?;
    thread::sleep(Duration::from_secs(seconds));
    let served: Vec<String> = services.iter().map(|service| service.served().to_string()).collect();
    report(&format!("served {}", served.join("; ")))
}

fn talk(args: TalkArgs) -> Result<()> {
    let TalkArgs { targets, seconds, seed, pages, uploads, sessions, streams } = args;
    let options = peers::Options { targets, seconds, seed, pages, uploads, sessions, streams };
    let talked = peers::talk(&options).context("no thread could be started; is a process limit set?")?;
    writeln!(io::stdout(), "{talked}").context("stdout is closed")
}
