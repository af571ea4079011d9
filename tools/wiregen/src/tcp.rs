//! A conversation of two TCP ends as a tap between them sees it: sequence numbers, ACKs, windows, time.
//!
//! Runs wherever packets are made. It appends [`Segment`]s to a list and knows no bytes; render.rs makes frames
//! of them. An end never answers what cannot have reached it yet: each packet makes the other end ready one
//! tap-to-end round trip later. Trouble is made by pushing a segment without delivering it.

use crate::packet::{ACK, FIN, PSH, RST, SYN};
use crate::profile::{Profile, Side};
use crate::rng::Rng;

/// Serialisation and interrupt gap between two packets of one sender, ns.
const GAP: u64 = 12_000;
/// First flight and largest flight, segments (RFC 6928; both even, so that delayed ACKs fall into pairs).
const FIRST_FLIGHT: u32 = 10;
const LARGEST_FLIGHT: u32 = 256;

/// What a segment is besides its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Plain,
    /// Not from a socket (a RST for an unknown flow, or a forged one): no time stamps; TTL as given, 0 = the
    /// end's own. IP-ID as in the segment.
    Bare { ttl: u8 },
    /// An ICMP "too big" from the router *to* `side`, about the segment with these numbers.
    TooBig { mtu: u16 },
    /// Likewise an ICMP "unreachable": the host does not answer on its link.
    Unreachable,
    /// By another route than its end's other packets.
    Rerouted { ttl: u8 },
}

impl Kind {
    /// A router says it of the segment.
    fn is_icmp(self) -> bool {
        matches!(self, Kind::TooBig { .. } | Kind::Unreachable)
    }
}

/// One packet of a conversation, not yet bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// When the tap sees it, ns since the epoch.
    pub at: u64,
    /// When the tap saw what it echoes (RFC 7323); 0 for none.
    pub echo: u64,
    pub seq: u32,
    pub ack: u32,
    /// One SACK block; equal edges for none.
    pub sack: [u32; 2],
    pub window: u16,
    /// Payload bytes.
    pub len: u16,
    pub ip_id: u16,
    pub flags: u8,
    /// Bits naming the statements of truth that this packet shows.
    pub marks: u8,
    pub side: Side,
    pub kind: Kind,
}

impl Segment {
    /// The sequence number after it.
    pub fn end(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(u32::from(self.len)).wrapping_add(flags)
    }
}

/// Whether the receiver of a message acknowledges its last segment, or lets its answer do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAck {
    Sent,
    WithAnswer,
}

/// The two ends in mid-conversation.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub profile: Profile,
    pub rng: Rng,
    /// What was said so far, each side's own packets in order; [`Conversation::sort`] orders them all.
    pub segments: Vec<Segment>,
    /// Largest payload of one segment, bytes.
    pub max_payload: u32,
    /// Next sequence number of each side.
    pub next: [u32; 2],
    /// Next sequence number each side expects of the other.
    pub expects: [u32; 2],
    /// Earliest time a packet of each side can pass the tap, ns.
    pub ready: [u64; 2],
    heard: [u64; 2],
    ip_id: [u16; 2],
    /// Time of the last packet, ns.
    pub last: u64,
}

impl Conversation {
    /// Two closed ends; the first packet will be at `at` ns.
    pub fn new(profile: Profile, rng: Rng, at: u64) -> Conversation {
        let [client, server] = profile.ends;
        Conversation {
            max_payload: profile.full_payload(),
            next: [client.isn, server.isn],
            expects: [server.isn, client.isn],
            ready: [at; 2],
            heard: [0; 2],
            ip_id: [client.ip_id, server.ip_id],
            last: at,
            profile,
            rng,
            segments: Vec::new(),
        }
    }

    /// What `side` would send now, without payload.
    pub fn segment(&self, side: Side, flags: u8) -> Segment {
        let window = self.profile.end(side).window;
        let syn = flags & SYN != 0;
        Segment {
            at: self.ready[side.index()],
            echo: self.heard[side.index()],
            seq: self.next[side.index()],
            ack: if flags & ACK != 0 { self.expects[side.index()] } else { 0 },
            sack: [0; 2],
            window: if syn { window.min(0xffff) as u16 } else { self.profile.window_field(side, window) },
            len: 0,
            ip_id: 0,
            flags,
            marks: 0,
            side,
            kind: Kind::Plain,
        }
    }

    /// The tap sees a segment; whether it arrives is another matter. Gives it back with its IP-ID.
    pub fn push(&mut self, mut s: Segment) -> Segment {
        let i = s.side.index();
        if s.kind == Kind::Plain {
            s.ip_id = self.ip_id[i];
            self.ip_id[i] = self.ip_id[i].wrapping_add(1);
        }
        if !s.kind.is_icmp() {
            if after(s.end(), self.next[i]) {
                self.next[i] = s.end();
            }
            self.ready[i] = self.ready[i].max(s.at + GAP);
        }
        self.last = self.last.max(s.at);
        self.segments.push(s);
        s
    }

    /// A segment that the tap saw reaches the other end.
    pub fn deliver(&mut self, s: &Segment) {
        let to = s.side.other();
        let i = to.index();
        self.ready[i] = self.ready[i].max(s.at + self.profile.end(to).rtt);
        self.heard[i] = self.heard[i].max(s.at);
        if !after(s.seq, self.expects[i]) && after(s.end(), self.expects[i]) {
            self.expects[i] = s.end();
        }
    }

    /// Pushes and delivers.
    pub fn pass(&mut self, s: Segment) -> Segment {
        let s = self.push(s);
        self.deliver(&s);
        s
    }

    /// SYN, SYN-ACK, ACK.
    pub fn handshake(&mut self) {
        self.pass(Segment { seq: self.profile.end(Side::Client).isn, ..self.segment(Side::Client, SYN) });
        self.pass(self.segment(Side::Server, SYN | ACK));
        self.pass(self.segment(Side::Client, ACK));
    }

    /// One message of `side`, in flights that double from ten segments, every second segment acknowledged;
    /// each flight waits for the ACKs of the one before.
    pub fn send(&mut self, side: Side, bytes: u32, last: LastAck) {
        let mut left = bytes;
        let mut flight = FIRST_FLIGHT;
        let fits = self.profile.window(side.other()) / self.max_payload;
        while left > 0 {
            let most = flight.min(fits.max(2) & !1);
            let n = left.div_ceil(self.max_payload).min(most);
            let bytes = left.min(n * self.max_payload);
            left -= bytes;
            self.flight(side, bytes, left == 0, if left == 0 { last } else { LastAck::Sent });
            flight = (flight * 2).min(LARGEST_FLIGHT);
        }
    }

    fn flight(&mut self, side: Side, bytes: u32, push: bool, last: LastAck) {
        let receiver = side.other();
        let from = self.segments.len();
        let mut left = bytes;
        while left > 0 {
            let len = left.min(self.max_payload);
            left -= len;
            let flags = if left == 0 && push { ACK | PSH } else { ACK };
            let jitter = self.rng.below(20_000);
            let mut s = Segment { len: len as u16, ..self.segment(side, flags) };
            s.at += jitter;
            self.pass(s);
        }
        let to = self.segments.len();
        let mut acked_at = 0;
        for i in from..to {
            let first_of_pair = (i - from).is_multiple_of(2);
            if (first_of_pair && i + 1 < to) || (i + 1 == to && last == LastAck::WithAnswer) {
                continue;
            }
            let data = self.segments[i];
            let echo = self.segments[if first_of_pair { i } else { i - 1 }].at;
            let at = data.at + self.profile.end(receiver).rtt + 20_000 + self.rng.below(40_000);
            acked_at = at.max(acked_at + GAP);
            let ack = Segment { at: acked_at, echo, ack: data.end(), ..self.segment(receiver, ACK) };
            self.pass(ack);
        }
    }

    /// A request of the client and the server's answer, `think` ns after the request arrived.
    pub fn exchange(&mut self, request: u32, think: u64, answer: u32) {
        self.send(Side::Client, request, LastAck::WithAnswer);
        self.ready[Side::Server.index()] += think;
        self.send(Side::Server, answer, LastAck::Sent);
    }

    /// Nobody says anything until `ns` after the last packet.
    pub fn silence(&mut self, ns: u64) {
        self.silence_until(self.last + ns);
    }

    /// Nobody says anything before `at`.
    pub fn silence_until(&mut self, at: u64) {
        for ready in &mut self.ready {
            *ready = at.max(*ready);
        }
    }

    /// A keepalive probe without payload (RFC 9293 §3.8.4) and its answer. Gives the probe's index.
    pub fn keepalive(&mut self, side: Side) -> usize {
        let mut probe = self.segment(side, ACK);
        probe.seq = probe.seq.wrapping_sub(1);
        let index = self.segments.len();
        self.pass(probe);
        self.pass(self.segment(side.other(), ACK));
        index
    }

    /// Closes from `side`: three packets, or four when the other end acknowledges before it closes too.
    pub fn close(&mut self, side: Side, four: bool) {
        self.pass(self.segment(side, FIN | ACK));
        let other = side.other();
        if four {
            self.pass(self.segment(other, ACK));
            self.ready[other.index()] += 50_000 + self.rng.below(500_000);
        }
        self.pass(self.segment(other, FIN | ACK));
        self.pass(self.segment(side, ACK));
    }

    /// `side` aborts: a RST with an ACK, nothing outstanding if everything was acknowledged before.
    pub fn abort(&mut self, side: Side) -> usize {
        let index = self.segments.len();
        self.pass(self.segment(side, RST | ACK));
        index
    }

    /// Orders everything said so far by time, each side's own order kept.
    pub fn sort(&mut self) {
        self.segments.sort_by_key(|s| s.at);
    }
}

/// Whether sequence number `a` comes after `b` (RFC 9293 §3.4).
pub fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}
