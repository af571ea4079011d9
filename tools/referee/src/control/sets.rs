//! The sets of rules of a live run: which is in force, who goes by which, and how another takes its place.
//!
//! Control thread, which also frees them: a set is kept here until neither a worker nor the judge has it. Main looks at
//! [`Live`]; nobody here is waited for by a worker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use dataplane::judge::BodyBooks;
use dataplane::worker::Handover;
use rules::RuleSet;

use super::command::{Reloaded, RuleState, Rules, WorkerRules};
use crate::error::Failure;
use crate::report::cost::{RuleStanding, Standings, Ticking, standing};

/// How long workers and judge may take to take a set before the answer says who hasn't.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sets that may wait for the judge.
const WAITING: usize = 16;

/// What main may see of the rules in force.
#[derive(Debug)]
pub struct Live {
    seen: Mutex<Seen>,
    handovers: Vec<Arc<Handover>>,
}

#[derive(Debug)]
struct Seen {
    rules: Arc<RuleSet>,
    reloads: u64,
    refused: u64,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set in force.
    pub fn rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.lock().rules)
    }

    /// Sets that took another's place, and attempts that were refused.
    pub fn reloads(&self) -> (u64, u64) {
        let seen = self.lock();
        (seen.reloads, seen.refused)
    }

    /// Generation of the set each worker goes by.
    pub fn workers(&self) -> impl Iterator<Item = u32> {
        self.handovers.iter().map(|handover| handover.live())
    }

    /// Counts a set that was not to be loaded.
    pub fn refuse(&self) {
        self.lock().refused += 1;
    }
}

/// All there are.
pub struct Sets {
    live: Arc<Live>,
    /// For the judge, which must have a set before any worker.
    judge: Arc<ArrayQueue<Arc<RuleSet>>>,
    /// Those that somebody may still have, by rising generation; the last is in force.
    kept: Vec<Arc<RuleSet>>,
}

impl Sets {
    pub fn new(first: Arc<RuleSet>, handovers: Vec<Arc<Handover>>) -> Sets {
        let seen = Mutex::new(Seen { rules: Arc::clone(&first), reloads: 0, refused: 0 });
        let live = Arc::new(Live { seen, handovers });
        Sets { live, judge: Arc::new(ArrayQueue::new(WAITING)), kept: vec![first] }
    }

    /// The judge's end.
    pub fn judge(&self) -> Arc<ArrayQueue<Arc<RuleSet>>> {
        Arc::clone(&self.judge)
    }

    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub fn current(&self) -> Arc<RuleSet> {
        self.live.rules()
    }

    /// Frees the sets that nobody else has.
    pub fn free(&mut self) {
        let current = self.current().generation();
        self.kept.retain(|set| set.generation() == current || Arc::strong_count(set) > 1);
    }

    /// Puts a set in force, unless it is the one that is; true if so.
    ///
    /// # Errors
    /// Failed: the judge takes no set.
    pub fn replace(&mut self, set: Arc<RuleSet>, over: &AtomicBool) -> Result<(Reloaded, bool), Failure> {
        let current = self.current();
        let names = |set: &RuleSet| {
            set.rules().iter().map(|meta| (meta.in_force, meta.file.clone())).collect::<Vec<_>>()
        };
        let same = set.hash() == current.hash() && names(&set) == names(&current);
        let [added, changed, removed] = differences(&current, &set);
        if !same && !self.put(set, over) && self.current().generation() == current.generation() {
            return Err(Failure::failed("the judge is too busy to take other rules").help("try again"));
        }
        Ok((Reloaded { added, changed, removed, ..self.described() }, same))
    }

    /// Puts a set in force: judge first, then the workers, which take it between two batches. False if not all have
    /// within some seconds; they will.
    fn put(&mut self, set: Arc<RuleSet>, over: &AtomicBool) -> bool {
        let until = Instant::now() + PATIENCE;
        let waits = || Instant::now() < until && !over.load(Ordering::Relaxed);
        let mut waiting = Arc::clone(&set);
        while let Err(refused) = self.judge.push(waiting) {
            if !waits() {
                return false;
            }
            waiting = refused;
            thread::sleep(Duration::from_millis(1));
        }
        for handover in &self.live.handovers {
            handover.offer(&set);
        }
        {
            let mut seen = self.live.lock();
            seen.rules = Arc::clone(&set);
            seen.reloads += 1;
        }
        let generation = set.generation();
        self.kept.push(set);
        while !self.everywhere(generation) && waits() {
            thread::sleep(Duration::from_millis(1));
        }
        self.free();
        self.everywhere(generation)
    }

    fn everywhere(&self, generation: u32) -> bool {
        self.judge.is_empty() && self.live.workers().all(|live| live >= generation)
    }

    /// The set in force, as an answer tells it.
    pub fn described(&self) -> Reloaded {
        let current = self.current();
        let generation = current.generation();
        Reloaded {
            hash: current.hash().to_owned(),
            generation,
            rules: current.in_force().count(),
            workers: self.workers(),
            live: self.everywhere(generation),
            ..Reloaded::default()
        }
    }

    pub fn workers(&self) -> Vec<WorkerRules> {
        let hash = |generation: u32| {
            let set = self.kept.iter().find(|set| set.generation() == generation);
            set.map_or(String::new(), |set| set.hash().to_owned())
        };
        let of = |(worker, generation)| WorkerRules { worker, generation, hash: hash(generation) };
        self.live.workers().enumerate().map(of).collect()
    }

    /// The rules in force, with what the judge knows of them; `None` if it doesn't say.
    pub fn states(&self, ticking: &Ticking, bodies: Option<&BodyBooks>) -> Rules {
        let current = self.current();
        let causes = bodies.iter().flat_map(|books| &books.failures);
        let causes = causes.filter_map(|failure| Some((&failure.rule, failure.switched_off?)));
        let causes: BTreeMap<_, _> = causes.collect();
        let shadows = bodies.iter().flat_map(|books| &books.shadows);
        let shadows: BTreeMap<_, _> = shadows.map(|(rule, counts)| (rule, counts)).collect();
        let metas = current.in_force().map(|(_, meta)| meta);
        let state = |(meta, standing): (&rules::RuleMeta, RuleStanding)| {
            let off = causes.get(&meta.name).filter(|_| standing.switched_off);
            RuleState {
                standing,
                file: meta.file.clone(),
                line: meta.line,
                events: meta.events.iter().map(|event| event.name().to_owned()).collect(),
                off_because: off.map(|cause| cause.words()),
                shadow_counts: shadows.get(&meta.name).map(|counts| (*counts).clone()),
            }
        };
        let Standings(standings) = standing(&current, Some(ticking));
        Rules {
            hash: current.hash().to_owned(),
            generation: current.generation(),
            rules: metas.zip(standings).map(state).collect(),
        }
    }
}

/// Names of the rules that `new` has and `old` has not, that are other rules now, and that are gone.
fn differences(old: &RuleSet, new: &RuleSet) -> [Vec<String>; 3] {
    let of = |set: &RuleSet| -> BTreeMap<String, (u64, bool, bool)> {
        let is = |meta: &rules::RuleMeta| (meta.fingerprint, meta.shadow, meta.enabled);
        set.in_force().map(|(_, meta)| (meta.name.clone(), is(meta))).collect()
    };
    let (old, new) = (of(old), of(new));
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for (name, fingerprint) in &new {
        match old.get(name) {
            None => added.push(name.clone()),
            Some(before) if before != fingerprint => changed.push(name.clone()),
            Some(_) => {}
        }
    }
    let removed = old.into_keys().filter(|name| !new.contains_key(name)).collect();
    [added, changed, removed]
}

#[cfg(test)]
mod tests {
    use dataplane::worker::Queues;
    use rules::SourceFile;

    use super::*;

    fn set(previous: Option<&RuleSet>, texts: &[(&str, &str)]) -> Arc<RuleSet> {
        let file = |(name, guard): &(&str, &str)| SourceFile {
            name: format!("{name}.rhai"),
            text: format!("rule \"{name}\" on rst when {guard} then {{ }}"),
        };
        let files: Vec<_> = texts.iter().map(file).collect();
        Arc::new(RuleSet::load_after(previous, &files, &[]).unwrap())
    }

    #[test]
    fn what_has_come_changed_and_gone() {
        let old = set(None, &[("a", "true"), ("b", "true"), ("c", "flow.dport > 1")]);
        let new = set(Some(&old), &[("b", "true"), ("c", "flow.dport > 2"), ("d", "true")]);
        let expected = [vec!["d".to_owned()], vec!["c".to_owned()], vec!["a".to_owned()]];
        assert_eq!(differences(&old, &new), expected);
        assert_eq!(
            differences(&new, &set(Some(&new), &[])),
            [vec![], vec![], ["b", "c", "d"].map(str::to_owned).to_vec()]
        );
    }

    #[test]
    fn a_set_is_freed_when_nobody_has_it_any_more() {
        let first = set(None, &[("a", "true")]);
        // Nobody takes anything here: without workers a set is live as soon as the judge has it.
        let queues = Queues::new(512, false);
        let mut sets = Sets::new(Arc::clone(&first), Vec::new());
        let judge = sets.judge();
        let second = set(Some(&first), &[("b", "true")]);
        let taker = thread::spawn(move || {
            loop {
                if let Some(set) = judge.pop() {
                    return set;
                }
                thread::yield_now();
            }
        });
        let weak = Arc::downgrade(&second);
        assert!(sets.put(second, &AtomicBool::new(false)));
        assert_eq!((sets.kept.len(), sets.live().reloads()), (2, (1, 0)));
        drop(first);
        sets.free();
        assert_eq!(sets.kept.len(), 1);
        drop(taker.join().unwrap());
        sets.free();
        assert!(weak.upgrade().is_some(), "it is in force");
        assert_eq!(queues.handover.live(), 0);
    }
}
