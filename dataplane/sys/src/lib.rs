//! The one room for unsafe: memory, CPU pinning, AF_XDP sockets, XDP programs, packet sockets, ethtool, libpcap.
//!
//! Used at start-up (memory, pinning, opening interfaces) and by workers (prefetch, and the rings of `xsk`, which
//! neither allocate nor lock). The public API has no `unsafe fn`.
#![allow(unsafe_code, reason = "this crate is where unsafe is kept; each block states why it is sound")]

pub mod bpf;
pub mod ethtool;
pub mod host;
pub mod packet;
pub mod packet_ring;
pub mod pcap;
pub mod ptp;
pub mod ring;
pub mod rss;
pub mod statistics;
mod table;
pub mod tuning;
pub mod xsk;

pub use table::Table;

use std::io;

/// Starts loading the cache line of `value`; does nothing on other architectures than x86-64.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_line(std::ptr::from_ref(value).cast());
}

/// Starts loading all of `value`'s cache lines.
#[inline(always)]
pub fn prefetch_all<T: ?Sized>(value: &T) {
    let first = std::ptr::from_ref(value).cast::<u8>();
    (0..size_of_val(value)).step_by(64).for_each(|at| prefetch_line(first.wrapping_add(at)));
}

/// The same for the line at an address, whatever is there.
#[inline(always)]
pub(crate) fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetch is a hint; it never faults, and touches nothing the program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// A clock that costs as much as a few instructions: the processor's time-stamp counter, which counts evenly on anything
/// made since 2008. Nanoseconds on other architectures than x86-64.
#[inline(always)]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC is there on every x86-64; it touches nothing but registers.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static BEGUN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        BEGUN.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
    }
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

/// The CPUs this thread may run on, lowest first, as `taskset` or a cgroup left them.
///
/// # Errors
/// Those of `sched_getaffinity(2)`; a host with more than 1024 CPUs gives EINVAL.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let mut set = no_cores();
    // SAFETY: `set` is a live, writable cpu_set_t of exactly the size that is passed.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every index is below CPU_SETSIZE, the number of bits in the set.
    let allowed = (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) });
    Ok(allowed.collect())
}

/// The lowest of [`allowed_cores`].
///
/// # Errors
/// As there.
pub fn first_allowed_core() -> io::Result<usize> {
    let first = allowed_cores()?.first().copied();
    first.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Keeps the calling thread on one CPU; threads it spawns afterwards inherit that.
///
/// # Errors
/// EINVAL for a CPU that doesn't exist or isn't allowed, and what else `sched_setaffinity(2)` gives.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    pin_to_cores(&[core])
}

/// Keeps the calling thread on these CPUs, likewise.
///
/// # Errors
/// As for [`pin_to_core`]; EINVAL also if there is none.
pub fn pin_to_cores(cores: &[usize]) -> io::Result<()> {
    let mut set = no_cores();
    for &core in cores {
        if core >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: `core` is below CPU_SETSIZE, the number of bits in the set.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: `set` is a live cpu_set_t of exactly the size that is passed; the kernel only reads it.
    let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Does `work` on that CPU, if the kernel allows it, so that memory first touched there is near it; then the thread may
/// run where it might before.
pub fn on_core<T>(core: Option<usize>, work: impl FnOnce() -> T) -> T {
    let before = core.and_then(|core| {
        let before = allowed_cores().ok()?;
        pin_to_core(core).is_ok().then_some(before)
    });
    let done = work();
    if let Some(before) = before {
        // They were allowed a moment ago.
        let _ = pin_to_cores(&before);
    }
    done
}

fn no_cores() -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is an array of integers, for which all zeros is the empty set.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_allowed_nowhere_else() {
        let all = std::thread::spawn(|| {
            let core = first_allowed_core().unwrap();
            pin_to_core(core).unwrap();
            assert_eq!(first_allowed_core().unwrap(), core);
            assert_eq!(pin_to_core(100_000).unwrap_err().raw_os_error(), Some(libc::EINVAL));
            assert_eq!(on_core(Some(100_000), || 7), 7);
        });
        all.join().unwrap();
        let all = std::thread::spawn(|| {
            let cores = allowed_cores().unwrap();
            let last = *cores.last().unwrap();
            assert_eq!(on_core(Some(last), || allowed_cores().unwrap()), [last]);
            assert_eq!(on_core(None, || allowed_cores().unwrap()), cores);
            assert_eq!(allowed_cores().unwrap(), cores);
        });
        all.join().unwrap();
    }
}
