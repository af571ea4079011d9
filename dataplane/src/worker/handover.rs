//! How a worker comes by another set of rules while packets flow: it is laid ready here, and the worker, between two
//! batches, takes it and says since when it goes by it.
//!
//! Laid ready by the thread that loads rules; taken on the worker, which looks at one number a batch and neither waits
//! nor allocates. Whoever lays a set ready keeps it and the one before alive until nobody else does, so that no worker
//! ever frees one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_queue::ArrayQueue;
use rules::RuleSet;

use super::engine::Engine;
use crate::judge::message::Message;

/// Where one worker finds its next set.
#[derive(Debug)]
pub struct Handover {
    wanted: AtomicU32,
    slot: ArrayQueue<Arc<RuleSet>>,
    live: AtomicU32,
}

impl Handover {
    pub(super) fn new() -> Handover {
        Handover { wanted: AtomicU32::new(0), slot: ArrayQueue::new(1), live: AtomicU32::new(0) }
    }

    /// Lays a set ready; one that the worker has not taken yet gives way. The judge must have it by now.
    pub fn offer(&self, rules: &Arc<RuleSet>) {
        drop(self.slot.force_push(Arc::clone(rules)));
        self.wanted.store(rules.generation(), Ordering::Release);
    }

    /// Generation of the set the worker goes by; 0 before it has begun.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }

    /// Generation of the set that was laid ready last; 0 if none was.
    #[inline(always)]
    fn wanted(&self) -> u32 {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(super) fn goes_by(&self, generation: u32) {
        self.live.store(generation, Ordering::Release);
    }
}

impl Engine {
    /// Between two batches: takes the set that was laid ready, if there is one.
    #[inline(always)]
    pub(super) fn follow_rules(&mut self) {
        if self.outlet.handover().wanted() > self.generation {
            self.switch();
        }
    }

    /// Without room for the note to the judge the old set stays: which set a hit is of would not be known.
    #[cold]
    fn switch(&mut self) {
        if self.outlet.is_full() {
            return;
        }
        let Some(rules) = self.outlet.handover().slot.pop() else { return };
        let generation = rules.generation();
        self.outlet.send(Message::Rules { worker: self.outlet.worker(), generation });
        self.subscribed = rules.flow_events();
        self.at_hand = rules.events_at_hand();
        self.activity.follow(&rules);
        self.rules = rules;
        self.generation = generation;
        self.outlet.handover().goes_by(generation);
    }
}
