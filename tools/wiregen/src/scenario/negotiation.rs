//! What the two SYNs agree on, and what becomes of a transfer that agreed on too little: ECN that is dropped or
//! ignored, SACK blocks that a device forgot to rewrite, tiny segments, small windows, steady loss.
//!
//! Runs wherever packets are made, on one conversation. Claims become lines of truth.

use crate::packet::{ACK, CWR, ECE, SYN};
use crate::profile::Side::{Client, Server};
use crate::scenario::trouble::{Claim, FIRST, MS, SECOND, SECOND_BIT, also, chat, main_claim};
use crate::scenario::world::World;
use crate::scenario::{healthy, loss};
use crate::tcp::{Conversation, LastAck, Segment};

/// A round trip that makes windows and losses matter, ns.
const LONG: u64 = 40 * MS;

/// SYNs with the ECN offer vanish at 0 and 1 s, the plain one at 2.5 s arrives.
pub fn ecn_syn_blackhole(c: &mut Conversation) -> Vec<Claim> {
    let start = c.ready[Client.index()];
    let isn = c.profile.end(Client).isn;
    for at in [0, 1] {
        let marks = if at == 0 { FIRST } else { FIRST | SECOND_BIT };
        let flags = SYN | ECE | CWR;
        c.push(Segment { at: start + at * SECOND, seq: isn, marks, ..c.segment(Client, flags) });
    }
    let plain = Segment { at: start + 5 * SECOND / 2, seq: isn, marks: SECOND_BIT, ..c.segment(Client, SYN) };
    c.pass(plain);
    c.pass(c.segment(Server, SYN | ACK));
    c.pass(c.segment(Client, ACK));
    chat(c, 3);
    c.close(Client, true);
    vec![main_claim("ecn_syn_blackhole", 1, FIRST), also("syn_retransmission", Some(2), SECOND_BIT)]
}

/// All SYNs of two connections offer ECN and vanish; those without the offer reach the same service before, meanwhile and
/// after. At another service a SYN with the offer and its repeats are lost, too, but others with the offer get through.
pub fn ecn_blackhole_flows(world: &mut World) {
    for i in 0..24 {
        healthy::flow(world, 1 + i, (20, 8443), SECOND + u64::from(i) * 700 * MS);
    }
    for (i, server) in [(0, 20), (1, 20), (2, 21)] {
        let mut c = world.open(40 + i, (server, 8443), 3 * SECOND + u64::from(i) * 400 * MS);
        let (start, isn) = (c.ready[Client.index()], c.profile.end(Client).isn);
        for at in [0, 1, 3, 7] {
            let marks = if at == 0 { FIRST } else { FIRST | SECOND_BIT };
            c.push(Segment {
                at: start + at * SECOND,
                seq: isn,
                marks,
                ..c.segment(Client, SYN | ECE | CWR)
            });
        }
        let said = if server == 20 {
            main_claim("ecn_syn_blackhole", 1, FIRST)
        } else {
            also("syn_retransmission", Some(3), SECOND_BIT)
        };
        world.troubled(c, vec![said, main_claim("syn_no_synack", 1, FIRST)]);
    }
    for i in 0..6 {
        let mut c = world.open(50 + i, (21, 8443), 2 * SECOND + u64::from(i) * 900 * MS);
        if i % 2 == 0 {
            ecn_handshake(&mut c)
        } else {
            c.handshake()
        }
        chat(&mut c, 3);
        c.close(Client, false);
        world.healthy(c);
    }
}

/// Senders that don't listen among some that do.
pub fn ecn_ce(world: &mut World) {
    healthy::with_siblings(world, "ecn_ce", 2);
    for i in 0..3 {
        let mut c = world.open(25 + i, (20, 8443), SECOND + u64::from(i) * 600 * MS);
        let claims = ecn_at_work(&mut c);
        world.troubled(c, claims);
    }
}

/// ECN at work: some echoes, each answered, as it should be.
fn ecn_at_work(c: &mut Conversation) -> Vec<Claim> {
    ecn_handshake(c);
    chat(c, 2);
    for _ in 0..3 {
        c.send(Server, 4 * c.max_payload, LastAck::Sent);
        let echo = Segment { marks: FIRST, ..c.segment(Client, ACK | ECE) };
        c.pass(echo);
        let answer = Segment { len: 200, ..c.segment(Server, ACK | CWR) };
        c.pass(answer);
        c.pass(c.segment(Client, ACK));
    }
    c.close(Client, false);
    vec![also("ecn_ce", Some(3), FIRST)]
}

/// The client echoes congestion in 25 acknowledgements, and the server never says that it heard.
pub fn ecn_ignored(c: &mut Conversation) -> Vec<Claim> {
    ecn_handshake(c);
    chat(c, 2);
    for _ in 0..25 {
        let data = Segment { len: 900, ..c.segment(Server, ACK) };
        c.pass(data);
        let echo = Segment { marks: FIRST, ..c.segment(Client, ACK | ECE) };
        c.pass(echo);
    }
    c.close(Client, false);
    vec![main_claim("ecn_ce", 25, FIRST)]
}

fn ecn_handshake(c: &mut Conversation) {
    c.pass(Segment { seq: c.profile.end(Client).isn, ..c.segment(Client, SYN | ECE | CWR) });
    c.pass(c.segment(Server, SYN | ACK | ECE));
    c.pass(c.segment(Client, ACK));
}

/// A device shifted the sequence numbers and left the SACK blocks as they were.
pub fn sack_garbled(c: &mut Conversation) -> Vec<Claim> {
    let claims = loss::retransmission(c);
    let shift = c.rng.range(1 << 24, 1 << 31) as u32;
    let mut count = 0;
    for s in c.segments.iter_mut().filter(|s| s.sack[0] != s.sack[1]) {
        s.sack = s.sack.map(|edge| edge.wrapping_add(shift));
        s.marks |= 8;
        count += 1;
    }
    let with_it = claims.into_iter().map(|claim| Claim { main: false, ..claim });
    std::iter::once(main_claim("sack_garbled", count, 8)).chain(with_it).collect()
}

/// 300 bytes a segment, and a lot of them.
pub fn mss_low(c: &mut Conversation) -> Vec<Claim> {
    c.profile.end_mut(Server).mss = 300;
    c.max_payload = c.profile.full_payload();
    c.handshake();
    mark_syns(c);
    chat(c, 8);
    c.exchange(200, MS, 30_000);
    c.close(Client, false);
    vec![main_claim("mss_low", 1, FIRST)]
}

fn mark_syns(c: &mut Conversation) {
    c.segments.iter_mut().filter(|s| s.flags & SYN != 0).for_each(|s| s.marks |= FIRST);
}

/// Two megabytes over a long way with a window of 44 segments and no window scaling.
pub fn window_limited(c: &mut Conversation) -> Vec<Claim> {
    for side in [Client, Server] {
        let end = c.profile.end_mut(side);
        end.rtt = LONG / 2;
        end.wscale = None;
    }
    let window = 44 * c.max_payload;
    c.profile.end_mut(Client).window = window;
    c.handshake();
    mark_syns(c);
    c.exchange(300, 3 * MS, 2_000_000);
    c.close(Client, true);
    vec![main_claim("window_limited", 1, FIRST), also("wscale_missing", Some(1), FIRST)]
}

/// One segment in eight is lost, again and again, over a long way.
pub fn loss_limited(c: &mut Conversation) -> Vec<Claim> {
    for side in [Client, Server] {
        c.profile.end_mut(side).rtt = LONG / 2;
    }
    c.handshake();
    chat(c, 1);
    for _ in 0..40 {
        loss::lost_in_the_middle(c);
        c.silence(30 * MS);
    }
    c.close(Client, true);
    for s in c.segments.iter_mut().filter(|s| s.marks & SECOND_BIT != 0) {
        s.marks = FIRST;
    }
    vec![main_claim("loss_limited", 1, FIRST), also("retransmission", Some(40), FIRST)]
}
