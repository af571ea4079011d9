//! `wiregen pair`: a scenario, or a mix, as two taps of one path would have seen it.
//!
//! Part of the program, one thread. Holds all packets in memory; writes two capture files, and says what the middle did.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use wiregen::encap::Encap;
use wiregen::mix;
use wiregen::scenario::{self, Packet};
use wiregen::twotap::{Around, Middle, On, Path, split};
use wiregen::write::Writer;

use super::{FileArgs, IpVersion, create, encap_parser, failed, idle_seconds, report};

#[derive(Args)]
pub struct PairArgs {
    /// A scenario (see `wiregen list`), or mix
    #[arg(value_parser = names())]
    name: String,
    /// The capture file of the client's tap
    client: PathBuf,
    /// The capture file of the server's tap
    server: PathBuf,
    #[command(flatten)]
    file: FileArgs,
    #[arg(long, value_enum, default_value = "4")]
    ip: IpVersion,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of the silence it turns on, seconds
    #[arg(long, value_name = "SECONDS", value_parser = idle_seconds)]
    idle: Option<f64>,
    /// mix: flows and packets in all
    #[arg(long, default_value_t = 30_000)]
    flows: u64,
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// The client tap's clock is ahead by this, ms
    #[arg(long, value_name = "MS", default_value_t = 0.0, allow_hyphen_values = true)]
    offset_ms: f64,
    /// and runs faster by this
    #[arg(long, value_name = "PPM", default_value_t = 0.0, allow_hyphen_values = true)]
    drift_ppm: f64,
    /// From tap to tap, ms
    #[arg(long, value_name = "MS", default_value_t = 2.0)]
    delay_ms: f64,
    /// Routers between the taps
    #[arg(long, default_value_t = 3)]
    hops: u8,
    /// The server tap's frames have this VLAN tag
    #[arg(long, value_name = "ID", conflicts_with = "encap", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,
    /// or are in such a tunnel
    #[arg(long, default_value = "none", value_parser = encap_parser())]
    encap: Encap,
    /// One in so many SYNs, DNS questions and requests after a silence was sent before, and lost in between
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    lose_one_in: Option<u32>,
    /// Lower larger MSS options to this
    #[arg(long, value_name = "BYTES")]
    mss: Option<u16>,
    /// Remove the window scale option
    #[arg(long, value_enum, value_name = "ON")]
    strip_wscale: Option<Which>,
    /// Remove SACK-permitted
    #[arg(long, value_enum, value_name = "ON")]
    strip_sack: Option<Which>,
    /// Remove time stamps
    #[arg(long, value_enum, value_name = "ON")]
    strip_timestamps: Option<Which>,
    /// Rewrite sequence numbers
    #[arg(long, value_name = "DELTA")]
    shift: Option<u32>,
    /// but not SACK blocks
    #[arg(long, requires = "shift")]
    forget_sack: bool,
    /// TCP data is ECT(0) where it is sent
    #[arg(long)]
    ecn: bool,
    /// and arrives without
    #[arg(long, requires = "ecn", conflicts_with = "mark_ce")]
    bleach_ecn: bool,
    /// or with congestion marked
    #[arg(long, requires = "ecn")]
    mark_ce: bool,
    /// Re-mark all packets with this DSCP
    #[arg(long, value_name = "DSCP", value_parser = clap::value_parser!(u8).range(0..=63))]
    dscp: Option<u8>,
    /// Change a byte of each larger payload
    #[arg(long)]
    alter: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Syn,
    Synack,
    Both,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(scenario::NAMES.into_iter().chain(["mix"]))
}

fn on(which: Option<Which>) -> On {
    match which {
        None => On::Neither,
        Some(Which::Syn) => On::Syn,
        Some(Which::Synack) => On::SynAck,
        Some(Which::Both) => On::Both,
    }
}

impl PairArgs {
    fn path(&self) -> Path {
        let around = match (self.vlan, self.encap) {
            (Some(id), _) => Around::Vlan(id),
            (None, Encap::None) => Around::Nothing,
            (None, encap) => Around::Tunnel(encap),
        };
        Path {
            seed: self.seed,
            delay: (self.delay_ms * 1e6) as u64,
            jitter: (self.delay_ms * 1e5) as u64,
            hops: self.hops,
            offset: (self.offset_ms * 1e6) as i64,
            drift_ppm: self.drift_ppm,
            around,
            middle: Middle {
                lose_one_in: self.lose_one_in,
                mss: self.mss,
                strip_wscale: on(self.strip_wscale),
                strip_sack: on(self.strip_sack),
                shift: self.shift,
                forget_sack: self.forget_sack,
                ecn: self.ecn,
                bleach_ecn: self.bleach_ecn,
                strip_timestamps: on(self.strip_timestamps),
                mark_ce: self.mark_ce,
                dscp: self.dscp,
                alter: self.alter,
            },
        }
    }

    fn packets(&self) -> Result<Vec<Packet>> {
        if self.name == "mix" {
            let options =
                mix::Options { flows: self.flows, packets: self.packets, seed: self.seed, seconds: 60 };
            options.check()?;
            let mut packets = Vec::new();
            mix::run(&options, |ts, bytes| {
                packets.push(Packet { ts, bytes: bytes.to_vec() });
                true
            })?;
            return Ok(packets);
        }
        let v6 = matches!(self.ip, IpVersion::V6);
        let options =
            scenario::Options { seed: self.seed, v6, idle_s: self.idle, ..scenario::Options::default() };
        Ok(scenario::packets(&self.name, &options).context("no such scenario")?.0)
    }
}

/// Writes both captures.
pub fn run(args: &PairArgs) -> Result<()> {
    let taps = split(&args.packets()?, &args.path());
    for (out, packets) in [(&args.client, &taps.client), (&args.server, &taps.server)] {
        let mut writer = Writer::new(create(out)?, args.file.style()).with_context(|| failed(out))?;
        for packet in packets {
            writer.packet(packet.ts, &packet.bytes).with_context(|| failed(out))?;
        }
        writer.finish().with_context(|| failed(out))?;
    }
    let mut kinds = std::collections::BTreeMap::<&str, (u64, u64)>::new();
    for ((kind, _), packets) in &taps.done {
        let (flows, sum) = kinds.entry(kind).or_default();
        (*flows, *sum) = (*flows + 1, *sum + packets);
    }
    let said: Vec<String> =
        kinds.iter().map(|(kind, (flows, sum))| format!("{kind}: {sum} packets in {flows} flows")).collect();
    let said = if said.is_empty() { "the middle did nothing".to_owned() } else { said.join(", ") };
    report(&format!("{} and {} packets; {said}", taps.client.len(), taps.server.len()))
}
