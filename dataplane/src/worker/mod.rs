//! The pinned loop: a batch at a time from source to history and guards. It only calls; state belongs to the
//! stages. After start it never allocates, locks, logs, waits or runs Rhai.
//!
//! [`Worker::step`] does one piece of work and returns; whoever drives it (a thread when live, the replay
//! loop) decides what to do in between. `engine` takes one packet through the stages, `apps` looks at
//! payload, `ask` asks the rules, `verdict` follows when one matches, `handover` brings others, `demand` captures what
//! somebody asks for, `outlet` is the way to the judge.

mod apps;
mod ask;
mod clock;
mod crowd;
mod demand;
mod engine;
mod handover;
mod idle;
mod kept;
mod lifecycle;
mod outlet;
mod splits;
mod trials;
mod unusual;
mod verdict;
mod watch;

use std::sync::Arc;

use rules::RuleSet;

use crate::activity::Party;
use crate::config::WorkerConfig;
use crate::decode::{self, Packet};
use crate::flow::copies;
use crate::flow::keeper::Stamp;
use crate::ledger::WorkerAccount;
use crate::record::Recorder;
use crate::source::{BATCH, Batch, Marks, Nanos, Poll, Source};
use engine::Engine;
pub use handover::Handover;
pub use outlet::{EndedFlow, Queues};
pub use splits::SplitTable;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Packets, timers or rows were dealt with.
    Worked,
    /// The source had nothing; its clock stands here.
    Idle(Nanos),
    /// Lossless only: the queues need emptying before it can go on.
    Full,
    /// The input has ended, and so have all flows.
    Done,
}

/// So many packets before its turn a packet's flow starts to be loaded: all of a batch at once are more than a core
/// can wait for.
const AHEAD: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The input ended: timers due by its last packet, then every flow still alive.
    Timers,
    Flows,
    Done,
}

/// What a packet is found by: its flow's hash, and its own among those that may come twice.
#[derive(Clone, Copy, Debug, Default)]
struct Hashes {
    flow: u64,
    identity: u64,
}

/// One worker over one source.
#[derive(Debug)]
pub struct Worker<S: Source> {
    source: S,
    batch: Batch,
    /// The next packet of the batch.
    next: usize,
    packets: Box<[Packet]>,
    hashes: Box<[Hashes]>,
    engine: Engine,
    phase: Phase,
    /// Where the silent source's clock stands, until timers have come that far.
    idle: Option<Nanos>,
    /// Interfaces the recorder knows.
    announced: usize,
    lossless_at_end: bool,
}

impl<S: Source> Worker<S> {
    /// Takes all its memory. Without a recorder nothing is held or kept.
    pub fn new(
        source: S,
        config: &WorkerConfig,
        rules: Arc<RuleSet>,
        queues: Queues,
        recorder: Option<Recorder>,
        number: u16,
    ) -> Worker<S> {
        let blank = decode::decode(crate::source::LinkType::Other(0), &[], 0);
        let mut worker = Worker {
            source,
            batch: Batch::new(),
            next: 0,
            packets: vec![blank; BATCH].into_boxed_slice(),
            hashes: vec![Hashes::default(); BATCH].into_boxed_slice(),
            engine: Engine::new(config, rules, queues, recorder, number),
            phase: Phase::Running,
            idle: None,
            announced: 0,
            lossless_at_end: config.lossless_at_end,
        };
        worker.announce();
        worker
    }

    /// Has it note its flows where the others note theirs, so that one that two have is found out.
    pub fn compare_flows(&mut self, table: Arc<SplitTable>) {
        self.engine.splits = Some(table);
    }

    /// Has the kernel give the memory that is sure to be used before packets come, near the core this runs on. False if
    /// it won't: then it comes piece by piece, as packets fill it.
    pub fn populate(&mut self) -> bool {
        self.engine.ring.populate()
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    /// The recorder, to ask for free chunks; not in the packet path. It knows the source's interfaces.
    pub fn recorder(&mut self) -> Option<&mut Recorder> {
        self.engine.recorder.as_mut()
    }

    pub fn account(&self) -> WorkerAccount {
        self.engine.account()
    }

    pub fn live_flows(&self) -> u32 {
        self.engine.live()
    }

    pub fn peak_flows(&self) -> u32 {
        self.engine.peak()
    }

    /// How far back history reaches, ns.
    pub fn horizon(&self) -> Option<Nanos> {
        self.engine.horizon()
    }

    /// The worker's packet time.
    pub fn now(&self) -> Nanos {
        self.engine.now
    }

    /// After the last step and the judge's last word: hands the recorder part of what holds still have to
    /// give; true once that and its last chunk are handed over.
    pub fn finish(&mut self) -> bool {
        self.engine.finish()
    }

    /// Takes the commands, demands and rules that came, then does one piece of work.
    pub fn step(&mut self) -> Step {
        self.engine.commands();
        self.engine.pump();
        self.engine.follow_demands();
        match self.phase {
            Phase::Running => {
                self.engine.follow_rules();
                match self.run() {
                    // Whoever drives it is not to sleep meanwhile.
                    Step::Idle(_) if self.engine.demands.scans() => Step::Worked,
                    step => step,
                }
            }
            Phase::Timers => {
                if !self.engine.last_timers() {
                    return Step::Full;
                }
                self.phase = Phase::Flows;
                Step::Worked
            }
            Phase::Flows => {
                if !self.engine.end_flows() || !self.engine.tell_rest() {
                    return Step::Full;
                }
                self.phase = Phase::Done;
                Step::Done
            }
            Phase::Done => Step::Done,
        }
    }

    fn run(&mut self) -> Step {
        if self.idle.is_some() {
            return self.wait();
        }
        if self.next == self.batch.packets.len() {
            self.source.release(&mut self.batch);
            self.next = 0;
            match self.source.poll(&mut self.batch) {
                Poll::Packets => {
                    if self.source.interfaces().len() > self.announced {
                        self.announce();
                    }
                    self.decode();
                }
                Poll::Idle(now) => {
                    self.idle = Some(now);
                    return self.wait();
                }
                Poll::End => {
                    self.engine.lossless |= self.lossless_at_end;
                    self.phase = Phase::Timers;
                    return Step::Worked;
                }
            }
        }
        self.process()
    }

    /// Takes the clock of a silent source on, if need be in several steps.
    fn wait(&mut self) -> Step {
        match self.idle {
            Some(now) if !self.engine.advance(now) => Step::Full,
            Some(now) => {
                self.idle = None;
                Step::Idle(now)
            }
            None => Step::Worked,
        }
    }

    /// Tells the recorder of interfaces that are new, before it gets packets of them. Allocates, so only at the
    /// start and when a capture file brings an interface in its middle: a live source knows its own at once.
    #[cold]
    fn announce(&mut self) {
        let interfaces = self.source.interfaces();
        for interface in &interfaces[self.announced..] {
            self.engine.demands.announce(interface);
            if let Some(recorder) = &mut self.engine.recorder {
                recorder.announce(interface);
            }
        }
        self.announced = interfaces.len();
    }

    /// The batch's first pass: decode everything and start loading where it is looked up, then its flows.
    fn decode(&mut self) {
        for (i, descriptor) in self.batch.packets.iter().enumerate() {
            let bytes = self.source.bytes(descriptor);
            decode::decode_into(descriptor.link, bytes, descriptor.orig_len, &mut self.packets[i]);
            if descriptor.marks != Marks::NONE {
                self.packets[i].mark(descriptor.marks);
            }
            let flow = self.engine.table.hash(&self.packets[i].key);
            self.engine.table.prefetch_bucket(flow);
            let identity = copies::identity(&self.packets[i], flow);
            self.engine.copies.prefetch(identity);
            self.hashes[i] = Hashes { flow, identity };
        }
        (0..AHEAD.min(self.batch.packets.len())).for_each(|n| self.load(n));
    }

    /// Starts loading what the batch's packet of this number is looked up in.
    #[inline(always)]
    fn load(&self, n: usize) {
        let packet = &self.packets[n];
        if self.engine.table.prefetch_flow(self.hashes[n].flow, packet) {
            // Most services have the lower port.
            let service = usize::from(packet.key.low_port > packet.key.high_port);
            let service = Party::of(&packet.key, service);
            self.engine.sightings.prefetch(service.addr);
            self.engine.activity.prefetch(&service);
        }
    }

    fn process(&mut self) -> Step {
        while let Some(descriptor) = self.batch.packets.get(self.next) {
            if !self.engine.advance(descriptor.ts) {
                return Step::Full;
            }
            let stamp = Stamp {
                ts: descriptor.ts,
                number: self.engine.next_number(),
                orig_len: descriptor.orig_len,
                interface: descriptor.interface,
            };
            let soon = self.next + AHEAD;
            if soon < self.batch.packets.len() {
                self.load(soon);
            }
            let bytes = self.source.bytes(descriptor);
            self.engine.packet(&stamp, &self.packets[self.next], self.hashes[self.next], bytes);
            self.next += 1;
        }
        Step::Worked
    }
}

#[cfg(test)]
mod tests;
