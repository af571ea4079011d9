//! Segments that are lost beyond the tap and sent again: once by fast retransmission, once by timeout.
//!
//! Runs wherever packets are made, on one conversation. The numbers follow RFC 5681 and RFC 6298; the tap sees
//! the original and the repeat, as it stands before the loss. Claims become lines of truth.

use crate::packet::{ACK, PSH};
use crate::profile::Side::{Client, Server};
use crate::scenario::trouble::{Claim, FIRST, MS, SECOND_BIT, THIRD, also, chat, main_claim};
use crate::tcp::{Conversation, LastAck, Segment};

/// Segments in the flight that loses one in the middle.
const FLIGHT: u32 = 8;

/// One fast retransmission after duplicate ACKs and one repeat after a timeout.
pub fn retransmission(c: &mut Conversation) -> Vec<Claim> {
    // Duplicate ACKs count as the reason only if the repeat follows within 20 ms.
    let server = c.profile.end_mut(Server);
    server.rtt = server.rtt.min(12 * MS);
    c.handshake();
    chat(c, 2);
    let duplicates = lost_in_the_middle(c);
    c.silence(30 * MS);
    lost_at_the_end(c);
    c.silence(20 * MS);
    chat(c, 1);
    c.close(Client, true);
    vec![
        main_claim("retransmission", 2, FIRST),
        also("fast_retransmission", Some(1), SECOND_BIT),
        also("duplicate_ack", Some(duplicates), THIRD),
    ]
}

/// The third of eight full segments is lost; the rest make the client repeat its ACK. Gives how often.
pub fn lost_in_the_middle(c: &mut Conversation) -> u32 {
    c.send(Client, 240, LastAck::WithAnswer);
    let len = c.max_payload as u16;
    let client_rtt = c.profile.end(Client).rtt;
    let mut sent = Vec::new();
    for i in 0..FLIGHT {
        let s = c.push(Segment { len, ..c.segment(Server, ACK) });
        if i < 2 {
            c.deliver(&s);
        }
        sent.push(s);
    }
    let ack_at = |s: &Segment| s.at + client_rtt + 30_000;
    c.pass(Segment { at: ack_at(&sent[1]), ..c.segment(Client, ACK) });
    let lost = sent[2];
    let mut duplicates: Vec<Segment> = Vec::new();
    for s in &sent[3..] {
        let sack = [lost.end(), s.end()];
        let echo = sent[1].at;
        duplicates.push(c.push(Segment {
            at: ack_at(s),
            echo,
            ack: lost.seq,
            sack,
            marks: THIRD,
            ..c.segment(Client, ACK)
        }));
    }
    let third = duplicates[2].at + c.profile.end(Server).rtt;
    let last = sent[sent.len() - 1];
    let again = Segment {
        at: third.max(last.at + MS / 10),
        seq: lost.seq,
        len,
        marks: FIRST | SECOND_BIT,
        ..c.segment(Server, ACK)
    };
    c.pass(again);
    c.expects[Client.index()] = c.next[Server.index()];
    let repaired = c.segment(Client, ACK);
    let after_duplicates = duplicates[duplicates.len() - 1].at + MS / 10;
    c.pass(Segment { at: repaired.at.max(after_duplicates), ..repaired });
    duplicates.len() as u32
}

/// The last segment of an answer is lost; nothing follows it, so only the timer brings it back.
fn lost_at_the_end(c: &mut Conversation) {
    c.send(Client, 240, LastAck::WithAnswer);
    c.send(Server, 2 * c.max_payload, LastAck::Sent);
    let len = 700;
    let lost = c.push(Segment { len, ..c.segment(Server, ACK | PSH) });
    let timeout = (200 * MS).max(2 * (c.profile.end(Client).rtt + c.profile.end(Server).rtt)) + 20 * MS;
    let again =
        Segment { at: lost.at + timeout, seq: lost.seq, len, marks: FIRST, ..c.segment(Server, ACK | PSH) };
    c.pass(again);
    c.pass(c.segment(Client, ACK));
}
