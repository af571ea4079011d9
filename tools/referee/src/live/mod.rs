//! `referee run`: live interfaces through the same worker that replays files.
//!
//! Main thread. Sets up in the order that fails early and harmlessly: settings and rules, then the interfaces,
//! then the store and all memory; lets packets come; gives up its privileges; only then spawns the other threads.
//! `supervise` does the rest, until it is told to stop.

mod build;
mod desk;
mod judge;
pub mod layout;
mod links;
mod memory;
mod metrics;
pub mod mode;
pub mod owner;
mod pace;
mod privileges;
pub mod publish;
pub mod service;
mod settle;
pub mod signals;
mod status;
mod supervise;
mod watch;
mod worker;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dataplane::record::Recorder;
use dataplane::source::afpacket::{PacketSettings, PacketTap};
use dataplane::source::afxdp::{CaptureClock, LARGEST_MTU, Tap, TapError, TapSettings};
use dataplane::source::live::{Port, Queue};
use dataplane::source::nic::Nic;
use dataplane_sys::ethtool;

use crate::api::Api;
use crate::cli::RunArgs;
use crate::config::{Config, DEFAULT_PATH};
use crate::control::demands::Means;
use crate::control::socket::{self, Socket};
use crate::control::{self, last_good};
use crate::error::{Code, Failure};
use crate::filter;
use crate::notify;
use crate::recording::Prepared;
use crate::report::outputs::{Kind, Outputs};
use crate::report::tell;
use crate::rules::load::Origin;
use crate::term;
use build::{Parts, Rows, Taken, redispatches};
use layout::{Layout, Wanted};
use mode::{Mode, ZeroCopyArg};

/// Packet ids in a store have 8 bits for the worker.
const WORKERS: usize = 256;

/// Captures.
///
/// # Errors
/// Usage: arguments, settings, rules, or an interface that is in use. Privilege: no right to capture, or no such
/// interface. Failed: an output, the store, or the books.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    agree(args)?;
    let hangups = signals::hangups()?;
    let path = settings_path(args);
    let config = settings(path.as_deref())?;
    let store = args.common.store.as_deref().or(config.store_dir.as_deref()).map(Path::to_path_buf);
    let origin = Origin::new(args.common.rules.as_deref(), &config, &args.common.set);
    let keep = last_good::folder(&config, store.as_deref());
    let start = last_good::start(&origin, keep.as_deref())?;
    let rules = Arc::clone(&start.rules);
    let outputs = Outputs::open(&args.outputs, args.json, &[])?;
    let clock = Arc::new(CaptureClock::sampled());
    let interfaces = interfaces(args, &config)?;
    let layout = lay_out(args, &config, &interfaces)?;
    layout.settle();
    let mut taken = open_ports(args, &config, &interfaces, &clock, &layout)?;
    let redispatch = redispatches(&config, &layout, &taken);
    tell_workers(&taken, layout.workers, redispatch);
    // From here on files are made.
    owner::settle(store.as_deref(), &args.socket, &config)?;
    let notify = privileges::without(|| notify::Prepared::new(&config.notify, outputs.to_stdout()))?;
    let (prepared, recorders) = prepare(store.as_deref(), &config, layout.workers)?;
    let signals = signals::Signals::listen()?;
    let (api, board) = publish::prepare(&config, &args.socket)?.unzip();
    let rows = Rows::wanted(outputs.wants(Kind::Flows), board.is_some());
    let parts = Parts { config: &config, layout: &layout, clock: &clock, rules: &rules, rows, redispatch };
    let mut built = parts.build(std::mem::take(&mut taken.queues), recorders)?;
    let mut ports = taken.ports;
    privileges::without(|| probe(prepared.as_ref(), &outputs))?;
    tell_unreadable(&origin, &start);
    let asked =
        control::Asked { config: path, rules: args.common.rules.clone(), set: args.common.set.clone() };
    let control = control::Prepared::new(asked, origin, keep, listen(&args.socket)?, hangups)?;
    settle::links(&ports, &signals);
    ports.iter_mut().try_for_each(Port::begin).map_err(refused)?;
    privileges::give_up()?;
    let recording = prepared.map(Prepared::start_live).transpose()?;
    let quiet = outputs.to_stdout() || notify.as_ref().is_some_and(notify::Prepared::to_stdout);
    let notify = notify.map(|notify| notify.captures_from(&interfaces).spawn()).transpose()?;
    let interfaces = std::mem::take(&mut built.interfaces);
    let means = Means::new(store.as_deref(), &interfaces, built.demands(), config.demand_bytes);
    let control = control.spawn(start, built.handovers(), means, signals.stop())?;
    let threads = built.spawn(&rules, &config.judge, &control)?;
    let api = api
        .zip(board.clone())
        .map(|(api, board)| publish::spawn(api, board, store.clone(), interfaces, &control))
        .transpose()?;
    let run = supervise::Run {
        ports,
        clock,
        threads,
        recording,
        outputs,
        signals,
        duration: args.duration.map(Duration::from_secs_f64),
        store: store.clone(),
        quiet,
        notify,
        metrics: metrics::Metrics::new(control.ticking, board.as_ref().map(|board| board.requests())),
        control,
        board,
    };
    let done = run.supervise();
    api.into_iter().for_each(Api::stop);
    let failure = done.failure;
    tell(done.finished, done.outputs, done.tally, &done.rules, store.as_deref())?;
    failure.map_or(Ok(()), Err)
}

/// Whether what was asked for goes together.
fn agree(args: &RunArgs) -> Result<(), Failure> {
    if args.mode == Mode::Afpacket && args.zero_copy == ZeroCopyArg::Require {
        let what = "--mode afpacket copies packets: --zero-copy require can't be had";
        return Err(Failure::usage(what).help("leave out one of the two"));
    }
    if args.mode == Mode::Afpacket && args.steal {
        term::note(
            "--steal takes nothing with --mode afpacket: a packet socket has copies, and the host all it had before",
        );
    }
    Ok(())
}

/// Whether all can be written to by whoever this is now.
fn probe(store: Option<&Prepared>, outputs: &Outputs) -> Result<(), Failure> {
    store.map_or(Ok(()), Prepared::probe)?;
    outputs.probe()
}

/// Rules that can be read now may be out of reach without privileges.
fn tell_unreadable(origin: &Origin, start: &last_good::Start) {
    if start.errors.is_empty()
        && let Err(failure) = privileges::without(|| origin.files())
    {
        term::note(&format!("other rules can't be loaded once privileges are given up: {}", failure.message));
    }
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

/// Those to capture from, each once: the command line's, else those of the settings.
fn interfaces(args: &RunArgs, config: &Config) -> Result<Vec<String>, Failure> {
    let named = if args.interface.is_empty() { &config.interfaces } else { &args.interface };
    let mut seen = BTreeSet::new();
    let each: Vec<String> = named.iter().filter(|name| seen.insert(name.as_str())).cloned().collect();
    match each.is_empty() {
        false => Ok(each),
        true => Err(Failure::usage("no interface to capture from is named").help(
            "name the mirror port: -i IFACE, or interfaces = [\"IFACE\"] in [capture] of referee.toml",
        )),
    }
}

/// Before any interface is touched; one that isn't there is found out when it is to be taken.
fn lay_out(args: &RunArgs, config: &Config, interfaces: &[String]) -> Result<Layout, Failure> {
    let wanted = interfaces.iter().map(|name| Wanted {
        queues: match args.mode {
            Mode::Afpacket => 1,
            Mode::Auto | Mode::Xdp => ethtool::receive_queues(name).map_or(1, |queues| queues as usize),
        },
        local: layout::local_cores(name),
    });
    let wanted: Vec<Wanted> = wanted.collect();
    let layout = Layout::new(config, &wanted)?;
    if layout.workers > WORKERS {
        let what = format!("{} workers are too many; there can be {WORKERS} at once", layout.workers);
        return Err(Failure::usage(what).help("set [capture] workers"));
    }
    let queues = wanted.iter().map(|port| port.queues).sum();
    memory::check(config, args.mode, layout.workers, queues)?;
    Ok(layout)
}

/// Takes every interface named, all or none.
fn open_ports(
    args: &RunArgs,
    config: &Config,
    interfaces: &[String],
    clock: &Arc<CaptureClock>,
    layout: &Layout,
) -> Result<Taken, Failure> {
    xdp_prog::silence();
    let settings = TapSettings {
        zero_copy: args.zero_copy.into(),
        ring: config.ring_packets,
        busy_poll: config.busy_poll,
        steal: args.steal,
        filter: args.common.filter.for_interfaces()?,
        rss: config.rss,
        clock: config.clock,
    };
    let (mut ports, mut sources) = (Vec::new(), Vec::new());
    for name in interfaces {
        let nic = Nic::find(name).map_err(|error| not_there(name, &error))?;
        let first = sources.len();
        let near = |queue: u32| layout.core_of(layout.worker_of(first + queue as usize));
        let (port, queues) = match args.mode {
            Mode::Afpacket => listen_to(
                nic,
                PacketSettings { ring_mib: config.packet_ring_mib, filter: settings.filter.clone() },
            )?,
            Mode::Auto | Mode::Xdp => take(nic, &settings, clock, &near)?,
        };
        term::note(&format!("{name}: {port}"));
        port.compromises().iter().for_each(|what| term::note(what));
        tell_hash(&port, queues.len());
        sources.extend(queues.into_iter().map(|queue| (ports.len(), queue)));
        ports.push(port);
    }
    Ok(Taken { ports, queues: sources })
}

/// How an interface spreads connections over its queues.
fn tell_hash(port: &Port, queues: usize) {
    let Some(rss) = port.rss() else { return };
    let name = &port.nic().name;
    if queues > 1 {
        term::note(&format!("{name}: {queues} queues, {rss}"));
    }
    if let Some(undo) = rss.undo_words() {
        term::note(&format!(
            "{name}: its hash was changed and stays so after this run; to have it as it was: {undo}"
        ));
    }
}

/// Who polls what, where that isn't one worker and one queue.
fn tell_workers(taken: &Taken, workers: usize, redispatch: bool) {
    let queues = taken.queues.len();
    if queues.max(workers) == 1 {
        return;
    }
    let names: Vec<&str> = taken.ports.iter().map(|port| port.nic().name.as_str()).collect();
    let who = format!(
        "{}: {} and {}",
        names.join(" "),
        term::plural(queues as u64, "queue"),
        term::plural(workers as u64, "worker")
    );
    term::note(&match (workers, redispatch) {
        (1, _) => format!("{who}: all flows are in one view"),
        (_, true) => format!(
            "{who}: both directions of a connection may reach different queues, so the workers hand each other the \
             packets that are theirs ([capture] redispatch)"
        ),
        (_, false) => format!(
            "{who}, which hand each other nothing: a connection whose two directions reach different workers is analysed \
             as two halves, and counted (flows_split)"
        ),
    });
}

/// By XDP, which takes the packets away from the kernel.
fn take(
    nic: Nic,
    settings: &TapSettings,
    clock: &Arc<CaptureClock>,
    near: &dyn Fn(u32) -> Option<usize>,
) -> Result<(Port, Vec<Queue>), Failure> {
    let (tap, queues) = Tap::open_near(nic, settings, clock, near).map_err(refused)?;
    Ok((Port::Xdp(Box::new(tap)), queues.into_iter().map(|queue| Queue::Xdp(Box::new(queue))).collect()))
}

/// By a packet socket, which leaves them to it.
fn listen_to(nic: Nic, settings: PacketSettings) -> Result<(Port, Vec<Queue>), Failure> {
    let (tap, queue) = PacketTap::open(nic, settings).map_err(refused)?;
    Ok((Port::Packet(Box::new(tap)), vec![Queue::Packet(Box::new(queue))]))
}

/// There is no such interface.
pub fn not_there(name: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Code::Privilege, format!("there is no interface {name}: {error}"));
    failure.help("ip -brief link lists those of this network namespace")
}

/// What stands in the way, and what to do about it.
fn refused(error: TapError) -> Failure {
    if let TapError::Filter(error) = &error {
        return filter::failure(error);
    }
    let code = match &error {
        TapError::InUse { .. } => Code::Usage,
        _ => Code::Privilege,
    };
    let help = match &error {
        error if error.is_privilege() => {
            "capturing needs root, or the capabilities net_admin, net_raw, bpf, perfmon and ipc_lock".to_owned()
        }
        TapError::NotEthernet { .. } => {
            "name a mirror port or another Ethernet interface; --mode afpacket also captures from some others".to_owned()
        }
        TapError::NoLinkType { .. } => "name the interface below it".to_owned(),
        TapError::Down { interface } => format!("ip link set {interface} up"),
        TapError::InUse { .. } => {
            "name an interface that only receives mirrored traffic; or let its traffic be and capture copies of it with \
             --mode afpacket; or add --steal if it is to go silent"
                .to_owned()
        }
        TapError::Occupied { interface, .. } => format!(
            "see whose it is: bpftool prog, bpftool link, ip link show {interface}; stop it there, or capture elsewhere"
        ),
        TapError::NoZeroCopy { .. } => "--zero-copy prefer captures in copy mode where it must".to_owned(),
        TapError::Attach { interface, .. } => {
            format!(
                "a smaller MTU may help, of which packets come in one part: ip link set {interface} mtu {LARGEST_MTU}; \
                 dmesg may say more"
            )
        }
        TapError::Socket(_) => {
            "is another program capturing from it? Otherwise lower [capture] ring_packets, or raise the limit on \
             locked memory: ulimit -l"
                .to_owned()
        }
        TapError::Load(_) => "the kernel must be Linux 5.19 or later with BPF and AF_XDP".to_owned(),
        TapError::Interface { .. } | TapError::Filter(_) => return Failure::new(code, error),
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
