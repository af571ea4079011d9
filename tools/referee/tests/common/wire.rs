//! A wire that ends in the interface captured from, and frames to send along it.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use dataplane_sys::packet as socket;
use serde_json::Value;
use tests::live::{Namespace, Shape, VethPair};
use wiregen::packet::{self, ACK, Ethernet, Ip, PSH, RST, SYN, TcpHeader, TcpOptions};
use wiregen::scenario::Packet;

use super::running::until;

/// One end sends, the other is captured from.
pub struct Wire {
    out: File,
    sent: u64,
    pub pair: VethPair,
}

impl Wire {
    pub fn new(namespace: &Namespace, shape: Shape) -> Wire {
        let pair = VethPair::new(namespace, shape);
        // Where captures on the sending end see what is sent.
        let out = namespace.run(|| socket::visible_sender(pair.wire.index)).unwrap();
        Wire { out: File::from(out), sent: 0, pair }
    }

    pub fn tap(&self) -> &str {
        &self.pair.tap.name
    }

    #[track_caller]
    pub fn send(&mut self, frame: &[u8]) {
        self.out.write_all(frame).unwrap();
        self.sent += 1;
    }

    #[track_caller]
    pub fn send_all(&mut self, frames: &[Vec<u8>]) {
        frames.iter().for_each(|frame| self.send(frame));
    }

    /// Sends packets with the pauses between them that their times say.
    #[track_caller]
    pub fn play(&mut self, packets: &[Packet]) {
        let began = Instant::now();
        let Some(first) = packets.first().map(|packet| packet.ts) else { return };
        for packet in packets {
            let due = Duration::from_nanos(packet.ts - first);
            thread::sleep(due.saturating_sub(began.elapsed()));
            self.send(&packet.bytes);
        }
    }

    /// Waits until the far end has received all that was sent: they may stay with the kernel for a moment.
    #[track_caller]
    pub fn all_arrived(&self, namespace: &Namespace) {
        until("the packets to arrive", || (received(namespace, self.tap()) >= self.sent).then_some(()));
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }
}

/// An interface as `ip -j -d -s link` describes it.
#[track_caller]
pub fn described(namespace: &Namespace, interface: &str) -> Value {
    let shown = namespace.ip(&["-j", "-d", "-s", "link", "show", interface]);
    serde_json::from_str::<Value>(&shown).unwrap()[0].take()
}

/// Packets that an interface has received.
#[track_caller]
pub fn received(namespace: &Namespace, interface: &str) -> u64 {
    described(namespace, interface)["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// Number of the XDP program on an interface.
#[track_caller]
pub fn program(namespace: &Namespace, interface: &str) -> Option<u64> {
    described(namespace, interface).get("xdp").map(|xdp| xdp["prog"]["id"].as_u64().unwrap())
}

/// Nothing of a capture is left at the interface.
#[track_caller]
pub fn assert_given_back(namespace: &Namespace, interface: &str) {
    let now = described(namespace, interface);
    assert_eq!((now.get("xdp"), &now["promiscuity"]), (None, &Value::from(0)), "{now}");
}

/// One side of a conversation between 10.1.0.1 and 10.2.0.1.
#[derive(Clone, Copy)]
pub struct Side {
    pub client: bool,
    /// The client's port, and the server's.
    pub ports: (u16, u16),
}

impl Side {
    /// A segment from this side; `seq` and `ack` count from the beginning of each side's data.
    pub fn segment(self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let (client, server) = ((10, 1), (20, 2));
        let ends = if self.client { [client, server] } else { [server, client] };
        let [(from, src), (to, dst)] = ends;
        let address = |net| IpAddr::V4(Ipv4Addr::new(10, net, 0, 1));
        let ip = Ip { src: address(src), dst: address(dst), ttl: 64, id: 1, dont_fragment: true };
        let syn = TcpOptions::default().mss(8960).sack_permitted().window_scale(7);
        let (port, service) = self.ports;
        let (sport, dport) = if self.client { (port, service) } else { (service, port) };
        let header = TcpHeader {
            sport,
            dport,
            seq: 1000 + seq,
            ack: if flags & ACK == 0 { 0 } else { 1000 + ack },
            flags,
            window: 0xffff,
            options: if flags & SYN == 0 { &[] } else { syn.as_bytes() },
        };
        let ethernet = Ethernet { src: [2, 0, 0, 0, 0, from], dst: [2, 0, 0, 0, 0, to], vlan: [0; 2] };
        let mut frame = Vec::new();
        packet::tcp(&mut frame, &ethernet, &ip, &header, payload);
        frame
    }
}

/// Both sides of a conversation with a service.
pub fn sides(port: u16, service: u16) -> [Side; 2] {
    [true, false].map(|client| Side { client, ports: (port, service) })
}

/// SYN, SYN-ACK, ACK.
pub fn handshake([client, server]: [Side; 2]) -> Vec<Vec<u8>> {
    vec![client.segment(SYN, 0, 0, &[]), server.segment(SYN | ACK, 0, 1, &[]), client.segment(ACK, 1, 1, &[])]
}

/// A connection that the service resets when it is asked something: rst_midflow.
pub fn cut_off(port: u16, service: u16) -> Vec<Vec<u8>> {
    let [client, server] = sides(port, service);
    let mut frames = handshake([client, server]);
    frames.push(client.segment(ACK | PSH, 1, 1, &[b'q'; 300]));
    frames.push(server.segment(RST, 1, 0, &[]));
    frames
}

/// How many packets [`cut_off`] has.
pub const CUT_OFF: u64 = 5;
