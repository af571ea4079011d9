//! Community ID v1: one name for a flow in Zeek, Suricata, Arkime and here
//! (<https://github.com/corelight/community-id-spec>, seed 0). Made when a flow's row is written and when captures are
//! searched, on those threads; never by a worker.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The message each ICMP message is answered by, and the other way round (RFC 792, 950, 1256).
const ANSWERS: [(u8, u8); 5] = [(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)];
/// The same of ICMPv6: echo, listener, router and neighbour discovery, node information, home agents
/// (RFC 4443, 2710, 4861, 4620, 6275).
const ANSWERS_V6: [(u8, u8); 6] = [(128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)];

/// An end of a flow: address and port, 0 where the protocol has none.
pub type End = (IpAddr, u16);

/// The Community ID of what `src` sends to `dst` by IP protocol `proto`; `icmp` are type and code where that is ICMP.
pub fn of(proto: u8, src: End, dst: End, icmp: [u8; 2]) -> String {
    let [kind, code] = icmp;
    match proto {
        ICMP => icmp_id(src.0, dst.0, proto, (kind, code), &ANSWERS),
        ICMPV6 => icmp_id(src.0, dst.0, proto, (kind, code), &ANSWERS_V6),
        proto => ordered(src, dst, proto),
    }
}

/// ICMP types stand for ports where a message has an answer; type and code, not put in order, where not.
fn icmp_id(src: IpAddr, dst: IpAddr, proto: u8, (kind, code): (u8, u8), answers: &[(u8, u8)]) -> String {
    let answer = answers.iter().find_map(|(ask, answer)| match kind {
        kind if kind == *ask => Some(*answer),
        kind if kind == *answer => Some(*ask),
        _ => None,
    });
    match answer {
        Some(answer) => ordered((src, kind.into()), (dst, answer.into()), proto),
        None => digest((src, kind.into()), (dst, code.into()), proto),
    }
}

fn ordered(a: End, b: End, proto: u8) -> String {
    if a <= b { digest(a, b, proto) } else { digest(b, a, proto) }
}

fn digest(first: End, second: End, proto: u8) -> String {
    const SEED: [u8; 2] = [0, 0];
    let mut hash = Sha1::new();
    hash.update(SEED);
    for (address, _) in [first, second] {
        match address {
            IpAddr::V4(v4) => hash.update(v4.octets()),
            IpAddr::V6(v6) => hash.update(v6.octets()),
        }
    }
    hash.update([proto, 0]);
    hash.update(first.1.to_be_bytes());
    hash.update(second.1.to_be_bytes());
    format!("1:{}", STANDARD.encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn agrees_with_the_published_baseline() {
        for (proto, src, dst, sport, dport, id) in [
            (6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (6, "66.35.250.204", "128.232.110.120", 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
            (132, "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
            (
                6,
                "2607:f8b0:400c:c03::1a",
                "2001:470:e5bf:dead:4957:2174:e82c:4887",
                25,
                63943,
                "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            ),
        ] {
            assert_eq!(ordered((ip(src), sport), (ip(dst), dport), proto), id);
        }
    }

    #[test]
    fn icmp_agrees_with_the_published_baseline() {
        let v4 = |src, dst, kind, code| icmp_id(ip(src), ip(dst), ICMP, (kind, code), &ANSWERS);
        assert_eq!(v4("192.168.0.89", "192.168.0.1", 8, 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        assert_eq!(v4("192.168.0.1", "192.168.0.89", 0, 0), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        assert_eq!(v4("10.0.0.1", "10.0.0.2", 11, 0), "1:YHxtAirCG//0OzkcVAukqKQN9xM=");
        let v6 = |src, dst, kind, code| icmp_id(ip(src), ip(dst), ICMPV6, (kind, code), &ANSWERS_V6);
        let (near, far) = ("fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea");
        assert_eq!(v6(near, far, 135, 0), "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=");
        assert_eq!(v6(far, near, 136, 0), "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=");
        let host = "3ffe:507:0:1:200:86ff:fe05:80da";
        assert_eq!(v6("3ffe:501:1800:2345::2", host, 3, 0), "1:2ObVBgIn28oZvibYZhZMBgh7WdQ=");
        assert_eq!(v6("3ffe:501:410:0:2c0:dfff:fe47:33e", host, 1, 4), "1:hLZd0XGWojozrvxqE0dWB1iM6R0=");
        assert_eq!(v6(host, "3ffe:501:0:1001::2", 128, 0), "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg=");
        assert_eq!(v6(near, "ff02::2", 133, 0), "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0=");
    }
}
