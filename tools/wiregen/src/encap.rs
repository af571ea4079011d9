//! Puts frames into tunnels, as a tap between the tunnel's ends would see them.
//!
//! Runs wherever packets are made; keeps no state. Takes a finished frame and gives another; lengths and the outer
//! IPv4 checksum are valid, the outer UDP checksum is 0 as tunnels send it. Frames go back to whoever renders.

use crate::packet::{fold, sum};

/// Id every tunnel here has, where it has one (GTP: 0x2a).
pub const ID: u32 = 42;

/// What frames are put into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encap {
    #[default]
    None,
    Vxlan,
    /// Over IPv6.
    Vxlan6,
    /// With one option of eight bytes.
    Geneve,
    /// IP in GRE with a key.
    Gre,
    /// Ethernet in GRE without one.
    GreBridged,
    /// Type II.
    Erspan,
    IpIp,
    /// Two labels, then IP.
    Mpls,
    /// A label, a control word, then the frame.
    MplsEthernet,
    Pppoe,
    /// With the extension header that 5G has.
    Gtp,
}

impl Encap {
    pub const ALL: [Encap; 12] = [
        Encap::None,
        Encap::Vxlan,
        Encap::Vxlan6,
        Encap::Geneve,
        Encap::Gre,
        Encap::GreBridged,
        Encap::Erspan,
        Encap::IpIp,
        Encap::Mpls,
        Encap::MplsEthernet,
        Encap::Pppoe,
        Encap::Gtp,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Encap::None => "none",
            Encap::Vxlan => "vxlan",
            Encap::Vxlan6 => "vxlan6",
            Encap::Geneve => "geneve",
            Encap::Gre => "gre",
            Encap::GreBridged => "gre-bridged",
            Encap::Erspan => "erspan",
            Encap::IpIp => "ipip",
            Encap::Mpls => "mpls",
            Encap::MplsEthernet => "mpls-ethernet",
            Encap::Pppoe => "pppoe",
            Encap::Gtp => "gtp",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Encap> {
        Encap::ALL.into_iter().find(|encap| encap.name() == name)
    }

    /// Carries IP only: other frames stay as they are.
    const fn needs_ip(self) -> bool {
        matches!(self, Encap::Gre | Encap::IpIp | Encap::Mpls | Encap::Pppoe | Encap::Gtp)
    }
}

/// The frame in its tunnel.
pub fn wrap(encap: Encap, frame: &[u8]) -> Vec<u8> {
    let Some((at, six)) = ip(frame).or((!encap.needs_ip()).then_some((frame.len(), false))) else {
        return frame.to_vec();
    };
    // Padding is the frame's, not the packet's.
    let inside = &frame[at..at + ip_len(&frame[at..], six)];
    let ether_type: u16 = if six { 0x86dd } else { 0x0800 };
    let [high, low] = ether_type.to_be_bytes();
    let id = ID as u8;
    match encap {
        Encap::None => frame.to_vec(),
        Encap::Vxlan | Encap::Vxlan6 => {
            udp(frame, 4789, &[8, 0, 0, 0, 0, 0, id, 0], frame, encap == Encap::Vxlan6)
        }
        Encap::Geneve => {
            let header = [2, 0, 0x65, 0x58, 0, 0, id, 0, 1, 2, 3, 1, 9, 9, 9, 9];
            udp(frame, 6081, &header, frame, false)
        }
        Encap::Gtp => {
            let len = (inside.len() + 8) as u16;
            let [len_high, len_low] = len.to_be_bytes();
            let header = [0x34, 255, len_high, len_low, 0, 0, 0, id, 0, 0, 0, 0x85, 1, 0, 9, 0];
            udp(frame, 2152, &header, inside, false)
        }
        Encap::Gre => outer(frame, 47, &[&[0x20, 0, high, low, 0, 0, 0, id], inside], false),
        Encap::GreBridged => outer(frame, 47, &[&[0, 0, 0x65, 0x58], frame], false),
        Encap::Erspan => {
            let header = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 7, 0x10, 1, 0, id, 0, 0, 0, 0];
            outer(frame, 47, &[&header, frame], false)
        }
        Encap::IpIp => outer(frame, if six { 41 } else { 4 }, &[inside], false),
        Encap::Mpls => {
            let labels = [0, 0x3e, 0x80, 64, 0, 0x02, 0xa1, 64];
            link(frame, 0x8847, &[&labels, inside])
        }
        Encap::MplsEthernet => link(frame, 0x8847, &[&[0, 0x02, 0xa1, 64, 0, 0, 0, 0], frame]),
        Encap::Pppoe => {
            let [len_high, len_low] = ((inside.len() + 2) as u16).to_be_bytes();
            let proto = if six { 0x57 } else { 0x21 };
            link(frame, 0x8864, &[&[0x11, 0, 0, id, len_high, len_low, 0, proto], inside])
        }
    }
}

/// Where the IP header of a frame is, and whether it is IPv6.
pub fn ip(frame: &[u8]) -> Option<(usize, bool)> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    match frame.get(at..at + 2)? {
        [8, 0] => Some((at + 2, false)),
        [0x86, 0xdd] => Some((at + 2, true)),
        _ => None,
    }
}

/// Length of the IP packet that begins here, 0 for none.
pub fn ip_len(packet: &[u8], six: bool) -> usize {
    let word = |at: usize| packet.get(at..at + 2).map_or(0, |b| usize::from(b[0]) << 8 | usize::from(b[1]));
    if six { word(4) + 40 } else { word(2) }
}

fn link(inner: &[u8], ether_type: u16, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = inner[..12].to_vec();
    out.extend_from_slice(&ether_type.to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// The tunnel's ends are the two routers of the link; the outer packet goes the way of the inner one.
fn outer(inner: &[u8], protocol: u8, parts: &[&[u8]], six: bool) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let there = inner[6..12] < inner[..6];
    let (from, to) = if there { (1, 2) } else { (2, 1) };
    if six {
        let [high, low] = (len as u16).to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 63];
        for end in [from, to] {
            header.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
        }
        return link(inner, 0x86dd, &[&[&header[..]], parts].concat());
    }
    let [high, low] = ((20 + len) as u16).to_be_bytes();
    let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, 63, protocol, 0, 0, 192, 0, 2, from, 192, 0, 2, to];
    let check = fold(sum(0, &header));
    header[10..12].copy_from_slice(&check.to_be_bytes());
    link(inner, 0x0800, &[&[&header[..]], parts].concat())
}

fn udp(inner: &[u8], port: u16, header: &[u8], body: &[u8], six: bool) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let [len_high, len_low] = ((8 + header.len() + body.len()) as u16).to_be_bytes();
    // The source port spreads flows over paths; GTP has its own on both sides.
    let source = if port == 2152 { [high, low] } else { [0xc0, inner[inner.len() - 1]] };
    outer(inner, 17, &[&[source[0], source[1], high, low, len_high, len_low, 0, 0], header, body], six)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, Ethernet, Ip};
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn a_frame_is_whole_in_its_tunnel_and_lengths_are_right() {
        let v4 = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let ip_header = Ip { src: v4(1), dst: v4(2), ttl: 64, id: 7, dont_fragment: true };
        let eth = Ethernet { src: [2; 6], dst: [4; 6], vlan: [0, 0] };
        let (mut frame, mut arp) = (Vec::new(), Vec::new());
        packet::udp(&mut frame, &eth, &ip_header, 5, 6, &[7; 40]);
        packet::arp(&mut arp, &eth, false, [1; 4], [2; 4]);
        for encap in Encap::ALL {
            assert_eq!(Encap::named(encap.name()), Some(encap));
            let wrapped = wrap(encap, &frame);
            assert!(wrapped.ends_with(&frame[14..]), "{encap:?}");
            assert_eq!(wrapped.len() > frame.len(), encap != Encap::None, "{encap:?}");
            if let Some((at, six)) = ip(&wrapped) {
                assert_eq!(ip_len(&wrapped[at..], six), wrapped.len() - at, "{encap:?}");
                assert!(six || fold(sum(0, &wrapped[at..at + 20])) == 0, "{encap:?}");
            }
            assert_eq!(wrap(encap, &arp) == arp, encap == Encap::None || encap.needs_ip(), "{encap:?}");
        }
    }
}
