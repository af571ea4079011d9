//! A timer wheel on packet time, linked through the flows themselves. Worker's thread; never allocates.
//!
//! A flow is in exactly one bucket from its making to its end. Packets don't move it: when its bucket comes
//! up, the caller compares what is really due with the time and puts it back. Deadlines beyond the wheel's
//! reach wait in its last bucket.

use super::record::{Flow, NONE};
use crate::source::Nanos;

/// One tick, as a shift of nanoseconds: 16.8 ms.
const TICK_SHIFT: u32 = 24;
/// Buckets: 137 s of reach.
const BUCKETS: u32 = 8192;
const _: () = assert!(BUCKETS <= 1 << 16, "a flow knows its bucket in 16 bits");

/// Buckets of flow slots.
#[derive(Debug)]
pub struct Wheel {
    heads: Box<[u32]>,
    /// The tick whose bucket is next to be emptied.
    current: u64,
    /// Slots taken out of that bucket and not yet looked at.
    due: u32,
}

impl Wheel {
    pub fn new() -> Wheel {
        Wheel { heads: vec![NONE; BUCKETS as usize].into_boxed_slice(), current: 0, due: NONE }
    }

    /// Sets the clock before the first flow is made.
    pub fn start(&mut self, now: Nanos) {
        self.current = now >> TICK_SHIFT;
    }

    /// True when a bucket is due before `now`, so that [`Wheel::pop`] has work.
    #[inline(always)]
    pub fn behind(&self, now: Nanos) -> bool {
        self.due != NONE || self.current < now >> TICK_SHIFT
    }

    /// Puts `slot` where it is looked at once `deadline` has passed.
    #[inline]
    pub fn insert(&mut self, flows: &mut [Flow], slot: u32, deadline: Nanos) {
        let tick = (deadline >> TICK_SHIFT).clamp(self.current, self.current + u64::from(BUCKETS - 1));
        let bucket = tick as u32 % BUCKETS;
        let head = self.heads[bucket as usize];
        let flow = &mut flows[slot as usize];
        flow.timer_at = bucket as u16;
        flow.timer_next = head;
        flow.timer_prev = NONE;
        if head != NONE {
            flows[head as usize].timer_prev = slot;
        }
        self.heads[bucket as usize] = slot;
    }

    /// Takes `slot` out, wherever it is.
    #[inline]
    pub fn remove(&mut self, flows: &mut [Flow], slot: u32) {
        let Flow { timer_next, timer_prev, timer_at, .. } = flows[slot as usize];
        if timer_prev != NONE {
            flows[timer_prev as usize].timer_next = timer_next;
        } else if self.due == slot {
            self.due = timer_next;
        } else {
            self.heads[usize::from(timer_at)] = timer_next;
        }
        if timer_next != NONE {
            flows[timer_next as usize].timer_prev = timer_prev;
        }
    }

    /// The next slot whose bucket came up before `now`, taken out of the wheel; `None` once all were.
    pub fn pop(&mut self, flows: &mut [Flow], now: Nanos) -> Option<u32> {
        let target = now >> TICK_SHIFT;
        while self.due == NONE {
            if self.current >= target {
                return None;
            }
            self.next_bucket(target);
        }
        self.take(flows)
    }

    /// As [`Wheel::pop`], for the bucket of `now` itself: what the caller puts back is not seen again.
    /// Used once, when the input has ended.
    pub fn open_last(&mut self, now: Nanos) {
        debug_assert!(self.due == NONE, "pop() comes first");
        self.next_bucket((now >> TICK_SHIFT) + 1);
    }

    /// The next slot of the bucket taken up last.
    pub fn take(&mut self, flows: &mut [Flow]) -> Option<u32> {
        let slot = self.due;
        if slot == NONE {
            return None;
        }
        self.due = flows[slot as usize].timer_next;
        if self.due != NONE {
            flows[self.due as usize].timer_prev = NONE;
        }
        Some(slot)
    }

    /// Empties the current tick's bucket into `due`; past a gap longer than the wheel, one turn is enough.
    fn next_bucket(&mut self, target: u64) {
        if target.saturating_sub(self.current) > u64::from(BUCKETS) {
            self.current = target - u64::from(BUCKETS);
        }
        let bucket = (self.current % u64::from(BUCKETS)) as usize;
        self.due = std::mem::replace(&mut self.heads[bucket], NONE);
        self.current += 1;
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel::new()
    }
}
