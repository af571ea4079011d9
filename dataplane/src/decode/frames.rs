//! For tests only: segments between two hosts, as frames and as decoded packets.
//! Runs on the test's thread; reaches no program. Built by the tests of decode, analyze, hold and worker.

use super::{Packet, decode};
use crate::source::LinkType;

/// A segment between A (10.0.0.1:40000, the key's low end) and B (10.0.0.2:80).
#[derive(Clone, Debug)]
pub(crate) struct Seg {
    pub from_a: bool,
    pub ports: (u16, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: usize,
    pub ttl: u8,
    pub df: bool,
}

impl Seg {
    pub fn new(from_a: bool, flags: u8, seq: u32, ack: u32) -> Seg {
        let (ports, options) = ((40_000, 80), Vec::new());
        Seg { from_a, ports, seq, ack, flags, window: 1000, options, payload: 0, ttl: 64, df: true }
    }

    pub fn data(self, payload: usize) -> Seg {
        Seg { payload, ..self }
    }

    pub fn window(self, window: u16) -> Seg {
        Seg { window, ..self }
    }

    pub fn options(self, options: &[u8]) -> Seg {
        Seg { options: options.to_vec(), ..self }
    }

    pub fn port(self, port: u16) -> Seg {
        Seg { ports: (port, self.ports.1), ..self }
    }

    /// The IPv4 packet.
    pub fn ip(&self) -> Vec<u8> {
        let (mut src, mut dst) = (([10, 0, 0, 1], self.ports.0), ([10, 0, 0, 2], self.ports.1));
        if !self.from_a {
            std::mem::swap(&mut src, &mut dst);
        }
        let tcp_len = 20 + self.options.len();
        let total = (20 + tcp_len + self.payload) as u16;
        let mut bytes = vec![0x45, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 7, if self.df { 0x40 } else { 0 }, 0, self.ttl, 6, 0, 0]);
        bytes.extend(src.0.into_iter().chain(dst.0));
        bytes.extend(src.1.to_be_bytes().into_iter().chain(dst.1.to_be_bytes()));
        bytes.extend(self.seq.to_be_bytes().into_iter().chain(self.ack.to_be_bytes()));
        bytes.extend([(tcp_len as u8 / 4) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend_from_slice(&self.options);
        bytes.resize(bytes.len() + self.payload, 0x55);
        bytes
    }

    pub fn packet(&self) -> Packet {
        let bytes = self.ip();
        decode(LinkType::Raw, &bytes, bytes.len() as u32)
    }
}

/// ICMP "fragmentation needed" from a router to A, quoting the IP header and 8 bytes of `quoted`.
pub(crate) fn too_big(quoted: &[u8], mtu: u16) -> Vec<u8> {
    let quote = &quoted[..28];
    let mut bytes = vec![0x45, 0];
    bytes.extend((28 + quote.len() as u16).to_be_bytes());
    bytes.extend([0, 9, 0, 0, 250, 1, 0, 0, 192, 0, 2, 1, 10, 0, 0, 1]);
    bytes.extend([3, 4, 0, 0, 0, 0]);
    bytes.extend(mtu.to_be_bytes());
    bytes.extend_from_slice(quote);
    bytes
}
