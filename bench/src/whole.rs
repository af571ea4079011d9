//! The real worker over an input, with the judge and the writer, which are other threads when live, run in
//! between and timed apart. On the benchmark's one thread. Whatever doesn't add up is returned as a complaint.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dataplane::judge::message::Command;
use dataplane::judge::{Judge, JudgeConfig};
use dataplane::record::{Disk, RecordConfig, Writer, recorder};
use dataplane::worker::{Queues, Step, Worker};
use rules::RuleSet;
use serde::Serialize;

use crate::alloc;
use crate::clocked::Clocked;
use crate::host;
use crate::input::Input;
use crate::stages::Seen;

/// What the worker did, besides the time it took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    pub peak_flows: u32,
    pub flows_created: u64,
    pub flows_evicted: u64,
    /// Messages to the judge, and of these guards' hits.
    pub messages: u64,
    pub hits: u64,
    pub incidents: u64,
    pub packets_kept: u64,
    pub packets_written: u64,
    pub segment_bytes: u64,
    pub tails_rescued: u64,
    pub allocations: u64,
    /// Of the process while the worker still had everything.
    pub resident_bytes: u64,
    /// Pages found before the clock started and while it ran.
    pub faults_warm: u64,
    pub faults_timed: u64,
    /// Time inside the judge and the writer while the clock ran, ns a packet.
    pub judge_ns: f64,
    pub writer_ns: f64,
}

/// A run's numbers, and in what it contradicts itself.
pub struct Whole {
    pub seen: Seen,
    pub totals: Totals,
    pub complaints: Vec<String>,
}

/// The parts of a pipeline, and what is counted around them.
struct Bench {
    worker: Worker<Clocked>,
    judge: Judge,
    writer: Option<Writer>,
    queues: Queues,
    commands: Vec<Command>,
    heard: u64,
    allocations: u64,
    judging: Duration,
    writing: Duration,
}

/// Runs the whole worker; with `recording`, a recorder and a writer on a disk that forgets.
pub fn worker(input: &Input, rules: &Arc<RuleSet>, recording: bool) -> Result<Whole> {
    let faults = host::page_faults();
    let source = Clocked::open(input.file.path(), input.warm)?;
    let queues = Queues::new(input.config.messages, false);
    let (recorder, writer) = if recording {
        let config = RecordConfig::default();
        let (recorder, port) = recorder(&config, 0);
        (Some(recorder), Some(Writer::new(Box::new(Nowhere), config, vec![port]).context("the null disk")?))
    } else {
        (None, None)
    };
    let mut bench = Bench {
        worker: Worker::new(source, &input.config, Arc::clone(rules), queues.clone(), recorder, 0),
        judge: Judge::new(Arc::clone(rules), JudgeConfig::default()),
        writer,
        queues,
        commands: Vec::with_capacity(4096),
        heard: 0,
        allocations: 0,
        judging: Duration::ZERO,
        writing: Duration::ZERO,
    };
    bench.worker.populate();
    let resident = bench.run();
    bench.finish();
    Ok(bench.report(input, faults, resident))
}

impl Bench {
    /// To the end of input and of all flows; gives the resident bytes when the last packet was through.
    #[inline(never)]
    fn run(&mut self) -> u64 {
        let mut resident = 0;
        loop {
            let before = alloc::count();
            let step = self.worker.step();
            self.allocations += alloc::count() - before;
            if resident == 0 && self.worker.source().timing().packets > 0 {
                resident = host::resident();
            }
            self.judge();
            self.write();
            if step == Step::Done {
                return resident;
            }
        }
    }

    #[inline]
    fn judge(&mut self) {
        if self.queues.is_empty() {
            return;
        }
        let begun = Instant::now();
        while let Some(message) = &self.queues.message() {
            self.heard += 1;
            self.judge.handle(message, &mut self.commands);
        }
        for command in self.commands.drain(..) {
            self.queues.commands.force_push(command);
        }
        // Whoever writes reports takes these all the time.
        drop((self.judge.opened(), self.judge.closed()));
        if self.worker.source().running() {
            self.judging += begun.elapsed();
        }
    }

    #[inline]
    fn write(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        let begun = Instant::now();
        while writer.pump() {}
        if self.worker.source().running() {
            self.writing += begun.elapsed();
        }
    }

    fn finish(&mut self) {
        self.judge.finish(&mut self.commands);
        self.commands.clear();
        while !self.worker.finish() {
            self.write();
        }
        if let Some(writer) = &mut self.writer {
            writer.close();
        }
    }

    fn report(mut self, input: &Input, faults: u64, resident: u64) -> Whole {
        let (source, account, judged) = (self.worker.source(), self.worker.account(), self.judge.account());
        let timing = source.timing();
        let seen = Seen {
            timing,
            packets: source.packets(),
            bytes: account.bytes,
            peak: self.worker.peak_flows(),
            table_bytes: 0,
        };
        let written = self.writer.as_ref().map(|writer| writer.account().clone()).unwrap_or_default();
        let per_packet = |time: Duration| time.as_secs_f64() * 1e9 / timing.packets.max(1) as f64;
        let totals = Totals {
            peak_flows: seen.peak,
            flows_created: account.flows_created,
            flows_evicted: account.flows_evicted + account.half_open_evicted,
            messages: account.events.raised,
            hits: judged.hits,
            incidents: judged.incidents_opened,
            packets_kept: account.kept.kept,
            packets_written: written.written_packets,
            segment_bytes: written.bytes_written,
            tails_rescued: account.tails_rescued,
            allocations: self.allocations,
            resident_bytes: resident,
            faults_warm: (host::page_faults() - faults).saturating_sub(timing.faults),
            faults_timed: timing.faults,
            judge_ns: per_packet(self.judging),
            writer_ns: per_packet(self.writing),
        };
        let complaints = self.complaints(input);
        Whole { seen, totals, complaints }
    }

    /// In what the accounts contradict each other, the input, or the rule that a worker doesn't allocate.
    fn complaints(&mut self, input: &Input) -> Vec<String> {
        let (account, judged) = (self.worker.account(), self.judge.account());
        let written = self.writer.as_ref().map(|writer| writer.account().clone()).unwrap_or_default();
        let evicted = account.flows_evicted + account.half_open_evicted;
        let mut complaints = Vec::new();
        let mut expect = |fine: bool, what: String| {
            if !fine {
                complaints.push(what);
            }
        };
        expect(account.received == input.packets, format!("{} packets received", account.received));
        expect(account.balanced(u64::from(self.worker.live_flows())), format!("the books: {account:?}"));
        expect(self.worker.live_flows() == 0, "flows outlived the input".to_owned());
        expect(account.events.dropped == 0, format!("{} events dropped", account.events.dropped));
        expect(account.events.delivered == self.heard, format!("{} messages heard", self.heard));
        expect(self.allocations == 0, format!("{} allocations in the worker's steps", self.allocations));
        expect(account.flows_created >= input.flows, format!("{} flows made", account.flows_created));
        expect(evicted == 0, format!("{evicted} flows pushed out"));
        expect(
            judged.hits == judged.hits_judged + judged.hits_repeated + judged.hits_refused,
            format!("the judge's books: {judged:?}"),
        );
        let lost = account.kept.unwritten.iter().sum::<u64>() + written.unwritten_packets.iter().sum::<u64>();
        let kept = account.kept.kept;
        let both = format!("{kept} packets kept, {} written, {lost} not", written.written_packets);
        expect(kept == written.written_packets + lost, both);
        if let Some(recorder) = self.worker.recorder() {
            let (free, all) = (recorder.free_chunks(), RecordConfig::default().chunks);
            expect(free == all, format!("{free} chunks of {all} came back"));
        }
        complaints
    }
}

/// A disk that takes everything and keeps nothing.
struct Nowhere;

impl Disk for Nowhere {
    fn create(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn append(&mut self, _name: &str, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, _name: &str, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _name: &str) {}

    fn remove(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn is_there(&mut self, _name: &str) -> bool {
        true
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(Vec::new())
    }
}
