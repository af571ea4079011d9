//! A flow's making, moving and ending. Worker's thread; never allocates. A flow that ends tells its rules and
//! its row, and gives back everything it had.

use rules::event::Event;

use super::clock::SECOND;
use super::crowd::UDP_UNREPLIED;
use super::engine::Engine;
use crate::analyze::app::connect_us;
use crate::analyze::facts::{client_rtt_us, server_rtt_us};
use crate::analyze::{self, Outcome};
use crate::decode::{Class, Packet, flags};
use crate::flow::record::{NONE, dir_flag, flow_flag};
use crate::flow::table::Class as Region;
use crate::source::Nanos;

impl Engine {
    /// Finds the packet's flow or makes it; true if it was made.
    #[inline]
    pub(super) fn flow_of(&mut self, packet: &Packet, hash: u64, now: Nanos) -> (u32, bool) {
        let Some(slot) = self.table.find(&packet.key, hash) else {
            return (self.make(packet, hash, now, 0), true);
        };
        let syn_only = packet.tcp.flags & (flags::SYN | flags::ACK) == flags::SYN;
        let dir = usize::from(!packet.from_low);
        if packet.class == Class::Tcp
            && syn_only
            && self.table.flows[slot as usize].is_other_syn(dir, packet.tcp.seq)
        {
            self.account.flows_ended += 1;
            self.end(slot, true, now);
            return (self.make(packet, hash, now, flow_flag::PORT_REUSE), true);
        }
        (slot, false)
    }

    pub(super) fn make(&mut self, packet: &Packet, hash: u64, now: Nanos, flow_flags: u16) -> u32 {
        let syn = packet.class == Class::Tcp && packet.tcp.flags & flags::SYN != 0;
        let region = if syn { Region::HalfOpen } else { Region::Full };
        self.make_room(region, now);
        let wait = match packet.class {
            Class::Tcp if syn => SECOND,
            Class::Tcp => self.timeouts.established,
            _ => UDP_UNREPLIED.min(self.timeouts.other),
        };
        let slot = self.table.insert(packet.key, hash, region, now, now.saturating_add(wait));
        self.account.flows_created += 1;
        // A router's messages come to whichever worker has the flows they are about.
        if let Some(splits) = &self.splits
            && packet.icmp.quote.is_none()
        {
            self.account.flows_split += u64::from(splits.is_split(hash, self.number));
        }
        let flow = &mut self.table.flows[slot as usize];
        flow.vlan = packet.vlan;
        (flow.rare.tunnel_kind, flow.rare.tunnel_id) = (packet.tunnel.kind, packet.tunnel.id);
        flow.flags = flow_flags;
        flow.set_originator(packet.from_low);
        slot
    }

    pub(super) fn make_room(&mut self, region: Region, now: Nanos) {
        let Some(victim) = self.table.must_evict(region) else { return };
        if self.table.flows[victim as usize].has(flow_flag::CLOSED) {
            self.account.flows_ended += 1;
        } else if region == Region::HalfOpen {
            self.account.half_open_evicted += 1;
        } else {
            self.account.flows_evicted += 1;
        }
        self.end(victim, true, now);
    }

    pub(super) fn promote(&mut self, slot: u32) -> u32 {
        self.make_room(Region::Full, self.now);
        let wait = self.idle_or(self.timeouts.established);
        let due = self.table.flows[slot as usize].last_ns.saturating_add(wait);
        let to = self.table.promote(slot, due);
        self.time_handshake(to);
        self.keeper.moved(slot, to);
        self.tails.moved(&self.table.flows[to as usize], slot, to);
        to
    }

    /// What a handshake that was seen whole took, once.
    fn time_handshake(&mut self, slot: u32) {
        let flow = &self.table.flows[slot as usize];
        let Some(connect) = connect_us(flow) else { return };
        let latency = &mut self.account.latency;
        latency.connect.count(connect * 1000);
        if let Some(us) = server_rtt_us(flow) {
            latency.server_rtt.count(us * 1000);
        }
        if let Some(us) = client_rtt_us(flow) {
            latency.client_rtt.count(us * 1000);
        }
    }

    /// A flow's end: its Close event, its row, and everything it had goes back.
    pub(super) fn end(&mut self, slot: u32, in_wheel: bool, now: Nanos) {
        analyze::at_end(&mut self.table.flows[slot as usize], now);
        if self.subscribed.contains(Event::Close) {
            let flow = &self.table.flows[slot as usize];
            let mut outcome = Outcome {
                fin_before: (flow.dirs[0].flags | flow.dirs[1].flags) & dir_flag::FIN != 0,
                rst_before: flow.has(flow_flag::RST),
                ..Outcome::default()
            };
            outcome.events.insert(Event::Close);
            self.raise(slot, &outcome, now, None);
        }
        self.leave_crowd(slot, now);
        let flow = &self.table.flows[slot as usize];
        let trouble = self.slab.get(flow.trouble);
        self.siblings.ended(flow, trouble.is_some_and(|trouble| trouble.rules > 0));
        self.outlet.row(flow, trouble, self.apps.slab.end_of(flow.app));
        if flow.hold != NONE && !self.holds.is_over(flow.hold, flow.id()) {
            self.holds.ended(flow.hold);
        }
        self.tails.release(flow, slot);
        self.slab.give_back(flow.trouble);
        self.apps.give_back(flow.app);
        self.keeper.clear(slot);
        self.table.remove(slot, in_wheel);
    }

    /// Ends every flow still alive. False if the queues are too full.
    pub(super) fn end_flows(&mut self) -> bool {
        self.ending = true;
        while let Some(slot) = self.table.next_live(self.ended_to) {
            if !self.may_go_on() {
                return false;
            }
            self.account.flows_ended += 1;
            self.end(slot, true, self.now);
            self.ended_to = slot + 1;
        }
        self.tell_siblings(self.now)
    }
}
