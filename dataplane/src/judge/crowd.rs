//! Clients as many flows show them: scans, ports used again, churn. Takes what workers report of pairs, and gives
//! at each tick the facts of those clients that did something. Runs on the judge's thread; bounded tables, and what
//! they let go of is counted.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use rules::facts::{ClientFacts, Dealings, Spread};

use super::aged::Aged;
use super::dealings;
use super::message::Dealing;
use super::novices::Novices;
use super::spread::{self, Axis, Fates, Item};
use super::window::{AHEAD, SPANS};

type ServiceKey = (IpAddr, u16, u8);
/// A client, a service, and what they did with each other.
pub type Reported = (IpAddr, ServiceKey, Dealing);

/// Ports or hosts that failed in a row, so to speak: from here on a client may be scanning.
const SUSPECT: u32 = 5;

/// The one connection of a pair.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
struct Once {
    port: u16,
    completed: bool,
    short: bool,
}

impl Once {
    /// If that is all there is.
    fn of(dealing: &Dealing) -> Option<Once> {
        let Dealing { begun, on_known, completed, short, .. } = *dealing;
        let [port, ..] = dealing.ports;
        (begun == 1 && on_known == 0 && completed <= 1 && short <= 1).then_some(Once {
            port,
            completed: completed > 0,
            short: short > 0,
        })
    }

    fn dealing(self) -> Dealing {
        let mut dealing =
            Dealing { completed: self.completed.into(), short: self.short.into(), ..Dealing::default() };
        dealing.begun_from(self.port);
        dealing
    }
}

#[derive(Debug)]
pub struct Crowd {
    pairs: Aged<(IpAddr, ServiceKey), dealings::Track>,
    /// Pairs with one connection so far.
    novices: Novices<Once>,
    spreads: Aged<(IpAddr, Axis), spread::Track>,
    suspects: Aged<IpAddr, ()>,
    /// Reported since the last tick.
    reported: Vec<Reported>,
    /// So many of these have been shown.
    shown: usize,
}

impl Crowd {
    /// `limit`: pairs, and spreads.
    pub fn new(limit: usize) -> Crowd {
        Crowd {
            pairs: Aged::new(limit),
            novices: Novices::new(4 * limit, SPANS[2]),
            spreads: Aged::new(limit),
            suspects: Aged::new(limit),
            reported: Vec::new(),
            shown: 0,
        }
    }

    pub fn evicted(&self) -> u64 {
        self.pairs.evicted + self.novices.evicted + self.spreads.evicted
    }

    pub fn has_changed(&self) -> bool {
        !self.reported.is_empty()
    }

    /// Takes a report whose tick is still to come.
    pub fn report(&mut self, client: IpAddr, service: ServiceKey, dealing: &Dealing) {
        self.reported.push((client, service, *dealing));
    }

    /// Reports not shown before.
    pub fn new_reports(&mut self) -> &[Reported] {
        let shown = std::mem::replace(&mut self.shown, self.reported.len());
        self.reported.get(shown..).unwrap_or_default()
    }

    /// A client that failed at several ports or hosts within the last minute.
    pub fn is_suspect(&self, client: &IpAddr) -> bool {
        self.suspects.get(client).is_some()
    }

    /// Ends bucket `bucket`: facts of the clients reported since the last call that stand out by something, or are
    /// `noted` for something else. Each part of the facts is about the peer that stands out most among those
    /// reported now.
    pub fn tick(&mut self, bucket: u64, noted: impl Fn(&IpAddr) -> bool) -> BTreeMap<IpAddr, ClientFacts> {
        let mut all: BTreeMap<IpAddr, ClientFacts> = BTreeMap::new();
        let mut spreads = Vec::new();
        let mut reported = std::mem::take(&mut self.reported);
        for (n, (client, service, dealing)) in reported.iter().enumerate() {
            let (client, service) = (*client, *service);
            if let Some((client, service, _)) = reported.get(n + AHEAD) {
                self.novices.prefetch(&(*client, *service));
            }
            self.attempted(client, service, dealing, bucket, &mut spreads);
            if noted(&client) {
                all.entry(client).or_default();
            }
            let Some(track) = self.dealt((client, service), dealing, bucket) else { continue };
            if track.weight() != (0, 0)
                && let Some(dealings) = track.facts(service.0, service.1, bucket)
            {
                let facts = all.entry(client).or_default();
                let (reuse, churn) = (&mut facts.reuse, &mut facts.churn);
                stand_out(reuse, &dealings, |dealings| dealings.reuses);
                stand_out(churn, &dealings, |dealings| dealings.short_10s);
            }
        }
        reported.clear();
        (self.reported, self.shown) = (reported, 0);
        // Equals stand out by their order.
        spreads.sort_unstable();
        spreads.dedup();
        for (client, axis) in spreads {
            self.stands_out(client, axis, bucket, all.entry(client).or_default());
        }
        if let Some(before) = bucket.checked_sub(SPANS[2]) {
            self.pairs.expire(before);
            self.spreads.expire(before);
            self.suspects.expire(before);
        }
        all
    }

    /// Adds to what a pair did; `None` as long as that is no more than one connection.
    fn dealt(
        &mut self,
        pair: (IpAddr, ServiceKey),
        dealing: &Dealing,
        bucket: u64,
    ) -> Option<&mut dealings::Track> {
        let at = match self.pairs.find(&pair, bucket) {
            Some(at) => at,
            None if dealing.begun == 0 => {
                let once = self.novices.get_mut(&pair, bucket)?;
                once.completed |= dealing.completed > 0;
                once.short |= dealing.short > 0;
                return None;
            }
            None => {
                let once = Once::of(dealing);
                let met = self.novices.again(&pair, bucket, once);
                if met.is_none() && once.is_some() {
                    return None;
                }
                let at = self.pairs.place(pair, bucket);
                if let Some((before, first)) = met {
                    self.pairs.at(at).2.add(before, &first.dealing());
                }
                at
            }
        };
        let (_, _, track) = self.pairs.at(at);
        track.add(bucket, dealing);
        Some(track)
    }

    /// Only what fails begins a spread: a healthy network has none.
    fn attempted(
        &mut self,
        client: IpAddr,
        (addr, port, _): ServiceKey,
        dealing: &Dealing,
        bucket: u64,
        touched: &mut Vec<(IpAddr, Axis)>,
    ) {
        let Dealing { completed, refused, unfinished, broken_off, .. } = *dealing;
        let over_ports = Fates { completed, refused, unfinished };
        if over_ports.all() == 0 || over_ports.failed() == 0 && self.spreads.is_empty() {
            return;
        }
        // A load balancer's half-open check of its members is answered by nearly all of them; who scans a network meets
        // silence. On the ports of one host nobody keeps watch in this way.
        let over_hosts = Fates {
            completed: completed.saturating_add(broken_off),
            unfinished: unfinished.saturating_sub(broken_off),
            ..over_ports
        };
        for (axis, item) in [(Axis::PortsOf(addr), Item::Port(port)), (Axis::HostsOn(port), Item::Host(addr))]
        {
            let fates = if matches!(axis, Axis::PortsOf(_)) { over_ports } else { over_hosts };
            let track = match over_ports.failed() > 0 {
                true => Some(self.spreads.touch((client, axis), bucket)),
                false => self.spreads.get_mut(&(client, axis), bucket),
            };
            if let Some(track) = track {
                track.add(bucket, item, fates);
                touched.push((client, axis));
            }
        }
    }

    fn stands_out(&mut self, client: IpAddr, axis: Axis, bucket: u64, facts: &mut ClientFacts) {
        let Some(spread) = self.spreads.get(&(client, axis)).map(|track| track.facts(axis)) else { return };
        let best = match axis {
            Axis::PortsOf(_) => &mut facts.ports,
            Axis::HostsOn(_) => &mut facts.hosts,
        };
        if failing(&spread) > failing(best) {
            *best = spread;
        }
        if spread.tried >= SUSPECT && u64::from(spread.completed) * 4 < u64::from(spread.attempts) {
            self.suspects.touch(client, bucket);
        }
    }
}

/// Takes what a client does with one service in place of what it does with another, if it is more of what `what` asks
/// for; of equals, the one whose address comes first.
fn stand_out(best: &mut Dealings, one: &Dealings, what: impl Fn(&Dealings) -> u32) {
    let rank = |dealings: &Dealings| (what(dealings), Reverse((dealings.addr, dealings.port)));
    if what(one) > 0 && (best.addr.is_none() || rank(one) >= rank(best)) {
        *best = *one;
    }
}

/// Distinct ports or hosts as far as they failed: repeats of one failure are no scan.
fn failing(spread: &Spread) -> u64 {
    let failed = u64::from(spread.attempts.saturating_sub(spread.completed));
    u64::from(spread.tried) * failed / u64::from(spread.attempts.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn host(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
    }

    fn failed() -> Dealing {
        Dealing { unfinished: 1, ..Dealing::default() }
    }

    #[test]
    fn a_scan_stands_out_among_what_its_client_does_else() {
        let mut crowd = Crowd::new(1000);
        for port in 1..=20 {
            crowd.report(host(1), (host(2), port, 6), &failed());
            crowd.report(host(1), (host(3), 80, 6), &failed());
        }
        crowd.report(host(1), (host(2), 443, 6), &Dealing { completed: 2, ..Dealing::default() });
        let facts = crowd.tick(1000, |_| false)[&host(1)];
        assert_eq!((facts.ports.of_host, facts.ports.tried), (Some(host(2)), 21));
        assert_eq!((facts.ports.attempts, facts.ports.completed), (22, 2));
        assert_eq!(facts.hosts.tried, 1);
        assert!(crowd.is_suspect(&host(1)) && !crowd.is_suspect(&host(2)));
        crowd.tick(1000 + 600, |_| false);
        assert!(!crowd.is_suspect(&host(1)));
    }

    #[test]
    fn members_that_answer_a_half_open_check_are_not_scanned() {
        let mut crowd = Crowd::new(1000);
        for member in 1..=60 {
            let broken_off = u32::from(member % 10 != 0);
            crowd.report(host(200), (host(member), 80, 6), &Dealing { broken_off, ..failed() });
        }
        let facts = crowd.tick(1000, |_| false)[&host(200)];
        assert!(facts.hosts.completed * 4 >= facts.hosts.attempts, "{:?}", facts.hosts);
    }

    #[test]
    fn two_workers_add_up() {
        let mut crowd = Crowd::new(1000);
        for n in 0..20 {
            let mut dealing = Dealing::default();
            dealing.begun_from(40_000 + n);
            crowd.report(host(1), (host(2), 80, 6), &dealing);
        }
        assert!(crowd.tick(1000, |_| false).is_empty(), "twenty from other ports are nothing");
        let mut again = Dealing::default();
        again.begun_from(40_003);
        crowd.report(host(1), (host(2), 80, 6), &again);
        let facts = crowd.tick(1010, |_| false)[&host(1)];
        assert_eq!((facts.reuse.begun_60s, facts.reuse.reuses, facts.reuse.port), (21, 1, 80));
    }
}
