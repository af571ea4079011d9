//! What a comparison says: findings and a summary, as other programs read them. Plain records.
//! A value that could not be found out is null.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

/// One of the two captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TapName {
    A,
    B,
}

impl TapName {
    pub(crate) fn of(tap: usize) -> TapName {
        if tap == 0 { TapName::A } else { TapName::B }
    }

    pub const fn letter(self) -> &'static str {
        match self {
            TapName::A => "A",
            TapName::B => "B",
        }
    }
}

/// Who talks to whom; `src` began it: the SYN's sender, else the first sender seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FlowName {
    pub proto: String,
    pub src: String,
    pub sport: u16,
    pub dst: String,
    pub dport: u16,
}

/// What shows it: named values. A list, because there may be as many findings as packets.
#[derive(Clone, Debug, Default)]
pub struct Evidence(Vec<(&'static str, Value)>);

impl Evidence {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    pub(crate) fn insert(&mut self, name: &'static str, value: Value) {
        self.0.push((name, value));
    }

    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}

impl<const N: usize> From<[(&'static str, Value); N]> for Evidence {
    fn from(values: [(&'static str, Value); N]) -> Evidence {
        Evidence(values.into())
    }
}

impl std::ops::Index<&str> for Evidence {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

impl Serialize for Evidence {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<&(&str, Value)> = self.0.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        to.collect_map(sorted.into_iter().map(|(name, value)| (name, value)))
    }
}

/// One thing that is wrong in one connection.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub kind: &'static str,
    pub flow: FlowName,
    /// The tap that saw it; for what was changed, the one it passed first.
    pub seen_at: Option<TapName>,
    pub missing_at: Option<TapName>,
    /// Packets.
    pub count: u64,
    /// Time of the first, by the clock of the tap that saw it.
    pub first_ns: u64,
    pub last_ns: u64,
    pub evidence: Evidence,
}

/// Where each packet of one capture ended up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Packets in the file, up to its end or its damage.
    pub packets: u64,
    /// Seen at both taps.
    pub matched: u64,
    /// Seen here, and lost before the other tap.
    pub lost_between: u64,
    /// Seen here, never sent past the other tap: made, or sent again, in between.
    pub made_between: u64,
    /// Their bytes are in other segments there.
    pub resegmented: u64,
    /// Further copies of packets this capture has already.
    pub duplicate: u64,
    /// They passed the other tap, whose capture lacks them.
    pub missed_by_other_tap: u64,
    /// The other capture did not run then, or may not have.
    pub outside_overlap: u64,
    /// Of flows not known to pass the other tap.
    pub other_path: u64,
    /// The other tap does not record their direction.
    pub not_recorded: u64,
    /// What is known of them contradicts itself, or does not say which tap they pass first.
    pub undecided: u64,
    /// Multicast, broadcast, link-local.
    pub local: u64,
    /// The other tap misses packets, and nothing tells whether these were lost or missed.
    pub unproven: u64,
    pub not_ip: u64,
    pub malformed: u64,
}

impl Books {
    /// Packets that could have been compared and have no counterpart.
    pub fn only_here(&self) -> u64 {
        self.lost_between
            + self.made_between
            + self.resegmented
            + self.duplicate
            + self.missed_by_other_tap
            + self.outside_overlap
            + self.other_path
            + self.not_recorded
            + self.undecided
            + self.local
            + self.unproven
    }

    /// Every packet is in one account.
    pub fn balanced(&self) -> bool {
        self.packets == self.matched + self.only_here() + self.not_ip + self.malformed
    }
}

/// Packets of one direction whose DSCP (RFC 2474) was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    pub direction: &'static str,
    pub sent: u8,
    pub received: u8,
    pub packets: u64,
}

/// A direction that a tap does not record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unrecorded {
    pub tap: TapName,
    pub direction: &'static str,
}

/// One of the two clocks was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClockStep {
    /// By B's clock, after it.
    pub at_b_ns: u64,
    /// What B's clock less A's grew by.
    pub b_less_a_by_ns: i64,
}

/// The two captures as wholes.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// A's clock less B's at the first packet both saw.
    pub offset_ns: Option<i64>,
    /// Half the shortest round trip between the taps; null if packets went one way only, and the offset is then
    /// too large or too small by what the way takes.
    pub offset_uncertainty_ns: Option<i64>,
    /// The same at the last packet both saw.
    pub offset_at_end_ns: Option<i64>,
    /// How much faster A's clock runs; null if the common time is too short to tell.
    pub drift_ppm: Option<f64>,
    pub drift_uncertainty_ppm: Option<f64>,
    pub matched_packets: u64,
    pub only_a: u64,
    pub only_b: u64,
    /// Shortest way from tap to tap and back.
    pub rtt_between_ns: Option<i64>,
    /// Routers between the taps, by TTL, for packets that pass A first and those that pass B first.
    pub hops_a_to_b: Option<i16>,
    pub hops_b_to_a: Option<i16>,
    /// Packets that passed another number of them.
    pub other_hops_a_to_b: u64,
    pub other_hops_b_to_a: u64,
    pub dscp_remarked: Vec<Remark>,
    pub not_recorded: Vec<Unrecorded>,
    /// Addresses that both captures have packets of.
    pub hosts_in_both: u64,
    /// The tap nearer to those who begin connections.
    pub client_side: Option<TapName>,
    /// No packet showed which tap is first; the raw time stamps decided.
    pub sides_guessed: bool,
    /// The middle leaves IPv4 identifications as they are.
    pub ip_id_kept: bool,
    /// The offset is the one before the first of these.
    pub clock_steps: Vec<ClockStep>,
    /// First and last time stamp of each capture, by its own clock.
    pub span_a_ns: Option<[u64; 2]>,
    pub span_b_ns: Option<[u64; 2]>,
    /// The time both ran, by A's clock.
    pub overlap_ns: Option<[u64; 2]>,
    /// Connections, and conversations without any.
    pub connections: u64,
    pub connections_matched: u64,
    /// Findings of each kind.
    pub findings: BTreeMap<&'static str, u64>,
    pub accounts: BTreeMap<TapName, Books>,
    pub balanced: bool,
}

/// All of it; findings ordered by kind, then time.
#[derive(Clone, Debug)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub summary: Summary,
}
