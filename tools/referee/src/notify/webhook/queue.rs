//! What waits to be told to one webhook: a bounded queue between main, which only puts in, and the task that tells.
//!
//! Main holds its lock for a few instructions; no worker, judge or writer ever does. The oldest goes when it is full:
//! news is worth more than what is long over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::notify::account::Counts;
use crate::notify::limit::{LeftOut, Limit};
use crate::notify::{Note, now_ms, now_ns};

/// Notices that may wait.
pub const ROOM: usize = 1000;
/// Longer than anything is waited for.
const LONG: Duration = Duration::from_secs(3600);

/// What is to be told next.
#[derive(Clone, Debug)]
pub enum Item {
    Note(Arc<Note>),
    /// And when that was found, ns.
    LeftOut(LeftOut, u64),
}

#[derive(Debug)]
struct Inside {
    items: VecDeque<Item>,
    limit: Limit,
    /// Nothing more will come.
    closed: bool,
    /// Notices put in that have had no end yet.
    open: u64,
}

#[derive(Debug)]
pub struct Queue {
    inside: Mutex<Inside>,
    wake: tokio::sync::Notify,
    pub counts: Counts,
    room: usize,
}

impl Queue {
    pub fn new(per_minute: u32, room: usize) -> Queue {
        let (items, limit) = (VecDeque::new(), Limit::new(per_minute));
        Queue {
            inside: Mutex::new(Inside { items, limit, closed: false, open: 0 }),
            wake: tokio::sync::Notify::new(),
            counts: Counts::default(),
            room,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, note: &Arc<Note>) {
        let mut inside = self.lock();
        if !inside.limit.pass(&note.incident.kind, now_ms()) {
            self.counts.limited();
            return;
        }
        if inside.items.len() >= self.room && matches!(inside.items.pop_front(), Some(Item::Note(_))) {
            inside.open -= 1;
            self.counts.dropped(1);
        }
        inside.items.push_back(Item::Note(Arc::clone(note)));
        inside.open += 1;
        self.counts.waiting(inside.open);
        drop(inside);
        self.wake.notify_one();
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// The next, once there is one; `None` when there will be no more. What it gives is to be [`Queue::over`] at last.
    pub async fn next(&self) -> Option<Item> {
        loop {
            let wait = {
                let mut inside = self.lock();
                let closed = inside.closed;
                if let Some(left) = inside.limit.left_out(now_ms(), closed) {
                    inside.items.push_back(Item::LeftOut(left, now_ns()));
                }
                if let Some(item) = inside.items.pop_front() {
                    return Some(item);
                }
                if closed {
                    return None;
                }
                inside.limit.wait_ms(now_ms()).map_or(LONG, Duration::from_millis)
            };
            // Whichever comes first, it looks again.
            let _ = tokio::time::timeout(wait, self.wake.notified()).await;
        }
    }

    /// What `next` gave was told, or is given up.
    pub fn over(&self, item: &Item, sent: bool) {
        if let Item::LeftOut(..) = item {
            return;
        }
        let mut inside = self.lock();
        inside.open = inside.open.saturating_sub(1);
        self.counts.waiting(inside.open);
        match sent {
            true => self.counts.sent(),
            false => self.counts.failed(),
        }
    }

    /// Nobody tells any more: what has had no end is dropped.
    pub fn give_up(&self) {
        let mut inside = self.lock();
        self.counts.dropped(std::mem::take(&mut inside.open));
        self.counts.waiting(0);
        inside.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{note, runtime};

    fn kind(item: Option<Item>) -> Option<String> {
        match item? {
            Item::Note(note) => Some(note.incident.kind.clone()),
            Item::LeftOut(left, _) => Some(left.words()),
        }
    }

    #[test]
    fn the_oldest_goes_when_it_is_full_and_the_rest_comes_in_order() {
        let queue = Queue::new(0, 2);
        ["a", "b", "c"].iter().for_each(|kind| queue.put(&note(kind)));
        let told = queue.counts.told("x");
        assert_eq!((told.dropped, told.waiting), (1, 2));
        queue.close();
        runtime().block_on(async {
            let first = queue.next().await.unwrap();
            queue.over(&first, true);
            assert_eq!(kind(Some(first)).as_deref(), Some("b"));
            let second = queue.next().await.unwrap();
            queue.over(&second, false);
            assert_eq!(kind(Some(second)).as_deref(), Some("c"));
            assert!(queue.next().await.is_none());
        });
        let told = queue.counts.told("x");
        assert_eq!((told.sent, told.failed, told.dropped, told.waiting), (1, 1, 1, 0));
    }

    #[test]
    fn what_was_too_many_is_summed_up_at_the_end() {
        let queue = Queue::new(1, ROOM);
        ["a", "b", "b"].iter().for_each(|kind| queue.put(&note(kind)));
        queue.close();
        runtime().block_on(async {
            assert_eq!(kind(queue.next().await).as_deref(), Some("a"));
            let told = "2 more notices were not told one by one (2 b)";
            assert_eq!(kind(queue.next().await).as_deref(), Some(told));
            assert!(queue.next().await.is_none());
        });
        assert_eq!(queue.counts.told("x").limited, 2);
    }

    #[test]
    fn what_nobody_told_is_dropped_at_last() {
        let queue = Queue::new(0, ROOM);
        ["a", "b"].iter().for_each(|kind| queue.put(&note(kind)));
        runtime().block_on(async { assert!(queue.next().await.is_some()) });
        queue.give_up();
        let told = queue.counts.told("x");
        assert_eq!((told.sent, told.dropped, told.waiting), (0, 2, 0));
    }
}
