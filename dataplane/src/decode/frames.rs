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

/// A packet in one dress: a name, what `tunnel` says of it, link type and bytes.
pub(crate) type Dress = (&'static str, &'static str, LinkType, Vec<u8>);

/// EtherType, IP protocol and PPP protocol of an IP packet.
fn names(ip: &[u8]) -> ([u8; 2], u8, u8) {
    if ip[0] >> 4 == 6 { ([0x86, 0xdd], 41, 0x57) } else { ([8, 0], 4, 0x21) }
}

fn frame(kind: [u8; 2], parts: &[&[u8]]) -> Vec<u8> {
    [&[2; 12][..], &kind[..], &parts.concat()].concat()
}

fn tagged(ip: &[u8]) -> Vec<u8> {
    frame([0x81, 0], &[&[0, 77], &names(ip).0, ip])
}

fn v4(proto: u8, parts: &[&[u8]]) -> Vec<u8> {
    let [high, low] = (parts.concat().len() as u16 + 20).to_be_bytes();
    let head = [0x45, 2, high, low, 0, 9, 0, 0, 33, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    frame([8, 0], &[&head, &parts.concat()])
}

fn v6(proto: u8, parts: &[&[u8]]) -> Vec<u8> {
    let [high, low] = (parts.concat().len() as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, high, low, proto, 33];
    frame([0x86, 0xdd], &[&head, &[0x20; 16], &[0x21; 16], &parts.concat()])
}

fn udp(from: u16, to: u16, parts: &[&[u8]]) -> Vec<u8> {
    let words = [from, to, parts.concat().len() as u16 + 8, 0];
    [words.map(u16::to_be_bytes).concat(), parts.concat()].concat()
}

fn over_udp(port: u16, parts: &[&[u8]]) -> Vec<u8> {
    v4(17, &[&udp(50_000, port, parts)])
}

fn snap(ip: &[u8]) -> Vec<u8> {
    [&[0xaa, 0xaa, 3, 0, 0, 0][..], &names(ip).0, ip].concat()
}

fn wlan(ip: &[u8]) -> Vec<u8> {
    [&[0x88, 1, 0, 0][..], &[3; 20], &[0, 0], &snap(ip)].concat()
}

/// The same packet in every dress decoding knows.
pub(crate) fn dressed(ip: &[u8]) -> Vec<Dress> {
    let in_ethernet = [labelled(ip), in_ip(ip), in_gre(ip), in_udp(ip)].concat().into_iter();
    let mut all: Vec<Dress> =
        in_ethernet.map(|(name, tunnel, bytes)| (name, tunnel, LinkType::Ethernet, bytes)).collect();
    all.extend(on_links(ip));
    all
}

type InEthernet = Vec<(&'static str, &'static str, Vec<u8>)>;

fn labelled(ip: &[u8]) -> InEthernet {
    let (kind, _, ppp) = names(ip);
    let inner = frame(kind, &[ip]);
    let label = [0, 1, 0x01, 64];
    vec![
        ("MPLS", "mpls:16", frame([0x88, 0x47], &[&label, ip])),
        (
            "multicast MPLS, three labels",
            "mpls:300",
            frame([0x88, 0x48], &[&[0, 3, 0, 9, 0, 4, 0, 9, 0, 0x12, 0xc1, 9], ip]),
        ),
        (
            "an entropy label below",
            "mpls:300",
            frame([0x88, 0x47], &[&[0, 0x12, 0xc0, 9, 0, 0, 0x70, 9, 0xab, 0xcd, 0xe1, 0], ip]),
        ),
        ("pseudowire, control word", "mpls:16", frame([0x88, 0x47], &[&label, &[0, 0, 0, 5], &tagged(ip)])),
        ("pseudowire without", "mpls:16", frame([0x88, 0x47], &[&label, &inner])),
        ("PPPoE", "pppoe:258", frame([0x88, 0x64], &[&[0x11, 0, 1, 2, 0, 0, 0, ppp], ip])),
        ("PPPoE, compressed protocol", "pppoe:258", frame([0x88, 0x64], &[&[0x11, 0, 1, 2, 0, 0, ppp], ip])),
        ("LLC and SNAP", "", frame((snap(ip).len() as u16).to_be_bytes(), &[&snap(ip)])),
    ]
}

fn in_ip(ip: &[u8]) -> InEthernet {
    let (kind, proto, _) = names(ip);
    let authentication = [proto, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    vec![
        ("IP in IPv4", "ipip", v4(proto, &[ip])),
        ("IP in IPv6", "ipip", v6(proto, &[ip])),
        ("EtherIP", "etherip", v4(97, &[&[0x30, 0], &frame(kind, &[ip])])),
        ("MPLS in IP", "mpls:16", v4(137, &[&[0, 1, 0x01, 64], ip])),
        ("authenticated", "ipip", v4(51, &[&authentication, &[0; 12], ip])),
    ]
}

fn in_gre(ip: &[u8]) -> InEthernet {
    let (kind, _, ppp) = names(ip);
    let inner = frame(kind, &[ip]);
    let fields = [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
    let route = [0, 2, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0];
    let call = [0x30, 0x81, 0x88, 0x0b, 0, 50, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 3, 0, ppp];
    let second = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 9, 0x10, 3, 0, 0, 0, 0];
    let third = [0x20, 1, 0x10, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("GRE", "gre", v4(47, &[&[0, 0], &kind, ip])),
        ("GRE over IPv6", "gre", v6(47, &[&[0, 0], &kind, ip])),
        ("GRE, all optional fields", "gre:7", v4(47, &[&[0xf0, 0], &kind, &fields, &route, ip])),
        ("GRE, bridged", "gre:7", v4(47, &[&[0x20, 0, 0x65, 0x58, 0, 0, 0, 7], &tagged(ip)])),
        ("GRE, PPTP", "pptp:5", v4(47, &[&call, ip])),
        ("GRE, 802.11", "gre", v4(47, &[&[0, 0, 0x82, 0x10], &wlan(ip)])),
        ("ERSPAN I", "erspan", v4(47, &[&[0, 0, 0x88, 0xbe], &inner])),
        ("ERSPAN II", "erspan:3", v4(47, &[&second, &tagged(ip)])),
        ("ERSPAN III", "erspan:9", v4(47, &[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1], &third, &inner])),
    ]
}

fn in_udp(ip: &[u8]) -> InEthernet {
    let (kind, _, _) = names(ip);
    let inner = frame(kind, &[ip]);
    let six = ip[0] >> 4 == 6;
    let header = [8, 0, 0, 0, 0, 0, 42, 0];
    let options = [2, 0, 0x65, 0x58, 0, 0, 5, 0, 1, 2, 3, 1, 0, 0, 0, 0];
    let [high, low] = (ip.len() as u16 + 8).to_be_bytes();
    let gtp = [0x34, 255, high, low, 0, 0, 0x12, 0x34, 0, 0, 0, 0x85, 1, 0, 9, 0];
    let mut all = vec![
        ("VXLAN", "vxlan:42", over_udp(4789, &[&header, &inner])),
        ("VXLAN, old port, over IPv6", "vxlan:42", v6(17, &[&udp(9, 8472, &[&header, &tagged(ip)])])),
        (
            "VXLAN-GPE, IP",
            "vxlan:42",
            over_udp(4790, &[&[12, 0, 0, if six { 2 } else { 1 }, 0, 0, 42, 0], ip]),
        ),
        ("VXLAN-GPE, Ethernet", "vxlan:42", over_udp(4790, &[&[12, 0, 0, 3, 0, 0, 42, 0], &inner])),
        ("GENEVE with options", "geneve:5", over_udp(6081, &[&options, &inner])),
        ("GENEVE, IP", "geneve:5", over_udp(6081, &[&[0, 0], &kind, &[0, 0, 5, 0], ip])),
        ("GTP-U", "gtp:0x1234", v4(17, &[&udp(2152, 2152, &[&gtp, ip])])),
        ("MPLS in UDP", "mpls:16", over_udp(6635, &[&[0, 1, 0x01, 64], ip])),
        ("IP in GRE in VXLAN", "vxlan:42", over_udp(4789, &[&header, &v4(47, &[&[0, 0], &kind, ip])])),
    ];
    if six {
        let authentication = [0, 1, 1, 2, 9, 8, 8, 1, 1, 1, 1, 1, 1, 1, 1, 0];
        let origin = [0, 0, 1, 2, 3, 4, 5, 6];
        all.push(("Teredo", "teredo", over_udp(3544, &[&authentication, &origin, ip])));
    }
    all
}

fn on_links(ip: &[u8]) -> Vec<Dress> {
    let (kind, _, ppp) = names(ip);
    let sll = [&[0; 14][..], &[0, 4]].concat();
    vec![
        ("PPP", "", LinkType::Ppp, [&[0xff, 3, 0, ppp][..], ip].concat()),
        ("PPP, compressed", "", LinkType::Ppp, [&[ppp][..], ip].concat()),
        ("PPPoE as a link", "pppoe:9", LinkType::PppEther, [&[0x11, 0, 0, 9, 0, 0, 0, ppp][..], ip].concat()),
        ("Cisco HDLC", "", LinkType::CiscoHdlc, [&[0x0f, 0][..], &kind, ip].concat()),
        ("802.11", "", LinkType::Ieee80211, wlan(ip)),
        ("802.11 with radiotap", "", LinkType::Radiotap, [&[0, 0, 12, 0][..], &[0; 8], &wlan(ip)].concat()),
        ("LLC in SLL", "", LinkType::LinuxSll, [sll, snap(ip)].concat()),
    ]
}
