//! What is told of a flow when it ends: one JSON object a line, as outside programs read it. Made on the
//! thread that writes reports, from the copy the worker handed over; may allocate. A field that was not
//! computed is null or absent.

use std::collections::BTreeMap;

use rules::RuleSet;
use serde::Serialize;

use super::record::{Direction, Flow, dir_flag, flow_flag, oddity, offer};
use super::trouble::{DirectionTrouble, Trouble};
use crate::analyze::facts::{client_rtt_us, server_rtt_us};
use crate::worker::EndedFlow;

const TCP: u8 = 6;
/// Below this an MSS option is suspicious: IPv6's minimum MTU of 1280 less its headers (RFC 8200 §5).
const LOW_MSS: u16 = 1220;

/// One flow.
#[derive(Clone, Debug, Serialize)]
pub struct FlowRow {
    pub flow: Tuple,
    pub flow_id: String,
    pub community_id: Option<String>,
    pub start_ns: u64,
    pub end_ns: u64,
    pub orig: SideRow,
    pub resp: SideRow,
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
    pub conn_state: Option<String>,
    pub history: Option<String>,
    pub handshake: &'static str,
    pub rtt_us: Rtt,
}

/// Round trips from the tap, µs, read off the handshake.
#[derive(Clone, Debug, Serialize)]
pub struct Rtt {
    pub client_side: Option<u64>,
    pub server_side: Option<u64>,
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
    pub max_payload: u16,
    pub ece: Option<u32>,
    pub cwr: Option<u32>,
    pub ce: Option<u32>,
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
    pub zero_window_probe: u32,
    pub keepalive: u32,
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
                tunnel: None,
            },
            flow_id: format!("{:016x}", flow.id()),
            community_id: None,
            start_ns: flow.start_ns,
            end_ns: flow.last_ns,
            orig: side(flow, orig, &trouble.dirs[orig]),
            resp: side(flow, resp, &trouble.dirs[resp]),
            tcp: tcp.then(|| TcpRow {
                conn_state: None,
                history: None,
                handshake: handshake(flow),
                rtt_us: Rtt { client_side: client_rtt_us(flow), server_side: server_rtt_us(flow) },
            }),
            findings: findings(flow, trouble, rules, tcp),
        }
    }
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
    let (own, other) = (&flow.dirs[flow.orig()], &flow.dirs[flow.orig() ^ 1]);
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

fn side(flow: &Flow, dir: usize, t: &DirectionTrouble) -> SideRow {
    let own: &Direction = &flow.dirs[dir];
    let seen = own.has(dir_flag::SEEN);
    let syn = own.has(dir_flag::SYN);
    let offered = |what| flow.offered[dir] & what != 0;
    let known = |what| syn && (offered(what) || !offered(offer::CUT));
    SideRow {
        packets: own.packets,
        bytes: own.bytes,
        ttl_min: seen.then_some(own.ttl_min),
        ttl_max: seen.then_some(own.ttl_max),
        tcp: (flow.key.proto == TCP).then(|| TcpSide {
            payload: own.payload,
            syn: own.syn,
            syn_ack: own.syn_ack,
            fin: own.fin,
            rst: own.rst,
            mss: (syn && offered(offer::MSS)).then_some(flow.mss[dir]),
            wscale: (syn && offered(offer::WSCALE)).then_some(flow.wscale[dir]),
            sack_perm: known(offer::SACK).then(|| offered(offer::SACK)),
            timestamps: known(offer::TIMESTAMPS).then(|| offered(offer::TIMESTAMPS)),
            max_payload: own.max_payload,
            ece: None,
            cwr: None,
            ce: None,
            facts: Facts {
                retransmission: t.retransmission,
                fast_retransmission: t.fast_retransmission,
                spurious_retransmission: t.spurious_retransmission,
                out_of_order: t.out_of_order,
                duplicate_ack: t.duplicate_ack,
                lost_segment: t.lost_segment,
                ack_lost_segment: t.ack_lost_segment,
                zero_window: t.zero_window,
                window_full: t.window_full,
                zero_window_probe: t.zero_window_probe,
                keepalive: t.keepalive,
            },
        }),
    }
}

/// What Referee says of the flow: its own reading of the facts, and every rule that matched. A kind that is
/// counted natively is not counted again for the rule of that name.
fn findings(flow: &Flow, trouble: &Trouble, rules: &RuleSet, tcp: bool) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    if tcp {
        native(flow, trouble, |kind, count| {
            if count > 0 {
                found.insert(kind.to_owned(), u64::from(count));
            }
        });
    }
    let unreachable: u64 = trouble.notes.iter().map(|notes| u64::from(notes.unreachable)).sum();
    if unreachable > 0 {
        found.insert("icmp_unreachable".to_owned(), unreachable);
    }
    for hits in trouble.rule_hits() {
        let rule = rules.rules().get(usize::from(hits.rule));
        // Its guard may have matched before later packets turned the verdict.
        if let Some(rule) = rule.filter(|rule| rule.name != "rst_injected") {
            found.entry(rule.name.clone()).or_insert(u64::from(hits.count));
        }
    }
    found
}

fn native(flow: &Flow, trouble: &Trouble, mut say: impl FnMut(&str, u32)) {
    let sum =
        |count: fn(&DirectionTrouble) -> u32| count(&trouble.dirs[0]).saturating_add(count(&trouble.dirs[1]));
    let repeats = |count: fn(&Direction) -> u8| -> u32 {
        flow.dirs.iter().map(|d| u32::from(count(d).saturating_sub(1))).sum()
    };
    say("retransmission", sum(|t| t.retransmission));
    say("fast_retransmission", sum(|t| t.fast_retransmission));
    say("spurious_retransmission", sum(|t| t.spurious_retransmission));
    say("out_of_order", sum(|t| t.out_of_order));
    say("duplicate_ack", sum(|t| t.duplicate_ack));
    say("lost_segment", sum(|t| t.lost_segment));
    say("zero_window", sum(|t| t.zero_window));
    say("window_full", sum(|t| t.window_full));
    say("zero_window_probe", sum(|t| t.zero_window_probe.saturating_add(t.keepalive_into_zero_window)));
    say("keepalive", sum(|t| t.keepalive - t.keepalive_into_zero_window));
    say("syn_retransmission", repeats(|d| d.syn));
    say("synack_retransmission", repeats(|d| d.syn_ack));
    say("rst_midflow", trouble.midflow_rsts);
    say("conn_refused", u32::from(flow.has(flow_flag::REFUSED)));
    say("rst_injected", (0..2).filter(|&dir| flow.rst_injected(dir) == Some(true)).count() as u32);
    say("ttl_changed", flow.senders.iter().map(|s| u32::from(s.ttl_changes)).sum());
    say("challenge_ack", u32::from(flow.oddities & oddity::CHALLENGED != 0));
    say("handshake_incomplete", u32::from(flow.oddities & oddity::INCOMPLETE != 0));
    say("icmp_frag_needed", trouble.icmp_too_big);
    say("port_reuse", u32::from(flow.has(flow_flag::PORT_REUSE)));
    let both_syns = flow.dirs.iter().all(|d| d.has(dir_flag::SYN));
    let lacks = |what| flow.offered.iter().any(|offered| offered & (what | offer::CUT) == 0);
    say("wscale_missing", u32::from(both_syns && lacks(offer::WSCALE)));
    say("sack_missing", u32::from(both_syns && lacks(offer::SACK)));
    let low = |dir: usize| flow.offered[dir] & offer::MSS != 0 && flow.mss[dir] < LOW_MSS;
    say("mss_low", u32::from(low(0) || low(1)));
}
