//! Name lookups that go wrong: late, without answer, asked again, answered by an error; and those that nearly do.
//!
//! Runs on the caller's thread; fills a `World`. Each lookup is a UDP flow of its own port; DNS as RFC 1035 has
//! it, waits as resolver libraries have them.

use std::ops::Range;

use super::healthy::{self, SERVICES};
use super::trouble::{Claim, MS, SECOND, also, main_claim};
use super::world::{World, between};
use crate::packet::{self, Ip};
use crate::profile::{Net, Profile, Side, host_ttl, link};
use crate::rng::Rng;

/// Name servers, by host number.
const RESOLVER: u32 = 53;
const SECOND_RESOLVER: u32 = 54;
/// Nobody else asks for hosts from here on.
const FIRST_NAME: u64 = 60;

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

/// One socket of a client and the server it asks.
struct Socket {
    client: u32,
    resolver: u32,
    port: u16,
    /// What is said of the flow.
    statements: Range<usize>,
}

impl Socket {
    fn open(world: &mut World, client: u32, resolver: u32, claims: &[Claim]) -> Socket {
        let ends = [world.host(Net::Clients, client), world.host(Net::Servers, resolver)];
        let port = world.port(ends[0]);
        // Only the addresses of it are told.
        let profile = Profile::new(&mut Rng::new(0), (ends[0], port), (ends[1], 53));
        let healthy = [Claim { kind: "healthy", count: None, bits: 0, main: false }];
        let claims = if claims.is_empty() { &healthy } else { claims };
        let said: Vec<usize> =
            claims.iter().map(|claim| world.say(super::flow_line(&profile, claim))).collect();
        Socket { client, resolver, port, statements: said[0]..said[0] + said.len() }
    }

    fn ask(&self, world: &mut World, id: u16, name: u64, v6: bool, at: u64) {
        let (question, _) = healthy::dns(id, name, v6);
        self.pass(world, Side::Client, &question, at);
    }

    fn answer(&self, world: &mut World, id: u16, name: u64, v6: bool, at: u64) {
        let (_, answer) = healthy::dns(id, name, v6);
        self.pass(world, Side::Server, &answer, at);
    }

    fn refuse(&self, world: &mut World, id: u16, name: u64, code: u8, at: u64) {
        let (mut answer, _) = healthy::dns(id, name, false);
        (answer[2], answer[3]) = (0x81, 0x80 | code);
        self.pass(world, Side::Server, &answer, at);
    }

    fn pass(&self, world: &mut World, side: Side, payload: &[u8], at: u64) {
        let (client, server) =
            (world.host(Net::Clients, self.client), world.host(Net::Servers, self.resolver));
        let (from, to, ports) = match side {
            Side::Client => (client, server, (self.port, 53)),
            Side::Server => (server, client, (53, self.port)),
        };
        let ip = Ip {
            src: from,
            dst: to,
            ttl: host_ttl(from),
            id: world.rng.next_u32() as u16,
            dont_fragment: false,
        };
        let mut frame = Vec::new();
        packet::udp(&mut frame, &link(world.options.vlan, side), &ip, ports.0, ports.1, payload);
        world.loose_showing(at, frame, self.statements.clone());
    }
}

/// A lookup of its own socket, answered after `took`; gives nothing to report unless something is claimed.
fn lookup(world: &mut World, name: u64, at: u64, took: u64, claims: &[Claim]) {
    let socket = Socket::open(world, 1 + name as u32 % 9, RESOLVER, claims);
    let id = world.rng.next_u32() as u16;
    let v6 = world.options.v6;
    socket.ask(world, id, name, v6, at);
    socket.answer(world, id, name, v6, at + took);
}

/// Flows of every service until `to_s`, so that the capture goes on after the last question.
fn company(world: &mut World, to_s: f64) {
    for i in 0..30 {
        let at = between(&mut world.rng, 0.0, to_s);
        healthy::flow(world, 11 + i % 12, SERVICES[i as usize % 5], at);
    }
}

fn claim(kind: &'static str) -> Claim {
    main_claim(kind, 1, 0)
}

/// Answers from 1 s on are slow, those of 0.5 to 0.99 s are not.
pub fn slow(world: &mut World) {
    let flows = u64::from(world.flows(4));
    for i in 0..flows {
        let took = SECOND + i * 2 * SECOND / flows + 3 * MS;
        lookup(world, FIRST_NAME + i % 30, SECOND + i * 300 * MS, took, &[claim("dns_slow")]);
    }
    for i in 0..6 {
        lookup(world, FIRST_NAME + 30 + i, SECOND / 2 + i * 400 * MS, 500 * MS + i * 98 * MS, &[]);
    }
    company(world, 12.0);
}

/// No answer at all, and no second question either.
pub fn unanswered(world: &mut World) {
    for i in 0..u64::from(world.flows(4)) {
        let socket = Socket::open(world, 1 + i as u32 % 9, RESOLVER, &[claim("dns_unanswered")]);
        let v6 = world.options.v6;
        socket.ask(world, 0x500 + i as u16, FIRST_NAME + i, v6, SECOND + i * 250 * MS);
    }
    for i in 0..4 {
        lookup(world, 30 + i, SECOND / 2 + i * 400 * MS, 900 * MS, &[]);
        let socket = Socket::open(world, 10, RESOLVER, &[]);
        let at = 2 * SECOND + i * 300 * MS;
        socket.ask(world, 77, 50 + i, false, at);
        socket.refuse(world, 77, 50 + i, NXDOMAIN, at + 12 * MS);
    }
    company(world, 14.0);
}

pub fn retried(world: &mut World) {
    for i in 0..u64::from(world.flows(3)) {
        pair(world, FIRST_NAME + i, SECOND + i * 400 * MS);
    }
    for i in 0..2 {
        let (name, at) = (FIRST_NAME + 40 + i, 2 * SECOND + i * 500 * MS);
        let lost = [claim("dns_timeout_retry"), claim("dns_unanswered")];
        // From a new port; and then of another server.
        let (first, second) = (
            Socket::open(world, 8, RESOLVER, &lost),
            Socket::open(world, 8, if i == 0 { RESOLVER } else { SECOND_RESOLVER }, &[]),
        );
        first.ask(world, 0x70, name, false, at);
        second.ask(world, 0x71, name, false, at + SECOND);
        second.answer(world, 0x71, name, false, at + SECOND + 9 * MS);
        // The same datagram again, as Windows does after a second.
        let again = Socket::open(world, 9, RESOLVER, &[claim("dns_timeout_retry")]);
        again.ask(world, 0x72, name, false, at);
        again.ask(world, 0x72, name, false, at + SECOND);
        again.answer(world, 0x72, name, false, at + SECOND + 9 * MS);
        // Nothing is wrong with asking two servers at once, or again what was answered.
        for (n, resolver) in [RESOLVER, SECOND_RESOLVER, RESOLVER].into_iter().enumerate() {
            let socket = Socket::open(world, 10, resolver, &[]);
            let asked = at + [0, MS, 3 * SECOND][n];
            socket.ask(world, 0x80 + n as u16, name, false, asked);
            socket.answer(world, 0x80 + n as u16, name, false, asked + 15 * MS);
        }
    }
    company(world, 14.0);
}

/// A and AAAA from one socket at once; the second is lost, and glibc asks both again after 5 s, one by one.
fn pair(world: &mut World, name: u64, at: u64) {
    let claims = [claim("dns_timeout_retry"), claim("dns_unanswered")];
    let socket = Socket::open(world, 1 + name as u32 % 7, RESOLVER, &claims);
    let again = at + 5 * SECOND;
    socket.ask(world, 0x10, name, false, at);
    socket.ask(world, 0x11, name, true, at + 20_000);
    socket.answer(world, 0x10, name, false, at + 7 * MS);
    socket.ask(world, 0x10, name, false, again);
    socket.answer(world, 0x10, name, false, again + 7 * MS);
    socket.ask(world, 0x11, name, true, again + 8 * MS);
    socket.answer(world, 0x11, name, true, again + 15 * MS);
}

/// One resolver fails six times among ten answers; another refuses once, and names need not exist.
pub fn errors(world: &mut World) {
    let mut answer = |n: u64, resolver, code: u8, claims: &[Claim]| {
        let socket = Socket::open(world, 1 + n as u32 % 9, resolver, claims);
        let at = SECOND + n * 350 * MS;
        socket.ask(world, n as u16, FIRST_NAME + n, false, at);
        socket.refuse(world, n as u16, FIRST_NAME + n, code, at + 20 * MS);
    };
    for n in 0..6 {
        answer(n, SECOND_RESOLVER, SERVFAIL, &[claim("dns_error")]);
        answer(10 + n, SECOND_RESOLVER, NXDOMAIN, &[]);
    }
    answer(20, RESOLVER, REFUSED, &[also("dns_error", Some(1), 0)]);
    for n in 0..6 {
        lookup(world, 30 + n, SECOND + n * 600 * MS, 10 * MS, &[]);
    }
    company(world, 10.0);
}
