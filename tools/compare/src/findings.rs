//! The accounts of packets and the changes of matched ones, told as findings by connection and kind; and the
//! summary. Main thread, last step; decides nothing about packets any more.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dataplane::decode::{FlowKey, flags};
use serde_json::json;

use crate::conn::{Conn, World};
use crate::edits::{self, Remarked};
use crate::evidence;
use crate::fate::{Fate, Fates};
use crate::loss::View;
use crate::read::Tap;
use crate::record::Record;
use crate::report::{Books, ClockStep, Finding, FlowName, Report, Summary, TapName, Unrecorded};
use crate::steps::Step;

/// Findings with all their evidence; of further ones only what is needed to tell them.
const EXPLAINED: usize = 100_000;

/// Packets of one finding.
pub type Packets<'t> = Vec<(u32, &'t Record)>;

/// Makes the report.
pub fn report(world: &World<'_>, fates: &Fates) -> Report {
    let mut findings = Vec::new();
    let mut remarked = Remarked::default();
    let mut client_votes = 0i64;
    let mut matched = 0;
    for conn in &world.conns {
        let client = client_dir(world, conn);
        if let Some(first) = conn.first_tap[client] {
            client_votes += if first == 0 { 1 } else { -1 };
        }
        let before = findings.len();
        if conn.matched > 0 {
            matched += 1;
            edits::of_connection(world, conn, client, &mut remarked, &mut findings);
        }
        if conn.ranges.iter().any(|range| range.len() > conn.matched as usize) {
            missing(world, conn, client, fates, &mut findings);
        }
        let side = conn.first_tap[client].map(TapName::of);
        for finding in &mut findings[before..] {
            finding.evidence.insert("client_side", json!(side));
            finding.evidence.shrink();
        }
    }
    findings.sort_by(|x, y| (x.kind, x.first_ns, &x.flow).cmp(&(y.kind, y.first_ns, &y.flow)));
    let mut summary = summary(world, fates, client_votes);
    summary.connections_matched = matched;
    summary.dscp_remarked = remarked.list();
    for finding in &findings {
        *summary.findings.entry(finding.kind).or_default() += 1;
    }
    Report { findings, summary }
}

/// The direction of the one who began it.
pub fn client_dir(world: &World<'_>, conn: &Conn) -> usize {
    let mut first: Option<(u64, usize)> = None;
    for tap in [0, 1] {
        for (_, r) in world.packets(conn, tap) {
            if r.has(flags::SYN) && !r.is_rst() {
                return if r.has(flags::ACK) { 1 - r.dir() } else { r.dir() };
            }
        }
        if let Some((_, r)) = world.packets(conn, tap).next() {
            let ts = match (&world.clock, tap) {
                (Some(clock), 1) => clock.to_a(r.ts),
                _ => r.ts,
            };
            if first.is_none_or(|(earliest, _)| ts < earliest) {
                first = Some((ts, r.dir()));
            }
        }
    }
    first.map_or(0, |(_, dir)| dir)
}

/// The name of a flow whose packets of direction `client` come from the one who began it.
pub fn name(key: &FlowKey, client: usize) -> FlowName {
    let (low, high) = ((key.low_addr(), key.low_port), (key.high_addr(), key.high_port));
    let (src, dst) = if client == 1 { (low, high) } else { (high, low) };
    let proto = match key.proto {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        other => format!("ip{other}"),
    };
    FlowName { proto, src: src.0.to_string(), sport: src.1, dst: dst.0.to_string(), dport: dst.1 }
}

/// The sender's address, and port if it has one, as text.
pub fn sender(key: &FlowKey, from_low: bool) -> String {
    let (addr, port) =
        if from_low { (key.low_addr(), key.low_port) } else { (key.high_addr(), key.high_port) };
    if matches!(key.proto, 6 | 17) { SocketAddr::new(addr, port).to_string() } else { addr.to_string() }
}

/// What was lost, and what was made, in each direction of a connection.
fn missing(world: &World<'_>, conn: &Conn, client: usize, fates: &Fates, out: &mut Vec<Finding>) {
    let mut view = None;
    for tap in [0, 1] {
        let mut lost: [Packets<'_>; 2] = Default::default();
        let mut resets: [Packets<'_>; 2] = Default::default();
        let mut errors: [Packets<'_>; 2] = Default::default();
        let mut made: [Packets<'_>; 2] = Default::default();
        for (index, r) in world.packets(conn, tap) {
            let list = match fates.of[tap][index as usize] {
                Fate::Lost => &mut lost,
                Fate::Made if r.is_rst() => &mut resets,
                Fate::Made if r.is_error => &mut errors,
                Fate::Made => &mut made,
                _ => continue,
            };
            list[r.dir()].push((index, r));
        }
        let kinds = [
            ("packet_lost_between", lost),
            ("rst_one_side_only", resets),
            ("icmp_from_between", errors),
            ("packet_injected_between", made),
        ];
        for (kind, packets) in kinds {
            for packets in packets.into_iter().filter(|packets| !packets.is_empty()) {
                let view = view.get_or_insert_with(|| View::new(world, conn));
                let full = out.len() < EXPLAINED;
                let evidence =
                    evidence::of_missing(view, &fates.paths, (tap, client), (kind, &packets), full);
                out.push(Finding {
                    kind,
                    flow: name(world.flows.key(conn.flow), client),
                    seen_at: Some(TapName::of(tap)),
                    missing_at: Some(TapName::of(1 - tap)),
                    count: packets.len() as u64,
                    first_ns: packets.first().map_or(0, |(_, r)| world.taps[tap].stamp(r)),
                    last_ns: packets.last().map_or(0, |(_, r)| world.taps[tap].stamp(r)),
                    evidence,
                });
            }
        }
    }
}

fn books(world: &World<'_>, fates: &Fates, tap: usize) -> Books {
    let read = world.taps[tap];
    let mut books =
        Books { packets: read.packets, not_ip: read.not_ip, malformed: read.malformed, ..Books::default() };
    for fate in &fates.of[tap] {
        *match fate {
            Fate::Matched => &mut books.matched,
            Fate::Lost | Fate::PerhapsLost => &mut books.lost_between,
            Fate::Made | Fate::PerhapsMade => &mut books.made_between,
            Fate::Resegmented => &mut books.resegmented,
            Fate::Copy => &mut books.duplicate,
            Fate::Missed => &mut books.missed_by_other_tap,
            Fate::Outside => &mut books.outside_overlap,
            Fate::Elsewhere => &mut books.other_path,
            Fate::Local => &mut books.local,
            Fate::Unrecorded => &mut books.not_recorded,
            Fate::Undecided => &mut books.undecided,
            Fate::Unproven => &mut books.unproven,
        } += 1;
    }
    books
}

/// Where B's clock is set, by its own time after that.
fn clock_steps(b: &Tap) -> Vec<ClockStep> {
    let at = |step: &Step| b.records.get(step.place as usize).map_or(0, |r| b.stamp(r));
    b.steps.iter().map(|step| ClockStep { at_b_ns: at(step), b_less_a_by_ns: step.by }).collect()
}

fn not_recorded(fates: &Fates) -> Vec<Unrecorded> {
    let mut list = Vec::new();
    for tap in [0, 1] {
        for (first, direction) in [(0, "a_to_b"), (1, "b_to_a")] {
            if fates.recorded.is_way_missing(tap, first) {
                list.push(Unrecorded { tap: TapName::of(tap), direction });
            }
        }
    }
    list
}

fn summary(world: &World<'_>, fates: &Fates, client_votes: i64) -> Summary {
    let clock = world.clock.as_ref();
    let [a, b] = [0, 1].map(|tap| books(world, fates, tap));
    let spans = world.taps.map(|tap| tap.span.map(|(first, last)| [first, last]));
    let levels = world.taps.map(|tap| tap.level_span().map(|(first, last)| [first, last]));
    let overlap = clock.zip(levels[0].zip(levels[1])).map(|(clock, (a, b))| {
        let b = b.map(|ts| clock.to_a(ts));
        [a[0].max(b[0]), a[1].min(b[1])]
    });
    // What a step is wrong by would look like drift.
    let stepped = world.taps[1].steps.iter().map(|step| step.doubt).fold(0, i64::saturating_add);
    let drift = clock.and_then(|clock| clock.drift).filter(|_| world.taps[1].steps.is_empty());
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    Summary {
        offset_ns: clock.map(|clock| clock.offset()),
        offset_uncertainty_ns: clock.and_then(|clock| clock.doubt).map(|doubt| doubt.saturating_add(stepped)),
        offset_at_end_ns: clock.map(|clock| clock.offset_at(clock.end)),
        drift_ppm: drift.map(|(drift, _)| rounded(drift)),
        drift_uncertainty_ppm: drift.map(|(_, doubt)| rounded(doubt)),
        matched_packets: a.matched,
        only_a: a.only_here(),
        only_b: b.only_here(),
        rtt_between_ns: clock.filter(|clock| clock.half_rtt.is_some()).map(|clock| clock.rtt()),
        hops_a_to_b: world.places.hops[0],
        hops_b_to_a: world.places.hops[1],
        other_hops_a_to_b: world.places.other_hops[0],
        other_hops_b_to_a: world.places.other_hops[1],
        dscp_remarked: Vec::new(),
        not_recorded: not_recorded(fates),
        hosts_in_both: world.hosts[0].intersection(&world.hosts[1]).count() as u64,
        client_side: (client_votes != 0).then(|| TapName::of(usize::from(client_votes < 0))),
        sides_guessed: world.places.guessed,
        ip_id_kept: world.kept.ip_id,
        clock_steps: clock_steps(world.taps[1]),
        span_a_ns: spans[0],
        span_b_ns: spans[1],
        overlap_ns: overlap.filter(|overlap| overlap[0] <= overlap[1]),
        connections: world.conns.len() as u64,
        connections_matched: 0,
        findings: BTreeMap::new(),
        balanced: a.balanced() && b.balanced() && a.matched == b.matched,
        accounts: BTreeMap::from([(TapName::A, a), (TapName::B, b)]),
    }
}
