//! What shows that packets were lost or made between the taps, for the finding about them. Main thread; looks
//! only at packets already judged.

use serde_json::json;

use dataplane::decode::flags;

use crate::conn::World;
use crate::findings::{Packets, client_dir, name, sender};
use crate::loss::{FOREIGN_TTL, View};
use crate::paths::{Basis, Paths};
use crate::record::Record;
use crate::report::{Evidence, FlowName, TapName};

/// Packet numbers listed in one finding.
const LISTED: usize = 20;

/// The names of a segment's flags.
pub fn flag_names(r: &Record) -> String {
    let names = [
        (flags::SYN, "SYN"),
        (flags::FIN, "FIN"),
        (flags::RST, "RST"),
        (flags::PSH, "PSH"),
        (flags::ACK, "ACK"),
    ];
    let set: Vec<&str> = names.into_iter().filter(|(flag, _)| r.has(*flag)).map(|(_, name)| name).collect();
    set.join("-")
}

/// Evidence for the packets of one direction that only `tap` saw; if not `full`, only what tells one cause from another.
pub fn of_missing(
    view: &View<'_, '_>,
    paths: &Paths,
    (tap, client): (usize, usize),
    (kind, packets): (&str, &Packets<'_>),
    full: bool,
) -> Evidence {
    let mut out = Evidence::default();
    if kind != "icmp_from_between" {
        rests_on(view, paths, tap, &mut out);
    }
    let Some((_, first)) = packets.first() else { return out };
    let direction = if first.dir() == client { "client_to_server" } else { "server_to_client" };
    out.insert("direction", json!(direction));
    if !full {
        if kind == "packet_lost_between" {
            counts(packets, &mut out);
        }
        return out;
    }
    let numbers: Vec<u32> = packets.iter().take(LISTED).map(|(_, r)| r.number).collect();
    out.insert("packet_numbers", json!(numbers));
    let key = view.world.flows.key(view.conn.flow);
    match kind {
        "packet_lost_between" => lost(view, tap, packets, &mut out),
        "icmp_from_between" => {
            out.insert("router", json!(sender(key, first.from_low)));
            out.insert("icmp_type", json!(first.seq >> 8));
            out.insert("icmp_code", json!(first.seq & 0xff));
            out.insert("ttl", json!(first.ttl));
            out.insert("about", json!(first.quoted().map(|flow| quoted(view.world, flow))));
        }
        _ => {
            out.insert("alleged_sender", json!(sender(key, first.from_low)));
            made(view, tap, first, &mut out);
        }
    }
    out
}

/// The flow that an ICMP error speaks of.
fn quoted(world: &World<'_>, flow: u32) -> FlowName {
    let client = world.of_flow(flow).first().map_or(1, |conn| client_dir(world, conn));
    name(world.flows.key(flow), client)
}

/// Why it is taken to lead past the other tap, and what else could be.
fn rests_on(view: &View<'_, '_>, paths: &Paths, tap: usize, out: &mut Evidence) {
    let (world, other) = (view.world, TapName::of(1 - tap).letter());
    let Some(basis) = paths.basis(world, view.conn, tap) else { return };
    out.insert("crosses", json!(basis.words()));
    let unseen = paths.is_service_unseen(world, view.conn, tap);
    out.insert("service_seen_at_other_tap", json!(!unseen));
    let doubt = match basis {
        _ if !unseen => return,
        Basis::Conversation => return,
        Basis::Hosts | Basis::Host => {
            format!("{other} saw nothing else of this service: a filter of its capture would look the same")
        }
        Basis::Network | Basis::Everything => {
            format!(
                "{other} saw nothing of the far host: another path to it, or a filter, would look the same"
            )
        }
    };
    out.insert("doubt", json!(doubt));
}

/// How many TCP segments of which kind; false if it is not TCP.
fn counts(packets: &Packets<'_>, out: &mut Evidence) -> bool {
    let count = |of: &dyn Fn(&Record) -> bool| packets.iter().filter(|(_, r)| of(r)).count();
    let tcp = packets.iter().any(|(_, r)| r.flags != 0);
    if tcp {
        out.insert("syn", json!(count(&|r| r.has(flags::SYN))));
        out.insert("fin", json!(count(&|r| r.has(flags::FIN))));
        out.insert("rst", json!(count(&Record::is_rst)));
        out.insert("data", json!(count(&|r| r.len > 0)));
    }
    tcp
}

fn lost(view: &View<'_, '_>, tap: usize, packets: &Packets<'_>, out: &mut Evidence) {
    if counts(packets, out) {
        let bytes: u64 = packets.iter().map(|(_, r)| u64::from(r.len)).sum();
        let arrived: Vec<u64> =
            packets.iter().map(|(i, r)| view.arrived(tap, *i, r)).filter(|n| *n > 0).collect();
        out.insert("payload_bytes", json!(bytes.saturating_sub(arrived.iter().sum())));
        out.insert("arrived_in_part", json!(arrived.len()));
    }
    let unanswered = packets.iter().filter(|(i, r)| view.is_unanswered(tap, *i, r)).count();
    out.insert("never_answered", json!(unanswered));
    let other = view.world.taps[1 - tap].level_span().map_or(0, |(_, last)| last);
    let late = packets
        .iter()
        .filter(|(_, r)| view.world.clock.as_ref().is_some_and(|clock| clock.to_other(tap, r.ts) > other));
    // Nothing that must have passed the other tap was seen after its last packet either, so it may well have run.
    out.insert("after_other_taps_last_packet", json!(late.count()));
}

fn made(view: &View<'_, '_>, tap: usize, first: &Record, out: &mut Evidence) {
    let usual = view.usual_ttl(tap, first);
    out.insert("ttl", json!(first.ttl));
    out.insert("usual_ttl", json!(usual));
    let off = usual.map(|usual| usual.abs_diff(first.ttl) >= FOREIGN_TTL);
    out.insert("ttl_foreign", json!(off));
    out.insert("ip_id", json!(first.ip_id));
    if first.flags != 0 {
        out.insert("flags", json!(flag_names(first)));
    }
    let asked =
        view.world.packets(view.conn, tap).rev().find(|(_, q)| q.dir() != first.dir() && q.ts <= first.ts);
    out.insert("after_ns", json!(asked.map(|(_, q)| first.ts - q.ts)));
    out.insert("too_fast_for_other_side", json!(view.answered_too_fast(tap, first).is_some()));
    let rtt = view.world.clock.as_ref().filter(|clock| clock.half_rtt.is_some()).map(|clock| clock.rtt());
    out.insert("rtt_between_ns", json!(rtt));
    // It came out of the middle towards the tap that saw it.
    out.insert("made", json!("between"));
}
