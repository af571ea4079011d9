//! The troubles of one flow, as plays on a fresh conversation. Each says what is then true of the flow.
//!
//! Runs wherever packets are made; shared by the scenarios, the demo and the mix. A play starts with the
//! handshake and touches nothing outside its conversation. Claims become lines of truth; plays that need more
//! than a page are in files of their own.

use crate::packet::{ACK, PSH, RST, SYN};
use crate::profile::Side::{Client, Server};
use crate::scenario::{loss, negotiation, pmtu, window};
use crate::tcp::{Conversation, Kind, LastAck, Segment};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// Mark bits of a flow's first, second and third claim, and of a host's or service's.
pub const FIRST: u8 = 1;
pub const SECOND_BIT: u8 = 2;
pub const THIRD: u8 = 4;
pub const HOST: u8 = 0x80;

/// TTL of a RST forged one hop from the tap by a device that starts at 255.
pub const MIDDLEBOX_TTL: u8 = 253;

/// Something that is true of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub kind: &'static str,
    pub count: Option<u32>,
    /// Which packets show it: those with one of these mark bits.
    pub bits: u8,
    /// What the flow was made for, not what comes with it.
    pub main: bool,
}

pub fn main_claim(kind: &'static str, count: u32, bits: u8) -> Claim {
    Claim { kind, count: Some(count), bits, main: true }
}

pub fn also(kind: &'static str, count: Option<u32>, bits: u8) -> Claim {
    Claim { kind, count, bits, main: false }
}

/// Makes a fresh conversation troubled.
pub type Play = fn(&mut Conversation) -> Vec<Claim>;

/// Every trouble that concerns one flow alone, with silences of 11–16 s where silence is needed.
pub const PLAYS: [(&str, Play); 18] = [
    ("rst_midflow", rst_midflow),
    ("rst_after_idle", |c| {
        let idle = 11 * SECOND + c.rng.below(5 * SECOND);
        rst_after_idle(c, idle)
    }),
    ("conn_refused", conn_refused),
    ("syn_no_synack", syn_no_synack),
    ("syn_retransmission", syn_retransmission),
    ("retransmission", loss::retransmission),
    ("zero_window", window::zero_window),
    ("icmp_frag_needed", pmtu::icmp_frag_needed),
    ("pmtu_blackhole", pmtu::pmtu_blackhole),
    ("wscale_missing", wscale_missing),
    ("sack_missing", sack_missing),
    ("keepalive", |c| keepalive(c, 3, 5 * SECOND)),
    ("ecn_syn_blackhole", negotiation::ecn_syn_blackhole),
    ("ecn_ce", negotiation::ecn_ignored),
    ("sack_garbled", negotiation::sack_garbled),
    ("mss_low", negotiation::mss_low),
    ("window_limited", negotiation::window_limited),
    ("loss_limited", negotiation::loss_limited),
];

/// So many of them are in a mix: the others are long, or too rare for it.
pub const MIXED: u64 = 12;

/// A few ordinary exchanges, as before any trouble.
pub fn chat(c: &mut Conversation, exchanges: u32) {
    for i in 0..exchanges {
        let fixed = if i == 0 && c.next[0] == c.profile.ends[0].isn.wrapping_add(1) {
            crate::content::first_message(c.profile.content)
        } else {
            None
        };
        let request = fixed.unwrap_or_else(|| c.rng.range(60, 700) as u32);
        let answer = c.rng.range(200, 5000) as u32;
        let think = c.rng.range(MS / 5, 15 * MS);
        c.exchange(request, think, answer);
        let pause = c.rng.range(2 * MS, 80 * MS);
        c.silence(pause);
    }
}

fn rst_midflow(c: &mut Conversation) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    c.send(Client, 420, LastAck::WithAnswer);
    c.ready[Server.index()] += 3 * MS;
    c.pass(Segment { marks: FIRST, ..c.segment(Server, RST | ACK) });
    vec![main_claim("rst_midflow", 1, FIRST)]
}

/// A device in the path forgot the flow during the silence and resets it when the client speaks again.
pub fn rst_after_idle(c: &mut Conversation, idle: u64) -> Vec<Claim> {
    c.handshake();
    chat(c, 3);
    c.silence(idle);
    let len = c.rng.range(80, 600) as u16;
    let request = c.push(Segment { len, ..c.segment(Client, ACK | PSH) });
    let rst = Segment {
        at: request.at + 700_000 + c.rng.below(400_000),
        seq: request.ack,
        ack: 0,
        window: 0,
        kind: Kind::Bare { ttl: MIDDLEBOX_TTL },
        marks: FIRST,
        ..c.segment(Server, RST)
    };
    c.pass(rst);
    vec![
        main_claim("rst_after_idle", 1, FIRST),
        also("rst_midflow", Some(1), FIRST),
        also("rst_injected", Some(1), FIRST),
    ]
}

/// The host lost its state (or never had it) and answers one data segment with a RST of its own.
pub fn reset_by_host(c: &mut Conversation) {
    let len = c.rng.range(60, 400) as u16;
    let data = c.pass(Segment { len, ..c.segment(Client, ACK | PSH) });
    let rst = Segment {
        seq: data.ack,
        ack: 0,
        window: 0,
        kind: Kind::Bare { ttl: 0 },
        marks: FIRST | HOST,
        ..c.segment(Server, RST)
    };
    c.pass(rst);
}

pub fn conn_refused(c: &mut Conversation) -> Vec<Claim> {
    c.pass(c.segment(Client, SYN));
    let kind = Kind::Bare { ttl: 0 };
    c.pass(Segment { seq: 0, window: 0, kind, marks: FIRST, ..c.segment(Server, RST | ACK) });
    vec![main_claim("conn_refused", 1, FIRST)]
}

/// SYNs at 0, 1, 3 and 7 s; `answered` of them vanish, the next one, if any, arrives.
fn syns(c: &mut Conversation, lost: usize) {
    let start = c.ready[Client.index()];
    let isn = c.profile.end(Client).isn;
    for (i, at) in [0, 1, 3, 7].into_iter().enumerate().take(lost + 1) {
        let marks = if i == 0 { 0 } else { SECOND_BIT } | if i == lost { 0 } else { FIRST };
        let syn = Segment { at: start + at * SECOND, seq: isn, marks, ..c.segment(Client, SYN) };
        let syn = c.push(syn);
        if i == lost {
            c.deliver(&syn);
        }
    }
}

pub fn syn_no_synack(c: &mut Conversation) -> Vec<Claim> {
    syns(c, 4);
    vec![main_claim("syn_no_synack", 1, FIRST), also("syn_retransmission", Some(3), SECOND_BIT)]
}

pub fn syn_retransmission(c: &mut Conversation) -> Vec<Claim> {
    syns(c, 1);
    c.pass(c.segment(Server, SYN | ACK));
    c.pass(c.segment(Client, ACK));
    chat(c, 3);
    c.close(Client, true);
    vec![main_claim("syn_retransmission", 1, SECOND_BIT)]
}

pub fn wscale_missing(c: &mut Conversation) -> Vec<Claim> {
    let offered = c.rng.percent(50);
    c.profile.end_mut(Server).wscale = None;
    if !offered {
        c.profile.end_mut(Client).wscale = None;
    }
    c.handshake();
    mark_handshake(c, offered);
    chat(c, 4);
    c.close(Client, false);
    vec![main_claim("wscale_missing", 1, FIRST)]
}

pub fn sack_missing(c: &mut Conversation) -> Vec<Claim> {
    let offered = c.rng.percent(50);
    c.profile.end_mut(Server).sack = false;
    if !offered {
        c.profile.end_mut(Client).sack = false;
    }
    c.handshake();
    mark_handshake(c, offered);
    chat(c, 4);
    c.close(Client, false);
    vec![main_claim("sack_missing", 1, FIRST)]
}

/// Marks the SYN and SYN-ACK that lack an option; the SYN has it if `offered`.
fn mark_handshake(c: &mut Conversation, offered: bool) {
    for s in c.segments.iter_mut().filter(|s| s.flags & SYN != 0) {
        if s.side == Server || !offered {
            s.marks |= FIRST;
        }
    }
}

/// `probes` keepalives, one every `every` ns of silence, then the flow goes on and closes.
pub fn keepalive(c: &mut Conversation, probes: u32, every: u64) -> Vec<Claim> {
    c.handshake();
    chat(c, 2);
    for _ in 0..probes {
        c.silence(every);
        let probe = c.keepalive(Client);
        c.segments[probe].marks |= FIRST;
    }
    c.silence(every / 2);
    chat(c, 1);
    c.close(Client, false);
    vec![main_claim("keepalive", probes, FIRST)]
}
