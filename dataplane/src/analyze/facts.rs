//! A flow as rules see it. Worker's thread, only when a packet raised an event some rule waits for.
//! Reads the flow and its trouble record, changes nothing; the snapshot goes to guards, then to rule bodies.

use rules::event::Event;
use rules::facts::{FlowFacts, RstFacts, Side, SideFacts};

use super::{Outcome, SILENCE_PACKETS, app};
use crate::flow::Flow;
use crate::flow::app::App;
use crate::flow::record::{Direction, dir_flag, flow_flag, offer};
use crate::flow::sender::sender_flag;
use crate::flow::trouble::Trouble;
use crate::source::Nanos;

const TCP: u8 = 6;

/// The snapshot for an event that `outcome` tells of. `timer` events have no packet and so no sender.
pub fn of_flow(
    flow: &Flow,
    trouble: Option<&Trouble>,
    app: Option<&App>,
    outcome: &Outcome,
    now: Nanos,
    timer: bool,
) -> FlowFacts {
    let (orig, resp) = (flow.orig(), flow.orig() ^ 1);
    let none = Trouble::default();
    let trouble = trouble.unwrap_or(&none);
    let (src, dst) = if orig == 0 {
        (flow.key.low_addr(), flow.key.high_addr())
    } else {
        (flow.key.high_addr(), flow.key.low_addr())
    };
    let (sport, dport) = if orig == 0 {
        (flow.key.low_port, flow.key.high_port)
    } else {
        (flow.key.high_port, flow.key.low_port)
    };
    let since_silence = flow.packets() - u64::from(flow.idle_packets).min(flow.packets());
    let broken = flow.idle_ms > 0 && since_silence <= SILENCE_PACKETS;
    let syn = &flow.dirs[orig];
    FlowFacts {
        src,
        dst,
        sport,
        dport,
        proto: flow.key.proto,
        vlan: flow.vlan,
        flow_id: flow.id(),
        start_ns: flow.start_ns,
        now_ns: now,
        by: (!timer && outcome.ttl.is_some()).then(|| flow.side_of(outcome.dir)),
        orig: side(flow, orig, trouble, outcome, now),
        resp: side(flow, resp, trouble, outcome, now),
        established: flow.has(flow_flag::ESTABLISHED),
        fin_seen: outcome.fin_before,
        rst_seen: outcome.rst_before,
        rst: outcome.events.contains(Event::Rst),
        syns: u32::from(flow.dirs[0].syn) + u32::from(flow.dirs[1].syn),
        ecn_syns: u32::from(flow.rare.ecn_syns),
        last_syn_plain: flow.rare.last_syn_plain,
        syn_acks: u32::from(flow.dirs[0].syn_ack) + u32::from(flow.dirs[1].syn_ack),
        syn_age_ms: (syn.syn > 0).then(|| now.saturating_sub(flow.start_ns) / 1_000_000),
        idle_before_ms: if broken { u64::from(flow.idle_ms) } else { 0 },
        packets_since_idle: if broken { since_silence } else { 0 },
        rtt_client_us: client_rtt_us(flow),
        rtt_server_us: server_rtt_us(flow),
        ttl: outcome.ttl,
        icmp_too_big: trouble.icmp_too_big,
        app: app::facts(flow, app, now),
        icmp_mtu: (trouble.icmp_too_big > 0 && trouble.icmp_mtu > 0).then_some(trouble.icmp_mtu),
        late_syn_acks: u32::from(flow.rare.late_syn_acks),
    }
}

/// SYN-ACK to ACK, µs: the round trip between the tap and the client.
pub fn client_rtt_us(flow: &Flow) -> Option<u64> {
    (flow.has(flow_flag::ACK_TIMED)).then(|| u64::from(flow.ack_us.saturating_sub(flow.syn_ack_us)))
}

/// SYN to SYN-ACK, µs: the round trip between the tap and the server; unknown after a repeated SYN, since
/// the answer may be to either.
pub fn server_rtt_us(flow: &Flow) -> Option<u64> {
    let repeated = flow.dirs[flow.orig()].syn > 1;
    (flow.syn_ack_us > 0 && !repeated).then(|| u64::from(flow.syn_ack_us))
}

fn side(flow: &Flow, dir: usize, trouble: &Trouble, outcome: &Outcome, now: Nanos) -> SideFacts {
    let own: &Direction = &flow.dirs[dir];
    let (sender, notes) = (&flow.senders[dir], &trouble.notes[dir]);
    let trouble = &trouble.dirs[dir];
    let waited = if outcome.dir == dir { 0 } else { outcome.waited_ms };
    let reopened = if outcome.dir == dir { outcome.reopened_ms } else { 0 };
    let tcp = flow.key.proto == TCP;
    let seen = own.has(dir_flag::SEEN);
    let all_acked = own.has(dir_flag::SEQ) && own.largest_acked > 0;
    SideFacts {
        packets: u64::from(own.packets),
        bytes: own.bytes,
        payload: own.payload,
        mss: flow.offers(dir, offer::MSS).map(|_| flow.mss[dir].into()),
        wscale: flow.offers(dir, offer::WSCALE).map(|yes| if yes { flow.wscale[dir].into() } else { -1 }),
        sack: flow.offers(dir, offer::SACK),
        ttl_min: seen.then_some(own.ttl_min),
        ttl_max: seen.then_some(own.ttl_max),
        unacked: flow.unacked(dir),
        max_payload: u32::from(own.max_payload),
        retransmissions: trouble.own.retransmission,
        zero_windows: trouble.zero_window,
        keepalives: trouble.keepalive - trouble.keepalive_into_zero_window,
        rsts: u32::from(own.rst),
        fins: u32::from(own.fin),
        stuck_sends: u32::from(trouble.stuck_sends),
        stuck_bytes: u32::from(trouble.stuck_ip_len),
        stuck_payload: u32::from(trouble.stuck_payload),
        small_passes: trouble.stuck_sends > 0 && trouble.peer_alive,
        largest_acked: all_acked.then(|| u32::from(own.largest_acked)),
        spurious_retransmissions: trouble.spurious_retransmission,
        window_fulls: trouble.window_full,
        filled_window: flow.story.filled_window[dir],
        sack_garbled: u32::from(flow.rare.sack_garbled[dir]),
        congestion_marks: flow.story.ce[dir],
        congestion_echoes: flow.congestion(dir).0.into(),
        congestion_answers: flow.congestion(dir).1.into(),
        ttl_usual: (tcp && flow.packets_but_rst(dir) > 0).then_some(sender.ttl_usual),
        rst: rst(flow, dir),
        unanswered_ms: flow.unanswered_ms(dir, now).max(waited),
        unanswered_sends: u32::from(sender.unanswered_sends),
        window_closed_ms: flow.window_closed_ms(dir, now).max(reopened),
        window_closed: sender.closed_ms != 0,
        window_probes: trouble.zero_window_probe.saturating_add(trouble.keepalive_into_zero_window),
        keepalive_every_ms: (notes.keepalive_every_ms > 0).then_some(notes.keepalive_every_ms),
        oversize: u32::from(notes.oversize),
        icmp_unreachable: u32::from(notes.unreachable),
        icmp_unreachable_code: (notes.unreachable > 0).then_some(notes.unreachable_code),
        icmp_time_exceeded: u32::from(notes.time_exceeded),
    }
}

/// The RST in `dir`'s name beside what else that side sent.
fn rst(flow: &Flow, dir: usize) -> RstFacts {
    let own = &flow.senders[dir];
    if !own.has(sender_flag::RST) {
        return RstFacts::default();
    }
    let placed = |bit| own.has(sender_flag::RST_PLACED).then(|| own.has(bit));
    let df = (own.has(sender_flag::DF), own.has(sender_flag::NO_DF));
    RstFacts {
        injected: flow.rst_injected(dir),
        ttl: Some(own.rst_ttl),
        window: Some(own.rst_window),
        delay_us: own.has(sender_flag::RST_TIMED).then_some(own.rst_delay_us),
        too_fast: flow.rst_too_fast(dir),
        seq_exact: placed(sender_flag::RST_EXACT),
        seq_in_window: placed(sender_flag::RST_IN_WINDOW),
        id_fits: own.has(sender_flag::RST_ID_JUDGED).then(|| own.has(sender_flag::RST_ID_FITS)),
        df_fits: (df.0 != df.1).then(|| df.0 == own.has(sender_flag::RST_DF)),
        followed_by: Some(u32::from(own.after_rst)),
    }
}

impl Flow {
    /// The originator's address and port, and the responder's.
    pub fn ends(&self) -> ((std::net::IpAddr, u16), (std::net::IpAddr, u16)) {
        let low = (self.key.low_addr(), self.key.low_port);
        let high = (self.key.high_addr(), self.key.high_port);
        if self.side_of(0) == Side::Orig { (low, high) } else { (high, low) }
    }
}
