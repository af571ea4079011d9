//! The judge's thread: takes what workers raise, answers with commands, and passes incidents and rows on to
//! main. Never waited for by a worker, never waits for main: what finds no room is counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use dataplane::flow::row::FlowRow;
use dataplane::judge::message::{Command, Message, Note};
use dataplane::judge::{BodyBooks, Incident, Judge, JudgeAccount, Standing};
use dataplane::worker::Queues;
use rules::RuleSet;

use super::pace::Pace;
use super::worker::Shared;
use crate::control::Handle;
use crate::control::question::Question;
use crate::report::finished::{Counted, Kept};
use crate::report::metrics;
use crate::report::words;

/// Messages taken from one worker before the next one's turn.
const TURN: usize = 1024;
/// Commands kept back for a worker whose queue is full.
const PENDING: usize = 1 << 16;
/// Open incidents of which main is told what they have come to.
const SHOWN: usize = 1000;
/// How long the thread sleeps when there is nothing to do: at first, and at most.
const NAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));

/// From the judge to main.
#[derive(Debug)]
pub enum Told {
    Opened {
        incident: Box<Incident>,
        /// Packets of it are kept.
        captured: bool,
    },
    Closed {
        incident: Box<Incident>,
        /// Packets of it are kept.
        captured: bool,
    },
    Row(Box<FlowRow>),
    /// A rule's body has failed for the first time.
    Failing(String),
    /// How things stand, because main asked.
    Standing(Box<(JudgeAccount, Standing, BodyBooks)>),
    /// What incidents that are open have come to, with it.
    Open(Vec<Incident>),
}

/// The judge's end of one worker.
pub struct Lane {
    pub queues: Queues,
    pub shared: Arc<Shared>,
    pace: Pace,
    pending: VecDeque<Command>,
}

impl Lane {
    pub fn new(queues: Queues, shared: Arc<Shared>) -> Lane {
        Lane { queues, shared, pace: Pace::default(), pending: VecDeque::new() }
    }

    fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.queues.rows.as_ref().is_none_or(|rows| rows.is_empty())
    }

    /// Hands over the commands that wait, as far as there is room.
    fn send(&mut self) {
        while let Some(command) = self.pending.pop_front() {
            if let Err(command) = self.queues.commands.push(command) {
                self.pending.push_front(command);
                return;
            }
        }
    }
}

/// What the judge leaves behind.
#[derive(Debug, Default)]
pub struct Verdicts {
    pub account: JudgeAccount,
    pub standing: Standing,
    pub counted: Counted,
    pub bodies: BodyBooks,
    pub kept: Kept,
}

/// Tells the workers that no command will follow, also if the thread ends by a fault.
struct LastWord(Vec<Arc<Shared>>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.iter().for_each(|shared| shared.judged.store(true, Ordering::Release));
    }
}

/// The judge and what it runs with.
pub struct Thread {
    judge: Judge,
    lanes: Vec<Lane>,
    /// Sets that the judge is to have before any worker.
    sets: Arc<ArrayQueue<Arc<RuleSet>>>,
    /// What the control thread wants to know.
    question: Arc<Question>,
    outbox: SyncSender<Told>,
    /// Main wants to know how things stand.
    asked: Arc<AtomicBool>,
    commands: Vec<Command>,
    counted: Counted,
    kept: Kept,
    /// Nothing is captured any more: main may be waited for.
    patient: bool,
}

impl Thread {
    pub fn new(
        mut judge: Judge,
        lanes: Vec<Lane>,
        control: &Handle,
        outbox: SyncSender<Told>,
        asked: Arc<AtomicBool>,
    ) -> Thread {
        judge.hears(lanes.len());
        Thread {
            judge,
            lanes,
            sets: Arc::clone(&control.judge),
            question: Arc::clone(&control.question),
            outbox,
            asked,
            commands: Vec::new(),
            counted: Counted::default(),
            kept: Kept::default(),
            patient: false,
        }
    }

    /// The thread's body: returns when all workers have ended and everything they raised is judged.
    pub fn run(mut self) -> Verdicts {
        let _last_word = LastWord(self.lanes.iter().map(|lane| Arc::clone(&lane.shared)).collect());
        let mut nap = NAPS.0;
        loop {
            let ended = self.lanes.iter().all(|lane| lane.shared.ended.load(Ordering::Acquire));
            self.patient = ended;
            self.adopt();
            let mut busy = false;
            for lane in 0..self.lanes.len() {
                busy |= self.serve(lane);
            }
            self.pass_time();
            self.tell();
            self.answer();
            if busy {
                nap = NAPS.0;
            } else if ended && self.lanes.iter().all(Lane::is_empty) {
                break;
            } else {
                thread::sleep(nap);
                nap = (nap * 2).min(NAPS.1);
            }
        }
        self.finish()
    }

    /// One worker's turn; true if it had something.
    fn serve(&mut self, lane: usize) -> bool {
        let mut taken = 0;
        while taken < TURN
            && let Some(note) = self.lanes[lane].queues.note()
        {
            taken += 1;
            self.counted.messages += 1;
            match note {
                // Reports belong to the interval that their worker's next tick ends.
                Message::Host { .. } | Message::Service { .. } | Message::Dealing { .. } => {
                    self.lanes[lane].pace.report(note);
                }
                Message::Tick(now) => {
                    self.lanes[lane].pace.tick(now);
                    // What comes behind it belongs to later.
                    self.pass_time();
                }
                Message::Hit(_) | Message::Watched { .. } | Message::Siblings { .. } => {
                    self.handle(lane, note)
                }
                Message::Rules { .. } => {
                    // Whoever gave the worker its set put it in here before.
                    self.adopt();
                    self.handle(lane, note);
                }
            }
        }
        self.lanes[lane].send();
        taken > 0 || self.rows(lane)
    }

    /// An interval is over when it is over for every worker that goes on: what hosts and services did is the sum of what
    /// all have seen.
    fn pass_time(&mut self) {
        loop {
            let goes_on =
                |lane: &&Lane| !lane.shared.ended.load(Ordering::Acquire) || !lane.queues.is_empty();
            let slowest = Pace::slowest(self.lanes.iter().filter(goes_on).map(|lane| &lane.pace));
            let due = self.lanes.iter().filter_map(|lane| lane.pace.due()).min();
            let Some(now) = due.filter(|due| *due <= slowest) else { return };
            for lane in 0..self.lanes.len() {
                let reports = self.lanes[lane].pace.take(now);
                reports.into_iter().for_each(|report| self.handle(lane, report));
            }
            self.handle(0, Message::Tick(now));
        }
    }

    fn adopt(&mut self) {
        while let Some(set) = self.sets.pop() {
            self.judge.adopt(set);
        }
    }

    fn handle(&mut self, lane: usize, note: Note) {
        let Some(message) = &self.lanes[lane].queues.whole(note) else { return };
        self.judge.handle(message, &mut self.commands);
        for command in self.commands.drain(..) {
            if let Command::Keep { flow_id, .. } = command {
                self.kept.insert(flow_id);
            }
            // A host's flows may be with any worker.
            let to =
                if matches!(command, Command::Watch { .. }) { 0..self.lanes.len() } else { lane..lane + 1 };
            for lane in &mut self.lanes[to] {
                match lane.pending.len() < PENDING {
                    true => lane.pending.push_back(command),
                    false => self.counted.commands_dropped += 1,
                }
            }
        }
    }

    fn rows(&mut self, lane: usize) -> bool {
        let Some(rows) = self.lanes[lane].queues.rows.clone() else { return false };
        let mut taken = 0;
        while taken < TURN
            && let Some(ended) = rows.pop()
        {
            taken += 1;
            self.counted.rows += 1;
            // The flow's rules may be those of a set that came just now.
            self.adopt();
            let row = FlowRow::from_ended(&ended, self.judge.rules());
            self.pass_on(Told::Row(Box::new(row)));
        }
        taken > 0
    }

    fn tell(&mut self) {
        for failing in self.judge.failing() {
            self.pass_on(Told::Failing(failing));
        }
        for incident in self.judge.opened() {
            let captured = words::captured(&incident, &self.kept);
            self.pass_on(Told::Opened { incident: Box::new(incident), captured });
        }
        for incident in self.judge.folded().into_iter().chain(self.judge.closed()) {
            let captured = words::captured(&incident, &self.kept);
            self.pass_on(Told::Closed { incident: Box::new(incident), captured });
        }
    }

    fn answer(&mut self) {
        self.question.answer(|| self.judge.bodies());
        if self.asked.load(Ordering::Relaxed) {
            self.asked.store(false, Ordering::Relaxed);
            let answer = (self.judge.account(), self.judge.standing(metrics::SHOWN), self.judge.bodies());
            // If there is no room, main asks again.
            let _ = self.outbox.try_send(Told::Standing(Box::new(answer)));
            let _ = self.outbox.try_send(Told::Open(self.judge.open(SHOWN)));
        }
    }

    fn pass_on(&mut self, told: Told) {
        let lost = match self.patient {
            true => self.outbox.send(told).is_err(),
            false => match self.outbox.try_send(told) {
                Ok(()) => false,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => true,
            },
        };
        self.counted.reports_dropped += u64::from(lost);
    }

    /// Everything opens and closes; the workers hear the last of the commands.
    fn finish(mut self) -> Verdicts {
        self.pass_time();
        for lane in 0..self.lanes.len() {
            self.lanes[lane].pace.rest().into_iter().for_each(|report| self.handle(lane, report));
        }
        self.judge.finish(&mut self.commands);
        self.tell();
        let waits = |lane: &Lane| !lane.pending.is_empty() && !lane.shared.failed.load(Ordering::Acquire);
        while self.lanes.iter().any(waits) {
            self.lanes.iter_mut().for_each(Lane::send);
            thread::sleep(Duration::from_millis(1));
        }
        Verdicts {
            account: self.judge.account(),
            standing: self.judge.standing(metrics::SHOWN),
            counted: self.counted,
            bodies: self.judge.bodies(),
            kept: self.kept,
        }
    }
}
