//! What routers say of a flow: "too big" (RFC 1191, RFC 4443 §3.2). Worker's thread; plain values.
//! Changes the flow's trouble record only; the outcome goes to the guards.

use rules::event::Event;

use super::Outcome;
use crate::flow::Flow;
use crate::flow::record::{dir_flag, flow_flag};
use crate::flow::trouble::TroubleSlab;

/// Takes an ICMP "too big" that quotes a packet of this flow into it.
#[cold]
pub fn too_big(flow: &mut Flow, slab: &mut TroubleSlab, mtu: u32, quoted_from_low: bool) -> Outcome {
    if let Some(trouble) = slab.get_or_take(&mut flow.trouble) {
        trouble.icmp_too_big = trouble.icmp_too_big.saturating_add(1);
        trouble.icmp_mtu = mtu;
    }
    let mut outcome = Outcome {
        dir: usize::from(!quoted_from_low),
        fin_before: (flow.dirs[0].flags | flow.dirs[1].flags) & dir_flag::FIN != 0,
        rst_before: flow.has(flow_flag::RST),
        ..Outcome::default()
    };
    outcome.events.insert(Event::IcmpTooBig);
    outcome
}
