//! One hold's state. Worker's thread; plain values.
//! Counts against the limits and remembers which packets raised it; `Holds` moves it from state to state.

use rules::event::Event;

use super::pages::Queue;
use crate::flow::record::NONE;
use crate::judge::message::CaptureLimits;
use crate::source::Nanos;

/// Raising packets remembered of one hold.
const RAISES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Gathering,
    Held,
    Kept,
    Direct,
}

/// A packet (none for a timer) that made a rule match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raise {
    pub number: Option<u64>,
    pub rule: u16,
    pub event: Event,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub state: State,
    pub flow_id: u64,
    pub queue: Queue,
    /// Newest link of the flow's chain in the ring.
    pub newest: u64,
    /// Packets stored in the queue and taken out of it, since the hold began.
    pub stored: u64,
    pub drained: u64,
    /// The first so many stored are handshake and tail.
    pub candidates_end: u64,
    /// Stored before the verdict: not yet counted as kept.
    pub kept_from: u64,
    /// Number of the first packet that came from the ring.
    pub first_of_ring: u64,
    pub last_written: Option<u64>,
    /// Packets that found no room.
    pub lost: u64,
    /// Packets the ring had forgotten when they were to be gathered.
    pub overwritten: u64,
    /// Hits the judge has not answered yet.
    pub asked: u32,
    pub decided: bool,
    pub released: bool,
    pub ended: bool,
    pub limits: CaptureLimits,
    /// Until when a verdict is waited for; once there is one, until when it records.
    pub until: Nanos,
    /// Live packets and bytes recorded since the verdict.
    packets: u32,
    bytes: u64,
    exhausted: bool,
    raises: [Option<Raise>; RAISES],
    pub next_free: u32,
}

impl Slot {
    pub fn free(next_free: u32) -> Slot {
        Slot { state: State::Free, next_free, ..Slot::gathering(0, Nanos::MAX) }
    }

    pub fn gathering(flow_id: u64, until: Nanos) -> Slot {
        Slot {
            state: State::Gathering,
            flow_id,
            queue: Queue::EMPTY,
            newest: 0,
            stored: 0,
            drained: 0,
            candidates_end: 0,
            kept_from: 0,
            first_of_ring: u64::MAX,
            last_written: None,
            lost: 0,
            overwritten: 0,
            asked: 0,
            decided: false,
            released: false,
            ended: false,
            limits: CaptureLimits { packets: u32::MAX, bytes: u64::MAX, nanos: Nanos::MAX },
            until,
            packets: 0,
            bytes: 0,
            exhausted: false,
            raises: [None; RAISES],
            next_free: NONE,
        }
    }

    /// Counts one live packet against the limits; false once they are reached.
    pub fn spend(&mut self, ts: Nanos, len: usize) -> bool {
        let fits = self.packets < self.limits.packets
            && self.bytes.saturating_add(len as u64) <= self.limits.bytes
            && ts <= self.until;
        if fits && !self.exhausted {
            self.packets += 1;
            self.bytes += len as u64;
            return true;
        }
        self.exhausted = true;
        false
    }

    /// The limits were reached.
    pub fn spent(&self) -> bool {
        self.exhausted
    }

    pub fn raise(&mut self, raise: Raise) {
        if let Some(free) = self.raises.iter_mut().find(|r| r.is_none()) {
            *free = Some(raise);
        }
    }

    /// The rule that this packet made match, if any.
    pub fn raised(&self, number: u64) -> Option<Raise> {
        self.raises.iter().flatten().find(|r| r.number == Some(number)).copied()
    }
}
