//! One end waits for the other in vain: a peer that is gone, a queue that is full, a router nobody listens to;
//! each beside waits that are too short, or that have an ordinary reason.
//!
//! Runs on the caller's thread; fills a `World`. Nothing here ends before its claim is true. Claims become lines
//! of truth.

use super::healthy;
use super::trouble::{Claim, FIRST, MS, SECOND, SECOND_BIT, also, chat, main_claim};
use super::window;
use super::world::{World, between};
use crate::packet::{ACK, PSH, RST, SYN, ip_header_len};
use crate::profile::Side::{self, Client, Server};
use crate::tcp::{Conversation, Kind, LastAck, Segment};

const SERVICE: (u32, u16) = (20, 8443);
/// When data is sent again, ms after the first time: a timer that doubles.
const TIMEOUTS: [u64; 7] = [220, 660, 1540, 3300, 6820, 13_860, 27_940];
/// When a SYN-ACK is, likewise.
const SYN_ACK_TIMEOUTS: [u64; 3] = [1000, 3000, 7000];
/// MTU of the narrow link, bytes.
const MTU: u16 = 1400;

fn siblings(world: &mut World, seconds: f64) {
    for i in 0..40 {
        let at = between(&mut world.rng, 0.0, seconds);
        healthy::flow(world, 1 + i % 12, SERVICE, at);
    }
}

fn each(world: &mut World, usual: u32, play: impl Fn(&mut Conversation, u32) -> Vec<Claim>) {
    for i in 0..world.flows(usual) {
        let at = SECOND + u64::from(i) * 700 * MS + world.rng.below(200 * MS);
        let mut c = world.open(1 + i % 20, SERVICE, at);
        let claims = play(&mut c, i);
        world.troubled(c, claims);
    }
}

pub fn zero_window_short(world: &mut World) {
    each(world, 4, |c, _| window::zero_window_short(c));
    siblings(world, 15.0);
}

/// Two in three clients are gone, one of them for a restart; the third was only out of reach for 9 s. From the fourth on
/// they go in the midst of a transfer in full segments.
pub fn half_open(world: &mut World) {
    each(world, 6, |c, i| match i % 3 {
        0 => gone(c, i >= 3),
        1 => restarted(c),
        _ => out_of_reach(c),
    });
    siblings(world, 45.0);
}

/// The server sends and repeats `times` times; nothing comes back. Gives the first send.
fn into_the_void(c: &mut Conversation, times: usize) -> Segment {
    c.handshake();
    chat(c, 2);
    c.silence(SECOND);
    vanish(c, Server, 180, times)
}

/// One segment of `len` bytes, sent again `times` times.
fn vanish(c: &mut Conversation, side: Side, len: u16, times: usize) -> Segment {
    let data = c.push(Segment { len, ..c.segment(side, ACK | PSH) });
    again_and_again(c, &data, times);
    data
}

fn again_and_again(c: &mut Conversation, data: &Segment, times: usize) {
    for after in &TIMEOUTS[..times] {
        let at = data.at + after * MS;
        c.push(Segment { at, seq: data.seq, len: data.len, marks: FIRST, ..c.segment(data.side, ACK | PSH) });
    }
}

fn gone(c: &mut Conversation, in_transfer: bool) -> Vec<Claim> {
    if in_transfer {
        c.handshake();
        c.exchange(200, 2 * MS, 12 * c.max_payload);
        vanish(c, Server, c.max_payload as u16, TIMEOUTS.len());
    } else {
        into_the_void(c, TIMEOUTS.len());
    }
    vec![main_claim("half_open", 1, FIRST), also("retransmission", Some(TIMEOUTS.len() as u32), FIRST)]
}

/// The client comes back without the connection and answers with a RST of its own.
fn restarted(c: &mut Conversation) -> Vec<Claim> {
    let data = into_the_void(c, 6);
    let at = data.at + TIMEOUTS[5] * MS + c.profile.end(Client).rtt + MS;
    let kind = Kind::Bare { ttl: 0 };
    let rst = Segment { at, seq: data.ack, ack: 0, window: 0, kind, ..c.segment(Client, RST) };
    c.push(Segment { marks: SECOND_BIT, ..rst });
    vec![
        main_claim("half_open", 1, FIRST),
        also("retransmission", Some(6), FIRST),
        also("rst_midflow", Some(1), SECOND_BIT),
    ]
}

/// Nothing gets through for 9 s, then all goes on.
fn out_of_reach(c: &mut Conversation) -> Vec<Claim> {
    let data = into_the_void(c, 5);
    c.deliver(&data);
    c.silence_until(data.at + 9 * SECOND);
    c.pass(c.segment(Client, ACK));
    chat(c, 1);
    c.close(Client, true);
    vec![main_claim("retransmission", 5, FIRST)]
}

/// No full segment passes, and the receiver waits for the rest in silence: an upload after its acknowledged header, an
/// answer that begins with one; the third is answered after 9 s.
pub fn pmtu_silent(world: &mut World) {
    each(world, 6, |c, i| match i % 3 {
        0 => too_large(c, Client),
        1 => too_large(c, Server),
        _ => held_up(c),
    });
    siblings(world, 45.0);
}

/// Gives the first of `side`'s full segments; all are lost, and the first is sent `times` times more.
fn full_segments(c: &mut Conversation, side: Side, times: usize) -> Segment {
    c.handshake();
    let hello = crate::content::first_message(c.profile.content).unwrap_or(240);
    if side == Client {
        c.exchange(hello, 2 * MS, 400);
    } else {
        c.send(Client, hello, LastAck::Sent);
    }
    c.silence(3 * MS);
    let len = c.max_payload as u16;
    let first = c.push(Segment { len, ..c.segment(side, ACK) });
    for _ in 0..7 {
        c.push(Segment { len, ..c.segment(side, ACK) });
    }
    again_and_again(c, &first, times);
    first
}

fn too_large(c: &mut Conversation, side: Side) -> Vec<Claim> {
    full_segments(c, side, TIMEOUTS.len());
    vec![main_claim("pmtu_blackhole", 1, FIRST), also("retransmission", Some(TIMEOUTS.len() as u32), FIRST)]
}

fn held_up(c: &mut Conversation) -> Vec<Claim> {
    let first = full_segments(c, Client, 5);
    c.deliver(&first);
    c.silence_until(first.at + 9 * SECOND);
    c.pass(c.segment(Server, ACK));
    vec![main_claim("retransmission", 5, FIRST)]
}

/// Four servers that accept nothing more, four whose SYN-ACK was lost once.
pub fn accept_queue_full(world: &mut World) {
    each(world, 8, |c, i| if i % 2 == 0 { not_accepted(c) } else { syn_ack_lost(c) });
    siblings(world, 15.0);
}

/// The client's ACK is dropped by the server, which repeats its SYN-ACK by its timer; each is acknowledged.
fn not_accepted(c: &mut Conversation) -> Vec<Claim> {
    c.pass(c.segment(Client, SYN));
    let answer = c.pass(c.segment(Server, SYN | ACK));
    c.pass(c.segment(Client, ACK));
    for after in SYN_ACK_TIMEOUTS {
        let repeat = Segment { at: answer.at + after * MS, seq: answer.seq, marks: FIRST, ..answer };
        c.pass(repeat);
        c.pass(c.segment(Client, ACK));
    }
    c.silence(200 * MS);
    chat(c, 1);
    c.close(Client, true);
    vec![main_claim("synack_retransmission", SYN_ACK_TIMEOUTS.len() as u32, FIRST)]
}

fn syn_ack_lost(c: &mut Conversation) -> Vec<Claim> {
    c.pass(c.segment(Client, SYN));
    let answer = c.push(c.segment(Server, SYN | ACK));
    let repeat = Segment { at: answer.at + SECOND, seq: answer.seq, marks: FIRST, ..answer };
    c.pass(repeat);
    c.pass(c.segment(Client, ACK));
    chat(c, 2);
    c.close(Client, true);
    vec![also("synack_retransmission", Some(1), FIRST)]
}

/// A router near the client says "too big" to every full segment; the server repeats the first in full.
pub fn icmp_ignored(world: &mut World) {
    each(world, 3, |c, _| deaf(c));
    siblings(world, 15.0);
}

fn deaf(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    let hello = crate::content::first_message(c.profile.content).unwrap_or(240);
    c.exchange(hello, 2 * MS, 400);
    c.silence(5 * MS);
    c.send(Client, 260, LastAck::WithAnswer);
    let smallest = u32::from(MTU) - ip_header_len(c.profile.end(Server).ip) as u32;
    debug_assert!(c.max_payload > smallest - 40, "a full segment is too large");
    let len = c.max_payload as u16;
    let mut sent = vec![c.push(Segment { len, ..c.segment(Server, ACK) })];
    for after in &TIMEOUTS[..5] {
        let at = sent[0].at + after * MS;
        sent.push(c.push(Segment { at, seq: sent[0].seq, len, marks: FIRST, ..c.segment(Server, ACK) }));
    }
    for s in &sent {
        let at = s.at + MS / 2 + c.profile.end(Client).rtt / 2;
        c.push(Segment { at, kind: Kind::TooBig { mtu: MTU }, marks: SECOND_BIT, ..*s });
    }
    vec![
        main_claim("icmp_ignored", 1, FIRST),
        also("retransmission", Some(5), FIRST),
        also("icmp_frag_needed", Some(6), SECOND_BIT),
    ]
}
