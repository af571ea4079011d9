//! The one room for unsafe: cache prefetch, huge-page advice for big tables, CPU pinning.
//!
//! Used at start-up (memory, pinning) and by workers (prefetch, which neither allocates nor faults). The
//! public API has no `unsafe fn`.
#![allow(unsafe_code, reason = "this crate is where unsafe is kept; each block states why it is sound")]

/// Starts loading the cache line of `value`; does nothing on other architectures than x86-64.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(value).cast::<i8>();
        // SAFETY: prefetch is a hint; it never faults, and `line` comes from a live reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks the kernel to back `table` with huge pages. A hint: a kernel that refuses loses only speed.
///
/// See `madvise(2)`, MADV_HUGEPAGE.
pub fn advise_huge_pages<T>(table: &mut [T]) {
    const HUGE_PAGE: usize = 2 << 20;
    let start = table.as_mut_ptr() as usize;
    let end = start + std::mem::size_of_val(table);
    let first = start.next_multiple_of(HUGE_PAGE);
    if first + HUGE_PAGE <= end {
        let len = (end - first) / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: [first, first + len) lies inside `table`, which this call borrows; MADV_HUGEPAGE changes
        // how pages are backed, not their content.
        unsafe { libc::madvise(first as *mut libc::c_void, len, libc::MADV_HUGEPAGE) };
    }
}

/// A table of `len` copies of `value`, on huge pages where the kernel has them.
pub fn huge_table<T: Clone>(len: usize, value: T) -> Box<[T]> {
    let mut table = Vec::with_capacity(len);
    advise_huge_pages(table.spare_capacity_mut());
    table.resize(len, value);
    table.into_boxed_slice()
}
