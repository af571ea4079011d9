//! What is told of a flow when it ends: one JSON object a line, as outside programs read it. Made on the
//! thread that writes reports, from the copy the worker handed over; may allocate. A field that was not
//! computed is null or absent.

use std::collections::BTreeMap;

use rules::{RuleMeta, RuleSet};
use serde::Serialize;

use super::app::AppEnd;
use super::record::{Flow, dir_flag, flow_flag, oddity, offer, sign};
use super::sender::Sender;
use super::trouble::{CopyCounts, DirectionTrouble, Trouble};
use crate::analyze::facts::{client_rtt_us, server_rtt_us};
use crate::community;
use crate::decode::TunnelKind;
use crate::worker::EndedFlow;

const TCP: u8 = 6;
/// Below this an MSS option is suspicious: IPv6's minimum MTU of 1280 less its headers (RFC 8200 §5).
const LOW_MSS: u16 = 1220;

/// One flow.
#[derive(Clone, Debug, Serialize)]
pub struct FlowRow {
    pub flow: Tuple,
    pub flow_id: String,
    pub community_id: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub orig: SideRow,
    pub resp: SideRow,
    /// Zeek's words for how it went.
    pub conn_state: &'static str,
    /// Zeek's letters; only TCP flows have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    #[serde(flatten)]
    pub tcp: Option<TcpRow>,
    pub findings: BTreeMap<String, u64>,
}

/// Who talks to whom; `src` is the originator.
#[derive(Clone, Debug, Serialize)]
pub struct Tuple {
    pub proto: String,
    pub src: String,
    pub sport: u16,
    pub dst: String,
    pub dport: u16,
    pub vlan: Vec<u16>,
    pub tunnel: Option<String>,
}

/// What only TCP flows have.
#[derive(Clone, Debug, Serialize)]
pub struct TcpRow {
    pub handshake: &'static str,
    pub rtt_us: Rtt,
    pub times_us: Times,
}

/// Round trips from the tap, µs, read off the handshake.
#[derive(Clone, Debug, Serialize)]
pub struct Rtt {
    pub client_side: Option<u64>,
    pub server_side: Option<u64>,
    /// From the newest SYN to the first ACK after it, as Wireshark's `tcp.analysis.initial_rtt`.
    pub initial: Option<u64>,
}

/// Who let whom wait, µs at the tap: SYN to the ACK that completed the handshake; TLS ClientHello to the server's
/// first payload; end of the first request, not TLS, to the first byte of its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    pub connect: Option<u64>,
    pub tls: Option<u64>,
    pub first_byte: Option<u64>,
}

/// One direction.
#[derive(Clone, Debug, Serialize)]
pub struct SideRow {
    pub packets: u32,
    pub bytes: u64,
    pub ttl_min: Option<u8>,
    pub ttl_max: Option<u8>,
    #[serde(flatten)]
    pub tcp: Option<TcpSide>,
}

/// What only TCP directions have.
#[derive(Clone, Debug, Serialize)]
pub struct TcpSide {
    pub payload: u64,
    pub syn: u8,
    pub syn_ack: u8,
    pub fin: u8,
    pub rst: u16,
    pub mss: Option<u16>,
    pub wscale: Option<u8>,
    pub sack_perm: Option<bool>,
    pub timestamps: Option<bool>,
    /// Unknown if the host captured on showed several packets as one.
    pub max_payload: Option<u16>,
    /// Segments with ECE, with CWR, and marked "congestion experienced" by a router (RFC 3168).
    pub ece: u16,
    pub cwr: u16,
    pub ce: u32,
    pub facts: Facts,
}

/// Wireshark's `tcp.analysis.*` of one direction.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    pub retransmission: u32,
    pub fast_retransmission: u32,
    pub spurious_retransmission: u32,
    pub out_of_order: u32,
    pub duplicate_ack: u32,
    pub lost_segment: u32,
    pub ack_lost_segment: u32,
    pub zero_window: u32,
    pub window_full: u32,
    pub window_update: u32,
    pub zero_window_probe: u32,
    pub zero_window_probe_ack: u32,
    pub keepalive: u32,
    /// Packets the mirror delivered a second time; Wireshark has no such count.
    pub span_duplicate: u32,
    pub keepalive_ack: u32,
    /// SYNs and SYN-ACKs on a tuple in use, with another number than was known.
    pub reused_ports: u32,
}

impl FlowRow {
    /// The row of an ended flow; `rules` gives the names of the rules that matched on it.
    pub fn from_ended(ended: &EndedFlow, rules: &RuleSet) -> FlowRow {
        let (flow, trouble) = (&ended.flow, &ended.trouble);
        let (orig, resp) = (flow.orig(), flow.orig() ^ 1);
        let ((src, sport), (dst, dport)) = flow.ends();
        let tcp = flow.key.proto == TCP;
        FlowRow {
            flow: Tuple {
                proto: protocol(flow.key.proto),
                src: src.to_string(),
                sport,
                dst: dst.to_string(),
                dport,
                vlan: flow.vlan.into_iter().filter(|&id| id != 0).collect(),
                tunnel: (flow.rare.tunnel_kind != TunnelKind::None).then(|| flow.tunnel().to_string()),
            },
            flow_id: format!("{:016x}", flow.id()),
            community_id: community::of(flow.key.proto, (src, sport), (dst, dport), flow.story.icmp),
            start_ns: flow.start_ns,
            end_ns: flow.last_ns,
            orig: side(flow, orig, trouble),
            resp: side(flow, resp, trouble),
            conn_state: flow.conn_state(),
            history: tcp.then(|| flow.history()),
            tcp: tcp.then(|| TcpRow {
                handshake: handshake(flow),
                rtt_us: Rtt {
                    client_side: client_rtt_us(flow),
                    server_side: server_rtt_us(flow),
                    initial: initial_rtt_us(flow),
                },
                times_us: times(flow, &ended.app),
            }),
            findings: findings(ended, rules),
        }
    }
}

/// A time that went backwards meanwhile tells nothing.
fn initial_rtt_us(flow: &Flow) -> Option<u64> {
    let nanos = flow.rare.first_rtt_ns.cast_signed();
    (nanos > 0).then_some(nanos.unsigned_abs() / 1000)
}

/// The name of an IP protocol; its number if it has none here.
fn protocol(number: u8) -> String {
    match number {
        TCP => "tcp".to_owned(),
        17 => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

fn handshake(flow: &Flow) -> &'static str {
    let (own, other) = (&flow.senders[flow.orig()], &flow.dirs[flow.orig() ^ 1]);
    if flow.has(flow_flag::HANDSHAKE) {
        "complete"
    } else if flow.has(flow_flag::REFUSED) {
        "refused"
    } else if own.syn == 0 {
        "none"
    } else if other.packets == 0 && !flow.has(flow_flag::ESTABLISHED) {
        "unanswered"
    } else {
        "incomplete"
    }
}

fn times(flow: &Flow, app: &AppEnd) -> Times {
    let known = |value: u32| (value > 0).then(|| u64::from(value));
    let connect = flow.has(flow_flag::ACK_TIMED).then(|| u64::from(flow.ack_us));
    Times { connect, tls: known(app.tls_us), first_byte: known(flow.first_byte_us) }
}

/// What was seen, second deliveries included; what is said of it is said of the first ones.
fn side(flow: &Flow, dir: usize, trouble: &Trouble) -> SideRow {
    let (t, copies) = (&trouble.dirs[dir], &trouble.copies[dir]);
    let (own, sender) = (&flow.dirs[dir], &flow.senders[dir]);
    let seen = own.has(dir_flag::SEEN);
    let had = |what| flow.offers(dir, what) == Some(true);
    SideRow {
        packets: own.packets.saturating_add(copies.packets),
        bytes: own.bytes + copies.bytes,
        ttl_min: seen.then_some(own.ttl_min),
        ttl_max: seen.then_some(own.ttl_max),
        tcp: (flow.key.proto == TCP).then(|| TcpSide {
            payload: own.payload + copies.payload,
            syn: sender.syn.saturating_add(copies.syn),
            syn_ack: sender.syn_ack.saturating_add(copies.syn_ack),
            fin: sender.fin.saturating_add(copies.fin),
            rst: sender.rst.saturating_add(copies.rst),
            mss: had(offer::MSS).then_some(flow.mss[dir]),
            wscale: had(offer::WSCALE).then_some(flow.wscale[dir]),
            sack_perm: flow.offers(dir, offer::SACK),
            timestamps: flow.offers(dir, offer::TIMESTAMPS),
            max_payload: (!own.shows(sign::COALESCED)).then_some(own.max_payload),
            ece: flow.rare.ece[dir],
            cwr: flow.rare.cwr[dir],
            ce: flow.story.ce[dir],
            facts: facts(flow, dir, t, copies),
        }),
    }
}

/// As Wireshark, which takes second deliveries for packets of their own.
fn facts(flow: &Flow, dir: usize, t: &DirectionTrouble, copies: &CopyCounts) -> Facts {
    let began_anew = flow.has(flow_flag::PORT_REUSE) && dir == flow.orig();
    let mut counts = t.counts();
    counts.iter_mut().zip(copies.found).for_each(|(count, more)| *count = count.saturating_add(more));
    let [
        retransmission,
        fast_retransmission,
        spurious_retransmission,
        out_of_order,
        duplicate_ack,
        lost_segment,
        ack_lost_segment,
        zero_window,
        window_full,
        zero_window_probe,
        zero_window_probe_ack,
        keepalive,
        keepalive_ack,
    ] = counts;
    Facts {
        retransmission,
        fast_retransmission,
        spurious_retransmission,
        out_of_order,
        duplicate_ack,
        lost_segment,
        ack_lost_segment,
        zero_window,
        window_full,
        window_update: flow.rare.window_updates[dir],
        zero_window_probe,
        zero_window_probe_ack,
        keepalive,
        keepalive_ack,
        reused_ports: u32::from(flow.rare.reused_ports[dir]) + u32::from(began_anew),
        span_duplicate: copies.packets,
    }
}

/// What Referee says of the flow: its own reading of the facts, and every rule that matched. A kind that is
/// counted natively is not counted again for the rule of that name.
pub fn findings(ended: &EndedFlow, rules: &RuleSet) -> BTreeMap<String, u64> {
    let EndedFlow { flow, trouble, app } = ended;
    let tcp = flow.key.proto == TCP;
    let mut found = BTreeMap::new();
    let other = [
        ("http_server_error", app.http_errors.into()),
        ("dns_error", app.dns_errors.into()),
        ("icmp_unreachable", trouble.notes.iter().map(|notes| u32::from(notes.unreachable)).sum()),
    ];
    let counted = native(flow, trouble).into_iter().filter(|_| tcp).chain(other);
    for (kind, count) in counted.filter(|(_, count)| *count > 0) {
        found.insert(kind.to_owned(), u64::from(count));
    }
    for hits in trouble.rule_hits() {
        let rule = rules.rules().get(usize::from(hits.rule));
        // The guard of one that can turn may have matched before later packets turned it; if the kind is counted
        // natively, that is the last word.
        let turned = |rule: &&RuleMeta| rule.can_turn() && tcp && is_native(flow, trouble, &rule.name);
        if let Some(rule) = rule.filter(|rule| !turned(rule)) {
            found.entry(rule.name.clone()).or_insert(u64::from(hits.count));
        }
    }
    found
}

/// The kind is one that [`native`] counts.
fn is_native(flow: &Flow, trouble: &Trouble, kind: &str) -> bool {
    native(flow, trouble).iter().any(|(native, _)| *native == kind)
}

fn sum(trouble: &Trouble, count: impl Fn(&DirectionTrouble) -> u32) -> u32 {
    count(&trouble.dirs[0]).saturating_add(count(&trouble.dirs[1]))
}

fn repeats(flow: &Flow, count: impl Fn(&Sender) -> u8) -> u32 {
    flow.senders.iter().map(|s| u32::from(count(s).saturating_sub(1))).sum()
}

/// Kinds that are counted whether a rule asks or not, each with its count.
fn native(flow: &Flow, trouble: &Trouble) -> [(&'static str, u32); 26] {
    let unseen = flow.senders[flow.orig()].syn > 0 && flow.dirs[flow.orig() ^ 1].packets == 0;
    let both_syns = flow.dirs.iter().all(|d| d.has(dir_flag::SYN));
    let lacks = |what| (0..2).any(|dir| flow.offers(dir, what) == Some(false));
    let low = |dir: usize| flow.offered[dir] & offer::MSS != 0 && flow.mss[dir] < LOW_MSS;
    let echoes = u32::from(flow.congestion(0).0) + u32::from(flow.congestion(1).0);
    [
        ("retransmission", sum(trouble, |t| t.own.retransmission)),
        ("fast_retransmission", sum(trouble, |t| t.own.fast_retransmission)),
        ("spurious_retransmission", sum(trouble, |t| t.own.spurious_retransmission)),
        ("out_of_order", sum(trouble, |t| t.own.out_of_order)),
        ("duplicate_ack", sum(trouble, |t| t.duplicate_ack)),
        ("lost_segment", sum(trouble, |t| t.own.lost_segment)),
        ("zero_window", sum(trouble, |t| t.zero_window)),
        ("window_full", sum(trouble, |t| t.window_full)),
        (
            "zero_window_probe",
            sum(trouble, |t| t.zero_window_probe.saturating_add(t.keepalive_into_zero_window)),
        ),
        ("keepalive", sum(trouble, |t| t.keepalive - t.keepalive_into_zero_window)),
        ("syn_retransmission", repeats(flow, |s| s.syn)),
        ("synack_retransmission", repeats(flow, |s| s.syn_ack)),
        ("rst_midflow", trouble.midflow_rsts),
        ("one_sided", u32::from(unseen && flow.has(flow_flag::ESTABLISHED))),
        ("conn_refused", u32::from(flow.has(flow_flag::REFUSED))),
        ("rst_injected", (0..2).filter(|&dir| flow.rst_injected(dir) == Some(true)).count() as u32),
        ("ttl_changed", flow.senders.iter().map(|s| u32::from(s.ttl_changes)).sum()),
        ("challenge_ack", u32::from(flow.rare.oddities & oddity::CHALLENGED != 0)),
        ("handshake_incomplete", u32::from(flow.rare.oddities & oddity::INCOMPLETE != 0)),
        ("icmp_frag_needed", trouble.icmp_too_big),
        ("port_reuse", u32::from(flow.has(flow_flag::PORT_REUSE))),
        ("wscale_missing", u32::from(both_syns && lacks(offer::WSCALE))),
        ("sack_missing", u32::from(both_syns && lacks(offer::SACK))),
        ("mss_low", u32::from(low(0) || low(1))),
        ("sack_garbled", u32::from(flow.rare.sack_garbled[0]) + u32::from(flow.rare.sack_garbled[1])),
        ("ecn_ce", flow.story.ce[0].saturating_add(flow.story.ce[1]).saturating_add(echoes)),
    ]
}
