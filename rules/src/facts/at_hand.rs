//! Facts that cost a worker nothing: they stand in the flow's record as they are. Read when rules are loaded, to
//! tell events on whose rules a worker can decide without gathering the rest, and by workers, which fill them in.

/// Of the flow, as rules name them.
const FLOW: [&str; 16] = [
    "flow.src",
    "flow.dst",
    "flow.sport",
    "flow.dport",
    "flow.proto",
    "flow.vlan",
    "flow.inner_vlan",
    "flow.established",
    "flow.fin_seen",
    "flow.rst_seen",
    "flow.syns",
    "flow.syn_acks",
    "flow.ecn_syns",
    "flow.last_syn_plain",
    "flow.late_syn_acks",
    "flow.connect_us",
];

/// Of each of its sides.
const SIDE: [&str; 9] =
    ["packets", "bytes", "payload", "mss", "wscale", "sack", "rsts", "fins", "retransmissions"];

/// Whether a flow's fact is one of them.
pub fn is_at_hand(path: &str) -> bool {
    let of_side = path.strip_prefix("flow.orig.").or_else(|| path.strip_prefix("flow.resp."));
    of_side.map_or_else(|| FLOW.contains(&path), |name| SIDE.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FlowFacts;
    use crate::facts::table::Subject;

    #[test]
    fn each_is_a_fact() {
        let facts = FlowFacts::facts().filter(|fact| is_at_hand(fact.path)).count();
        assert_eq!(facts, FLOW.len() + 2 * SIDE.len());
    }
}
