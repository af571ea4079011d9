//! What the middle changed in packets that both taps saw: options of the handshake, sequence numbers, ECN, TTL,
//! payload, DSCP. Main thread; one walk over a connection's matched packets.

use std::collections::BTreeMap;

use serde_json::json;

use dataplane::decode::flags;

use crate::conn::{Conn, World};
use crate::fate::is_local;
use crate::findings::name;
use crate::matching::partner;
use crate::record::{Extra, Record};
use crate::report::{Evidence, Finding, Remark, TapName};

const CE: u8 = 3;
const ECN_FLAGS: u8 = flags::ECE | flags::CWR;

/// Packets whose DSCP was changed: by the tap they pass first, what it was and what it became.
#[derive(Default)]
pub struct Remarked(BTreeMap<(usize, u8, u8), u64>);

impl Remarked {
    /// The most frequent first.
    pub fn list(self) -> Vec<Remark> {
        let way = |first: usize| if first == 0 { "a_to_b" } else { "b_to_a" };
        let each = self.0.into_iter();
        let mut list: Vec<Remark> = each
            .map(|((first, sent, received), packets)| Remark {
                direction: way(first),
                sent,
                received,
                packets,
            })
            .collect();
        list.sort_by_key(|remark| std::cmp::Reverse(remark.packets));
        list
    }
}

/// A SYN's options as they were sent and as they arrived.
#[derive(Clone, Copy)]
struct Offer {
    sent: Extra,
    received: Extra,
    first: usize,
    ts: u64,
}

/// Packets of one kind of change.
#[derive(Clone, Copy, Default)]
struct Changed {
    count: u64,
    span: Option<(u64, u64)>,
    first: usize,
}

impl Changed {
    fn add(&mut self, ts: u64, first: usize) {
        self.count += 1;
        let (from, _) = *self.span.get_or_insert((ts, ts));
        self.span = Some((from, ts));
        if self.count == 1 {
            self.first = first;
        }
    }
}

#[derive(Default)]
struct Changes {
    /// SYN, SYN-ACK.
    offers: [Option<Offer>; 2],
    bleached: Changed,
    bleached_flags: u64,
    marked: Changed,
    ecn: Changed,
    /// First pair of ECN fields that neither of these is.
    ecn_fields: Option<[u8; 2]>,
    ttl: Changed,
    ttl_values: Option<[u8; 2]>,
    altered: Changed,
    sack: Changed,
    garbled: Changed,
}

impl Changes {
    /// The two ECN bits of IP, and the two flags of TCP that go with them (RFC 3168).
    fn header(&mut self, sent: &Record, received: &Record, (ts, first): (u64, usize)) {
        let flags = sent.flags & ECN_FLAGS & !received.flags != 0;
        self.bleached_flags += u64::from(flags);
        if flags || sent.ecn != 0 && received.ecn == 0 {
            self.bleached.add(ts, first);
        }
        match (sent.ecn, received.ecn) {
            (_, 0) => {}
            (was, is) if was == is => {}
            (1 | 2, CE) => self.marked.add(ts, first),
            (was, is) => {
                self.ecn.add(ts, first);
                self.ecn_fields.get_or_insert([was, is]);
            }
        }
    }
}

/// Adds what was changed in one connection.
pub fn of_connection(
    world: &World<'_>,
    conn: &Conn,
    client: usize,
    remarked: &mut Remarked,
    out: &mut Vec<Finding>,
) {
    let changes = walk(world, conn, remarked);
    let mut tell = Tell { world, conn, client, out };
    if changes.offers.iter().any(Option::is_some) {
        options(&changes.offers, &mut tell);
    }
    rewritten(conn, &changes, client, &mut tell);
    tell.changed("ecn_bleached", changes.bleached, [("tcp_flags", json!(changes.bleached_flags))].into());
    tell.changed("ecn_ce_between", changes.marked, Evidence::default());
    let pair = |values: Option<[u8; 2]>| {
        values.map(|[sent, received]| [("sent", json!(sent)), ("received", json!(received))].into())
    };
    tell.changed("ecn_altered", changes.ecn, pair(changes.ecn_fields).unwrap_or_default());
    tell.changed("ttl_raised", changes.ttl, pair(changes.ttl_values).unwrap_or_default());
    tell.changed("payload_altered", changes.altered, Evidence::default());
}

fn walk(world: &World<'_>, conn: &Conn, remarked: &mut Remarked) -> Changes {
    let mut changes = Changes::default();
    let (low, high) = world.flows.ends(conn.flow, true);
    let is_routed = !is_local(low) && !is_local(high);
    for (index, a) in world.packets(conn, 0) {
        let Some(b) = partner(world, 0, index) else { continue };
        let first = conn.first_tap[a.dir()].unwrap_or(0);
        let (sent, received) = if first == 0 { (a, b) } else { (b, a) };
        let ts = world.taps[first].stamp(sent);
        let extra = |tap: usize, r: &Record| world.taps[tap].extra(r).copied();
        if a.extra != 0 || b.extra != 0 {
            let both = extra(first, sent).zip(extra(1 - first, received));
            if let Some((sent_extra, received_extra)) = both {
                options_of(&mut changes, conn, (sent, sent_extra), received_extra, (ts, first));
            }
        }
        changes.header(sent, received, (ts, first));
        if sent.dscp != received.dscp {
            *remarked.0.entry((first, sent.dscp, received.dscp)).or_default() += 1;
        }
        if received.ttl > sent.ttl && is_routed && conn.first_tap[a.dir()].is_some() {
            changes.ttl.add(ts, first);
            changes.ttl_values.get_or_insert([sent.ttl, received.ttl]);
        }
        if a.body != 0 && b.body != 0 && a.body != b.body && !a.is_error {
            changes.altered.add(ts, first);
        }
    }
    changes
}

fn options_of(
    changes: &mut Changes,
    conn: &Conn,
    (r, sent): (&Record, Extra),
    received: Extra,
    (ts, first): (u64, usize),
) {
    if sent.cut || received.cut {
        return;
    }
    if r.has(flags::SYN) {
        let offer = &mut changes.offers[usize::from(r.has(flags::ACK))];
        *offer = offer.or(Some(Offer { sent, received, first, ts }));
    }
    // SACK blocks name the other direction's sequence numbers.
    let delta = conn.delta[1 - r.dir()];
    if let (Some(at_first), Some(at_second), true) = (sent.sack, received.sack, delta != 0) {
        changes.sack.add(ts, first);
        if at_first == at_second {
            changes.garbled.add(ts, first);
        }
    }
}

struct Tell<'a, 't> {
    world: &'a World<'t>,
    conn: &'a Conn,
    client: usize,
    out: &'a mut Vec<Finding>,
}

impl Tell<'_, '_> {
    fn add(&mut self, kind: &'static str, first: usize, count: u64, span: (u64, u64), evidence: Evidence) {
        self.out.push(Finding {
            kind,
            flow: name(self.world.flows.key(self.conn.flow), self.client),
            seen_at: Some(TapName::of(first)),
            missing_at: kind.ends_with("_stripped").then(|| TapName::of(1 - first)),
            count,
            first_ns: span.0,
            last_ns: span.1,
            evidence,
        });
    }

    fn changed(&mut self, kind: &'static str, changed: Changed, evidence: Evidence) {
        if let Some(span) = changed.span {
            self.add(kind, changed.first, changed.count, span, evidence);
        }
    }
}

const ON: [&str; 2] = ["SYN", "SYN-ACK"];

/// One finding a kind, whichever of SYN and SYN-ACK it is on.
fn options(offers: &[Option<Offer>; 2], tell: &mut Tell<'_, '_>) {
    type Lost = fn(&Offer) -> bool;
    let kinds: [(&'static str, Lost); 4] = [
        ("mss_clamped", |o| o.sent.mss != o.received.mss),
        ("wscale_stripped", |o| o.sent.wscale.is_some() && o.received.wscale.is_none()),
        ("sack_stripped", |o| o.sent.sack_permitted && !o.received.sack_permitted),
        ("timestamps_stripped", |o| o.sent.timestamps && !o.received.timestamps),
    ];
    for (kind, lost) in kinds {
        let mut on = Vec::new();
        let mut evidence = Evidence::default();
        let mut at = None;
        for (offer, name) in offers.iter().zip(ON) {
            let Some(offer) = offer.as_ref().filter(|offer| lost(offer)) else { continue };
            on.push(name);
            let (first, ts) = *at.get_or_insert((offer.first, (offer.ts, offer.ts)));
            at = Some((first, (ts.0, offer.ts)));
            let field = if name == "SYN" { "syn" } else { "synack" };
            let values = match kind {
                "mss_clamped" => json!({"sent": offer.sent.mss, "received": offer.received.mss}),
                "wscale_stripped" => json!({"sent": offer.sent.wscale, "received": null}),
                _ => json!({"sent": true, "received": false}),
            };
            evidence.insert(field, values);
        }
        if let Some((first, span)) = at {
            evidence.insert("on", json!(on));
            tell.add(kind, first, on.len() as u64, span, evidence);
        }
    }
    if let [Some(syn), Some(synack)] = offers {
        scaling(syn, synack, tell);
    }
}

/// The shift an end applies to a window, and the one its peer reads it with, after what the middle changed.
fn scaling(syn: &Offer, synack: &Offer, tell: &mut Tell<'_, '_>) {
    // Each end scales if it sent and received the option (RFC 7323 §2.2).
    let client = syn.sent.wscale.zip(synack.received.wscale);
    let server = synack.sent.wscale.zip(syn.received.wscale);
    let of = |pair: Option<(u8, u8)>| pair.unwrap_or((0, 0));
    let ((client_sends, client_reads), (server_sends, server_reads)) = (of(client), of(server));
    if client_sends == server_reads && server_sends == client_reads && client.is_some() == server.is_some() {
        return;
    }
    let evidence = Evidence::from([
        ("client_scales", json!(client.is_some())),
        ("server_scales", json!(server.is_some())),
        ("client_sends_shift", json!(client_sends)),
        ("server_reads_shift", json!(server_reads)),
        ("server_sends_shift", json!(server_sends)),
        ("client_reads_shift", json!(client_reads)),
    ]);
    tell.add("wscale_mismatch", syn.first, 1, (syn.ts, synack.ts), evidence);
}

fn rewritten(conn: &Conn, changes: &Changes, client: usize, tell: &mut Tell<'_, '_>) {
    if conn.delta == [0; 2] {
        return;
    }
    let signed = |delta: u32| i64::from(delta as i32);
    let first = conn.first_tap[client].unwrap_or(0);
    let packets = tell.world.packets(conn, first);
    let matched = packets.filter(|(i, r)| tell.world.is_matched(first, *i) && conn.delta[r.dir()] != 0);
    let mut all = Changed::default();
    for (_, r) in matched {
        all.add(tell.world.taps[first].stamp(r), first);
    }
    let evidence = Evidence::from([
        ("client_delta_b_minus_a", json!(signed(conn.delta[client]))),
        ("server_delta_b_minus_a", json!(signed(conn.delta[1 - client]))),
        ("sack_blocks_seen", json!(changes.sack.count)),
        ("sack_blocks_not_rewritten", json!(changes.garbled.count)),
    ]);
    if all.count > 0 {
        tell.changed("seq_rewritten", all, evidence.clone());
        tell.changed("sack_garbled", changes.garbled, evidence);
    }
}
