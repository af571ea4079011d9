//! Bytes to conversations that get somewhere: each few bytes are one step of one of eight connections, and the numbers of
//! a step are near those the connection has. For the fuzz targets, and for tests that keep what they found.
//!
//! The first byte holds for all (IPv6, a VLAN, packets cut short, recording); then come steps of four bytes, whose
//! second half may be followed by payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wiregen::content;
use wiregen::packet::{self, ACK, CWR, ECE, Ethernet, FIN, Ip, PSH, RST, SYN, TcpHeader, TcpOptions};
use wiregen::profile::{Content, Side};
use wiregen::scenario::Packet;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;
/// Packets made of one input at most.
const MOST: usize = 600;

/// Waits before a step: about the thresholds and timeouts there are, and once backwards.
const PAUSES: [u64; 16] = [
    0,
    1000,
    400_000,
    3 * MILLI,
    20 * MILLI,
    100 * MILLI,
    400 * MILLI,
    SECOND,
    2 * SECOND + MILLI,
    11 * SECOND,
    31 * SECOND,
    76 * SECOND,
    301 * SECOND,
    7200 * SECOND,
    0_u64.wrapping_sub(3 * MILLI),
    0_u64.wrapping_sub(500 * SECOND),
];

/// Where the eight connections go; 53 also takes questions over UDP.
const PORTS: [u16; 8] = [443, 80, 53, 443, 80, 8080, 22, 50_123];

/// Packets, and how many bytes of each the capture kept.
pub struct Talk {
    pub packets: Vec<Packet>,
    pub kept: Vec<usize>,
    pub record: bool,
}

/// Whether the bytes begin as a capture file does, compressed or not.
pub fn is_capture(data: &[u8]) -> bool {
    let magics: [&[u8]; 8] = [
        &[0xd4, 0xc3, 0xb2, 0xa1],
        &[0xa1, 0xb2, 0xc3, 0xd4],
        &[0x4d, 0x3c, 0xb2, 0xa1],
        &[0xa1, 0xb2, 0x3c, 0x4d],
        &[0x0a, 0x0d, 0x0d, 0x0a],
        &[0x1f, 0x8b],
        &[0x28, 0xb5, 0x2f, 0xfd],
        &[0x04, 0x22, 0x4d, 0x18],
    ];
    magics.iter().any(|magic| data.starts_with(magic))
}

#[derive(Clone, Copy)]
struct End {
    seq: u32,
    /// Payload sent, for content that goes on.
    sent: u32,
    window: u16,
}

struct World<'a> {
    bytes: &'a [u8],
    head: u8,
    now: u64,
    ends: [[End; 2]; PORTS.len()],
    talk: Talk,
}

/// The conversation these bytes stand for.
pub fn talk(data: &[u8]) -> Talk {
    let (head, bytes) = data.split_first().unwrap_or((&0, &[]));
    let end = |seq| End { seq, sent: 0, window: 500 };
    let mut world = World {
        bytes,
        head: *head,
        now: 1_700_000_000 * SECOND,
        // One of them passes the end of the numbers at once.
        ends: std::array::from_fn(|n| [end(u32::MAX - 40 * n as u32), end(1000)]),
        talk: Talk { packets: Vec::new(), kept: Vec::new(), record: head & 8 != 0 },
    };
    while let Some(step) = world.take::<4>() {
        world.step(step);
        if world.talk.packets.len() > MOST {
            break;
        }
    }
    world.talk
}

impl World<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*taken)
    }

    /// So many of the input's own bytes, or what is left of them.
    fn own_bytes(&mut self, len: usize) -> Vec<u8> {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        taken.to_vec()
    }

    /// Which connection, what, after how long and how.
    fn step(&mut self, [which, what, a, b]: [u8; 4]) {
        let (n, from) = (usize::from(which & 7), usize::from(which >> 3 & 1));
        self.now = self.now.wrapping_add(PAUSES[usize::from(which >> 4)]);
        match what % 20 {
            0 => self.segment(n, 0, SYN | if b & 1 == 0 { 0 } else { ECE | CWR }, 0, &[]),
            1 => self.segment(n, 1, SYN | ACK, 0, &[]),
            2 => self.segment(n, from, ACK, 0, &[]),
            3 => {
                let payload = self.content(n, from, usize::from(a) * 8);
                self.segment(n, from, ACK | PSH, 0, &payload);
            }
            4 => self.segment(n, from, FIN | ACK, 0, &[]),
            5 => self.segment(n, from, if a & 1 == 0 { RST } else { RST | ACK }, i32::from(b as i8), &[]),
            // A keepalive probe, with and without its byte.
            6 => self.segment(n, from, ACK, -1, &[0][..usize::from(a & 1)]),
            7 => {
                self.ends[n][from].window = [0, 1, 100, 500, 65_535][usize::from(a) % 5];
                self.segment(n, from, ACK, 0, &[]);
            }
            8 => self.segment(n, from, a, i32::from(b as i8) * 8, &[b; 200][..usize::from(b) % 200]),
            9 => {
                let payload = self.own_bytes(usize::from(a));
                self.segment(n, from, ACK | PSH, i32::from(b as i8) / 16, &payload);
            }
            10 => self.changed_content(n, from, a, b),
            11 => self.question(n, from, a, b),
            12 => {
                let payload = self.own_bytes(usize::from(a));
                self.datagram(n, from, if b & 1 == 0 { 53 } else { PORTS[n] }, &payload);
            }
            13 => self.icmp(n, from, a, b),
            14 => self.again(usize::from(a), b & 3),
            15 => self.damage(a, b),
            16 => self.crowd(n, from, a, b),
            17 => {
                let bytes = self.own_bytes(usize::from(a));
                self.push(bytes);
            }
            18 => self.fragments(a, b),
            _ => self.many(n, from, a, b),
        }
    }

    fn push(&mut self, bytes: Vec<u8>) {
        let kept = if self.head & 4 != 0 { 54 + 6 * usize::from(self.head >> 4) } else { usize::MAX };
        self.talk.packets.push(Packet { ts: self.now, bytes });
        self.talk.kept.push(kept);
    }

    fn host(&self, n: u8, side: usize) -> IpAddr {
        if self.head & 1 == 0 {
            IpAddr::V4(Ipv4Addr::new(10, 1 + side as u8, 0, n))
        } else {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, side as u16, 0, 0, 0, 0, u16::from(n)))
        }
    }

    fn ethernet(&self) -> Ethernet {
        Ethernet { src: [2; 6], dst: [4; 6], vlan: [if self.head & 2 == 0 { 0 } else { 7 }, 0] }
    }

    fn ip(&self, client: u8, server: u8, from: usize) -> Ip {
        let ends = [self.host(client, 0), self.host(server, 1)];
        let id = self.talk.packets.len() as u16;
        Ip { src: ends[from], dst: ends[from ^ 1], ttl: 64 - from as u8, id, dont_fragment: true }
    }

    /// A segment whose number is `shift` beside the next one.
    fn segment(&mut self, n: usize, from: usize, flags: u8, shift: i32, payload: &[u8]) {
        let (own, other) = (self.ends[n][from], self.ends[n][from ^ 1]);
        let options = match flags & (SYN | ACK) {
            SYN => TcpOptions::default().mss(1460).nop().window_scale(7).sack_permitted(),
            flags if flags & SYN != 0 => TcpOptions::default().mss(1400).nop().window_scale(2),
            _ if shift < -1 => TcpOptions::default().nop().nop().sack(other.seq, other.seq.wrapping_add(900)),
            _ => TcpOptions::default(),
        };
        let ports = [40_000 + n as u16, PORTS[n]];
        let seq = own.seq.wrapping_add_signed(shift);
        let header = TcpHeader {
            sport: ports[from],
            dport: ports[from ^ 1],
            seq,
            ack: if flags & ACK != 0 { other.seq } else { 0 },
            flags,
            window: own.window,
            options: options.as_bytes(),
        };
        let ip = self.ip(1 + n as u8 / 2, 1 + n as u8 / 3, from);
        let mut bytes = Vec::new();
        packet::tcp(&mut bytes, &self.ethernet(), &ip, &header, payload);
        self.push(bytes);
        let space = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        let end = seq.wrapping_add(space);
        if flags & RST == 0 && (end.wrapping_sub(own.seq) as i32) > 0 {
            self.ends[n][from].seq = end;
        }
    }

    /// What the port's protocol says next.
    fn content(&mut self, n: usize, from: usize, len: usize) -> Vec<u8> {
        let kind = match PORTS[n] {
            443 => Content::Tls,
            80 | 8080 => Content::Http { failed: n == 4 },
            _ => Content::Text,
        };
        let side = if from == 0 { Side::Client } else { Side::Server };
        let sent = self.ends[n][from].sent;
        // A request or a greeting at first, whole if there is room.
        self.ends[n][from].sent = sent.wrapping_add(len as u32);
        content::stream(kind, side, sent, len).to_vec()
    }

    /// The same, with one byte of its beginning changed.
    fn changed_content(&mut self, n: usize, from: usize, at: u8, value: u8) {
        let mut payload = self.content(n, from, 600);
        if let Some(byte) = payload.get_mut(usize::from(at)) {
            *byte = value;
        }
        self.segment(n, from, ACK | PSH, 0, &payload);
    }

    fn datagram(&mut self, n: usize, from: usize, port: u16, payload: &[u8]) {
        let ports = [50_000 + n as u16, port];
        let mut bytes = Vec::new();
        let ip = self.ip(1 + n as u8 / 2, 53, from);
        packet::udp(&mut bytes, &self.ethernet(), &ip, ports[from], ports[from ^ 1], payload);
        self.push(bytes);
    }

    /// A DNS question or its answer: `a` its name and whether there is an answer, `b` id and response code.
    fn question(&mut self, n: usize, from: usize, a: u8, b: u8) {
        let answer = from as u8 * 0x81;
        let mut payload = vec![
            0,
            b >> 4,
            answer | u8::from(from == 0),
            from as u8 * (0x80 | b & 15),
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        payload.extend([
            4,
            b'h',
            b'o',
            b's',
            b'a' + a % 16,
            2,
            b'e',
            b'x',
            0,
            0,
            if a & 16 == 0 { 1 } else { 28 },
            0,
            1,
        ]);
        if a & 32 != 0 {
            payload.truncate(usize::from(b));
        }
        self.datagram(n, from, if a & 64 == 0 { 53 } else { 5353 }, &payload);
    }

    /// An ICMP error about one of the last packets, or any other message.
    fn icmp(&mut self, n: usize, from: usize, a: u8, b: u8) {
        let back = self.talk.packets.len().checked_sub(1 + usize::from(a >> 4));
        let quoted =
            back.and_then(|at| self.talk.packets.get(at)).map_or(Vec::new(), |packet| packet.bytes.clone());
        let start = if self.head & 2 == 0 { 14 } else { 18 };
        let quote = quoted.get(start..).map_or(&[][..], |quote| &quote[..quote.len().min(usize::from(b))]);
        let (kind, code) = match (a & 3, self.head & 1) {
            (0, 0) => (3, 4),
            (0, _) => (2, 0),
            (1, 0) => (3, a >> 2 & 3),
            (1, _) => (1, a >> 2 & 3),
            (_, 0) => (8, 0),
            _ => (128, 0),
        };
        let mut bytes = Vec::new();
        let ip = self.ip(1 + n as u8, 9, from ^ 1);
        packet::icmp(&mut bytes, &self.ethernet(), &ip, kind, code, [0, 0, 5, b], quote);
        self.push(bytes);
    }

    /// A packet once more, as a mirror delivers it twice or a loop brings it back with less time to live.
    fn again(&mut self, back: usize, less: u8) {
        let at = self.talk.packets.len().checked_sub(1 + back);
        if let Some(mut bytes) =
            at.and_then(|at| self.talk.packets.get(at)).map(|packet| packet.bytes.clone())
        {
            if let Some(ttl) = bytes.get_mut(22) {
                *ttl = ttl.wrapping_sub(less);
            }
            self.push(bytes);
        }
    }

    /// Changes a byte of the last packet's headers, or cuts it.
    fn damage(&mut self, at: u8, value: u8) {
        let Some(packet) = self.talk.packets.last_mut() else { return };
        match at {
            250.. => packet.bytes.truncate(usize::from(value)),
            _ => packet.bytes.iter_mut().skip(usize::from(at)).take(1).for_each(|byte| *byte = value),
        }
    }

    /// Many clients at one service, or one client at many ports; each is left alone, refused or served.
    fn crowd(&mut self, n: usize, from: usize, a: u8, b: u8) {
        for i in 0..a % 64 {
            let (client, port) = if from == 0 { (10 + i, PORTS[n]) } else { (99, 1000 + u16::from(i)) };
            let mut one = |side: usize, flags: u8, seq: u32, ack: u32, payload: &[u8]| {
                let ports = [30_000 + u16::from(a) + u16::from(i), port];
                let (sport, dport) = (ports[side], ports[side ^ 1]);
                let header = TcpHeader { sport, dport, seq, ack, flags, window: 500, options: &[] };
                let mut bytes = Vec::new();
                packet::tcp(&mut bytes, &self.ethernet(), &self.ip(client, 1, side), &header, payload);
                self.push(bytes);
                self.now = self.now.wrapping_add(MILLI);
            };
            one(0, SYN, 100, 0, &[]);
            match b % 5 {
                0 => {}
                1 => one(1, RST | ACK, 0, 101, &[]),
                2 => one(1, SYN | ACK, 7, 101, &[]),
                other => {
                    one(1, SYN | ACK, 7, 101, &[]);
                    one(0, ACK, 101, 8, b"hello");
                    one(1, ACK, 8, 106, b"hi");
                    one(1, if other == 3 { RST } else { FIN | ACK }, 10, 106, &[]);
                }
            }
        }
    }

    /// The last packet, if IPv4, in two fragments, in either order.
    fn fragments(&mut self, a: u8, b: u8) {
        let Some(whole) = self.talk.packets.last().map(|packet| packet.bytes.clone()) else { return };
        let at = 20 + usize::from(a & 31) * 8;
        if self.head & 3 != 0 || whole.len() < 34 + at {
            return;
        }
        let part = |from: usize, to: usize, more: u8| {
            let mut bytes = whole[..34].to_vec();
            bytes.extend_from_slice(&whole[34 + from..34 + to]);
            bytes[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
            bytes[20] = more << 5 | (from >> 11) as u8;
            bytes[21] = (from >> 3) as u8;
            bytes
        };
        let end = whole.len() - 34;
        let cut = (at - 20).min(end);
        let mut parts = [part(0, cut, 1), part(cut, end, 0)];
        if b & 1 != 0 {
            parts.reverse();
        }
        parts.into_iter().for_each(|bytes| self.push(bytes));
    }

    /// One step many times: data, acknowledgements of the same, resets.
    fn many(&mut self, n: usize, from: usize, a: u8, b: u8) {
        for _ in 0..a % 40 {
            match b % 4 {
                0 => self.segment(n, from, ACK, 0, &[]),
                1 => self.segment(n, from, ACK | PSH, 0, &[1; 1400]),
                2 => self.segment(n, from, ACK | PSH, -700, &[1; 700]),
                _ => self.segment(n, from, RST, 0, &[]),
            }
            self.now = self.now.wrapping_add(u64::from(b) * MILLI);
        }
    }
}
