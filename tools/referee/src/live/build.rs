//! Workers and their memory, made before packets come, and the threads they become.
//!
//! Main thread. A worker with one queue polls that; one with several, or whose packets others take as well, polls a
//! lane. Each worker's memory is taken on the CPU it will run on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use dataplane::demand::DemandBox;
use dataplane::judge::{Judge, JudgeConfig};
use dataplane::record::Recorder;
use dataplane::source::afxdp::CaptureClock;
use dataplane::source::dispatch::{Ends, ends};
use dataplane::source::lane::{Lane, Numbered};
use dataplane::source::live::{LiveSource, Port, PortReport, Queue};
use dataplane::source::{Interface, Source as _};
use dataplane::worker::{Handover, Queues, SplitTable, Worker};
use dataplane_sys::on_core;
use rules::RuleSet;

use super::judge::{self, Told, Verdicts};
use super::layout::Layout;
use super::service::{self, Supervised};
use super::worker;
use crate::config::{Config, Redispatch};
use crate::control;
use crate::error::Failure;
use crate::term;

/// Incidents and rows that may wait for main.
const OUTBOX: usize = 1 << 16;

/// Everything that captures.
pub struct Taken {
    pub ports: Vec<Port>,
    /// Each with the number of its port.
    pub queues: Vec<(usize, Queue)>,
}

/// Workers with all their memory, before they have threads.
#[derive(Default)]
pub struct Built {
    threads: Vec<Body>,
    lanes: Vec<judge::Lane>,
    chunks: usize,
    pub interfaces: Vec<Interface>,
}

type Body = Box<dyn FnOnce() -> worker::Ended + Send>;

/// Running threads, and what comes from them.
pub struct Threads {
    pub workers: Vec<JoinHandle<worker::Ended>>,
    pub judge: JoinHandle<Verdicts>,
    pub shared: Vec<Arc<worker::Shared>>,
    pub inbox: Receiver<Told>,
    /// Set, it has the judge say how things stand.
    pub asked: Arc<AtomicBool>,
    /// The judge's.
    pub judged: Arc<AtomicU64>,
    pub chunks: usize,
}

impl Threads {
    /// Those that are supervised, in the order of their turns.
    pub fn supervised(&self) -> impl Iterator<Item = Supervised> {
        let workers = (0..self.shared.len()).map(|number| format!("worker-{number}"));
        let names = workers.chain(["judge".to_owned()]);
        names.map(|name| Supervised { name, patience: service::STUCK })
    }

    /// The turns that each worker and the judge have taken.
    pub fn turns(&self) -> impl Iterator<Item = u64> {
        let workers = self.shared.iter().map(|shared| &shared.turns);
        workers.chain([&*self.judged]).map(|turns| turns.load(Ordering::Relaxed))
    }

    /// What each interface received and lost, for the capture files.
    pub fn publish_losses(&self, reports: &[PortReport]) {
        for losses in self.shared.iter().flat_map(|shared| &shared.losses) {
            let Some(report) = reports.get(losses.port) else { continue };
            let dropped = report.dropped.iter().sum::<u64>() + report.nic.rx_missed;
            losses.received.store(report.seen + report.nic.rx_missed, Ordering::Relaxed);
            losses.dropped.store(dropped, Ordering::Relaxed);
        }
    }

    /// Says once of each worker that could not be kept on its CPU.
    pub fn unpinned(&self) -> Option<String> {
        let unpinned =
            |(_, shared): &(usize, &Arc<worker::Shared>)| shared.unpinned.swap(false, Ordering::Relaxed);
        let workers: Vec<String> =
            self.shared.iter().enumerate().filter(unpinned).map(|(number, _)| number.to_string()).collect();
        (!workers.is_empty()).then(|| {
            format!(
                "worker {}: can't be kept on a CPU of its own, and will be slower at times",
                workers.join(", ")
            )
        })
    }
}

/// Whether packets are to change hands between these workers.
pub fn redispatches(config: &Config, layout: &Layout, taken: &Taken) -> bool {
    let kept_together = match &taken.ports[..] {
        [port] => port.symmetric() == Some(true) && layout.workers <= taken.queues.len(),
        // Each tap brings one direction.
        _ => false,
    };
    layout.workers > 1
        && match config.redispatch {
            Redispatch::Auto => !kept_together,
            Redispatch::On => true,
            Redispatch::Off => false,
        }
}

/// What workers are made of.
pub struct Parts<'a> {
    pub config: &'a Config,
    pub layout: &'a Layout,
    pub clock: &'a Arc<CaptureClock>,
    pub rules: &'a Arc<RuleSet>,
    pub rows: Rows,
    pub redispatch: bool,
}

impl Parts<'_> {
    /// # Errors
    /// Failed: no more files can be opened.
    pub fn build(
        self,
        queues: Vec<(usize, Queue)>,
        recorders: Vec<Option<Recorder>>,
    ) -> Result<Built, Failure> {
        let failed = |error| Failure::failed(format!("waiting for packets can't be set up: {error}"));
        let workers = self.layout.workers;
        let near = |worker: usize, work: &mut dyn FnMut()| on_core(self.layout.core_of(worker), work);
        let mut joints: Vec<Option<Ends>> = match self.redispatch {
            true => ends(workers, near).map_err(failed)?.into_iter().map(Some).collect(),
            false => (0..workers).map(|_| None).collect(),
        };
        let interfaces = interfaces(&queues);
        let mut own: Vec<Vec<(usize, Queue)>> = (0..workers).map(|_| Vec::new()).collect();
        for (number, queue) in queues.into_iter().enumerate() {
            own[self.layout.worker_of(number)].push(queue);
        }
        let splits = (workers > 1).then(|| Arc::new(SplitTable::new()));
        let mut maker =
            Maker { parts: self, splits, told: BTreeSet::new(), built: Built::default(), slow_memory: false };
        for (number, (mut queues, recorder)) in own.into_iter().zip(recorders).enumerate() {
            let joint = joints[number].take();
            on_core(maker.parts.layout.core_of(number), || match (queues.pop(), joint) {
                (Some((port, queue)), None) if queues.is_empty() => maker.add(queue, &[port], recorder),
                (last, joint) => {
                    queues.extend(last);
                    let number = |(port, source)| Numbered {
                        source,
                        interface: port as u16,
                        all: Arc::clone(&interfaces),
                    };
                    let queues = queues.into_iter().map(number).collect();
                    let clock = Some(Arc::clone(maker.parts.clock));
                    let lane = Lane::new(queues, joint, clock, &interfaces);
                    let ports: Vec<usize> = (0..interfaces.len()).collect();
                    maker.add(lane, &ports, recorder)
                }
            })
            .map_err(failed)?;
        }
        if maker.slow_memory {
            term::note(
                "the kernel does not give the history's memory at once: packets will wait for it, piece by piece",
            );
        }
        maker.built.interfaces = interfaces.to_vec();
        Ok(maker.built)
    }
}

/// Of each port what its first queue says.
fn interfaces(queues: &[(usize, Queue)]) -> Arc<[Interface]> {
    let mut all: Vec<Interface> = Vec::new();
    for (port, queue) in queues {
        if *port == all.len() {
            all.extend_from_slice(queue.interfaces());
        }
    }
    all.into()
}

/// Which ended flows somebody reads of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    None,
    /// Those in trouble.
    Found,
    All,
}

impl Rows {
    /// For `--flows`, and for those who ask through the HTTP interface.
    pub fn wanted(flows: bool, shown: bool) -> Rows {
        match (flows, shown) {
            (true, _) => Rows::All,
            (false, true) => Rows::Found,
            (false, false) => Rows::None,
        }
    }
}

/// Workers being made, one after the other.
struct Maker<'a> {
    parts: Parts<'a>,
    splits: Option<Arc<SplitTable>>,
    /// Ports whose losses a worker tells the capture files; adding up what two of them say would double them.
    told: BTreeSet<usize>,
    built: Built,
    slow_memory: bool,
}

impl Maker<'_> {
    /// A worker over a source whose interfaces are these ports.
    fn add<S: LiveSource + Send + 'static>(
        &mut self,
        source: S,
        ports: &[usize],
        recorder: Option<Recorder>,
    ) -> std::io::Result<()> {
        let Parts { config, layout, rules, rows, .. } = self.parts;
        let number = self.built.threads.len();
        let queues = Queues::new(config.worker.messages, rows != Rows::None);
        let queues = if rows == Rows::Found { queues.only_found() } else { queues };
        let losses = ports.iter().enumerate().filter(|(_, port)| self.told.insert(**port));
        let losses = losses.map(|(interface, &port)| worker::Losses::new(interface as u16, port)).collect();
        let shared = Arc::new(worker::Shared::new(losses));
        let waiter = worker::Waiter::new(&source)?;
        self.built.chunks += recorder.as_ref().map_or(0, Recorder::free_chunks);
        let id = u16::try_from(number).expect("there are at most 256 workers");
        let mut worker = Worker::new(source, &config.worker, Arc::clone(rules), queues.clone(), recorder, id);
        self.slow_memory |= !worker.populate();
        if let Some(splits) = &self.splits {
            worker.compare_flows(Arc::clone(splits));
        }
        let core = layout.core_of(number);
        let thread = worker::Thread { worker, waiter, core, shared: Arc::clone(&shared) };
        self.built.threads.push(Box::new(move || thread.run()));
        self.built.lanes.push(judge::Lane::new(queues, shared));
        Ok(())
    }
}

impl Built {
    pub fn handovers(&self) -> Vec<Arc<Handover>> {
        self.lanes.iter().map(|lane| Arc::clone(&lane.queues.handover)).collect()
    }

    pub fn demands(&self) -> Vec<Arc<DemandBox>> {
        self.lanes.iter().map(|lane| Arc::clone(&lane.queues.demands)).collect()
    }

    pub fn spawn(
        self,
        rules: &Arc<RuleSet>,
        config: &JudgeConfig,
        control: &control::Handle,
    ) -> Result<Threads, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("no thread can be made: {error}"));
        let (outbox, inbox) = sync_channel(OUTBOX);
        let asked = Arc::new(AtomicBool::new(false));
        let judged = Arc::new(AtomicU64::new(0));
        let shared = self.lanes.iter().map(|lane| Arc::clone(&lane.shared)).collect();
        let judge = Judge::new(Arc::clone(rules), config.clone());
        let judge =
            judge::Thread::new(judge, self.lanes, control, outbox, Arc::clone(&asked), Arc::clone(&judged));
        let judge = thread::Builder::new().name("judge".to_owned()).spawn(|| judge.run()).map_err(failed)?;
        let mut workers = Vec::new();
        for (number, body) in self.threads.into_iter().enumerate() {
            let builder = thread::Builder::new().name(format!("worker-{number}"));
            workers.push(builder.spawn(body).map_err(failed)?);
        }
        Ok(Threads { workers, judge, shared, inbox, asked, judged, chunks: self.chunks })
    }
}
