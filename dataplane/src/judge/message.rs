//! What workers tell the judge, and what the judge tells workers. Plain values that travel through
//! fixed-size queues; made on one thread, read on another, never allocated. What is larger than the others and
//! rare, hits and siblings, has queues of its own, so that a message takes two cache lines.

use std::net::IpAddr;

use rules::event::Event;
use rules::facts::{Counts, FlowFacts};

use crate::source::Nanos;

/// From a worker to the judge, in the order things happened on that worker.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack; boxing would allocate")]
pub enum Message<H = Hit, S = Siblings> {
    /// A rule's guard matched on a flow.
    Hit(H),
    /// What a host did since the worker's last report of it (at most 100 ms of packet time).
    Host { addr: IpAddr, counts: Counts },
    /// What went well at a service in which something failed of late; the worker's sum so far.
    Siblings { addr: IpAddr, port: u16, worker: u16, siblings: S },
    /// What happened to a service since the worker's last report of it.
    Service { addr: IpAddr, port: u16, proto: u8, counts: Counts, changes: StateChanges },
    /// What a client did with a service since the worker's last report of the two (at most 1 s of packet time).
    Dealing { client: IpAddr, addr: IpAddr, port: u16, proto: u8, dealing: Dealing },
    /// A flow is being recorded because of [`Command::Watch`]; `reset`: the host watched has just reset it.
    Watched { whose: Whose, rule: u16, flow_id: u64, reset: bool },
    /// Hits of this worker that follow are of the set of this generation.
    Rules { worker: u16, generation: u32 },
    /// The worker's packet time passed this 100-ms boundary; its host and service reports up to it are in.
    Tick(Nanos),
}

/// A message as it waits in its queue: what is large is the next in a queue of its kind.
pub type Note = Message<(), ()>;

impl Note {
    /// The message itself; `hit` and `siblings` take the next of theirs.
    #[inline]
    pub fn with(
        self,
        hit: impl FnOnce() -> Option<Hit>,
        siblings: impl FnOnce() -> Option<Siblings>,
    ) -> Option<Message> {
        Some(match self {
            Message::Hit(()) => Message::Hit(hit()?),
            Message::Host { addr, counts } => Message::Host { addr, counts },
            Message::Siblings { addr, port, worker, .. } => {
                Message::Siblings { addr, port, worker, siblings: siblings()? }
            }
            Message::Service { addr, port, proto, counts, changes } => {
                Message::Service { addr, port, proto, counts, changes }
            }
            Message::Dealing { client, addr, port, proto, dealing } => {
                Message::Dealing { client, addr, port, proto, dealing }
            }
            Message::Watched { whose, rule, flow_id, reset } => {
                Message::Watched { whose, rule, flow_id, reset }
            }
            Message::Rules { worker, generation } => Message::Rules { worker, generation },
            Message::Tick(now) => Message::Tick(now),
        })
    }
}

/// Client ports told of one dealing.
pub const PORTS_TOLD: usize = 24;

/// What one client did with one service within a second.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Dealing {
    /// Connections begun: SYNs, repeats not counted.
    pub begun: u32,
    /// Of these, on a 5-tuple whose earlier flow the worker still knew.
    pub on_known: u32,
    pub completed: u32,
    /// Answered by RST.
    pub refused: u32,
    /// Neither, 3 s after the SYN or when given up.
    pub unfinished: u32,
    /// Of these, answered by SYN-ACK and then broken off by the client.
    pub broken_off: u32,
    /// Closed within 2 s of their beginning.
    pub short: u32,
    /// The client's ports of the first connections begun; 0 where there is none.
    pub ports: [u16; PORTS_TOLD],
}

impl Dealing {
    pub fn begun_from(&mut self, port: u16) {
        if let Some(place) = self.ports.get_mut(self.begun as usize) {
            *place = port;
        }
        self.begun = self.begun.saturating_add(1);
    }
}

/// How many connections to a service came into a state, less those that left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
pub struct StateChanges {
    /// By [`crate::activity::Standing`], the first place unused.
    pub standing: [i32; 5],
    pub entries: Entries,
}

/// Entries in the table of a stateful device in the path, as `docs/state-gauge.md` models them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
pub struct Entries {
    pub made: u32,
    /// Entries of flows that this capture has done with, by how long they still stay there ([`LINGERS`]).
    pub left: [u32; LINGERS.len()],
}

/// Seconds that entries stay once nothing more is expected of their flow: it has closed, or has ended here.
pub const LINGERS: [u32; 4] = [0, 10, 45, 120];

/// A rule's guard matched on a flow.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// Index into the rule set.
    pub rule: u16,
    pub event: Event,
    pub worker: u16,
    /// Rises by one with every message of a worker.
    pub sequence: u64,
    /// The worker's number of the packet that raised the event; `None` for timers.
    pub packet: Option<u64>,
    /// The worker holds the flow's lead-up and waits for Keep or Release.
    pub held: bool,
    pub facts: FlowFacts,
}

/// Client networks told apart at one service.
pub const NETWORKS: usize = 8;

/// Flows to one service that went well: completed handshake, data both ways, no rule matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
pub struct Siblings {
    /// Client networks, an IPv4 /24 or an IPv6 /64 each; 0 where there is none.
    pub networks: [u64; NETWORKS],
    /// TTLs of clients, one bit each.
    pub ttls: [u64; 4],
    pub in_network: [u32; NETWORKS],
    /// Flows of networks that found no place.
    pub in_others: u32,
    pub flows: u32,
    /// Silences of a second or more that a connection outlived, and the longest of them.
    pub silences: u32,
    pub longest_silence_ms: u32,
    /// Of the flows, those whose client offered it.
    pub ecn: u32,
    pub timestamps: u32,
    pub wscale: u32,
    pub sack: u32,
    /// Largest TCP payload known to have arrived, from client and from server.
    pub largest_acked: [u32; 2],
}

/// How much of a flow a capture may take, beyond its lead-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureLimits {
    pub packets: u32,
    pub bytes: u64,
    /// Of packet time, from the verdict.
    pub nanos: Nanos,
}

/// From the judge to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Record what is held of this flow, and the flow from now on, within the limits.
    Keep { flow_id: u64, limits: CaptureLimits },
    /// Let go of what is held of this flow.
    Release { flow_id: u64 },
    /// Record flows of a host or service for `rule`, each within the limits, from their next packet on.
    Watch { whose: Whose, rule: u16, flows: WatchFlows, until: Nanos, limits: CaptureLimits },
}

/// A host, or a service, whose flows are to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Host(IpAddr),
    Service(IpAddr, u16, u8),
}

/// How many flows [`Command::Watch`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchFlows {
    pub all: u32,
    /// Of these, at most so many that show nothing of it: that the host does not reset, or whose attempt at the
    /// service does not fail.
    pub others: u32,
}
