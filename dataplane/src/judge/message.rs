//! What workers tell the judge, and what the judge tells workers. Plain values that travel through
//! fixed-size queues; made on one thread, read on another, never allocated.

use std::net::IpAddr;

use rules::event::Event;
use rules::facts::{Counts, FlowFacts};

use crate::source::Nanos;

/// From a worker to the judge, in the order things happened on that worker.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "messages live inline in a fixed ring; boxing would allocate")]
pub enum Message {
    /// A rule's guard matched on a flow.
    Hit(Hit),
    /// What a host did since the worker's last report of it (at most 100 ms of packet time).
    Host { addr: IpAddr, counts: Counts },
    /// What happened to a service since the worker's last report of it.
    Service { addr: IpAddr, port: u16, proto: u8, counts: Counts },
    /// A flow is being recorded because [`Command::Watch`] named the host that reset it.
    Watched { addr: IpAddr, flow_id: u64 },
    /// The worker's packet time passed this 100-ms boundary; its host and service reports up to it are in.
    Tick(Nanos),
}

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
    /// Record the next `flows` flows that this host resets, for `rule`, until `until` of packet time.
    Watch { addr: IpAddr, rule: u16, flows: u32, until: Nanos, limits: CaptureLimits },
}
