//! Conversations whose network works and whose application doesn't, or takes its time: TLS hellos without
//! answer, 5xx, late first bytes, slow handshakes; and those that nearly do.
//!
//! Runs on the caller's thread; fills a `World`. The siblings stay just inside what is still healthy.

use super::healthy;
use super::trouble::{self, Claim, FIRST, MIDDLEBOX_TTL, MS, SECOND, SECOND_BIT, also, main_claim};
use super::world::{World, between};
use crate::content;
use crate::packet::{ACK, FIN, PSH, RST, SYN};
use crate::profile::Content;
use crate::profile::Side::{Client, Server};
use crate::tcp::{Conversation, Kind, LastAck, Segment};

const WEB: (u32, u16) = (20, 8443);

fn company(world: &mut World, to_s: f64) {
    for i in 0..30 {
        let at = between(&mut world.rng, 0.0, to_s);
        healthy::flow(world, 21 + i % 12, healthy::SERVICES[i as usize % 5], at);
    }
}

/// Handshake and ClientHello; the hello is seen by the tap, and by the server if `arrives`.
fn hello(c: &mut Conversation, arrives: bool) -> Segment {
    c.handshake();
    let len = content::first_message(Content::Tls).unwrap_or(0) as u16;
    let hello = c.push(Segment { len, ..c.segment(Client, ACK | PSH) });
    if arrives {
        c.deliver(&hello);
    }
    hello
}

pub fn rst_after_clienthello(world: &mut World) {
    for i in 0..world.flows(6) {
        let mut c = world.open(1 + i % 20, WEB, SECOND + u64::from(i) * 600 * MS);
        let claims = if i % 3 == 2 { reset_by_server(&mut c) } else { reset_in_the_path(&mut c, i % 3 == 1) };
        world.troubled(c, claims);
    }
    for i in 0..4 {
        // A client that hangs up after the ServerHello.
        let mut c = world.open(30 + i, WEB, SECOND + u64::from(i) * 300 * MS);
        c.handshake();
        trouble::chat(&mut c, 1);
        c.abort(Client);
        world.healthy(c);
    }
    company(world, 12.0);
}

/// A filter reads the name and resets the client; the server's answer may still come.
fn reset_in_the_path(c: &mut Conversation, late_answer: bool) -> Vec<Claim> {
    let hello = hello(c, late_answer);
    let (at, seq) = (hello.at + MS + c.rng.below(4 * MS), hello.ack);
    let kind = Kind::Bare { ttl: MIDDLEBOX_TTL };
    let rst = Segment { at, seq, ack: 0, window: 0, kind, marks: FIRST, ..c.segment(Server, RST) };
    c.push(rst);
    if late_answer {
        let answer = Segment { at: hello.at + 9 * MS, len: 700, ..c.segment(Server, ACK | PSH) };
        let answer = c.pass(Segment { at: answer.at.max(c.ready[Server.index()]), seq, ..answer });
        let kind = Kind::Bare { ttl: 0 };
        c.pass(Segment { seq: answer.ack, ack: 0, window: 0, kind, ..c.segment(Client, RST) });
    }
    vec![
        main_claim("rst_after_clienthello", 1, FIRST),
        also("rst_midflow", Some(1), FIRST),
        also("rst_injected", Some(1), FIRST),
    ]
}

/// The server reads the hello and resets by itself.
fn reset_by_server(c: &mut Conversation) -> Vec<Claim> {
    hello(c, true);
    c.pass(c.segment(Server, ACK));
    c.ready[Server.index()] += 2 * MS;
    c.pass(Segment { marks: FIRST, ..c.segment(Server, RST | ACK) });
    vec![main_claim("rst_after_clienthello", 1, FIRST), also("rst_midflow", Some(1), FIRST)]
}

pub fn tls_no_server_hello(world: &mut World) {
    for i in 0..world.flows(4) {
        let mut c = world.open(1 + i % 20, WEB, SECOND + u64::from(i) * 400 * MS);
        let sent = c.segments.len() + 3;
        hello(&mut c, true);
        c.segments[sent].marks |= FIRST;
        c.pass(c.segment(Server, ACK));
        if i % 2 == 0 {
            c.silence(8 * SECOND);
            c.close(Client, true);
        } else {
            c.pass(c.segment(Server, FIN | ACK));
            c.pass(c.segment(Client, FIN | ACK));
            c.pass(c.segment(Server, ACK));
        }
        world.troubled(c, vec![main_claim("tls_no_server_hello", 1, FIRST)]);
    }
    for i in 0..4 {
        let mut c = world.open(30 + i, WEB, SECOND + u64::from(i) * 300 * MS);
        hello(&mut c, true);
        c.pass(c.segment(Server, ACK));
        c.ready[Server.index()] += 2 * SECOND + u64::from(i) * 200 * MS;
        c.send(Server, 3000, LastAck::Sent);
        trouble::chat(&mut c, 1);
        c.close(Client, false);
        world.healthy(c);
    }
    company(world, 14.0);
}

/// One exchange in clear text.
fn web(world: &mut World, n: u32, server: u32, failed: bool) -> Conversation {
    let mut c = world.open(1 + n % 9, (server, 8080), SECOND + u64::from(n) * 250 * MS);
    c.profile.content = Content::Http { failed };
    c.handshake();
    trouble::chat(&mut c, 1);
    if failed {
        let answer = c.segments.iter_mut().find(|s| s.side == Server && s.len > 0);
        answer.into_iter().for_each(|s| s.marks |= FIRST);
    }
    c.close(Client, false);
    c
}

pub fn http_server_error(world: &mut World) {
    for n in 0..world.flows(8) {
        let failed = web(world, 2 * n, 60, true);
        world.troubled(failed, vec![main_claim("http_server_error", 1, FIRST)]);
        let fine = web(world, 2 * n + 1, 60, false);
        world.healthy(fine);
    }
    for n in 0..12 {
        let c = web(world, n, 61, n == 5);
        match n {
            5 => world.troubled(c, vec![also("http_server_error", Some(1), FIRST)]),
            _ => world.healthy(c),
        }
    }
    company(world, 8.0);
}

pub fn slow_server(world: &mut World) {
    for i in 0..world.flows(4) {
        let mut c = world.open(1 + i % 20, (30, 5432), SECOND + u64::from(i) * 300 * MS);
        c.handshake();
        trouble::chat(&mut c, 1 + i % 2);
        think(&mut c, 5 * SECOND + 50 * MS + u64::from(i % 4) * SECOND, FIRST);
        c.close(Client, false);
        world.troubled(c, vec![main_claim("slow_server", 1, FIRST)]);
    }
    for i in 0..4 {
        let mut c = world.open(30 + i, (30, 5432), SECOND + u64::from(i) * 300 * MS);
        c.handshake();
        trouble::chat(&mut c, 1);
        if i % 2 == 0 {
            think(&mut c, 4 * SECOND + 500 * MS, 0);
        } else {
            // The server spoke last, and speaks again when it has something to say.
            c.silence(8 * SECOND);
            c.send(Server, 400, LastAck::Sent);
        }
        c.close(Client, false);
        world.healthy(c);
    }
    company(world, 14.0);
}

/// A request, acknowledged at once, and its answer after `ns`.
fn think(c: &mut Conversation, ns: u64, marks: u8) {
    c.send(Client, 300, LastAck::Sent);
    let from = c.segments.len();
    c.silence(ns);
    c.send(Server, 900, LastAck::Sent);
    c.segments[from].marks |= marks;
}

pub fn slow_connect(world: &mut World) {
    for i in 0..world.flows(4) {
        let mut c = world.open(1 + i % 20, WEB, SECOND + u64::from(i) * 500 * MS);
        let claims = if i % 2 == 0 { far_server(&mut c, 1100 * MS) } else { lost_syns(&mut c, 2) };
        world.troubled(c, claims);
    }
    for i in 0..4 {
        let mut c = world.open(30 + i, WEB, SECOND + u64::from(i) * 300 * MS);
        match i {
            0 => {
                let claims = lost_syns(&mut c, 1);
                let finding = |claim: Claim| Claim { main: false, ..claim };
                world.troubled(c, claims.into_iter().map(finding).collect());
            }
            _ => {
                far_server(&mut c, 800 * MS);
                c.segments.iter_mut().for_each(|s| s.marks = 0);
                world.healthy(c);
            }
        }
    }
    company(world, 14.0);
}

/// Nothing is lost, but the server's side takes `rtt` to answer the SYN.
fn far_server(c: &mut Conversation, rtt: u64) -> Vec<Claim> {
    let usual = std::mem::replace(&mut c.profile.end_mut(Server).rtt, rtt);
    c.handshake();
    c.segments[1].marks |= FIRST;
    c.profile.end_mut(Server).rtt = usual;
    trouble::chat(c, 2);
    c.close(Client, true);
    vec![main_claim("slow_connect", 1, FIRST)]
}

/// The first `lost` SYNs vanish; the client repeats them every second, as Linux does from 6.5 on.
fn lost_syns(c: &mut Conversation, lost: usize) -> Vec<Claim> {
    let (start, isn) = (c.ready[Client.index()], c.profile.end(Client).isn);
    for (i, at) in [0, 1, 2].into_iter().enumerate().take(lost + 1) {
        let marks = if i == 0 { 0 } else { SECOND_BIT };
        let syn = Segment { at: start + at * SECOND, seq: isn, marks, ..c.segment(Client, SYN) };
        let syn = c.push(syn);
        if i == lost {
            c.deliver(&syn);
        }
    }
    c.pass(Segment { marks: FIRST, ..c.segment(Server, SYN | ACK) });
    c.pass(c.segment(Client, ACK));
    trouble::chat(c, 2);
    c.close(Client, true);
    vec![main_claim("slow_connect", 1, FIRST), also("syn_retransmission", Some(lost as u32), SECOND_BIT)]
}
