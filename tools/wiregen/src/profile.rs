//! The two ends of a flow and the path between them: what stays the same over a conversation.
//!
//! Plain data made from a seed; no packets yet. A host always has the same TTL, and a path the same link
//! addresses, so that what differs in a capture differs on purpose. Goes into tcp.rs and render.rs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::Ethernet;
use crate::rng::{Rng, mix64};

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    pub fn index(self) -> usize {
        self as usize
    }
}

/// What one end is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    pub ip: IpAddr,
    pub port: u16,
    /// TTL or hop limit as seen at the tap.
    pub ttl: u8,
    /// MSS option, bytes.
    pub mss: u16,
    /// Window scale shift in its SYN or SYN-ACK, if it sends the option.
    pub wscale: Option<u8>,
    /// SACK-permitted is in its SYN or SYN-ACK.
    pub sack: bool,
    /// Receive window it advertises, bytes.
    pub window: u32,
    pub isn: u32,
    /// Its time stamp clock at the capture's start, ms (RFC 7323).
    pub clock: u32,
    pub ip_id: u16,
    /// Round trip between the tap and this end, ns.
    pub rtt: u64,
}

/// What the payload looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Lines of JSON.
    Text,
    /// TLS 1.3: hellos, then application data records.
    Tls,
    /// An HTTP/1.1 request; answers begin with a status line, then JSON.
    Http { failed: bool },
}

/// Both ends and the path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    pub ends: [End; 2],
    pub timestamps: bool,
    pub vlan: [u16; 2],
    pub content: Content,
}

/// Ports whose flows carry TLS.
pub const TLS_PORTS: [u16; 2] = [443, 8443];

impl Profile {
    /// Two hosts of usual make: DF set, window scale 7, SACK, mostly time stamps; RTT 0.2–80 ms, log-uniform.
    pub fn new(rng: &mut Rng, client: (IpAddr, u16), server: (IpAddr, u16)) -> Profile {
        let rtt = rng.log_uniform(0.2, 80.0) * 1e6;
        let near = rng.range(10, 60) as f64 / 100.0;
        let mut end = |(ip, port): (IpAddr, u16), rtt: f64| End {
            ip,
            port,
            ttl: host_ttl(ip),
            mss: if ip.is_ipv4() { 1460 } else { 1440 },
            wscale: Some(7),
            sack: true,
            window: 0x4000 << 7,
            isn: rng.next_u32(),
            clock: rng.next_u32(),
            ip_id: rng.next_u32() as u16,
            rtt: rtt as u64,
        };
        let ends = [end(client, rtt * near), end(server, rtt * (1.0 - near))];
        let content = if TLS_PORTS.contains(&server.1) { Content::Tls } else { Content::Text };
        Profile { ends, timestamps: rng.percent(85), vlan: [0; 2], content }
    }

    pub fn end(&self, side: Side) -> &End {
        &self.ends[side.index()]
    }

    pub fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side.index()]
    }

    /// Payload of a full segment, bytes.
    pub fn full_payload(&self) -> u32 {
        let mss = self.ends[0].mss.min(self.ends[1].mss);
        u32::from(mss.saturating_sub(if self.timestamps { 12 } else { 0 })).max(1)
    }

    /// What `side` writes into the window field outside of SYNs to advertise `bytes`.
    pub fn window_field(&self, side: Side, bytes: u32) -> u16 {
        let both = self.ends.iter().all(|e| e.wscale.is_some());
        let shift = if both { self.end(side).wscale.unwrap_or(0) } else { 0 };
        (bytes >> shift).min(0xffff) as u16
    }

    /// The window `side` really grants with that field, bytes.
    pub fn window(&self, side: Side) -> u32 {
        let both = self.ends.iter().all(|e| e.wscale.is_some());
        let shift = if both { self.end(side).wscale.unwrap_or(0) } else { 0 };
        u32::from(self.window_field(side, self.end(side).window)) << shift
    }

    /// The frame header of packets `side` sends, as the tap between two routers sees it.
    pub fn ethernet(&self, side: Side) -> Ethernet {
        link(self.vlan, side)
    }
}

/// The tap's link: two routers, the clients' and the servers'.
pub fn link(vlan: [u16; 2], from: Side) -> Ethernet {
    let eth = Ethernet { src: [2, 0, 0x5e, 0x20, 0, 1], dst: [2, 0, 0x5e, 0x50, 0, 1], vlan };
    if from == Side::Client { eth } else { eth.reversed() }
}

/// The router in the path that may send ICMP errors, in the flow's address family.
pub fn router(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 20, 255, 1)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0xffff, 0, 0, 0, 1)),
    }
}

/// TTL of a host at the tap: 64 less one to six hops, always the same for one address.
pub fn host_ttl(ip: IpAddr) -> u8 {
    let key = match ip {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() as u64 ^ (v6.to_bits() >> 64) as u64,
    };
    64 - 1 - (mix64(key) % 6) as u8
}

/// Which side of the network a generated address is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    Clients,
    Servers,
}

/// The `n`th host of a network: 10.20.0.0/16 or 10.50.0.0/16, or 2001:db8:20:: and 2001:db8:50::.
pub fn address(net: Net, v6: bool, n: u32) -> IpAddr {
    let [_, _, high, low] = n.to_be_bytes();
    let second = if net == Net::Clients { 20 } else { 50 };
    if v6 {
        let group = if net == Net::Clients { 0x20 } else { 0x50 };
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, (n >> 16) as u16, n as u16))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, second, high, low))
    }
}
