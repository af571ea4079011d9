//! Many flows alive at once, packets spread over them at random: the flow table's worst day.
//!
//! Runs on the caller's thread; four bytes of state per flow, one template patched per packet. Each flow is a
//! clean exchange of equal segments that acknowledge one another. Frames go to the caller's callback.

use std::net::IpAddr;

use crate::packet::{self, ACK, Ip, PSH, SYN, TcpHeader, TcpOptions, fold, sum};
use crate::profile::{Net, Side, address, link};
use crate::rng::{Rng, mix64};
use crate::scenario::START;

/// What `run` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Flows alive, 1 to 16,000,000.
    pub flows: u32,
    /// Packets after the handshakes.
    pub packets: u64,
    pub seed: u64,
    /// Payload of each packet, bytes, 0 to 1448. 0 gives pure ACKs of 66 B frames, all but the first of a
    /// direction duplicates.
    pub payload: u16,
    /// Each flow begins with its handshake, 3 packets a flow, before all others.
    pub handshakes: bool,
    pub v6: bool,
    /// Time between two packets, ns.
    pub gap_ns: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { flows: 1, packets: 0, seed: 1, payload: 32, handshakes: false, v6: false, gap_ns: 200 }
    }
}

/// `packets` packets over `flows` established flows, 32 bytes of payload each.
pub fn live_flows(flows: u32, packets: u64, seed: u64, packet: impl FnMut(u64, &[u8])) {
    run(&Options { flows, packets, seed, ..Options::default() }, packet);
}

/// A frame with the parts that do not change, and where those that do are.
struct Template {
    frame: Vec<u8>,
    v6: bool,
    ip: usize,
    tcp: usize,
    /// Sum of all of TCP that is never patched, pseudo header's constants included.
    constant: u64,
}

impl Template {
    fn new(options: &Options, side: Side, flags: u8) -> Template {
        let (client, server) = (address(Net::Clients, options.v6, 0), address(Net::Servers, options.v6, 0));
        let (src, dst) = if side == Side::Client { (client, server) } else { (server, client) };
        let syn = flags & SYN != 0;
        let tcp_options = if syn {
            TcpOptions::default().mss(1460).sack_permitted().nop().window_scale(7)
        } else {
            TcpOptions::default().nop().nop().timestamps(0, 0)
        };
        // The SYN offers time stamps exactly if later segments carry them.
        let tcp_options = if syn { tcp_options.timestamps(0, 0) } else { tcp_options };
        let header = TcpHeader {
            sport: 0,
            dport: 0,
            seq: 0,
            ack: 0,
            flags,
            window: if syn { 0xffff } else { 0x4000 },
            options: tcp_options.as_bytes(),
        };
        let len = if flags & PSH != 0 { usize::from(options.payload.min(1448)) } else { 0 };
        let payload: Vec<u8> = (0..len).map(|i| b'a' + (i % 26) as u8).collect();
        let mut frame = Vec::new();
        let ip_header = Ip { src, dst, ttl: 60, id: 0, dont_fragment: true };
        packet::tcp(&mut frame, &link([0; 2], side), &ip_header, &header, &payload);
        let ip = 14;
        let tcp = ip + packet::ip_header_len(src);
        frame[tcp + 16..tcp + 18].fill(0);
        let tcp_len = header.options.len() + 20 + len;
        let constant = sum(6 + tcp_len as u64, &frame[tcp..tcp + tcp_len]);
        if !options.v6 {
            frame[ip + 10..ip + 12].fill(0);
        }
        Template { frame, v6: options.v6, ip, tcp, constant }
    }

    /// Fills in one packet of a flow and makes the checksums right.
    fn patch(&mut self, ends: [(u32, u16); 2], numbers: [u32; 2], id: u16) -> &[u8] {
        let (ip, tcp) = (self.ip, self.tcp);
        let frame = &mut self.frame;
        let address_sum = if self.v6 {
            frame[ip + 20..ip + 24].copy_from_slice(&ends[0].0.to_be_bytes());
            frame[ip + 36..ip + 40].copy_from_slice(&ends[1].0.to_be_bytes());
            sum(0, &frame[ip + 8..ip + 40])
        } else {
            frame[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
            frame[ip + 12..ip + 16].copy_from_slice(&ends[0].0.to_be_bytes());
            frame[ip + 16..ip + 20].copy_from_slice(&ends[1].0.to_be_bytes());
            frame[ip + 10..ip + 12].fill(0);
            let check = fold(sum(0, &frame[ip..ip + 20]));
            frame[ip + 10..ip + 12].copy_from_slice(&check.to_be_bytes());
            sum(0, &frame[ip + 12..ip + 20])
        };
        frame[tcp..tcp + 2].copy_from_slice(&ends[0].1.to_be_bytes());
        frame[tcp + 2..tcp + 4].copy_from_slice(&ends[1].1.to_be_bytes());
        frame[tcp + 4..tcp + 8].copy_from_slice(&numbers[0].to_be_bytes());
        frame[tcp + 8..tcp + 12].copy_from_slice(&numbers[1].to_be_bytes());
        let check = fold(sum(self.constant + address_sum, &frame[tcp..tcp + 12]));
        frame[tcp + 16..tcp + 18].copy_from_slice(&check.to_be_bytes());
        &self.frame
    }
}

/// The low four bytes of an address and a port, of client and server.
fn ends(options: &Options, flow: u32) -> [(u32, u16); 2] {
    let client = (flow & 0xffff) as u16;
    let low = |net, n| match address(net, options.v6, n) {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => v6.to_bits() as u32,
    };
    let server = (mix64(u64::from(flow)) % 4000) as u32 + 1;
    let port = 1100 + (flow >> 16) as u16 * 101 + (client & 63);
    [(low(Net::Clients, u32::from(client)), port), (low(Net::Servers, server), 443)]
}

/// Makes the packets: ns since the epoch, frame bytes.
pub fn run(options: &Options, mut packet: impl FnMut(u64, &[u8])) {
    let flows = options.flows.clamp(1, 16_000_000);
    let mut rng = Rng::new(options.seed);
    let isn = |flow: u32| {
        let bits = mix64(options.seed ^ u64::from(flow) << 20);
        [bits as u32, (bits >> 32) as u32]
    };
    let mut ts = START;
    if options.handshakes {
        let mut syn = Template::new(options, Side::Client, SYN);
        let mut syn_ack = Template::new(options, Side::Server, SYN | ACK);
        let mut ack = Template::new(options, Side::Client, ACK);
        for flow in 0..flows {
            let ([client, server], [c, s]) = (ends(options, flow), isn(flow));
            let (c1, s1) = (c.wrapping_add(1), s.wrapping_add(1));
            packet(ts, syn.patch([client, server], [c, 0], 0));
            packet(ts + options.gap_ns, syn_ack.patch([server, client], [s, c1], 0));
            packet(ts + 2 * options.gap_ns, ack.patch([client, server], [c1, s1], 1));
            ts += 3 * options.gap_ns;
        }
    }
    let data = if options.payload > 0 { ACK | PSH } else { ACK };
    let mut templates =
        [Template::new(options, Side::Client, data), Template::new(options, Side::Server, data)];
    let mut turns = vec![0u32; flows as usize];
    let step = u32::from(options.payload.min(1448));
    for _ in 0..options.packets {
        let flow = rng.below(u64::from(flows)) as u32;
        let turn = turns[flow as usize];
        turns[flow as usize] = turn.wrapping_add(1);
        let ([client, server], [c, s]) = (ends(options, flow), isn(flow));
        let sent = |isn: u32, segments: u32| isn.wrapping_add(1).wrapping_add(segments.wrapping_mul(step));
        let id = (turn / 2).wrapping_add(2) as u16;
        // Client and server take turns; each segment acknowledges the one before.
        let frame = if turn.is_multiple_of(2) {
            let numbers = [sent(c, turn / 2), sent(s, turn / 2)];
            templates[0].patch([client, server], numbers, id)
        } else {
            let numbers = [sent(s, turn / 2), sent(c, turn / 2 + 1)];
            templates[1].patch([server, client], numbers, id)
        };
        packet(ts, frame);
        ts += options.gap_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn packets_are_valid_and_flows_consistent() {
        for v6 in [false, true] {
            for payload in [0, 33, 1448] {
                let options = Options {
                    flows: 500,
                    packets: 4000,
                    payload,
                    v6,
                    handshakes: true,
                    ..Options::default()
                };
                let mut next: HashMap<_, u32> = HashMap::new();
                let mut last = 0;
                let mut n = 0;
                run(&options, |ts, bytes| {
                    let s = check::read(bytes).unwrap();
                    assert!(ts > last);
                    (last, n) = (ts, n + 1);
                    let me = (s.src, s.sport, s.dst, s.dport);
                    let other = (s.dst, s.dport, s.src, s.sport);
                    if let Some(expected) = next.get(&me) {
                        assert_eq!(s.seq, *expected);
                    }
                    if s.flags & ACK != 0 {
                        assert_eq!(s.ack, next[&other]);
                    }
                    next.insert(me, s.seq.wrapping_add(s.payload + u32::from(s.flags & SYN != 0)));
                });
                assert_eq!(n, 5500);
                assert_eq!(next.len(), 1000);
            }
        }
    }

    #[test]
    fn flows_are_distinct_and_runs_repeat() {
        let options = Options::default();
        let tuples: HashSet<_> = (0..1_000_000).map(|flow| ends(&options, flow)).collect();
        assert_eq!(tuples.len(), 1_000_000);
        let take = |seed| {
            let mut all = Vec::new();
            live_flows(100, 1000, seed, |ts, bytes| all.push((ts, bytes.to_vec())));
            all
        };
        assert!(take(1) == take(1) && take(1) != take(2));
    }
}
