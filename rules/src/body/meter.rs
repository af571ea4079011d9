//! What a run of a body may still use: operations, which large values make dearer, and time. On the judge's thread; the
//! engine asks it at every operation, the body's own functions before they do something large.
//!
//! Rhai counts comparing two lists, or writing one out, as one operation. Here each such call is charged for its size,
//! so that a limit on operations is a limit on work, in a replay too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rhai::{Dynamic, EvalAltResult, Position};
use rustix::time::{ClockId, clock_gettime};

/// Elements handled for the price of one operation.
const ELEMENTS: u64 = 8;
/// Bytes of text likewise.
const BYTES: u64 = 128;

/// What time is taken from, ns. The thread's own is what counts: others may have the processor while a run waits. It takes a
/// call into the kernel, so it is asked only when as much time has gone by on the wall, which is never less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) wall: fn() -> u64,
    pub(crate) thread: fn() -> u64,
}

impl Clocks {
    pub(crate) const REAL: Clocks =
        Clocks { wall: || read(ClockId::Monotonic), thread: || read(ClockId::ThreadCPUTime) };
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    Duration::try_from(time).map_or(0, nanos)
}

/// One run's use; one run at a time.
#[derive(Clone, Debug)]
pub(crate) struct Meter(Arc<Use>);

#[derive(Debug)]
struct Use {
    clocks: Clocks,
    limit: u64,
    operations: AtomicU64,
    charged: AtomicU64,
    /// By the thread's clock; none: as large as can be.
    deadline: AtomicU64,
    /// By the clock on the wall: not before this can the deadline have passed.
    look: AtomicU64,
}

type Charged = Result<(), Box<EvalAltResult>>;

impl Meter {
    pub(crate) fn new(limit: u64, clocks: Clocks) -> Meter {
        Meter(Arc::new(Use {
            clocks,
            limit: limit.max(1),
            operations: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            deadline: AtomicU64::new(u64::MAX),
            look: AtomicU64::new(u64::MAX),
        }))
    }

    /// A run begins that may have the processor for so long. Gives the thread's time, where it is read.
    pub(crate) fn begin(&self, time: Option<Duration>) -> Option<u64> {
        self.0.operations.store(0, Ordering::Relaxed);
        self.0.charged.store(0, Ordering::Relaxed);
        let began = time.map(|_| (self.0.clocks.thread)());
        let after = |now: u64| now.saturating_add(time.map_or(u64::MAX, nanos));
        self.0.deadline.store(began.map_or(u64::MAX, after), Ordering::Relaxed);
        let look = began.map_or(u64::MAX, |_| after((self.0.clocks.wall)()));
        self.0.look.store(look, Ordering::Relaxed);
        began
    }

    /// How long the thread has had the processor since then.
    pub(crate) fn spent(&self, began: u64) -> Duration {
        Duration::from_nanos((self.0.clocks.thread)().saturating_sub(began))
    }

    /// At every operation; a value ends the run: nothing for its time, else for its operations.
    pub(crate) fn progress(&self, operations: u64) -> Option<Dynamic> {
        self.0.operations.store(operations, Ordering::Relaxed);
        match (self.is_spent(), self.is_late()) {
            (_, true) => Some(Dynamic::UNIT),
            (true, false) => Some(Dynamic::TRUE),
            (false, false) => None,
        }
    }

    fn is_spent(&self) -> bool {
        let used = self.0.operations.load(Ordering::Relaxed);
        used.saturating_add(self.0.charged.load(Ordering::Relaxed)) > self.0.limit
    }

    /// No clock is read where there is no deadline.
    fn is_late(&self) -> bool {
        let look = self.0.look.load(Ordering::Relaxed);
        if look == u64::MAX {
            return false;
        }
        let wall = (self.0.clocks.wall)();
        wall >= look && self.has_had_its_time(wall)
    }

    #[cold]
    fn has_had_its_time(&self, wall: u64) -> bool {
        let left = self.0.deadline.load(Ordering::Relaxed).saturating_sub((self.0.clocks.thread)());
        self.0.look.store(wall.saturating_add(left), Ordering::Relaxed);
        left == 0
    }

    /// Books work on so many elements and bytes, before it is done.
    pub(crate) fn charge(&self, elements: usize, bytes: usize) -> Charged {
        let price = elements as u64 / ELEMENTS + bytes as u64 / BYTES;
        self.0.charged.fetch_add(price, Ordering::Relaxed);
        if self.is_late() {
            return Err(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into());
        }
        match self.is_spent() {
            true => Err(EvalAltResult::ErrorTooManyOperations(Position::NONE).into()),
            false => Ok(()),
        }
    }

    /// As [`Meter::charge`], for all that is in a value.
    pub(crate) fn charge_for(&self, value: &Dynamic) -> Charged {
        let (elements, bytes) = size(value);
        self.charge(elements, bytes)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Elements and bytes of text in a value. Values are small (`engine`): it never goes deep.
fn size(value: &Dynamic) -> (usize, usize) {
    let add = |sum: (usize, usize), more: &Dynamic| {
        let (elements, bytes) = size(more);
        (sum.0 + 1 + elements, sum.1 + bytes)
    };
    if let Ok(list) = value.as_array_ref() {
        return list.iter().fold((0, 0), add);
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().fold((0, 0), add);
    }
    (0, value.as_immutable_string_ref().map_or(0, |text| text.len()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static WALL: Cell<u64> = const { Cell::new(0) };
        static THREAD: Cell<u64> = const { Cell::new(0) };
        static ASKED: Cell<u32> = const { Cell::new(0) };
    }

    const CLOCKS: Clocks = Clocks {
        wall: || WALL.get(),
        thread: || {
            ASKED.set(ASKED.get() + 1);
            THREAD.get()
        },
    };

    #[test]
    fn only_the_thread_s_own_time_counts() {
        let meter = Meter::new(100, CLOCKS);
        let began = meter.begin(Some(Duration::from_nanos(50)));
        assert_eq!((began, ASKED.get()), (Some(0), 1));
        // Others have the processor.
        for wall in [49, 1_000, 1_049] {
            WALL.set(wall);
            assert!(meter.progress(1).is_none());
        }
        assert_eq!(ASKED.get(), 2, "asked once in as much time as is left");
        WALL.set(1_100);
        THREAD.set(49);
        assert!(meter.progress(1).is_none());
        THREAD.set(50);
        assert!(meter.progress(1).is_none(), "a ns later");
        WALL.set(1_101);
        assert!(meter.progress(1).is_some_and(|value| value.is_unit()));
        assert!(meter.charge(1, 1).is_err());
        assert_eq!(meter.spent(0), Duration::from_nanos(50));
    }

    #[test]
    fn without_a_deadline_no_clock_is_read() {
        let unread: fn() -> u64 = || panic!("it is");
        let meter = Meter::new(100, Clocks { wall: unread, thread: unread });
        assert_eq!(meter.begin(None), None);
        assert!(meter.progress(1).is_none() && meter.charge(1, 1).is_ok());
    }

    #[test]
    fn the_real_clocks_run() {
        let spin = |clock: fn() -> u64| {
            let before = clock();
            while clock() == before {}
        };
        spin(Clocks::REAL.wall);
        spin(Clocks::REAL.thread);
    }
}
