//! What only shows over many flows, beside the plain counts: how widely a host spreads its attempts, how soon it
//! uses a port again, how many connections stand in which state.
//!
//! Plain data, filled by the judge from what all workers reported; `None` and 0 as in [`super`].

use std::net::IpAddr;

use super::Counts;

/// Attempts of one client on many ports of one host, or on one port of many hosts, of the last 60 s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The host whose ports were tried; unknown in a spread over hosts.
    pub of_host: Option<IpAddr>,
    /// The port that was tried; unknown in a spread over ports.
    pub of_port: Option<u16>,
    /// Distinct ports or hosts tried. Exact up to some hundreds, then to a few per cent and since the beginning.
    pub tried: u32,
    /// Attempts: SYNs whose outcome is known, repeats not counted.
    pub attempts: u32,
    /// Attempts that became connections.
    pub completed: u32,
    /// Attempts answered by RST.
    pub refused: u32,
    /// Packet time of the first attempt, to 100 ms; 0 if there was none.
    pub first_ns: u64,
    /// Attempts since then.
    pub total: u64,
}

/// Connections of one client to one service: how many, and from which ports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dealings {
    pub addr: Option<IpAddr>,
    pub port: u16,
    /// Connections begun in the last 10 and 60 s.
    pub begun_10s: u32,
    pub begun_60s: u32,
    /// Of those begun in the last 60 s, about how many were completed.
    pub completed_60s: u32,
    /// Connections closed in the last 10 s that had lived for 2 s at most.
    pub short_10s: u32,
    /// Of those begun in the last 60 s, connections from a port that had been used within 60 s before.
    pub reuses: u32,
    /// Of these, connections on whose 5-tuple this capture still knew the earlier one.
    pub reuses_known: u32,
    /// Distinct client ports of the last 60 s, the lowest and the highest of them.
    pub ports: u32,
    pub port_low: u16,
    pub port_high: u16,
    /// Shortest time between two uses of a port, ms; unknown if none was used again.
    pub shortest_ms: Option<u32>,
    pub first_ns: u64,
    pub total: u64,
}

/// What a host does as a client. Each part is about the one of its peers with which it stands out most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClientFacts {
    /// Over the ports of one host.
    pub ports: Spread,
    /// Over hosts, on one port.
    pub hosts: Spread,
    /// With the service it uses ports for again most often.
    pub reuse: Dealings,
    /// With the service it connects to most often.
    pub churn: Dealings,
    /// Entries that its connections take in the table of a stateful device in the path.
    pub state_entries: u32,
}

/// Connections to a service by state, as `ss` shows them on its host, and entries in a device's state table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceStates {
    /// SYN-ACK sent, not acknowledged.
    pub syn_recv: u32,
    pub established: u32,
    /// The client has closed, the service has not.
    pub close_wait: u32,
    /// The service has closed, the client has not.
    pub fin_wait2: u32,
    /// Closed by both within the last 60 s.
    pub time_wait: u32,
    /// Entries of this service's connections in the table of a stateful device in the path.
    pub entries: u32,
    /// Entries of all traffic.
    pub entries_total: u32,
    /// The client that most entries belong to, and how many.
    pub top_client: Option<IpAddr>,
    pub top_client_entries: u32,
}

/// Clients and services named in order of their entries.
pub const RANKED: usize = 3;

/// A service and the entries of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntries {
    pub addr: IpAddr,
    pub port: u16,
    pub proto: u8,
    pub entries: u32,
}

/// What a rule on `tick` can see of all traffic at the capture point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkFacts {
    pub now_ns: u64,
    /// Sums over all services, of the last 1, 10 and 60 s.
    pub last_1s: Counts,
    pub last_10s: Counts,
    pub last_60s: Counts,
    /// Entries of all traffic in the table of a stateful device in the path.
    pub state_entries: u32,
    /// Whom most of them belong to, most first.
    pub clients: [Option<(IpAddr, u32)>; RANKED],
    pub services: [Option<ServiceEntries>; RANKED],
}

/// What a rule on `tick` can see of a host: sums over sliding windows of packet time, and what it does as a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostFacts {
    pub addr: IpAddr,
    pub now_ns: u64,
    /// Sums over the last 1, 10 and 60 s.
    pub last_1s: Counts,
    pub last_10s: Counts,
    pub last_60s: Counts,
    pub client: ClientFacts,
}

/// What a rule on `tick` can see of a service (address, port, protocol of the responding side).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceFacts {
    pub addr: IpAddr,
    pub port: u16,
    pub proto: u8,
    pub now_ns: u64,
    /// Sums over the last 1, 10 and 60 s.
    pub last_1s: Counts,
    pub last_10s: Counts,
    pub last_60s: Counts,
    /// Most unfinished handshakes within 1 s, of the last 60 s.
    pub unfinished_most: u32,
    pub states: ServiceStates,
}
