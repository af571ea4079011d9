//! What routers say of a flow: "too big" (RFC 1191, RFC 4443 §3.2), "unreachable" and "time exceeded"
//! (RFC 792, RFC 4443), and whether the sender heeds it. Worker's thread; plain values. Changes the flow's
//! trouble record only; the outcome goes to the guards.

use rules::event::Event;

use super::Outcome;
use super::repeats::Repeat;
use super::wait::ms;
use crate::decode::{Icmp, Packet};
use crate::flow::Flow;
use crate::flow::record::{NONE, dir_flag, flow_flag};
use crate::flow::trouble::TroubleSlab;
use crate::source::{Marks, Nanos};

/// What was on its way when the message came has passed after this time, ms.
const IN_FLIGHT_MS: u32 = 200;
/// Senders forget what a router said after some minutes and try the full size again (RFC 8201 §4); until then it
/// holds, ms.
const HOLDS_MS: u32 = 120_000;
/// A larger payload was not one packet on the wire, if the other side named no MSS: the capture saw it before
/// the network card cut it up.
pub(super) const USUAL_MSS: u16 = 1460;

/// Takes an ICMP "too big" that quotes a packet of this flow into it.
#[cold]
pub fn too_big(flow: &mut Flow, slab: &mut TroubleSlab, mtu: u32, from_low: bool, now: Nanos) -> Outcome {
    let dir = usize::from(!from_low);
    if let Some(trouble) = slab.get_or_take(&mut flow.trouble) {
        trouble.icmp_too_big = trouble.icmp_too_big.saturating_add(1);
        trouble.icmp_mtu = mtu;
        (trouble.notes[dir].too_big, trouble.notes[dir].too_big_ms) = (true, ms(now));
    }
    outcome(flow, dir, Event::IcmpTooBig)
}

/// What an ICMP error other than "too big" says of the packet it quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Error {
    Unreachable,
    TimeExceeded,
}

fn error(icmp: &Icmp, v6: bool) -> Option<Error> {
    match (v6, icmp.kind, icmp.code) {
        (false, 3, 4) => None,
        (false, 3, _) | (true, 1, _) => Some(Error::Unreachable),
        (false, 11, _) | (true, 3, _) => Some(Error::TimeExceeded),
        _ => None,
    }
}

/// Takes an ICMP "unreachable" or "time exceeded" that quotes a packet of this flow into it; `None` if it is
/// another message.
#[cold]
pub fn unreachable(flow: &mut Flow, slab: &mut TroubleSlab, icmp: &Icmp, from_low: bool) -> Option<Outcome> {
    let error = error(icmp, flow.key.v6)?;
    let dir = usize::from(!from_low);
    if let Some(trouble) = slab.get_or_take(&mut flow.trouble) {
        let notes = &mut trouble.notes[dir];
        if error == Error::Unreachable {
            notes.unreachable = notes.unreachable.saturating_add(1);
            notes.unreachable_code = icmp.code;
        } else {
            notes.time_exceeded = notes.time_exceeded.saturating_add(1);
        }
    }
    Some(outcome(flow, dir, Event::IcmpUnreachable))
}

fn outcome(flow: &Flow, dir: usize, event: Event) -> Outcome {
    let mut outcome = Outcome {
        dir,
        fin_before: (flow.dirs[0].flags | flow.dirs[1].flags) & dir_flag::FIN != 0,
        rst_before: flow.has(flow_flag::RST),
        ..Outcome::default()
    };
    outcome.events.insert(event);
    outcome
}

/// Counts what is sent again though it is larger than a router said would pass.
#[inline(always)]
pub(super) fn follow(
    flow: &Flow,
    slab: &mut TroubleSlab,
    dir: usize,
    packet: &Packet,
    repeat: Repeat,
    now: Nanos,
) {
    if flow.trouble != NONE && repeat.is_retransmission() {
        oversize(flow, slab, dir, packet, now);
    }
}

#[cold]
fn oversize(flow: &Flow, slab: &mut TroubleSlab, dir: usize, packet: &Packet, now: Nanos) {
    let Some(trouble) = slab.get_mut(flow.trouble) else { return };
    let (mtu, notes) = (trouble.icmp_mtu, &mut trouble.notes[dir]);
    let late = notes.too_big && (IN_FLIGHT_MS..HOLDS_MS).contains(&ms(now).wrapping_sub(notes.too_big_ms));
    let mss = if flow.mss[dir ^ 1] > 0 { flow.mss[dir ^ 1] } else { USUAL_MSS };
    let sized = packet.tcp.payload > 0 && !packet.marks.has(Marks::COALESCED);
    let one_packet = sized && packet.tcp.payload <= u32::from(mss);
    if late && one_packet && packet.df && mtu > 0 && packet.ip_len > mtu {
        notes.oversize = notes.oversize.saturating_add(1);
    }
}
