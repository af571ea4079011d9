//! Everything a rule can see: the snapshots a worker or the judge fills and a guard reads.
//!
//! Plain data, `Copy`, filled on the thread that owns the flow or window. `None` means *unknown*: the
//! capture cannot give it (one direction only, handshake not seen, cut by snap length); a guard that
//! reads an unknown fact does not match. Where the data goes next: guards, then rule bodies.

use std::net::{IpAddr, Ipv4Addr};

mod app;
mod counts;
mod crowd;
mod crowd_table;
pub(crate) mod given;
mod link_table;
mod name;
mod parts;
pub mod table;
mod verdicts;

pub use app::{AnswerCounts, AppFacts, DnsFacts};
pub use counts::{Count, CountSet, Counts};
pub use crowd::{
    ClientFacts, Dealings, HostFacts, LinkFacts, RANKED, ServiceEntries, ServiceFacts, ServiceStates, Spread,
};
pub use name::{NAME_BYTES, Name};
pub use parts::Parts;

/// Which end of a flow: the originator (sender of the SYN, else the first sender seen) or the responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Side {
    #[default]
    Orig,
    Resp,
}

/// What a rule can see of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SideFacts {
    /// Packets seen from this side.
    pub packets: u64,
    /// IP bytes seen from this side.
    pub bytes: u64,
    /// TCP payload bytes seen from this side, repeats included.
    pub payload: u64,
    /// MSS option of this side's first SYN or SYN-ACK, bytes; 0 if it had none; unknown if not seen.
    pub mss: Option<u32>,
    /// Window scale shift offered (RFC 7323); -1 if not offered; unknown if the SYN was not seen.
    pub wscale: Option<i32>,
    /// SACK-permitted was offered (RFC 2018); unknown if the SYN was not seen.
    pub sack: Option<bool>,
    /// Lowest TTL / hop limit seen from this side.
    pub ttl_min: Option<u8>,
    /// Highest TTL / hop limit seen from this side.
    pub ttl_max: Option<u8>,
    /// Bytes this side sent and the other has not acknowledged; unknown unless both sides were seen.
    pub unacked: Option<u32>,
    /// Largest TCP payload in one segment, bytes; unknown if the host showed several as one.
    pub max_payload: Option<u32>,
    /// Segments sent again (fast, spurious and SYN retransmissions included).
    pub retransmissions: u32,
    /// Segments advertising a zero window.
    pub zero_windows: u32,
    /// Keepalive probes.
    pub keepalives: u32,
    /// RST segments.
    pub rsts: u32,
    /// FIN segments.
    pub fins: u32,
    /// How often the segment now stuck (≥ 1000 B of payload, DF, never acknowledged) was sent; 0 if none.
    pub stuck_sends: u32,
    /// IP length of that stuck segment, bytes.
    pub stuck_bytes: u32,
    /// Its payload, bytes.
    pub stuck_payload: u32,
    /// The capture shows several packets of the wire as one there; the two sizes are those of one packet.
    pub stuck_aggregate: Option<bool>,
    /// How often a segment had been sent that was stuck and that this packet acknowledges in its size; else 0.
    pub arrived_sends: u32,
    /// This side waited, and acknowledges what was not seen here.
    pub answered_unseen: bool,
    /// The other side sends data into this side's window, last seen closed 5 s ago or longer.
    pub opened_unseen: bool,
    /// Smaller segments of this side pass while that one is stuck: the peer has sent something, but no RST, since
    /// the first resend.
    pub small_passes: bool,
    /// Nothing as large had arrived on this connection, seen from its SYN on, and nothing smaller is without answer.
    pub only_large_stuck: bool,
    /// Largest TCP payload of this side known to have arrived, bytes; unknown until all it sent was acknowledged once.
    pub largest_acked: Option<u32>,
    /// Of the retransmissions, those of bytes that had been acknowledged.
    pub spurious_retransmissions: u32,
    /// Of the retransmissions, those that no loss was behind.
    pub needless: u32,
    /// Segments that filled the other side's window to its edge.
    pub window_fulls: u32,
    /// Largest window that was filled so, bytes; 0 if none was.
    pub filled_window: u32,
    /// Segments whose SACK blocks lie outside the sequence space.
    pub sack_garbled: u32,
    /// Segments marked "congestion experienced" by a router.
    pub congestion_marks: u32,
    /// Segments after the SYN that echo congestion (ECE).
    pub congestion_echoes: u32,
    /// Segments after the SYN that say the window was reduced (CWR).
    pub congestion_answers: u32,
    /// The TTL most of this side's packets have, RSTs left out; unknown if it sent nothing else.
    pub ttl_usual: Option<u8>,
    /// How the RST in this side's name compares with its other packets.
    pub rst: RstFacts,
    /// How long this side has sent without any answer, ms; 0 if it isn't waiting.
    pub unanswered_ms: u32,
    /// Sends in that time.
    pub unanswered_sends: u32,
    /// How long this side has advertised a closed window, ms, or had when this packet opened it; 0 if it was open.
    pub window_closed_ms: u32,
    /// It is closed now.
    pub window_closed: bool,
    /// Probes of the other side's closed window sent by this side, with or without a byte.
    pub window_probes: u32,
    /// Time between this side's last two keepalive probes, ms; unknown before the second.
    pub keepalive_every_ms: Option<u32>,
    /// Packets larger than an ICMP "too big" allows, sent again 200 ms after it or later.
    pub oversize: u32,
    /// ICMP "destination unreachable" that quoted this side's packets, and the code of the last.
    pub icmp_unreachable: u32,
    pub icmp_unreachable_code: Option<u8>,
    /// ICMP "time exceeded" that quoted this side's packets.
    pub icmp_time_exceeded: u32,
    /// Its packets are known to pass this capture point; looked up only where a silence is the evidence.
    pub in_sight: bool,
    /// It is known to act where this capture doesn't see it; likewise.
    pub out_of_sight: bool,
}

impl SideFacts {
    /// Segments of data, as far as their number follows from bytes and the largest segment.
    pub fn segments(&self) -> Option<u64> {
        Some(self.payload.div_ceil(u64::from(self.max_payload?.max(1))))
    }

    /// Segments sent again for a reason.
    pub const fn losses(&self) -> u32 {
        self.retransmissions.saturating_sub(self.needless)
    }

    /// The same, per million.
    pub fn loss_ppm(&self) -> Option<u64> {
        (u64::from(self.losses()) * 1_000_000).checked_div(self.segments()?)
    }
}

/// What became of other connections to a service while SYNs that offer ECN stay unanswered there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// Begun since the first of those SYNs, without the offer, and answered.
    pub plain_answered: u32,
    /// Without the offer, and not answered for 3 s either.
    pub plain_lost: u32,
    /// With the offer, and answered.
    pub ecn_answered: u32,
}

/// What a rule can see of a RST in one side's name. All unknown if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RstFacts {
    /// Somebody else sent it, as far as is known by now; unknown if the side sent nothing to compare it with.
    pub injected: Option<bool>,
    pub ttl: Option<u8>,
    /// As on the wire, not scaled.
    pub window: Option<u16>,
    /// From the other side's last packet to it, µs.
    pub delay_us: Option<u32>,
    /// That is less than half the round trip to the side it names.
    pub too_fast: Option<bool>,
    /// Its sequence number is just what the other side expects next; or at least within its window.
    pub seq_exact: Option<bool>,
    pub seq_in_window: Option<bool>,
    /// Its IP-ID goes on from the side's other packets; unknown if they don't count up.
    pub id_fits: Option<bool>,
    /// It has Don't Fragment as the side's other packets have, or not as they haven't; unknown if they vary.
    pub df_fits: Option<bool>,
    /// Packets the side sent after it.
    pub followed_by: Option<u32>,
}

/// What a rule can see of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowFacts {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
    /// IP protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6).
    pub proto: u8,
    /// Outer VLAN ids, 0 where there is none.
    pub vlan: [u16; 2],
    /// Stable identity: a hash of tuple, VLAN, tunnel and start.
    pub flow_id: u64,
    /// First packet, ns since the epoch.
    pub start_ns: u64,
    /// The packet (or timer) that raised the event, ns since the epoch.
    pub now_ns: u64,
    /// Which side sent the packet that raised the event; unknown for timers and ICMP.
    pub by: Option<Side>,
    pub orig: SideFacts,
    pub resp: SideFacts,
    /// The three-way handshake was completed, or data was seen in both directions of a flow picked up mid-stream.
    pub established: bool,
    /// A FIN was seen from either side before this packet.
    pub fin_seen: bool,
    /// A RST was seen before this packet.
    pub rst_seen: bool,
    /// The packet that raised the event is a RST.
    pub rst: bool,
    /// SYNs without ACK seen.
    pub syns: u32,
    /// Of them, those that offered ECN (ECE and CWR set, RFC 3168 §6.1.1).
    pub ecn_syns: u32,
    /// The last SYN did not offer it.
    pub last_syn_plain: bool,
    /// SYN-ACKs seen.
    pub syn_acks: u32,
    /// Milliseconds since the first SYN; unknown if none was seen.
    pub syn_age_ms: Option<u64>,
    /// Length of the silence just broken, ms: nothing outstanding before it, and at most `packets_since_idle`
    /// packets since; 0 if there was none of a second or more.
    pub idle_before_ms: u64,
    /// Packets since that silence, the one raising the event included, none that followed a RST; 0 if there was none.
    pub packets_since_idle: u64,
    /// Round trip between the tap and the originator, µs, from the handshake; unknown if not seen whole.
    pub rtt_client_us: Option<u64>,
    /// Round trip between the tap and the responder, µs, from the handshake; unknown if not seen whole.
    pub rtt_server_us: Option<u64>,
    /// TTL / hop limit of the packet that raised the event; unknown for timers.
    pub ttl: Option<u8>,
    /// ICMP too-big messages that quoted this flow.
    pub icmp_too_big: u32,
    /// Next-hop MTU named by the last of them, bytes; unknown if none came.
    pub icmp_mtu: Option<u32>,
    /// SYN-ACKs seen after the originator had acknowledged one.
    pub late_syn_acks: u32,
    /// The rule is asked because what it said may be wrong (`disproved`).
    pub disproved: bool,
    /// Of most connections both directions are captured; looked up as [`SideFacts::in_sight`].
    pub both_ways: bool,
    /// If its SYNs offer ECN and are without answer.
    pub rivals: Rivals,
    /// From the first SYN to the last, ms.
    pub syn_span_ms: u64,
    /// What its payload and its clock tell.
    pub app: AppFacts,
    /// Since the flow's last packet, ms; 0 on one.
    pub silent_ms: u64,
    /// The parts that have been gathered. What is in none of them may be another flow's.
    pub have: Parts,
}

impl FlowFacts {
    /// Round trip between both ends, µs.
    pub fn rtt_us(&self) -> Option<u64> {
        Some(self.rtt_client_us? + self.rtt_server_us?)
    }

    /// The rate at which a window of `bytes` a round trip can go, bytes a second.
    fn window_rate(&self, bytes: u32) -> Option<u64> {
        (u64::from(bytes) * 1_000_000).checked_div(self.rtt_us()?)
    }

    /// The rate that loss allows a side: MSS / RTT × 1.22 / √p (Mathis, Semke, Mahdavi, Ott 1997), bytes a second.
    fn loss_rate(&self, side: &SideFacts) -> Option<u64> {
        let (loss, rtt) = (side.loss_ppm()? as f64 / 1e6, self.rtt_us()? as f64 / 1e6);
        let largest = f64::from(side.max_payload?);
        (loss > 0.0 && rtt > 0.0).then(|| (largest / rtt * 1.22 / loss.sqrt()) as u64)
    }
}

impl Default for FlowFacts {
    fn default() -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        FlowFacts {
            src: nowhere,
            dst: nowhere,
            sport: 0,
            dport: 0,
            proto: 6,
            vlan: [0; 2],
            flow_id: 0,
            start_ns: 0,
            now_ns: 0,
            by: None,
            orig: SideFacts::default(),
            resp: SideFacts::default(),
            established: false,
            fin_seen: false,
            rst_seen: false,
            rst: false,
            syns: 0,
            ecn_syns: 0,
            last_syn_plain: false,
            syn_acks: 0,
            syn_age_ms: None,
            idle_before_ms: 0,
            packets_since_idle: 0,
            rtt_client_us: None,
            rtt_server_us: None,
            ttl: None,
            icmp_too_big: 0,
            icmp_mtu: None,
            app: AppFacts::default(),
            late_syn_acks: 0,
            disproved: false,
            syn_span_ms: 0,
            both_ways: false,
            rivals: Rivals::default(),
            silent_ms: 0,
            have: Parts::ALL,
        }
    }
}
