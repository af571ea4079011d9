//! The way in for those of this process who have something for the control thread: the HTTP interface.
//!
//! Anybody's thread puts a request in, bounded and without waiting; the control thread takes it between two looks and gives
//! the answer to whoever asked.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use mio::Waker;

use super::Control;
use super::command::{Answer, Command};
use super::files::FileRefusal;
use crate::rules::check;

/// Requests that may wait.
const WAITING: usize = 32;

/// What is to be done, and who is to be told what came of it.
pub struct Request {
    pub command: Command,
    pub reply: Box<dyn FnOnce(Answer) + Send>,
}

#[derive(Clone)]
pub struct Requests {
    sender: SyncSender<Request>,
    waker: Option<Arc<Waker>>,
}

impl Requests {
    pub fn new(waker: Option<Arc<Waker>>) -> (Requests, Receiver<Request>) {
        let (sender, receiver) = sync_channel(WAITING);
        (Requests { sender, waker }, receiver)
    }

    /// # Errors
    /// Too many wait, or the run is over: the request comes back.
    pub fn ask(&self, request: Request) -> Result<(), Request> {
        match self.sender.try_send(request) {
            Ok(()) => {
                // It looks once a second anyway.
                let _ = self.waker.as_ref().map(|waker| waker.wake());
                Ok(())
            }
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => Err(request),
        }
    }
}

fn answer<T>(done: Result<T, FileRefusal>, of: impl FnOnce(T) -> Answer) -> Answer {
    done.map_or_else(Answer::FileDenied, of)
}

impl Control {
    /// A line of the socket's, answered by a line.
    pub(super) fn answer(&mut self, line: &str) -> String {
        let answer = match serde_json::from_str(line) {
            Ok(command) => self.obey(command),
            Err(error) => Answer::Refused { error: format!("this is no command: {error}") },
        };
        serde_json::to_string(&answer).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// Does what it is told, whoever says it.
    pub(super) fn obey(&mut self, command: Command) -> Answer {
        match command {
            Command::Reload {} => Answer::Reload(self.reload()),
            Command::Status {} => Answer::Status(self.status()),
            Command::Rules {} => {
                let bodies = self.question.ask(&self.stop);
                Answer::Rules(self.sets.states(&self.ticking, bodies.as_ref()))
            }
            Command::Check { files } => {
                Answer::Checked(check::texts(&self.made.origin, &self.made.files, files))
            }
            Command::Switch { rule, switch, on } => Answer::Reload(self.switch(&rule, switch, on)),
            Command::Demand(wish) => Answer::of(self.demands.begin(&wish)),
            Command::Demands {} => Answer::Demands { demands: self.demands.list() },
            Command::DemandGet { id } => Answer::of(self.demands.get(&id)),
            Command::DemandEnd { id } => Answer::of(self.demands.end(&id)),
            Command::RuleFiles {} => answer(self.rule_files(), Answer::Files),
            Command::RuleFile { name } => answer(self.rule_file(&name), Answer::File),
            Command::RuleFilePut(file) => answer(self.put_rule_file(file), Answer::Reload),
            Command::RuleFileDelete { name } => answer(self.delete_rule_file(&name), Answer::Reload),
        }
    }
}
