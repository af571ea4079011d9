//! Segments that are overtaken, missed by the mirror, lost before it, or sent for nothing.
//!
//! Runs wherever packets are made, on one conversation; the tap sees less than both ends do, or in another order.
//! Claims become lines of truth; a flow without one is healthy.

use super::loss;
use super::trouble::{Claim, FIRST, MS, SECOND, SECOND_BIT, also, chat, main_claim};
use crate::packet::{ACK, PSH};
use crate::profile::Side::{Client, Server};
use crate::tcp::{Conversation, LastAck, Segment};

/// When a segment is sent again, ms after the first time.
const TIMEOUTS: [u64; 4] = [240, 720, 1680, 3600];

/// A path long enough to tell reordering from repetition.
fn far(c: &mut Conversation) {
    for side in [Client, Server] {
        let end = c.profile.end_mut(side);
        end.rtt = end.rtt.max(8 * MS);
    }
    c.handshake();
    chat(c, 2);
    c.send(Client, 240, LastAck::WithAnswer);
}

/// One more exchange, and an ordinary close.
pub fn finish(c: &mut Conversation) {
    c.silence(30 * MS);
    chat(c, 1);
    c.close(Client, true);
}

/// The client's ACK does not reach the server, which sends again what has arrived.
pub fn ack_lost(c: &mut Conversation) -> Vec<Claim> {
    far(c);
    let data = c.pass(Segment { len: 900, ..c.segment(Server, ACK | PSH) });
    c.push(c.segment(Client, ACK));
    c.pass(again(c, &data, 0, FIRST));
    c.pass(c.segment(Client, ACK));
    finish(c);
    vec![main_claim("spurious_retransmission", 1, FIRST), also("retransmission", Some(1), FIRST)]
}

/// A segment sent again by the sender's timer, for the `turn`th time from 0.
pub fn again(c: &Conversation, s: &Segment, turn: usize, marks: u8) -> Segment {
    let round_trip = c.profile.end(Client).rtt + c.profile.end(Server).rtt;
    let at = s.at + TIMEOUTS[turn] * MS + round_trip;
    Segment { at, seq: s.seq, len: s.len, marks, ..c.segment(s.side, s.flags) }
}

/// As old stacks probe: with the last byte once more.
pub fn keepalive_with_a_byte(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    c.silence(5 * SECOND);
    let last = c.next[Client.index()].wrapping_sub(1);
    c.pass(Segment { seq: last, len: 1, marks: FIRST, ..c.segment(Client, ACK) });
    c.pass(c.segment(Server, ACK));
    finish(c);
    vec![main_claim("keepalive", 1, FIRST)]
}

/// What the client says of three segments of which the second came last: when, and up to where.
fn acknowledge_around(c: &mut Conversation, [first, second, third]: [&Segment; 3]) {
    let after = |c: &Conversation, s: &Segment| s.at + c.profile.end(Client).rtt + 30_000;
    let at = after(c, first);
    c.pass(Segment { at, ack: first.end(), ..c.segment(Client, ACK) });
    let (at, sack) = (after(c, third), [third.seq, third.end()]);
    c.pass(Segment { at, ack: first.end(), sack, ..c.segment(Client, ACK) });
    let at = after(c, second);
    c.pass(Segment { at, ack: third.end(), ..c.segment(Client, ACK) });
}

/// The second of three segments takes a longer queue.
pub fn overtaken(c: &mut Conversation) -> Vec<Claim> {
    far(c);
    let len = c.max_payload as u16;
    let first = c.pass(Segment { len, ..c.segment(Server, ACK) });
    let index = c.segments.len();
    let second = c.pass(Segment { len, marks: FIRST, ..c.segment(Server, ACK) });
    let third = c.pass(Segment { len, ..c.segment(Server, ACK | PSH) });
    let second = Segment { at: third.at + 150_000, ..second };
    c.segments[index] = second;
    acknowledge_around(c, [&first, &second, &third]);
    finish(c);
    vec![main_claim("out_of_order", 1, FIRST), also("lost_segment", Some(1), FIRST)]
}

/// The tap sees only the repeat of a lost segment, after the duplicate ACKs.
pub fn lost_before_the_tap(c: &mut Conversation) -> Vec<Claim> {
    far(c);
    loss::lost_in_the_middle(c);
    let repeat = c.segments.iter().find(|s| s.marks & SECOND_BIT != 0).copied();
    c.segments.retain(|s| s.len == 0 || s.marks != 0 || repeat.is_none_or(|repeat| s.seq != repeat.seq));
    finish(c);
    vec![main_claim("lost_segment", 1, FIRST), also("retransmission", Some(1), FIRST)]
}

/// The tap sees only the repeat, after the sender's timer.
pub fn back_by_timeout(c: &mut Conversation) -> Vec<Claim> {
    far(c);
    let len = c.max_payload as u16;
    let first = c.pass(Segment { len, ..c.segment(Server, ACK) });
    let lost = unseen(c, len);
    let third = c.pass(Segment { len, ..c.segment(Server, ACK | PSH) });
    let repeat = c.pass(again(c, &lost, 0, FIRST));
    acknowledge_around(c, [&first, &repeat, &third]);
    finish(c);
    vec![main_claim("lost_segment", 1, FIRST), also("retransmission", Some(1), FIRST)]
}

/// A segment of the server that the tap does not see.
fn unseen(c: &mut Conversation, len: u16) -> Segment {
    let s = Segment { len, ..c.segment(Server, ACK) };
    c.next[Server.index()] = s.end();
    s
}

/// The mirror drops two segments that arrive.
pub fn missed(c: &mut Conversation) -> Vec<Claim> {
    far(c);
    let len = c.max_payload as u16;
    c.pass(Segment { len, ..c.segment(Server, ACK) });
    for _ in 0..2 {
        let s = unseen(c, len);
        c.deliver(&s);
    }
    c.pass(Segment { len: 400, marks: FIRST, ..c.segment(Server, ACK | PSH) });
    c.pass(c.segment(Client, ACK));
    finish(c);
    vec![main_claim("lost_segment", 1, FIRST)]
}

/// The capture begins in the middle.
pub fn under_way(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    c.segments.clear();
    finish(c);
    Vec::new()
}
