//! The two workloads, each made once and written to a file: traffic like an office's or a data centre's, and a
//! million flows alive with packets spread over them at random. On the benchmark's one thread, before any
//! clock runs; the file goes through the page cache to every stage.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use dataplane::config::WorkerConfig;
use tempfile::NamedTempFile;
use wiregen::write::{Format, Style, Writer};
use wiregen::{live, mix};

const SEED: u64 = 1;
/// Frames of the million: 66 bytes of headers and this.
const PAYLOAD: u16 = 30;
const NANOSECOND_PCAP: Style = Style { format: Format::Pcap, nanoseconds: true, big_endian: false };
/// Packets between two words of progress.
const PROGRESS: u64 = 1_000_000;

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Mix,
    Million,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mix => "mix",
            Kind::Million => "million",
        }
    }
}

/// A workload on disk.
pub struct Input {
    pub kind: Kind,
    pub file: NamedTempFile,
    pub packets: u64,
    /// Frame bytes.
    pub bytes: u64,
    pub flows: u64,
    /// Packets before the clock starts: they fill the tables and the history ring.
    pub warm: u64,
    pub config: WorkerConfig,
}

/// Room for `flows` flows, at least 2^20, and otherwise what a worker has by default. Lossless, as a replay
/// is: a queue that is full is emptied, not overrun.
fn config(flows: u64) -> WorkerConfig {
    let usual = WorkerConfig::default();
    WorkerConfig { flows: usual.flows.max(flows as u32), lossless: true, ..usual }
}

impl Input {
    /// Makes the workload. For the million, `packets` come on top of three a flow for the handshakes, and the
    /// clock starts after those; for the mix, after a quarter.
    pub fn make(kind: Kind, flows: u64, packets: u64) -> Result<Input> {
        let file =
            NamedTempFile::with_prefix("referee-bench-").context("cannot make a file for the input")?;
        let mut sink = Sink::new(&file, kind)?;
        let warm = match kind {
            Kind::Mix => {
                let options = mix::Options { flows, packets, seed: SEED, seconds: 60 };
                mix::run(&options, |ts, frame| sink.packet(ts, frame))?;
                packets / 4
            }
            Kind::Million => {
                let options = live::Options {
                    flows: flows as u32,
                    packets,
                    seed: SEED,
                    payload: PAYLOAD,
                    handshakes: true,
                    ..live::Options::default()
                };
                live::run(&options, |ts, frame| {
                    sink.packet(ts, frame);
                });
                flows * 3
            }
        };
        let (packets, bytes) = sink.finish()?;
        Ok(Input { kind, file, packets, bytes, flows, warm, config: config(flows) })
    }
}

/// Writes packets and remembers the first error, as the generators' callbacks can't return one.
struct Sink {
    writer: Writer<BufWriter<File>>,
    kind: Kind,
    packets: u64,
    bytes: u64,
    failed: Option<std::io::Error>,
}

impl Sink {
    fn new(file: &NamedTempFile, kind: Kind) -> Result<Sink> {
        let out = BufWriter::with_capacity(1 << 20, file.reopen().context("cannot open the input's file")?);
        let writer = Writer::new(out, NANOSECOND_PCAP).context("cannot write the input's file")?;
        Ok(Sink { writer, kind, packets: 0, bytes: 0, failed: None })
    }

    fn packet(&mut self, ts: u64, frame: &[u8]) -> bool {
        if self.failed.is_none() {
            self.failed = self.writer.packet(ts, frame).err();
        }
        self.packets += 1;
        self.bytes += frame.len() as u64;
        if self.packets.is_multiple_of(PROGRESS) {
            progress(&format!("{}: {} M packets made", self.kind.name(), self.packets / PROGRESS));
        }
        self.failed.is_none()
    }

    /// Waits until the file is on disk, so that nothing is written back while clocks run.
    fn finish(mut self) -> Result<(u64, u64)> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.writer.finish().and_then(|out| out.get_ref().sync_all()),
        }
        .context("cannot write the input's file (is there room in the directory for temporary files?)")?;
        progress(&format!(
            "{}: {} packets, {} MB on disk",
            self.kind.name(),
            self.packets,
            self.bytes / 1_000_000
        ));
        Ok((self.packets, self.bytes))
    }
}

/// One line on standard error.
pub fn progress(line: &str) {
    // Nobody may be listening; the benchmark goes on all the same.
    let _ = writeln!(std::io::stderr(), "{line}");
}
