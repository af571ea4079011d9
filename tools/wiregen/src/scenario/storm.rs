//! Troubles of a host or a service: a RST storm, SYNs that vanish one in N, a SYN flood.
//!
//! Runs on the caller's thread; fills a `World`. What many flows share is told in one line about the host or
//! the service; the flows of a flood are not listed one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::healthy;
use super::trouble::{self, FIRST, HOST, also};
use super::world::{World, between};
use crate::packet::{ACK, SYN};
use crate::profile::{Net, Side};
use crate::tcp::Segment;

/// What `rst_storm` makes.
#[derive(Clone, Copy)]
pub struct Storm {
    /// The host that lost its state, on port 6379.
    pub host: u32,
    pub flows: u32,
    /// When the storm begins, seconds; the flows open in the three seconds before the last one before it.
    pub at_s: f64,
}

/// A host forgets its flows at once and answers each data segment with a RST, all within 0.8 s.
pub fn rst_storm(world: &mut World, storm: Storm) {
    for i in 0..storm.flows {
        let opened = between(&mut world.rng, storm.at_s - 4.0, storm.at_s - 1.0);
        let mut c = world.open(100 + i % 20, (storm.host, 6379), opened);
        c.handshake();
        trouble::chat(&mut c, 1);
        c.silence_until(super::START + between(&mut world.rng, storm.at_s, storm.at_s + 0.8));
        trouble::reset_by_host(&mut c);
        world.troubled(c, vec![also("rst_midflow", Some(1), FIRST)]);
    }
    let host = world.host(Net::Servers, storm.host);
    world.claim_host("rst_storm", host, HOST);
    for i in 0..10 {
        let at = between(&mut world.rng, 0.0, storm.at_s + 3.0);
        healthy::flow(world, 1 + i, (10, 443), at);
    }
}

/// 400 connections in 30 s, one in twenty without any answer.
pub fn syn_no_synack(world: &mut World) {
    let one_in = world.options.one_in.unwrap_or(20).max(1);
    let flows = world.flows(400);
    vanishing(world, &Vanishing { flows, one_in, from_s: 0.5, to_s: 30.0 });
}

/// What `vanishing` makes: so many connections between two moments.
pub struct Vanishing {
    pub flows: u32,
    pub one_in: u32,
    pub from_s: f64,
    pub to_s: f64,
}

/// A full state table in front of one service: one in N connections is never answered.
pub fn vanishing(world: &mut World, v: &Vanishing) {
    // The N-th of each N, at a random place among them, so that the share is exact.
    let mut lost = 0;
    for i in 0..v.flows {
        if i % v.one_in == 0 {
            lost = i + world.rng.below(u64::from(v.one_in.min(v.flows - i))) as u32;
        }
        let at = between(&mut world.rng, v.from_s, v.to_s);
        let client = 1 + world.rng.below(30) as u32;
        if i == lost {
            let mut c = world.open(client, (20, 8443), at);
            let claims = trouble::syn_no_synack(&mut c);
            world.troubled(c, claims);
        } else {
            healthy::flow(world, client, (20, 8443), at);
        }
    }
}

/// SYNs from everywhere to one service; the host answers each once, nobody acknowledges.
pub fn syn_flood(world: &mut World) {
    let flows = world.flows(2000);
    let server = (world.host(Net::Servers, 10), 443);
    for _ in 0..flows {
        let at = between(&mut world.rng, 3.0, 5.0);
        let bits = world.rng.next_u32();
        // Benchmarking space (RFC 2544) and documentation space (RFC 3849): nobody's hosts.
        let spoofed = if world.options.v6 {
            IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_dead << 80 | u128::from(bits)))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 | bits & 0x0001_ffff))
        };
        let port = 1024 + world.rng.below(64_000) as u16;
        let mut c = world.open_from((spoofed, port), server, at);
        c.pass(Segment { marks: HOST, ..c.segment(Side::Client, SYN) });
        c.push(c.segment(Side::Server, SYN | ACK));
        world.unlisted(c);
    }
    world.claim_service("syn_flood", server, HOST);
    for i in 0..60 {
        let at = between(&mut world.rng, 0.0, 8.0);
        healthy::flow(world, 1 + i % 30, (10, 443), at);
    }
}
