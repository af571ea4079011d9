//! One flow of the mix: what it will be, and its packets, an exchange at a time.
//!
//! Runs on the mix's thread. All of a flow follows from seed and number, so that planning and living agree. A
//! healthy flow spends exactly its share of packets and leaves nothing unacknowledged.

use std::net::IpAddr;

use super::Options;
use crate::content;
use crate::packet::{self, Ip};
use crate::profile::Side::{Client, Server};
use crate::profile::{Net, Profile, address, host_ttl, link};
use crate::render::render;
use crate::rng::{Rng, mix64};
use crate::scenario::{flow_line, trouble};
use crate::tcp::{Conversation, LastAck};
use crate::truth::Line;

/// Client and server hosts.
const CLIENTS: u64 = 50_000;
const SERVERS: u64 = 2_000;
/// The servers' ports; each server has one.
const PORTS: [u16; 8] = [443, 443, 443, 8443, 5432, 6379, 9092, 50_051];
/// Segments of one answer at most.
const LONGEST_ANSWER: u64 = 256;

/// What a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Dns,
    /// Index into [`trouble::PLAYS`].
    Troubled(usize),
    /// The fewest packets it can have.
    Healthy {
        least: u32,
    },
}

/// How a healthy flow ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Fin,
    FinInFour,
    Rst,
    Open,
}

impl Ending {
    fn packets(self) -> u32 {
        match self {
            Ending::Fin => 3,
            Ending::FinInFour => 4,
            Ending::Rst => 1,
            Ending::Open => 0,
        }
    }
}

/// A flow before it begins.
pub struct Plan {
    pub class: Class,
    v6: bool,
    client: (IpAddr, u16),
    server: (IpAddr, u16),
    ending: Ending,
    rng: Rng,
    start: u64,
}

/// What flow `id` will be.
pub fn plan(options: &Options, id: u64) -> Plan {
    let mut rng = Rng::stream(options.seed, id);
    let v6 = rng.percent(5);
    let dns = rng.percent(3);
    let troubled = !dns && rng.percent(2);
    let which = rng.below(trouble::MIXED) as usize;
    let server = 1 + rng.below(SERVERS) as u32;
    let dport = PORTS[(mix64(u64::from(server)) % PORTS.len() as u64) as usize];
    // Unique for each flow: the host by number, then the port by round.
    let host = (id % CLIENTS) as u32 + 1;
    let sport = 1100 + ((id / CLIENTS + mix64(u64::from(host)) % 60_000) % 64_000) as u16;
    let ending = match rng.below(100) {
        0..60 => Ending::Fin,
        60..85 => Ending::FinInFour,
        85..91 => Ending::Rst,
        _ => Ending::Open,
    };
    let class = match (dns, troubled) {
        (true, _) => Class::Dns,
        (_, true) => Class::Troubled(which),
        _ => Class::Healthy { least: 3 + 3 + ending.packets() },
    };
    Plan {
        class,
        v6,
        client: (address(Net::Clients, v6, host), sport),
        server: (address(Net::Servers, v6, server), if dns { 53 } else { dport }),
        ending,
        start: options.start(id),
        rng,
    }
}

impl Plan {
    fn conversation(&self) -> Conversation {
        let mut rng = self.rng.clone();
        let profile = Profile::new(&mut rng, self.client, self.server);
        Conversation::new(profile, rng, self.start)
    }

    /// Packets, and the line of truth, of a flow that is not healthy TCP.
    pub fn fixed(&self) -> (u32, Option<Line>) {
        let Class::Troubled(which) = self.class else { return (2, None) };
        let mut c = self.conversation();
        let claims = (trouble::PLAYS[which].1)(&mut c);
        let line = claims.iter().find(|claim| claim.main).map(|claim| flow_line(&c.profile, claim));
        (c.segments.len() as u32, line)
    }
}

/// A flow in mid-life.
pub struct Live {
    conversation: Conversation,
    /// Next of the conversation's segments, or of the DNS packets.
    at: usize,
    /// Packets still to be made before the ending.
    budget: u32,
    /// How often, in a hundred exchanges, the answer is long; more often the longer the flow.
    long_percent: u64,
    /// Longest pause between exchanges, ms.
    longest_pause: f64,
    ending: Option<Ending>,
    dns: Option<[(u64, Vec<u8>); 2]>,
    v6: bool,
}

impl Live {
    pub fn new(options: &Options, id: u64, start: u64, packets: u32) -> Live {
        let plan = plan(options, id);
        let mut c = plan.conversation();
        let (mut budget, mut ending, mut answered) = (0, None, None);
        match plan.class {
            Class::Dns => answered = Some(dns(&plan, &mut c.rng, start)),
            Class::Troubled(which) => {
                (trouble::PLAYS[which].1)(&mut c);
            }
            Class::Healthy { .. } => {
                budget = packets.saturating_sub(3 + plan.ending.packets());
                if budget > 300 {
                    // A long transfer over a long path would outlast the mix by minutes.
                    c.profile.ends.iter_mut().for_each(|end| end.rtt = end.rtt.min(5 * trouble::MS));
                }
                c.handshake();
                ending = Some(plan.ending);
            }
        }
        c.sort();
        let long_percent = match budget {
            0..=120 => 0,
            121..=1500 => 1,
            _ => 6,
        };
        // Some four packets an exchange, and a fifth of the mix's time for all its pauses.
        let exchanges = f64::from(budget.max(4)) / 4.0;
        let mean_pause = options.seconds as f64 * 200.0 / exchanges;
        let longest_pause = (9.0 * mean_pause).clamp(2.0, 8000.0);
        Live {
            conversation: c,
            at: 0,
            budget,
            long_percent,
            longest_pause,
            ending,
            dns: answered,
            v6: plan.v6,
        }
    }

    pub fn is_tcp(&self) -> bool {
        self.dns.is_none()
    }

    pub fn is_ipv6(&self) -> bool {
        self.v6
    }

    /// When the next packet is due, if there is one.
    pub fn next_at(&self) -> Option<u64> {
        match &self.dns {
            Some(packets) => packets.get(self.at).map(|(at, _)| *at),
            None => self.conversation.segments.get(self.at).map(|s| s.at),
        }
    }

    /// Replaces `out` by the frame that is due.
    pub fn render(&self, out: &mut Vec<u8>) {
        if let Some(packets) = &self.dns {
            out.clear();
            out.extend_from_slice(packets.get(self.at).map_or(&[], |(_, bytes)| bytes));
        } else if let Some(s) = self.conversation.segments.get(self.at) {
            render(&self.conversation.profile, s, out);
        }
    }

    /// Goes on to the next packet and says when it is due; `None` at the end of the flow.
    pub fn advance(&mut self) -> Option<u64> {
        self.at += 1;
        if self.dns.is_none() && self.at == self.conversation.segments.len() {
            self.at = 0;
            self.conversation.segments.clear();
            self.refill();
            self.conversation.sort();
        }
        self.next_at()
    }

    /// The next exchange, or the ending.
    fn refill(&mut self) {
        if self.budget >= 2 {
            return self.exchange();
        }
        let c = &mut self.conversation;
        match self.ending.take() {
            Some(Ending::Fin) => c.close(Client, false),
            Some(Ending::FinInFour) => c.close(Server, true),
            Some(Ending::Rst) => {
                c.abort(Client);
            }
            Some(Ending::Open) | None => {}
        }
    }

    /// A request and its answer, for no more packets than are left, never leaving a single one.
    fn exchange(&mut self) {
        let c = &mut self.conversation;
        let first = c.next[Client.index()] == c.profile.end(Client).isn.wrapping_add(1);
        let hello = if first { content::first_message(c.profile.content) } else { None };
        let request = hello.unwrap_or_else(|| c.rng.range(60, 500) as u32);
        let pause = c.rng.log_uniform(0.3, self.longest_pause) * 1e6;
        if !first {
            c.silence(pause as u64);
        }
        if self.budget == 2 {
            c.send(Client, request, LastAck::Sent);
            self.budget = 0;
            return;
        }
        let prompt = self.budget == 4 || (self.budget > 6 && c.rng.percent(25));
        let wanted = match c.rng.below(100) {
            n if n < self.long_percent => c.rng.range(8, LONGEST_ANSWER),
            86.. => c.rng.range(2, 10),
            _ => 1,
        } as u32;
        // Request, its own ACK if prompt, k segments and one ACK for each two of them.
        let cost = |k: u32| 1 + u32::from(prompt) + k + k.div_ceil(2);
        let mut k = wanted;
        while k > 1 && (cost(k) > self.budget || self.budget - cost(k) == 1) {
            k -= 1;
        }
        let mut prompt = prompt;
        if cost(k) > self.budget || self.budget - cost(k) == 1 {
            prompt = !prompt;
        }
        let full = c.max_payload;
        let short =
            if k > 1 { c.rng.range(1, u64::from(full) + 1) } else { c.rng.log_uniform(40.0, 1200.0) as u64 };
        let answer = (k - 1) * full + (short as u32).min(full);
        c.send(Client, request, if prompt { LastAck::Sent } else { LastAck::WithAnswer });
        c.ready[Server.index()] +=
            (c.rng.log_uniform(0.05, if self.long_percent > 0 { 5.0 } else { 40.0 }) * 1e6) as u64;
        c.send(Server, answer, LastAck::Sent);
        self.budget = self.budget.saturating_sub(1 + u32::from(prompt) + k + k.div_ceil(2));
    }
}

/// A DNS question and its answer within 60 ms.
fn dns(plan: &Plan, rng: &mut Rng, start: u64) -> [(u64, Vec<u8>); 2] {
    let id = rng.next_u32() as u16;
    let (question, answer) = crate::scenario::dns(id, rng.below(40), plan.v6);
    let took = (rng.log_uniform(0.3, 60.0) * 1e6) as u64;
    let (client, server) = (plan.client, plan.server);
    [(start, Client, client, server, question), (start + took, Server, server, client, answer)].map(
        |(at, side, from, to, payload)| {
            let ip = Ip { src: from.0, dst: to.0, ttl: host_ttl(from.0), id, dont_fragment: false };
            let mut frame = Vec::new();
            packet::udp(&mut frame, &link([0; 2], side), &ip, from.1, to.1, &payload);
            (at, frame)
        },
    )
}
