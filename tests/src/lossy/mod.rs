//! Connections of well-behaved ends over a path that loses, delays, reorders and doubles packets on both sides of the
//! tap, and a tap that misses some and writes some down late: whatever is seen of them, nobody forged or altered
//! anything. Everything comes from the seed. `end` is the TCP; here are path, tap and frames, for tests only.

pub mod end;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};

use end::{End, MS, Segment};
use wiregen::packet::{self, ACK, Ethernet, Ip, RST, SYN, TcpHeader, TcpOptions};
use wiregen::rng::Rng;
use wiregen::scenario::{Packet, START};

const SERVER_PORT: u16 = 50_123;
/// Port of the first conversation's client; each has its own.
pub const FIRST_PORT: u16 = 30_000;
/// After this much time the capture ends.
const LONGEST: u64 = 120_000 * MS;
const MOST_PACKETS: usize = 3000;

/// What is true of a conversation as it was captured.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub port: u16,
    /// Both ends offer it.
    pub sack: bool,
    /// Segments with SACK blocks of either end, once the other was heard; doubles apart.
    pub sacks: [u64; 2],
    pub resets: u64,
    pub closed_windows: u64,
}

/// One of four stretches: from an end to the tap, and from there to the other.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    delay: u64,
    jitter: u64,
    /// In 1,000.
    lost: u64,
    doubled: u64,
    late: u64,
}

impl Stretch {
    fn new(rng: &mut Rng) -> Stretch {
        let delay = rng.log_uniform(20_000.0, 60e6) as u64;
        let mut often = |rates: [u64; 4]| rates[rng.below(4) as usize];
        let (lost, doubled, late) = (often([0, 0, 20, 100]), often([0, 0, 0, 30]), often([0, 0, 10, 50]));
        Stretch { delay, jitter: if rng.percent(30) { delay / 2 } else { 0 }, lost, doubled, late }
    }

    /// When what enters at `now` comes out: not at all, once or more often.
    fn pass(&self, now: u64, rng: &mut Rng) -> Vec<u64> {
        let times = if rng.below(1000) < self.doubled { 2 } else { 1 };
        let mut out = Vec::new();
        for _ in 0..times {
            if rng.below(1000) >= self.lost {
                let late = if rng.below(1000) < self.late { rng.below(20 * self.delay + MS) } else { 0 };
                out.push(now + self.delay + rng.below(self.jitter + 1) + late);
            }
        }
        out
    }
}

/// What the tap does to what passes it.
#[derive(Clone, Copy, Debug)]
struct Tap {
    /// In 1,000.
    missed: u64,
    /// How much later than it passed a packet is written down, at most.
    lag: u64,
    /// Packets before that have passed unseen.
    begins: u64,
    /// SACK blocks on their way here were left behind when sequence numbers were moved on by this much.
    shift: u32,
}

struct Path<'a> {
    rng: &'a mut Rng,
    /// By sender: to the tap and from it.
    stretches: [[Stretch; 2]; 2],
    tap: Tap,
    flying: BinaryHeap<Reverse<(u64, u64, usize, bool)>>,
    segments: Vec<Segment>,
    serial: u64,
    captured: Vec<(u64, usize, Segment)>,
}

impl Path<'_> {
    fn send(&mut self, from: usize, segment: Segment, now: u64) {
        let at = self.segments.len();
        self.segments.push(segment);
        for time in self.stretches[from][0].pass(now, self.rng) {
            self.fly(time, at, from, true);
        }
    }

    fn fly(&mut self, time: u64, at: usize, from: usize, to_tap: bool) {
        self.serial += 1;
        self.flying.push(Reverse((time, (self.serial << 32) | at as u64, from, to_tap)));
    }

    fn next(&self) -> u64 {
        self.flying.peek().map_or(u64::MAX, |next| next.0.0)
    }

    /// What arrives next: whose it is and what.
    fn arrive(&mut self) -> Option<(usize, Segment)> {
        let Reverse((now, serial, from, to_tap)) = self.flying.pop()?;
        let at = serial as u32 as usize;
        let segment = self.segments[at].clone();
        if !to_tap {
            return Some((from, segment));
        }
        if now >= self.tap.begins && self.rng.below(1000) >= self.tap.missed {
            self.captured.push((now + self.rng.below(self.tap.lag + 1), from, segment));
        }
        for time in self.stretches[from][1].pass(now, self.rng) {
            self.fly(time, at, from, false);
        }
        None
    }
}

/// Conversations on ports of their own. `garbled`: the SACK blocks of all were left behind by a device that moved
/// sequence numbers on.
pub fn conversations(seed: u64, count: u16, garbled: bool) -> (Vec<Packet>, Vec<Truth>) {
    let mut rng = Rng::new(seed);
    let (mut packets, mut truths) = (Vec::new(), Vec::new());
    for n in 0..count {
        let mut rng = Rng::stream(rng.next_u64(), u64::from(n));
        let (new, truth) = conversation(&mut rng, FIRST_PORT + n, garbled);
        packets.extend(new);
        truths.push(truth);
    }
    packets.sort_by_key(|packet| packet.ts);
    (packets, truths)
}

fn conversation(rng: &mut Rng, port: u16, garbled: bool) -> (Vec<Packet>, Truth) {
    let start = START + rng.below(3000) * MS;
    let [a, b, c, d] = [(); 4].map(|()| Stretch::new(rng));
    let round_trip = a.delay + b.delay + c.delay + d.delay;
    // Some are impatient, and send again what has arrived.
    let timeout = if rng.percent(30) { round_trip / 2 } else { 200 * MS + 2 * round_trip };
    let mut ends = [true, false].map(|client| {
        let seed = rng.next_u64();
        End::new(client, Rng::new(seed), start, timeout.max(MS))
    });
    let sack = garbled || rng.percent(90);
    ends.iter_mut().for_each(|end| end.sack = sack);
    let tap = Tap {
        missed: if garbled { 0 } else { [0, 0, 20, 200][rng.below(4) as usize] },
        lag: [0, 0, MS / 2][rng.below(3) as usize],
        begins: if !garbled && rng.percent(30) { start + rng.below(10 * round_trip) } else { 0 },
        shift: if garbled { rng.range(1 << 25, (1 << 32) - (1 << 25)) as u32 } else { 0 },
    };
    let (flying, segments, captured) = (BinaryHeap::new(), Vec::new(), Vec::new());
    let stretches = [[a, b], [c, d]];
    let mut path = Path { rng, stretches, tap, flying, segments, serial: 0, captured };
    run(&mut ends, &mut path, start);
    path.captured.sort_by_key(|captured| captured.0);
    path.captured.truncate(MOST_PACKETS);
    let truth = Truth { port, sack, ..truth(&path.captured) };
    let ttls = [path.rng.range(40, 65) as u8, path.rng.range(100, 129) as u8];
    let frame = |(ts, from, segment): &(u64, usize, Segment)| Packet {
        ts: *ts,
        bytes: frame(&ends, *from, segment, port, ttls[*from], tap.shift),
    };
    (path.captured.iter().map(frame).collect(), truth)
}

fn run(ends: &mut [End; 2], path: &mut Path<'_>, start: u64) {
    let mut now = start;
    ends[0].open(now);
    while now < start + LONGEST && path.captured.len() < MOST_PACKETS {
        for (from, end) in ends.iter_mut().enumerate() {
            for segment in std::mem::take(&mut end.out) {
                path.send(from, segment, now);
            }
        }
        let due = [ends[0].deadline(), ends[1].deadline(), path.next()];
        let next = due.into_iter().min().unwrap_or(u64::MAX);
        if next == u64::MAX {
            break;
        }
        now = now.max(next);
        if next < due[2] {
            ends[usize::from(due[1] < due[0])].tick(now);
        } else if let Some((from, segment)) = path.arrive() {
            ends[from ^ 1].receive(&segment, now);
        }
    }
}

fn truth(captured: &[(u64, usize, Segment)]) -> Truth {
    let mut truth = Truth::default();
    let (mut seen, mut known) = ([false; 2], BTreeSet::new());
    for (_, from, segment) in captured {
        let first = known.insert((*from, segment.id));
        truth.sacks[*from] += u64::from(!segment.sack.is_empty() && seen[from ^ 1] && first);
        truth.resets += u64::from(segment.flags & RST != 0);
        truth.closed_windows += u64::from(segment.window == 0);
        seen[*from] |= segment.flags & RST == 0;
    }
    truth
}

fn frame(ends: &[End; 2], from: usize, segment: &Segment, port: u16, ttl: u8, shift: u32) -> Vec<u8> {
    let (own, other) = (&ends[from], &ends[from ^ 1]);
    let hosts =
        [Ipv4Addr::new(10, 3, (port >> 8) as u8, port as u8), Ipv4Addr::new(10, 4, 0, 1)].map(IpAddr::V4);
    let ports = [port, SERVER_PORT];
    let mut options = TcpOptions::default();
    if segment.flags & SYN != 0 {
        options = options.mss(own.mss as u16).nop().window_scale(own.scale);
        options = if own.sack { options.sack_permitted() } else { options };
    }
    let mut blocks = Vec::new();
    for &(left, right) in &segment.sack {
        for edge in [left, right] {
            blocks.extend(other.isn.wrapping_add(edge as u32).wrapping_add(shift).to_be_bytes());
        }
    }
    let mut list = options.as_bytes().to_vec();
    if !blocks.is_empty() {
        list.extend([1, 1, 5, blocks.len() as u8 + 2]);
        list.extend(blocks);
    }
    let acknowledges = segment.flags & ACK != 0;
    let header = TcpHeader {
        sport: ports[from],
        dport: ports[from ^ 1],
        seq: own.isn.wrapping_add(segment.seq as u32),
        ack: if acknowledges { other.isn.wrapping_add(segment.ack as u32) } else { 0 },
        flags: segment.flags,
        window: segment.window,
        options: &list,
    };
    let ip = Ip { src: hosts[from], dst: hosts[from ^ 1], ttl, id: segment.id, dont_fragment: true };
    let mut bytes = Vec::new();
    let ethernet = Ethernet { src: [2; 6], dst: [4; 6], vlan: [0, 0] };
    packet::tcp(&mut bytes, &ethernet, &ip, &header, &vec![b'x'; segment.len as usize]);
    bytes
}
