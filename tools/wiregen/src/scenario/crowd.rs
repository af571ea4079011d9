//! Troubles that only show over many flows: scans, port exhaustion, churn, an outage, connections that pile up; and
//! beside each, what looks like it and is none.
//!
//! Runs on the caller's thread; fills a `World`. Flows that come by the hundred are not listed one by one.

use super::healthy;
use super::trouble::{self, HOST, MS, SECOND};
use super::world::{World, between};
use crate::packet::{ACK, RST, SYN};
use crate::profile::{Net, Side};
use crate::tcp::{Conversation, Segment};

/// Services of the near misses, by host number.
const BUSY: (u32, u16) = (10, 443);

/// What a probe meets.
#[derive(Clone, Copy)]
enum Met {
    Silence,
    Refusal,
    /// SYN-ACK; the scanner breaks off.
    OpenPort,
}

/// One SYN of a half-open scan, and what it meets.
fn probe(c: &mut Conversation, met: Met) {
    c.push(Segment { marks: HOST, ..c.segment(Side::Client, SYN) });
    let syn = c.segments[c.segments.len() - 1];
    match met {
        Met::Silence => {}
        Met::Refusal => {
            c.deliver(&syn);
            c.pass(c.segment(Side::Server, RST | ACK));
        }
        Met::OpenPort => {
            c.deliver(&syn);
            c.pass(c.segment(Side::Server, SYN | ACK));
            c.pass(Segment { ack: 0, window: 0, ..c.segment(Side::Client, RST) });
        }
    }
}

fn met(i: u32) -> Met {
    match i % 10 {
        0 => Met::OpenPort,
        1..=4 => Met::Refusal,
        _ => Met::Silence,
    }
}

fn background(world: &mut World, to_s: f64) {
    for i in 0..60 {
        let at = between(&mut world.rng, 0.0, to_s);
        healthy::flow(world, 1 + i % 30, BUSY, at);
    }
}

/// A client probes ports of one host, another only 19 of them, a third opens many that all work.
pub fn port_scan(world: &mut World) {
    let scanner = world.host(Net::Clients, 240);
    for i in 0..world.flows(150).max(20) {
        let mut c = world.open(240, (60, 1000 + i as u16), SECOND + u64::from(i) * 40 * MS);
        probe(&mut c, met(i));
        world.unlisted(c);
    }
    world.claim_host("port_scan", scanner, HOST);
    for i in 0..19_u16 {
        let mut c = world.open(241, (61, 2000 + i), 2 * SECOND + u64::from(i) * 50 * MS);
        let claims = trouble::conn_refused(&mut c);
        world.troubled(c, claims);
    }
    for i in 0..40_u16 {
        healthy::flow(world, 242, (62, 30_000 + i), 3 * SECOND + u64::from(i) * 30 * MS);
    }
    background(world, 12.0);
}

/// A client probes a port of one host every 2.6 s, once each, and meets nothing but silence: known as a scan long after
/// its first attempts failed. Another client's SYNs to a host that is gone, repeated, are no part of it.
pub fn slow_scan(world: &mut World) {
    let scanner = world.host(Net::Clients, 240);
    for i in 0..world.flows(40).max(30) {
        let mut c = world.open(240, (60, 1000 + i as u16), SECOND + u64::from(i) * 2600 * MS);
        probe(&mut c, Met::Silence);
        world.unlisted(c);
    }
    world.claim_host("port_scan", scanner, HOST);
    let mut c = world.open(7, (60, 1001), 3 * SECOND);
    let claims = trouble::syn_no_synack(&mut c);
    world.troubled(c, claims);
    for i in 0..6 {
        healthy::flow(world, 1 + i, (60, 22), between(&mut world.rng.clone(), 0.0, 1.0));
    }
    background(world, 110.0);
}

/// A client tries one port on many hosts, another on 19, a third watches many that answer.
pub fn host_scan(world: &mut World) {
    let scanner = world.host(Net::Clients, 240);
    for i in 0..world.flows(80).max(20) {
        let mut c = world.open(240, (100 + i, 22), SECOND + u64::from(i) * 90 * MS);
        probe(&mut c, met(i));
        world.unlisted(c);
    }
    world.claim_host("host_scan", scanner, HOST);
    for i in 0..19_u16 {
        let mut c = world.open(241, (100 + u32::from(i), 23), 2 * SECOND + u64::from(i) * 50 * MS);
        let claims = trouble::conn_refused(&mut c);
        world.troubled(c, claims);
    }
    for i in 0..40_u16 {
        healthy::flow(world, 242, (100 + u32::from(i), 9100), 3 * SECOND + u64::from(i) * 30 * MS);
    }
    background(world, 12.0);
}

/// A short connection: handshake, one exchange, close.
fn short(c: &mut Conversation) {
    c.handshake();
    c.exchange(120, 2 * MS, 900);
    c.close(Side::Client, false);
}

/// A client with 24 ports makes 120 connections in 40 s; another makes as many from ports of its own choice.
pub fn port_exhaustion(world: &mut World) {
    let server = (world.host(Net::Servers, 30), 5432);
    let client = world.host(Net::Clients, 240);
    for i in 0..world.flows(120).max(30) {
        let at = SECOND + u64::from(i) * 330 * MS;
        let mut c = world.open_from((client, 40_000 + (i * 7 % 24) as u16), server, at);
        short(&mut c);
        c.segments[0].marks = HOST;
        world.unlisted(c);
        let mut c = world.open(241, (30, 5432), at);
        short(&mut c);
        world.healthy(c);
    }
    world.claim_host("port_exhaustion", client, HOST);
    background(world, 40.0);
}

/// A client opens and closes 110 connections a second to one service; another 30.
pub fn connection_churn(world: &mut World) {
    let client = world.host(Net::Clients, 240);
    for i in 0..world.flows(1300).max(1000) {
        let mut c = world.open(240, (40, 6379), SECOND + u64::from(i) * 9 * MS);
        short(&mut c);
        c.segments[0].marks = HOST;
        world.unlisted(c);
    }
    world.claim_host("connection_churn", client, HOST);
    for i in 0..360_u32 {
        let mut c = world.open(241, (40, 6379), SECOND + u64::from(i) * 33 * MS);
        short(&mut c);
        world.healthy(c);
    }
    background(world, 12.0);
}

/// One SYN in fifty to a service is lost, most retries get through.
pub fn syn_unanswered_ratio(world: &mut World) {
    let server = (world.host(Net::Servers, 20), 8443);
    for i in 0..world.flows(600).max(400) {
        let at = between(&mut world.rng, 0.0, 45.0);
        let client = 1 + world.rng.below(30) as u32;
        if i % 50 == 7 {
            let mut c = world.open(client, (20, 8443), at);
            let mut claims = trouble::syn_retransmission(&mut c);
            claims.iter_mut().for_each(|claim| claim.main = false);
            c.segments[0].marks |= HOST;
            world.troubled(c, claims);
        } else {
            healthy::flow(world, client, (20, 8443), at);
        }
    }
    world.claim_service("syn_unanswered_ratio", server, HOST);
}

/// A service does not answer for four seconds; 250 clients try again and again. No flood.
pub fn outage(world: &mut World) {
    for i in 0..world.flows(250) {
        let at = between(&mut world.rng, 3.0, 7.0);
        let mut c = world.open(1 + i % 30, (20, 8443), at);
        let claims = trouble::syn_no_synack(&mut c);
        world.troubled(c, claims);
    }
    background(world, 20.0);
}

/// 300 connections a second to one service, all of which complete: busy, not flooded.
pub fn busy(world: &mut World) {
    for i in 0..world.flows(900) {
        let at = between(&mut world.rng, 1.0, 4.0);
        healthy::flow(world, 1 + i % 60, BUSY, at);
    }
}

/// A service that never closes: 260 clients have closed. Beside it, one that closes late.
pub fn close_wait_pileup(world: &mut World) {
    let server = (world.host(Net::Servers, 50), 9092);
    for i in 0..world.flows(260).max(200) {
        half_closed(world, 1 + i % 40, (50, 9092), Side::Client, u64::from(i));
    }
    world.claim_service("close_wait_pileup", server, HOST);
    for i in 0..190_u32 {
        half_closed(world, 1 + i % 40, (51, 9092), Side::Client, u64::from(i));
    }
    background(world, 20.0);
}

/// Clients that never close: a service has closed 260 connections. Beside it, 190.
pub fn fin_wait2_pileup(world: &mut World) {
    let server = (world.host(Net::Servers, 50), 9092);
    for i in 0..world.flows(260).max(200) {
        half_closed(world, 1 + i % 40, (50, 9092), Side::Server, u64::from(i));
    }
    world.claim_service("fin_wait2_pileup", server, HOST);
    for i in 0..190_u32 {
        half_closed(world, 1 + i % 40, (51, 9092), Side::Server, u64::from(i));
    }
    background(world, 20.0);
}

/// A connection that `side` closes after an exchange and the other end never.
fn half_closed(world: &mut World, client: u32, server: (u32, u16), side: Side, i: u64) {
    let mut c = world.open(client, server, SECOND + i * 50 * MS);
    c.handshake();
    c.exchange(120, 2 * MS, 900);
    c.segments[0].marks = HOST;
    c.pass(c.segment(side, crate::packet::FIN | ACK));
    c.pass(c.segment(side.other(), ACK));
    world.unlisted(c);
}

/// SYN-ACKs are lost on their way back; 200 clients try again and again.
pub fn syn_recv_pileup(world: &mut World) {
    let server = (world.host(Net::Servers, 20), 8443);
    for i in 0..world.flows(200).max(140) {
        let mut c = world.open(1 + i % 40, (20, 8443), SECOND + u64::from(i) * 50 * MS);
        for wait in [0, 1, 2, 4] {
            c.silence(wait * SECOND);
            let isn = c.profile.end(Side::Client).isn;
            let syn = c.push(Segment { seq: isn, marks: HOST, ..c.segment(Side::Client, SYN) });
            c.deliver(&syn);
            let isn = c.profile.end(Side::Server).isn;
            c.push(Segment { seq: isn, ..c.segment(Side::Server, SYN | ACK) });
        }
        world.unlisted(c);
    }
    world.claim_service("syn_recv_pileup", server, HOST);
    background(world, 20.0);
}

/// A service is down: 26 clients are refused within 6 s. Beside it, one that refuses 19 now and 19 later.
pub fn service_down(world: &mut World) {
    let server = (world.host(Net::Servers, 60), 8081);
    for (service, times, from_s) in [(60, world.flows(26).max(20), 2), (61, 19, 2), (61, 19, 16)] {
        for i in 0..times {
            let at = from_s * SECOND + u64::from(i * 6000 / times) * MS;
            let mut c = world.open(1 + i % 20, (service, 8081), at);
            let mut claims = trouble::conn_refused(&mut c);
            claims.iter_mut().for_each(|claim| claim.main = false);
            c.segments.iter_mut().filter(|s| s.side == Side::Client).for_each(|s| s.marks |= HOST);
            world.troubled(c, claims);
        }
    }
    world.claim_service("conn_refused", server, HOST);
    background(world, 20.0);
}

/// Most connections within the last 60 s that are worth no look.
const TIME_WAIT: u32 = 10_000;

/// --flows connections to a service are closed within 50 s, as many to another are reset: a pile in TIME-WAIT from
/// ten thousand on.
pub fn time_wait_pileup(world: &mut World) {
    let server = (world.host(Net::Servers, 50), 9092);
    let flows = world.flows(260);
    for i in 0..flows {
        let at = SECOND + u64::from(i) * 50 * SECOND / u64::from(flows);
        for (service, closed) in [(50, true), (51, false)] {
            let mut c = world.open(1 + i % 250, (service, 9092), at);
            c.handshake();
            if closed {
                c.segments[0].marks = HOST;
                c.close(Side::Client, false);
            } else {
                c.abort(Side::Client);
            }
            world.unlisted(c);
        }
    }
    if flows >= TIME_WAIT {
        world.claim_service("time_wait_pileup", server, HOST);
    }
    background(world, 20.0);
}
