//! Selective acknowledgements that can't be: blocks outside the sequence space (RFC 2018 §3). Whatever rewrites
//! sequence numbers and forgets the option makes them, and the sender throws them away. And those that say what came
//! twice (RFC 2883): nothing of that was lost. Worker's thread; plain values.

use rules::event::Event;

use super::Outcome;
use super::icmp::USUAL_MSS;
use crate::decode::Tcp;
use crate::flow::Flow;
use crate::flow::record::{before, dir_flag, sign};
use crate::flow::trouble::TroubleSlab;

/// How far a block may lie outside what was seen here, at least: the tap may have missed segments.
const SLACK: u32 = 1 << 16;

/// Looks at the first block of a segment that has one.
#[inline(always)]
pub(super) fn check(flow: &mut Flow, slab: &mut TroubleSlab, tcp: &Tcp, out: &mut Outcome) {
    if tcp.options.sack_blocks > 0 {
        check_block(flow, slab, tcp, out);
    }
}

#[cold]
fn check_block(flow: &mut Flow, slab: &mut TroubleSlab, tcp: &Tcp, out: &mut Outcome) {
    let sender = &flow.dirs[out.dir ^ 1];
    if !sender.has(dir_flag::SEQ) {
        return;
    }
    let [left, right] = tcp.options.sack_edges;
    let slack = flow.scaled_window(out.dir).max(SLACK);
    let (lowest, highest) = (tcp.ack.wrapping_sub(slack), sender.next_seq.wrapping_add(slack));
    // A block below the acknowledgement says what came twice (RFC 2883).
    if before(left, lowest) || before(highest, right) || !before(left, right) {
        let count = &mut flow.rare.sack_garbled[out.dir];
        *count = count.saturating_add(1);
        out.events.insert(Event::SackGarbled);
    } else if right.wrapping_sub(left) > 1 && !before(tcp.ack, right) {
        came_twice(flow, slab, right.wrapping_sub(left), out);
    }
}

/// Bytes of one full segment of `dir`, at least 1.
fn segment_size(flow: &Flow, dir: usize) -> u32 {
    let own = &flow.dirs[dir];
    match own.shows(sign::COALESCED) {
        true => flow.mss_between(dir).unwrap_or(USUAL_MSS.into()),
        false => u32::from(own.max_payload).max(1),
    }
}

/// The receiver had these bytes already; a single byte may be a keepalive's.
fn came_twice(flow: &Flow, slab: &mut TroubleSlab, bytes: u32, out: &mut Outcome) {
    let sender = out.dir ^ 1;
    let Some(trouble) = slab.get_mut(flow.trouble) else { return };
    let count = &mut trouble.dirs[sender].own.came_twice;
    *count = count.saturating_add(bytes.div_ceil(segment_size(flow, sender)));
    out.events.insert(Event::Disproved);
}
