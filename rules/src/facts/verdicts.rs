//! Facts that verdicts rest on: who opened, who sent a RST, who waits for whom, what routers said. A part of the one list of
//! facts, in a file of its own; `table` chains it in. Getters run on workers and on the judge.

use crate::facts::table::{Fact, Get, int, row};
use crate::facts::{FlowFacts, SideFacts};

pub(super) static FLOW: &[Fact<FlowFacts>] = &[
    row(
        "flow.orig_opened",
        "",
        "The originator opened the connection: its SYN was seen, or, of a flow picked up mid-stream, the ports tell (the \
         service's is below 1024, or the other end's is one that clients are given, from 32768 on). False if they tell \
         the opposite, unknown if they tell nothing.",
        Get::Bool(orig_opened),
    ),
    row("flow.rst", "", "The packet that raised the event is a RST.", Get::Bool(|f| Some(f.rst))),
    row(
        "flow.late_syn_acks",
        "segments",
        "SYN-ACKs seen after the originator had acknowledged one.",
        Get::Int(|f| Some(f.late_syn_acks.into())),
    ),
    row(
        "flow.disproved",
        "",
        "The rule is asked because of `disproved`: what it said of the flow may be wrong.",
        Get::Bool(|f| Some(f.disproved)),
    ),
    row(
        "flow.plain_answered",
        "connections",
        "To the same service since SYNs that offer ECN stay unanswered there: connections without the offer that came \
            about; only on `syn_timeout`.",
        Get::Int(|f| Some(f.rivals.plain_answered.into())),
    ),
    row(
        "flow.plain_lost",
        "connections",
        "Likewise, those without the offer that got no answer for 3 s.",
        Get::Int(|f| Some(f.rivals.plain_lost.into())),
    ),
    row(
        "flow.ecn_answered",
        "connections",
        "Likewise, those with the offer that came about.",
        Get::Int(|f| Some(f.rivals.ecn_answered.into())),
    ),
    row(
        "flow.both_ways",
        "",
        "Of most connections here both directions are captured; where `flow.resp.in_sight` is looked up, otherwise false.",
        Get::Bool(|f| Some(f.both_ways)),
    ),
    row(
        "flow.silent_ms",
        "ms",
        "Time since the flow's last packet, on events that no packet raised; 0 on one.",
        Get::Int(|f| Some(int(f.silent_ms))),
    ),
    row(
        "flow.syn_span_ms",
        "ms",
        "Time from the first SYN to the last; 0 if there was one, or none.",
        Get::Int(|f| Some(int(f.syn_span_ms))),
    ),
];

/// Ports that only services have, below; ports that systems give to clients, from here on (Linux, Windows and others).
const SERVICES_BELOW: u16 = 1024;
const CLIENTS_FROM: u16 = 32_768;

fn orig_opened(f: &FlowFacts) -> Option<bool> {
    let is_service = |own: u16, other: u16| {
        own < SERVICES_BELOW && other >= SERVICES_BELOW || own < CLIENTS_FROM && other >= CLIENTS_FROM
    };
    match (is_service(f.dport, f.sport), is_service(f.sport, f.dport)) {
        _ if f.syns > 0 => Some(true),
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

impl FlowFacts {
    /// The rate a side has had since the flow's first packet, bytes a second.
    pub(super) fn rate(&self, side: &SideFacts) -> Option<u64> {
        let ms = self.now_ns.saturating_sub(self.start_ns) / 1_000_000;
        side.payload.saturating_mul(1000).checked_div(ms)
    }
}

/// Once for `flow.orig` and once for `flow.resp`.
macro_rules! side_facts {
    ($side:ident, $who:literal) => {
        &[
            side_facts!(@ $side, ttl_usual, "hops",
                "TTL or hop limit of most packets, RSTs left out; unknown if there were no others.",
                Int, |f| f.$side.ttl_usual.map(int)),
            side_facts!(@ $side, rst_injected, "",
                concat!("The RST in the ", $who, "'s name came from somebody else, as far as is known by now; \
                    unknown if there is none, or nothing to compare it with."),
                Bool, |f| f.$side.rst.injected),
            side_facts!(@ $side, rst_ttl, "hops", "TTL or hop limit of that RST.", Int, |f| f.$side.rst.ttl.map(int)),
            side_facts!(@ $side, rst_window, "", "Window field of that RST, not scaled.",
                Int, |f| f.$side.rst.window.map(int)),
            side_facts!(@ $side, rst_delay_us, "µs", "Time from the other side's last packet to that RST.",
                Int, |f| f.$side.rst.delay_us.map(int)),
            side_facts!(@ $side, rst_too_fast, "",
                "That is less than half the round trip between the tap and this side.",
                Bool, |f| f.$side.rst.too_fast),
            side_facts!(@ $side, rst_seq_exact, "",
                "That RST has the sequence number the other side expects next.",
                Bool, |f| f.$side.rst.seq_exact),
            side_facts!(@ $side, rst_seq_in_window, "",
                "The sequence number of that RST is in the other side's window.",
                Bool, |f| f.$side.rst.seq_in_window),
            side_facts!(@ $side, rst_id_fits, "",
                "The IP-ID of that RST goes on from this side's other packets; unknown if those don't count up.",
                Bool, |f| f.$side.rst.id_fits),
            side_facts!(@ $side, rst_df_fits, "",
                "That RST has Don't Fragment just if this side's other packets have it; unknown if they vary.",
                Bool, |f| f.$side.rst.df_fits),
            side_facts!(@ $side, packets_after_rst, "packets",
                "Packets this side sent after that RST; unknown if there is none.",
                Int, |f| f.$side.rst.followed_by.map(int)),
            side_facts!(@ $side, unanswered_ms, "ms",
                concat!("How long the ", $who, " has sent without any answer (or had, if this packet is one); \
                    0 if it is not waiting."),
                Int, |f| Some(f.$side.unanswered_ms.into())),
            side_facts!(@ $side, unanswered_sends, "segments", "Data and keepalives sent in that time that wait.",
                Int, |f| Some(f.$side.unanswered_sends.into())),
            side_facts!(@ $side, window_closed_ms, "ms",
                "How long its receive window has been closed (or had, if this packet opened it); 0 if it was open.",
                Int, |f| Some(f.$side.window_closed_ms.into())),
            side_facts!(@ $side, window_closed, "", "Its receive window is closed now.",
                Bool, |f| Some(f.$side.window_closed)),
            side_facts!(@ $side, answered_unseen, "",
                "It had waited for an answer, and now acknowledges what was not seen here.",
                Bool, |f| Some(f.$side.answered_unseen)),
            side_facts!(@ $side, opened_unseen, "",
                "The other side sends data into its window, last seen closed 5 s ago or longer.",
                Bool, |f| Some(f.$side.opened_unseen)),
            side_facts!(@ $side, window_probes, "segments",
                "Probes of the other side's closed window that it sent, with one byte or none.",
                Int, |f| Some(f.$side.window_probes.into())),
            side_facts!(@ $side, keepalive_every_ms, "ms",
                "Time between its last two keepalive probes; unknown before the second.",
                Int, |f| f.$side.keepalive_every_ms.map(int)),
            side_facts!(@ $side, oversize, "packets",
                "Packets larger than an ICMP \"too big\" allows, sent again 200 ms to 2 min after it.",
                Int, |f| Some(f.$side.oversize.into())),
            side_facts!(@ $side, icmp_unreachable, "messages",
                "ICMP \"destination unreachable\" that quoted its packets.",
                Int, |f| Some(f.$side.icmp_unreachable.into())),
            side_facts!(@ $side, icmp_unreachable_code, "",
                "Code of the last of them (RFC 792, RFC 4443); unknown if there is none.",
                Int, |f| f.$side.icmp_unreachable_code.map(int)),
            side_facts!(@ $side, icmp_time_exceeded, "messages",
                "ICMP \"time exceeded\" that quoted its packets.",
                Int, |f| Some(f.$side.icmp_time_exceeded.into())),
            side_facts!(@ $side, in_sight, "",
                concat!("Packets of the ", $who, " are known to pass this capture point, by this connection or others of \
                    its host; on `syn_timeout`, `stalled`, `tls_timeout` and those of DNS, otherwise false."),
                Bool, |f| Some(f.$side.in_sight)),
            side_facts!(@ $side, out_of_sight, "",
                concat!("The ", $who, " is known to act where this capture does not see it (one direction only, or another \
                    path): that it is silent here proves nothing. On the same events."),
                Bool, |f| Some(f.$side.out_of_sight)),
        ]
    };
    (@ $side:ident, $name:ident, $unit:literal, $doc:expr, $kind:ident, $get:expr) => {
        row(concat!("flow.", stringify!($side), ".", stringify!($name)), $unit, $doc, Get::$kind($get))
    };
}

pub(super) static ORIG: &[Fact<FlowFacts>] = side_facts!(orig, "originator");
pub(super) static RESP: &[Fact<FlowFacts>] = side_facts!(resp, "responder");
