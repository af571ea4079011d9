//! The one list of facts: the name a rule uses, its type, unit and meaning, and how it is read.
//!
//! Guards are lowered from it, rule bodies get their getters from it, and docs/rules.md is printed from
//! it. Getters run on workers and on the judge: they neither allocate nor block. A getter that returns
//! `None` says *unknown*.

use std::net::IpAddr;

use crate::facts::app::APP;
use crate::facts::parts::parts_of;
use crate::facts::verdicts;
use crate::facts::{FlowFacts, HostFacts, LinkFacts, Name, Parts, ServiceFacts, Side};

/// A sliding window of packet time that host and service counts are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    S1,
    S10,
    S60,
}

impl Window {
    pub const ALL: [Window; 3] = [Window::S1, Window::S10, Window::S60];

    pub const fn seconds(self) -> i64 {
        match self {
            Window::S1 => 1,
            Window::S10 => 10,
            Window::S60 => 60,
        }
    }

    pub fn from_seconds(seconds: i64) -> Option<Window> {
        Window::ALL.into_iter().find(|w| w.seconds() == seconds)
    }
}

/// How a fact is read from its snapshot.
pub enum Get<S> {
    Int(fn(&S) -> Option<i64>),
    Bool(fn(&S) -> Option<bool>),
    Address(fn(&S) -> Option<IpAddr>),
    Text(fn(&S) -> Option<Name>),
    /// A count over a window: `host.rsts(10)`.
    CountOver(fn(&S, Window) -> Option<i64>),
    /// A rate or ratio over a window: `host.rst_rate(10)`.
    RateOver(fn(&S, Window) -> Option<f64>),
}

/// One fact a rule can name.
pub struct Fact<S> {
    /// As written in a rule, without a window's parentheses: `flow.orig.mss`, `host.rsts`.
    pub path: &'static str,
    /// Empty for yes/no facts, addresses and plain numbers.
    pub unit: &'static str,
    pub doc: &'static str,
    pub get: Get<S>,
}

impl<S> Fact<S> {
    pub const fn type_name(&self) -> &'static str {
        match self.get {
            Get::Int(_) | Get::CountOver(_) => "integer",
            Get::Bool(_) => "bool",
            Get::Address(_) => "address",
            Get::Text(_) => "text",
            Get::RateOver(_) => "float",
        }
    }

    pub const fn is_windowed(&self) -> bool {
        matches!(self.get, Get::CountOver(_) | Get::RateOver(_))
    }
}

/// A snapshot whose facts rules can name.
pub trait Subject: Sized + 'static {
    /// The name rules use: `flow`, `host`, `service`, `link`.
    const ROOT: &'static str;
    fn facts() -> impl Iterator<Item = &'static Fact<Self>>;

    fn find(path: &str) -> Option<&'static Fact<Self>> {
        Self::facts().find(|fact| fact.path == path)
    }

    /// What has to be gathered before this fact is read.
    fn parts_of(_path: &str) -> Parts {
        Parts::HAND
    }

    /// These parts have been gathered.
    #[inline(always)]
    fn has(&self, _parts: Parts) -> bool {
        true
    }
}

impl Subject for FlowFacts {
    const ROOT: &'static str = "flow";
    fn facts() -> impl Iterator<Item = &'static Fact<FlowFacts>> {
        let flow = FLOW.iter().chain(APP).chain(verdicts::FLOW);
        flow.chain(ORIG).chain(verdicts::ORIG).chain(RESP).chain(verdicts::RESP)
    }

    fn parts_of(path: &str) -> Parts {
        parts_of(path)
    }

    #[inline(always)]
    fn has(&self, parts: Parts) -> bool {
        self.have.cover(parts)
    }
}

impl Subject for HostFacts {
    const ROOT: &'static str = "host";
    fn facts() -> impl Iterator<Item = &'static Fact<HostFacts>> {
        super::crowd_table::HOST.iter()
    }
}

impl Subject for ServiceFacts {
    const ROOT: &'static str = "service";
    fn facts() -> impl Iterator<Item = &'static Fact<ServiceFacts>> {
        super::crowd_table::SERVICE.iter()
    }
}

impl Subject for LinkFacts {
    const ROOT: &'static str = "link";
    fn facts() -> impl Iterator<Item = &'static Fact<LinkFacts>> {
        super::link_table::LINK.iter()
    }
}

/// Rules count in signed 64-bit integers; a larger value saturates.
pub(super) fn int(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub(super) const fn row<S>(
    path: &'static str,
    unit: &'static str,
    doc: &'static str,
    get: Get<S>,
) -> Fact<S> {
    Fact { path, unit, doc, get }
}

static FLOW: &[Fact<FlowFacts>] = &[
    row("flow.src", "", "Address of the originator.", Get::Address(|f| Some(f.src))),
    row("flow.dst", "", "Address of the responder.", Get::Address(|f| Some(f.dst))),
    row("flow.sport", "", "Port of the originator.", Get::Int(|f| Some(f.sport.into()))),
    row("flow.dport", "", "Port of the responder.", Get::Int(|f| Some(f.dport.into()))),
    row(
        "flow.proto",
        "",
        "IP protocol number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6.",
        Get::Int(|f| Some(f.proto.into())),
    ),
    row("flow.vlan", "", "Outer VLAN id; 0 if untagged.", Get::Int(|f| Some(f.vlan[0].into()))),
    row("flow.inner_vlan", "", "Inner VLAN id; 0 if there is none.", Get::Int(|f| Some(f.vlan[1].into()))),
    row(
        "flow.age_ms",
        "ms",
        "Time since the flow's first packet.",
        Get::Int(|f| Some(int(f.now_ns.saturating_sub(f.start_ns) / 1_000_000))),
    ),
    row(
        "flow.by_orig",
        "",
        "The originator sent the packet that raised the event; unknown for timers and ICMP.",
        Get::Bool(|f| f.by.map(|side| side == Side::Orig)),
    ),
    row(
        "flow.by_resp",
        "",
        "The responder sent the packet that raised the event; unknown for timers and ICMP.",
        Get::Bool(|f| f.by.map(|side| side == Side::Resp)),
    ),
    row(
        "flow.established",
        "",
        "The three-way handshake was completed, or data was seen both ways on a flow picked up mid-stream.",
        Get::Bool(|f| Some(f.established)),
    ),
    row("flow.fin_seen", "", "Either side sent a FIN before this packet.", Get::Bool(|f| Some(f.fin_seen))),
    row("flow.rst_seen", "", "A RST was seen before this packet.", Get::Bool(|f| Some(f.rst_seen))),
    row("flow.syns", "segments", "SYNs without ACK seen.", Get::Int(|f| Some(f.syns.into()))),
    row(
        "flow.ecn_syns",
        "segments",
        "SYNs that offered ECN (RFC 3168).",
        Get::Int(|f| Some(f.ecn_syns.into())),
    ),
    row(
        "flow.last_syn_plain",
        "",
        "A SYN was seen, and the last one did not offer ECN.",
        Get::Bool(|f| Some(f.last_syn_plain)),
    ),
    row("flow.syn_acks", "segments", "SYN-ACKs seen.", Get::Int(|f| Some(f.syn_acks.into()))),
    row(
        "flow.syn_age_ms",
        "ms",
        "Time since the first SYN; unknown if none was seen.",
        Get::Int(|f| f.syn_age_ms.map(int)),
    ),
    row(
        "flow.idle_before_ms",
        "ms",
        "Length of the silence just broken, nothing outstanding before it; 0 if there was none of 1 s or more. After a RST, \
         that before the RST.",
        Get::Int(|f| Some(int(f.idle_before_ms))),
    ),
    row(
        "flow.packets_since_idle",
        "packets",
        "Packets since that silence, this one included, what followed a RST left out; 0 if there was none.",
        Get::Int(|f| Some(int(f.packets_since_idle))),
    ),
    row(
        "flow.unacked",
        "bytes",
        "Bytes sent by either side and not acknowledged; unknown unless both sides were seen.",
        Get::Int(|f| Some(i64::from(f.orig.unacked?) + i64::from(f.resp.unacked?))),
    ),
    row(
        "flow.rtt_client_us",
        "µs",
        "Round trip between the tap and the originator, from the handshake; unknown if not seen whole.",
        Get::Int(|f| f.rtt_client_us.map(int)),
    ),
    row(
        "flow.rtt_server_us",
        "µs",
        "Round trip between the tap and the responder, from the handshake; unknown if not seen whole.",
        Get::Int(|f| f.rtt_server_us.map(int)),
    ),
    row(
        "flow.rtt_us",
        "µs",
        "Round trip between both ends, from the handshake; unknown if not seen whole.",
        Get::Int(|f| f.rtt_us().map(int)),
    ),
    row(
        "flow.ttl",
        "hops",
        "TTL or hop limit of the packet that raised the event; unknown for timers.",
        Get::Int(|f| f.ttl.map(int)),
    ),
    row(
        "flow.icmp_too_big",
        "messages",
        "ICMP \"fragmentation needed\" or ICMPv6 \"packet too big\" that quoted this flow.",
        Get::Int(|f| Some(f.icmp_too_big.into())),
    ),
    row(
        "flow.icmp_mtu",
        "bytes",
        "Next-hop MTU the last of those messages named; unknown if none came.",
        Get::Int(|f| f.icmp_mtu.map(int)),
    ),
];

/// The facts of one direction, once for `flow.orig` and once for `flow.resp`.
macro_rules! side_facts {
    ($side:ident, $who:literal) => {
        &[
            side_facts!(@ $side, packets, "packets", concat!("Packets seen from the ", $who, "."),
                Int, |f| Some(int(f.$side.packets))),
            side_facts!(@ $side, bytes, "bytes", concat!("IP bytes seen from the ", $who, "."),
                Int, |f| Some(int(f.$side.bytes))),
            side_facts!(@ $side, payload, "bytes", "TCP payload bytes seen, repeats included.",
                Int, |f| Some(int(f.$side.payload))),
            side_facts!(@ $side, mss, "bytes",
                "MSS option of the first SYN or SYN-ACK; 0 if it had none; unknown if it was not seen.",
                Int, |f| f.$side.mss.map(int)),
            side_facts!(@ $side, wscale, "bits",
                "Window scale shift offered (RFC 7323); -1 if not offered; unknown if the SYN was not seen.",
                Int, |f| f.$side.wscale.map(int)),
            side_facts!(@ $side, sack, "",
                "SACK-permitted was offered (RFC 2018); unknown if the SYN was not seen.",
                Bool, |f| f.$side.sack),
            side_facts!(@ $side, ttl_min, "hops", "Lowest TTL or hop limit seen.",
                Int, |f| f.$side.ttl_min.map(int)),
            side_facts!(@ $side, ttl_max, "hops", "Highest TTL or hop limit seen.",
                Int, |f| f.$side.ttl_max.map(int)),
            side_facts!(@ $side, unacked, "bytes",
                concat!("Bytes the ", $who,
                    " sent and the other side has not acknowledged; unknown unless both sides were seen."),
                Int, |f| f.$side.unacked.map(int)),
            side_facts!(@ $side, max_payload, "bytes",
                "Largest TCP payload in one packet of the wire, as far as the MSS tells; unknown if the host captured on \
                 said that it showed several as one (GRO, TSO).",
                Int, |f| f.$side.max_payload.map(int)),
            side_facts!(@ $side, retransmissions, "segments",
                "Segments sent again: fast, spurious and SYN retransmissions included.",
                Int, |f| Some(f.$side.retransmissions.into())),
            side_facts!(@ $side, zero_windows, "segments", "Segments advertising a zero window.",
                Int, |f| Some(f.$side.zero_windows.into())),
            side_facts!(@ $side, keepalives, "segments", "Keepalive probes.",
                Int, |f| Some(f.$side.keepalives.into())),
            side_facts!(@ $side, rsts, "segments", "RST segments.", Int, |f| Some(f.$side.rsts.into())),
            side_facts!(@ $side, fins, "segments", "FIN segments.", Int, |f| Some(f.$side.fins.into())),
            side_facts!(@ $side, stuck_sends, "times",
                "How often the segment now stuck (1000 B of payload or more, DF, never acknowledged) was sent; 0 if none is.",
                Int, |f| Some(f.$side.stuck_sends.into())),
            side_facts!(@ $side, stuck_bytes, "bytes",
                "IP length of that stuck segment; of one packet of it, if the capture shows several as one.",
                Int, |f| Some(f.$side.stuck_bytes.into())),
            side_facts!(@ $side, stuck_payload, "bytes", "TCP payload of that packet.",
                Int, |f| Some(f.$side.stuck_payload.into())),
            side_facts!(@ $side, stuck_aggregate, "",
                "The capture shows several packets as one there (TSO, GRO); unknown without an MSS.",
                Bool, |f| f.$side.stuck_aggregate),
            side_facts!(@ $side, arrived_sends, "times",
                "How often a segment had been sent that was stuck, and that this packet acknowledges in its size; else 0.",
                Int, |f| Some(f.$side.arrived_sends.into())),
            side_facts!(@ $side, small_passes, "",
                "The peer has sent something, but no RST, since that segment was first resent: smaller ones pass.",
                Bool, |f| Some(f.$side.small_passes)),
            side_facts!(@ $side, only_large_stuck, "",
                "Nothing as large as that segment had arrived on the connection, seen from its SYN on, and nothing smaller \
                 is without answer: all that is outstanding is of its size.",
                Bool, |f| Some(f.$side.only_large_stuck)),
            side_facts!(@ $side, largest_acked, "bytes",
                "Largest TCP payload of one segment known to have arrived (acknowledged); unknown if none is, and with \
                 max_payload.",
                Int, |f| f.$side.largest_acked.map(int)),
            side_facts!(@ $side, segments, "segments",
                "Segments of data: bytes by the largest segment; unknown with max_payload.",
                Int, |f| f.$side.segments().map(int)),
            side_facts!(@ $side, spurious_retransmissions, "segments",
                "Of the retransmissions, those of bytes that had been acknowledged.",
                Int, |f| Some(f.$side.spurious_retransmissions.into())),
            side_facts!(@ $side, needless, "segments",
                "Of the retransmissions, those that no loss was behind: the bytes had been acknowledged, came twice \
                 (D-SACK), or were only overtaken.",
                Int, |f| Some(f.$side.needless.into())),
            side_facts!(@ $side, losses, "segments", "Retransmissions but the needless.",
                Int, |f| Some(f.$side.losses().into())),
            side_facts!(@ $side, rate, "bytes/s", "TCP payload since the flow's first packet, by the second.",
                Int, |f| f.rate(&f.$side).map(int)),
            side_facts!(@ $side, loss_ppm, "per million",
                "Losses as a part of the segments; unknown without data, and with max_payload.",
                Int, |f| f.$side.loss_ppm().map(int)),
            side_facts!(@ $side, loss_bound, "bytes/s",
                "Rate that this loss allows (Mathis: MSS, round trip, loss); unknown without loss or round trip.",
                Int, |f| f.loss_rate(&f.$side).map(int)),
            side_facts!(@ $side, window_fulls, "segments",
                "Segments that filled the other side's window to its edge.",
                Int, |f| Some(f.$side.window_fulls.into())),
            side_facts!(@ $side, filled_window, "bytes",
                "Largest window of the other side that was filled so; 0 if none was.",
                Int, |f| Some(f.$side.filled_window.into())),
            side_facts!(@ $side, window_bound, "bytes/s",
                "Rate that this window allows: one a round trip; unknown without a round trip.",
                Int, |f| f.window_rate(f.$side.filled_window).map(int)),
            side_facts!(@ $side, sack_garbled, "segments",
                "Segments whose SACK blocks lie outside the sequence space.",
                Int, |f| Some(f.$side.sack_garbled.into())),
            side_facts!(@ $side, congestion_marks, "segments",
                "Segments a router marked \"congestion experienced\" (RFC 3168).",
                Int, |f| Some(f.$side.congestion_marks.into())),
            side_facts!(@ $side, congestion_echoes, "segments",
                "Segments after the SYN that echo congestion (ECE).",
                Int, |f| Some(f.$side.congestion_echoes.into())),
            side_facts!(@ $side, congestion_answers, "segments",
                "Segments after the SYN that say the sender slowed down (CWR).",
                Int, |f| Some(f.$side.congestion_answers.into())),
        ]
    };
    (@ $side:ident, $name:ident, $unit:literal, $doc:expr, $kind:ident, $get:expr) => {
        row(concat!("flow.", stringify!($side), ".", stringify!($name)), $unit, $doc, Get::$kind($get))
    };
}

static ORIG: &[Fact<FlowFacts>] = side_facts!(orig, "originator");
static RESP: &[Fact<FlowFacts>] = side_facts!(resp, "responder");

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn check<S: Subject>() {
        let mut seen = HashSet::new();
        for fact in S::facts() {
            assert!(seen.insert(fact.path), "{} is listed twice", fact.path);
            assert!(fact.path.starts_with(&format!("{}.", S::ROOT)), "{}", fact.path);
            assert!(fact.doc.ends_with('.'), "{}", fact.path);
        }
    }

    #[test]
    fn paths_are_unique_and_rooted() {
        check::<FlowFacts>();
        check::<HostFacts>();
        check::<ServiceFacts>();
    }

    #[test]
    fn sides_read_their_own_side() {
        let mut facts = FlowFacts::default();
        facts.orig.packets = 7;
        facts.resp.packets = u64::MAX;
        let read = |path| match FlowFacts::find(path).map(|fact| &fact.get) {
            Some(Get::Int(get)) => get(&facts),
            _ => panic!("{path}"),
        };
        assert_eq!(read("flow.orig.packets"), Some(7));
        assert_eq!(read("flow.resp.packets"), Some(i64::MAX));
        assert_eq!(read("flow.unacked"), None);
    }
}
