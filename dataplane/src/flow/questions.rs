//! DNS questions without answer: who asked what of whom, when, and how often. One table per worker, fixed in
//! size; when it is full the oldest question gives way, counted. Worker's thread; never allocates after start.
//! `analyze::app::dns` reads the packets, `worker` asks and answers here.

use dataplane_sys::Table;
use rules::facts::{NAME_BYTES, Name};

use super::record::NONE;
use super::waits::{Due, Link, Waiting, Waits};
use crate::decode::Address;
use crate::decode::FlowKey;
use crate::source::Nanos;

/// How long a question is remembered: a retry or an answer after that finds nothing.
const REMEMBERED: Nanos = 30_000_000_000;

/// What was asked, on which flow.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct Question {
    link: Link,
    pub key: FlowKey,
    pub first_ns: Nanos,
    pub last_ns: Nanos,
    /// Of name (in lower case), type and class; 0 if the capture cut it.
    pub hash: u64,
    /// Next in its chain of [`Questions::chains`].
    chain: u32,
    pub asks: u32,
    /// Of these, from the same socket with the same id.
    pub repeats: u16,
    pub id: u16,
    pub kind: u16,
    pub from_low: bool,
    name_len: u8,
    name: [u8; NAME_BYTES],
}

impl Question {
    pub fn name(&self) -> Name {
        Name::from_parts(self.name_len, self.name)
    }

    fn client(&self) -> Address {
        if self.from_low { self.key.low } else { self.key.high }
    }
}

impl Waiting for Question {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

/// A question as a packet asks or repeats it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub key: FlowKey,
    pub from_low: bool,
    pub id: u16,
    pub hash: u64,
    pub kind: u16,
    pub name: Name,
}

/// The table.
#[derive(Debug)]
pub struct Questions {
    entries: Table<Question>,
    waits: Waits,
    free: u32,
    never_used: u32,
    /// By flow, id and hash: chains, so that no answer misses its question.
    chains: Box<[u32]>,
    /// By flow and id, and by client and hash: the newest only.
    of_flow: Box<[u32]>,
    of_client: Box<[u32]>,
    secret: u64,
    /// Questions forgotten because the table was full.
    pub forgotten: u64,
}

impl Questions {
    pub fn new(capacity: u32, secret: u64) -> Questions {
        let buckets = (capacity.max(1) as usize * 2).next_power_of_two();
        let empty = || vec![NONE; buckets].into_boxed_slice();
        Questions {
            entries: Table::zeroed(capacity.max(1) as usize),
            waits: Waits::new(REMEMBERED),
            free: NONE,
            never_used: 0,
            chains: empty(),
            of_flow: empty(),
            of_client: empty(),
            secret,
            forgotten: 0,
        }
    }

    #[inline(always)]
    pub fn next_due(&self) -> Nanos {
        self.waits.next_due()
    }

    /// The next question that has been without answer for another second by `now`, and when that was.
    pub fn due(&mut self, now: Nanos) -> Option<(Question, Nanos)> {
        loop {
            match self.waits.pop(&mut self.entries, now)? {
                Due::Check(index, due) => return Some((*self.entries.get(index as usize)?, due)),
                Due::Forget(index) => self.free(index),
            }
        }
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut Question> {
        self.entries.get_mut(index as usize)
    }

    /// The very same question: same flow, id, name and type.
    pub fn find(&self, key: &FlowKey, id: u16, hash: u64) -> Option<u32> {
        let mut at = self.chains[self.bucket(key, id, hash)];
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.id == id && entry.hash == hash && entry.key == *key {
                return Some(at);
            }
            at = entry.chain;
        }
        None
    }

    /// The newest question of that flow and id, for an answer that doesn't repeat its question.
    pub fn find_by_id(&self, key: &FlowKey, id: u16) -> Option<u32> {
        let at = self.of_flow[self.bucket(key, id, 0)];
        let entry = self.entries.get(at as usize)?;
        (entry.link.waits() && entry.id == id && entry.key == *key).then_some(at)
    }

    /// The newest question of that client with that name and type, whatever its port, id and server.
    pub fn find_by_client(&self, asked: &Asked) -> Option<u32> {
        let client = if asked.from_low { asked.key.low } else { asked.key.high };
        let at = self.of_client[self.client_bucket(client, asked.hash)];
        let entry = self.entries.get(at as usize)?;
        let same = entry.hash == asked.hash && asked.hash != 0 && entry.client() == client;
        (entry.link.waits() && same).then_some(at)
    }

    /// Remembers a new question; `asks` tells how often it was asked so far, this time included.
    pub fn ask(&mut self, asked: &Asked, asks: u32, at: Nanos, clock: Nanos) {
        let Some(index) = self.take() else { return };
        let Asked { key, from_low, id, hash, kind, name } = *asked;
        let bucket = self.bucket(&key, id, hash);
        let (name_len, name) = name.parts();
        self.entries[index as usize] = Question {
            link: Link::default(),
            key,
            first_ns: at,
            last_ns: at,
            hash,
            chain: self.chains[bucket],
            asks,
            repeats: 0,
            id,
            kind,
            from_low,
            name_len,
            name,
        };
        self.chains[bucket] = index;
        let (by_id, client) = (self.bucket(&key, id, 0), self.entries[index as usize].client());
        self.of_flow[by_id] = index;
        let by_client = self.client_bucket(client, hash);
        self.of_client[by_client] = index;
        self.waits.add(&mut self.entries, index, clock);
    }

    /// Takes a question out: it was answered.
    pub fn answered(&mut self, index: u32) -> Option<Question> {
        let question = *self.entries.get(index as usize)?;
        self.waits.remove(&mut self.entries, index);
        self.free(index);
        Some(question)
    }

    fn take(&mut self) -> Option<u32> {
        if self.free == NONE && self.never_used as usize == self.entries.len() {
            self.forgotten += 1;
            let oldest = self.waits.oldest()?;
            self.waits.remove(&mut self.entries, oldest);
            self.free(oldest);
        }
        if self.free != NONE {
            let index = self.free;
            self.free = self.entries[index as usize].chain;
            return Some(index);
        }
        self.never_used += 1;
        Some(self.never_used - 1)
    }

    /// Out of its chain and onto the free list; it doesn't wait any more.
    fn free(&mut self, index: u32) {
        let Question { key, id, hash, chain, .. } = self.entries[index as usize];
        let bucket = self.bucket(&key, id, hash);
        let mut at = self.chains[bucket];
        if at == index {
            self.chains[bucket] = chain;
        }
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if entry.chain == index {
                entry.chain = chain;
                break;
            }
            at = entry.chain;
        }
        self.entries[index as usize].chain = self.free;
        self.free = index;
    }

    fn bucket(&self, key: &FlowKey, id: u16, hash: u64) -> usize {
        self.fold(key.hash(self.secret) ^ u64::from(id), hash)
    }

    fn client_bucket(&self, client: Address, hash: u64) -> usize {
        self.fold(client[1] ^ client[0].rotate_left(32) ^ self.secret, hash)
    }

    fn fold(&self, a: u64, b: u64) -> usize {
        let mixed = (a ^ b.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.chains.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn asked(port: u16, id: u16, hash: u64) -> Asked {
        let (key, from_low) = FlowKey::new(([0, 9], port), ([0, 53], 53), 17, false);
        Asked { key, from_low, id, hash, kind: 1, name: Name::of(b"a.example") }
    }

    #[test]
    fn questions_are_found_by_flow_id_and_client_until_answered() {
        let mut table = Questions::new(4, 7);
        let (first, other_port) = (asked(4000, 1, 77), asked(4001, 2, 77));
        table.ask(&first, 1, 5, 5);
        let found = table.find(&first.key, 1, 77).unwrap();
        assert_eq!(table.find(&first.key, 2, 77), None);
        assert_eq!(table.find(&first.key, 1, 78), None);
        assert_eq!(table.find_by_id(&first.key, 1), Some(found));
        assert_eq!(table.find_by_client(&other_port), Some(found));
        assert_eq!(table.find_by_client(&asked(4001, 2, 78)), None);
        assert_eq!(table.answered(found).unwrap().name().as_str(), "a.example");
        assert_eq!(table.find(&first.key, 1, 77), None);
        assert_eq!(table.find_by_id(&first.key, 1), None);
        assert_eq!(table.find_by_client(&other_port), None);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_counts_it() {
        let mut table = Questions::new(3, 7);
        for n in 0..10_u16 {
            table.ask(&asked(4000, n, u64::from(n) + 1), 1, u64::from(n), u64::from(n));
        }
        assert_eq!(table.forgotten, 7);
        let known: Vec<u16> =
            (0..10).filter(|n| table.find(&asked(4000, 0, 0).key, *n, u64::from(*n) + 1).is_some()).collect();
        assert_eq!(known, [7, 8, 9]);
        assert_eq!(table.due(SECOND + 7).map(|(question, due)| (question.id, due)), Some((7, SECOND + 7)));
        assert!(table.due(SECOND + 7).is_none());
    }

    #[test]
    fn waits_end_after_half_a_minute() {
        let mut table = Questions::new(8, 7);
        table.ask(&asked(4000, 1, 5), 1, 0, 0);
        let told = std::iter::from_fn(|| table.due(29 * SECOND)).count();
        assert_eq!(told, 10);
        assert!(table.find(&asked(4000, 1, 5).key, 1, 5).is_some());
        assert!(table.due(REMEMBERED).is_none());
        assert_eq!(table.find(&asked(4000, 1, 5).key, 1, 5), None);
        assert_eq!(table.next_due(), Nanos::MAX);
    }
}
