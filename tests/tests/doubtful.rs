//! What looks like trouble and is none, or is less than it looks: reordering, hasty closes, segments that arrive after
//! all. Each beside the true trouble it is mistaken for. And how incidents are worded.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::net::{IpAddr, Ipv4Addr};

use dataplane::judge::Incident;
use tests::{Outcome, captures, replay};
use wiregen::packet::{self, ACK, Ethernet, FIN, Ip, PSH, RST, SYN, TcpHeader, TcpOptions};
use wiregen::scenario::{NAMES, Options, Packet};

const MS: u64 = 1_000_000;
const START: u64 = 1_760_000_000_000_000_000;

/// A segment: who, what, where.
#[derive(Clone, Copy)]
struct Seg {
    client: bool,
    flags: u8,
    seq: u32,
    ack: u32,
    len: usize,
    window: u16,
    sack: Option<(u32, u32)>,
}

fn seg(client: bool, flags: u8, seq: u32, ack: u32, len: usize) -> Seg {
    Seg { client, flags, seq, ack, len, window: 2000, sack: None }
}

#[derive(Default)]
struct Wire {
    packets: Vec<Packet>,
}

impl Wire {
    /// A segment of client `n`'s connection to the one server, `at` ns after the start.
    fn put(&mut self, n: u16, at: u64, seg: Seg) {
        let client = (IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), 20_000 + n);
        let server = (IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1)), 443);
        let (from, to) = if seg.client { (client, server) } else { (server, client) };
        let mut options = TcpOptions::default();
        if seg.flags & SYN != 0 {
            options = options.mss(1460).sack_permitted().nop().window_scale(7);
        }
        if let Some((left, right)) = seg.sack {
            options = options.nop().nop().sack(left, right);
        }
        let ip = Ip { src: from.0, dst: to.0, ttl: 60, id: 0, dont_fragment: true };
        let header = TcpHeader {
            sport: from.1,
            dport: to.1,
            seq: seg.seq,
            ack: seg.ack,
            flags: seg.flags,
            window: seg.window,
            options: options.as_bytes(),
        };
        let mut bytes = Vec::new();
        packet::tcp(&mut bytes, &Ethernet::default(), &ip, &header, &vec![7; seg.len]);
        self.packets.push(Packet { ts: START + at, bytes });
    }

    /// SYN, SYN-ACK and ACK: 20 ms of round trip, 10 on either side of the tap.
    fn open(&mut self, n: u16, at: u64) {
        self.put(n, at, seg(true, SYN, 0, 0, 0));
        self.put(n, at + 10 * MS, seg(false, SYN | ACK, 0, 1, 0));
        self.put(n, at + 20 * MS, seg(true, ACK, 1, 1, 0));
    }

    fn run(mut self) -> Outcome {
        self.packets.sort_by_key(|packet| packet.ts);
        replay(captures::synthetic(&self.packets))
    }
}

fn kinds(incidents: &[Incident]) -> Vec<&str> {
    incidents.iter().map(|incident| incident.kind.as_str()).collect()
}

/// 600 segments of the server, every `each`th of them `overtaken` or else lost; an ACK for each.
fn transfer(each: u32, overtaken: bool, behind: bool, twice_told: bool) -> Outcome {
    let mut wire = Wire::default();
    wire.open(0, 0);
    wire.put(0, 25 * MS, seg(true, ACK | PSH, 1, 1, 100));
    let data = |i: u32| seg(false, ACK, 1 + i * 1400, 101, 1400);
    // 20 ms apart: 560 kbit/s, below what any loss here allows.
    for i in 0..600 {
        let at = 100 * MS + u64::from(i) * 20 * MS;
        let troubled = i % each == each - 1;
        if !troubled {
            wire.put(0, at, data(i));
            continue;
        }
        let repeat = at + 90 * MS;
        // Whoever misses it says so.
        for ms in [30, 50, 70] {
            wire.put(0, at + ms * MS, seg(true, ACK, 101, 1 + i * 1400, 0));
        }
        // Seen before the place where it is overtaken, or behind that and after its repeat; or not at all.
        match (overtaken, behind) {
            (true, false) => wire.put(0, at, data(i)),
            (true, true) => wire.put(0, repeat + 5 * MS, data(i)),
            (false, _) => {}
        }
        wire.put(0, repeat, data(i));
        let after = 1 + (i + 5) * 1400;
        let told = (overtaken && twice_told).then_some((1 + i * 1400, 1 + (i + 1) * 1400));
        wire.put(0, repeat + 12 * MS, Seg { sack: told, ..seg(true, ACK, 101, after, 0) });
    }
    wire.run()
}

#[test]
fn reordering_is_no_loss_and_loss_is() {
    let lossy = transfer(20, false, false, false);
    assert_eq!(kinds(&lossy.incidents), ["loss_limited"]);
    for behind in [false, true] {
        let reordered = transfer(20, true, behind, true);
        assert_eq!(kinds(&reordered.incidents), [""; 0], "behind {behind}: {:#?}", reordered.incidents);
    }
}

/// A connection with a request and its answer; at `at` it ends by RST.
fn closed_hastily(wire: &mut Wire, n: u16, at: u64) {
    wire.open(n, at - 100 * MS);
    wire.put(n, at - 70 * MS, seg(true, ACK | PSH, 1, 1, 80));
    wire.put(n, at - 50 * MS, seg(false, ACK | PSH, 1, 81, 500));
    wire.put(n, at, seg(true, RST | ACK, 81, 501, 0));
}

/// A connection whose request the server answers with a RST.
fn cut_off(wire: &mut Wire, n: u16, at: u64) {
    wire.open(n, at - 100 * MS);
    wire.put(n, at - MS, seg(true, ACK | PSH, 1, 1, 80));
    wire.put(n, at, seg(false, RST, 1, 0, 0));
}

fn storm(outcome: &Outcome) -> Option<&Incident> {
    outcome.incidents.iter().find(|incident| incident.kind == "rst_storm")
}

#[test]
fn resets_that_cost_nobody_anything_make_no_storm() {
    let mut wire = Wire::default();
    for n in 0..200 {
        closed_hastily(&mut wire, n, 1_000 * MS + u64::from(n) * 3 * MS);
    }
    // A download that is broken off, and a RST for each segment that was still on its way.
    wire.open(300, 1_000 * MS);
    wire.put(300, 1_030 * MS, seg(true, ACK | PSH, 1, 1, 80));
    for i in 0..100 {
        wire.put(300, 1_060 * MS + u64::from(i) * MS, seg(false, ACK, 1 + i * 1400, 81, 1400));
        wire.put(300, 1_060 * MS + u64::from(i) * MS + 1, seg(true, RST, 81, 0, 0));
    }
    // And connections of which the server had closed its half.
    for n in 400..500 {
        wire.open(n, 1_000 * MS);
        wire.put(n, 1_050 * MS, seg(false, ACK | FIN, 1, 1, 0));
        wire.put(n, 1_060 * MS, seg(true, RST, 1, 0, 0));
    }
    let outcome = wire.run();
    assert_eq!(kinds(&outcome.incidents), [""; 0], "{:#?}", outcome.incidents);
}

#[test]
fn fifty_within_a_second_are_a_storm_wherever_the_second_begins() {
    for phase in (0..100).step_by(7) {
        // 50 in 999 ms are, 50 in 1,200 ms are not.
        for (spread, found) in [(999 * MS, true), (1_200 * MS, false)] {
            let mut wire = Wire::default();
            for n in 0..50 {
                cut_off(&mut wire, n, (1_000 + phase) * MS + u64::from(n) * spread / 49);
            }
            let outcome = wire.run();
            let storm = storm(&outcome);
            assert_eq!(storm.is_some(), found, "phase {phase} ms, {spread} ns");
            if let Some(storm) = storm {
                assert_eq!((storm.count, storm.severity), (50, rules::Severity::Critical), "phase {phase}");
            }
        }
    }
}

#[test]
fn a_storm_says_what_its_resets_do() {
    let mut wire = Wire::default();
    for n in 0..80 {
        let at = 1_000 * MS + u64::from(n) * 10 * MS;
        wire.put(n, at, seg(true, SYN, 0, 0, 0));
        wire.put(n, at + MS, seg(false, RST | ACK, 0, 1, 0));
    }
    let refused = wire.run();
    let told = storm(&refused).unwrap();
    assert!(told.explain.contains("refusing"), "{}", told.explain);
    assert_eq!(told.severity, rules::Severity::Warning);

    let mut wire = Wire::default();
    for n in 0..80 {
        let at = 1_000 * MS + u64::from(n) * 10 * MS;
        wire.open(n, at - 100 * MS);
        wire.put(n, at - 30 * MS, seg(true, ACK | PSH, 1, 1, 80));
        wire.put(n, at, seg(true, RST, 81, 0, 0));
    }
    let gave_up = wire.run();
    let told = storm(&gave_up).unwrap();
    assert!(told.explain.contains("as the client") && !told.advise.contains("ss -tln"), "{told:#?}");
}

#[test]
fn a_handshake_that_the_client_reset_is_no_connection() {
    let mut wire = Wire::default();
    wire.put(0, 0, seg(true, SYN, 0, 0, 0));
    wire.put(0, 10 * MS, seg(false, SYN | ACK, 0, 1, 0));
    wire.put(0, 20 * MS, seg(true, RST, 1, 0, 0));
    // What it had sent before and the RST overtook, and the server's answer to that.
    wire.put(0, 21 * MS, seg(true, ACK, 1, 1, 0));
    wire.put(0, 22 * MS, seg(true, ACK | PSH, 1, 1, 90));
    wire.put(0, 30 * MS, seg(false, RST, 1, 0, 0));
    let outcome = wire.run();
    assert_eq!(kinds(&outcome.incidents), [""; 0]);
    assert!(!outcome.rows[0].findings.contains_key("rst_midflow"), "{:?}", outcome.rows[0].findings);
}

#[test]
fn a_server_that_acknowledges_a_request_and_resets_owes_an_answer() {
    // The client asks `asks` bytes, the server acknowledges and says `says`; then `reset` comes.
    let told = |asks: usize, says: usize, fin: bool, reset: Seg| {
        let mut wire = Wire::default();
        wire.open(0, 0);
        if asks > 0 {
            wire.put(0, 30 * MS, seg(true, ACK | PSH, 1, 1, asks));
            wire.put(0, 40 * MS, seg(false, ACK, 1, 1 + asks as u32, 0));
        }
        if says > 0 {
            wire.put(0, 50 * MS, seg(false, ACK | PSH, 1, 1 + asks as u32, says));
            wire.put(0, 60 * MS, seg(true, ACK, 1 + asks as u32, 1 + says as u32, 0));
        }
        if fin {
            wire.put(0, 65 * MS, seg(true, ACK | FIN, 1 + asks as u32, 1, 0));
        }
        wire.put(0, 70 * MS, reset);
        wire.put(9, 20_000 * MS, seg(true, ACK, 1, 1, 0));
        wire.run()
    };
    let by_server = seg(false, RST | ACK, 1, 121, 0);
    let owed = told(120, 0, false, by_server);
    assert_eq!(kinds(&owed.incidents), ["rst_midflow"]);
    let explain = &owed.incidents[0].explain;
    assert!(explain.contains("had acknowledged 120 bytes from the client and sent none"), "{explain}");
    for (asks, says, fin, reset) in [
        (120, 0, false, seg(true, RST | ACK, 121, 1, 0)),
        (120, 5, false, seg(false, RST | ACK, 6, 121, 0)),
        (120, 0, true, by_server),
        (0, 0, false, seg(false, RST | ACK, 1, 1, 0)),
    ] {
        assert_eq!(kinds(&told(asks, says, fin, reset).incidents), Vec::<&str>::new(), "{asks} {says} {fin}");
    }
}

/// A segment that is sent again at these times, ms, while small ones pass; then an ACK at `acked`.
fn stuck(len: usize, sends: &[u64], acked: Option<u64>) -> Outcome {
    let mut wire = Wire::default();
    wire.open(0, 0);
    wire.put(0, 30 * MS, seg(true, ACK | PSH, 1, 1, 200));
    wire.put(0, 50 * MS, seg(false, ACK | PSH, 1, 201, 300));
    wire.put(0, 60 * MS, seg(true, ACK, 201, 301, 0));
    wire.put(0, 100 * MS, seg(false, ACK, 301, 201, len));
    wire.put(0, 101 * MS, seg(false, ACK | PSH, 301 + len as u32, 201, 90));
    for at in sends {
        wire.put(0, at * MS, seg(false, ACK, 301, 201, len));
        wire.put(0, (at + 40) * MS, seg(true, ACK | PSH, 201, 301, 0));
    }
    match acked {
        Some(at) => wire.put(0, at * MS, seg(true, ACK, 201, 391 + len as u32, 0)),
        // That something else came twice says nothing against it.
        None => wire.put(0, 6_000 * MS, Seg { sack: Some((1, 200)), ..seg(true, ACK, 201, 301, 0) }),
    }
    // Time goes on.
    wire.put(9, 30_000 * MS, seg(true, ACK, 1, 1, 0));
    wire.run()
}

#[test]
fn a_black_hole_is_as_large_as_its_packets_on_the_wire() {
    let outcome = stuck(2920, &[400, 1000, 2200], None);
    let hole = outcome.incidents.iter().find(|i| i.kind == "pmtu_blackhole").unwrap();
    assert_eq!(hole.evidence["path_mtu_below"], 1500);
    assert_eq!(hole.evidence["aggregate_in_capture"], true);
    assert!(hole.explain.contains("1500 bytes") && !hole.explain.contains("2960"), "{}", hole.explain);
}

#[test]
fn a_segment_that_arrives_after_all_was_not_too_large() {
    let true_hole = stuck(1460, &[400, 1000, 2200, 4600], None);
    assert_eq!(kinds(&true_hole.incidents), ["pmtu_blackhole"]);
    // Before anybody was told, and after.
    let soon = stuck(1460, &[400, 1000], Some(1_200));
    assert_eq!((kinds(&soon.incidents), kinds(&soon.opened)), (vec![], vec![]), "{:#?}", soon.incidents);
    let late = stuck(1460, &[400, 1000, 2200, 4600, 9400], Some(9_500));
    assert_eq!((kinds(&late.incidents), kinds(&late.opened)), (vec![], vec!["pmtu_blackhole"]));
    let withdrawn = &late.withdrawn[0];
    assert_eq!(withdrawn.id, late.opened[0].id);
    assert!(withdrawn.explain.starts_with("Withdrawn: ") && withdrawn.advise.is_empty(), "{withdrawn:#?}");
    assert_eq!(serde_json::to_value(withdrawn).unwrap()["withdrawn"], true);
    assert_eq!(serde_json::to_value(&true_hole.incidents[0]).unwrap().get("withdrawn"), None);
}

#[test]
fn a_smaller_segment_that_arrives_proves_the_hole() {
    let mut wire = Wire::default();
    wire.open(0, 0);
    wire.put(0, 30 * MS, seg(true, ACK | PSH, 1, 1, 200));
    wire.put(0, 100 * MS, seg(false, ACK, 1, 201, 1460));
    for at in [400, 1000, 2200] {
        wire.put(0, at * MS, seg(false, ACK, 1, 201, 1460));
        wire.put(0, (at + 40) * MS, seg(true, ACK | PSH, 201, 1, 0));
    }
    wire.put(0, 4600 * MS, seg(false, ACK, 1, 201, 512));
    wire.put(0, 4620 * MS, seg(true, ACK, 201, 513, 0));
    wire.put(0, 4630 * MS, seg(false, ACK, 513, 201, 948));
    wire.put(0, 4650 * MS, seg(true, ACK, 201, 1461, 0));
    let outcome = wire.run();
    assert_eq!(kinds(&outcome.incidents), ["pmtu_blackhole"]);
}

/// The client sends `head` bytes, which are acknowledged, and then segments of 1460 and what is given last; nothing comes
/// back, however often the first is repeated.
fn silent_hole(head: usize, tail: usize, then: impl FnOnce(&mut Wire)) -> Outcome {
    let mut wire = Wire::default();
    wire.open(0, 0);
    for (n, at) in (0..head).step_by(1460).enumerate() {
        let (at, len) = (at as u32, (head - at).min(1460));
        let ms = 30 + n as u64 * 20;
        wire.put(0, ms * MS, seg(true, ACK | PSH, 1 + at, 1, len));
        wire.put(0, (ms + 10) * MS, seg(false, ACK, 1, 1 + at + len as u32, 0));
    }
    let first = 1 + head as u32;
    let sent = (0..6).map(|n| (n * 1460, 1460)).chain((tail > 0).then_some((8760, tail)));
    for (at, len) in sent {
        wire.put(0, 900 * MS, seg(true, ACK, first + at, 1, len));
    }
    for at in DOUBLING.into_iter().take(6) {
        wire.put(0, 900 * MS + at * 1000 * MS, seg(true, ACK, first, 1, 1460));
    }
    then(&mut wire);
    for (n, at) in (0..=200).step_by(20).enumerate() {
        wire.put(100 + n as u16, at * 1000 * MS, seg(true, ACK, 1, 1, 0));
    }
    wire.run()
}

#[test]
fn a_receiver_silent_before_full_segments_is_behind_a_black_hole_and_one_that_took_them_is_gone() {
    for head in [92, 0] {
        let hole = silent_hole(head, 0, |_| {});
        assert_eq!(kinds(&hole.opened), ["pmtu_blackhole"], "{head}");
        let told = &hole.incidents[0];
        assert_eq!((told.count > 0, &told.evidence["path_mtu_below"]), (true, &1500.into()));
        assert!(told.explain.contains("Had 10.8.0.1 died at that very moment"), "{}", told.explain);
        assert!(told.advise.contains("ping -M do -s 1000"), "{}", told.advise);
    }
    // As large had arrived; or something smaller is without answer too.
    for (head, tail) in [(4000, 0), (92, 300)] {
        let gone = silent_hole(head, tail, |_| {});
        assert_eq!(kinds(&gone.opened), ["half_open"], "{head} {tail}");
        let says = gone.incidents[0].explain.contains("path MTU black hole");
        let advises = gone.incidents[0].advise.contains("ping -M do");
        assert_eq!((says, advises), (head == 92, head == 92), "{head}: {:#?}", gone.incidents[0]);
    }
}

#[test]
fn what_the_silent_receiver_says_at_last_settles_it() {
    // It speaks: the rest of the doubt goes.
    let alive = silent_hole(92, 0, |wire| {
        wire.put(0, 40_000 * MS, seg(false, ACK | PSH, 1, 93, 120));
        wire.put(0, 64_000 * MS, seg(true, ACK, 93, 121, 1460));
    });
    assert_eq!(kinds(&alive.incidents), ["pmtu_blackhole"]);
    let explain = &alive.incidents[0].explain;
    assert!(explain.contains("goes on sending") && !explain.contains("died"), "{explain}");
    // It takes all: it was out of reach for that long.
    let back = silent_hole(92, 0, |wire| wire.put(0, 40_000 * MS, seg(false, ACK, 1, 8853, 0)));
    assert_eq!((kinds(&back.withdrawn), kinds(&back.incidents)), (vec!["pmtu_blackhole"], vec!["half_open"]));
    // It has lost the connection.
    let reset = silent_hole(92, 0, |wire| wire.put(0, 40_000 * MS, seg(false, RST, 1, 0, 0)));
    let of = |incidents: &[Incident], kind| incidents.iter().filter(|i| i.kind == kind).count();
    assert_eq!((of(&reset.withdrawn, "pmtu_blackhole"), of(&reset.incidents, "half_open")), (1, 1));
}

/// The client's window is closed at 60 ms; `then` adds what follows.
fn closed_window(then: impl FnOnce(&mut Wire)) -> Outcome {
    let mut wire = Wire::default();
    wire.open(0, 0);
    wire.put(0, 30 * MS, seg(true, ACK | PSH, 1, 1, 200));
    wire.put(0, 50 * MS, seg(false, ACK | PSH, 1, 201, 1400));
    wire.put(0, 60 * MS, Seg { window: 0, ..seg(true, ACK, 201, 1401, 0) });
    then(&mut wire);
    wire.put(9, 40_000 * MS, seg(true, ACK, 1, 1, 0));
    wire.run()
}

#[test]
fn a_window_closed_for_long_is_told_with_or_without_probes() {
    let outcome = closed_window(|wire| wire.put(0, 9_060 * MS, seg(true, ACK, 201, 1401, 0)));
    let stall = &outcome.incidents[0];
    assert_eq!((stall.kind.as_str(), stall.severity), ("zero_window_stall", rules::Severity::Info));
    assert!(
        stall.explain.contains("closed for 9 s") && stall.explain.contains("nothing to send"),
        "{stall:#?}"
    );
}

#[test]
fn a_window_opened_past_the_tap_was_open() {
    // Its sender goes on, full segments, and the client accepts them.
    let outcome = closed_window(|wire| {
        for i in 0..4 {
            wire.put(0, (12_000 + i * 20) * MS, seg(false, ACK, 1401 + i as u32 * 1400, 201, 1400));
            wire.put(0, (12_010 + i * 20) * MS, seg(true, ACK, 201, 2801 + i as u32 * 1400, 0));
        }
    });
    assert_eq!((kinds(&outcome.incidents), kinds(&outcome.withdrawn)), (vec![], vec!["zero_window_stall"]));
}

/// The server answers once; then the client sends, and repeats it after each of these, seconds; a second connection moves
/// the clock.
fn unanswered(sends: &[u64], until: u64, then: impl FnOnce(&mut Wire)) -> Outcome {
    let mut wire = Wire::default();
    wire.open(0, 0);
    wire.put(0, 30 * MS, seg(true, ACK | PSH, 1, 1, 200));
    wire.put(0, 50 * MS, seg(false, ACK | PSH, 1, 201, 400));
    wire.put(0, 60 * MS, seg(true, ACK, 201, 401, 0));
    for at in [0].iter().chain(sends) {
        wire.put(0, 100 * MS + at * 1000 * MS, seg(true, ACK | PSH, 201, 401, 300));
    }
    then(&mut wire);
    for (n, at) in (0..=until).step_by(50).enumerate() {
        wire.put(100 + n as u16, at * 1000 * MS, seg(true, ACK, 1, 1, 0));
    }
    wire.run()
}

/// As a sender's timer doubles, no longer than 120 s.
const DOUBLING: [u64; 14] = [1, 3, 7, 15, 31, 63, 127, 247, 367, 487, 607, 727, 847, 967];

#[test]
fn one_silence_is_one_incident_however_long() {
    // The sender gave up after 31 s, and after 15 minutes, as Linux does.
    for (sends, words) in [(5, "It stopped trying after 31 s"), (14, "It stopped trying after 967 s")] {
        let outcome = unanswered(&DOUBLING[..sends], 4000, |_| {});
        assert_eq!(kinds(&outcome.opened), ["half_open"], "{sends}");
        let [half_open] = &outcome.incidents[..] else { panic!("{:#?}", outcome.incidents) };
        assert_eq!((half_open.count, half_open.flows), (1, 1));
        assert!(half_open.explain.contains(words), "{}", half_open.explain);
        // It was silent for as long as was looked, which is longer than it was tried.
        let silent = half_open.evidence["unanswered_ms"].as_u64().unwrap() / 1000;
        assert!(half_open.explain.contains(&format!("and for {silent} s nothing")), "{}", half_open.explain);
        assert_eq!(half_open.evidence["stopped_trying"], true);
    }
    // It goes on: the words are those of the last look.
    let outcome = unanswered(&DOUBLING[..7], 250, |_| {});
    assert_eq!(kinds(&outcome.incidents), ["half_open"]);
    let explain = &outcome.incidents[0].explain;
    assert!(explain.contains("for 240 s (8 segments)") && explain.contains("It goes on trying"), "{explain}");
}

#[test]
fn an_attempt_long_after_tells_nothing_new_and_another_silence_does() {
    let outcome = unanswered(&[1, 3, 7, 15, 31, 1500], 3000, |_| {});
    assert_eq!(kinds(&outcome.opened), ["half_open"]);
    // Answered after all, and then nothing comes back once more.
    let outcome = unanswered(&[1, 3, 7, 15, 31], 3000, |wire| {
        wire.put(0, 600_000 * MS, seg(false, ACK, 401, 501, 0));
        for at in [0, 1, 3, 7, 15] {
            wire.put(0, (601 + at) * 1000 * MS, seg(true, ACK | PSH, 501, 401, 300));
        }
    });
    assert_eq!(kinds(&outcome.opened), ["half_open", "half_open"]);
}

#[test]
fn a_window_closed_for_an_hour_and_a_segment_stuck_for_long_are_one_incident() {
    let outcome = closed_window(|wire| {
        for at in DOUBLING.into_iter().chain((1..20).map(|n| 967 + n * 120)) {
            wire.put(0, 60 * MS + at * 1000 * MS, seg(false, ACK, 1400, 201, 0));
            wire.put(0, 70 * MS + at * 1000 * MS, Seg { window: 0, ..seg(true, ACK, 201, 1401, 0) });
        }
        wire.put(0, 3_600_000 * MS, seg(true, ACK, 201, 1401, 0));
    });
    assert_eq!(
        (kinds(&outcome.opened), kinds(&outcome.incidents)),
        (vec!["zero_window_stall"], vec!["zero_window_stall"])
    );
    let stuck_for_long = stuck(1460, &DOUBLING.map(|at| at * 1000), None);
    assert_eq!(kinds(&stuck_for_long.opened), ["pmtu_blackhole"]);
}

/// What no text may hold: a count of one with its noun in the plural, a noun that may be either, a time of nothing,
/// an IPv6 address with a bare port.
fn slips(text: &str) -> Vec<String> {
    let mut slips = Vec::new();
    let words: Vec<&str> = text.split_whitespace().collect();
    for pair in words.windows(2) {
        let (count, noun) =
            (pair[0].trim_start_matches('('), pair[1].trim_matches(|c: char| !c.is_alphanumeric()));
        let nouns =
            ["packets", "bytes", "segments", "times", "flows", "RSTs", "SYNs", "connections", "routers"];
        if count == "1" && nouns.contains(&noun) || count == "0.0" {
            slips.push(format!("{count} {noun}"));
        }
    }
    for word in words {
        let word =
            word.trim_matches(|c: char| !c.is_alphanumeric() && !":[]".contains(c)).trim_end_matches(':');
        let is_v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
        let bare = word.rsplit_once(':').is_some_and(|(host, _)| is_v6(host) && !is_v6(word));
        if word.ends_with("(s)") || bare {
            slips.push(word.to_owned());
        }
    }
    slips
}

#[test]
fn incidents_are_well_worded() {
    assert_eq!(
        slips("1 packets to fd00::2:40000 and 0.0 ms, 1 packet to [fd00::1]:443"),
        ["1 packets", "0.0 ms", "fd00::2:40000"]
    );
    for v6 in [false, true] {
        for name in NAMES {
            let (packets, _) = captures::scenario(name, &Options { v6, ..Options::default() });
            for incident in replay(captures::synthetic(&packets)).incidents {
                let text = format!("{} {}", incident.explain, incident.advise);
                assert_eq!(slips(&text), [""; 0], "{name}: {text}");
                assert!(!text.contains("${") && !text.contains("  "), "{name}: {text}");
            }
        }
    }
}
