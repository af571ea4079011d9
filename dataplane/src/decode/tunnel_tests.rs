//! Packets in packets, fragments and cut headers: decode against frames built by hand, and those by etherparse.
//! Tests only; on the test's thread.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::frames::{Seg, dressed, too_big};
use super::*;

fn of(link: LinkType, bytes: &[u8]) -> Packet {
    decode(link, bytes, bytes.len() as u32)
}

fn plain() -> Vec<u8> {
    Seg::new(true, flags::SYN, 5, 9).options(&[2, 4, 5, 0xb4, 4, 2, 1, 1]).data(10).ip()
}

/// The same segment over IPv6, hop limit 64.
fn plain_six() -> Vec<u8> {
    let tcp = &plain()[20..];
    let mut bytes = vec![0x60, 0, 0, 0, 0, tcp.len() as u8, 6, 64];
    for end in [1_u8, 2] {
        bytes.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
    }
    bytes.extend_from_slice(tcp);
    bytes
}

#[test]
fn the_innermost_packet_is_found_in_every_dress() {
    for ip in [plain(), plain_six()] {
        let bare = of(LinkType::Raw, &ip);
        for (name, tunnel, link, bytes) in dressed(&ip) {
            let p = of(link, &bytes);
            assert_eq!(
                (p.class, p.has_flow, p.key, p.from_low),
                (Class::Tcp, true, bare.key, bare.from_low),
                "{name}"
            );
            assert_eq!((p.tcp, p.ttl, p.ip_id, p.df, p.ecn), (bare.tcp, 64, bare.ip_id, true, 0), "{name}");
            assert_eq!((p.ip_len, usize::from(p.headers)), (bare.ip_len, bytes.len() - 10), "{name}");
            assert_eq!(p.tunnel.to_string(), tunnel, "{name}");
        }
    }
}

#[test]
fn tags_listed_are_those_of_the_innermost_frame_that_has_any() {
    let ip = plain();
    for (name, _, link, mut bytes) in dressed(&ip) {
        if link != LinkType::Ethernet || name.starts_with("LLC") {
            continue;
        }
        let untagged = of(link, &bytes).vlan;
        bytes.splice(12..12, [0x81, 0, 0, 9]);
        let p = of(link, &bytes);
        assert_eq!(p.class, Class::Tcp, "{name}");
        assert_eq!(p.vlan, if untagged == [0, 0] { [9, 0] } else { [77, 0] }, "{name}");
    }
}

/// What a decoder of headers cut anywhere may say: the right flow, the outer packet, or nothing.
#[test]
fn any_prefix_gives_the_flow_or_what_is_around_it() {
    for ip in [plain(), plain_six()] {
        let bare = of(LinkType::Raw, &ip);
        for (name, _, link, bytes) in dressed(&ip) {
            for cut in 0..bytes.len() {
                let p = decode(link, &bytes[..cut], bytes.len() as u32);
                // The inner TCP header needs its 20 bytes; behind it are 8 of options and 10 of payload.
                assert_eq!(p.class == Class::Tcp, cut + 18 >= bytes.len(), "{name}, cut at {cut}");
                if p.class == Class::Tcp {
                    assert_eq!((p.key, p.tcp.payload, p.ip_len), (bare.key, 10, bare.ip_len), "{name}");
                    assert_eq!(p.tcp.options.cut, cut + 10 < bytes.len(), "{name}, cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn nonsense_in_a_tunnel_leaves_the_packet_around_it() {
    let ip = plain();
    for (name, tunnel, link, bytes) in dressed(&ip) {
        let start = bytes.len() - ip.len();
        let mut bytes = bytes;
        bytes[start] = 0xf5;
        let p = of(link, &bytes);
        assert_ne!(p.class, Class::Tcp, "{name}");
        if tunnel.starts_with("vxlan") || tunnel.starts_with("g") && !tunnel.starts_with("gre") {
            assert_eq!((p.class, p.has_flow, p.depth), (Class::Udp, true, 0), "{name}");
            assert_eq!((p.ttl, p.ecn), if bytes[14] == 0x45 { (33, 2) } else { (33, 0) }, "{name}");
        }
    }
    // Headers that aren't one: VXLAN without its flag, GENEVE of another version, GTP signalling.
    for (name, at, value) in
        [("VXLAN", 42, 0_u8), ("GENEVE, IP", 42, 0x40), ("GTP-U", 42, 0x54), ("GTP-U", 43, 1)]
    {
        let (_, _, link, mut bytes) = dressed(&ip).into_iter().find(|(n, ..)| *n == name).unwrap();
        bytes[at] = value;
        let p = of(link, &bytes);
        assert_eq!(
            (p.class, p.tunnel, p.key.low_addr().to_string()),
            (Class::Udp, Tunnel::default(), "192.0.2.1".to_owned())
        );
    }
}

#[test]
fn a_tunnel_that_carries_no_ip_is_noted_on_its_own_flow() {
    let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
    let (_, _, link, bytes) = dressed(&plain()).into_iter().find(|(n, ..)| *n == "VXLAN").unwrap();
    let with_arp = [&bytes[..50], &arp].concat();
    let p = of(link, &with_arp);
    assert_eq!((p.class, p.tunnel.to_string()), (Class::Udp, "vxlan:42".to_owned()));
}

#[test]
fn nesting_ends() {
    let mut ip = plain();
    for depth in 1..12 {
        let [high, low] = (ip.len() as u16 + 20).to_be_bytes();
        let outer = [0x45, 0, high, low, 0, 0, 0, 0, 9, 4, 0, 0, 10, 9, 9, 9, 10, 8, 8, 8];
        ip = [&outer[..], &ip].concat();
        let p = of(LinkType::Raw, &ip);
        assert_eq!(p.class, if depth <= 6 { Class::Tcp } else { Class::OtherIp }, "{depth}");
    }
    // LLC in LLC, VLAN in LLC, without end.
    let snap = [0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0, 0, 1, 0, 200].repeat(5000);
    let p = of(LinkType::Ethernet, &[&[0; 12][..], &[0x81, 0, 0, 1, 0, 200], &snap].concat());
    assert_eq!(p.class, Class::NonIp);
}

#[test]
fn errors_and_fragments_in_tunnels_are_those_of_the_packet_inside() {
    let quoted = Seg::new(true, flags::ACK, 77, 1).data(1400);
    for (name, _, link, bytes) in dressed(&too_big(&quoted.ip(), 1300)) {
        let p = of(link, &bytes);
        let quote = p.icmp.quote.unwrap();
        assert_eq!(
            (p.class, p.icmp.kind, p.icmp.code, p.icmp.too_big),
            (Class::Icmp, 3, 4, Some(1300)),
            "{name}"
        );
        assert_eq!((quote.key, quote.seq), (quoted.packet().key, Some(77)), "{name}");
    }
    for offset in [0_u8, 3] {
        let mut ip = plain();
        ip[6..8].copy_from_slice(&[0x20, offset]);
        for (name, _, link, bytes) in dressed(&ip) {
            let p = of(link, &bytes);
            let part = if offset == 0 { Part::First } else { Part::Later };
            assert_eq!((p.fragment.part, p.fragment.depth), (part, p.depth), "{name}");
            assert_eq!(
                (p.fragment.id, p.fragment.offset, p.fragment.len),
                (7, u16::from(offset) * 8, 38),
                "{name}"
            );
            let (src, dst) = p.fragment.ends(&bytes).unwrap();
            assert_eq!((src[1] as u32, dst[1] as u32), (0x0a00_0001, 0x0a00_0002), "{name}");
            assert_eq!(p.has_flow, offset == 0, "{name}");
        }
    }
}

#[test]
fn a_fragment_of_the_packet_around_it_is_noted_and_the_inner_lengths_stand() {
    let ip = plain();
    for (name, _, link, mut bytes) in dressed(&ip) {
        if link != LinkType::Ethernet || bytes[12..15] != [8, 0, 0x45] || name == "authenticated" {
            continue;
        }
        // The first fragment of an outer packet: it ends in the inner payload.
        let total = bytes.len() as u16 - 14 - 6;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        bytes[20] = 0x20;
        bytes.truncate(usize::from(total) + 14);
        let p = of(link, &bytes);
        assert_eq!((p.class, p.tcp.payload, p.fragment.part), (Class::Tcp, 10, Part::First), "{name}");
        assert!(p.fragment.depth < p.depth, "{name}");
        assert_eq!(p.fragment.ends(&bytes).unwrap().0[1] as u32, 0xc000_0201, "{name}");
    }
}

#[test]
fn what_the_frame_was_too_short_for_was_not_on_the_wire() {
    let ip = plain();
    let p = decode(LinkType::Raw, &ip[..ip.len() - 4], ip.len() as u32 - 4);
    assert_eq!((p.tcp.payload, p.ip_len), (6, ip.len() as u32 - 4));
}

proptest! {
    /// Whatever is dressed up, damaged and cut gives a value, and a flow only for what has one.
    #[test]
    fn damaged_dresses_give_a_value(
        which in any::<prop::sample::Index>(), six in any::<bool>(), more in any::<u32>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = dressed(&if six { plain_six() } else { plain() });
        let (_, _, link, mut bytes) = all[which.index(all.len())].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let p = decode(link, &bytes, more);
        prop_assert!(!p.has_flow || matches!(p.class, Class::Tcp | Class::Udp | Class::Icmp));
        let _ = p.fragment.ends(&bytes);
    }

    /// Headers of a tunnel, then noise: further in than noise alone gets.
    #[test]
    fn noise_in_a_dress_gives_a_value(
        which in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let ip = plain();
        let all = dressed(&ip);
        let (_, _, link, mut bytes) = all[which.index(all.len())].clone();
        bytes.truncate(bytes.len() - ip.len());
        bytes.extend(noise);
        let p = of(link, &bytes);
        prop_assert!(!p.has_flow || matches!(p.class, Class::Tcp | Class::Udp | Class::Icmp));
    }

    /// What etherparse builds is found in every dress with the fields it was built of.
    #[test]
    fn dressed_packets_of_etherparse_keep_their_fields(
        six in any::<bool>(), ports in any::<(u16, u16)>(), seq in any::<u32>(), window in any::<u16>(),
        ttl in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..40), last in any::<(u8, u8)>(),
    ) {
        let mut bytes = Vec::new();
        if six {
            let end = |last| { let mut a = [0; 16]; (a[0], a[15]) = (0x20, last); a };
            PacketBuilder::ipv6(end(last.0), end(last.1), ttl)
                .tcp(ports.0, ports.1, seq, window).write(&mut bytes, &payload).unwrap();
        } else {
            PacketBuilder::ipv4([10, 0, 0, last.0], [10, 0, 0, last.1], ttl)
                .tcp(ports.0, ports.1, seq, window).write(&mut bytes, &payload).unwrap();
        }
        let bare = of(LinkType::Raw, &bytes);
        for (name, _, link, frame) in dressed(&bytes) {
            let p = of(link, &frame);
            prop_assert_eq!((p.class, p.key, p.from_low), (Class::Tcp, bare.key, bare.from_low), "{}", name);
            prop_assert_eq!((p.ttl, p.tcp.seq, p.tcp.window), (ttl, seq, window), "{}", name);
            prop_assert_eq!((p.tcp.payload as usize, p.checksum), (payload.len(), bare.checksum), "{}", name);
        }
    }
}
