//! One path, two taps: makes of what one tap saw what a tap on either side of a middle would have seen, the
//! middle losing, changing and forging as told; and what is true of that.
//!
//! Runs on the caller's thread; one seed gives the same bytes. The original tap is the client's. Frames go to
//! write.rs or to a test.

mod frame;
mod middle;

use std::collections::{BTreeMap, BTreeSet};

pub use frame::Around;
use frame::Layout;
pub use middle::{Middle, On};

use crate::packet::{ACK, RST, SYN};
use crate::rng::Rng;
use crate::scenario::trouble::MIDDLEBOX_TTL;
use crate::scenario::{Packet, START};

/// Path and taps.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    pub seed: u64,
    /// From tap to tap, ns, and at most so much more; less for a flow whose server answered sooner than this takes.
    pub delay: u64,
    pub jitter: u64,
    /// Routers between the taps.
    pub hops: u8,
    /// The client tap's clock less the server tap's, ns, at the start.
    pub offset: i64,
    /// How much faster the client tap's clock runs.
    pub drift_ppm: f64,
    /// What the server tap's frames have around them.
    pub around: Around,
    pub middle: Middle,
}

impl Default for Path {
    fn default() -> Self {
        Path {
            seed: 1,
            delay: 2_000_000,
            jitter: 200_000,
            hops: 3,
            offset: 0,
            drift_ppm: 0.0,
            around: Around::Nothing,
            middle: Middle::default(),
        }
    }
}

/// Something the middle did: to which flow (client first), how often.
pub type Done = BTreeMap<(&'static str, String), u64>;

/// What both taps saw.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    pub client: Vec<Packet>,
    pub server: Vec<Packet>,
    /// Packets by kind and flow.
    pub done: Done,
}

/// One end of a flow: address and port.
type End = (Vec<u8>, u16);

/// Who began the flows of a capture.
struct Clients {
    /// Ends that sent a SYN, and to whom.
    began: BTreeSet<(End, End)>,
    /// Hosts that did.
    hosts: BTreeSet<Vec<u8>>,
}

impl Clients {
    fn of(packets: &[Packet]) -> Clients {
        let mut clients = Clients { began: BTreeSet::new(), hosts: BTreeSet::new() };
        for packet in packets {
            let Some(layout) = Layout::of(&packet.bytes) else { continue };
            if layout.flags(&packet.bytes) & (SYN | ACK) == SYN {
                let (src, dst) = ends(&layout, &packet.bytes);
                clients.hosts.insert(src.0.clone());
                clients.began.insert((src, dst));
            }
        }
        clients
    }

    /// Whether the first of these is the client.
    fn is_client(&self, src: &End, dst: &End) -> bool {
        let pair = (src.clone(), dst.clone());
        if self.began.contains(&pair) {
            return true;
        }
        let pair = (pair.1, pair.0);
        if self.began.contains(&pair) {
            return false;
        }
        match (self.hosts.contains(&src.0), self.hosts.contains(&dst.0)) {
            (true, false) => true,
            (false, true) => false,
            // Services have the lower ports; without ports, the lower address is a client's.
            _ if src.1 == dst.1 => src.0 < dst.0,
            _ => src.1 > dst.1,
        }
    }

    /// Client and server of a frame, as text; and whether the client sent it.
    fn flow(&self, layout: &Layout, frame: &[u8]) -> (String, bool) {
        let (src, dst) = ends(layout, frame);
        let from_client = self.is_client(&src, &dst);
        let text = |(address, port): &End| {
            let address: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{address}.{port}")
        };
        let (src, dst) = (text(&src), text(&dst));
        (if from_client { format!("{src} {dst}") } else { format!("{dst} {src}") }, from_client)
    }
}

/// Sender and receiver of a frame.
fn ends(layout: &Layout, frame: &[u8]) -> (End, End) {
    let (src, dst) = layout.addresses(frame);
    let (sport, dport) = layout.ports(frame);
    ((src.to_vec(), sport), (dst.to_vec(), dport))
}

/// Splits a capture.
pub fn split(packets: &[Packet], path: &Path) -> Taps {
    let mut rng = Rng::new(path.seed);
    let mut taps = Taps::default();
    let clients = Clients::of(packets);
    let forgotten = forgotten(packets, &clients);
    let soonest = soonest_answers(packets, &clients);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut turn = 0;
    for packet in packets {
        let Some(layout) = Layout::of(&packet.bytes) else {
            taps.client.push(Packet { ts: path.client_clock(packet.ts), bytes: packet.bytes.clone() });
            continue;
        };
        let (name, from_client) = clients.flow(&layout, &packet.bytes);
        let way = path.delay + if path.jitter > 0 { rng.below(path.jitter) } else { 0 };
        let way = way.min(soonest.get(&name).map_or(way, |gap| gap / 3));
        let there = if from_client { packet.ts + way } else { packet.ts - way };
        let forged = layout.flags(&packet.bytes) & RST != 0 && layout.ttl(&packet.bytes) == MIDDLEBOX_TTL;
        let swallowed = from_client && forgotten.get(&name).is_some_and(|from| packet.ts > *from);
        let seen = Packet { ts: path.client_clock(packet.ts), bytes: packet.bytes.clone() };
        if forged || swallowed {
            let kind = if forged { "rst_one_side_only" } else { "packet_lost_between" };
            *taps.done.entry((kind, name)).or_default() += 1;
            taps.client.push(seen);
            continue;
        }
        let silent = packet.ts - last.insert(name.clone(), packet.ts).unwrap_or(0);
        if let Some(earlier) = path.middle.lost_before(&layout, &packet.bytes, silent, &mut turn) {
            let mut bytes = packet.bytes.clone();
            layout.set_ip_id(&mut bytes, layout.ip_id(&packet.bytes).wrapping_sub(1));
            layout.finish(&mut bytes);
            *taps.done.entry(("packet_lost_between", name.clone())).or_default() += 1;
            if from_client {
                taps.client.push(Packet { ts: path.client_clock(packet.ts - earlier), bytes });
            } else {
                layout.set_ttl(&mut bytes, layout.ttl(&packet.bytes).wrapping_add(path.hops));
                layout.finish(&mut bytes);
                taps.server.push(Packet { ts: there - earlier, bytes: path.around.wrap(bytes) });
            }
        }
        let mut ends = [packet.bytes.clone(), packet.bytes.clone()];
        path.middle.change(&layout, &mut ends, from_client, |kind| {
            *taps.done.entry((kind, name.clone())).or_default() += 1;
        });
        let [mut here, mut bytes] = ends;
        let ttl = layout.ttl(&bytes);
        // What comes from the server's side with 255 was sent with 255.
        let at_server = if from_client { ttl.wrapping_sub(path.hops) } else { ttl.saturating_add(path.hops) };
        layout.set_ttl(&mut bytes, at_server);
        layout.finish(&mut bytes);
        if !from_client && at_server - ttl != path.hops {
            layout.set_ttl(&mut here, at_server.saturating_sub(path.hops));
            layout.finish(&mut here);
        }
        taps.client.push(Packet { bytes: here, ..seen });
        taps.server.push(Packet { ts: there, bytes: path.around.wrap(bytes) });
    }
    taps.client.sort_by_key(|packet| packet.ts);
    taps.server.sort_by_key(|packet| packet.ts);
    taps
}

/// Flows that the middle forgot and answers itself, and the time of the last packet it let through.
fn forgotten(packets: &[Packet], clients: &Clients) -> BTreeMap<String, u64> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut forgotten = BTreeMap::new();
    for packet in packets {
        let Some(layout) = Layout::of(&packet.bytes) else { continue };
        let (name, from_client) = clients.flow(&layout, &packet.bytes);
        if layout.flags(&packet.bytes) & RST != 0 && layout.ttl(&packet.bytes) == MIDDLEBOX_TTL {
            forgotten.insert(name.clone(), last.get(&name).copied().unwrap_or(0));
        } else if !from_client || layout.payload(&packet.bytes).is_empty() {
            last.insert(name, packet.ts);
        }
    }
    forgotten
}

/// How soon each flow's server answered, ns: the other tap must not see an answer before its question.
fn soonest_answers(packets: &[Packet], clients: &Clients) -> BTreeMap<String, u64> {
    let mut asked: BTreeMap<String, u64> = BTreeMap::new();
    let mut soonest: BTreeMap<String, u64> = BTreeMap::new();
    for packet in packets {
        let Some(layout) = Layout::of(&packet.bytes) else { continue };
        let (name, from_client) = clients.flow(&layout, &packet.bytes);
        if from_client {
            asked.insert(name, packet.ts);
        } else if let Some(ts) = asked.get(&name) {
            let gap = packet.ts - ts;
            soonest.entry(name).and_modify(|least| *least = gap.min(*least)).or_insert(gap);
        }
    }
    soonest
}

impl Path {
    /// A true time by the client tap's clock.
    fn client_clock(&self, ts: u64) -> u64 {
        let gained = ts.saturating_sub(START) as f64 * self.drift_ppm / 1e6;
        ts.wrapping_add_signed(self.offset + gained as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use crate::scenario::{self, Options};

    #[test]
    fn frames_stay_whole_through_every_middle() {
        let middle = Middle {
            lose_one_in: Some(3),
            mss: Some(1300),
            strip_wscale: On::Both,
            strip_sack: On::Both,
            shift: Some(77),
            bleach_ecn: true,
            ecn: true,
            ..Middle::default()
        };
        for v6 in [false, true] {
            let (packets, _) = scenario::packets("healthy", &Options { v6, ..Options::default() }).unwrap();
            let path = Path { middle: middle.clone(), around: Around::Vlan(7), ..Path::default() };
            let taps = split(&packets, &path);
            assert!(taps.done.len() > 100 && taps.client.len() > packets.len());
            for packet in taps.client.iter().chain(&taps.server) {
                match check::read(&packet.bytes) {
                    Ok(_) => {}
                    Err(error) => assert!(error.starts_with("not IP"), "{error}"),
                }
            }
            let vlans = taps.server.iter().filter_map(|packet| check::read(&packet.bytes).ok());
            assert!(vlans.map(|seen| seen.vlan).all(|vlan| vlan == [7, 0]));
        }
    }

    #[test]
    fn an_idle_middlebox_answers_on_the_client_side_only() {
        let options = Options { idle_s: Some(20.0), ..Options::default() };
        let (packets, truth) = scenario::packets("rst_after_idle", &options).unwrap();
        let taps = split(&packets, &Path::default());
        let of = |kind| taps.done.keys().filter(|(done, _)| *done == kind).count();
        let dead = truth.of_kind("rst_after_idle").count();
        assert_eq!((of("rst_one_side_only"), of("packet_lost_between")), (dead, dead));
    }

    #[test]
    fn every_scenario_passes_two_taps() {
        let middle = Middle {
            shift: Some(5),
            ecn: true,
            mark_ce: true,
            alter: true,
            strip_timestamps: On::Both,
            dscp: Some(46),
            ..Middle::default()
        };
        for name in scenario::NAMES {
            for v6 in [false, true] {
                let options = Options { v6, idle_s: Some(2.0), ..Options::default() };
                let Some((packets, _)) = scenario::packets(name, &options) else { continue };
                let around = Around::Tunnel(crate::encap::Encap::Gre);
                let taps = split(&packets, &Path { middle: middle.clone(), around, ..Path::default() });
                assert!(!taps.client.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn fragments_keep_their_bytes() {
        let (packets, _) = scenario::packets("fragments", &Options::default()).unwrap();
        let taps = split(&packets, &Path { hops: 0, ..Path::default() });
        let sorted = |packets: &[Packet]| {
            let mut all: Vec<Vec<u8>> = packets.iter().map(|packet| packet.bytes.clone()).collect();
            all.sort();
            all
        };
        let ip = |packets: &[Packet]| -> Vec<Packet> {
            packets.iter().filter(|packet| Layout::of(&packet.bytes).is_some()).cloned().collect()
        };
        assert_eq!(sorted(&ip(&taps.client)), sorted(&taps.server));
    }
}
