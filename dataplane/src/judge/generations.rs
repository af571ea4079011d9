//! Which set of rules a worker's hits are of. A worker takes a new set between two batches and says so in the order of
//! its messages, so that each hit is judged by the set whose guard matched. Judge's thread; keeps a set for as long as
//! some worker may still speak of it, and frees none that whoever loaded it still has.

use std::collections::VecDeque;
use std::sync::Arc;

use rules::RuleSet;

use super::Judge;
use super::wants_link;
use super::window::Windows;

/// The sets that are spoken of, and who speaks of which.
pub(super) struct Generations {
    /// By rising generation; never empty.
    sets: VecDeque<Arc<RuleSet>>,
    /// Generation of each worker, by its number.
    workers: Vec<u32>,
}

impl Generations {
    pub fn new(first: Arc<RuleSet>) -> Generations {
        Generations { workers: vec![first.generation()], sets: VecDeque::from([first]) }
    }

    fn add(&mut self, set: Arc<RuleSet>) {
        self.sets.push_back(set);
        self.let_go();
    }

    fn switched(&mut self, worker: u16, generation: u32) {
        if let Some(own) = self.workers.get_mut(usize::from(worker)) {
            *own = generation;
        }
        self.let_go();
    }

    fn let_go(&mut self) {
        let oldest = self.workers.iter().min().copied().unwrap_or(0);
        while self.sets.len() > 1 && self.sets.front().is_some_and(|set| set.generation() < oldest) {
            self.sets.pop_front();
        }
    }

    fn newest(&self) -> Option<&Arc<RuleSet>> {
        self.sets.back()
    }

    fn of(&self, worker: u16) -> Option<&Arc<RuleSet>> {
        let generation = self.workers.get(usize::from(worker)).copied().unwrap_or(0);
        self.sets.iter().find(|set| set.generation() >= generation)
    }
}

impl Judge {
    /// There are so many workers, numbered from 0; to be said before the first message if there is more than one.
    pub fn hears(&mut self, workers: usize) {
        let first = self.rules.generation();
        self.generations.workers.resize(workers.max(1), first);
    }

    /// Takes a set that workers will go by. Must come before any worker can; rules on hosts, services and the link go
    /// by it at once.
    pub fn adopt(&mut self, rules: Arc<RuleSet>) {
        if rules.generation() <= self.newest_generation() {
            return;
        }
        if self.link.is_none() && wants_link(&rules) {
            self.link = Some(Windows::new(1));
        }
        let on_again = self.scripts.adopt(&rules);
        self.close_switched_off(|rule| on_again.contains(&rule));
        let before = self.generations.newest().map_or(&[][..], |set| set.rules());
        for (rule, meta) in rules.in_force() {
            if before.get(usize::from(rule)).is_some_and(|old| old.fingerprint != meta.fingerprint) {
                self.known.changes(rule, rules.generation());
            }
        }
        self.generations.add(rules);
        self.speak_of_newest();
    }

    /// Generation of the newest set it has.
    pub fn newest_generation(&self) -> u32 {
        self.generations.newest().map_or(0, |set| set.generation())
    }

    /// The newest set it has: it knows the name of every rule there was.
    pub fn rules(&self) -> &Arc<RuleSet> {
        self.generations.newest().unwrap_or(&self.rules)
    }

    pub(super) fn switched(&mut self, worker: u16, generation: u32) {
        self.generations.switched(worker, generation);
        // It may have been the set in use that was let go of.
        self.speak_of_newest();
    }

    /// What follows is about a hit of this worker.
    #[inline]
    pub(super) fn speak_of(&mut self, worker: u16) {
        if self.generations.sets.len() > 1 || self.spoken_of != self.newest_generation() {
            let set = self.generations.of(worker).cloned();
            self.speak(set);
        }
    }

    /// What follows is about no worker's hit.
    #[inline]
    pub(super) fn speak_of_newest(&mut self) {
        if self.spoken_of != self.newest_generation() {
            let set = self.generations.newest().cloned();
            self.speak(set);
        }
    }

    fn speak(&mut self, set: Option<Arc<RuleSet>>) {
        if let Some(set) = set.filter(|set| set.generation() != self.spoken_of) {
            self.spoken_of = set.generation();
            self.known.generation = set.generation();
            self.scripts.follow(&set);
            self.rules = set;
        }
    }
}
