//! What payload does to a flow's record, on conversations of a few segments.

use super::*;
use crate::analyze::segment;
use crate::decode::flags::{ACK, FIN, RST, SYN};
use crate::decode::frames::Seg;
use crate::flow::record::NONE;
use crate::flow::trouble::TroubleSlab;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;
/// The least a ClientHello starts with.
const HELLO: [u8; 11] = [22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
const SERVER_HELLO: [u8; 6] = [22, 3, 3, 0, 90, 2];

struct Talk {
    flow: Flow,
    troubles: TroubleSlab,
    slab: AppSlab,
    waits: Waits,
    services: Services,
    now: Nanos,
    out: Outcome,
}

impl Talk {
    fn new() -> Talk {
        let mut flow: Flow = bytemuck::Zeroable::zeroed();
        (flow.trouble, flow.tail, flow.hold, flow.app) = (NONE, NONE, NONE, NONE);
        flow.start_ns = S;
        flow.key = Seg::new(true, ACK, 0, 0).packet().key;
        flow.set_originator(true);
        Talk {
            flow,
            troubles: TroubleSlab::new(1),
            slab: AppSlab::new(1),
            waits: Waits::new(11 * S),
            services: Services::new(1),
            now: S,
            out: Outcome::default(),
        }
    }

    fn take(&mut self, after: Nanos, seg: Seg, payload: &[u8]) -> &mut Talk {
        self.now += after;
        let packet = seg.packet();
        self.out = Outcome::default();
        segment(&mut self.flow, &mut self.troubles, &packet, self.now, &mut self.out);
        if self.out.turn || self.flow.has(flow_flag::HELLO_WAITS) {
            let mut tables =
                Tables { slab: &mut self.slab, waits: &mut self.waits, services: &mut self.services };
            let times = (self.now, self.now);
            follow(&mut self.flow, 7, &mut tables, &packet, payload, times, &mut self.out);
        }
        self
    }

    fn a(&mut self, after: Nanos, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> &mut Talk {
        self.take(after, Seg::new(true, flags, seq, ack).data(payload.len()), payload)
    }

    fn b(&mut self, after: Nanos, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> &mut Talk {
        self.take(after, Seg::new(false, flags, seq, ack).data(payload.len()), payload)
    }

    fn handshake(&mut self) -> &mut Talk {
        self.a(0, SYN, 0, 0, &[]).b(8 * MS, SYN | ACK, 0, 1, &[]).a(2 * MS, ACK, 1, 1, &[])
    }

    fn hello(&mut self) -> &mut Talk {
        self.handshake().a(MS, ACK, 1, 1, &HELLO).b(8 * MS, ACK, 1, 12, &[])
    }

    fn facts(&self) -> AppFacts {
        facts(&self.flow, self.slab.get(self.flow.app), self.now)
    }
}

#[test]
fn a_hello_waits_for_any_answer() {
    let mut t = Talk::new();
    t.hello();
    let f = t.facts();
    assert_eq!((f.tls_waits, f.tls_answered, f.hello_ms, f.tls_us), (true, Some(false), Some(8), None));
    // The capture cut the answer's bytes: it was one all the same.
    t.take(50 * MS, Seg::new(false, ACK, 1, 12).data(900), &[]);
    let f = t.facts();
    assert_eq!((f.tls_waits, f.tls_answered, f.tls_us), (false, Some(true), Some(58_000)));
    assert_eq!((f.connect_us, f.first_byte_us, f.server_hello_after_rst), (Some(10_000), None, Some(false)));
    assert!(t.waits.oldest().is_none() && t.out.events.is_empty());
}

#[test]
fn alerts_and_fins_end_the_wait() {
    let mut t = Talk::new();
    t.hello().b(MS, ACK, 1, 12, &[21, 3, 3, 0, 2, 2, 40]);
    assert!(t.out.events.contains(Event::TlsTimeout) && t.waits.oldest().is_none());
    assert_eq!((t.facts().tls_alert, t.facts().tls_over), (Some(40), Some(true)));
    let mut t = Talk::new();
    t.hello().b(MS, ACK, 1, 12, &[21, 3, 3, 0, 2, 1, 112]);
    assert_eq!((t.facts().tls_alert, t.facts().tls_answered), (Some(112), Some(true)), "a warning");
    let mut t = Talk::new();
    t.hello().b(MS, FIN | ACK, 1, 12, &[]);
    assert!(t.out.events.contains(Event::TlsTimeout));
    assert_eq!((t.facts().tls_waits, t.facts().tls_over), (false, Some(true)));
}

#[test]
fn what_the_server_says_after_a_rst_in_its_name_is_remembered() {
    let mut t = Talk::new();
    t.hello().b(MS, RST, 1, 0, &[]);
    assert!(t.waits.oldest().is_none() && t.facts().tls_waits);
    t.b(60 * MS, ACK, 1, 12, &SERVER_HELLO);
    assert_eq!(t.facts().server_hello_after_rst, Some(true));
    assert_eq!(t.facts().tls_answered, Some(false), "not before the RST");
}

#[test]
fn only_the_first_bytes_of_a_connection_can_be_its_hello() {
    let no_hello = |t: &Talk| t.facts().hello_ms.is_none() && !t.flow.has(flow_flag::HELLO_WAITS);
    // Picked up in its middle.
    let mut t = Talk::new();
    t.a(0, ACK, 1, 1, &[]).b(MS, ACK, 1, 1, &[]).a(MS, ACK, 1, 1, &HELLO);
    assert!(no_hello(&t));
    // The server spoke first, or something else was said before: STARTTLS and its like.
    let mut t = Talk::new();
    t.handshake().b(MS, ACK, 1, 1, b"220 hello\r\n").a(MS, ACK, 1, 12, &HELLO);
    assert!(no_hello(&t));
    let mut t = Talk::new();
    t.handshake().a(MS, ACK, 1, 1, b"STARTTLS\r\n").b(MS, ACK, 1, 11, b"220\r\n").a(MS, ACK, 11, 6, &HELLO);
    assert!(no_hello(&t));
    // One direction only.
    let mut t = Talk::new();
    t.a(0, SYN, 0, 0, &[]).a(MS, ACK, 1, 1, &[]).a(MS, ACK, 1, 1, &HELLO);
    assert!(no_hello(&t));
}

#[test]
fn answers_are_timed_and_errors_counted() {
    let mut t = Talk::new();
    t.handshake().a(MS, ACK, 1, 1, b"GET / HTTP/1.1\r\n\r\n").b(9 * MS, ACK, 1, 19, &[]);
    t.b(1500 * MS, ACK, 1, 19, b"HTTP/1.1 503 Busy\r\n");
    let f = t.facts();
    assert_eq!((f.http_status, f.answer_ms, f.first_byte_us), (Some(503), Some(1509), Some(1_509_000)));
    assert_eq!(f.service.map(|counts| (counts.answers, counts.errors, counts.late)), Some((1, 1, 1)));
    assert!(t.out.events.contains(Event::HttpError) && t.out.events.contains(Event::FirstByte));
    // More of the same answer is no turn; the next one is timed by itself.
    t.b(3 * S, ACK, 20, 19, b"HTTP/1.1 500 body\r\n");
    assert!(t.out.events.is_empty() && !t.out.turn);
    t.a(S, ACK, 19, 39, b"GET /b HTTP/1.1\r\n\r\n").b(5 * MS, ACK, 39, 38, b"HTTP/1.1 200 OK\r\n");
    let f = t.facts();
    assert_eq!((f.http_status, f.answer_ms, f.first_byte_us), (Some(200), Some(5), Some(1_509_000)));
    assert_eq!(t.slab.end_of(t.flow.app).http_errors, 1);
}

#[test]
fn a_request_that_was_not_acknowledged_first_does_not_blame_the_server() {
    let mut t = Talk::new();
    t.handshake().a(MS, ACK, 1, 1, b"PING").b(5 * S, ACK, 1, 5, b"PONG");
    assert!(!t.out.events.contains(Event::FirstByte));
    assert_eq!(t.facts().first_byte_us, Some(5_000_000));
    // The server spoke last, and speaks again.
    t.b(9 * S, ACK, 5, 5, b"NEWS");
    assert!(!t.out.turn && t.out.events.is_empty());
}

#[test]
fn a_full_slab_leaves_the_facts_unknown() {
    let mut t = Talk::new();
    t.slab = AppSlab::new(0);
    t.hello().b(MS, RST, 1, 0, &[]);
    assert_eq!((t.flow.app, t.facts().hello_ms, t.facts().tls_waits), (NONE, None, false));
    assert_eq!(t.slab.refused, 1);
}
