//! Flows of which something rare is true: a handshake that stops half-way, a port used again, segments out of line,
//! a route that changes or ends; and beside each, what looks like it.
//!
//! Runs on the caller's thread; fills a `World`. Claims become lines of truth; a flow without one is healthy.

use super::segments::{self, again, finish};
use super::trouble::{Claim, FIRST, MS, SECOND, SECOND_BIT, also, chat, main_claim};
use super::world::{World, between};
use super::{START, Scenario, healthy, loss, trouble};
use crate::packet::{ACK, PSH, RST, SYN};
use crate::profile::Side::{Client, Server};
use crate::profile::{Net, Side};
use crate::tcp::{Conversation, Kind, Segment};

const SERVICE: (u32, u16) = (30, 5432);

pub(super) const SCENARIOS: [Scenario; 11] = [
    Scenario {
        name: "slow_scan",
        about: "a client probes --flows (40) ports of one host, one every 2.6 s, and meets silence",
        build: super::crowd::slow_scan,
    },
    Scenario {
        name: "ecn_blackhole_flows",
        about: "connections whose SYNs all offer ECN vanish, those without the offer get through",
        build: super::negotiation::ecn_blackhole_flows,
    },
    Scenario {
        name: "rst_next_hop",
        about: "the router next to the tap rejects --flows (9) with RSTs one hop off; others are their hosts' own",
        build: super::next_hop::build,
    },
    Scenario {
        name: "handshake_incomplete",
        about: "SYN-ACKs that nobody acknowledges, or that are answered by RST; others acknowledged late",
        build: handshake_incomplete,
    },
    Scenario {
        name: "port_reuse",
        about: "a port used again towards one service, after a close and without; others towards another service",
        build: port_reuse,
    },
    Scenario {
        name: "challenge_ack",
        about: "SYNs answered by an ACK of an old connection; others whose SYN-ACK the mirror lost",
        build: challenge_ack,
    },
    Scenario {
        name: "spurious_retransmission",
        about: "acknowledgements are lost beyond the tap; elsewhere data is, and keepalives carry a byte",
        build: |w| among(w, &[segments::ack_lost, loss::retransmission, segments::keepalive_with_a_byte]),
    },
    Scenario {
        name: "out_of_order",
        about: "segments overtake each other; others come late because they are sent again",
        build: |w| among(w, &[segments::overtaken, segments::lost_before_the_tap, segments::back_by_timeout]),
    },
    Scenario {
        name: "lost_segment",
        about: "the mirror misses segments that are acknowledged; other flows began before the capture",
        build: |w| among(w, &[segments::missed, segments::under_way]),
    },
    Scenario {
        name: "icmp_unreachable",
        about: "a route is lost for 3 s, a host for good; others answer the second SYN, or are gone after the close",
        build: |w| among(w, &[route_lost, nobody_there, found_later, gone_after_the_close]),
    },
    Scenario {
        name: "ttl_changed",
        about: "the route changes its length in the middle of a flow; others take two of nearly the same length",
        build: |w| among(w, &[route_changed, two_routes]),
    },
];

/// Nine flows, each play in turn, among healthy ones of the service.
fn among(world: &mut World, plays: &[trouble::Play]) {
    let mut plays = plays.iter().cycle();
    for i in 0..world.flows(9) {
        let Some(play) = plays.next() else { break };
        let at = SECOND + u64::from(i) * 700 * MS + world.rng.below(200 * MS);
        let mut c = world.open(1 + i % 20, SERVICE, at);
        let claims = play(&mut c);
        said(world, c, claims);
    }
    siblings(world);
}

fn said(world: &mut World, c: Conversation, claims: Vec<Claim>) {
    if claims.is_empty() { world.healthy(c) } else { world.troubled(c, claims) }
}

fn siblings(world: &mut World) {
    for i in 0..40 {
        let at = between(&mut world.rng, 0.0, 12.0);
        healthy::flow(world, 1 + i % 12, SERVICE, at);
    }
}

fn handshake_incomplete(world: &mut World) {
    among(world, &[never_acknowledged, broken_off, acknowledged_late]);
    // The input ends before there was time to.
    for i in 0..2 {
        let mut c = world.open(30 + i, SERVICE, 24 * SECOND + u64::from(i) * SECOND);
        c.pass(c.segment(Client, SYN));
        c.pass(c.segment(Server, SYN | ACK));
        world.healthy(c);
    }
}

/// The client is gone after its SYN; the server repeats its answer.
fn never_acknowledged(c: &mut Conversation) -> Vec<Claim> {
    c.pass(c.segment(Client, SYN));
    let answer = c.push(Segment { marks: FIRST, ..c.segment(Server, SYN | ACK) });
    for after in [1, 3, 7] {
        c.push(Segment { at: answer.at + after * SECOND, marks: FIRST | SECOND_BIT, ..answer });
    }
    vec![main_claim("handshake_incomplete", 1, FIRST), also("synack_retransmission", Some(3), SECOND_BIT)]
}

/// The client only wanted to know whether somebody listens.
fn broken_off(c: &mut Conversation) -> Vec<Claim> {
    c.pass(c.segment(Client, SYN));
    c.pass(Segment { marks: FIRST, ..c.segment(Server, SYN | ACK) });
    c.pass(Segment { ack: 0, window: 0, ..c.segment(Client, RST) });
    vec![main_claim("handshake_incomplete", 1, FIRST)]
}

/// The first SYN-ACK is lost, the second one acknowledged.
fn acknowledged_late(c: &mut Conversation) -> Vec<Claim> {
    c.pass(c.segment(Client, SYN));
    let answer = c.push(c.segment(Server, SYN | ACK));
    c.pass(Segment { at: answer.at + SECOND, marks: FIRST, ..answer });
    c.pass(c.segment(Client, ACK));
    chat(c, 2);
    c.close(Client, true);
    vec![also("synack_retransmission", Some(1), FIRST)]
}

/// A connection that a later one from the same port follows.
fn earlier(world: &mut World, client: u32, at: u64, closed: bool) -> Conversation {
    let mut c = world.open(client, SERVICE, at);
    c.handshake();
    chat(&mut c, 1);
    if closed {
        c.close(Server, false);
    }
    c
}

/// Another connection of the same ends, 2 s after that one.
fn follow(world: &mut World, earlier: &Conversation, service: (u32, u16)) -> Conversation {
    let client = earlier.profile.end(Client);
    let server = (world.host(Net::Servers, service.0), service.1);
    world.open_from((client.ip, client.port), server, earlier.last - START + 2 * SECOND)
}

fn port_reuse(world: &mut World) {
    for i in 0..world.flows(9) {
        let old = earlier(world, 1 + i, SECOND + u64::from(i) * 700 * MS, i % 2 == 0);
        // Every third goes to another service, which knows nothing of the port.
        let other_service = i % 3 == 2;
        let mut c = follow(world, &old, if other_service { (31, 5432) } else { SERVICE });
        c.handshake();
        c.segments[0].marks = FIRST;
        chat(&mut c, 2);
        c.close(Client, false);
        if other_service {
            world.healthy(old);
            world.healthy(c);
        } else {
            world.unlisted(old);
            world.troubled(c, vec![main_claim("port_reuse", 1, FIRST)]);
        }
    }
    for i in 0..3 {
        let mut c = world.open(21 + i, SERVICE, 3 * SECOND + u64::from(i) * 700 * MS);
        let claims = trouble::syn_retransmission(&mut c);
        world.troubled(c, claims);
    }
    siblings(world);
}

fn challenge_ack(world: &mut World) {
    for i in 0..world.flows(9) {
        let at = SECOND + u64::from(i) * 700 * MS;
        match i % 3 {
            // The old connection was before the capture.
            0 => {
                let mut c = world.open(1 + i, SERVICE, at);
                let [seq, ack] = [c.rng.next_u32(), c.rng.next_u32()];
                let claims = challenged(&mut c, seq, ack);
                world.troubled(c, claims);
            }
            1 => {
                let old = earlier(world, 1 + i, at, false);
                let mut c = follow(world, &old, SERVICE);
                let mut claims = challenged(&mut c, old.next[Server.index()], old.next[Client.index()]);
                claims.push(also("port_reuse", Some(1), FIRST));
                world.unlisted(old);
                world.troubled(c, claims);
            }
            _ => {
                let mut c = world.open(1 + i, SERVICE, at);
                answer_missed(&mut c);
                world.healthy(c);
            }
        }
    }
    siblings(world);
}

/// The server still has an old connection, at `seq` and `ack`, and says so; the client resets that and tries again
/// (RFC 9293 §3.5.1).
fn challenged(c: &mut Conversation, seq: u32, ack: u32) -> Vec<Claim> {
    let syn = c.pass(c.segment(Client, SYN));
    let numbers = (c.next, c.expects);
    c.pass(Segment { seq, ack, marks: FIRST, ..c.segment(Server, ACK) });
    let kind = Kind::Bare { ttl: 0 };
    c.pass(Segment { seq: ack, ack: 0, window: 0, kind, ..c.segment(Client, RST) });
    (c.next, c.expects) = numbers;
    c.silence_until(syn.at + SECOND);
    c.pass(Segment { seq: syn.seq, marks: SECOND_BIT, ..c.segment(Client, SYN) });
    c.pass(c.segment(Server, SYN | ACK));
    c.pass(c.segment(Client, ACK));
    chat(c, 2);
    c.close(Client, true);
    vec![main_claim("challenge_ack", 1, FIRST), also("syn_retransmission", Some(1), SECOND_BIT)]
}

/// The mirror lost the SYN-ACK and its ACK; what the server says next acknowledges the SYN all the same.
fn answer_missed(c: &mut Conversation) {
    c.handshake();
    c.segments.truncate(1);
    let update = c.segment(Server, ACK);
    c.pass(Segment { window: update.window - 1, ..update });
    chat(c, 2);
    c.close(Client, true);
}

/// A router answers a segment: it can't be delivered.
fn undelivered(c: &mut Conversation, s: &Segment) {
    let away = c.profile.end(s.side.other()).rtt / 2;
    c.push(Segment { at: s.at + MS / 2 + away, kind: Kind::Unreachable, marks: FIRST, ..*s });
}

/// For 3 s no router knows the way to the server.
fn route_lost(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    let request = c.push(Segment { len: 300, ..c.segment(Client, ACK | PSH) });
    undelivered(c, &request);
    for turn in 0..3 {
        let repeat = c.push(again(c, &request, turn, SECOND_BIT));
        undelivered(c, &repeat);
    }
    c.pass(again(c, &request, 3, SECOND_BIT));
    c.pass(c.segment(Server, ACK));
    finish(c);
    vec![main_claim("icmp_unreachable", 4, FIRST), also("retransmission", Some(4), SECOND_BIT)]
}

/// The last router does not find the host.
fn nobody_there(c: &mut Conversation) -> Vec<Claim> {
    let syn = c.push(c.segment(Client, SYN));
    undelivered(c, &syn);
    for after in [1, 3] {
        let repeat = c.push(Segment { at: syn.at + after * SECOND, marks: SECOND_BIT, ..syn });
        undelivered(c, &repeat);
    }
    vec![
        main_claim("icmp_unreachable", 3, FIRST),
        main_claim("syn_no_synack", 1, SECOND_BIT),
        also("syn_retransmission", Some(2), SECOND_BIT),
    ]
}

/// It does at the second try.
fn found_later(c: &mut Conversation) -> Vec<Claim> {
    let syn = c.push(c.segment(Client, SYN));
    undelivered(c, &syn);
    c.pass(Segment { at: syn.at + SECOND, marks: SECOND_BIT, ..syn });
    c.pass(c.segment(Server, SYN | ACK));
    c.pass(c.segment(Client, ACK));
    finish(c);
    vec![also("icmp_unreachable", Some(1), FIRST), also("syn_retransmission", Some(1), SECOND_BIT)]
}

/// The client is switched off as soon as it has closed.
fn gone_after_the_close(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    c.close(Client, true);
    if let Some(fin) = c.segments.iter().rfind(|s| s.side == Server).copied() {
        undelivered(c, &fin);
    }
    vec![also("icmp_unreachable", Some(1), FIRST)]
}

/// Gives a side's packets from some one on the TTL that `ttl` makes of the usual one.
fn reroute(c: &mut Conversation, side: Side, from: usize, mut ttl: impl FnMut(&mut Conversation, u8) -> u8) {
    let usual = c.profile.end(side).ttl;
    for i in from..c.segments.len() {
        if c.segments[i].side == side {
            c.segments[i].kind = Kind::Rerouted { ttl: ttl(c, usual) };
        }
    }
}

fn route_changed(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 3);
    let from = c.segments.len();
    c.silence(200 * MS);
    chat(c, 3);
    c.close(Client, true);
    let longer = c.rng.percent(50);
    reroute(c, Server, from, |_, ttl| if longer { ttl - 3 } else { ttl + 2 });
    if let Some(first) = c.segments[from..].iter_mut().find(|s| s.side == Server) {
        first.marks = FIRST;
    }
    vec![main_claim("ttl_changed", 1, FIRST)]
}

/// Packets take turns between routes one router apart.
fn two_routes(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 6);
    c.close(Client, true);
    for side in [Client, Server] {
        reroute(c, side, 0, |c, ttl| ttl - u8::from(c.rng.percent(50)));
    }
    Vec::new()
}
