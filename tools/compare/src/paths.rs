//! Whether a conversation that only one tap has leads past the other: by what else its hosts, their networks and
//! all the rest do. Main thread; filled once matching is done.
//!
//! A host whose answered conversations pass one tap alone is reached by another path, or a filter leaves it out.

use std::collections::{HashMap, HashSet};

use dataplane::decode::Address;

use crate::conn::{Conn, World};
use crate::places::network;

/// Why it is taken to lead past the other tap; the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Others of its packets came there.
    Conversation,
    /// Other packets between these two hosts came there.
    Hosts,
    /// Packets of the host on the other side were seen there.
    Host,
    /// Packets of that host's network were.
    Network,
    /// All that crosses to that side, as far as it is answered, was.
    Everything,
}

impl Basis {
    pub const fn words(self) -> &'static str {
        match self {
            Basis::Conversation => "other packets of this conversation",
            Basis::Hosts => "other packets between these hosts",
            Basis::Host => "other packets of the far host",
            Basis::Network => "packets of the far host's network",
            Basis::Everything => "all other answered traffic to that side",
        }
    }
}

/// Conversations of some kind that crossed, and that were answered without passing the other tap.
#[derive(Clone, Copy, Default)]
struct Ways {
    across: u32,
    around: u32,
}

impl Ways {
    /// One in ten that goes around is enough to doubt the others.
    fn lead_across(self) -> bool {
        self.across > 0 && u64::from(self.around) * 10 <= u64::from(self.across)
    }
}

/// Address, port and protocol.
type Service = (Address, u16, u8);

#[derive(Default)]
pub struct Paths {
    /// Pairs of hosts, lower one first.
    pairs: HashSet<(Address, Address)>,
    /// By the tap whose far side it is, then host or network.
    hosts: [HashMap<Address, Ways>; 2],
    networks: [HashMap<Address, Ways>; 2],
    all: [Ways; 2],
    /// Services each tap saw anything of.
    seen: [HashSet<Service>; 2],
    /// Services that were answered around the other tap.
    around: HashSet<Service>,
}

/// The two ends as services.
fn services(world: &World<'_>, conn: &Conn) -> [Service; 2] {
    let key = world.flows.key(conn.flow);
    [(key.low, key.low_port, key.proto), (key.high, key.high_port, key.proto)]
}

/// The host on the other side of `tap`.
pub fn far_host(world: &World<'_>, conn: &Conn, tap: usize) -> Option<Address> {
    let from_low_first = conn.first_tap[1]?;
    let (low, high) = world.flows.ends(conn.flow, true);
    Some(if from_low_first == tap { high } else { low })
}

impl Paths {
    /// Knows what crossed.
    pub fn new(world: &World<'_>) -> Paths {
        let mut paths = Paths::default();
        for conn in &world.conns {
            for tap in [0, 1] {
                if !conn.ranges[tap].is_empty() {
                    paths.seen[tap].extend(services(world, conn));
                }
                if conn.matched == 0 {
                    continue;
                }
                paths.pairs.insert(world.flows.ends(conn.flow, true));
                if let Some(far) = far_host(world, conn, tap) {
                    paths.hosts[tap].entry(far).or_default().across += 1;
                    paths.networks[tap].entry(network(far)).or_default().across += 1;
                    paths.all[tap].across += 1;
                }
            }
        }
        paths
    }

    /// Notes a conversation that `tap` saw answered, and the other tap nothing of.
    pub fn goes_around(&mut self, world: &World<'_>, conn: &Conn, tap: usize) {
        let Some(far) = far_host(world, conn, tap) else { return };
        self.hosts[tap].entry(far).or_default().around += 1;
        self.networks[tap].entry(network(far)).or_default().around += 1;
        self.all[tap].around += 1;
        self.around.extend(services(world, conn).into_iter().filter(|service| service.0 == far));
    }

    /// Why this conversation, seen at `tap`, is taken to lead past the other one; `None` if nothing says so.
    pub fn basis(&self, world: &World<'_>, conn: &Conn, tap: usize) -> Option<Basis> {
        if conn.matched > 0 {
            return Some(Basis::Conversation);
        }
        let far = far_host(world, conn, tap)?;
        if services(world, conn).iter().any(|service| service.0 == far && self.around.contains(service)) {
            return None;
        }
        let of =
            |ways: &HashMap<Address, Ways>, which: Address| ways.get(&which).copied().unwrap_or_default();
        let host = of(&self.hosts[tap], far);
        if host.lead_across() && self.pairs.contains(&world.flows.ends(conn.flow, true)) {
            return Some(Basis::Hosts);
        }
        if host.around > 0 && !host.lead_across() {
            return None;
        }
        if host.across > 0 || world.hosts[1 - tap].contains(&far) {
            return Some(Basis::Host);
        }
        let network = of(&self.networks[tap], network(far));
        match (network.lead_across(), network.around) {
            (true, _) => Some(Basis::Network),
            (false, 0) if self.all[tap].lead_across() => Some(Basis::Everything),
            _ => None,
        }
    }

    /// The other tap saw nothing at all of the service: a filter there would look the same.
    pub fn is_service_unseen(&self, world: &World<'_>, conn: &Conn, tap: usize) -> bool {
        let far = far_host(world, conn, tap);
        let mut of_far = services(world, conn).into_iter().filter(|service| Some(service.0) == far);
        conn.matched == 0 && of_far.all(|service| !self.seen[1 - tap].contains(&service))
    }
}
