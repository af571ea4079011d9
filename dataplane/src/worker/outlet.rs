//! The worker's way out: messages to the judge, rows of ended flows, and commands back in. Fixed queues;
//! a full one is a counted drop, never a wait (in replay the caller makes room first). Worker's thread.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::demand::DemandBox;
use crate::flow::Flow;
use crate::flow::app::AppEnd;
use crate::flow::trouble::Trouble;
use crate::judge::message::{Command, Hit, Message, Note, Siblings};
use crate::ledger::EventAccount;
use crate::worker::handover::Handover;

/// Commands waiting for a worker, at most.
const COMMANDS: usize = 4096;
/// Rows waiting, at most.
const ROWS: usize = 4096;
/// Free places a packet or timer needs at least.
pub const RESERVE: usize = 256;
/// Events a packet or timer raises, at most, whose rules are not few.
const EVENTS: usize = 4;

/// A flow that ended, with its trouble record and what its application left.
#[derive(Clone, Copy, Debug)]
pub struct EndedFlow {
    pub flow: Flow,
    pub trouble: Trouble,
    pub app: AppEnd,
}

/// Both ends' queues of one worker; the other end holds a clone.
#[derive(Clone, Debug)]
pub struct Queues {
    messages: Arc<ArrayQueue<Note>>,
    /// What the messages leave out, see [`Note`].
    hits: Arc<ArrayQueue<Hit>>,
    siblings: Arc<ArrayQueue<Siblings>>,
    /// Only if somebody asked for rows.
    pub rows: Option<Arc<ArrayQueue<EndedFlow>>>,
    /// Rows of flows in trouble only.
    found: bool,
    pub commands: Arc<ArrayQueue<Command>>,
    /// Other rules for the worker.
    pub handover: Arc<Handover>,
    /// Captures on demand for the worker.
    pub demands: Arc<DemandBox>,
}

impl Queues {
    pub fn new(messages: usize, rows: bool) -> Queues {
        Queues::sized(messages, rows.then_some(ROWS))
    }

    /// For a worker and a judge that take turns on one thread: with room for all that `rules` may match at once, and
    /// else so small that they stay in the cache.
    pub fn taking_turns(rules: usize, rows: bool) -> Queues {
        Queues::sized(8 * rules, rows.then_some(2 * RESERVE))
    }

    fn sized(messages: usize, rows: Option<usize>) -> Queues {
        let messages = messages.max(2 * RESERVE);
        Queues {
            messages: Arc::new(ArrayQueue::new(messages)),
            hits: Arc::new(ArrayQueue::new(messages)),
            siblings: Arc::new(ArrayQueue::new(messages)),
            rows: rows.map(|rows| Arc::new(ArrayQueue::new(rows))),
            found: false,
            commands: Arc::new(ArrayQueue::new(COMMANDS)),
            handover: Arc::new(Handover::new()),
            demands: Arc::default(),
        }
    }

    /// Rows are wanted of flows with a trouble record only.
    pub fn only_found(self) -> Queues {
        Queues { found: true, ..self }
    }

    /// Takes the worker's next message.
    #[inline]
    pub fn message(&self) -> Option<Message> {
        self.whole(self.note()?)
    }

    /// Takes the worker's next message without what is large of it.
    #[inline]
    pub fn note(&self) -> Option<Note> {
        self.messages.pop()
    }

    /// The message of a note; to be asked in the order in which the notes came.
    #[inline]
    pub fn whole(&self, note: Note) -> Option<Message> {
        note.with(|| self.hits.pop(), || self.siblings.pop())
    }

    /// No message waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Outlet {
    queues: Queues,
    worker: u16,
    sequence: u64,
    /// Free places a packet or timer may need: a hit for each rule that waits, on each of its events.
    reserve: usize,
    /// Free places known of, as of the last look at the queues.
    credit: usize,
    pub account: EventAccount,
}

impl Outlet {
    /// `rules`: those that may match on one event. Where the queue is too small for all of them, what finds no room
    /// is counted in a replay too.
    pub fn new(queues: Queues, worker: u16, rules: usize) -> Outlet {
        let account = EventAccount::default();
        let mut outlet = Outlet { queues, worker, sequence: 0, reserve: RESERVE, credit: 0, account };
        outlet.keep_room_for(rules);
        outlet
    }

    /// Other rules are asked now.
    pub fn keep_room_for(&mut self, rules: usize) {
        self.reserve = (EVENTS * rules).clamp(RESERVE, self.queues.messages.capacity() / 2);
    }

    /// Room for whatever one packet or timer can raise. Looks at the queues only when what it knew is spent.
    #[inline(always)]
    pub fn roomy(&mut self) -> bool {
        self.credit >= self.reserve || self.look()
    }

    #[cold]
    fn look(&mut self) -> bool {
        // There are no more hits or siblings than messages.
        let free = self.queues.messages.capacity() - self.queues.messages.len();
        let rows = self.queues.rows.as_ref().map_or(usize::MAX, |r| r.capacity() - r.len());
        // Flows that end take rows, few of them however many rules there are.
        self.credit = rows.checked_sub(RESERVE).map_or(0, |rows| free.min(rows.saturating_add(self.reserve)));
        self.credit >= self.reserve
    }

    #[inline(always)]
    pub fn handover(&self) -> &Handover {
        &self.queues.handover
    }

    #[inline(always)]
    pub fn demands(&self) -> &DemandBox {
        &self.queues.demands
    }

    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// The next message would be dropped.
    pub fn is_full(&self) -> bool {
        self.queues.messages.is_full()
    }

    pub fn hit(&mut self, mut hit: Hit) {
        (hit.worker, hit.sequence) = (self.worker, self.sequence);
        // Nobody else puts anything in: room that is there stays.
        let room = !self.queues.messages.is_full() && self.queues.hits.push(hit).is_ok();
        let sent = room && self.queues.messages.push(Message::Hit(())).is_ok();
        self.account.hits_dropped += u64::from(!sent);
        self.count(sent);
    }

    pub fn siblings(&mut self, message: Message) {
        let Message::Siblings { addr, port, siblings, .. } = message else { return };
        let room = !self.queues.messages.is_full() && self.queues.siblings.push(siblings).is_ok();
        let note = Message::Siblings { addr, port, worker: self.worker, siblings: () };
        self.count(room && self.queues.messages.push(note).is_ok());
    }

    /// A message that leaves nothing out.
    pub fn send(&mut self, message: Note) {
        let sent = self.queues.messages.push(message).is_ok();
        self.count(sent);
    }

    fn count(&mut self, sent: bool) {
        self.sequence += 1;
        self.credit = self.credit.saturating_sub(1);
        self.account.raised += 1;
        self.account.delivered += u64::from(sent);
        self.account.dropped += u64::from(!sent);
    }

    pub fn row(&mut self, flow: &Flow, trouble: Option<&Trouble>, app: AppEnd) {
        if let Some(rows) = self.queues.rows.as_ref().filter(|_| trouble.is_some() || !self.queues.found) {
            self.credit = self.credit.saturating_sub(1);
            let trouble = trouble.copied().unwrap_or_default();
            match rows.push(EndedFlow { flow: *flow, trouble, app }) {
                Ok(()) => self.account.rows += 1,
                Err(_) => self.account.rows_dropped += 1,
            }
        }
    }

    #[inline]
    pub fn command(&self) -> Option<Command> {
        self.queues.commands.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_rules_there_are_rows_find_room() {
        let rules = 10_000;
        let queues = Queues::taking_turns(rules, true);
        let mut outlet = Outlet::new(queues.clone(), 0, rules);
        let flow: Flow = bytemuck::Zeroable::zeroed();
        for _ in 0..5_000 {
            if !outlet.roomy() {
                while queues.rows.as_ref().and_then(|rows| rows.pop()).is_some() {}
                assert!(outlet.roomy());
            }
            outlet.row(&flow, None, AppEnd::default());
        }
        assert_eq!((outlet.account.rows, outlet.account.rows_dropped), (5_000, 0));
    }

    #[test]
    fn what_most_messages_are_takes_two_cache_lines() {
        // The queue puts a stamp of eight bytes before each.
        assert!(size_of::<Note>() + 8 <= 128, "{}", size_of::<Note>());
    }
}
