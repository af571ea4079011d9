//! A packet the mirror delivered a second time. Worker's thread; plain values. It raises nothing and is in no
//! count that findings or rules read; what Wireshark, which takes it for a packet, would say of it is counted
//! apart, for the facts of the flow's row.

use rules::event::EventSet;

use super::{base, sequence};
use crate::decode::{Class, Packet};
use crate::flow::Flow;
use crate::flow::trouble::TroubleSlab;
use crate::source::Nanos;

/// Takes it into its flow.
#[cold]
pub fn second_delivery(flow: &mut Flow, slab: &mut TroubleSlab, packet: &Packet, now: Nanos) {
    flow.last_ns = flow.last_ns.max(now);
    let dir = usize::from(!packet.from_low);
    let Some(trouble) = slab.get_or_take_spare(&mut flow.trouble) else { return };
    trouble.copies[dir].add(packet);
    if packet.class != Class::Tcp {
        return;
    }
    let own = trouble.dirs[dir];
    let tcp = &packet.tcp;
    base::before_reading(flow, dir, tcp);
    let marks = sequence::read(flow, dir, tcp, now);
    if marks != sequence::NOTHING {
        sequence::count(flow, slab, dir, marks, packet, now, &mut EventSet::default());
        if let Some(trouble) = slab.get_mut(flow.trouble) {
            let with_it = std::mem::replace(&mut trouble.dirs[dir], own);
            for (found, (after, before)) in
                trouble.copies[dir].found.iter_mut().zip(with_it.counts().into_iter().zip(own.counts()))
            {
                *found = found.saturating_add(after.saturating_sub(before));
            }
        }
    }
    sequence::remember(flow, dir, tcp, marks, now);
    base::after_reading(flow, dir, tcp, now);
}
