//! Big tables of zeroes straight from the kernel: nothing is written until it is used, and huge pages back
//! them where there are any. Made at start-up by whoever builds a worker; used by the worker as a slice.
//!
//! The standard allocator writes zeroes itself for types aligned beyond 16 bytes; for a flow table that is
//! hundreds of megabytes touched before the first packet.

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Zeroable;

/// A fixed number of `T`, all zero at first.
pub struct Table<T> {
    first: NonNull<T>,
    len: usize,
}

impl<T: Zeroable> Table<T> {
    /// A table of `len` zeroed values. Like any allocation it ends the program if there is no memory.
    pub fn zeroed(len: usize) -> Table<T> {
        let layout = Layout::array::<T>(len).expect("a table is smaller than the address space");
        assert!(layout.align() <= 4096, "pages are aligned to 4096 bytes");
        if layout.size() == 0 {
            return Table { first: NonNull::dangling(), len };
        }
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing else.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                layout.size(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(address.cast::<T>()) {
            Some(first) if address != libc::MAP_FAILED => {
                let mut table = Table { first, len };
                crate::advise_huge_pages(&mut table);
                table
            }
            _ => std::alloc::handle_alloc_error(layout),
        }
    }
}

impl<T> Table<T> {
    /// Has the kernel give all its memory now, near the core this runs on, instead of piece by piece when it is first
    /// used. False if it won't (before Linux 5.14, or for want of memory): then that comes later, as before.
    pub fn populate(&mut self) -> bool {
        let bytes = size_of::<T>() * self.len;
        // SAFETY: the mapping made by `zeroed`, of this size; MADV_POPULATE_WRITE finds pages for it and changes no
        // content.
        bytes == 0
            || unsafe { libc::madvise(self.first.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) } == 0
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `first` is the start of a live mapping of `len` values, zeroed by the kernel, which is a
        // valid `T` (Zeroable was required to make it); or `len` values take no bytes at all.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let bytes = size_of::<T>() * self.len;
        if bytes > 0 {
            // SAFETY: the mapping made by `zeroed`, of this size, which nothing refers to any more. The
            // values are plain data (Zeroable and never needing drop in this project) and are not dropped.
            unsafe { libc::munmap(self.first.as_ptr().cast(), bytes) };
        }
    }
}

// SAFETY: the table owns its memory; it may go to another thread if its values may.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: shared access gives only `&[T]`.
unsafe impl<T: Sync> Sync for Table<T> {}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} x {} B)", self.len, size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zero_and_keeps_what_is_written() {
        let mut table = Table::<[u64; 32]>::zeroed(100_000);
        assert!(table.iter().step_by(997).all(|row| row.iter().all(|&word| word == 0)));
        table[99_999][31] = 7;
        assert_eq!(table[99_999][31], 7);
        assert_eq!(table.len(), 100_000);
        assert!(table.populate());
        assert_eq!(table[99_999][31], 7);
        assert!(Table::<u64>::zeroed(0).is_empty());
        assert!(Table::<u64>::zeroed(0).populate());
    }
}
