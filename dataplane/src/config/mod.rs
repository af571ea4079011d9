//! How much of everything: the sizes a worker takes at start, and the times it waits. Read before any thread
//! is spawned; nothing downstream sees the file it came from.
//!
//! Whoever reads referee.toml (the program) turns it into these; every field has a default an operator can
//! live with and a unit in its name or its doc.

use crate::hold::HoldConfig;
use crate::source::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// What a worker takes at start and how long it waits for what.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    /// Flows kept at once.
    pub flows: u32,
    /// Half-open handshakes kept besides.
    pub half_open: u32,
    /// Flows that can have a trouble record.
    pub troubled: u32,
    /// Flows that can have a record of their application.
    pub apps: u32,
    /// DNS questions without answer.
    pub questions: u32,
    /// Packets are remembered, as captures need it. Without a recorder nobody asks for them.
    pub remembers: bool,
    /// History ring, bytes.
    pub history_bytes: usize,
    /// Bytes of each packet kept, in history and captures; 0 for all.
    pub snap_bytes: u32,
    /// Likewise of its payload, behind the headers; all of it without one.
    pub payload_bytes: Option<u32>,
    /// IP bytes of a flow after which history keeps only headers of it.
    pub cutoff_bytes: u64,
    /// Silent flows whose last packets are kept.
    pub tails: u32,
    pub hold: HoldConfig,
    /// Messages waiting for the judge, at most.
    pub messages: usize,
    /// Hosts, and services, counted in one 100-ms interval.
    pub activity: u32,
    /// Services whose healthy flows are remembered beside those that fail.
    pub siblings: u32,
    /// Fragmented packets under way at once.
    pub fragmented: u32,
    /// Packets remembered, so that a second delivery of one is known; a mirror's come µs apart.
    pub copies: u32,
    pub timeouts: Timeouts,
    /// Key of the flow hash. Fixed in replay, so that two runs are alike; random when live.
    pub hash_secret: u64,
    /// Wait for room in the queues instead of dropping. Replay only.
    pub lossless: bool,
    /// The same once the source has ended: then no packet is lost by waiting. Whoever drives the worker has to
    /// empty the queues.
    pub lossless_at_end: bool,
    /// Time some of the rules' conditions. Live, and where rules are tried out.
    pub time_guards: bool,
}

/// Silences after which a flow is taken to have ended, ns.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Handshake not completed: longer than the 64 s between a client's last SYNs.
    pub half_open: Nanos,
    /// Established: a connection may sleep all day, and what wakes it is what breaks it. When the table is full
    /// the longest idle gives way, whatever this says.
    pub established: Nanos,
    /// After both FINs or a RST: as long as Linux stays in TIME-WAIT, so that a port used again within it is seen, and
    /// so are resets that answer what was still on its way.
    pub closed: Nanos,
    /// Anything but TCP.
    pub other: Nanos,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            half_open: 75 * SECOND,
            established: 86_400 * SECOND,
            closed: 60 * SECOND,
            other: 300 * SECOND,
        }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            flows: 1_000_000,
            half_open: 131_072,
            troubled: 131_072,
            apps: 262_144,
            questions: 32_768,
            remembers: true,
            history_bytes: 256 << 20,
            snap_bytes: 0,
            payload_bytes: None,
            cutoff_bytes: 256 << 10,
            tails: 16_384,
            hold: HoldConfig { holds: 1024, pool_bytes: 64 << 20, per_rule_per_second: 64 },
            messages: 8192,
            activity: 65_536,
            siblings: 4096,
            fragmented: 4096,
            copies: 8192,
            timeouts: Timeouts::default(),
            hash_secret: 0x7265_6665_7265_6521,
            lossless: false,
            lossless_at_end: false,
            time_guards: false,
        }
    }
}

impl WorkerConfig {
    /// A worker small enough to start in a moment, for tests and short files.
    pub fn small() -> WorkerConfig {
        WorkerConfig {
            flows: 16_384,
            half_open: 4096,
            troubled: 4096,
            apps: 8192,
            questions: 2048,
            history_bytes: 8 << 20,
            tails: 512,
            hold: HoldConfig { holds: 128, pool_bytes: 8 << 20, per_rule_per_second: 64 },
            messages: 2048,
            activity: 4096,
            siblings: 256,
            fragmented: 512,
            copies: 4096,
            ..WorkerConfig::default()
        }
    }
}
