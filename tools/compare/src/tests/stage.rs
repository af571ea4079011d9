//! For tests: conversations played in front of two taps, packet by packet, with a middle that loses, makes and
//! refuses as told. Clients are on A's side. Captures go to `testing::judge`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wiregen::packet::{self, ACK, Ethernet, FIN, Ip, PSH, RST, SYN, TcpHeader, TcpOptions};
use wiregen::scenario::Packet;

pub const MS: u64 = 1_000_000;
const START: u64 = 1_760_000_000_000_000_000;

/// What becomes of a packet between the taps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Passes,
    /// Only its sender's tap has it.
    Lost,
    /// Only its receiver's tap has it.
    Made,
}

/// Who talks to whom.
#[derive(Clone, Copy)]
pub struct Talk {
    pub client: (IpAddr, u16),
    pub server: (IpAddr, u16),
}

/// An IPv4 address of a client (network 1) or a server (2, 3, …), or one like it of IPv6.
pub fn host(v6: bool, network: u8, n: u8) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, u16::from(network), 0, 0, 0, 0, u16::from(n)))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, network, 0, n))
    }
}

pub fn talk(client: IpAddr, cport: u16, server: IpAddr, sport: u16) -> Talk {
    Talk { client: (client, cport), server: (server, sport) }
}

pub struct Stage {
    /// Routers between the taps.
    pub hops: u8,
    /// From tap to tap, ns.
    pub way: u64,
    /// A's clock less B's, ns, at the start; and how much faster it runs.
    pub offset: i64,
    pub drift_ppm: f64,
    pub now: u64,
    pub id: u16,
    pub a: Vec<Packet>,
    pub b: Vec<Packet>,
}

impl Stage {
    pub fn new() -> Stage {
        let (a, b) = (Vec::new(), Vec::new());
        Stage { hops: 2, way: 2 * MS, offset: 7 * MS as i64, drift_ppm: 0.0, now: START, id: 1, a, b }
    }

    fn a_clock(&self, ts: u64) -> u64 {
        let gained = (ts - START) as f64 * self.drift_ppm / 1e6;
        ts.wrapping_add_signed(self.offset + gained as i64)
    }

    /// Puts a packet before the taps. `frame` makes it with the TTL it has at a tap.
    pub fn packet(&mut self, from_client: bool, way: Way, frame: impl Fn(u8, u16) -> Vec<u8>) {
        self.id = self.id.wrapping_add(1).max(1);
        let (near, far) = (self.now, self.now + self.way);
        let ttls = if from_client { [64, 64 - self.hops] } else { [61 - self.hops, 61] };
        let times = if from_client { [near, far] } else { [far, near] };
        let sees = |sender: bool| way == Way::Passes || (way == Way::Lost) == sender;
        if sees(from_client) {
            let ts = self.a_clock(times[0]);
            self.a.push(Packet { ts, bytes: frame(ttls[0], self.id) });
        }
        if sees(!from_client) {
            self.b.push(Packet { ts: times[1], bytes: frame(ttls[1], self.id) });
        }
        self.now += self.way;
    }

    /// A TCP segment with `len` bytes of payload.
    pub fn tcp(&mut self, talk: &Talk, from_client: bool, flags: u8, numbers: [u32; 2], len: u32, way: Way) {
        let (src, dst) = if from_client { (talk.client, talk.server) } else { (talk.server, talk.client) };
        let [seq, ack] = numbers;
        let options = if flags & SYN == 0 { TcpOptions::default() } else { TcpOptions::default().mss(1460) };
        let payload: Vec<u8> = (0..len).map(|i| (i + seq) as u8).collect();
        self.packet(from_client, way, |ttl, id| {
            let ip = Ip { src: src.0, dst: dst.0, ttl, id, dont_fragment: true };
            let options = options.as_bytes();
            let header = TcpHeader { sport: src.1, dport: dst.1, seq, ack, flags, window: 500, options };
            let mut bytes = Vec::new();
            packet::tcp(&mut bytes, &Ethernet::default(), &ip, &header, &payload);
            bytes
        });
    }

    pub fn udp(&mut self, talk: &Talk, from_client: bool, payload: &[u8], way: Way) {
        let (src, dst) = if from_client { (talk.client, talk.server) } else { (talk.server, talk.client) };
        self.packet(from_client, way, |ttl, id| {
            let ip = Ip { src: src.0, dst: dst.0, ttl, id, dont_fragment: false };
            let mut bytes = Vec::new();
            packet::udp(&mut bytes, &Ethernet::default(), &ip, src.1, dst.1, payload);
            bytes
        });
    }

    /// Handshake, requests and their answers, and the end of a connection.
    pub fn converse(&mut self, talk: &Talk, rounds: u32) {
        let (mut c, mut s) = ((self.now >> 12) as u32, (self.now >> 11) as u32);
        self.tcp(talk, true, SYN, [c, 0], 0, Way::Passes);
        self.tcp(talk, false, SYN | ACK, [s, c + 1], 0, Way::Passes);
        (c, s) = (c + 1, s + 1);
        self.tcp(talk, true, ACK, [c, s], 0, Way::Passes);
        for _ in 0..rounds {
            self.tcp(talk, true, PSH | ACK, [c, s], 100, Way::Passes);
            c += 100;
            self.tcp(talk, false, PSH | ACK, [s, c], 700, Way::Passes);
            s += 700;
            self.tcp(talk, true, ACK, [c, s], 0, Way::Passes);
            self.now += 20 * MS;
        }
        self.tcp(talk, true, FIN | ACK, [c, s], 0, Way::Passes);
        self.tcp(talk, false, FIN | ACK, [s, c + 1], 0, Way::Passes);
        self.tcp(talk, true, ACK, [c + 1, s + 1], 0, Way::Passes);
        self.now += 10 * MS;
    }

    /// The middle answers a SYN with RST.
    pub fn refused(&mut self, talk: &Talk) {
        let isn = 5000 + u32::from(talk.client.1);
        self.tcp(talk, true, SYN, [isn, 0], 0, Way::Lost);
        self.tcp(talk, false, RST | ACK, [0, isn + 1], 0, Way::Made);
        self.now += 10 * MS;
    }

    /// The middle drops a SYN, and those that repeat it.
    pub fn dropped(&mut self, talk: &Talk, tries: u32) {
        for n in 0..tries {
            self.tcp(talk, true, SYN, [77_000 + u32::from(talk.client.1), 0], 0, Way::Lost);
            self.now += (1000 * MS) << n;
        }
    }
}
