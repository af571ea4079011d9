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
        self.skips_ordinary = !rules.asks_ordinary_syn_acks();
        self.activity.follow(&rules);
        self.outlet.keep_room_for(rules.most_on_an_event());
        self.rules = rules;
        self.generation = generation;
        self.outlet.handover().goes_by(generation);
    }
}

#[cfg(test)]
mod tests {
    use rules::SourceFile;

    use super::*;
    use crate::config::WorkerConfig;
    use crate::decode::flags::{ACK, RST, SYN};
    use crate::decode::frames::Seg;
    use crate::source::LinkType;
    use crate::source::synthetic::Synthetic;
    use crate::worker::{Queues, Step, Worker};

    const SECOND: u64 = 1_000_000_000;

    fn after(previous: Option<&RuleSet>, text: &str) -> Arc<RuleSet> {
        let file = SourceFile { name: "t.rhai".to_owned(), text: text.to_owned() };
        Arc::new(RuleSet::load_after(previous, &[file], &[]).unwrap())
    }

    /// Two connections from this port on: the first established in the first second and reset in the fourth, the
    /// second established in the third.
    fn source() -> Synthetic {
        let mut source = Synthetic::new("t");
        let push = |source: &mut Synthetic, seconds: u64, seg: Seg| {
            source.push(seconds * SECOND, &seg.ip(), LinkType::Raw);
        };
        for (at, port) in [(1, 1), (3, 2)] {
            push(&mut source, at, Seg::new(true, SYN, 0, 0).port(port));
            push(&mut source, at, Seg::new(false, SYN | ACK, 0, 1).port(port));
            push(&mut source, at, Seg::new(true, ACK, 1, 1).port(port));
            source.idle((at + 1) * SECOND);
        }
        push(&mut source, 4, Seg::new(true, RST, 1, 0).port(1));
        source.idle(5 * SECOND);
        source
    }

    #[test]
    fn only_what_began_to_be_counted_ends() {
        let first = after(None, "rule \"r\" on rst then { }");
        let asking = after(Some(&first), "rule \"s\" on tick when service.syn_recv > 0 then { }");
        for (offered_at, expected) in [(0, 1), (2 * SECOND, 1), (u64::MAX, 0)] {
            let queues = Queues::new(512, false);
            let mut worker =
                Worker::new(source(), &WorkerConfig::small(), Arc::clone(&first), queues.clone(), None, 0);
            let (mut established, mut entries) = (0, 0);
            let mut offered = false;
            while worker.now() < 5 * SECOND {
                if !offered && worker.now() >= offered_at {
                    queues.handover.offer(&asking);
                    offered = true;
                }
                assert_ne!(worker.step(), Step::Done);
                while let Some(message) = queues.message() {
                    if let Message::Service { changes, .. } = message {
                        established += changes.standing[2];
                        let left: u32 = changes.entries.left.iter().sum();
                        entries += i64::from(changes.entries.made) - i64::from(left);
                    }
                }
            }
            assert_eq!(i64::from(established), expected, "{offered_at}");
            assert!(entries >= 0);
        }
    }
}
