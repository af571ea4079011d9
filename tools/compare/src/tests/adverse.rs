//! Captures as taps really make them: copies, cut packets, other times, stepping and drifting clocks, tunnels, joined
//! segments, packets missed. What is said of them must be true.

use wiregen::check;
use wiregen::encap::Encap;
use wiregen::mix;
use wiregen::rng::Rng;
use wiregen::scenario::{self, Options, Packet};
use wiregen::twotap::{Around, Middle, Path, Taps, split};

use crate::testing::{cut, done, found, judge, read, read_file};
use crate::{Flows, Report};

const MS: u64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// A realistic mix at two taps.
fn mixed(packets: u64, path: &Path) -> Taps {
    let mut all = Vec::new();
    let options = mix::Options { flows: packets / 40, packets, seed: 7, seconds: 30 };
    mix::run(&options, |ts, bytes| {
        all.push(Packet { ts, bytes: bytes.to_vec() });
        true
    })
    .unwrap();
    split(&all, path)
}

fn path() -> Path {
    Path { offset: -3 * SECOND, ..Path::default() }
}

/// Packets that pass a filter of place and packet.
fn kept(packets: &[Packet], mut keep: impl FnMut(usize, &Packet) -> bool) -> Vec<Packet> {
    packets
        .iter()
        .enumerate()
        .filter(|(i, packet)| keep(*i, packet))
        .map(|(_, packet)| packet.clone())
        .collect()
}

fn sorted(mut packets: Vec<Packet>) -> Vec<Packet> {
    packets.sort_by_key(|packet| packet.ts);
    packets
}

/// What the middle did is found, and nothing else.
#[track_caller]
fn exact(report: &Report, taps: &Taps, name: &str) {
    for kind in ["rst_one_side_only", "packet_lost_between"] {
        assert_eq!(found(report, kind), done(taps, kind), "{name} {kind}: {:?}", report.summary);
    }
    let kinds: Vec<_> = report.summary.findings.keys().collect();
    assert!(kinds.len() <= 2, "{name}: {kinds:?}");
}

#[test]
fn a_mix_is_judged_exactly_whatever_is_between() {
    for (delay, hops, drift_ppm) in
        [(2 * MS, 3, 0.0), (10_000, 0, 50.0), (5_000, 1, -200.0), (400_000, 0, 200.0)]
    {
        for lose_one_in in [None, Some(40)] {
            let middle = Middle { lose_one_in, ..Middle::default() };
            let jitter = delay / 10;
            let taps = mixed(60_000, &Path { delay, jitter, hops, drift_ppm, middle, ..path() });
            let report = judge(&taps.client, &taps.server);
            exact(&report, &taps, &format!("{delay} {hops} {drift_ppm}"));
            let s = &report.summary;
            let off = (s.offset_ns.unwrap() + 3 * SECOND).abs();
            assert!(off <= s.offset_uncertainty_ns.unwrap() + 2_000, "{delay} {drift_ppm}: {off} {s:?}");
            let (drift, doubt) = (s.drift_ppm.unwrap(), s.drift_uncertainty_ppm.unwrap());
            assert!((drift - drift_ppm).abs() <= doubt.max(0.5), "{drift} {doubt} {drift_ppm}");
        }
    }
}

#[test]
fn copies_at_one_tap() {
    let taps = mixed(30_000, &path());
    for (every, late) in [(1, 2_000), (3, 900_000), (10, 50)] {
        let mut twice = taps.client.clone();
        for packet in taps.client.iter().step_by(every) {
            let mut copy = Packet { ts: packet.ts + late, ..packet.clone() };
            // Mirrored behind a router.
            if every == 3 && copy.bytes[12..14] == [8, 0] {
                copy.bytes[22] -= 1;
            }
            twice.push(copy);
        }
        exact(&judge(&sorted(twice), &taps.server), &taps, &format!("{every} {late}"));
    }
}

#[test]
fn short_and_cut_packets() {
    let taps = mixed(30_000, &path());
    for snap in [54, 60, 68, 74, 96, 128] {
        let mut flows = Flows::new();
        let a = read(&taps.client, &mut flows);
        let mut file = cut(&taps.server, snap);
        // The last one is cut by the end of the file.
        file.truncate(file.len() - 10);
        let b = read_file(file, &mut flows);
        let report = crate::compare(&a, &b, &flows);
        if snap >= 74 {
            exact(&report, &taps, &format!("{snap}"));
        }
        assert!(report.findings.len() < 4, "{snap} {:?}", report.summary);
        assert!(report.summary.balanced);
    }
    let mut last = taps.server.clone();
    last.last_mut().unwrap().bytes.truncate(20);
    let report = judge(&taps.client, &last);
    assert!(
        report.findings.len()
            <= (done(&taps, "rst_one_side_only").0 + done(&taps, "packet_lost_between").0) as usize
    );
}

#[test]
fn captures_that_overlap_by_a_part() {
    let taps = mixed(40_000, &path());
    let n = taps.server.len();
    for (a, b) in [((0, 8), (3, 10)), ((2, 10), (0, 6)), ((4, 6), (0, 10)), ((0, 5), (4, 10))] {
        let report =
            judge(&taps.client[n * a.0 / 10..n * a.1 / 10], &taps.server[n * b.0 / 10..n * b.1 / 10]);
        for kind in ["rst_one_side_only", "packet_lost_between"] {
            assert!(found(&report, kind).1 <= done(&taps, kind).1, "{a:?} {b:?} {kind} {:?}", report.summary);
        }
        assert!(report.summary.findings.len() <= 2, "{:?}", report.summary);
    }
}

#[test]
fn a_clock_that_is_set_meanwhile() {
    for step in [700 * MS as i64, -700 * MS as i64, 60 * SECOND, -20 * SECOND] {
        let taps = mixed(30_000, &path());
        let half = taps.server[taps.server.len() / 2].ts;
        let stepped: Vec<Packet> = taps
            .server
            .iter()
            .map(|packet| {
                let by = if packet.ts > half { step } else { 0 };
                Packet { ts: packet.ts.wrapping_add_signed(by), ..packet.clone() }
            })
            .collect();
        let report = judge(&taps.client, &stepped);
        exact(&report, &taps, &format!("{step}"));
        let steps = &report.summary.clock_steps;
        assert_eq!((steps.len(), report.summary.drift_ppm), (1, None), "{steps:?}");
        assert!((steps[0].b_less_a_by_ns - step).abs() < 1_000_000, "{steps:?}");
    }
}

#[test]
fn every_tunnel_on_one_side() {
    for encap in Encap::ALL {
        let middle = Middle { lose_one_in: Some(30), ..Middle::default() };
        let taps = mixed(8_000, &Path { around: Around::Tunnel(encap), middle, ..path() });
        exact(&judge(&taps.client, &taps.server), &taps, encap.name());
    }
}

#[test]
fn reordered_on_the_way() {
    let taps = mixed(30_000, &path());
    let mut rng = Rng::new(5);
    let late: Vec<Packet> = taps
        .server
        .iter()
        .map(|packet| {
            let source = check::read(&packet.bytes).map(|seen| seen.src.to_string()).unwrap_or_default();
            let client = source.starts_with("10.20.") || source.starts_with("2001:db8:20:");
            let wait = if rng.below(20) == 0 && client { rng.below(30 * MS) } else { 0 };
            Packet { ts: packet.ts + wait, ..packet.clone() }
        })
        .collect();
    exact(&judge(&taps.client, &sorted(late)), &taps, "reordered");
}

#[test]
fn a_tap_that_misses_packets() {
    let taps = mixed(60_000, &path());
    let mut rng = Rng::new(9);
    let mut missed = 0u64;
    let some = kept(&taps.server, |_, _| {
        let miss = rng.below(200) == 0;
        missed += u64::from(miss);
        !miss
    });
    let report = judge(&taps.client, &some);
    let wrong = |kind: &str| found(&report, kind).1.saturating_sub(done(&taps, kind).1);
    let false_ones = wrong("packet_lost_between") + wrong("rst_one_side_only");
    eprintln!("missed {missed}, told as lost {false_ones}: {:?}", report.summary.accounts);
    assert!(false_ones * 100 <= missed, "{false_ones} of {missed} {:?}", report.summary.accounts);
    assert_eq!(found(&report, "packet_injected_between"), (0, 0));
    // The other tap misses them.
    let report = judge(&some_of(&taps.client), &taps.server);
    assert_eq!(found(&report, "packet_injected_between"), (0, 0), "{:?}", report.summary);
}

fn some_of(packets: &[Packet]) -> Vec<Packet> {
    let mut rng = Rng::new(11);
    kept(packets, |_, _| rng.below(200) != 0)
}

#[test]
fn answers_of_some_servers_come_back_another_way() {
    for drift_ppm in [0.0, 40.0] {
        let taps = mixed(40_000, &Path { drift_ppm, ..path() });
        let odd = |packet: &Packet| {
            let src = check::read(&packet.bytes).map(|seen| seen.src.to_string());
            src.is_ok_and(|src| src.starts_with("10.50.") && src.ends_with(['1', '5', '7']))
        };
        let report = judge(&taps.client, &kept(&taps.server, |_, packet| !odd(packet)));
        let wrong = |kind: &str| found(&report, kind).1.saturating_sub(done(&taps, kind).1);
        assert_eq!(
            (wrong("packet_lost_between"), wrong("rst_one_side_only")),
            (0, 0),
            "{:?}",
            report.summary
        );
        assert_eq!(found(&report, "packet_injected_between"), (0, 0), "{:?}", report.summary);
    }
}

#[test]
fn long_idle_and_fast_drift() {
    for drift_ppm in [200.0, -200.0] {
        for v6 in [false, true] {
            let options = Options { v6, idle_s: Some(290.0), ..Options::default() };
            let (packets, _) = scenario::packets("rst_after_idle", &options).unwrap();
            let taps = split(&packets, &Path { drift_ppm, ..path() });
            exact(&judge(&taps.client, &taps.server), &taps, &format!("{drift_ppm} {v6}"));
        }
    }
}
