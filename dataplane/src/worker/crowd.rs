//! What one flow adds to what only shows over many: counts of its host and service, how it stands, its place in a
//! state table, and once what became of the attempt that began it. Worker's thread; calls only, never allocates.
//! Goes to `activity`, which tells the judge at ticks.

use rules::facts::Count;

use super::clock::SECOND;
use super::engine::Engine;
use crate::activity::{Party, Standing};
use crate::analyze::Outcome;
use crate::decode::{Packet, flags};
use crate::flow::Flow;
use crate::flow::record::{crowd_flag, dir_flag, flow_flag};
use crate::judge::message::LINGERS;
use crate::source::Nanos;

/// An attempt that is neither completed nor refused by then has failed: a client's first repeat went unanswered too.
const GIVEN_UP: Nanos = 3 * SECOND;
/// A repeat comes after a second, on some hosts after a third of one; what comes sooner is the same packet again.
const REPEAT: Nanos = 200_000_000;
/// Attempts younger than this when the input ends are under way, not failed.
const UNDER_WAY: Nanos = 250_000_000;
/// A connection that was closed so soon after its beginning was not kept for a second use.
const SHORT_LIVED: Nanos = 2 * SECOND;
const TCP: u8 = 6;

/// Idle times after which Linux forgets a connection (nf_conntrack's defaults), where they are shorter than the
/// ones after which its flow ends here.
pub(super) const UDP_UNREPLIED: Nanos = 30 * SECOND;
const UDP_STREAM: Nanos = 120 * SECOND;
const SYN_SENT: Nanos = 120 * SECOND;
const TIME_WAIT: Nanos = 120 * SECOND;
const RESET: Nanos = 10 * SECOND;

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Completed,
    Refused,
    Unfinished,
}

fn parties(flow: &Flow) -> (Party, Party) {
    (Party::of(&flow.key, flow.orig()), Party::of(&flow.key, flow.orig() ^ 1))
}

impl Engine {
    /// A TCP segment that begins, answers, completes, closes or resets a connection.
    pub(super) fn count_activity(&mut self, slot: u32, outcome: &Outcome, packet: &Packet, closes: bool) {
        let flow = &self.table.flows[slot as usize];
        let (client, server) = parties(flow);
        if outcome.first_syn {
            self.activity.both(client, server, Count::Syns);
            let known = flow.has(flow_flag::PORT_REUSE);
            self.activity.pair(&client, &server, |d| {
                d.begun_from(client.port);
                d.on_known += u32::from(known);
            });
        }
        // An ACK that follows the SYN tells of an answer, seen here or not.
        if outcome.established && flow.senders[flow.orig()].syn > 0 {
            self.activity.both(client, server, Count::Established);
            if repeated(flow) && u64::from(flow.syn_ack_us) * 1000 >= REPEAT {
                self.activity.both(client, server, Count::Recovered);
            }
        }
        if outcome.refused {
            self.activity.both(client, server, Count::Refused);
        }
        if packet.tcp.flags & flags::RST != 0 {
            let sender = Party::of(&flow.key, outcome.dir);
            self.activity.reset(sender, self.now, what_it_does(flow, outcome));
            if outcome.dir != flow.orig() {
                self.activity.service(server, Count::Rsts);
            }
        }
        if closes && flow.has(flow_flag::ESTABLISHED) {
            if !flow.has(flow_flag::RST) {
                self.activity.both(client, server, Count::Closed);
            }
            if flow.last_ns.saturating_sub(flow.start_ns) <= SHORT_LIVED {
                self.activity.pair(&client, &server, |d| d.short += 1);
            }
        }
        self.follow_sight(slot, outcome, packet);
        self.attempted(slot);
        self.follow_standing(slot);
    }

    /// Whose packets this connection shows.
    #[inline]
    fn follow_sight(&mut self, slot: u32, outcome: &Outcome, packet: &Packet) {
        let flow = &self.table.flows[slot as usize];
        let other = &flow.dirs[outcome.dir ^ 1];
        let (_, server) = parties(flow);
        if outcome.established && flow.senders[flow.orig()].syn > 0 {
            let seen = flow.dirs[flow.orig() ^ 1].packets > 0;
            self.sightings.connection(server.addr, seen);
            if !self.trials.is_empty() {
                self.trial_answered(slot, flow.last_ns);
            }
        } else if outcome.refused {
            self.sightings.host(server.addr, true);
        } else if packet.tcp.flags & flags::SYN != 0
            && flow.senders[outcome.dir].syn_ack == 1
            && other.packets == 0
        {
            // It answers a SYN that was not seen.
            self.sightings.connection(Party::of(&flow.key, outcome.dir ^ 1).addr, false);
        }
    }

    /// Tells once what became of the attempt, if that is known now.
    fn attempted(&mut self, slot: u32) {
        let flow = &self.table.flows[slot as usize];
        if flow.has(flow_flag::ESTABLISHED) {
            self.settle(slot, Fate::Completed);
        } else if flow.has(flow_flag::REFUSED) {
            self.settle(slot, Fate::Refused);
        } else if flow.has(flow_flag::RST) {
            self.settle(slot, Fate::Unfinished);
        }
    }

    fn settle(&mut self, slot: u32, fate: Fate) {
        let flow = &mut self.table.flows[slot as usize];
        if flow.senders[flow.orig()].syn == 0 || flow.crowd & crowd_flag::SETTLED != 0 {
            return;
        }
        flow.crowd |= crowd_flag::SETTLED;
        let flow = &self.table.flows[slot as usize];
        let (client, server) = parties(flow);
        if fate == Fate::Unfinished {
            let meant = repeated(flow) && flow.last_ns.saturating_sub(flow.start_ns) >= REPEAT;
            for what in
                [Count::Unfinished, Count::UnfinishedRepeated].into_iter().take(1 + usize::from(meant))
            {
                self.activity.both(client, server, what);
            }
        }
        let answered = flow.has(flow_flag::RST) && flow.senders[flow.orig() ^ 1].syn_ack > 0;
        self.activity.pair(&client, &server, |d| match fate {
            Fate::Completed => d.completed += 1,
            Fate::Refused => d.refused += 1,
            Fate::Unfinished => {
                d.unfinished += 1;
                d.broken_off += u32::from(answered);
            }
        });
    }

    /// When an attempt whose outcome is not known will have failed.
    pub(super) fn gives_up(&self, slot: u32) -> Option<Nanos> {
        let flow = &self.table.flows[slot as usize];
        let waits = flow.senders[flow.orig()].syn > 0
            && flow.crowd & crowd_flag::SETTLED == 0
            && !flow.has(flow_flag::ESTABLISHED);
        waits.then(|| flow.start_ns.saturating_add(GIVEN_UP))
    }

    /// Nobody completed or refused it in time.
    pub(super) fn give_up(&mut self, slot: u32) {
        self.settle(slot, Fate::Unfinished);
    }

    /// A flow ends: an attempt still open has failed, unless only the input ended too soon to tell.
    pub(super) fn leave_crowd(&mut self, slot: u32, now: Nanos) {
        let flow = &self.table.flows[slot as usize];
        let under_way = self.ending && now.saturating_sub(flow.start_ns) < UNDER_WAY;
        if self.gives_up(slot).is_some() && !under_way {
            self.give_up(slot);
        }
        if self.ending {
            // How things stood when the input ended has been told.
            return;
        }
        self.stand(slot, Standing::None);
        self.leave_state_table(slot, now);
    }

    /// Takes a change of how the connection stands into its service's.
    fn follow_standing(&mut self, slot: u32) {
        let flow = &self.table.flows[slot as usize];
        let fin = |dir: usize| flow.dirs[dir].has(dir_flag::FIN);
        let standing = if flow.has(flow_flag::CLOSED) {
            Standing::None
        } else if flow.has(flow_flag::ESTABLISHED) {
            match (fin(flow.orig()), fin(flow.orig() ^ 1)) {
                // The other FIN may have passed unseen, as everything of that side did.
                (true, false) if flow.dirs[flow.orig() ^ 1].packets == 0 => Standing::None,
                (true, false) => Standing::CloseWait,
                (false, true) => Standing::FinWait2,
                _ => Standing::Established,
            }
        } else if flow.senders[flow.orig()].syn > 0 && flow.senders[flow.orig() ^ 1].syn_ack > 0 {
            Standing::SynRecv
        } else {
            Standing::None
        };
        self.stand(slot, standing);
    }

    fn stand(&mut self, slot: u32, standing: Standing) {
        if !self.activity.counts_states() {
            return;
        }
        let flow = &mut self.table.flows[slot as usize];
        let before = std::mem::replace(&mut flow.standing, standing as u8);
        if before != standing as u8 {
            let (_, server) = parties(flow);
            self.activity.states(&server, |changes| {
                for (state, change) in [(before, -1), (standing as u8, 1)] {
                    if let Some(sum) = changes.standing.get_mut(usize::from(state)) {
                        *sum += change;
                    }
                }
            });
        }
    }

    /// The flow's first packet, or its first after a device in the path would have forgotten it.
    #[cold]
    pub(super) fn enter_state_table(&mut self, slot: u32) {
        if !self.activity.counts_states() {
            return;
        }
        let flow = &mut self.table.flows[slot as usize];
        flow.crowd |= crowd_flag::TRACKED;
        let (_, server) = parties(flow);
        self.activity.states(&server, |changes| changes.entries.made += 1);
    }

    /// When a device in the path forgets it, if that is before the flow ends here.
    pub(super) fn forgotten(&self, slot: u32) -> Option<Nanos> {
        let flow = &self.table.flows[slot as usize];
        let replied = flow.dirs.iter().all(|dir| dir.packets > 0);
        let after = if flow.key.proto == 17 && replied { UDP_STREAM } else { UDP_UNREPLIED };
        (flow.key.proto != TCP && flow.crowd & crowd_flag::TRACKED != 0)
            .then(|| flow.last_ns.saturating_add(after))
    }

    pub(super) fn leave_state_table(&mut self, slot: u32, now: Nanos) {
        let flow = &mut self.table.flows[slot as usize];
        if flow.crowd & crowd_flag::TRACKED == 0 {
            return;
        }
        flow.crowd &= !crowd_flag::TRACKED;
        let keeps = if flow.has(flow_flag::RST) && flow.has(flow_flag::CLOSED) {
            RESET
        } else if flow.has(flow_flag::CLOSED) {
            TIME_WAIT
        } else if flow.key.proto == TCP && !flow.has(flow_flag::ESTABLISHED) {
            SYN_SENT
        } else {
            0
        };
        let rest = flow.last_ns.saturating_add(keeps).saturating_sub(now) / SECOND;
        let nearest = |class: &usize| LINGERS[*class].abs_diff(rest as u32);
        let class = (0..LINGERS.len()).min_by_key(nearest).unwrap_or(0);
        let (_, server) = parties(flow);
        self.activity.states(&server, |changes| changes.entries.left[class] += 1);
    }
}

/// What a RST is counted as besides. It cuts a connection off unless that was over: a FIN or a RST came before, or
/// all was said. A client may hang up while a server still sends to it.
fn what_it_does(flow: &Flow, outcome: &Outcome) -> impl Iterator<Item = Count> + use<> {
    let by_client = outcome.dir == flow.orig();
    let first = !outcome.rst_before;
    let outstanding = |dir: usize| flow.unacked(dir).is_none_or(|bytes| bytes > 0);
    let lost = outstanding(flow.orig()) || !by_client && outstanding(flow.orig() ^ 1);
    let known = flow.has(flow_flag::ESTABLISHED);
    let in_handshake = flow.senders[flow.orig() ^ 1].syn_ack > 0 && !known;
    let cuts = outcome.refused || first && !outcome.fin_before && lost && !(in_handshake && by_client);
    let counts = [
        (first, Count::FlowsReset),
        (cuts, Count::Cuts),
        (outcome.refused, Count::Refusals),
        (cuts && by_client, Count::ClientCuts),
    ];
    counts.into_iter().filter_map(|(is, count)| is.then_some(count))
}

fn repeated(flow: &Flow) -> bool {
    flow.senders[flow.orig()].syn > 1
}
