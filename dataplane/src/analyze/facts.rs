//! A flow as rules see it. Worker's thread, only when a packet raised an event some rule waits for.
//! Reads the flow and its trouble record, changes nothing; the snapshot goes to guards, then to rule bodies.

use rules::event::Event;
use rules::facts::{FlowFacts, RstFacts, Side, SideFacts};

use super::{Outcome, SILENCE_PACKETS, app};
use crate::flow::Flow;
use crate::flow::app::App;
use crate::flow::record::{Direction, dir_flag, flow_flag, oddity, offer, sign};
use crate::flow::sender::sender_flag;
use crate::flow::trouble::{DirectionTrouble, Trouble};
use crate::source::Nanos;

const TCP: u8 = 6;
/// IP bytes of a full Ethernet frame.
const ETHERNET_MTU: u16 = 1500;

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
    let mut facts = at_hand(flow, trouble, outcome);
    let since_silence = flow.packets() - u64::from(flow.idle_packets).min(flow.packets());
    if flow.idle_ms > 0 && since_silence <= SILENCE_PACKETS {
        (facts.idle_before_ms, facts.packets_since_idle) = (u64::from(flow.idle_ms), since_silence);
    }
    facts.flow_id = flow.id();
    (facts.start_ns, facts.now_ns) = (flow.start_ns, now);
    facts.by = (!timer && outcome.ttl.is_some()).then(|| flow.side_of(outcome.dir));
    facts.rst = outcome.events.contains(Event::Rst);
    facts.syn_age_ms = (flow.senders[orig].syn > 0).then(|| now.saturating_sub(flow.start_ns) / 1_000_000);
    facts.rtt_client_us = client_rtt_us(flow);
    facts.rtt_server_us = server_rtt_us(flow);
    facts.ttl = outcome.ttl;
    facts.app = app::facts(flow, app, now);
    for (side, dir) in [(&mut facts.orig, orig), (&mut facts.resp, resp)] {
        seen(side, flow, dir, outcome, now);
        if let Some(trouble) = trouble {
            troubled(side, flow, trouble, dir);
        }
    }
    if let Some(trouble) = trouble {
        facts.icmp_too_big = trouble.icmp_too_big;
        facts.icmp_mtu = (trouble.icmp_too_big > 0 && trouble.icmp_mtu > 0).then_some(trouble.icmp_mtu);
    }
    facts
}

/// What [`rules::facts::is_at_hand`]; the rest is left at its default.
pub fn at_hand(flow: &Flow, trouble: Option<&Trouble>, outcome: &Outcome) -> FlowFacts {
    let (orig, resp) = (flow.orig(), flow.orig() ^ 1);
    let ((src, sport), (dst, dport)) = flow.ends();
    let mut facts = FlowFacts {
        src,
        dst,
        sport,
        dport,
        proto: flow.key.proto,
        vlan: flow.vlan,
        established: flow.has(flow_flag::ESTABLISHED),
        fin_seen: outcome.fin_before,
        rst_seen: outcome.rst_before,
        syns: u32::from(flow.senders[0].syn) + u32::from(flow.senders[1].syn),
        ecn_syns: u32::from(flow.rare.ecn_syns),
        last_syn_plain: flow.rare.oddities & oddity::LAST_SYN_PLAIN != 0,
        syn_acks: u32::from(flow.senders[0].syn_ack) + u32::from(flow.senders[1].syn_ack),
        late_syn_acks: u32::from(flow.rare.late_syn_acks),
        syn_span_ms: flow.rare.syn_ns.saturating_sub(flow.start_ns) / 1_000_000,
        ..FlowFacts::default()
    };
    facts.app.connect_us = app::connect_us(flow);
    side_at_hand(&mut facts.orig, flow, orig, trouble);
    side_at_hand(&mut facts.resp, flow, resp, trouble);
    facts
}

/// SYN-ACK to ACK, µs: the round trip between the tap and the client.
pub fn client_rtt_us(flow: &Flow) -> Option<u64> {
    (flow.has(flow_flag::ACK_TIMED)).then(|| u64::from(flow.ack_us.saturating_sub(flow.syn_ack_us)))
}

/// SYN to SYN-ACK, µs: the round trip between the tap and the server; unknown after a repeated SYN, since
/// the answer may be to either.
pub fn server_rtt_us(flow: &Flow) -> Option<u64> {
    let repeated = flow.senders[flow.orig()].syn > 1;
    (flow.syn_ack_us > 0 && !repeated).then(|| u64::from(flow.syn_ack_us))
}

fn side_at_hand(facts: &mut SideFacts, flow: &Flow, dir: usize, trouble: Option<&Trouble>) {
    let own: &Direction = &flow.dirs[dir];
    facts.packets = u64::from(own.packets);
    facts.bytes = own.bytes;
    facts.payload = own.payload;
    facts.mss = flow.offers(dir, offer::MSS).map(|_| flow.mss[dir].into());
    facts.wscale = flow.offers(dir, offer::WSCALE).map(|yes| if yes { flow.wscale[dir].into() } else { -1 });
    facts.sack = flow.offers(dir, offer::SACK);
    facts.rsts = u32::from(flow.senders[dir].rst);
    facts.fins = u32::from(flow.senders[dir].fin);
    facts.retransmissions = trouble.map_or(0, |trouble| trouble.dirs[dir].own.retransmission);
}

/// What the flow's own record says of a side.
fn seen(facts: &mut SideFacts, flow: &Flow, dir: usize, outcome: &Outcome, now: Nanos) {
    let own: &Direction = &flow.dirs[dir];
    let sender = &flow.senders[dir];
    let waited = if outcome.dir == dir { 0 } else { outcome.waited_ms };
    let reopened = if outcome.dir == dir { outcome.reopened_ms } else { 0 };
    let seen = own.has(dir_flag::SEEN);
    let all_acked = own.has(dir_flag::SEQ) && own.largest_acked > 0;
    let usual = flow.key.proto == TCP && flow.packets_but_rst(dir) > 0;
    facts.ttl_min = seen.then_some(own.ttl_min);
    facts.ttl_max = seen.then_some(own.ttl_max);
    facts.unacked = flow.unacked(dir);
    facts.max_payload = flow.on_the_wire(dir, u32::from(own.max_payload));
    facts.largest_acked = all_acked.then(|| flow.on_the_wire(dir, u32::from(own.largest_acked)));
    facts.filled_window = flow.story.filled_window[dir];
    facts.sack_garbled = u32::from(flow.rare.sack_garbled[dir]);
    facts.congestion_marks = flow.story.ce[dir];
    facts.congestion_echoes = flow.congestion(dir).0.into();
    facts.congestion_answers = flow.congestion(dir).1.into();
    facts.ttl_usual = usual.then(|| flow.ttl_usual(dir));
    facts.rst = rst(flow, dir);
    facts.arrived_sends = if outcome.dir != dir { outcome.arrived_sends.into() } else { 0 };
    facts.answered_unseen = outcome.dir == dir && outcome.answered_unseen;
    facts.opened_unseen = outcome.dir != dir && outcome.opened_unseen;
    facts.unanswered_ms = flow.unanswered_ms(dir, now).max(waited);
    facts.unanswered_sends = u32::from(own.unanswered_sends);
    facts.window_closed_ms = flow.window_closed_ms(dir, now).max(reopened);
    facts.window_closed = sender.closed_ms != 0;
}

/// What only flows in trouble have a record of.
fn troubled(facts: &mut SideFacts, flow: &Flow, trouble: &Trouble, dir: usize) {
    let (notes, trouble) = (&trouble.notes[dir], &trouble.dirs[dir]);
    facts.zero_windows = trouble.zero_window;
    facts.keepalives = trouble.keepalive - trouble.keepalive_into_zero_window;
    facts.stuck_sends = u32::from(trouble.stuck_sends);
    facts.stuck_payload = flow.on_the_wire(dir, u32::from(trouble.stuck_payload));
    facts.stuck_bytes =
        u32::from(trouble.stuck_ip_len.saturating_sub(trouble.stuck_payload)) + facts.stuck_payload;
    facts.stuck_aggregate = aggregate(flow, dir, trouble);
    facts.needless = trouble.own.needless();
    facts.small_passes = trouble.stuck_sends > 0 && trouble.peer_alive;
    facts.spurious_retransmissions = trouble.spurious_retransmission;
    facts.window_fulls = trouble.window_full;
    facts.window_probes = trouble.zero_window_probe.saturating_add(trouble.keepalive_into_zero_window);
    facts.keepalive_every_ms = (notes.keepalive_every_ms > 0).then_some(notes.keepalive_every_ms);
    facts.oversize = u32::from(notes.oversize);
    facts.icmp_unreachable = u32::from(notes.unreachable);
    facts.icmp_unreachable_code = (notes.unreachable > 0).then_some(notes.unreachable_code);
    facts.icmp_time_exceeded = u32::from(notes.time_exceeded);
}

/// The stuck segment was several packets on the wire; unknown if it is larger than an Ethernet frame and no MSS says so.
fn aggregate(flow: &Flow, dir: usize, trouble: &DirectionTrouble) -> Option<bool> {
    let payload = u32::from(trouble.stuck_payload);
    let known = flow.mss_between(dir).is_some() || trouble.stuck_ip_len <= ETHERNET_MTU;
    known.then(|| flow.on_the_wire(dir, payload) < payload)
}

/// The RST in `dir`'s name beside what else that side sent.
fn rst(flow: &Flow, dir: usize) -> RstFacts {
    let own = &flow.senders[dir];
    if !own.has(sender_flag::RST) {
        return RstFacts::default();
    }
    let placed = |bit| own.has(sender_flag::RST_PLACED).then(|| own.has(bit));
    let df = (flow.dirs[dir].shows(sign::DF), flow.dirs[dir].shows(sign::NO_DF));
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

#[cfg(test)]
mod tests {
    use super::*;
    use rules::facts::is_at_hand;
    use rules::facts::table::{Get, Subject};

    #[test]
    fn what_is_at_hand_is_what_it_is_among_all_facts() {
        let mut flow: Flow = bytemuck::Zeroable::zeroed();
        flow.key.proto = TCP;
        (flow.key.low, flow.key.high) = ([0, 0xffff_0a00_0001], [0, 0xffff_0a00_0002]);
        (flow.key.low_port, flow.key.high_port, flow.vlan) = (40_000, 443, [7, 8]);
        flow.set_originator(true);
        flow.flags |= flow_flag::ESTABLISHED | flow_flag::ACK_TIMED;
        (flow.ack_us, flow.rare.ecn_syns, flow.rare.late_syn_acks) = (9, 3, 2);
        flow.rare.oddities |= oddity::LAST_SYN_PLAIN;
        for dir in 0..2 {
            let own = &mut flow.dirs[dir];
            own.flags |= dir_flag::SYN | dir_flag::SEEN;
            (own.packets, own.bytes, own.payload) = (11, 12, 13);
            let sender = &mut flow.senders[dir];
            (sender.syn, sender.syn_ack, sender.rst, sender.fin) = (1, 2, 4, 5);
            (flow.offered[dir], flow.mss[dir], flow.wscale[dir]) = (offer::MSS | offer::WSCALE, 1460, 6);
        }
        let mut trouble = Trouble::default();
        (trouble.dirs[0].own.retransmission, trouble.dirs[1].own.retransmission) = (16, 17);
        let outcome = Outcome { fin_before: true, rst_before: true, ..Outcome::default() };
        let few = at_hand(&flow, Some(&trouble), &outcome);
        let all = of_flow(&flow, Some(&trouble), None, &outcome, 1_000_000_000, false);
        let read = |get: &Get<FlowFacts>, facts: &FlowFacts| match get {
            Get::Int(get) => format!("{:?}", get(facts)),
            Get::Bool(get) => format!("{:?}", get(facts)),
            Get::Address(get) => format!("{:?}", get(facts)),
            _ => String::new(),
        };
        for fact in FlowFacts::facts().filter(|fact| is_at_hand(fact.path)) {
            assert_eq!(read(&fact.get, &few), read(&fact.get, &all), "{}", fact.path);
            let unset = read(&fact.get, &FlowFacts::default());
            assert!(read(&fact.get, &all) != unset || fact.path == "flow.proto", "{}", fact.path);
        }
    }
}
