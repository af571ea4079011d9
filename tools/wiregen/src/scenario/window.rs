//! A receiver that stops reading: the window closes, the sender probes, the window opens again.
//!
//! Runs wherever packets are made, on one conversation. Probes are those of Linux: no payload, one byte before
//! the next sequence number, at doubling intervals (RFC 9293 §3.8.6.1). Claims become lines of truth.

use crate::packet::{ACK, PSH};
use crate::profile::Side::{Client, Server};
use crate::scenario::trouble::{Claim, FIRST, MS, SECOND_BIT, THIRD, also, chat, main_claim};
use crate::tcp::{Conversation, LastAck, Segment};

/// The client's buffer, full segments.
const BUFFER: u32 = 10;
/// When the probes go out after the window closed, ms; the last one finds it still closed.
const PROBES: [u64; 5] = [240, 720, 1680, 3600, 7440];
/// When the client reads again, ms after the window closed.
const REOPEN: u64 = 8800;

/// The client's window is closed for 8.8 s and probed five times.
pub fn zero_window(c: &mut Conversation) -> Vec<Claim> {
    let mut claims = closed_for(c, &PROBES, REOPEN);
    claims.insert(0, main_claim("zero_window_stall", 1, FIRST));
    claims
}

/// The window is closed for 4.9 s, which is not worth an incident.
pub fn zero_window_short(c: &mut Conversation) -> Vec<Claim> {
    closed_for(c, &PROBES[..4], 4900)
}

fn closed_for(c: &mut Conversation, probes: &[u64], reopen: u64) -> Vec<Claim> {
    // Shift 0, so that the window can close to the byte without its right edge moving back.
    let buffer = BUFFER * c.max_payload;
    let client = c.profile.end_mut(Client);
    client.wscale = Some(0);
    client.window = buffer;
    c.handshake();
    chat(c, 1);
    c.send(Client, 310, LastAck::WithAnswer);
    fill(c, buffer);
    let closed = c.last;
    for at in probes {
        let probe_at = closed + *at * MS;
        let probe = c.segment(Server, ACK);
        let seq = probe.seq.wrapping_sub(1);
        c.pass(Segment { at: probe_at, seq, marks: SECOND_BIT, ..probe });
        let answer = c.segment(Client, ACK);
        c.pass(Segment { window: 0, marks: FIRST, ..answer });
    }
    let open = c.segment(Client, ACK);
    c.pass(Segment { at: closed + reopen * MS, ..open });
    c.send(Server, 4 * c.max_payload + 300, LastAck::Sent);
    c.silence(20 * MS);
    c.close(Client, false);
    let zeros = probes.len() as u32 + 1;
    vec![
        main_claim("zero_window", zeros, FIRST),
        also("zero_window_probe", Some(probes.len() as u32), SECOND_BIT),
        also("window_full", Some(1), THIRD),
    ]
}

/// The server fills the buffer; the client acknowledges and reads nothing.
fn fill(c: &mut Conversation, buffer: u32) {
    let len = c.max_payload as u16;
    let mut free = buffer;
    let mut sent = Vec::new();
    for i in 1..=BUFFER {
        let (flags, marks) = if i == BUFFER { (ACK | PSH, THIRD) } else { (ACK, 0) };
        sent.push(c.pass(Segment { len, marks, ..c.segment(Server, flags) }));
    }
    for pair in sent.chunks(2) {
        let last = pair[pair.len() - 1];
        free -= 2 * c.max_payload;
        let ack = Segment {
            at: last.at + c.profile.end(Client).rtt + 30_000,
            echo: pair[0].at,
            ack: last.end(),
            window: free as u16,
            marks: if free == 0 { FIRST } else { 0 },
            ..c.segment(Client, ACK)
        };
        c.pass(ack);
    }
}
