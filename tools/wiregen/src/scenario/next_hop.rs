//! RSTs by the router next to the tap ("reject with tcp reset"), whose TTL is one off from its victim's; what proves them
//! forged is only that their alleged sender goes on. And RSTs of the hosts themselves that look nearly so.
//!
//! Runs on the caller's thread; fills a `World`. Claims become lines of truth.

use super::START;
use super::healthy;
use super::trouble::{Claim, FIRST, MS, SECOND, SECOND_BIT, also, chat, main_claim};
use super::world::{World, between};
use crate::packet::{ACK, FIN, PSH, RST};
use crate::profile::Net;
use crate::profile::Side::{Client, Server};
use crate::tcp::{Conversation, Kind, LastAck, Segment};

const SERVICE: (u32, u16) = (30, 9104);
/// When what the router did not let through is sent again, ms after the RST: a tail loss probe, then a timer that doubles.
/// The last silence between two of them is longer than any rule calls one.
const AGAIN: [u64; 8] = [5, 320, 760, 1640, 3400, 6920, 13_960, 28_040];

/// Nine rejected in three manners; four genuine RSTs that overtake data, three before their port is used again.
pub fn build(world: &mut World) {
    for i in 0..world.flows(9) {
        let at = SECOND + u64::from(i) * 600 * MS;
        let mut c = world.open(1 + i % 20, SERVICE, at);
        let claims = match i % 3 {
            0 => nothing_outstanding(&mut c),
            1 => in_flight(&mut c),
            _ => after_a_silence(&mut c, i % 9 == 2),
        };
        world.troubled(c, claims);
    }
    for i in 0..4 {
        let mut c = world.open(1 + i, SERVICE, 2 * SECOND + u64::from(i) * 500 * MS);
        let claims = overtakes_its_data(&mut c, i % 2 == 0);
        world.troubled(c, claims);
    }
    for i in 0..3 {
        port_used_again(world, 10 + i, 3 * SECOND + u64::from(i) * 500 * MS);
    }
    for i in 0..30 {
        let at = between(&mut world.rng, 0.0, 12.0);
        healthy::flow(world, 1 + i % 12, SERVICE, at);
    }
}

/// The router's RST to the client, in the server's name: the number is the one the client expects.
fn reject(c: &mut Conversation, at: u64) -> Segment {
    let kind = Kind::Bare { ttl: c.profile.end(Server).ttl + 1 };
    let seq = c.expects[Client.index()];
    c.push(Segment { at, seq, ack: 0, window: 0, kind, marks: FIRST, ..c.segment(Server, RST) })
}

/// The server knows nothing of the RST and sends `data` again, so many ms after `from`; the client has no such connection
/// any more.
fn goes_on(c: &mut Conversation, from: u64, again: &[u64], data: &Segment) {
    for after in again {
        let again = c.push(Segment { at: from + after * MS, marks: SECOND_BIT, ..*data });
        let at = again.at + c.profile.end(Client).rtt;
        let kind = Kind::Bare { ttl: 0 };
        c.push(Segment { at, seq: again.ack, ack: 0, window: 0, kind, ..c.segment(Client, RST) });
    }
}

/// The last acknowledgement of a download is answered by the RST: as the tap sees it, nothing is outstanding.
fn nothing_outstanding(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 1);
    c.exchange(300, 2 * MS, 40_000);
    let sent = c.segments.iter().filter(|s| s.side == Server && s.len > 0);
    let Some(data) = sent.max_by_key(|s| s.at).copied() else { return Vec::new() };
    let rst = reject(c, c.last + 2_000);
    goes_on(c, rst.at, &AGAIN, &data);
    let again = Some(AGAIN.len() as u32);
    vec![
        main_claim("rst_injected", 1, FIRST),
        also("rst_midflow", None, FIRST),
        also("retransmission", again, SECOND_BIT),
        also("spurious_retransmission", again, SECOND_BIT),
    ]
}

/// The RST comes between the segments of a flight.
fn in_flight(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 1);
    c.send(Client, 300, LastAck::WithAnswer);
    let data = c.push(Segment { len: 900, ..c.segment(Server, ACK) });
    c.push(Segment { len: 900, ..c.segment(Server, ACK) });
    let rst = reject(c, c.last + 2_000);
    for _ in 0..3 {
        c.push(Segment { len: 900, ..c.segment(Server, ACK) });
    }
    goes_on(c, rst.at, &AGAIN, &data);
    vec![
        main_claim("rst_injected", 1, FIRST),
        also("rst_midflow", None, FIRST),
        also("retransmission", Some(AGAIN.len() as u32), SECOND_BIT),
    ]
}

/// The router forgot the connection in a silence and rejects the request: the server never hears of it, and if it `closes`,
/// for a timeout of its own, does so again and again.
fn after_a_silence(c: &mut Conversation, closes: bool) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    c.silence(12 * SECOND);
    let request = c.push(Segment { len: 200, ..c.segment(Client, ACK | PSH) });
    let rst = reject(c, request.at + 60_000);
    let mut claims = vec![main_claim("rst_after_idle", 1, FIRST), also("rst_midflow", Some(1), FIRST)];
    if closes {
        let fin = c.push(Segment { at: rst.at + 2 * SECOND, ..c.segment(Server, FIN | ACK) });
        let again = &AGAIN[1..5];
        goes_on(c, fin.at, again, &fin);
        claims.push(also("retransmission", Some(again.len() as u32), SECOND_BIT));
        claims.push(also("rst_injected", Some(1), FIRST));
    }
    claims
}

/// The server's own RST overtakes the last two segments before it, and comes one hop nearer if `near`.
fn overtakes_its_data(c: &mut Conversation, near: bool) -> Vec<Claim> {
    c.handshake();
    chat(c, 1);
    c.send(Client, 300, LastAck::WithAnswer);
    for _ in 0..2 {
        c.push(Segment { len: 900, ..c.segment(Server, ACK) });
    }
    let rest = [0, 1].map(|_| {
        let segment = Segment { len: 900, ..c.segment(Server, ACK) };
        c.push(segment);
        c.segments.len() - 1
    });
    let rst = c.segment(Server, RST | ACK);
    let ttl = c.profile.end(Server).ttl + u8::from(near);
    let rst = c.push(Segment { kind: Kind::Bare { ttl }, marks: FIRST, ..rst });
    for (i, late) in rest.into_iter().zip([4, 5]) {
        c.segments[i].at = rst.at + late * MS;
    }
    vec![main_claim("rst_midflow", 1, FIRST)]
}

/// The server resets when all is said, and the client's next connection has the same port.
fn port_used_again(world: &mut World, client: u32, at: u64) {
    let mut old = world.open(client, SERVICE, at);
    old.handshake();
    chat(&mut old, 1);
    old.abort(Server);
    let client = old.profile.end(Client);
    let server = (world.host(Net::Servers, SERVICE.0), SERVICE.1);
    let mut next = world.open_from((client.ip, client.port), server, old.last - START + SECOND);
    next.handshake();
    next.segments[0].marks = FIRST;
    chat(&mut next, 3);
    next.close(Client, false);
    world.unlisted(old);
    world.troubled(next, vec![main_claim("port_reuse", 1, FIRST)]);
}
