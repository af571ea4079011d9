//! Who waits for an answer: looked at 1, 2, 3 … seconds of packet time after the wait began, and forgotten
//! some time later. Worker's thread; plain values, linked through the entries themselves; never allocates.
//!
//! All that wait for the same second stand in one queue, and since everybody waits equally long, whoever came
//! first is due first: adding, taking out and finding who is due cost the same however many there are.

use crate::flow::record::NONE;
use crate::source::Nanos;

/// Seconds after which a wait is looked at, each of them.
pub const CHECKS: u8 = 10;

const SECOND: Nanos = 1_000_000_000;
/// One for each second, and one for those to be forgotten.
const QUEUES: usize = CHECKS as usize + 1;

/// An entry's place among those that wait.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
pub struct Link {
    since: Nanos,
    pub next: u32,
    prev: u32,
    /// Queue it stands in, from 1; 0 while it doesn't wait.
    queue: u8,
    spare: [u8; 7],
}

impl Link {
    pub fn waits(&self) -> bool {
        self.queue != 0
    }
}

/// What can wait.
pub trait Waiting {
    fn link(&mut self) -> &mut Link;
}

/// A wait that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It goes on; it was due at this time.
    Check(u32, Nanos),
    /// It has been taken out.
    Forget(u32),
}

/// The queues.
#[derive(Debug)]
pub struct Waits {
    heads: [u32; QUEUES],
    tails: [u32; QUEUES],
    forget: Nanos,
    /// Nobody is due before; may be too early, never too late.
    next_due: Nanos,
}

impl Waits {
    /// Whoever waits is forgotten after `forget` ns, which is more than [`CHECKS`] seconds.
    pub fn new(forget: Nanos) -> Waits {
        Waits { heads: [NONE; QUEUES], tails: [NONE; QUEUES], forget, next_due: Nanos::MAX }
    }

    #[inline(always)]
    pub fn next_due(&self) -> Nanos {
        self.next_due
    }

    pub fn add<E: Waiting>(&mut self, entries: &mut [E], index: u32, now: Nanos) {
        if let Some(entry) = entries.get_mut(index as usize) {
            entry.link().since = now;
            self.append(entries, index, 1);
            self.next_due = self.next_due.min(now.saturating_add(SECOND));
        }
    }

    /// Takes an entry out, if it waits.
    pub fn remove<E: Waiting>(&mut self, entries: &mut [E], index: u32) {
        let Some(entry) = entries.get_mut(index as usize) else { return };
        let Link { next, prev, queue, .. } = *entry.link();
        let Some(queue) = usize::from(queue).checked_sub(1) else { return };
        *entry.link() = Link::default();
        match entries.get_mut(prev as usize) {
            Some(before) => before.link().next = next,
            None => self.heads[queue] = next,
        }
        match entries.get_mut(next as usize) {
            Some(after) => after.link().prev = prev,
            None => self.tails[queue] = prev,
        }
    }

    /// The longest wait of all, or one close to it; for when room is needed.
    pub fn oldest(&self) -> Option<u32> {
        self.heads.iter().rev().copied().find(|&head| head != NONE)
    }

    /// The next that is due by `now`, in the order of time.
    pub fn pop<E: Waiting>(&mut self, entries: &mut [E], now: Nanos) -> Option<Due> {
        let mut first = (Nanos::MAX, 0);
        for queue in 0..QUEUES {
            if let Some(entry) = entries.get_mut(self.heads[queue] as usize) {
                let due = self.due(entry.link().since, queue);
                first = first.min((due, queue));
            }
        }
        let (due, queue) = first;
        self.next_due = due;
        if due > now {
            return None;
        }
        let index = self.heads[queue];
        let since = entries.get_mut(index as usize)?.link().since;
        self.remove(entries, index);
        if queue == QUEUES - 1 {
            return Some(Due::Forget(index));
        }
        entries.get_mut(index as usize)?.link().since = since;
        self.append(entries, index, queue as u8 + 2);
        Some(Due::Check(index, due))
    }

    fn due(&self, since: Nanos, queue: usize) -> Nanos {
        let after = if queue == QUEUES - 1 { self.forget } else { (queue as Nanos + 1) * SECOND };
        since.saturating_add(after)
    }

    fn append<E: Waiting>(&mut self, entries: &mut [E], index: u32, queue: u8) {
        let at = usize::from(queue - 1);
        let prev = self.tails[at];
        if let Some(entry) = entries.get_mut(index as usize) {
            let link = entry.link();
            (link.next, link.prev, link.queue) = (NONE, prev, queue);
        }
        match entries.get_mut(prev as usize) {
            Some(before) => before.link().next = index,
            None => self.heads[at] = index,
        }
        self.tails[at] = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Waiting for Link {
        fn link(&mut self) -> &mut Link {
            self
        }
    }

    fn all(waits: &mut Waits, entries: &mut [Link], now: Nanos) -> Vec<Due> {
        std::iter::from_fn(|| waits.pop(entries, now)).collect()
    }

    #[test]
    fn each_second_is_told_once_and_in_order() {
        let mut entries = vec![Link::default(); 3];
        let mut waits = Waits::new(30 * SECOND);
        waits.add(&mut entries, 0, 0);
        waits.add(&mut entries, 2, SECOND / 2);
        assert_eq!(waits.next_due(), SECOND);
        assert_eq!(all(&mut waits, &mut entries, SECOND - 1), []);
        let told = all(&mut waits, &mut entries, 2 * SECOND);
        let check = |index, half_seconds| Due::Check(index, half_seconds * SECOND / 2);
        assert_eq!(told, [check(0, 2), check(2, 3), check(0, 4)]);
        assert_eq!(waits.next_due(), 5 * SECOND / 2);
        waits.remove(&mut entries, 0);
        let told = all(&mut waits, &mut entries, Nanos::MAX);
        assert_eq!(told.len(), 10);
        assert_eq!((told[8], told[9]), (check(2, 21), Due::Forget(2)));
        assert!(entries.iter().all(|entry| !entry.waits()) && waits.oldest().is_none());
        assert_eq!(waits.next_due(), Nanos::MAX);
    }

    #[test]
    fn any_of_a_queue_can_leave() {
        for leaves in 0..3 {
            let mut entries = vec![Link::default(); 3];
            let mut waits = Waits::new(11 * SECOND);
            (0..3).for_each(|index| waits.add(&mut entries, index, u64::from(index)));
            waits.remove(&mut entries, leaves);
            waits.remove(&mut entries, leaves);
            let told = all(&mut waits, &mut entries, SECOND + 5);
            let left: Vec<Due> = (0..3)
                .filter(|&index| index != leaves)
                .map(|index| Due::Check(index, SECOND + u64::from(index)))
                .collect();
            assert_eq!(told, left);
        }
    }
}
