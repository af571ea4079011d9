//! Decode against frames built by hand, against etherparse, and against anything at all.

use std::net::IpAddr;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::frames::{Seg, too_big};
use super::*;

fn raw(bytes: &[u8]) -> Packet {
    decode(LinkType::Raw, bytes, bytes.len() as u32)
}

fn seg() -> Seg {
    Seg::new(true, flags::ACK | flags::PSH, 5, 9).data(10)
}

/// (from, to) of a packet's flow.
fn ends(p: &Packet) -> [(IpAddr, u16); 2] {
    let (low, high) = ((p.key.low_addr(), p.key.low_port), (p.key.high_addr(), p.key.high_port));
    if p.from_low { [low, high] } else { [high, low] }
}

/// An IPv6 packet from ::1:1 to ::2:2 with these headers after the fixed one.
fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend([next, 61]);
    for end in [1_u8, 2] {
        bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
    }
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn every_link_type_leads_to_the_same_segment() {
    let ip = seg().ip();
    let six = v6(6, &ip[20..]);
    let with = |head: &[u8], body: &[u8]| [head, body].concat();
    let ethernet = |tags: &[u8], kind: &[u8]| [&[0; 12][..], tags, kind].concat();
    let mut sll = vec![0; 16];
    sll[14..].copy_from_slice(&[8, 0]);
    let mut sll2 = vec![0; 20];
    sll2[..2].copy_from_slice(&[8, 0]);
    let cases = [
        (LinkType::Ethernet, with(&ethernet(&[], &[8, 0]), &ip), [0, 0], 0),
        (LinkType::Ethernet, with(&ethernet(&[], &[0x86, 0xdd]), &six), [0, 0], 0),
        (LinkType::Ethernet, with(&ethernet(&[0x81, 0, 0xe0, 42], &[8, 0]), &ip), [42, 0], 1),
        (LinkType::Ethernet, with(&ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9], &[8, 0]), &ip), [7, 9], 2),
        (LinkType::LinuxSll, with(&sll, &ip), [0, 0], 0),
        (LinkType::LinuxSll2, with(&sll2, &ip), [0, 0], 0),
        (LinkType::Raw, ip.clone(), [0, 0], 0),
        (LinkType::Raw, six.clone(), [0, 0], 0),
        (LinkType::Null, with(&[2, 0, 0, 0], &ip), [0, 0], 0),
        (LinkType::Null, with(&[0, 0, 0, 30], &six), [0, 0], 0),
        (LinkType::Loop, with(&[0, 0, 0, 2], &ip), [0, 0], 0),
    ];
    for (link, bytes, vlan, depth) in cases {
        let p = decode(link, &bytes, bytes.len() as u32);
        assert_eq!((p.class, p.has_flow, p.vlan, p.vlan_depth), (Class::Tcp, true, vlan, depth), "{link:?}");
        assert_eq!((p.tcp.seq, p.tcp.ack, p.tcp.payload, p.tcp.window), (5, 9, 10, 1000));
        assert_eq!(usize::from(p.headers), bytes.len() - 10);
    }
    assert_eq!(decode(LinkType::Other(7), &ip, 50).class, Class::NonIp);
    assert_eq!(decode(LinkType::Ethernet, &ethernet(&[], &[8, 6]), 14).class, Class::NonIp);
    assert_eq!(raw(&[0x10; 40]).class, Class::Malformed);
}

#[test]
fn lengths_that_lie_or_are_left_to_the_card() {
    let mut ip = seg().ip();
    ip[2..4].copy_from_slice(&[0, 0]);
    let p = raw(&ip);
    assert_eq!((p.class, p.tcp.payload, p.ip_len), (Class::Tcp, 10, 50));
    // Options make the header longer; padding after the packet is not payload.
    let mut long = seg().ip();
    long[0] = 0x46;
    long[3] += 4;
    long.splice(20..20, [1, 1, 1, 0]);
    long.extend([0; 6]);
    let p = raw(&long);
    assert_eq!((p.class, p.tcp.seq, p.tcp.payload, p.ip_len), (Class::Tcp, 5, 10, 54));
    for (at, value) in [(0, 0x44), (0, 0x4f), (3, 19), (3, 39), (32, 0x40), (32, 0xf0)] {
        let mut bad = seg().ip();
        bad[at] = value;
        let p = raw(&bad);
        assert_eq!((p.class, p.has_flow), (Class::Malformed, false), "byte {at} = {value:#x}");
    }
}

#[test]
fn what_the_snap_length_cut_is_known_from_the_headers() {
    let options = [2, 4, 5, 0xb4, 1, 3, 3, 7, 1, 1, 4, 2];
    let ip = Seg::new(true, flags::SYN, 5, 0).options(&options).data(900).ip();
    for cut in 0..=ip.len() {
        let p = decode(LinkType::Raw, &ip[..cut], ip.len() as u32);
        assert_eq!(p.class == Class::Tcp, cut >= 40, "cut at {cut}");
        if cut >= 40 {
            assert_eq!((p.tcp.payload, p.ip_len), (900, ip.len() as u32));
            let o = p.tcp.options;
            let got = (o.mss, o.wscale, o.sack_permitted);
            let wanted = ((cut >= 44).then_some(1460), (cut >= 48).then_some(7), cut >= 52);
            assert_eq!(got, wanted, "cut at {cut}");
        }
    }
}

#[test]
fn tcp_options_are_read_as_far_as_they_can_be_believed() {
    let read = |options: &[u8], flag| {
        assert_eq!(options.len() % 4, 0);
        Seg::new(true, flag, 1, 1).options(options).packet().tcp.options
    };
    let blank = TcpOptions::default();
    let syn = read(&[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 200, 2, 4, 5, 0xb4, 0], flags::SYN);
    let all = TcpOptions {
        mss: Some(1460),
        wscale: Some(14),
        sack_permitted: true,
        timestamps: true,
        sack_blocks: 0,
        sack_edges: [0; 2],
        cut: false,
    };
    assert_eq!(syn, all);
    let plain = read(&[2, 4, 5, 0xb4, 3, 3, 7, 1], flags::ACK);
    assert_eq!(plain, blank, "only a SYN negotiates");
    assert!(read(&[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0], flags::ACK).timestamps);
    let sack = read(&[1, 1, 5, 18, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0], flags::ACK);
    assert_eq!((sack.sack_blocks, sack.sack_edges), (2, [256, 512]));
    for lie in [[2, 0, 4, 2], [2, 1, 4, 2], [8, 40, 4, 2], [0, 2, 4, 2], [1, 1, 1, 4]] {
        assert_eq!(read(&lie, flags::SYN), blank, "{lie:?}");
    }
    assert_eq!(read(&[2, 3, 5, 4, 2, 0, 0, 0], flags::SYN).mss, None, "an MSS of the wrong length");
}

#[test]
fn ipv6_extension_headers_lead_to_the_transport() {
    let tcp = seg().ip()[20..].to_vec();
    let chain = |parts: &[&[u8]]| [parts.concat(), tcp.clone()].concat();
    let hop = [60, 0, 0, 0, 0, 0, 0, 0];
    let dst = [51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let auth = [44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let atomic = [6, 0, 0, 0, 0, 0, 0xab, 0xcd];
    let p = raw(&v6(0, &chain(&[&hop, &dst, &auth, &atomic])));
    assert_eq!((p.class, p.tcp.payload, p.ip_id, p.df), (Class::Tcp, 10, Some(0xabcd), false));
    let first = [6, 0, 0, 1, 0, 0, 0, 1];
    assert_eq!(raw(&v6(44, &chain(&[&first]))).class, Class::Tcp);
    let later = [6, 0, 0, 8, 0, 0, 0, 1];
    let p = raw(&v6(44, &chain(&[&later])));
    assert_eq!((p.class, p.has_flow, p.key.proto), (Class::OtherIp, false, 6));
    let endless: Vec<u8> = [0_u8, 0, 0, 0, 0, 0, 0, 0].repeat(20);
    assert_eq!(raw(&v6(0, &endless)).class, Class::Malformed);
    assert_eq!(raw(&v6(59, &[])).class, Class::OtherIp);
    assert_eq!(raw(&v6(0, &[6, 9, 0, 0, 0, 0, 0, 0])).class, Class::Malformed, "longer than the packet");
    let mut v4_later = seg().ip();
    v4_later[7] = 1;
    assert_eq!(raw(&v4_later).class, Class::OtherIp);
}

#[test]
fn icmp_errors_name_the_flow_they_quote() {
    let quoted = Seg::new(false, flags::ACK, 0x01020304, 1).data(1400);
    let p = raw(&too_big(&quoted.ip(), 1300));
    let quote = p.icmp.quote.unwrap();
    let flow = quoted.packet();
    assert_eq!((p.class, p.icmp.too_big), (Class::Icmp, Some(1300)));
    assert_eq!((quote.key, quote.from_low, quote.seq), (flow.key, flow.from_low, Some(0x01020304)));
    let mut inner = v6(44, &[6, 0, 0, 1, 0, 0, 0, 1]);
    inner.extend(&quoted.ip()[20..28]);
    let error = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &inner].concat();
    let p = raw(&v6(58, &error));
    let quote = p.icmp.quote.unwrap();
    assert_eq!((p.icmp.too_big, quote.key.low_port, quote.key.high_port), (Some(1280), 80, 40_000));
    for cut in 0..error.len() {
        // Shorter than the ports: no flow; never a wrong one.
        let known = raw(&v6(58, &error[..cut])).icmp.quote;
        assert_eq!(known.is_some(), cut >= 8 + 48 + 4, "{cut}");
        assert!(known.is_none_or(|q| q.key == quote.key));
    }
    let echo = |kind, id| raw(&v6(58, &[kind, 0, 0, 0, 0, id, 0, 1]));
    assert_eq!(echo(128, 5).key, echo(129, 5).key);
    assert_ne!(echo(128, 5).key, echo(128, 6).key);
}

#[test]
fn both_directions_have_one_key_and_one_hash() {
    let (there, back) =
        (Seg::new(true, flags::ACK, 1, 1).packet(), Seg::new(false, flags::ACK, 1, 1).packet());
    assert_eq!(there.key, back.key);
    assert_ne!(there.from_low, back.from_low);
    assert_eq!(there.key.hash(77), back.key.hash(77));
    assert_ne!(there.key.hash(77), there.key.hash(78));
    let other = Seg::new(true, flags::ACK, 1, 1).port(40_001).packet();
    assert_ne!(there.key.hash(77), other.key.hash(77));
}

fn links() -> impl Strategy<Value = LinkType> {
    prop::sample::select(vec![
        LinkType::Ethernet,
        LinkType::LinuxSll,
        LinkType::LinuxSll2,
        LinkType::Raw,
        LinkType::Null,
        LinkType::Loop,
        LinkType::Ppp,
        LinkType::PppEther,
        LinkType::CiscoHdlc,
        LinkType::Ieee80211,
        LinkType::Radiotap,
        LinkType::Other(3),
    ])
}

proptest! {
    #[test]
    fn any_bytes_give_a_value(link in links(), bytes in prop::collection::vec(any::<u8>(), 0..200), more in any::<u32>()) {
        let p = decode(link, &bytes, more);
        prop_assert!(!p.has_flow || matches!(p.class, Class::Tcp | Class::Udp | Class::Icmp));
    }

    /// A good packet with a few bytes changed gets further than noise does.
    #[test]
    fn damaged_packets_give_a_value(
        form in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        more in any::<u32>(),
    ) {
        let tcp = Seg::new(true, flags::SYN, 1, 1).options(&[2, 4, 5, 0xb4, 4, 2, 1, 0]).data(8).ip();
        let chain = [&[60_u8, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 1][..], &tcp[20..]];
        let mut bytes = [tcp.clone(), v6(0, &chain.concat()), too_big(&tcp, 9)][form].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let cut = cut.index(bytes.len() + 1);
        let p = decode(LinkType::Raw, &bytes[..cut], more);
        prop_assert!(!p.has_flow || matches!(p.class, Class::Tcp | Class::Udp | Class::Icmp));
    }

    #[test]
    fn agrees_with_etherparse(
        six in any::<bool>(), udp in any::<bool>(), vlan in prop::option::of(0..4096_u16),
        ports in any::<(u16, u16)>(), seq in any::<u32>(), window in any::<u16>(), ttl in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..40), last in any::<(u8, u8)>(),
    ) {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let ip = |a: u8| [10, 0, 0, a];
        let ip6 = |a: u8| { let mut x = [0; 16]; (x[0], x[15]) = (0x20, a); x };
        let tagged = vlan.is_some();
        let vlan = etherparse::VlanId::try_new(vlan.unwrap_or(0)).unwrap();
        let builder = match (tagged, six) {
            (false, false) => builder.ipv4(ip(last.0), ip(last.1), ttl),
            (false, true) => builder.ipv6(ip6(last.0), ip6(last.1), ttl),
            (true, false) => builder.single_vlan(vlan).ipv4(ip(last.0), ip(last.1), ttl),
            (true, true) => builder.single_vlan(vlan).ipv6(ip6(last.0), ip6(last.1), ttl),
        };
        let mut bytes = Vec::new();
        if udp {
            builder.udp(ports.0, ports.1).write(&mut bytes, &payload).unwrap();
        } else {
            builder.tcp(ports.0, ports.1, seq, window).write(&mut bytes, &payload).unwrap();
        }
        let ours = decode(LinkType::Ethernet, &bytes, bytes.len() as u32);
        let theirs = SlicedPacket::from_ethernet(&bytes).unwrap();
        let (src, dst) = match theirs.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => unreachable!("no ARP was built"),
        };
        let wanted: [(IpAddr, u16); 2] = [(src, ports.0), (dst, ports.1)];
        prop_assert_eq!(ends(&ours), wanted);
        prop_assert_eq!((ours.ttl, usize::from(ours.headers)), (ttl, bytes.len() - payload.len()));
        prop_assert_eq!(ours.vlan[0], vlan.value());
        match theirs.transport.as_ref().unwrap() {
            TransportSlice::Tcp(tcp) => {
                prop_assert_eq!(ours.class, Class::Tcp);
                let got = (ours.tcp.seq, ours.tcp.window, ours.tcp.payload as usize);
                prop_assert_eq!(got, (tcp.sequence_number(), tcp.window_size(), payload.len()));
            }
            _ => prop_assert_eq!(ours.class, Class::Udp),
        }
    }
}

#[test]
fn options_that_the_capture_cut_off_are_unknown_not_absent() {
    let whole = Seg::new(true, flags::SYN, 1, 0).options(&[2, 4, 5, 0xb4, 4, 2, 1, 1]).ip();
    let cut = decode(LinkType::Raw, &whole[..whole.len() - 4], whole.len() as u32).tcp.options;
    assert_eq!((cut.mss, cut.sack_permitted, cut.cut), (Some(1460), false, true));
    let all = decode(LinkType::Raw, &whole, whole.len() as u32).tcp.options;
    assert_eq!((all.sack_permitted, all.cut), (true, false));
}
