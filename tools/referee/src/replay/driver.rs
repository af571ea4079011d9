//! The replay loop: one step of the worker, then the judge on what it raised, then the outputs, and again.
//!
//! Main thread, which is worker and judge in one here, so that the worker takes no further batch until the
//! judge has dealt with the last. The same `Worker` runs live. Results go to `ledger` and `report`.

use std::collections::VecDeque;
use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::filter::Filtered;
use dataplane::flow::row::{self, FlowRow};
use dataplane::judge::message::{Command, Message};
use dataplane::judge::{Incident, Judge, JudgeConfig};
use dataplane::record::Recorder;
use dataplane::source::file::FileSource;
use dataplane::source::merge::Merge;
use dataplane::worker::{Queues, Step, Worker};
use rules::RuleSet;

use super::progress::Progress;
use crate::recording::Recording;
use crate::report::finished::{Counted, Finished, Inputs, Kept, Timing};
use crate::report::metrics::{self, troubles::Troubles};
use crate::report::outputs::{Kind, Outputs};
use crate::report::tally::Tally;

/// Stands between worker and judge, and sees what passes: for trying rules out.
pub trait Observer {
    /// Gives the judge a message. Commands that are left go to the worker.
    fn message(&mut self, message: &Message, judge: &mut Judge, commands: &mut Vec<Command>);
    fn opened(&mut self, incident: &Incident);
    fn closed(&mut self, incident: &Incident);
}

/// A replay under way.
pub struct Replay<'a> {
    observer: Option<&'a mut dyn Observer>,
    worker: Worker<Filtered<Merge<FileSource>>>,
    judge: Judge,
    rules: Arc<RuleSet>,
    queues: Queues,
    /// Commands that found no room in the queue yet, in order.
    pending: VecDeque<Command>,
    commands: Vec<Command>,
    recording: Option<Recording>,
    outputs: Outputs,
    /// What people are told; `None` if only machines read the output.
    tally: Option<Tally>,
    kept: Kept,
    counted: Counted,
    troubles: Troubles,
}

/// A replay that has ended, and those it has still to tell.
pub struct Ended {
    pub finished: Finished,
    pub outputs: Outputs,
    pub tally: Option<Tally>,
}

impl<'a> Replay<'a> {
    pub fn new(
        source: Filtered<Merge<FileSource>>,
        config: &WorkerConfig,
        judge: JudgeConfig,
        rules: Arc<RuleSet>,
        recording: Option<(Recording, Recorder)>,
        outputs: Outputs,
    ) -> Replay<'a> {
        let tally = (!outputs.to_stdout()).then(Tally::default);
        // Nothing is lost of a replay.
        let rows = tally.is_some() || outputs.wants(Kind::Flows);
        let queues = Queues::taking_turns(rules.most_on_an_event(), rows);
        let (recording, recorder) = recording.unzip();
        Replay {
            observer: None,
            worker: Worker::new(source, config, Arc::clone(&rules), queues.clone(), recorder, 0),
            judge: Judge::new(Arc::clone(&rules), judge),
            rules,
            queues,
            pending: VecDeque::new(),
            commands: Vec::new(),
            recording,
            outputs,
            tally,
            kept: Kept::default(),
            counted: Counted::default(),
            troubles: Troubles::default(),
        }
    }

    /// The same, with somebody looking on.
    pub fn observed(self, observer: &'a mut dyn Observer) -> Replay<'a> {
        Replay { observer: Some(observer), ..self }
    }

    /// Runs to the end of the input, or until nobody is left to read the output.
    pub fn run(mut self) -> Ended {
        let mut progress = Progress::new(!self.outputs.to_stdout(), self.worker.source().inner());
        let chunks = self.worker.recorder().map_or(0, |recorder| recorder.free_chunks());
        let abandoned = loop {
            self.wait();
            let step = self.worker.step();
            self.messages();
            self.rows();
            if step == Step::Full {
                // Verdicts go out, and commands back, in the order they would if the queues had room for all of it.
                continue;
            }
            self.verdicts();
            self.send();
            progress.step(self.worker.source().inner(), || self.worker.account().received);
            let abandoned = self.recording.is_none() && self.outputs.all_gone();
            if step == Step::Done || abandoned {
                break abandoned;
            }
        };
        self.judge.finish(&mut self.commands);
        self.verdicts();
        self.give_rest();
        self.end(chunks, progress.finish(), abandoned)
    }

    /// Lets the writer catch up, so that nothing is ever dropped for want of a chunk.
    fn wait(&mut self) {
        if let (Some(recording), Some(recorder)) = (&mut self.recording, self.worker.recorder()) {
            recording.wait(recorder);
        }
    }

    fn messages(&mut self) {
        while let Some(message) = &self.queues.message() {
            self.counted.messages += 1;
            match &mut self.observer {
                Some(observer) => observer.message(message, &mut self.judge, &mut self.commands),
                None => self.judge.handle(message, &mut self.commands),
            }
        }
    }

    fn rows(&mut self) {
        let Some(rows) = &self.queues.rows else { return };
        while let Some(ended) = &rows.pop() {
            self.counted.rows += 1;
            if self.outputs.wants(Kind::Flows) {
                self.outputs.line(Kind::Flows, &FlowRow::from_ended(ended, &self.rules));
            }
            if let Some(tally) = &mut self.tally {
                let span = (ended.flow.start_ns, ended.flow.last_ns);
                tally.flow(span, &row::findings(ended, &self.rules));
            }
        }
    }

    /// Incidents that opened go to the store at once, so that what is killed later has named its captures; a
    /// closed one takes its place there and goes to the outputs, unless it was withdrawn: nobody has seen it here.
    fn verdicts(&mut self) {
        for incident in self.judge.opened() {
            if let Some(observer) = &mut self.observer {
                observer.opened(&incident);
            }
            if let Some(recording) = &mut self.recording {
                recording.keep(&incident);
            }
        }
        for incident in self.judge.folded() {
            if let Some(recording) = &mut self.recording {
                recording.keep(&incident);
            }
        }
        for incident in self.judge.closed() {
            if !incident.withdrawn {
                self.troubles.over(&incident);
            }
            if let Some(observer) = &mut self.observer {
                observer.closed(&incident);
            }
            if !incident.withdrawn {
                self.outputs.line(Kind::Incidents, &incident);
            }
            if let Some(recording) = &mut self.recording {
                recording.keep(&incident);
            }
            if let Some(tally) = self.tally.as_mut().filter(|_| !incident.withdrawn) {
                tally.incident(incident);
            }
        }
    }

    /// Hands commands over as far as there is room. The worker takes them at its next step.
    fn send(&mut self) {
        for command in self.commands.drain(..) {
            if let Command::Keep { flow_id, .. } = command {
                self.kept.insert(flow_id);
            }
            self.pending.push_back(command);
        }
        while let Some(command) = self.pending.pop_front() {
            if let Err(command) = self.queues.commands.push(command) {
                self.pending.push_front(command);
                return;
            }
        }
    }

    /// After the last verdict: all commands, then all that holds and the recorder still have.
    fn give_rest(&mut self) {
        self.send();
        while !self.pending.is_empty() {
            self.wait();
            // A worker that is done only takes commands and empties holds.
            self.worker.step();
            self.send();
        }
        while !self.worker.finish() {
            self.wait();
        }
    }

    fn end(mut self, chunks: usize, seconds: f64, abandoned: bool) -> Ended {
        let recorded = self.recording.take().map(Recording::finish);
        let (source, mut account) = (self.worker.source(), self.worker.account());
        source.account(&mut account);
        let filter = source.refused().map(|(filter, refused)| (filter.clone(), refused));
        let source = source.inner();
        let inputs = Inputs::Files { reports: source.reports(), late: source.late(), abandoned, filter };
        let finished = Finished {
            ticking: None,
            worker: account,
            live: self.worker.live_flows(),
            peak: self.worker.peak_flows(),
            judge: self.judge.account(),
            standing: self.judge.standing(metrics::SHOWN),
            counted: self.counted,
            timing: Timing::default(),
            troubles: self.troubles,
            notified: Vec::new(),
            bodies: self.judge.bodies(),
            chunks: (chunks, recorded.as_ref().map_or(0, |recorded| recorded.account.chunks_free as usize)),
            recorded,
            inputs,
            kept: self.kept,
            reloads: (0, 0),
            seconds,
        };
        Ended { finished, outputs: self.outputs, tally: self.tally }
    }
}
