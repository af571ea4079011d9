//! What sets failing flows apart from those to the same service that go well: the silence before, the size of
//! what doesn't arrive, the network or path they come by, an option they offer. Runs on the judge's thread;
//! bounded. Said when an incident closes, in words and as evidence.
//!
//! Nothing is claimed that a single healthy flow speaks against.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rules::facts::FlowFacts;
use serde_json::{Value, json};

use super::message::{NETWORKS, Siblings};

/// Services whose siblings are remembered.
const SERVICES: usize = 4096;
/// Networks and clients of failing flows told apart.
const LISTED: usize = 8;
/// Failing flows from which "all of them" says something about where they come from.
const ALL_OF_THEM: u64 = 3;
/// Silences outlived from which a bracket means something.
const OUTLIVED: u32 = 2;
/// Healthy flows from which "none of those" does.
const NONE_OF_THOSE: u32 = 10;

/// Headers of IPv6 and TCP with their usual options, bytes: a segment's packet is no larger than that beyond its
/// payload.
const HEADERS: u32 = 72;

/// What the failing flows of one incident have in common.
#[derive(Clone, Debug, Default)]
pub struct Failing {
    flows: u64,
    /// Flows that failed after a silence, and the shortest of these, ms.
    silent: u64,
    shortest_ms: u64,
    /// Smallest packet that never arrived, IP bytes, and flows that had one.
    stuck: u64,
    smallest_stuck: u32,
    networks: BTreeSet<u64>,
    clients: BTreeSet<IpAddr>,
    ttls: [u64; 4],
    ttl_unknown: bool,
    ecn: u64,
}

impl Failing {
    /// A flow that failed.
    pub fn flow(&mut self, facts: &FlowFacts) {
        self.flows += 1;
        if facts.idle_before_ms > 0 {
            self.silent += 1;
            self.shortest_ms = least(self.shortest_ms, facts.idle_before_ms);
        }
        let stuck = facts.orig.stuck_bytes.max(facts.resp.stuck_bytes);
        if stuck > 0 {
            self.stuck += 1;
            self.smallest_stuck = least(self.smallest_stuck.into(), stuck.into()) as u32;
        }
        if self.networks.len() <= LISTED {
            self.networks.insert(network(facts.src));
        }
        if self.clients.len() <= LISTED {
            self.clients.insert(facts.src);
        }
        match facts.orig.ttl_max {
            Some(ttl) => self.ttls[usize::from(ttl >> 6)] |= 1 << (ttl & 63),
            None => self.ttl_unknown = true,
        }
        self.ecn += u64::from(facts.ecn_syns > 0);
    }

    pub fn merge(&mut self, other: &Failing) {
        self.flows += other.flows;
        self.silent += other.silent;
        self.shortest_ms = least(self.shortest_ms, other.shortest_ms);
        self.stuck += other.stuck;
        self.smallest_stuck = least(self.smallest_stuck.into(), other.smallest_stuck.into()) as u32;
        let room = LISTED + 1 - self.networks.len().min(LISTED + 1);
        self.networks.extend(other.networks.iter().take(room));
        let room = LISTED + 1 - self.clients.len().min(LISTED + 1);
        self.clients.extend(other.clients.iter().take(room));
        self.ttls.iter_mut().zip(other.ttls).for_each(|(own, more)| *own |= more);
        self.ttl_unknown |= other.ttl_unknown;
        self.ecn += other.ecn;
    }

    /// What sets them apart: a sentence and a record for each.
    pub fn apart(&self, siblings: &Siblings) -> Vec<(String, Value)> {
        let candidates = [
            self.by_silence(siblings),
            self.by_size(siblings),
            self.by_origin(siblings),
            self.by_ttl(siblings),
            self.by_ecn(siblings),
        ];
        let mut found: Vec<_> = candidates.into_iter().flatten().collect();
        if found.is_empty() && self.flows >= ALL_OF_THEM && siblings.flows >= NONE_OF_THOSE {
            found.push(self.by_nothing(siblings));
        }
        found
    }

    fn by_silence(&self, siblings: &Siblings) -> Option<(String, Value)> {
        let outlived = u64::from(siblings.longest_silence_ms);
        let few = self.flows < ALL_OF_THEM || siblings.silences < OUTLIVED;
        if few || self.silent < self.flows || outlived >= self.shortest_ms {
            return None;
        }
        let (low, high) = (seconds(outlived), seconds(self.shortest_ms));
        let text = format!(
            "{} failed after {high} s of silence or more, {} of at most {low} s {} outlived: what forgets \
             connections does so after {low} to {high} s.",
            several(self.flows, "connection"),
            several(siblings.silences.into(), "silence"),
            if siblings.silences == 1 { "was" } else { "were" },
        );
        let record = json!({"by": "silence", "failing_min_ms": self.shortest_ms, "healthy_max_ms": outlived,
            "healthy": siblings.silences});
        Some((text, record))
    }

    fn by_size(&self, siblings: &Siblings) -> Option<(String, Value)> {
        let arrived = siblings.largest_acked[0].max(siblings.largest_acked[1]);
        let said = arrived > self.smallest_stuck / 2 && arrived + HEADERS < self.smallest_stuck;
        if self.stuck < self.flows || !said {
            return None;
        }
        let text = format!(
            "Packets of {} bytes and more don't arrive, while on {} that went well the largest segment carried \
             {arrived} bytes: the path takes something between.",
            self.smallest_stuck,
            several(siblings.flows.into(), "connection"),
        );
        let record = json!({"by": "size", "failing_min_bytes": self.smallest_stuck,
            "healthy_max_payload_bytes": arrived, "healthy": siblings.flows});
        Some((text, record))
    }

    /// One client, or one network, of which no flow went well while those of others did.
    fn by_origin(&self, siblings: &Siblings) -> Option<(String, Value)> {
        let [network] = *self.networks.iter().copied().collect::<Vec<_>>() else { return None };
        let there = siblings.in_network(network);
        if self.flows < ALL_OF_THEM || there > 0 || siblings.flows < NONE_OF_THOSE {
            return None;
        }
        let who = match *self.clients.iter().copied().collect::<Vec<_>>() {
            [client] => client.to_string(),
            _ => network_name(network, self.clients.first().is_some_and(IpAddr::is_ipv6)),
        };
        let text = format!(
            "Only {who} is hit: all {} come from there, and {} from elsewhere to the same service went well.",
            several(self.flows, "failing connection"),
            several(siblings.flows.into(), "connection"),
        );
        Some((text, json!({"by": "origin", "failing": who, "healthy": siblings.flows})))
    }

    fn by_ttl(&self, siblings: &Siblings) -> Option<(String, Value)> {
        let shared = self.ttls.iter().zip(siblings.ttls).any(|(own, theirs)| own & theirs != 0);
        if self.flows < ALL_OF_THEM || self.ttl_unknown || shared || siblings.flows < NONE_OF_THOSE {
            return None;
        }
        let (failing, healthy) = (values(&self.ttls), values(&siblings.ttls));
        let text = format!(
            "Their clients' packets pass this point with a TTL of {}, those of {} that went well with {}: another \
             way through the network.",
            list(&failing),
            several(siblings.flows.into(), "connection"),
            list(&healthy),
        );
        Some((text, json!({"by": "ttl", "failing": failing, "healthy": healthy})))
    }

    fn by_ecn(&self, siblings: &Siblings) -> Option<(String, Value)> {
        if self.flows < ALL_OF_THEM
            || self.ecn < self.flows
            || siblings.flows < NONE_OF_THOSE
            || siblings.ecn > 0
        {
            return None;
        }
        let text = format!(
            "All of them offered ECN in their SYN, and none of {} that went well did.",
            several(siblings.flows.into(), "connection")
        );
        Some((text, json!({"by": "ecn", "healthy": siblings.flows})))
    }

    fn by_nothing(&self, siblings: &Siblings) -> (String, Value) {
        let text = format!(
            "Neither client network nor path, silence, size or ECN sets them apart from {} to the same service that \
             went well: it hits one in {}.",
            several(siblings.flows.into(), "connection"),
            (u64::from(siblings.flows) + self.flows).div_ceil(self.flows),
        );
        (text, json!({"by": "nothing", "healthy": siblings.flows}))
    }
}

impl Siblings {
    fn in_network(&self, network: u64) -> u32 {
        let at = self.networks.iter().position(|known| *known == network);
        // A network that found no place may be any.
        at.and_then(|at| self.in_network.get(at)).copied().unwrap_or(self.in_others)
    }

    /// Adds what another worker saw.
    fn add(&mut self, other: &Siblings) {
        for at in 0..NETWORKS {
            let (network, count) = (other.networks[at], other.in_network[at]);
            let place = self.networks.iter().position(|known| *known == network || *known == 0);
            match place {
                Some(place) if network != 0 => {
                    self.networks[place] = network;
                    self.in_network[place] = self.in_network[place].saturating_add(count);
                }
                _ => self.in_others = self.in_others.saturating_add(count),
            }
        }
        self.ttls.iter_mut().zip(other.ttls).for_each(|(own, more)| *own |= more);
        let sum = |own: &mut u32, more: u32| *own = own.saturating_add(more);
        sum(&mut self.in_others, other.in_others);
        sum(&mut self.flows, other.flows);
        sum(&mut self.silences, other.silences);
        sum(&mut self.ecn, other.ecn);
        self.longest_silence_ms = self.longest_silence_ms.max(other.longest_silence_ms);
        self.largest_acked
            .iter_mut()
            .zip(other.largest_acked)
            .for_each(|(own, more)| *own = (*own).max(more));
    }
}

/// The latest word of each worker on each service in trouble.
#[derive(Debug, Default)]
pub struct Wellness {
    services: BTreeMap<(IpAddr, u16), BTreeMap<u16, Siblings>>,
    /// Services that found no place.
    pub refused: u64,
}

impl Wellness {
    pub fn report(&mut self, addr: IpAddr, port: u16, worker: u16, siblings: &Siblings) {
        if self.services.len() >= SERVICES && !self.services.contains_key(&(addr, port)) {
            self.refused += 1;
            return;
        }
        self.services.entry((addr, port)).or_default().insert(worker, *siblings);
    }

    /// The sum over workers.
    pub fn of(&self, addr: IpAddr, port: u16) -> Option<Siblings> {
        let mut sum = Siblings::default();
        self.services.get(&(addr, port))?.values().for_each(|siblings| sum.add(siblings));
        Some(sum)
    }
}

fn least(known: u64, new: u64) -> u64 {
    match (known, new) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}

/// As the worker names networks: an IPv4 /24, an IPv6 /64.
fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8) | 1 << 32,
        IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64).max(1),
    }
}

fn network_name(network: u64, v6: bool) -> String {
    if v6 {
        format!("{}/64", Ipv6Addr::from_bits(u128::from(network) << 64))
    } else {
        format!("{}/24", Ipv4Addr::from_bits((network as u32) << 8))
    }
}

fn values(ttls: &[u64; 4]) -> Vec<u8> {
    (0..=u8::MAX).filter(|ttl| ttls[usize::from(ttl >> 6)] & 1 << (ttl & 63) != 0).collect()
}

fn list(values: &[u8]) -> String {
    let shown: Vec<String> = values.iter().take(LISTED).map(u8::to_string).collect();
    shown.join(", ") + if values.len() > LISTED { " …" } else { "" }
}

fn several(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(src: &str) -> FlowFacts {
        let mut facts = FlowFacts { src: src.parse().expect("an address"), ..FlowFacts::default() };
        facts.orig.ttl_max = Some(60);
        facts
    }

    fn failing(flows: &[FlowFacts]) -> Failing {
        let mut all = Failing::default();
        let (first, rest) = flows.split_at(flows.len() / 2);
        for half in [first, rest] {
            let mut part = Failing::default();
            half.iter().for_each(|facts| part.flow(facts));
            all.merge(&part);
        }
        all
    }

    fn healthy(src: &str, flows: u32) -> Siblings {
        let mut siblings = Siblings { flows, ..Siblings::default() };
        siblings.networks[0] = network(src.parse().expect("an address"));
        siblings.in_network[0] = flows;
        siblings.ttls[0] = 1 << 60;
        siblings
    }

    fn said(failing: &Failing, siblings: &Siblings) -> Vec<String> {
        failing.apart(siblings).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn silences_bracket_a_timeout() {
        let dead =
            [302_000, 301_400, 640_000].map(|ms| FlowFacts { idle_before_ms: ms, ..facts("10.0.0.1") });
        let siblings = Siblings { silences: 40, longest_silence_ms: 298_000, ..healthy("10.0.0.1", 50) };
        let text = said(&failing(&dead), &siblings);
        assert!(text[0].contains("after 298.0 to 301.4 s") && text[0].contains("40 silences"), "{text:?}");
        let longer = Siblings { longest_silence_ms: 301_500, ..siblings };
        assert!(said(&failing(&dead), &longer)[0].contains("Neither"), "one outlived it: no timeout");
        let mixed = [dead[0], dead[1], facts("10.0.0.1")];
        assert!(said(&failing(&mixed), &siblings)[0].contains("Neither"), "one failed without any silence");
    }

    #[test]
    fn sizes_bracket_the_path_mtu() {
        let mut stuck = facts("10.0.0.1");
        stuck.resp.stuck_bytes = 1500;
        let siblings = Siblings { largest_acked: [300, 1380], ..healthy("10.0.0.1", 5) };
        assert!(said(&failing(&[stuck]), &siblings)[0].contains("1380"));
        let same = Siblings { largest_acked: [300, 1448], ..siblings };
        assert_eq!(said(&failing(&[stuck]), &same), Vec::<String>::new());
        let small = Siblings { largest_acked: [300, 119], ..siblings };
        assert_eq!(
            said(&failing(&[stuck]), &small),
            Vec::<String>::new(),
            "small talk proves nothing of size"
        );
    }

    #[test]
    fn one_network_or_one_client_is_named() {
        let net = ["10.0.7.1", "10.0.7.2", "10.0.7.9"].map(facts);
        assert!(said(&failing(&net), &healthy("10.0.9.1", 40))[0].contains("Only 10.0.7.0/24 is hit"));
        let one = ["10.0.7.1"; 3].map(facts);
        assert!(said(&failing(&one), &healthy("10.0.9.1", 40))[0].contains("Only 10.0.7.1 is hit"));
        let v6 = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3"].map(facts);
        assert!(
            said(&failing(&v6), &healthy("2001:db8:2::1", 40))[0].contains("Only 2001:db8:1::/64 is hit")
        );
        assert!(
            said(&failing(&net), &healthy("10.0.7.77", 40))[0].contains("Neither"),
            "a neighbour is fine"
        );
        let full = Siblings { in_others: 3, ..healthy("10.0.9.1", 40) };
        assert!(said(&failing(&net), &full)[0].contains("Neither"), "one of the others may be a neighbour");
        assert!(said(&failing(&net[..2]), &healthy("10.0.9.1", 40)).is_empty(), "two are an accident");
    }

    #[test]
    fn another_path_and_ecn() {
        let mut flows = ["10.0.1.1", "10.0.2.1", "10.0.3.1"].map(facts);
        for facts in &mut flows {
            facts.orig.ttl_max = Some(252);
            facts.ecn_syns = 1;
        }
        let text = said(&failing(&flows), &healthy("10.0.9.1", 40)).join(" ");
        assert!(text.contains("TTL of 252") && text.contains("with 60") && text.contains("ECN"), "{text}");
        let with_ecn = Siblings { ecn: 1, ..healthy("10.0.9.1", 40) };
        assert!(!said(&failing(&flows), &with_ecn).join(" ").contains("ECN"));
    }

    #[test]
    fn nothing_sets_them_apart_is_said_too() {
        let flows = ["10.0.1.1", "10.0.2.1", "10.0.3.1", "10.0.4.1"].map(facts);
        let text = said(&failing(&flows), &healthy("10.0.9.1", 196)).join(" ");
        assert!(text.contains("one in 50"), "{text}");
        assert!(said(&failing(&flows), &healthy("10.0.9.1", 9)).is_empty(), "too few to compare with");
    }

    #[test]
    fn workers_add_up() {
        let mut wellness = Wellness::default();
        let addr = "10.0.0.9".parse().expect("an address");
        wellness.report(addr, 443, 0, &healthy("10.0.1.1", 5));
        wellness.report(addr, 443, 1, &healthy("10.0.2.1", 6));
        wellness.report(addr, 443, 1, &healthy("10.0.2.1", 7));
        let sum = wellness.of(addr, 443).expect("reported");
        assert_eq!((sum.flows, sum.in_network(network("10.0.2.9".parse().expect("an address")))), (12, 7));
        assert!(wellness.of(addr, 80).is_none());
    }
}
