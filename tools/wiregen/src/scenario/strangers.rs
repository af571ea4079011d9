//! RSTs that somebody else sent in the name of one end, and RSTs that only look so.
//!
//! Runs on the caller's thread; fills a `World`. The forger's TTL is never within one of its victim's, the
//! genuine ones' always. Claims become lines of truth.

use super::healthy;
use super::trouble::{Claim, FIRST, MS, SECOND, also, chat, main_claim};
use super::world::{World, between};
use crate::packet::{ACK, PSH, RST};
use crate::profile::Side::{self, Client, Server};
use crate::tcp::{Conversation, Kind, LastAck, Segment};

const SERVICE: (u32, u16) = (30, 5432);

/// Ten forged ones in three manners, ten genuine ones in two, healthy flows around them.
pub fn rst_injected(world: &mut World) {
    for i in 0..world.flows(10) {
        let at = SECOND + u64::from(i) * 600 * MS;
        let mut c = world.open(1 + i % 20, SERVICE, at);
        let claims = match i % 3 {
            0 => to_the_client(&mut c),
            1 => overtaken_by_the_truth(&mut c),
            _ => to_both(&mut c),
        };
        world.troubled(c, claims);
    }
    for i in 0..10 {
        let at = 2 * SECOND + u64::from(i) * 500 * MS;
        let mut c = world.open(1 + i % 20, SERVICE, at);
        if i % 2 == 0 {
            another_route(&mut c)
        } else {
            without_a_socket(&mut c)
        }
        world.healthy(c);
    }
    for i in 0..30 {
        let at = between(&mut world.rng, 0.0, 12.0);
        healthy::flow(world, 1 + i % 12, SERVICE, at);
    }
}

/// A RST in `side`'s name by a device close to the tap: faster than the host, from another distance.
fn forge(c: &mut Conversation, side: Side, after: &Segment) {
    let away = 4 + c.rng.below(40) as u8;
    let ttl = if c.rng.percent(50) { 255 - away } else { c.profile.end(side).ttl - 1 - away };
    let rst = Segment {
        at: after.at + 60_000,
        seq: after.ack,
        ack: 0,
        window: 0,
        kind: Kind::Bare { ttl },
        marks: FIRST,
        ..c.segment(side, RST)
    };
    c.push(rst);
}

fn claims() -> Vec<Claim> {
    vec![main_claim("rst_injected", 1, FIRST), also("rst_midflow", None, FIRST)]
}

/// The request is answered by a RST; the server's answer never comes.
fn to_the_client(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    let request = c.push(Segment { len: 200, ..c.segment(Client, ACK | PSH) });
    forge(c, Server, &request);
    claims()
}

/// The server answers after "its" RST, and the client, which knows of no connection, resets it.
fn overtaken_by_the_truth(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 1);
    let request = c.pass(Segment { len: 200, ..c.segment(Client, ACK | PSH) });
    forge(c, Server, &request);
    c.ready[Server.index()] += 40 * MS;
    let answer = c.pass(Segment { len: 700, ..c.segment(Server, ACK | PSH) });
    let kind = Kind::Bare { ttl: 0 };
    c.pass(Segment { seq: answer.ack, ack: 0, window: 0, kind, ..c.segment(Client, RST) });
    claims()
}

/// The device resets both ends at once.
fn to_both(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    let request = c.push(Segment { len: 200, ..c.segment(Client, ACK | PSH) });
    forge(c, Server, &request);
    let reversed = Segment { at: request.at + 10_000, ack: request.end(), ..request };
    forge(c, Client, &reversed);
    claims()
}

/// A hasty close whose RST took a route that is longer or shorter by one.
fn another_route(c: &mut Conversation) {
    c.handshake();
    chat(c, 2);
    let index = c.abort(Client);
    let ttl = c.profile.end(Client).ttl;
    let ttl = if c.rng.percent(50) { ttl - 1 } else { ttl + 1 };
    let id = c.segments[index].ip_id;
    c.segments[index] = Segment { kind: Kind::Bare { ttl }, ip_id: id, ..c.segments[index] };
}

/// A hasty close by a server, whose RST has its TTL and no IP-ID, as one that belongs to no socket.
fn without_a_socket(c: &mut Conversation) {
    c.handshake();
    c.exchange(300, 2 * MS, 900);
    c.send(Client, 120, LastAck::Sent);
    let index = c.abort(Server);
    c.segments[index] = Segment { kind: Kind::Bare { ttl: 0 }, ip_id: 0, ..c.segments[index] };
}
