//! A bounded slab of records that only some flows need; a flow that finds it full goes on without, counted. Worker's
//! thread; all memory is taken at start, nothing here allocates after it.

use bytemuck::Zeroable;
use dataplane_sys::Table;

use super::record::NONE;

/// A record of the slab. It begins as zeros, also where it was somebody else's before.
pub trait Record: Zeroable + Copy {
    /// Room for the number of the next free record, while this one is free.
    fn next_free(&mut self) -> &mut u32;
}

#[derive(Debug)]
pub struct Slab<T> {
    pub records: Table<T>,
    free: u32,
    never_used: u32,
    in_use: u32,
    /// Flows that asked when it was full.
    pub refused: u64,
}

impl<T: Record> Slab<T> {
    pub fn new(capacity: u32) -> Slab<T> {
        let records = Table::zeroed(capacity as usize);
        Slab { records, free: NONE, never_used: 0, in_use: 0, refused: 0 }
    }

    /// The record at `*index`, taken now if the flow has none yet.
    #[inline]
    pub fn get_or_take(&mut self, index: &mut u32) -> Option<&mut T> {
        if *index == NONE {
            *index = self.take()?;
        }
        self.records.get_mut(*index as usize)
    }

    /// As [`Slab::get_or_take`], for what is not the flow's own matter: half of the records are left alone, for flows
    /// that have some.
    pub fn get_or_take_spare(&mut self, index: &mut u32) -> Option<&mut T> {
        if *index == NONE && self.in_use >= self.records.len() as u32 / 2 {
            return None;
        }
        self.get_or_take(index)
    }

    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.records.get(index as usize)
    }

    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.records.get_mut(index as usize)
    }

    fn take(&mut self) -> Option<u32> {
        let index = if self.free != NONE {
            let index = self.free;
            self.free = *self.records[index as usize].next_free();
            index
        } else if (self.never_used as usize) < self.records.len() {
            self.never_used += 1;
            self.never_used - 1
        } else {
            self.refused += 1;
            return None;
        };
        self.records[index as usize] = T::zeroed();
        self.in_use += 1;
        Some(index)
    }

    /// Takes a record back; nothing may lead to it any more.
    pub fn give_back(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(index as usize) {
            *record.next_free() = self.free;
            self.free = index;
            self.in_use -= 1;
        }
    }

    pub fn in_use(&self) -> u32 {
        self.in_use
    }
}
