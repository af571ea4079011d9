//! What a network does all day: clean flows, name lookups, pings, address resolution. Nothing to report.
//!
//! Runs on the caller's thread; fills a `World`. Also the frame of most scenarios: some troubled flows among
//! healthy ones of the same service. Nothing here may be lost, repeated or left unacknowledged.

use std::net::IpAddr;

use super::trouble::{MS, PLAYS, SECOND};
use super::world::{OnTheWay, World, between};
use crate::packet::{self, Ethernet, Ip};
use crate::profile::{Net, Side, host_ttl, link};
use crate::tcp::Conversation;

/// Services of the healthy network: host number and port.
pub const SERVICES: [(u32, u16); 5] = [(10, 443), (20, 8443), (30, 5432), (40, 6379), (50, 9092)];

/// The name server's host number.
const RESOLVER: u32 = 53;

/// 200 clean flows over five services, in 20 s.
pub fn build(world: &mut World) {
    for _ in 0..world.flows(200) {
        let at = between(&mut world.rng, 0.0, 18.0);
        let service = SERVICES[world.rng.below(5) as usize];
        let client = 1 + world.rng.below(30) as u32;
        flow(world, client, service, at);
    }
    pings(world, 10);
    neighbours(world);
}

/// The same, and each packet passes the mirror twice.
pub fn seen_twice(world: &mut World) {
    world.on_the_way = OnTheWay::Twice;
    build(world);
}

/// The same, and what is larger than 576 bytes arrives in fragments.
pub fn in_fragments(world: &mut World) {
    world.on_the_way = OnTheWay::Split;
    build(world);
}

/// A clean flow, with a name lookup before it now and then. One in twelve ends by an abortive close with
/// nothing outstanding, one in twelve is left open.
pub fn flow(world: &mut World, client: u32, service: (u32, u16), at: u64) {
    if world.rng.percent(20) {
        lookup(world, client, at);
    }
    let mut c = world.open(client, service, at + 30 * MS);
    let exchanges = 1 + world.rng.below(6) as u32;
    talk(&mut c, exchanges);
    finish(world, &mut c);
    world.healthy(c);
}

/// Ends a clean flow.
fn finish(world: &mut World, c: &mut Conversation) {
    match world.rng.below(12) {
        0 => {
            c.abort(Side::Client);
        }
        1 => {}
        n => c.close(if n % 2 == 0 { Side::Client } else { Side::Server }, n % 3 == 0),
    }
}

/// Handshake and exchanges, most answers short and some of tens of kilobytes.
pub fn talk(c: &mut Conversation, exchanges: u32) {
    c.handshake();
    super::trouble::chat(c, 1);
    for _ in 1..exchanges {
        let request = c.rng.range(80, 900) as u32;
        let think = c.rng.range(MS / 5, 30 * MS);
        let answer = if c.rng.percent(20) { c.rng.range(6000, 90_000) } else { c.rng.range(120, 4000) };
        c.exchange(request, think, answer as u32);
        let pause = c.rng.range(5 * MS, 400 * MS);
        c.silence(pause);
    }
}

/// `usual` flows of one trouble among thirty healthy ones of the same service.
pub fn with_siblings(world: &mut World, kind: &str, usual: u32) {
    let play = PLAYS.iter().find(|(name, _)| *name == kind).map(|(_, play)| *play).expect("kind is in PLAYS");
    // The closed port of a refused connection is nobody's healthy service.
    let service = (20, if kind == "conn_refused" { 8081 } else { 8443 });
    for i in 0..world.flows(usual) {
        let at = SECOND + u64::from(i) * 700 * MS + world.rng.below(200 * MS);
        let mut c = world.open(1 + i % 20, service, at);
        let claims = play(&mut c);
        world.troubled(c, claims);
    }
    for i in 0..30 {
        let at = between(&mut world.rng, 0.0, 15.0);
        flow(world, 1 + i % 12, (20, 8443), at);
    }
}

fn datagram(world: &World, from: IpAddr, to: IpAddr, id: u16) -> (Ethernet, Ip) {
    let side = if world.host(Net::Servers, RESOLVER) == from { Side::Server } else { Side::Client };
    let ip = Ip { src: from, dst: to, ttl: host_ttl(from), id, dont_fragment: false };
    (link(world.options.vlan, side), ip)
}

/// A DNS question for an address and its answer, within 25 ms (RFC 1035).
pub fn lookup(world: &mut World, client: u32, at: u64) {
    let (client, resolver) = (world.host(Net::Clients, client), world.host(Net::Servers, RESOLVER));
    let port = world.port(client);
    let id = world.rng.next_u32() as u16;
    let (question, answer) = dns(id, world.rng.below(40), world.options.v6);
    let mut frame = Vec::new();
    let (eth, ip) = datagram(world, client, resolver, id);
    packet::udp(&mut frame, &eth, &ip, port, 53, &question);
    world.loose(at, frame.clone());
    let (eth, ip) = datagram(world, resolver, client, id.wrapping_add(1));
    packet::udp(&mut frame, &eth, &ip, 53, port, &answer);
    let took = world.rng.range(MS / 2, 25 * MS);
    world.loose(at + took, frame);
}

/// Question and answer for the address (A or AAAA) of one of many hosts of example.com.
pub fn dns(id: u16, host: u64, v6: bool) -> (Vec<u8>, Vec<u8>) {
    let name = format!("host{host:02}");
    let mut question = Vec::with_capacity(64);
    question.extend_from_slice(&id.to_be_bytes());
    question.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [name.as_str(), "example", "com"] {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    let kind = if v6 { 28 } else { 1 };
    question.extend_from_slice(&[0, 0, kind, 0, 1]);
    let mut answer = question.clone();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0]);
    let low = (host + 1) as u8;
    if v6 {
        answer.extend_from_slice(&[16, 0x20, 1, 0xd, 0xb8, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, low]);
    } else {
        answer.extend_from_slice(&[4, 10, 50, 0, low]);
    }
    (question, answer)
}

/// Echo requests, one a second, each answered.
fn pings(world: &mut World, count: u16) {
    let (client, server) = (world.host(Net::Clients, 2), world.host(Net::Servers, 10));
    let kinds = if world.options.v6 { [128, 129] } else { [8, 0] };
    for seq in 0..count {
        let [high, low] = seq.to_be_bytes();
        let mut at = u64::from(seq) * SECOND + 250 * MS;
        for (kind, from, to, side) in
            [(kinds[0], client, server, Side::Client), (kinds[1], server, client, Side::Server)]
        {
            let mut frame = Vec::new();
            let ip = Ip { src: from, dst: to, ttl: host_ttl(from), id: 700 + seq, dont_fragment: true };
            let eth = link(world.options.vlan, side);
            packet::icmp(&mut frame, &eth, &ip, kind, 0, [0x1d, 7, high, low], &[0x61; 48]);
            world.loose(at, frame);
            at += 4 * MS + world.rng.below(MS);
        }
    }
}

/// The two routers resolve each other: ARP, or neighbour discovery (RFC 4861).
fn neighbours(world: &mut World) {
    let (client, server) = (world.host(Net::Clients, 254), world.host(Net::Servers, 254));
    for i in 0..3 {
        let at = i * 6 * SECOND + 100 * MS;
        for (reply, side, from, to) in
            [(false, Side::Client, client, server), (true, Side::Server, server, client)]
        {
            let eth = link(world.options.vlan, side);
            let mut frame = Vec::new();
            match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    packet::arp(&mut frame, &eth, reply, from.octets(), to.octets());
                }
                (IpAddr::V6(sender), IpAddr::V6(target)) => {
                    let ip = Ip { src: from, dst: to, ttl: 255, id: 0, dont_fragment: false };
                    let mut body = if reply { sender.octets() } else { target.octets() }.to_vec();
                    body.extend_from_slice(&[if reply { 2 } else { 1 }, 1]);
                    body.extend_from_slice(&eth.src);
                    let (kind, flags) = if reply { (136, 0x60) } else { (135, 0) };
                    packet::icmp(&mut frame, &eth, &ip, kind, 0, [flags, 0, 0, 0], &body);
                }
                _ => continue,
            }
            world.loose(at + if reply { MS / 2 } else { 0 }, frame);
        }
    }
}
