//! `referee run`: live interfaces through the same worker that replays files.
//!
//! Main thread. Sets up in the order that fails early and harmlessly: settings and rules, then the interfaces,
//! then the store and all memory; lets packets come; gives up its privileges; only then spawns the other threads.
//! `supervise` does the rest, until it is told to stop.

mod judge;
mod metrics;
mod privileges;
mod settle;
mod signals;
mod status;
mod supervise;
mod worker;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dataplane::config::WorkerConfig;
use dataplane::judge::{Judge, JudgeConfig};
use dataplane::record::Recorder;
use dataplane::source::Source as _;
use dataplane::source::afxdp::{CaptureClock, Tap, TapError, TapSettings};
use dataplane::source::live::{Port, Queue};
use dataplane::source::nic::Nic;
use dataplane::worker::{Handover, Queues, Worker};
use rules::RuleSet;

use crate::cli::{Mode, RunArgs};
use crate::config::{Config, DEFAULT_PATH};
use crate::control::socket::{self, Socket};
use crate::control::{self, last_good};
use crate::error::{Code, Failure};
use crate::recording::Prepared;
use crate::report::outputs::{Kind, Outputs};
use crate::report::tell;
use crate::rules::load::Origin;
use crate::term;
use judge::{Told, Verdicts};

/// Incidents and rows that may wait for main.
const OUTBOX: usize = 1 << 16;
/// Queues at most: packet ids in a store have 8 bits for the worker.
const WORKERS: usize = 256;

/// Captures.
///
/// # Errors
/// Usage: arguments, settings, rules, or an interface that is in use. Privilege: no right to capture, or no such
/// interface. Failed: an output, the store, or the books.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    if args.mode == Mode::Afpacket {
        let what = "--mode afpacket: capturing with AF_PACKET is not there yet";
        return Err(Failure::usage(what).help("leave --mode out, and give a mirror port to -i"));
    }
    let path = settings_path(args);
    let config = settings(path.as_deref())?;
    let store = args.common.store.as_deref().or(config.store_dir.as_deref()).map(Path::to_path_buf);
    let origin = Origin::new(args.common.rules.as_deref(), &config, &args.common.set);
    let keep = last_good::folder(&config, store.as_deref());
    let start = last_good::start(&origin, keep.as_deref())?;
    let rules = Arc::clone(&start.rules);
    let outputs = Outputs::open(&args.outputs, args.json, &[])?;
    let clock = Arc::new(CaptureClock::sampled());
    let (mut ports, sources) = open_ports(args, &config, &clock)?;
    let (prepared, recorders) = prepare(store.as_deref(), &config, sources.len())?;
    let signals = signals::Signals::listen()?;
    let built = build(sources, recorders, &config, &rules, outputs.wants(Kind::Flows))?;
    // As it will be written to; from the next line on packets are taken.
    prepared.as_ref().map(|prepared| privileges::without(|| prepared.probe())).transpose()?;
    privileges::without(|| outputs.probe())?;
    if start.errors.is_empty()
        && let Err(failure) = privileges::without(|| origin.files())
    {
        term::note(&format!("other rules can't be loaded once privileges are given up: {}", failure.message));
    }
    let asked =
        control::Asked { config: path, rules: args.common.rules.clone(), set: args.common.set.clone() };
    let control = control::Prepared::new(asked, origin, keep, listen(&args.socket)?)?;
    settle::links(&ports, &signals);
    ports.iter_mut().try_for_each(Port::begin).map_err(refused)?;
    privileges::give_up()?;
    let recording = prepared.map(Prepared::start).transpose()?;
    let control = control.spawn(start, built.handovers(), signals.stop())?;
    let threads = built.spawn(&rules, &config.judge, &control)?;
    let run = supervise::Run {
        ports,
        clock,
        threads,
        recording,
        outputs,
        signals,
        duration: args.duration.map(Duration::from_secs_f64),
        store: store.clone(),
        metrics: metrics::Metrics::new(control.ticking),
        control,
    };
    let done = run.supervise();
    let failure = done.failure;
    tell(done.finished, done.outputs, done.tally, &done.rules, store.as_deref())?;
    failure.map_or(Ok(()), Err)
}

/// `--config`, or the settings of the installed program if there are any.
fn settings_path(args: &RunArgs) -> Option<PathBuf> {
    let installed = Path::new(DEFAULT_PATH);
    let path = args.common.config.as_deref().or(installed.exists().then_some(installed));
    path.map(Path::to_path_buf)
}

/// The socket of the control thread. Where none was asked for, a run can do without.
fn listen(path: &Path) -> Result<Option<Socket>, Failure> {
    match Socket::bind(path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if path == Path::new(socket::DEFAULT_PATH) => {
            term::note(&format!(
                "{}: {error}; `referee status` and `referee rules reload` can't reach this run (--socket PATH names \
                 another place)",
                path.display()
            ));
            Ok(None)
        }
        Err(error) => {
            let what = format!("--socket {}: {error}", path.display());
            Err(Failure::usage(what).help("name a path that can be made, and that no other run listens at"))
        }
    }
}

fn settings(path: Option<&Path>) -> Result<Config, Failure> {
    let mut config = Config::load(path)?;
    config.worker.lossless_at_end = true;
    config.worker.time_guards = true;
    let mut secret = [0; 8];
    // Without a random key somebody could aim at one bucket of the flow table; it has no other use.
    if rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty()).is_ok() {
        config.worker.hash_secret = u64::from_ne_bytes(secret);
    }
    config.judge.body_limits.deadline = Some(config.body_deadline);
    Ok(config)
}

/// Takes every interface named, all or none.
fn open_ports(
    args: &RunArgs,
    config: &Config,
    clock: &Arc<CaptureClock>,
) -> Result<(Vec<Port>, Vec<Queue>), Failure> {
    xdp_prog::silence();
    let settings = TapSettings {
        zero_copy: args.zero_copy.into(),
        ring: config.ring_packets,
        steal: args.steal,
        rss: config.rss,
        clock: config.clock,
    };
    let (mut ports, mut sources) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for name in args.interface.iter().filter(|name| names.insert(name.as_str())) {
        let nic = Nic::find(name).map_err(|error| not_there(name, &error))?;
        let (tap, queues) = Tap::open(nic, &settings, clock).map_err(refused)?;
        term::note(&format!("{name}: {tap}"));
        tap.compromises().iter().for_each(|what| term::note(what));
        if queues.len() > 1 {
            term::note(&format!("{name}: {} queues, {}", queues.len(), tap.rss()));
        }
        if tap.rss().symmetric() != Some(true) {
            term::note(&format!(
                "{name}: {} queues, a worker each. A connection whose two directions reach different queues is \
                 analysed as two halves; [capture] rss = \"set\" makes the hash symmetric where the driver can, or give it \
                 one queue before you start: ethtool -L {name} combined 1 (or rx 1; ethtool -l {name} shows which it has)",
                queues.len()
            ));
        }
        if let Some(undo) = tap.rss().undo_words() {
            term::note(&format!(
                "{name}: its hash was changed and stays so after this run; to have it as it was: {undo}"
            ));
        }
        ports.push(Port::Xdp(tap));
        sources.extend(queues.into_iter().map(Queue::Xdp));
    }
    if sources.len() > WORKERS {
        let what = format!("{} queues in all are too many; {WORKERS} can be captured at once", sources.len());
        return Err(Failure::usage(what).help("lower the number of queues: ethtool -L IFACE combined N"));
    }
    Ok((ports, sources))
}

fn not_there(name: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Code::Privilege, format!("there is no interface {name}: {error}"));
    failure.help("ip -brief link lists those of this network namespace")
}

/// What stands in the way, and what to do about it.
fn refused(error: TapError) -> Failure {
    let code = match &error {
        TapError::InUse { .. } => Code::Usage,
        _ => Code::Privilege,
    };
    let help = match &error {
        error if error.is_privilege() => {
            "capturing needs root, or the capabilities net_admin, net_raw, bpf and ipc_lock".to_owned()
        }
        TapError::NotEthernet { .. } => "name a mirror port or another Ethernet interface".to_owned(),
        TapError::Down { interface } => format!("ip link set {interface} up"),
        TapError::InUse { .. } => {
            "name an interface that only receives mirrored traffic, or add --steal if it is to go silent".to_owned()
        }
        TapError::Occupied { interface, .. } => format!(
            "see whose it is: bpftool prog, ip link show {interface}; remove it there, or capture elsewhere"
        ),
        TapError::NoZeroCopy { .. } => "--zero-copy prefer captures in copy mode where it must".to_owned(),
        TapError::Attach { interface, .. } => {
            format!("a smaller MTU may help: ip link set {interface} mtu 1500; dmesg may say more")
        }
        TapError::Socket(_) => {
            "is another program capturing from it? Otherwise lower [capture] ring_packets, or raise the limit on \
             locked memory: ulimit -l"
                .to_owned()
        }
        TapError::Load(_) => "the kernel must be Linux 5.19 or later with BPF and AF_XDP".to_owned(),
        TapError::Interface { .. } => return Failure::new(code, error),
    };
    Failure::new(code, error).help(help)
}

fn prepare(
    store: Option<&Path>,
    config: &Config,
    workers: usize,
) -> Result<(Option<Prepared>, Vec<Option<Recorder>>), Failure> {
    let Some(folder) = store else {
        term::note("nothing is recorded: --store DIR keeps the packets of what is found");
        return Ok((None, (0..workers).map(|_| None).collect()));
    };
    let workers = u16::try_from(workers).expect("there are at most 256 workers");
    let (prepared, recorders) = Prepared::new(folder, &config.record, workers)?;
    Ok((Some(prepared), recorders.into_iter().map(Some).collect()))
}

/// Workers with all their memory, before they have threads.
struct Built {
    threads: Vec<worker::Thread>,
    lanes: Vec<judge::Lane>,
    chunks: usize,
}

/// Running threads, and what comes from them.
pub struct Threads {
    workers: Vec<JoinHandle<worker::Ended>>,
    judge: JoinHandle<Verdicts>,
    shared: Vec<Arc<worker::Shared>>,
    /// Interface of each worker, as index into the ports.
    ports: Vec<usize>,
    inbox: Receiver<Told>,
    /// Set, it has the judge say how things stand.
    asked: Arc<AtomicBool>,
    chunks: usize,
}

fn build(
    sources: Vec<Queue>,
    recorders: Vec<Option<Recorder>>,
    config: &Config,
    rules: &Arc<RuleSet>,
    rows: bool,
) -> Result<Built, Failure> {
    let mut built = Built { threads: Vec::new(), lanes: Vec::new(), chunks: 0 };
    let cores = worker_cores(sources.len());
    for (number, (source, recorder)) in sources.into_iter().zip(recorders).enumerate() {
        let WorkerConfig { messages, .. } = config.worker;
        let queues = Queues::new(messages, rows);
        let shared = Arc::new(worker::Shared::new());
        let waiter = worker::Waiter::new(&source)
            .map_err(|error| Failure::failed(format!("waiting for packets can't be set up: {error}")))?;
        built.chunks += recorder.as_ref().map_or(0, Recorder::free_chunks);
        let number = u16::try_from(number).expect("there are at most 256 workers");
        let mut worker =
            Worker::new(source, &config.worker, Arc::clone(rules), queues.clone(), recorder, number);
        if !worker.populate() {
            term::note(
                "the kernel does not give the history's memory at once: packets will wait for it, piece by piece",
            );
        }
        let core = cores.get(usize::from(number)).copied();
        built.threads.push(worker::Thread { worker, waiter, core, shared: Arc::clone(&shared) });
        built.lanes.push(judge::Lane::new(queues, shared));
    }
    Ok(built)
}

/// A core for each worker, from the highest down: the lowest is where the kernel does most of its work. The other
/// threads, which this one's children are, keep to the rest, if there is a rest. With more workers than cores
/// nothing is pinned.
fn worker_cores(workers: usize) -> Vec<usize> {
    let mut cores = dataplane_sys::allowed_cores().unwrap_or_default();
    let Some(rest) = cores.len().checked_sub(workers) else {
        term::note(&format!(
            "{workers} queues and {} CPUs: the workers are not kept on CPUs of their own",
            cores.len()
        ));
        return Vec::new();
    };
    if rest > 0 {
        // What the scheduler makes of it otherwise is slower, not wrong.
        let _ = dataplane_sys::pin_to_cores(&cores[..rest]);
    }
    cores.split_off(rest).into_iter().rev().collect()
}

impl Built {
    fn handovers(&self) -> Vec<Arc<Handover>> {
        self.lanes.iter().map(|lane| Arc::clone(&lane.queues.handover)).collect()
    }

    fn spawn(
        self,
        rules: &Arc<RuleSet>,
        config: &JudgeConfig,
        control: &control::Handle,
    ) -> Result<Threads, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("no thread can be made: {error}"));
        let (outbox, inbox) = sync_channel(OUTBOX);
        let asked = Arc::new(AtomicBool::new(false));
        let shared = self.lanes.iter().map(|lane| Arc::clone(&lane.shared)).collect();
        let judge = Judge::new(Arc::clone(rules), config.clone());
        let judge = judge::Thread::new(judge, self.lanes, control, outbox, Arc::clone(&asked));
        let judge = thread::Builder::new().name("judge".to_owned()).spawn(|| judge.run()).map_err(failed)?;
        let mut workers = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut ports = Vec::new();
        for (number, thread) in self.threads.into_iter().enumerate() {
            let name = thread.worker.source().interfaces()[0].name.clone();
            if names.last() != Some(&name) {
                names.push(name);
            }
            ports.push(names.len() - 1);
            let builder = thread::Builder::new().name(format!("worker-{number}"));
            workers.push(builder.spawn(|| thread.run()).map_err(failed)?);
        }
        Ok(Threads { workers, judge, shared, ports, inbox, asked, chunks: self.chunks })
    }
}
