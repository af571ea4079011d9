//! A worker's thread: pinned to its core, it steps the worker for as long as packets come, waits on the socket
//! when none do, and tells main ten times a second how it is doing.
//!
//! After its start it allocates nothing, takes no lock, writes nothing and reads no clock while packets come.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use dataplane::ledger::WorkerAccount;
use dataplane::record::LossCounters;
use dataplane::source::Nanos;
use dataplane::source::live::LiveSource;
use dataplane::worker::{Step, Worker};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// How long a silent ring is watched before the thread sleeps. Ns.
const WATCH: Nanos = 50_000;
/// How long it sleeps at most: timers, the judge's commands and the end are looked for so often.
const NAP: Duration = Duration::from_millis(10);
/// Likewise, while a packet waits only for it to be sure that none older comes.
const WINK: Duration = Duration::from_millis(1);
/// Packet time between two snapshots. Ns.
const PUBLISH: Nanos = 100_000_000;
/// How long a worker that has ended waits for the writer to take what it still has.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a worker is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    pub account: WorkerAccount,
    pub live: u32,
    pub peak: u32,
    /// How far back its history reaches, ns; none before its first packet.
    pub horizon: Option<Nanos>,
    /// Packets that came behind later ones.
    pub late: u64,
}

/// What a worker's thread shares with main and the judge.
#[derive(Debug)]
pub struct Shared {
    /// The latest snapshot, until main has taken it.
    snapshot: ArrayQueue<Snapshot>,
    /// The worker has ended its last flow: nothing more will be raised.
    pub ended: AtomicBool,
    /// The thread ended by a fault: nobody takes commands any more.
    pub failed: AtomicBool,
    /// The judge has said its last word to it.
    pub judged: AtomicBool,
    /// The thread could not be kept on its core.
    pub unpinned: AtomicBool,
    /// Turns it has taken: while these grow, it is not stuck.
    pub turns: AtomicU64,
    /// What interfaces received and lost so far, for its capture files; each interface is told by one worker alone.
    pub losses: Vec<Losses>,
}

/// What an interface received and lost so far.
#[derive(Debug)]
pub struct Losses {
    /// Its number for the worker, and for main.
    interface: u16,
    pub port: usize,
    pub received: AtomicU64,
    pub dropped: AtomicU64,
}

impl Losses {
    pub fn new(interface: u16, port: usize) -> Losses {
        Losses { interface, port, received: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }
}

impl Shared {
    pub fn new(losses: Vec<Losses>) -> Shared {
        Shared {
            snapshot: ArrayQueue::new(1),
            ended: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            judged: AtomicBool::new(false),
            unpinned: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            losses,
        }
    }

    /// The latest snapshot, if there is one since the last call.
    pub fn latest(&self) -> Option<Snapshot> {
        self.snapshot.pop()
    }
}

/// A worker that has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    pub account: WorkerAccount,
    pub live: u32,
    pub peak: u32,
    /// Packets that came behind later ones.
    pub late: u64,
}

/// Sleeping until a source has packets.
pub struct Waiter {
    poll: Poll,
    events: Events,
}

impl Waiter {
    /// # Errors
    /// Those of `epoll(7)`.
    pub fn new(source: &impl LiveSource) -> io::Result<Waiter> {
        let poll = Poll::new()?;
        let mut sockets = Vec::new();
        source.files(&mut |socket| sockets.push(socket.as_raw_fd()));
        for (number, socket) in sockets.iter().enumerate() {
            poll.registry().register(&mut SourceFd(socket), Token(number), Interest::READABLE)?;
        }
        Ok(Waiter { poll, events: Events::with_capacity(4) })
    }

    fn wait(&mut self, at_most: Duration) {
        // Whatever ended the wait, the worker looks for itself what there is to do.
        let _ = self.poll.poll(&mut self.events, Some(at_most));
    }
}

/// Says that the thread has ended, also if by a fault, so that nobody waits for it.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.failed.store(thread::panicking(), Ordering::Release);
        self.0.ended.store(true, Ordering::Release);
    }
}

/// One worker and what it runs with.
pub struct Thread<S: LiveSource> {
    pub worker: Worker<S>,
    pub waiter: Waiter,
    pub core: Option<usize>,
    pub shared: Arc<Shared>,
}

impl<S: LiveSource> Thread<S> {
    /// The thread's body: returns when the source has ended and everything has been handed over.
    pub fn run(mut self) -> Ended {
        let _end = End(Arc::clone(&self.shared));
        if self.core.is_some_and(|core| dataplane_sys::pin_to_core(core).is_err()) {
            self.shared.unpinned.store(true, Ordering::Relaxed);
        }
        self.capture();
        self.shared.ended.store(true, Ordering::Release);
        self.hear_out();
        self.hand_over();
        Ended {
            account: self.account(),
            live: self.worker.live_flows(),
            peak: self.worker.peak_flows(),
            late: self.worker.source().late(),
        }
    }

    /// What the worker counted, and what its source took and gave elsewhere.
    fn account(&self) -> WorkerAccount {
        let mut account = self.worker.account();
        self.worker.source().add_to(&mut account);
        account
    }

    fn capture(&mut self) {
        let mut silent_since = None;
        let mut publish_at = 0;
        let mut turns = 0_u64;
        loop {
            turns = turns.wrapping_add(1);
            self.shared.turns.store(turns, Ordering::Relaxed);
            match self.worker.step() {
                Step::Worked => silent_since = None,
                Step::Idle(_) => {
                    let now = self.worker.source().now();
                    if now.saturating_sub(*silent_since.get_or_insert(now)) < WATCH {
                        std::hint::spin_loop();
                    } else {
                        self.sleep();
                    }
                }
                Step::Full => thread::yield_now(),
                Step::Done => return,
            }
            if self.worker.now() >= publish_at {
                publish_at = self.worker.now() + PUBLISH;
                self.publish();
            }
        }
    }

    /// Sleeps until packets come, unless some came just now. Those that sleep are woken by whom they have told.
    fn sleep(&mut self) {
        self.worker.source().sleeps(true);
        if matches!(self.worker.step(), Step::Idle(_)) {
            let at_most = if self.worker.source().hurry() { WINK } else { NAP };
            self.waiter.wait(at_most);
        }
        self.worker.source().sleeps(false);
    }

    fn publish(&mut self) {
        self.tell_losses();
        self.shared.snapshot.force_push(Snapshot {
            account: self.account(),
            live: self.worker.live_flows(),
            peak: self.worker.peak_flows(),
            horizon: self.worker.horizon(),
            late: self.worker.source().late(),
        });
    }

    fn tell_losses(&mut self) {
        if let Some(recorder) = self.worker.recorder() {
            for losses in &self.shared.losses {
                let received = Some(losses.received.load(Ordering::Relaxed));
                let dropped = Some(losses.dropped.load(Ordering::Relaxed));
                recorder.losses(losses.interface, LossCounters { received, dropped });
            }
        }
    }

    /// Takes the judge's commands until it has given the last.
    fn hear_out(&mut self) {
        while !self.shared.judged.load(Ordering::Acquire) {
            self.worker.step();
            thread::sleep(Duration::from_millis(1));
        }
        self.worker.step();
    }

    /// Gives the recorder all that holds still have, as fast as the writer takes it.
    fn hand_over(&mut self) {
        self.tell_losses();
        let chunks = self.worker.recorder().map_or(0, |recorder| recorder.free_chunks());
        let wanted = (chunks / 2).max(1);
        let mut waited = Duration::ZERO;
        while !self.worker.finish() {
            while waited < PATIENCE && self.worker.recorder().is_some_and(|r| r.free_chunks() < wanted) {
                thread::sleep(Duration::from_millis(1));
                waited += Duration::from_millis(1);
            }
        }
    }
}
