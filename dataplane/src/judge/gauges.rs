//! How many connections to a service stand in which state, and how many entries a stateful device in the path must
//! hold for all of them (`docs/state-gauge.md`). Runs on the judge's thread; bounded. Goes to service guards.
//!
//! Workers tell changes, so sums over workers are right by themselves. What a worker or this table had no room for
//! is missing from the gauge; both count it.

use std::cmp::Reverse;
use std::net::IpAddr;

use rules::facts::{Counts, LinkFacts, RANKED, ServiceEntries, ServiceStates};

use super::aged::Aged;
use super::crowd::Reported;
use super::message::{Entries, LINGERS, StateChanges};
use super::novices::Novices;
use super::text;
use super::window::{AHEAD, BUCKET_NS, Beside, Windows};

const SECOND: u64 = 1_000_000_000 / BUCKET_NS;
/// How long what a client began counts for it, s.
const LONGEST: u32 = LINGERS[LINGERS.len() - 1];

/// Entries that stay for a time, told apart by when they leave: to a `SLOTS - 1`th part of the longest time.
#[derive(Debug)]
struct Lingering<const SLOTS: usize> {
    /// How many leave, by the slot at whose beginning they do.
    leaving: [u32; SLOTS],
    sum: i64,
    /// The slot that has begun.
    begun: u64,
}

/// To a second for all traffic; to five for each of many.
const EXACT: usize = LONGEST as usize + 1;
const COARSE: usize = LONGEST as usize / 5 + 1;

impl<const SLOTS: usize> Default for Lingering<SLOTS> {
    fn default() -> Self {
        Lingering { leaving: [0; SLOTS], sum: 0, begun: 0 }
    }
}

impl<const SLOTS: usize> Lingering<SLOTS> {
    /// Of a slot, in buckets.
    const LENGTH: u64 = LONGEST as u64 * SECOND / (SLOTS as u64 - 1);

    /// `seconds`: at most [`LONGEST`], from `since`, which is not after `now`.
    fn add(&mut self, entries: u32, seconds: u32, since: u64, now: u64) {
        self.pass(now);
        let until = (since + u64::from(seconds) * SECOND).div_ceil(Self::LENGTH);
        if entries > 0 && until > self.begun {
            let slot = &mut self.leaving[(until % SLOTS as u64) as usize];
            *slot = slot.saturating_add(entries);
            self.sum += i64::from(entries);
        }
    }

    fn entries(&mut self, now: u64) -> i64 {
        self.pass(now);
        self.sum
    }

    fn pass(&mut self, now: u64) {
        let begun = now / Self::LENGTH;
        let passed = begun.saturating_sub(self.begun).min(SLOTS as u64);
        for slot in begun + 1 - passed..=begun {
            self.sum -= i64::from(std::mem::take(&mut self.leaving[(slot % SLOTS as u64) as usize]));
        }
        self.begun = begun.max(self.begun);
    }
}

/// Entries of somebody: of flows alive, and of ended ones until their time is over.
#[derive(Debug, Default)]
struct Gauge<const SLOTS: usize> {
    alive: i64,
    lingering: Lingering<SLOTS>,
}

impl<const SLOTS: usize> Gauge<SLOTS> {
    fn change(&mut self, entries: &Entries, now: u64) {
        self.alive += i64::from(entries.made);
        for (seconds, left) in LINGERS.into_iter().zip(entries.left).filter(|(_, left)| *left > 0) {
            self.alive -= i64::from(left);
            if seconds > 0 {
                self.lingering.add(left, seconds, now, now);
            }
        }
    }

    fn entries(&mut self, now: u64) -> u32 {
        clamped(self.alive + self.lingering.entries(now))
    }
}

fn clamped(entries: i64) -> u32 {
    u32::try_from(entries.max(0)).unwrap_or(u32::MAX)
}

/// One service's gauges; they are kept beside its windows.
#[derive(Debug, Default)]
pub struct Service {
    standing: [i32; 5],
    entries: Gauge<COARSE>,
}

impl Beside for Service {
    type News = StateChanges;

    /// What became of connections to it.
    fn hear(&mut self, changes: &StateChanges, now: u64) {
        if *changes == StateChanges::default() {
            return;
        }
        self.entries.change(&changes.entries, now);
        let sums = self.standing.iter_mut().zip(changes.standing);
        sums.for_each(|(sum, change)| *sum = sum.saturating_add(change));
    }

    fn is_over(&mut self, now: u64) -> bool {
        self.standing.iter().skip(1).all(|sum| *sum <= 0) && self.entries.entries(now) == 0
    }
}

type ServiceKey = (IpAddr, u16, u8);
pub type Services = Windows<ServiceKey, Service>;

/// What the gauges show, for metrics.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Entries of all traffic in the table of a stateful device in the path; and the most there were.
    pub entries: u32,
    pub peak: u32,
    /// The services with most entries, most first.
    pub services: Vec<ServiceStanding>,
    /// The clients with most entries, and how many.
    pub clients: Vec<(IpAddr, u32)>,
}

/// How the connections to a service stand.
#[derive(Clone, Debug)]
pub struct ServiceStanding {
    pub addr: IpAddr,
    pub port: u16,
    pub proto: String,
    pub states: ServiceStates,
}

/// Entries of all traffic from which on it is worth the while to rank who holds them.
const RANKED_FROM: u32 = 1000;
/// How often they are ranked, in buckets.
const RANKED_EVERY: u64 = 5 * SECOND;

#[derive(Debug)]
pub struct Gauges {
    /// Who holds many entries opens and closes without pause: each connection counts for the time an entry stays
    /// after a close, whatever became of it.
    clients: Aged<IpAddr, Lingering<COARSE>>,
    /// Clients that hold one.
    novices: Novices<()>,
    all: Gauge<EXACT>,
    /// The client that holds most, when last told of or looked at; nobody has come to hold more since.
    most: Option<(IpAddr, u32)>,
    /// `most`, once a second.
    top: Option<(IpAddr, u32)>,
    /// When it was last looked for.
    looked: u64,
    /// Those that hold most, and the services most are held for; none while all hold few.
    top_clients: Vec<(u32, IpAddr)>,
    top_services: Vec<(u32, ServiceKey)>,
    /// When those were last looked for.
    ranked: u64,
    /// Most entries of all traffic at once.
    pub peak: u32,
}

impl Gauges {
    pub fn new(clients: usize) -> Gauges {
        Gauges {
            clients: Aged::new(clients),
            novices: Novices::new(4 * clients, u64::from(LONGEST) * SECOND),
            all: Gauge::default(),
            most: None,
            top_clients: Vec::new(),
            top_services: Vec::new(),
            top: None,
            looked: 0,
            ranked: 0,
            peak: 0,
        }
    }

    pub fn evicted(&self) -> u64 {
        self.clients.evicted + self.novices.evicted
    }

    /// What became of connections to a service.
    pub fn change(&mut self, entries: &Entries, now: u64) {
        if *entries != Entries::default() {
            self.all.change(entries, now);
        }
    }

    /// Takes in what clients began.
    pub fn clients(&mut self, reported: &[Reported], now: u64) {
        for (n, (client, _, dealing)) in reported.iter().enumerate() {
            if let Some((client, ..)) = reported.get(n + AHEAD) {
                self.novices.prefetch(client);
            }
            self.client(*client, dealing.begun, now);
        }
    }

    /// A client began connections.
    fn client(&mut self, client: IpAddr, begun: u32, now: u64) {
        if begun == 0 {
            return;
        }
        let at = match self.clients.find(&client, now) {
            Some(at) => at,
            None => {
                let alone = begun == 1;
                let met = self.novices.again(&client, now, alone.then_some(()));
                if met.is_none() && alone {
                    return;
                }
                let at = self.clients.place(client, now);
                if let Some((before, ())) = met {
                    self.clients.at(at).2.add(1, LONGEST, before, now);
                }
                at
            }
        };
        let (_, _, own) = self.clients.at(at);
        own.add(begun, LONGEST, now, now);
        self.most = more(self.most, (client, clamped(own.entries(now))));
    }

    /// Once a tick, after its reports.
    pub fn tick(&mut self, now: u64, services: &mut Services) {
        self.peak = self.peak.max(self.all.entries(now));
        if now >= self.looked + SECOND || self.most.is_none() {
            self.looked = now;
            if let Some(before) = now.checked_sub(u64::from(LONGEST) * SECOND) {
                self.clients.expire(before);
            }
            self.look(now);
            self.top = self.most;
        }
        if now >= self.ranked + RANKED_EVERY || self.top_services.is_empty() && !self.few(now) {
            self.ranked = now;
            self.rank(now, services);
        }
    }

    fn few(&mut self, now: u64) -> bool {
        self.all.entries(now) < RANKED_FROM
    }

    fn rank(&mut self, now: u64, services: &mut Services) {
        (self.top_clients, self.top_services) = if self.few(now) {
            (Vec::new(), Vec::new())
        } else {
            (self.most_clients(RANKED, now), most_services(RANKED, now, services))
        };
    }

    fn most_clients(&mut self, number: usize, now: u64) -> Vec<(u32, IpAddr)> {
        let all = self.all.entries(now);
        let holders = self.clients.values_mut();
        let mut most = most(number, holders.map(|(client, gauge)| (clamped(gauge.entries(now)), *client)));
        most.iter_mut().for_each(|(entries, _)| *entries = (*entries).min(all));
        most
    }

    /// Nobody holds more than there are: a client's number knows of no entry that left early (see `clients`), and
    /// what is held for a service leaves a little later than by the exact sum.
    fn at_most_all(&mut self, entries: u32, now: u64) -> u32 {
        entries.min(self.all.entries(now))
    }

    /// Puts what is known of all traffic's entries into its facts.
    pub fn fill(&mut self, link: &mut LinkFacts, now: u64) {
        let all = self.all.entries(now);
        link.state_entries = all;
        for (place, (entries, client)) in link.clients.iter_mut().zip(&self.top_clients) {
            *place = Some((*client, all.min(*entries)));
        }
        for (place, (entries, (addr, port, proto))) in link.services.iter_mut().zip(&self.top_services) {
            let entries = all.min(*entries);
            *place = Some(ServiceEntries { addr: *addr, port: *port, proto: *proto, entries });
        }
    }

    /// How things stand, with at most `number` services and clients, those with most entries first.
    pub fn standing(&mut self, number: usize, now: u64, services: &mut Services) -> Standing {
        let mut most = Vec::with_capacity(number);
        for (_, key) in most_services(number, now, services) {
            let last_60s = services.sums(&key).map(|[_, _, last_60s]| last_60s).unwrap_or_default();
            let Some(service) = services.beside(&key) else { continue };
            let (addr, port, proto) = key;
            let states = self.facts(service, &last_60s, now);
            most.push(ServiceStanding { addr, port, proto: text::protocol(proto), states });
        }
        Standing {
            services: most,
            clients: self
                .most_clients(number, now)
                .into_iter()
                .map(|(entries, who)| (who, entries))
                .collect(),
            entries: self.all.entries(now),
            peak: self.peak,
        }
    }

    /// Who has most, if it is not the one who had: only somebody told of can have come to hold more, and that was
    /// seen when it was told.
    fn look(&mut self, now: u64) {
        let Some((client, entries)) = self.most else { return };
        if self.clients.peek_mut(&client).is_some_and(|own| clamped(own.entries(now)) == entries) {
            return;
        }
        self.most = None;
        for (client, own) in self.clients.values_mut() {
            // It holds no more than when it was last asked.
            if own.sum >= self.most.map_or(1, |(_, most)| i64::from(most)) {
                self.most = more(self.most, (*client, clamped(own.entries(now))));
            }
        }
    }

    /// No client holds as many entries as this.
    pub fn all_below(&self, entries: u32) -> bool {
        self.most.is_none_or(|(_, most)| most < entries)
    }

    pub fn of_client(&mut self, client: &IpAddr, now: u64) -> u32 {
        let held = self.clients.peek_mut(client).map_or(0, |own| clamped(own.entries(now)));
        self.at_most_all(held, now)
    }

    /// `last_60s`: of the same service.
    pub fn facts(&mut self, service: &mut Service, last_60s: &Counts, now: u64) -> ServiceStates {
        let [_, syn_recv, established, close_wait, fin_wait2] =
            service.standing.map(|sum| sum.max(0).unsigned_abs());
        let all = self.all.entries(now);
        ServiceStates {
            syn_recv,
            established,
            close_wait,
            fin_wait2,
            time_wait: last_60s.closed,
            entries: service.entries.entries(now).min(all),
            entries_total: all,
            top_client: self.top.map(|(client, _)| client),
            top_client_entries: self.top.map_or(0, |(_, entries)| entries.min(all)),
        }
    }
}

/// The one of two that holds more; of equals, the one whose address comes first.
fn more(most: Option<(IpAddr, u32)>, (client, entries): (IpAddr, u32)) -> Option<(IpAddr, u32)> {
    match most {
        Some((best, held)) if held > entries || held == entries && best <= client => most,
        _ if entries == 0 => most,
        _ => Some((client, entries)),
    }
}

fn most_services(number: usize, now: u64, services: &mut Services) -> Vec<(u32, ServiceKey)> {
    most(number, services.beside_all().map(|(key, service)| (service.entries.entries(now), *key)))
}

/// The holders of most entries, most first; of equals the least address.
fn most<K: Ord>(number: usize, holders: impl Iterator<Item = (u32, K)>) -> Vec<(u32, K)> {
    let mut most: Vec<(u32, K)> = Vec::with_capacity(number + 1);
    for holder in holders.filter(|(entries, _)| *entries > 0) {
        let at =
            most.partition_point(|(entries, key)| (Reverse(*entries), key) < (Reverse(holder.0), &holder.1));
        if at < number {
            most.truncate(number - 1);
            most.insert(at, holder);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const KEY: ServiceKey = (IpAddr::V4(Ipv4Addr::LOCALHOST), 80, 6);

    fn changes(made: u32, left: [u32; 4]) -> StateChanges {
        StateChanges { standing: [0; 5], entries: Entries { made, left } }
    }

    #[test]
    fn entries_stay_after_their_flows_for_as_long_as_a_device_keeps_them() {
        let (mut gauges, mut services) = (Gauges::new(10), Services::new(10));
        let mut change = |gauges: &mut Gauges, made, left, now| {
            let changes = changes(made, left);
            services.report(KEY, None, changes, now);
            services.take_in(now);
            gauges.change(&changes.entries, now);
            gauges.tick(now, &mut services);
            let facts = gauges.facts(services.beside(&KEY).unwrap(), &Counts::default(), now);
            (facts.entries, facts.entries_total)
        };
        change(&mut gauges, 10, [0; 4], 1000);
        change(&mut gauges, 0, [1, 1, 2, 3], 1001);
        assert_eq!(change(&mut gauges, 0, [0; 4], 1002), (9, 9));
        // All traffic to a second, a service to five, and no service has more than there are.
        assert_eq!(change(&mut gauges, 0, [0; 4], 1001 + 109), (8, 8));
        assert_eq!(change(&mut gauges, 0, [0; 4], 1001 + 149), (8, 8));
        assert_eq!(change(&mut gauges, 0, [0; 4], 1001 + 499), (6, 6));
        assert_eq!(change(&mut gauges, 0, [0; 4], 1001 + 1249), (3, 3));
        assert_eq!(change(&mut gauges, 0, [3, 0, 0, 0], 3000).0, 0);
        assert_eq!(gauges.peak, 10);
    }

    #[test]
    fn the_client_with_most_entries_is_named() {
        let mut gauges = Gauges::new(10);
        for n in 1..=3 {
            let client = Ipv4Addr::new(10, 0, 0, n).into();
            gauges.client(client, u32::from(n % 3) + 1, 50);
        }
        gauges.change(&changes(5, [0; 4]).entries, 55);
        gauges.tick(60, &mut Services::new(1));
        let facts = gauges.facts(&mut Service::default(), &Counts::default(), 60);
        let busiest = Ipv4Addr::new(10, 0, 0, 2).into();
        assert_eq!((facts.top_client, facts.top_client_entries), (Some(busiest), 3));
        // Its connections are reset, and their entries are gone after 10 s: nobody holds more than there are.
        gauges.change(&changes(0, [0, 4, 0, 0]).entries, 61);
        for now in [170, 171] {
            gauges.tick(now, &mut Services::new(1));
            let facts = gauges.facts(&mut Service::default(), &Counts::default(), now);
            assert_eq!((facts.entries_total, facts.top_client_entries), (1, 1), "{now}");
            assert_eq!(
                (gauges.of_client(&busiest, now), gauges.most_clients(1, now)),
                (1, vec![(1, busiest)])
            );
        }
    }

    #[test]
    fn who_holds_most_is_whoever_a_look_at_all_would_find() {
        let (mut gauges, mut services) = (Gauges::new(1000), Services::new(1));
        let mut seed = 1_u64;
        for now in 1000..6000_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 62 > 0 {
                let client = Ipv4Addr::from_bits(0x0a00_0000 + (seed >> 33) as u32 % 40);
                gauges.client(client.into(), (seed >> 50) as u32 % 9, now);
            }
            gauges.tick(now, &mut services);
            if gauges.looked == now {
                let all =
                    gauges.clients.values_mut().map(|(client, own)| (*client, clamped(own.entries(now))));
                assert_eq!(gauges.most, all.fold(None, more));
            }
        }
    }
}
