//! An allocator that counts, so that "a worker never allocates after start" is a number and not a hope.
//!
//! Installed for the whole benchmark; it asks the system's allocator for everything and adds one to a counter.
//! Read by `whole` around each step of the worker.
#![allow(unsafe_code, reason = "an allocator can only be wrapped by an unsafe impl; it forwards unchanged")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// Allocations and reallocations of this process so far.
#[inline(always)]
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments, which the caller has
// promised are right; the counter has no part in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised. Kept apart from `alloc` so that zeroed pages stay the kernel's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_of_all_kinds_are_counted() {
        let before = count();
        let mut grown = std::hint::black_box(Vec::<u64>::with_capacity(1));
        let zeroed = std::hint::black_box(vec![0_u8; 100]);
        grown.resize(zeroed.len(), 0);
        // Other tests run beside this one: at least these three.
        assert!(count() - before >= 3);
    }
}
