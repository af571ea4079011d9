//! The worker's way out: messages to the judge, rows of ended flows, and commands back in. Fixed queues;
//! a full one is a counted drop, never a wait (in replay the caller makes room first). Worker's thread.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::flow::Flow;
use crate::flow::trouble::Trouble;
use crate::judge::message::{Command, Hit, Message};
use crate::ledger::EventAccount;

/// Commands waiting for a worker, at most.
const COMMANDS: usize = 4096;
/// Rows waiting, at most.
const ROWS: usize = 4096;
/// Free places a packet or timer may need: a hit for each rule of a full list of hits on each of its events.
pub const RESERVE: usize = 256;

/// A flow that ended, with its trouble record.
#[derive(Clone, Copy, Debug)]
pub struct EndedFlow {
    pub flow: Flow,
    pub trouble: Trouble,
}

/// Both ends' queues of one worker; the other end holds a clone.
#[derive(Clone, Debug)]
pub struct Queues {
    pub messages: Arc<ArrayQueue<Message>>,
    /// Only if somebody asked for rows.
    pub rows: Option<Arc<ArrayQueue<EndedFlow>>>,
    pub commands: Arc<ArrayQueue<Command>>,
}

impl Queues {
    pub fn new(messages: usize, rows: bool) -> Queues {
        Queues {
            messages: Arc::new(ArrayQueue::new(messages.max(2 * RESERVE))),
            rows: rows.then(|| Arc::new(ArrayQueue::new(ROWS))),
            commands: Arc::new(ArrayQueue::new(COMMANDS)),
        }
    }
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Outlet {
    queues: Queues,
    worker: u16,
    sequence: u64,
    /// Free places known of, as of the last look at the queues.
    credit: usize,
    pub account: EventAccount,
}

impl Outlet {
    pub fn new(queues: Queues, worker: u16) -> Outlet {
        Outlet { queues, worker, sequence: 0, credit: 0, account: EventAccount::default() }
    }

    /// Room for whatever one packet or timer can raise. Looks at the queues only when what it knew is spent.
    #[inline(always)]
    pub fn roomy(&mut self) -> bool {
        self.credit >= RESERVE || self.look()
    }

    #[cold]
    fn look(&mut self) -> bool {
        let free = self.queues.messages.capacity() - self.queues.messages.len();
        let rows = self.queues.rows.as_ref().map_or(usize::MAX, |r| r.capacity() - r.len());
        self.credit = free.min(rows);
        self.credit >= RESERVE
    }

    pub fn hit(&mut self, mut hit: Hit) {
        (hit.worker, hit.sequence) = (self.worker, self.sequence);
        self.send(Message::Hit(hit));
    }

    pub fn siblings(&mut self, message: Message) {
        let Message::Siblings { addr, port, siblings, .. } = message else { return };
        self.send(Message::Siblings { addr, port, worker: self.worker, siblings });
    }

    pub fn send(&mut self, message: Message) {
        self.sequence += 1;
        self.credit = self.credit.saturating_sub(1);
        self.account.raised += 1;
        match self.queues.messages.push(message) {
            Ok(()) => self.account.delivered += 1,
            Err(_) => self.account.dropped += 1,
        }
    }

    pub fn row(&mut self, flow: &Flow, trouble: Option<&Trouble>) {
        if let Some(rows) = &self.queues.rows {
            self.credit = self.credit.saturating_sub(1);
            let trouble = trouble.copied().unwrap_or_default();
            match rows.push(EndedFlow { flow: *flow, trouble }) {
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
