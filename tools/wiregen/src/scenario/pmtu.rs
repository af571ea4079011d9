//! A path narrower than its ends believe: once with the ICMP error that says so, once without it.
//!
//! Runs wherever packets are made, on one conversation. The narrow link is between tap and client (RFC 1191,
//! RFC 8201; black hole: RFC 2923 §2.1). Claims become lines of truth.

use crate::packet::{ACK, PSH, ip_header_len};
use crate::profile::Side::{Client, Server};
use crate::scenario::trouble::{Claim, FIRST, MS, SECOND_BIT, THIRD, also, main_claim};
use crate::tcp::{Conversation, Kind, LastAck, Segment};

/// MTU of the narrow link, bytes.
const MTU: u16 = 1400;
/// When the stuck segment is sent again, ms after the first time.
const TIMEOUTS: [u64; 5] = [320, 960, 2240, 4800, 9920];

/// Small exchanges only; they fit through the narrow link.
fn small_talk(c: &mut Conversation) {
    c.handshake();
    let hello = crate::content::first_message(c.profile.content).unwrap_or(240);
    c.exchange(hello, 2 * MS, 400);
    c.silence(5 * MS);
    c.exchange(180, 3 * MS, 620);
    c.silence(12 * MS);
}

/// Path MTU discovery at work: two full segments bounce, their bytes are sent again in smaller ones.
pub fn icmp_frag_needed(c: &mut Conversation) -> Vec<Claim> {
    small_talk(c);
    c.send(Client, 260, LastAck::WithAnswer);
    let full = c.max_payload;
    let mut bounced = Vec::new();
    for _ in 0..2 {
        bounced.push(c.push(Segment { len: full as u16, ..c.segment(Server, ACK) }));
    }
    for s in &bounced {
        let at = s.at + MS / 2 + c.profile.end(Client).rtt / 2;
        c.push(Segment { at, kind: Kind::TooBig { mtu: MTU }, marks: FIRST, ..*s });
    }
    let narrow = u32::from(MTU) - (ip_header_len(c.profile.end(Server).ip) as u32 + 20);
    c.max_payload = (narrow - if c.profile.timestamps { 12 } else { 0 }).min(full);
    // The narrow link is near the client: the news takes longer than a round trip of the handshake did, so
    // that nobody takes the repeats for reordering.
    let told = c.last + c.profile.end(Server).rtt + c.profile.end(Client).rtt / 2 + 3 * MS;
    c.ready[Server.index()] = c.ready[Server.index()].max(told);
    // Rewinding lets the ordinary sender repeat the bytes in its new size.
    let (from, end) = (c.segments.len(), c.next[Server.index()]);
    c.next[Server.index()] = bounced[0].seq;
    c.send(Server, end.wrapping_sub(bounced[0].seq), LastAck::Sent);
    let mut repeats = 0;
    for s in c.segments[from..].iter_mut().filter(|s| s.side == Server && s.len > 0) {
        s.marks = SECOND_BIT;
        repeats += 1;
    }
    c.silence(4 * MS);
    c.exchange(300, 4 * MS, 6 * c.max_payload);
    c.silence(10 * MS);
    c.close(Client, false);
    vec![main_claim("icmp_frag_needed", 2, FIRST), also("retransmission", Some(repeats), SECOND_BIT)]
}

/// Full segments vanish without a word, again and again, while small ones pass.
pub fn pmtu_blackhole(c: &mut Conversation) -> Vec<Claim> {
    small_talk(c);
    c.send(Client, 260, LastAck::WithAnswer);
    let len = c.max_payload as u16;
    let stuck = c.push(Segment { len, marks: FIRST, ..c.segment(Server, ACK) });
    c.push(Segment { len, ..c.segment(Server, ACK) });
    let tail = c.push(Segment { len: 180, ..c.segment(Server, ACK | PSH) });
    c.deliver(&tail);
    c.pass(Segment { sack: [tail.seq, tail.end()], marks: THIRD, ..c.segment(Client, ACK) });
    let mut asked = false;
    for after in TIMEOUTS {
        let at = stuck.at + after * MS;
        if !asked && after > 1500 {
            asked = true;
            ask_again(c, stuck.at + 1500 * MS, [tail.seq, tail.end()]);
        }
        let seq = stuck.seq;
        c.push(Segment { at, seq, len, marks: FIRST | SECOND_BIT, ..c.segment(Server, ACK) });
    }
    vec![
        main_claim("pmtu_blackhole", 1, FIRST),
        also("retransmission", Some(TIMEOUTS.len() as u32), SECOND_BIT),
        also("duplicate_ack", None, THIRD),
    ]
}

/// A small request in the meantime, and the server's ACK of it: small packets pass both ways.
fn ask_again(c: &mut Conversation, at: u64, sack: [u32; 2]) {
    let request = c.segment(Client, ACK | PSH);
    c.pass(Segment { at, len: 90, sack, ..request });
    c.pass(c.segment(Server, ACK));
}
