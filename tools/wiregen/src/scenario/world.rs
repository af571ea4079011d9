//! A small network under construction: hosts, conversations with what is true of them, other packets.
//!
//! Runs on the caller's thread and holds a whole scenario in memory (tens of thousands of packets). Scenario
//! files fill it; `finish` orders everything by time, renders it and numbers the marked frames.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::trouble::{Claim, MS};
use super::{Options, Packet, START};
use crate::encap::wrap;
use crate::mirror;
use crate::packet::RST;
use crate::profile::{Net, Profile, Side, address};
use crate::render::render;
use crate::rng::Rng;
use crate::tcp::{Conversation, Segment};
use crate::truth::{Line, Scope, Truth};

/// What is said of a conversation in the truth.
enum Said {
    Healthy,
    Claims(Vec<Claim>),
    /// Too many of a kind to list; a host's or a service's line speaks for them.
    Nothing,
}

struct Flow {
    conversation: Conversation,
    said: Said,
    idle_s: Option<f64>,
}

/// A line about a host or a service; its marks are the packets with `bits` to or from it.
struct Wide {
    kind: &'static str,
    scope: Scope,
    host: IpAddr,
    port: Option<u16>,
    bits: u8,
}

/// What becomes of frames between their sender and the capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTheWay {
    #[default]
    Nothing,
    /// Each passes the mirror twice, some µs apart.
    Twice,
    /// What is larger than 576 bytes of IP is split.
    Split,
}

pub struct World {
    pub options: Options,
    pub rng: Rng,
    pub on_the_way: OnTheWay,
    flows: Vec<Flow>,
    loose: Vec<Packet>,
    wide: Vec<Wide>,
    ports: BTreeMap<IpAddr, u16>,
}

impl World {
    pub fn new(options: &Options) -> World {
        World {
            options: options.clone(),
            rng: Rng::new(options.seed),
            on_the_way: OnTheWay::Nothing,
            flows: Vec::new(),
            loose: Vec::new(),
            wide: Vec::new(),
            ports: BTreeMap::new(),
        }
    }

    pub fn host(&self, net: Net, n: u32) -> IpAddr {
        address(net, self.options.v6, n)
    }

    /// How many flows a scenario makes: as asked, else its own number.
    pub fn flows(&self, usual: u32) -> u32 {
        self.options.flows.unwrap_or(usual).clamp(1, 20_000)
    }

    /// The silence of a scenario, ns: as asked, else its own.
    pub fn idle(&self, usual_s: f64) -> u64 {
        (self.options.idle_s.unwrap_or(usual_s).clamp(0.0, 1e6) * 1e9) as u64
    }

    /// The client's next ephemeral port, above those that look like traceroute's.
    pub fn port(&mut self, client: IpAddr) -> u16 {
        let first = 34_000 + self.rng.below(4000) as u16;
        let port = self.ports.entry(client).or_insert(first);
        *port = if *port > 60_000 { 34_000 } else { *port + 1 };
        *port
    }

    /// A new conversation of client `n` with a service, `at` ns after the start.
    pub fn open(&mut self, client: u32, server: (u32, u16), at: u64) -> Conversation {
        let client = self.host(Net::Clients, client);
        let port = self.port(client);
        let server = (self.host(Net::Servers, server.0), server.1);
        self.open_from((client, port), server, at)
    }

    /// The same between given ends.
    pub fn open_from(&mut self, client: (IpAddr, u16), server: (IpAddr, u16), at: u64) -> Conversation {
        let mut rng = Rng::new(self.rng.next_u64());
        let mut profile = Profile::new(&mut rng, client, server);
        profile.vlan = self.options.vlan;
        Conversation::new(profile, rng, START + at)
    }

    pub fn healthy(&mut self, conversation: Conversation) {
        self.flows.push(Flow { conversation, said: Said::Healthy, idle_s: None });
    }

    /// A healthy flow whose longest silence is worth telling.
    pub fn healthy_after(&mut self, conversation: Conversation, idle: u64) {
        self.flows.push(Flow { conversation, said: Said::Healthy, idle_s: Some(idle as f64 / 1e9) });
    }

    pub fn troubled(&mut self, conversation: Conversation, claims: Vec<Claim>) {
        self.flows.push(Flow { conversation, said: Said::Claims(claims), idle_s: None });
    }

    pub fn troubled_after(&mut self, conversation: Conversation, claims: Vec<Claim>, idle: u64) {
        self.flows.push(Flow { conversation, said: Said::Claims(claims), idle_s: Some(idle as f64 / 1e9) });
    }

    pub fn unlisted(&mut self, conversation: Conversation) {
        self.flows.push(Flow { conversation, said: Said::Nothing, idle_s: None });
    }

    /// A packet that belongs to no conversation, `at` ns after the start.
    pub fn loose(&mut self, at: u64, bytes: Vec<u8>) {
        self.loose.push(Packet { ts: START + at, bytes });
    }

    /// A host does it: `kind` is shown by the packets it sent with `bits`.
    pub fn claim_host(&mut self, kind: &'static str, host: IpAddr, bits: u8) {
        self.wide.push(Wide { kind, scope: Scope::Host, host, port: None, bits });
    }

    /// It happens to a service: `kind` is shown by the packets sent to it with `bits`.
    pub fn claim_service(&mut self, kind: &'static str, service: (IpAddr, u16), bits: u8) {
        self.wide.push(Wide { kind, scope: Scope::Service, host: service.0, port: Some(service.1), bits });
    }

    /// All packets in time order, and the truth with its frame numbers.
    pub fn finish(mut self) -> (Vec<Packet>, Truth) {
        let mut order: Vec<(u64, usize, usize)> = Vec::new();
        for (i, flow) in self.flows.iter_mut().enumerate() {
            flow.conversation.sort();
            order.extend(flow.conversation.segments.iter().enumerate().map(|(j, s)| (s.at, i, j)));
        }
        let flows = self.flows.len();
        order.extend(self.loose.iter().enumerate().map(|(j, p)| (p.ts, flows, j)));
        order.sort_unstable();

        let mut packets = Vec::with_capacity(order.len());
        let mut flow_marks: Vec<Vec<(u8, u64)>> = vec![Vec::new(); flows];
        let mut wide_marks: Vec<Vec<u64>> = vec![Vec::new(); self.wide.len()];
        let mut frame = Vec::with_capacity(2048);
        for (ts, i, j) in order {
            let number = packets.len() as u64 + 1;
            let Some(flow) = self.flows.get(i) else {
                let bytes = std::mem::take(&mut self.loose[j].bytes);
                self.arrive(ts, bytes, &mut packets);
                continue;
            };
            let s = flow.conversation.segments[j];
            render(&flow.conversation.profile, &s, &mut frame);
            self.arrive(ts, frame.clone(), &mut packets);
            if s.marks != 0 {
                flow_marks[i].push((s.marks, number));
                for (wide, marks) in self.wide.iter().zip(&mut wide_marks) {
                    if wide.shows(&flow.conversation.profile, &s) {
                        marks.push(number);
                    }
                }
            }
        }
        if self.on_the_way == OnTheWay::Twice {
            packets.sort_by_key(|p| p.ts);
        }
        let mut lines: Vec<Line> = Vec::new();
        for (wide, marks) in self.wide.iter().zip(wide_marks) {
            lines.push(wide.line(marks));
        }
        for (flow, marks) in self.flows.iter().zip(&flow_marks) {
            flow.lines(marks, &mut lines);
        }
        (packets, Truth { lines })
    }
}

impl World {
    /// A frame as the capture gets it: in its tunnel, if there is one, after what became of it on the way.
    fn arrive(&self, ts: u64, frame: Vec<u8>, packets: &mut Vec<Packet>) {
        let encap = self.options.encap;
        let mut push = |ts, frame: &[u8]| packets.push(Packet { ts, bytes: wrap(encap, frame) });
        match self.on_the_way {
            OnTheWay::Nothing => push(ts, &frame),
            OnTheWay::Twice => {
                push(ts, &frame);
                // Behind a queue that a few frames may be in.
                push(ts + 4_000 + ts % 23 * 1000, &mirror::next_hop(&frame));
            }
            OnTheWay::Split => {
                let id = packets_id(ts, &frame);
                mirror::fragments(&frame, 552, id).iter().for_each(|part| push(ts, part));
            }
        }
    }
}

/// Differs between packets of one sender that are under way at once.
fn packets_id(ts: u64, frame: &[u8]) -> u32 {
    frame.iter().fold(ts as u32, |id, &byte| id.rotate_left(5) ^ u32::from(byte))
}

impl Wide {
    fn shows(&self, profile: &Profile, s: &Segment) -> bool {
        let who = if self.scope == Scope::Host { s.side } else { s.side.other() };
        let end = profile.end(who);
        s.marks & self.bits != 0 && end.ip == self.host && self.port.is_none_or(|port| port == end.port)
    }

    fn line(&self, marks: Vec<u64>) -> Line {
        let host = self.scope == Scope::Host;
        Line {
            scope: self.scope,
            kind: self.kind.to_owned(),
            src: None,
            sport: None,
            dst: (!host).then_some(self.host),
            dport: self.port,
            host: host.then_some(self.host),
            count: Some(marks.len() as u32),
            marks,
            main: true,
            idle_s: None,
            close: None,
        }
    }
}

impl Flow {
    fn lines(&self, marks: &[(u8, u64)], out: &mut Vec<Line>) {
        let healthy = Claim { kind: "healthy", count: None, bits: 0, main: false };
        let claims = match &self.said {
            Said::Healthy => std::slice::from_ref(&healthy),
            Said::Claims(claims) => claims,
            Said::Nothing => &[],
        };
        for claim in claims {
            let mut line = flow_line(&self.conversation.profile, claim);
            line.marks = marks.iter().filter(|(bits, _)| bits & claim.bits != 0).map(|(_, n)| *n).collect();
            line.idle_s = self.idle_s;
            if matches!(self.said, Said::Healthy) {
                line.close = Some(self.ending().to_owned());
            }
            out.push(line);
        }
    }

    fn ending(&self) -> &'static str {
        let flags = self.conversation.segments.iter().fold(0, |all, s| all | s.flags);
        if flags & RST != 0 {
            "rst"
        } else if flags & crate::packet::FIN != 0 {
            "fin"
        } else {
            "open"
        }
    }
}

/// A line about a flow, without marks.
pub fn flow_line(profile: &Profile, claim: &Claim) -> Line {
    let (client, server) = (profile.end(Side::Client), profile.end(Side::Server));
    Line {
        scope: Scope::Flow,
        kind: claim.kind.to_owned(),
        src: Some(client.ip),
        sport: Some(client.port),
        dst: Some(server.ip),
        dport: Some(server.port),
        host: None,
        count: claim.count,
        marks: Vec::new(),
        main: claim.main,
        idle_s: None,
        close: None,
    }
}

/// Some time between two moments, ns.
pub fn between(rng: &mut Rng, from_s: f64, to_s: f64) -> u64 {
    rng.range((from_s * 1e9) as u64, ((to_s * 1e9) as u64).max((from_s * 1e9) as u64 + MS))
}
