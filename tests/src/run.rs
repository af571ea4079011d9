//! The pipeline in one thread: worker, judge and writer, driven step by step by whoever owns a [`Pipeline`].
//!
//! Every run ends in [`Pipeline::finish`], which checks the books: a test that only wants rows gets the law
//! of accounts for nothing. Lossless unless the setup says otherwise.

use std::sync::Arc;

use dataplane::config::WorkerConfig;
use dataplane::demand::Demand;
use dataplane::flow::row::FlowRow;
use dataplane::judge::message::{Command, Message};
use dataplane::judge::{Incident, Judge, JudgeAccount, JudgeConfig};
use dataplane::ledger::WorkerAccount;
use dataplane::record::{Disk, RecordConfig, Writer, WriterAccount, recorder};
use dataplane::source::Source;
use dataplane::worker::{Queues, Step, Worker};
use rules::{Override, RuleSet, SourceFile};

/// The shipped rules.
pub fn shipped_rules() -> Arc<RuleSet> {
    load(&rules::library(), &[])
}

/// Loads rules; a mistake in them is a mistake in the test.
pub fn load(files: &[SourceFile], overrides: &[Override]) -> Arc<RuleSet> {
    match RuleSet::load(files, overrides) {
        Ok(rules) => Arc::new(rules),
        Err(errors) => panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()),
    }
}

/// What a run is made of.
pub struct Setup {
    pub config: WorkerConfig,
    pub rules: Arc<RuleSet>,
    pub judge: JudgeConfig,
    /// Where to record, if at all.
    pub record: Option<(RecordConfig, Box<dyn Disk>)>,
}

impl Setup {
    /// A small, lossless worker with the shipped rules, recording nothing.
    pub fn small() -> Setup {
        Setup::with(WorkerConfig::small(), shipped_rules())
    }

    pub fn with(config: WorkerConfig, rules: Arc<RuleSet>) -> Setup {
        let config = WorkerConfig { lossless: true, ..config };
        Setup { config, rules, judge: JudgeConfig::default(), record: None }
    }

    pub fn recording(mut self, config: RecordConfig, disk: impl Disk + 'static) -> Setup {
        self.record = Some((config, Box::new(disk)));
        self
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub rows: Vec<FlowRow>,
    pub incidents: Vec<Incident>,
    /// Those that later packets disproved.
    pub withdrawn: Vec<Incident>,
    pub opened: Vec<Incident>,
    /// Opened, and then found to be part of another.
    pub folded: Vec<Incident>,
    pub account: WorkerAccount,
    pub judged: JudgeAccount,
    pub written: Option<WriterAccount>,
    pub peak_flows: u32,
}

impl Outcome {
    /// Everything another program would see, as text: two runs are alike if these are.
    pub fn reports(&self) -> String {
        let json =
            |value: Result<String, serde_json::Error>| value.expect("reports are plain records") + "\n";
        let rows = self.rows.iter().map(|row| json(serde_json::to_string(row)));
        let incidents = self.opened.iter().chain(&self.incidents).map(|i| json(serde_json::to_string(i)));
        let accounts = format!("{:?}\n{:?}\n{:?}\n", self.account, self.judged, self.written);
        rows.chain(incidents).chain([accounts]).collect()
    }
}

/// The pipeline.
pub struct Pipeline<S: Source> {
    pub worker: Worker<S>,
    pub judge: Judge,
    pub writer: Option<Writer>,
    queues: Queues,
    /// Every set there was, so that no worker frees one.
    rules: Vec<Arc<RuleSet>>,
    lossless: bool,
    chunks: usize,
    commands: Vec<Command>,
    hits: u64,
    heard: u64,
    passed_over: u64,
    rows: Vec<FlowRow>,
    opened: Vec<Incident>,
    closed: Vec<Incident>,
    folded: Vec<Incident>,
}

impl<S: Source> Pipeline<S> {
    pub fn new(source: S, setup: Setup) -> Pipeline<S> {
        let queues = Queues::new(setup.config.messages, true);
        let chunks = setup.record.as_ref().map_or(0, |(config, _)| config.chunks.max(2));
        let (recorder, writer) = match setup.record {
            Some((config, disk)) => {
                let (recorder, port) = recorder(&config, 0);
                let writer = Writer::new(disk, config, vec![port]).expect("the disk can be listed");
                (Some(recorder), Some(writer))
            }
            None => (None, None),
        };
        let rules = setup.rules;
        Pipeline {
            worker: Worker::new(source, &setup.config, Arc::clone(&rules), queues.clone(), recorder, 0),
            judge: Judge::new(Arc::clone(&rules), setup.judge),
            writer,
            queues,
            rules: vec![rules],
            lossless: setup.config.lossless,
            chunks,
            commands: Vec::new(),
            hits: 0,
            heard: 0,
            passed_over: 0,
            rows: Vec::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            folded: Vec::new(),
        }
    }

    /// The set that was given to the worker last.
    pub fn rules(&self) -> &Arc<RuleSet> {
        self.rules.last().expect("there is a first set")
    }

    /// Gives worker and judge the set that these files make after the last one.
    pub fn reload(&mut self, files: &[SourceFile]) -> Arc<RuleSet> {
        let rules = RuleSet::load_after(Some(self.rules()), files, &[]).expect("the rules are right");
        self.rules.push(Arc::new(rules));
        let rules = Arc::clone(self.rules());
        self.judge.adopt(Arc::clone(&rules));
        self.queues.handover.offer(&rules);
        rules
    }

    /// Lays a capture on demand ready for the worker; the caller keeps it until the end, so that no worker frees one.
    pub fn demand(&self, demand: &Arc<Demand>) -> bool {
        self.queues.demands.offer(demand)
    }

    /// Generation of the set the worker goes by.
    pub fn live(&self) -> u32 {
        self.queues.handover.live()
    }

    /// The next message a worker sent, not yet judged.
    pub fn message(&self) -> Option<Message> {
        self.queues.message()
    }

    /// Lets the judge deal with one message; its commands go back to the worker and are handed to the caller.
    /// Commands that find no room are lost, as they would be live.
    pub fn judge(&mut self, message: &Message) -> Vec<Command> {
        self.heard += 1;
        self.hits += u64::from(matches!(message, Message::Hit(_)));
        self.judge.handle(message, &mut self.commands);
        let commands: Vec<Command> = self.commands.drain(..).collect();
        for command in &commands {
            let taken = self.queues.commands.push(*command).is_ok();
            assert!(taken || !self.lossless, "a replay never has more commands waiting than the queue holds");
        }
        commands
    }

    /// Counts a message as heard that the caller keeps from the judge.
    pub fn pass_over(&mut self) {
        self.heard += 1;
        self.passed_over += 1;
    }

    /// Lets the judge deal with at most `most` messages, and takes the rows that are there.
    pub fn hear(&mut self, most: usize) {
        for _ in 0..most {
            let Some(message) = self.message() else { break };
            self.judge(&message);
        }
        self.collect();
    }

    /// Takes rows and incidents that are ready; gives the incidents that opened just now.
    pub fn collect(&mut self) -> Vec<Incident> {
        while let Some(row) = self.queues.rows.as_ref().and_then(|rows| rows.pop()) {
            self.rows.push(FlowRow::from_ended(&row, self.rules.last().expect("there is a first set")));
        }
        let opened = self.judge.opened();
        self.opened.extend(opened.iter().cloned());
        self.closed.extend(self.judge.closed());
        self.folded.extend(self.judge.folded());
        opened
    }

    /// Lets the writer write all it has.
    pub fn write(&mut self) {
        if let Some(writer) = &mut self.writer {
            while writer.pump() {}
        }
    }

    /// Runs until the input and all flows have ended.
    pub fn run(mut self) -> Outcome {
        loop {
            let step = self.worker.step();
            self.hear(usize::MAX);
            self.write();
            if step == Step::Done {
                return self.finish();
            }
        }
    }

    /// After the last step: the judge's last word, the recorder's last chunk, and the books.
    pub fn finish(mut self) -> Outcome {
        self.hear(usize::MAX);
        self.judge.finish(&mut self.commands);
        for command in self.commands.drain(..) {
            self.queues.commands.force_push(command);
        }
        self.collect();
        let mut rounds = 0;
        while !self.worker.finish() {
            self.write();
            rounds += 1;
            assert!(rounds < 1_000_000, "holds that never empty");
        }
        if let Some(writer) = &mut self.writer {
            writer.close();
        }
        self.check_books();
        let (withdrawn, incidents) = self.closed.into_iter().partition(|incident| incident.withdrawn);
        Outcome {
            rows: self.rows,
            incidents,
            withdrawn,
            opened: self.opened,
            folded: self.folded,
            account: self.worker.account(),
            judged: self.judge.account(),
            written: self.writer.map(|writer| writer.account().clone()),
            peak_flows: self.worker.peak_flows(),
        }
    }

    fn check_books(&mut self) {
        let account = self.worker.account();
        assert!(
            account.balanced(u64::from(self.worker.live_flows())),
            "the books don't balance: {account:#?}"
        );
        assert_eq!(self.worker.live_flows(), 0, "all flows have ended");
        assert_eq!(account.events.delivered, self.heard, "each message delivered was heard");
        assert_eq!(account.events.rows, self.rows.len() as u64, "each row delivered was taken");
        let flows = account.events.rows + account.events.rows_dropped;
        assert_eq!(flows, account.flows_created, "each flow has a row");
        if self.lossless {
            assert_eq!(
                account.events.dropped + account.events.rows_dropped,
                0,
                "nothing is dropped in replay"
            );
        }
        let judged = self.judge.account();
        assert_eq!(judged.hits, self.hits);
        let e = &account.events;
        let untold = e.matched_again + e.sampled_out + e.hits_overflowed + e.hits_dropped;
        let hits = e.matched.saturating_sub(untold);
        assert!(
            (judged.hits..=judged.hits + self.passed_over).contains(&hits),
            "matches: {e:#?} {judged:#?}"
        );
        assert_eq!(
            judged.hits,
            judged.hits_judged + judged.hits_repeated + judged.hits_refused,
            "{judged:#?}"
        );
        assert_eq!((judged.open, judged.incidents_opened), (0, judged.incidents_closed), "{judged:#?}");
        assert_eq!(judged.incidents_closed, (self.closed.len() + self.folded.len()) as u64);
        let lost: u64 = account.kept.unwritten.iter().sum();
        match &self.writer {
            Some(writer) => {
                let written = writer.account();
                let unwritten: u64 = written.unwritten_packets.iter().sum();
                let out = written.written_packets + unwritten + lost;
                assert_eq!(account.kept.kept, out, "kept = written + unwritten: {account:#?} {written:#?}");
                let free = self.worker.recorder().map_or(0, |recorder| recorder.free_chunks());
                assert_eq!(free, self.chunks, "the chunk pool is whole again");
            }
            None => assert_eq!((account.kept.kept, lost), (0, 0), "nothing is kept without a recorder"),
        }
    }
}

/// Runs all of a source through a small lossless pipeline that records nothing.
pub fn replay<S: Source>(source: S) -> Outcome {
    Pipeline::new(source, Setup::small()).run()
}
