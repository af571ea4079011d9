//! Conversations as no healthy network has them, for comparing the reading of sequence space with another
//! program's: segments whose numbers, sizes, windows and pauses come from few values, so that they meet often.
//! Everything comes from the seed; makes frames, and capture files that keep only the beginning of each.

use std::net::{IpAddr, Ipv4Addr};

use wiregen::packet::{ACK, Ethernet, FIN, Ip, PSH, RST, SYN, TcpHeader, TcpOptions, tcp};
use wiregen::rng::Rng;
use wiregen::scenario::Packet;

/// Port of the first conversation's client; each has its own.
pub const FIRST_PORT: u16 = 30_000;
const SERVER_PORT: u16 = 50_123;
const MICRO: u64 = 1000;
const MILLI: u64 = 1000 * MICRO;

/// Pauses before a segment, ns: about what the thresholds are, 3 and 20 ms, and the round trip.
const PAUSES: [u64; 12] = [
    0,
    MICRO,
    400 * MICRO,
    MILLI,
    3 * MILLI - 1,
    3 * MILLI,
    9 * MILLI,
    10 * MILLI,
    20 * MILLI - 1,
    20 * MILLI,
    90 * MILLI,
    400 * MILLI,
];

/// One end of a conversation.
#[derive(Clone, Copy, Debug)]
struct End {
    isn: u32,
    /// Sequence space sent, highest.
    sent: u32,
    window: u16,
    scale: Option<u8>,
}

/// A conversation as it is made.
struct Talk<'a> {
    rng: &'a mut Rng,
    out: Vec<Packet>,
    port: u16,
    now: u64,
    ends: [End; 2],
    /// Data comes in multiples of this.
    unit: u32,
    /// Percent of segments that are none of a connection's normal course.
    wild: u64,
}

/// `flows` conversations from one seed, one after the other.
pub fn flows(seed: u64, flows: u16) -> Vec<Packet> {
    conversations(seed, flows, &[0, 5, 30, 100])
}

/// The same without what no TCP would send: each has its handshake or is under way, and is one flow.
pub fn orderly(seed: u64, flows: u16) -> Vec<Packet> {
    conversations(seed, flows, &[0])
}

fn conversations(seed: u64, flows: u16, wild: &[u64]) -> Vec<Packet> {
    let mut rng = Rng::new(seed);
    let mut all = Vec::new();
    let mut start = 1_700_000_000 * 1000 * MILLI;
    for n in 0..flows {
        let packets = flow(&mut rng, FIRST_PORT + n, start, wild);
        start = packets.iter().map(|p| p.ts).max().unwrap_or(start) + MILLI;
        all.extend(packets);
    }
    all
}

fn flow(rng: &mut Rng, port: u16, start: u64, wild: &[u64]) -> Vec<Packet> {
    let end = |rng: &mut Rng| {
        let isn = if rng.percent(30) { u32::MAX - rng.below(900) as u32 } else { rng.next_u32() };
        let scale = rng.percent(60).then(|| rng.below(4) as u8);
        End { isn, sent: isn, window: window(rng), scale }
    };
    let ends = [end(rng), end(rng)];
    let unit = [1, 2, 10, 100, 1400][rng.below(5) as usize];
    let wild = wild[rng.below(wild.len() as u64) as usize];
    let mut talk = Talk { rng, out: Vec::new(), port, now: start, ends, unit, wild };
    if talk.rng.percent(75) {
        talk.handshake();
    } else {
        (0..2).for_each(|i| talk.ends[i].sent = talk.ends[i].sent.wrapping_add(1));
    }
    let segments = 4 + talk.rng.below(40);
    for _ in 0..segments {
        // A RST or both FINs end a flow 15 s later here, and never elsewhere.
        if talk.now > start + 12_000 * MILLI {
            break;
        }
        talk.step();
    }
    talk.out
}

fn window(rng: &mut Rng) -> u16 {
    [0, 1, 100, 200, 1400, 30_000][rng.below(6) as usize]
}

impl Talk<'_> {
    fn pause(&mut self) {
        self.now += PAUSES[self.rng.below(PAUSES.len() as u64) as usize];
        if self.rng.percent(1) {
            self.now -= MILLI;
        }
    }

    fn send(&mut self, from: usize, flags: u8, seq: u32, ack: u32, payload: u32) {
        self.pause();
        if seq.wrapping_add(payload) == u32::MAX {
            // Wireshark's "no window seen yet": a full window to it.
            return;
        }
        let own = self.ends[from];
        let mut options = TcpOptions::default();
        if flags & SYN != 0 && own.scale.is_some_and(|_| self.rng.percent(95)) {
            options = options.mss(1460).nop().window_scale(own.scale.unwrap_or(0)).sack_permitted();
        } else if self.rng.percent(20) {
            options = options.nop().nop().timestamps(7, 9);
        }
        let address = |end: usize| IpAddr::V4(Ipv4Addr::new(10, 7, 0, 1 + end as u8));
        let ports = [self.port, SERVER_PORT];
        let ack = if flags & ACK != 0 || self.wild > 0 && self.rng.percent(5) { ack } else { 0 };
        let header = TcpHeader {
            sport: ports[from],
            dport: ports[from ^ 1],
            seq,
            ack,
            flags,
            window: own.window,
            options: options.as_bytes(),
        };
        let ip = Ip { src: address(from), dst: address(from ^ 1), ttl: 64, id: 7, dont_fragment: true };
        let mut bytes = Vec::new();
        tcp(&mut bytes, &Ethernet::default(), &ip, &header, &vec![0x55; payload as usize]);
        self.out.push(Packet { ts: self.now, bytes });
        let space = payload + u32::from(flags & (SYN | FIN) != 0);
        let end = seq.wrapping_add(space);
        if flags & RST == 0 && (end.wrapping_sub(own.sent) as i32) > 0 {
            self.ends[from].sent = end;
        }
    }

    /// Each of its three parts may be missing, repeated or late.
    fn handshake(&mut self) {
        let (client, server) = (self.ends[0].isn, self.ends[1].isn);
        let (next, ack) = (client.wrapping_add(1), server.wrapping_add(1));
        let times = |rng: &mut Rng| if rng.percent(85) { 1 } else { rng.below(3) };
        let backwards = self.rng.percent(5);
        if backwards {
            self.send(1, SYN | ACK, server, next, 0);
        }
        for _ in 0..times(self.rng) {
            self.send(0, SYN, client, 0, 0);
        }
        if self.rng.percent(5) {
            self.send(1, RST | ACK, 0, next, 0);
            self.send(0, SYN, client, 0, 0);
        }
        for _ in 0..times(self.rng) {
            self.send(1, SYN | ACK, server, next, 0);
        }
        for _ in 0..times(self.rng) {
            self.send(0, ACK, next, ack, 0);
        }
        (0..2).for_each(|i| self.ends[i].sent = self.ends[i].isn.wrapping_add(1));
    }

    fn step(&mut self) {
        let from = self.rng.below(2) as usize;
        if self.rng.percent(self.wild) {
            self.anything(from);
        } else {
            self.usual(from);
        }
    }

    /// Data, repeats, gaps, acknowledgements, probes and window changes.
    fn usual(&mut self, from: usize) {
        let (own, other) = (self.ends[from], self.ends[from ^ 1]);
        let unit = self.unit;
        let (next, seen) = (own.sent, other.sent);
        match self.rng.below(14) {
            0..=3 => self.send(from, ACK | PSH, next, seen, unit),
            4 => self.send(from, ACK, next.wrapping_add(unit), seen, unit),
            5 => {
                let back = unit * (1 + self.rng.below(4) as u32);
                self.send(from, ACK, next.wrapping_sub(back), seen, unit);
            }
            6 | 7 => self.send(from, ACK, next, seen, 0),
            8 | 9 => {
                // Something is missing over here: the same acknowledgement several times, perhaps an answer to it.
                let missing = seen.wrapping_sub(unit * self.rng.below(4) as u32);
                for _ in 0..1 + self.rng.below(4) {
                    self.send(from, ACK, next, missing, 0);
                }
                if self.rng.percent(60) {
                    self.send(from ^ 1, ACK, missing, next, unit);
                }
            }
            10 => {
                self.ends[from].window = window(self.rng);
                self.send(from, ACK, next, seen, 0);
            }
            11 => {
                let payload = self.rng.below(2) as u32;
                self.send(from, ACK, next.wrapping_sub(1), seen, payload);
                if self.rng.percent(70) {
                    self.send(from ^ 1, ACK, seen, next, 0);
                }
            }
            12 => {
                self.ends[from ^ 1].window = 0;
                self.send(from ^ 1, ACK, seen, next, 0);
                for _ in 0..self.rng.below(3) {
                    self.send(from, ACK, next, seen, 1);
                    self.send(from ^ 1, ACK, seen, next, 0);
                }
            }
            // To the edge of the window.
            _ => {
                let shift = u32::from(other.scale.unwrap_or(0));
                let room = (u32::from(other.window) << shift).clamp(1, 1400);
                self.send(from, ACK, next, seen, room);
            }
        }
    }

    /// Any flags, numbers near those in use.
    fn anything(&mut self, from: usize) {
        let near = |rng: &mut Rng, end: End, unit: u32| match rng.below(8) {
            0 => end.isn,
            1 => end.isn.wrapping_add(1),
            2 => 0,
            3 => rng.next_u32(),
            n => end.sent.wrapping_add(unit.wrapping_mul(n as u32)).wrapping_sub(6 * unit),
        };
        let seq = near(self.rng, self.ends[from], self.unit);
        let ack = near(self.rng, self.ends[from ^ 1], self.unit);
        let flags = [ACK, ACK, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, FIN, SYN | FIN];
        let flags = flags[self.rng.below(flags.len() as u64) as usize];
        let payload = [0, 0, 1, 2, self.unit][self.rng.below(5) as usize];
        if self.rng.percent(20) {
            self.ends[from].window = window(self.rng);
        }
        self.send(from, flags, seq, ack, payload);
    }
}

/// A capture file (pcap, ns) with at most `snap` bytes of each packet.
pub fn cut_file(packets: &[Packet], snap: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    for packet in packets {
        let kept = &packet.bytes[..packet.bytes.len().min(snap)];
        let (seconds, nanos) = (packet.ts / 1_000_000_000, packet.ts % 1_000_000_000);
        for word in [seconds, nanos, kept.len() as u64, packet.bytes.len() as u64] {
            file.extend_from_slice(&(word as u32).to_le_bytes());
        }
        file.extend_from_slice(kept);
    }
    file
}
