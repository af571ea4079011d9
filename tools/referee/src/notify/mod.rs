//! Telling others of incidents: lines to a file, standard output or the system's log, and requests to webhooks.
//!
//! Main hands each incident in as it opens and closes, and never waits: a queue that is full is a counted drop. Lines are
//! written on one thread, webhooks told on another, since either may hang. Nothing here is in the way of a packet, and no
//! worker, judge or writer knows of it.

pub mod account;
mod eve;
mod limit;
mod lines;
mod reach;
#[cfg(test)]
pub mod tests;
mod try_out;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::judge::Incident;
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::SIGHUP;
use tokio::sync::watch;

use crate::access;
use crate::config::notify::{FileConfig, NotifyConfig, Wanted, WebhookConfig};
use crate::error::Failure;
use account::{Counts, Told};
use eve::Form;
use limit::Limit;
use lines::{LogFile, Out, Sink, Syslog};
pub use reach::out_of_reach;
pub use try_out::{NotifyCommand, try_out};
use webhook::queue::Queue;
use webhook::{Hook, Pace};

/// Lines that may wait for their thread.
const WAITING: usize = 1024;
/// How long what waits at the end may take to be told.
const PATIENCE: Duration = Duration::from_secs(5);

/// How an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Closed,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Closed => "closed",
        }
    }
}

/// News.
#[derive(Clone, Debug)]
pub struct Note {
    pub state: State,
    pub incident: Incident,
}

/// What people should hear of it, on its way to main.
#[derive(Clone, Debug)]
pub struct Said(Sender<String>);

impl Said {
    fn say(&self, what: String) {
        // Main has gone: nobody is left to hear it.
        let _ = self.0.send(what);
    }
}

/// Everything opened, before there are threads.
pub struct Prepared {
    wanted: Wanted,
    sinks: Vec<Sink>,
    form: Form,
    hooks: Vec<Hook>,
    to_stdout: bool,
    patience: Duration,
}

impl Prepared {
    /// Opens what is to be written to and reads what is to be sent along; `None` if nobody is to be told. `stdout` is
    /// taken already.
    ///
    /// # Errors
    /// Usage: a file that can't be opened or read, standard output for two purposes. Failed: no socket, no signals.
    pub fn new(config: &NotifyConfig, stdout: bool) -> Result<Option<Prepared>, Failure> {
        if config.is_empty() {
            return Ok(None);
        }
        let (prepared, refused) = Prepared::some(config, stdout, Pace::default(), PATIENCE);
        refused.into_iter().next().map_or(Ok(Some(prepared)), |(_, failure)| Err(failure))
    }

    /// Opens what can be opened; and who can't be told at all, by name, and why.
    fn some(
        config: &NotifyConfig,
        stdout: bool,
        pace: Pace,
        patience: Duration,
    ) -> (Prepared, Vec<(String, Failure)>) {
        let mut refused = Vec::new();
        let sinks = sinks(config, stdout);
        let hook = |hook: &WebhookConfig| (hook.name.clone(), Hook::new(hook, config.page.clone(), pace));
        let hooks: Vec<(String, Result<Hook, Failure>)> = config.webhooks.iter().map(hook).collect();
        let prepared = Prepared {
            wanted: config.wanted.clone(),
            sinks: opened(sinks, &mut refused),
            form: Form { event_type: config.event_type, host: host_name(), in_iface: None },
            hooks: opened(hooks, &mut refused),
            to_stdout: config.stdout.is_some(),
            patience,
        };
        (prepared, refused)
    }

    /// Standard output belongs to it.
    pub fn to_stdout(&self) -> bool {
        self.to_stdout
    }

    /// Where the packets come from.
    pub fn captures_from(mut self, interfaces: &[String]) -> Prepared {
        self.form.in_iface = match interfaces {
            [one] => Some(one.clone()),
            _ => None,
        };
        self
    }

    /// # Errors
    /// Failed: no thread or no runtime can be made.
    pub fn spawn(self) -> Result<Notify, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("notify: no thread can be made: {error}"));
        let (said, heard) = channel();
        let said = Said(said);
        let (done, finished) = channel();
        let mut notify = Notify {
            wanted: self.wanted,
            lines: None,
            sinks: Vec::new(),
            hooks: self.hooks.iter().map(|hook| (hook.name.clone(), Arc::clone(&hook.queue))).collect(),
            over: watch::channel(false).0,
            heard,
            finished,
            threads: 0,
            patience: self.patience,
        };
        if !self.sinks.is_empty() {
            let (sender, inbox) = sync_channel(WAITING);
            notify.lines = Some(sender);
            notify.sinks = self.sinks.iter().map(|sink| (sink.name, Arc::clone(&sink.counts))).collect();
            let (said, done) = (said.clone(), done.clone());
            let body = move || {
                lines::run(self.sinks, &inbox, &self.form, &said);
                let _ = done.send(());
            };
            thread::Builder::new().name("notify".to_owned()).spawn(body).map_err(failed)?;
            notify.threads += 1;
        }
        if !self.hooks.is_empty() {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_io().enable_time().max_blocking_threads(4);
            let runtime = runtime.build().map_err(failed)?;
            let over = notify.over.subscribe();
            let body = move || {
                runtime.block_on(webhook::run(self.hooks, over, self.patience, &said));
                let _ = done.send(());
                // A name that is being looked up is not waited for.
                runtime.shutdown_background();
            };
            thread::Builder::new().name("webhook".to_owned()).spawn(body).map_err(failed)?;
            notify.threads += 1;
        }
        Ok(notify)
    }
}

/// Those that could be opened.
fn opened<T>(all: Vec<(String, Result<T, Failure>)>, refused: &mut Vec<(String, Failure)>) -> Vec<T> {
    let mut open = Vec::new();
    for (name, one) in all {
        match one {
            Ok(one) => open.push(one),
            Err(failure) => refused.push((name, failure)),
        }
    }
    open
}

fn sinks(config: &NotifyConfig, stdout: bool) -> Vec<(String, Result<Sink, Failure>)> {
    let mut sinks = Vec::new();
    let mut add = |name: &'static str, out: Result<Out, Failure>, per_minute| {
        let (limit, counts) = (Limit::new(per_minute), Arc::new(Counts::default()));
        sinks.push((name.to_owned(), out.map(|out| Sink { name, out, limit, counts, failing: false })));
    };
    if let Some(file) = &config.file {
        add("file", log_file(file), file.per_minute);
    }
    if let Some(out) = &config.stdout {
        let taken = "[notify.stdout]: other output goes to standard output already";
        let free = match stdout {
            true => Err(Failure::usage(taken).help("let one of the two go to a file")),
            false => Ok(Out::Stdout),
        };
        add("stdout", free, out.per_minute);
    }
    if let Some(syslog) = &config.syslog {
        let socket = Syslog::new(syslog)
            .map_err(|error| Failure::failed(format!("notify: no socket can be made: {error}")));
        add("syslog", socket.map(Out::Syslog), syslog.per_minute);
    }
    sinks
}

fn log_file(file: &FileConfig) -> Result<Out, Failure> {
    let reopen = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&reopen))
        .map_err(|error| Failure::failed(format!("signals can't be listened to: {error}")))?;
    LogFile::open(&file.path, reopen).map(Out::File).map_err(|error| {
        let what = format!("[notify.file] {}: can't be opened: {error}", file.path.display());
        Failure::usage(what).help(access::own_folder(&file.path, &error))
    })
}

/// Main's end.
pub struct Notify {
    wanted: Wanted,
    lines: Option<SyncSender<Arc<Note>>>,
    sinks: Vec<(&'static str, Arc<Counts>)>,
    hooks: Vec<(String, Arc<Queue>)>,
    over: watch::Sender<bool>,
    heard: Receiver<String>,
    finished: Receiver<()>,
    threads: usize,
    patience: Duration,
}

impl Notify {
    /// An incident has opened or closed. Returns at once.
    pub fn tell(&self, state: State, incident: &Incident) {
        if wants(&self.wanted, state, incident) {
            self.hand_on(&Arc::new(Note { state, incident: incident.clone() }));
        }
    }

    fn hand_on(&self, note: &Arc<Note>) {
        if let Some(lines) = &self.lines {
            self.sinks.iter().for_each(|(_, counts)| counts.put());
            if lines.try_send(Arc::clone(note)).is_err() {
                self.sinks.iter().for_each(|(_, counts)| {
                    counts.taken();
                    counts.dropped(1);
                });
            }
        }
        self.hooks.iter().for_each(|(_, queue)| queue.put(note));
    }

    /// What there is to say since the last call.
    pub fn news(&self) -> Vec<String> {
        self.heard.try_iter().collect()
    }

    pub fn account(&self) -> Vec<Told> {
        let sinks = self.sinks.iter().map(|(name, counts)| counts.told(name));
        sinks.chain(self.hooks.iter().map(|(name, queue)| queue.counts.told(name))).collect()
    }

    /// Nothing more comes: what waits is told within [`PATIENCE`], the rest is dropped. There may be news after it.
    pub fn finish(&mut self) -> Vec<Told> {
        self.lines = None;
        self.hooks.iter().for_each(|(_, queue)| queue.close());
        let _ = self.over.send(true);
        // A little more than the webhooks have, so that they end by themselves.
        let until = Instant::now() + self.patience + Duration::from_secs(1);
        for _ in 0..std::mem::take(&mut self.threads) {
            let _ = self.finished.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
        self.sinks.iter().for_each(|(_, counts)| counts.give_up());
        self.account()
    }
}

/// One that turned out to be none is taken back wherever it was told.
fn wants(wanted: &Wanted, state: State, incident: &Incident) -> bool {
    let state = match state {
        State::Open => wanted.open,
        State::Closed => wanted.closed || (incident.withdrawn && wanted.open),
    };
    let kind = wanted.kinds.is_empty() || wanted.kinds.contains(&incident.kind);
    state && kind && incident.severity >= wanted.min_severity
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(name.trim()).filter(|name| !name.is_empty()).unwrap_or("referee").to_owned()
}

/// By a clock that nobody sets, for limits.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs().saturating_mul(1000) + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Since the epoch.
fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    u64::try_from(now).unwrap_or(u64::MAX)
}
