//! Selective acknowledgements that can't be: blocks outside the sequence space (RFC 2018 §3). Whatever rewrites
//! sequence numbers and forgets the option makes them, and the sender throws them away. And those that say what came
//! twice (RFC 2883): nothing of that was lost. Worker's thread; plain values.

use rules::event::Event;

use super::Outcome;
use super::icmp::USUAL_MSS;
use crate::decode::Tcp;
use crate::flow::Flow;
use crate::flow::record::{before, dir_flag, scale, sign};
use crate::flow::trouble::TroubleSlab;

/// How far past all that was seen, or allowed, a block may reach: a device may make one of segments in front of the tap.
const SLACK: u32 = 1 << 16;
/// How far below the acknowledgement what came twice may lie, at least: it may have been under way for long.
const LATE: u32 = 1 << 24;
/// The same where nobody knows how the window is scaled.
const LATE_UNSCALED: u32 = 1 << 26;

/// No window is scaled further (RFC 7323 §2.3).
const MAX_SHIFT: u8 = 14;

/// Looks at the first block of a segment that has one.
#[inline(always)]
pub(super) fn check(flow: &mut Flow, slab: &mut TroubleSlab, tcp: &Tcp, out: &mut Outcome) {
    if tcp.options.sack_blocks > 0 {
        check_block(flow, slab, tcp, out);
    }
}

#[cold]
fn check_block(flow: &mut Flow, slab: &mut TroubleSlab, tcp: &Tcp, out: &mut Outcome) {
    if !flow.dirs[out.dir ^ 1].has(dir_flag::SEQ) {
        return;
    }
    let [left, right] = tcp.options.sack_edges;
    if before(right, left)
        || before(left, lowest(flow, out.dir, tcp))
        || before(highest(flow, out.dir, tcp), right)
    {
        let count = &mut flow.rare.sack_garbled[out.dir];
        *count = count.saturating_add(1);
        out.events.insert(Event::SackGarbled);
    } else if right.wrapping_sub(left) > 1 && !before(tcp.ack, right) {
        came_twice(flow, slab, right.wrapping_sub(left), out);
    }
}

/// Where a block may begin. Below the acknowledgement it says what came twice (RFC 2883): that was sent within a window
/// of what the sender knew to be acknowledged, which may be as much behind as acknowledgements were lost; but not before
/// the connection began. What the window is now says nothing of that: it may have been filled since.
fn lowest(flow: &Flow, dir: usize, tcp: &Tcp) -> u32 {
    let sender = dir ^ 1;
    let late = match flow.dirs[dir].scale & scale::MASK {
        scale::UNKNOWN => LATE_UNSCALED,
        known => LATE.max(u32::from(u16::MAX) << known.saturating_sub(scale::SHIFTED)),
    };
    let lowest = tcp.ack.wrapping_sub(late);
    let first = flow.rare.base_seq[sender];
    // Of a stream that goes round, nobody knows where in the present round it began.
    let begins_here = flow.dirs[sender].has(dir_flag::SYN)
        && flow.rare.reused_ports[sender] == 0
        && flow.dirs[sender].payload < 1 << 30
        && before(first, tcp.ack);
    if begins_here && before(lowest, first) { first } else { lowest }
}

/// Where a block must have ended: the segment itself says how far its sender was ready to receive, and an older one can't
/// have said more (RFC 9293 §3.8.6). The tap may have missed what filled that.
fn highest(flow: &Flow, dir: usize, tcp: &Tcp) -> u32 {
    let shift = match flow.dirs[dir].scale & scale::MASK {
        scale::UNKNOWN => MAX_SHIFT,
        known => known.saturating_sub(scale::SHIFTED),
    };
    let (allowed, seen) = (tcp.ack.wrapping_add(u32::from(tcp.window) << shift), flow.dirs[dir ^ 1].next_seq);
    let farthest = if before(allowed, seen) { seen } else { allowed };
    farthest.wrapping_add(SLACK)
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
