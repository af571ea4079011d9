//! A flow as rules see it. Worker's thread, only when a packet raised an event some rule waits for: what is at hand
//! first, each other part when a condition asks for it. Reads the flow and its trouble record, changes nothing; the
//! snapshot goes to guards, then to rule bodies.
//!
//! A snapshot is used again for the next event: until a part is gathered, what it holds may be another flow's.

use rules::event::Event;
use rules::facts::{FlowFacts, Parts, RstFacts, Side, SideFacts};

use super::pmtu::only_large_is_stuck;
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

/// What a snapshot is made from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub flow: &'a Flow,
    pub trouble: Option<&'a Trouble>,
    pub app: Option<&'a App>,
    pub outcome: &'a Outcome,
    pub now: Nanos,
    /// No packet raised the event, and so there is no sender.
    pub timer: bool,
}

/// Begins the snapshot for the events that the outcome tells of.
#[inline]
pub fn begin(facts: &mut FlowFacts, scene: &Scene) {
    let Scene { flow, outcome, now, timer, .. } = *scene;
    let orig = flow.orig();
    (facts.sport, facts.dport) = match orig {
        0 => (flow.key.low_port, flow.key.high_port),
        _ => (flow.key.high_port, flow.key.low_port),
    };
    facts.proto = flow.key.proto;
    facts.vlan = flow.vlan;
    (facts.start_ns, facts.now_ns) = (flow.start_ns, now);
    facts.silent_ms = if timer { now.saturating_sub(flow.last_ns) / 1_000_000 } else { 0 };
    facts.by = (!timer && outcome.ttl.is_some()).then(|| flow.side_of(outcome.dir));
    facts.established = flow.has(flow_flag::ESTABLISHED);
    (facts.fin_seen, facts.rst_seen) = (outcome.fin_before, outcome.rst_before);
    facts.rst = outcome.events.contains(Event::Rst);
    facts.ttl = outcome.ttl;
    facts.disproved = false;
    for (side, dir) in [(&mut facts.orig, orig), (&mut facts.resp, orig ^ 1)] {
        let own: &Direction = &flow.dirs[dir];
        (side.packets, side.bytes, side.payload) = (u64::from(own.packets), own.bytes, own.payload);
    }
    facts.have = Parts::HAND;
}

/// Fills in these parts of a snapshot that was begun; what lies around the flow is for the worker to say.
#[inline(never)]
pub fn gather(facts: &mut FlowFacts, parts: Parts, scene: &Scene) {
    let Scene { flow, trouble, app, outcome, now, .. } = *scene;
    let orig = flow.orig();
    if parts.cover(Parts::ADDRESSES) {
        (facts.src, facts.dst) = flow.addresses();
    }
    if parts.cover(Parts::SIGNALS) {
        signals(facts, flow, now);
    }
    if parts.cover(Parts::OFFERS) {
        offered(&mut facts.orig, flow, orig);
        offered(&mut facts.resp, flow, orig ^ 1);
    }
    if parts.cover(Parts::APP) {
        facts.app = app::facts(flow, app, now);
    }
    if parts.cover(Parts::ROUND_TRIPS) {
        facts.rtt_client_us = client_rtt_us(flow);
        facts.rtt_server_us = server_rtt_us(flow);
        facts.app.connect_us = app::connect_us(flow);
    }
    if parts.cover(Parts::STREAM) {
        silence(facts, flow);
        seen(&mut facts.orig, flow, orig, outcome, now);
        seen(&mut facts.resp, flow, orig ^ 1, outcome, now);
    }
    if parts.cover(Parts::RST) {
        (facts.orig.rst, facts.resp.rst) = (rst(flow, orig), rst(flow, orig ^ 1));
    }
    if parts.cover(Parts::TROUBLE) {
        troubles(facts, flow, trouble);
    }
    if parts.cover(Parts::IDENTITY) {
        facts.flow_id = flow.id();
    }
    facts.have = facts.have.with(parts);
}

fn signals(facts: &mut FlowFacts, flow: &Flow, now: Nanos) {
    let senders = &flow.senders;
    facts.syns = u32::from(senders[0].syn) + u32::from(senders[1].syn);
    facts.syn_acks = u32::from(senders[0].syn_ack) + u32::from(senders[1].syn_ack);
    facts.ecn_syns = u32::from(flow.rare.ecn_syns);
    facts.last_syn_plain = flow.rare.oddities & oddity::LAST_SYN_PLAIN != 0;
    facts.late_syn_acks = u32::from(flow.rare.late_syn_acks);
    facts.syn_span_ms = flow.rare.syn_ns.saturating_sub(flow.start_ns) / 1_000_000;
    let orig = flow.orig();
    let seen = senders[orig].syn > 0;
    facts.syn_age_ms = seen.then(|| now.saturating_sub(flow.start_ns) / 1_000_000);
    for (side, sender) in [(&mut facts.orig, &senders[orig]), (&mut facts.resp, &senders[orig ^ 1])] {
        (side.rsts, side.fins) = (u32::from(sender.rst), u32::from(sender.fin));
    }
}

fn silence(facts: &mut FlowFacts, flow: &Flow) {
    let since = flow.packets() - u64::from(flow.idle_packets).min(flow.packets());
    (facts.idle_before_ms, facts.packets_since_idle) = match flow.idle_ms {
        ms if ms > 0 && since <= SILENCE_PACKETS => (u64::from(ms), since),
        _ => (0, 0),
    };
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

/// What a side offered.
fn offered(facts: &mut SideFacts, flow: &Flow, dir: usize) {
    facts.mss = flow.offers(dir, offer::MSS).map(|_| flow.mss[dir].into());
    facts.wscale = flow.offers(dir, offer::WSCALE).map(|yes| if yes { flow.wscale[dir].into() } else { -1 });
    facts.sack = flow.offers(dir, offer::SACK);
}

/// How a side's packets stand.
fn seen(facts: &mut SideFacts, flow: &Flow, dir: usize, outcome: &Outcome, now: Nanos) {
    let own: &Direction = &flow.dirs[dir];
    let sender = &flow.senders[dir];
    let waited = if outcome.dir == dir { 0 } else { outcome.waited_ms };
    let reopened = if outcome.dir == dir { outcome.reopened_ms } else { 0 };
    let seen = own.has(dir_flag::SEEN);
    let sized = !own.shows(sign::COALESCED);
    let all_acked = sized && own.has(dir_flag::SEQ) && own.largest_acked > 0;
    let usual = flow.key.proto == TCP && flow.packets_but_rst(dir) > 0;
    facts.ttl_min = seen.then_some(own.ttl_min);
    facts.ttl_max = seen.then_some(own.ttl_max);
    facts.unacked = flow.unacked(dir);
    facts.max_payload = sized.then(|| flow.on_the_wire(dir, u32::from(own.max_payload)));
    facts.largest_acked = all_acked.then(|| flow.on_the_wire(dir, u32::from(own.largest_acked)));
    facts.filled_window = flow.story.filled_window[dir];
    facts.sack_garbled = u32::from(flow.rare.sack_garbled[dir]);
    facts.congestion_marks = flow.story.ce[dir];
    facts.congestion_echoes = flow.congestion(dir).0.into();
    facts.congestion_answers = flow.congestion(dir).1.into();
    facts.ttl_usual = usual.then(|| flow.ttl_usual(dir));
    facts.arrived_sends = if outcome.dir != dir { outcome.arrived_sends.into() } else { 0 };
    facts.answered_unseen = outcome.dir == dir && outcome.answered_unseen;
    facts.opened_unseen = outcome.dir != dir && outcome.opened_unseen;
    facts.unanswered_ms = flow.unanswered_ms(dir, now).max(waited);
    facts.unanswered_sends = u32::from(own.unanswered_sends);
    facts.window_closed_ms = flow.window_closed_ms(dir, now).max(reopened);
    facts.window_closed = sender.closed_ms != 0;
}

fn troubles(facts: &mut FlowFacts, flow: &Flow, trouble: Option<&Trouble>) {
    facts.icmp_too_big = trouble.map_or(0, |trouble| trouble.icmp_too_big);
    let mtu = trouble.map(|trouble| trouble.icmp_mtu);
    facts.icmp_mtu = mtu.filter(|mtu| facts.icmp_too_big > 0 && *mtu > 0);
    for (side, dir) in [(&mut facts.orig, flow.orig()), (&mut facts.resp, flow.orig() ^ 1)] {
        match trouble {
            Some(trouble) => troubled(side, flow, trouble, dir),
            None => untroubled(side),
        }
    }
}

/// What only flows in trouble have a record of.
fn troubled(facts: &mut SideFacts, flow: &Flow, trouble: &Trouble, dir: usize) {
    let (notes, trouble) = (&trouble.notes[dir], &trouble.dirs[dir]);
    facts.retransmissions = trouble.own.retransmission;
    facts.zero_windows = trouble.zero_window;
    facts.keepalives = trouble.keepalive - trouble.keepalive_into_zero_window;
    facts.stuck_sends = u32::from(trouble.stuck_sends);
    facts.stuck_payload = flow.on_the_wire(dir, u32::from(trouble.stuck_payload));
    facts.stuck_bytes =
        u32::from(trouble.stuck_ip_len.saturating_sub(trouble.stuck_payload)) + facts.stuck_payload;
    facts.stuck_aggregate = aggregate(flow, dir, trouble);
    facts.needless = trouble.own.needless();
    facts.small_passes = trouble.stuck_sends > 0 && trouble.peer_alive;
    facts.only_large_stuck = only_large_is_stuck(flow, trouble, dir);
    facts.spurious_retransmissions = trouble.spurious_retransmission;
    facts.window_fulls = trouble.window_full;
    facts.window_probes = trouble.zero_window_probe.saturating_add(trouble.keepalive_into_zero_window);
    facts.keepalive_every_ms = (notes.keepalive_every_ms > 0).then_some(notes.keepalive_every_ms);
    facts.oversize = u32::from(notes.oversize);
    facts.icmp_unreachable = u32::from(notes.unreachable);
    facts.icmp_unreachable_code = (notes.unreachable > 0).then_some(notes.unreachable_code);
    facts.icmp_time_exceeded = u32::from(notes.time_exceeded);
}

/// Most have none.
fn untroubled(facts: &mut SideFacts) {
    facts.retransmissions = 0;
    facts.zero_windows = 0;
    facts.keepalives = 0;
    facts.stuck_sends = 0;
    facts.stuck_payload = 0;
    facts.stuck_bytes = 0;
    facts.stuck_aggregate = None;
    facts.needless = 0;
    facts.small_passes = false;
    facts.only_large_stuck = false;
    facts.spurious_retransmissions = 0;
    facts.window_fulls = 0;
    facts.window_probes = 0;
    facts.keepalive_every_ms = None;
    facts.oversize = 0;
    facts.icmp_unreachable = 0;
    facts.icmp_unreachable_code = None;
    facts.icmp_time_exceeded = 0;
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
    /// The originator's address, and the responder's.
    fn addresses(&self) -> (std::net::IpAddr, std::net::IpAddr) {
        let (low, high) = (self.key.low_addr(), self.key.high_addr());
        if self.side_of(0) == Side::Orig { (low, high) } else { (high, low) }
    }

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
    use rules::facts::table::{Get, Subject};

    /// All of a scene's facts at once.
    fn whole(scene: &Scene) -> FlowFacts {
        let mut facts = FlowFacts::default();
        begin(&mut facts, scene);
        gather(&mut facts, Parts::ALL, scene);
        facts
    }

    fn busy() -> (Flow, Trouble, Outcome) {
        let mut flow: Flow = bytemuck::Zeroable::zeroed();
        flow.key.proto = TCP;
        (flow.key.low, flow.key.high) = ([0, 0xffff_0a00_0001], [0, 0xffff_0a00_0002]);
        (flow.key.low_port, flow.key.high_port, flow.vlan) = (40_000, 443, [7, 8]);
        flow.set_originator(true);
        flow.flags |= flow_flag::ESTABLISHED | flow_flag::ACK_TIMED;
        (flow.start_ns, flow.last_ns) = (1_000_000_000, 3_000_000_000);
        (flow.syn_ack_us, flow.ack_us, flow.first_byte_us) = (4, 9, 2_000_000);
        (flow.idle_ms, flow.idle_packets) = (90_000, 20);
        (flow.rare.ecn_syns, flow.rare.late_syn_acks, flow.rare.sack_garbled) = (1, 2, [3, 4]);
        (flow.rare.syn_ns, flow.rare.ece, flow.rare.cwr) = (1_500_000_000, [9, 9], [8, 8]);
        flow.rare.oddities |= oddity::LAST_SYN_PLAIN;
        (flow.story.ce, flow.story.filled_window) = ([5, 6], [7, 8]);
        for dir in 0..2 {
            let own = &mut flow.dirs[dir];
            own.flags |= dir_flag::SYN | dir_flag::SEEN | dir_flag::SEQ | dir_flag::ACK;
            (own.packets, own.bytes, own.payload) = (11, 12_000, 13_000);
            (own.max_payload, own.largest_acked, own.ttl_min, own.ttl_max) = (1400, 1300, 60, 64);
            (own.next_seq, own.last_ack, own.unanswered_sends, own.waiting_ms) = (900, 100, 3, 1_500);
            own.signs |= sign::DF;
            let sender = &mut flow.senders[dir];
            (sender.syn, sender.syn_ack, sender.rst, sender.fin) = (1, 2, 4, 5);
            (sender.bits, sender.rst_ttl, sender.rst_window, sender.closed_ms) = (0xff, 50, 77, 1_200);
            (sender.after_rst, sender.rst_delay_us) = (3, 4_000);
            (flow.offered[dir], flow.mss[dir], flow.wscale[dir]) = (offer::MSS | offer::WSCALE, 1460, 6);
        }
        let mut trouble = Trouble::default();
        (trouble.icmp_too_big, trouble.icmp_mtu) = (3, 1300);
        for dir in 0..2 {
            let (own, notes) = (&mut trouble.dirs[dir], &mut trouble.notes[dir]);
            (own.own.retransmission, own.zero_window, own.keepalive) = (16, 17, 18);
            (own.stuck_sends, own.stuck_payload, own.stuck_ip_len, own.peer_alive) = (5, 1400, 1440, true);
            (own.spurious_retransmission, own.window_full, own.zero_window_probe) = (6, 7, 8);
            (notes.keepalive_every_ms, notes.oversize, notes.unreachable) = (9, 10, 11);
            (notes.unreachable_code, notes.time_exceeded) = (3, 13);
        }
        let mut outcome = Outcome { fin_before: true, rst_before: true, ttl: Some(60), ..Outcome::default() };
        (outcome.waited_ms, outcome.reopened_ms, outcome.arrived_sends) = (6_000, 7_000, 8);
        (outcome.answered_unseen, outcome.opened_unseen) = (true, true);
        outcome.events.insert(Event::Rst);
        (flow, trouble, outcome)
    }

    fn read(get: &Get<FlowFacts>, facts: &FlowFacts) -> String {
        match get {
            Get::Int(get) => format!("{:?}", get(facts)),
            Get::Bool(get) => format!("{:?}", get(facts)),
            Get::Address(get) => format!("{:?}", get(facts)),
            Get::Text(get) => format!("{:?}", get(facts)),
            _ => String::new(),
        }
    }

    /// A condition reads a fact once its parts are there, on a snapshot that has been another flow's.
    #[test]
    fn a_fact_needs_no_parts_but_its_own() {
        let (flow, trouble, outcome) = busy();
        let mut app: App = bytemuck::Zeroable::zeroed();
        app.set_name(rules::facts::Name::of(b"a.example"));
        let busy = Scene {
            flow: &flow,
            trouble: Some(&trouble),
            app: Some(&app),
            outcome: &outcome,
            now: 4_000_000_000,
            timer: false,
        };
        let (mut quiet_flow, none): (Flow, _) = (bytemuck::Zeroable::zeroed(), Outcome::default());
        quiet_flow.key.proto = 17;
        quiet_flow.start_ns = 3_900_000_000;
        let quiet = Scene {
            flow: &quiet_flow,
            trouble: None,
            app: None,
            outcome: &none,
            now: 4_000_000_000,
            timer: true,
        };
        for (own, other) in [(&busy, &quiet), (&quiet, &busy)] {
            let all = whole(own);
            for fact in FlowFacts::facts() {
                let parts = FlowFacts::parts_of(fact.path);
                if parts.cover(Parts::AROUND) {
                    continue;
                }
                let mut facts = whole(other);
                begin(&mut facts, own);
                gather(&mut facts, parts, own);
                assert_eq!(read(&fact.get, &facts), read(&fact.get, &all), "{}", fact.path);
            }
        }
        let (busy, quiet) = (whole(&busy), whole(&quiet));
        let same = FlowFacts::facts().filter(|fact| read(&fact.get, &busy) == read(&fact.get, &quiet));
        let same: Vec<_> = same.map(|fact| fact.path).filter(|path| !path.contains("dns")).collect();
        assert!(same.len() < 30, "too many are alike to tell anything: {same:?}");
    }

    /// What is gathered bit by bit is what is gathered at once, whatever the snapshot held before.
    #[test]
    fn a_snapshot_used_again_is_as_good_as_new() {
        let (flow, trouble, outcome) = busy();
        let busy = Scene {
            flow: &flow,
            trouble: Some(&trouble),
            app: None,
            outcome: &outcome,
            now: 4_000_000_000,
            timer: false,
        };
        let (quiet_flow, none): (Flow, _) = (bytemuck::Zeroable::zeroed(), Outcome::default());
        let quiet =
            Scene { flow: &quiet_flow, trouble: None, app: None, outcome: &none, now: 5, timer: true };
        let mut facts = whole(&busy);
        begin(&mut facts, &quiet);
        for parts in [Parts::APP, Parts::TROUBLE, Parts::RST, Parts::OFFERS, Parts::STREAM, Parts::SIGNALS] {
            gather(&mut facts, parts, &quiet);
        }
        let missing = Parts::ALL.without(facts.have);
        gather(&mut facts, missing, &quiet);
        assert_eq!(facts, whole(&quiet));
    }
}
