//! What a run of a body may still use: operations, which large values make dearer, and time. On the judge's thread; the
//! engine asks it at every operation, the body's own functions before they do something large.
//!
//! Rhai counts comparing two lists, or writing one out, as one operation. Here each such call is charged for its size,
//! so that a limit on operations is a limit on work, in a replay too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rhai::{Dynamic, EvalAltResult, Position};

/// Elements handled for the price of one operation.
const ELEMENTS: u64 = 8;
/// Bytes of text likewise.
const BYTES: u64 = 128;

/// One run's use; one run at a time.
#[derive(Clone, Debug)]
pub(crate) struct Meter(Arc<Use>);

#[derive(Debug)]
struct Use {
    since: Instant,
    limit: u64,
    operations: AtomicU64,
    charged: AtomicU64,
    /// In ns after `since`; none: as large as can be.
    deadline: AtomicU64,
}

type Charged = Result<(), Box<EvalAltResult>>;

impl Meter {
    pub(crate) fn new(limit: u64) -> Meter {
        Meter(Arc::new(Use {
            since: Instant::now(),
            limit: limit.max(1),
            operations: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            deadline: AtomicU64::new(u64::MAX),
        }))
    }

    /// A run begins.
    pub(crate) fn begin(&self, time: Option<Duration>) {
        self.0.operations.store(0, Ordering::Relaxed);
        self.0.charged.store(0, Ordering::Relaxed);
        let deadline = time.map(|time| self.now().saturating_add(nanos(time)));
        self.0.deadline.store(deadline.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        nanos(self.0.since.elapsed())
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
        let deadline = self.0.deadline.load(Ordering::Relaxed);
        deadline != u64::MAX && self.now() >= deadline
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
